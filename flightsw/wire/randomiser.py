"""The pseudo-randomiser: gives coded bits enough transitions for a receiver's clock, whatever is sent.

The bits after the sync marker are added to a fixed sequence of 255 bits, which begins anew at each marker; doing it
twice undoes it. The sequence comes from h(x) = x^8 + x^7 + x^5 + x^3 + 1 with all eight cells one at the start. Since 8
and 255 have no common factor it repeats after 255 bytes. Source: CCSDS 131.0-B-3 §10.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

PERIOD_BYTES: Final = 255
_READY_BYTES: Final = 65_536
"""So much of the sequence is kept: the longest frame of `framing`."""


def _period() -> bytes:
    bits, cells = 0, 0xFF
    for _ in range(8 * PERIOD_BYTES):
        bits = bits << 1 | cells & 1
        cells = cells >> 1 | ((cells ^ cells >> 3 ^ cells >> 5 ^ cells >> 7) & 1) << 7
    return bits.to_bytes(PERIOD_BYTES, "big")


SEQUENCE: Final = _period()
"""One period: ff 48 0e c0 9a 0d 70 bc ..."""
_READY: Final[NDArray[np.uint8]] = np.resize(np.frombuffer(SEQUENCE, np.uint8), _READY_BYTES)


def randomise(data: bytes) -> bytes:
    """The data with the sequence added, from its first bit on; the same again gives the data back."""
    length = len(data)
    sequence = _READY[:length] if length <= _READY_BYTES else np.resize(_READY[:PERIOD_BYTES], length)
    return (np.frombuffer(data, np.uint8) ^ sequence).tobytes()
