"""Findings of an inspection, and events of a trace, as one line of text or JSON each."""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from hil.capture.inspection import Finding, Inspection

DIGEST_BYTES: Final = 32
SHORT_BYTES: Final = 6
"""A digest is shown by so many of its first bytes: enough to tell those of a run apart."""
VALUE_CHARACTERS_MAX: Final = 120
"""Longest value in a line of text [characters]; JSON has it whole."""

_NS_PER_S: Final = 1_000_000_000
_PLACE: Final = ("number", "t_ns", "utc_ns", "link", "source", "target", "direction")
"""Fields that stand at the begin of a line, without their names."""


def clock(t_ns: int) -> str:
    """An instant as T+seconds, to the nanosecond."""
    sign = "-" if t_ns < 0 else "+"
    seconds, fraction = divmod(abs(t_ns), _NS_PER_S)
    return f"T{sign}{seconds}.{fraction:09}"


def of_finding(finding: Finding) -> str:
    """A finding as text."""
    parts = [f"{finding['number']:>7}", f"{clock(finding['t_ns']):>18}"]
    if finding["link"]:
        parts.append(_printable(finding["link"]))
    if "source" in finding:
        parts.append(f"{finding['source']} > {finding['target']}")
    if "direction" in finding:
        parts.append(finding["direction"])
    parts += [_field(name, value) for name, value in finding.items() if name not in _PLACE]
    return "  ".join(part for part in parts if part)


def of_event(event: tuple[int, str, str, dict[str, Any]]) -> str:
    """An event of a trace as text."""
    t_ns, source, kind, fields = event
    values = " ".join(f"{_printable(name)}={_value(value)}" for name, value in fields.items())
    return f"{clock(t_ns):>18}  {_printable(source)}  {_printable(kind)}  {values}".rstrip()


def as_json(value: Any) -> str:
    """Any of them as JSON; bytes in hex."""
    return msgspec.json.encode(_plain(value)).decode()


def of_tally(inspection: Inspection) -> list[str]:
    """What the whole capture held."""
    tally, blocks = inspection.tally, inspection.blocks
    lines = [
        f"{tally.packets_count} packets: {tally.segments_count} LTP segments, {tally.raw_count} rejected or lost "
        f"frames, {tally.other_count} other; {tally.rejected_count} could not be read"
    ]
    if tally.blocks_count or blocks.open_count or blocks.given_up_count:
        lines.append(
            f"{tally.blocks_count} blocks with {tally.bundles_count} bundles; {blocks.open_count} blocks not whole, "
            f"{blocks.given_up_count} given up"
        )
    if inspection.capture.is_cut_short:
        lines.append("the file ends inside a packet: its writer was interrupted")
    return lines


def _field(name: str, value: Any) -> str:
    form = _FORMS.get(name, lambda given: f"{name} {_value(given)}")
    return form(value)


def _value(value: Any) -> str:
    if isinstance(value, bytes):
        return _bytes(value)
    if isinstance(value, str):
        text = _printable(value)
    elif isinstance(value, list | tuple):
        text = "[" + ", ".join(map(_value, value)) + "]"
    elif isinstance(value, dict):
        text = "{" + ", ".join(f"{_value(key)}: {_value(given)}" for key, given in value.items()) + "}"
    elif isinstance(value, float):
        text = f"{value:g}"
    else:
        text = str(value)
    return text if len(text) <= VALUE_CHARACTERS_MAX else text[:VALUE_CHARACTERS_MAX] + "..."


def _bytes(value: bytes) -> str:
    if len(value) == DIGEST_BYTES:
        return value[:SHORT_BYTES].hex() + ".."
    return value.hex() if len(value) <= DIGEST_BYTES else f"{value[:SHORT_BYTES].hex()}.. ({len(value)} bytes)"


def _printable(text: str) -> str:
    """Text of a capture must not steer the reader's terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _plain(value: Any) -> Any:
    """What JSON can say."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(_plain(key)): _plain(given) for key, given in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


_FORMS: Final[dict[str, Callable[[Any], str]]] = {
    "bytes": lambda value: f"{value} B",
    "coding": _value,
    "verdict": _value,
    "type": _value,
    "marks": lambda value: "+".join(value),
    "message": _value,
    "service": _value,
    "created_ms": lambda value: f"created {value} ms",
    "lifetime_ms": lambda value: f"lifetime {value} ms",
    "age_ms": lambda value: f"age {value} ms",
    "payload_bytes": lambda value: f"payload {value} B",
    "payload": lambda value: bytes(value).hex(),
    "client_service": lambda value: "" if value == 1 else f"client service {value}",
    "blocks": lambda value: "blocks " + "; ".join(map(_printable, value)),
    "fields": lambda value: " ".join(f"{name}={_value(given)}" for name, given in value.items()),
}
"""How fields are written that are not `name value`."""
