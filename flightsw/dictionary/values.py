"""Values against the dictionary: whether one is as described, and how the text of an event is made."""

import math
from collections.abc import Sequence
from typing import Final

from flightsw.dictionary.model import RANGES, CommandSpec, EventSpec, ValueSpec
from flightsw.wire.cbor import DEPTH_MAX

EVENT_TEXT_CHARACTERS: Final = 512
"""Longest text of an event [characters]: what the message holds."""
SHOWN_DIGITS: Final = 16
"""Hexadecimal digits of a byte string in an event's text: enough to tell objects apart."""
LIST_DEPTH: Final = DEPTH_MAX - 3
"""Deepest nesting of a list argument: the message, its arguments and the list itself are levels too."""


def check_arguments(spec: CommandSpec, arguments: Sequence[object]) -> str | None:
    """What is wrong with a command's arguments, or None."""
    expected = spec.arguments
    if len(arguments) != len(expected):
        names = ", ".join(one.name for one in expected)
        wanted = f"{len(expected)}: {names}" if names else "none"
        return f"{spec.key}: {len(arguments)} arguments, expected {wanted}"
    for one, value in zip(expected, arguments, strict=True):
        wrong = check_value(one, value)
        if wrong is not None:
            return f"{spec.key}: {wrong}"
    return None


def check_value(spec: ValueSpec, value: object) -> str | None:
    """What is wrong with a value, or None. The text names the value's name, what it is and what was expected."""
    kind = spec.type
    if kind in RANGES:
        if type(value) is not int:
            return _wrong_type(spec, value)
        low, high = RANGES[kind]
        if not low <= value <= high:
            return f"{spec.name} is {value}, expected {kind}, {low} to {high}"
        return _out_of_range(spec, value)
    if kind == "f64":
        if type(value) is not float and type(value) is not int:
            return _wrong_type(spec, value)
        if not -_FLOAT_MAX <= value <= _FLOAT_MAX:  # an integer may be larger, and NaN is not within
            return f"{spec.name} is {value:g}, expected a finite number" if type(value) is float else _too_large(spec)
        return _out_of_range(spec, value)
    if kind == "bool":
        return None if type(value) is bool else _wrong_type(spec, value)
    if kind == "enum":
        known = type(value) is str and value in spec.values
        return None if known else f"{spec.name} is {_shown(value)}, expected one of {', '.join(spec.values)}"
    if kind == "list":
        return _check_list(spec, value)
    if type(value) is not (str if kind == "text" else bytes):
        return _wrong_type(spec, value)
    try:
        size_bytes = len(value.encode()) if isinstance(value, str) else len(value)
    except UnicodeEncodeError:
        return f"{spec.name} is {_shown(value)}, expected text that UTF-8 can carry"
    if size_bytes > spec.bytes_limit:
        return f"{spec.name} has {size_bytes} bytes, expected at most {spec.bytes_limit}"
    return None


def event_text(spec: EventSpec, arguments: Sequence[object]) -> str:
    """The text of an event. Byte strings are shown by their first digits, and what is too long is cut."""
    names = (one.name for one in spec.arguments)
    shown = {name: _plain(value) for name, value in zip(names, arguments, strict=True)}
    return spec.format.format(**shown)[:EVENT_TEXT_CHARACTERS]


_FLOAT_MAX: Final = 1.7976931348623157e308
"""Largest finite number of IEEE 754 double precision."""


def _plain(value: object) -> object:
    return value.hex()[:SHOWN_DIGITS] if isinstance(value, bytes) else value


def _check_list(spec: ValueSpec, value: object) -> str | None:
    if not isinstance(value, list | tuple):
        return _wrong_type(spec, value)
    if len(value) > spec.items_limit:
        return f"{spec.name} has {len(value)} items, expected at most {spec.items_limit}"
    if not _travels(value, LIST_DEPTH):
        return f"{spec.name}: expected numbers, truths, text, bytes and lists of these, at most {LIST_DEPTH} deep"
    return None


def _travels(value: object, depth: int) -> bool:
    """Whether a message can carry the value in a list."""
    if isinstance(value, list | tuple):
        return depth > 0 and all(_travels(one, depth - 1) for one in value)
    if type(value) is int:
        return -(1 << 63) <= value <= (1 << 64) - 1
    if type(value) is str:
        return not any(0xD800 <= ord(character) <= 0xDFFF for character in value)
    if type(value) is float:
        return math.isfinite(value)
    return type(value) in (bool, bytes)


def _out_of_range(spec: ValueSpec, value: float) -> str | None:
    if (spec.min is not None and value < spec.min) or (spec.max is not None and value > spec.max):
        return f"{spec.name} is {value}, expected {range_text(spec)}"
    return None


def range_text(spec: ValueSpec) -> str:
    """The range of a number, for messages and documents; empty when it has none."""
    unit = f" {spec.unit}" if spec.unit else ""
    if spec.min is not None and spec.max is not None:
        return f"{spec.min} to {spec.max}{unit}"
    if spec.min is not None:
        return f"at least {spec.min}{unit}"
    return "" if spec.max is None else f"at most {spec.max}{unit}"


def _too_large(spec: ValueSpec) -> str:
    return f"{spec.name} is an integer beyond f64, expected a finite number"


def _wrong_type(spec: ValueSpec, value: object) -> str:
    return f"{spec.name} is {type(value).__name__}, expected {spec.type}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 64 else f"{text[:61]}..."
