"""A command to a node from a subcommand: sent, watched to the end of its chain, and told on the way."""

import asyncio
from typing import Any, Final

import click

from hil.commands.asking import GroundPeer

LOOK_S: Final = 0.2
"""How often a command that is under way is looked at [s]."""
DUMP_S: Final = 30.0
"""How long a data product may take after its command is completed [s]."""
ENDS: Final = ("COMPLETED", "FAILED")

WAIT = click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0.0, max=86_400.0),
    default=30.0,
    show_default=True,
    help="How long to wait for each answer of the node [s].",
)


async def complete(
    ground: GroundPeer, node: int | str, opcode: str, arguments: list[Any], wait_s: float
) -> dict[str, Any] | None:
    """Send a command and wait for the end of its chain; returns the last state when it is COMPLETED, else None."""
    number = await ground.ask("command", node, opcode, arguments)
    loop = asyncio.get_running_loop()
    until_s = loop.time() + wait_s
    while True:
        state: dict[str, Any] = await ground.ask("command_state", number)
        if state["stage"] in ENDS:
            is_done = state["stage"] == "COMPLETED"
            more = state["detail"] if is_done else f"{state['code']} {state['detail']}"
            click.echo(f"command {number} to {state['node']}: {opcode} {state['stage']} {more}".rstrip())
            return state if is_done else None
        if loop.time() >= until_s:
            click.echo(f"command {number} to {state['node']}: {opcode} {state['stage']}; the ground goes on with it")
            return None
        await asyncio.sleep(LOOK_S)


async def data_product(ground: GroundPeer, node: int | str, kind: str, number: int) -> bytes | None:
    """A data product of the present boot, once it is whole; None when that takes too long."""
    loop = asyncio.get_running_loop()
    until_s = loop.time() + DUMP_S
    while True:
        rows: list[dict[str, Any]] = await ground.ask("dumps", node, kind, 10)
        whole = [row for row in rows if row["number"] == number and row["is_whole"]]
        if whole:
            newest = max(whole, key=lambda row: int(row["boot_count"]))
            return bytes(await ground.ask("dump", node, newest["boot_count"], number))
        if loop.time() >= until_s:
            return None
        await asyncio.sleep(LOOK_S)
