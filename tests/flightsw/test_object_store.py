"""The object store: digests always hold, room is found fairly, chunks survive a power cut."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flightsw.errors import StorageError
from flightsw.objects.digest import chunks_count, full_bitmap, missing_chunks
from flightsw.objects.parts import UNSYNCED_CHUNKS_MAX
from flightsw.objects.store import ObjectStore, digest_of, object_name
from flightsw.objects.synthetic import SyntheticObject
from flightsw.wire.messages import CHUNK_BYTES
from hil.sim.disk import SimulatedDisk
from hil.sim.streams import Streams

QUOTA_BYTES = 1 << 20


def make_disk(seed: int = 1, capacity_bytes: int = 1 << 22) -> SimulatedDisk:
    return SimulatedDisk(capacity_bytes, Streams(seed).random("disk"))


def some_bytes(size_bytes: int, seed: int = 0) -> bytes:
    return Streams(seed).bytes("object", size_bytes)


def pieces(data: bytes) -> list[bytes]:
    return [data[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES] for index in range(chunks_count(len(data)))]


def test_a_name_is_the_blake2b_256_digest() -> None:
    assert digest_of(b"abc") == hashlib.blake2b(b"abc", digest_size=32).digest()


@given(st.integers(1, 70), st.sets(st.integers(0, 69)))
def test_a_bitmap_names_exactly_what_is_missing(count: int, cleared: set[int]) -> None:
    bitmap = bytearray(full_bitmap(count))
    for index in sorted(cleared):
        if index < count:
            bitmap[index >> 3] &= ~(0x80 >> (index & 7))
    assert missing_chunks(bytes(bitmap), count) == sorted(index for index in cleared if index < count)
    assert missing_chunks(b"", count) == list(range(count))
    assert len(full_bitmap(count)) == -(-count // 8)


def test_a_full_bitmap_has_no_bit_beyond_the_last_chunk() -> None:
    assert full_bitmap(3) == b"\xe0"
    assert full_bitmap(8) == b"\xff"
    assert full_bitmap(9) == b"\xff\x80"


def test_an_object_is_read_back_after_a_power_cut() -> None:
    disk = make_disk()
    digest = ObjectStore(disk, QUOTA_BYTES).put(b"cloud")
    disk.power_cut()
    store = ObjectStore(disk, QUOTA_BYTES)
    assert store.has(digest)
    assert store.get(digest) == b"cloud"
    assert (store.size_bytes(digest), store.used_bytes, store.digests()) == (5, 5, [digest])


def test_what_is_not_here_is_an_error() -> None:
    store = ObjectStore(make_disk(), QUOTA_BYTES)
    with pytest.raises(StorageError):
        store.get(bytes(32))
    with pytest.raises(StorageError):
        store.size_bytes(bytes(32))
    with pytest.raises(StorageError):
        store.add_chunk(bytes(32), 0, b"x")


@given(st.integers(0, 8 * 100 - 1))
def test_a_rotten_object_is_never_returned_and_is_removed(bit: int) -> None:
    disk = make_disk()
    store = ObjectStore(disk, QUOTA_BYTES)
    digest = store.put(some_bytes(100))
    disk.flip_bit(object_name(digest), bit)
    with pytest.raises(StorageError):
        store.get(digest)
    assert not store.has(digest)
    assert (store.rotten_count, store.used_bytes) == (1, 0)
    assert not disk.exists(object_name(digest))


def test_putting_an_object_again_mends_a_rotten_copy() -> None:
    disk = make_disk()
    store = ObjectStore(disk, QUOTA_BYTES)
    digest = store.put(b"weights")
    disk.flip_bit(object_name(digest), 3)
    assert store.put(b"weights") == digest
    assert store.get(digest) == b"weights"
    assert store.used_bytes == 7


def test_the_scrub_visits_every_object_in_turn_and_names_the_rotten_one() -> None:
    disk = make_disk()
    store = ObjectStore(disk, QUOTA_BYTES)
    digests = sorted(store.put(bytes([number])) for number in range(5))
    disk.flip_bit(object_name(digests[3]), 0)
    assert [store.scrub_next() for _ in range(5)] == [None, None, None, digests[3], None]
    assert [store.scrub_next() for _ in range(8)] == [None] * 8
    assert store.digests() == digests[:3] + digests[4:]


def test_the_scrub_of_an_empty_store_finds_nothing() -> None:
    assert ObjectStore(make_disk(), QUOTA_BYTES).scrub_next() is None


def test_the_object_used_longest_ago_is_evicted_first() -> None:
    store = ObjectStore(make_disk(), quota_bytes=30)
    first, second, third = (store.put(bytes([number]) * 10) for number in range(3))
    store.get(first)
    store.put(b"x" * 10)
    assert [store.has(digest) for digest in (first, second, third)] == [True, False, True]
    assert store.evicted_count == 1


def test_a_pinned_object_is_neither_evicted_nor_removed_until_unpinned_as_often() -> None:
    store = ObjectStore(make_disk(), quota_bytes=20)
    digest = store.put(b"x" * 15)
    store.pin(digest)
    store.pin(digest)
    store.unpin(digest)
    with pytest.raises(StorageError, match="no space"):
        store.put(b"y" * 10)
    assert not store.remove(digest)
    assert store.has(digest)
    store.unpin(digest)
    store.put(b"y" * 10)
    assert not store.has(digest)


def test_nothing_is_evicted_in_vain() -> None:
    store = ObjectStore(make_disk(), quota_bytes=20)
    digest = store.put(b"x" * 15)
    with pytest.raises(StorageError, match="no space"):
        store.put(b"y" * 21)
    assert store.has(digest)


def test_a_full_disk_makes_room_before_the_quota_does() -> None:
    store = ObjectStore(make_disk(capacity_bytes=100), quota_bytes=1000)
    old = store.put(b"x" * 60)
    new = store.put(b"y" * 60)
    assert (store.has(old), store.get(new)) == (False, b"y" * 60)


def test_a_begun_object_takes_its_room_at_once_and_gives_it_back() -> None:
    store = ObjectStore(make_disk(), quota_bytes=100)
    store.begin(bytes(32), 80)
    with pytest.raises(StorageError, match="no space"):
        store.put(b"x" * 30)
    store.abandon(bytes(32))
    store.put(b"x" * 30)
    assert store.used_bytes == 30


@pytest.mark.parametrize("size_bytes", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 5 * CHUNK_BYTES])
def test_chunks_in_any_order_and_twice_make_the_object(size_bytes: int) -> None:
    disk = make_disk()
    store = ObjectStore(disk, QUOTA_BYTES)
    data = some_bytes(size_bytes)
    digest = digest_of(data)
    store.begin(digest, size_bytes)
    whole = [store.add_chunk(digest, index, chunk) for index, chunk in [*enumerate(pieces(data))][::-1] for _ in "12"]
    assert whole == [False] * (len(whole) - 2) + [True, True]
    assert store.get(digest) == data
    assert missing_chunks(store.bitmap(digest), chunks_count(size_bytes)) == []
    assert disk.names("objects/") == [object_name(digest)]
    assert store.used_bytes == size_bytes


def test_chunks_of_another_object_are_dropped_and_counted() -> None:
    store = ObjectStore(make_disk(), QUOTA_BYTES)
    data = some_bytes(3 * CHUNK_BYTES)
    digest = digest_of(data)
    store.begin(digest, len(data))
    for index, chunk in enumerate(pieces(data)):
        store.add_chunk(digest, index, chunk if index else bytes(CHUNK_BYTES))
    assert not store.has(digest)
    assert (store.restarted_count, store.bitmap(digest)) == (1, b"\0")
    for index, chunk in enumerate(pieces(data)):
        store.add_chunk(digest, index, chunk)
    assert store.get(digest) == data


def test_a_wrong_size_cannot_keep_the_object_out() -> None:
    store = ObjectStore(make_disk(), QUOTA_BYTES)
    digest = digest_of(b"true")
    store.begin(digest, 9)
    store.add_chunk(digest, 0, b"x" * 9)
    store.begin(digest, 4)
    assert store.add_chunk(digest, 0, b"true")
    assert store.used_bytes == 4


def test_a_chunk_that_rots_before_the_object_is_whole_is_sent_again() -> None:
    disk = make_disk()
    store = ObjectStore(disk, QUOTA_BYTES)
    data = some_bytes(2 * CHUNK_BYTES)
    digest = digest_of(data)
    store.begin(digest, len(data))
    store.add_chunk(digest, 0, pieces(data)[0])
    disk.flip_bit(object_name(digest) + ".part", 8 * 1000)
    assert not store.add_chunk(digest, 1, pieces(data)[1])
    assert (store.has(digest), store.bitmap(digest), store.restarted_count) == (False, b"\0", 1)


def test_a_part_without_a_readable_size_is_dropped_at_start() -> None:
    disk = make_disk()
    name = object_name(bytes(32)) + ".part"
    disk.replace(name, b"torn")
    assert ObjectStore(disk, QUOTA_BYTES).partial_digests() == []
    assert not disk.exists(name)


def test_foreign_files_are_left_alone() -> None:
    disk = make_disk()
    disk.replace("objects/readme", b"x")
    disk.replace("objects/00", b"x")
    assert ObjectStore(disk, QUOTA_BYTES).digests() == []
    assert disk.names("objects/") == ["objects/00", "objects/readme"]


@settings(max_examples=60, deadline=None)
@given(
    size_bytes=st.sampled_from([0, CHUNK_BYTES, 2 * CHUNK_BYTES + 1, 4 * CHUNK_BYTES]),
    steps=st.lists(st.tuples(st.sampled_from(["chunk", "claim", "cut"]), st.integers(0, 4)), max_size=20),
    seed=st.integers(0, 2**32),
)
def test_a_power_cut_never_takes_a_claimed_chunk_and_never_leaves_wrong_bytes(
    size_bytes: int, steps: list[tuple[str, int]], seed: int
) -> None:
    disk = make_disk(seed)
    data = some_bytes(size_bytes, seed)
    digest, count = digest_of(data), chunks_count(size_bytes)
    store = ObjectStore(disk, QUOTA_BYTES)
    claimed: set[int] = set()
    for step, number in [*steps, ("cut", 0)]:
        if step == "chunk":
            store.begin(digest, size_bytes)
            store.add_chunk(digest, number % count, pieces(data)[number % count])
        elif step == "claim":
            claimed = set(range(count)) - set(missing_chunks(store.bitmap(digest), count))
        else:
            disk.power_cut()
            store = ObjectStore(disk, QUOTA_BYTES)
            held = set(range(count)) - set(missing_chunks(store.bitmap(digest), count))
            assert claimed <= held
            claimed = held
        if store.has(digest):
            assert store.get(digest) == data
    store.begin(digest, size_bytes)
    for index, chunk in enumerate(pieces(data)):
        store.add_chunk(digest, index, chunk)
    assert store.get(digest) == data


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(["put", "get", "pin", "unpin", "remove"]), st.integers(0, 9)), max_size=40))
def test_the_quota_holds_and_its_sum_is_what_the_disk_has(steps: list[tuple[str, int]]) -> None:
    disk = make_disk()
    store = ObjectStore(disk, quota_bytes=100)
    contents = [bytes([number]) * (7 * number + 1) for number in range(10)]
    for step, number in steps:
        digest = digest_of(contents[number])
        try:
            if step == "put":
                store.put(contents[number])
            elif step == "get":
                store.get(digest)
            else:
                getattr(store, step)(digest)
        except StorageError:
            pass
        assert store.used_bytes == sum(len(disk.read(name)) for name in disk.names("objects/")) <= 100


def test_a_power_cut_takes_few_chunks_of_a_large_object_though_nobody_asked() -> None:
    disk = make_disk()
    data = some_bytes(60 * CHUNK_BYTES)
    digest = digest_of(data)
    store = ObjectStore(disk, QUOTA_BYTES)
    store.begin(digest, len(data))
    for index, chunk in enumerate(pieces(data)[:50]):
        store.add_chunk(digest, index, chunk)
    kept = disk.synced_view(object_name(digest) + ".part")
    assert kept is not None
    assert len(kept) > (50 - UNSYNCED_CHUNKS_MAX) * CHUNK_BYTES


def test_a_begun_object_with_a_proven_size_keeps_its_chunks_when_another_size_is_said() -> None:
    store = ObjectStore(make_disk(), QUOTA_BYTES)
    data = some_bytes(3 * CHUNK_BYTES)
    digest = digest_of(data)
    store.begin(digest, len(data))
    store.add_chunk(digest, 1, pieces(data)[1])
    with pytest.raises(StorageError, match=f"chunks of it prove {len(data)}"):
        store.begin(digest, len(data) + 1)
    assert missing_chunks(store.bitmap(digest), 3) == [0, 2]


def test_a_synthetic_object_takes_its_size_of_the_quota_and_nothing_of_the_disk() -> None:
    disk = make_disk()
    store = ObjectStore(disk, quota_bytes=10**10)
    real = store.put(b"real")
    synthetic = SyntheticObject(1, 9 * 10**9)
    digest = store.put_synthetic(synthetic)
    assert store.put_synthetic(synthetic) == digest
    assert (store.used_bytes, disk.capacity_bytes - disk.free_bytes()) == (9 * 10**9 + 4, 4)
    assert store.scrub_next() is None
    with pytest.raises(StorageError, match="is synthetic and has no bytes"):
        store.get(digest)
    disk.power_cut()
    store = ObjectStore(disk, quota_bytes=10**10)
    assert (store.has(digest), store.size_bytes(digest), store.used_bytes) == (True, 9 * 10**9, 9 * 10**9 + 4)
    with pytest.raises(StorageError, match="no space"):
        store.put_synthetic(SyntheticObject(2, 2 * 10**10))
    store.pin(real)
    store.put_synthetic(SyntheticObject(2, 2 * 10**9))
    assert not store.has(digest)


def test_a_synthetic_object_is_whole_when_all_its_chunks_came_over_any_power_cut() -> None:
    disk = make_disk()
    synthetic = SyntheticObject(7, 3_000_000)
    count = 184
    store = ObjectStore(disk, quota_bytes=10**7)
    store.begin(synthetic.digest, synthetic.size_bytes)
    for index in range(count - 1):
        assert not store.add_chunk(synthetic.digest, index, b"")
    assert missing_chunks(store.bitmap(synthetic.digest), count) == [count - 1]
    disk.power_cut()
    store = ObjectStore(disk, quota_bytes=10**7)
    assert store.add_chunk(synthetic.digest, count - 1, b"")
    assert store.size_bytes(synthetic.digest) == 3_000_000
    assert store.partial_digests() == []
