"""A bounded ring of records that survives resets: the newest are kept, the oldest give way.

The ring lies in segments, files of numbered records (`entries`) named `<name>/<segment number>`. When the segments
together would pass the bound, the oldest one is removed. A damaged record is skipped and counted; those behind it are
found again by their mark. There is one copy only: a ring holds history, and no history is worth twice the space.

The first record after each `sync` carries a flag: damage before such a record is rot; behind the last one of them it is
what a power cut took from records that nobody had acknowledged. Opening writes damaged segments anew without the
damage, so that it is counted once.

A full disk makes the ring give up its own oldest segments for the new record before it refuses.
"""

from typing import Final

from flightsw.errors import StorageError
from flightsw.ports import Disk
from flightsw.storage.entries import OVERHEAD_BYTES, Entries, Entry, entries_in, entry_bytes

_SETTLED: Final = 1
"""Flag of a record: all before it was acknowledged."""
SEGMENTS_COUNT: Final = 8
"""Into how many segments a full ring is divided: an eighth of the history gives way at a time."""


class _Segment:
    """What the ring knows of a file without reading it again."""

    __slots__ = ("bytes_count", "first_number", "records_count")

    def __init__(self, bytes_count: int = 0, records_count: int = 0, first_number: int = 0) -> None:
        self.bytes_count = bytes_count
        self.records_count = records_count
        self.first_number = first_number


class RingLog:
    """One ring on one disk. Opening never fails: what cannot be read is counted, and the ring goes on.

    Args:
        disk: where it lies.
        name: its segments are the files `<name>/...`.
        bytes_max: what they may take together [bytes].
    """

    def __init__(self, disk: Disk, name: str, bytes_max: int) -> None:
        self._disk = disk
        self._name = name
        self._bytes_max = bytes_max
        self._segment_bytes = max(1, bytes_max // SEGMENTS_COUNT)
        self._segments: dict[int, _Segment] = {}
        """By their number, rising: the last one is written."""
        self._is_closed = True
        """Whether the next record begins a new segment."""
        self._unsynced: list[int] = []
        """Segments with records that are not durable."""
        self._bytes_count = 0
        self.next_number = 0
        """Number of the next record; numbers rise over all resets."""
        self.records_count = 0
        """Records that are there."""
        self.dropped_count = 0
        """Records that gave way to newer ones since this start."""
        self.damaged_count = 0
        """Rotten stretches and unreadable files that were found at this start."""
        self.torn_count = 0
        """Stretches behind the last `sync` that a power cut took, as found at this start."""
        self._open()

    def append(self, record: bytes) -> int:
        """Add a record and return its number; durable after `sync`.

        Raises:
            StorageError: the disk is full or broken, or the record alone is larger than a segment; it is not in the
                ring.
        """
        flags = 0 if self._unsynced else _SETTLED
        entry = entry_bytes(self._name, Entry(self.next_number, 0, flags, record))
        if len(entry) > self._segment_bytes:
            raise StorageError(
                f"{self._name}: record of {len(record)} bytes, at most {self._segment_bytes - OVERHEAD_BYTES}"
            )
        if self._is_closed or self._last().bytes_count + len(entry) > self._segment_bytes:
            self._begin_segment()
        self._give_way(self._bytes_max - len(entry))
        while (error := self._append(entry)) is not None:
            is_full = self._disk.free_bytes() < len(entry)  # history gives way to a full disk, not to a broken one
            filled_count = sum(one.records_count > 0 for one in self._segments.values())
            if not is_full or filled_count <= 1 or not self._drop_oldest():
                raise error
        segment = self._last()
        segment.bytes_count += len(entry)
        segment.records_count += 1
        self._bytes_count += len(entry)
        self.records_count += 1
        self.next_number += 1
        return self.next_number - 1

    def sync(self) -> None:
        """Make all appended records durable.

        Raises:
            StorageError: they may not be; the next record begins a new file.
        """
        while self._unsynced:
            number = self._unsynced.pop(0)
            try:
                self._disk.sync(self._file(number))
            except StorageError:
                self._is_closed = True  # a second sync could succeed without the data of the first
                raise

    def records(self) -> list[bytes]:
        """All records that hold, oldest first."""
        return [record for _, record in self.numbered()]

    def numbered(self, first_number: int = 0) -> list[tuple[int, bytes]]:
        """(number, record) of all that hold from a number on, oldest first. Reads only the segments that it needs."""
        found: list[tuple[int, bytes]] = []
        segments = sorted(self._segments)
        for position, number in enumerate(segments):
            behind = segments[position + 1] if position + 1 < len(segments) else None
            if behind is not None and self._segments[behind].first_number <= first_number:
                continue
            entries = entries_in(self._name, self._content(number) or b"").entries
            found += [(entry.number, entry.data) for entry in entries if entry.number >= first_number]
        return found

    @property
    def first_number(self) -> int:
        """Number of the oldest record that is there; of the next one when there is none."""
        for segment in self._segments.values():
            if segment.records_count:
                return segment.first_number
        return self.next_number

    @property
    def bytes_count(self) -> int:
        """What the segments take [bytes]."""
        return self._bytes_count

    def _open(self) -> None:
        for file in self._disk.names(self._name + "/"):
            number = _segment_number(file.removeprefix(self._name + "/"))
            if number is None:
                continue
            content = self._content(number)
            if content is None:
                self.damaged_count += 1
                self._segments[number] = _Segment(self._segment_bytes, 0, self.next_number)
                self._is_closed = True
                continue
            found = entries_in(self._name, content)
            held = found.entries
            settled = max((index for index, entry in enumerate(held) if entry.flags & _SETTLED), default=-1)
            if settled >= 0:
                self.damaged_count += self.torn_count
                self.torn_count = 0
            rotten_count = sum(gap <= settled for gap in found.gaps)
            self.damaged_count += rotten_count
            self.torn_count += len(found.gaps) - rotten_count
            size_bytes, self._is_closed = self._mended(number, content, found)
            self._segments[number] = _Segment(size_bytes, len(held), held[0].number if held else self.next_number)
            if held:
                self.next_number = max(self.next_number, held[-1].number + 1)
        self.records_count = sum(segment.records_count for segment in self._segments.values())
        self._bytes_count = sum(segment.bytes_count for segment in self._segments.values())
        self._give_way(self._bytes_max)
        self.dropped_count = 0

    def _mended(self, number: int, content: bytes, found: Entries) -> tuple[int, bool]:
        """The size of a segment that is free of damage [bytes], and whether it still is not."""
        if not found.gaps:
            return len(content), False
        sound = b"".join(entry_bytes(self._name, entry) for entry in found.entries)
        try:
            self._disk.replace(self._file(number), sound)
        except StorageError:
            return len(content), True
        return len(sound), False

    def _append(self, entry: bytes) -> StorageError | None:
        newest = max(self._segments)
        try:
            self._disk.append(self._file(newest), entry)
        except StorageError as error:
            if self._segments[newest].bytes_count:
                self._begin_segment()  # it may have taken a part
            return error
        if newest not in self._unsynced:
            self._unsynced.append(newest)
        return None

    def _begin_segment(self) -> None:
        """The next record goes to a new file."""
        self._segments[max(self._segments, default=0) + 1] = _Segment(first_number=self.next_number)
        self._is_closed = False

    def _give_way(self, bytes_max: int) -> None:
        """Remove the oldest segments until all together fit."""
        while self._bytes_count > bytes_max and len(self._segments) > 1 and self._drop_oldest():
            pass

    def _drop_oldest(self) -> bool:
        number = min(self._segments)
        try:
            self._disk.remove(self._file(number))
        except StorageError:
            return False
        segment = self._segments.pop(number)
        if number in self._unsynced:
            self._unsynced.remove(number)
        self._bytes_count -= segment.bytes_count
        self.records_count -= segment.records_count
        self.dropped_count += segment.records_count
        return True

    def _last(self) -> _Segment:
        return self._segments[max(self._segments)]

    def _file(self, number: int) -> str:
        return f"{self._name}/{number:010d}"

    def _content(self, number: int) -> bytes | None:
        """What a segment's file holds; None when it cannot be read."""
        file = self._file(number)
        try:
            return self._disk.read(file) if self._disk.exists(file) else b""
        except StorageError:
            return None


def _segment_number(text: str) -> int | None:
    return int(text) if len(text) == 10 and text.isdecimal() else None
