"""LTP session numbers: short, never the same twice in living memory, and the same again when a run is repeated.

RFC 5326 §3.1 leaves their size open and asks only that no session identifier comes twice; ION keeps 32 bits of them and
answers with the rest cut off. So ours have 28 bits, four bytes in a segment. Since a boot must not use what an earlier
one used, while nothing but the boot's base is kept, the numbers of a boot begin at a place on the circle of all numbers
that the base is hashed to (Fibonacci hashing, Knuth, TAOCP 6.4): ten successive boots begin more than a million apart,
a thousand tens of thousands. Where a circle closes nevertheless, peers have long forgotten
(`LtpConfig.closed_idle_ns`).
"""

from collections.abc import Iterator
from typing import Final

SESSION_NUMBER_BITS: Final = 28
"""Bits of a session number: four bytes as an SDNV, and below the 32 bits that other implementations keep."""

_GOLDEN_RATIO: Final = 0x9E37_79B9_7F4A_7C15
"""2**64 divided by the golden ratio, odd."""


def session_numbers(base: int) -> Iterator[int]:
    """Session numbers of one boot, without end, never 0.

    Args:
        base: of this boot and no other.
    """
    number = (base * _GOLDEN_RATIO & (1 << 64) - 1) >> (64 - SESSION_NUMBER_BITS)
    while True:
        number = number + 1 & (1 << SESSION_NUMBER_BITS) - 1
        if number:
            yield number
