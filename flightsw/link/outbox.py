"""A bounded queue before a bearer. When it is full the oldest gives way and is counted.

The oldest, because a frame that waited longest is worth least: LTP asks again for data that are missing once the
checkpoint, which comes last, has arrived; a newest that gave way would often be just that checkpoint.
"""

from collections import deque
from collections.abc import Iterable
from typing import Final, Generic, TypeVar

Item = TypeVar("Item")

OUTBOX_FRAMES_MAX: Final = 4096
"""Frames in a queue: 20 ms of contact at 200,000 frames a second, what an agent hands over ahead of its transmitter."""

OUTBOX_BYTES_MAX: Final = 4 << 20
"""Bytes in a queue: 4 MiB, 64 of the longest frames, or 45 s at 921,600 Bd; more would only grow stale."""


class Outbox(Generic[Item]):
    """Items with their sizes, first in first out.

    Args:
        frames_max: most items.
        bytes_max: most bytes of all items together.
    """

    def __init__(self, frames_max: int = OUTBOX_FRAMES_MAX, bytes_max: int = OUTBOX_BYTES_MAX) -> None:
        self.dropped_count = 0
        self.held_bytes = 0
        self._frames_max = frames_max
        self._bytes_max = bytes_max
        self._items: deque[tuple[Item, int]] = deque()

    def __len__(self) -> int:
        """Items that wait."""
        return len(self._items)

    def put(self, item: Item, size_bytes: int) -> None:
        """Queue an item; the oldest ones give way as far as needed. The item itself always fits."""
        while self._items and (len(self._items) >= self._frames_max or self.held_bytes + size_bytes > self._bytes_max):
            self.take()
            self.dropped_count += 1
        self._items.append((item, size_bytes))
        self.held_bytes += size_bytes

    def take(self) -> tuple[Item, int]:
        """The oldest item and its size; there must be one."""
        item, size_bytes = self._items.popleft()
        self.held_bytes -= size_bytes
        return item, size_bytes

    def put_back(self, items: Iterable[tuple[Item, int]]) -> None:
        """Items that were taken and not delivered, in their order, before all others. They are not counted again."""
        for item, size_bytes in reversed(list(items)):
            self._items.appendleft((item, size_bytes))
            self.held_bytes += size_bytes

    def clear(self) -> None:
        """Drop and count all."""
        self.dropped_count += len(self._items)
        self._items.clear()
        self.held_bytes = 0
