import socket
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from boards.program import BoardSettings, NodeSettings
from flightsw.config import InterfaceConfig, NodeConfig
from flightsw.errors import ConfigError, ControlError
from flightsw.host.settings import ClockSettings, KeySettings, LinkSettings, StorageSettings, load_settings
from flightsw.wire.segments import DataSegment, decode_segment
from hil.bench.accounts import NodeCounts, parse_ground, parse_node
from hil.bench.execute import execute, real_time
from hil.bench.invariants import Monitor
from hil.bench.judge import FrameEnd, Outcome, judge_frames
from hil.bench.lateness import Lateness, WatchedTimers
from hil.bench.pace import describe
from hil.bench.run import Bench
from hil.bench.scenario import NodeSpec, PortSpec, check, load, needs_real_time, with_kind
from hil.bench.settings_files import write_settings
from hil.bench.summary import verdict
from hil.cli import main
from hil.faults.plan import NodeReset
from hil.sim.trace import read_trace

EXAMPLE = str(Path(__file__).parents[2] / "examples" / "three.toml")


def small(**changes):
    """The example for two minutes without work."""
    return msgspec.structs.replace(
        load(EXAMPLE), **({"duration_s": 120.0, "workload": None, "faults": (), "expect": {}} | changes)
    )


def run(scenario, time_scale, tmp_path=None, broker="nats"):
    return execute(scenario, 7, folder=tmp_path, pace=real_time(scenario, time_scale, broker)).outcome


def run_kept_up(scenario, time_scale, tmp_path, broker="nats"):
    """A run whose machine fell behind says nothing of what it ran: one that failed so is repeated at half the speed."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        outcome = run(scenario, time_scale, tmp_path / name, broker)
        if outcome.passed or not outcome.lag:
            break
        print(f"at {time_scale:g} times: {outcome.lag}")
        time_scale /= 2
    return outcome


def reasons(outcome):
    return (outcome.violations, outcome.unmet, outcome.crash, outcome.lag)


# -- kinds


def test_processes_and_foreign_nodes_do_not_run_in_virtual_time():
    scenario = with_kind(small(), "process", "serial")
    assert needs_real_time(scenario)
    with pytest.raises(ConfigError, match="node sat-01: kind 'process' runs in real time only"):
        Bench(scenario, 7)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"link": "mqtt"}, r"nodes\[0\].link: 'mqtt', expected none for a node of kind 'simulated'"),
        ({"profile": ""}, r"nodes\[0\].profile: missing"),
        ({"kind": "external"}, r"nodes\[0\].ports: 0 ports, expected some"),
    ],
)
def test_a_node_that_cannot_be_what_it_says_is_refused(changes, message):
    scenario = small()
    first = msgspec.structs.replace(scenario.nodes[0], **changes)
    with pytest.raises(ConfigError, match=message):
        check(msgspec.structs.replace(scenario, nodes=(first, *scenario.nodes[1:])), "here")


def test_a_fault_cannot_strike_a_foreign_node():
    node = {"name": "sat-01", "kind": "external", "ports": [{"interface": 0, "local": "a", "remote": "b"}]}
    scenario = small(faults=(NodeReset(node="sat-01", at_s=1.0),))
    nodes = (msgspec.convert(node, NodeSpec), *scenario.nodes[1:])
    with pytest.raises(ConfigError, match=r"faults\[0\].node: 'sat-01' is external"):
        check(msgspec.structs.replace(scenario, nodes=nodes), "here")


# -- what programs are given


def test_settings_are_read_as_they_were_written(tmp_path):
    written = NodeSettings(
        node=NodeConfig(node=11, name='odd "name" \\ é', interfaces=(InterfaceConfig(index=0, name="radio"),)),
        board=BoardSettings(kind="simulated", profile="raspberry-pi-5", world="world.json", initial_charge=1e-3),
        clock=ClockSettings(zero_utc_ns=1, epoch_utc_ns=2, time_scale=60.0),
        link=LinkSettings(url="serial:///dev/pts/9"),
        storage=StorageSettings(folder="disk", capacity_bytes=1 << 20),
        plan="../plan.json",
        keys=KeySettings(file="keys.toml"),
    )
    write_settings(tmp_path / "node.toml", written)
    assert load_settings(tmp_path / "node.toml", NodeSettings) == written


def test_settings_that_are_absent_are_left_out(tmp_path):
    class Sparse(msgspec.Struct):
        name: str
        keys: KeySettings | None = None

    write_settings(tmp_path / "sparse.toml", Sparse("one"))
    assert (tmp_path / "sparse.toml").read_text() == 'name = "one"\n'


# -- what programs say


def test_books_that_are_none_are_refused_with_the_field():
    with pytest.raises(ControlError, match=r"sat-01: accounts: .*counts"):
        parse_node({"queues": []}, "sat-01")
    with pytest.raises(ControlError, match="ground: accounts: "):
        parse_ground("nonsense")


class Delivered:
    """A relay that delivered ten frames as they were sent, and two with flips, to node 11."""

    delivered_clean = {(11, 0): 10}  # noqa: RUF012 - never changed
    delivered_flipped = {(11, 0): 2}  # noqa: RUF012


@pytest.mark.parametrize(
    ("accepted", "rejected", "is_exact", "late", "holds"),
    [
        (10, 2, True, 0, True),
        (9, 2, True, 0, False),
        (9, 2, True, 1, True),
        (9, 1, False, 0, True),
        (11, 1, False, 0, False),
        (9, 3, False, 0, False),
    ],
)
def test_frames_are_judged_exactly_or_as_bounds(accepted, rejected, is_exact, late, holds):
    monitor = Monitor()
    counts = NodeCounts(frames_accepted=accepted, frames_rejected=rejected)
    judge_frames(monitor, Delivered(), {"sat-01": FrameEnd(11, counts, is_exact, late)}, 0)
    assert (monitor.violations == []) is holds


def recovered(jobs, *, killed):
    """What the monitor says of a boot with these jobs, after job 1 was told to be at step 2."""
    monitor = Monitor()
    monitor.observe((1, "sat-01", "job.accepted", {"job": 1, "attempt": 1}))
    monitor.observe((2, "sat-01", "job.checkpoint", {"job": 1, "attempt": 1, "step": 2}))
    if killed:
        monitor.power_cut("sat-01")
    monitor.observe((3, "sat-01", "node.boot", {"boot": 2, "cause": "POWER_CYCLE", "jobs": jobs}))
    return monitor


@pytest.mark.parametrize("jobs", [[[1, 1, 2, False]], [[1, 1, 4, False]], [[1, 1, 2, True]], [[1, 2, 0, False]]])
def test_after_a_kill_state_may_be_ahead_of_what_was_told(jobs):
    monitor = recovered(jobs, killed=True)
    assert monitor.violations == []
    assert monitor.bounded_boots == {"sat-01": 1}


@pytest.mark.parametrize("jobs", [[], [[1, 1, 0, False]]])
def test_after_a_kill_state_may_not_be_behind_what_was_told(jobs):
    assert [one.rule for one in recovered(jobs, killed=True).violations] == [4]


def test_without_a_kill_state_is_what_was_told():
    assert [one.rule for one in recovered([[1, 1, 4, False]], killed=False).violations] == [4]


# -- keeping up


def test_lateness_is_what_timers_were_late():
    now_ns, calls = [0], []
    lateness = Lateness(time_scale=10.0)
    timers = WatchedTimers(lambda when, function, *rest: calls.append((function, rest)), lambda: now_ns[0], lateness)
    for late_ms in range(1, 101):
        timers.call_at_ns(0, lambda: None)
        now_ns[0] = late_ms * 1_000_000
        function, rest = calls.pop()
        function(*rest)
    assert lateness.real_ms(0.5) == pytest.approx(5.0)
    assert lateness.mission_s(0.99) == pytest.approx(0.099)


def test_a_machine_that_does_not_keep_up_is_told_and_nothing_is_said_about_timing():
    scenario = small()
    pace = real_time(scenario, 10.0)
    outcome = Outcome("", {"virtual_s": 1.0}, [], {}, [], 0, {})
    late = Lateness(10.0)
    late.note(round(10 * pace.patience_s * 1e9))
    describe(outcome, pace, late, Lateness(10.0), 0)
    assert "mission s, where links expect at most 2.5" in outcome.lag
    text = verdict(outcome).plain
    assert "behind: " in text
    assert "PASS of the invariants only" in text


# -- runs


def test_a_run_of_coroutines_in_real_time_is_judged_exactly(tmp_path):
    ring = load("three-body-12")
    outcome = run(small(nodes=ring.nodes, links=ring.links, stations=ring.stations), 60.0, tmp_path)
    assert outcome.passed, reasons(outcome)
    assert outcome.bounds == []
    assert outcome.counters["frames_sent"] > 0
    assert "all rules were judged exactly" in (tmp_path / "summary.txt").read_text()


def with_foreign_node(scenario, name, port):
    """The scenario with one node behind UDP ports, all of which lead to the same port here."""
    ports = tuple(PortSpec(interface=one, local="127.0.0.1:0", remote=f"127.0.0.1:{port}") for one in (0, 1, 2))
    foreign = NodeSpec(name=name, kind="external", ports=ports)
    nodes = tuple(foreign if node.name == name else node for node in scenario.nodes)
    return msgspec.structs.replace(scenario, nodes=nodes)


def test_a_foreign_node_gets_the_segments_that_are_sent_to_it():
    ring = load("three-body-12")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as theirs:
        theirs.bind(("127.0.0.1", 0))
        theirs.setblocking(False)
        scenario = small(nodes=ring.nodes, links=ring.links, stations=ring.stations)
        # the first that the ground sees: what the others send to the ground is routed through it
        outcome = run(with_foreign_node(scenario, "sat-06", theirs.getsockname()[1]), 60.0)
        assert outcome.passed, reasons(outcome)
        assert type(decode_segment(theirs.recv(65_536))) is DataSegment


def test_a_foreign_node_with_an_interface_that_it_does_not_have_is_refused():
    scenario = with_foreign_node(small(), "sat-02", 1113)
    with pytest.raises(ConfigError, match="node sat-02: port of interface 1: no such interface, expected one of 0"):
        run(scenario, 60.0)


@pytest.mark.slow
def test_a_power_cut_of_a_process_is_a_kill_and_it_boots_again(tmp_path):
    scenario = with_kind(small(faults=(NodeReset(node="sat-02", at_s=20.0, off_s=10.0),)), "process", "serial")
    outcome = run(scenario, 10.0, tmp_path)
    assert outcome.passed, reasons(outcome)
    boots = [e for e in read_trace(tmp_path / "trace.jsonl")[1] if e[2] == "node.boot" and e[1] == "sat-02"]
    assert [(fields["boot"], fields["cause"]) for _, _, _, fields in boots] == [(1, "POWER_ON"), (2, "POWER_CYCLE")]
    assert [one.split(",")[0] for one in outcome.bounds] == ["rule 2", "rule 4"]
    assert all(one.endswith("sat-02") for one in outcome.bounds)


@pytest.mark.slow
def test_a_process_whose_battery_is_empty_boots_again_when_it_has_charge(tmp_path):
    scenario = small(duration_s=3000.0)
    dark = msgspec.structs.replace(scenario.nodes[0], initial_charge=0.002)
    scenario = with_kind(msgspec.structs.replace(scenario, nodes=(dark, *scenario.nodes[1:])), "process", "serial")
    outcome = run(scenario, 150.0, tmp_path)
    assert outcome.passed, reasons(outcome)
    assert outcome.fired["fault.brown_out"] >= 1
    boots = [e for e in read_trace(tmp_path / "trace.jsonl")[1] if e[2] == "node.boot" and e[1] == "sat-01"]
    assert [fields["cause"] for _, _, _, fields in boots] == ["POWER_ON", "BROWN_OUT"]


@pytest.mark.real_time
def test_twelve_processes_over_pseudo_terminals_pass_the_shipped_scenario(tmp_path):
    outcome = run_kept_up(with_kind(load("three-body-12"), "process", "serial"), 60.0, tmp_path)
    assert outcome.passed, reasons(outcome)
    assert outcome.counters["results_equal"] == 96


@pytest.mark.real_time
@pytest.mark.parametrize("broker", ["mosquitto", "nats"])
def test_twelve_processes_over_a_broker_pass_the_shipped_scenario(tmp_path, need_tool, broker):
    if broker == "mosquitto":
        need_tool("mosquitto")
    outcome = run_kept_up(with_kind(load("three-body-12"), "process", "mqtt"), 40.0, tmp_path, broker)
    assert outcome.passed, reasons(outcome)
    assert outcome.counters["results_equal"] == 96


@pytest.mark.real_time
def test_coroutines_and_processes_on_two_kinds_of_wire_pass_as_one_fleet(tmp_path):
    scenario = load("three-body-12")
    wires = {0: {}, 1: {"kind": "process", "link": "serial"}, 2: {"kind": "process", "link": "mqtt"}}
    nodes = tuple(msgspec.structs.replace(node, **wires[index % 3]) for index, node in enumerate(scenario.nodes))
    outcome = run_kept_up(msgspec.structs.replace(scenario, nodes=nodes), 40.0, tmp_path)
    assert outcome.passed, reasons(outcome)
    assert outcome.counters["results_equal"] == 96


# -- the command line


def flatrack(*arguments):
    return CliRunner().invoke(main, [str(one) for one in arguments])


def test_a_wire_without_processes_is_refused():
    done = flatrack("run", EXAMPLE, "--link", "mqtt")
    assert done.exit_code == 2
    assert "--link mqtt: expected --kind process or emulated beside it" in done.output


def test_a_time_scale_out_of_range_is_refused(tmp_path):
    done = flatrack("run", EXAMPLE, "--time-scale", "5000", "--out", tmp_path)
    assert done.exit_code == 2
    assert "time_scale is 5000, expected 0.001 to 1000" in done.output


def test_a_run_in_real_time_cannot_be_replayed(tmp_path):
    done = flatrack("run", EXAMPLE, "--time-scale", "60", "--until", "30", "--faults", "none", "--out", tmp_path)
    assert done.exit_code == 0, done.output
    folder = tmp_path / "three-7"
    assert f"run folder: {folder}" in done.output
    again = flatrack("replay", folder)
    assert again.exit_code == 2
    assert "ran in real time, at scale 60" in again.output


def test_a_soak_is_of_simulated_nodes(tmp_path):
    text = Path(EXAMPLE).read_text().replace('name = "sat-01"', 'name = "sat-01"\nkind = "process"', 1)
    (tmp_path / "own.toml").write_text(text)
    done = flatrack("soak", tmp_path / "own.toml", "--seeds", "1")
    assert done.exit_code == 2
    assert "has nodes that run in real time only" in done.output
