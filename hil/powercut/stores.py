"""The stores of `flightsw.storage` under power cuts."""

from collections.abc import Callable
from typing import Final, Protocol

from flightsw.ports import Disk, Random
from flightsw.storage.copies import TwoCopies
from flightsw.storage.counters import DAMAGED_START, raise_counter
from flightsw.storage.log import RecordLog
from flightsw.storage.ring_log import RingLog
from flightsw.storage.state_log import StateLog
from hil.powercut.subject import Notes, Subject, ack_all, blob, number_of, record_faults, state_faults

FILE: Final = "store"
STEPS: Final = 24
"""Things done in one life: enough for a log to be written anew now and then."""
SIZES_BYTES: Final = (8, 40, 200, 511, 513, 1500)
"""Of what is stored [bytes]: within a sector, around its end, and over several."""
RING_BYTES: Final = 8192
RING_SIZES_BYTES: Final = (8, 40, 200, 300)
"""Records of a ring [bytes], whose segments are an eighth of it."""
RING_KEPT_COUNT: Final = 8
"""Records that a ring of that size always has room for: the newest."""


class Log(Protocol):
    """What logs have in common."""

    def append(self, record: bytes) -> object:
        """Add a record."""
        ...

    def sync(self) -> None:
        """Make all records durable."""
        ...

    def records(self) -> list[bytes]:
        """All records."""
        ...


Rewrite = Callable[[list[bytes]], None]
"""Replaces all records of a log."""


class LogSubject:
    """A log that grows and is written anew from time to time.

    Args:
        name: for the command line.
        open_log: opens it; gives what writes it anew too, None for a ring, which gives way by itself.
    """

    def __init__(self, name: str, open_log: Callable[[Disk], tuple[Log, Rewrite | None]]) -> None:
        self.name = name
        self._open = open_log

    def live(self, disk: Disk, random: Random, notes: Notes) -> None:
        """Append, sync and write anew, in any order."""
        log, rewrite = self._open(disk)
        unsynced: list[int] = []
        for _ in range(STEPS):
            choice = random.random()
            if choice < 0.1 and rewrite is not None:
                self._rewrite(log, rewrite, notes)
                unsynced = []
            elif choice < 0.4:
                log.sync()
                ack_all(notes, "record", unsynced)
                unsynced = []
            else:
                number = notes.next_number("record")
                notes.begin("record", number)
                log.append(blob(number, random.choice(SIZES_BYTES if rewrite else RING_SIZES_BYTES)))
                unsynced.append(number)

    def check(self, disk: Disk, notes: Notes) -> list[str]:
        """Acknowledged records are there, from one of the floors on that are possible."""
        log, rewrite = self._open(disk)
        found = [number_of(record) for record in log.records()]
        if rewrite is None:
            return self._check_ring(found, notes)
        faults: list[str] = []
        for floor in notes.possible("floor"):
            first = floor if isinstance(floor, int) else 0
            if all(number is not None and number >= first for number in found):
                faults = record_faults(notes, "record", found, first=first)
                if not faults:
                    notes.ack("floor", floor)
                    return []
        return faults or [f"records {found} begin at none of {notes.possible('floor')}"]

    def _rewrite(self, log: Log, rewrite: Rewrite, notes: Notes) -> None:
        records = log.records()
        kept = records[len(records) // 2 :]
        numbers = [number_of(record) for record in kept]
        floor = numbers[0] if numbers else notes.next_number("record")
        notes.begin("floor", floor)
        rewrite(kept)
        notes.ack("floor", floor)
        ack_all(notes, "record", numbers)

    def _check_ring(self, found: list[int | None], notes: Notes) -> list[str]:
        numbers = [number for number in found if number is not None]
        newest = [number for number in notes.durable("record") if isinstance(number, int)][-RING_KEPT_COUNT:]
        first = min([*newest[:1], *numbers[:1]], default=0)
        return record_faults(notes, "record", found, first=first)


class TwoCopiesSubject:
    """A state in two copies."""

    name = "two-copies"

    def live(self, disk: Disk, random: Random, notes: Notes) -> None:
        """Store, remove, look."""
        copies = TwoCopies(disk, FILE)
        if random.random() < 0.7:
            copies.load()
        for _ in range(STEPS // 2):
            if random.random() < 0.1:
                notes.begin("state", None)
                copies.remove()
                continue
            number = notes.next_number("number")
            notes.begin("number", number)
            notes.begin("state", number)
            copies.store(blob(number, random.choice(SIZES_BYTES)))
            notes.ack("state", number)

    def check(self, disk: Disk, notes: Notes) -> list[str]:
        """The old state or the new one."""
        copies = TwoCopies(disk, FILE)
        data = copies.load()
        number = None if data is None else number_of(data)
        if data is not None and number is None:
            return [f"a state of {len(data)} bytes that nobody stored"]
        was_whole = bool(notes.durable("state")) and None not in notes.begun("state")
        faults = state_faults(notes, "state", number)
        if copies.repaired_count and was_whole:  # before the first durable store, one copy may be missing for long
            faults.append("a power cut was counted as damage of a copy")
        return faults


class BootCounter:
    """A counter that rises with each start."""

    name = "boot-counter"

    def live(self, disk: Disk, random: Random, notes: Notes) -> None:
        """Some starts."""
        for _ in range(1 + random.randrange(STEPS // 4)):
            self._start(disk, notes)

    def check(self, disk: Disk, notes: Notes) -> list[str]:
        """No count comes twice."""
        before = max((number for number in notes.durable("start") if isinstance(number, int)), default=0)
        tried_count = notes.next_number("try")
        count = self._start(disk, notes)
        if not before < count <= tried_count + 1 < DAMAGED_START:
            return [f"start {count} after start {before} and {tried_count} tries"]
        return []

    def _start(self, disk: Disk, notes: Notes) -> int:
        notes.begin("try", notes.next_number("try"))
        count = raise_counter(disk, FILE)
        notes.ack("start", count)
        return count


def _record_log(disk: Disk) -> tuple[Log, Rewrite | None]:
    log = RecordLog(disk, FILE)
    return log, log.compact


def _state_log(disk: Disk) -> tuple[Log, Rewrite | None]:
    log = StateLog(disk, FILE)
    return log, log.snapshot


def _ring_log(disk: Disk) -> tuple[Log, Rewrite | None]:
    return RingLog(disk, FILE, RING_BYTES), None


def subjects() -> list[Subject]:
    """All of them."""
    return [
        LogSubject("record-log", _record_log),
        LogSubject("state-log", _state_log),
        LogSubject("ring-log", _ring_log),
        TwoCopiesSubject(),
        BootCounter(),
    ]
