"""A board lent to a bench for a run: what its settings were before, kept beside those of the run until they are put
back.

```text
/etc/flatrack/node.toml ...                  settings of the run
/etc/flatrack/before-run/loan.json           which files were there before, and whether the node ran
                        /files/node.toml ... they themselves
/var/lib/flatrack/bench-...                  what the node keeps in a run; goes with the loan
```

`loan.json` is written, whole, when what it names is on the disk, and before anything of the run is; it goes last. So
a cut at any instant leaves either no loan and nothing of a run, or all that it takes to end the loan, then or later.
Once the settings are back it names none, only whether the node ran: who edits them then loses nothing.
It all lies in the folder of the settings: a deployment makes that anew, and so ends the loan too.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from flightsw.errors import BoardError, ConfigError
from hil.on_board.files import BEFORE_RUN, SETTINGS, main_last, put, remove, remove_if_empty, settings_path

LOAN: Final = "loan.json"
FILES: Final = "files"
DATA: Final = "var/lib/flatrack"
RUN_DATA: Final = "bench-"
"""What begins the name of a run's folder below /var/lib/flatrack; the rest is a number of digits."""


class _Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`loan.json`."""

    files: dict[str, int | None]
    """Path under /etc/flatrack -> mode of the file; None: there was none."""
    runs: bool
    """Whether the node ran."""
    folders: list[str] = []
    """Paths of folders under /etc/flatrack that were not there."""


class Loan:
    """What a board was before a run.

    Args:
        root: of the board's files.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folder = root / SETTINGS / BEFORE_RUN

    @property
    def is_open(self) -> bool:
        """Whether settings wait to be put back."""
        return (self._folder / LOAN).exists()

    def kept(self) -> tuple[list[str], bool]:
        """Names of the settings that wait to be put back, and whether the node ran when the board was lent. Raises:
        BoardError."""
        kept = self._read()
        return ([], False) if kept is None else (sorted(kept.files), kept.runs)

    def keep(self, names: Iterable[str], *, runs: bool) -> None:
        """Keep what is there of these settings. What is kept already stays: it is older than any run.

        Args:
            names: paths under /etc/flatrack.
            runs: whether the node runs; of an open loan what was first said holds.

        Raises:
            ConfigError: a path leads elsewhere.
            BoardError: a file cannot be read or written, or is a symbolic link.
        """
        paths = {name: settings_path(name) for name in names}
        before = self._read() or _Kept({}, runs)
        kept, folders = dict(before.files), set(before.folders)
        for name, path in paths.items():
            if name not in kept:
                kept[name] = self._keep(self._root / SETTINGS / path, self._folder / FILES / path)
                folders.update(str(one) for one in path.parents[:-1] if not (self._root / SETTINGS / one).exists())
        put(self._folder / LOAN, msgspec.json.encode(_Kept(kept, before.runs, sorted(folders))))

    def put_back(self) -> None:
        """Put the settings back. No effect when none wait. The loan, which names none then, stays open until `end`.

        Raises:
            BoardError: a file cannot be read or written.
        """
        kept = self._read()
        if kept is None or not kept.files:
            return
        for name in main_last(kept.files):
            path, mode = settings_path(name), kept.files[name]
            if mode is None:
                remove(self._root / SETTINGS / path)
            else:
                put(self._root / SETTINGS / path, _content(self._folder / FILES / path), mode)
        for folder in sorted(kept.folders, reverse=True):  # what lies in another comes before it
            remove_if_empty(self._root / SETTINGS / settings_path(folder))
        put(self._folder / LOAN, msgspec.json.encode(_Kept({}, kept.runs)))

    def end(self) -> None:
        """Forget what was kept, and what the node has kept in runs. Raises: BoardError."""
        for folder in (self._root / DATA).glob(f"{RUN_DATA}[0-9]*"):
            if folder.name.removeprefix(RUN_DATA).isdigit():
                shutil.rmtree(folder, ignore_errors=True)  # what is left of one goes with the next
        remove(self._folder / LOAN)
        shutil.rmtree(self._folder, ignore_errors=True)  # without loan.json nothing of it counts

    @staticmethod
    def _keep(source: Path, copy: Path) -> int | None:
        """Keep one file; its mode, or None when there is none."""
        try:
            if source.is_symlink():
                raise BoardError(f"{source}: a symbolic link, expected a file, or none: a run would replace it")
            mode = source.stat().st_mode & 0o777
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BoardError(f"{source}: {error.strerror}") from None
        put(copy, _content(source))
        return mode

    def _read(self) -> _Kept | None:
        path = self._folder / LOAN
        try:
            kept = msgspec.json.decode(path.read_bytes(), type=_Kept)
            for name in (*kept.files, *kept.folders):
                settings_path(name)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BoardError(f"{path}: {error.strerror}") from None
        except (msgspec.MsgspecError, ConfigError) as error:
            raise BoardError(f"{path}: {error}; deploy this board again, which makes its settings anew") from None
        return kept


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BoardError(f"{path}: {error.strerror}") from None
