"""Modes of a node: one table of what leads from one to another, one table of what each allows.

Both are printed into the documents, and every part of the manager asks here. Three things change the mode: power
control (charge and sun; level-triggered with hysteresis, so that it puts itself right in the next cycle), a limit rule
that fired, and the ground. SAFE is left by the ground only, and is kept over any reset.
"""

from enum import Enum, unique
from typing import Final, NamedTuple

import msgspec

from flightsw.errors import MessageError, StorageError
from flightsw.ports import Disk
from flightsw.storage.copies import TwoCopies
from flightsw.storage.voting import Voted
from flightsw.wire import cbor
from flightsw.wire.messages import Mode


@unique
class Cause(Enum):
    """What can change the mode."""

    BOOT_DONE = "boot done"
    SAFE_KEPT = "safe kept over the reset"
    BOOT_LOOP = "boots that did not last"
    RECORD_LOST = "mode record lost"
    SUN_LOST = "sun lost"
    SUN_BACK = "sun back"
    CHARGE_LOW = "charge low"
    CHARGE_CRITICAL = "charge critical"
    CHARGE_RECOVERED = "charge recovered"
    RULE_FIRED = "limit rule"
    SAFE_COMMANDED = "safe commanded"
    NOMINAL_COMMANDED = "nominal commanded"
    MAINTENANCE_COMMANDED = "maintenance commanded"
    MAINTENANCE_OVER = "maintenance time over"
    COPIES_LOST = "no two copies of the mode agree"

    __hash__ = object.__hash__  # as quick as it is good: members are single, and each cycle looks one up


TRANSITIONS: Final[dict[tuple[Mode, Cause], Mode]] = {
    (Mode.BOOT, Cause.BOOT_DONE): Mode.NOMINAL,
    (Mode.BOOT, Cause.SAFE_KEPT): Mode.SAFE,
    (Mode.BOOT, Cause.BOOT_LOOP): Mode.SAFE,
    (Mode.BOOT, Cause.RECORD_LOST): Mode.SAFE,
    (Mode.NOMINAL, Cause.SUN_LOST): Mode.ECLIPSE,
    (Mode.NOMINAL, Cause.CHARGE_LOW): Mode.LOW_POWER,
    (Mode.NOMINAL, Cause.CHARGE_CRITICAL): Mode.SAFE,
    (Mode.NOMINAL, Cause.RULE_FIRED): Mode.SAFE,
    (Mode.NOMINAL, Cause.SAFE_COMMANDED): Mode.SAFE,
    (Mode.NOMINAL, Cause.MAINTENANCE_COMMANDED): Mode.MAINTENANCE,
    (Mode.ECLIPSE, Cause.SUN_BACK): Mode.NOMINAL,
    (Mode.ECLIPSE, Cause.CHARGE_LOW): Mode.LOW_POWER,
    (Mode.ECLIPSE, Cause.CHARGE_CRITICAL): Mode.SAFE,
    (Mode.ECLIPSE, Cause.RULE_FIRED): Mode.SAFE,
    (Mode.ECLIPSE, Cause.SAFE_COMMANDED): Mode.SAFE,
    (Mode.ECLIPSE, Cause.MAINTENANCE_COMMANDED): Mode.MAINTENANCE,
    (Mode.LOW_POWER, Cause.CHARGE_RECOVERED): Mode.NOMINAL,
    (Mode.LOW_POWER, Cause.CHARGE_CRITICAL): Mode.SAFE,
    (Mode.LOW_POWER, Cause.RULE_FIRED): Mode.SAFE,
    (Mode.LOW_POWER, Cause.SAFE_COMMANDED): Mode.SAFE,
    (Mode.SAFE, Cause.COPIES_LOST): Mode.SAFE,
    (Mode.SAFE, Cause.NOMINAL_COMMANDED): Mode.NOMINAL,
    (Mode.SAFE, Cause.MAINTENANCE_COMMANDED): Mode.MAINTENANCE,
    (Mode.MAINTENANCE, Cause.CHARGE_CRITICAL): Mode.SAFE,
    (Mode.MAINTENANCE, Cause.RULE_FIRED): Mode.SAFE,
    (Mode.MAINTENANCE, Cause.MAINTENANCE_OVER): Mode.SAFE,
    (Mode.MAINTENANCE, Cause.SAFE_COMMANDED): Mode.SAFE,
    (Mode.MAINTENANCE, Cause.NOMINAL_COMMANDED): Mode.NOMINAL,
}
"""(mode, cause) -> mode. A pair that is not here changes nothing: SAFE is left by command only."""


@unique
class Activity(Enum):
    """What a mode may switch off. The receiver, commanding, recording and the beacon are not among them: they go on in
    every mode."""

    JOBS = "jobs"
    TRANSFERS = "transfers"
    HOUSEKEEPING = "housekeeping"
    PLAYBACK = "playback"
    SEQUENCES = "sequences"
    SCRUB = "scrub"
    RESPONSES = "responses"

    __hash__ = object.__hash__  # as of `Cause`


@unique
class Allowance(Enum):
    """How far a mode allows an activity."""

    YES = "yes"
    REDUCED = "reduced"
    """Housekeeping: at longer periods. Responses: those of rules marked `in_maintenance`."""
    COMMANDED = "as commanded"
    """Only what the ground asked for after the mode was entered. Sequences: also those marked safe."""
    NO = "no"


def _row(*allowances: Allowance) -> dict[Activity, Allowance]:
    return dict(zip(Activity, allowances, strict=True))


_YES, _REDUCED, _COMMANDED, _NO = Allowance

ACTIVITIES: Final[dict[Mode, dict[Activity, Allowance]]] = {
    # jobs, transfers, housekeeping, playback, sequences, scrub, responses
    Mode.BOOT: _row(_NO, _NO, _NO, _NO, _NO, _NO, _NO),
    Mode.NOMINAL: _row(_YES, _YES, _YES, _YES, _YES, _YES, _YES),
    Mode.ECLIPSE: _row(_YES, _YES, _YES, _YES, _YES, _YES, _YES),
    Mode.LOW_POWER: _row(_NO, _YES, _REDUCED, _YES, _YES, _YES, _YES),
    Mode.SAFE: _row(_NO, _COMMANDED, _REDUCED, _COMMANDED, _COMMANDED, _NO, _YES),
    Mode.MAINTENANCE: _row(_NO, _YES, _YES, _COMMANDED, _COMMANDED, _YES, _REDUCED),
}
"""Mode -> activity -> how far it is allowed."""

SUN_PRESENT: Final = 0.5
"""Share of the sun's disc from which the node counts itself in sunlight."""

HISTORY_MAX: Final = 16
"""Changes of mode that are kept: four orbits of sun and eclipse, or all that an anomaly brings in a pass-less night."""

STATE_NAME: Final = "mode"
"""File name of the kept state, before the endings of its two copies."""

_MODE_OF_BYTES: Final = {bytes((mode,)): mode for mode in Mode}

NS_PER_S: Final = 1_000_000_000


class PowerLimits(NamedTuple):
    """Thresholds of power control, as shares of the battery's capacity."""

    low_power_enter: float
    """LOW_POWER is entered below."""
    low_power_leave: float
    """LOW_POWER is left above."""
    safe_enter: float
    """SAFE is entered below."""


class ModeEntry(NamedTuple):
    """One change of mode and its reason."""

    mode: Mode
    """After the change."""
    cause: Cause
    rule: str
    """The limit rule that asked for it; empty when none did."""
    boot_count: int
    uptime_s: int
    """Since the start of that boot [s]."""
    utc_ns: int
    """By the node's clock, which may have been wrong [ns since 1970-01-01T00:00:00Z]."""

    @property
    def reason(self) -> str:
        """The cause, and the rule where one asked."""
        return f"{self.cause.value} {self.rule}" if self.rule else self.cause.value


class ModeManager:
    """The mode of one node and the way it got there.

    Args:
        disk: keeps SAFE and the last changes over a reset.
        boot_count: which boot this is.
        limits: thresholds of power control; may be set anew.
        started_ns: when this boot began [monotonic ns].
        is_voted: compare the copies of the mode whenever it is asked; may be set anew.
    """

    def __init__(
        self, disk: Disk, boot_count: int, limits: PowerLimits, started_ns: int, is_voted: bool = True
    ) -> None:
        self.voted = Voted(Mode.BOOT, _mode_bytes, _MODE_OF_BYTES.__getitem__, Mode.SAFE)
        """The mode in three copies: everything on board asks it, for days."""
        self.is_voted = is_voted
        self.limits = limits
        self.entered_ns = started_ns
        """When the mode was entered [monotonic ns]."""
        self.lost_reason = ""
        """Why the kept state was not taken; empty: it was."""
        self.unsaved_reason = ""
        """Why the last change was not written; empty: it was."""
        self._boot_count = boot_count
        self._started_ns = started_ns
        self._copies = TwoCopies(disk, STATE_NAME)
        self._is_safe_kept = False
        self._losses_known_count = 0
        self.history: list[ModeEntry] = []
        """The last changes, oldest first, over resets."""
        self._load()

    @property
    def mode(self) -> Mode:
        """The mode that at least two copies hold; SAFE when no two agree."""
        return self.voted.value if self.is_voted else self.voted.unchecked

    def boot(self, is_looping: bool, *, now_ns: int, utc_ns: int) -> None:
        """Leave BOOT: into SAFE when the node was there, boots do not last, or nobody knows; else into NOMINAL."""
        if self.lost_reason:
            cause = Cause.RECORD_LOST
        elif is_looping:
            cause = Cause.BOOT_LOOP
        else:
            cause = Cause.SAFE_KEPT if self._is_safe_kept else Cause.BOOT_DONE
        self.apply(cause, now_ns=now_ns, utc_ns=utc_ns)

    def apply(self, cause: Cause, *, now_ns: int, utc_ns: int, rule: str = "") -> bool:
        """Take a cause; says whether the mode changed. Its reason is on the disk when this returns, or
        `unsaved_reason` says why not."""
        after = TRANSITIONS.get((self.mode, cause))
        if after is None:
            return False
        self.voted.value = after
        self.entered_ns = now_ns
        uptime_s = (now_ns - self._started_ns) // NS_PER_S
        entry = ModeEntry(after, cause, rule, self._boot_count, uptime_s, utc_ns)
        self.history = [*self.history, entry][-HISTORY_MAX:]
        if after is Mode.SAFE:
            self._is_safe_kept = True
        elif cause is Cause.NOMINAL_COMMANDED:
            self._is_safe_kept = False  # MAINTENANCE does not end it: a reset there leads back to SAFE
        self._store()
        return True

    def take_loss(self, *, now_ns: int, utc_ns: int) -> bool:
        """Put on record that a vote found no majority since the last time, which has led to SAFE; says whether so."""
        if self.voted.lost_count == self._losses_known_count:
            return False
        self._losses_known_count = self.voted.lost_count
        return self.apply(Cause.COPIES_LOST, now_ns=now_ns, utc_ns=utc_ns)

    def observe(self, charge_share: float, sunlight: float, *, now_ns: int, utc_ns: int) -> bool:
        """Judge one reading of the sensors (power control); says whether the mode changed."""
        cause = self.power_cause(charge_share, sunlight)
        return cause is not None and self.apply(cause, now_ns=now_ns, utc_ns=utc_ns)

    def power_cause(self, charge_share: float, sunlight: float) -> Cause | None:
        """What power control makes of one reading of the sensors; None when the mode is to stay, as nearly always."""
        limits = self.limits
        if charge_share < limits.safe_enter:
            cause = Cause.CHARGE_CRITICAL
        elif charge_share < limits.low_power_enter:
            cause = Cause.CHARGE_LOW
        elif self.mode is Mode.LOW_POWER:
            if charge_share <= limits.low_power_leave:
                return None
            cause = Cause.CHARGE_RECOVERED
        else:
            cause = Cause.SUN_BACK if sunlight >= SUN_PRESENT else Cause.SUN_LOST
        return cause if (self.mode, cause) in TRANSITIONS else None

    def allowance(self, activity: Activity) -> Allowance:
        """How far the present mode allows an activity."""
        return ACTIVITIES[self.mode][activity]

    def job_refusal(self) -> str | None:
        """Why no job runs now, or None."""
        return None if self.allowance(Activity.JOBS) is Allowance.YES else f"mode {self.mode.name}"

    @property
    def last(self) -> ModeEntry | None:
        """The last change of this boot or an earlier one, None before the first."""
        return self.history[-1] if self.history else None

    def _load(self) -> None:
        try:
            data = self._copies.load()
            if data is not None:
                self._is_safe_kept, kept = _unpack(data)
                self.history = kept[-HISTORY_MAX:]
        except StorageError as error:
            self.lost_reason = str(error)

    def _store(self) -> None:
        kept = [[int(one.mode), one.cause.value, *one[2:]] for one in self.history]
        try:
            self._copies.store(cbor.dumps([self._is_safe_kept, kept]))
        except StorageError as error:  # a full disk must not hold a node back from SAFE
            self.unsaved_reason = str(error)
        else:
            self.unsaved_reason = ""


def _mode_bytes(mode: Mode) -> bytes:
    return bytes((mode,))


def _unpack(data: bytes) -> tuple[bool, list[ModeEntry]]:
    try:
        is_safe, kept = msgspec.convert(cbor.loads(data), tuple[bool, list[ModeEntry]], builtin_types=(bytes,))
    except (MessageError, msgspec.ValidationError) as error:
        raise StorageError(f"{STATE_NAME}: passed its CRC but does not decode: {error}") from None
    return is_safe, kept
