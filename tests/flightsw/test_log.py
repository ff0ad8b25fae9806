"""Records and the append log: what is acknowledged survives a power cut, what is torn or rotten is never read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightsw.errors import StorageError
from flightsw.storage.log import RecordLog
from flightsw.storage.records import RECORD_BYTES_MAX, record_at, seal, unseal
from hil.sim.disk import SimulatedDisk
from hil.sim.streams import Streams

RECORDS = st.lists(st.binary(max_size=700), max_size=12)


def make_disk(seed: int = 1, capacity_bytes: int = 1 << 20) -> SimulatedDisk:
    return SimulatedDisk(capacity_bytes, Streams(seed).random("disk"))


class BrokenDisk(SimulatedDisk):
    """A disk whose next appends are torn, or whose next syncs fail."""

    appends_to_tear = 0
    syncs_to_fail = 0

    def append(self, name: str, data: bytes) -> None:
        if self.appends_to_tear:
            self.appends_to_tear -= 1
            super().append(name, data[: len(data) // 2])
            raise StorageError("EIO")
        super().append(name, data)

    def sync(self, name: str) -> None:
        if self.syncs_to_fail:
            self.syncs_to_fail -= 1
            raise StorageError("EIO")
        super().sync(name)


@given(st.binary(max_size=300))
def test_a_sealed_record_is_read_back(data: bytes) -> None:
    assert unseal(seal(data)) == data


@given(st.binary(max_size=100), st.data())
def test_a_flipped_bit_of_a_record_is_an_error(data: bytes, draw: st.DataObject) -> None:
    sealed = bytearray(seal(data))
    bit = draw.draw(st.integers(0, 8 * len(sealed) - 1))
    sealed[bit >> 3] ^= 1 << (bit & 7)
    with pytest.raises(StorageError):
        unseal(bytes(sealed))


@pytest.mark.parametrize("damage", [b"", bytes(8), bytes(512), seal(b"one") + b"x", seal(b"one")[:-1]])
def test_what_is_not_exactly_one_record_is_an_error(damage: bytes) -> None:
    with pytest.raises(StorageError):
        unseal(damage)


def test_a_length_beyond_the_limit_is_damage() -> None:
    assert record_at((RECORD_BYTES_MAX + 1).to_bytes(4, "big") + bytes(100), 0) is None


@given(RECORDS)
def test_records_come_back_in_order(records: list[bytes]) -> None:
    disk = make_disk()
    log = RecordLog(disk, "log")
    for record in records:
        log.append(record)
    assert log.records() == records == RecordLog(disk, "log").records()
    assert log.records_count == len(records)


@given(RECORDS, RECORDS, st.integers(0, 2**32))
def test_a_power_cut_loses_no_synced_record_and_invents_none(synced: list[bytes], late: list[bytes], seed: int) -> None:
    disk = make_disk(seed)
    log = RecordLog(disk, "log")
    for record in synced:
        log.append(record)
    log.sync()
    for record in late:
        log.append(record)
    disk.power_cut()
    left = RecordLog(disk, "log").records()
    assert left == (synced + late)[: len(left)]
    assert len(left) >= len(synced)


@given(RECORDS, st.integers(0, 2**32))
def test_records_after_a_torn_tail_are_readable(late: list[bytes], seed: int) -> None:
    disk = make_disk(seed)
    log = RecordLog(disk, "log")
    log.append(b"first")
    log.sync()
    for record in late:
        log.append(record)
    disk.power_cut()
    again = RecordLog(disk, "log")
    kept = again.records()
    again.append(b"second life")
    again.sync()
    disk.power_cut()
    assert RecordLog(disk, "log").records() == [*kept, b"second life"]


def test_a_rotten_record_ends_the_log_and_the_rest_is_counted() -> None:
    disk = make_disk()
    log = RecordLog(disk, "log")
    for record in (b"sound", b"rotten", b"behind"):
        log.append(record)
    disk.flip_bit("log", 8 * (len(seal(b"sound")) + 9))
    again = RecordLog(disk, "log")
    assert again.records() == [b"sound"]
    assert again.torn_bytes_count == len(seal(b"rotten") + seal(b"behind"))
    assert disk.read("log") == seal(b"sound")


def test_a_record_behind_a_half_written_one_is_not_lost() -> None:
    disk = BrokenDisk(1 << 20, Streams(1).random("disk"))
    log = RecordLog(disk, "log")
    log.append(b"before")
    disk.appends_to_tear = 1
    with pytest.raises(StorageError):
        log.append(b"half")
    log.append(b"after")
    log.sync()
    disk.power_cut()
    assert RecordLog(disk, "log").records() == [b"before", b"after"]


def test_after_a_failed_sync_nothing_counts_as_durable_until_it_is_written_anew() -> None:
    disk = BrokenDisk(1 << 20, Streams(1).random("disk"))
    log = RecordLog(disk, "log")
    log.append(b"one")
    disk.syncs_to_fail = 1
    with pytest.raises(StorageError):
        log.sync()
    log.sync()
    assert disk.synced_view("log") == seal(b"one")


@given(RECORDS, RECORDS, st.integers(0, 2**32))
def test_compaction_is_atomic_and_durable(old: list[bytes], new: list[bytes], seed: int) -> None:
    disk = make_disk(seed)
    log = RecordLog(disk, "log")
    for record in old:
        log.append(record)
    log.compact(new)
    disk.power_cut()
    assert RecordLog(disk, "log").records() == new


def test_a_removed_log_is_empty() -> None:
    disk = make_disk()
    log = RecordLog(disk, "log")
    log.append(b"one")
    log.remove()
    assert log.records() == []
    assert not disk.exists("log")
