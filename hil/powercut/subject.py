"""What is put to the test: a subject works on a store and notes what it began and what the store called durable.

A subject lives several times on one disk. Each life opens the store, as a boot does, and works on it; the power may
fail anywhere. `check` opens the store once more and compares with the notes:

- what is noted as durable is there,
- what is there was begun, and is whole,
- the store opens.

Two kinds of state cover nearly all stores. A *state* is replaced: after a cut it is the last durable value, or one that
was begun after it. *Records* are added, each with a number that rises: after a cut the durable ones are there, in
order.
"""

import hashlib
import struct
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from flightsw.ports import Disk, Random

Value = int | str | None
"""What can be noted; None stands for a state that was never stored, or is removed."""

DISK_BYTES: Final = 1 << 26
"""Capacity of the disk under test [bytes]: no store comes near it."""

_BLOB: Final = struct.Struct(">II")
"""Number and length of a blob."""
BLOB_BYTES_MIN: Final = _BLOB.size
"""Shortest blob [bytes]: it holds its number and its length."""


class Note(NamedTuple):
    """One thing that a subject said."""

    is_durable: bool
    key: str
    value: Value


class Notes:
    """All that a subject said in its lives.

    Args:
        hear: is told of each note as it is made.
    """

    def __init__(self, hear: Callable[[Note], None] | None = None) -> None:
        self._hear = hear
        self._possible: dict[str, list[Value]] = {}
        self._begun: dict[str, dict[Value, None]] = {}
        self._durable: dict[str, dict[Value, None]] = {}

    def begin(self, key: str, value: Value) -> None:
        """The store is about to be told; a cut from here on may leave the value there."""
        self.take(Note(False, key, value))

    def ack(self, key: str, value: Value) -> None:
        """The store has said that the value is durable."""
        self.take(Note(True, key, value))

    def take(self, note: Note) -> None:
        """Take over a note."""
        if note.is_durable:
            self._possible[note.key] = [note.value]
            self._durable.setdefault(note.key, {})[note.value] = None
        else:
            self._possible.setdefault(note.key, [None]).append(note.value)
        self._begun.setdefault(note.key, {})[note.value] = None
        if self._hear is not None:
            self._hear(note)

    def possible(self, key: str) -> list[Value]:
        """What a state may be now: the last durable value, and what was begun since."""
        return self._possible.get(key, [None])

    def durable(self, key: str) -> list[Value]:
        """All values that were called durable, in order."""
        return list(self._durable.get(key, ()))

    def begun(self, key: str) -> list[Value]:
        """All values that were begun, in order."""
        return list(self._begun.get(key, ()))

    def next_number(self, key: str) -> int:
        """A number that no value of this key had before, above all of them."""
        return len(self._begun.get(key, ()))

    def keys(self, prefix: str) -> list[str]:
        """Keys that start so, sorted."""
        return sorted(key for key in self._begun if key.startswith(prefix))


class Subject(Protocol):
    """A store on the disk port under test."""

    @property
    def name(self) -> str:
        """For the command line."""
        ...

    def live(self, disk: Disk, random: Random, notes: Notes) -> None:
        """Open the store and work on it."""
        ...

    def check(self, disk: Disk, notes: Notes) -> list[str]:
        """Open the store; what is lost, torn or never written. What was found is durable from here on."""
        ...


class FolderSubject(Protocol):
    """A store in a folder of a real file system under test; otherwise as `Subject`."""

    @property
    def name(self) -> str:
        """For the command line."""
        ...

    def live(self, folder: Path, random: Random, notes: Notes) -> None:
        """Open the store and work on it."""
        ...

    def check(self, folder: Path, notes: Notes) -> list[str]:
        """Open the store; what is lost, torn or never written."""
        ...


def state_faults(notes: Notes, key: str, found: Value) -> list[str]:
    """What is wrong with the state that was found; it is durable from here on."""
    possible = notes.possible(key)
    if found not in possible:
        return [f"{key} is {_shown(found)}, expected {' or '.join(map(_shown, possible))}"]
    notes.ack(key, found)
    return []


def record_faults(notes: Notes, key: str, found: list[int | None], *, first: int = 0) -> list[str]:
    """What is wrong with the records that were found; they are durable from here on.

    Args:
        notes: of the subject.
        key: of the records.
        found: their numbers in the store's order; None for one that nobody wrote.
        first: records below this number were given up.
    """
    faults = []
    numbers = [number for number in found if number is not None]
    if len(numbers) < len(found):
        faults.append(f"{len(found) - len(numbers)} of {len(found)} {key}s are none that was written")
    if any(before >= after for before, after in pairwise(numbers)):
        faults.append(f"{key}s are out of order: {numbers}")
    begun = notes.begun(key)
    strange = sorted(number for number in numbers if number not in begun)
    if strange:
        faults.append(f"{key}s {strange} were never written")
    there = frozenset(numbers)
    lost = [number for number in notes.durable(key) if isinstance(number, int) and first <= number not in there]
    if lost:
        faults.append(f"{key}s {lost} were durable and are lost")
    if not faults:
        ack_all(notes, key, numbers)
    return faults


def ack_all(notes: Notes, key: str, values: Iterable[Value]) -> None:
    """Note values as durable."""
    for value in values:
        notes.ack(key, value)


def blob(number: int, size_bytes: int) -> bytes:
    """Bytes that say their number and length, and show any damage.

    Args:
        number: that they stand for.
        size_bytes: how many; at least `BLOB_BYTES_MIN`.
    """
    fill = hashlib.blake2b(number.to_bytes(4, "big")).digest()
    length = size_bytes - _BLOB.size
    return _BLOB.pack(number, length) + (fill * (length // len(fill) + 1))[:length]


def number_of(data: bytes) -> int | None:
    """The number of a blob; None when it is damaged or none."""
    if len(data) < _BLOB.size:
        return None
    number, length = _BLOB.unpack_from(data)
    return int(number) if length == len(data) - _BLOB.size and blob(number, len(data)) == data else None


def _shown(value: Value) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"
