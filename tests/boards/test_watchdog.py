"""Watchdogs: a timer of the bench, and one of the kernel that ends a real process which hangs, wherever it hangs."""

import asyncio
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time  # noqa: TID251 - programs share the machine's clock

import msgspec
import pytest

from boards import profiles
from boards.program import BoardSettings, NodeSettings
from boards.simulated.states import load_board
from boards.simulated.watchdog import SimulatedWatchdog
from boards.watchdog import LastWords, ProgramWatchdog
from flightsw.config import InterfaceConfig, NodeConfig
from flightsw.host.settings import ClockSettings, LinkSettings, StorageSettings
from flightsw.ports import ResetCause
from hil.bench.settings_files import write_settings
from hil.sim.loop import VirtualLoop

S = 1_000_000_000
SCALE = 40.0
TIMEOUT_S = 3.0
"""Of the watchdog [s of the machine]: what a sound node on a busy machine needs, and two of it until it is stable."""
PATIENCE_S = 60.0
"""Longest wait for an end that comes within seconds [s of the machine]."""

# -- of the bench


def watch(strokes_s, timeout_s, until_s, stopped_s=None):
    """Instants [s] at which a watchdog expired that was stroked at these instants."""
    loop, expired = VirtualLoop(), []

    async def main():
        dog = SimulatedWatchdog(lambda: loop.now_ns, lambda: expired.append(loop.now_ns / S))
        for at_s in strokes_s:
            loop.call_at_ns(round(at_s * S), dog.stroke, timeout_s)
        if stopped_s is not None:
            loop.call_at_ns(round(stopped_s * S), dog.stop)
        await asyncio.sleep(until_s)
        dog.stop()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main())
    return expired


def test_a_watchdog_that_is_stroked_in_time_never_expires():
    assert watch(range(0, 1000, 10), 10.5, 1000) == []


def test_it_expires_its_timeout_after_the_last_stroke():
    assert watch([0, 10, 20], 60, 1000) == [80]


def test_it_sleeps_until_the_first_stroke():
    assert watch([], 60, 1000) == []


def test_it_expires_once():
    assert watch([0], 60, 10_000) == [60]


def test_a_node_without_power_has_no_watchdog():
    assert watch([0, 10], 60, 1000, stopped_s=20) == []


# -- of a program

HANGS = {
    "in Python": "while True: pass",
    "in C": "import re; re.match('(a+)+$', 'a' * 64 + 'b')",
    "in a system call": "import time; time.sleep(1e6)",
}


SUPERVISION = "from flightsw.core.supervision import Supervision\n"


class Program:
    """A folder with the settings of a node, and its starts."""

    def __init__(self, folder):
        self.folder = folder
        self.processes = []
        self.config = folder / "node.toml"
        (folder / "plan.json").write_bytes(b"[]")
        (folder / "world.json").write_bytes(
            msgspec.json.encode({"sun": [[0, 10**15]], "sunlight": [1.0], "step_s": 1000.0})
        )
        settings = NodeSettings(
            node=NodeConfig(
                node=11, name="sat-01", interfaces=(InterfaceConfig(index=0, name="radio"),), tick_period_s=1.0
            ),
            board=BoardSettings(kind="simulated", profile="raspberry-pi-5", world="world.json"),
            clock=ClockSettings(zero_utc_ns=time.time_ns(), epoch_utc_ns=1_790_000_000 * S, time_scale=SCALE),
            link=LinkSettings(url="serial:///dev/null"),
            storage=StorageSettings(folder="disk", capacity_bytes=1 << 24),
            plan="plan.json",
        )
        write_settings(self.config, settings)

    def start(self, planted="", options=(), **environment):
        """Start the node with code that runs before it; its watchdog is as fast as the settings say."""
        site = self.folder / "site"
        site.mkdir(exist_ok=True)
        (site / "sitecustomize.py").write_text(
            f"import boards.watchdog\nboards.watchdog.MACHINE_S_MIN = {TIMEOUT_S}\n{planted}"
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "boards", "--config", str(self.config), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, "PYTHONPATH": str(site), **environment},
        )
        self.processes.append(process)
        return process

    def until(self, process, kind):
        """Read the journal until a record of this kind."""
        deadline_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s:
            if not select.select([process.stdout], [], [], PATIENCE_S)[0]:
                break
            line = process.stdout.readline()
            assert line, f"it ended without {kind}: {process.stderr.read().decode()}"
            record = json.loads(line)
            if record["kind"] == kind:
                return record
        raise AssertionError(f"waited in vain for {kind}")

    def words(self):
        return (self.folder / "board.json.words").read_text()


@pytest.fixture
def program(tmp_path):
    made = Program(tmp_path)
    yield made
    for process in made.processes:
        process.kill()
        process.communicate()


def end(process, number=None):
    if number is not None:
        process.send_signal(number)
    _, errors = process.communicate(timeout=PATIENCE_S)
    return process.returncode, errors.decode()


@pytest.mark.parametrize("hang", HANGS.values(), ids=HANGS.keys())
def test_a_process_that_hangs_dies_and_the_next_start_says_watchdog_and_where_it_hung(program, hang):
    planted = f"{SUPERVISION}def stuck(*_):\n    {hang}\nSupervision.cycle = stuck\n"
    assert end(program.start(planted))[0] == -signal.SIGALRM
    assert "in stuck" in program.words()
    again = program.start()
    assert program.until(again, "node.boot")["cause"] == "WATCHDOG"
    assert program.until(again, "event")["name"] == "NODE.RESET"
    assert program.until(again, "event")["name"] == "NODE.LAST_WORDS"
    assert end(again, signal.SIGTERM)[0] == 0


def test_a_party_that_owes_its_reply_ends_the_process_though_its_loop_still_turns(program):
    planted = (
        "from flightsw.node import Node\nsend = Node._send_beacon\n"
        "Node._send_beacon = lambda node, now_ns: send(node, now_ns) or False\n"
    )
    process = program.start(planted)
    assert program.until(process, "health.step")["party"] == "beacon"
    assert end(process)[0] == -signal.SIGALRM
    again = program.start()
    assert program.until(again, "node.boot")["cause"] == "WATCHDOG"
    end(again, signal.SIGTERM)


@pytest.mark.slow
def test_a_sound_node_outlives_many_timeouts_and_leaves_no_words(program):
    process = program.start()
    assert program.until(process, "node.stable")["boot"] == 1
    assert end(process, signal.SIGTERM)[0] == 0
    assert program.words() == ""
    again = program.start()
    assert program.until(again, "node.boot")["cause"] == "POWER_CYCLE"
    end(again, signal.SIGTERM)


def test_an_exception_leaves_its_trace_for_the_next_boot(program):
    planted = "def stumble(*_): raise AssertionError('planted')\nSupervision.cycle = stumble\n"
    process = program.start(SUPERVISION + planted)
    code, errors = end(process)
    assert code == 1
    assert "AssertionError: planted" in errors
    assert load_board(program.folder / "board.json", profiles.load("raspberry-pi-5")).cause() is ResetCause.EXCEPTION
    again = program.start()
    assert program.until(again, "node.boot")["cause"] == "EXCEPTION"
    event = program.until(again, "event")
    while event["name"] != "NODE.LAST_WORDS":
        event = program.until(again, "event")
    end(again, signal.SIGTERM)


def test_systemd_hears_of_each_stroke(program, tmp_path):
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(tmp_path / "notify"))
    manager.settimeout(PATIENCE_S)
    process = program.start(NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="1000000")
    with manager:
        assert [manager.recv(64) for _ in range(3)] == [b"WATCHDOG=1"] * 3
    assert end(process, signal.SIGTERM)[0] == 0


def test_a_systemd_that_has_gone_stops_no_stroke(tmp_path, monkeypatch):
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    words = LastWords(tmp_path / "words")
    dog = ProgramWatchdog(words, 1.0)
    manager.close()
    for _ in range(3):
        dog.stroke(1000.0)
    assert signal.getitimer(signal.ITIMER_REAL)[0] > 900
    dog.stop()
    words.close()


def test_without_systemd_nothing_is_sent(tmp_path, monkeypatch):
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    with manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.delenv("WATCHDOG_USEC", raising=False)
        words = LastWords(tmp_path / "words")
        dog = ProgramWatchdog(words, 1.0)
        dog.stroke(1000.0)
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 900
        dog.stop()
        words.close()
        assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
        with pytest.raises(BlockingIOError):
            manager.recv(64)


def test_a_fast_mission_does_not_make_the_watchdog_of_the_machine_impatient(tmp_path):
    words = LastWords(tmp_path / "words")
    dog = ProgramWatchdog(words, 1000.0)
    dog.stroke(60.0)
    left_s = signal.getitimer(signal.ITIMER_REAL)[0]
    dog.stop()
    words.close()
    assert 10 < left_s <= 20
