"""What a prepared card runs on its board, once: the release on the boot partition is installed as a deployment would.

It needs the standard library alone (Python 3.11 or newer) and `hil.inventory.board_side`, which lies beside it on the
card: `python3 -m hil.cards.first_boot FOLDER [PREFIX]`, started by `flatrack-first-boot.service`. Each step may be cut
by a power cut: the service starts it again until `request.json` is gone, which goes last.

The settings hold keys. Here they come into a folder of root alone; on the card they are overwritten and removed. That
is no erasure: a flash card keeps old blocks where only its controller finds them.
"""

import io
import json
import os
import sys
import zipfile
from pathlib import Path

from hil.inventory import board_side

REQUEST = "request.json"
WHEELS = "wheels"
FILES = "files"
WATCHDOG_TEXT = "# written by a prepared card\n[Manager]\nRuntimeWatchdogSec=10\n"
"""systemd strokes the machine's watchdog: that of a Raspberry Pi takes 15 s at most. Source: systemd-system.conf(5)."""
REPORT = "first-boot.txt"
"""What became of it, for who looks at the card in another machine."""


class Card(board_side.Board):
    """A board that finds its release on its own boot partition.

    Args:
        folder: where it lies there.
        prefix: as of a board.
    """

    def __init__(self, folder: Path, prefix: Path) -> None:
        super().__init__(prefix, Path(board_side.__file__).read_text())
        self.folder = folder

    def take(self) -> str:
        """Install the release, let it run from now on, and clear the card; returns the release's digest.

        Raises:
            Refused: it cannot be installed; says why.
            OSError: a file cannot be read or written.
        """
        request: board_side.Result = json.loads((self.folder / REQUEST).read_text())
        release: str = request["release"]
        if not self._release_holds(release) or not self._environment_holds(request["environment"]):
            self._bring(request)
        board_side.replace(self.program, self.source.encode(), 0o644)
        self.watchdog.parent.mkdir(parents=True, exist_ok=True)
        board_side.replace(self.watchdog, WATCHDOG_TEXT.encode(), 0o644)
        self._systemctl("daemon-reexec", is_asked=True)  # else it is armed at the next start
        self._flip(release)
        self._systemctl("daemon-reload")
        self._systemctl("enable", board_side.UNIT)
        self._clear()
        self._systemctl("start", "--no-block", board_side.UNIT)
        return release

    def _bring(self, request: board_side.Result) -> None:
        """Wheels and files from the card to where a deployment puts them."""
        there = {path.stem for path in self.wheels.glob("*.whl")}
        for name, sha256 in request["wheel_files"]:
            if sha256 not in there:
                path = self.folder / WHEELS / name
                with path.open("rb") as file:
                    self.push({"wheels": [[sha256, path.stat().st_size]]}, file)
        contents = [(self.folder / FILES / name).read_bytes() for name, _ in request["files"]]
        sizes = [[name, mode, len(data)] for (name, mode), data in zip(request["files"], contents, strict=True)]
        self.install(request | {"files": sizes}, io.BytesIO(b"".join(contents)))

    def _clear(self) -> None:
        """Overwrite and remove the settings, remove the wheels, and last what asks for a first boot."""
        for path in sorted((self.folder / FILES).rglob("*"), reverse=True):
            if path.is_dir():
                path.rmdir()
                continue
            with path.open("r+b") as file:
                file.write(bytes(path.stat().st_size))
                board_side.written(file)
            path.unlink()
        for path in (self.folder / WHEELS).glob("*.whl"):
            path.unlink()
        os.sync()
        (self.folder / REQUEST).unlink()
        board_side.sync(self.folder)


def main(arguments: list[str]) -> int:
    """Do it, and leave a report on the card; returns the exit code."""
    folder = Path(arguments[0])
    card = Card(folder, Path(arguments[1] if len(arguments) > 1 else "/"))
    try:
        with card.held():
            said = f"release {card.take()} is installed"
        code = 0
    except (board_side.Refused, zipfile.BadZipFile, ValueError, KeyError) as error:
        said, code = f"failed: {type(error).__name__}: {error}", 1
    except OSError as error:
        said, code = f"failed: {error.filename or 'card'}: {error.strerror}", 1
    print(said)
    try:
        (folder / REPORT).write_text(said + "\n")
        os.sync()
    except OSError as error:
        print(f"{folder / REPORT}: {error.strerror}")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
