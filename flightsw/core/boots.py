"""Boots: why the node starts, what ended the boot before, and protection against boots that do not last.

A boot is *stable* once it has run `stable_s` with nobody hung. Two things are counted durably, in two copies:

- **Boots that did not last**, in a row. After `LOOP_BOOTS` of them the next boot is a *boot loop*: the node starts in
  SAFE, and no job is resumed there. The count goes back to zero by command (`CLEAR_BOOTS`), or when the node is stable
  again after the ground has commanded it out of SAFE; being stable in SAFE proves nothing about what made it crash.
- **Processor resets that nobody asked for** (watchdog, exception, a program that was killed, a kernel that gave up)
  since the node last was without power. After `PROCESSOR_RESETS_MAX` of them the next boot asks for a power cycle
  first: some states only a loss of power ends. That is tried `POWER_CYCLES_MAX` times in a row; then the boot loop's
  SAFE is all that is left, and the ground has to look.

A commanded reset is no failure: it neither counts, nor proves anything. The reset log keeps the last `RESETS_KEPT_MAX`
boots with their cause and what is known of the end before them: how long that boot ran and in which words it ended,
from the manager itself when it knew, else from the board (the trace of an exception or of a hang).

Words: power-on reset, processor reset, exception-and-reset log as in cFE ES (`docs/src/cfe_es.dox`).
"""

from collections.abc import Callable
from typing import Annotated, Any, Final, NamedTuple

import msgspec

from flightsw.component import OK, Dump, Outcome, Report
from flightsw.errors import MessageError, StorageError
from flightsw.ports import Disk, ResetCause
from flightsw.storage.copies import TwoCopies
from flightsw.wire import cbor

NAME: Final = "boots"

LOOP_BOOTS: Final = 3
"""Boots in a row that do not last before the next one is a boot loop: one may be chance, two a coincidence."""

PROCESSOR_RESETS_MAX: Final = 2
"""Unasked processor resets before a power cycle: cFE's CFE_PLATFORM_ES_MAX_PROCESSOR_RESETS, default 2."""

POWER_CYCLES_MAX: Final = 2
"""Power cycles in a row that are tried: what two of them do not mend, a third does not."""

STABLE_S: Final = 300.0
"""How long a boot must last [s]: several cycles of every rate group, the first scrubs and the first contact tries."""

FORGIVEN_S: Final = 86_400.0
"""A boot that has lasted this long [s] forgives the processor resets before it: a reset a month is no pattern."""

RESETS_KEPT_MAX: Final = 32
"""Boots in the reset log: two boot loops and what led to them."""

WORDS_CHARACTERS_MAX: Final = 480
"""Characters of an end's last words that are kept, from their end: the error and the innermost calls."""

RECORD_BYTES_MAX: Final = 65_536
"""The whole record [bytes]: 32 entries with the longest words take a third of it."""

POWERLESS: Final = (ResetCause.POWER_ON, ResetCause.POWER_CYCLE, ResetCause.BROWN_OUT)
"""Causes by which the node was without power."""
UNASKED: Final = (ResetCause.WATCHDOG, ResetCause.EXCEPTION, ResetCause.KERNEL_PANIC, ResetCause.KILLED)
"""Processor resets that nobody asked for. A kernel that panics restarts the board without taking its power."""

NS_PER_S: Final = 1_000_000_000
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Words = Annotated[str, msgspec.Meta(max_length=WORDS_CHARACTERS_MAX)]


class Reset(msgspec.Struct, array_like=True, frozen=True):
    """One entry of the reset log: a boot, and the end of the one before it."""

    boot: Count
    cause: Count
    """A `ResetCause`."""
    utc_s: int
    """Mission time of the boot [s since 1970-01-01T00:00:00Z]; for the reader only."""
    ran_s: Count
    """How long the boot before ran, as far as is known [s]: at least so long."""
    was_stable: bool
    """Whether it was stable."""
    words: Words
    """How it ended, as the manager or the board said; empty when neither could."""


class _State(msgspec.Struct, array_like=True):
    """What the disk holds."""

    short_boots: Count = 0
    """Boots in a row that did not last, the present one not among them once it is stable."""
    processor_resets: Count = 0
    power_cycles: Count = 0
    """In a row, that this node asked for."""
    is_loop: bool = False
    """Whether the node is held in SAFE for its boots."""
    is_stable: bool = False
    """Whether the present boot has been stable."""
    ran_s: Count = 0
    """How long the present boot has run, as far as was written."""
    words: Words = ""
    """How the present boot ended, when it knew."""
    is_asked: bool = False
    """Whether the end of the present boot was asked for."""
    resets: Annotated[list[Reset], msgspec.Meta(max_length=RESETS_KEPT_MAX)] = []


class Settings(NamedTuple):
    """What the ground may set; it takes effect with the next boot."""

    stable_s: float = STABLE_S
    loop_boots: int = LOOP_BOOTS
    processor_resets_max: int = PROCESSOR_RESETS_MAX

    @classmethod
    def of(cls, parameter: Callable[[str], Any]) -> "Settings":
        """Those that parameters hold."""
        return cls(
            parameter("HEALTH.stable_s"), parameter("HEALTH.loop_boots"), parameter("HEALTH.processor_resets_max")
        )


DEFAULTS: Final = Settings()


class Boots:
    """The boots of one node.

    Args:
        disk: where their record lies.
        boot_count: of this boot.
        cause: of this boot.
        last_words: what the board has kept of the end before.
        now_ns, utc_ns: of this boot.
        settings: limits.

    The record is written once here, once when the boot is stable, and before an end that the node knows of. A disk that
    does not take it is counted, and stops nothing.
    """

    def __init__(
        self,
        disk: Disk,
        boot_count: int,
        cause: ResetCause,
        *,
        last_words: str = "",
        now_ns: int,
        utc_ns: int,
        settings: Settings = DEFAULTS,
    ) -> None:
        self._copies = TwoCopies(disk, NAME)
        self._settings = settings
        self._started_ns = self._released_ns = now_ns
        self._forgiven_ns = now_ns + round(FORGIVEN_S * NS_PER_S)
        self.cause = cause
        self.boot_count = boot_count
        self.unsaved_count = 0
        """Writes of the record that the disk did not take."""
        self.is_lost = False
        """Whether both copies of the record were damaged: what is known of earlier boots is gone."""
        self._state = self._load()
        self._begin(last_words, utc_ns)
        self._save()

    # -- what a boot must ask

    @property
    def is_loop(self) -> bool:
        """Whether this boot must start in SAFE."""
        return self._state.is_loop

    @property
    def must_power_cycle(self) -> bool:
        """Whether this boot should do nothing but lose its power."""
        state = self._state
        return (
            self.cause in UNASKED
            and state.processor_resets > self._settings.processor_resets_max
            and state.power_cycles < POWER_CYCLES_MAX
        )

    @property
    def is_stable(self) -> bool:
        """Whether this boot has lasted."""
        return self._state.is_stable

    @property
    def log(self) -> tuple[Reset, ...]:
        """The reset log, oldest first; this boot is the last."""
        return tuple(self._state.resets)

    # -- what happens in a boot

    def cycle(self, now_ns: int, is_sound: bool) -> bool:
        """Let time pass; says whether the boot became stable with this call.

        Args:
            now_ns: the present instant.
            is_sound: whether nobody hangs; a boot does not become stable while somebody does.
        """
        state = self._state
        if state.is_stable:
            if now_ns >= self._forgiven_ns:
                self._forgive(now_ns)
            return False
        if not is_sound or now_ns - self._started_ns < round(self._settings.stable_s * NS_PER_S):
            return False
        if state.is_loop and not self._is_released(now_ns):
            return False
        state.is_stable, state.is_loop, state.short_boots, state.power_cycles = True, False, 0, 0
        self._save(now_ns)
        return True

    def released(self, now_ns: int) -> None:
        """The ground has commanded the node out of SAFE: from here on it can prove itself."""
        self._released_ns = now_ns

    def ending(self, words: str, now_ns: int, *, is_asked: bool = False) -> None:
        """The node knows that it is about to end, and why. Durable on return, if the disk takes it.

        Args:
            words: why, in a sentence.
            now_ns: the present instant.
            is_asked: whether somebody asked for it; else the boot counts as one that did not last, unless stable.
        """
        self._state.words = words[-WORDS_CHARACTERS_MAX:]
        self._state.is_asked = is_asked
        self._save(now_ns)

    def power_cycling(self, now_ns: int) -> None:
        """The node asks for a power cycle by itself. A boot that does nothing else is not one that did not last."""
        self._state.power_cycles += 1
        self.ending(f"power cycle after {self._state.processor_resets} processor resets", now_ns, is_asked=True)

    def clear(self, now_ns: int) -> Outcome:
        """By command: forget what was counted; the reset log stays."""
        state = self._state
        state.short_boots = state.processor_resets = state.power_cycles = 0
        state.is_loop = False
        self._save(now_ns)
        return OK

    def dump(self, dump: Dump) -> Outcome:
        """By command: send the reset log."""
        dump("NODE", cbor.dumps(msgspec.to_builtins(self.log, builtin_types=(bytes,)), RECORD_BYTES_MAX))
        return OK

    def announce(self, report: Report) -> None:
        """Report what the ground should know at once."""
        if self.is_lost:
            report("NODE.BOOTS_LOST")
        if self._state.is_loop:
            report("NODE.BOOT_LOOP", self._state.short_boots)
        words = self._state.resets[-1].words
        if words:
            report("NODE.LAST_WORDS", words)

    def channels(self, now_ns: int) -> dict[str, int | float | bool | str]:
        """What NODE tells of boots."""
        state = self._state
        return {
            "boots": self.boot_count,
            "reset_cause": self.cause.name,
            "uptime_s": (now_ns - self._started_ns) // NS_PER_S,
            "stable": state.is_stable,
            "short_boots": state.short_boots,
            "processor_resets": state.processor_resets,
            "boot_loop": state.is_loop,
        }

    # -- inside

    def _begin(self, last_words: str, utc_ns: int) -> None:
        """Judge the end of the boot before, and begin this one."""
        state, cause = self._state, self.cause
        if cause in POWERLESS:
            state.processor_resets = 0
        elif cause in UNASKED:
            state.processor_resets += 1
        is_first = not state.resets
        if not is_first and not state.is_stable and not state.is_asked and cause is not ResetCause.RESET_COMMAND:
            state.short_boots += 1
        if state.short_boots >= self._settings.loop_boots:
            state.is_loop = True
        words = state.words or last_words[-WORDS_CHARACTERS_MAX:]
        entry = Reset(self.boot_count, int(cause), utc_ns // NS_PER_S, state.ran_s, state.is_stable, words)
        state.resets = [*state.resets, entry][-RESETS_KEPT_MAX:]
        state.is_stable, state.is_asked, state.ran_s, state.words = False, False, 0, ""

    def _is_released(self, now_ns: int) -> bool:
        """Whether the node has lasted since the ground commanded it out of SAFE."""
        since_ns = self._released_ns
        return since_ns > self._started_ns and now_ns - since_ns >= round(self._settings.stable_s * NS_PER_S)

    def _forgive(self, now_ns: int) -> None:
        self._forgiven_ns = 2**63
        if self._state.processor_resets:
            self._state.processor_resets = 0
            self._save(now_ns)

    def _load(self) -> _State:
        try:
            data = self._copies.load()
            return _State() if data is None else _decode(data)
        except (StorageError, MessageError):
            self.is_lost = True
            return _State()

    def _save(self, now_ns: int | None = None) -> None:
        state = self._state
        if now_ns is not None:
            state.ran_s = (now_ns - self._started_ns) // NS_PER_S
        try:
            self._copies.store(cbor.dumps(msgspec.to_builtins(state, builtin_types=(bytes,)), RECORD_BYTES_MAX))
        except StorageError:
            self.unsaved_count += 1


def _decode(data: bytes) -> _State:
    """Raises: MessageError."""
    try:
        return msgspec.convert(cbor.loads(data, RECORD_BYTES_MAX), _State)
    except msgspec.ValidationError as error:
        raise MessageError(f"boots: {error}") from None
