"""Mission time: the board's clock, and what the ground has found it to be off by. No timer depends on it.

```text
clock   = the board's clock - its jumps
mission = clock + STCF                    STCF = base + rate * (clock - anchor) + slewed(clock - anchor)
```

The words are cFE's: STCF is the spacecraft time correlation factor. Since the corrections are functions of the clock
alone, they go on over a reset, as long as the clock runs through; the disk holds them in two copies.

Monotonic time never jumps, so each reading of the board's clock is held against it: what the clock moved by more than
it can drift is a jump, which is taken out again and reported. Over a reset nothing is there to compare with, because
monotonic time starts anew; a clock that is behind where it was at the last correction has been lost, and mission time
is then not known until the ground corrects it.

The ground corrects by ADJUST (slew, no jump), STEP (a small jump) or SET (any jump, hazardous). Each raises the number
of the correlation; a command that names another number was measured against a correction that is gone, and is refused.
"""

from collections.abc import Mapping
from enum import StrEnum, unique
from typing import Annotated, Any, Final

import msgspec

from flightsw.component import OK, Handler, Outcome, Report, Scalar
from flightsw.errors import MessageError, StorageError
from flightsw.ports import Clock, Disk
from flightsw.storage.copies import TwoCopies
from flightsw.wire import cbor
from flightsw.wire.messages import CommandCode, TimeReply

STATE_FILE: Final = "time"
NS_PER_S: Final = 1_000_000_000
PPB: Final = 1_000_000_000

SLEW_PPB: Final = 500_000
"""How fast an offset is slewed away [ppb]: 500 ppm as adjtime(2) does, a second in 33 minutes. With the largest rate
correction against it, mission time still runs forward."""
DRIFT_PPB_MAX: Final = 200_000
"""Fastest drift of a sound clock [ppb]: 200 ppm, twice a cheap quartz from -40 to +85 degrees Celsius."""
JUMP_NS_MIN: Final = 100_000_000
"""Least jump that is told from drift and from the time between two readings [ns]."""
UTC_NS_MAX: Final = (1 << 63) - 1
"""Latest mission time [ns since 1970]: what messages and sequences hold."""

I64 = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]


@unique
class TimeState(StrEnum):
    """What is known of mission time."""

    UNKNOWN = "UNKNOWN"
    """Never corrected, or lost."""
    KEPT = "KEPT"
    """Corrected before the last reset, and the clock ran through."""
    CORRELATED = "CORRELATED"
    """Corrected by the ground in this boot."""


class Correction(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What is on the disk."""

    correlation: Annotated[int, msgspec.Meta(ge=0, le=(1 << 32) - 1)] = 0
    is_known: bool = False
    jumps_ns: I64 = 0
    """Sum of the jumps of the board's clock [ns]."""
    anchor_ns: I64 = 0
    """The clock when the correction was made [ns]."""
    base_ns: I64 = 0
    """STCF at that instant [ns]."""
    rate_ppb: I64 = 0
    slew_ns: I64 = 0
    """What was to be slewed away from then on [ns]."""

    def stcf_ns(self, clock_ns: int) -> int:
        """What to add to the clock [ns]."""
        if not self.rate_ppb and not self.slew_ns:
            return self.base_ns  # as always until the ground has found a drift
        elapsed_ns = clock_ns - self.anchor_ns
        return self.base_ns + elapsed_ns * self.rate_ppb // PPB + self.slew_ns - self.slew_left_ns(clock_ns)

    def slew_left_ns(self, clock_ns: int) -> int:
        """What is still to be slewed away [ns]."""
        done_ns = max(0, clock_ns - self.anchor_ns) * SLEW_PPB // PPB
        return max(0, self.slew_ns - done_ns) if self.slew_ns > 0 else min(0, self.slew_ns + done_ns)


class MissionTime:
    """The component TIME; also the clock (`flightsw.ports.Clock`) that the rest of the manager reads.

    Args:
        clock: the board's.
        disk: keeps the correction over resets.
        report: as of `flightsw.component`.
    """

    name = "TIME"

    def __init__(self, clock: Clock, disk: Disk, report: Report) -> None:
        self._clock = clock
        self._report = report
        self._copies = TwoCopies(disk, STATE_FILE)
        self._started_ns = self._read_ns = clock.monotonic_ns()
        self._read_utc_ns = clock.utc_ns()
        self._lost = ""
        self._correction = self._restored()
        self.state = TimeState.KEPT if self._correction.is_known else TimeState.UNKNOWN
        self._found_ns: list[int] = []
        """Jumps that are not reported yet [ns]."""
        self._is_unsaved = False
        self.jumps_count = 0

    # -- the clock

    def monotonic_ns(self) -> int:
        """Time for timers [ns]; never jumps."""
        return self._clock.monotonic_ns()

    def utc_ns(self) -> int:
        """Mission time [ns since 1970-01-01T00:00:00Z], known or not; never negative."""
        clock_ns = self.clock_ns()
        return min(max(0, clock_ns + self._correction.stcf_ns(clock_ns)), UTC_NS_MAX)

    def clock_ns(self) -> int:
        """The board's clock without its jumps [ns]; what the ground measures drift of."""
        monotonic_ns, utc_ns = self._clock.monotonic_ns(), self._clock.utc_ns()
        elapsed_ns = monotonic_ns - self._read_ns
        moved_ns = utc_ns - self._read_utc_ns - elapsed_ns
        self._read_ns, self._read_utc_ns = monotonic_ns, utc_ns
        if abs(moved_ns) > JUMP_NS_MIN + elapsed_ns * DRIFT_PPB_MAX // PPB:
            self._found_ns.append(moved_ns)
            self._correction = msgspec.structs.replace(self._correction, jumps_ns=self._correction.jumps_ns + moved_ns)
        return utc_ns - self._correction.jumps_ns

    def known_ns(self) -> int | None:
        """Mission time [ns], None while it is not known."""
        return None if self.state is TimeState.UNKNOWN else self.utc_ns()

    @property
    def correlation(self) -> int:
        """Number of the correction in force."""
        return self._correction.correlation

    def reply(self, node: int, boot_count: int, number: int) -> TimeReply:
        """All clocks now, for the ground."""
        clock_ns = self.clock_ns()
        return TimeReply(
            node=node,
            boot_count=boot_count,
            number=number,
            met_ns=self._read_ns - self._started_ns,
            clock_ns=clock_ns,
            mission_ns=min(max(0, clock_ns + self._correction.stcf_ns(clock_ns)), UTC_NS_MAX),
            rate_ppb=self._correction.rate_ppb,
            correlation=self._correction.correlation,
            state=self.state.value,
        )

    # -- the component

    def boot(self) -> None:
        """Tell what the disk did not hold."""
        if self._lost:
            self._report("TIME.LOST", self._lost)

    def cycle(self, now_ns: int) -> None:
        """Look for a jump of the board's clock; report and keep what was found."""
        self.clock_ns()
        if self._found_ns:
            found_ns, self._found_ns = self._found_ns, []
            self.jumps_count += len(found_ns)
            for jump_ns in found_ns:
                self._report("TIME.CLOCK_JUMPED", jump_ns / NS_PER_S)
            self._save_or_report()
        elif self._is_unsaved:
            self._save_or_report()

    def handlers(self) -> Mapping[str, Handler]:
        """Its commands."""
        return {"ADJUST": self._do_adjust, "STEP": self._do_step, "SET": self._do_set}

    def channels(self) -> Mapping[str, Scalar]:
        """Its telemetry."""
        clock_ns = self.clock_ns()
        return {
            "state": self.state.value,
            "stcf_ns": self._correction.stcf_ns(clock_ns),
            "rate_ppb": self._correction.rate_ppb,
            "slew_left_ns": self._correction.slew_left_ns(clock_ns),
            "correlation": self._correction.correlation,
            "clock_jumps": self.jumps_count,
        }

    # -- commands

    def _do_adjust(self, arguments: tuple[Any, ...]) -> Outcome:
        offset_ns, rate_ppb, correlation = arguments
        return self._correct("slew", correlation, rate_ppb=rate_ppb, slew_ns=offset_ns)

    def _do_step(self, arguments: tuple[Any, ...]) -> Outcome:
        offset_ns, correlation = arguments
        return self._correct("jump", correlation, jump_ns=offset_ns)

    def _do_set(self, arguments: tuple[Any, ...]) -> Outcome:
        offset_ns, correlation = arguments
        return self._correct("jump", correlation, jump_ns=offset_ns)

    def _correct(
        self, change: str, correlation: int, *, rate_ppb: int | None = None, slew_ns: int = 0, jump_ns: int = 0
    ) -> Outcome:
        """Put a new correction in force; the slew that was under way ends where it is."""
        now = self._correction
        if correlation != now.correlation:
            detail = f"measured against correlation {correlation}, {now.correlation} is in force"
            return Outcome(CommandCode.VALIDATION_ERROR, detail)
        clock_ns = self.clock_ns()
        base_ns = now.stcf_ns(clock_ns) + jump_ns
        if not 0 <= clock_ns + base_ns <= UTC_NS_MAX:
            detail = f"mission time would be {clock_ns + base_ns} ns, expected 0 to {UTC_NS_MAX}"
            return Outcome(CommandCode.VALIDATION_ERROR, detail)
        before = self._correction
        self._correction = Correction(
            correlation=now.correlation + 1,
            is_known=True,
            jumps_ns=before.jumps_ns,
            anchor_ns=clock_ns,
            base_ns=base_ns,
            rate_ppb=now.rate_ppb if rate_ppb is None else rate_ppb,
            slew_ns=slew_ns,
        )
        try:
            self._save()
        except StorageError as error:
            self._correction = before
            return Outcome(CommandCode.EXECUTION_ERROR, str(error)[:512])
        self.state = TimeState.CORRELATED
        offset_s = (slew_ns or jump_ns) / NS_PER_S
        self._report("TIME.CHANGED", self._correction.correlation, change, offset_s, self._correction.rate_ppb)
        return OK

    # -- the disk

    def _restored(self) -> Correction:
        """The correction of the last boot, where it holds."""
        try:
            data = self._copies.load()
            if data is None:
                return Correction()
            found = msgspec.convert(cbor.loads(data), Correction)
        except (StorageError, MessageError, msgspec.ValidationError) as error:
            self._lost = f"the correction on the disk cannot be read: {error}"[:512]
            return Correction()
        clock_ns = self._read_utc_ns - found.jumps_ns
        if found.is_known and clock_ns < found.anchor_ns:
            behind_s = (found.anchor_ns - clock_ns) / NS_PER_S
            self._lost = f"the board's clock is {behind_s:.3f} s behind where it was at the last correction"
            return Correction(correlation=found.correlation + 1)
        return found

    def _save(self) -> None:
        self._copies.store(cbor.dumps(list(msgspec.structs.astuple(self._correction))))
        self._is_unsaved = False

    def _save_or_report(self) -> None:
        try:
            self._save()
        except StorageError as error:
            if not self._is_unsaved:
                self._report("TIME.UNSAVED", str(error)[:512])
            self._is_unsaved = True
