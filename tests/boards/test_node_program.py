"""`python -m boards`: a real process with real files, a real pseudo-terminal and real signals."""

import asyncio
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time  # noqa: TID251 - programs share the machine's clock
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from boards import profiles
from boards.program import BoardSettings, NodeSettings, main
from boards.simulated.states import load_board
from flightsw.config import InterfaceConfig, NodeConfig
from flightsw.host import control
from flightsw.host.clock import HostClock
from flightsw.host.loop import PacedLoop
from flightsw.host.settings import ClockSettings, LinkSettings, StorageSettings
from flightsw.net.agent import BundleAgent
from flightsw.net.contacts import Contact, ContactPlan
from flightsw.net.endpoint import Endpoint
from flightsw.net.plans import encode_plan
from flightsw.ports import ResetCause
from flightsw.wire.messages import SERVICE_TELEMETRY, Beacon, decode_message
from hil.bench.settings_files import write_settings
from hil.channel.wires import PtyWire

S = 1_000_000_000
GROUND, NODE = 1, 11
SCALE = 20.0
PATIENCE_S = 60.0
"""Longest wait for what a healthy program does within a second [s of the machine]."""
PROFILE = profiles.load("raspberry-pi-5")
RADIO = (InterfaceConfig(index=0, name="radio"),)
PLAN = ContactPlan(Contact(0, 10**15, a, 0, b, 0, 1e6, 10**6) for a, b in ((GROUND, NODE), (NODE, GROUND)))


class Lab:
    """A folder with the settings of a node, and what it takes to run it."""

    def __init__(self, folder, *, scale=SCALE, zero_utc_ns=None):
        self.folder = folder
        self.scale = scale
        self.zero_utc_ns = time.time_ns() if zero_utc_ns is None else zero_utc_ns
        self.processes = []
        (folder / "plan.json").write_bytes(encode_plan(PLAN))
        self.shine(1.0)
        self.settings = NodeSettings(
            node=NodeConfig(node=NODE, name="sat-01", interfaces=RADIO, beacon_period_s=2.0, tick_period_s=1.0),
            board=BoardSettings(kind="simulated", profile="raspberry-pi-5", world="world.json"),
            clock=ClockSettings(zero_utc_ns=self.zero_utc_ns, epoch_utc_ns=1_790_000_000 * S, time_scale=scale),
            link=LinkSettings(url="serial:///dev/null"),
            storage=StorageSettings(folder="disk", capacity_bytes=1 << 24),
            plan="plan.json",
        )

    def shine(self, *sunlight, step_s=1000.0):
        (self.folder / "world.json").write_bytes(
            msgspec.json.encode({"sun": [[0, 10**15]], "sunlight": sunlight, "step_s": step_s})
        )

    @property
    def config(self):
        return self.folder / "node.toml"

    def change(self, section, **values):
        changed = msgspec.structs.replace(getattr(self.settings, section), **values)
        self.settings = msgspec.structs.replace(self.settings, **{section: changed})

    def start(self, *options, stdout=subprocess.PIPE):
        write_settings(self.config, self.settings)
        command = [sys.executable, "-m", "boards", "--config", str(self.config), *map(str, options)]
        self.processes.append(subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE))
        return self.processes[-1]

    def saved(self):
        return load_board(self.folder / "board.json", PROFILE)

    def close(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.communicate()


@pytest.fixture
def lab(tmp_path):
    made = Lab(tmp_path)
    yield made
    made.close()


def finish(process, number=None):
    """(exit code, records on standard output, standard error) of a process that ends, or is ended by a signal."""
    if number is not None:
        process.send_signal(number)
    output, errors = process.communicate(timeout=PATIENCE_S)
    return process.returncode, [json.loads(line) for line in (output or b"").splitlines()], errors.decode()


async def ended(process):
    """As `finish`, for a process that still talks to this one."""
    loop = asyncio.get_running_loop()
    over = loop.create_future()
    descriptor = os.pidfd_open(process.pid)
    loop.add_reader(descriptor, lambda: over.done() or over.set_result(None))
    try:
        await asyncio.wait_for(over, PATIENCE_S * SCALE)
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return finish(process)


def first_line(process):
    """The first record that it writes."""
    readable, _, _ = select.select([process.stdout], [], [], PATIENCE_S)
    assert readable, "the program says nothing"
    return json.loads(process.stdout.readline())


class Ears:
    """The ground's end of the wire: takes beacons."""

    def __init__(self, lab, loop):
        self.wire = PtyWire()
        lab.change("link", url=self.wire.url)
        clock = HostClock(loop, 1_790_000_000 * S)
        self.beacons = asyncio.Queue()
        agent = BundleAgent(GROUND, PLAN, RADIO, session_base=1 << 32)
        self.endpoint = Endpoint(clock, self, agent, self._on_delivery)
        self.endpoint.flush()

    def send(self, interface, frame):
        self.wire.deliver(interface, frame)

    def set_receiver(self, receiver):
        self.wire.on_frame = receiver

    async def close(self):
        self.wire.close()

    async def beacon(self):
        return await asyncio.wait_for(self.beacons.get(), PATIENCE_S * SCALE)

    def _on_delivery(self, delivery):
        message = decode_message(delivery.payload)
        if delivery.service == SERVICE_TELEMETRY and isinstance(message, Beacon):
            self.beacons.put_nowait(message)


@asynccontextmanager
async def listening(lab, loop):
    ears = Ears(lab, loop)
    try:
        yield ears
    finally:
        await ears.endpoint.close()


def run(lab, scenario):
    """Run a coroutine function on the lab's time; it is given the loop."""
    loop = PacedLoop(lab.zero_utc_ns, lab.scale)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(scenario(loop))


# Life and death


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_node_boots_beacons_and_ends_in_order(lab, number):
    async def scenario(loop):
        async with listening(lab, loop) as ears:
            process = lab.start()
            beacon = await ears.beacon()
            assert (beacon.node, beacon.boot_count, beacon.reset_cause) == (NODE, 1, ResetCause.POWER_ON)
            assert abs(beacon.utc_ns - 1_790_000_000 * S - loop.now_ns) < 60 * S * SCALE
            return finish(process, number)

    code, records, errors = run(lab, scenario)
    assert (code, errors) == (0, "")
    assert records[0]["source"] == "sat-01"
    assert records[0]["kind"] == "node.boot"
    assert records[0]["cause"] == "POWER_ON"
    assert lab.saved().cause() is ResetCause.POWER_CYCLE


def test_a_killed_node_comes_back_with_its_count_its_battery_and_a_power_cycle(lab):
    async def scenario(loop):
        async with listening(lab, loop) as ears:
            first = lab.start()
            await ears.beacon()
            await ears.beacon()
            assert finish(first, signal.SIGKILL)[0] == -signal.SIGKILL
            before = lab.saved().board
            while not ears.beacons.empty():
                ears.beacons.get_nowait()
            second = lab.start()
            beacon = await ears.beacon()
            assert (beacon.boot_count, beacon.reset_cause) == (2, ResetCause.POWER_CYCLE)
            assert finish(second, signal.SIGTERM)[0] == 0
            after = lab.saved().board
            assert after.at_ns > before.at_ns
            assert after.account.initial_j == before.account.initial_j
            assert after.account.drawn_j > before.account.drawn_j
            charged_j = PROFILE.charge_efficiency.value * (
                (after.account.harvested_j - after.account.drawn_j)
                - (before.account.harvested_j - before.account.drawn_j)
            )
            assert after.charge_j - before.charge_j == pytest.approx(charged_j)

    run(lab, scenario)


def test_the_launcher_may_say_the_cause(lab):
    async def scenario(loop):
        async with listening(lab, loop) as ears:
            process = lab.start("--cause", "WATCHDOG")
            assert (await ears.beacon()).reset_cause == ResetCause.WATCHDOG
            finish(process, signal.SIGTERM)

    run(lab, scenario)


def test_a_battery_that_is_empty_ends_the_program_and_it_boots_again_only_with_charge(lab):
    """0.5 % of the battery lasts half a minute of mission time; the sun comes a quarter of an hour later."""
    lab.shine(0.0, 0.0, 1.0)
    lab.change("board", initial_charge=0.005)
    code, records, errors = finish(lab.start())
    assert (code, errors) == (4, "")
    assert records[0]["kind"] == "node.boot"
    saved = lab.saved()
    assert saved.board.is_dark
    assert saved.board.account.unserved_j == 0.0
    assert saved.cause() is ResetCause.BROWN_OUT

    code, records, errors = finish(lab.start())
    assert (code, records) == (4, [])
    assert errors.startswith("boards: sat-01: brown-out: the battery holds ")
    assert errors.endswith("%, boots at 20%\n")

    # as if an hour and a half had passed: T+0 moves into the past
    lab.change("clock", zero_utc_ns=lab.zero_utc_ns - round(5400 / SCALE * S))
    process = lab.start("--cause", "POWER_ON")
    assert first_line(process)["cause"] == "BROWN_OUT", "whatever the launcher thinks"
    assert finish(process, signal.SIGTERM)[0] == 0
    assert lab.saved().board.charge_j > 0.2 * 3600 * PROFILE.battery_wh.value


def test_a_program_that_starts_before_t_zero_waits_for_it(lab):
    lab.change("clock", zero_utc_ns=time.time_ns() + 2 * S)
    process = lab.start()
    waits = first_line(process)
    assert (waits["kind"], waits["until_ns"]) == ("program.waits", 0)
    assert waits["t_ns"] < 0
    boot = first_line(process)
    assert boot["kind"] == "node.boot"
    assert boot["t_ns"] >= 0
    assert finish(process, signal.SIGTERM)[0] == 0


def test_it_can_be_ended_while_it_waits(lab):
    lab.change("clock", zero_utc_ns=time.time_ns() + 3600 * S)
    process = lab.start()
    assert first_line(process)["kind"] == "program.waits"
    assert finish(process, signal.SIGTERM)[0] == 0


def test_a_reader_that_goes_away_does_not_end_the_node(lab):
    async def scenario(loop):
        async with listening(lab, loop) as ears:
            process = lab.start()
            await ears.beacon()
            process.stdout.close()
            process.stdout = None
            for _ in range(3):
                await ears.beacon()
            return finish(process, signal.SIGTERM)

    assert run(lab, scenario) == (0, [], "")


def test_two_programs_cannot_have_one_folder(lab):
    first = lab.start()
    first_line(first)
    code, _, errors = finish(lab.start())
    assert code == 2
    assert errors == f"boards: {lab.folder / 'disk'}: another program has this folder\n"
    assert finish(first, signal.SIGTERM)[0] == 0


PLANTED = {
    "in a task": "flightsw.node.Node._send_beacon = stumble\n",
    "in a callback of the loop": (
        "import asyncio\nboot = flightsw.node.Node._boot\n"
        "def boot_and_stumble(self):\n    boot(self)\n    asyncio.get_running_loop().call_later(0.1, stumble)\n"
        "flightsw.node.Node._boot = boot_and_stumble\n"
    ),
}


@pytest.mark.parametrize("planted", PLANTED.values(), ids=PLANTED.keys())
def test_a_crash_ends_with_its_traceback_and_says_so_at_the_next_boot(lab, tmp_path, planted):
    (tmp_path / "sitecustomize.py").write_text(
        f"import flightsw.node\ndef stumble(*_): raise AssertionError('planted')\n{planted}"
    )
    write_settings(lab.config, lab.settings)
    process = subprocess.Popen(
        [sys.executable, "-m", "boards", "--config", str(lab.config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    lab.processes.append(process)
    code, _, errors = finish(process)
    assert code == 1
    assert "AssertionError: planted" in errors
    assert lab.saved().cause() is ResetCause.EXCEPTION


# Settings


def wrong(lab, capsys, *options):
    """Run in this process with settings that cannot be used; returns the one line."""
    write_settings(lab.config, lab.settings)
    assert main(["--config", str(lab.config), *map(str, options)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("boards: ")
    return printed.err.removeprefix("boards: ").rstrip("\n")


FILES = [
    ("world.json", None, "world.json: cannot be read: No such file or directory"),
    (
        "world.json",
        b'{"sun": [], "sunlight": [2.0], "step_s": 1}',
        "world.json: sunlight[0] = 2.0: Expected `float` <= 1",
    ),
    ("plan.json", b"[[5, 5, 1, 0, 2, 0, 1e6, 0]]", "plan.json: [0]: end_ns = 5: expected more than 5"),
    ("plan.json", b'[[0, 5, "x", 0, 2, 0, 1e6, 0]]', "plan.json: [0][2] = 'x': Expected `int`, got `str`"),
    ("board.json", b"{}", "board.json: Object missing required field `board`"),
]


@pytest.mark.parametrize(("name", "content", "why"), FILES, ids=range(len(FILES)))
def test_a_wrong_file_is_one_line_that_says_what(lab, capsys, name, content, why):
    (lab.folder / name).unlink(missing_ok=True)
    if content is not None:
        (lab.folder / name).write_bytes(content)
    assert wrong(lab, capsys).startswith(f"{lab.folder}/{why}")


SECTIONS = [
    ("board", {"profile": "raspberry-pi-9"}, "board profile 'raspberry-pi-9': expected one of "),
    ("board", {"profile": "mine.toml"}, "mine.toml: cannot be read: No such file or directory"),
    ("link", {"url": "pigeon://x"}, "link: scheme 'pigeon', expected one of "),
    ("storage", {"folder": "plan.json"}, "open "),
    ("node", {"interfaces": (InterfaceConfig(index=0, name="r", coding="morse"),)}, "coding 'morse'"),
]


@pytest.mark.parametrize(("section", "values", "why"), SECTIONS, ids=range(len(SECTIONS)))
def test_a_wrong_setting_is_one_line_that_says_what(lab, capsys, section, values, why):
    lab.change(section, **values)
    assert why in wrong(lab, capsys)


def test_a_wrong_toml_file_names_field_value_and_expectation(lab, capsys):
    write_settings(lab.config, lab.settings)
    lab.config.write_text(lab.config.read_text().replace('name = "sat-01"', "name = 7"))
    assert main(["--config", str(lab.config)]) == 2
    assert capsys.readouterr().err == f"boards: {lab.config}: node.name = 7: Expected `str`, got `int`\n"


def test_a_missing_settings_file_is_one_line(tmp_path, capsys):
    assert main(["--config", str(tmp_path / "none.toml")]) == 2
    assert capsys.readouterr().err == f"boards: {tmp_path}/none.toml: cannot be read: No such file or directory\n"


def test_the_state_of_another_run_is_refused(lab, capsys):
    assert finish(lab.start(), signal.SIGKILL)
    board = lab.start()
    first_line(board)
    finish(board, signal.SIGTERM)
    lab.change("clock", zero_utc_ns=time.time_ns())
    saved = msgspec.json.decode((lab.folder / "board.json").read_bytes())
    saved["board"]["at_ns"] = 10**15
    (lab.folder / "board.json").write_bytes(msgspec.json.encode(saved))
    text = wrong(lab, capsys)
    assert text.startswith(f"{lab.folder}/board.json: board.at_ns = {10**15}: expected an instant that has passed")


def test_a_bench_that_is_not_there_is_one_line(lab, capsys, monkeypatch):
    monkeypatch.setattr("flightsw.host.program.end_with_parent", lambda: None)  # this process is the test's
    text = wrong(lab, capsys, "--bench", lab.folder / "bench")
    assert text == f"control socket {lab.folder}/bench: No such file or directory; is the program running?"


def test_unknown_options_are_refused(lab):
    with pytest.raises(SystemExit) as caught:
        main(["--config", str(lab.config), "--cause", "BOREDOM"])
    assert caught.value.code == 2


# The bench port


class Bench:
    """The other end of the bench port."""

    def __init__(self):
        self.said = []
        self.peer = None
        self.greeted = asyncio.Event()
        self.news = asyncio.Event()

    def on_peer(self, peer):
        def hello(name: str, pid: int) -> None:
            self.peer = peer
            self.said.append(("hello", name, pid))
            self.greeted.set()

        def tell(method):
            def take(*params):
                self.said.append((method, *params))
                self.news.set()

            return take

        peer.set_handlers({"hello": hello, "log": tell("log"), "brown_out": tell("brown_out"), "reset": tell("reset")})

    async def until(self, method, kind=None):
        """The first notification of a method, or log record of a kind."""
        while True:
            for one in self.said:
                if one[0] == method and (kind is None or one[2] == kind):
                    return one
            self.news.clear()
            await asyncio.wait_for(self.news.wait(), PATIENCE_S * SCALE)


@asynccontextmanager
async def benched(lab):
    bench = Bench()
    server = await control.serve(lab.folder / "bench", {}, bench.on_peer)
    try:
        yield bench
    finally:
        await server.close()


def test_the_bench_sees_the_log_and_the_books_and_can_stop_the_node(lab):
    async def scenario(loop):
        async with benched(lab) as bench, listening(lab, loop) as ears:
            process = lab.start("--bench", lab.folder / "bench")
            await ears.beacon()
            _, t_ns, _, fields = await bench.until("log", "node.boot")
            assert bench.said[0] == ("hello", "sat-01", process.pid)
            assert 0 < t_ns < loop.now_ns
            assert (fields["boot"], fields["cause"]) == (1, "POWER_ON")
            books = await bench.peer.call("accounts")
            assert books["counts"]["frames_rejected"] == 0
            assert set(books["counts"]) >= {"frames_accepted", "retransmissions", "dropped", "models_repaired"}
            assert books["mode"] == "NOMINAL"
            assert books["computing"] is False
            assert all(pushed == taken + displaced + held for pushed, taken, displaced, held, _, _ in books["queues"])
            assert 0 < books["beaconed_ns"] < loop.now_ns
            energy = books["energy"]
            left_j = energy["initial_j"] + energy["harvested_j"] - energy["drawn_j"] - energy["lost_j"]
            assert left_j - energy["shunted_j"] == pytest.approx(energy["charge_j"])
            assert books["sensors"]["sunlight"] == 1.0
            assert await bench.peer.call("strike_weights", 7, 1) is False
            assert await bench.peer.call("rot_object", 7) is False
            await bench.peer.call("stop")
            assert await ended(process) == (0, [], "")

    run(lab, scenario)


def test_a_rotten_object_is_found_by_the_scrub(lab):
    """The bench rots one bit of an object that lies on the node's disk."""
    from flightsw.host.files import FileDisk
    from flightsw.objects.store import ObjectStore

    lab.change("node", scrub_period_s=1.0)
    disk = FileDisk(lab.folder / "disk", 1 << 20)
    digest = ObjectStore(disk, quota_bytes=1 << 20).put(b"object" * 1000)
    disk.close()

    async def scenario(loop):
        async with benched(lab) as bench, listening(lab, loop):
            process = lab.start("--bench", lab.folder / "bench")
            await asyncio.wait_for(bench.greeted.wait(), PATIENCE_S * SCALE)
            assert await bench.peer.call("rot_object", 7) is True
            _, _, _, fields = await bench.until("log", "object.rotten")
            assert fields == {"object": digest}
            process.terminate()
            await ended(process)

    run(lab, scenario)


def test_a_brown_out_is_told_to_the_bench_before_the_end(lab):
    lab.shine(0.0)
    lab.change("board", initial_charge=0.005)

    async def scenario(loop):
        async with benched(lab) as bench, listening(lab, loop):
            process = lab.start("--bench", lab.folder / "bench")
            method, t_ns, computing = await bench.until("brown_out")
            assert (method, computing) == ("brown_out", False)
            assert (await ended(process))[0] == 4
            assert t_ns <= lab.saved().board.at_ns

    run(lab, scenario)


def test_a_node_ends_when_its_bench_goes_away(lab):
    async def scenario(loop):
        async with listening(lab, loop):
            async with benched(lab) as bench:
                process = lab.start("--bench", lab.folder / "bench")
                await asyncio.wait_for(bench.greeted.wait(), PATIENCE_S * SCALE)
            assert (await ended(process))[0] == 0

    run(lab, scenario)


def test_a_bench_that_refuses_is_told_in_one_line(lab):
    async def scenario(loop):
        server = await control.serve(lab.folder / "bench", {})  # knows no hello
        process = lab.start("--bench", lab.folder / "bench")
        code, records, errors = await ended(process)
        await server.close()
        assert (code, records) == (2, [])
        assert errors == "boards: hello: no such method, expected one of \n"

    run(lab, scenario)


def test_without_the_option_a_node_listens_nowhere(lab):
    process = lab.start()
    first_line(process)
    links = []
    for link in Path(f"/proc/{process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            links.append(str(link.readlink()))
    sockets = [link.removeprefix("socket:[").removesuffix("]") for link in links if link.startswith("socket:")]
    rows = [line.split() for line in Path(f"/proc/{process.pid}/net/unix").read_text().splitlines()]
    # flags 00010000: a socket that accepts connections
    assert [row for row in rows if row[3] == "00010000" and row[6] in sockets] == []
    finish(process, signal.SIGTERM)


PARENT = """
import asyncio, subprocess, sys
from pathlib import Path
from flightsw.host import control

async def main():
    def hello(name: str, pid: int) -> None:
        print(pid, flush=True)
    await control.serve(Path(sys.argv[1]), {"hello": hello, "log": lambda *params: None})
    subprocess.Popen([sys.executable, "-m", "boards", "--config", sys.argv[2], "--bench", sys.argv[1]])
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_a_node_does_not_outlive_a_killed_bench(lab):
    write_settings(lab.config, lab.settings)
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(lab.folder / "bench"), str(lab.config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    lab.processes.append(parent)
    child = os.pidfd_open(int(parent.stdout.readline()))
    try:
        parent.kill()
        ended, _, _ = select.select([child], [], [], PATIENCE_S)
        assert ended, "the child lives on"
    finally:
        os.close(child)
