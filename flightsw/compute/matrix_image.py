"""A matrix in memory: what a job of kind `matrix_product` has for a model, and radiation may strike.

As with a network (`flightsw.compute.inference`), what is multiplied is what can be struck, and the digest over all of
it finds any change. The guard keeps the range that each row had at load: for float32 as for weights
(`flightsw.compute.guard`); an int8 number outside becomes the bound that it crossed.
"""

from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from flightsw.compute.guard import WeightGuard, guard_of_tensors
from flightsw.compute.matrix_file import Matrix, read_header
from flightsw.compute.onnx_file import WeightTensor
from flightsw.errors import ConfigError, MessageError
from flightsw.objects.digest import digest_of

FACTORS: Final = (np.dtype("<f4"), np.dtype("i1"))
"""What can be multiplied."""


class MatrixImage:
    """The left matrix of products as it lies in memory. Implements `flightsw.ports.Model`.

    Attributes:
        name: What it is called in messages.
        data: The bytes of the file; whoever changes them changes the matrix.
        matrix: ``(m, k)`` float32 or int8, a view of them.
    """

    def __init__(self, data: bytes | bytearray | memoryview, name: str = "matrix") -> None:
        """Load a matrix.

        Args:
            data: An object of `flightsw.compute.matrix_file`. Bytes are copied; memory that can be changed is used
                where it lies.
            name: What it is called in messages.

        Raises:
            ConfigError: The bytes are no matrix that can be multiplied.
        """
        self.name = name
        self.data = bytearray(data) if isinstance(data, bytes) else data
        try:
            header = read_header(data)
        except MessageError as error:
            raise ConfigError(f"{name}: {error}") from error
        if header.kind not in FACTORS:
            raise ConfigError(f"{name}: numbers are {header.kind}; expected float32 or int8")
        self._start = header.start
        self.matrix: Matrix = np.frombuffer(self.data, header.kind, offset=header.start).reshape(header.shape)
        if not np.isfinite(self.matrix).all():
            raise ConfigError(f"{name}: holds numbers that are not finite; expected finite ones")
        self._guard = self._float_guard if header.kind.itemsize == 4 else None
        self._low = self.matrix.min(axis=1, keepdims=True)
        self._high = self.matrix.max(axis=1, keepdims=True)

    @cached_property
    def _float_guard(self) -> WeightGuard:
        tensor = WeightTensor(self.name, self._start, self.matrix.nbytes, self.matrix.shape)
        return guard_of_tensors(bytes(self.data), (tensor,))

    @property
    def weight_bits_count(self) -> int:
        """Number of bits of the matrix, the bound of `flip_weight_bit`."""
        return 8 * self.matrix.nbytes

    def flip_weight_bit(self, bit_index: int) -> None:
        """Flip one bit of the numbers, counted as they lie in the file.

        Raises:
            ConfigError: There is no such bit.
        """
        if not 0 <= bit_index < self.weight_bits_count:
            raise ConfigError(f"{self.name}: bit {bit_index}; expected 0 to {self.weight_bits_count - 1}")
        self.data[self._start + bit_index // 8] ^= 1 << bit_index % 8

    def digest(self) -> bytes:
        """Return the name that an object of these bytes would have, as the image is now."""
        return digest_of(self.data)

    def guard_weights(self) -> int:
        """Bring back every number that left the range of its row, in place.

        Returns:
            How many had left it.
        """
        if self._guard is not None:
            return self._guard.mend(self.data)
        outside = (self.matrix < self._low) | (self.matrix > self._high)
        count = int(np.count_nonzero(outside))
        if count:
            mended: NDArray[Any] = np.clip(self.matrix, self._low, self._high)
            self.data[self._start : self._start + mended.nbytes] = mended.tobytes()
        return count
