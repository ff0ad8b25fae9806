"""CBOR as good and bad writers write it, and messages made from their own types.

`value_of` builds a value from the types that msgspec knows, so that a new message or field is covered when it is
declared. `written` is a writer that makes mistakes on purpose: heads longer than needed, counts that do not fit,
indefinite lengths, tags, repeated keys, values of other types.
"""

import struct
from functools import cache
from typing import Any, Final, get_args

import cbor2
import msgspec
from msgspec import inspect

from flightsw.ports import Random
from flightsw.wire.cbor import encode_head
from flightsw.wire.messages import AnyMessage
from hil.fuzz.mutation import EDGES

MESSAGE_TYPES: Final[tuple[Any, ...]] = get_args(AnyMessage)
TEXTS: Final = ("", "a", "NODE.NOOP", "JOBS.SUBMIT", "OBJECTS.REMOVE", "cloud_mask", "\0", "ä" * 64, "x" * 512)
FLOATS: Final = (0.0, -0.0, 1.0, 0.5, 1e-320, 1e308, float("inf"), float("-inf"), float("nan"), 65504.0)
DEPTHS: Final = (0, 1, 3, 15, 16, 17, 64)

_NEGATIVE: Final = 0x20
_TEXT: Final = 0x60
_BYTES: Final = 0x40
_ARRAY: Final = 0x80
_MAP: Final = 0xA0
_TAG: Final = 0xC0


@cache
def type_of(kind: Any) -> inspect.Type:
    """What msgspec knows of a type."""
    return inspect.type_info(kind)


def plain(random: Random, depth: int = 3) -> object:
    """Any value of the language that messages are written in."""
    draw = random.randrange(8 if depth else 6)
    if draw == 0:
        return random.choice(EDGES)
    if draw == 1:
        return -random.choice(EDGES)
    if draw == 2:
        return random.choice(TEXTS)
    if draw == 3:
        return random.randbytes(random.choice((0, 1, 8, 31, 32, 33)))
    if draw == 4:
        return random.choice(FLOATS)
    if draw == 5:
        return random.choice((True, False, None))
    if draw == 6:
        return [plain(random, depth - 1) for _ in range(random.randrange(4))]
    return {random.choice((0, 1, "a", b"b", -1)): plain(random, depth - 1) for _ in range(random.randrange(3))}


def value_of(random: Random, kind: inspect.Type) -> Any:
    """A value of a type, within its limits and often at them."""
    match kind:
        case inspect.IntType():
            low = 0 if kind.ge is None else kind.ge
            high = 2**63 - 1 if kind.le is None else kind.le
            edges = [edge for edge in EDGES if low <= edge <= high] + [low, high]
            return random.choice(edges) if random.random() < 0.5 else random.randint(low, min(high, low + 300))
        case inspect.FloatType():
            return random.choice((0.0, 0.5, 1.0, 1e-300, 1e12, 1e308))
        case inspect.StrType():
            length = _length(random, kind.min_length, kind.max_length, 64)
            return random.choice("aA.9ä\0") * length
        case inspect.BytesType():
            return random.randbytes(_length(random, kind.min_length, kind.max_length, 64))
        case inspect.BoolType():
            return random.random() < 0.5
        case inspect.NoneType():
            return None
        case inspect.EnumType():
            return random.choice(list(kind.cls))
        case inspect.VarTupleType() | inspect.ListType():
            items = [value_of(random, kind.item_type) for _ in range(random.choice((0, 1, 1, 2, 5)))]
            return tuple(items) if isinstance(kind, inspect.VarTupleType) else items
        case inspect.TupleType():
            return tuple(value_of(random, one) for one in kind.item_types)
        case inspect.DictType():
            return {value_of(random, kind.key_type): value_of(random, kind.value_type)}
        case inspect.StructType():
            return kind.cls(**{field.name: value_of(random, field.type) for field in kind.fields})
        case inspect.UnionType():
            return value_of(random, random.choice(kind.types))
    is_any = isinstance(kind, inspect.AnyType) or (isinstance(kind, inspect.CustomType) and kind.cls is object)
    assert is_any, f"samples know no {kind}"
    return plain(random, 1)


def _length(random: Random, low: int | None, high: int | None, usual: int) -> int:
    low = low or 0
    high = max(low, usual) if high is None else high
    return random.choice((low, high, random.randint(low, min(high, low + usual))))


def message(random: Random) -> Any:
    """A valid message of any type."""
    return value_of(random, type_of(random.choice(MESSAGE_TYPES)))


def wrong(random: Random, value: Any) -> Any:
    """The value with one part of it replaced, left out, doubled or moved."""
    if isinstance(value, dict) and value and random.random() < 0.7:
        key = random.choice(list(value))
        return {**value, key: wrong(random, value[key])}
    if not isinstance(value, list | tuple) or not value or random.random() < 0.05:
        return plain(random)
    items = list(value)
    at = random.randrange(len(items))
    draw = random.randrange(8)
    if draw < 3:
        items[at] = wrong(random, items[at])
    elif draw == 3:
        items[at] = plain(random)
    elif draw == 4:
        del items[at]
    elif draw == 5:
        items.insert(at, items[at])
    elif draw == 6:
        items.append(plain(random))
    else:
        other = random.randrange(len(items))
        items[at], items[other] = items[other], items[at]
    return items


def head(random: Random, base: int, value: int, faults: float) -> bytes:
    """A head; with that chance a longer one than needed, of indefinite length, or with another value."""
    if random.random() >= faults:
        return encode_head(base, value)
    draw = random.randrange(4)
    if draw == 0:
        return bytes((base + 27,)) + value.to_bytes(8, "big")
    if draw == 1:
        return bytes((base + 31,))
    if draw == 2:
        return encode_head(base, random.choice(EDGES))
    return bytes((base + random.randrange(28, 31),))


def written(random: Random, value: object, faults: float) -> bytes:
    """The value as CBOR by a writer that goes wrong with this chance at each item."""
    before = b""
    if random.random() < faults:
        before = random.choice(
            (encode_head(_TAG, random.choice((0, 1, 2, 4, 5, 28, 29, 30, 35, 256, 258))), b"\xf7", b"\xf8\x20", b"\xff")
        )
    match value:
        case None:
            return before + b"\xf6"
        case bool():
            return before + (b"\xf5" if value else b"\xf4")
        case int() if value >= 0:
            return before + head(random, 0, value & 2**64 - 1, faults)
        case int():
            return before + head(random, _NEGATIVE, -1 - value & 2**64 - 1, faults)
        case float():
            return before + b"\xfb" + struct.pack(">d", value)
        case str():
            text = value.encode() if random.random() >= faults else b"\xff\xfe" + value.encode()
            return before + head(random, _TEXT, len(text), faults) + text
        case bytes():
            return before + head(random, _BYTES, len(value), faults) + value
        case dict():
            items = [item for pair in value.items() for item in pair]
            if items and random.random() < faults:
                items += items[:2]
            return before + head(random, _MAP, len(items) // 2, faults) + _all(random, items, faults)
        case list() | tuple():
            return before + head(random, _ARRAY, len(value), faults) + _all(random, value, faults)
    raise AssertionError(f"nobody writes {type(value)}")


def _all(random: Random, items: list[object] | tuple[object, ...], faults: float) -> bytes:
    return b"".join([written(random, item, faults) for item in items])


def cbor_sample(random: Random) -> bytes:
    """One CBOR value, or something that was to be one; sometimes nested deeper than anybody should."""
    if random.random() < 0.05:
        depth = random.choice(DEPTHS)
        return random.choice((b"\x81", b"\xa1\x00", b"\xc1", b"\x9f", b"\xd8\x1c\x81")) * depth + b"\x00"
    return written(random, plain(random), random.choice((0.0, 0.02, 0.2)))


def message_sample(random: Random) -> bytes:
    """One message: valid, with a wrong field, or badly written."""
    content = msgspec.to_builtins(message(random), builtin_types=(bytes,))
    draw = random.random()
    if draw < 0.5:
        content = wrong(random, content)
    if draw < 0.75:
        try:
            return cbor2.dumps(content, canonical=True)
        except (cbor2.CBORError, TypeError, ValueError):  # a wrong value may be one that this writer knows no bytes for
            return written(random, content, 0.0)
    return written(random, content, 0.03)
