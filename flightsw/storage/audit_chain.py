"""Records of the audit chain: each holds the hash of the one before it. Shared by flight and ground.

```text
record = hash of the record before (32 bytes) | CBOR [number, boot count, uptime_ms, utc_ns, kind, fields]
hash   = BLAKE2b-256 of the whole record; 32 zeros stand before record 0
dump   = records, each after its length (4 bytes, big-endian)
```

Who changes a record changes its hash, so the next record no longer fits, and the hash of the newest record stands for
all before it. The chain has no key: who can write the board's disk could as well read the board's keys. What protects
it is that the ground keeps the last hash that it has verified, and every hash that housekeeping told. Layout: ours.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, NamedTuple

import msgspec

from flightsw.errors import MessageError
from flightsw.wire import cbor

HASH_BYTES: Final = 32
"""BLAKE2b-256 [bytes]: nobody finds another record with the same one."""
GENESIS: Final = bytes(HASH_BYTES)
"""What stands before record 0."""
RECORD_BYTES_MAX: Final = 4096
"""Longest record [bytes]: an opcode and what fits a line of text; more is cut by who writes it."""
KIND_CHARACTERS_MAX: Final = 64
"""Longest kind [characters]: a word."""
_LENGTH_BYTES: Final = 4


class AuditRecord(NamedTuple):
    """One record."""

    number: int
    boot_count: int
    uptime_ms: int
    """Since the boot [ms]."""
    utc_ns: int
    """Mission time [ns since 1970-01-01T00:00:00Z]: for the reader, no proof."""
    kind: str
    """What happened: boot, command, mode, ..."""
    fields: dict[str, Any]


class _Body(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A record without the hash."""

    number: Annotated[int, msgspec.Meta(ge=0)]
    boot_count: Annotated[int, msgspec.Meta(ge=0)]
    uptime_ms: Annotated[int, msgspec.Meta(ge=0)]
    utc_ns: int
    kind: Annotated[str, msgspec.Meta(max_length=KIND_CHARACTERS_MAX)]
    fields: dict[str, Any]


def encode_record(previous: bytes, record: AuditRecord) -> bytes:
    """A record behind the one with this hash.

    Raises:
        MessageError: the fields do not encode, or are too large.
    """
    assert len(previous) == HASH_BYTES, "a hash links records"
    return previous + cbor.dumps([*record[:-1], plain(record.fields)], RECORD_BYTES_MAX - HASH_BYTES)


def decode_record(data: bytes) -> tuple[bytes, AuditRecord]:
    """(hash of the record before, record).

    Raises:
        MessageError: it is none.
    """
    if len(data) > RECORD_BYTES_MAX:
        raise MessageError(f"audit record of {len(data)} bytes, at most {RECORD_BYTES_MAX}")
    try:
        body = msgspec.convert(cbor.loads(data[HASH_BYTES:]), _Body, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise MessageError(f"audit record: {error}") from None
    return data[:HASH_BYTES], AuditRecord(*msgspec.structs.astuple(body))


def record_hash(data: bytes) -> bytes:
    """BLAKE2b-256 of an encoded record."""
    return hashlib.blake2b(data, digest_size=HASH_BYTES).digest()


def join_records(records: Iterable[bytes]) -> bytes:
    """Encoded records as one data product."""
    return b"".join(len(record).to_bytes(_LENGTH_BYTES, "big") + record for record in records)


def split_records(data: bytes) -> list[bytes]:
    """The encoded records of a data product.

    Raises:
        MessageError: it ends inside a record.
    """
    records: list[bytes] = []
    at = 0
    while at < len(data):
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(data[at:start], "big")
        if start > len(data) or at > len(data):
            raise MessageError(f"audit dump of {len(data)} bytes ends inside record {len(records)}")
        records.append(data[start:at])
    return records


def plain(value: object) -> Any:
    """A value as a record carries it: enumerations as what they stand for, other objects as their text."""
    if value is None or isinstance(value, bool | float | bytes):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return str(value)
