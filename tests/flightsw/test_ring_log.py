"""The ring: the newest records are kept within the bound, damage costs what it damaged, and it always opens."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flightsw.errors import StorageError
from flightsw.ports import Random
from flightsw.storage.entries import OVERHEAD_BYTES, Entry, entry_bytes
from flightsw.storage.ring_log import RingLog
from hil.sim.faulty_disk import FaultyDisk, PowerCut

BYTES_MAX = 4096


def make_disk(seed: int = 1, capacity_bytes: int = 1 << 20) -> FaultyDisk:
    return FaultyDisk(capacity_bytes, Random(seed))


def fill(ring: RingLog, count: int, start: int = 0) -> list[bytes]:
    records = [b"record %04d" % number for number in range(start, start + count)]
    for record in records:
        ring.append(record)
    ring.sync()
    return records


def used_bytes(disk: FaultyDisk) -> int:
    return sum(len(disk.read(name)) for name in disk.names("ring/"))


@given(st.lists(st.binary(max_size=300), max_size=80))
def test_the_newest_records_are_there_in_order_within_the_bound(records: list[bytes]) -> None:
    disk = make_disk()
    ring = RingLog(disk, "ring", BYTES_MAX)
    for number, record in enumerate(records):
        assert ring.append(record) == number
        assert used_bytes(disk) <= BYTES_MAX
    kept = ring.records()
    assert kept == records[len(records) - len(kept) :]
    assert ring.records_count == len(kept)
    assert ring.dropped_count == len(records) - len(kept)
    assert ring.bytes_count == used_bytes(disk)
    again = RingLog(disk, "ring", BYTES_MAX)
    assert again.numbered() == list(enumerate(records))[len(records) - len(kept) :]
    assert (again.records_count, again.next_number) == (len(kept), len(records))
    assert again.first_number == len(records) - len(kept)


def test_no_more_than_an_eighth_gives_way_at_a_time() -> None:
    ring = RingLog(make_disk(), "ring", BYTES_MAX)
    fill(ring, 500)
    record_bytes = OVERHEAD_BYTES + len(b"record 0000")
    assert ring.bytes_count > BYTES_MAX * 7 // 8 - 2 * 8 * record_bytes


def test_records_from_a_number_on() -> None:
    ring = RingLog(make_disk(), "ring", BYTES_MAX)
    records = fill(ring, 60)
    assert ring.numbered(50) == list(enumerate(records))[50:]
    assert ring.numbered(60) == []


def test_a_record_larger_than_a_segment_is_refused() -> None:
    with pytest.raises(StorageError, match="at most 487"):
        RingLog(make_disk(), "ring", BYTES_MAX).append(bytes(488))


def test_rot_before_a_sync_is_damage_and_what_is_torn_behind_it_is_not() -> None:
    disk = make_disk()
    ring = RingLog(disk, "ring", BYTES_MAX)
    fill(ring, 3)
    fill(ring, 3, start=3)
    record_bytes = OVERHEAD_BYTES + len(b"record 0000")
    disk.flip_bit(disk.names("ring/")[0], 8 * record_bytes + 7)
    disk.flip_bit(disk.names("ring/")[0], 8 * 4 * record_bytes + 7)
    again = RingLog(disk, "ring", BYTES_MAX)
    assert (again.damaged_count, again.torn_count) == (1, 1)


@given(st.integers(min_value=0))
def test_a_flipped_bit_costs_one_record_and_none_behind_it(chosen: int) -> None:
    disk = make_disk()
    records = fill(RingLog(disk, "ring", BYTES_MAX), 80)
    names = disk.names("ring/")
    name = names[chosen % len(names)]
    disk.flip_bit(name, chosen // len(names) % (8 * len(disk.read(name))))
    ring = RingLog(disk, "ring", BYTES_MAX)
    left = ring.records()
    assert len(left) == 79
    assert [record for record in records if record in left] == left
    assert ring.damaged_count + ring.torn_count == 1
    again = RingLog(disk, "ring", BYTES_MAX)
    assert again.damaged_count + again.torn_count == 0, "damage is counted once"
    ring.append(b"next")
    assert ring.records() == [*left, b"next"]


def test_an_unreadable_segment_costs_its_records_only() -> None:
    disk = make_disk()
    records = fill(RingLog(disk, "ring", BYTES_MAX), 80)
    disk.spoil(disk.names("ring/")[2])
    ring = RingLog(disk, "ring", BYTES_MAX)
    left = ring.records()
    assert 0 < len(left) < 80
    assert (left[0], left[-1]) == (records[0], records[-1])
    assert ring.damaged_count == 1


def test_a_record_that_holds_a_record_of_the_ring_is_not_taken_for_one_when_it_is_damaged() -> None:
    disk = make_disk()
    other = RingLog(disk, "other", BYTES_MAX)
    other.append(b"inner")
    ring = RingLog(disk, "ring", BYTES_MAX)
    ring.append(disk.read(disk.names("other/")[0]))
    ring.append(b"behind")
    disk.flip_bit(disk.names("ring/")[0], 8 * 5)
    assert RingLog(disk, "ring", BYTES_MAX).records() == [b"behind"]


def test_a_full_disk_takes_the_oldest_segments_before_it_refuses() -> None:
    disk = make_disk()
    ring = RingLog(disk, "ring", BYTES_MAX)
    fill(ring, 60)
    disk.fill()
    records = fill(ring, 30, start=60)
    assert ring.records()[-30:] == records
    assert ring.dropped_count > 0


def test_a_disk_that_is_full_of_other_things_refuses_and_goes_on_later() -> None:
    disk = make_disk()
    ring = RingLog(disk, "ring", BYTES_MAX)
    disk.fill(free_bytes=20)
    with pytest.raises(StorageError, match="disk full"):
        ring.append(b"refused")
    disk.unfill()
    assert ring.append(b"taken") == 0
    ring.sync()
    assert RingLog(disk, "ring", BYTES_MAX).records() == [b"taken"]


def test_a_failing_disk_costs_no_history_and_the_ring_goes_on() -> None:
    for seed in range(30):
        disk = make_disk(seed)
        ring = RingLog(disk, "ring", BYTES_MAX)
        before = fill(ring, 40)
        disk.fail_writes("ring/")
        with pytest.raises(StorageError):
            ring.append(b"refused")
        disk.fail_writes()
        after = fill(ring, 5, start=40)
        assert ring.records()[:40] == before
        assert ring.records()[-5:] == after
        disk.power_cut()
        assert RingLog(disk, "ring", BYTES_MAX).records()[-5:] == after


@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 9), max_size=8), st.binary(max_size=40))
def test_a_ring_opens_on_any_content_even_under_good_crcs_and_goes_on(numbers: list[int], rubbish: bytes) -> None:
    disk = make_disk()
    entries = [entry_bytes("ring", Entry(number, 0, number & 1, b"hostile")) for number in numbers]
    disk.replace("ring/0000000003", rubbish.join(entries) + rubbish)
    disk.replace("ring/strange", rubbish)
    ring = RingLog(disk, "ring", BYTES_MAX)
    before = ring.records()
    ring.append(b"next")
    ring.sync()
    assert ring.records() == [*before, b"next"] == RingLog(disk, "ring", BYTES_MAX).records()


@settings(max_examples=300)
@given(st.integers(0, 2**32))
def test_no_history_of_cuts_loses_a_synced_record_or_brings_a_strange_one(seed: int) -> None:
    draw = Random(seed)
    disk = make_disk(seed)
    ring = RingLog(disk, "ring", BYTES_MAX)
    written: set[bytes] = set()
    acknowledged: list[bytes] = []
    unsynced: list[bytes] = []
    count = 0
    for _ in range(draw.randint(1, 10)):
        disk.cut_power_at(draw.randint(0, 60) if draw.random() < 0.8 else None)
        try:
            for _ in range(draw.randint(1, 40)):
                if draw.random() < 0.3:
                    ring.sync()
                    acknowledged += unsynced
                    unsynced = []
                else:
                    count += 1
                    record = b"%d " % count * draw.choice((1, 10, 60))
                    written.add(record)
                    unsynced.append(record)
                    ring.append(record)
        except PowerCut:
            pass
        disk.power_cut()
        ring = RingLog(disk, "ring", BYTES_MAX)
        left = ring.records()
        assert set(left) <= written, f"seed {seed}"
        assert used_bytes(disk) <= BYTES_MAX, f"seed {seed}"
        assert ring.damaged_count == 0, f"seed {seed}"
        numbers = [number for number, _ in ring.numbered()]
        assert numbers == sorted(set(numbers)), f"seed {seed}"
        kept = [record for record in acknowledged if record in left]
        assert kept == acknowledged[len(acknowledged) - len(kept) :], f"seed {seed}: an acknowledged record is gone"
        assert len(kept) == len(acknowledged) or ring.bytes_count > BYTES_MAX // 2, f"seed {seed}"
        acknowledged, unsynced = left, []
