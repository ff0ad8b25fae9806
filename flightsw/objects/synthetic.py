"""Synthetic objects: a name and a size that take link time, but no bytes that move.

A large data set is worth simulating long before it is worth shovelling through a laptop. The name of a synthetic object
says all there is to know of it, so that no node has to be told, and nobody can take it for something else:

| field | bytes | meaning |
|---|---|---|
| marker | 8 | MARKER; a real object has such a name once in 2**64 |
| size | 8, big-endian | of the object [bytes] |
| chunk | 4, big-endian | length of a chunk [bytes]; the last one may be shorter |
| seed | 12, big-endian | tells objects of one size from each other |

A chunk of it is a message without data. Whoever sends it declares the length to the bundle agent (`padding_bytes`), and
each transmitter on the way is busy for that long. It is whole when all its chunks have come: verified by count. Layout:
ours.
"""

import struct
from dataclasses import dataclass
from typing import Final

from flightsw.errors import ConfigError
from flightsw.wire.messages import CHUNK_BYTES

MARKER: Final = b"\xffsynth\xff\x01"

SYNTHETIC_CHUNKS_MAX: Final = 65_536
"""Chunks of a synthetic object: as many as the largest real one has, so that its bitmap fits one bundle."""
SYNTHETIC_CHUNK_BYTES_MAX: Final = 1 << 30
"""Longest chunk [bytes]: 1 GiB, a second of a 10 Gbit/s laser link; a longer one loses too much to one error."""
SEED_MAX: Final = (1 << 96) - 1
"""Largest seed: what 12 bytes hold."""
LARGE_BYTES_MIN: Final = 1 << 26
"""Synthetic objects from this size on go in long chunks unless told otherwise [bytes]: 64 MiB, 4096 real chunks."""
LONG_CHUNK_BYTES: Final = 1 << 20
"""Length of those [bytes]: 1 MiB, the largest block that the network carries of real data."""

_NAME: Final = struct.Struct(">8sQI12s")


@dataclass(frozen=True, slots=True)
class SyntheticObject:
    """An object that has a size and no bytes.

    Args:
        seed: tells it from others of its size, 0 to `SEED_MAX`.
        size_bytes: its size [bytes].
        chunk_bytes: length of its chunks [bytes]; 0 for that of real chunks, or 1 MiB from 64 MiB on. A frame is lost
            whole: on a noisy link long chunks fare worse than the many short frames that a real object would be.

    Raises:
        ConfigError: a value is out of range, or the object would have more than `SYNTHETIC_CHUNKS_MAX` chunks.
    """

    seed: int
    size_bytes: int
    chunk_bytes: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= SEED_MAX:
            raise ConfigError(f"synthetic object: seed {self.seed}, expected 0 to {SEED_MAX}")
        if self.size_bytes < 0:
            raise ConfigError(f"synthetic object: size {self.size_bytes} bytes, expected 0 or more")
        if self.chunk_bytes == 0:
            chunk_bytes = LONG_CHUNK_BYTES if self.size_bytes >= LARGE_BYTES_MIN else CHUNK_BYTES
            object.__setattr__(self, "chunk_bytes", max(chunk_bytes, -(-self.size_bytes // SYNTHETIC_CHUNKS_MAX)))
        if not 1 <= self.chunk_bytes <= SYNTHETIC_CHUNK_BYTES_MAX:
            raise ConfigError(
                f"synthetic object: chunks of {self.chunk_bytes} bytes, expected 1 to {SYNTHETIC_CHUNK_BYTES_MAX}"
            )
        if self.size_bytes > SYNTHETIC_CHUNKS_MAX * self.chunk_bytes:
            raise ConfigError(
                f"synthetic object: {self.size_bytes} bytes in chunks of {self.chunk_bytes}, "
                f"expected at most {SYNTHETIC_CHUNKS_MAX} chunks"
            )

    @property
    def digest(self) -> bytes:
        """Its name."""
        return _NAME.pack(MARKER, self.size_bytes, self.chunk_bytes, self.seed.to_bytes(12, "big"))


def synthetic_of(digest: bytes) -> SyntheticObject | None:
    """What a name says of a synthetic object; None when it is the name of a real one, or nonsense behind the marker."""
    if digest[: len(MARKER)] != MARKER:
        return None
    _, size_bytes, chunk_bytes, seed = _NAME.unpack(digest)
    try:
        found = SyntheticObject(int.from_bytes(seed, "big"), size_bytes, chunk_bytes)
    except ConfigError:
        return None
    return found if found.chunk_bytes == chunk_bytes else None
