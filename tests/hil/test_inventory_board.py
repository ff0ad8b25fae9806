"""Boards of an inventory in a scenario: which are missing, what becomes of the run, and what they cannot suffer."""

from pathlib import Path

import msgspec
import pytest

from flightsw.errors import ConfigError
from hil.bench.execute import real_time
from hil.bench.inventory_board import InventoryBoard, open_boards
from hil.bench.pace import START_CPU_S
from hil.bench.run import Bench
from hil.bench.scenario import Boards, check, load
from hil.bench.summary import verdict
from hil.bench.surroundings import Surroundings
from hil.faults.injector import Injector
from hil.faults.plan import NodeReset, WeightUpset
from hil.sim.trace import read_trace

EXAMPLE = str(Path(__file__).parents[2] / "examples" / "three.toml")
ABSENT = """
[boards.pi-1]
kind = "raspberry-pi-5"
ssh = "nobody@localhost"
uart = { id_serial_short = "NOT-HERE" }
power = { kind = "command", on = ["true"], off = ["true"] }

[boards.pi-2]
kind = "raspberry-pi-4"
ssh = "nobody@localhost"
uart = { id_serial_short = "NOT-HERE-EITHER", baud = 57600 }
power = { kind = "manual" }
"""


def with_boards(tmp_path, *faults, missing="refuse", bench="", **nodes):
    """The example, with nodes on boards: node -> name of the board."""
    (tmp_path / "boards.toml").write_text(ABSENT)
    scenario = load(EXAMPLE)
    changed = tuple(
        msgspec.structs.replace(node, kind="board", board=nodes[node.name.replace("-", "_")])
        if node.name.replace("-", "_") in nodes
        else node
        for node in scenario.nodes
    )
    return msgspec.structs.replace(
        scenario,
        nodes=changed,
        boards=Boards(inventory=str(tmp_path / "boards.toml"), missing=missing, bench=bench),
        duration_s=60.0,
        workload=None,
        faults=faults,
        expect={},
    )


def bench_of(scenario, monkeypatch, folder=None):
    monkeypatch.setattr("hil.bench.pace.START_BOARD_S", 0.0)
    monkeypatch.setitem(START_CPU_S, "board", 0.0)
    surroundings = Surroundings(boards=open_boards(scenario))
    return Bench(scenario, 7, folder=folder, pace=real_time(scenario, 20.0), surroundings=surroundings)


def test_a_run_whose_boards_are_missing_is_refused_and_names_each(tmp_path, monkeypatch):
    scenario = with_boards(tmp_path, sat_01="pi-1", sat_03="pi-2")
    with pytest.raises(ConfigError) as caught:
        bench_of(scenario, monkeypatch).run()
    text = str(caught.value)
    assert "boards are missing: sat-01: uart id_serial_short 'NOT-HERE': no such port" in text
    assert "sat-03: uart id_serial_short 'NOT-HERE-EITHER'" in text
    assert "boards.missing = 'continue'" in text


def test_a_run_goes_on_without_missing_boards_when_it_may_and_names_them(tmp_path, monkeypatch):
    fault = NodeReset(node="sat-01", at_s=20.0)
    scenario = with_boards(tmp_path, fault, missing="continue", sat_01="pi-1")
    outcome = bench_of(scenario, monkeypatch, tmp_path).run()
    assert outcome.passed, (outcome.violations, outcome.crash)
    assert list(outcome.absent) == ["sat-01"]
    assert "missing: sat-01: uart id_serial_short 'NOT-HERE'" in verdict(outcome).plain
    assert "fault.node_reset" not in outcome.fired


def test_what_a_board_has_to_say_is_in_the_trace_and_on_standard_error(tmp_path, monkeypatch, capfd):
    async def missing(self):
        self._report(f"board {self.name}: has something to say")
        return "it is not there"

    monkeypatch.setattr(InventoryBoard, "missing", missing)
    with pytest.raises(ConfigError, match="it is not there"):
        bench_of(with_boards(tmp_path, sat_01="pi-1"), monkeypatch, tmp_path).run()
    events = [
        (source, fields) for _, source, kind, fields in read_trace(tmp_path / "trace.jsonl")[1] if kind == "board.event"
    ]
    assert events == [("sat-01", {"text": "board pi-1: has something to say"})]
    assert capfd.readouterr().err == "board pi-1: has something to say\n"


def test_faults_of_a_missing_board_take_no_chance_from_the_others():
    drawn = []
    faults = (NodeReset(node="sat-01", at_s=1.0), NodeReset(node="sat-02", at_s=2.0))
    injector = Injector(None, lambda when_ns, *_: None, lambda *_: None, lambda name: drawn.append(name))
    injector.arm(faults, {"sat-01"})
    assert drawn == ["faults/1"]


def test_a_power_cut_of_a_board_that_only_a_person_can_switch_is_refused(tmp_path):
    scenario = with_boards(tmp_path, NodeReset(node="sat-03", at_s=20.0), sat_03="pi-2")
    with pytest.raises(ConfigError, match=r"faults\[0\]: node_reset of 'sat-03' needs to switch board pi-2"):
        open_boards(scenario)


def test_power_that_only_a_person_can_switch_is_none_for_a_bench(tmp_path):
    scenario = with_boards(tmp_path, sat_01="pi-1", sat_03="pi-2")
    boards = open_boards(scenario)
    assert boards.of(scenario.nodes[0], print).can_switch
    assert not boards.of(scenario.nodes[2], print).can_switch


async def test_a_board_is_let_go_of_when_looking_for_it_is_broken_off(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    scenario = with_boards(tmp_path, sat_01="pi-1")
    boards = open_boards(scenario)

    def stop(_uart):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("hil.bench.inventory_board.find_uart", stop)
        broken_off = boards.of(scenario.nodes[0], print)
        with pytest.raises(KeyboardInterrupt):
            await broken_off.missing()
    assert "no such port" in await boards.of(scenario.nodes[0], print).missing(), "nobody holds it"


def test_a_fault_in_a_boards_program_needs_a_door_to_it(tmp_path):
    fault = WeightUpset(node="sat-01", at_s=20.0)
    with pytest.raises(ConfigError, match="a board that the bench has no door to"):
        check(with_boards(tmp_path, fault, sat_01="pi-1"), "here")
    check(with_boards(tmp_path, fault, bench="tcp://127.0.0.1:0", sat_01="pi-1"), "here")


def test_a_board_that_the_inventory_does_not_have_is_named(tmp_path):
    with pytest.raises(ConfigError, match="board 'pi-9', expected one of: pi-1, pi-2"):
        open_boards(with_boards(tmp_path, sat_01="pi-9"))


def test_links_of_a_board_are_planned_with_what_its_uart_carries(tmp_path, monkeypatch):
    bench = bench_of(with_boards(tmp_path, sat_02="pi-2"), monkeypatch)
    plan = bench.sky.plan(bench.scenario, bench._surroundings.ceilings(bench.scenario, bench.pace))
    rates = {contact.rate_bps for contact in plan.contacts if 12 in (contact.source, contact.target)}
    others = {contact.rate_bps for contact in plan.contacts if 12 not in (contact.source, contact.target)}
    assert rates == {0.8 * 57_600 * 8 / 10 / 20.0}, "a real UART is not faster because mission time is"
    assert others <= {2e6}
    bench.loop.close()


def test_a_board_without_a_uart_says_so(tmp_path):
    (tmp_path / "boards.toml").write_text('[boards.bare]\nkind = "host"\nssh = "bare"\n')
    scenario = with_boards(tmp_path, sat_01="pi-1")
    (tmp_path / "boards.toml").write_text('[boards.pi-1]\nkind = "host"\nssh = "bare"\n')
    board = open_boards(scenario).of(scenario.nodes[0], print)
    assert isinstance(board, InventoryBoard)
    with pytest.raises(ConfigError, match="board pi-1: has no uart"):
        board.wire()


def test_a_board_opens_the_uart_of_its_own_header(tmp_path):
    scenario = with_boards(tmp_path, sat_01="pi-2")
    wire = open_boards(scenario).of(scenario.nodes[0], print).wire()
    assert wire.url == "serial://header?baud=57600"
