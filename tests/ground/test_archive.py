import pytest

from flightsw.errors import ConfigError
from flightsw.wire.messages import (
    Beacon,
    CommandCode,
    Dump,
    Event,
    Mode,
    Packets,
    PacketValues,
    Severity,
    Stage,
    Verification,
    encode_message,
)
from ground.archive import BATCH_ROWS, DUMPS_MAX, Archive
from ground.ledger import Ledger

DICTIONARY = b"d" * 8


def beacon(node=2, uptime_s=100):
    return Beacon(node, 1, uptime_s, 7, Mode.ECLIPSE, 1, 900, -215, 500, 50, 1, 2, 3, 4, 5, 6, 7, 2**40, DICTIONARY)


def event(sequence=1, node=2, boot_count=1, severity=Severity.WARNING_HI):
    return Event(node, boot_count, sequence, 7, severity, "compute", "WEIGHTS REPAIRED", f"number {sequence}", (1,))


@pytest.fixture
def archive():
    one = Archive()
    yield one
    one.close()


def add(archive, received_ns, node=2):
    archive.add_beacon(node, received_ns, encode_message(beacon(node, received_ns)))


def packets(sequence=1, node=2, boot_count=1):
    return Packets(node, boot_count, sequence, 60_000, (PacketValues("JOBS.HK", (3, 1, 2, 1.5)),))


def add_packets(archive, message, received_ns, **options):
    archive.add_packets(message, encode_message(message), received_ns, **options)


def test_packets_come_back_as_they_were_sent_in_the_order_in_which_they_were_made(archive):
    for sequence, received_ns, recorded in ((2, 40, False), (1, 55, True)):
        add_packets(archive, packets(sequence), received_ns, recorded=recorded)
    add_packets(archive, packets(node=3), 60)
    assert archive.packets(2) == [(55, True, packets(1)), (40, False, packets(2))]
    assert archive.packets(2, most=1) == [(40, False, packets(2))]
    assert archive.beacons(2, 0, 100) == []


def test_packets_that_come_again_are_kept_once_as_they_came_first(archive):
    add_packets(archive, packets(), 10)
    add_packets(archive, packets(), 20, recorded=True)
    archive.flush(is_durable=True)
    add_packets(archive, packets(), 30)
    assert [(row.received_ns, row.recorded) for row in archive.packets(2)] == [(10, False)]


def part(index, of=3, data=b"data", number=1, kind="AUDIT", node=2):
    return Dump(node, 1, number, kind, index, of, data)


def test_a_dump_is_whole_when_all_its_parts_are_here_in_any_order(archive):
    assert not archive.add_dump(part(2, data=b"c"), 10)
    assert not archive.add_dump(part(0, data=b"a"), 20)
    assert not archive.add_dump(part(0, data=b"x"), 21), "a part that comes again changes nothing"
    assert archive.dump(2, 1, 1) is None
    assert archive.add_dump(part(1, data=b"b"), 30)
    assert archive.dump(2, 1, 1) == b"abc"
    (row,) = archive.dumps(2)
    assert (row.kind, row.received_ns, row.parts_held, row.size_bytes, row.is_whole) == ("AUDIT", 30, 3, 3, True)
    assert archive.dumps(2, "EVENTS") == archive.dumps(3) == []


@pytest.mark.parametrize("other", [part(1, of=2), part(1, kind="EVENTS"), part(3, of=3)])
def test_a_part_that_does_not_fit_to_the_others_is_not_kept(archive, other):
    archive.add_dump(part(0), 10)
    assert not archive.add_dump(other, 20)
    assert [row.parts_held for row in archive.dumps(2)] == [1]


def test_the_oldest_dumps_of_a_node_give_way(archive):
    archive.add_dump(part(0, of=1, node=3), 1)
    for number in range(DUMPS_MAX + 5):
        archive.add_dump(part(0, of=1, number=number), number)
    assert [row.number for row in archive.dumps(2, most=1000)] == list(range(5, DUMPS_MAX + 5))
    assert len(archive.dumps(3)) == 1


def test_beacons_come_back_as_they_were_sent(archive):
    archive.add_beacon(2, 55, encode_message(beacon()))
    assert archive.beacons(2, 0, 100) == [(55, beacon())]


@pytest.mark.parametrize(
    ("start_ns", "end_ns", "found"), [(0, 10, []), (10, 11, [10]), (10, 30, [10, 20]), (11, 99, [20, 30])]
)
def test_a_query_takes_the_start_and_leaves_the_end(archive, start_ns, end_ns, found):
    for received_ns in (30, 10, 20):
        add(archive, received_ns)
    add(archive, 15, node=3)
    assert [received_ns for received_ns, _ in archive.beacons(2, start_ns, end_ns)] == found


def stored(archive):
    return archive._db.execute("SELECT COUNT(*) FROM beacons").fetchone()[0]


def test_rows_wait_for_a_full_batch_or_a_flush(tmp_path):
    archive = Archive(tmp_path / "archive.db")
    for received_ns in range(BATCH_ROWS - 1):
        add(archive, received_ns)
    assert stored(archive) == 0
    add(archive, BATCH_ROWS)
    assert stored(archive) == BATCH_ROWS
    add(archive, BATCH_ROWS + 1)
    assert stored(archive) == BATCH_ROWS
    archive.flush()
    assert stored(archive) == BATCH_ROWS + 1
    archive.close()


def test_what_waits_is_written_at_close_and_read_back_later(tmp_path):
    archive = Archive(tmp_path / "archive.db")
    add(archive, 5)
    archive.add_event(event(), 6)
    archive.add_verification(Verification(2, 9, Stage.FAILED, CommandCode.BUSY, "full"), 7)
    archive.close()
    again = Archive(tmp_path / "archive.db")
    assert again.beacons_count() == 1
    assert again.events() == [(6, 2, 2, "compute", "WEIGHTS REPAIRED", "number 1")]
    assert again._db.execute("SELECT * FROM verifications").fetchall() == [(7, 2, 9, 7, 5, "full")]
    again.close()


def test_an_event_that_comes_again_is_kept_once_as_it_came_first(archive):
    archive.add_event(event(), 10)
    archive.add_event(event(), 20)
    archive.flush()
    archive.add_event(event(), 30)
    assert [row[0] for row in archive.events()] == [10]


def test_the_same_sequence_number_after_a_reset_or_of_another_node_is_another_event(archive):
    for number, one in enumerate((event(), event(boot_count=2), event(node=3))):
        archive.add_event(one, number)
    assert len(archive.events()) == 3
    assert [row[1] for row in archive.events(3)] == [3]
    assert archive.events(4) == []


def test_events_are_told_by_time_of_reception(archive):
    for sequence, received_ns in ((1, 30), (2, 10), (3, 20)):
        archive.add_event(event(sequence), received_ns)
    assert [row[5] for row in archive.events()] == ["number 2", "number 3", "number 1"]


def test_every_stage_of_a_chain_is_kept(archive):
    for stage in (Stage.ACCEPTED, Stage.COMPLETED):
        archive.add_verification(Verification(2, 9, stage, CommandCode.OK), 7)
    archive.flush()
    assert [row[0] for row in archive._db.execute("SELECT stage FROM verifications ORDER BY rowid")] == [3, 6]


def test_a_ledger_is_no_archive(tmp_path):
    Ledger(tmp_path / "ledger.db").close()
    with pytest.raises(ConfigError, match=r"^archive .*ledger\.db: application_id is 0x464c4544, expected 0x46415243$"):
        Archive(tmp_path / "ledger.db")
