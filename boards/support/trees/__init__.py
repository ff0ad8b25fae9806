"""Trees of boards: the files of a kernel, and what the maker's tools print, as data with their sources.

Each TOML file describes one board in groups of facts, each group with its source and a flag: V seen on that machine, D
documented in public, U unverified. Tests read them as if they were the board, and a simulated board shows one as its
own. `lay` writes a tree into a folder, which then stands for `/`.

| in a group | is |
|---|---|
| `files` | path -> text; a newline is added, as the kernel does, unless it ends with a NUL, as a device tree's does |
| `folders` | folders without anything in them |
| `links` | path -> path that it leads to |
| `errors` | path -> name of the error that reading it gives |
| `tools` | command line -> what it prints |
| `effects` | command line -> what other command lines print from then on |

Folders of `/sys/class` are laid as folders, where a kernel has links into `/sys/devices`; but ttys are links, since
their devices must be found.
"""

import errno
import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Annotated, Final, Literal

import msgspec

from boards.support.sysfs import Reader, read_file
from boards.support.tools import ToolResult
from flightsw.config import convert
from flightsw.errors import ConfigError

SUFFIX: Final = ".toml"
NOT_REGISTERED: Final = ToolResult(1, 'error=1 error_msg="Command not registered"')

BoardPath = Annotated[str, msgspec.Meta(pattern=r"^/[^\x00]+$")]
ErrorName = Annotated[str, msgspec.Meta(pattern=r"^E[A-Z]+$")]


class Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A group of facts from one source."""

    source: Annotated[str, msgspec.Meta(min_length=20)]
    flag: Literal["V", "D", "U"]
    files: dict[BoardPath, str] = {}
    folders: tuple[BoardPath, ...] = ()
    links: dict[BoardPath, BoardPath] = {}
    errors: dict[BoardPath, ErrorName] = {}
    tools: dict[str, str] = {}
    effects: dict[str, dict[str, str]] = {}


class BoardTree(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One board."""

    name: str
    title: str
    facts: tuple[Facts, ...]


@dataclass(slots=True)
class LaidTree:
    """A tree in a folder, and what stands for reading it and for the maker's tools."""

    root: Path
    tree: BoardTree
    _errors: dict[Path, int] = field(default_factory=dict)
    _outputs: dict[str, str] = field(default_factory=dict)
    _effects: dict[str, dict[str, str]] = field(default_factory=dict)

    def read(self, path: Path, limit_bytes: int) -> bytes:
        """Read a file as the board would. Raises: OSError."""
        return self.reader(read_file)(path, limit_bytes)

    def reader(self, read: Reader) -> Reader:
        """A reader that gives the errors of the tree, and reads all other files by `read`."""

        def with_errors(path: Path, limit_bytes: int) -> bytes:
            number = self._errors.get(path)
            if number is not None:
                raise OSError(number, os.strerror(number))
            return read(path, limit_bytes)

        return with_errors

    def run(self, arguments: Sequence[str]) -> ToolResult:
        """Run a tool as the board would. Raises: FileNotFoundError: the board has no such tool."""
        command = " ".join(arguments)
        if command not in self._outputs:
            if not any(known.split()[0] == arguments[0] for known in self._outputs):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), arguments[0])
            return NOT_REGISTERED
        self._outputs.update(self._effects.get(command, {}))
        return ToolResult(0, self._outputs[command])


def names() -> list[str]:
    """Names of the trees that come with flatrack, sorted."""
    files = resources.files(__name__).iterdir()
    return sorted(file.name.removesuffix(SUFFIX) for file in files if file.name.endswith(SUFFIX))


def load(name: str) -> BoardTree:
    """The tree with this name.

    Raises:
        ConfigError: there is none.
    """
    if name not in names():
        raise ConfigError(f"board tree {name!r}: expected one of {', '.join(names())}")
    text = (resources.files(__name__) / f"{name}{SUFFIX}").read_text(encoding="utf-8")
    return convert(tomllib.loads(text), BoardTree, f"board tree {name}")


def lay(name: str, folder: Path) -> LaidTree:
    """Write a tree into a folder that holds none yet; it is made when missing.

    Raises:
        ConfigError: there is no such tree, or the folder cannot be written.
    """
    laid = LaidTree(folder, load(name))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for facts in laid.tree.facts:
            _lay(facts, laid)
    except OSError as error:
        raise ConfigError(f"{folder}: a board tree cannot be laid here: {error.strerror}") from None
    return laid


def _lay(facts: Facts, laid: LaidTree) -> None:
    for path in facts.folders:
        _place(laid.root, path).mkdir(parents=True, exist_ok=True)
    for path, text in facts.files.items():
        place = _made(laid.root, path)
        place.write_text(text if text.endswith("\0") else text + "\n", encoding="utf-8")
    for path, target in facts.links.items():
        place = _made(laid.root, path)
        place.symlink_to(os.path.relpath(_place(laid.root, target), place.parent))
    for path, error in facts.errors.items():
        place = _made(laid.root, path)
        place.symlink_to(place.name)  # a reader that does not know of the error cannot read it either
        laid._errors[place] = getattr(errno, error)
    laid._outputs.update(facts.tools)
    laid._effects.update(facts.effects)


def _place(root: Path, path: str) -> Path:
    parts = PurePosixPath(path).parts[1:]
    if ".." in parts:
        raise ConfigError(f"{path}: a path of a board tree may not lead out of it")
    return root.joinpath(*parts)


def _made(root: Path, path: str) -> Path:
    place = _place(root, path)
    place.parent.mkdir(parents=True, exist_ok=True)
    return place
