"""What runs on the board during a deployment: one file of the standard library alone, sent over ssh and run by the
board's Python (3.11 or newer).

It takes an operation and the folder below which everything lies, reads one line of JSON and what it announces from
standard input, and answers with one line of JSON: the result, or `{"error": ...}`.

| in `/opt/flatrack` | is |
|---|---|
| `wheels/<sha256>.whl` | what was sent, by content |
| `environments/<digest>/` | a virtual environment made of wheels, with `environment.json`: its files and their sizes |
| `releases/<digest>/` | `settings/`, `flatrack.service`, `release.json`, and links to an environment and to its slots |
| `current` | link to the release that runs; `/etc/flatrack` is a link to its settings |
| `trial.json` | there while the release that runs is not yet confirmed, and what was there before it |

Each thing is made under another name, written through, and renamed: a cut at any instant leaves it there or not. A
release that is not confirmed is left again: by `revert`, by the guard when nobody came back in time, and by `settle`
before the service starts when the board was restarted meanwhile.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import venv
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import cache_from_source
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

UNIT = "flatrack.service"
FIRST_BOOT_UNIT = "flatrack-first-boot.service"
"""The service of a prepared card."""
ENVIRONMENT_MARK = "environment.json"
RELEASE_MARK = "release.json"
LOAN = "before-run/loan.json"  # of settings that are those of a run: hil/on_board/loan.py
PIECE_BYTES = 1 << 20
SPARE_BYTES = 32 << 20
"""What a deployment leaves free on the disk [bytes]: the node's own storage and the journal need some."""
UNPACKED = 2
"""How much larger an environment is than the files of its wheels: compiled code."""
OLD = ".old"
"""What a folder is called while another takes its place."""
TOOL_S = 120.0
"""Longest wait for systemctl [s]: a stop of the node takes up to 30, a start of it up to 60."""

Result = dict[str, Any]


class Refused(Exception):
    """The operation cannot be done; says why."""


class Board:
    """The board's file system and its service.

    Args:
        prefix: folder below which /opt, /etc and /var lie.
        source: of this program; it is kept on the board for the guard and for the service.
    """

    def __init__(self, prefix: Path, source: str) -> None:
        self.prefix = prefix
        self.source = source
        self.home = prefix / "opt/flatrack"
        self.wheels = self.home / "wheels"
        self.environments = self.home / "environments"
        self.releases = self.home / "releases"
        self.current = self.home / "current"
        self.trial = self.home / "trial.json"
        self.program = self.home / "board_side.py"
        self.settings = prefix / "etc/flatrack"
        self.settings_before = prefix / "etc/flatrack.before"
        self.unit = prefix / "etc/systemd/system" / UNIT
        self.unit_of_first_boot = self.unit.with_name(FIRST_BOOT_UNIT)
        self.watchdog = prefix / "etc/systemd/system.conf.d/flatrack.conf"
        self.state = prefix / "var/lib/flatrack"
        self.lock = prefix / "run/flatrack-deploy.lock"

    # -- operations

    def look(self, request: Result) -> Result:
        """What is there. Asked: `release`, `environment`: digests; empty ones are not there."""
        about = read_json(self.current / RELEASE_MARK) or {}
        return {
            "current": self._current(),
            "version": about.get("version"),
            "node": about.get("node"),
            "trial": read_json(self.trial),
            "wheels": sorted(path.stem for path in self.wheels.glob("*.whl")),
            "is_active": self._systemctl("is-active", UNIT, is_asked=True) == "active",
            "is_lent": (self.settings / LOAN).exists(),
            "has_environment": self._environment_holds(request["environment"]),
            "has_release": self._release_holds(request["release"]),
        }

    def push(self, request: Result, payload: BinaryIO) -> Result:
        """Take wheels: `wheels`, a list of `[sha256, size_bytes]`, whose bytes follow one after the other."""
        self.wheels.mkdir(parents=True, exist_ok=True)
        self._check_space(sum(size_bytes for _, size_bytes in request["wheels"]))
        for sha256, size_bytes in request["wheels"]:
            part = self.wheels / f"{sha256}.part"
            digest = hashlib.sha256()
            with part.open("wb") as file:
                while size_bytes:
                    piece = payload.read(min(PIECE_BYTES, size_bytes))
                    if not piece:
                        raise Refused("the connection ended inside a wheel")
                    digest.update(piece)
                    file.write(piece)
                    size_bytes -= len(piece)
                written(file)
            if digest.hexdigest() != sha256:
                part.unlink()
                raise Refused(f"wheel {sha256[:12]}: came with another content")
            part.rename(self.wheels / f"{sha256}.whl")
        sync(self.wheels)
        return {}

    def install(self, request: Result, payload: BinaryIO) -> Result:
        """Make environment and release: `release`, `environment`, `wheels` (digests), `files`: `[name, mode, size]`,
        whose bytes follow, and `about`, kept with the release."""
        files = [(name, mode, payload.read(size_bytes)) for name, mode, size_bytes in request["files"]]
        if [len(data) for _, _, data in files] != [size_bytes for _, _, size_bytes in request["files"]]:
            raise Refused("the connection ended inside a file")
        is_new = not self._environment_holds(request["environment"])
        if is_new:
            self._make_environment(request["environment"], request["wheels"])
        if not self._release_holds(request["release"]):
            self._make_release(request, files)
            is_new = True
        return {"is_new": is_new}

    def activate(self, request: Result) -> Result:
        """Try a release: flip to it and restart the service. Who does not confirm it within `confirm_s` loses it."""
        after = request["release"]
        unit = self.unit.read_text() if self.unit.exists() else None
        token = f"{os.getpid()}-{time.time_ns()}"
        trial = {"before": self._current(), "after": after, "unit_before": unit, "boot_id": boot_id(), "token": token}
        replace(self.program, self.source.encode(), 0o644)
        replace(self.trial, json.dumps(trial).encode(), 0o600)
        self._start_guard(token, request["confirm_s"])
        self._systemctl("stop", UNIT, is_asked=True)  # from here on, who speaks is the release on trial
        self._flip(after)
        self._systemctl("daemon-reload")
        self._systemctl("enable", UNIT)
        self._systemctl("reset-failed", UNIT, is_asked=True)
        self._systemctl("restart", "--no-block", UNIT)
        return {"before": trial["before"]}

    def confirm(self, request: Result) -> Result:
        """Keep the release on trial, and forget older ones; `listens`: else the launcher must say that it holds."""
        trial = read_json(self.trial)
        if trial is None or trial["after"] != request["release"] or self._current() != request["release"]:
            raise Refused("the release was left again before it was confirmed")
        if self._systemctl("is-active", UNIT, is_asked=True) != "active":
            raise Refused("the service does not run any longer")
        if not request["listens"]:
            status = self._systemctl("show", "--property=StatusText", "--value", UNIT, is_asked=True)
            if not status.endswith("ended 0 times"):
                raise Refused(f"the service says {status or 'nothing of its node'!r}, expected ... ended 0 times")
        self.trial.unlink()
        sync(self.home)
        self._prune({trial["after"], trial["before"]})
        return {}

    def revert(self, _: Result) -> Result:
        """Leave a release that is on trial: back to what was before it, and restart the service."""
        trial = read_json(self.trial)
        if trial is None:
            return {"to": self._current()}
        self._go_back(trial)
        self._systemctl("daemon-reload")
        self._systemctl("reset-failed", UNIT, is_asked=True)
        if self.unit.exists():
            self._systemctl("restart", "--no-block", UNIT)
        else:
            self._systemctl("stop", UNIT, is_asked=True)
        return {"to": trial["before"]}

    def remove(self, request: Result) -> Result:
        """Leave nothing: unit, releases, keys, and with `with_data` what the node has kept."""
        self._systemctl("disable", "--now", UNIT, is_asked=True)
        self._systemctl("disable", FIRST_BOOT_UNIT, is_asked=True)
        reload = "daemon-reexec" if self.watchdog.exists() else "daemon-reload"  # the one reads system.conf too
        places = [self.unit, self.unit_of_first_boot, self.watchdog, self.settings, self.settings_before, self.home]
        if request["with_data"]:
            places.append(self.state)
        for path in places:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        self._systemctl(reload)
        return {"left": [str(path) for path in places if os.path.lexists(path)]}

    def settle(self) -> None:
        """Before the service starts: what a cut has left without its folder is put back, and a release whose trial was
        cut short by a restart of the board is left."""
        for path in (*self.environments.glob(f"*{OLD}"), *self.releases.glob(f"*{OLD}")):
            if not path.with_suffix("").exists():
                path.rename(path.with_suffix(""))
                sync(path.parent)
        trial = read_json(self.trial)
        if trial is not None and trial["boot_id"] != boot_id():
            self._go_back(trial)

    def guard(self, token: str, wait_s: float) -> None:
        """Wait, and leave the release on trial unless it was confirmed meanwhile, or another trial has begun."""
        time.sleep(wait_s)
        with self.held(wait=True):
            if (trial := read_json(self.trial)) is not None and trial["token"] == token:
                self.revert({})

    # -- parts

    @contextmanager
    def held(self, wait: bool = False) -> Iterator[None]:
        """Have the board's releases for oneself."""
        self.lock.parent.mkdir(parents=True, exist_ok=True)
        with self.lock.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                raise Refused("another deployment is at work on this board") from None
            yield

    def _current(self) -> str | None:
        try:
            return self.current.readlink().name
        except OSError:
            return None

    def _flip(self, release: str) -> None:
        """Make a release the one that runs: its unit, then settings and programs in one rename."""
        self.unit.parent.mkdir(parents=True, exist_ok=True)
        replace(self.unit, (self.releases / release / UNIT).read_bytes(), 0o644)
        if self.settings.is_dir() and not self.settings.is_symlink():  # of an image or a card
            shutil.rmtree(self.settings_before, ignore_errors=True)
            self.settings.rename(self.settings_before)
        link(self.settings, self.current / "settings")
        link(self.current, Path("releases") / release)

    def _go_back(self, trial: Result) -> None:
        if trial["before"] is not None:
            self._flip(trial["before"])
        else:
            self.current.unlink(missing_ok=True)
            if self.settings.is_symlink():
                self.settings.unlink()
            if self.settings_before.exists():
                self.settings_before.rename(self.settings)
            if trial["unit_before"] is None:
                self._systemctl("disable", UNIT, is_asked=True)
                self.unit.unlink(missing_ok=True)
            else:
                replace(self.unit, trial["unit_before"].encode(), 0o644)
        self.trial.unlink(missing_ok=True)
        sync(self.home)

    def _start_guard(self, token: str, confirm_s: float) -> None:
        command = [sys.executable, "-I", str(self.program), "guard", str(self.prefix), token, str(confirm_s)]
        nothing = subprocess.DEVNULL
        subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True)

    def _environment_holds(self, digest: str) -> bool:
        """Whether an environment is there, with all files as long as they were."""
        folder = self.environments / digest
        try:
            files = json.loads((folder / ENVIRONMENT_MARK).read_text())
            return (
                bool(digest)
                and (folder / "bin/python").exists()
                and all((folder / name).stat().st_size == size_bytes for name, size_bytes in files)
            )
        except (OSError, ValueError):
            return False

    def _make_environment(self, digest: str, wheels: list[str]) -> None:
        folder, new = self.environments / digest, self.environments / f"{digest}.new"
        shutil.rmtree(new, ignore_errors=True)
        packages = new / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
        with ExitStack() as opened:
            found = [opened.enter_context(zipfile.ZipFile(self.wheels / f"{sha256}.whl")) for sha256 in wheels]
            self._check_space(UNPACKED * sum(entry.file_size for wheel in found for entry in wheel.infolist()))
            venv.create(new, symlinks=True, with_pip=False)
            for wheel in found:
                unpack(wheel, packages, new)
        compiled = [sys.executable, "-I", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
        bare = [str(path) for path in packages.rglob("*.py") if not Path(cache_from_source(str(path))).exists()]
        if bare:  # a wheel may bring its compiled code: a small board takes minutes for that
            # a package may have files of another Python's syntax: what is not compiled is not imported either
            command = [*compiled, "-s", str(new), "-p", str(folder), "-i", "-"]
            subprocess.run(command, input="\n".join(bare), text=True, capture_output=True, check=False)
        laid = [path for path in packages.rglob("*") if path.is_file()]
        files = sorted((str(path.relative_to(new)), path.stat().st_size) for path in laid)
        (new / ENVIRONMENT_MARK).write_text(json.dumps(files))
        put_in_place(new, folder)

    def _release_holds(self, digest: str) -> bool:
        """Whether a release is there, with every file as it was sent, and not lent to a bench."""
        folder = self.releases / digest
        try:
            about = json.loads((folder / RELEASE_MARK).read_text())
            return not (folder / "settings" / LOAN).exists() and all(
                hashlib.sha256((folder / name).read_bytes()).hexdigest() == sha256
                and (folder / name).stat().st_mode & 0o777 == mode
                for name, mode, sha256 in about["files"]
            )
        except (OSError, ValueError):
            return False

    def _make_release(self, request: Result, files: list[tuple[str, int, bytes]]) -> None:
        digest = request["release"]
        folder, new = self.releases / digest, self.releases / f"{digest}.new"
        shutil.rmtree(new, ignore_errors=True)
        (new / "settings").mkdir(parents=True)
        (new / "settings").chmod(0o700)
        for name, mode, data in files:
            replace(inside(new, name), data, mode)
        slots = self.state / "slots" / request["environment"]
        slots.mkdir(parents=True, exist_ok=True)
        (new / "environment").symlink_to(Path("../../environments") / request["environment"])
        (new / "slots").symlink_to(slots)
        about = request["about"] | {
            "environment": request["environment"],
            "wheels": request["wheels"],
            "files": [[name, mode, hashlib.sha256(data).hexdigest()] for name, mode, data in files],
        }
        replace(new / RELEASE_MARK, json.dumps(about, indent=1).encode(), 0o644)
        put_in_place(new, folder)

    def _prune(self, kept: set[str | None]) -> None:
        environments: set[str] = set()
        wheels: set[str] = set()
        for path in list(self.releases.iterdir()):
            if path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)
                continue
            about = json.loads((path / RELEASE_MARK).read_text())
            environments.add(about["environment"])
            wheels.update(f"{sha256}.whl" for sha256 in about["wheels"])
        for folder in (self.environments, self.state / "slots"):
            for path in folder.iterdir():
                if path.name not in environments:
                    shutil.rmtree(path, ignore_errors=True)
        for path in self.wheels.iterdir():
            if path.name not in wheels:
                path.unlink()

    def _check_space(self, needed_bytes: int) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        free, wanted = shutil.disk_usage(self.home).free, needed_bytes + SPARE_BYTES
        if free < wanted:
            raise Refused(f"disk full: {free >> 20} MiB free below {self.home}, expected {wanted >> 20} MiB")

    def _systemctl(self, *arguments: str, is_asked: bool = False) -> str:
        """Run systemctl; its first line. A question has no wrong answer."""
        command = ["systemctl", *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TOOL_S, check=False)
        except FileNotFoundError:
            raise Refused("systemctl: not found, expected a board with systemd") from None
        except subprocess.TimeoutExpired:
            raise Refused(f"systemctl {arguments[0]}: has not ended within {TOOL_S:g} s") from None
        if done.returncode and not is_asked:
            raise Refused(f"systemctl {' '.join(arguments)}: {done.stderr.strip() or done.returncode}")
        return done.stdout.partition("\n")[0].strip()


def unpack(wheel: zipfile.ZipFile, packages: Path, environment: Path) -> None:
    """Install a wheel as PEP 427 says, without its scripts' wrappers: nobody calls them on a board."""
    places = {"purelib": packages, "platlib": packages, "data": environment}
    for entry in wheel.infolist():
        if entry.is_dir():
            continue
        folder, name = packages, entry.filename
        first, _, rest = name.partition("/")
        if first.endswith(".data"):
            kind, _, name = rest.partition("/")
            if kind not in places:
                continue
            folder = places[kind]
        path = inside(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with wheel.open(entry) as source, path.open("wb") as target:
            shutil.copyfileobj(source, target)


def read_json(path: Path) -> Result | None:
    """What a file of ours says; None where it is not there, or damaged."""
    try:
        content: Result = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content


def inside(folder: Path, name: str) -> Path:
    """A file below a folder. Raises: Refused: it would lie elsewhere."""
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or not parts:
        raise Refused(f"{name}: no name of a file below {folder}")
    return folder / name


def put_in_place(new: Path, folder: Path) -> None:
    """Have a folder that is whole take the place of another, durably. A cut leaves one of them, or `settle` does."""
    old = folder.with_name(folder.name + OLD)
    os.sync()
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    new.rename(folder)
    sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def replace(path: Path, data: bytes, mode: int) -> None:
    """Replace a file, atomically and durably."""
    temporary = path.with_name(path.name + "~")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        os.fchmod(descriptor, mode)
        written(file)
    temporary.replace(path)
    sync(path.parent)


def link(path: Path, target: Path) -> None:
    """Make or replace a symbolic link, atomically and durably."""
    temporary = path.with_name(path.name + "~")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(path)
    sync(path.parent)


def written(file: BinaryIO) -> None:
    """Have what was written to a file on the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync(folder: Path) -> None:
    """fsync of a folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def boot_id() -> str:
    """Which start of the kernel this is."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def perform(board: Board, operation: str, request: Result) -> Result:
    """Do one operation; its result. Raises: Refused, OSError."""
    if operation == "look":
        return board.look(request)
    with_payload = {"push": board.push, "install": board.install}
    others = {"activate": board.activate, "confirm": board.confirm, "remove": board.remove, "revert": board.revert}
    with board.held(wait=operation == "revert"):  # the guard may just be at the same
        if operation in with_payload:
            return with_payload[operation](request, sys.stdin.buffer)
        return others[operation](request)


def main(arguments: list[str], source: str) -> None:
    """Do one operation."""
    operation, prefix = arguments[:2]
    board = Board(Path(prefix), source)
    if operation == "settle":
        board.settle()
        return
    if operation == "guard":
        board.guard(arguments[2], float(arguments[3]))
        return
    try:
        request: Result = json.loads(sys.stdin.buffer.readline())
        result = perform(board, operation, request)
    except Refused as refused:
        result = {"error": str(refused)}
    except zipfile.BadZipFile as error:
        result = {"error": f"a wheel is damaged: {error}"}
    except OSError as error:
        result = {"error": f"{error.filename or operation}: {error.strerror}"}
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:], globals().get("SOURCE", ""))
