"""Auditing a node from the ground: what was verified is never asked for again, and what was changed is seen."""

from typing import Any

import pytest

from flightsw.core.audit import RING_NAME, AuditTrail
from flightsw.dictionary import flight_dictionary
from flightsw.errors import ConfigError
from flightsw.ports import Random, ResetCause
from flightsw.storage.audit_chain import join_records, split_records
from flightsw.wire.messages import CHUNK_BYTES, Dump, Packets, PacketValues, encode_message
from ground.archive import Archive
from ground.audit import FaultKind
from ground.audits import ASKED_MAX, Audits
from hil.sim.disk import SimulatedDisk

NODE = 11


class Clock:
    now_ns = 0

    def monotonic_ns(self) -> int:
        self.now_ns += 1_000_000
        return self.now_ns

    def utc_ns(self) -> int:
        return 10**18


class Pair:
    """A node's trail and the ground's audits, with nothing but messages between them."""

    def __init__(self) -> None:
        self.node_disk = SimulatedDisk(1 << 20, Random(1))
        self.ground_disk = SimulatedDisk(1 << 20, Random(2))
        self.archive = Archive()
        self.audits = Audits(self.ground_disk, self.archive)
        self.asked: list[tuple[int, str, int]] = []
        self.dumps_count = 0
        self.packets_count = 0
        self.dumped = b""
        self.trail = self.booted(1)

    def booted(self, boot_count: int) -> AuditTrail:
        self.boot_count = boot_count
        trail = AuditTrail(
            self.node_disk, boot_count, Clock(), report=lambda *_: None, dump=lambda _, data: self.take(data)
        )
        trail.boot(ResetCause.POWER_ON)
        return trail

    def take(self, data: bytes) -> int:
        self.dumped = data
        return 1

    def command(self, node: int, opcode: str, *arguments: Any) -> int:
        self.asked.append((node, opcode, arguments[0]))
        return len(self.asked)

    def begin(self) -> int:
        return self.audits.begin(NODE, self.command)

    def answer(self, change: Any = None) -> None:
        """The node executes the last command; the dump may be changed on its way."""
        self.trail.handlers()["DUMP"]((self.asked[-1][2],))
        data = self.dumped if change is None else join_records(change(split_records(self.dumped)))
        parts = [data[at : at + CHUNK_BYTES] for at in range(0, max(1, len(data)), CHUNK_BYTES)]
        self.dumps_count += 1
        for part, content in enumerate(parts):
            self.archive.add_dump(
                Dump(NODE, self.boot_count, self.dumps_count, "AUDIT", part, len(parts), content), part
            )

    def housekeep(self) -> None:
        values = {**self.trail.channels(), "cmdpc": 1, "cmdec": 0}
        names = [key.partition(".")[2] for key in flight_dictionary().packets["AUDIT.HK"].channels]
        packet = PacketValues("AUDIT.HK", tuple(values[name] for name in names))
        self.packets_count += 1
        message = Packets(NODE, self.boot_count, self.packets_count, 5, (packet,))
        self.archive.add_packets(message, encode_message(message), 1)

    def audited(self, change: Any = None) -> Any:
        number = self.begin()
        self.answer(change)
        return self.audits.verdict(number)


@pytest.fixture
def pair() -> Pair:
    pair = Pair()
    for number in range(6):
        pair.trail.record("mode", {"number": number})
    return pair


def test_a_trail_that_holds_is_noted_and_the_next_dump_begins_there(pair: Pair) -> None:
    found = pair.audited()
    assert not found.faults
    assert pair.asked == [(NODE, "AUDIT.DUMP", 0)]
    pair.trail.record("mode", {"number": 6})
    pair.audits = Audits(pair.ground_disk, pair.archive)  # the ground starts anew
    again = pair.audited()
    assert pair.asked[-1] == (NODE, "AUDIT.DUMP", 6)
    assert not again.faults
    assert [record.number for record in again.records] == [6, 7]


def test_while_the_dump_has_not_come_there_is_no_verdict_and_afterwards_one(pair: Pair) -> None:
    pair.audited()
    number = pair.begin()
    assert pair.audits.verdict(number) is None, "an earlier dump is no answer"
    pair.answer()
    assert pair.audits.verdict(number) is not None
    with pytest.raises(ConfigError, match="number is 2, expected that of an audit under way"):
        pair.audits.verdict(number)


def test_a_changed_record_is_found_and_not_noted(pair: Pair) -> None:
    def change(records: list[bytes]) -> list[bytes]:
        changed = bytearray(records[3])
        changed[-1] ^= 1
        return [*records[:3], bytes(changed), *records[4:]]

    found = pair.audited(change)
    assert (found.faults[0].number, found.faults[0].kind) == (3, FaultKind.ALTERED)
    pair.audited()
    assert pair.asked[-1][2] == found.head.number == 2


def test_a_node_that_lost_its_records_has_forked(pair: Pair) -> None:
    pair.audited()
    for name in pair.node_disk.names(RING_NAME):
        pair.node_disk.remove(name)
    pair.trail = pair.booted(2)
    for number in range(10):
        pair.trail.record("mode", {"another": number})
    found = pair.audited()
    assert (found.faults[0].number, found.faults[0].kind) == (6, FaultKind.FORKED)


def test_the_hash_in_housekeeping_shows_a_changed_newest_record_and_cut_ones(pair: Pair) -> None:
    pair.housekeep()
    cut = pair.audited(lambda records: records[:-2])
    assert (cut.faults[0].number, cut.faults[0].kind) == (5, FaultKind.TRUNCATED)
    changed = pair.audited(lambda records: [*records[:-1], records[-1][:-1] + bytes([records[-1][-1] ^ 1])])
    assert (changed.faults[0].number, changed.faults[0].kind) == (6, FaultKind.FORKED)
    pair.trail.record("mode", {"number": 6})
    assert not pair.audited().faults, "records behind what housekeeping told of are no fault"


def test_audits_that_nobody_waits_for_are_forgotten(pair: Pair) -> None:
    first = pair.begin()
    for _ in range(ASKED_MAX):
        pair.begin()
    with pytest.raises(ConfigError):
        pair.audits.verdict(first)


def test_what_is_no_trail_is_an_error(pair: Pair) -> None:
    number = pair.begin()
    pair.archive.add_dump(Dump(NODE, 1, 99, "AUDIT", 0, 1, b"\x00\x00\x00\x09rubbish"), 1)
    with pytest.raises(ConfigError, match="ends inside record 0"):
        pair.audits.verdict(number)
