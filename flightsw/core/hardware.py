"""HARDWARE: what the board's own sensors say, told on change; its capability report; its power modes.

A sensor that is missing, unreadable or out of all range is in no reading, and in the reading's troubles. It is told
when it becomes so and when it is back, never in between: what a sensor does wrong may change from cycle to cycle. The
board reads; nothing here knows of files.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from flightsw.component import OK, Dump, Handler, Outcome, Report, Scalar
from flightsw.dictionary.accessors.hardware_names import PERIOD_S
from flightsw.dictionary.hardware_report import encode_report
from flightsw.errors import BoardError
from flightsw.ports import Capability, Hardware, HardwareReading, Support
from flightsw.wire.messages import CommandCode

RELIED_ON: Final = ("memory_limit", "watchdog")
"""Capabilities without which a job can take the node down, or a hang lasts: told at boot when they are not there."""
NUMBERS: Final = (
    "hottest_degc",
    "input_w",
    "cpu_hz",
    "memory_share",
    "storage_free_bytes",
    "storage_errors",
    "ecc_corrected",
    "ecc_uncorrected",
)
"""Channels that may have no value."""
SENSOR_CHARACTERS: Final = 64
REASON_CHARACTERS: Final = 256
TROUBLED_CHARACTERS: Final = 512
"""Longest texts: what the dictionary holds, in ASCII."""
LOOK_READINGS: Final = 6
"""Readings between two looks at the capabilities: what a worker proves comes after the boot. A minute, by default."""
CPU: Final = "cpu"
"""Clocks of processor clusters begin with it."""
MEASURED_CPU: Final = "arm"
"""What a firmware has measured of them, where the others are what the operating system has asked for."""
KEPT: Final = (
    "is_under_voltage",
    "is_throttled",
    "power_mode",
    "storage_errors_count",
    "ecc_corrected_count",
    "ecc_uncorrected_count",
)
"""What a reading that does not know it leaves as it was: a change is one from the last value that was known."""
STATES: Final = {None: "UNKNOWN", False: "NO", True: "YES"}
NS_PER_S: Final = 1_000_000_000


class HardwareControl:
    """Implements `flightsw.component.Component`.

    Args:
        hardware: of the board.
        parameter: key -> value of a parameter.
        report: takes events.
        dump: sends a data product.
    """

    name = "HARDWARE"

    def __init__(self, hardware: Hardware, parameter: Callable[[str], Any], report: Report, dump: Dump) -> None:
        self._hardware = hardware
        self._parameter = parameter
        self._report = report
        self._dump = dump
        self._reading = HardwareReading(sampled_ns=0)
        self._known = self._reading
        self._capabilities: tuple[Capability, ...] = ()
        self._due_ns = 0
        self.readings_count = 0

    def boot(self, now_ns: int) -> None:
        """Read for the first time, and tell which of the capabilities that a node relies on are not there."""
        self._capabilities = self._hardware.capabilities()
        found = {one.name: one for one in self._capabilities}
        for name in RELIED_ON:
            one = found.get(name, Capability(name, Support.ABSENT, "the board's report does not have it"))
            if one.support in (Support.ABSENT, Support.DEGRADED):
                self._report("HARDWARE.CAPABILITY_ABSENT", name, _plain(one.detail, REASON_CHARACTERS))
        self.cycle(now_ns)

    def cycle(self, now_ns: int) -> None:
        """Read when it is due, and tell what has changed."""
        if now_ns < self._due_ns:
            return
        # a nanosecond less than the period: a tick that comes at the very deadline counts as due
        self._due_ns = now_ns + round(self._parameter(PERIOD_S) * NS_PER_S) - 1
        before, self._reading = self._reading, self._hardware.read()
        self.readings_count += 1
        if self.readings_count % LOOK_READINGS == 0 or before.troubles.keys() != self._reading.troubles.keys():
            self._capabilities = self._hardware.capabilities()
        self._tell_sensors(before, self._reading)
        known = {name: getattr(self._known, name) for name in KEPT if getattr(self._reading, name) in (None, "")}
        earlier, self._known = self._known, replace(self._reading, **known)
        self._tell_supply(earlier, self._known)
        self._tell_counts(earlier, self._known)

    def handlers(self) -> Mapping[str, Handler]:
        """SET_POWER_MODE, REPORT."""
        return {"SET_POWER_MODE": self._do_set_power_mode, "REPORT": self._do_report}

    def channels(self) -> Mapping[str, Scalar]:
        """The last reading and the capabilities, counted."""
        reading = self._reading
        numbers = self._numbers()
        supports = [one.support for one in self._capabilities]
        return {
            **{name: 0 if (value := numbers[name]) is None else value for name in NUMBERS},
            "throttled": STATES[reading.is_throttled],
            "under_voltage": STATES[reading.is_under_voltage],
            "power_mode": _plain(reading.power_mode, SENSOR_CHARACTERS),
            "readings": self.readings_count,
            "troubles": len(reading.troubles),
            "troubled": _plain(", ".join(sorted(reading.troubles)), TROUBLED_CHARACTERS),
            "unknown": ", ".join(name for name in NUMBERS if numbers[name] is None),
            "proven": supports.count(Support.PROVEN),
            "present": supports.count(Support.PRESENT),
            "degraded": supports.count(Support.DEGRADED),
            "absent": supports.count(Support.ABSENT),
        }

    def _numbers(self) -> dict[str, int | float | None]:
        reading = self._reading
        asked_hz = (value for name, value in reading.clocks_hz.items() if name.startswith(CPU))
        return {
            "hottest_degc": _rounded(max(reading.temperatures_degc.values(), default=None), 2),
            "input_w": _rounded(reading.input_w, 3),
            "cpu_hz": reading.clocks_hz.get(MEASURED_CPU, max(asked_hz, default=None)),
            "memory_share": _rounded(reading.memory_share, 3),
            "storage_free_bytes": reading.storage_free_bytes,
            "storage_errors": reading.storage_errors_count,
            "ecc_corrected": reading.ecc_corrected_count,
            "ecc_uncorrected": reading.ecc_uncorrected_count,
        }

    # -- what has changed

    def _tell_sensors(self, before: HardwareReading, now: HardwareReading) -> None:
        for sensor in sorted(now.troubles.keys() - before.troubles.keys()):
            reason = _plain(now.troubles[sensor], REASON_CHARACTERS)
            self._report("HARDWARE.SENSOR_DEGRADED", _plain(sensor, SENSOR_CHARACTERS), reason)
        for sensor in sorted(before.troubles.keys() - now.troubles.keys()):
            self._report("HARDWARE.SENSOR_BACK", _plain(sensor, SENSOR_CHARACTERS))

    def _tell_supply(self, before: HardwareReading, now: HardwareReading) -> None:
        if now.is_under_voltage and not before.is_under_voltage:
            self._report("HARDWARE.UNDER_VOLTAGE")
        elif before.is_under_voltage and now.is_under_voltage is False:
            self._report("HARDWARE.VOLTAGE_BACK")
        if now.is_throttled and not before.is_throttled:
            self._report("HARDWARE.THROTTLED", max(now.temperatures_degc.values(), default=0.0))
        elif before.is_throttled and now.is_throttled is False:
            self._report("HARDWARE.UNTHROTTLED")
        if before.power_mode and now.power_mode and before.power_mode != now.power_mode:
            modes = (_plain(one.power_mode, SENSOR_CHARACTERS) for one in (before, now))
            self._report("HARDWARE.POWER_MODE", *modes)

    def _tell_counts(self, before: HardwareReading, now: HardwareReading) -> None:
        """Errors that came since they were last known; a board counts from its own start, which is no news."""
        if _rose(before.ecc_corrected_count, now.ecc_corrected_count) or _rose(
            before.ecc_uncorrected_count, now.ecc_uncorrected_count
        ):
            counts = (now.ecc_corrected_count or 0, now.ecc_uncorrected_count or 0)
            self._report("HARDWARE.MEMORY_ERRORS", *counts)
        if _rose(before.storage_errors_count, now.storage_errors_count):
            self._report("HARDWARE.STORAGE_ERRORS", now.storage_errors_count)

    # -- commands

    def _do_set_power_mode(self, arguments: tuple[Any, ...]) -> Outcome:
        mode = arguments[0]
        modes = self._hardware.power_modes()
        if mode not in modes:
            expected = f"one of {', '.join(modes)}" if modes else "none: the board has no power modes"
            return Outcome(CommandCode.VALIDATION_ERROR, f"mode is {mode!r}, expected {expected}"[:512])
        try:
            self._hardware.set_power_mode(mode)
        except BoardError as error:
            return Outcome(CommandCode.EXECUTION_ERROR, str(error)[:512])
        self._due_ns = 0  # the next cycle sees what became of it
        return OK

    def _do_report(self, _: object) -> Outcome:
        self._capabilities = self._hardware.capabilities()
        data = encode_report(self._capabilities, self._hardware.power_modes(), self._reading)
        return Outcome(CommandCode.OK, f"data product {self._dump(self.name, data)}")


def _plain(text: str, characters: int) -> str:
    """A text of the board, as long as a field of events or channels takes; a strange character shows as a mark."""
    return text.encode("ascii", "replace").decode()[:characters]


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _rose(before: int | None, now: int | None) -> bool:
    return before is not None and now is not None and now > before
