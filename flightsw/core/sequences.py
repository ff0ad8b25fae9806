"""Sequences on board: stored commands that run at their times, with the ground or without it.

A relative sequence counts monotonic time, from its start and from entry to entry, so its delays never move when mission
time jumps. A delay begins when the entry before it runs, so it is never shorter than written. An absolute one waits for
mission time: entries that are late by at most `late_max_s` run, in order; older ones are skipped and reported; what has
run never runs again, however far mission time goes back.

An entry runs **at most once**. That it begins is on the disk, as INTERRUPTED, before its command is executed; the
outcome is on the disk right after. So a reset in between leaves an entry of which nobody knows whether it took effect:
it is reported and not run again. A sequence that ran before a reset goes on at its next entry. A relative one then
waits for the rest of its delay as it was last written, at most `CHECKPOINT_NS` ago; time without power is not counted,
because no clock of a node counts it for sure.
"""

from collections.abc import Callable, Mapping
from typing import Final

from flightsw.component import OK, Audit, Execute, Outcome, Report
from flightsw.core.sequence_store import Loaded, SequenceStore
from flightsw.dictionary import Dictionary
from flightsw.dictionary.sequence_file import AutoStart, Entry, EntryStatus, Kind, SequenceImage, objection
from flightsw.errors import MessageError, StorageError
from flightsw.ports import Disk, ResetCause
from flightsw.wire.messages import CommandCode, Mode

NS_PER_S: Final = 1_000_000_000

LOADED_MAX: Final = 32
"""Sequences that are loaded: half a megabyte of images in memory."""
RUNNING_MAX: Final = 8
"""Sequences that run at once: each costs a look in every cycle."""
DEPTH_MAX: Final = 4
"""Sequences that start one another: one that starts itself again by way of others must end."""
CYCLE_ENTRIES_MAX: Final = 32
"""Entries that run in one cycle: each syncs the disk twice, and the node has other work; the next cycle goes on."""
CHECKPOINT_NS: Final = 60 * NS_PER_S
"""The rest of a delay is written this often [ns]: a reset makes a delay longer by at most this."""
DETAIL_CHARACTERS_MAX: Final = 512
"""Text of an answer [characters]: what a verification holds."""

POWER_ON_CAUSES: Final = (ResetCause.POWER_ON, ResetCause.POWER_CYCLE, ResetCause.BROWN_OUT)
"""Power was off. All others are resets with power on (cFE: processor resets)."""


class Sequences:
    """All sequences of a node.

    Args:
        disk: keeps images and states.
        dictionary: what entries are checked against.
        execute: runs a command of an entry.
        report, audit: as of `flightsw.component`.
        mode: the mode now.
        now_ns: monotonic time [ns].
        mission_ns: mission time [ns], None while it is not known.
        on_running: told whether any sequence runs, when that changes: only then is the cycle needed.
    """

    def __init__(
        self,
        disk: Disk,
        dictionary: Dictionary,
        *,
        execute: Execute,
        report: Report,
        audit: Audit,
        mode: Callable[[], Mode],
        now_ns: Callable[[], int],
        mission_ns: Callable[[], int | None],
        on_running: Callable[[bool], None] = lambda is_running: None,
    ) -> None:
        self._dictionary = dictionary
        self._execute = execute
        self._report = report
        self._audit = audit
        self._mode = mode
        self._now_ns = now_ns
        self._mission_ns = mission_ns
        self._on_running = on_running
        self._store = SequenceStore(disk)
        self._found = self._store.read()
        self._loaded = self._found.sequences
        self._running: dict[str, Loaded] = {}
        """In the order in which they started."""
        self._entering: Loaded | None = None
        """The sequence of which an entry runs now."""
        self.executed_count = 0
        self.failed_count = 0
        self.skipped_count = 0
        self.repaired_count = self._found.repaired_count

    @property
    def loaded(self) -> Mapping[str, Loaded]:
        """All sequences, by name."""
        return self._loaded

    @property
    def running_count(self) -> int:
        """Sequences that run."""
        return len(self._running)

    # -- boot

    def boot(self, now_ns: int, cause: ResetCause) -> None:
        """Go on with what ran before the reset, then start what starts by itself at such a boot."""
        for name, reason in self._found.lost:
            self._report("SEQUENCES.LOST", name, reason[:DETAIL_CHARACTERS_MAX])
        self._found.lost.clear()
        resumed = [name for name, loaded in self._loaded.items() if loaded.state.is_running]
        for loaded in self._loaded.values():
            wrong = self._fault(loaded.image)
            if wrong is not None:
                loaded.fault = wrong
                self._report("SEQUENCES.LOST", loaded.state.name, wrong[:DETAIL_CHARACTERS_MAX])
        for name in resumed:
            self._resume(self._loaded[name], now_ns)
        power_was_off = cause in POWER_ON_CAUSES
        own = (AutoStart.ALWAYS, AutoStart.AFTER_POWER_ON if power_was_off else AutoStart.AFTER_RESET)
        for name, loaded in self._loaded.items():
            if loaded.image.header.auto_start in own and name not in resumed and loaded.state.is_enabled:
                self._auto_start(loaded, now_ns, cause)

    def _fault(self, image: SequenceImage) -> str | None:
        try:
            return objection(image, self._dictionary)
        except MessageError as error:
            return str(error)

    def _resume(self, loaded: Loaded, now_ns: int) -> None:
        state = loaded.state
        begun = state.next_entry - 1
        loaded.due_ns = now_ns + state.rest_ns
        loaded.saved_ns = now_ns
        self._begin(loaded)
        if not self._found.progress_is_sure:
            self._stop(loaded, "what it had done cannot be read for sure")
        elif loaded.fault:
            self._stop(loaded, loaded.fault)
        elif begun and state.status(begun) is EntryStatus.INTERRUPTED:
            self._report("SEQUENCES.INTERRUPTED", state.name, begun)
            if loaded.image.header.stops_on_failure:
                self._stop(loaded, f"entry {begun} was interrupted")
        if state.is_running and not self._end_if_done(loaded):
            self._report("SEQUENCES.RESUMED", state.name, state.next_entry, round(state.rest_ns / NS_PER_S, 3))

    def _auto_start(self, loaded: Loaded, now_ns: int, cause: ResetCause) -> None:
        refusal = self._refusal(loaded) or self._start(loaded, now_ns, depth=0, cause=f"at boot after {cause.name}")
        self._audit(
            "sequence", {"sequence": loaded.state.name, "act": "start at boot", "refused": refusal or "", "at": 1}
        )
        if refusal is not None:
            self._report("SEQUENCES.FAILED", loaded.state.name, 1, f"not started at boot: {refusal}"[:512])

    # -- the rate group

    def cycle(self, now_ns: int) -> None:
        """Run the entries that are due."""
        if self._store.has_unsaved:
            self._store.retry()
        if not self._running:
            return
        left = CYCLE_ENTRIES_MAX
        for loaded in list(self._running.values()):
            if loaded.image.header.kind is Kind.RELATIVE:
                left = self._run_relative(loaded, now_ns, left)
            else:
                left = self._run_absolute(loaded, left)

    def _may_go_on(self, loaded: Loaded) -> bool:
        """Whether a sequence still runs; SAFE ends those that are not made for it."""
        if not loaded.state.is_running:
            return False  # an entry of another one stopped it
        if self._mode() is Mode.SAFE and not loaded.image.header.runs_in_safe:
            self._decide(loaded, "stop", "SAFE")
            return False
        return True

    def _run_relative(self, loaded: Loaded, now_ns: int, left: int) -> int:
        """Returns how many entries the cycle has left."""
        state = loaded.state
        while left and self._may_go_on(loaded) and loaded.due_ns <= now_ns:
            left -= 1
            number = state.next_entry
            state.rest_ns = 0
            if number < len(state.statuses):
                following = self._entry(loaded, number + 1)
                # an entry that cannot be read is judged when it is its turn
                state.rest_ns = 0 if following is None else following.time_ns
            loaded.due_ns = now_ns + state.rest_ns
            self._run_entry(loaded, number)
        if state.is_running and now_ns - loaded.saved_ns >= CHECKPOINT_NS:
            state.rest_ns = max(0, loaded.due_ns - now_ns)
            self._save(loaded)
        return left

    def _run_absolute(self, loaded: Loaded, left: int) -> int:
        """Returns how many entries the cycle has left."""
        state, header = loaded.state, loaded.image.header
        if not self._may_go_on(loaded):
            return left
        mission_ns = self._mission_ns()
        if mission_ns is None:
            if not loaded.is_held:
                loaded.is_held = True
                self._report("SEQUENCES.HELD", state.name)
            return left
        loaded.is_held = False
        while left and self._may_go_on(loaded):
            number = state.next_entry
            entry = self._entry(loaded, number)
            if entry is not None and entry.time_ns > mission_ns:
                break
            if entry is not None and mission_ns - entry.time_ns > header.late_max_s * NS_PER_S:
                self._skip(loaded, mission_ns, header.late_max_s * NS_PER_S)
                continue
            left -= 1
            self._run_entry(loaded, number)
            mission_ns = self._mission_ns()  # an entry may have set it
            if mission_ns is None:
                break
        return left

    def _skip(self, loaded: Loaded, mission_ns: int, late_max_ns: int) -> None:
        """Leave out all entries from the next one on that are too late."""
        state = loaded.state
        first = last = state.next_entry
        entry = self._entry(loaded, first)
        late_ns = 0 if entry is None else mission_ns - entry.time_ns
        while last < len(state.statuses):
            following = self._entry(loaded, last + 1)
            if following is None or mission_ns - following.time_ns <= late_max_ns:
                break
            last += 1
        state.set_status(first, last, EntryStatus.SKIPPED)
        state.next_entry = last + 1
        self.skipped_count += last + 1 - first
        self._report("SEQUENCES.SKIPPED", state.name, first, last, late_ns // NS_PER_S)
        self._audit("sequence", {"sequence": state.name, "act": "skip", "first": first, "last": last})
        if not self._end_if_done(loaded):
            self._save(loaded)

    def _run_entry(self, loaded: Loaded, number: int) -> None:
        """Execute an entry, and put on the disk that it began before, and how it ended after."""
        state = loaded.state
        entry = self._entry(loaded, number)
        if entry is None:
            self._end_entry(loaded, number, EntryStatus.FAILED_CHECKSUM, "checksum does not hold")
            return
        state.set_status(number, number, EntryStatus.INTERRUPTED)
        state.next_entry = number + 1
        if not self._save(loaded):
            # what cannot be remembered is not done: after a reset it would be done twice
            state.set_status(number, number, EntryStatus.LOADED)
            state.next_entry = number
            self._stop(loaded, "the disk does not take what it does")
            return
        outer, self._entering = self._entering, loaded
        try:
            outcome = self._execute(entry.opcode, entry.arguments, f"sequence {state.name} entry {number}")
        finally:
            self._entering = outer
        if outcome.code is CommandCode.OK:
            self._end_entry(loaded, number, EntryStatus.EXECUTED, "")
        else:
            reason = f"{entry.opcode} {outcome.code.name} {outcome.detail}".rstrip()
            self._end_entry(loaded, number, EntryStatus.FAILED_DISTRIBUTION, reason)

    def _end_entry(self, loaded: Loaded, number: int, status: EntryStatus, reason: str) -> None:
        state = loaded.state
        state.set_status(number, number, status)
        state.next_entry = number + 1
        if status is EntryStatus.EXECUTED:
            self.executed_count += 1
        else:
            self.failed_count += 1
            self._report("SEQUENCES.FAILED", state.name, number, reason[:DETAIL_CHARACTERS_MAX])
        if not state.is_running:  # the entry stopped its own sequence
            self._save(loaded)
        elif status is not EntryStatus.EXECUTED and loaded.image.header.stops_on_failure:
            self._decide(loaded, "stop", f"entry {number} failed")
        elif not self._end_if_done(loaded):
            self._save(loaded)

    def _entry(self, loaded: Loaded, number: int) -> Entry | None:
        """An entry whose checksum holds now; one that changed in memory is taken from the disk again."""
        try:
            return loaded.image.entry(number)
        except MessageError:
            image = self._store.reread(loaded)
        if image is None:
            return None
        loaded.image = image
        self.repaired_count += 1
        self._report("SEQUENCES.REPAIRED", loaded.state.name, number)
        return image.entry(number)

    # -- starts and ends

    def _refusal(self, loaded: Loaded) -> str | None:
        """Why a sequence cannot start now, whoever asks."""
        state, header = loaded.state, loaded.image.header
        if loaded.fault:
            return loaded.fault
        if not state.is_enabled:
            return f"{state.name} is disabled"
        if state.is_running:
            return f"{state.name} runs already, at entry {state.next_entry} of {len(state.statuses)}"
        if len(self._running) >= RUNNING_MAX:
            return f"{len(self._running)} sequences run, at most {RUNNING_MAX}"
        if self._mode() is Mode.SAFE and not header.runs_in_safe:
            return f"{state.name} does not run in SAFE"
        return None

    def _start(self, loaded: Loaded, now_ns: int, *, depth: int, cause: str) -> str | None:
        """Begin with the first entry; returns why it could not."""
        state = loaded.state
        try:
            first = loaded.image.entry(1)
        except MessageError:
            found = self._entry(loaded, 1)
            if found is None:
                return "entry 1: checksum does not hold"
            first = found
        delay_ns = first.time_ns if loaded.image.header.kind is Kind.RELATIVE else 0
        before = state.statuses
        state.statuses = bytes(len(before))
        state.next_entry, state.rest_ns, state.depth, state.is_running = 1, delay_ns, depth, True
        state.runs_count += 1
        loaded.due_ns, loaded.saved_ns, loaded.is_held = now_ns + delay_ns, now_ns, False
        try:
            self._store.save(state)
        except StorageError as error:
            state.is_running, state.runs_count = False, state.runs_count - 1
            return str(error)
        self._begin(loaded)
        self._report("SEQUENCES.STARTED", state.name, cause)
        return None

    def _decide(self, loaded: Loaded, act: str, reason: str) -> None:
        """End a sequence by a decision of the node itself."""
        self._audit(
            "sequence", {"sequence": loaded.state.name, "act": act, "reason": reason, "at": loaded.state.next_entry}
        )
        self._stop(loaded, reason)

    def _stop(self, loaded: Loaded, reason: str) -> None:
        state = loaded.state
        self._end(loaded)
        self._report("SEQUENCES.STOPPED", state.name, state.next_entry, reason[:DETAIL_CHARACTERS_MAX])

    def _end_if_done(self, loaded: Loaded) -> bool:
        state = loaded.state
        if state.next_entry <= len(state.statuses):
            return False
        self._end(loaded)
        executed = state.count(EntryStatus.EXECUTED)
        failed = state.count(EntryStatus.FAILED_CHECKSUM, EntryStatus.FAILED_DISTRIBUTION)
        self._report("SEQUENCES.COMPLETED", state.name, executed, failed, state.count(EntryStatus.SKIPPED))
        return True

    def _begin(self, loaded: Loaded) -> None:
        self._running[loaded.state.name] = loaded
        if len(self._running) == 1:
            self._on_running(True)

    def _end(self, loaded: Loaded) -> None:
        loaded.state.is_running = loaded.is_held = False
        del self._running[loaded.state.name]
        self._save(loaded)
        if not self._running:
            self._on_running(False)

    def _save(self, loaded: Loaded) -> bool:
        """Put the state on the disk; what it does not take now it is offered again with each cycle."""
        loaded.saved_ns = self._now_ns()
        try:
            self._store.save(loaded.state)
        except StorageError:
            return False
        return True

    # -- commands

    def load(self, data: bytes) -> Outcome:
        """Keep a compiled sequence; one of the same name that does not run is replaced."""
        try:
            image = SequenceImage(data)
        except MessageError as error:
            return _failed(str(error), CommandCode.VALIDATION_ERROR)
        wrong = objection(image, self._dictionary)
        if wrong is not None:
            return _failed(wrong, CommandCode.VALIDATION_ERROR)
        name = image.header.name
        if name in self._running:
            return _failed(f"{name} runs", CommandCode.BUSY)
        if name not in self._loaded and len(self._loaded) >= LOADED_MAX:
            return _failed(f"{len(self._loaded)} sequences are loaded, at most {LOADED_MAX}", CommandCode.BUSY)
        try:
            self._loaded[name] = self._store.put(image)
        except StorageError as error:
            return _failed(str(error))
        self._report("SEQUENCES.LOADED", name, image.header.entries_count)
        return OK

    def start(self, name: str) -> Outcome:
        """Run a sequence from its first entry, for a command or for an entry of another sequence."""
        loaded = self._loaded.get(name)
        if loaded is None:
            return unknown(name)
        refusal = self._refusal(loaded)
        if refusal is None and loaded.image.header.kind is Kind.ABSOLUTE and self._mission_ns() is None:
            refusal = "mission time is not known"
        parent = self._entering
        depth = 0 if parent is None else parent.state.depth + 1
        if refusal is None and depth >= DEPTH_MAX:
            refusal = f"{depth} sequences started each other, at most {DEPTH_MAX}"
        if refusal is not None:
            if not loaded.state.is_enabled:
                return _failed(refusal, CommandCode.DISABLED)
            is_busy = loaded.state.is_running or len(self._running) >= RUNNING_MAX
            return _failed(refusal, CommandCode.BUSY if is_busy else CommandCode.EXECUTION_ERROR)
        cause = "by command" if parent is None else f"by {parent.state.name} entry {parent.state.next_entry - 1}"
        failed = self._start(loaded, self._now_ns(), depth=depth, cause=cause)
        return OK if failed is None else _failed(failed)

    def stop(self, name: str) -> Outcome:
        """End a sequence that runs, before its next entry."""
        loaded = self._loaded.get(name)
        if loaded is None:
            return unknown(name)
        if not loaded.state.is_running:
            return _failed(f"{name} does not run")
        self._stop(loaded, "by command")
        return OK

    def enable(self, name: str, is_enabled: bool) -> Outcome:
        """Allow or forbid starts; what runs goes on."""
        loaded = self._loaded.get(name)
        if loaded is None:
            return unknown(name)
        before, loaded.state.is_enabled = loaded.state.is_enabled, is_enabled
        try:
            self._store.save(loaded.state)
        except StorageError as error:
            loaded.state.is_enabled = before
            return _failed(str(error))
        return OK

    def unload(self, name: str) -> Outcome:
        """Forget a sequence that does not run."""
        loaded = self._loaded.get(name)
        if loaded is None:
            return unknown(name)
        if loaded.state.is_running:
            return _failed(f"{name} runs", CommandCode.BUSY)
        try:
            self._store.remove(loaded)
        except StorageError as error:
            return _failed(str(error))
        del self._loaded[name]
        return OK


def unknown(name: str) -> Outcome:
    """The answer about a sequence that is not there."""
    return _failed(f"no sequence {name!r} is loaded")


def _failed(detail: str, code: CommandCode = CommandCode.EXECUTION_ERROR) -> Outcome:
    return Outcome(code, detail[:DETAIL_CHARACTERS_MAX])
