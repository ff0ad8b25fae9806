"""Files of a kernel, read under a root folder: each read is bounded, and what cannot be had is a `SensorError`.

sysfs is no promise. A file may be missing (`ENOENT`), refuse for a while (`EAGAIN`: the block behind it has no power),
fail (`EIO`), be empty or hold nonsense, and numbers of hwmon devices change from boot to boot. So devices are found by
what they say of themselves, hwmon chips by `name` and thermal zones by `type`, and they are looked for at each reading:
a chip that has moved is found again, and one that comes back reads again.

Layouts. Source: Linux Documentation/hwmon/sysfs-interface.rst, Documentation/driver-api/thermal/sysfs-api.rst.
"""

import errno
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flightsw.errors import SensorError

FILE_BYTES_MAX: Final = 4096
"""What is read of one file [bytes]: sysfs gives a page at most."""
ENTRIES_MAX: Final = 512
"""Entries of one folder that are looked at: a large host has some 300 in /sys/class/tty."""
SHOWN_MAX: Final = 24
"""Characters of nonsense that a reason shows: reasons travel in events."""

WHOLE: Final = re.compile(r"-?[0-9]{1,19}")
PIECES: Final = re.compile(r"(\d+)")

Reader = Callable[[Path, int], bytes]
"""Reads one file, this many bytes at most. Raises: OSError."""


def read_file(path: Path, limit_bytes: int) -> bytes:
    """What the file holds, `limit_bytes` at most. Raises: OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        pieces = []
        while limit_bytes > 0 and (piece := os.read(descriptor, limit_bytes)):  # /proc gives a page at a time
            pieces.append(piece)
            limit_bytes -= len(piece)
        return b"".join(pieces)
    finally:
        os.close(descriptor)


class BoardFiles:
    """The files of one board. Names begin with `/`, as on the board itself.

    Args:
        root: folder that stands for `/`.
        read: how one file is read; tests and recorded trees give their own.
    """

    def __init__(self, root: Path, read: Reader = read_file) -> None:
        self.root = root
        self._read = read

    def path(self, name: str) -> Path:
        """Where a file of the board lies on this machine."""
        return self.root / name.lstrip("/")

    def data(self, name: str, limit_bytes: int = FILE_BYTES_MAX) -> bytes:
        """What a file holds. Raises: SensorError."""
        try:
            return self._read(self.path(name), limit_bytes)
        except OSError as error:
            raise SensorError(reason(error)) from None

    def text(self, name: str, limit_bytes: int = FILE_BYTES_MAX) -> str:
        """A file of text, without blanks around it. Raises: SensorError: not read, empty or no text."""
        try:
            text = self.data(name, limit_bytes).decode("utf-8").strip()
        except UnicodeDecodeError:
            raise SensorError("not text") from None
        if not text:
            raise SensorError("empty")
        if not text.replace("\n", "").replace("\t", "").isprintable():
            raise SensorError(f"not text: {shown(text)}")
        return text

    def text_or(self, name: str, otherwise: str = "") -> str:
        """A file of text, or another text where it cannot be read."""
        try:
            return self.text(name)
        except SensorError:
            return otherwise

    def strings(self, name: str) -> tuple[str, ...]:
        """Strings of a device-tree property: each ends with a NUL. Raises: SensorError."""
        try:
            texts = self.data(name).decode("ascii").rstrip("\0\n").split("\0")
        except UnicodeDecodeError:
            raise SensorError("not text") from None
        if not texts[0] or not all(text.isprintable() for text in texts):
            raise SensorError("empty" if not texts[0] else f"not text: {shown(texts[0])}")
        return tuple(texts)

    def integer(self, name: str, low: int, high: int) -> int:
        """A file with one whole number. Raises: SensorError: also outside of low to high, which are in its unit."""
        return whole(self.text(name), low, high)

    def number(self, name: str, parts: int, low: float, high: float) -> float:
        """A count of `parts` of a unit, in that unit, within low to high. Raises: SensorError."""
        return in_range(self.integer(name, -(10**18), 10**18) / parts, low, high)

    def flag(self, name: str) -> bool:
        """A file with 0 or 1. Raises: SensorError."""
        return self.integer(name, 0, 1) == 1

    def names(self, folder: str) -> list[str]:
        """Names in a folder, numbers in their order; empty where it cannot be read."""
        try:
            with os.scandir(self.path(folder)) as entries:
                found = [entry.name for entry, _ in zip(entries, range(ENTRIES_MAX), strict=False)]
        except OSError:
            return []
        return sorted(found, key=_natural)

    def has(self, name: str) -> bool:
        """Whether the name is there, readable or not."""
        return os.path.lexists(self.path(name))

    def place(self, name: str) -> str:
        """Where a name lies when all links are followed, as a name on the board."""
        return "/" + os.path.relpath(os.path.realpath(self.path(name)), os.path.realpath(self.root))

    def write(self, name: str, text: str) -> None:
        """Write to a file of the kernel. Raises: SensorError."""
        try:
            descriptor = os.open(self.path(name), os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
            try:
                os.write(descriptor, text.encode())
            finally:
                os.close(descriptor)
        except OSError as error:
            raise SensorError(reason(error)) from None


@dataclass(frozen=True, slots=True)
class Device:
    """A hwmon chip or a thermal zone: what it calls itself, and the folder where it is this time."""

    name: str
    folder: str


def hwmon_chips(files: BoardFiles) -> list[Device]:
    """The chips that say their name. Two of a name get `#2`, `#3` behind it, in the order of their numbers."""
    return _named(files, "/sys/class/hwmon", "hwmon", "name")


def thermal_zones(files: BoardFiles) -> list[Device]:
    """The zones that say their type, as `hwmon_chips`."""
    return _named(files, "/sys/class/thermal", "thermal_zone", "type")


def cooling_devices(files: BoardFiles) -> list[Device]:
    """What can be slowed or driven against heat, as `hwmon_chips`."""
    return _named(files, "/sys/class/thermal", "cooling_device", "type")


def channels(files: BoardFiles, chip: Device, kind: str) -> list[str]:
    """Channels of a chip of a kind, for example `in1` and `in3` of kind `in`."""
    pattern = re.compile(rf"({kind}\d+)_input")
    return [match[1] for name in files.names(chip.folder) if (match := pattern.fullmatch(name))]


def whole(text: str, low: int, high: int) -> int:
    """A whole number from text. Raises: SensorError."""
    if WHOLE.fullmatch(text) is None:
        raise SensorError(f"not a whole number: {shown(text)}")
    value = int(text)
    if not low <= value <= high:
        raise SensorError(f"out of range: {value}, expected {low} to {high}")
    return value


def in_range(value: float, low: float, high: float) -> float:
    """The value. Raises: SensorError: it is outside of what can be."""
    if not low <= value <= high:
        raise SensorError(f"out of range: {value:g}, expected {low:g} to {high:g}")
    return value


def shown(text: str) -> str:
    """A short printable form of what was read."""
    return ascii(text if len(text) <= SHOWN_MAX else text[:SHOWN_MAX] + "...")


def reason(error: OSError) -> str:
    """Name of the error number, as the kernel's documents have it."""
    return errno.errorcode.get(error.errno or 0, type(error).__name__)


def _named(files: BoardFiles, folder: str, prefix: str, file: str) -> list[Device]:
    devices: list[Device] = []
    counts: dict[str, int] = {}
    for entry in files.names(folder):
        if not entry.startswith(prefix):
            continue
        try:
            name = files.text(f"{folder}/{entry}/{file}")
        except SensorError:
            continue  # whoever knew it under its name misses it, and says so
        if len(name) > SHOWN_MAX:
            continue
        counts[name] = counts.get(name, 0) + 1
        devices.append(Device(name if counts[name] == 1 else f"{name}#{counts[name]}", f"{folder}/{entry}"))
    return devices


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(piece), "") if piece.isascii() and piece.isdigit() else (-1, piece) for piece in PIECES.split(name)]
