"""The process that is watched: one subject lives in a folder and says its notes on standard output, a line each.

`python -m hil.powercut.child NAME FOLDER SEED LIVES NOTES`, with the notes of earlier processes in the file NOTES. A
line is written with one system call, so that its place among the others is known.
"""

import json
import os
import sys
from pathlib import Path
from typing import Final

from hil.powercut.registry import FOLDER_MUTANTS, FOLDER_SUBJECTS
from hil.powercut.subject import Note, Notes
from hil.sim.streams import Streams

PREFIX: Final = b"NOTE "
"""Begins each line that says a note."""


def main(name: str, folder: Path, seed: int, lives: int, notes_file: Path) -> None:
    """Live some times in a row, without a power cut."""
    subject = (FOLDER_SUBJECTS | FOLDER_MUTANTS)[name]
    notes = read_notes(notes_file.read_bytes())
    spoken = Notes(lambda note: _say(note) if is_live else None)
    is_live = False
    for note in notes:
        spoken.take(note)
    is_live = True
    for life in range(lives):
        subject.live(folder, Streams(seed).random(f"{name}/life {life}"), spoken)


def read_notes(lines: bytes) -> list[Note]:
    """The notes in lines that `line_of` made."""
    return [Note(*json.loads(line.removeprefix(PREFIX))) for line in lines.splitlines()]


def line_of(note: Note) -> bytes:
    """A note as a line."""
    return PREFIX + json.dumps(note).encode() + b"\n"


def _say(note: Note) -> None:
    os.write(sys.stdout.fileno(), line_of(note))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
