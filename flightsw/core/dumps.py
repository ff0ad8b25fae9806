"""Data products that a command asks for: cut into messages, and put together again on the ground."""

from collections.abc import Callable
from typing import Final

from flightsw.wire.messages import CHUNK_BYTES, DUMP_PARTS_MAX, Dump

DUMP_BYTES_MAX: Final = CHUNK_BYTES * DUMP_PARTS_MAX
"""Longest data product [bytes]: 4 MiB. Longer ones travel as objects."""


class Dumps:
    """Numbers and cuts the dumps of one boot.

    Args:
        node, boot_count: who sends, and in which boot; (boot_count, number) names a dump.
        send: takes each part, to be sent reliably.
    """

    def __init__(self, node: int, boot_count: int, send: Callable[[Dump], None]) -> None:
        self._node = node
        self._boot_count = boot_count
        self._send = send
        self._number = 0

    def send(self, kind: str, data: bytes) -> int:
        """Send a data product; returns its number.

        Args:
            kind: the component that made it.
            data: at most `DUMP_BYTES_MAX`.
        """
        assert len(data) <= DUMP_BYTES_MAX, f"a dump of {len(data)} bytes: whoever makes it has to bound it"
        self._number += 1
        pieces = [data[offset : offset + CHUNK_BYTES] for offset in range(0, len(data), CHUNK_BYTES)] or [b""]
        for part, piece in enumerate(pieces):
            self._send(Dump(self._node, self._boot_count, self._number, kind, part, len(pieces), piece))
        return self._number
