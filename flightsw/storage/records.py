"""Records with a CRC: the unit of everything durable.

| field | bytes | meaning |
|---|---|---|
| length | 4, big-endian | of data |
| CRC-32C | 4, big-endian | over length and data |
| data | length | |

The CRC covers the length too: a torn sector of zeros would otherwise read as a valid empty record. Layout: ours.
"""

import struct
from typing import Final

from flightsw.errors import StorageError
from flightsw.wire.crc import crc32c

HEADER: Final = struct.Struct(">II")

RECORD_BYTES_MAX: Final = 1 << 26
"""Data in one record [bytes]: 64 MiB, more than any state that flight software keeps; a longer length is damage."""


def seal(data: bytes) -> bytes:
    """One record: what `unseal` takes back, and what a log is a sequence of.

    Raises:
        StorageError: the data are longer than a record may be.
    """
    if len(data) > RECORD_BYTES_MAX:
        raise StorageError(f"record of {len(data)} bytes, at most {RECORD_BYTES_MAX}")
    length = len(data).to_bytes(4, "big")
    return b"".join((length, crc32c(length + data).to_bytes(4, "big"), data))


def unseal(sealed: bytes) -> bytes:
    """The data of a file that holds exactly one record.

    Raises:
        StorageError: torn, rotten, or followed by something else.
    """
    data = record_at(sealed, 0)
    if data is None or HEADER.size + len(data) != len(sealed):
        raise StorageError(f"damaged record in {len(sealed)} bytes")
    return data


def record_at(content: bytes, offset: int) -> bytes | None:
    """The record that starts at an offset, or None when none that holds does."""
    if offset + HEADER.size > len(content):
        return None
    length, crc = HEADER.unpack_from(content, offset)
    start = offset + HEADER.size
    if length > RECORD_BYTES_MAX or start + length > len(content):
        return None
    data = content[start : start + length]
    if crc32c(content[offset : offset + 4] + data) != crc:
        return None
    return data
