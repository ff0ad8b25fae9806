"""`flatrack board fault`: over a stand-in for ssh, on a process of this machine; and what it refuses."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from flightsw.errors import ConfigError, LinkBroken
from hil.commands import board_faults
from hil.commands.board_faults import FAULTS, fault_group
from hil.on_board.agent import FaultAgent

PATIENCE_S = 30.0
SSH = """#!/bin/sh
# stands in for ssh: the last argument is the command of the board, which is this machine
for command; do :; done
case "$*" in *"-O exit"*) exit 0;; esac
exec sh -c "$command"
"""


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """An inventory with one board: a folder for its files, and this machine's shell behind `ssh`."""
    for folder in ("bin", "etc/flatrack", "var/lib/flatrack", "proc", "run"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "bin/ssh").write_text(SSH)
    (tmp_path / "bin/ssh").chmod(0o755)
    (tmp_path / "etc/flatrack/bench.toml").write_text("allows_faults = true\n")
    (tmp_path / "boards.toml").write_text('[boards.sat-03]\nkind = "host"\nssh = "here"\n')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    remote = (sys.executable, "-m", "hil.on_board", "--stdio", "--root", str(tmp_path))
    monkeypatch.setattr(board_faults, "REMOTE", remote)
    return tmp_path


@pytest.fixture
def node(lab):
    """A process that looks like a manager to the agent of this board, and to no other."""
    package = lab / "packages" / "boards"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text("import sys; print(flush=True); sys.stdin.read()")
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-m", "boards"], cwd=package.parent, stdin=pipe, stdout=pipe)
    process.stdout.readline()
    (lab / "proc" / str(process.pid)).symlink_to(f"/proc/{process.pid}")
    yield process
    process.kill()
    process.communicate()


def fault(lab, *words):
    done = CliRunner().invoke(fault_group, words, obj=Path(lab / "boards.toml"), catch_exceptions=True)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


def test_a_fault_strikes_the_node_of_the_board(lab, node):
    assert fault(lab, "sat-03", "kill", "--signal", "SEGV") == (0, f"sat-03: kill: {node.pid}\n")
    assert node.wait(PATIENCE_S) == -signal.SIGSEGV


def test_flipped_bits_are_listed(lab, node):
    code, printed = fault(lab, "sat-03", "flip-memory", "--bits", "3", "--seed", "5")
    assert code == 0
    assert printed.startswith("sat-03: flip_memory: \n")
    assert printed.count(f"  process {node.pid}, ") == 3


def state(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


def test_a_fault_that_lasts_is_over_when_the_command_ends(lab, node, monkeypatch):
    slept = []

    async def sleep(seconds):
        async with asyncio.timeout(PATIENCE_S):
            while state(node.pid) != "T":
                await asyncio.sleep(0.01)
        slept.append(seconds)

    monkeypatch.setattr(board_faults, "sleep", sleep)
    code, printed = fault(lab, "sat-03", "freeze", "--for", "77.5")
    assert (code, printed) == (0, f"sat-03: freeze: {node.pid}\nsat-03: freeze is over\n")
    assert slept == [77.5]
    assert state(node.pid) != "T"
    code, printed = fault(lab, "sat-03", "freeze")
    assert code == 2
    assert "Missing option '--for'" in printed


def test_a_board_of_no_bench_is_not_struck(lab, node):
    (lab / "etc/flatrack/bench.toml").unlink()
    with pytest.raises(LinkBroken, match=r"no fault agent on this board: .*; it has said why"):
        fault(lab, "sat-03", "kill")
    assert node.poll() is None


def test_a_wrong_board_is_named(lab):
    with pytest.raises(ConfigError, match="sat-04"):
        fault(lab, "sat-04", "panic")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("cut-network", "--for", "21"), "21.0 is not in the range 0.0<x<=20.0"),  # ssh would give up
        (("step-clock", "--step", "inf"), "inf is not in the range"),
    ],
)
def test_what_the_agent_could_not_do_is_refused_here(lab, words, why):
    code, printed = fault(lab, "sat-03", *words)
    assert code == 2
    assert why in printed


def test_a_panic_comes_though_the_command_ends_at_once(lab):
    (lab / "proc/sysrq-trigger").touch()
    assert fault(lab, "sat-03", "panic") == (0, "sat-03: panic\n")
    assert (lab / "proc/sysrq-trigger").read_text() == "c"


def test_every_fault_is_a_method_of_the_agent_with_as_many_arguments(lab):
    handlers = FaultAgent(lab, None, None, None).handlers()
    for one in FAULTS:
        code = handlers[one.method].__func__.__code__
        arguments = code.co_varnames[1 : code.co_argcount]
        assert len(one.options) + one.takes_time == len(arguments), one.method
        names = [str(option.name).rstrip("_") for option in one.options]
        assert all(name.startswith(option) for name, option in zip(arguments, names, strict=False)), one.method
    commands = fault_group.list_commands(click.Context(fault_group))
    assert len(commands) == len(FAULTS) == 11
