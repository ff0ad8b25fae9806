"""Raspberry Pi 3, 4, 5 and Zero 2 W.

| what | where |
|---|---|
| temperature | thermal zone `cpu-thermal`; Pi 5 also hwmon `rp1_adc` |
| fan | hwmon `pwmfan` or `cooling_fan` |
| under-voltage | hwmon `rpi_volt`, `in0_lcrit_alarm`; else bit 0 of `vcgencmd get_throttled` |
| throttling | `vcgencmd get_throttled`: bits 1 to 3 now, the same 16 higher since the boot |
| voltages | hwmon `rpi_volt`, `in0..3_input` (kernels since the middle of 2026), else `vcgencmd measure_volts core` |
| rails | Pi 5 only: `vcgencmd pmic_read_adc`, volts and amperes |
| clock of the CPU | `vcgencmd measure_clock arm`: what it runs at, where cpufreq says what Linux has asked for |

No Pi measures its input power. The rails of the Pi 5 are those behind the PMIC: their sum is not what the board draws,
so it is never given as such. vcgencmd needs `/dev/vcio` and the group `video`.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Final

from boards.support.cpufreq import CpuModes
from boards.support.findings import Ability, Findings
from boards.support.hwmon import AMPERES_RANGE, VOLTS_RANGE
from boards.support.identity import Identity
from boards.support.readings import Draft, Throttling
from boards.support.sysfs import BoardFiles, hwmon_chips, in_range, shown
from boards.support.tools import PacedTool, Tool
from flightsw.errors import SensorError

GET_THROTTLED: Final = ("vcgencmd", "get_throttled")
MEASURE_VOLTS: Final = ("vcgencmd", "measure_volts", "core")
MEASURE_CLOCK: Final = ("vcgencmd", "measure_clock", "arm")
PMIC: Final = ("vcgencmd", "pmic_read_adc")

THROTTLED_BITS: Final = ((0, "under-voltage"), (1, "clock capped"), (2, "throttled"), (3, "soft temperature limit"))
SINCE_BOOT_SHIFT: Final = 16
"""Source: Raspberry Pi documentation, vcgencmd get_throttled."""
THROTTLED: Final = re.compile(r"throttled=0x([0-9a-fA-F]{1,8})\s*")
VOLTS: Final = re.compile(r"volt=([0-9]{1,3}\.[0-9]{1,8})V\s*")
HERTZ: Final = re.compile(r"frequency\([0-9]{1,3}\)=([0-9]{1,12})\s*")
RAIL: Final = re.compile(r"^\s*(\S{1,24})_([AV]) (?:current|volt)\([0-9]{1,3}\)=([0-9]{1,4}\.[0-9]{1,9})[AV]$", re.M)
RPI_VOLT_CHANNELS: Final = (("in0", "core"), ("in1", "sdram_c"), ("in2", "sdram_i"), ("in3", "sdram_p"))
HERTZ_RANGE: Final = (1e6, 2e10)


class RaspberryPi:
    """What only a Raspberry Pi has."""

    chips: Final = frozenset({"rp1_adc", "pwmfan", "cooling_fan", "nvme"})
    expected: Final = ("cpu-thermal",)
    soc_prefixes: Final = ("cpu-thermal",)
    absences: Final = {
        Ability.FAN: "no fan that Linux drives",
        Ability.VOLTAGES: "neither the kernel's rpi_volt nor vcgencmd measures one",
        Ability.POWER_RAILS: "only the Pi 5 measures rails, by vcgencmd",
        Ability.INPUT_POWER: "no Raspberry Pi measures it; the rails of a Pi 5 are not its input",
        Ability.UNDER_VOLTAGE: "neither the kernel's rpi_volt nor vcgencmd",
        Ability.THROTTLING: "vcgencmd does not answer: is it installed, and the program in the group video?",
        Ability.GPU: "its load is not read",
    }

    def __init__(self, files: BoardFiles, identity: Identity, run: Tool, tool_ns: Callable[[], int]) -> None:
        self._files = files
        self._has_pmic = any(name.endswith("bcm2712") for name in identity.compatible)
        others = [MEASURE_VOLTS, MEASURE_CLOCK, *([PMIC] if self._has_pmic else [])]
        self._tool = PacedTool(run, tool_ns, [GET_THROTTLED], others)
        self.modes = CpuModes(files)

    def survey(self, draft: Draft, findings: Findings) -> None:
        """Read what only this family has."""
        self._tool.refresh()
        self._throttling(draft, findings)
        self._voltages(draft, findings)
        read = partial(self._measured, MEASURE_CLOCK, HERTZ, *HERTZ_RANGE)
        clock_hz = findings.optional(Ability.CPU_CLOCK, "arm clock", read)
        if clock_hz is not None:
            draft.clocks_hz["arm"] = clock_hz
        if self._has_pmic:
            self._rails(draft, findings)

    def _throttling(self, draft: Draft, findings: Findings) -> None:
        bits = findings.optional(Ability.THROTTLING, "throttling", self._throttled_bits)
        if bits is not None:
            now = tuple(name for bit, name in THROTTLED_BITS if bits >> bit & 1)
            since = tuple(name for bit, name in THROTTLED_BITS if bits >> (bit + SINCE_BOOT_SHIFT) & 1)
            draft.throttling = Throttling(now, since)
            draft.is_throttled = bool(bits >> 1 & 0b111)
            draft.is_under_voltage = bool(bits & 1)
        alarm = findings.optional(Ability.UNDER_VOLTAGE, "under_voltage", self._alarm)
        if alarm is not None:
            draft.is_under_voltage = alarm or bool(draft.is_under_voltage)

    def _voltages(self, draft: Draft, findings: Findings) -> None:
        folder = self._rpi_volt()
        measured = [(channel, rail) for channel, rail in RPI_VOLT_CHANNELS if self._has(folder, channel)]
        for channel, rail in measured:
            read = partial(self._files.number, f"{folder}/{channel}_input", 1000, *VOLTS_RANGE)
            findings.enter(draft.voltages_v, Ability.VOLTAGES, rail, read, "voltage")
        if not measured:
            read = partial(self._measured, MEASURE_VOLTS, VOLTS, *VOLTS_RANGE)
            volts = findings.optional(Ability.VOLTAGES, "core voltage", read)
            if volts is not None:
                draft.voltages_v["core"] = volts

    def _rails(self, draft: Draft, findings: Findings) -> None:
        for rail, letter, value in findings.optional(Ability.POWER_RAILS, "pmic", self._pmic_lines) or ():
            values, limits, quantity = (
                (draft.voltages_v, VOLTS_RANGE, "voltage")
                if letter == "V"
                else (draft.currents_a, AMPERES_RANGE, "current")
            )
            findings.enter(values, Ability.POWER_RAILS, rail, partial(in_range, value, *limits), quantity)
        for rail, amperes in draft.currents_a.items():
            if rail in draft.voltages_v:
                draft.powers_w[rail] = draft.voltages_v[rail] * amperes

    def _throttled_bits(self) -> int:
        text = self._tool.answer(*GET_THROTTLED)
        found = THROTTLED.fullmatch(text)
        if found is None:
            raise SensorError(f"vcgencmd: not understood: {shown(text)}")
        return int(found[1], 16)

    def _measured(self, command: tuple[str, ...], pattern: re.Pattern[str], low: float, high: float) -> float:
        text = self._tool.answer(*command)
        found = pattern.fullmatch(text)
        if found is None:
            raise SensorError(f"vcgencmd: not understood: {shown(text)}")
        return in_range(float(found[1]), low, high)

    def _pmic_lines(self) -> list[tuple[str, str, float]]:
        text = self._tool.answer(*PMIC)
        lines = [(rail, letter, float(value)) for rail, letter, value in RAIL.findall(text)]
        if not lines:
            raise SensorError(f"vcgencmd: not understood: {shown(text)}")
        return lines

    def _rpi_volt(self) -> str:
        """Folder of the firmware's voltage chip; empty where the kernel has none."""
        return next((chip.folder for chip in hwmon_chips(self._files) if chip.name == "rpi_volt"), "")

    def _has(self, folder: str, channel: str) -> bool:
        return bool(folder) and self._files.has(f"{folder}/{channel}_input")

    def _alarm(self) -> bool:
        folder = self._rpi_volt()
        if not folder:
            raise SensorError("no hwmon chip rpi_volt")
        return self._files.flag(f"{folder}/in0_lcrit_alarm")
