"""Any other machine that runs Linux: what hwmon, the thermal zones, cpufreq and the cooling devices give."""

from collections.abc import Callable
from typing import Final

from boards.support.cpufreq import CpuModes
from boards.support.findings import Ability, Findings
from boards.support.hwmon import read_slowed
from boards.support.identity import Identity
from boards.support.readings import Draft
from boards.support.sysfs import BoardFiles
from boards.support.tools import Tool

COOLERS: Final = ("Processor", "cpufreq-", "thermal-cpufreq-")


class LinuxHost:
    """A machine of no family."""

    chips: Final = None
    expected: Final = ()
    soc_prefixes: Final = ("coretemp/", "k10temp/", "zenpower/", "cpu_thermal/", "x86_pkg_temp", "cpu")
    absences: Final = {
        Ability.FAN: "no hwmon chip measures one",
        Ability.VOLTAGES: "no hwmon chip measures one",
        Ability.POWER_RAILS: "no hwmon chip measures one",
        Ability.INPUT_POWER: "no sensor is known to cover the whole machine",
        Ability.UNDER_VOLTAGE: "no detector that Linux shows",
        Ability.THROTTLING: "no cooling device of the CPU",
        Ability.GPU: "its load is not read",
    }

    def __init__(self, files: BoardFiles, identity: Identity, run: Tool, tool_ns: Callable[[], int]) -> None:
        self._files = files
        self.modes = CpuModes(files)

    def survey(self, draft: Draft, findings: Findings) -> None:
        """Read what is not read of every board."""
        slowed = read_slowed(self._files, findings, COOLERS)
        draft.is_throttled = any(slowed) if slowed else None
