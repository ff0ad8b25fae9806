"""Why a real board starts, as it judges by itself, and how it starts itself anew, also on a disk that takes nothing."""

import asyncio
import json
import signal

import pytest

from boards.composition import open_sensors
from boards.program import BoardSettings, NodeProgram
from boards.simulated.clock import LoopClock
from boards.support.tools import PERIOD_NS, ToolResult
from flightsw.errors import StorageError
from flightsw.host.files import FileDisk
from flightsw.host.loop import PacedLoop
from flightsw.host.program import Ending, Exit
from flightsw.ports import ResetCause

SCALE = 20.0


# Why it starts


@pytest.fixture
def boots(run):
    """Gives the process of the next boot, and the cause in its beacon."""

    def boot(lab):
        async def scenario(ears):
            process = lab.start()
            beacon = await ears.beacon()
            return process, beacon.reset_cause

        return run(lab, scenario)

    return boot


CAUSES = {
    "killed": (lambda lab, process, finish: finish(process, signal.SIGKILL), "KILLED"),
    "stopped in order": (lambda lab, process, finish: finish(process, signal.SIGTERM), "RESET_COMMAND"),
    "power cut": (lambda lab, process, finish: (finish(process, signal.SIGKILL), lab.boot_id("second")), "POWER_CYCLE"),
    "hung": (lambda lab, process, finish: finish(process, signal.SIGALRM), "WATCHDOG"),
}


@pytest.mark.parametrize(("end", "cause"), CAUSES.values(), ids=CAUSES.keys())
def test_a_board_judges_by_itself_why_it_starts(boots, finish, lab, end, cause):
    process, first = boots(lab)
    assert first == 1, "POWER_ON"
    assert lab.note().phase == "running"
    end(lab, process, finish)
    process, again = boots(lab)
    assert ResetCause(again).name == cause
    finish(process, signal.SIGTERM)
    assert lab.note().phase == "ended"


def test_a_kernel_that_panicked_is_told_by_its_record(boots, finish, run, lab):
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


def test_the_launcher_knows_better(boots, finish, run, lab):
    process, _ = boots(lab)
    finish(process, signal.SIGKILL)

    async def scenario(ears):
        process = lab.start("--cause", "EXCEPTION")
        assert (await ears.beacon()).reset_cause == 4
        finish(process, signal.SIGTERM)

    run(lab, scenario)


def test_a_board_starts_whatever_a_power_cut_has_made_of_the_model_s_state(boots, finish, lab):
    (lab.folder / "board.json").write_bytes(b"\x00" * 40)
    (lab.folder / "board.json.note").write_bytes(b"\x00" * 40)
    process, cause = boots(lab)
    assert cause == 5, "POWER_CYCLE: nothing else is known"
    code, errors = finish(process, signal.SIGTERM)
    assert code == 0
    assert "board.json: not JSON" in errors
    assert "starts with a new battery" in errors


def test_a_board_whose_clock_is_not_set_yet_starts(boots, finish, lab):
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
