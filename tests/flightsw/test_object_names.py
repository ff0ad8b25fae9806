"""Names of objects: a chunk is checked on arrival against the name alone; a synthetic one says what it is."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flightsw.errors import ConfigError, StorageError
from flightsw.objects.digest import (
    ChunkTree,
    bitmap_without,
    chunk_holds,
    digest_of,
    missing_chunks,
    shape_of,
)
from flightsw.objects.synthetic import MARKER, SyntheticObject, synthetic_of
from flightsw.wire.messages import CHUNK_BYTES, PROOF_BYTES_MAX
from hil.sim.streams import Streams

sizes = st.one_of(
    st.integers(0, 3 * CHUNK_BYTES),
    st.integers(1, 40).map(lambda count: count * CHUNK_BYTES),
    st.just(17 * CHUNK_BYTES),
)


def some_bytes(size_bytes: int, seed: int = 0) -> bytes:
    return Streams(seed).bytes("object", size_bytes)


def piece(data: bytes, index: int) -> bytes:
    return data[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]


def test_the_name_of_one_chunk_is_its_plain_digest() -> None:
    assert digest_of(b"abc") == hashlib.blake2b(b"abc", digest_size=32).digest()
    assert digest_of(b"") == hashlib.blake2b(b"", digest_size=32).digest()


def test_the_name_of_three_chunks_is_what_the_documentation_says() -> None:
    def h(data: bytes, person: bytes = b"") -> bytes:
        return hashlib.blake2b(data, digest_size=32, person=person).digest()

    data = some_bytes(2 * CHUNK_BYTES + 5)
    left = h(h(piece(data, 0)) + h(piece(data, 1)), b"flatrack.node")
    root = h(left + h(piece(data, 2)), b"flatrack.node")
    assert digest_of(data) == h(len(data).to_bytes(8, "big") + root, b"flatrack.name")


@settings(max_examples=60, deadline=None)
@given(size_bytes=sizes, seed=st.integers(0, 99))
def test_every_chunk_is_proven_and_nothing_else_is(size_bytes: int, seed: int) -> None:
    data = some_bytes(size_bytes, seed)
    tree, chance = ChunkTree(data), Streams(seed).random("wrong")
    shape = shape_of(tree.digest, size_bytes)
    for index in range(shape.chunks_count):
        chunk, proof = piece(data, index), tree.proof(index)
        assert len(proof) <= PROOF_BYTES_MAX
        assert chunk_holds(tree.digest, shape, index, chunk, proof)
        other = chance.randrange(shape.chunks_count + 1)
        assert other == index or not chunk_holds(tree.digest, shape, other, chunk, proof)
        assert not chunk_holds(tree.digest, shape, index, chunk, proof + bytes(32))
        assert not proof or not chunk_holds(tree.digest, shape, index, chunk, proof[:-32])
        for bits in (chunk, proof):
            if bits:
                flipped = bytearray(bits)
                flipped[chance.randrange(len(bits))] ^= 1 << chance.randrange(8)
                wrong = (bytes(flipped), proof) if bits is chunk else (chunk, bytes(flipped))
                assert not chunk_holds(tree.digest, shape, index, *wrong)


def test_the_size_is_part_of_the_name() -> None:
    data = some_bytes(2 * CHUNK_BYTES + 7)
    tree = ChunkTree(data)
    for size_bytes in (len(data) - 1, len(data) + 1, len(data) + CHUNK_BYTES):
        assert not chunk_holds(tree.digest, shape_of(tree.digest, size_bytes), 0, piece(data, 0), tree.proof(0))


def test_a_node_of_a_tree_cannot_pass_for_an_object() -> None:
    data = some_bytes(2 * CHUNK_BYTES)
    leaves = b"".join(hashlib.blake2b(piece(data, index), digest_size=32).digest() for index in range(2))
    assert digest_of(leaves) != digest_of(data)
    assert digest_of(leaves) != hashlib.blake2b(leaves, digest_size=32, person=b"flatrack.node").digest()


@given(st.integers(1, 70), st.sets(st.integers(0, 69)))
def test_a_bitmap_made_without_some_lacks_exactly_those(count: int, cleared: set[int]) -> None:
    inside = {index for index in cleared if index < count}
    assert missing_chunks(bitmap_without(inside, count), count) == sorted(inside)


def test_an_object_beyond_the_largest_has_no_shape() -> None:
    with pytest.raises(StorageError, match="at most 1073741824"):
        shape_of(bytes(32), (1 << 30) + 1)


@given(st.integers(0, (1 << 96) - 1), st.integers(0, 1 << 46))
def test_the_name_of_a_synthetic_object_tells_seed_size_and_chunks(seed: int, size_bytes: int) -> None:
    synthetic = SyntheticObject(seed, size_bytes)
    assert synthetic_of(synthetic.digest) == synthetic
    shape = shape_of(synthetic.digest, size_bytes)
    assert shape.is_synthetic
    assert shape.chunks_count <= 65_536
    lengths = (shape.chunk_size_bytes(index) for index in (0, shape.chunks_count - 1))
    assert all(0 <= length <= shape.chunk_bytes for length in lengths)
    assert sum(shape.chunk_size_bytes(index) for index in range(shape.chunks_count)) == size_bytes


def test_a_small_synthetic_object_is_cut_like_a_real_one_and_a_large_one_into_long_chunks() -> None:
    assert SyntheticObject(1, 1_000_000).chunk_bytes == CHUNK_BYTES
    assert SyntheticObject(1, 10_000_000_000).chunk_bytes == 1 << 20
    assert SyntheticObject(1, 1 << 40).chunk_bytes == 1 << 24


def test_a_synthetic_chunk_holds_only_without_data_and_in_range() -> None:
    digest = SyntheticObject(1, 100_000).digest
    shape = shape_of(digest, 100_000)
    assert chunk_holds(digest, shape, 6, b"", b"")
    assert not chunk_holds(digest, shape, 7, b"", b"")
    assert not chunk_holds(digest, shape, 0, bytes(CHUNK_BYTES), b"")
    assert not chunk_holds(digest, shape, 0, b"", bytes(32))
    with pytest.raises(StorageError, match="its name says 100000"):
        shape_of(digest, 100_001)


@pytest.mark.parametrize(
    ("seed", "size_bytes", "chunk_bytes", "says"),
    [
        (-1, 1, 0, "seed -1, expected 0 to"),
        (1 << 96, 1, 0, "expected 0 to"),
        (0, -1, 0, "size -1 bytes, expected 0 or more"),
        (0, 1, -1, "chunks of -1 bytes, expected 1 to"),
        (0, 1, (1 << 30) + 1, "expected 1 to 1073741824"),
        (0, 65_537, 1, "expected at most 65536 chunks"),
    ],
)
def test_a_synthetic_object_out_of_range_is_refused_by_field(
    seed: int, size_bytes: int, chunk_bytes: int, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        SyntheticObject(seed, size_bytes, chunk_bytes)


@pytest.mark.parametrize("tail", [bytes(24), b"\xff" * 24])
def test_nonsense_behind_the_marker_is_no_synthetic_object(tail: bytes) -> None:
    assert synthetic_of(MARKER + tail) is None
