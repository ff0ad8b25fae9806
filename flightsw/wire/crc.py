"""Cyclic redundancy checks of the wire.

| function | name in the catalogue | used by | check value of b"123456789" |
|---|---|---|---|
| `crc32c` | CRC-32/ISCSI (Castagnoli) | coded frames, BPv7 CRC type 2 | 0xE3069283 |
| `crc16_x25` | CRC-16/IBM-SDLC | BPv7 CRC type 1 | 0x906E |

CRC-32C finds every burst of at most 32 flipped bits in what it covers, and misses other damage once in 2**32.

A bundle's block may end with a byte string that holds its CRC, most significant byte first. The CRC covers the whole
block, from the head of its array, with zeros in the CRC's place (RFC 9171 §4.2.1, §4.3).
"""

from binascii import crc_hqx
from collections.abc import Callable
from typing import Final

import crc32c as _crc32c

from flightsw.errors import MessageError
from flightsw.wire.cbor import read_bytes

CRC_NONE: Final = 0
CRC_16_X25: Final = 1
CRC_32C: Final = 2
"""CRC types of blocks, RFC 9171 §4.2.1."""

crc32c: Final[Callable[[bytes | bytearray | memoryview], int]] = _crc32c.crc32c
"""CRC-32C of the data (RFC 3720 §12.1), in hardware where the processor has it."""

_MIRROR: Final = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))
"""Each byte with its bits in reverse order."""


def crc16_x25(data: bytes) -> int:
    """CRC-16/X-25 of the data (RFC 9171 §4.2.1, CRC type 1).

    X-25 is the mirror image of CRC-16/CCITT-FALSE, which the standard library computes in C: mirror the bits of each
    byte, take that CRC, mirror its 16 bits and invert them.
    """
    mirrored = crc_hqx(data.translate(_MIRROR), 0xFFFF)
    return (_MIRROR[mirrored & 0xFF] << 8 | _MIRROR[mirrored >> 8]) ^ 0xFFFF


def with_crc(block: bytes, crc_type: int) -> bytes:
    """The block and its CRC."""
    if crc_type == CRC_32C:
        return block + b"\x44" + crc32c(block + b"\x44\0\0\0\0").to_bytes(4, "big")
    if crc_type == CRC_16_X25:
        return block + b"\x42" + crc16_x25(block + b"\x42\0\0").to_bytes(2, "big")
    assert crc_type == CRC_NONE, f"no CRC type {crc_type}"
    return block


def checked_crc(data: bytes, start: int, at: int, crc_type: int) -> int:
    """The offset after the CRC at `at` of the block that begins at `start`.

    Raises:
        MessageError: the CRC type is undefined, or the CRC is missing or does not hold.
    """
    if crc_type == CRC_NONE:
        return at
    if crc_type > CRC_32C:
        raise MessageError(f"CRC type: {crc_type} is undefined")
    crc, end = read_bytes(data, at, "CRC")
    if crc_type == CRC_32C:
        holds = len(crc) == 4 and crc32c(data[start : end - 4] + b"\0\0\0\0") == int.from_bytes(crc, "big")
    else:
        holds = len(crc) == 2 and crc16_x25(data[start : end - 2] + b"\0\0") == int.from_bytes(crc, "big")
    if not holds:
        raise MessageError("CRC: does not hold")
    return end
