"""`flatrack audit`: asks a node for its audit trail and verifies it against what was verified before."""

import asyncio
from typing import Any, Final

import click

from hil.commands.asking import GroundPeer, asks_ground, node_key

LOOK_S: Final = 0.5
"""How often it is looked whether the trail has come [s]."""


@click.command(name="audit")
@click.argument("node")
@click.option("--most", type=click.IntRange(0), default=20, show_default=True, help="How many of the newest to print.")
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0.0, max=86_400.0),
    default=60.0,
    show_default=True,
    help="How long to wait for the trail [s].",
)
@asks_ground
async def audit_command(ground: GroundPeer, node: str, most: int, wait_s: float) -> bool:
    """Verify the audit trail of a NODE (its name or number) from the last verified record on, and print it.

    Ends with 0 when the chain holds, 1 when it does not or has not come.
    """
    number = await ground.ask("audit", node_key(node))
    loop = asyncio.get_running_loop()
    until_s = loop.time() + wait_s
    while (found := await ground.ask("audit_verdict", number)) is None:
        state = await ground.ask("command_state", number)
        if state["stage"] == "FAILED":
            click.echo(f"{state['node']} does not give its trail: {state['code']} {state['detail']}".rstrip())
            return False
        if loop.time() >= until_s:
            click.echo(f"the trail of {state['node']} has not come; the ground goes on with command {number}")
            return False
        await asyncio.sleep(LOOK_S)
    for line in _lines(found, most):
        click.echo(line)
    return bool(found["holds"])


def _lines(found: dict[str, Any], most: int) -> list[str]:
    records, faults, head = found["records"], found["faults"], found["head"]
    lines = []
    for number, boot_count, uptime_ms, _, kind, fields in records[max(0, len(records) - most) :]:
        shown = " ".join(f"{name}={_shown(value)}" for name, value in fields.items())
        lines.append(f"{number:6} boot {boot_count} +{uptime_ms / 1000:.1f} s {kind} {shown}".rstrip())
    lines += [f"record {number}: {kind}: {detail}" for number, kind, detail in faults]
    if head is None:
        lines.append(f"{found['node']}: nothing of {len(records)} records is verified")
    else:
        verdict = "the chain holds" if found["holds"] else "the chain does not hold; it is verified"
        lines.append(f"{found['node']}: {len(records)} records, {verdict} up to record {head[0]}, {head[1][:16]}")
    return lines


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ",".join(_shown(one) for one in value)
    text = value.hex() if isinstance(value, bytes) else str(value)
    return f'"{text}"' if " " in text or not text else text
