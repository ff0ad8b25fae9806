"""`flatrack inspect`: prints a capture, ours or foreign, or the trace of a run."""

from itertools import islice
from pathlib import Path
from typing import Final

import click

from flightsw.errors import ConfigError
from hil.capture import lines
from hil.capture.inspection import Inspection, Layer
from hil.capture.packets import Capture
from hil.sim.trace import read_trace

TRACE_LINE_BYTES_MAX: Final = 1_048_576
"""Longest line of a trace [bytes]: an event of ours has some hundred, and lines are read whole."""

_TRACE_BEGINS: Final = b"{"
_PIECE_BYTES: Final = 65_536


@click.command(name="inspect")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--frames", "layer", flag_value=Layer.FRAMES.value, help="Frames: bytes on the link, coding, verdict.")
@click.option("--segments", "layer", flag_value=Layer.SEGMENTS.value, help="LTP segments (the default).")
@click.option("--bundles", "layer", flag_value=Layer.BUNDLES.value, help="Bundles, put together from their segments.")
@click.option("--messages", "layer", flag_value=Layer.MESSAGES.value, help="Messages in the payloads of bundles.")
@click.option("--node", help="Only what concerns this node: its number, or in a trace its name.")
@click.option("--limit", type=click.IntRange(min=1), help="Stop after so many.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object or array a line.")
def inspect_command(file: Path, layer: str | None, node: str | None, limit: int | None, as_json: bool) -> None:
    """Print the capture (pcap or pcapng) or trace (trace.jsonl) FILE."""
    if _is_trace(file):
        if layer is not None:
            raise ConfigError(f"{file}: is a trace, expected a capture for --{layer}")
        _print_trace(file, node, limit, as_json)
    else:
        _print_capture(file, Layer(layer or Layer.SEGMENTS), node, limit, as_json)


def _is_trace(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            return opened.read(1) == _TRACE_BEGINS
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None


def _print_capture(file: Path, layer: Layer, node: str | None, limit: int | None, as_json: bool) -> None:
    if node is not None and not node.isdecimal():
        raise ConfigError(f"--node {node}: in a capture nodes are numbers, expected for example 11")
    inspection = Inspection(Capture(file), layer, None if node is None else int(node))
    for finding in islice(inspection.findings(), limit):
        click.echo(lines.as_json(finding) if as_json else lines.of_finding(finding))
    if limit is None and not as_json:
        for line in lines.of_tally(inspection):
            click.echo(line)


def _print_trace(file: Path, node: str | None, limit: int | None, as_json: bool) -> None:
    _check_line_lengths(file)
    _, events, _ = read_trace(file)
    chosen = (event for event in events if node is None or event[1] == node)
    for event in islice(chosen, limit):
        click.echo(lines.as_json(event) if as_json else lines.of_event(event))


def _check_line_lengths(file: Path) -> None:
    """A file without line ends must not be read into memory whole."""
    length = 0
    with file.open("rb") as opened:
        while piece := opened.read(_PIECE_BYTES):
            first, *others = piece.split(b"\n")
            longest = max(length + len(first), *map(len, others), 0)
            if longest > TRACE_LINE_BYTES_MAX:
                raise ConfigError(f"{file}: a line of more than {TRACE_LINE_BYTES_MAX} bytes, expected a trace")
            length = len(others[-1]) if others else length + len(first)
