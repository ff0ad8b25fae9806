"""What goes into the image besides Debian's packages: our wheel, and arm64 wheels of what it depends on.

Not all of that has wheels for arm64. What is there only as source with an optional extension (`REPACKED`) is packed
here, from the distribution that is installed on this machine and without its extension: `write_repacked`.
"""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Final

import boards
import flightsw
import ground
import hil
from flightsw.errors import ConfigError
from hil.emulation.recipe import digest

OURS: Final = (flightsw, boards, ground, hil)
REPACKED: Final = ("cobs",)
"""Distributions without arm64 wheels whose compiled part is optional: theirs is in Python too."""
EXTRA: Final = "ai"
"""The extra whose requirements a board has too."""
GLIBC_MINOR_MIN: Final = 17
"""Oldest glibc 2.x that wheels ask for under this name (PEP 600); manylinux2014 is its older name."""
GLIBC_MINOR: Final = 36
"""That of Debian 12."""
STAMP: Final = (2026, 1, 1, 0, 0, 0)
"""Date of all files in our wheel: the same code gives the same bytes."""
_OUTPUT_CHARACTERS: Final = 600


def cache_folder(name: str) -> Path:
    """Where things of this name are kept: `$XDG_CACHE_HOME/flatrack/<name>`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "flatrack" / name


def requirements() -> list[str]:
    """What our wheel depends on, on a board; as the installed distribution says it."""
    found = []
    for text in importlib.metadata.requires("flatrack") or []:
        requirement, _, marker = text.partition(";")
        if not marker or f'"{EXTRA}"' in marker or f"'{EXTRA}'" in marker:
            found.append(requirement.strip())
    return sorted(found)


def own_files() -> dict[str, bytes]:
    """Our four packages and their distribution's information, as a wheel holds them; from a checkout or installed."""
    files: dict[str, bytes] = {}
    for package in OURS:
        (folder,) = map(Path, package.__path__)
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                files[(folder.name / path.relative_to(folder)).as_posix()] = path.read_bytes()
    distribution = importlib.metadata.distribution("flatrack")
    info = f"flatrack-{distribution.version}.dist-info"
    files[f"{info}/METADATA"] = (distribution.read_text("METADATA") or "").encode()
    files[f"{info}/entry_points.txt"] = (distribution.read_text("entry_points.txt") or "").encode()
    return files | _about_wheel(info, files)


def own_digest(files: dict[str, bytes]) -> str:
    """Of our packages, as they are now."""
    return digest(*(part for name, data in files.items() for part in (name, data)))


def write_wheel(folder: Path) -> Path:
    """Write our wheel into a folder; returns its path."""
    return _write(folder, "flatrack", own_files())


def write_repacked(folder: Path) -> list[Path]:
    """Write wheels of pure Python of what has none for arm64, from what is installed here; returns their paths."""
    wheels = []
    for name in REPACKED:
        files = {}
        for path in importlib.metadata.files(name) or []:
            is_compiled = path.suffix in (".so", ".pyd", ".pyc")
            if not is_compiled and ".." not in path.parts and path.name not in ("RECORD", "WHEEL", "INSTALLER"):
                files[path.as_posix()] = Path(path.locate()).read_bytes()
        info = next(file.partition("/")[0] for file in files if file.endswith(".dist-info/METADATA"))
        wheels.append(_write(folder, name, files | _about_wheel(info, files)))
    return wheels


def downloadable(needed: list[str]) -> list[str]:
    """Those requirements that have arm64 wheels."""
    return [text for text in needed if not text.startswith(REPACKED)]


def _about_wheel(info: str, files: dict[str, bytes]) -> dict[str, bytes]:
    wheel = b"Wheel-Version: 1.0\nGenerator: flatrack\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = "".join(f"{name},,\n" for name in (*files, f"{info}/WHEEL", f"{info}/RECORD"))
    return {f"{info}/WHEEL": wheel, f"{info}/RECORD": record.encode()}


def _write(folder: Path, name: str, files: dict[str, bytes]) -> Path:
    path = folder / f"{name}-{importlib.metadata.version(name)}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, data in files.items():
            archive.writestr(zipfile.ZipInfo(file, STAMP), data)
    return path


def pip_options(architecture: str, glibc_minor: int, python: str) -> list[str]:
    """What makes pip take wheels for another machine, and nothing but wheels.

    Args:
        architecture: of the machine, as uname(1) has it.
        glibc_minor: of its glibc 2.x.
        python: its version: 3.11.
    """
    minors = range(glibc_minor, GLIBC_MINOR_MIN - 1, -1)
    tags = [*(f"manylinux_2_{minor}" for minor in minors), "manylinux2014"]
    platforms = [f"--platform={tag}_{architecture}" for tag in tags]
    fixed = ["--quiet", "--disable-pip-version-check", "--implementation=cp", "--only-binary=:all:"]
    return [*fixed, *platforms, f"--python-version={python}"]


def install_dependencies(needed: list[str], to: Path, python: str) -> None:
    """Install wheels for arm64 into a folder, without running them.

    Raises:
        ConfigError: pip is missing, or finds no wheel.
    """
    command = [sys.executable, "-m", "pip", "install", *pip_options("aarch64", GLIBC_MINOR, python), "--no-compile"]
    with tempfile.TemporaryDirectory() as folder:
        repacked = map(str, write_repacked(Path(folder)))
        command += [f"--target={to}", *downloadable(needed), *repacked]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ConfigError(f"pip finds no arm64 wheels: {done.stderr.strip()[-_OUTPUT_CHARACTERS:]}")
    for tests in sorted(to.rglob("tests"), reverse=True):
        shutil.rmtree(tests)
