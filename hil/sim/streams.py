"""Named streams of chance: every random draw of a run comes from one of them, and all of them from one seed.

A stream is seeded by BLAKE2b of `"{seed}/{name}"`, so a new stream never shifts the draws of an old one, and a fault on
one link never changes the noise on another. A name belongs to one user: two users of one stream would make each other's
draws depend on who comes first.
"""

import builtins
import hashlib
from random import Random  # noqa: TID251 - the one place that makes streams
from typing import Final

import numpy as np

KEY_BYTES: Final = 16
"""Digest bytes that seed a stream; the key of Philox 4x64 is two 64-bit words."""


class Streams:
    """The streams of one run.

    Args:
        seed: The run's seed. Only its decimal text matters, so any whole number will do.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._prefix = ""
        self._taken: set[str] = set()  # asked only whether a name is in it, never iterated

    def child(self, prefix: str) -> "Streams":
        """A view in which every name stands under a prefix: `child("sat-03").random("link")` is `sat-03/link`."""
        view = Streams(self.seed)
        view._prefix = f"{self._prefix}{prefix}/"
        view._taken = self._taken
        return view

    def random(self, name: str) -> Random:
        """A generator for single draws. Its `randbytes` serves as an entropy port.

        Raises:
            AssertionError: The name is taken.
        """
        return Random(self._key(name))

    def generator(self, name: str) -> np.random.Generator:
        """A generator for arrays of draws (Philox 4x64, keyed by the digest).

        Its raw bits never change, but NumPy may change how its methods use them (NEP 19): a golden digest that depends
        on them is of one NumPy version.

        Raises:
            AssertionError: The name is taken.
        """
        key = np.frombuffer(self._key(name), dtype="<u8").astype(np.uint64)
        return np.random.Generator(np.random.Philox(key=key))

    def bytes(self, name: str, count: int) -> builtins.bytes:
        """Bytes for keys and nonces of the simulated world; the same for the same seed, hence no secret.

        Raises:
            AssertionError: The name is taken.
        """
        return Random(self._key(name)).randbytes(count)

    def _key(self, name: str) -> builtins.bytes:
        full_name = self._prefix + name
        assert full_name not in self._taken, f"stream {full_name!r} is taken: two users would share its draws"
        self._taken.add(full_name)
        return hashlib.blake2b(f"{self.seed}/{full_name}".encode(), digest_size=KEY_BYTES).digest()
