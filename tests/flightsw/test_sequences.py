"""Sequences on board: when entries run, what stops them, and that no entry runs twice or is lost without a word."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from flightsw.component import Outcome
from flightsw.core.sequence_commands import SequenceControl
from flightsw.core.sequences import (
    CHECKPOINT_NS,
    CYCLE_ENTRIES_MAX,
    DEPTH_MAX,
    LOADED_MAX,
    RUNNING_MAX,
    Sequences,
)
from flightsw.dictionary import check_arguments, flight_dictionary
from flightsw.dictionary.model import Dictionary
from flightsw.dictionary.sequence_file import AutoStart, Entry, EntryStatus, Header, Kind, encode_sequence
from flightsw.dictionary.sequence_state import decode_dump
from flightsw.errors import StorageError
from flightsw.ports import ResetCause
from flightsw.wire.messages import CommandCode, Mode
from hil.sim.disk import SimulatedDisk
from hil.sim.streams import Streams

S = 1_000_000_000
UTC = 1_795_262_400 * S
DICTIONARY = flight_dictionary()
NOOP = ("NODE.NOOP", ())
SAFE = ("MODE.SAFE", ())


class PowerLost(BaseException):
    """Ends whatever runs, as a power cut does; no handler for errors catches it."""


class CutDisk(SimulatedDisk):
    """A disk whose power fails before or after the nth operation that changes it; or that takes nothing."""

    def __init__(self, seed: int = 1) -> None:
        super().__init__(1 << 22, Streams(seed).random("disk"))
        self.operations_count = 0
        self.cut_at: int | None = None
        self.is_after = False
        self.is_refusing = False

    def _do(self, operation: Callable[[], None]) -> None:
        if self.is_refusing:
            raise StorageError("the disk takes nothing")
        self.operations_count += 1
        if self.operations_count != self.cut_at:
            operation()
            return
        if self.is_after:
            operation()
        raise PowerLost

    def append(self, name: str, data: bytes) -> None:
        self._do(lambda: super(CutDisk, self).append(name, data))

    def write(self, name: str, data: bytes) -> None:
        self._do(lambda: super(CutDisk, self).write(name, data))

    def sync(self, name: str) -> None:
        self._do(lambda: super(CutDisk, self).sync(name))

    def replace(self, name: str, data: bytes) -> None:
        self._do(lambda: super(CutDisk, self).replace(name, data))

    def remove(self, name: str) -> None:
        self._do(lambda: super(CutDisk, self).remove(name))


@dataclass
class Node:
    """As much of a node as sequences need: a disk, two clocks, a mode, and commands that are noted."""

    disk: CutDisk = field(default_factory=CutDisk)
    now_ns: int = 5 * S
    mission_offset_ns: int = UTC
    is_time_known: bool = True
    mode: Mode = Mode.NOMINAL
    dictionary: Dictionary = DICTIONARY
    ran: list[tuple[int, str, tuple[Any, ...], str]] = field(default_factory=list)
    """(monotonic ns, opcode, arguments, origin)."""
    events: list[tuple[Any, ...]] = field(default_factory=list)
    decisions: list[dict[str, Any]] = field(default_factory=list)
    dumps: list[bytes] = field(default_factory=list)
    failing: set[str] = field(default_factory=set)
    """Opcodes that fail."""

    def boot(self, cause: ResetCause = ResetCause.POWER_ON) -> "Node":
        self.sequences = Sequences(
            self.disk,
            self.dictionary,
            execute=self.execute,
            report=self.report,
            audit=lambda kind, fields: self.decisions.append({"kind": kind, **fields}),
            mode=lambda: self.mode,
            now_ns=lambda: self.now_ns,
            mission_ns=lambda: self.now_ns + self.mission_offset_ns if self.is_time_known else None,
        )
        self.control = SequenceControl(self.sequences, self.dump)
        self.sequences.boot(self.now_ns, cause)
        return self

    def execute(self, opcode: str, arguments: tuple[Any, ...], origin: str) -> Outcome:
        self.ran.append((self.now_ns, opcode, arguments, origin))
        if opcode in self.failing:
            return Outcome(CommandCode.EXECUTION_ERROR, "no")
        if opcode == "MODE.SAFE":
            self.mode = Mode.SAFE
        if opcode.startswith("SEQUENCES."):
            return self.do(opcode.removeprefix("SEQUENCES."), *arguments)
        return Outcome(CommandCode.OK)

    def report(self, key: str, *arguments: Any) -> None:
        spec = DICTIONARY.events[key]
        assert len(arguments) == len(spec.arguments), key
        spec.format.format(**dict(zip((one.name for one in spec.arguments), arguments, strict=True)))
        self.events.append((key.removeprefix("SEQUENCES."), *arguments))

    def dump(self, kind: str, data: bytes) -> int:
        assert kind == "SEQUENCES"
        self.dumps.append(data)
        return len(self.dumps)

    def do(self, name: str, *arguments: Any) -> Outcome:
        assert check_arguments(DICTIONARY.commands[f"SEQUENCES.{name}"], arguments) is None
        return self.control.handlers()[name](arguments)

    def load(self, *entries: tuple[int, tuple[str, tuple[Any, ...]]], **options: Any) -> Outcome:
        return self.do("LOAD", image(*entries, **options))

    def load_and_start(self, *entries: tuple[int, tuple[str, tuple[Any, ...]]], **options: Any) -> None:
        assert self.load(*entries, **options).code is CommandCode.OK
        assert self.do("START", options.get("name", "s")).code is CommandCode.OK

    def run_until(self, end_s: float, tick_s: float = 1.0) -> None:
        while self.now_ns < end_s * S:
            self.now_ns += round(tick_s * S)
            self.sequences.cycle(self.now_ns)

    def ran_at_s(self) -> list[float]:
        return [now_ns / S for now_ns, *_ in self.ran]

    def status(self, name: str = "s") -> list[str]:
        assert self.do("DUMP", name).code is CommandCode.OK
        state, loaded = decode_dump(self.dumps[-1])
        assert loaded.header.name == name
        return [state.status(number).value for number in range(1, loaded.header.entries_count + 1)]

    def names(self) -> list[str]:
        return [event[0] for event in self.events]


def image(*entries: tuple[int, tuple[str, tuple[Any, ...]]], name: str = "s", **options: Any) -> bytes:
    header = {"kind": Kind.RELATIVE, "dictionary_digest": DICTIONARY.digest} | options
    return encode_sequence(Header(name=name, **header), [Entry(time_ns, *command) for time_ns, command in entries])


# -- relative


def test_relative_entries_run_after_their_delays_from_the_entry_before() -> None:
    node = Node().boot()
    node.load_and_start((2 * S, NOOP), (0, SAFE), (3 * S, NOOP), runs_in_safe=True)
    node.run_until(20)
    assert node.ran == [
        (7 * S, "NODE.NOOP", (), "sequence s entry 1"),
        (7 * S, "MODE.SAFE", (), "sequence s entry 2"),
        (10 * S, "NODE.NOOP", (), "sequence s entry 3"),
    ]
    assert node.events == [("LOADED", "s", 3), ("STARTED", "s", "by command"), ("COMPLETED", "s", 3, 0, 0)]
    assert node.status() == ["EXECUTED"] * 3


def test_a_delay_is_never_shorter_than_written_however_slow_the_cycle() -> None:
    node = Node(now_ns=0).boot()
    node.load_and_start((9 * S, NOOP), (2 * S, NOOP), (10 * S, NOOP))
    node.run_until(60, tick_s=10)
    assert node.ran_at_s() == [10, 20, 30]


@pytest.mark.parametrize("jump_s", [-259_200, 259_200])
def test_a_relative_sequence_keeps_its_delays_when_mission_time_jumps(jump_s: int) -> None:
    node = Node().boot()
    node.load_and_start((2 * S, NOOP), (5 * S, NOOP), (100 * S, NOOP))
    node.run_until(8)
    node.mission_offset_ns += jump_s * S
    node.run_until(200)
    assert node.ran_at_s() == [7, 12, 112]


def test_a_relative_sequence_needs_no_mission_time() -> None:
    node = Node(is_time_known=False).boot()
    node.load_and_start((0, NOOP))
    node.run_until(6)
    assert node.names()[-1] == "COMPLETED"


def test_one_cycle_runs_a_bounded_number_of_entries() -> None:
    node = Node().boot()
    node.load_and_start(*[(0, NOOP)] * (CYCLE_ENTRIES_MAX + 3))
    node.run_until(6)
    assert len(node.ran) == CYCLE_ENTRIES_MAX
    node.run_until(7)
    assert len(node.ran) == CYCLE_ENTRIES_MAX + 3


# -- absolute


def test_absolute_entries_run_at_their_mission_times() -> None:
    node = Node().boot()
    node.load_and_start((UTC + 10 * S, NOOP), (UTC + 10 * S, SAFE), (UTC + 13 * S, NOOP), **SAFE_ABSOLUTE)
    node.run_until(20)
    assert node.ran_at_s() == [10, 10, 13]


SAFE_ABSOLUTE: dict[str, Any] = {"kind": Kind.ABSOLUTE, "runs_in_safe": True}


def test_a_forward_jump_runs_what_is_a_little_late_in_order_and_skips_and_reports_the_rest() -> None:
    node = Node().boot()
    times = (10, 100, 150, 170, 400)
    node.load_and_start(*[(UTC + at * S, NOOP) for at in times], kind=Kind.ABSOLUTE, late_max_s=60)
    node.run_until(11)
    node.mission_offset_ns += 200 * S  # to 211, and 212 with the next cycle
    node.run_until(12)
    assert node.ran_at_s() == [10, 12]
    assert node.events[-1] == ("SKIPPED", "s", 2, 3, 112)
    assert node.status() == ["EXECUTED", "SKIPPED", "SKIPPED", "EXECUTED", "LOADED"]
    assert node.decisions == [{"kind": "sequence", "sequence": "s", "act": "skip", "first": 2, "last": 3}]
    node.run_until(201)
    assert node.ran_at_s() == [10, 12, 200]
    assert node.events[-1] == ("COMPLETED", "s", 3, 0, 2)


def test_a_backward_jump_runs_no_entry_twice_and_later_ones_at_their_times() -> None:
    node = Node().boot()
    node.load_and_start((UTC + 10 * S, NOOP), (UTC + 20 * S, NOOP), kind=Kind.ABSOLUTE)
    node.run_until(15)
    node.mission_offset_ns -= 259_200 * S
    node.run_until(1000)
    assert node.ran_at_s() == [10]
    node.mission_offset_ns += 259_200 * S - 985 * S
    node.run_until(1100)
    assert node.ran_at_s() == [10, 1005]


def test_a_jump_over_all_entries_ends_the_sequence_with_every_entry_skipped() -> None:
    node = Node().boot()
    node.load_and_start(*[(UTC + at * S, NOOP) for at in (10, 20, 30)], kind=Kind.ABSOLUTE)
    node.mission_offset_ns += 259_200 * S
    node.run_until(6)
    assert node.ran == []
    assert [event[0] for event in node.events[-2:]] == ["SKIPPED", "COMPLETED"]
    assert node.events[-1] == ("COMPLETED", "s", 0, 0, 3)


def test_no_absolute_sequence_starts_before_mission_time_is_known() -> None:
    node = Node(is_time_known=False).boot()
    node.load((UTC + 10 * S, NOOP), kind=Kind.ABSOLUTE, auto_start=AutoStart.ALWAYS)
    assert node.do("START", "s") == Outcome(CommandCode.EXECUTION_ERROR, "mission time is not known")
    node.boot(ResetCause.WATCHDOG)  # by itself it starts, and waits
    node.run_until(20)
    assert node.ran == []
    assert node.names().count("HELD") == 1
    assert node.control.channels()["held"] == 1
    node.is_time_known = True
    node.run_until(21)
    assert len(node.ran) == 1
    assert node.control.channels()["held"] == 0


# -- failures and stops


def test_a_failed_entry_stops_the_sequence_or_not_as_it_was_compiled() -> None:
    for stops, ran, last in ((True, 1, "STOPPED"), (False, 2, "COMPLETED")):
        node = Node(failing={"MODE.SAFE"}).boot()
        node.load_and_start((0, SAFE), (S, NOOP), stops_on_failure=stops)
        node.run_until(10)
        assert len(node.ran) == ran
        assert ("FAILED", "s", 1, "MODE.SAFE EXECUTION_ERROR no") in node.events
        assert node.names()[-1] == last
        assert node.status() == ["FAILED_DISTRIBUTION", "LOADED" if stops else "EXECUTED"]


def test_an_entry_that_changed_in_memory_is_taken_from_the_disk_again() -> None:
    node = Node().boot()
    node.load_and_start((0, NOOP), (S, ("JOBS.PAUSE", (17,))))
    loaded = node.sequences._loaded["s"].image
    loaded.image = loaded.image[:-1] + bytes((loaded.image[-1] ^ 1,))
    node.run_until(10)
    assert [(opcode, arguments) for _, opcode, arguments, _ in node.ran] == [NOOP, ("JOBS.PAUSE", (17,))]
    assert ("REPAIRED", "s", 2) in node.events


def test_an_entry_that_holds_neither_in_memory_nor_on_the_disk_fails_by_its_checksum_and_is_not_executed() -> None:
    node = Node().boot()
    node.load_and_start((0, NOOP), (S, SAFE), (S, NOOP), stops_on_failure=False)
    loaded = node.sequences._loaded["s"].image
    at = loaded._starts[1] + 8
    loaded.image = loaded.image[:at] + bytes((loaded.image[at] ^ 64,)) + loaded.image[at + 1 :]
    for name in node.disk.names("sequences/"):
        node.disk.flip_bit(name, 300)
    node.run_until(10)
    assert [opcode for _, opcode, *_ in node.ran] == ["NODE.NOOP", "NODE.NOOP"]
    assert ("FAILED", "s", 2, "checksum does not hold") in node.events
    assert node.control.channels()["failed"] == 1


def test_safe_ends_what_is_not_made_for_it_before_its_next_entry() -> None:
    node = Node().boot()
    node.load_and_start((0, SAFE), (0, NOOP), (S, NOOP))
    node.load_and_start((2 * S, NOOP), name="hardy", runs_in_safe=True)
    node.run_until(10)
    assert [(opcode, origin) for _, opcode, _, origin in node.ran] == [
        ("MODE.SAFE", "sequence s entry 1"),
        ("NODE.NOOP", "sequence hardy entry 1"),
    ]
    assert ("STOPPED", "s", 2, "SAFE") in node.events
    assert {"kind": "sequence", "sequence": "s", "act": "stop", "reason": "SAFE", "at": 2} in node.decisions
    assert node.do("START", "s") == Outcome(CommandCode.EXECUTION_ERROR, "s does not run in SAFE")
    node.mode = Mode.MAINTENANCE
    assert node.do("START", "s").code is CommandCode.OK


def test_a_sequence_that_one_of_its_own_entries_stops_runs_no_further() -> None:
    node = Node().boot()
    node.load_and_start((0, ("SEQUENCES.STOP", ("s",))), (0, NOOP))
    node.run_until(10)
    assert node.status() == ["EXECUTED", "LOADED"]
    assert node.control.channels()["running"] == 0


def test_sequences_start_one_another_up_to_a_depth() -> None:
    node = Node().boot()
    for here, there in (("a", "b"), ("b", "a")):
        node.load((0, NOOP), (S, ("SEQUENCES.START", (there,))), (0, NOOP), name=here)
    assert node.do("START", "a").code is CommandCode.OK
    node.run_until(100)
    assert node.names().count("STARTED") == DEPTH_MAX
    assert ("STARTED", "b", "by a entry 2") in node.events
    reason = f"SEQUENCES.START EXECUTION_ERROR {DEPTH_MAX} sequences started each other, at most {DEPTH_MAX}"
    assert reason in [event[3] for event in node.events if event[0] == "FAILED"]
    assert node.control.channels()["running"] == 0


# -- commands


def test_a_forged_or_foreign_image_is_refused_and_the_entry_named() -> None:
    node = Node().boot()
    good = image((0, NOOP), (0, SAFE))
    forged = good[:-2] + bytes((good[-2] ^ 1,)) + good[-1:]
    assert node.do("LOAD", forged) == Outcome(CommandCode.VALIDATION_ERROR, "entry 2: checksum does not hold")
    unknown = image((0, NOOP), (0, ("NODE.EXPLODE", ())))
    assert node.do("LOAD", unknown).detail == "entry 2: NODE.EXPLODE is not in the dictionary"
    foreign = image((0, NOOP), dictionary_digest=bytes(8))
    assert node.do("LOAD", foreign).detail.startswith("compiled with dictionary 0000000000000000, expected")
    assert node.do("LOAD", b"").code is CommandCode.VALIDATION_ERROR
    assert node.control.channels()["loaded"] == 0
    assert node.disk.names() == []


def test_commands_say_why_they_do_nothing() -> None:
    node = Node().boot()
    for name in ("START", "STOP", "ENABLE", "DISABLE", "UNLOAD", "DUMP"):
        assert node.do(name, "x") == Outcome(CommandCode.EXECUTION_ERROR, "no sequence 'x' is loaded")
    assert node.do("LIST").detail == "none"
    node.load((S, NOOP))
    assert node.do("STOP", "s").detail == "s does not run"
    assert node.do("DISABLE", "s").code is CommandCode.OK
    assert node.do("START", "s") == Outcome(CommandCode.DISABLED, "s is disabled")
    assert node.do("LIST").detail == "s relative DISABLED 0/1"
    node.do("ENABLE", "s")
    node.do("START", "s")
    assert node.do("START", "s") == Outcome(CommandCode.BUSY, "s runs already, at entry 1 of 1")
    assert node.do("UNLOAD", "s") == Outcome(CommandCode.BUSY, "s runs")
    assert node.load((S, NOOP)) == Outcome(CommandCode.BUSY, "s runs")
    assert node.do("LIST").detail == "s relative RUNNING 0/1"
    assert node.do("STOP", "s").code is CommandCode.OK
    assert node.events[-1] == ("STOPPED", "s", 1, "by command")
    assert node.do("UNLOAD", "s").code is CommandCode.OK
    assert node.boot().do("LIST").detail == "none"
    assert node.disk.names("sequences/") == []


def test_disable_lets_go_on_what_runs_and_is_kept_over_a_reset() -> None:
    node = Node().boot()
    node.load_and_start((2 * S, NOOP))
    node.do("DISABLE", "s")
    node.run_until(10)
    assert len(node.ran) == 1
    assert node.boot().do("START", "s").code is CommandCode.DISABLED


def test_what_is_loaded_and_what_runs_is_bounded() -> None:
    node = Node().boot()
    for number in range(LOADED_MAX):
        assert node.load((S, NOOP), name=f"s{number}").code is CommandCode.OK
    refused = node.load((S, NOOP), name="more")
    assert refused == Outcome(CommandCode.BUSY, f"{LOADED_MAX} sequences are loaded, at most {LOADED_MAX}")
    for number in range(RUNNING_MAX):
        assert node.do("START", f"s{number}").code is CommandCode.OK
    assert node.do("START", f"s{RUNNING_MAX}").code is CommandCode.BUSY
    listed = node.do("LIST").detail
    assert len(listed) <= 512
    assert listed.endswith(" more")


# -- resets


def test_a_relative_sequence_goes_on_at_its_next_entry_with_the_rest_of_its_delay() -> None:
    node = Node(now_ns=0).boot()
    node.load_and_start((S, NOOP), (1000 * S, SAFE))
    node.run_until(1 + 300)
    node.now_ns = 7 * S  # monotonic time starts anew; how long the power was off no clock says
    node.boot(ResetCause.POWER_CYCLE)
    rest_s = 1000 - 300 + 300 % (CHECKPOINT_NS // S)
    assert node.events[-1] == ("RESUMED", "s", 2, rest_s)
    node.run_until(2000)
    assert node.ran_at_s() == [1, 7 + rest_s]
    assert node.status() == ["EXECUTED", "EXECUTED"]


def test_a_checkpoint_is_written_once_a_minute_and_nothing_in_between() -> None:
    node = Node(now_ns=0).boot()
    node.load_and_start((3600 * S, NOOP))
    before = node.disk.operations_count
    node.run_until(CHECKPOINT_NS // S - 1)
    assert node.disk.operations_count == before
    node.run_until(600)
    assert node.disk.operations_count == before + 10 * 4  # append and sync, to two copies


def test_an_absolute_sequence_goes_on_after_a_reset_and_skips_what_the_time_off_made_too_late() -> None:
    node = Node().boot()
    node.load_and_start(*[(UTC + at * S, NOOP) for at in (10, 20, 200, 300)], kind=Kind.ABSOLUTE)
    node.run_until(11)
    node.now_ns = 190 * S
    node.boot(ResetCause.BROWN_OUT)
    node.run_until(400)
    assert node.ran_at_s() == [10, 200, 300]
    assert node.status() == ["EXECUTED", "SKIPPED", "EXECUTED", "EXECUTED"]


@pytest.mark.parametrize(
    ("auto_start", "causes"),
    [
        (AutoStart.NEVER, ()),
        (AutoStart.AFTER_POWER_ON, ("POWER_ON", "POWER_CYCLE", "BROWN_OUT")),
        (AutoStart.AFTER_RESET, ("RESET_COMMAND", "WATCHDOG", "EXCEPTION", "KERNEL_PANIC", "KILLED")),
        (AutoStart.ALWAYS, tuple(cause.name for cause in ResetCause)),
    ],
)
def test_a_sequence_starts_by_itself_after_the_resets_it_is_made_for(
    auto_start: AutoStart, causes: tuple[str, ...]
) -> None:
    for cause in ResetCause:
        node = Node().boot()
        node.load((S, NOOP), auto_start=auto_start)
        node.boot(cause)
        assert (node.control.channels()["running"] == 1) == (cause.name in causes), cause
        if cause.name in causes:
            assert node.events[-1] == ("STARTED", "s", f"at boot after {cause.name}")


def test_a_sequence_that_ran_before_the_reset_goes_on_and_does_not_start_again() -> None:
    node = Node().boot()
    node.load_and_start((S, NOOP), (100 * S, NOOP), auto_start=AutoStart.ALWAYS)
    node.run_until(10)
    node.boot(ResetCause.WATCHDOG)
    node.run_until(200)
    assert len(node.ran) == 2


def test_a_disabled_sequence_does_not_start_by_itself() -> None:
    node = Node().boot()
    node.load((S, NOOP), auto_start=AutoStart.ALWAYS)
    node.do("DISABLE", "s")
    node.boot()
    assert node.control.channels()["running"] == 0


def test_a_node_with_another_dictionary_does_not_run_what_is_on_its_disk() -> None:
    node = Node().boot()
    node.load_and_start((S, NOOP), (S, NOOP))
    node.dictionary = Dictionary({name: part for name, part in DICTIONARY.components.items() if name != "OBJECTS"})
    node.boot(ResetCause.RESET_COMMAND)
    assert [name for name in node.names() if name in ("LOST", "STOPPED")] == ["LOST", "STOPPED"]
    node.run_until(20)
    assert node.ran == []
    assert node.do("START", "s").detail.startswith("compiled with dictionary")


# -- a disk that rots, fills up, or loses power


def test_rot_in_one_copy_is_mended_and_rot_in_both_is_reported_as_lost() -> None:
    node = Node().boot()
    node.load((S, NOOP))
    first, second = node.disk.names("sequences/")
    node.disk.flip_bit(first, 200)
    node.boot()
    assert node.control.channels()["repaired"] == 1
    assert node.do("START", "s").code is CommandCode.OK
    node.disk.flip_bit(first, 200)
    node.disk.flip_bit(second, 201)
    node.boot()
    assert [event[:2] for event in node.events if event[0] == "LOST"] == [("LOST", "s")]
    assert node.do("START", "s").detail == "no sequence 's' is loaded"
    node.events.clear()
    assert node.boot().events == [], "reported once"


def test_progress_that_is_damaged_in_both_copies_stops_the_sequence_rather_than_repeat_an_entry() -> None:
    node = Node().boot()
    node.load_and_start((0, NOOP), (0, NOOP), (100 * S, NOOP), (100 * S, NOOP))
    node.run_until(10)
    for name in ("sequences.a", "sequences.b"):
        size_bytes = len(node.disk.read(name))
        node.disk.flip_bit(name, 8 * (size_bytes // 2))
    node.boot(ResetCause.WATCHDOG)
    assert node.events[-1] == ("STOPPED", "s", 3, "what it had done cannot be read for sure")
    node.run_until(500)
    assert len(node.ran) == 2


def test_a_disk_that_takes_nothing_stops_the_sequence_before_the_entry_takes_effect() -> None:
    node = Node().boot()
    node.load_and_start((S, NOOP), (S, NOOP))
    node.disk.is_refusing = True
    node.run_until(20)
    assert node.ran == []
    assert node.events[-1] == ("STOPPED", "s", 1, "the disk does not take what it does")
    node.disk.is_refusing = False
    node.run_until(21)  # the stop is written as soon as it can be
    node.boot(ResetCause.WATCHDOG)
    node.run_until(40)
    assert node.ran == []


def test_a_full_disk_refuses_commands_that_would_be_forgotten() -> None:
    node = Node().boot()
    node.load((S, NOOP))
    node.disk.is_refusing = True
    for name in ("START", "DISABLE", "UNLOAD"):
        assert node.do(name, "s").code is CommandCode.EXECUTION_ERROR
    assert node.load((S, NOOP), name="t").code is CommandCode.EXECUTION_ERROR
    node.disk.is_refusing = False
    assert node.do("LIST").detail == "s relative LOADED 0/1"
    assert node.do("START", "s").code is CommandCode.OK


def mission(node: Node) -> None:
    """Load, start, run to the end; each entry has a number of its own."""
    entries = [(S, ("JOBS.PAUSE", (number,))) for number in range(1, 6)]
    node.load_and_start(*entries, stops_on_failure=False)
    node.run_until(node.now_ns / S + 10)


def test_at_whatever_operation_the_power_fails_no_entry_runs_twice_and_none_is_lost_without_a_word() -> None:
    whole = Node().boot()
    mission(whole)
    operations_count = whole.disk.operations_count
    assert operations_count > 40
    interrupted_count = 0
    for seed in range(4):
        for cut_at in range(1, operations_count + 1):
            for is_after in (False, True):
                node = Node(disk=CutDisk(seed)).boot()
                node.disk.cut_at, node.disk.is_after = cut_at, is_after
                acknowledged = False
                try:
                    entries = [(S, ("JOBS.PAUSE", (number,))) for number in range(1, 6)]
                    node.load_and_start(*entries, stops_on_failure=False)
                    acknowledged = True
                    node.run_until(node.now_ns / S + 10)
                except PowerLost:
                    node.disk.power_cut()
                node.disk.cut_at = None
                node.boot(ResetCause.POWER_CYCLE)
                node.run_until(node.now_ns / S + 20)
                ran = [arguments[0] for _, _, arguments, _ in node.ran]
                where = f"seed {seed}, {'after' if is_after else 'before'} operation {cut_at}: {ran} {node.events}"
                assert ran == sorted(set(ran)), f"an entry ran twice or out of order: {where}"
                if not acknowledged:
                    continue
                statuses = node.status()
                reported = [event[2] for event in node.events if event[0] == "INTERRUPTED"]
                for number in range(1, 6):
                    status = statuses[number - 1]
                    if number not in ran:
                        assert number in reported, f"entry {number} is lost: {where}"
                    assert (status == EntryStatus.INTERRUPTED) == (number in reported), f"{number} {status}: {where}"
                interrupted_count += len(reported)
    assert interrupted_count, "no cut fell between the beginning of an entry and its end"


def test_at_whatever_operation_the_power_fails_a_load_leaves_the_old_sequence_or_the_new_one() -> None:
    ends = set()
    for seed in range(4):
        for cut_at in range(1, 40):
            for is_after in (False, True):
                node = Node(disk=CutDisk(seed)).boot()
                assert node.load((S, NOOP)).code is CommandCode.OK
                node.do("DISABLE", "s")
                node.disk.operations_count = 0
                node.disk.cut_at, node.disk.is_after = cut_at, is_after
                steps = 0
                try:
                    assert node.load((S, SAFE), (S, SAFE), runs_in_safe=True).code is CommandCode.OK
                    steps = 1
                    assert node.do("UNLOAD", "s").code is CommandCode.OK
                    steps = 2
                except PowerLost:
                    node.disk.power_cut()
                node.disk.cut_at = None
                node.boot(ResetCause.POWER_CYCLE)
                listed = node.do("LIST").detail
                allowed = {
                    0: ("s relative DISABLED 0/1", "s relative LOADED 0/2"),
                    1: ("s relative LOADED 0/2", "none"),
                    2: ("none",),
                }[steps]
                assert listed in allowed, f"seed {seed}, {is_after=}, operation {cut_at}, {steps} acknowledged"
                assert node.events == [event for event in node.events if event[0] == "LOADED"]
                ends.add((steps, listed))
    assert len(ends) == 5, "every end was met"


def test_the_log_of_states_stays_bounded_and_keeps_the_newest() -> None:
    node = Node().boot()
    node.load((0, NOOP))
    for _ in range(300):
        node.do("DISABLE", "s")
        node.do("ENABLE", "s")
    node.do("DISABLE", "s")
    assert len(node.disk.read("sequences.a")) < 30_000
    assert node.boot().do("START", "s").code is CommandCode.DISABLED
