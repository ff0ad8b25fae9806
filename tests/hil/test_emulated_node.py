"""Emulated boards as members of a fleet, with a stand-in for the machine: the program behind the same sockets."""

import asyncio
import dataclasses
import os
import socket
import tty
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from flightsw.errors import BoardError, ConfigError, ControlError
from flightsw.host.control import connect_url, serve
from hil.bench.execute import real_time
from hil.bench.lab import Lab
from hil.bench.pace import START_CPU_S
from hil.bench.processes import Program
from hil.bench.run import Bench
from hil.bench.scenario import CloudMaskWorkload, check, load, with_kind
from hil.bench.surroundings import Surroundings
from hil.bench.table import Watchers
from hil.faults.plan import BootLoop, ComponentHang, Heat, NodeReset, SensorFault, WorkerHang
from hil.sim.trace import read_trace

EXAMPLE = str(Path(__file__).parents[2] / "examples" / "three.toml")
PATIENCE_S = 30.0


class StandIn:
    """A board without a board: `python -m boards` on a pseudo-terminal, whose other end is the machine's UART socket,
    and an agent that takes settings. Power off is SIGKILL."""

    def __init__(self, name, folder, on_end):
        self.name = name
        self.on_end = on_end
        self.uart_path = folder / f"{name}.uart"
        self.agent_path = folder / f"{name}.agent"
        self.starts_count = 0
        self.is_closed = False
        self.etc = folder / f"{name}.etc"
        self.etc.mkdir()
        self.program = None
        self.set_ns = None
        self._folder = folder

    async def start(self):
        self.starts_count += 1
        self._loop = asyncio.get_running_loop()
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.uart_path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.uart_path))
        self._listener.listen(1)
        self._listener.setblocking(False)
        self._line = None
        self._loop.add_reader(self._listener, self._accept)
        self._server = await serve(self.agent_path, {"hello": self._hello, "configure": self._configure})
        if (self.etc / "node.toml").exists():
            self._run()

    async def kill(self):
        if self.program is None:
            return
        program, self.program = self.program, None
        program.kill()
        self._loop.remove_reader(self._listener)
        self._loop.remove_reader(self._master)
        self._listener.close()
        if self._line is not None:
            self._loop.remove_reader(self._line)
            self._line.close()
        os.close(self._master)
        os.close(self._slave)
        await self._server.close()
        await program.stop()

    def abandon(self):
        if self.program is not None:
            self.program.abandon()

    def close(self):
        self.is_closed = True

    def keep_words(self, folder):
        (folder / "console.log").write_text(self.last_words())

    def last_words(self):
        return "kernel panic, said the console"

    def _hello(self) -> dict[str, str]:
        return {"name": self.name}

    def _configure(self, files: dict[str, bytes], utc_ns: int | None = None, *_entropy: bytes) -> None:
        self.set_ns = utc_ns
        for name, data in files.items():
            (self.etc / name).write_bytes(data)
        (self.etc / "keys.toml").chmod(0o600)
        self._run()

    def _run(self):
        """With this machine's names for the board's own."""
        text = (self.etc / "node.toml").read_text()
        for ours, here in (
            ("/dev/ttyAMA0", os.ttyname(self._slave)),
            ("10.0.2.2", "127.0.0.1"),
            ("/var/lib/flatrack", str(self.etc)),
            ('kind = "auto"', 'kind = "simulated"'),
        ):
            assert ours in text
            text = text.replace(ours, here)
        (self.etc / "here.toml").write_text(text)
        self.program = Program(self.name, ("-m", "boards", "--config", "here.toml"), self.etc, lambda code: None)
        self.program.start()

    def _accept(self):
        self._line, _ = self._listener.accept()
        self._line.setblocking(False)
        self._loop.add_reader(self._line, self._pump, self._line.fileno(), self._master)
        self._loop.add_reader(self._master, self._pump, self._master, self._line.fileno())

    def _pump(self, source, target):
        try:
            data = os.read(source, 4096)
            while data:
                data = data[os.write(target, data) :]
        except (BlockingIOError, OSError):
            return


def small(*faults, **changes):
    """The example for two minutes, its first satellite emulated."""
    scenario = load(EXAMPLE)
    nodes = (msgspec.structs.replace(scenario.nodes[0], kind="emulated"), *scenario.nodes[1:])
    fields = {"duration_s": 120.0, "workload": None, "faults": faults, "expect": {}, "nodes": nodes}
    return msgspec.structs.replace(scenario, **(fields | changes))


def run(scenario, folder, monkeypatch, time_scale=20.0):
    """A run with stand-ins; returns the outcome, the machines and the trace."""
    monkeypatch.setitem(START_CPU_S, "emulated", 2.0)  # a process starts faster than a board
    monkeypatch.setattr("hil.bench.composition.EMULATED_BYTES_S", 1e6)  # and moves more
    machines = {}

    def make(name, place, on_end):
        machines[name] = StandIn(name, place, on_end)
        return machines[name]

    bench = Bench(
        scenario, 7, folder=folder, pace=real_time(scenario, time_scale), surroundings=Surroundings(machines=make)
    )
    outcome = bench.run()
    return outcome, machines, list(read_trace(folder / "trace.jsonl")[1])


def reasons(outcome):
    return (outcome.violations, outcome.unmet, outcome.crash, outcome.lag)


def boots_of(trace, name):
    return [
        (fields["boot"], fields["cause"]) for _, source, kind, fields in trace if (source, kind) == (name, "node.boot")
    ]


def test_an_emulated_board_is_told_who_it_is_joins_and_comes_back_after_a_power_cut(tmp_path, monkeypatch):
    scenario = small(NodeReset(node="sat-01", at_s=60.0, off_s=20.0))
    outcome, machines, trace = run(scenario, tmp_path, monkeypatch)
    assert outcome.passed, reasons(outcome)
    machine = machines["sat-01"]
    assert machine.starts_count == 2
    assert machine.is_closed
    assert (tmp_path / "nodes" / "sat-01" / "console.log").exists()
    assert machine.set_ns > 1_700_000_000 * 10**9
    assert boots_of(trace, "sat-01") == [(1, "POWER_ON"), (2, "POWER_CYCLE")]
    assert all("sat-01" in text for text in outcome.bounds)
    assert {text.split(",")[0] for text in outcome.bounds} == {"rule 2", "rule 4"}
    assert outcome.fired["fault.node_reset"] == 1
    kept = tmp_path / "nodes" / "sat-01" / "node.toml"
    assert "token" in kept.read_text()
    assert kept.stat().st_mode & 0o077 == 0


def test_a_board_whose_program_ends_by_itself_is_awaited_and_reported_when_it_stays_away(tmp_path, monkeypatch):
    monkeypatch.setattr("hil.bench.board_node.RETURN_S_MAX", 4.0)

    original = StandIn._run

    def run_for_a_while(self):
        original(self)
        asyncio.get_running_loop().call_at(30.0, self.program.kill)

    monkeypatch.setattr(StandIn, "_run", run_for_a_while)
    outcome, _, trace = run(small(), tmp_path, monkeypatch)
    assert not outcome.passed
    assert "BoardLost: sat-01: no hello within 4 s" in outcome.crash
    assert "kernel panic, said the console" in outcome.crash
    assert [fields for _, source, kind, fields in trace if kind == "board.left"] == [{"announced": False}]


def test_a_machine_that_ends_unasked_is_reported_at_once_with_its_last_words(tmp_path, monkeypatch):
    original = StandIn._run

    def end_after_a_while(self):
        original(self)
        asyncio.get_running_loop().call_at(30.0, self.on_end, -6)

    monkeypatch.setattr(StandIn, "_run", end_after_a_while)
    outcome, _, _ = run(small(), tmp_path, monkeypatch)
    assert not outcome.passed
    assert "BoardLost: sat-01: its machine ended with code -6" in outcome.crash
    assert "kernel panic, said the console" in outcome.crash


def test_a_machine_that_does_not_start_ends_the_run_before_it_begins(tmp_path, monkeypatch):
    async def refuse(self):
        raise BoardError(f"{self.name}: QEMU does not run: no answer")

    monkeypatch.setattr(StandIn, "start", refuse)
    with pytest.raises(BoardError, match="sat-01: QEMU does not run"):
        run(small(), tmp_path, monkeypatch)


async def knock(port, *hello):
    peer = await connect_url(f"tcp://127.0.0.1:{port}", {})
    try:
        with pytest.raises(ControlError, match="none of this bench's boards"):
            await peer.call("hello", *hello)
        async with asyncio.timeout(PATIENCE_S):
            await peer.closed  # sent away
    finally:
        peer.close()


def test_who_has_no_token_gets_no_further_than_the_door(tmp_path, monkeypatch):
    knocked = []
    original = StandIn._configure

    def configure(self, files: dict[str, bytes], utc_ns: int | None = None, *_entropy: bytes) -> None:
        port = int(files["node.toml"].decode().split("tcp://10.0.2.2:")[1].split('"')[0])

        async def strangers():
            await knock(port, "sat-01", 1)
            await knock(port, "sat-01", 1, "0" * 32)
            await knock(port, "sat-99", 1, "")
            knocked.append(port)

        self.strangers = asyncio.get_running_loop().create_task(strangers())
        original(self, files, utc_ns)

    monkeypatch.setattr(StandIn, "_configure", configure)
    outcome, _, _ = run(small(duration_s=60.0), tmp_path, monkeypatch)
    assert outcome.passed, reasons(outcome)
    assert knocked


@pytest.mark.slow
def test_jobs_of_an_emulated_board_are_computed_and_come_down(tmp_path, monkeypatch):
    scenario = load(EXAMPLE)
    overhead = msgspec.structs.replace(scenario.orbit, raan_deg=111.0, phase_deg=144.0)  # from T+27 to T+554 s
    scenario = small(
        NodeReset(node="sat-01", at_s=60.0, when="job_running", off_s=20.0),
        duration_s=400.0,
        orbit=overhead,
        nodes=(small().nodes[0],),
        workload=CloudMaskWorkload(covers=(0.5,), step_mpix=5.0, deadline_s=360),
    )
    outcome, _, trace = run(scenario, tmp_path, monkeypatch, time_scale=20.0)
    assert outcome.passed, reasons(outcome)
    assert outcome.counters["jobs_completed"] == outcome.counters["results_equal"] > 0
    assert len(boots_of(trace, "sat-01")) == 2


# -- what is left behind


async def test_all_boards_are_closed_when_one_does_not_close_and_no_machine_is_left():
    done = []

    def node(name, error=None):
        async def close():
            if error is not None:
                raise error
            for _ in range(5):  # turns of the loop
                await asyncio.sleep(0)
            done.append(f"close {name}")

        board = SimpleNamespace(abandon=lambda: done.append(f"abandon {name}"))
        return SimpleNamespace(stop=lambda: None, close=close, board=board)

    watchers = Watchers(*[None] * len(dataclasses.fields(Watchers)))
    loop = asyncio.get_running_loop()
    lab = Lab(None, None, None, pace=None, loop=loop, relay=None, keys={}, folder=None, watchers=watchers)
    lab.boards.update(one=node("one", BoardError("one: does not close")), two=node("two"))
    with pytest.raises(BoardError, match="one: does not close"):
        await lab.close()
    assert done == ["close two", "abandon one", "abandon two"]


# -- what is refused before a run


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (NodeReset(node="sat-01", at_s=1.0, cause="WATCHDOG"), "cause = 'WATCHDOG' cannot be pretended"),
        (BootLoop(node="sat-01", at_s=1.0), "cannot suffer boot_loop, expected one of node_reset, weight_upset"),
        (Heat(node="sat-01", at_s=1.0, duration_s=5.0), "cannot suffer heat"),
        (WorkerHang(node="sat-01", at_s=1.0, clears="reset"), "clears = 'reset' outlives none"),
        (ComponentHang(node="sat-01", at_s=1.0, clears="power_cycle"), "outlives no program"),
        (SensorFault(node="sat-01", at_s=1.0, how="stuck"), "measures electronics_degc itself"),
    ],
)
def test_faults_that_a_board_cannot_suffer_are_refused(fault, message):
    with pytest.raises(ConfigError, match=message):
        check(small(fault), "here")
    check(msgspec.structs.replace(small(fault), nodes=load(EXAMPLE).nodes), "here")  # which a simulated one can


def test_a_fleet_becomes_emulated_as_a_whole():
    scenario = with_kind(load(EXAMPLE), "emulated", "")
    assert {node.kind for node in scenario.nodes} == {"emulated"}
