"""Memory of a board: its use, and the errors that EDAC counts.

`/proc/meminfo` gives MemTotal and MemAvailable [KiB]. EDAC (`/sys/devices/system/edac/mc/mc*/{ce_count,ue_count}`) is
there only where a driver and ECC memory are: no driver is known for a Raspberry Pi, and of the Jetson Orin modules only
industrial ones have ECC. Sources: proc_meminfo(5), Linux Documentation/driver-api/edac.rst.
"""

import re
from typing import Final

from boards.support.findings import Ability, Findings
from boards.support.storage import COUNT_MAX
from boards.support.sysfs import BoardFiles, whole
from flightsw.errors import SensorError

EDAC: Final = "/sys/devices/system/edac/mc"
CONTROLLER: Final = re.compile(r"mc\d+")
KIB_MAX: Final = 2**40
"""Largest memory that is believed [KiB]: a pebibyte."""
LINE: Final = re.compile(r"^(MemTotal|MemAvailable):\s+(\d+) kB$", re.MULTILINE)


def memory_share(files: BoardFiles) -> float:
    """Share of the memory in use, 0 to 1. Raises: SensorError."""
    found = {name: whole(kib, 0, KIB_MAX) for name, kib in LINE.findall(files.text("/proc/meminfo"))}
    total_kib, available_kib = found.get("MemTotal", 0), found.get("MemAvailable")
    if available_kib is None or not 0 < total_kib >= available_kib:
        raise SensorError("no MemTotal and MemAvailable")
    return 1.0 - available_kib / total_kib


def ecc_counts(files: BoardFiles, findings: Findings) -> tuple[int | None, int | None]:
    """Corrected and uncorrected errors of all memory controllers; None where none counts, or one cannot be read."""
    controllers = [name for name in files.names(EDAC) if CONTROLLER.fullmatch(name)]

    def total(file: str) -> int:
        if not controllers:
            raise SensorError("no memory controller reports errors")
        return sum(files.integer(f"{EDAC}/{name}/{file}", 0, COUNT_MAX) for name in controllers)

    corrected = findings.optional(Ability.ECC, "ecc_corrected", lambda: total("ce_count"))
    return corrected, findings.optional(Ability.ECC, "ecc_uncorrected", lambda: total("ue_count"))
