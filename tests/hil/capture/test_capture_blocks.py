"""Blocks are put together from segments in any order, within bounded memory, and taken apart into bundles."""

import random  # noqa: TID251 - seeded
from collections.abc import Callable

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightsw.wire.bundles import Bundle, encode_bundle
from flightsw.wire.segments import CancelReason, CancelSegment, DataSegment
from hil.capture import blocks as blocks_module
from hil.capture.blocks import Blocks, bundles_in


def test_a_block_is_put_together_from_segments_in_any_order_once(red: Callable[..., DataSegment]) -> None:
    data = random.Random("3/block").randbytes(100)
    pieces = [red(80, data[80:], is_last=True), red(0, data[:40]), red(30, data[30:60]), red(55, data[55:80])]
    for order in ((0, 1, 2, 3), (3, 2, 1, 0), (1, 0, 3, 2)):
        blocks = Blocks()
        given = [blocks.add(pieces[index], "a", "b") for index in order]
        assert given == [None, None, None, data]
        assert [blocks.add(piece, "a", "b") for piece in pieces] == [None] * 4, "repetitions give nothing again"
        assert blocks.open_count == 0


def test_blocks_of_other_neighbours_and_sessions_are_kept_apart(red: Callable[..., DataSegment]) -> None:
    blocks = Blocks()
    assert blocks.add(red(0, b"one"), "a", "b") is None
    assert blocks.add(red(3, b"two", is_last=True), "a", "c") is None
    assert blocks.add(red(3, b"two", is_last=True, number=2), "a", "b") is None
    assert blocks.add(red(3, b"two", is_last=True), "a", "b") == b"onetwo"
    assert blocks.open_count == 2


@pytest.mark.parametrize("by_sender", [True, False])
def test_a_cancelled_block_is_forgotten(red: Callable[..., DataSegment], by_sender: bool) -> None:
    blocks = Blocks()
    blocks.add(red(0, b"one"), "a", "b")
    ends = ("a", "b") if by_sender else ("b", "a")
    blocks.add(CancelSegment((11, 1), CancelReason.RLEXC, by_sender), *ends)
    assert blocks.open_count == 0


def test_unfinished_blocks_are_bounded_in_memory(
    green: Callable[..., DataSegment], red: Callable[..., DataSegment], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks_module, "OPEN_BYTES_MAX", 100_000)
    monkeypatch.setattr(blocks_module, "FINISHED_MAX", 10)
    blocks = Blocks()
    for number in range(1000):
        blocks.add(red(0, bytes(1000), number=number), "a", "b")
    assert blocks.open_count <= 100
    assert blocks.given_up_count == 1000 - blocks.open_count
    for offset in range(0, 2000, 2):
        blocks.add(red(offset, b"1", number=5000), "a", "b")
    assert blocks.given_up_count > 1000, "one block of many short segments is bounded too"
    assert blocks.add(red(2**40, b"1", number=6000), "a", "b") is None
    assert blocks.open_count == 1, "no bundle is that long"
    for number in range(100):
        assert blocks.add(green(b"whole", number), "a", "b") == b"whole"
    assert blocks.add(green(b"whole", 0), "a", "b") == b"whole", "forgotten after ten others"


def test_a_block_with_several_bundles_is_taken_apart(bundle_of: Callable[..., Bundle]) -> None:
    bundles = [encode_bundle(bundle_of(bytes(size))) for size in (0, 10, 300)]
    assert bundles_in(b"".join(bundles)) == bundles
    assert bundles_in(bundles[0] + b"noise") == [bundles[0], b"noise"]
    assert bundles_in(b"") == []


@pytest.mark.parametrize(
    "block",
    [b"\x9f", b"\x9f" + b"\x81" * 5000, b"\x9f\x9b" + b"\xff" * 8, b"\x9f\x5b" + b"\xff" * 8, b"\x9f" + b"\0" * 99],
)
def test_a_hostile_block_stays_whole(block: bytes) -> None:
    assert bundles_in(block) == [block]


@given(st.binary(max_size=200))
def test_a_block_loses_no_byte(data: bytes) -> None:
    assert b"".join(bundles_in(b"\x9f" + data)) == b"\x9f" + data


def test_the_peer_of_cbor_is_not_ours(bundle_of: Callable[..., Bundle]) -> None:
    """The ends of bundles that we find are those of another CBOR reader."""
    data = encode_bundle(bundle_of(bytes(300), hop_count=(9, 1)))
    assert len(cbor2.loads(bundles_in(data + data)[0])) == 4
