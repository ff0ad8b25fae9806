"""`flatrack board fault`: strike the node of a board that was deployed for a bench. docs/boards/faults.md."""

import asyncio
import shlex
from asyncio import sleep
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

from flightsw.errors import ConfigError
from hil.inventory.boards import load
from hil.inventory.locks import held
from hil.inventory.remote import Remote
from hil.on_board.agent import DURATION_S_MAX, STEP_S_MAX
from hil.on_board.remote import REMOTE, AgentPeer

TARGET: Final = click.Choice(["manager", "launcher", "worker"])
CUT_S_MAX: Final = 20.0
"""Longest cut of the network by ssh [s], which is cut too: it gives up after 30 s without an answer
(`hil.inventory.remote`), and TCP sends again after 12.6 and 25.4 s at the usual 0.2 s of a first wait, doubled."""


class Fault(NamedTuple):
    """One fault as a command.

    Attributes:
        method: of the agent.
        text: for people.
        options: its arguments, in the method's order.
        lasts: whether it goes on until the agent ends, or until a time that the method takes last.
        takes_time: whether the method takes that time itself.
        duration_s_max: longest time.
    """

    method: str
    text: str
    options: tuple[click.Option, ...] = ()
    lasts: bool = False
    takes_time: bool = False
    duration_s_max: float = DURATION_S_MAX


def _option(name: str, kind: click.ParamType[Any], default: Any, text: str) -> click.Option:
    return click.Option([f"--{name}"], type=kind, default=default, show_default=True, help=text)


def _needed(name: str, kind: click.ParamType[Any], text: str) -> click.Option:
    return click.Option([f"--{name}"], type=kind, required=True, help=text)


FAULTS: Final = (
    Fault(
        "kill",
        "End a process by a signal.",
        (
            _option("signal", click.STRING, "KILL", "KILL, TERM, SEGV, ..."),
            _option("target", TARGET, "manager", "Whom."),
        ),
    ),
    Fault("worker_kill", "Kill a worker."),
    Fault("freeze", "Let a process stand still.", (_option("target", TARGET, "manager", "Which."),), lasts=True),
    Fault(
        "flip_memory",
        "Flip bits in the memory of a running process.",
        (
            _option("target", click.Choice(["manager", "worker", "models"]), "manager", "Whose."),
            _option("seed", click.IntRange(min=0), 1, "Of the choice of bits."),
            _option("bits", click.IntRange(1, 10_000), 1, "How many."),
        ),
    ),
    Fault("cut_uart", "Cut the node's UART.", lasts=True, takes_time=True),
    Fault("cut_network", "Cut the board's network.", lasts=True, takes_time=True, duration_s_max=CUT_S_MAX),
    Fault(
        "fill_disk",
        "Fill the disk that the node writes to.",
        (_needed("free-bytes", click.IntRange(min=0), "What is left free [bytes]."),),
        lasts=True,
    ),
    Fault(
        "throttle",
        "Slow the board down.",
        (_needed("share", click.FloatRange(0.0, 1.0, min_open=True), "What is left of its speed."),),
        lasts=True,
        takes_time=True,
    ),
    Fault(
        "step_clock",
        "Step the board's clock.",
        (_needed("step", click.FloatRange(-STEP_S_MAX, STEP_S_MAX), "By how much [s]."),),
    ),
    Fault("panic", "Let the kernel panic."),
    Fault("stop_watchdog", "Let nobody feed the machine's watchdog any more.", lasts=True),
)


async def _strike(file: Path, name: str, fault: Fault, values: Sequence[Any], duration_s: float | None) -> None:
    board = load(file).board(name)
    async with Remote(name, board) as remote:
        assert board.ssh is not None, "which Remote has seen to"
        agent = await AgentPeer.over([*remote.command(), board.ssh, shlex.join(REMOTE)])
        try:
            times = (duration_s,) if fault.takes_time else ()
            answer = await agent.call(fault.method, *values, *times)
            click.echo(f"{name}: {fault.method}" + ("" if answer is None else f": {_shown(answer)}"))
            if duration_s is not None:
                await sleep(duration_s)
        finally:
            await agent.close()
    if duration_s is not None:
        click.echo(f"{name}: {fault.method} is over")


def _shown(answer: Any) -> str:
    """An answer on a few lines: flips one by one."""
    if isinstance(answer, list):
        return "".join(
            f"\n  process {one['pid']}, {one['mapping']}: bit {one['bit']} of {one['address']:#x}, which was "
            f"{one['before']:#04x}"
            for one in answer
        )
    return str(answer)


def _command(fault: Fault) -> click.Command:
    name = fault.method.replace("_", "-")
    options: list[click.Parameter] = list(fault.options)
    if fault.lasts:
        seconds = click.FloatRange(0.0, fault.duration_s_max, min_open=True)
        options.append(click.Option(["--for", "duration_s"], type=seconds, required=True, help="How long [s]."))

    @click.pass_context
    def strike(context: click.Context, /, duration_s: float | None = None, **values: Any) -> None:
        file, board = context.obj
        ordered = [values[str(option.name)] for option in fault.options]
        with held(board, f"fault {name}"):
            asyncio.run(_strike(file, board, fault, ordered, duration_s))

    return click.Command(name, params=options, callback=strike, help=fault.text)


@click.group(name="fault")
@click.argument("board", metavar="NAME")
@click.pass_context
def fault_group(context: click.Context, board: str) -> None:
    """Strike the node of board NAME, which `flatrack board deploy --bench` has allowed.

    What lasts is undone when its time is over, and when this command ends.
    """
    if not isinstance(context.obj, Path):
        raise ConfigError("fault: no inventory, expected flatrack board --boards FILE fault ...")
    context.obj = (context.obj, board)


for _fault in FAULTS:
    fault_group.add_command(_command(_fault))
