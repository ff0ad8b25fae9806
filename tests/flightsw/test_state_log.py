"""The log in two copies: nothing acknowledged is lost at any cut or to one damaged place, and it always opens."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flightsw.errors import StorageError
from flightsw.ports import Random
from flightsw.storage.entries import Entry, entry_bytes
from flightsw.storage.records import RECORD_BYTES_MAX
from flightsw.storage.state_log import StateLog
from hil.sim.disk import SECTOR_BYTES
from hil.sim.faulty_disk import FaultyDisk, PowerCut

COPIES = ("log.a", "log.b")
RECORDS = st.lists(st.binary(max_size=700), max_size=6)


def make_disk(seed: int = 1, capacity_bytes: int = 1 << 20) -> FaultyDisk:
    return FaultyDisk(capacity_bytes, Random(seed))


def fill(log: StateLog, records: list[bytes]) -> None:
    for record in records:
        log.append(record)
    log.sync()


@given(st.lists(RECORDS, max_size=5))
def test_records_come_back_in_order(batches: list[list[bytes]]) -> None:
    disk = make_disk()
    log = StateLog(disk, "log")
    for batch in batches:
        fill(log, batch)
    everything = [record for batch in batches for record in batch]
    again = StateLog(disk, "log")
    assert log.records() == everything == again.records()
    assert log.records_count == len(everything) == again.records_count
    assert (again.repaired_count, again.lost_count, again.cut_count) == (0, 0, 0)


def test_an_appended_record_is_read_back_before_it_is_synced_and_not_durable() -> None:
    disk = make_disk()
    log = StateLog(disk, "log")
    fill(log, [b"one"])
    log.append(b"two")
    assert log.records() == [b"one", b"two"]
    assert StateLog(disk, "log").records() == [b"one"]


def test_a_record_beyond_the_limit_is_refused() -> None:
    with pytest.raises(StorageError, match="at most"):
        StateLog(make_disk(), "log").append(bytes(RECORD_BYTES_MAX + 1))


@pytest.mark.parametrize("copy", COPIES)
@pytest.mark.parametrize("snapshot", [False, True])
@given(chosen=st.integers(min_value=0), batches=st.lists(RECORDS, min_size=1, max_size=4))
def test_any_flipped_bit_is_mended_from_the_other_copy(
    copy: str, snapshot: bool, chosen: int, batches: list[list[bytes]]
) -> None:
    disk = make_disk()
    log = StateLog(disk, "log")
    if snapshot:
        log.snapshot([b"first", b"second"])
    for batch in batches:
        fill(log, [*batch, b"last"])
    expected = log.records()
    disk.flip_bit(copy, chosen % (8 * len(disk.read(copy))))
    again = StateLog(disk, "log")
    assert again.records() == expected
    assert (again.repaired_count, again.lost_count) == (1, 0)
    other = COPIES[1 - COPIES.index(copy)]
    disk.remove(other)
    assert StateLog(disk, "log").records() == expected, "the damaged copy is whole again"


@pytest.mark.parametrize("copy", COPIES)
def test_any_lost_sector_and_an_unreadable_file_are_mended_from_the_other_copy(copy: str) -> None:
    records = [b"%d" % number * 50 for number in range(60)]
    sectors = None
    sector = -1
    while sectors is None or sector < sectors:
        disk = make_disk()
        log = StateLog(disk, "log")
        for record in records:
            fill(log, [record])
        sectors = -(-len(disk.read(copy)) // SECTOR_BYTES)
        if sector < 0:
            disk.spoil(copy)
        else:
            disk.lose_sector(copy, sector)
        again = StateLog(disk, "log")
        assert again.records() == records
        assert (again.repaired_count, again.lost_count, again.cut_count) == (1, 0, 0)
        assert disk.read(COPIES[0]) == disk.read(COPIES[1])
        sector += 1


def test_damage_of_both_copies_costs_what_was_damaged_and_nothing_behind_it() -> None:
    disk = make_disk()
    log = StateLog(disk, "log")
    for number in range(10):
        fill(log, [b"%d" % number])
    size_bytes = len(disk.read("log.a")) // 10
    for copy in COPIES:
        disk.flip_bit(copy, 8 * (4 * size_bytes + 10))
    again = StateLog(disk, "log")
    assert again.records() == [b"%d" % number for number in range(10) if number != 4]
    assert again.lost_count == 1
    third = StateLog(disk, "log")
    assert third.records() == again.records()
    assert third.lost_count == 0, "what is lost is counted once"


def test_two_unreadable_copies_are_an_empty_log_that_goes_on() -> None:
    disk = make_disk()
    fill(StateLog(disk, "log"), [b"one"])
    for copy in COPIES:
        disk.spoil(copy)
    log = StateLog(disk, "log")
    assert log.records() == []
    assert log.repaired_count == 2
    assert log.lost_count == 1, "at least one"
    fill(log, [b"two"])
    assert StateLog(disk, "log").records() == [b"two"]


@given(RECORDS, st.integers(0, 300), st.integers(0, 2**32))
def test_a_snapshot_is_old_or_new_whatever_is_damaged_afterwards(new: list[bytes], chosen: int, seed: int) -> None:
    disk = make_disk(seed)
    log = StateLog(disk, "log")
    fill(log, [b"old", b"older"])
    log.snapshot(new)
    fill(log, [b"later"])
    assert log.records_count == len(new) + 1
    disk.power_cut()
    copy = COPIES[seed % 2]
    disk.flip_bit(copy, chosen % (8 * len(disk.read(copy))))
    assert StateLog(disk, "log").records() == [*new, b"later"]


def test_a_rotten_unfinished_snapshot_falls_back_to_the_old_log() -> None:
    disk = make_disk()
    log = StateLog(disk, "log")
    fill(log, [b"one", b"two"])
    old = disk.read("log.b")
    log.snapshot([b"only"])
    disk.replace("log.b", old)  # the power failed between the copies
    disk.flip_bit("log.a", 8 * 60)
    assert StateLog(disk, "log").records() == [b"one", b"two"]


def test_rot_under_a_running_log_is_found_by_a_scrub() -> None:
    disk = make_disk()
    log = StateLog(disk, "log")
    fill(log, [b"one"])
    log.append(b"waiting")
    assert log.scrub() == 0
    disk.flip_bit("log.b", 40)
    assert log.scrub() == 1
    log.sync()
    assert StateLog(disk, "log").records() == [b"one", b"waiting"]
    assert disk.read("log.a") == disk.read("log.b")


@pytest.mark.parametrize("copy", COPIES)
def test_with_one_copy_failing_the_log_goes_on_and_makes_it_again_when_it_can(copy: str) -> None:
    for seed in range(20):
        disk = make_disk(seed)
        log = StateLog(disk, "log")
        fill(log, [b"one"])
        disk.fail_writes(copy)
        fill(log, [b"two"])
        fill(log, [b"three"])
        assert log.failed_count >= 2
        disk.fail_writes()
        fill(log, [b"four"])
        assert disk.read("log.a") == disk.read("log.b")
        disk.power_cut()
        assert StateLog(disk, "log").records() == [b"one", b"two", b"three", b"four"]


def test_with_both_copies_failing_the_record_is_refused_and_not_there() -> None:
    for seed in range(40):
        disk = make_disk(seed)
        log = StateLog(disk, "log")
        fill(log, [b"one"])
        disk.fail_writes("log")
        with pytest.raises(StorageError):
            fill(log, [b"refused"])
        assert log.records() == [b"one"]
        disk.fail_writes()
        fill(log, [b"two"])
        assert log.records() == [b"one", b"two"] == StateLog(disk, "log").records()


def test_a_full_disk_refuses_and_keeps_and_goes_on_when_there_is_space() -> None:
    disk = make_disk()
    log = StateLog(disk, "log")
    fill(log, [b"one"])
    disk.fill(free_bytes=10)
    with pytest.raises(StorageError, match="disk full"):
        fill(log, [b"two"])
    with pytest.raises(StorageError, match="disk full"):
        log.snapshot([b"new"])
    assert StateLog(disk, "log").records() == [b"one"]
    disk.unfill()
    fill(log, [b"three"])
    assert StateLog(disk, "log").records() == [b"one", b"three"]


def test_a_removed_log_is_empty() -> None:
    disk = make_disk()
    log = StateLog(disk, "log")
    fill(log, [b"one"])
    log.remove()
    assert log.records() == []
    assert not disk.names("log")
    fill(log, [b"two"])
    assert StateLog(disk, "log").records() == [b"two"]


HOSTILE = st.lists(
    st.builds(
        Entry,
        st.integers(0, 5) | st.integers(0, 2**64 - 1),
        st.integers(0, 3) | st.integers(0, 2**32 - 1),
        st.integers(0, 255),
        st.binary(max_size=20) | st.integers(0, 2**64 - 1).map(lambda size: size.to_bytes(8, "big")),
    ),
    max_size=8,
)


@given(HOSTILE, HOSTILE, st.binary(max_size=40))
def test_a_log_opens_on_any_content_even_under_good_crcs_and_goes_on(
    first: list[Entry], second: list[Entry], rubbish: bytes
) -> None:
    disk = make_disk()
    for copy, entries in zip(COPIES, (first, second), strict=True):
        disk.replace(copy, rubbish.join(entry_bytes("log", entry) for entry in entries) + rubbish)
    log = StateLog(disk, "log")
    before = log.records()
    fill(log, [b"next"])
    assert log.records() == [*before, b"next"] == StateLog(disk, "log").records()
    log.snapshot([b"new"])
    assert StateLog(disk, "log").records() == [b"new"]


@settings(max_examples=400)
@given(st.integers(0, 2**32))
def test_no_history_of_cuts_rot_and_refusals_loses_what_was_acknowledged(seed: int) -> None:
    draw = Random(seed)
    disk = make_disk(seed)
    log = StateLog(disk, "log")
    acknowledged: list[bytes] = []
    number = 0
    for _ in range(draw.randint(1, 12)):
        maybe: list[list[bytes]] = [acknowledged]
        disk.cut_power_at(draw.randint(0, 12) if draw.random() < 0.7 else None)
        try:
            for _ in range(draw.randint(1, 5)):
                if draw.random() < 0.2:
                    kept = acknowledged[draw.randint(0, len(acknowledged)) :]
                    maybe = [acknowledged, kept]
                    log.snapshot(kept)
                    acknowledged = kept
                else:
                    batch = []
                    for _ in range(draw.randint(1, 4)):
                        number += 1
                        batch.append(b"%d " % number * draw.choice((1, 40, 300)))
                        log.append(batch[-1])
                    maybe = [acknowledged + batch[:size] for size in range(len(batch) + 1)]
                    log.sync()
                    acknowledged = acknowledged + batch
                maybe = [acknowledged]
        except PowerCut:
            pass
        disk.power_cut()
        if len(maybe) == 1 and draw.random() < 0.6 and disk.names("log"):
            copy = draw.choice(disk.names("log"))
            size_bytes = len(disk.read(copy))
            match draw.randrange(4) if size_bytes else 3:
                case 0:
                    disk.flip_bit(copy, draw.randrange(8 * size_bytes))
                case 1:
                    disk.lose_sector(copy, draw.randrange(-(-size_bytes // SECTOR_BYTES)))
                case 2:
                    disk.spoil(copy)
                case _:
                    disk.remove(copy)
        disk.cut_power_at(draw.randint(0, 3) if draw.random() < 0.3 else None)
        try:
            log = StateLog(disk, "log")
        except PowerCut:
            disk.power_cut()
            log = StateLog(disk, "log")
        disk.cut_power_at(None)
        acknowledged = log.records()
        assert acknowledged in maybe, f"seed {seed}"
