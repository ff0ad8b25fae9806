"""Transfers that their owner wants over any reset: a log of what was asked for and has not ended.

| field | bytes | meaning |
|---|---|---|
| action | 1 | 0: ended; 1: push; 2: fetch |
| priority | 1 | 0 to 7 |
| size | 8, big-endian | of the object [bytes] |
| digest | 32 | name of the object |
| peers | 4 each, big-endian | of a push its destination, of a fetch its sources in order |

What ends is named by digest and destination; of a fetch, which is of the digest alone, the destination is 0. Layout:
ours.
"""

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from flightsw.errors import StorageError
from flightsw.ports import Disk
from flightsw.storage.log import RecordLog

LOG_NAME: Final = "transfers/intents"
ENDED_KEPT_MAX: Final = 256
"""Records of ended transfers in the log before it is written anew: 30 KiB, and one rewrite for many ends."""
SOURCES_MAX: Final = 64
"""Sources of a durable fetch that are remembered: more than any node has neighbours."""

FETCH: Final = 0
"""Stands for the destination of a fetch. No node has this number."""

_HEAD: Final = struct.Struct(">BBQ32s")
_ENDED, _PUSH, _FETCH = 0, 1, 2
_PEER_BYTES: Final = 4

Key = tuple[bytes, int]
"""What tells one transfer from another: digest, and destination or `FETCH`."""


class Intent(NamedTuple):
    """One transfer that has not ended."""

    digest: bytes
    size_bytes: int
    priority: int
    destination: int
    """Of a push; `FETCH` for a fetch."""
    sources: tuple[int, ...] = ()
    """Of a fetch."""

    @property
    def key(self) -> Key:
        """What tells it from others."""
        return self.digest, self.destination


class Intents:
    """The durable transfers of one node, or of the ground.

    Args:
        disk: where the log lies.

    Raises:
        StorageError: the log is there and cannot be read.
    """

    def __init__(self, disk: Disk) -> None:
        self._log = RecordLog(disk, LOG_NAME)
        self._open: dict[Key, Intent] = {}
        for record in self._log.records():
            self._apply(record)

    def open(self) -> list[Intent]:
        """Those that have not ended, in the order in which they were asked for."""
        return list(self._open.values())

    def holds(self, key: Key) -> bool:
        """Whether a transfer is durable and has not ended."""
        return key in self._open

    def add(self, intent: Intent) -> None:
        """Remember a transfer over resets; durable on return.

        Raises:
            StorageError: the disk is full or broken; the transfer is not remembered.
        """
        intent = intent._replace(sources=intent.sources[:SOURCES_MAX])
        if self._open.get(intent.key) == intent:
            return
        self._log.append(_encoded(intent))
        self._log.sync()
        self._open[intent.key] = intent

    def end(self, keys: Sequence[Key]) -> None:
        """Forget transfers. Those that the disk will not forget come back after a reset, for a question each."""
        ended = [self._open.pop(key) for key in keys if key in self._open]
        if not ended:
            return
        try:
            for intent in ended:
                self._log.append(_HEAD.pack(_ENDED, 0, 0, intent.digest) + _peers((intent.destination,)))
            self._log.sync()
            if self._log.records_count > len(self._open) + ENDED_KEPT_MAX:
                self._log.compact([_encoded(intent) for intent in self._open.values()])
        except StorageError:
            return  # as said above

    def _apply(self, record: bytes) -> None:
        if len(record) < _HEAD.size + _PEER_BYTES:
            return
        action, priority, size_bytes, digest = _HEAD.unpack_from(record)
        peers = tuple(
            int.from_bytes(record[start : start + _PEER_BYTES], "big")
            for start in range(_HEAD.size, len(record), _PEER_BYTES)
        )
        if action == _PUSH:
            self._open[digest, peers[0]] = Intent(digest, size_bytes, priority, peers[0])
        elif action == _FETCH:
            self._open[digest, FETCH] = Intent(digest, size_bytes, priority, FETCH, peers)
        elif action == _ENDED:
            self._open.pop((digest, peers[0]), None)


def _encoded(intent: Intent) -> bytes:
    if intent.destination == FETCH:
        return _HEAD.pack(_FETCH, intent.priority, intent.size_bytes, intent.digest) + _peers(intent.sources)
    return _HEAD.pack(_PUSH, intent.priority, intent.size_bytes, intent.digest) + _peers((intent.destination,))


def _peers(nodes: Sequence[int]) -> bytes:
    return b"".join(node.to_bytes(_PEER_BYTES, "big") for node in nodes)
