"""Faults around a node in a whole run: what the manager does about each, and that the run's rules hold meanwhile."""

from pathlib import Path

import msgspec
import pytest

from flightsw.core.boots import LOOP_BOOTS, PROCESSOR_RESETS_MAX
from hil.bench.execute import execute, real_time
from hil.bench.satellite import BOOT_S
from hil.bench.scenario import Scenario, load, with_kind
from hil.sim.trace import read_trace

EXAMPLE = Path(__file__).parents[2] / "examples" / "three.toml"
NODE = "sat-01"
S = 1_000_000_000
WATCHDOG_S, FATAL_S, TICK_S = 60, 30, 10


def scenario_of(*faults, duration_s=1500.0, workload=False):
    """The example with one satellite and some faults."""
    fields = msgspec.to_builtins(load(str(EXAMPLE)))
    fields |= {"nodes": fields["nodes"][:1], "duration_s": duration_s, "expect": {}}
    fields["faults"] = [{"node": NODE, **fault} for fault in faults]
    if not workload:
        fields["workload"] = None
    return msgspec.convert({name: value for name, value in fields.items() if value is not None}, Scenario)


class Run:
    """A run of one satellite with some faults."""

    def __init__(self, folder, *faults, **options):
        folder.mkdir()
        self.outcome = execute(scenario_of(*faults, **options), seed=3, folder=folder).outcome
        self.events = list(read_trace(folder / "trace.jsonl")[1])

    def of(self, kind, **fields):
        """(seconds, fields) of the node's log records of this kind and with these values."""
        return [
            (t_ns / S, found)
            for t_ns, source, seen, found in self.events
            if seen == kind and source in (NODE, "bench") and found.items() >= fields.items()
        ]

    def causes(self):
        return [fields["cause"] for _, fields in self.of("node.boot")]

    def names(self):
        return [fields["name"] for _, fields in self.of("event")]


@pytest.fixture
def run(tmp_path):
    return lambda *faults, **options: Run(tmp_path / "run", *faults, **options)


def test_a_program_that_stands_still_is_reset_by_its_watchdog(run):
    done = run({"kind": "component_hang", "at_s": 400.0})
    assert done.outcome.passed, done.outcome.violations
    assert done.causes() == ["POWER_ON", "WATCHDOG"]
    (expired_s, _), *_ = done.of("watchdog.expired")
    assert 400 + WATCHDOG_S - TICK_S <= expired_s <= 400 + WATCHDOG_S
    assert done.of("node.boot")[1][0] == pytest.approx(expired_s + BOOT_S)


def test_a_component_that_hangs_stops_the_strokes_and_its_name_is_in_the_next_boot(run):
    done = run({"kind": "component_hang", "at_s": 400.0, "party": "beacon"})
    assert done.outcome.passed, done.outcome.violations
    assert done.causes() == ["POWER_ON", "WATCHDOG"]
    assert {"HEALTH.SLOW", "HEALTH.HUNG", "HEALTH.ESCALATED", "NODE.LAST_WORDS"} <= set(done.names())
    ((step_s, step),) = done.of("health.step")
    assert step == {"party": "beacon", "step": "reset the node"}
    assert 400 + FATAL_S - TICK_S <= step_s <= 400 + FATAL_S + TICK_S


def test_a_hang_that_only_a_power_cycle_ends_is_led_there_by_the_ladder(run):
    done = run({"kind": "component_hang", "at_s": 400.0, "party": "beacon", "clears": "power_cycle"})
    assert done.outcome.passed, done.outcome.violations
    # the boot after the last allowed processor reset does nothing but ask for the power cycle
    assert done.causes() == ["POWER_ON"] + ["WATCHDOG"] * PROCESSOR_RESETS_MAX + ["POWER_CYCLE"]
    assert len(done.of("node.power_cycle")) == 1
    assert done.of("node.stable")[-1][0] > done.of("node.power_cycle")[0][0]


def test_a_program_that_stands_still_in_every_boot_is_power_cycled_too(run):
    done = run({"kind": "component_hang", "at_s": 400.0, "clears": "power_cycle"})
    assert done.outcome.passed, done.outcome.violations
    assert done.causes() == ["POWER_ON"] + ["WATCHDOG"] * PROCESSOR_RESETS_MAX + ["POWER_CYCLE"]
    assert done.of("node.stable")[-1][0] > done.of("node.power_cycle")[0][0]


def test_a_worker_that_hangs_is_restarted_and_every_job_ends_right(run):
    done = run({"kind": "worker_hang", "at_s": 300.0, "when": "job_running"}, workload=True, duration_s=3000.0)
    assert done.outcome.passed, (done.outcome.violations, done.outcome.unmet)
    assert done.causes() == ["POWER_ON"], "the node stays"
    assert [fields for _, fields in done.of("health.step")] == [{"party": "executor", "step": "restart"}]
    assert len(done.of("job.rolled_back")) == 1
    assert done.outcome.counters["results_equal"] == done.outcome.counters["jobs_completed"] > 0


def test_a_worker_that_hangs_again_and_again_costs_a_job_and_then_resets_the_node(run):
    done = run(  # when the first jobs are done, so that no more urgent one comes meanwhile and runs instead
        {"kind": "worker_hang", "at_s": 2330.0, "when": "job_running", "clears": "reset"},
        workload=True,
        duration_s=3000.0,
    )
    assert done.outcome.violations == []
    assert [fields["step"] for _, fields in done.of("health.step")] == ["restart", "restart", "reset the node"]
    assert done.causes() == ["POWER_ON", "WATCHDOG"]
    failed = [fields["detail"] for _, fields in done.of("job.ended", state="FAILED")]
    assert failed[:1] == ["the worker hung 2 times in it"]
    assert done.of("job.ended", state="COMPLETED")[-1][0] > done.of("watchdog.expired")[0][0], "jobs go on after it"


def test_boots_that_do_not_last_end_in_safe(run):
    done = run({"kind": "boot_loop", "at_s": 400.0, "crashes": LOOP_BOOTS + 1, "after_s": 40.0})
    assert done.outcome.passed, done.outcome.violations
    # the first crash comes after a boot that was stable
    assert done.causes() == ["POWER_ON"] + ["EXCEPTION"] * PROCESSOR_RESETS_MAX + ["POWER_CYCLE"] + ["EXCEPTION"]
    assert "NODE.BOOT_LOOP" in done.names()
    last_boot_s = done.of("node.boot")[-1][0]
    modes = [fields["mode"] for t_s, fields in done.of("node.mode") if t_s >= last_boot_s]
    assert modes == ["SAFE"], "and it stays there"
    assert done.of("node.stable") == [(pytest.approx(300, abs=TICK_S), {"boot": 1})], "lasting in SAFE proves nothing"


def test_what_latched_up_outlives_a_reset_and_not_a_power_cycle(run):
    faults = (
        {"kind": "latch_up", "at_s": 100.0, "extra_w": 30.0},
        {"kind": "node_reset", "at_s": 900.0, "cause": "POWER_CYCLE", "off_s": 10.0},
    )
    done = run(*faults, duration_s=1500.0)
    assert done.outcome.violations == []
    assert done.outcome.fired == {"fault.latch_up": 1, "fault.node_reset": 1}


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "sensor_fault", "sensor": "charge_j", "how": "stuck"},
        {"kind": "sensor_fault", "sensor": "charge_j", "how": "nonsense"},
        {"kind": "sensor_fault", "how": "missing", "duration_s": 300.0},
        {"kind": "sensor_fault", "how": "stale", "duration_s": 300.0},
        {"kind": "heat", "duration_s": 600.0},
        {"kind": "disk_full", "duration_s": 300.0},
        {"kind": "clock_jump", "jump_s": 259_200.0},
        {"kind": "clock_jump", "jump_s": -259_200.0},
    ],
    ids=lambda fault: " ".join(str(value) for value in fault.values()),
)
def test_the_rules_hold_under_each_fault_and_the_node_lives(run, fault):
    done = run({"at_s": 400.0, **fault}, duration_s=1200.0)
    assert done.outcome.passed, (done.outcome.violations, done.outcome.crash)
    assert done.outcome.fired == {f"fault.{fault['kind']}": 1}
    assert done.causes() == ["POWER_ON"]


def test_missing_sensors_do_not_silence_the_beacon_for_ever(run):
    done = run({"kind": "sensor_fault", "how": "missing", "at_s": 400.0, "duration_s": 300.0}, duration_s=1200.0)
    assert "NODE.SENSOR_LOST" in done.names()


def test_two_runs_with_all_faults_are_the_same_run(tmp_path):
    faults = [
        {"kind": "latch_up", "at_s": 100.0, "extra_w": 5.0},
        {"kind": "component_hang", "at_s": 150.0, "party": "scrub"},
        {"kind": "heat", "at_s": 400.0, "duration_s": 100.0},
        {"kind": "boot_loop", "at_s": 500.0, "crashes": 2},
        {"kind": "clock_jump", "at_s": 600.0, "jump_s": 86_400.0},
    ]
    digests = {Run(tmp_path / str(index), *faults, duration_s=900.0).outcome.digest for index in range(2)}
    assert len(digests) == 1


@pytest.mark.slow
def test_a_node_that_is_a_process_is_struck_the_same_and_its_hang_ends_by_its_own_watchdog(tmp_path, monkeypatch):
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text("import boards.watchdog\nboards.watchdog.MACHINE_S_MIN = 3.0\n")
    monkeypatch.setenv("PYTHONPATH", str(site))
    strikes = [
        {"kind": "latch_up", "at_s": 60.0, "extra_w": 2.0},
        {"kind": "heat", "at_s": 61.0, "duration_s": 100.0},
        {"kind": "sensor_fault", "how": "stuck", "at_s": 62.0, "duration_s": 100.0},
        {"kind": "disk_full", "at_s": 63.0, "duration_s": 10.0, "free_bytes": 1000000},
        {"kind": "clock_jump", "at_s": 64.0, "jump_s": 3600.0},
        {"kind": "worker_hang", "at_s": 65.0},
        {"kind": "component_hang", "at_s": 100.0},
    ]
    scenario = with_kind(scenario_of(*strikes, duration_s=900.0), "process", "serial")
    folder = tmp_path / "run"
    folder.mkdir()
    outcome = execute(scenario, 7, folder=folder, pace=real_time(scenario, 40.0, "nats")).outcome
    assert not outcome.crash, outcome.crash
    assert outcome.violations == []
    assert outcome.fired == {f"fault.{strike['kind']}": 1 for strike in strikes}
    events = list(read_trace(folder / "trace.jsonl")[1])
    assert [fields["cause"] for _, _, kind, fields in events if kind == "node.boot"] == ["POWER_ON", "WATCHDOG"]
    assert sum(kind == "watchdog.expired" for _, _, kind, _ in events) == 1
