"""Power cuts on real files: a process is recorded, what its disk may hold is made, and the store is opened on that.

It goes on in rounds. The first begins with an empty folder; each later one with what a power cut left in the round
before, so that the opening and mending of a store is recorded and cut like its work.
"""

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hil.powercut.medium import Medium
from hil.powercut.outcomes import faults_of
from hil.powercut.recording import record
from hil.powercut.subject import FolderSubject, Note, Notes
from hil.sim.streams import Streams

ROUNDS: Final = 3
LIVES: Final = 2
"""Lives in each round, so that the opening after a good end is recorded too."""
FAULTS_SHOWN_MAX: Final = 20
"""Failures that are kept: one is enough to be looked at, and the others are mostly the same."""


Held = dict[str, bytes | None]
"""What is in a folder: name -> content, None for a folder."""


MEMORY: Final = Path("/dev/shm")
"""A file system in memory, on most machines: the stores sync much, and what counts is that they do, not how long."""


def scratch() -> "tempfile.TemporaryDirectory[str]":
    """A new folder for an exploration, in memory where that is possible."""
    return tempfile.TemporaryDirectory(prefix="power-cuts-", dir=MEMORY if MEMORY.is_dir() else None)


@dataclass
class RealResult:
    """What the cuts of one subject showed."""

    subject: str
    seed: int
    operations_count: int = 0
    cuts_count: int = 0
    failures_count: int = 0
    failures: list[str] = field(default_factory=list)
    """The first of them, each with the line that repeats it."""


def explore(subject: FolderSubject, cuts_min: int, seed: int, folder: Path, strace: str) -> RealResult:
    """Record a subject and cut it, evenly between all its operations.

    Args:
        subject: one of the registry.
        cuts_min: cuts that are made at least.
        seed: of all draws.
        folder: for the files of it; made and removed.
        strace: the program.

    Raises:
        RecordingError: the subject failed without any cut, or does what is not understood.
    """
    result = RealResult(subject.name, seed)
    random = Streams(seed).random(f"{subject.name}/real cuts")
    held: Held = {}
    notes: list[Note] = []
    for number in range(ROUNDS):
        _lay(folder / "work", held)
        recording = record(subject.name, folder / "work", 1000 * seed + number, LIVES, notes, strace)
        operations = recording.operations
        result.operations_count += len(operations)
        cuts_each = -(-cuts_min // (ROUNDS * (len(operations) + 1)))
        next_from = random.randrange(len(operations) + 1)
        medium, said = Medium(recording.held), list(notes)
        for place in range(len(operations) + 1):
            for _ in range(cuts_each):
                image = medium.after_cut(random)
                _check(subject, folder / "cut", image, said, f"round {number}, before operation {place}", result)
            if place == next_from:
                held, next_notes = medium.after_cut(random), list(said)
            if place < len(operations):
                medium.take(operations[place])
                said += [one for one in operations[place : place + 1] if isinstance(one, Note)]
        notes = next_notes
    shutil.rmtree(folder)
    return result


def _check(
    subject: FolderSubject,
    folder: Path,
    image: Held,
    said: list[Note],
    where: str,
    result: RealResult,
) -> None:
    _lay(folder, image)
    notes = Notes()
    for note in said:
        notes.take(note)
    faults = faults_of(lambda: subject.check(folder, notes))
    result.cuts_count += 1
    if faults:
        result.failures_count += 1
        if len(result.failures) < FAULTS_SHOWN_MAX:
            replay = f"python scripts/power_cuts.py --real --subject {result.subject} --seed {result.seed}"
            result.failures.append("\n".join([f"{result.subject}, {where}:", *faults, f"again: {replay}"]))


def _lay(folder: Path, held: Held) -> None:
    """Make a folder that holds just this."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    for name, content in held.items():
        if content is None:
            (folder / name).mkdir(exist_ok=True)
        else:
            (folder / name).write_bytes(content)
