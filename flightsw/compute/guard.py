"""Weight-range guard: finds what a flip has thrown out of range, without the true weights.

For each output channel of each tensor the guard keeps the smallest and the largest magnitude that its weights had when
the file was loaded and its digest held; a tensor of one dimension counts as one channel. A weight outside, or not a
number, was struck. Compared are the bits of float32 without the sign as whole numbers, whose order is that of the
magnitudes (IEEE 754-2019 §3.4), with infinities and what is not a number above all others.

What was struck is mended as well as may be: where exactly one flip of one of its exponent bits brings it back in range
that bit was flipped, if only one was; otherwise the weight becomes the bound that it crossed when it is near, and zero
when it is far. Flips that stay in range are not seen: only the digest finds those.
"""

from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flightsw.compute.onnx_file import FLOAT_BYTES, WeightTensor, weight_tensors

MODELS_MAX: Final = 8
"""Models whose ranges are kept: one board runs a few; the cloud mask's take 83 kB, once for all nodes of a process."""

Words = NDArray[np.uint32]
"""Weights as the 32 bits that they are."""

_MAGNITUDE = np.uint32(0x7FFF_FFFF)
_EXPONENT_BITS = np.array([1 << bit for bit in range(23, 31)], np.uint32)
_NEAR = np.uint32(1 << 23)
"""Added to the bits of a float: twice its magnitude."""


class WeightGuard(NamedTuple):
    """The ranges of one model.

    Attributes:
        tensors: where the weights lie.
        low, high: ``(weights,)`` smallest and largest magnitude of each weight's channel, as bits.
    """

    tensors: tuple[WeightTensor, ...]
    low: Words
    high: Words

    def words(self, data: bytes | bytearray | memoryview) -> Words:
        """Return a copy of all weights ``(weights,)``, in the order of the file."""
        return np.concatenate(
            [np.frombuffer(data, "<u4", tensor.length // FLOAT_BYTES, tensor.start) for tensor in self.tensors]
        )

    def outside(self, words: Words) -> NDArray[np.intp]:
        """Return which weights ``(weights,)`` are out of range."""
        magnitudes = words & _MAGNITUDE
        return np.flatnonzero((magnitudes < self.low) | (magnitudes > self.high))

    def mended(self, words: Words, where: NDArray[np.intp]) -> Words:
        """Return what the weights at some places are taken to have been.

        Args:
            words: ``(n,)`` the weights there, out of range.
            where: ``(n,)`` their places among all weights.
        """
        low, high = self.low[where], self.high[where]
        tried = words[:, None] ^ _EXPONENT_BITS
        magnitudes = tried & _MAGNITUDE
        fits = (magnitudes >= low[:, None]) & (magnitudes <= high[:, None])
        is_one = fits.sum(axis=1) == 1
        flipped_back = tried[np.arange(len(words)), fits.argmax(axis=1)]
        magnitude = words & _MAGNITUDE
        bound = np.where(magnitude < low, low, high) | (words & ~_MAGNITUDE)
        is_near = (magnitude <= high + _NEAR) & (magnitude + _NEAR >= low)
        return np.where(is_one, flipped_back, np.where(is_near, bound, np.uint32(0))).astype(np.uint32)

    def mend(self, data: bytearray | memoryview) -> int:
        """Mend the weights in a file in place; return how many were out of range."""
        words = self.words(data)
        where = self.outside(words)
        if not where.size:
            return 0
        words[where] = self.mended(words[where], where)
        first = 0
        for tensor in self.tensors:
            count = tensor.length // FLOAT_BYTES
            data[tensor.start : tensor.start + tensor.length] = words[first : first + count].astype("<u4").tobytes()
            first += count
        return int(where.size)


@lru_cache(MODELS_MAX)
def guard_of(data: bytes, name: str) -> WeightGuard:
    """Return the guard of an ONNX file.

    Raises:
        ConfigError: The bytes are not an ONNX model with float weights inside.
    """
    return guard_of_tensors(data, weight_tensors(data, name))


def guard_of_tensors(data: bytes, tensors: tuple[WeightTensor, ...]) -> WeightGuard:
    """Return the guard of float32 tensors that lie in some bytes."""
    low, high = [], []
    for tensor in tensors:
        magnitudes = np.frombuffer(data, "<u4", tensor.length // FLOAT_BYTES, tensor.start) & _MAGNITUDE
        channels = magnitudes.reshape(tensor.shape[0] if len(tensor.shape) > 1 else 1, -1)
        low.append(np.repeat(channels.min(axis=1), channels.shape[1]))
        high.append(np.repeat(channels.max(axis=1), channels.shape[1]))
    return WeightGuard(tensors, np.concatenate(low), np.concatenate(high))
