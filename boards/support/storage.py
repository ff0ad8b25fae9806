"""Health of the storage, as far as the kernel tells it: space, errors of file systems, wear.

| what | where | unit |
|---|---|---|
| free space | statvfs of the folder that holds the node's state | bytes for a program that is not root |
| errors | `/sys/fs/ext4/*/errors_count`, all together or not at all | errors since the file system was checked |
| read-only | `/proc/mounts` of that folder: ext4 remounts itself after an error | |
| wear of an eMMC | `/sys/block/mmcblk*/device/life_time` | tenths of its life, two kinds of blocks, 0x0b past it |
| spare blocks of an eMMC | `/sys/block/mmcblk*/device/pre_eol_info` | 1 normal, 2 and 3: 80 % and 90 % are used |
| NVMe | `/sys/class/nvme/nvme*/state` | `live` |

Both of an eMMC are 0x00 where its maker has not defined them: that is nothing known, and no trouble. An SD card tells
nothing of its wear, and the wear of an NVMe disk is not in sysfs. Sources: Linux
Documentation/ABI/testing/sysfs-fs-ext4, Documentation/driver-api/mmc/mmc-dev-attrs.rst, JESD84-B51 (extended CSD
registers 267 to 269).
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from boards.support.findings import Ability, Findings
from boards.support.sysfs import BoardFiles, reason, shown
from flightsw.errors import SensorError

COUNT_MAX: Final = 2**32 - 1
"""Largest count that ext4 and EDAC keep."""
EXT4: Final = "/sys/fs/ext4"
BLOCK: Final = "/sys/block"
NVME: Final = "/sys/class/nvme"
NVME_STATES: Final = ("new", "live", "resetting", "connecting", "deleting", "deleting (no IO)", "dead")
"""Source: Linux drivers/nvme/host/sysfs.c."""
MOUNTS_BYTES_MAX: Final = 65_536
"""What is read of /proc/mounts [bytes]: a host with containers has hundreds of lines."""

FreeBytes = Callable[[Path], int]
"""Space that is left where a folder lies [bytes]. Raises: OSError."""


def free_bytes_at(folder: Path) -> int:
    """Space that is left for programs that are not root, where a folder lies [bytes]. Raises: OSError."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


@dataclass(frozen=True, slots=True)
class StorageHealth:
    """What is known of the storage; None is not known."""

    free_bytes: int | None = None
    errors_count: int | None = None
    is_read_only: bool | None = None
    life_used_share: float | None = None
    """Upper end of the worse estimate of an eMMC that is defined, 0.1 to 1.1."""
    spare_state: int | None = None
    """1 normal, 2 warning, 3 urgent."""
    nvme_state: str = ""


def read_storage(files: BoardFiles, findings: Findings, folder: str, free_bytes: FreeBytes) -> StorageHealth:
    """The health now; `folder` holds the node's state."""

    def space() -> int:
        try:
            return free_bytes(files.path(folder))
        except OSError as error:
            raise SensorError(reason(error)) from None

    counts = [
        findings.value(
            Ability.STORAGE, f"ext4 {name} errors", partial(files.integer, f"{EXT4}/{name}/errors_count", 0, COUNT_MAX)
        )
        for name in files.names(EXT4)
        if name != "features"
    ]
    life_share, spare = _emmc(files, findings)
    known = [count for count in counts if count is not None]
    states = [
        findings.value(Ability.STORAGE, f"{name} state", partial(_nvme_state, files, f"{NVME}/{name}/state"))
        for name in files.names(NVME)
    ]
    return StorageHealth(
        free_bytes=findings.value(Ability.STORAGE, "storage_free", space),
        errors_count=sum(known) if known and len(known) == len(counts) else None,
        is_read_only=findings.value(Ability.STORAGE, "mounts", lambda: _is_read_only(files, folder)),
        life_used_share=life_share,
        spare_state=spare,
        nvme_state=next((state for state in states if state), ""),
    )


def _emmc(files: BoardFiles, findings: Findings) -> tuple[float | None, int | None]:
    """Used share of the life, and state of the spare blocks, of the first eMMC that tells them."""
    for name in files.names(BLOCK):
        device = f"{BLOCK}/{name}/device"
        if not name.startswith("mmcblk") or not files.has(f"{device}/life_time"):
            continue
        share = findings.value(
            Ability.STORAGE_WEAR, f"{name} life_time", partial(_life_share, files, f"{device}/life_time")
        )
        spare = findings.value(
            Ability.STORAGE_WEAR, f"{name} pre_eol_info", partial(_spare_state, files, f"{device}/pre_eol_info")
        )
        return share, spare
    return None, None


def _nvme_state(files: BoardFiles, name: str) -> str:
    state = files.text(name)
    if state not in NVME_STATES:
        raise SensorError(f"not a state: {shown(state)}")
    return state


def _life_share(files: BoardFiles, name: str) -> float | None:
    text = files.text(name)
    tenths = [_hexadecimal(word, 0, 11) for word in text.split()]
    if len(tenths) != 2:
        raise SensorError(f"not two estimates: {shown(text)}")
    return max(tenths) / 10.0 or None  # 0x00 is not defined


def _spare_state(files: BoardFiles, name: str) -> int | None:
    return _hexadecimal(files.text(name), 0, 3) or None


def _hexadecimal(text: str, low: int, high: int) -> int:
    if not (
        text.startswith("0x") and 2 < len(text) <= 6 and all(digit in "0123456789abcdefABCDEF" for digit in text[2:])
    ):
        raise SensorError(f"not a hexadecimal number: {shown(text)}")
    value = int(text[2:], 16)
    if not low <= value <= high:
        raise SensorError(f"out of range: {value}, expected {low} to {high}")
    return value


def _is_read_only(files: BoardFiles, folder: str) -> bool:
    """Whether the file system of a folder is mounted read-only: the longest mount point that leads to it counts."""
    found: tuple[int, bool] | None = None
    for line in files.text("/proc/mounts", MOUNTS_BYTES_MAX).splitlines():
        fields = line.split()
        if len(fields) < 4:
            continue
        point, options = fields[1], fields[3].split(",")
        is_above = point == "/" or folder == point or folder.startswith(point + "/")
        if is_above and (found is None or len(point) >= found[0]):
            found = (len(point), "ro" in options)
    if found is None:
        raise SensorError("no mount of the state's folder")
    return found[1]
