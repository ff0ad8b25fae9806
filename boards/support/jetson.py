"""Jetson Orin Nano, NX and AGX with JetPack 6 or 7.

| what | where |
|---|---|
| temperatures | thermal zones `cpu-`, `gpu-`, `cv0..2-`, `soc0..2-`, `tj-thermal`; AGX also `tboard`, `tdiode` |
| rails | hwmon `ina3221`, channels 1 to 3: `in*_label`, `in*_input` [mV], `curr*_input` [mA]; `NC` is not connected |
| input power | rail `VDD_IN` of Orin Nano and NX; the AGX measures no total |
| over-current | `curr*_crit_alarm` of those channels: the board slows down |
| throttling | state of the cooling devices for CPU and GPU above 0 |
| GPU | `17000000.gpu/load` in 1/1000; devfreq `cur_freq` [Hz] |
| power modes | `nvpmodel` |

A zone of a block without power answers EAGAIN. Channel 7 of an ina3221 is a sum of shunt voltages and no rail.
Sources: NVIDIA Jetson Linux Developer Guide, Power and Performance; Linux Documentation/hwmon/ina3221.rst.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

from boards.support.findings import Ability, Findings
from boards.support.hwmon import AMPERES_RANGE, VOLTS_RANGE, WATTS_RANGE, read_slowed
from boards.support.identity import Identity
from boards.support.nvpmodel import NvpModes
from boards.support.readings import Draft
from boards.support.sysfs import BoardFiles, Device, hwmon_chips, in_range
from boards.support.tools import Tool
from flightsw.errors import SensorError

LOADS: Final = (
    "/sys/devices/platform/bus@0/17000000.gpu/load",
    "/sys/devices/platform/17000000.gpu/load",
    "/sys/devices/gpu.0/load",
)
"""Where releases have put it: JetPack 6 and 7, JetPack 5, earlier."""
DEVFREQ: Final = "/sys/class/devfreq"
GPU: Final = "17000000."
CHANNELS: Final = ("1", "2", "3")
INPUT_RAIL: Final = "VDD_IN"
NOT_CONNECTED: Final = "NC"
COOLERS: Final = ("cpufreq-", "thermal-cpufreq-", "devfreq-", "thermal-devfreq-")
"""Cooling devices that slow something down; `pwm-fan` does not."""
HERTZ_RANGE: Final = (0.0, 2e10)


class Jetson:
    """What only a Jetson has."""

    chips: Final = frozenset({"pwmfan", "pwm_tach", "nvme"})
    expected: Final = ("cpu-thermal", "tj-thermal")
    soc_prefixes: Final = ("cpu-thermal", "gpu-thermal", "cv", "soc", "tj-thermal")

    def __init__(self, files: BoardFiles, identity: Identity, run: Tool, tool_ns: Callable[[], int]) -> None:
        self._files = files
        self._is_agx = any("p3701" in name for name in identity.compatible)
        self.modes = NvpModes(files, run, tool_ns)
        total = "the AGX Orin measures no total rail" if self._is_agx else f"no rail {INPUT_RAIL}"
        self.absences: Final = {
            Ability.FAN: "no fan that Linux measures",
            Ability.VOLTAGES: "no ina3221",
            Ability.POWER_RAILS: "no ina3221",
            Ability.INPUT_POWER: total,
            Ability.UNDER_VOLTAGE: "no detector that Linux shows",
            Ability.THROTTLING: "no cooling device of CPU or GPU",
            Ability.GPU: "no load at 17000000.gpu",
        }

    def survey(self, draft: Draft, findings: Findings) -> None:
        """Read what only this family has."""
        alarms: list[bool] = []
        for chip in hwmon_chips(self._files):
            if chip.name.partition("#")[0] == "ina3221":
                for channel in CHANNELS:
                    self._rail(chip, channel, draft, findings, alarms)
        if not self._is_agx:
            draft.input_w = findings.value(Ability.INPUT_POWER, "input_power", partial(_input_w, draft))
        alarms += read_slowed(self._files, findings, COOLERS)
        draft.is_throttled = any(alarms) if alarms else None
        self._gpu(draft, findings)

    def _rail(self, chip: Device, channel: str, draft: Draft, findings: Findings, alarms: list[bool]) -> None:
        name, curr = f"{chip.folder}/in{channel}", f"{chip.folder}/curr{channel}"
        if not self._files.has(f"{name}_input"):
            return
        rail = findings.value(
            Ability.POWER_RAILS, f"{chip.name}/in{channel} label", partial(self._files.text, f"{name}_label")
        )
        if rail is None or rail == NOT_CONNECTED:
            return
        read = partial(self._files.number, f"{name}_input", 1000, *VOLTS_RANGE)
        volts = findings.enter(draft.voltages_v, Ability.POWER_RAILS, rail, read, "voltage")
        read = partial(self._files.number, f"{curr}_input", 1000, *AMPERES_RANGE)
        amperes = findings.enter(draft.currents_a, Ability.POWER_RAILS, rail, read, "current")
        if volts is not None and amperes is not None:
            draft.powers_w[rail] = volts * amperes
        alarm = findings.optional(
            Ability.THROTTLING, f"{rail} over-current", partial(self._files.flag, f"{curr}_crit_alarm")
        )
        if alarm is not None:
            alarms.append(alarm)

    def _gpu(self, draft: Draft, findings: Findings) -> None:
        draft.gpu_load = findings.optional(Ability.GPU, "gpu load", self._load)
        for name in self._files.names(DEVFREQ):
            if name.startswith(GPU):
                read = partial(self._files.number, f"{DEVFREQ}/{name}/cur_freq", 1, *HERTZ_RANGE)
                findings.enter(draft.clocks_hz, Ability.GPU, "gpu", read, "clock")

    def _load(self) -> float:
        for name in LOADS:
            if self._files.has(name):
                return self._files.number(name, 1000, 0.0, 1.0)
        raise SensorError("no file of its load")


def _input_w(draft: Draft) -> float:
    if INPUT_RAIL not in draft.powers_w:
        raise SensorError(f"no power of the rail {INPUT_RAIL}")
    return in_range(draft.powers_w[INPUT_RAIL], *WATTS_RANGE)  # an idle shunt may read some milliamperes below zero
