"""`flatrack command`, `dictionary` and `completion`: as typed, as shown, as a shell completes them."""

import asyncio
import json
import os
import pty
import sys
from pathlib import Path

import msgspec
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from flightsw.dictionary import flight_dictionary, load
from flightsw.host.control import serve
from hil.cli import main
from hil.commands import completion
from hil.commands.completion import PROGRAM, VARIABLE

ROOT = Path(__file__).parents[2]
DICTIONARY = flight_dictionary()
PATIENCE_S = 60.0
"""For a process that is loaded and started; a test that waits this long has failed."""


def flatrack(*arguments):
    return CliRunner().invoke(main, [str(one) for one in arguments])


def console(tmp_path, *lines):
    """What a procedure shows, run by the console in virtual time without faults."""
    procedure = tmp_path / "procedure.txt"
    procedure.write_text("\n".join(lines))
    return flatrack("console", ROOT / "examples" / "flight.toml", procedure, "--faults", "none")


# -- commands in virtual time


@pytest.fixture(scope="module")
def flown(tmp_path_factory):
    """One procedure with all kinds of commands; its lines."""
    done = console(
        tmp_path_factory.mktemp("console"),
        "wait 60",
        "command sat-02 JOBS.CANCEL job=4711 attempt=1 --wait 900",
        "command sat-02 NODE.POWER_CYCLE --wait 900",
        "command sat-02 COMMANDS.DISARM --arm --wait 900",
        "command sat-02 NODE.POWER_CYCLE --arm --wait 900",
        "command 12 NODE.NOOP --wait 0",
        "command sat-99 NODE.NOOP",
        "command sat-02 NODE.NOP",
        "command sat-02 JOBS.CANCEL 4711",
    )
    return done.output.splitlines()


def shown(lines, typed):
    """What stands below a typed line, without the numbers of commands."""
    index = next(number for number, line in enumerate(lines) if line.endswith(typed))
    rest = []
    for line in lines[index + 1 :]:
        if line.startswith("T+"):
            break
        rest.append(" ".join("N" if word.isdecimal() else word for word in line.split()[:6]))
    return rest


CHAIN = ["QUEUED", "RELEASED", "SENT", "ACCEPTED"]


def test_the_whole_chain_is_shown_stage_by_stage(flown):
    lines = shown(flown, "JOBS.CANCEL job=4711 attempt=1 --wait 900")
    head = "command N to sat-02: JOBS.CANCEL"
    assert lines == [*(f"{head} {stage}" for stage in CHAIN), f"{head} FAILED"]
    whole = next(line for line in flown if "JOBS.CANCEL FAILED" in line)
    assert whole.endswith("FAILED EXECUTION_ERROR job 4711 attempt 1 is not here")


def test_a_hazardous_command_fails_without_an_arm_and_passes_with_it(flown):
    lines = shown(flown, "> command sat-02 NODE.POWER_CYCLE --wait 900")
    assert lines[-1] == "command N to sat-02: NODE.POWER_CYCLE FAILED"
    assert any("NODE.POWER_CYCLE FAILED NOT_ARMED" in line for line in flown)
    lines = shown(flown, "> command sat-02 NODE.POWER_CYCLE --arm --wait 900")
    assert lines[:5] == [f"command N to sat-02: COMMANDS.ARM {stage}" for stage in [*CHAIN, "COMPLETED"]]
    assert lines[5:] == [f"command N to sat-02: NODE.POWER_CYCLE {stage}" for stage in [*CHAIN, "COMPLETED"]]


def test_what_cannot_be_armed_is_not_sent(flown):
    lines = shown(flown, "COMMANDS.DISARM --arm --wait 900")
    assert lines[-1] == "command N to sat-02: COMMANDS.ARM FAILED"
    assert not any("COMMANDS.DISARM" in line for line in lines)


def test_a_command_that_has_not_ended_says_so(flown):
    assert shown(flown, "command 12 NODE.NOOP --wait 0")[-1] == "command N has not ended; the"


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        ("command sat-99 NODE.NOOP", "flatrack: command: node is 'sat-99',"),
        ("command sat-02 NODE.NOP", "flatrack: opcode is 'NODE.NOP', expected"),
        ("command sat-02 JOBS.CANCEL 4711", "flatrack: JOBS.CANCEL: attempt is missing,"),
    ],
)
def test_a_wrong_command_is_one_line(flown, typed, why):
    (line,) = shown(flown, typed)
    assert line.startswith(why)


def test_without_a_ground_a_command_says_what_it_wants():
    done = flatrack("command", "sat-02", "NODE.NOOP")
    assert (done.exit_code, done.output) == (
        2,
        "flatrack: --control: missing, expected the control socket of a running ground\n",
    )


# -- the dictionary


def test_the_dictionary_is_printed_whole_or_for_one_component():
    done = flatrack("dictionary")
    assert done.exit_code == 0
    assert done.output.startswith(f"dictionary {DICTIONARY.digest.hex()}\n")
    for key in (*DICTIONARY.commands, *DICTIONARY.events, *DICTIONARY.channels, *DICTIONARY.parameters):
        assert f" {key} " in done.output or f" {key}\n" in done.output, key
    one = flatrack("dictionary", "COMMANDS").output
    assert "  command   COMMANDS.ARM opcode=text\n" in one
    assert "JOBS" not in one
    assert "  command   NODE.POWER_CYCLE [hazardous]\n" in flatrack("dictionary", "NODE").output
    assert " [takes time]\n" in flatrack("dictionary", "OBJECTS").output


def test_the_dictionary_as_json_is_that_of_flight():
    assert json.loads(flatrack("dictionary", "--json").output) == msgspec.json.decode(DICTIONARY.as_json())
    whole = msgspec.json.decode(DICTIONARY.as_json())
    assert json.loads(flatrack("dictionary", "JOBS", "--json").output) == whole["components"]["JOBS"]


def test_an_unknown_component_is_named():
    done = flatrack("dictionary", "JOBZ")
    assert done.exit_code == 2
    assert done.output.startswith("flatrack: component is 'JOBZ', expected one of NODE, MODE, JOBS")


# -- completion, as click offers it


def part_with(folder, tables):
    """A dictionary of one component."""
    path = folder / "part.toml"
    path.write_text(f'component = "PART"\nnumber = 200\ndoc = "A part."\n{tables}')
    return load([path])


def offered(*words):
    """What is offered for the last word."""
    shell = ShellComplete(main, {}, PROGRAM, VARIABLE)
    return [item.value for item in shell.get_completions(list(words[:-1]), words[-1])]


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (["comm"], ["command"]),
        (["command", "sat-03", "JOBS.PA"], ["JOBS.PAUSE"]),
        (["command", "sat-03", "jobs.re"], ["JOBS.RESET_COUNTERS", "JOBS.RESUME"]),
        (["command", "sat-03", "JOBS.CANCEL", ""], ["job=", "attempt="]),
        (["command", "sat-03", "JOBS.CANCEL", "at"], ["attempt="]),
        (["command", "sat-03", "JOBS.CANCEL", "job=3", ""], ["attempt="]),
        (["command", "sat-03", "JOBS.CANCEL", "job=3", "attempt=2", ""], []),
        (["command", "sat-03", "NODE.NOOP", ""], []),
        (["command", "sat-03", "NODE.NOTHING", ""], []),
        (["command", "sat-03", "JOBS.CANCEL", "job="], []),
        (["dictionary", "OBJ"], ["OBJECTS"]),
        (["completion", "z"], ["zsh"]),
        (["command", "sat"], []),
    ],
)
def test_click_offers_names_of_the_dictionary(words, values):
    assert offered(*words) == values


ARM = ("command", "sat-03", "COMMANDS.ARM")


@pytest.mark.parametrize(
    ("words", "values"),
    [
        ([*ARM, "opcode=NODE.PO"], ["opcode=NODE.POWER_CYCLE"]),
        ([*ARM, "NODE.PO"], ["NODE.POWER_CYCLE"]),
        # bash takes the sign for a word of its own
        ([*ARM, "opcode", "=", "NODE.PO"], ["NODE.POWER_CYCLE"]),
        ([*ARM, "opcode=NODE.RESET"], []),
        (["command", "sat-03", "TELEMETRY.SEND", "packet=JOBS."], ["packet=JOBS.HK"]),
        (["command", "sat-03", "EVENTS.DISABLE", "event=OBJECTS.RO"], ["event=OBJECTS.ROTTEN"]),
    ],
)
def test_click_offers_names_that_an_argument_may_have(words, values):
    assert offered(*words) == values


def test_click_offers_all_values_right_behind_the_sign():
    hazardous = [key for key, spec in DICTIONARY.commands.items() if spec.hazardous]
    assert offered(*ARM, "opcode", "=") == hazardous
    assert offered(*ARM, "opcode=") == [f"opcode={key}" for key in hazardous]


def test_click_offers_the_values_of_enumerations_and_truths(monkeypatch, tmp_path):
    how = '{ name = "how", type = "enum", values = ["FAST", "SLOW"] }'
    tables = f'[commands.MOVE]\ncode = 2\ndoc = "Move."\narguments = [{how}, {{ name = "far", type = "bool" }}]\n'
    part = part_with(tmp_path, tables)
    monkeypatch.setattr(completion, "flight_dictionary", lambda: part)
    move = ("command", "sat-03", "PART.MOVE")
    assert offered(*move, "how=") == ["how=FAST", "how=SLOW"]
    assert offered(*move, "how=S") == ["how=SLOW"]
    assert offered(*move, "F") == ["FAST"]
    assert offered(*move, "how", "=", "S") == ["SLOW"]
    assert offered(*move, "how=SLOW", "far=") == ["far=true", "far=false"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell_is_printed(shell):
    done = flatrack("completion", shell)
    assert done.exit_code == 0
    assert VARIABLE in done.output


def test_an_unknown_shell_is_refused():
    done = flatrack("completion", "tcsh")
    assert done.exit_code == 2
    assert "'tcsh' is not one of" in done.output


# -- completion, in a real bash


class Bash:
    """An interactive bash on a pseudo-terminal, with completion loaded."""

    def __init__(self, process, master):
        self._process = process
        self._master = master
        self._seen = ""

    @classmethod
    async def start(cls, program, **environment):
        master, slave = pty.openpty()
        os.set_blocking(master, False)
        inherited = {name: os.environ[name] for name in ("HOME", "LANG", "TERM") if name in os.environ}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        # bracketed paste and bells off, or they would stand between the letters
        quiet = environment.pop("folder") / "inputrc"
        quiet.write_text("set enable-bracketed-paste off\nset bell-style none\n")
        process = await asyncio.create_subprocess_exec(
            program,
            "--noprofile",
            "--norc",
            "-i",
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env=inherited | {"PATH": path, "PS1": "$ ", "INPUTRC": str(quiet), "COLUMNS": "200"} | environment,
        )
        os.close(slave)
        bash = cls(process, master)
        await bash.type('eval "$(flatrack completion bash)"; echo rea""dy\n', "\nready")
        return bash

    async def type(self, text, expected):
        """Type, and wait until bash has shown what is expected; returns what it has shown since."""
        os.write(self._master, text.encode())
        self._seen = ""
        async with asyncio.timeout(PATIENCE_S):
            while expected not in self._seen:
                self._seen += (await self._read()).replace("\r", "")
        return self._seen

    async def line(self):
        """The line that stands there, and a new one."""
        seen = await self.type("\x01echo '\x05|'\n", "|\n")
        return seen.rpartition("\n")[0].rpartition("\n")[2].removesuffix("|")

    async def close(self):
        self._process.kill()
        await self._process.wait()
        os.close(self._master)

    async def _read(self):
        loop = asyncio.get_running_loop()
        readable = loop.create_future()
        loop.add_reader(self._master, lambda: readable.done() or readable.set_result(None))
        try:
            await readable
        finally:
            loop.remove_reader(self._master)
        return os.read(self._master, 65_536).decode()


@pytest.mark.slow
async def test_a_real_bash_completes_nodes_opcodes_arguments_and_values(tmp_path, need_tool):
    rows = [{"node": 11 + index, "name": f"sat-{index + 1:02}"} for index in range(3)]
    server = await serve(tmp_path / "control", {"nodes": lambda: rows})
    bash = await Bash.start(need_tool("bash"), folder=tmp_path, FLATRACK_CONTROL=str(tmp_path / "control"))
    try:
        await bash.type("flatrack command sa\t", "sat-0")
        await bash.type("3 JOBS.PA\t", "USE ")
        await bash.type("j\t", "ob=")
        await bash.type("17", "17")
        assert await bash.line() == "flatrack command sat-03 JOBS.PAUSE job=17", "no blank behind the sign"
        await bash.type("flatrack command sat-01 COMMANDS.A\topco\tNODE.PO\t", "CYCLE ")
        assert await bash.line() == "flatrack command sat-01 COMMANDS.ARM opcode=NODE.POWER_CYCLE "
    finally:
        await bash.close()
        await server.close()
