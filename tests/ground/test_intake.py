import pytest

from flightsw.storage.records import seal
from flightsw.wire.messages import Dump, Event, Packets, PacketValues, Playback, PlaybackAck, Severity, encode_message
from ground.archive import Archive
from ground.intake import Intake

NODE = 11


def packets(sequence=1, node=NODE):
    return Packets(node, 1, sequence, 60_000, (PacketValues("JOBS.HK", (0, 0)),))


def event(sequence=1, node=NODE):
    return Event(node, 1, sequence, 0, Severity.WARNING_HI, "NODE", "RESET", "why")


def playback(*records):
    return Playback(NODE, 1, 7, tuple(map(encode_message, records)))


@pytest.fixture
def archive(tmp_path):
    one = Archive(tmp_path / "archive.db")
    yield one
    one.close()


def test_what_a_node_may_erase_is_on_record_and_no_power_cut_can_undo_it(archive):
    statements = []
    archive._db.set_trace_callback(statements.append)
    assert Intake(archive).playback(playback(packets(), event()), 5) == PlaybackAck(1, 7)
    archive._db.set_trace_callback(None)
    assert archive._db.execute("SELECT COUNT(*) FROM packets").fetchone() == (1,)
    assert archive._db.execute("SELECT COUNT(*) FROM events").fetchone() == (1,)
    assert statements.index("PRAGMA synchronous = FULL") < statements.index("COMMIT")
    assert statements[-1] == "PRAGMA synchronous = NORMAL"
    assert archive._db.execute("PRAGMA synchronous").fetchone() == (1,)


def test_a_segment_without_anything_new_is_acknowledged_all_the_same(archive):
    intake = Intake(archive)
    for _ in range(2):
        assert intake.playback(playback(packets()), 5) == PlaybackAck(1, 7)
    assert intake.playback(playback(), 5) == PlaybackAck(1, 7)
    assert len(archive.packets(NODE)) == 1


def test_what_is_not_the_nodes_own_is_left_out_and_counted(archive):
    intake = Intake(archive)
    foreign = playback(packets(node=12), event(node=12), PlaybackAck(1, 1))
    assert intake.playback(foreign, 5) == PlaybackAck(1, 7)
    assert (intake.refused_count, intake.played_count) == (3, 0)
    assert (archive.packets(12), archive.events()) == ([], [])


def test_events_of_a_dump_go_to_the_others_once_it_is_whole(archive):
    intake = Intake(archive)
    intake.dump(Dump(NODE, 1, 1, "EVENTS", 0, 1, seal(encode_message(event(1)))), 5)
    data = b"".join(seal(encode_message(event(sequence))) for sequence in (1, 2, 3))
    parts = [Dump(NODE, 1, 2, "EVENTS", index, 2, piece) for index, piece in enumerate((data[:40], data[40:]))]
    assert not intake.dump(parts[0], 6)
    assert len(archive.events()) == 1
    assert intake.dump(parts[1], 7)
    assert [row[0] for row in archive.events()] == [5, 7, 7]


@pytest.mark.parametrize("data", [b"", b"nonsense", seal(b"nonsense"), seal(encode_message(event(node=12)))])
def test_a_dump_of_nonsense_changes_nothing(archive, data):
    assert Intake(archive).dump(Dump(NODE, 1, 1, "EVENTS", 0, 1, data), 5)
    assert archive.events() == []
    assert archive.dump(NODE, 1, 1) == data
