"""Counters that rise with each start, so that what is numbered after them never comes twice."""

from typing import Final

from flightsw.errors import StorageError
from flightsw.ports import Disk
from flightsw.storage.records import seal, unseal

DAMAGED_START: Final = 1 << 16
"""Where a counter goes on whose file is damaged: no earlier start can have been there."""


def raise_counter(disk: Disk, name: str) -> int:
    """Count one up, durably; the first count is 1.

    Raises:
        StorageError: the count cannot be made durable.
    """
    try:
        count = int.from_bytes(unseal(disk.read(name)), "big") if disk.exists(name) else 0
    except StorageError:
        count = DAMAGED_START
    disk.replace(name, seal((count + 1).to_bytes(8, "big")))
    return count + 1
