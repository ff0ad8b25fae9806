"""Segments and bundles as ION sends them.

Recorded from ION (github.com/nasa-jpl/ION-DTN, commit 61b6bb3b26ef, BPv7), node 5, on UDP on a loopback interface, when
it exchanged pings and a file with node 1. The bytes are those of the wire.
"""

import pytest

from flightsw.wire.aggregates import split_bundles
from flightsw.wire.bundles import CRC_16_X25, decode_bundle
from flightsw.wire.eids import DTN_NONE, Eid
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

# A block with one bundle: the echo of a ping of ours, with ION's extension block 193.
ECHO = (
    "03056300010058f24500"
    "9f89071840018202820108820282051907ff820282051907ff821b000000c59274fc8f161a000493e042a397"
    "85060210004582028205008518c10301004584000100008507040100410185010101004768656c6c6f2030ff"
)
# A block with two bundles: a ping of ION's own, and an echo, aggregated.
AGGREGATE = (
    "0305640001008167d36200"
    "9f8907184001820282010782028205098202820509821b000000c59274ffdf171a0036ee8042520c"
    "85060210004582028205008518c1030100458400000000850704010041008501010100584030203137393532353034393820353236383237"
    "203239333236206270696e67207061796c6f616400000000000000000000000000000000000000000000000000ff"
    "9f89071840018202820108820282051907ff820282051907ff821b000000c59275007918181a000493e0429711"
    "85060210004582028205008518c10301004584000000008507040100410085010101004768656c6c6f2031ff"
)
CONTROL = {
    "0801b485f42200d727015300010053": ReportSegment((1, 109148706), 11175, 1, 83, 0, ((0, 83),)),
    "0801a6e6f74600af0601a84c000300880090008800a000884c": ReportSegment(
        (1, 81378246), 6022, 1, 5196, 0, ((0, 1024), (2048, 1024), (4096, 1100))
    ),
    "0905630001": ReportAck((5, 99), 1),
    "0c05670002": CancelSegment((5, 103), CancelReason.RLEXC, by_sender=True),
    "0d0185f5c0801100": CancelAck((1, 1588592657), by_sender=True),
    "0e0190e5dd4a0002": CancelSegment((1, 35221194), CancelReason.RLEXC, by_sender=False),
}


@pytest.mark.parametrize("encoded", CONTROL)
def test_its_control_segments_are_read_and_written_alike(encoded):
    assert decode_segment(bytes.fromhex(encoded)) == CONTROL[encoded]
    assert encode_segment(CONTROL[encoded]).hex() == encoded


@pytest.mark.parametrize("encoded", [ECHO, AGGREGATE], ids=["one bundle", "two bundles"])
def test_its_data_segments_are_read_and_written_alike(encoded):
    segment = decode_segment(bytes.fromhex(encoded))
    assert isinstance(segment, DataSegment)
    assert (segment.session[0], segment.client_service, segment.offset) == (5, 1, 0)
    assert segment.red
    assert segment.end_of_block
    assert encode_segment(segment).hex() == encoded


def test_its_bundles_are_read():
    segment = decode_segment(bytes.fromhex(ECHO))
    bundle = decode_bundle(segment.data)
    assert (bundle.destination, bundle.source, bundle.report_to) == (Eid(1, 8), Eid(5, 2047), Eid(5, 2047))
    assert bundle.payload == b"hello 0"
    assert bundle.crc_type == CRC_16_X25
    assert (bundle.previous_node, bundle.age_ms, bundle.lifetime_ms) == (Eid(5, 0), 1, 300_000)
    assert [block.type for block in bundle.blocks] == [193]


def test_its_aggregates_are_taken_apart():
    segment = decode_segment(bytes.fromhex(AGGREGATE))
    ping, echo = map(decode_bundle, split_bundles(segment.data))
    assert (ping.destination, ping.source) == (Eid(1, 7), Eid(5, 9))
    assert ping.payload.startswith(b"0 1795250498 526827 29326 bping payload\0")
    assert (echo.destination, echo.payload) == (Eid(1, 8), b"hello 1")
    assert DTN_NONE not in (ping.report_to, echo.report_to)
