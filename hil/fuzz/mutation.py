"""Damage to bytes that knows nothing of their meaning: what noise, torn files and careless or hostile peers do.

Numbers are pushed to their extremes, ranges are cut, doubled, swapped and moved between inputs. Structured damage,
which keeps lengths and checksums right around a wrong field, is in the samples of each format.
"""

from collections.abc import Callable, Sequence
from typing import Final

from flightsw.ports import Random

INPUT_BYTES_MAX: Final = 16_384
"""Longest mutated input [bytes]: some layers of lengths fit in it, and a run makes millions."""

OPERATIONS_MAX: Final = 4
"""Most operations on one input: more leave little of what a decoder would follow."""

EDGES: Final = tuple(
    sorted(
        {
            value
            for bits in (1, 4, 5, 7, 8, 14, 15, 16, 21, 24, 31, 32, 53, 62, 63, 64)
            for value in (2**bits - 1, 2**bits, 2**bits + 1)
            if value < 2**64
        }
        | {0, 23, 1024, 16_384, 65_535, 65_536, 1_048_576, 1_048_577, 1 << 26, (1 << 26) + 1, 1 << 30}
    )
)
"""Integers at which widths, signs and our own limits end."""

BYTES: Final = bytes.fromhex("00010f1017181a1b1f3b405b5f7b7f80819b9fa1bfc2d8f6f7f8fbfeff")
"""Bytes at which heads, signs and delimiters change."""


def span(random: Random, length: int) -> tuple[int, int]:
    """A range [start, end) within a length; short ones are as likely as long ones."""
    start = random.randrange(length + 1)
    return start, min(length, start + random.choice((1, 2, 4, 8, 32, 256)))


def _flip(random: Random, data: bytearray, other: bytes) -> None:
    if data:
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def _set(random: Random, data: bytearray, other: bytes) -> None:
    if data:
        data[random.randrange(len(data))] = random.choice(BYTES)


def _extreme(random: Random, data: bytearray, other: bytes) -> None:
    width = random.choice((1, 2, 4, 8))
    start = random.randrange(len(data) + 1)
    value = random.choice(EDGES) & (1 << 8 * width) - 1
    data[start : start + width] = value.to_bytes(width, random.choice(("big", "little")))


def _insert(random: Random, data: bytearray, other: bytes) -> None:
    start = random.randrange(len(data) + 1)
    data[start:start] = random.randbytes(random.choice((1, 2, 4, 8, 64)))


def _remove(random: Random, data: bytearray, other: bytes) -> None:
    start, end = span(random, len(data))
    del data[start:end]


def _double(random: Random, data: bytearray, other: bytes) -> None:
    start, end = span(random, len(data))
    data[end:end] = data[start:end] * random.choice((1, 1, 2, 16, 256))


def _cut(random: Random, data: bytearray, other: bytes) -> None:
    del data[random.randrange(len(data) + 1) :]


def _splice(random: Random, data: bytearray, other: bytes) -> None:
    data[random.randrange(len(data) + 1) :] = other[random.randrange(len(other) + 1) :]


def _graft(random: Random, data: bytearray, other: bytes) -> None:
    start, end = span(random, len(other))
    at = random.randrange(len(data) + 1)
    data[at:at] = other[start:end]


def _swap(random: Random, data: bytearray, other: bytes) -> None:
    start, middle = sorted((random.randrange(len(data) + 1), random.randrange(len(data) + 1)))
    end = min(len(data), middle + middle - start)
    data[start:end] = data[middle:end] + data[start:middle]


def _fill(random: Random, data: bytearray, other: bytes) -> None:
    start, end = span(random, len(data))
    data[start:end] = bytes((random.choice(BYTES),)) * (end - start)


OPERATIONS: Final[tuple[Callable[[Random, bytearray, bytes], None], ...]] = (
    _flip,
    _set,
    _extreme,
    _insert,
    _remove,
    _double,
    _cut,
    _splice,
    _graft,
    _swap,
    _fill,
)


def mutated(random: Random, data: bytes, other: bytes) -> bytes:
    """The data after one to `OPERATIONS_MAX` operations.

    Args:
        random: stream of chance.
        data: a valid input, most of the time.
        other: another one, of which pieces may be taken.
    """
    work = bytearray(data)
    for _ in range(random.randint(1, OPERATIONS_MAX)):
        random.choice(OPERATIONS)(random, work, other)
    return bytes(work[:INPUT_BYTES_MAX])


def inputs(random: Random, sample: Callable[[Random], bytes], count: int, pool_size: int = 32) -> Sequence[bytes]:
    """Inputs for one decoder: a third samples, nearly two thirds mutated ones, the rest noise.

    Args:
        random: stream of chance; the same stream gives the same inputs.
        sample: makes one input, valid or wrong in a way that only its format knows.
        count: how many inputs.
        pool_size: samples that mutations start from.
    """
    pool = [sample(random) for _ in range(pool_size)]
    made: list[bytes] = []
    for _ in range(count):
        draw = random.random()
        if draw < 0.35:
            made.append(sample(random))
        elif draw < 0.97:
            made.append(mutated(random, random.choice(pool), random.choice(pool)))
        else:
            made.append(random.randbytes(random.choice((0, 1, 2, 8, 64, 512))))
    return made
