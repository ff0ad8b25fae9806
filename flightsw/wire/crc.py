"""Cyclic redundancy checks of the wire.

| function | name in the catalogue | used by | check value of b"123456789" |
|---|---|---|---|
| `crc32c` | CRC-32/ISCSI (Castagnoli) | coded frames, BPv7 CRC type 2 | 0xE3069283 |
| `crc16_x25` | CRC-16/IBM-SDLC | BPv7 CRC type 1 | 0x906E |

CRC-32C finds every burst of at most 32 flipped bits in what it covers, and misses other damage once in 2**32. Bundles
store both most significant byte first (RFC 9171 §4.2.1).
"""

from binascii import crc_hqx
from collections.abc import Callable
from typing import Final

import crc32c as _crc32c

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
