"""The fixtures `board` and `cluster`: the example's tests on each kind, and what they say when something is wrong."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from flightsw.compute import cloud_mask
from flightsw.compute.matrix_file import encode_matrix
from flightsw.compute.matrix_product import steps_count
from flightsw.errors import ConfigError, ControlError, SimulationError
from flightsw.objects.digest import digest_of
from hil.bench.board_node import BoardNode
from hil.bench.handles import Cluster, Job
from hil.bench.run import Bench
from hil.bench.scenario import CloudMaskWorkload, NodeSpec, PortSpec, load
from hil.bench.stepped import SteppedRun
from hil.faults.plan import DiskFull, LinkOutage, NodeReset
from hil.pytest_plugin import prepare

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "tests"
OPTIONS = ("-p", "hil.pytest_plugin", "-p", "no:cacheprovider", "-c", os.devnull)


def run_pytest(*arguments, folder=ROOT):
    """pytest with our plugin alone, as a user has it."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *OPTIONS, f"--rootdir={folder}", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def own_test(folder, text):
    (folder / "test_own.py").write_text(text)
    return run_pytest("test_own.py", folder=folder)


@pytest.mark.parametrize("kind", ["simulated", pytest.param("process", marks=pytest.mark.slow)])
def test_the_example_passes_on_each_kind(kind):
    code, output = run_pytest(EXAMPLE, "--flatrack-kind", kind)
    assert code == 0, output
    assert "3 passed" in output


def test_a_scenario_that_does_not_exist_is_told_in_one_line(tmp_path):
    code, output = own_test(
        tmp_path,
        "import pytest\n@pytest.mark.flatrack('nowhere')\ndef test_it(cluster):\n    pass\n",
    )
    assert code == 1
    assert "flatrack: scenario 'nowhere': no such file, and not one of the shipped" in output
    assert "Traceback" not in output


def test_a_test_for_other_kinds_is_skipped(tmp_path):
    code, output = own_test(
        tmp_path,
        "import pytest\n@pytest.mark.flatrack(kinds=['board'])\ndef test_it(board):\n    assert False\n",
    )
    assert code == 0, output
    assert "1 skipped" in output


def test_a_broken_invariant_fails_the_test_that_saw_it(tmp_path):
    code, output = own_test(
        tmp_path,
        "def test_it(board, cluster):\n"
        "    board.wait_for_beacon()\n"
        "    cluster.bench.monitor.require(6, 5_000_000_000, False, 'a queue without end')\n",
    )
    assert code == 1
    assert "rule 6 at 5.0 s: a queue without end" in output


@pytest.fixture
def fleet():
    with SteppedRun(Bench(load("table"), 7)) as run:
        yield Cluster(run)
        assert run.end().passed


def test_a_run_ends_with_its_block_whatever_happens():
    run = SteppedRun(Bench(load("table"), 7))
    with pytest.raises(ConfigError), run:
        Cluster(run)["sat-01"].command("NO.SUCH")
    assert run.bench.loop.is_closed()


def test_a_run_that_is_asked_to_stop_is_judged_as_interrupted():
    with SteppedRun(Bench(load("table"), 7)) as run:
        run._main.cancel()  # as SIGTERM does in real time
        with pytest.raises(asyncio.CancelledError):
            Cluster(run).wait(1.0)
        outcome = run.end()
    assert outcome.interrupted
    assert not outcome.crash


def test_a_job_of_the_test_is_judged_by_nobody_where_the_scenario_has_work_of_its_own():
    workload = CloudMaskWorkload(covers=(0.5,), step_mpix=1.0, deadline_s=1200)
    with SteppedRun(Bench(msgspec.structs.replace(load("table"), workload=workload), 7)) as run:
        fleet = Cluster(run)
        fleet["sat-01"].wait_for_beacon()
        side = workload.tile_px + 16
        tile = cloud_mask.encode_tile(np.zeros((side, side, 4), np.uint16))
        job = fleet.submit(tile, deadline_s=1200).wait(1200.0)
        assert job.row["state"] == "COMPLETED", job.row
        assert cloud_mask.decode_mask(job.result()).shape == (side, side)
        outcome = run.end()
        assert outcome.passed, (outcome.violations, outcome.crash)
        assert run.bench.mosaic_rows()
    assert job.number in outcome.results
    assert outcome.counters["results_equal"] == len(outcome.results) - 1


def test_time_passes_only_when_the_test_lets_it(fleet):
    board = fleet["sat-01"]
    assert board.beacon == {}
    assert board.mode == ""
    assert fleet.now_s == 0.0
    fleet.wait(30.0)
    assert fleet.now_s == 30.0
    assert board.mode == "NOMINAL"
    with pytest.raises(SimulationError, match=r"a beacon of sat-01: not within 20 s, at T\+50 s"):
        board.wait_for_beacon(boot_count=2, within_s=20.0)


def test_a_command_that_the_node_refuses_says_why(fleet):
    fleet["sat-01"].wait_for_beacon()
    ended = fleet["sat-01"].command("JOBS.CANCEL", 99, 1)
    assert not ended.is_completed
    assert ended.detail
    with pytest.raises(ConfigError):
        fleet["sat-01"].command("NO.SUCH")


def test_a_fault_strikes_when_the_test_says_so(fleet):
    fleet["sat-01"].wait_for_beacon()
    fleet.strike(DiskFull(node="sat-01", at_s=0.0, duration_s=60.0))
    assert fleet.bench.trace.counts["fault.disk_full"] == 1
    assert fleet["sat-01"].wait_for_event("MODE.RESTRICTED").startswith("SAFE: limit rule storage_full")
    assert fleet["sat-01"].mode == "SAFE"


def test_power_is_not_taken_from_what_has_none(fleet):
    fleet["sat-01"].wait_for_beacon()
    fleet["sat-01"].cut_power(off_s=60.0)
    with pytest.raises(ConfigError, match="sat-01 is off or missing"):
        fleet["sat-01"].cut_power()


def test_a_product_of_matrices_is_asked_for_and_judged_in_virtual_time(fleet):
    fleet["sat-01"].wait_for_beacon()
    left = right = encode_matrix(np.eye(16, dtype=np.int8))
    for data in (left, right):
        fleet.ask("put_object", data)
    job = {
        "kind": "matrix_product",
        "model": digest_of(left),
        "model_bytes": len(left),
        "data": digest_of(right),
        "data_bytes": len(right),
        "steps_count": steps_count(16),
        "step_mpix": 0.5,
        "deadline_s": 600,
        "checkpoint_steps": 1,
    }
    done = Job(fleet, fleet.ask("submit", job)).wait()
    assert done.row["state"] == "COMPLETED", done.row
    assert done.result()


def test_a_question_that_the_ground_does_not_know_is_refused(fleet):
    with pytest.raises(ControlError, match="no_such: no such method, expected one of"):
        fleet.ask("no_such")


def test_a_fault_of_a_satellite_that_is_not_there_is_refused(fleet):
    with pytest.raises(ConfigError, match=r"strike.node: 'sat-99' is not in the fleet"):
        fleet.strike(DiskFull(node="sat-99", at_s=0.0, duration_s=60.0))
    with pytest.raises(ConfigError, match=r"strike.link: 'moon/sat-01' is no link of this fleet"):
        fleet.strike(LinkOutage(link="moon/sat-01", at_s=0.0, duration_s=60.0))


def test_power_that_the_bench_cannot_switch_is_refused(fleet, monkeypatch):
    board = SimpleNamespace(can_switch=False)
    member = BoardNode(
        config=fleet.bench.members["sat-01"].config,
        profile=fleet.bench.members["sat-01"].profile,
        board=board,
        wire=None,
        relay=None,
        has_door=False,
        log=None,
        note=None,
        on_cut=None,
        on_brown_out=None,
        on_crash=None,
    )
    member._is_on = True
    with monkeypatch.context() as patch:
        patch.setitem(fleet.bench.members, "sat-01", member)
        with pytest.raises(ConfigError, match="cut_power: the bench cannot switch sat-01"):
            fleet.cut_power("sat-01", 5.0)
        with pytest.raises(ConfigError, match="strike: the bench cannot switch sat-01"):
            fleet.strike(NodeReset(node="sat-01", at_s=0.0))


def test_an_error_that_ends_the_run_reaches_the_test_and_the_verdict():
    run = SteppedRun(Bench(load("table"), 7))
    run.start()
    fleet = Cluster(run)
    fleet["sat-01"].wait_for_beacon()
    run.bench._crashed("sat-01", RuntimeError("the manager fell over"))
    with pytest.raises(RuntimeError, match="the manager fell over"):
        fleet.wait(10.0)
    outcome = run.end()
    assert not outcome.passed
    assert "the manager fell over" in outcome.crash


def test_real_boards_are_those_of_the_inventory_in_its_order(tmp_path):
    file = tmp_path / "boards.toml"
    file.write_text('[boards.pi-1]\nkind = "raspberry-pi-5"\nssh = "pi-1"\nuart = { path = "/dev/serial/by-id/one" }\n')
    scenario = prepare(load("table"), "board", str(file), None)
    assert [(node.kind, node.board) for node in scenario.nodes] == [("board", "pi-1")]
    assert scenario.boards.inventory == str(file)


def test_external_nodes_take_no_board_of_the_inventory(tmp_path):
    file = tmp_path / "boards.toml"
    file.write_text('[boards.pi-1]\nkind = "raspberry-pi-5"\nssh = "pi-1"\nuart = { path = "/dev/serial/by-id/one" }\n')
    scenario = load("table")
    port = PortSpec(interface=0, local="127.0.0.1:0", remote="127.0.0.1:1")
    stranger = NodeSpec(name="stranger", kind="external", ports=(port,))
    stations = (msgspec.structs.replace(scenario.stations[0], antennas=2),)
    scenario = msgspec.structs.replace(scenario, nodes=(stranger, *scenario.nodes), stations=stations)
    changed = prepare(scenario, "board", str(file), None)
    assert [(node.kind, node.board) for node in changed.nodes] == [("external", ""), ("board", "pi-1")]
