"""The reserve: small states are written on a full disk, and what gave way for them comes back."""

import pytest

from flightsw.errors import StorageError
from flightsw.ports import Random
from flightsw.storage.counters import raise_counter
from flightsw.storage.reserve import RESERVE_BYTES, RESERVE_FILE, ReservedDisk
from flightsw.storage.ring_log import RingLog
from hil.sim.faulty_disk import FaultyDisk


def make_disk() -> FaultyDisk:
    return FaultyDisk(1 << 20, Random(1))


def test_a_full_disk_still_counts_boots() -> None:
    disk = make_disk()
    assert ReservedDisk(disk).restore()
    disk.fill()
    with pytest.raises(StorageError):
        raise_counter(disk, "boot")
    reserved = ReservedDisk(disk)
    assert [raise_counter(reserved, "boot") for _ in range(3)] == [1, 2, 3]
    assert reserved.given_up_count == 1
    assert not disk.exists(RESERVE_FILE)


def test_without_a_reserve_the_oldest_history_gives_way() -> None:
    disk = make_disk()
    ring = RingLog(disk, "events", 4096)
    for number in range(100):
        ring.append(b"event %d" % number)
    ring.sync()
    newest = ring.records()[-1]
    disk.fill()
    reserved = ReservedDisk(disk, ("recorder/", "events/"))
    assert raise_counter(reserved, "boot") == 1
    again = RingLog(disk, "events", 4096)
    assert 0 < again.records_count < 100
    assert again.records()[-1] == newest


def test_with_nothing_to_give_the_disk_is_full() -> None:
    disk = make_disk()
    disk.fill()
    with pytest.raises(StorageError, match="disk full"):
        ReservedDisk(disk, ("events/",)).append("log", b"x")


def test_a_broken_disk_costs_nothing() -> None:
    disk = make_disk()
    ReservedDisk(disk).restore()
    disk.fail_writes("log")
    reserved = ReservedDisk(disk)
    with pytest.raises(StorageError, match="input/output error"):
        reserved.replace("log", b"x")
    assert disk.exists(RESERVE_FILE)
    assert reserved.given_up_count == 0


def test_the_reserve_comes_back_when_there_is_room_for_it_twice_over() -> None:
    disk = make_disk()
    reserved = ReservedDisk(disk)
    disk.fill(free_bytes=2 * RESERVE_BYTES - 1)
    assert not reserved.restore()
    disk.unfill()
    assert reserved.restore()
    assert len(disk.read(RESERVE_FILE)) == RESERVE_BYTES
