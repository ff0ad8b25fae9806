"""`python -m boards` on a real kind of board: a process over a recorded board, and what the ground hears."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time  # noqa: TID251 - programs share the machine's clock

import msgspec
import pytest

from boards import profiles
from boards.composition import WorkerHang, open_profile, open_sensors
from boards.program import BoardSettings, NodeProgram, NodeSettings, main
from boards.simulated.clock import LoopClock
from boards.support import trees
from boards.support.boot_note import load_note
from boards.support.tools import PERIOD_NS, ToolResult
from boards.worker.settings import WorkerSettings
from flightsw.config import InterfaceConfig, NodeConfig
from flightsw.dictionary import flight_dictionary
from flightsw.dictionary.model import HOUSEKEEPING
from flightsw.errors import ControlError, StorageError
from flightsw.host import control
from flightsw.host.clock import HostClock
from flightsw.host.files import FileDisk
from flightsw.host.loop import PacedLoop
from flightsw.host.program import Ending, Exit
from flightsw.host.settings import BenchSettings, ClockSettings, LinkSettings, StorageSettings
from flightsw.net.agent import BundleAgent
from flightsw.net.contacts import Contact, ContactPlan
from flightsw.net.endpoint import Endpoint
from flightsw.net.plans import encode_plan
from flightsw.ports import ResetCause
from flightsw.wire.messages import Beacon, Event, Packets, decode_message
from hil.bench.settings_files import write_settings
from hil.channel.wires import PtyWire

S = 1_000_000_000
GROUND, NODE = 1, 11
SCALE = 20.0
PATIENCE_S = 20.0
"""Longest wait for what a healthy program does within seconds [s of the machine]."""
RADIO = (InterfaceConfig(index=0, name="radio"),)
PLAN = ContactPlan(Contact(0, 10**15, a, 0, b, 0, 1e6, 10**6) for a, b in ((GROUND, NODE), (NODE, GROUND)))
ZONE = "sys/class/thermal/thermal_zone0/temp"
BOOT_ID = "proc/sys/kernel/random/boot_id"
HARDWARE_PACKET = f"HARDWARE.{HOUSEKEEPING}"
INLINE = WorkerSettings(isolation="inline")


class Lab:
    """A recorded board, the settings of a node on it, and the processes that were started."""

    def __init__(self, folder, tree="raspberry-pi-5"):
        self.folder, self.root = folder, folder / "root"
        self.laid = trees.lay(tree, self.root)
        self.boot_id("first")
        (folder / "plan.json").write_bytes(encode_plan(PLAN))
        world = {"sun": [[0, 10**15]], "sunlight": [1.0], "step_s": 1000.0}
        (folder / "world.json").write_bytes(msgspec.json.encode(world))
        self.zero_utc_ns = time.time_ns()
        self.processes = []
        self.settings = NodeSettings(
            node=NodeConfig(
                node=NODE,
                name="sat-01",
                interfaces=RADIO,
                beacon_period_s=2.0,
                housekeeping_period_s=5.0,
                tick_period_s=1.0,
            ),
            board=BoardSettings(kind="auto", world="world.json", root=str(self.root)),
            clock=ClockSettings(zero_utc_ns=self.zero_utc_ns, epoch_utc_ns=1_790_000_000 * S, time_scale=SCALE),
            link=LinkSettings(url="serial:///dev/null"),
            storage=StorageSettings(folder="disk", capacity_bytes=1 << 24),
            plan="plan.json",
            worker=INLINE,
        )

    @property
    def config(self):
        return self.folder / "node.toml"

    def boot_id(self, text):
        """Let the machine be one that has been started anew."""
        path = self.root / BOOT_ID
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")

    def change(self, section=None, **values):
        if section is not None:
            values = {section: msgspec.structs.replace(getattr(self.settings, section), **values)}
        self.settings = msgspec.structs.replace(self.settings, **values)

    def write(self, path=None):
        write_settings(path or self.config, self.settings)

    def start(self, *options):
        command = [sys.executable, "-m", "boards", "--config", str(self.config), *map(str, options)]
        self.processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        return self.processes[-1]

    def note(self):
        return load_note(self.folder / "board.json.note")

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


def finish(process, number):
    """(exit code, standard error) of a process that is ended by a signal."""
    process.send_signal(number)
    _, errors = process.communicate(timeout=PATIENCE_S)
    return process.returncode, errors.decode()


class Ears:
    """The ground's end of the wire: takes what the node tells of itself."""

    def __init__(self, lab, loop):
        self.wire = PtyWire()
        lab.change("link", url=self.wire.url)
        self.told = asyncio.Queue()
        agent = BundleAgent(GROUND, PLAN, RADIO, session_base=1 << 32)
        self.endpoint = Endpoint(HostClock(loop, 1_790_000_000 * S), self, agent, self._on_delivery)
        self.endpoint.flush()

    def send(self, interface, frame):
        self.wire.deliver(interface, frame)

    def set_receiver(self, receiver):
        self.wire.on_frame = receiver

    async def close(self):
        self.wire.close()

    def _on_delivery(self, delivery):
        self.told.put_nowait(decode_message(delivery.payload))

    async def wait(self, wanted):
        """The first answer of `wanted` to a message that is not None."""
        async with asyncio.timeout(PATIENCE_S * SCALE):
            while True:
                found = wanted(await self.told.get())
                if found is not None:
                    return found

    async def beacon(self):
        return await self.wait(lambda message: message if isinstance(message, Beacon) else None)

    async def event(self, name):
        """The text of the next event of this name."""
        wanted = tuple(name.split("."))
        return await self.wait(
            lambda one: one.text if isinstance(one, Event) and (one.component, one.name) == wanted else None
        )

    async def channels(self, holds):
        """The channels of HARDWARE, once they are so."""
        keys = flight_dictionary().packets[HARDWARE_PACKET].channels

        def found(message):
            for packet in message.packets if isinstance(message, Packets) else ():
                if packet.name == HARDWARE_PACKET:
                    values = dict(zip((key.partition(".")[2] for key in keys), packet.values, strict=True))
                    return values if holds(values) else None
            return None

        return await self.wait(found)


def run(lab, scenario):
    """Run a scenario on the lab's time, with ears; returns what it returns."""

    async def heard(loop):
        ears = Ears(lab, loop)
        lab.write()
        try:
            return await scenario(ears)
        finally:
            await ears.endpoint.close()

    loop = PacedLoop(lab.zero_utc_ns, SCALE)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(heard(loop))


# What the board says


def test_a_node_on_a_real_board_beacons_its_temperature_and_tells_what_it_lacks(lab):
    async def scenario(ears):
        process = lab.start()
        told = await ears.event("HARDWARE.CAPABILITY_ABSENT")
        assert told == "memory_limit: jobs run inside the manager, which nothing confines"
        beacon = await ears.beacon()
        assert (beacon.electronics_ddegc, beacon.reset_cause) == (483, 1)
        values = await ears.channels(lambda _: True)
        assert values["hottest_degc"] == 48.3
        assert (values["troubles"], values["under_voltage"]) == (0, "NO")
        assert "input_w" in values["unknown"]
        assert finish(process, signal.SIGTERM)[0] == 0

    run(lab, scenario)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"hot\n", "not a whole number"),
        (b"999999999\n", "out of range"),
        (b"\x00\xff\xfe", "not text"),
        (None, "ENOENT"),
    ],
    ids=["empty", "words", "huge", "bytes", "missing"],
)
def test_a_sensor_that_breaks_and_heals_is_degraded_meanwhile_and_told_twice(lab, content, reason):
    zone = lab.root / ZONE

    async def scenario(ears):
        process = lab.start()
        await ears.channels(lambda values: values["troubles"] == 0)
        if content is None:
            zone.unlink()
        else:
            zone.write_bytes(content)
        told = await ears.event("HARDWARE.SENSOR_DEGRADED")
        assert told.startswith("cpu-thermal: ")
        assert reason in told
        values = await ears.channels(lambda values: values["troubles"] > 0)
        assert values["troubled"] == "cpu-thermal"
        assert (values["hottest_degc"], values["under_voltage"]) == (45.31, "NO"), "what the other sensors say"
        await ears.beacon()
        zone.write_bytes(b"51000\n")
        assert await ears.event("HARDWARE.SENSOR_BACK") == "cpu-thermal"
        values = await ears.channels(lambda values: values["troubles"] == 0)
        assert values["hottest_degc"] == 51.0
        assert finish(process, signal.SIGTERM) == (0, "")

    run(lab, scenario)


def test_without_a_temperature_for_long_the_node_says_that_it_has_no_reading_and_beacons_on(lab):
    async def scenario(ears):
        process = lab.start()
        await ears.beacon()
        (lab.root / ZONE).write_bytes(b"")
        told = await ears.event("NODE.SENSOR_LOST")
        assert told.startswith("no temperature of the processor for ")
        assert "cpu-thermal: empty" in told
        await ears.beacon()
        assert finish(process, signal.SIGTERM)[0] == 0

    run(lab, scenario)


def test_a_simulated_board_shows_the_report_of_a_recorded_one(tmp_path):
    lab = Lab(tmp_path)
    lab.change(
        worker=None,
        board=BoardSettings(kind="simulated", profile="raspberry-pi-5", world="world.json", tree="raspberry-pi-5"),
    )

    async def scenario(ears):
        process = lab.start()
        values = await ears.channels(lambda _: True)
        assert values["hottest_degc"] == 48.3
        assert values["present"] > 0
        beacon = await ears.beacon()
        assert beacon.electronics_ddegc < 400, "the model's, not the recorded board's"
        assert finish(process, signal.SIGTERM)[0] == 0

    try:
        run(lab, scenario)
    finally:
        lab.close()


# Jobs


def test_jobs_of_a_real_board_run_in_a_worker(lab):
    lab.change(worker=WorkerSettings(isolation="rlimits"))

    async def scenario(ears):
        process = lab.start()
        await ears.beacon()
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, errors) == (0, b"")
        [record] = [one for one in map(json.loads, output.splitlines()) if one["kind"] == "worker.isolation"]
        assert record["way"] == "rlimits"

    run(lab, scenario)


def test_a_bench_stops_a_worker_where_it_would_hang_a_simulated_one():
    class Runner:
        worker_pid = 77

    runner, stopped = Runner(), []
    hang = WorkerHang(runner, stopped.append)
    hang.hang()
    assert stopped == [77]
    with pytest.raises(ControlError, match="ends with its restart"):
        hang.hang(outlives_restart=True)
    runner.worker_pid = 0
    with pytest.raises(ControlError, match="no worker runs"):
        hang.hang()


# Why it starts


def boots(lab):
    """The process of the next boot, and the cause in its beacon."""

    async def scenario(ears):
        process = lab.start()
        beacon = await ears.beacon()
        return process, beacon.reset_cause

    return run(lab, scenario)


CAUSES = {
    "killed": (lambda lab, process: finish(process, signal.SIGKILL), "KILLED"),
    "stopped in order": (lambda lab, process: finish(process, signal.SIGTERM), "RESET_COMMAND"),
    "power cut": (lambda lab, process: (finish(process, signal.SIGKILL), lab.boot_id("second")), "POWER_CYCLE"),
    "hung": (lambda lab, process: finish(process, signal.SIGALRM), "WATCHDOG"),
}


@pytest.mark.parametrize(("end", "cause"), CAUSES.values(), ids=CAUSES.keys())
def test_a_board_judges_by_itself_why_it_starts(lab, end, cause):
    process, first = boots(lab)
    assert first == 1, "POWER_ON"
    assert lab.note().phase == "running"
    end(lab, process)
    process, again = boots(lab)
    assert ResetCause(again).name == cause
    finish(process, signal.SIGTERM)
    assert lab.note().phase == "ended"


def test_a_kernel_that_panicked_is_told_by_its_record(lab):
    process, _ = boots(lab)
    finish(process, signal.SIGKILL)
    lab.boot_id("second")
    pstore = lab.root / "sys/fs/pstore"
    pstore.mkdir(parents=True, exist_ok=True)
    (pstore / "dmesg-ramoops-0").write_text(
        "Panic#1 Part1\n<0>[   12.3] Kernel panic - not syncing: sysrq triggered crash\n"
    )

    async def scenario(ears):
        process = lab.start()
        words = await ears.event("NODE.LAST_WORDS")
        assert "sysrq triggered crash" in words
        assert (await ears.beacon()).reset_cause == 7
        finish(process, signal.SIGTERM)

    run(lab, scenario)


def test_the_launcher_knows_better(lab):
    process, _ = boots(lab)
    finish(process, signal.SIGKILL)

    async def scenario(ears):
        process = lab.start("--cause", "EXCEPTION")
        assert (await ears.beacon()).reset_cause == 4
        finish(process, signal.SIGTERM)

    run(lab, scenario)


def test_a_board_starts_whatever_a_power_cut_has_made_of_the_model_s_state(lab):
    (lab.folder / "board.json").write_bytes(b"\x00" * 40)
    (lab.folder / "board.json.note").write_bytes(b"\x00" * 40)
    process, cause = boots(lab)
    assert cause == 5, "POWER_CYCLE: nothing else is known"
    code, errors = finish(process, signal.SIGTERM)
    assert code == 0
    assert "board.json: not JSON" in errors
    assert "starts with a new battery" in errors


def test_a_board_whose_clock_is_not_set_yet_starts(lab):
    process, _ = boots(lab)
    finish(process, signal.SIGTERM)
    saved = json.loads((lab.folder / "board.json").read_bytes())
    saved["board"]["at_ns"] = 10**15
    (lab.folder / "board.json").write_text(json.dumps(saved))
    process, _ = boots(lab)
    code, errors = finish(process, signal.SIGTERM)
    assert code == 0
    assert "the clock is not set yet: goes on from there" in errors


# A power cycle by command


class Machine:
    """Takes what would start the board anew."""

    def __init__(self, exit_code=0, error=None):
        self.commands, self.exit_code, self.error = [], exit_code, error
        self.asked = set()

    def __call__(self, arguments):
        if arguments[0] != "systemctl":
            self.asked.add(" ".join(arguments))
            raise FileNotFoundError(2, "No such file or directory")
        self.commands.append(tuple(arguments))
        if self.error is not None:
            raise self.error
        return ToolResult(self.exit_code, "not allowed\n")


def cycled(lab, tool, cause):
    """Exit code of a program whose node asks for a reset with this cause."""
    loop = PacedLoop(lab.zero_utc_ns, SCALE)
    program = NodeProgram(lab.settings, lab.folder, None, None, loop, tool=tool)

    async def life():
        ending = Ending()
        runs = await program.compose(ending)
        program._next_cause = ResetCause[cause]
        loop.call_later(1.0, ending.tell, Exit.RESET)
        return await runs()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(life())


@pytest.mark.parametrize(
    ("how", "cause", "commands"),
    [
        ("reboot", "POWER_CYCLE", [("systemctl", "reboot")]),
        ("reboot", "RESET_COMMAND", []),
        ("process", "POWER_CYCLE", []),
    ],
)
def test_a_power_cycle_starts_the_board_anew_where_the_settings_say_so(lab, capsys, how, cause, commands):
    lab.change("board", power_cycle=how)
    tool = Machine()
    assert cycled(lab, tool, cause) is Exit.RESET
    assert tool.commands == commands
    assert lab.note().cause == cause


@pytest.mark.parametrize(
    ("tool", "why"),
    [(Machine(1), "not allowed"), (Machine(error=FileNotFoundError(2, "No such file or directory")), "No such file")],
)
def test_a_board_that_cannot_start_itself_anew_starts_the_program(lab, capsys, tool, why):
    lab.change("board", power_cycle="reboot")
    assert cycled(lab, tool, "POWER_CYCLE") is Exit.RESET
    errors = capsys.readouterr().err
    assert errors.startswith("boards: systemctl reboot: ")
    assert why in errors
    assert errors.endswith(": starts the program again instead\n")


def test_a_program_asks_the_tools_of_its_board_and_no_others(lab):
    tool = Machine()
    cycled(lab, tool, "EXCEPTION")
    assert "vcgencmd get_throttled" in tool.asked, "the sensors"
    lab.boot_id("second")
    again = Machine()
    cycled(lab, again, "EXCEPTION")
    assert "vcgencmd get_rsts" in again.asked, "why it starts"


def test_tools_of_a_board_are_paced_by_the_machine_s_seconds_at_any_time_scale(lab):
    now_ns, calls = [0], []

    def tool(arguments):
        calls.append(arguments)
        return lab.laid.run(arguments)

    sensors = open_sensors(lab.settings.board, lab.folder, LoopClock(lambda: now_ns[0], 0), tool, time_scale=SCALE)
    sensors.read()
    calls.clear()
    now_ns[0] = round(PERIOD_NS * SCALE) - 100
    sensors.read()
    assert calls == []
    now_ns[0] = round(PERIOD_NS * SCALE)
    sensors.read()
    assert len(calls) == 2


# A disk that takes nothing


def full_disk(lab):
    """Let neither the state nor the note be replaced."""
    for name in ("board.json.new", "board.json.note.new"):
        (lab.folder / name).mkdir()


def test_a_disk_that_takes_nothing_costs_a_real_board_its_traces_and_not_its_node(lab, capsys):
    full_disk(lab)
    tool = Machine()
    lab.change("board", power_cycle="reboot")
    assert cycled(lab, tool, "POWER_CYCLE") is Exit.RESET
    assert tool.commands == [("systemctl", "reboot")]
    errors = capsys.readouterr().err.splitlines()
    assert [line.rpartition(": ")[2] for line in errors] == [
        "the next start may not know why it happens",
        "the battery's charge is not kept",
        "the next start may not know why it happens",
    ]


def test_a_state_that_cannot_be_kept_ends_a_simulated_board_and_gives_back_what_it_had(lab):
    full_disk(lab)
    lab.change(worker=None, board=BoardSettings(kind="simulated", profile="raspberry-pi-5", world="world.json"))
    with pytest.raises(StorageError, match=r"board\.json: cannot be written"):
        cycled(lab, Machine(), "RESET_COMMAND")
    FileDisk(lab.folder / "disk", 1 << 24).close()


# The UART of the pin header


def test_the_wire_may_be_the_board_s_header_whatever_its_device_is_called(lab):
    async def scenario(ears):
        device, mark, options = lab.settings.link.url.removeprefix("serial://").partition("?")
        (lab.root / "dev").mkdir(exist_ok=True)
        (lab.root / "dev/ttyAMA0").unlink(missing_ok=True)
        (lab.root / "dev/ttyAMA0").symlink_to(device)
        lab.change("link", url=f"serial://header{mark}{options}")
        lab.write()
        process = lab.start()
        assert (await ears.beacon()).node == NODE
        assert finish(process, signal.SIGTERM)[0] == 0

    run(lab, scenario)


def test_a_header_without_a_uart_is_one_line_that_says_why(lab, capsys):
    lab.change("link", url="serial://header?baud=115200")
    (lab.root / "sys/class/tty/ttyAMA0").unlink()
    lab.write()
    assert main(["--config", str(lab.config)]) == 2
    assert capsys.readouterr().err == (
        "boards: link.url = 'serial://header?baud=115200': no tty on rp1/serial@30000: it is off, or another driver "
        "has it\n"
    )


def test_a_simulated_board_has_no_header(lab, capsys):
    lab.change("link", url="serial://header")
    lab.change(worker=None, board=BoardSettings(kind="simulated", profile="raspberry-pi-5", world="world.json"))
    lab.write()
    assert main(["--config", str(lab.config)]) == 2
    assert capsys.readouterr().err.startswith("boards: link.url = 'serial://header': expected another device with ")


# Waiting for the settings


def test_a_program_that_awaits_its_settings_is_a_node_as_soon_as_they_are_there(lab):
    async def scenario(ears):
        lab.config.unlink()
        process = lab.start("--await-config")
        assert process.stderr.readline() == f"boards: waits for {lab.config}\n".encode()
        temporary = lab.folder / "node.toml.new"
        lab.write(temporary)
        temporary.rename(lab.config)
        assert (await ears.beacon()).node == NODE
        assert finish(process, signal.SIGTERM) == (0, "")

    run(lab, scenario)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_program_that_waits_for_its_settings_can_be_ended(lab, number):
    process = lab.start("--await-config")
    process.stderr.readline()
    assert finish(process, number) == (0, "")


def watched(lab, *options):
    """(a socket on which a service manager hears, the process that it watches)."""
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    path = str(lab.folder / "notify")
    manager.bind(path)
    manager.settimeout(PATIENCE_S)
    environment = {**os.environ, "NOTIFY_SOCKET": path, "WATCHDOG_USEC": "60000000"}
    command = [sys.executable, "-m", "boards", "--config", str(lab.config), *options]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    lab.processes.append(process)
    return manager, process


def test_a_program_that_waits_for_its_settings_strokes_the_service_manager(lab):
    manager, process = watched(lab, "--await-config")
    with manager:
        assert [manager.recv(64) for _ in range(2)] == [b"WATCHDOG=1"] * 2
        assert finish(process, signal.SIGTERM)[0] == 0


def test_a_program_that_waits_for_t_zero_strokes_the_service_manager(lab):
    lab.change("clock", zero_utc_ns=time.time_ns() + 3600 * S)
    lab.write()
    manager, process = watched(lab)
    with manager:
        assert json.loads(process.stdout.readline())["kind"] == "board.evidence"
        assert json.loads(process.stdout.readline())["kind"] == "program.waits"
        assert [manager.recv(64) for _ in range(4)] == [b"WATCHDOG=1"] * 4
        assert finish(process, signal.SIGTERM)[0] == 0


# A bench over TCP


def test_a_bench_on_another_machine_meets_the_node_by_its_token_and_the_node_outlives_it(lab):
    async def scenario(ears):
        hellos, kinds = asyncio.Queue(), set()
        handlers = {
            "hello": lambda name, pid, token: hellos.put_nowait((name, token)),
            "log": lambda t_ns, kind, fields: kinds.add(kind),
        }
        server = await control.serve_url("tcp://127.0.0.1:0", handlers)
        lab.change(bench=BenchSettings(url=f"tcp://127.0.0.1:{server.port}", token="0123456789abcdef"))
        lab.write()
        process = lab.start()
        assert await asyncio.wait_for(hellos.get(), PATIENCE_S * SCALE) == ("sat-01", "0123456789abcdef")
        await ears.beacon()
        assert "node.boot" in kinds
        [peer] = server.peers
        assert (await peer.call("accounts"))["mode"] == "NOMINAL"
        await server.close()
        (lab.root / ZONE).write_bytes(b"")
        await ears.event("HARDWARE.SENSOR_DEGRADED")
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0
        names = [record.get("name") for record in map(json.loads, output.splitlines())]
        assert names[0] == "HARDWARE.SENSOR_DEGRADED", "its log goes to standard output from then on"

    run(lab, scenario)


def test_a_bench_that_is_not_there_keeps_no_board_from_starting(lab):
    async def scenario(ears):
        lab.change(bench=BenchSettings(url="tcp://127.0.0.1:1", token="0123456789abcdef"))
        lab.write()
        process = lab.start()
        await ears.beacon()
        code, errors = finish(process, signal.SIGTERM)
        assert code == 0
        assert errors.startswith("boards: sat-01: no bench: control socket tcp://127.0.0.1:1: ")

    run(lab, scenario)


# Settings


WRONG = [
    ({"kind": "jetson"}, "board.kind = 'jetson': this board is 'Raspberry Pi 5 Model B Rev 1.0' of family"),
    ({"tree": "host"}, "board.tree = 'host': expected none with board.kind = 'auto'"),
    ({"root": "root"}, "board.root = 'root': expected an absolute path"),
    ({"kind": "simulated", "root": "/"}, "board.profile: missing, expected a profile's name"),
    ({"kind": "simulated", "profile": "raspberry-pi-5", "root": "/x"}, "board.root = '/x': expected none with board"),
    ({"kind": "simulated", "profile": "raspberry-pi-5", "root": "/"}, "worker: expected no such table with board.kind"),
]


@pytest.mark.parametrize(("values", "why"), WRONG, ids=range(len(WRONG)))
def test_settings_that_do_not_go_together_are_one_line_that_says_what(lab, capsys, values, why):
    lab.change("board", **values)
    lab.write()
    assert main(["--config", str(lab.config)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"boards: {why}")


def test_a_tree_that_is_not_there_is_one_line(lab, capsys):
    lab.change(
        worker=None, board=BoardSettings(kind="simulated", profile="raspberry-pi-5", world="world.json", tree="x")
    )
    lab.write()
    assert main(["--config", str(lab.config)]) == 2
    assert capsys.readouterr().err.startswith("boards: board tree 'x': expected one of ")


def test_a_board_that_no_profile_fits_must_be_given_one(tmp_path, capsys):
    lab = Lab(tmp_path, tree="host")
    lab.write()
    assert main(["--config", str(lab.config)]) == 2
    assert capsys.readouterr().err.startswith("boards: board.profile: missing, and no shipped profile fits ")


def test_the_shipped_profile_that_fits_the_board_is_taken(lab):
    sensors = open_sensors(lab.settings.board, lab.folder, LoopClock(lambda: 0, 0))
    assert open_profile(lab.settings.board, lab.folder, sensors) == profiles.load("raspberry-pi-5")
