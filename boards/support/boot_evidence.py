"""Why a node has started, judged from what the last start and the machine have left.

| kernel | note of the last start | other evidence | cause |
|---|---|---|---|
| any | none | | POWER_ON |
| the same | ended | | what it ended with |
| the same | running | last words: the trace of an exception | EXCEPTION |
| the same | running | last words: the stack of what hung | WATCHDOG |
| the same | running | no words | KILLED |
| another | any | a new record of a panic that a watchdog has called | WATCHDOG |
| another | any | a new record of another panic | KERNEL_PANIC |
| another | ended with a commanded reset, a power cycle or a brown-out | | that |
| another | otherwise | a watchdog's `bootstatus`, Tegra's reset reason, a Raspberry Pi's reset status | WATCHDOG |
| another | otherwise | nothing | POWER_CYCLE |
| not known, or the note is damaged | ended | | what it ended with |
| not known, or the note is damaged | running | last words | as on the same kernel |
| not known, or the note is damaged | running | nothing | POWER_CYCLE |

The kernel is the same when `boot_id` is. An orderly end counts before the watchdog's status, because a Raspberry Pi
that is told to reboot does so by its watchdog: the status is then the same. For the same reason a panic there that
leaves no record reads as WATCHDOG. What the launcher knows better (`--cause`) is not judged here.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from boards.support.boot_note import BootNote, boot_id
from boards.support.identity import JETSON, RASPBERRY_PI, identify
from boards.support.panics import panic_records
from boards.support.sysfs import BoardFiles, Reader, read_file, shown
from boards.support.tools import Tool, output_of, run_tool
from boards.support.watchdog_device import watchdogs
from flightsw.errors import SensorError
from flightsw.ports import ResetCause

COMMANDED: Final = (ResetCause.RESET_COMMAND, ResetCause.POWER_CYCLE, ResetCause.BROWN_OUT)
TRACEBACK: Final = "Traceback (most recent call last)"
"""How the words of an exception begin; those of a hang are written by faulthandler, and have another first line."""
RESET_REASONS: Final = (
    "/sys/devices/platform/bus@0/c360000.pmc/reset_reason",
    "/sys/devices/platform/c360000.pmc/reset_reason",
)
"""Source: Linux Documentation/ABI/testing/sysfs-platform-tegra-pmc; words in drivers/soc/tegra/pmc.c, those of its
watchdogs end in WDT."""
GET_RSTS: Final = ("vcgencmd", "get_rsts")
RSTS: Final = re.compile(r"(?:get_rsts=)?(?:0x)?([0-9a-fA-F]{1,8})\s*")
HAD_WATCHDOG_FULL_RESET: Final = 0x20
"""PM_RSTS_HADWRF of the PM_RSTS register. Bits 0, 2, 4, 6, 8 and 10 hold the partition to boot, not a cause; 0x1000 is
a power-on, which a RUN button sets together with this bit. Source: Linux drivers/watchdog/bcm2835_wdt.c, and what users
have read of `vcgencmd get_rsts`; never seen by us."""
HAD_POWER_ON: Final = 0x1000


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a node has started."""

    cause: ResetCause
    detail: str
    """By what it was judged: one line."""


def judge(
    root: Path, note: BootNote | None, run: Tool = run_tool, *, words: str = "", read: Reader = read_file
) -> Verdict:
    """Why this start happens.

    Args:
        root: folder that stands for `/`.
        note: what the last start has left; None when there was none.
        run: runs the maker's tools.
        words: last words of the program, as `boards.watchdog.LastWords` has found them.
        read: reads one file.
    """
    if note is None:
        return Verdict(ResetCause.POWER_ON, "no start before this one has left a note")
    files = BoardFiles(root, read)
    now = boot_id(files)
    if not now or not note.boot_id:
        why = "boot_id cannot be read" if not now else "the note of the last start says no boot_id"
        return _ended(note) or _spoken(words) or Verdict(ResetCause.POWER_CYCLE, why)
    if now == note.boot_id:
        return _ended(note) or _spoken(words) or Verdict(ResetCause.KILLED, "the program ended without a word")
    return _rebooted(files, note, run)


def _rebooted(files: BoardFiles, note: BootNote, run: Tool) -> Verdict:
    """The machine has restarted."""
    for record in panic_records(files):
        if record.digest not in note.panics:
            cause = ResetCause.WATCHDOG if record.is_watchdog else ResetCause.KERNEL_PANIC
            return Verdict(cause, f"pstore: {record.reason}")
    ended = _ended(note)
    if ended is not None and ended.cause in COMMANDED:
        return ended
    for device in watchdogs(files):
        if device.has_reset:
            return Verdict(ResetCause.WATCHDOG, f"{device.name} ({device.identity}): bootstatus says that it reset")
    status = _reset_status(files, run)
    if status is not None:
        return status
    return Verdict(ResetCause.POWER_CYCLE, "the machine restarted and left neither panic nor watchdog status")


def _ended(note: BootNote) -> Verdict | None:
    """What an orderly end has said."""
    if note.phase != "ended" or note.cause not in ResetCause.__members__:
        return None
    return Verdict(ResetCause[note.cause], f"the last start ended in order with {note.cause}")


def _spoken(words: str) -> Verdict | None:
    """What the program has said at its end."""
    lines = [line for line in words.splitlines() if line.strip()]
    if not lines:
        return None
    if TRACEBACK in words:
        return Verdict(ResetCause.EXCEPTION, f"last words: {shown(lines[-1].strip())}")
    return Verdict(ResetCause.WATCHDOG, "last words: the stack of what hung")


def _reset_status(files: BoardFiles, run: Tool) -> Verdict | None:
    """What the SoC says of its last reset; None where it says nothing."""
    family = identify(files).family
    if family == JETSON:
        reason = next((text for name in RESET_REASONS if (text := files.text_or(name))), "")
        if not reason:
            return None
        cause = ResetCause.WATCHDOG if reason.endswith("WDT") else ResetCause.POWER_CYCLE
        return Verdict(cause, f"Tegra's reset reason: {shown(reason)}")
    if family == RASPBERRY_PI:
        try:
            found = RSTS.fullmatch(output_of(run, GET_RSTS).strip())
        except SensorError:
            return None
        if found is None:
            return None
        bits = int(found[1], 16)
        if bits & HAD_WATCHDOG_FULL_RESET and not bits & HAD_POWER_ON:
            return Verdict(ResetCause.WATCHDOG, f"vcgencmd get_rsts: 0x{bits:x}, a full reset by the watchdog")
        return Verdict(ResetCause.POWER_CYCLE, f"vcgencmd get_rsts: 0x{bits:x}")
    return None
