"""`python -m boards.launcher`: starts the slot that the boot record names, and leaves a slot that does not hold out.

It is the one part that can not be updated in flight, so it is small, imports the standard library alone
(`boards.boot_record` included) and decides nothing that the record does not say. docs/update.md explains it.

| in the folder of the slots | is |
|---|---|
| `disk/` | boot record and images: the disk of the node's slots (`boards.slots`), used here between boots |
| `A/`, `B/` | the environments of the slots, made from their images; made anew when a file in them does not hold |

F is the environment that the launcher itself runs in. A slot's environment holds its wheel alone; what the wheel
depends on comes from F.
"""

import argparse
import ctypes
import fcntl
import hashlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time  # noqa: TID251 - a watchdog is of the machine's time
import venv
import zipfile
import zlib
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Final

from boards import boot_record
from boards.boot_record import FACTORY, BootRecord

IMAGE_SUFFIX: Final = ".image"
MARK: Final = "image.sha256"
"""In an environment: which image it was made of."""
DEPENDENCIES: Final = "factory-dependencies.pth"
WATCHDOG_S: Final = 60.0
"""Longest silence of a program that runs [s]: six cycles of the rate group."""
START_S: Final = 120.0
"""Longest time to a program's first word [s]: a cold start of a small board takes ten."""
WORDS_S: Final = 2.0
"""How long a program that hangs may take for its last words [s]."""
TERM_S: Final = 20.0
"""How long a program may take to end when it is told to [s]."""
PAUSE_S_MAX: Final = 60.0
"""Longest pause before a crashed program is started again [s]; it doubles from one."""
BROWN_OUT_S: Final = 30.0
"""Pause after a brown-out [s]: a battery needs longer, but the program says so at once."""
STROKE_S: Final = 10.0
"""Longest silence of the launcher towards a service manager that watches it [s]: a sixth of the unit's WatchdogSec."""
PR_SET_PDEATHSIG: Final = 1
"""Source: prctl(2), linux/prctl.h."""
STOPPED, MISCONFIGURED, RESET, BROWN_OUT = 0, 2, 3, 4
"""Exit codes of the program (docs/programs.md); all others are crashes."""
HUNG: Final = -1
"""In place of an exit code: it was silent for too long and is killed."""


WHEEL_ERRORS: Final = (OSError, ValueError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error)
"""What a damaged or strange wheel makes `zipfile` raise: damage in each layer, unknown compression, encryption."""


class SlotError(Exception):
    """A slot cannot be started; says why."""


class Launcher:
    """Boots one node's slots.

    Args:
        folder: of the slots.
        arguments: what `python -m boards` is started with.
        watchdog_s: longest silence of the program [s].
        start_s: longest time to its first word [s].
    """

    def __init__(self, folder: Path, arguments: Sequence[str], watchdog_s: float, start_s: float) -> None:
        self._folder = folder
        self._disk = folder / "disk"
        self._arguments = arguments
        self._watchdog_s = watchdog_s
        self._start_s = start_s
        self._told = False
        self._disk.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(folder / "launcher.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # wakes the wait for the program's end

    def run(self) -> int:
        """Boot until told to end, or until the settings are wrong; returns the exit code."""
        crashes_count, ended_count, cause = 0, 0, ""
        tell("READY=1")
        while not self._ends():
            slot, command = self._choose()
            say(f"slot {slot} boots")
            tell(f"STATUS=slot {slot} runs, ended {ended_count} times")
            code = self._supervise(command, cause)
            say(f"slot {slot} ended with {'a hang' if code == HUNG else code}")
            ended_count += 1
            tell(f"STATUS=slot {slot} does not run, ended {ended_count} times")
            is_trial = self._load()[0].is_trial
            if self._ends() or (code == STOPPED and not is_trial):
                return STOPPED
            if code == MISCONFIGURED and not is_trial:
                return MISCONFIGURED
            cause = "WATCHDOG" if code == HUNG else ""
            crashes_count = 0 if code in (RESET, BROWN_OUT) else crashes_count + 1
            if code == BROWN_OUT:
                self._pause(BROWN_OUT_S)
            elif crashes_count > 1 and not is_trial:  # a trial has few boots, and then the old version is back
                self._pause(min(PAUSE_S_MAX, 2.0 ** (crashes_count - 2)))
        return STOPPED

    # -- which slot

    def _choose(self) -> tuple[str, list[str]]:
        """The slot to boot, paid for on the disk, and the command that starts it."""
        record, is_changed = self._load()
        while True:
            chosen = boot_record.chosen(record, partial(self._image_holds, record))
            if chosen != record or is_changed:
                try:
                    chosen = self._store(chosen)
                except OSError as error:
                    say(f"the boot record cannot be written: {error.strerror}")
                    chosen = boot_record.unpaid(chosen)
            slot = chosen.running
            try:
                return slot, [*self._python(chosen, slot), "-m", "boards", *self._arguments, "--slot", slot]
            except SlotError as error:
                # a slot that cannot be started is left, whether it was on trial or committed
                why = f"slot {slot} cannot be started: {error}"
                say(why)
                record, is_changed = boot_record.fallen_back(chosen, why), True

    def _load(self) -> tuple[BootRecord, bool]:
        def read(name: str) -> bytes | None:
            try:
                return (self._disk / name).read_bytes()
            except FileNotFoundError:
                return None
            except OSError:
                return b""  # there, and not to be read: damage

        return boot_record.load(read)

    def _store(self, record: BootRecord) -> BootRecord:
        return boot_record.store(record, lambda name, data: replace_file(self._disk / name, data))

    def _image_holds(self, record: BootRecord, slot: str) -> bool:
        content, data = record.contents.get(slot), self._image(slot)
        return content is not None and data is not None and hashlib.sha256(data).hexdigest() == content.sha256

    def _image(self, slot: str) -> bytes | None:
        try:
            return (self._disk / (slot + IMAGE_SUFFIX)).read_bytes()
        except OSError:
            return None

    # -- environments

    def _python(self, record: BootRecord, slot: str) -> list[str]:
        """The interpreter of a slot; its environment is made, or made anew, when it is not what the image says.

        Raises:
            SlotError: the image is no wheel, or its environment cannot be made.
        """
        if slot == FACTORY:
            return [sys.executable]
        sha256 = record.contents[slot].sha256
        image = self._disk / (slot + IMAGE_SUFFIX)
        environment = self._folder / slot
        try:
            with zipfile.ZipFile(image) as wheel:
                if not is_whole(environment, wheel, sha256):
                    say(f"slot {slot}: making its environment")
                    make_environment(environment, wheel, sha256)
        except WHEEL_ERRORS as error:
            raise SlotError(f"{type(error).__name__}: {error}") from None
        # isolated: neither the folder it is started in nor PYTHONPATH may stand before the slot's own packages
        return [str(environment / "bin" / "python"), "-I"]

    # -- the program

    def _supervise(self, command: list[str], cause: str) -> int:
        """Run the program to its end; returns its exit code, or HUNG."""
        if cause:
            command = [*command, "--cause", cause]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as words:
            words.bind("")  # the kernel picks an abstract name
            name = words.getsockname()
            words.setblocking(False)
            environment = os.environ | {
                "NOTIFY_SOCKET": "@" + name[1:].decode(),
                "WATCHDOG_USEC": str(round(self._watchdog_s * 1e6)),
            }
            program = subprocess.Popen(command, env=environment, preexec_fn=end_with_parent)
            try:
                return self._watch(program, words)
            finally:
                if program.poll() is None:
                    program.kill()
                    program.wait()

    def _watch(self, program: "subprocess.Popen[bytes]", words: socket.socket) -> int:
        """Wait for the end of the program, or for its silence. It speaks as systemd has it: `WATCHDOG=1`."""
        until_s = time.monotonic() + self._start_s
        is_ending = False
        while True:
            code = program.poll()
            if code is not None:
                return code if code >= 0 else 128 - code
            if self._ends() and not is_ending:
                is_ending = True
                program.terminate()
                until_s = time.monotonic() + TERM_S
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                program.send_signal(signal.SIGALRM)  # the program's own watchdog leaves the stack of what hangs
                self._pause(WORDS_S)
                return HUNG
            tell("WATCHDOG=1")
            readable, _, _ = select.select([words.fileno(), self._wake_read], [], [], min(left_s, STROKE_S))
            self._drain()
            if words.fileno() in readable and b"WATCHDOG=1" in words.recv(4096) and not is_ending:
                until_s = time.monotonic() + self._watchdog_s

    def _pause(self, pause_s: float) -> None:
        until_s = time.monotonic() + pause_s
        while not self._ends() and (left_s := until_s - time.monotonic()) > 0:
            tell("WATCHDOG=1")
            select.select([self._wake_read], [], [], min(left_s, STROKE_S))
            self._drain()

    def _drain(self) -> None:
        try:
            os.read(self._wake_read, 4096)
        except BlockingIOError:
            return

    def _end(self, *_: object) -> None:
        self._told = True

    def _ends(self) -> bool:
        return self._told


def is_whole(environment: Path, wheel: zipfile.ZipFile, sha256: str) -> bool:
    """Whether an environment was made of this wheel, and every file of it still is what it was."""
    packages = site_packages(environment)
    try:
        if (environment / MARK).read_text() != sha256:
            return False
        if (packages / DEPENDENCIES).read_text() != dependencies():
            return False
        if not os.access(environment / "bin" / "python", os.X_OK):
            return False
        return all((packages / name).read_bytes() == wheel.read(name) for name in files_of(wheel))
    except OSError:
        return False


def make_environment(environment: Path, wheel: zipfile.ZipFile, sha256: str) -> None:
    """Make an environment with the wheel in it, beside the old one, and put it in its place when it is durable.

    A wheel of Python alone is installed by unpacking it (PEP 427); one with scripts or data is refused.

    Raises:
        OSError: the disk does not take it. Others of WHEEL_ERRORS: the wheel is none of ours.
    """
    new = environment.with_name(environment.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    names = files_of(wheel)
    venv.create(new, symlinks=True, with_pip=False)
    packages = site_packages(new)
    for name in names:
        path = packages / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(wheel.read(name))
    (packages / DEPENDENCIES).write_text(dependencies())
    (new / MARK).write_text(sha256)
    os.sync()
    if environment.exists():
        shutil.rmtree(environment)
    new.rename(environment)
    sync(environment.parent)


def files_of(wheel: zipfile.ZipFile) -> list[str]:
    """Names of the files in a wheel of Python alone. Raises: ValueError."""
    names = [name for name in wheel.namelist() if not name.endswith("/")]
    for name in names:
        parts = PurePosixPath(name).parts
        if name.startswith("/") or ".." in parts or parts[0].endswith(".data"):
            raise ValueError(f"{name}: not a file of a wheel of Python alone")
    if not any(name.endswith(".dist-info/WHEEL") for name in names):
        raise ValueError("no wheel: it has no WHEEL file")
    return names


def site_packages(environment: Path) -> Path:
    """Where the packages of an environment lie."""
    return environment / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"


def dependencies() -> str:
    """A `.pth` file that adds the packages of F behind those of the slot."""
    paths = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    return "".join(f"{path}\n" for path in paths)


def replace_file(path: Path, data: bytes) -> None:
    """Replace a file, atomically and durably."""
    temporary = path.with_name(path.name + ".launcher~")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(folder: Path) -> None:
    """fsync of a folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def end_with_parent() -> None:
    """In the child: the kernel kills it when the launcher ends, or two programs would share one node's disk."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def tell(word: str) -> None:
    """Tell the service manager that has started the launcher, when there is one. Source: sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link, suppress(OSError):  # it has gone: so may we
            link.sendto(word.encode(), "\0" + address[1:] if address.startswith("@") else address)


def say(text: str) -> None:
    """One line of what happens, beside the program's own output."""
    sys.stderr.write(f"launcher: {text}\n")
    sys.stderr.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the launcher; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m boards.launcher",
        description="Boot the slots of a node: python -m boards from the environment that the boot record names.",
    )
    parser.add_argument("--config", type=Path, required=True, help="TOML file with the node's settings")
    parser.add_argument("--slots", type=Path, required=True, help="folder of the slots; made when missing")
    parser.add_argument("--watchdog", type=float, default=WATCHDOG_S, help="longest silence of the program [s]")
    parser.add_argument("--start", type=float, default=START_S, help="longest time to its first word [s]")
    parser.add_argument("--await-config", action="store_true", help="the program waits until the settings are there")
    given = parser.parse_args(arguments)
    folder = given.slots.absolute()
    program = ["--config", str(given.config.absolute()), "--slots", str(folder / "disk")]
    if given.await_config:
        program.append("--await-config")
    try:
        launcher = Launcher(folder, program, given.watchdog, given.start)
    except BlockingIOError:
        say(f"{folder}: another launcher has this folder")
        return MISCONFIGURED
    except OSError as error:
        say(f"{folder}: {error.strerror}")
        return MISCONFIGURED
    return launcher.run()


if __name__ == "__main__":
    sys.exit(main())
