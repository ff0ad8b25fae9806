"""Clocks of the CPU and the power modes that cpufreq gives: a governor, at full speed or capped.

`/sys/devices/system/cpu/cpufreq/policy*/` holds `scaling_cur_freq`, `scaling_max_freq`, `cpuinfo_max_freq` and
`scaling_available_frequencies` [kHz], `scaling_governor` and `scaling_available_governors`. A mode is named by the
governor, `ondemand`, or by governor and cap, `ondemand@1500MHz`; it is set on all policies and read back. Capped modes
are offered for the governor that follows the load, since a node is capped to save power and not to idle fast.

Source: Linux Documentation/admin-guide/pm/cpufreq.rst.
"""

import re
from functools import partial
from typing import Final

from boards.support.findings import Ability, Findings
from boards.support.sysfs import BoardFiles, shown, whole
from flightsw.errors import BoardError, SensorError

FOLDER: Final = "/sys/devices/system/cpu/cpufreq"
POLICY: Final = re.compile(r"policy(\d+)")
CLOCKS_MAX: Final = 16
"""Clocks that a reading holds: a Jetson AGX Orin has three policies, a server one for each of its many CPUs."""
KHZ_MIN: Final = 1_000
KHZ_MAX: Final = 20_000_000
"""Clocks of a CPU that are believed [kHz]: 1 MHz to 20 GHz."""
FOLLOWING: Final = ("schedutil", "ondemand", "conservative", "powersave")
"""Governors by which capped modes are offered, the first that a board has; `userspace` needs a program that drives it,
and is never offered. `powersave` follows the load only where the driver is intel_pstate."""
GOVERNORS: Final = re.compile(r"[a-z_]{1,20}( [a-z_]{1,20})*")
CAPPED: Final = re.compile(r"([a-z_]{1,20})(?:@(\d{1,5})MHz)?")


def policies(files: BoardFiles) -> list[str]:
    """Folders of the cpufreq policies."""
    return [f"{FOLDER}/{name}" for name in files.names(FOLDER) if POLICY.fullmatch(name)]


def read_clocks(files: BoardFiles, findings: Findings) -> dict[str, float]:
    """Clock of the first CPU of each policy [Hz], by the CPU's name."""
    clocks_hz: dict[str, float] = {}
    for folder in policies(files)[:CLOCKS_MAX]:
        name = "cpu" + folder.rpartition("policy")[2]
        findings.enter(clocks_hz, Ability.CPU_CLOCK, name, partial(_clock_hz, files, folder), "clock")
    return clocks_hz


def _clock_hz(files: BoardFiles, folder: str) -> float:
    return files.integer(f"{folder}/scaling_cur_freq", KHZ_MIN, KHZ_MAX) * 1e3


class CpuModes:
    """Implements the power modes of `flightsw.ports.Hardware` by cpufreq."""

    def __init__(self, files: BoardFiles) -> None:
        self._files = files

    def present(self) -> str:
        """The mode of the first policy. Raises: SensorError."""
        folder = self._folders()[0]
        governor = self._files.text(f"{folder}/scaling_governor")
        if CAPPED.fullmatch(governor) is None:
            raise SensorError(f"not a governor: {shown(governor)}")
        cap_khz, full_khz = self._khz(folder, "scaling_max_freq"), self._khz(folder, "cpuinfo_max_freq")
        return governor if cap_khz >= full_khz else f"{governor}@{cap_khz // 1000}MHz"

    def names(self) -> tuple[str, ...]:
        """What can be set. Raises: SensorError."""
        folder = self._folders()[0]
        full_khz = self._khz(folder, "cpuinfo_max_freq")
        governors = self._governors(folder)
        following = next((name for name in FOLLOWING if name in governors), None)
        names = list(governors)
        if following is not None:
            names += [f"{following}@{khz // 1000}MHz" for khz in self._levels_khz(folder) if khz < full_khz]
        if (present := self.present()) not in names:
            names.append(present)
        return tuple(names)

    def set(self, name: str) -> None:
        """Change the mode. Raises: BoardError: it cannot be set; the mode that is there now is named."""
        try:
            names = self.names()
        except SensorError as error:
            raise BoardError(f"power mode {name!r}: this board has no power modes: {error}") from None
        parts = CAPPED.fullmatch(name)
        if name not in names or parts is None:
            raise BoardError(f"power mode {name!r}: expected one of {', '.join(names)}")
        try:
            for folder in self._folders():
                self._files.write(f"{folder}/scaling_governor", parts[1])
                cap_khz = self._cap_khz(folder, parts[2])
                self._files.write(f"{folder}/scaling_max_freq", str(cap_khz))
            present = self.present()
        except SensorError as error:
            raise BoardError(f"power mode {name!r} was not set in full: {error}") from None
        if present != name:
            raise BoardError(f"power mode {name!r} was written, and the board is in {present!r}")

    def _folders(self) -> list[str]:
        folders = policies(self._files)
        if not folders:
            raise SensorError("no cpufreq driver")
        return folders

    def _governors(self, folder: str) -> list[str]:
        text = self._files.text(f"{folder}/scaling_available_governors")
        if GOVERNORS.fullmatch(text) is None:
            raise SensorError(f"not governors: {shown(text)}")
        return [name for name in text.split() if name != "userspace"]

    def _levels_khz(self, folder: str) -> list[int]:
        """Clocks that the driver lists, ascending [kHz]; a driver without steps lists none."""
        name = f"{folder}/scaling_available_frequencies"
        if not self._files.has(name):
            return []
        return sorted({whole(word, KHZ_MIN, KHZ_MAX) for word in self._files.text(name).split()})

    def _cap_khz(self, folder: str, mhz: str | None) -> int:
        """The cap of a mode in the kernel's own number [kHz]: names hold whole megahertz."""
        full_khz = self._khz(folder, "cpuinfo_max_freq")
        if mhz is None:
            return full_khz
        return next((khz for khz in self._levels_khz(folder) if khz // 1000 == int(mhz)), int(mhz) * 1000)

    def _khz(self, folder: str, file: str) -> int:
        return self._files.integer(f"{folder}/{file}", KHZ_MIN, KHZ_MAX)
