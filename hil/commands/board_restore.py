"""`flatrack board restore`: what a board was before a run whose bench was killed. docs/boards/deploy.md."""

import asyncio
import shlex
from pathlib import Path
from typing import Any

import click

from flightsw.errors import BoardError
from hil.inventory.boards import load
from hil.inventory.locks import held
from hil.inventory.remote import Remote
from hil.on_board.remote import REMOTE, AgentPeer


@click.command(name="restore")
@click.argument("name")
@click.pass_obj
def restore_command(file: Path, name: str) -> None:
    """Put back the settings that board NAME had before a run, and start its node if it ran then.

    A bench does so itself at the end of a run; this is for one that was killed.
    """
    with held(name, "restore"):
        restored = asyncio.run(_restore(file, name))
    if trouble := restored.get("trouble"):
        raise BoardError(f"board {name}: has its settings of before the run, but its node does not start: {trouble}")
    runs = "its node runs again" if restored["runs"] else "its node did not run then, and does not now"
    if restored["files"]:
        click.echo(f"{name}: has its settings of before the run: {', '.join(restored['files'])}; {runs}")
    elif restored["runs"]:
        click.echo(f"{name}: had its settings of before the run already; {runs}")
    else:
        click.echo(f"{name}: no settings of a run lie there: nothing is changed")


async def _restore(file: Path, name: str) -> dict[str, Any]:
    board = load(file).board(name)
    async with Remote(name, board) as remote:
        assert board.ssh is not None, "which Remote has seen to"
        agent = await AgentPeer.over([*remote.command(), board.ssh, shlex.join(REMOTE)])
        try:
            return await agent.restore()
        finally:
            await agent.close()
