"""Disks of this machine, and the reasons not to write on one of them.

Everything is read from sysfs and procfs below a root, so that every reason can be tried on laid-out files.

| reason | read from |
|---|---|
| not a whole disk | `/sys/class/block/NAME/partition` |
| mounted, or swapped on: it or a partition of it | `/proc/self/mountinfo` (by number and by name), `/proc/swaps` |
| in use by a volume manager, RAID or encryption | `/sys/class/block/NAME/holders` |
| holds the running system | the device numbers below `/` and `/boot` |
| read-only | `/sys/class/block/NAME/ro` |
| too small | `/sys/class/block/NAME/size`, in sectors of 512 bytes |
| another disk than before | `/sys/class/block/NAME/diskseq` (Linux 5.15), and all that is known of it |
| not removable | `removable`, a way through USB, or the type of a card, in sysfs |

Source: the kernel's Documentation/ABI/stable/sysfs-block and proc(5).
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flightsw.errors import ConfigError

SECTOR_BYTES: Final = 512
ROOT: Final = Path("/")
USB_WAY: Final = "/usb"
"""What stands in the sysfs path of a disk that is plugged in by USB."""
SD_CARD: Final = "SD"
"""Type of a card in a reader that is an MMC host; what is soldered on has MMC."""


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk as this machine sees it."""

    device: Path
    name: str
    """In /sys/class/block."""
    size_bytes: int
    model: str
    serial: str
    sequence: str
    """The kernel's number of this disk, which no other has had since the start; none before Linux 5.15."""
    is_removable: bool
    is_read_only: bool
    is_whole: bool
    users: tuple[str, ...]
    """Who uses it or a part of it: one line each."""

    def line(self) -> str:
        """What a person would know it by."""
        way = "removable" if self.is_removable else "built in"
        model, serial = self.model or "no model", self.serial or "unknown"
        return f"{self.device}: {model}, serial {serial}, {size(self.size_bytes)}, {way}"


def size(size_bytes: int) -> str:
    """A size as it is printed on a card."""
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.1f} MB"


def look_at(device: Path, root: Path = ROOT) -> Disk:
    """What this machine knows of a device.

    Args:
        device: such as /dev/sda; links are followed.
        root: where sysfs and procfs lie.

    Raises:
        ConfigError: it is not there, or no block device.
    """
    try:
        found = device.resolve(strict=True)
        status = found.stat()
    except OSError as error:
        raise ConfigError(f"{device}: cannot be used: {error.strerror}") from None
    if not stat.S_ISBLK(status.st_mode):
        raise ConfigError(f"{device}: no block device, expected a disk such as /dev/sdX")
    return disk_of(device, os.major(status.st_rdev), os.minor(status.st_rdev), root)


def disk_of(device: Path, major: int, minor: int, root: Path = ROOT) -> Disk:
    """What this machine knows of a block device by its number.

    Raises:
        ConfigError: sysfs does not know it.
    """
    folder = (root / "sys/dev/block" / f"{major}:{minor}").resolve()
    if not folder.is_dir():
        raise ConfigError(f"{device}: device {major}:{minor} is not in sysfs, expected a disk of this machine")
    below = "/" + str(folder.relative_to(root.resolve()))
    return Disk(
        device=device,
        name=folder.name,
        size_bytes=int(_text(folder / "size") or 0) * SECTOR_BYTES,
        model=" ".join(filter(None, (_text(folder / "device" / name) for name in ("vendor", "model", "name")))),
        serial=_text(folder / "device/serial"),
        sequence=_text(folder / "diskseq"),
        is_removable=_text(folder / "removable") == "1" or USB_WAY in below or _text(folder / "device/type") == SD_CARD,
        is_read_only=_text(folder / "ro") == "1",
        is_whole=not (folder / "partition").exists(),
        users=tuple(_users(folder, root)),
    )


def check_target(disk: Disk, wanted_bytes: int, *, may_be_fixed: bool) -> None:
    """Refuse a disk that must not be written on.

    Args:
        disk: as it is now.
        wanted_bytes: size of what is to be written.
        may_be_fixed: whether a disk that cannot be taken out is meant.

    Raises:
        ConfigError: says why not.
    """
    if not disk.is_whole:
        raise ConfigError(f"{disk.device}: is a partition, expected the whole disk")
    if disk.users:
        raise ConfigError(f"{disk.device}: {disk.users[0]}, expected a disk that nobody uses")
    if disk.is_read_only:
        raise ConfigError(f"{disk.device}: is read-only, expected a disk that can be written; is the card locked?")
    if disk.size_bytes < wanted_bytes:
        raise ConfigError(f"{disk.device}: has {disk.size_bytes} bytes, expected at least {wanted_bytes}")
    if not disk.is_removable and not may_be_fixed:
        raise ConfigError(f"{disk.device}: is built in, expected a card or a USB disk; --force-fixed when it is meant")


def _users(folder: Path, root: Path) -> Iterator[str]:
    """Who uses a device or a partition of it."""
    parts = [folder, *sorted(part for part in folder.glob("*") if (part / "partition").exists())]
    mounts = dict(_mounts(root))
    swaps = {Path(line.split()[0]).name for line in _text(root / "proc/swaps").splitlines()[1:] if line.split()}
    for part in parts:
        number = _text(part / "dev")
        what = "is" if part is folder else f"its partition {part.name} is"
        place = mounts.get(number) or mounts.get(part.name)
        if place is not None:
            system = "the running system, " if place in ("/", "/boot", "/boot/firmware", "/usr") else ""
            yield f"{what} {system}mounted at {place}"
        if part.name in swaps:
            yield f"{what} swapped on"
        for holder in sorted((part / "holders").glob("*")):
            yield f"{what} in use by {holder.name}"


def _mounts(root: Path) -> Iterator[tuple[str, str]]:
    """Pairs of (device number or name, place), the first of a device last, so that it is the one that counts.

    Btrfs has numbers of its own, so that its disks are known by name alone.
    """
    for line in reversed(_text(root / "proc/self/mountinfo").splitlines()):
        fields, _, rest = line.partition(" - ")
        number_place = fields.split()[2:5:2]
        source = rest.split()[1:2]
        if len(number_place) == 2:
            yield number_place[0], number_place[1]
            if source and source[0].startswith("/dev/"):
                yield Path(source[0]).name, number_place[1]


def _text(path: Path) -> str:
    """The text of a small file; nothing where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
