"""The text form of sequences: what both the compiler and people read and write."""

import difflib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from flightsw.dictionary.sequence_file import UTC_NS_MAX, AutoStart, Kind, SequenceImage

NS_PER_S: Final = 1_000_000_000
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def decompile(image: SequenceImage) -> str:
    """Source that compiles to the same image with the same dictionary.

    Raises:
        MessageError: an entry does not hold.
    """
    header = image.header
    options = [f'"{header.name}"', f'kind="{header.kind}"']
    if header.runs_in_safe:
        options.append("safe=True")
    if header.auto_start is not AutoStart.NEVER:
        options.append(f'auto_start="{header.auto_start}"')
    if header.kind is Kind.ABSOLUTE:
        options.append(f"late_max_s={header.late_max_s}")
    lines = [f"sequence({', '.join(options)})"]
    if not header.stops_on_failure:
        lines.append('if_fails("continue")')
    shown_ns: int | None = None
    for entry in image.entries():
        if header.kind is Kind.ABSOLUTE:
            if entry.time_ns != shown_ns:
                lines.append(f'at("{utc_text(entry.time_ns)}")')
            shown_ns = entry.time_ns
        elif entry.time_ns:
            lines.append(f"wait(seconds={seconds_text(entry.time_ns)})")
        arguments = ", ".join(repr(argument) for argument in entry.arguments)
        lines.append(f"{entry.opcode}({arguments})")
    return "\n".join(lines) + "\n"


def utc_text(utc_ns: int) -> str:
    """An instant of mission time as ISO 8601 writes it, to the nanosecond where it has one."""
    seconds, ns = divmod(utc_ns, NS_PER_S)
    text = (EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{ns:09d}".rstrip("0") + "Z" if ns else f"{text}Z"


def seconds_text(time_ns: int) -> str:
    """A time in seconds, exactly."""
    seconds, ns = divmod(time_ns, NS_PER_S)
    return f"{seconds}.{ns:09d}".rstrip("0") if ns else str(seconds)


def near_miss(name: str, known: Iterable[str]) -> str:
    """A suggestion for a name that is not known, or what is known when nothing is near."""
    names = sorted(known)
    found = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {found[0]}?" if found else f"expected one of {', '.join(names)}"


def utc_of(text: str) -> int | None:
    """Nanoseconds since 1970 of an instant in UTC; None when it is none, or out of range."""
    seconds, dot, fraction = text.removesuffix("Z").partition(".")
    if not text.endswith("Z") or (dot and not (fraction.isascii() and fraction.isdigit() and len(fraction) <= 9)):
        return None
    try:
        since = datetime.strptime(seconds, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC) - EPOCH
    except ValueError:
        return None
    utc_ns = (since.days * 86_400 + since.seconds) * NS_PER_S + int(fraction.ljust(9, "0") or "0")
    return utc_ns if 0 < utc_ns <= UTC_NS_MAX else None
