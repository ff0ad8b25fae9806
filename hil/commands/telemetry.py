"""`flatrack telemetry`, `events` and `dumps`: what a node tells, as a ground has it on record."""

import json
from pathlib import Path
from typing import Any, Final

import click

from flightsw.wire.messages import Severity
from hil.commands.asking import GroundPeer, asks_ground, node_key

COLOURS: Final = {
    "RED_LOW": "red",
    "YELLOW_LOW": "yellow",
    "GREEN": "green",
    "YELLOW_HIGH": "yellow",
    "RED_HIGH": "red",
    "STALE": "magenta",
}
"""Colours of the words on a terminal; elsewhere the words stand alone."""
HISTORY_ROWS: Final = 20

NODE = click.argument("node")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="A list of JSON objects.")


@click.command(name="telemetry")
@NODE
@click.argument("what", default="")
@click.option("--history", is_flag=True, help="The last values of one channel instead of the newest of each.")
@click.option(
    "--most", type=click.IntRange(1, 1000), default=HISTORY_ROWS, show_default=True, help="Rows of a history at most."
)
@AS_JSON
@asks_ground
async def telemetry_command(ground: GroundPeer, node: str, what: str, history: bool, most: int, as_json: bool) -> None:
    """Print the newest values of a NODE's channels: all, or those of WHAT, a packet, a component or a channel."""
    key: int | str = node_key(node)
    rows: list[dict[str, Any]]
    if history:
        rows = await ground.ask("history", key, what, most)
    else:
        rows = await ground.ask("telemetry", key, what)
    if as_json:
        click.echo(json.dumps(rows))
        return
    if not rows:
        click.echo("nothing on record")
    for row in rows:
        click.echo(_line(row, what if history else row["channel"]))


@click.command(name="events")
@click.argument("node", default="")
@click.option("--most", type=click.IntRange(1, 1000), default=HISTORY_ROWS, show_default=True, help="Rows at most.")
@click.option(
    "--severity",
    type=click.Choice([one.name for one in Severity]),
    default=Severity.DIAGNOSTIC.name,
    show_default=True,
    help="The least severe events to print.",
)
@AS_JSON
@asks_ground
async def events_command(ground: GroundPeer, node: str, most: int, severity: str, as_json: bool) -> None:
    """Print the newest events of a NODE, or of all nodes, oldest first."""
    rows = await ground.ask("events", node_key(node) if node else 0, most)
    rows = [row for row in rows if row["severity"] <= Severity[severity]]
    if as_json:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        name = Severity(row["severity"]).name
        colour = "red" if row["severity"] <= Severity.WARNING_HI else None
        word = click.style(f"{name:12}", fg="yellow" if row["severity"] == Severity.WARNING_LO else colour)
        when = f"T+{row['received_ns'] / 1e9:.1f} s"
        click.echo(f"{when} {row['node']} {word} {row['component']}.{row['name']}: {row['text']}")


@click.command(name="dumps")
@NODE
@click.option("--kind", default="", help="Only those of this component.")
@click.option("--save", type=click.Path(path_type=Path), help="Write the newest whole one of them to a file.")
@AS_JSON
@asks_ground
async def dumps_command(ground: GroundPeer, node: str, kind: str, save: Path | None, as_json: bool) -> bool:
    """Print the data products of a NODE that came on command, oldest first."""
    key: int | str = node_key(node)
    rows = await ground.ask("dumps", key, kind)
    if as_json:
        click.echo(json.dumps(rows))
    else:
        for row in rows:
            whole = "" if row["is_whole"] else f", {row['parts_held']} of {row['parts']} parts"
            click.echo(
                f"boot {row['boot_count']} dump {row['number']:<6} {row['kind']:12} {row['size_bytes']} bytes{whole}"
            )
    if save is None:
        return True
    whole_ones = [row for row in rows if row["is_whole"]]
    if not whole_ones:
        click.echo("flatrack: no whole dump to save", err=True)
        return False
    newest = whole_ones[-1]
    save.write_bytes(await ground.ask("dump", key, newest["boot_count"], newest["number"]))
    return True


def _line(row: dict[str, Any], channel: str) -> str:
    """One value: channel, value, unit, colour, and when it was sampled."""
    value = row["value"]
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    word = row["colour"]
    when = f"boot {row['boot_count']} +{row['uptime_s']:.1f} s"
    if row.get("age_s") is not None:
        when += f", {row['age_s']:.1f} s ago"
    if row["recorded"]:
        when += ", recorded"
    shown = click.style(f"{word:11}", fg=COLOURS.get(word))
    return f"{channel:32} {text:>14} {row['unit']:6} {shown} {when}".rstrip()
