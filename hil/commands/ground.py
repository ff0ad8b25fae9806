"""`flatrack command` and `flatrack status`: ask a ground (`python -m ground --control SOCKET`, or a console's)."""

import asyncio
import json
from pathlib import Path
from typing import Any, Final

import click

from flightsw.dictionary import flight_dictionary
from flightsw.dictionary.text import near, parse_arguments
from flightsw.errors import ConfigError
from hil.commands.asking import GroundPeer, asks_ground, node_key
from hil.commands.completion import Argument, NodeName, Opcode

LOOK_S: Final = 0.2
"""How often a command that is under way is looked at [s]."""
ARM: Final = "COMMANDS.ARM"


@click.command(name="command")
@click.argument("node", type=NodeName())
@click.argument("opcode", type=Opcode())
@click.argument("arguments", nargs=-1, type=Argument())
@click.option("--arm", is_flag=True, help="Send COMMANDS.ARM for it first: for a hazardous command.")
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0.0, max=86_400.0),
    default=30.0,
    show_default=True,
    help="How long to wait for the end of a command's chain [s].",
)
@asks_ground
async def command_command(
    ground: GroundPeer, node: str, opcode: str, arguments: tuple[str, ...], arm: bool, wait_s: float
) -> bool:
    """Send a command to a NODE (its name or number): OPCODE and its ARGUMENTS, as name=value or in order.

    Bytes are hexadecimal digits or @FILE, lists are JSON. Each stage of the command's chain is printed as it is known.
    Ends with 0 when the node completed it, 1 when it failed or has not ended yet.
    """
    values = _values(opcode, arguments)
    if arm and not await _send(ground, node, ARM, [opcode], wait_s):
        return False
    return await _send(ground, node, opcode, values, wait_s)


async def _send(ground: GroundPeer, node: str, opcode: str, values: list[Any], wait_s: float) -> bool:
    """Send one command and print its chain; whether it was completed."""
    number = await ground.ask("command", node_key(node), opcode, values)
    loop = asyncio.get_running_loop()
    until_s, shown_count = loop.time() + wait_s, 0
    while True:
        state = await ground.ask("command_state", number)
        for stage in state["chain"][shown_count:]:
            code = f" {stage['code']}" if stage["stage"] == "FAILED" else ""
            line = f"command {number} to {state['node']}: {opcode} {stage['stage']}{code} {stage['detail']}"
            click.echo(line.rstrip())
        shown_count = len(state["chain"])
        if state["stage"] in ("COMPLETED", "FAILED"):
            return bool(state["stage"] == "COMPLETED")
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


def _values(opcode: str, words: tuple[str, ...]) -> list[Any]:
    """Arguments as the dictionary types them."""
    known = flight_dictionary().commands
    if opcode not in known:
        raise ConfigError(f"opcode is {opcode!r}, expected {near(opcode, known)}")
    return parse_arguments(known[opcode], words, lambda name: Path(name).read_bytes())


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
