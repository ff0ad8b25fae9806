"""Bit flips on coded frames, exact and cheap: the injector remembers how many bits are left until its next event.

Errors of a binary symmetric channel are a Bernoulli process over *all* bits of a direction, so the number of clean bits
between two errors is geometric, and one draw serves every frame up to the next error. A clean frame then costs one
comparison and one subtraction, the frame object itself is handed on, and the process stays exact over frame borders.
Drawing a number of errors per frame and then their positions would let two flips of one bit cancel each other, and
would cost one draw per clean frame.

Bursts (Gilbert-Elliott) work the same way with two geometric countdowns: to the next error in this state, and to the
next change of state. Geometric countdowns have no memory, hence the first may be redrawn whenever the second runs out.

Bits are counted in the order of transmission, most significant bit of each byte first (bit numbering of CCSDS 131.0-B).
"""

from math import log, log1p
from typing import Final, Protocol

from flightsw.ports import Frame, Random
from flightsw.wire.frames import CodedFrame, padding_of
from hil.channel.impairments import Burst, Impairments

GAP_BITS_MAX: Final = 1 << 62
"""Longest countdown; at 100 Gbit/s it lasts 1.5 years. Stands for "never" where a rate is zero."""


class BitErrors(Protocol):
    """Flips bits of the frames of one direction, in the order in which they are sent."""

    def flip(self, frame: Frame) -> tuple[Frame, int]:
        """The frame as received and the number of flipped bits; the same object when there is none."""
        ...


def geometric_scale(probability: float) -> float:
    """Factor that turns log(u), u uniform in (0, 1], into the clean bits before an event of this chance per bit.

    floor(log(u) / log(1 - p)) has the geometric distribution on 0, 1, 2 ... (Devroye 1986, X.2).
    """
    if probability >= 1.0:
        return 0.0
    return 1.0 / log1p(-probability) if probability > 0.0 else float("-inf")


def clean_bits(random: Random, scale: float) -> int:
    """Draw how many bits pass before the next event; one draw, whatever the scale."""
    gap = log(1.0 - random.random()) * scale
    return int(gap) if gap < GAP_BITS_MAX else GAP_BITS_MAX  # log(1) * -inf is NaN, and compares false as well


def flipped(frame: Frame, struck: list[int]) -> Frame:
    """The frame with bits flipped.

    Bytes of synthetic data do not move: what a padded frame goes through is that of a row of frames like the one that
    does, all of which must hold, and it arrives as the one of them that was struck most.

    Args:
        frame: as it was sent.
        struck: positions of the flipped bits, rising.
    """
    received = bytearray(bytes(frame))
    padding_bytes = padding_of(frame)
    if padding_bytes:
        bits = 8 * len(received)
        rows: dict[int, list[int]] = {}
        for position in struck:
            rows.setdefault(position // bits, []).append(position % bits)
        struck = max(rows.values(), key=len)
    for position in struck:
        received[position >> 3] ^= 0x80 >> (position & 7)
    return CodedFrame.received(bytes(received), padding_bytes) if padding_bytes else bytes(received)


class IndependentErrors:
    """Binary symmetric channel: each bit is flipped with the same chance, independently.

    Args:
        bit_error_rate: chance of each bit, in (0, 1].
        random: stream of this direction's bit flips; nothing else may draw from it.
    """

    __slots__ = ("_clean_bits", "_random", "_scale")

    def __init__(self, bit_error_rate: float, random: Random) -> None:
        assert 0.0 < bit_error_rate <= 1.0, f"a bit error rate of {bit_error_rate} needs no injector"
        self._random = random
        self._scale = geometric_scale(bit_error_rate)
        self._clean_bits = clean_bits(random, self._scale)

    def flip(self, frame: Frame) -> tuple[Frame, int]:
        """The frame as received and the number of flipped bits; the same object when there is none."""
        bits = len(frame) * 8
        position = self._clean_bits
        if position >= bits:
            self._clean_bits = position - bits
            return frame, 0
        struck: list[int] = []
        draw, scale = self._random.random, self._scale
        while position < bits:
            struck.append(position)
            gap = log(1.0 - draw()) * scale  # `clean_bits`, without the call: a noisy frame has dozens of flips
            position += 1 + (int(gap) if gap < GAP_BITS_MAX else GAP_BITS_MAX)
        self._clean_bits = position - bits
        return flipped(frame, struck), len(struck)


class BurstErrors:
    """Gilbert-Elliott channel: two states with their own bit error rates and geometric sojourns.

    The first state is drawn from the stationary distribution, hence the mean bit error rate holds from the first bit.

    Args:
        bit_error_rate: chance of each bit in the good state, in [0, 1].
        burst: transitions, and the chance in the bad state.
        random: stream of this direction's bit flips; nothing else may draw from it.
    """

    __slots__ = ("_change_in", "_change_scales", "_error_in", "_error_scales", "_quiet_bits", "_random", "_state")

    def __init__(self, bit_error_rate: float, burst: Burst, random: Random) -> None:
        self._random = random
        self._error_scales = (geometric_scale(bit_error_rate), geometric_scale(burst.bit_error_rate_bad))
        self._change_scales = (geometric_scale(burst.p_good_to_bad), geometric_scale(burst.p_bad_to_good))
        share_bad = burst.p_good_to_bad / (burst.p_good_to_bad + burst.p_bad_to_good)
        self._state = 1 if random.random() < share_bad else 0
        self._enter()

    def _enter(self) -> None:
        """Draw both countdowns of the state just entered, whose first bit is the next one to be sent."""
        # The chance to leave comes after each bit, so a sojourn is one bit longer than the bits before the event.
        self._change_in = 1 + clean_bits(self._random, self._change_scales[self._state])
        self._error_in = clean_bits(self._random, self._error_scales[self._state])
        self._quiet_bits = min(self._change_in, self._error_in)

    def flip(self, frame: Frame) -> tuple[Frame, int]:
        """The frame as received and the number of flipped bits; the same object when there is none."""
        bits = len(frame) * 8
        if self._quiet_bits >= bits:
            self._quiet_bits -= bits
            return frame, 0
        # Both countdowns were last written when `_quiet_bits` was the smaller of them.
        passed = min(self._change_in, self._error_in) - self._quiet_bits
        self._change_in -= passed
        self._error_in -= passed
        struck: list[int] = []
        position = 0
        while position + (quiet := min(self._change_in, self._error_in)) < bits:
            position += quiet
            self._change_in -= quiet
            self._error_in -= quiet
            if self._change_in == 0:
                self._state ^= 1
                self._enter()
                continue
            struck.append(position)
            position += 1
            self._change_in -= 1
            self._error_in = clean_bits(self._random, self._error_scales[self._state])
        self._change_in -= bits - position
        self._error_in -= bits - position
        self._quiet_bits = min(self._change_in, self._error_in)
        return (flipped(frame, struck), len(struck)) if struck else (frame, 0)


def bit_errors(impairments: Impairments, random: Random) -> BitErrors | None:
    """The injector that these impairments ask for, or None where no bit is ever flipped."""
    if impairments.burst is not None:
        return BurstErrors(impairments.bit_error_rate, impairments.burst, random)
    if impairments.bit_error_rate > 0.0:
        return IndependentErrors(impairments.bit_error_rate, random)
    return None


def mean_bit_error_rate(impairments: Impairments) -> float:
    """Share of bits flipped in the long run, over both states of a burst model."""
    if (burst := impairments.burst) is None:
        return impairments.bit_error_rate
    share_bad = burst.p_good_to_bad / (burst.p_good_to_bad + burst.p_bad_to_good)
    return share_bad * burst.bit_error_rate_bad + (1.0 - share_bad) * impairments.bit_error_rate
