"""`flatrack hardware`: what a node's board can do, by what or why not, and what its sensors say."""

from typing import Final

import click

from flightsw.dictionary.hardware_report import HardwareReport, decode_report
from flightsw.errors import ConfigError, MessageError
from hil.commands.asking import GroundPeer, asks_ground, node_key
from hil.commands.chains import WAIT, complete, data_product

COLOURS: Final = {"PROVEN": "green", "DEGRADED": "magenta", "ABSENT": "yellow"}
"""Colours of the words on a terminal; elsewhere the words stand alone."""
UNITS: Final = (
    ("temperatures_degc", "degC"),
    ("voltages_v", "V"),
    ("currents_a", "A"),
    ("powers_w", "W"),
    ("clocks_hz", "Hz"),
)


@click.command(name="hardware")
@click.argument("node")
@click.option("--json", "as_json", is_flag=True, help="The report as the node has sent it.")
@WAIT
@asks_ground
async def hardware_command(ground: GroundPeer, node: str, as_json: bool, wait_s: float) -> bool:
    """Ask a NODE (its name or number) for its capability report (HARDWARE.REPORT) and print it."""
    key = node_key(node)
    done = await complete(ground, key, "HARDWARE.REPORT", [], wait_s)
    if done is None:
        return False
    number = int(done["detail"].rpartition(" ")[2])
    data = await data_product(ground, key, "HARDWARE", number)
    if data is None:
        click.echo(f"data product {number} has not come yet")
        return False
    try:
        report = decode_report(data)
    except MessageError as error:
        raise ConfigError(f"data product {number}: {error}") from None
    if as_json:
        click.echo(data.decode())
    else:
        for line in _lines(report):
            click.echo(line)
    return True


def _lines(report: HardwareReport) -> list[str]:
    lines = []
    for one in report.capabilities:
        word = click.style(f"{one.support:9}", fg=COLOURS.get(one.support))
        lines.append(f"{one.name:20} {word} {one.detail}".rstrip())
    if report.power_modes:
        present = report.reading.power_mode
        modes = (f"[{mode}]" if mode == present else mode for mode in report.power_modes)
        lines.append(f"{'power modes':20} {', '.join(modes)}")
    for field, unit in UNITS:
        for name, value in sorted(getattr(report.reading, field).items()):
            lines.append(f"{name:30} {value:14.6g} {unit}")
    lines += [f"{name:30} {'no value':>14} {why}" for name, why in sorted(report.reading.troubles.items())]
    return lines
