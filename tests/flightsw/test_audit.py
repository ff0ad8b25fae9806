"""The audit trail: every change of what was written shows where, over resets, cuts, full disks and full rings."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightsw.component import OK, Outcome
from flightsw.core.audit import RING_NAME, AuditTrail
from flightsw.dictionary import flight_dictionary
from flightsw.errors import MessageError
from flightsw.ports import Random, ResetCause
from flightsw.storage.audit_chain import GENESIS, decode_record, join_records, record_hash, split_records
from flightsw.wire.messages import CommandCode, Mode
from ground.audit import AuditBook, FaultKind, Head, verify
from hil.sim.faulty_disk import FaultyDisk, PowerCut


class Clock:
    now_ns = 5_000_000_000

    def monotonic_ns(self) -> int:
        self.now_ns += 1_000_000
        return self.now_ns

    def utc_ns(self) -> int:
        return 10**18 + self.now_ns


class Bench:
    """A trail on a disk, and what it told."""

    def __init__(self, disk: FaultyDisk | None = None, boot_count: int = 1, ring_bytes: int = 1 << 16) -> None:
        self.disk = FaultyDisk(1 << 20, Random(1)) if disk is None else disk
        self.events: list[tuple[Any, ...]] = []
        self.dumps: list[bytes] = []
        self.trail = AuditTrail(
            self.disk,
            boot_count,
            Clock(),
            report=lambda *event: self.events.append(event),
            dump=self.dump,
            ring_bytes=ring_bytes,
        )
        self.trail.boot(ResetCause.POWER_ON)

    def dump(self, kind: str, data: bytes) -> int:
        assert kind == "AUDIT"
        self.dumps.append(data)
        return len(self.dumps)

    def records(self, first: int = 0) -> list[bytes]:
        outcome = self.trail.handlers()["DUMP"]((first,))
        assert isinstance(outcome, Outcome)
        assert outcome.code is CommandCode.OK
        return split_records(self.dumps[-1])

    def head(self) -> Head:
        channels = self.trail.channels()
        return Head(int(channels["records"]) - 1, bytes.fromhex(str(channels["head"])))


def filled(count: int = 8) -> Bench:
    bench = Bench()
    for number in range(count):
        bench.trail.record("mode", {"mode": Mode.SAFE, "number": number})
    return bench


def test_an_untouched_chain_holds_up_to_its_head() -> None:
    bench = filled()
    found = verify(bench.records(), {bench.head().number: bench.head().hash}, None)
    assert not found.faults
    assert found.head == bench.head()
    assert [record.number for record in found.records] == list(range(9))
    assert found.records[0].kind == "boot"
    assert found.records[0].fields == {"cause": "POWER_ON", "damaged": 0, "torn": 0}
    assert found.records[-1].fields["number"] == 7
    assert decode_record(bench.records()[0])[0] == GENESIS


@given(st.integers(0, 8), st.integers(min_value=0))
def test_any_flipped_bit_of_any_record_shows_where(number: int, bit: int) -> None:
    bench = filled()
    records = bench.records()
    changed = bytearray(records[number])
    bit %= 8 * len(changed)
    changed[bit >> 3] ^= 1 << (bit & 7)
    records[number] = bytes(changed)
    found = verify(records, {bench.head().number: bench.head().hash}, None)
    assert found.faults
    assert found.head is None or found.head.number < number, "nothing that was changed is trusted"
    first = found.faults[0]
    if first.kind in (FaultKind.ALTERED, FaultKind.FORKED, FaultKind.UNREADABLE):
        assert number - 1 <= first.number <= number
    else:  # the record's own number was changed
        assert first.kind in (FaultKind.GAP, FaultKind.REORDERED, FaultKind.TRUNCATED)


TAMPERING: dict[str, tuple[Any, FaultKind, int]] = {
    "a record is taken out": (lambda r: r[:3] + r[4:], FaultKind.GAP, 4),
    "several are taken out": (lambda r: r[:2] + r[6:], FaultKind.GAP, 6),
    "two are exchanged": (lambda r: [*r[:3], r[4], r[3], *r[5:]], FaultKind.GAP, 4),
    "one stands twice": (lambda r: [*r[:4], r[3], *r[4:]], FaultKind.REORDERED, 3),
    "the newest are cut off": (lambda r: r[:-2], FaultKind.TRUNCATED, 7),
    "all are cut off": (lambda r: [], FaultKind.TRUNCATED, 0),
    "one is rubbish": (lambda r: [*r[:3], b"rubbish", *r[4:]], FaultKind.UNREADABLE, 3),
    "the newest is another": (lambda r: [*r[:-1], r[-1].replace(b"SAFE", b"FAKE") + b""], FaultKind.ALTERED, 8),
}


@pytest.mark.parametrize("name", list(TAMPERING))
def test_tampering_shows_its_kind_and_where(name: str) -> None:
    bench = Bench()
    for number in range(8):
        bench.trail.record("mode", {"mode": "SAFE", "number": number})
    change, kind, where = TAMPERING[name]
    found = verify(change(bench.records()), {bench.head().number: bench.head().hash}, None)
    if name == "the newest is another":  # nothing stands behind it: only the hash that housekeeping told shows it
        kind = FaultKind.FORKED
    assert (found.faults[0].kind, found.faults[0].number) == (kind, where)
    assert found.head is None or found.head.number < max(where, 1)


def test_a_rewritten_chain_does_not_fit_what_was_verified_before() -> None:
    genuine = filled()
    first = verify(genuine.records(), {}, None)
    assert first.head is not None
    forged = Bench()
    for number in range(12):
        forged.trail.record("mode", {"mode": "NOMINAL", "number": number})
    found = verify(forged.records(first.head.number), {}, first.head)
    assert (found.faults[0].kind, found.faults[0].number) == (FaultKind.FORKED, first.head.number)
    assert found.head == first.head, "what was verified stays verified"


def test_verification_goes_on_from_where_it_ended() -> None:
    bench = filled()
    first = verify(bench.records(), {}, None)
    assert first.head is not None
    bench.trail.record("mode", {"mode": "ECLIPSE"})
    second = verify(bench.records(first.head.number), {}, first.head)
    assert not second.faults
    assert len(second.records) == 2
    assert second.head == bench.head()


def test_the_chain_goes_on_over_resets_and_each_boot_has_a_record() -> None:
    bench = filled(3)
    again = Bench(bench.disk, boot_count=2)
    again.trail.record("mode", {"mode": "SAFE"})
    found = verify(again.records(), {bench.head().number: bench.head().hash}, None)
    assert not found.faults
    assert [(record.boot_count, record.kind) for record in found.records] == [
        (1, "boot"),
        *[(1, "mode")] * 3,
        (2, "boot"),
        (2, "mode"),
    ]


def test_a_full_ring_drops_the_oldest_and_the_rest_still_holds() -> None:
    bench = Bench(ring_bytes=8192)
    for number in range(300):
        bench.trail.record("mode", {"number": number})
    records = bench.records()
    found = verify(records, {}, None)
    assert not found.faults
    assert found.records[0].number == bench.trail.channels()["oldest"] != 0
    late = verify(records, {}, Head(2, b"x" * 32))
    assert late.faults[0].kind is FaultKind.GAP
    assert late.faults[0].detail == f"records 2 to {found.records[0].number - 1} are missing"


def test_a_full_disk_stops_nothing_and_the_trail_says_how_much_it_missed() -> None:
    bench = filled(2)
    bench.disk.fill()
    for _ in range(3):
        bench.trail.record("mode", {"mode": "SAFE"})
    assert [event[0] for event in bench.events] == ["AUDIT.UNSAVED"] * 3
    assert bench.trail.channels()["missed"] == 3
    bench.disk.unfill()
    bench.trail.record("mode", {"mode": "NOMINAL"})
    found = verify(bench.records(), {}, None)
    assert not found.faults
    assert [(record.kind, record.fields.get("count")) for record in found.records[-2:]] == [
        ("missed", 3),
        ("mode", None),
    ]


def test_rot_on_the_disk_is_reported_at_boot_and_seen_as_a_gap() -> None:
    bench = filled()
    bench.disk.flip_bit(bench.disk.names(RING_NAME)[0], 8 * 300)
    again = Bench(bench.disk, boot_count=2)
    assert again.events == [("AUDIT.DAMAGED", 1, 0)]
    found = verify(again.records(), {}, None)
    assert [fault.kind for fault in found.faults] == [FaultKind.GAP]
    assert found.records[-1].fields["damaged"] == 1


@given(st.integers(0, 2**32), st.integers(0, 40))
def test_a_power_cut_takes_the_newest_record_at_most_and_the_chain_holds(seed: int, cut_at: int) -> None:
    disk = FaultyDisk(1 << 20, Random(seed))
    acknowledged = -1
    disk.cut_power_at(cut_at)
    try:
        bench = Bench(disk)
        acknowledged = 0
        for number in range(30):
            bench.trail.record("mode", {"number": number})
            acknowledged = bench.head().number
    except PowerCut:
        pass  # the power failed here
    disk.power_cut()
    again = Bench(disk, boot_count=2)
    found = verify(again.records(), {}, None)
    assert not found.faults
    assert found.records[-1].number in (acknowledged + 1, acknowledged + 2)
    assert not again.events


def test_a_command_is_recorded_without_the_bytes_of_its_arguments() -> None:
    bench = Bench()
    bench.trail.command("ground", "KEYS.LOAD", (2, b"k" * 40), OK)
    bench.trail.command("rule", "MODE.SAFE", (), Outcome(CommandCode.BUSY, "x" * 500))
    loaded, refused = (decode_record(record)[1] for record in bench.records(1))
    assert loaded.fields["opcode"] == "KEYS.LOAD"
    assert loaded.fields["arguments"][0] == 2
    assert loaded.fields["arguments"][1].endswith("of 40 bytes")
    assert b"k" * 8 not in bench.records(1)[0]
    assert refused.fields == {"origin": "rule", "opcode": "MODE.SAFE", "code": "BUSY", "detail": "x" * 128}


def test_decisions_that_a_machine_logs_are_recorded_and_other_lines_are_not() -> None:
    bench = Bench()
    logged: list[str] = []
    log = bench.trail.noting(lambda kind, fields: logged.append(kind), "job.paused")
    log("job.started", {"job": 1})
    log("job.paused", {"job": 1, "reason": "energy"})
    assert logged == ["job.started", "job.paused"]
    assert [decode_record(record)[1].kind for record in bench.records()] == ["boot", "job.paused"]


def test_a_record_that_is_too_large_is_missed_not_raised() -> None:
    bench = Bench()
    bench.trail.record("mode", {"text": "x" * 5000})
    assert bench.events[0][0] == "AUDIT.UNSAVED"


def test_the_component_has_the_commands_and_channels_of_the_dictionary() -> None:
    bench = Bench()
    spec = flight_dictionary().components["AUDIT"]
    assert bench.trail.handlers().keys() == spec.commands.keys() - {"NOOP", "RESET_COUNTERS"}
    assert bench.trail.channels().keys() == spec.channels.keys() - {"cmdpc", "cmdec"}


@given(st.lists(st.binary(max_size=50)))
def test_records_are_joined_and_split_again(records: list[bytes]) -> None:
    data = join_records(records)
    assert split_records(data) == records
    if data:
        with pytest.raises(MessageError, match="ends inside record"):
            split_records(data + b"\x00")


@given(st.binary(max_size=200))
def test_hostile_records_and_dumps_are_refused_or_faulty(data: bytes) -> None:
    try:
        decode_record(data)
    except MessageError:
        assert verify([data], {}, None).faults
    try:
        split_records(data)
    except MessageError:
        return


def test_the_book_remembers_the_head_of_each_node_and_a_damaged_one_is_forgotten() -> None:
    disk = FaultyDisk(1 << 20, Random(1))
    book = AuditBook(disk)
    assert book.anchor(11) is None
    head = Head(7, record_hash(b"record"))
    book.keep(11, head)
    book.keep(12, Head(9, record_hash(b"other")))
    disk.flip_bit("audit/11.a", 80)
    assert AuditBook(disk).anchor(11) == head
    disk.flip_bit("audit/11.a", 80)
    disk.flip_bit("audit/11.b", 80)
    assert AuditBook(disk).anchor(11) is None
