"""MODE: the mode of the node, as commands, channels and samples for the limit rules."""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from flightsw.component import OK, Dump, Handler, Outcome, Report, Scalar
from flightsw.config import BoardProfile
from flightsw.core.modes import Activity, Allowance, Cause, ModeEntry, ModeManager
from flightsw.ports import Clock, Sensors
from flightsw.wire.messages import CommandCode, Mode

PLAUSIBLE: Final[dict[str, tuple[float, float]]] = {
    "charge_share": (0.0, 1.001),
    "solar_w": (-1.0, 1e5),
    "load_w": (-1.0, 1e5),
    "electronics_degc": (-150.0, 250.0),
    "sunlight": (0.0, 1.001),
    "memory_share": (0.0, 1.0),
}
"""Sensor -> least and most that it can read on any satellite we know, with some room for noise. What is outside was not
read: a rule sees it grow stale, and power control does not act on it."""

UNREAD: Final = Sensors(
    charge_j=0.0, battery_j=1.0, solar_w=0.0, load_w=0.0, electronics_degc=0.0, sunlight=0.0, sampled_ns=0
)
"""What channels show before the first reading."""

_RANGES: Final = tuple((f"MODE.{name}", low, high) for name, (low, high) in PLAUSIBLE.items())
"""As `PLAUSIBLE`, by the keys of the channels."""

_MODE_NAMES: Final = {mode: mode.name for mode in Mode}
"""The name of a mode is a property of Python's, and each cycle asks."""

NS_PER_S: Final = 1_000_000_000


class ModeControl:
    """Implements `flightsw.component.Component`.

    Args:
        modes: of the node.
        clock: tells when a mode was entered.
        profile: what board and bus draw, and how hot the board may get.
        job_load_w: what the running job draws by the profile [W].
        report: takes events.
        note: told of each change, but for one from BOOT to NOMINAL.
        dump: sends a data product.
        maintenance_max_s: how long MAINTENANCE may last [s].
    """

    name = "MODE"

    def __init__(
        self,
        modes: ModeManager,
        clock: Clock,
        profile: BoardProfile,
        *,
        job_load_w: Callable[[], float],
        report: Report,
        note: Callable[[ModeEntry], None],
        dump: Dump,
        maintenance_max_s: Callable[[], float],
    ) -> None:
        self._modes = modes
        self._clock = clock
        self._idle_w = profile.bus_w.value + profile.idle_w.value
        self._electronics_max_degc = profile.electronics_max_degc.value
        self._job_load_w = job_load_w
        self._report = report
        self._note = note
        self._dump = dump
        self._maintenance_max_s = maintenance_max_s
        self._started_ns = clock.monotonic_ns()
        self._readings: dict[str, float] = {}
        self._sampled_ns = 0
        self._mended_known_count = 0
        self.sensors: Sensors | None = None
        """The last reading, None before the first."""

    def handlers(self) -> Mapping[str, Handler]:
        """SAFE, NOMINAL, MAINTENANCE, HISTORY."""
        return {
            "SAFE": lambda _: self._command(Cause.SAFE_COMMANDED),
            "NOMINAL": lambda _: self._command(Cause.NOMINAL_COMMANDED),
            "MAINTENANCE": lambda _: self._command(Cause.MAINTENANCE_COMMANDED),
            "HISTORY": self._do_history,
        }

    def boot(self, is_looping: bool) -> None:
        """Leave BOOT; into SAFE when boots do not last, or when SAFE is kept."""
        if self._modes.lost_reason:
            self._report("MODE.RECORD_LOST", self._modes.lost_reason)
        self._modes.boot(is_looping, now_ns=self._clock.monotonic_ns(), utc_ns=self._clock.utc_ns())
        if self._modes.mode is Mode.SAFE:
            self._tell()

    def observe(self, sensors: Sensors | None, now_ns: int) -> None:
        """Judge one reading of the sensors, None when there is none, and end a MAINTENANCE that lasts too long.

        A reading that is no newer than the last one counts as none, and of one that is, only what can be.
        """
        modes = self._modes
        self._check_copies(now_ns)
        if modes.mode is Mode.MAINTENANCE and now_ns - modes.entered_ns >= self._maintenance_max_s() * NS_PER_S:
            self._apply(Cause.MAINTENANCE_OVER)
        readings = self._readings
        readings.clear()
        if sensors is None or 0 < sensors.sampled_ns <= self._sampled_ns:
            return
        self._sampled_ns = sensors.sampled_ns
        self.sensors = sensors
        share, sunlight = sensors.charge_j / sensors.battery_j, sensors.sunlight
        values = (share, sensors.solar_w, sensors.load_w, sensors.electronics_degc, sunlight, sensors.memory_share)
        for value, (key, low, high) in zip(values, _RANGES, strict=True):
            if low <= value <= high:
                readings[key] = value
        if "MODE.charge_share" not in readings or "MODE.sunlight" not in readings:
            return  # no judgement without a reading; jobs pause for the same reason
        if modes.power_cause(share, sunlight) is None:
            return  # nearly always, and without a look at the clock
        if modes.observe(share, sunlight, now_ns=now_ns, utc_ns=self._clock.utc_ns()):
            self._tell()

    def request_safe(self, rule: str) -> bool:
        """A limit rule wants SAFE; says whether the node is there then."""
        self._apply(Cause.RULE_FIRED, rule)
        return self._modes.mode is Mode.SAFE

    def response_refusal(self, is_vital: bool) -> str | None:
        """Why a fault response may not run now, or None. Vital ones run in MAINTENANCE too."""
        allowance = self._modes.allowance(Activity.RESPONSES)
        if allowance is Allowance.YES or (allowance is Allowance.REDUCED and is_vital):
            return None
        return f"mode {self._modes.mode.name}"

    def channels(self) -> Mapping[str, Scalar]:
        """The mode and its reason, and the last reading of the sensors; zeros before the first."""
        last = self._modes.last
        read = self.sensors or UNREAD
        return {
            "mode": self._modes.mode.name,
            "charge_j": round(read.charge_j, 1),
            "solar_w": round(read.solar_w, 2),
            "load_w": round(read.load_w, 2),
            "electronics_degc": round(read.electronics_degc, 2),
            "sunlight": round(read.sunlight, 3),
            "cause": "" if last is None else last.cause.value,
            "rule": "" if last is None else last.rule,
            "entered_s": (self._modes.entered_ns - self._started_ns) // NS_PER_S,
            "charge_share": round(read.charge_j / read.battery_j, 4),
            "heat_margin_k": round(self._electronics_max_degc - read.electronics_degc, 2),
            "unexplained_w": round(read.load_w - self._idle_w - self._job_load_w(), 2),
            "memory_share": round(read.memory_share, 3),
            "mended": self._modes.voted.corrected_count,
        }

    def samples(self) -> dict[str, Scalar]:
        """What was read in this cycle, not rounded, by the keys of the channels: what limit rules watch."""
        readings = self._readings
        values: dict[str, Scalar] = {**readings, "MODE.mode": _MODE_NAMES[self._modes.mode]}
        if "MODE.electronics_degc" in readings:
            values["MODE.heat_margin_k"] = self._electronics_max_degc - readings["MODE.electronics_degc"]
        if "MODE.load_w" in readings:
            values["MODE.unexplained_w"] = readings["MODE.load_w"] - self._idle_w - self._job_load_w()
        return values

    def _command(self, cause: Cause) -> Outcome:
        if not self._apply(cause):
            return Outcome(CommandCode.EXECUTION_ERROR, f"{cause.value} changes nothing in {self._modes.mode.name}")
        return OK

    def _do_history(self, _: object) -> Outcome:
        lines = [
            {
                "mode": entry.mode.name,
                "cause": entry.cause.value,
                "rule": entry.rule,
                "boot": entry.boot_count,
                "uptime_s": entry.uptime_s,
                "utc_ns": entry.utc_ns,
            }
            for entry in self._modes.history
        ]
        return Outcome(CommandCode.OK, f"data product {self._dump(self.name, msgspec.json.encode(lines))}")

    def _apply(self, cause: Cause, rule: str = "") -> bool:
        now_ns, utc_ns = self._clock.monotonic_ns(), self._clock.utc_ns()
        if not self._modes.apply(cause, now_ns=now_ns, utc_ns=utc_ns, rule=rule):
            return False
        self._tell()
        return True

    def _check_copies(self, now_ns: int) -> None:
        """Look at the copies of the mode, and tell what radiation did to them."""
        modes = self._modes
        _ = modes.mode  # a vote
        if modes.voted.corrected_count != self._mended_known_count:
            self._mended_known_count = modes.voted.corrected_count
            self._report("MODE.MENDED", modes.voted.corrected_count)
        if modes.take_loss(now_ns=now_ns, utc_ns=self._clock.utc_ns()):
            self._tell()

    def _tell(self) -> None:
        entry = self._modes.last
        assert entry is not None, "it was changed just now"
        key = "MODE.RESTRICTED" if entry.mode in (Mode.LOW_POWER, Mode.SAFE) else "MODE.CHANGED"
        self._report(key, entry.mode.name, entry.reason)
        if self._modes.unsaved_reason:
            self._report("MODE.UNSAVED", self._modes.unsaved_reason)
        self._note(entry)
