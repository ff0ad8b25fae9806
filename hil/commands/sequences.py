"""`flatrack sequence`: check, compile and show sequences, load them into a node, and see how far one is."""

from pathlib import Path
from typing import Final

import click

from flightsw.dictionary import flight_dictionary
from flightsw.dictionary.sequence_file import IMAGE_BYTES_MAX, MAGIC, Kind, SequenceImage, objection
from flightsw.dictionary.sequence_state import SequenceState, decode_dump
from flightsw.errors import ConfigError, MessageError
from ground.sequence_text import seconds_text, utc_text
from ground.sequences import SOURCE_BYTES_MAX, compile_source
from hil.commands.asking import GroundPeer, asks_ground, node_key
from hil.commands.chains import WAIT, complete, data_product

SUFFIX: Final = ".fsq"
"""Of compiled sequences."""

FILE = click.argument("file", type=click.Path(path_type=Path))


@click.group(name="sequence")
def sequence_group() -> None:
    """Check, compile and load sequences of commands. docs/sequences.md"""


@sequence_group.command()
@FILE
def check(file: Path) -> None:
    """Check the source FILE against the dictionary; the first mistake is told with line and column."""
    image = _compiled(file)
    click.echo(f"{file}: {image.header.name}, {_size(image)}: holds")


@sequence_group.command(name="compile")
@FILE
@click.option("-o", "--out", type=click.Path(path_type=Path), help=f"Where to.  [default: FILE with {SUFFIX}]")
def compile_command(file: Path, out: Path | None) -> None:
    """Compile the source FILE."""
    image = _compiled(file)
    out = file.with_suffix(SUFFIX) if out is None else out
    try:
        out.write_bytes(image.image)
    except OSError as error:
        raise ConfigError(f"{out}: cannot be written: {error.strerror}") from None
    click.echo(f"{out}: {image.header.name}, {_size(image)}")


@sequence_group.command()
@FILE
def show(file: Path) -> None:
    """Print the entries of FILE, source or compiled."""
    image = _image(file)
    _print(image, None)
    wrong = objection(image, flight_dictionary())
    if wrong is not None:
        click.echo(f"a node with the dictionary here would refuse it: {wrong}")


@sequence_group.command()
@click.argument("node")
@FILE
@click.option("--start", is_flag=True, help="Start it too.")
@WAIT
@asks_ground
async def load(ground: GroundPeer, node: str, file: Path, start: bool, wait_s: float) -> bool:
    """Load FILE, source or compiled, into a NODE (its name or number)."""
    image, key = _image(file), node_key(node)
    if await complete(ground, key, "SEQUENCES.LOAD", [image.image], wait_s) is None:
        return False
    return not start or await complete(ground, key, "SEQUENCES.START", [image.header.name], wait_s) is not None


@sequence_group.command()
@click.argument("node")
@click.argument("name")
@WAIT
@asks_ground
async def status(ground: GroundPeer, node: str, name: str, wait_s: float) -> bool:
    """Ask a NODE what became of each entry of the sequence NAME."""
    key = node_key(node)
    done = await complete(ground, key, "SEQUENCES.DUMP", [name], wait_s)
    if done is None:
        return False
    number = int(done["detail"].rpartition(" ")[2])
    data = await data_product(ground, key, "SEQUENCES", number)
    if data is None:
        click.echo(f"data product {number} has not come yet")
        return False
    try:
        state, image = decode_dump(data)
    except MessageError as error:
        raise ConfigError(f"data product {number}: {error}") from None
    _print(image, state)
    return True


def _print(image: SequenceImage, state: SequenceState | None) -> None:
    header = image.header
    notes = [str(header.kind), f"dictionary {header.dictionary_digest.hex()}", _size(image)]
    notes.append("stops when an entry fails" if header.stops_on_failure else "goes on when an entry fails")
    if header.runs_in_safe:
        notes.append("runs in SAFE")
    if header.auto_start != "never":
        notes.append(f"starts by itself: {header.auto_start}")
    if header.kind is Kind.ABSOLUTE:
        notes.append(f"late by {header.late_max_s} s at most")
    if state is not None:
        notes.append(f"{state.word}, run {state.runs_count}")
    click.echo(f"{header.name}: {', '.join(notes)}")
    commands = flight_dictionary().commands
    for number, entry in enumerate(image.entries(), start=1):
        spec = commands.get(entry.opcode)
        names = [] if spec is None else [one.name for one in spec.arguments]
        names += [f"argument {index}" for index in range(len(names) + 1, len(entry.arguments) + 1)]
        arguments = ", ".join(f"{name}={value!r}" for name, value in zip(names, entry.arguments, strict=False))
        when = utc_text(entry.time_ns) if header.kind is Kind.ABSOLUTE else f"+{seconds_text(entry.time_ns)} s"
        hazard = "  (hazardous)" if spec is not None and spec.hazardous else ""
        became = "" if state is None else f"  {state.status(number)}"
        click.echo(f"{number:4}  {when:>12}  {entry.opcode}({arguments}){hazard}{became}")


def _size(image: SequenceImage) -> str:
    count = image.header.entries_count
    return f"{count} {'entry' if count == 1 else 'entries'} in {len(image.image)} bytes"


def _image(file: Path) -> SequenceImage:
    """The sequence in a file, source or compiled."""
    data = _read(file)
    if not data.startswith(MAGIC):
        return _compiled(file, data)
    try:
        return SequenceImage(data)
    except MessageError as error:
        raise ConfigError(f"{file}: {error}") from None


def _compiled(file: Path, data: bytes | None = None) -> SequenceImage:
    data = _read(file) if data is None else data
    try:
        source = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8 at byte {error.start}, expected source of a sequence") from None
    return SequenceImage(compile_source(source, str(file), flight_dictionary()))


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            data = opened.read(max(SOURCE_BYTES_MAX, IMAGE_BYTES_MAX) + 1)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    return data
