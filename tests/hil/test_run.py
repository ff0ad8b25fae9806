import json
from pathlib import Path

import msgspec
import pytest

from flightsw.dictionary import flight_dictionary
from ground.archive import Archive
from hil.bench.execute import execute
from hil.bench.folder import RUN_FILE, load_identity
from hil.bench.scenario import load
from hil.bench.sky import FIRST_NODE
from hil.sim.trace import read_trace

EXAMPLE = Path(__file__).parents[2] / "examples" / "three.toml"


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return execute(load(str(EXAMPLE)), seed=3, folder=folder), folder


def test_the_example_scenario_passes_and_every_mask_equals_the_reference(done):
    execution, _ = done
    assert execution.outcome.passed, (execution.outcome.violations, execution.outcome.unmet)
    assert execution.outcome.counters["results_equal"] == execution.outcome.counters["jobs_accepted"] == 24


def test_a_run_leaves_what_it_says_it_leaves(done):
    execution, folder = done
    assert {path.name for path in folder.iterdir()} >= {
        "run.json",
        "trace.jsonl",
        "summary.json",
        "ledger.db",
        "archive.db",
        "results",
        "mosaic.png",
    }
    assert len(list((folder / "results").glob("*.mask"))) == 24
    assert json.loads((folder / "summary.json").read_text())["passed"] is True
    assert load_identity(folder).digest == execution.outcome.digest
    header, events, footer = read_trace(folder / "trace.jsonl")
    assert sum(1 for _ in events) == footer["events_count"]
    assert header["seed"] == 3
    assert (folder / RUN_FILE).read_text().endswith("\n")


def test_beacons_packets_and_events_are_in_the_archive(done):
    _, folder = done
    archive = Archive(folder / "archive.db")
    beacons = archive.beacons(FIRST_NODE, 0, 2**62)
    rows = archive.packets(FIRST_NODE)
    events = archive.events(FIRST_NODE)
    archive.close()
    assert beacons
    assert max(beacon.boot_count for _, beacon in beacons) == 2, "the reset node must have been heard from both boots"
    packets = {packet.name: packet for row in rows for packet in row.message.packets}
    slow = {spec.key for spec in flight_dictionary().packets.values() if spec.rate == "slow"}
    assert {"NODE.HK", "MODE.HK", "JOBS.HK", "OBJECTS.HK", "KEYS.HK"} <= slow
    # a simulated satellite has no hardware to report of
    assert slow - packets.keys() == {"HARDWARE.HK"}
    jobs = dict(zip(flight_dictionary().packets["JOBS.HK"].channels, packets["JOBS.HK"].values, strict=True))
    assert jobs["JOBS.cmdpc"] >= 1
    assert jobs["JOBS.running"] in (0, 1)
    numbers = [(row.message.boot_count, row.message.sequence) for row in rows]
    assert numbers == sorted(set(numbers))
    assert any("RESET" in str(event) for event in events)


def test_a_counter_that_stays_below_what_is_expected_fails_the_run():
    scenario = load(str(EXAMPLE))
    asked = msgspec.structs.replace(scenario, duration_s=700.0, expect={"node_resets": 2}, workload=None)
    outcome = execute(asked, seed=3).outcome
    assert outcome.unmet == ["expect.node_resets: 1, at least 2 asked"]
    assert not outcome.passed


def test_a_crash_of_flight_code_is_a_verdict_with_its_traceback_and_the_run_is_kept(monkeypatch, tmp_path):
    def stumble(self, now_ns):
        raise AssertionError("planted")

    monkeypatch.setattr("flightsw.node.Node._send_beacon", stumble)
    outcome = execute(load(str(EXAMPLE)), seed=3, folder=tmp_path).outcome
    assert not outcome.passed
    assert "planted" in (tmp_path / "crash.txt").read_text()
    assert load_identity(tmp_path).passed is False


def test_a_crash_of_ground_code_is_a_verdict_too(monkeypatch):
    def stumble(self, now_ns):
        raise AssertionError("planted on the ground")

    monkeypatch.setattr("ground.cluster.Cluster.round", stumble)
    outcome = execute(load(str(EXAMPLE)), seed=3).outcome
    assert not outcome.passed
    assert "planted on the ground" in outcome.crash
