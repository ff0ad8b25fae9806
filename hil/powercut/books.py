"""What the manager writes down, under power cuts: audit, events, recorder, sequences."""

from typing import Any, Final

from flightsw.component import OK, Outcome
from flightsw.core.audit import AuditTrail
from flightsw.core.events import Events
from flightsw.core.recorder import Recorder
from flightsw.core.sequences import Sequences
from flightsw.dictionary import flight_dictionary
from flightsw.dictionary.sequence_file import Entry, Header, Kind, encode_sequence
from flightsw.ports import Disk, Random, ResetCause
from flightsw.storage.audit_chain import split_records
from flightsw.wire.messages import CommandCode, Event, Message, Mode, Playback, decode_message
from ground.audit import verify
from hil.powercut.manager import NODE, NS_PER_S, StillClock, default_of, uncounted, undumped, unheard
from hil.powercut.subject import DISK_BYTES, Notes, Subject, ack_all, blob, number_of, record_faults, state_faults
from hil.sim.disk import SimulatedDisk
from hil.sim.streams import Streams

RING_BYTES: Final = 8192
"""Of the audit's ring [bytes]: some twenty records, so that the oldest give way within a life."""
RING_KEPT_COUNT: Final = 6
"""Records that it always has room for."""
QUOTA_BYTES: Final = 1 << 17
"""Of the recorder [bytes]: the records of all lives fit, so that none has to give way."""
PRIORITIES_COUNT: Final = 3


class Audit:
    """A chain without a gap, with every record that was durable, from the oldest that is kept."""

    name = "audit"

    def live(self, disk: Disk, random: Random, notes: Notes) -> None:
        """A boot, and records of several lengths; the oldest give way."""
        trail = _trail(disk, [])
        trail.boot(ResetCause.POWER_ON)
        _note_head(trail, notes)
        for _ in range(16):
            trail.record("command", {"text": "x" * random.choice((0, 30, 400))})
            _note_head(trail, notes)

    def check(self, disk: Disk, notes: Notes) -> list[str]:
        """Verify the chain as the ground does."""
        dumps: list[bytes] = []
        trail = _trail(disk, dumps)
        trail.handlers()["DUMP"]((0,))
        known: dict[int, bytes] = {}
        for text in notes.durable("record"):
            number, _, digest = str(text).partition(" ")
            known[int(number)] = bytes.fromhex(digest)
        verdict = verify(split_records(dumps[0]), known, None)
        faults = [f"record {one.number}: {one.kind.value}: {one.detail}" for one in verdict.faults]
        there = [record.number for record in verdict.records]
        newest = sorted(known)[-RING_KEPT_COUNT:]
        lost = [number for number in newest if number not in there]
        if lost:
            faults.append(f"records {lost} were durable and are lost; there are {there}")
        if not faults:
            _note_head(trail, notes)
        return faults


def _trail(disk: Disk, dumps: list[bytes]) -> AuditTrail:
    def dump(kind: str, data: bytes) -> int:
        dumps.append(data)
        return len(dumps)

    return AuditTrail(disk, 1, StillClock(), report=unheard, dump=dump, ring_bytes=RING_BYTES)


def _note_head(trail: AuditTrail, notes: Notes) -> None:
    channels = trail.channels()
    if channels["records"]:
        notes.ack("record", f"{int(channels['records']) - 1} {channels['head']}")


class EventRing:
    """Events that were kept: severe ones at once, the others with the next cycle."""

    name = "events"

    def live(self, disk: Disk, random: Random, notes: Notes) -> None:
        """A boot, and events of several severities."""
        boot = 1 + notes.next_number("boot")
        notes.begin("boot", boot)
        events, clock = _events(disk, boot)
        events.begin()
        unsynced: list[int] = []
        for _ in range(16):
            clock.now_ns += NS_PER_S
            if random.random() < 0.3:
                events.cycle(clock.now_ns)
                is_kept = True
            else:
                number = notes.next_number("event")
                notes.begin("event", number)
                unsynced.append(number)
                is_kept = random.random() < 0.5
                events.report("NODE.BOOT_LOOP" if is_kept else "RECORDER.CLEARED", number)
            if is_kept:
                ack_all(notes, "event", unsynced)
                unsynced = []

    def check(self, disk: Disk, notes: Notes) -> list[str]:
        """All of them are there, once, in order."""
        events, _ = _events(disk, 0)
        found: list[int | None] = []
        for record in events.kept(1_000_000):
            message = decode_message(record)
            assert isinstance(message, Event), "a ring of events"
            (number,) = message.arguments
            found.append(number if isinstance(number, int) else None)
        return record_faults(notes, "event", found)


def _events(disk: Disk, boot: int) -> tuple[Events, StillClock]:
    clock = StillClock()
    return Events(NODE, boot, clock, disk, default_of, lambda event, now_ns: None, undumped), clock


class RecorderStore:
    """Records that wait for the ground: urgent ones at once, the others with the next cycle."""

    name = "recorder"

    def live(self, disk: Disk, random: Random, notes: Notes) -> None:
        """A boot; records of several priorities, and segments that the ground has acknowledged."""
        boot = 1 + notes.next_number("boot")
        notes.begin("boot", boot)
        played: list[Playback] = []
        recorder, route = _recorder(disk, boot, played)
        now_ns = 0
        unsynced: list[int] = []
        for _ in range(16):
            now_ns += 10 * NS_PER_S
            choice = random.random()
            if choice < 0.15:
                route.append(True)
                recorder.cycle(now_ns)
                route.clear()
                if played and random.random() < 0.5:
                    _acknowledge(recorder, played.pop(), notes)
            elif choice < 0.35:
                recorder.cycle(now_ns)
            else:
                number, priority = notes.next_number("record"), random.randrange(PRIORITIES_COUNT)
                notes.begin("record", number)
                is_urgent = random.random() < 0.3
                recorder.record(blob(number, random.choice((8, 200, 6000))), priority, is_urgent=is_urgent)
                unsynced.append(number)
                if is_urgent:
                    notes.ack("record", number)
                continue
            ack_all(notes, "record", unsynced)
            unsynced = []

    def check(self, disk: Disk, notes: Notes) -> list[str]:
        """Play everything back, from a copy: what the ground has not acknowledged is there, whole, once."""
        copy = SimulatedDisk(DISK_BYTES, Streams(0).random("copy"))
        for name in disk.names():
            copy.replace(name, disk.read(name))
        played: list[Playback] = []
        recorder, route = _recorder(copy, 1 << 32, played)
        route.append(True)
        found: list[int | None] = []
        now_ns = 0
        while recorder.stored_count:
            now_ns += 3600 * NS_PER_S
            recorder.cycle(now_ns)
            for segment in played:
                found += [number_of(record) for record in segment.records]
                recorder.acknowledged(segment.boot_count, segment.number)
            played.clear()
        numbers = sorted(number for number in found if number is not None)
        lost = [one for one in notes.durable("record") if one not in numbers and one not in notes.begun("erased")]
        faults = [f"records {lost} were durable and are lost"] if lost else []
        if len(numbers) < len(found) or len(numbers) > len(frozenset(numbers)):
            faults.append(f"of {found} some come twice, or are none that was written")
        return faults or record_faults(notes, "record", list(numbers), first=1 << 32)


def _recorder(disk: Disk, boot: int, played: list[Playback]) -> tuple[Recorder, list[bool]]:
    """The recorder, and a list that is not empty while there is a way to the ground."""
    route: list[bool] = []

    def transmit(service: int, message: Message, lifetime_ms: int, priority: int, is_reliable: bool) -> None:
        assert isinstance(message, Playback), "a recorder plays back"
        played.append(message)

    recorder = Recorder(
        NODE,
        boot,
        disk,
        parameter=default_of,
        has_route=lambda now_ns: bool(route),
        may_play=lambda: True,
        transmit=transmit,
        report=unheard,
    )
    return recorder, route


def _acknowledge(recorder: Recorder, segment: Playback, notes: Notes) -> None:
    for record in segment.records:
        notes.begin("erased", number_of(record))
    recorder.acknowledged(segment.boot_count, segment.number)


class SequenceBook:
    """Sequences: what was loaded is there, and no entry runs twice."""

    name = "sequences"

    def live(self, disk: Disk, random: Random, notes: Notes) -> None:
        """A boot; load, start, let run, stop and unload."""
        sequences, clock = _sequences(disk, notes)
        sequences.boot(clock.now_ns, ResetCause.BROWN_OUT)
        for _ in range(12):
            clock.now_ns += 10 * NS_PER_S
            sequences.cycle(clock.now_ns)
            name = random.choice(("first", "second"))
            key, loaded = f"sequence {name}", sequences.loaded.get(name)
            if loaded is None or (not loaded.state.is_running and random.random() < 0.3):
                notes.begin("load", load := notes.next_number("load"))
                notes.begin(key, load)
                notes.begin("stopped", notes.possible(f"run of {name}")[-1])
                if sequences.load(_image(name, load)) == OK:
                    notes.ack(key, load)
            elif not loaded.state.is_running:
                if random.random() < 0.2:
                    notes.begin(key, None)
                    notes.begin("stopped", notes.possible(f"run of {name}")[-1])
                    if sequences.unload(name) == OK:
                        notes.ack(key, None)
                else:
                    notes.begin("run", run := notes.next_number("run"))
                    notes.begin(f"run of {name}", run)
                    if sequences.start(name) == OK:
                        notes.ack(f"run of {name}", run)
            elif random.random() < 0.2:
                notes.begin("stopped", notes.possible(f"run of {name}")[-1])
                sequences.stop(name)

    def check(self, disk: Disk, notes: Notes) -> list[str]:
        """Both sequences are as they were loaded; go on with what ran, to its end."""
        before = len(notes.durable("twice"))
        sequences, clock = _sequences(disk, notes)
        faults = []
        for name in ("first", "second"):
            loaded = sequences.loaded.get(name)
            found = None if loaded is None else loaded.image.header.late_max_s
            faults += state_faults(notes, f"sequence {name}", found)
            faults += _forgotten(sequences, name, notes)
        sequences.boot(clock.now_ns, ResetCause.BROWN_OUT)
        for _ in range(ENTRIES_COUNT + 2):
            clock.now_ns += 60 * NS_PER_S
            sequences.cycle(clock.now_ns)
        return faults + [str(one) for one in notes.durable("twice")[before:]]


ENTRIES_COUNT: Final = 5


def _image(name: str, load: int) -> bytes:
    """A compiled sequence; its header tells which load it was."""
    header = Header(name, Kind.RELATIVE, flight_dictionary().digest, stops_on_failure=False, late_max_s=load)
    entries = [Entry(number * 5 * NS_PER_S, "JOBS.CANCEL", (number, load)) for number in range(ENTRIES_COUNT)]
    return encode_sequence(header, entries)


def _forgotten(sequences: Sequences, name: str, notes: Notes) -> list[str]:
    """A run that began durably goes on until its last entry, unless it was stopped."""
    runs = notes.possible(f"run of {name}")
    if runs[0] is None or len(runs) > 1 or runs[0] in notes.begun("stopped"):
        return []
    loaded = sequences.loaded.get(name)
    # an entry that a cut interrupted counts as begun, and is not run again
    goes_on = loaded is not None and (loaded.state.is_running or loaded.state.next_entry > ENTRIES_COUNT)
    return [] if goes_on else [f"run {runs[0]} of {name} has begun and does not go on"]


def _sequences(disk: Disk, notes: Notes) -> tuple[Sequences, StillClock]:
    clock = StillClock()

    def execute(opcode: str, arguments: tuple[Any, ...], origin: str) -> Outcome:
        _, name, *_ = origin.split()
        entry, load = arguments
        run = notes.possible(f"run of {name}")[-1]
        ran = f"run {run} of {name}, load {load}, entry {entry}"
        if ran in notes.durable("ran"):
            notes.ack("twice", f"{ran}, ran twice")
        notes.ack("ran", ran)
        return Outcome(CommandCode.OK) if entry % 2 else Outcome(CommandCode.EXECUTION_ERROR, "no such job")

    sequences = Sequences(
        disk,
        flight_dictionary(),
        execute=execute,
        report=unheard,
        audit=uncounted,
        mode=lambda: Mode.NOMINAL,
        now_ns=clock.monotonic_ns,
        mission_ns=lambda: None,
    )
    return sequences, clock


def subjects() -> list[Subject]:
    """All of them."""
    return [Audit(), EventRing(), RecorderStore(), SequenceBook()]
