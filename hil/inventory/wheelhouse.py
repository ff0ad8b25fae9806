"""The wheels of a board: ours, made of the code that runs here, and what it depends on, for the board's machine.

What pip has found is kept under the digest of what was asked for, with the digests of the files: the same question is
answered without a network from then on, and with the same files.
"""

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from flightsw.errors import ConfigError
from hil.emulation.wheels import cache_folder, downloadable, pip_options, requirements, write_repacked, write_wheel

ARCHITECTURES: Final = ("aarch64", "x86_64")
"""Machines for which all that we depend on has wheels, as uname(1) calls them."""
PYTHON_MIN: Final = (3, 11)
WHEELHOUSES: Final = "wheelhouses"
"""What the folder of these answers is called, among all that is cached."""
LOCK: Final = "lock.json"
WORDS_CHARACTERS_MAX: Final = 600
"""How much of pip's words an error shows: its last lines name the wheel."""
_WHEEL: Final = re.compile(
    r"(?P<name>[^-]+)-(?P<version>[^-]+)(-\d[^-]*)?-(?P<python>[^-]+)-(?P<abi>[^-]+)-(?P<platform>[^-]+)\.whl"
)
"""File names of wheels. Source: PEP 427."""


@dataclass(frozen=True, slots=True)
class Target:
    """What wheels must fit."""

    architecture: str
    """As uname(1) has it: aarch64."""
    python: tuple[int, int]
    glibc_minor: int
    """Of glibc 2.x."""

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise ConfigError(
                f"the board's machine is {self.architecture}, expected {' or '.join(ARCHITECTURES)}: a 64-bit system"
            )

    def __str__(self) -> str:
        return f"{self.architecture}, Python {self.python[0]}.{self.python[1]}, glibc 2.{self.glibc_minor}"


@dataclass(frozen=True, slots=True)
class Wheel:
    """One wheel."""

    path: Path
    sha256: str

    @property
    def name(self) -> str:
        """Of the distribution, as the file says it."""
        return self.path.name.partition("-")[0]

    @property
    def version(self) -> str:
        """Of the distribution."""
        return self.path.name.split("-")[1]

    @property
    def size_bytes(self) -> int:
        """Of the file."""
        return self.path.stat().st_size


def wheels_in(folder: Path, target: Target) -> list[Wheel]:
    """The wheels of a wheelhouse that somebody made, and ours where it has none.

    Raises:
        ConfigError: a wheel does not fit the board, or a distribution is there twice.
    """
    paths = sorted(folder.glob("*.whl"))
    if not paths:
        raise ConfigError(f"--from {folder}: has no wheels, expected those of the board: pip download -d {folder} ...")
    if not any(path.name.startswith("flatrack-") for path in paths):
        paths.append(own_wheel())
    names: dict[str, Path] = {}
    for path in paths:
        parts = _WHEEL.fullmatch(path.name)
        if parts is None:
            raise ConfigError(f"{path}: expected the name of a wheel")
        if not _fits(parts, target):
            raise ConfigError(f"{path}: is for {parts['python']} on {parts['platform']}, expected one for {target}")
        name = re.sub("[-_.]+", "_", parts["name"]).lower()
        if name in names:
            raise ConfigError(f"{path}: {names[name].name} is there too, expected one of them")
        names[name] = path
    return [Wheel(path, _sha256(path)) for path in paths]


def wheels_for(target: Target) -> list[Wheel]:
    """Our wheel, and what it depends on: from the cache, or else by pip.

    Raises:
        ConfigError: pip is missing, finds no wheels, or has no network.
    """
    asked = [str(target), *requirements()]
    folder = cache_folder(WHEELHOUSES) / hashlib.sha256("\n".join(asked).encode()).hexdigest()[:16]
    kept = _kept(folder)
    if kept is None:
        _download(requirements(), target, folder)
        kept = _kept(folder)
        assert kept is not None, "it was just made"
    own = own_wheel()
    return [*kept, Wheel(own, _sha256(own))]


def own_wheel() -> Path:
    """Our wheel, in a folder of its content: the same code gives the same file."""
    with tempfile.TemporaryDirectory() as temporary:
        made = write_wheel(Path(temporary))
        folder = cache_folder("wheels") / _sha256(made)[:16]
        path = folder / made.name
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(made, folder / f"{made.name}.new")
            (folder / f"{made.name}.new").replace(path)
    return path


def _fits(parts: re.Match[str], target: Target) -> bool:
    major, minor = target.python
    pythons = parts["python"].split(".")
    fits_python = not {f"cp{major}{minor}", f"py{major}{minor}", f"py{major}"}.isdisjoint(pythons)
    if "abi3" in parts["abi"].split("."):  # these name the oldest Python
        fits_python = any(re.fullmatch(rf"cp{major}\d+", one) and int(one[3:]) <= minor for one in pythons)
    return fits_python and any(_fits_system(one, target) for one in parts["platform"].split("."))


def _fits_system(platform: str, target: Target) -> bool:
    """Whether a platform is one of the board's. Sources: PEP 425, and PEP 600 with the older names of manylinux."""
    if found := re.fullmatch(r"manylinux_2_(\d+)_(\w+)", platform):
        return found[2] == target.architecture and int(found[1]) <= target.glibc_minor
    older = ("linux", "manylinux1", "manylinux2010", "manylinux2014")
    return platform == "any" or platform in {f"{name}_{target.architecture}" for name in older}


def _kept(folder: Path) -> list[Wheel] | None:
    """The wheels of a folder, when all of them are what they were."""
    try:
        lock = msgspec.json.decode((folder / LOCK).read_bytes(), type=dict[str, str])
        wheels = [Wheel(folder / name, _sha256(folder / name)) for name in sorted(lock)]
    except (OSError, msgspec.DecodeError):
        return None
    return wheels if all(wheel.sha256 == lock[wheel.path.name] for wheel in wheels) else None


def _download(needed: list[str], target: Target, folder: Path) -> None:
    new = folder.with_name(folder.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    python = f"{target.python[0]}.{target.python[1]}"
    options = pip_options(target.architecture, target.glibc_minor, python)
    command = [sys.executable, "-m", "pip", "download", *options, f"--dest={new}", *downloadable(needed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        words = done.stderr.strip()[-WORDS_CHARACTERS_MAX:]
        raise ConfigError(
            f"pip finds no wheels for {target}: {words}\nWithout a network, give a folder of wheels: --from FOLDER"
        )
    write_repacked(new)
    lock = {path.name: _sha256(path) for path in sorted(new.glob("*.whl"))}
    (new / LOCK).write_bytes(msgspec.json.encode(lock))
    shutil.rmtree(folder, ignore_errors=True)
    new.rename(folder)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
