"""CBOR (RFC 8949) as the wire allows it: whole values with `dumps` and `loads`, single heads for the bundle codec.

Bytes that reach `loads` may be hostile, so it takes a small language: integers of at most 64 bits, floats, text, byte
strings, arrays, maps, booleans and null, with definite lengths, nested at most `DEPTH_MAX` deep, map keys once each,
nothing after the value. Tags are refused: they would build regular expressions, decimals of any size and shared or
cyclic values. So are `undefined` and the unassigned simple values. `dumps` writes the same language and nothing else:
what it returns, `loads` takes.

`dumps` is deterministic: shortest heads and floats, and maps sorted by the encoded key, *shorter keys first* (RFC 8949
§4.2.3, not §4.2.1). Arrays avoid the question and are faster.

The heads (`encode_head`, `read_head`, ...) exist because a bundle's blocks are checked by CRC over their own bytes, and
because a known layout is read many times faster than a tree of objects is built.
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from io import BytesIO
from typing import Final, Never

import cbor2

from flightsw.errors import MessageError

MESSAGE_BYTES_MAX: Final = 65_536
"""Longest value [bytes]: four object chunks. Empty arrays of one byte each grow 64-fold in memory, to 4 MiB here."""

DEPTH_MAX: Final = 16
"""Deepest nesting: our messages need 4; what is deeper is an attack on the stack."""

INTEGER_MIN: Final = -(2**64)
INTEGER_MAX: Final = 2**64 - 1
"""Range of integers without a tag (RFC 8949 §3.1, major types 0 and 1)."""

UNSIGNED: Final = 0x00
BYTES: Final = 0x40
ARRAY: Final = 0x80
"""First byte of a head without its value: the major type in the upper three bits (RFC 8949 §3.1)."""

_SIMPLE: Final = bytes((*range(0xE0, 0xF4), 0xF7, 0xF8))
"""First bytes of `undefined` and of unassigned simple values; they may also be innocent bytes inside a string."""

_WIDTHS: Final = {24: 1, 25: 2, 26: 4, 27: 8}
"""Bytes of value after a head, by the head's lower five bits (RFC 8949 §3)."""

_SCALARS: Final = frozenset((float, str, bytes, bool, type(None)))
_LEAVES: Final = _SCALARS | {int}
_KEYS: Final = frozenset((int, str, bytes))

_BYTE: Final = tuple(bytes((value,)) for value in range(256))
_pack_head_u16: Final = struct.Struct(">BH").pack
_pack_head_u32: Final = struct.Struct(">BI").pack
_pack_head_u64: Final = struct.Struct(">BQ").pack


def _refuse_tag(_decoder: object, _immutable: bool) -> Never:
    raise ValueError("tags are not allowed")


class _NoTags(Mapping[int, Callable[[object, bool], Never]]):
    """Answers for every tag, so that the library's own decoders never run."""

    def __getitem__(self, _tag: int) -> Callable[[object, bool], Never]:
        return _refuse_tag

    def __iter__(self) -> Iterator[int]:
        return iter(())

    def __len__(self) -> int:
        return 1


_NO_TAGS: Final = _NoTags()


def _checked_map(value: Mapping[object, object], _immutable: bool) -> Mapping[object, object]:
    """Keys of other types would invite chosen hash collisions, and NaN as a key is never a duplicate."""
    for key in value:
        if type(key) not in _KEYS:
            raise ValueError(f"a map key is an integer, text or byte string, not {type(key).__name__}")
    return value


_DECODER: Final = cbor2.CBORDecoder(
    BytesIO(),
    semantic_decoders=_NO_TAGS,
    object_hook=_checked_map,
    max_depth=DEPTH_MAX,
    allow_indefinite=False,
    allow_duplicate_keys=False,
)
"""One for all values: making one takes as long as decoding a message. It keeps nothing from one to the next."""


def _is_plain(value: object, depth_max: int) -> bool:
    """Whether the value is of this module's language. Subclasses are not plain, though they may be written as if."""
    kind = type(value)
    if kind in _SCALARS:
        return True
    if kind is int:
        return INTEGER_MIN <= value <= INTEGER_MAX  # type: ignore[operator]
    if depth_max == 0:
        return False
    items: Iterable[object]
    if isinstance(value, (list, tuple)):
        items = value
    elif isinstance(value, dict):
        items = value.values()
        if not all(type(key) in _KEYS for key in value):
            return False
    else:
        return False
    for item in items:
        kind = type(item)
        if kind in _SCALARS or (kind is int and INTEGER_MIN <= item <= INTEGER_MAX):
            continue  # most items: spare the call
        if not _is_plain(item, depth_max - 1):
            return False
    return True


def _is_flat(value: object) -> bool:
    """Whether the value is a list of scalars and integers: nearly every message is, and this looks at it in C."""
    return type(value) is list and _LEAVES.issuperset(map(type, value))


def dumps(value: object, bytes_max: int = MESSAGE_BYTES_MAX) -> bytes:
    """The value as deterministic CBOR.

    Raises:
        MessageError: the value is none that `loads` would take: too long, too deep, or of another type.
    """
    try:
        data = cbor2.dumps(value, canonical=True)
    except (cbor2.CBORError, RecursionError, UnicodeError) as error:
        raise MessageError(f"CBOR: {error}") from error
    # An integer of more than 64 bits is written with a tag; the bytes of one may also be innocent.
    is_plain = _is_flat(value) and b"\xc2" not in data and b"\xc3" not in data
    if len(data) > bytes_max or not (is_plain or _is_plain(value, DEPTH_MAX)):
        loads(data, bytes_max)
    return data


def loads(data: bytes, bytes_max: int = MESSAGE_BYTES_MAX) -> object:
    """The one value in the data: integers, floats, str, bytes, bool, None, lists and dicts of them.

    Raises:
        MessageError: not CBOR, not the language of this module, or bytes after the value.
    """
    if len(data) > bytes_max:
        raise MessageError(f"CBOR: {len(data)} bytes, at most {bytes_max} are taken")
    stream = _DECODER.fp = BytesIO(data)
    try:
        value = _DECODER.decode()
    except cbor2.CBORError as error:
        raise MessageError(f"CBOR: {error.__cause__ or error}") from error
    if stream.tell() != len(data):
        raise MessageError(f"CBOR: {len(data) - stream.tell()} bytes after the value")
    if len(data.translate(None, _SIMPLE)) != len(data) and not (_is_flat(value) or _is_plain(value, DEPTH_MAX)):
        raise MessageError("CBOR: undefined and unassigned simple values are not allowed")
    return value


def encode_head(base: int, value: int) -> bytes:
    """The shortest head of an item: `UNSIGNED` and its value, `BYTES` and its length, or `ARRAY` and its count."""
    if value < 24:
        return _BYTE[base + value]
    if value < 0x100:
        return _BYTE[base + 24] + _BYTE[value]
    if value < 0x1_0000:
        return _pack_head_u16(base + 25, value)
    if value < 0x1_0000_0000:
        return _pack_head_u32(base + 26, value)
    return _pack_head_u64(base + 27, value)


def read_head(data: bytes, at: int, base: int, field: str) -> tuple[int, int]:
    """Value, length or count of the head at the offset, and the offset after it. Longer heads than needed are taken.

    Raises:
        MessageError: the data end, or another type or an indefinite length stands there; names the field.
    """
    try:
        value = data[at] - base
    except IndexError:
        raise MessageError(f"{field}: the data end at byte {at}") from None
    if 0 <= value < 24:
        return value, at + 1
    width = _WIDTHS.get(value)
    if width is None:
        raise MessageError(f"{field}: a head 0x{base:02x}..0x{base + 27:02x} is expected, not 0x{value + base:02x}")
    end = at + 1 + width
    if end > len(data):
        raise MessageError(f"{field}: the data end inside the head at byte {at}")
    return int.from_bytes(data[at + 1 : end], "big"), end


def read_bytes(data: bytes, at: int, field: str) -> tuple[bytes, int]:
    """The byte string at the offset, and the offset after it.

    Raises:
        MessageError: the data end, or no byte string of definite length stands there; names the field.
    """
    length, start = read_head(data, at, BYTES, field)
    end = start + length
    if end > len(data):
        raise MessageError(f"{field}: {length} bytes are announced, {len(data) - start} are there")
    return data[start:end], end
