"""Segments against bytes written out from RFC 5326 §3, round trips, and what is refused."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightsw.errors import SegmentError
from flightsw.wire.sdnv import encode_sdnv
from flightsw.wire.segments import (
    CancelAck,
    CancelReason,
    CancelSegment,
    DataSegment,
    ReportAck,
    ReportSegment,
    decode_segment,
    encode_segment,
)

# Each row: control byte | originator | session number | extension counts | content. SDNV of 300 is 82 2c.
GOLDEN = {
    "00  03 822c 00  01 00 02 6869": DataSegment((3, 300), True, False, False, False, 1, 0, b"hi"),
    # service 1, offset 1000 = 87 68, 2 bytes, checkpoint 5, answers report 9
    "01  03 822c 00  01 8768 02 05 09 6869": DataSegment((3, 300), True, True, False, False, 1, 1000, b"hi", 5, 9),
    "02  03 822c 00  01 8768 02 05 00 6869": DataSegment((3, 300), True, True, True, False, 1, 1000, b"hi", 5, 0),
    "03  03 822c 00  01 8768 02 05 00 6869": DataSegment((3, 300), True, True, True, True, 1, 1000, b"hi", 5, 0),
    "04  03 822c 00  01 8768 02 6869": DataSegment((3, 300), False, False, False, False, 1, 1000, b"hi"),
    "07  03 822c 00  01 8768 02 6869": DataSegment((3, 300), False, False, False, True, 1, 1000, b"hi"),
    # report 9 on checkpoint 5: of bytes 1000 to 6000 = ae 70, two claims: 0+1000 and 2000 = 8f 50 +3000 = 97 38
    "08  03 822c 00  09 05 ae70 8768 02 00 8768 8f50 9738": ReportSegment(
        (3, 300), 9, 5, 6000, 1000, ((0, 1000), (2000, 3000))
    ),
    "08  03 822c 00  09 00 ae70 00 00": ReportSegment((3, 300), 9, 0, 6000, 0, ()),
    "09  03 822c 00  09": ReportAck((3, 300), 9),
    "0c  03 822c 00  02": CancelSegment((3, 300), CancelReason.RLEXC, by_sender=True),
    "0d  03 822c 00": CancelAck((3, 300), by_sender=True),
    "0e  03 822c 00  03": CancelSegment((3, 300), CancelReason.MISCOLORED, by_sender=False),
    "0f  03 822c 00": CancelAck((3, 300), by_sender=False),
}


@pytest.mark.parametrize("encoded", GOLDEN)
def test_the_layout_is_the_one_of_the_standard(encoded):
    assert encode_segment(GOLDEN[encoded]).hex() == encoded.replace(" ", "")
    assert decode_segment(bytes.fromhex(encoded)) == GOLDEN[encoded]


NUMBERS = st.integers(0, 2**64 - 1)
SERIALS = st.integers(1, 2**64 - 1)
SESSIONS = st.tuples(NUMBERS, NUMBERS)
OFFSETS = st.integers(0, 2**63)


def data_segment(session, flags, service, offset, data, serials):
    return DataSegment(session, *flags, service, offset, data, *(serials if flags[1] else (0, 0)))


def report_segment(session, serial, checkpoint, lower, runs, rest):
    claims, end = [], -1
    for gap, length in runs:
        claims.append((end + gap, length))
        end += gap + length
    return ReportSegment(session, serial, checkpoint, lower + max(end, 0) + rest, lower, tuple(claims))


DATA_FLAGS = [
    (True, False, False, False),
    (True, True, False, False),
    (True, True, True, False),
    (True, True, True, True),
    (False, False, False, False),
    (False, False, False, True),
]
RUNS = st.lists(st.tuples(st.integers(1, 2**32), st.integers(1, 2**32)), max_size=6)
SEGMENTS = st.one_of(
    st.builds(
        data_segment,
        SESSIONS,
        st.sampled_from(DATA_FLAGS),
        NUMBERS,
        OFFSETS,
        st.binary(max_size=300),
        st.tuples(SERIALS, NUMBERS),
    ),
    st.builds(report_segment, SESSIONS, SERIALS, NUMBERS, OFFSETS, RUNS, st.integers(0, 2**32)),
    st.builds(ReportAck, SESSIONS, SERIALS),
    st.builds(CancelSegment, SESSIONS, st.sampled_from(CancelReason), st.booleans()),
    st.builds(CancelAck, SESSIONS, st.booleans()),
)


@given(SEGMENTS)
def test_a_segment_comes_back(segment):
    assert decode_segment(encode_segment(segment)) == segment


@given(SEGMENTS, st.data())
def test_a_cut_or_longer_segment_is_refused(segment, data):
    encoded = encode_segment(segment)
    with pytest.raises(SegmentError):
        decode_segment(encoded[: data.draw(st.integers(0, len(encoded) - 1))])
    with pytest.raises(SegmentError, match="length: 1 bytes after the segment"):
        decode_segment(encoded + b"\0")


@given(
    SEGMENTS,
    st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=200)), max_size=15),
    st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=200)), max_size=15),
)
def test_extensions_are_skipped(segment, headers, trailers):
    encoded = encode_segment(segment)
    session = encode_sdnv(segment.session[0]) + encode_sdnv(segment.session[1])
    content = encoded[1 + len(session) + 1 :]

    def written(extensions):
        return b"".join(bytes((tag,)) + encode_sdnv(len(value)) + value for tag, value in extensions)

    counts = bytes((len(headers) << 4 | len(trailers),))
    extended = encoded[:1] + session + counts + written(headers) + content + written(trailers)
    assert decode_segment(extended) == segment


@pytest.mark.parametrize(
    ("encoded", "field"),
    [
        ("", "control"),
        ("10 03 04 00 01 00 00", "version: 1"),
        ("f0 03 04 00 01 00 00", "version: 15"),
        ("05 03 04 00 01 00 00", "type: 5"),
        ("06 03 04 00 01 00 00", "type: 6"),
        ("0a 03 04 00", "type: 10"),
        ("0b 03 04 00", "type: 11"),
        ("00", "originator"),
        ("00 03", "session number"),
        ("00 03 04", "extension counts"),
        ("00 03 04 10 01", "header extension"),
        ("00 03 04 10 01 05 00", "header extension"),
        ("0f 03 04 01 01 05 00", "trailer extension"),
        ("00 03 04 00", "client service"),
        ("00 03 04 00 01", "offset"),
        ("00 03 04 00 01 00", "data length"),
        ("00 03 04 00 01 00 02 61", "data length: 2 bytes are announced, 1 are there"),
        ("00 03 04 00 01 81ffffffffffffffff7f 01 61", "offset"),
        ("01 03 04 00 01 00 00 00 00", "checkpoint serial"),
        ("01 03 04 00 01 00 00 01", "report serial"),
        ("08 03 04 00 00 05 10 00 00", "report serial"),
        ("08 03 04 00 09 05 10 11 00", "upper bound"),
        ("08 03 04 00 09 05 10 00 01 00", "claim count"),
        ("08 03 04 00 09 05 10 00 81ffffffffffffffff7f 00 01", "claim count"),
        ("08 03 04 00 09 05 10 00 01 00 00", "claim length"),
        ("08 03 04 00 09 05 10 00 01 00 11", "claim length"),
        ("08 03 04 00 09 05 10 00 01 10 01", "claim length"),
        ("08 03 04 00 09 05 10 00 02 00 05 04 01", "claim offset"),
        ("08 03 04 00 09 05 10 00 02 05 01 00 01", "claim offset"),
        ("08 03 04 00 09 05 10 00 02 00 05 05 01", "claim offset"),
        ("09 03 04 00 00", "report serial"),
        ("0c 03 04 00", "cancel reason"),
        ("0c 03 04 00 06", "cancel reason: 6"),
    ],
)
def test_a_wrong_segment_is_refused_with_the_field(encoded, field):
    with pytest.raises(SegmentError, match=field):
        decode_segment(bytes.fromhex(encoded))


@given(st.binary(max_size=40))
def test_only_segment_errors_escape_from_noise(data):
    try:
        segment = decode_segment(data)
    except SegmentError:
        return
    encode_segment(segment)


@given(SEGMENTS, st.integers(0, 2**16), st.integers(1, 255))
def test_only_segment_errors_escape_from_damage(segment, where, flips):
    damaged = bytearray(encode_segment(segment))
    damaged[where % len(damaged)] ^= flips
    try:
        segment = decode_segment(bytes(damaged))
    except SegmentError:
        return
    assert decode_segment(encode_segment(segment)) == segment


@pytest.mark.parametrize(
    "change",
    [{"red": False}, {"checkpoint": False}, {"end_of_red": False}, {"checkpoint_serial": 0}],
    ids=str,
)
def test_a_contradictory_data_segment_is_our_mistake(change):
    segment = DataSegment((3, 4), True, True, True, True, 1, 0, b"hi", 5, 0)
    with pytest.raises(AssertionError):
        encode_segment(dataclasses.replace(segment, **change))


@pytest.mark.parametrize(
    "segment",
    [
        ReportSegment((3, 4), 1, 1, 10, 0, ((0, 5), (4, 1))),
        ReportSegment((3, 4), 1, 1, 10, 5, ((0, 6),)),
        ReportSegment((3, 4), 0, 1, 10, 0, ((0, 5),)),
        ReportAck((3, 4), 0),
    ],
)
def test_a_contradictory_report_is_our_mistake(segment):
    with pytest.raises(AssertionError):
        encode_segment(segment)
