"""The fixtures `board` and `cluster`: the example's tests on each kind, and what they say when something is wrong."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flightsw.errors import ConfigError, SimulationError
from hil.bench.handles import Cluster
from hil.bench.run import Bench
from hil.bench.scenario import load
from hil.bench.stepped import SteppedRun
from hil.faults.plan import DiskFull
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
    run = SteppedRun(Bench(load("table"), 7))
    run.start()
    yield Cluster(run)
    assert run.end().passed


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
