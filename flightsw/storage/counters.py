"""Counters that rise with each start, so that what is numbered after them never comes twice."""

from typing import Final

from flightsw.errors import StorageError
from flightsw.ports import Disk
from flightsw.storage.copies import TwoCopies

DAMAGED_START: Final = 1 << 16
"""Where a counter goes on when neither of its copies holds: no earlier start can have been there."""


def raise_counter(disk: Disk, name: str) -> int:
    """Count one up, durably and in two copies; the first count is 1.

    Raises:
        StorageError: the count cannot be made durable.
    """
    copies = TwoCopies(disk, name)
    try:
        content = copies.load()
        count = 0 if content is None else int.from_bytes(content, "big")
    except StorageError:
        count = DAMAGED_START
    copies.store((count + 1).to_bytes(8, "big"))
    return count + 1
