"""The capability report: for each ability of a fixed list, how far the board has it, and by what or why not.

| support | of what is only read | of what acts |
|---|---|---|
| PROVEN | it gave believable values in this reading | it was used in this boot and did what was asked |
| PRESENT | | it is there, and nobody has tried it |
| DEGRADED | a sensor of it gives no value or nonsense | it says that something is wrong; nobody feeds the watchdog |
| ABSENT | the board lacks it, or Linux does not show it | the same |

A temperature that answers EAGAIN does not degrade the others: its block has no power now.
"""

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from boards.support.findings import Ability
from boards.support.readings import BoardReading
from boards.support.sysfs import BoardFiles
from boards.support.watchdog_device import WatchdogDevice
from flightsw.errors import SensorError
from flightsw.ports import Capability, Support

NAMES_MAX: Final = 6
"""Names that one line lists: a report is telemetry."""
PSTORE: Final = "/sys/fs/pstore"
BACKEND: Final = "/sys/module/pstore/parameters/backend"
SPARE_NORMAL: Final = 1
GATED: Final = errno.errorcode[errno.EAGAIN]

GENERAL_ABSENCES: Final = {
    Ability.TEMPERATURE: "no thermal zone and no hwmon chip",
    Ability.CPU_CLOCK: "no cpufreq driver",
    Ability.MEMORY_USE: "no /proc/meminfo",
    Ability.ECC: "no driver counts memory errors",
    Ability.STORAGE: "its state cannot be read",
    Ability.STORAGE_WEAR: "an SD card does not tell it, and that of a disk is not in sysfs",
}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a report needs beside a reading."""

    uart: str
    uart_trouble: str
    modes: tuple[str, ...]
    modes_trouble: str
    has_set_mode: bool
    watchdog: WatchdogDevice | None
    files: BoardFiles
    known: Mapping[str, Ability]


def report(
    reading: BoardReading, surroundings: Surroundings, absences: Mapping[Ability, str]
) -> tuple[Capability, ...]:
    """One line for each ability, in their order."""
    reasons = {**GENERAL_ABSENCES, **absences}
    sensed = _sensed(reading)
    acting = {
        Ability.POWER_MODES: _power_modes(reading, surroundings),
        Ability.WATCHDOG: _watchdog(surroundings.watchdog),
        Ability.UART: _uart(surroundings),
        Ability.PANIC_RECORD: _panic_record(surroundings.files),
    }
    lines = []
    for ability in Ability:
        if ability in acting:
            support, detail = acting[ability]
        else:
            troubles = {name: why for name, why in reading.troubles.items() if surroundings.known.get(name) is ability}
            support, detail = _judged(sensed[ability], troubles, reasons[ability])
        if ability is Ability.STORAGE and reading.storage.is_read_only:
            support, detail = Support.DEGRADED, "mounted read-only: nothing can be kept"
        lines.append(Capability(ability.value, support, detail))
    return tuple(lines)


def _sensed(reading: BoardReading) -> dict[Ability, str]:
    """What was read for each ability; empty for nothing."""
    throttling, storage = reading.throttling, reading.storage
    wear = [] if storage.life_used_share is None else [f"up to {storage.life_used_share:.0%} of the life used"]
    if storage.spare_state is not None:
        wear.append("spare blocks " + ("normal" if storage.spare_state == SPARE_NORMAL else "run out"))
    since = f"; since the boot: {', '.join(throttling.since_boot)}" if throttling and throttling.since_boot else ""
    ecc = (reading.ecc_corrected_count, reading.ecc_uncorrected_count)
    clocks = [name for name in reading.clocks_hz if name != "gpu"]
    return {
        Ability.TEMPERATURE: _listed(reading.temperatures_degc),
        Ability.FAN: _listed(reading.fans_rpm),
        Ability.VOLTAGES: _listed(reading.voltages_v),
        Ability.POWER_RAILS: _listed(reading.powers_w),
        Ability.INPUT_POWER: "" if reading.input_w is None else "a rail covers all that the board draws",
        Ability.UNDER_VOLTAGE: _flag(reading.is_under_voltage, "too low now", "high enough now"),
        Ability.THROTTLING: _flag(reading.is_throttled, "slowed down now", "at full speed now") + since,
        Ability.CPU_CLOCK: _listed(clocks),
        Ability.GPU: "" if reading.gpu_load is None else "load and clock" if "gpu" in reading.clocks_hz else "load",
        Ability.MEMORY_USE: "" if reading.memory_share is None else "MemAvailable of MemTotal",
        Ability.ECC: "" if None in ecc else "EDAC counts corrected and uncorrected errors",
        Ability.STORAGE: _storage(reading),
        Ability.STORAGE_WEAR: ", ".join(wear),
    }


def _storage(reading: BoardReading) -> str:
    known = [] if reading.storage_free_bytes is None else ["free space"]
    if reading.storage_errors_count is not None:
        known.append("ext4 errors")
    if reading.storage.is_read_only is not None:
        known.append("mounted read-write")
    return ", ".join(known)


def _judged(found: str, troubles: Mapping[str, str], absence: str) -> tuple[Support, str]:
    serious = {name: why for name, why in troubles.items() if why != GATED}
    if serious or (troubles and not found):
        (name, why), *more = (serious or dict(troubles)).items()
        return Support.DEGRADED, f"{name}: {why}" + (f", and {len(more)} more" if more else "")
    if found:
        return Support.PROVEN, found
    return Support.ABSENT, absence


def _power_modes(reading: BoardReading, surroundings: Surroundings) -> tuple[Support, str]:
    if surroundings.modes_trouble:
        was_there = "power_mode" in surroundings.known
        return (Support.DEGRADED if was_there else Support.ABSENT), surroundings.modes_trouble
    if "power_mode" in reading.troubles:
        return Support.DEGRADED, reading.troubles["power_mode"]
    if not reading.power_mode:
        return Support.DEGRADED, f"the present mode cannot be read, of {_listed(surroundings.modes)}"
    support = Support.PROVEN if surroundings.has_set_mode else Support.PRESENT
    return support, f"{reading.power_mode} now, of {_listed(surroundings.modes)}"


def _watchdog(device: WatchdogDevice | None) -> tuple[Support, str]:
    if device is None:
        return Support.ABSENT, "no device in /sys/class/watchdog"
    timeout = "" if device.timeout_s is None else f", {device.timeout_s} s"
    feeding = "" if device.is_active is None else ", fed" if device.is_active else ", not fed by anybody"
    history = "; it caused the last reset" if device.has_reset else ""
    support = Support.PROVEN if device.has_reset else Support.PRESENT
    if device.is_active is False:
        support = Support.DEGRADED  # it ends no hang
    return support, f"{device.identity}{timeout}{feeding}{history}"


def _uart(surroundings: Surroundings) -> tuple[Support, str]:
    if surroundings.uart:
        return Support.PRESENT, surroundings.uart
    return Support.ABSENT, surroundings.uart_trouble


def _panic_record(files: BoardFiles) -> tuple[Support, str]:
    try:
        backend = files.text(BACKEND)
    except SensorError:
        return Support.ABSENT, "no pstore backend keeps what the kernel says at its end"
    if backend == "(null)":
        return Support.ABSENT, "pstore has no backend: nothing keeps what the kernel says at its end"
    if not files.has(PSTORE):
        return Support.DEGRADED, f"pstore {backend} is not mounted at {PSTORE}"
    return Support.PRESENT, f"pstore {backend}"


def _flag(value: bool | None, yes: str, no: str) -> str:
    return "" if value is None else yes if value else no


def _listed(names: Mapping[str, float] | tuple[str, ...] | list[str]) -> str:
    names = list(names)
    more = len(names) - NAMES_MAX
    return ", ".join(names[:NAMES_MAX]) + (f" and {more} more" if more > 0 else "")
