"""`flatrack command` and `flatrack status`: ask a ground (`python -m ground --control SOCKET`, or a console's)."""

import asyncio
import json
from typing import Any, Final

import click
import msgspec

from flightsw.core.dictionary import COMMANDS
from flightsw.errors import ConfigError
from hil.commands.asking import GroundPeer, asks_ground

LOOK_S: Final = 0.2
"""How often a command that is under way is looked at [s]."""


@click.command(name="command")
@click.argument("node")
@click.argument("opcode")
@click.argument("arguments", nargs=-1)
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0.0, max=86_400.0),
    default=30.0,
    show_default=True,
    help="How long to wait for the end of the command's chain [s].",
)
@asks_ground
async def command_command(
    ground: GroundPeer, node: str, opcode: str, arguments: tuple[str, ...], wait_s: float
) -> bool:
    """Send a command to a NODE (its name or number): OPCODE and its ARGUMENTS, bytes as hexadecimal digits.

    Ends with 0 when the node completed it, 1 when it failed or has not ended yet.
    """
    values = _values(opcode, arguments)
    number = await ground.ask("command", int(node) if node.isdecimal() else node, opcode, values)
    loop = asyncio.get_running_loop()
    until_s, shown = loop.time() + wait_s, ""
    while True:
        state = await ground.ask("command_state", number)
        stage = state["stage"]
        if stage != shown:
            shown = stage
            more = f" {state['code']} {state['detail']}".rstrip() if stage == "FAILED" else ""
            click.echo(f"command {number} to {state['node']}: {opcode} {stage}{more}")
        if stage in ("COMPLETED", "FAILED"):
            return bool(stage == "COMPLETED")
        if loop.time() >= until_s:
            click.echo(f"command {number} has not ended; the ground goes on with it")
            return False
        await asyncio.sleep(LOOK_S)


@click.command(name="status")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@asks_ground
async def status_command(ground: GroundPeer, as_json: bool) -> None:
    """Print what a running ground knows: its fleet, its jobs, the last events."""
    found = {
        "status": await ground.ask("status"),
        "nodes": await ground.ask("nodes"),
        "jobs": await ground.ask("jobs", 10),
        "events": await ground.ask("events", 0, 10),
    }
    if as_json:
        click.echo(json.dumps(found, default=_hex))
        return
    for line in _lines(found):
        click.echo(line)


def _values(opcode: str, arguments: tuple[str, ...]) -> list[Any]:
    """Arguments as the dictionary types them; an unknown opcode is left to the ground, which lists those it knows."""
    expected = COMMANDS.get(opcode, ())
    values: list[Any] = []
    for index, text in enumerate(arguments):
        name, kind = expected[index] if index < len(expected) else ("", str)
        try:
            values.append(bytes.fromhex(text) if kind is bytes else text if kind is str else _plain(text, kind))
        except (ValueError, msgspec.ValidationError):
            raise ConfigError(f"{opcode}: {name} is {text!r}, expected {kind.__name__}") from None
    return values


def _plain(text: str, kind: type) -> Any:
    """A number, a truth or a list as JSON writes it."""
    return msgspec.json.decode(text, type=kind)


def _lines(found: dict[str, Any]) -> list[str]:
    status = found["status"]
    seconds = status["t_ns"] // 1_000_000_000
    jobs = ", ".join(f"{count} {state}" for state, count in status["jobs"].items()) or "none"
    lines = [f"T+{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}  jobs: {jobs}"]
    for node in found["nodes"]:
        row = f"{node['name']:12} {node['presence']:8}"
        if "mode" in node:
            heard_s = (status["t_ns"] - node["heard_ns"]) // 1_000_000_000
            row += (
                f" {node['mode']:10} charge {node['charge_permille'] / 10:5.1f} %  {node['electronics_degc']:6.1f} degC"
                f"  boot {node['boot_count']}  heard {heard_s} s ago"
            )
        lines.append(row.rstrip())
    for job in reversed(found["jobs"]):
        where = f" on {job['node']}" if job["node"] else ""
        lines.append(f"job {job['job']}: {job['state']}, attempt {job['attempt']}{where} {job['detail']}".rstrip())
    for event in found["events"]:
        seconds = event["received_ns"] / 1e9
        lines.append(f"T+{seconds:.1f} s {event['node']} {event['component']}.{event['name']}: {event['text']}")
    return lines


def _hex(value: object) -> str:
    assert isinstance(value, bytes), "all else in an answer is plain"
    return value.hex()
