from itertools import pairwise

import pytest
from cobs import cobs
from hypothesis import given
from hypothesis import strategies as st

from flightsw.errors import FrameError, WireError
from flightsw.link.record_stream import STUFFED_BYTES_MAX, RecordReader, stuff_record
from flightsw.link.records import (
    INTERFACE_MAX,
    PADDING_BYTES_MAX,
    RECORD_BYTES_MAX,
    RECORD_FRAME_BYTES_MAX,
    pack_record,
    unpack_record,
)
from flightsw.wire.crc import crc32c
from flightsw.wire.frames import CodedFrame, padding_of
from flightsw.wire.framing import FRAME_BYTES_MAX, CobsCrc32c
from flightsw.wire.sdnv import encode_sdnv

interfaces = st.integers(0, INTERFACE_MAX)
frames = st.binary(min_size=1, max_size=600)


@given(interfaces, frames)
def test_a_record_gives_back_interface_and_frame(interface, frame):
    assert unpack_record(pack_record(interface, frame)) == (interface, frame)


@given(interfaces, frames, st.integers(1, PADDING_BYTES_MAX))
def test_padding_is_carried_as_a_number_not_as_bytes(interface, frame, padding_bytes):
    record = pack_record(interface, CodedFrame.received(frame, padding_bytes))
    assert len(record) <= len(frame) + 8
    got_interface, got = unpack_record(record)
    assert (got_interface, bytes(got), padding_of(got)) == (interface, frame, padding_bytes)


def test_a_frame_is_coded_when_it_enters_a_record():
    coding = CobsCrc32c()
    assert unpack_record(pack_record(3, coding.frame(b"segment"))) == (3, coding.encode(b"segment"))


def test_a_record_takes_the_longest_frame_of_any_coding():
    assert RECORD_FRAME_BYTES_MAX == FRAME_BYTES_MAX
    longest = pack_record(INTERFACE_MAX, CodedFrame.received(bytes(FRAME_BYTES_MAX), PADDING_BYTES_MAX))
    assert len(longest) == RECORD_BYTES_MAX
    stuffed = cobs.encode(b"\1" * (RECORD_BYTES_MAX + 4))
    assert len(stuffed) <= STUFFED_BYTES_MAX


@pytest.mark.parametrize(
    ("record", "word"),
    [
        (b"", "interface"),
        (encode_sdnv(INTERFACE_MAX + 1) + b"\0frame", "interface: 65536"),
        (b"\1", "padding"),
        (b"\1" + encode_sdnv(PADDING_BYTES_MAX + 1) + b"frame", "padding: 1073741825"),
        (b"\1\0", "frame: 0 bytes"),
        (b"\1\0" + bytes(RECORD_FRAME_BYTES_MAX + 1), "frame: 65537 bytes"),
    ],
    ids=["empty", "interface too large", "no padding", "padding too large", "no frame", "frame too long"],
)
def test_what_is_no_record_is_refused_with_the_field(record, word):
    with pytest.raises(WireError, match=word):
        unpack_record(record)


@given(st.lists(st.tuples(interfaces, frames), max_size=8), st.lists(st.integers(0, 4000), max_size=8))
def test_a_stream_gives_the_same_records_however_it_is_cut(records, cuts):
    stream = b"".join(stuff_record(*record) for record in records)
    bounds = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    reader = RecordReader()
    got = [record for start, end in pairwise(bounds) for record in reader.feed(stream[start:end])]
    assert got == records
    assert reader.bad_records_count == 0


@given(st.binary(max_size=200), st.integers(0, 60))
def test_after_noise_the_next_record_is_received(noise, cut):
    reader = RecordReader()
    reader.feed(noise + b"\0")
    reader.feed(stuff_record(1, b"cut off" * 8)[:cut])
    assert reader.feed(b"\0" + stuff_record(2, b"whole"))[-1] == (2, b"whole")


@given(frames, st.data())
def test_a_flipped_bit_never_becomes_another_record(frame, data):
    stuffed = bytearray(stuff_record(9, frame))
    bit = data.draw(st.integers(0, 8 * len(stuffed) - 9))  # the delimiter at the end may go: then nothing is complete
    stuffed[bit // 8] ^= 1 << bit % 8
    reader = RecordReader()
    assert reader.feed(bytes(stuffed)) == []
    assert reader.bad_records_count >= 1


def test_a_record_whose_check_holds_but_not_its_form_is_counted():
    record = b"\1\0"
    stuffed = cobs.encode(record + crc32c(record).to_bytes(4, "big")) + b"\0"
    reader = RecordReader()
    assert reader.feed(stuffed) == []
    assert reader.bad_records_count == 1
    with pytest.raises(FrameError):
        unpack_record(record)


def test_noise_without_zeros_does_not_fill_memory_and_counts_once():
    reader = RecordReader()
    for _ in range(8):
        assert reader.feed(b"\xff" * 65_536) == []
        assert len(reader._partial) <= STUFFED_BYTES_MAX
    assert reader.bad_records_count == 0
    assert reader.feed(b"\0" + stuff_record(1, b"after")) == [(1, b"after")]
    assert reader.bad_records_count == 1


def test_an_oversize_record_in_one_piece_is_refused_too():
    reader = RecordReader()
    assert reader.feed(b"\1" * (STUFFED_BYTES_MAX + 1) + b"\0" + stuff_record(1, b"after")) == [(1, b"after")]
    assert reader.bad_records_count == 1


def test_zeros_between_records_are_idle_fill():
    reader = RecordReader()
    assert reader.feed(b"\0\0\0" + stuff_record(1, b"one") + b"\0\0") == [(1, b"one")]
    assert reader.bad_records_count == 0
