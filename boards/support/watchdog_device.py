"""The machine's watchdog: what the kernel says of it. It is fed by systemd (`RuntimeWatchdogSec=`), never by flatrack.

`/sys/class/watchdog/watchdog0/` holds `identity`, `state` (active when somebody feeds it), `timeout` [s], `bootstatus`
(bits `WDIOF_*`: what the last reset was) and `nowayout`. Source: Linux Documentation/ABI/testing/sysfs-class-watchdog,
include/uapi/linux/watchdog.h.
"""

from dataclasses import dataclass
from typing import Final

from boards.support.sysfs import BoardFiles
from flightsw.errors import SensorError

FOLDER: Final = "/sys/class/watchdog"
CARD_RESET: Final = 0x20
"""WDIOF_CARDRESET in `bootstatus`: the watchdog has reset the machine."""
TIMEOUT_S_MAX: Final = 86_400
"""Longest timeout that is believed [s]: devices of boards reach 15 to some 500."""


@dataclass(frozen=True, slots=True)
class WatchdogDevice:
    """One watchdog; None is not known."""

    name: str
    identity: str
    is_active: bool | None
    timeout_s: int | None
    has_reset: bool | None
    """It has caused the last reset, as far as its driver can tell: many drivers never say so."""
    is_stoppable: bool | None
    """False where nothing can stop it once it runs."""


def watchdogs(files: BoardFiles) -> list[WatchdogDevice]:
    """The watchdogs that say their identity."""
    found = []
    for name in files.names(FOLDER):
        folder = f"{FOLDER}/{name}"
        identity = files.text_or(f"{folder}/identity")
        if not identity:
            continue
        bootstatus = _integer(files, f"{folder}/bootstatus", 2**31)
        nowayout = _integer(files, f"{folder}/nowayout", 1)
        state = files.text_or(f"{folder}/state")
        found.append(
            WatchdogDevice(
                name=name,
                identity=identity,
                is_active=state == "active" if state in ("active", "inactive") else None,
                timeout_s=_integer(files, f"{folder}/timeout", TIMEOUT_S_MAX),
                has_reset=None if bootstatus is None else bool(bootstatus & CARD_RESET),
                is_stoppable=None if nowayout is None else nowayout == 0,
            )
        )
    return found


def _integer(files: BoardFiles, name: str, high: int) -> int | None:
    try:
        return files.integer(name, 0, high)
    except SensorError:
        return None
