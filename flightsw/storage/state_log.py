"""A log of records in two copies: no single damaged place costs a record that was acknowledged.

Each copy is a file of numbered records (`entries`). `sync` appends the new ones to the first copy and syncs it, then to
the second. What a reader finds in either copy is in the log, so rot of one copy is mended from the other. The first
record of each `sync` carries a flag: all before it was acknowledged. A number that is missing before such a record is
damage of both copies and is counted; a number that is missing behind the last of them is what a power cut took from the
unacknowledged tail, and all behind the gap is cut off, for a record must not stand without those before it.

`snapshot` writes all anew, atomically, as the next generation: a head that says how many records it has, and those. The
highest generation counts whose head and records are all there in either copy. Opening mends by a snapshot too.

With one copy lost to a broken or full disk the log goes on with the other and says so in `failed_count`; it tries to
make the lost one again with each `sync`.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from flightsw.errors import StorageError
from flightsw.ports import Disk
from flightsw.storage.copies import SUFFIXES
from flightsw.storage.entries import NUMBER_MAX, Entries, Entry, entries_in, entry_bytes
from flightsw.storage.records import RECORD_BYTES_MAX

_HEAD: Final = 1
"""Flag of the record that begins a snapshot; its data are the number of records in it, 8 bytes, big-endian."""
_SIZE_BYTES: Final = 8
_SETTLED: Final = 2
"""Flag of the first record of a `sync`: all before it was acknowledged."""


class _Merged(NamedTuple):
    """What both copies together hold."""

    generation: int
    records: list[bytes]
    next_number: int
    lost_count: int
    cut_count: int
    highest_generation: int
    """Of any record in either copy."""


class StateLog:
    """One log on one disk. Opening never fails: what cannot be read is counted, and the log goes on.

    Args:
        disk: where it lies.
        name: its copies are the files `<name>.a` and `<name>.b`; missing files are an empty log.
    """

    def __init__(self, disk: Disk, name: str) -> None:
        self._disk = disk
        self._name = name
        self._files = tuple(name + suffix for suffix in SUFFIXES)
        self._pending: list[bytes] = []
        self._broken = [False, False]
        """Copies that do not hold what the other does."""
        self._generation = self._next_number = 0
        self.records_count = 0
        self.repaired_count = 0
        """Damaged or missing copies that were written anew."""
        self.lost_count = 0
        """Acknowledged records that neither copy holds; at least one when nothing of either can be read."""
        self.cut_count = 0
        """Records behind a gap in the tail, which nobody had acknowledged."""
        self.failed_count = 0
        """Writes of one copy that failed; the other took it, or the caller was told."""
        self._open()

    def append(self, record: bytes) -> None:
        """Add a record. It is kept in memory and durable after `sync`.

        Raises:
            StorageError: it is longer than a record may be; it is not in the log.
        """
        if len(record) > RECORD_BYTES_MAX:
            raise StorageError(f"{self._name}: record of {len(record)} bytes, at most {RECORD_BYTES_MAX}")
        self._pending.append(record)

    def sync(self) -> None:
        """Make all appended records durable.

        Raises:
            StorageError: neither copy took them; they are not in the log (a reset may still find them).
        """
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        if all(self._broken):
            self._renew([*self.records(), *pending])
            return
        entries = [
            Entry(number, self._generation, 0 if index else _SETTLED, record)
            for index, (number, record) in enumerate(enumerate(pending, self._next_number))
        ]
        error = self._append_to_sound_copies(b"".join(entry_bytes(self._name, entry) for entry in entries))
        if all(self._broken):
            assert error is not None, "a copy breaks by an error only"
            raise error
        self._next_number += len(pending)
        self.records_count += len(pending)
        self._copy_over()

    def records(self) -> list[bytes]:
        """All records, oldest first, with those that wait for `sync`. Reads both copies; damage is skipped."""
        merged, _ = self._scan()
        return merged.records[: self.records_count] + self._pending

    def snapshot(self, records: Iterable[bytes]) -> None:
        """Replace the whole log, and what waits for `sync`, atomically and durably.

        Raises:
            StorageError: the old log stands, with what was synced.
        """
        self._pending = []
        self._renew(list(records))

    def scrub(self) -> int:
        """Read both copies now and mend what does not hold; returns the number of copies that were mended."""
        before = self.repaired_count
        self._open()
        return self.repaired_count - before

    def remove(self) -> None:
        """Forget the log and its files.

        Raises:
            StorageError: the disk is broken.
        """
        for file in self._files:
            self._disk.remove(file)
        self._pending = []
        self._broken = [False, False]
        self._generation = self._next_number = self.records_count = 0

    def _open(self) -> None:
        """Take over what lies there; write it anew when a copy does not hold what the other does."""
        merged, copies = self._scan()
        self._take(merged, copies)
        damaged_count = sum(copy is None or copy.damaged_count > 0 for copy in copies)
        is_all_lost = not merged.records and damaged_count == len(copies)
        self.lost_count += merged.lost_count or is_all_lost
        self.cut_count += merged.cut_count
        if not any(self._broken) and not merged.lost_count and not merged.cut_count:
            return
        try:
            self._renew(merged.records)
        except StorageError:
            return  # counted; the next sync tries again
        # a cut between the copies leaves one of them behind, which is no damage
        self.repaired_count += damaged_count

    def _take(self, merged: _Merged, copies: list[Entries | None]) -> None:
        self._broken = [
            copy is None or copy.damaged_count > 0 or merged.cut_count > 0 or _merged([copy.entries]) != merged
            for copy in copies
        ]
        self._generation = merged.generation
        self._next_number = merged.next_number
        self.records_count = len(merged.records)

    def _renew(self, records: list[bytes]) -> None:
        """Write a new generation to both copies; one of them must take it."""
        merged, _ = self._scan()
        generation = max(merged.highest_generation, self._generation) + 1
        content = [entry_bytes(self._name, Entry(0, generation, _HEAD, len(records).to_bytes(_SIZE_BYTES, "big")))]
        content += [
            entry_bytes(self._name, Entry(number, generation, 0, record)) for number, record in enumerate(records, 1)
        ]
        image = b"".join(content)
        errors = [self._replace(index, image) for index in range(len(self._files))]
        error = errors[0]
        if error is not None and errors[1] is not None:
            self._take(*self._scan())  # a failed replace leaves the old content or the whole new one
            raise error
        self._generation = generation
        self._next_number = len(records) + 1
        self.records_count = len(records)

    def _append_to_sound_copies(self, data: bytes) -> StorageError | None:
        """Append and sync, one copy after the other; returns the last error."""
        last: StorageError | None = None
        for index, file in enumerate(self._files):
            if self._broken[index]:
                continue
            try:
                self._disk.append(file, data)
                self._disk.sync(file)
            except StorageError as error:
                self._broken[index] = True
                self.failed_count += 1
                last = error
        return last

    def _copy_over(self) -> None:
        """Make a broken copy again from the sound one."""
        if not any(self._broken):
            return
        lost = self._broken.index(True)
        try:
            content = self._disk.read(self._files[1 - lost])
        except StorageError:
            self._broken[1 - lost] = True  # both are written anew with the next sync
            return
        if entries_in(self._name, content).damaged_count:
            self._broken[1 - lost] = True
            return
        if self._replace(lost, content) is None:
            self.repaired_count += 1

    def _replace(self, index: int, content: bytes) -> StorageError | None:
        try:
            self._disk.replace(self._files[index], content)
        except StorageError as error:
            self._broken[index] = True
            self.failed_count += 1
            return error
        self._broken[index] = False
        return None

    def _scan(self) -> tuple[_Merged, list[Entries | None]]:
        """Both copies, and what they hold together; None for a copy that cannot be read."""
        copies = [self._read(file) for file in self._files]
        return _merged([copy.entries for copy in copies if copy is not None]), copies

    def _read(self, file: str) -> Entries | None:
        if not self._disk.exists(file):
            return entries_in(self._name, b"")
        try:
            return entries_in(self._name, self._disk.read(file))
        except StorageError:
            return None


def _merged(copies: list[list[Entry]]) -> _Merged:
    """The union of the copies, by generation: the highest one whose snapshot is all there, or else the highest."""
    generations: dict[int, dict[int, Entry]] = {}
    for entries in copies:
        for entry in entries:
            generations.setdefault(entry.generation, {})[entry.number] = entry
    highest = max(generations, default=0)
    for generation in sorted(generations, reverse=True):
        numbered = generations[generation]
        size = _snapshot_size(generation, numbered)
        if size is not None and all(number in numbered for number in range(1, size + 1)):
            return _in_order(generation, numbered, size, highest)
    numbered = generations.get(highest, {})
    return _in_order(highest, numbered, _snapshot_size(highest, numbered) or 0, highest)


def _snapshot_size(generation: int, numbered: dict[int, Entry]) -> int | None:
    """How many records the snapshot of a generation has; None when its head is lost. Generation 0 has no snapshot."""
    head = numbered.get(0)
    if head is not None and head.flags & _HEAD and len(head.data) == _SIZE_BYTES:
        return min(int.from_bytes(head.data, "big"), NUMBER_MAX)
    return None if generation else 0


def _in_order(generation: int, numbered: dict[int, Entry], size: int, highest: int) -> _Merged:
    """The records up to the first gap that nobody had acknowledged."""
    first = 1 if generation else 0
    last_settled = max((entry.number for entry in numbered.values() if entry.flags & _SETTLED), default=first)
    last_settled = max(last_settled, size + 1 if generation else 0)
    numbers = sorted(number for number in numbered if number >= first)
    records: list[bytes] = []
    expected, lost_count = first, 0
    for position, number in enumerate(numbers):
        if number > expected and expected >= last_settled:
            return _Merged(generation, records, expected, lost_count, len(numbers) - position, highest)
        lost_count += number - expected
        records.append(numbered[number].data)
        expected = number + 1
    # what a snapshot promised behind the last record that is there
    missing_count = max(0, size + first - expected) if generation else 0
    return _Merged(generation, records, expected + missing_count, lost_count + missing_count, 0, highest)
