"""Majorities: a value held three times, and a decision formed twice and, in case of doubt, a third time.

`Voted` is for state on which much hangs and which lies in memory for days: three copies in memory of their own. Each
read compares them, and mends the one that differs. `agreed` is for a decision that is formed once: what was struck
while it was formed does not come out the same way again.
"""

from collections.abc import Callable
from typing import Final, Generic, NamedTuple, TypeVar

from flightsw.errors import BoardError

COPIES: Final = 3

T = TypeVar("T")


class Voted(Generic[T]):
    """A cell of three copies.

    Args:
        value: at first.
        encode: value -> bytes, at least one, as each copy holds it.
        decode: bytes -> value, or KeyError or ValueError when no value has them.
        fallback: the value when no two copies agree on one, the safest one.

    Attributes:
        corrected_count: reads that mended a copy.
        lost_count: reads that found no majority.
    """

    __slots__ = ("_copies", "_decode", "_encode", "_fallback", "corrected_count", "lost_count")

    def __init__(self, value: T, encode: Callable[[T], bytes], decode: Callable[[bytes], T], fallback: T) -> None:
        self._encode = encode
        self._decode = decode
        self._fallback = fallback
        self.corrected_count = 0
        self.lost_count = 0
        self._copies: tuple[bytearray, ...] = ()
        self.value = value

    @property
    def value(self) -> T:
        """What at least two copies say, else the fallback; afterwards all three say so."""
        first, second, third = self._copies
        try:
            if first == second == third:
                return self._decode(bytes(first))
            value = self._decode(bytes(first if first in (second, third) else second if second == third else b""))
        except (KeyError, ValueError):
            self.lost_count += 1
            self.value = self._fallback
            return self._fallback
        self.corrected_count += 1
        self.value = value
        return value

    @value.setter
    def value(self, value: T) -> None:
        encoded = self._encode(value)
        self._copies = tuple(bytearray(encoded) for _ in range(COPIES))

    @property
    def unchecked(self) -> T:
        """What the first copy says, compared with nothing; the fallback when that is no value."""
        try:
            return self._decode(bytes(self._copies[0]))
        except (KeyError, ValueError):
            return self._fallback

    def copies(self) -> tuple[bytearray, ...]:
        """The copies themselves: what radiation can strike."""
        return self._copies


class Agreed(NamedTuple, Generic[T]):
    """A decision by majority.

    Attributes:
        value: what two of the times gave.
        is_disputed: whether a third time was needed.
    """

    value: T
    is_disputed: bool


def agreed(decide: Callable[[], T]) -> Agreed[T]:
    """Form a decision twice, and a third time when the first two differ.

    Raises:
        BoardError: all three differ.
    """
    first, second = decide(), decide()
    if first == second:
        return Agreed(first, is_disputed=False)
    third = decide()
    if third not in (first, second):
        raise BoardError("a decision came out differently three times")
    return Agreed(third, is_disputed=True)
