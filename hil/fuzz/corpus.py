"""Inputs that once were too much for a decoder, one file for each decoder, one input in hex on each line.

A `#` begins a comment: what the input does. Every line is decoded again by each test run.
"""

from pathlib import Path
from typing import Final

SUFFIX: Final = ".hex"


def cases(folder: Path, decoder: str) -> list[bytes]:
    """The inputs that are kept for a decoder, in order of the file; none when there is no file."""
    path = folder / f"{decoder}{SUFFIX}"
    if not path.is_file():
        return []
    lines = [line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return [bytes.fromhex(line) for line in lines if line]


def keep(folder: Path, decoder: str, data: bytes, why: str) -> bool:
    """Add an input to the file of its decoder; False when it is there already."""
    if data in cases(folder, decoder):
        return False
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{decoder}{SUFFIX}").open("a", encoding="utf-8") as file:
        file.write(f"# {' '.join(why.split())[:110]}\n{data.hex()}\n")
    return True
