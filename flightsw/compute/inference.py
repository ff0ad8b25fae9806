"""A neural network in memory: run it, and let radiation strike it.

A `ModelImage` is a model file as it lies in RAM: a mutable run of bytes. The image that is executed is the image that
can be struck, so that a flipped weight bit changes the answer exactly as it would on board, and a digest over the image
finds it. Where the weights lie is read from the file itself (`flightsw.compute.onnx_file`). What may still be repaired
without the digest, and before it is asked, is the business of the weight guard (`flightsw.compute.guard`).

Execution is ONNX Runtime on one thread of one core with its deterministic kernels: the same image and the same input
give the same bytes on the same kind of processor (x86-64 and arm64 may differ in the last bit of a logit). The runtime
is imported when the first session is made, so that a node without AI jobs does without it.

Thousands of virtual nodes run the same few models on the same few tiles. An `InferenceCache`, which the caller owns and
passes in, computes each (image, input) once: an image with an upset has another digest, hence another entry.
"""

import hashlib
from collections import OrderedDict
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from flightsw.compute.guard import guard_of
from flightsw.errors import BoardError, ConfigError
from flightsw.objects.digest import digest_of

INPUT_NAME: Final = "x"
OUTPUT_NAME: Final = "y"

SESSIONS_MAX: Final = 64  # a session of the 50 kB cloud mask takes about 1 MB
RESULTS_BYTES_MAX: Final = 64 * 1024 * 1024  # 7,000 logit tiles of 48 x 48 float32
DIGEST_BYTES: Final = 32


class InferenceCache:
    """Sessions and results that are worth keeping, both bounded and thrown out oldest use first.

    Attributes:
        hits_count: Runs that were answered without computing.
        misses_count: Runs that were computed.
    """

    def __init__(self, sessions_max: int = SESSIONS_MAX, results_bytes_max: int = RESULTS_BYTES_MAX) -> None:
        """Make an empty cache.

        Args:
            sessions_max: How many loaded models are kept.
            results_bytes_max: How many bytes of logits are kept; 0 keeps none, so that every run is computed.
        """
        assert sessions_max >= 1, "a session that runs must be held"
        self._sessions_max = sessions_max
        self._results_bytes_max = results_bytes_max
        self._sessions: OrderedDict[bytes, Any] = OrderedDict()
        self._results: OrderedDict[tuple[bytes, bytes], NDArray[np.float32]] = OrderedDict()
        self._results_bytes = 0
        self.hits_count = 0
        self.misses_count = 0

    @property
    def results_bytes(self) -> int:
        """Bytes of logits held now."""
        return self._results_bytes

    @property
    def sessions_count(self) -> int:
        """Loaded models held now."""
        return len(self._sessions)

    def session(self, digest: bytes) -> Any | None:
        """Return the session of an image, or nothing."""
        if (session := self._sessions.get(digest)) is not None:
            self._sessions.move_to_end(digest)
        return session

    def keep_session(self, digest: bytes, session: Any) -> None:
        """Keep a session under the digest of its image."""
        self._sessions[digest] = session
        if len(self._sessions) > self._sessions_max:
            self._sessions.popitem(last=False)

    def result(self, key: tuple[bytes, bytes]) -> NDArray[np.float32] | None:
        """Return the logits of (image digest, input digest), or nothing; counts the answer."""
        if (logits := self._results.get(key)) is None:
            self.misses_count += 1
            return None
        self._results.move_to_end(key)
        self.hits_count += 1
        return logits

    def keep_result(self, key: tuple[bytes, bytes], logits: NDArray[np.float32]) -> None:
        """Keep logits; what is too large for the whole cache is not kept."""
        if logits.nbytes > self._results_bytes_max:
            return
        self._results[key] = logits
        self._results_bytes += logits.nbytes
        while self._results_bytes > self._results_bytes_max:
            _, oldest = self._results.popitem(last=False)
            self._results_bytes -= oldest.nbytes


class ModelImage:
    """A model file as loaded in RAM.

    Attributes:
        name: What the model is called in messages.
        data: The bytes of the file; whoever changes them changes the model.
    """

    def __init__(self, data: bytes | bytearray | memoryview, name: str = "model") -> None:
        """Load a model.

        Args:
            data: An ONNX file. Bytes are copied; memory that can be changed is used where it lies.
            name: What the model is called in messages.

        Raises:
            ConfigError: The bytes are not an ONNX model with float weights inside.
        """
        self.name = name
        self.data = bytearray(data) if isinstance(data, bytes) else data
        self._guard = guard_of(bytes(data), name)
        self._digest_at_load = self.digest()

    def weight_ranges(self) -> tuple[tuple[int, int], ...]:
        """Return where the float weights lie, as ``(start_byte, length_bytes)`` in the order of the file."""
        return tuple((tensor.start, tensor.length) for tensor in self._guard.tensors)

    @property
    def weight_bits_count(self) -> int:
        """Number of weight bits, the bound of `flip_weight_bit`."""
        return 8 * sum(tensor.length for tensor in self._guard.tensors)

    def flip_weight_bit(self, bit_index: int) -> None:
        """Flip one bit of the weights.

        Args:
            bit_index: Which, counted over all weights in the order of the file; bits 0 to 31 are the first weight, from
                the least significant bit of its fraction to its sign.

        Raises:
            ConfigError: There is no such bit.
        """
        if not 0 <= bit_index < self.weight_bits_count:
            raise ConfigError(f"{self.name}: weight bit {bit_index}; expected 0 to {self.weight_bits_count - 1}")
        byte_index, bit = divmod(bit_index, 8)
        for start, length in self.weight_ranges():
            if byte_index < length:
                self.data[start + byte_index] ^= 1 << bit
                return
            byte_index -= length

    def digest(self) -> bytes:
        """Return the name that an object of these bytes would have, as the image is now."""
        return digest_of(self.data)

    def is_as_loaded(self) -> bool:
        """Tell whether no byte differs from the file that was loaded."""
        return self.digest() == self._digest_at_load

    def guard_weights(self) -> int:
        """Bring back every weight that left its range at load, in place (`flightsw.compute.guard`).

        Returns:
            How many weights had left it.
        """
        return self._guard.mend(self.data)

    def run(self, batch: NDArray[np.float32], cache: InferenceCache) -> NDArray[np.float32]:
        """Run the image, as it is now, over a batch.

        Args:
            batch: ``(n, bands, height, width)`` float32.
            cache: Where sessions and results are kept.

        Returns:
            The logits ``(n, 1, height, width)`` float32, read-only. They may be infinite or not a number once the image
            was struck.

        Raises:
            ConfigError: ONNX Runtime is not installed, or refuses the model or the batch.
            BoardError: The image was struck and no longer runs.
        """
        assert batch.dtype == np.float32, "the model takes float32"
        assert batch.ndim == 4, "the model takes (n, bands, height, width)"
        digest = self.digest()
        key = (digest, _input_digest(batch))
        if (known := cache.result(key)) is not None:
            return known
        runtime = load_runtime()
        try:
            if (session := cache.session(digest)) is None:
                session = new_session(runtime, bytes(self.data))
                cache.keep_session(digest, session)
            logits: NDArray[np.float32] = session.run([OUTPUT_NAME], {INPUT_NAME: batch})[0]
        except _runtime_errors(runtime) as error:
            if digest != self._digest_at_load:
                raise BoardError(f"{self.name}: the image in memory was changed and no longer runs: {error}") from error
            raise ConfigError(
                f"{self.name}: ONNX Runtime refuses the model or a batch of shape {batch.shape}: {error}"
            ) from error
        logits.setflags(write=False)  # the same array is handed to every asker
        cache.keep_result(key, logits)
        return logits


def load_runtime() -> Any:
    """Import ONNX Runtime.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError("running a model needs ONNX Runtime; expected: pip install flatrack[ai]") from error
    return onnxruntime


def new_session(runtime: Any, model: bytes) -> Any:
    """Return a session of ONNX Runtime on one thread with deterministic kernels."""
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    options.log_severity_level = 4  # fatal only; errors reach us as exceptions
    return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _runtime_errors(runtime: Any) -> tuple[type[Exception], ...]:
    """Return what the runtime raises when it refuses a model or a batch; its own have no base but `Exception`."""
    state = runtime.capi.onnxruntime_pybind11_state
    own = (state.Fail, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf, state.NotImplemented)
    return (*own, state.RuntimeException, RuntimeError, ValueError)


def _input_digest(batch: NDArray[np.float32]) -> bytes:
    """Return a digest of the numbers and the shape of a batch."""
    digest = hashlib.blake2b(repr(batch.shape).encode(), digest_size=DIGEST_BYTES)
    digest.update(np.ascontiguousarray(batch).data)
    return digest.digest()
