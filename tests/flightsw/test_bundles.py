"""Bundles against bytes that we did not write, round trips, forwarding, and what is refused."""

import dataclasses

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightsw.errors import BundleError
from flightsw.wire.bundles import (
    BUNDLE_BLOCKS_MAX,
    BUNDLE_BYTES_MAX,
    DTN_EPOCH_UTC_S,
    BlockFlags,
    Bundle,
    BundleFlags,
    CanonicalBlock,
    decode_bundle,
    encode_block,
    encode_bundle,
    forwarded,
    primary_block,
)
from flightsw.wire.crc import CRC_16_X25, CRC_32C, CRC_NONE
from flightsw.wire.eids import DTN_NONE, Eid, encode_eid

# RFC 9173 appendix A.1.1: the bundle that its examples begin with.
RFC_PRIMARY = "88070000820282010282028202018202820201820018281a000f4240"
RFC_PAYLOAD = "85010100005823526561647920746f2067656e657261746520612033322d62797465207061796c6f6164"
RFC_BUNDLE = Bundle(
    destination=Eid(1, 2),
    source=Eid(2, 1),
    report_to=Eid(2, 1),
    creation=(0, 40),
    lifetime_ms=1_000_000,
    payload=b"Ready to generate a 32-byte payload",
    crc_type=CRC_NONE,
    payload_crc_type=CRC_NONE,
)

# Written by pyD3TN 0.15.2 (pyd3tn.bundle7, cbor2 5.8.0): all CRC-32C; all CRC-16; a fragment with mixed CRC types.
PEER_CRC32 = bytes.fromhex(
    "9f890700028202820c0382028219012c018202821a0001117000821b000000b05782487b18291a0036ee8044bf9fade1"
    "860602000246820282182c0044ffb36a40"
    "8607030002451a0016e36044f28021f7"
    "860a0400024482181e0244feb26e65"
    "860101000251746865726d616c2032312e35206465674344b0aa3312ff"
)
PEER_CRC16 = bytes.fromhex(
    "9f890700018202820c0382028219012c018202821a0001117000821b000000b05782487b18291a0036ee804271f3"
    "860a0200014482181e0242040e"
    "8607030001451a0016e360423dc9"
    "860101000151746865726d616c2032312e352064656743422953ff"
)
PEER_FRAGMENT = bytes.fromhex(
    "9f8b0701018202820c0382028219012c018202821a0001117000821b000000b05782487b18291a0036ee801903e81913884281a7"
    "8507020000451a042c1d80"
    "8618c903000147756e6b6e6f776e42fc73"
    "86010100025840000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
    "202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f4468b3e2b7ff"
)
PEER_BUNDLE = Bundle(
    destination=Eid(12, 3),
    source=Eid(300, 1),
    report_to=Eid(70000, 0),
    creation=(757_382_400_123, 41),
    lifetime_ms=3_600_000,
    payload=b"thermal 21.5 degC",
    age_ms=1_500_000,  # the peer takes seconds
    hop_count=(30, 2),
)


def simple(**changes) -> Bundle:
    return dataclasses.replace(Bundle(Eid(1, 2), Eid(3, 4), DTN_NONE, (1000, 7), 60_000, b"payload"), **changes)


def flag_choices():
    return st.sampled_from(
        [0, BundleFlags.MUST_NOT_FRAGMENT, BundleFlags.ADMINISTRATIVE_RECORD, BundleFlags.REPORT_DELIVERY | 0x40, 0x100]
    )


NUMBERS = st.integers(0, 2**64 - 1)
EIDS = st.builds(lambda node, service: Eid(node, service), NUMBERS, NUMBERS)
CRC_TYPES = st.sampled_from((CRC_NONE, CRC_16_X25, CRC_32C))
BLOCKS = st.builds(
    lambda kinds: tuple(
        CanonicalBlock(kind, number, flags, crc_type, data)
        for number, (kind, flags, crc_type, data) in enumerate(kinds, start=5)
    ),
    st.lists(st.tuples(st.integers(11, 2**64 - 1), NUMBERS, CRC_TYPES, st.binary(max_size=30)), max_size=3),
)
BUNDLES = st.builds(
    Bundle,
    destination=EIDS,
    source=EIDS,
    report_to=EIDS | st.just(DTN_NONE),
    creation=st.tuples(NUMBERS, NUMBERS),
    lifetime_ms=NUMBERS,
    payload=st.binary(max_size=300),
    flags=flag_choices(),
    crc_type=CRC_TYPES,
    payload_crc_type=CRC_TYPES,
    payload_flags=NUMBERS,
    fragment_offset=st.just(0),
    total_length=st.just(0),
    previous_node=st.none() | EIDS,
    age_ms=st.none() | NUMBERS,
    hop_count=st.none() | st.tuples(st.integers(1, 255), st.integers(0, 2**64 - 2)),
    blocks=BLOCKS,
    heads=st.sampled_from((((2, 0, 0), (3, 1, 0), (4, 1, 0)), ((9, 0, 2), (30, 16, 1), (2, 3, 0)))),
)


def test_the_bundle_of_rfc_9173_is_read_and_written():
    data = bytes.fromhex("9f" + RFC_PRIMARY + RFC_PAYLOAD + "ff")
    bundle = decode_bundle(data)
    assert bundle == RFC_BUNDLE
    assert bundle.primary_bytes.hex() == RFC_PRIMARY
    assert bundle.payload_block_bytes.hex() == RFC_PAYLOAD
    assert encode_bundle(RFC_BUNDLE) == data


def test_the_bundles_of_another_codec_are_read():
    crc32 = decode_bundle(PEER_CRC32)
    heads = ((2, 0, CRC_32C), (3, 0, CRC_32C), (4, 0, CRC_32C))
    assert crc32 == dataclasses.replace(PEER_BUNDLE, previous_node=Eid(44, 0), heads=heads)
    assert encode_bundle(crc32) == PEER_CRC32

    crc16 = decode_bundle(PEER_CRC16)
    heads = ((4, 0, CRC_NONE), (3, 0, CRC_16_X25), (2, 0, CRC_16_X25))
    assert crc16 == dataclasses.replace(PEER_BUNDLE, crc_type=CRC_16_X25, payload_crc_type=CRC_16_X25, heads=heads)

    fragment = decode_bundle(PEER_FRAGMENT)
    assert fragment.flags == BundleFlags.FRAGMENT
    assert (fragment.fragment_offset, fragment.total_length, fragment.payload) == (1000, 5000, bytes(range(64)))
    assert fragment.blocks == (CanonicalBlock(201, 3, 0, CRC_16_X25, b"unknown"),)
    assert (fragment.crc_type, fragment.payload_crc_type, fragment.age_ms) == (CRC_16_X25, CRC_32C, 70_000_000)
    assert encode_bundle(fragment) == PEER_FRAGMENT


def test_the_dtn_epoch_is_the_year_2000():
    days_count = 30 * 365 + 7  # leap days of 1972 to 1996
    assert days_count * 86_400 == DTN_EPOCH_UTC_S


@given(BUNDLES)
def test_a_bundle_comes_back(bundle):
    data = encode_bundle(bundle)
    decoded = decode_bundle(data)
    known = ("previous_node", "age_ms", "hop_count")
    heads = zip(known, bundle.heads, decoded.heads, strict=True)
    assert all(before == after for name, before, after in heads if getattr(bundle, name) is not None)
    assert dataclasses.replace(decoded, heads=bundle.heads) == bundle
    assert encode_bundle(decoded) == data


@given(BUNDLES)
def test_a_bundle_is_the_cbor_that_the_standard_draws(bundle):
    primary, *extensions, payload = cbor2.loads(encode_bundle(bundle))
    assert primary[:8] == [
        7,
        bundle.flags,
        bundle.crc_type,
        [2, [bundle.destination.node, bundle.destination.service]],
        [2, [bundle.source.node, bundle.source.service]],
        [1, 0] if bundle.report_to == DTN_NONE else [2, [bundle.report_to.node, bundle.report_to.service]],
        list(bundle.creation),
        bundle.lifetime_ms,
    ]
    assert len(primary) == (8 if bundle.crc_type == CRC_NONE else 9)
    assert payload[:5] == [1, 1, bundle.payload_flags, bundle.payload_crc_type, bundle.payload]
    others = [CanonicalBlock(*block[:5]) for block in extensions if block[0] not in (6, 7, 10)]
    assert tuple(others) == bundle.blocks
    values = {block[0]: block[4] for block in extensions}
    assert values.get(6) == (None if bundle.previous_node is None else encode_eid(bundle.previous_node))
    assert values.get(7) == (None if bundle.age_ms is None else cbor2.dumps(bundle.age_ms))
    assert values.get(10) == (None if bundle.hop_count is None else cbor2.dumps(bundle.hop_count))


@given(BUNDLES, EIDS, NUMBERS)
def test_forwarding_changes_the_previous_node_the_age_and_the_hops_alone(bundle, forwarder, age_ms):
    received = decode_bundle(encode_bundle(bundle))
    sent = decode_bundle(forwarded(received, forwarder, age_ms))
    hops = bundle.hop_count
    assert sent == dataclasses.replace(
        received,
        previous_node=forwarder,
        age_ms=None if bundle.age_ms is None else age_ms,
        hop_count=None if hops is None else (hops[0], hops[1] + 1),
        heads=sent.heads,
    )
    assert sent.heads[0] == received.heads[0]
    assert sent.primary_bytes == received.primary_bytes
    assert sent.payload_block_bytes == received.payload_block_bytes


def test_forwarding_copies_the_payload_block_byte_by_byte():
    data = encode_bundle(simple(crc_type=CRC_NONE, payload_crc_type=CRC_NONE, age_ms=5))
    padded = data.replace(b"\x47payload", b"\x58\x07payload")  # a longer head than needed, from another writer
    sent = forwarded(decode_bundle(padded), Eid(9, 0))
    assert b"\x58\x07payload" in sent
    assert decode_bundle(sent) == dataclasses.replace(decode_bundle(padded), previous_node=Eid(9, 0))


def test_a_new_previous_node_block_takes_a_free_number():
    received = decode_bundle(encode_bundle(simple(blocks=(CanonicalBlock(99, 5, 0, CRC_NONE, b"a"),), age_ms=1)))
    foreign = decode_bundle(PEER_CRC16)  # number 2 is its hop count block
    assert decode_bundle(forwarded(received, Eid(9, 0))).heads[0][0] == 2
    assert decode_bundle(forwarded(foreign, Eid(9, 0))).heads == ((4, 0, 0), (3, 0, 1), (2, 0, 1))


def test_a_bundle_of_our_own_can_be_forwarded():
    assert decode_bundle(forwarded(simple(hop_count=(8, 0)), Eid(9, 0))) == simple(
        hop_count=(8, 1), previous_node=Eid(9, 0)
    )


def test_a_derived_bundle_is_written_anew():
    received = decode_bundle(encode_bundle(simple()))
    opened = dataclasses.replace(received, payload=b"another")
    assert decode_bundle(forwarded(opened, Eid(9, 0))).payload == b"another"


@pytest.mark.parametrize("data", [PEER_CRC32, PEER_CRC16, encode_bundle(simple())])
def test_a_flipped_bit_is_never_taken(data):
    """Every block of these has a CRC; the flips that hit none of them break the array."""
    for bit in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BundleError):
            decode_bundle(bytes(damaged))


def rebuilt(*blocks: bytes) -> bytes:
    return b"\x9f" + b"".join(blocks) + b"\xff"


def primary(*elements: object) -> bytes:
    return cbor2.dumps(list(elements))


PRIMARY = primary_block(simple(crc_type=CRC_NONE))
PAYLOAD = encode_block(1, (1, 0, CRC_NONE), b"payload")
AGE = encode_block(7, (3, 0, CRC_NONE), b"\x05")
HOPS = encode_block(10, (4, 0, CRC_NONE), b"\x82\x08\x00")
EID = [2, [1, 2]]


def test_extension_blocks_come_in_any_order():
    before = decode_bundle(rebuilt(PRIMARY, AGE, HOPS, PAYLOAD))
    assert (before.age_ms, before.hop_count) == (5, (8, 0))
    assert decode_bundle(rebuilt(PRIMARY, HOPS, AGE, PAYLOAD)) == before


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "bundle: no CBOR array"),
        (b"\x82" + PRIMARY + PAYLOAD, "bundle: no CBOR array"),
        (b"\x9f\xff", "primary block: array"),
        (rebuilt(primary(6, 0, 0, EID, EID, EID, [0, 0], 1), PAYLOAD), "primary block: version: 6"),
        (rebuilt(primary(7, 0, 0, EID, EID, EID, [0, 0]), PAYLOAD), "primary block: array: 7 elements, 8"),
        (rebuilt(primary(7, 0, 1, EID, EID, EID, [0, 0], 1), PAYLOAD), "primary block: array: 8 elements, 9"),
        (rebuilt(primary(7, 1, 0, EID, EID, EID, [0, 0], 1), PAYLOAD), "primary block: array: 8 elements, 10"),
        (rebuilt(primary(7, 0, 3, EID, EID, EID, [0, 0], 1, b"crc!"), PAYLOAD), "primary block: CRC type: 3"),
        (rebuilt(primary(7, 0, 2, EID, EID, EID, [0, 0], 1, b"crc!"), PAYLOAD), "primary block: CRC: does not hold"),
        (rebuilt(primary(7, -1, 0, EID, EID, EID, [0, 0], 1), PAYLOAD), "primary block: flags"),
        (rebuilt(primary(7, 0, 0, [1, "//a/b"], EID, EID, [0, 0], 1), PAYLOAD), "primary block: destination"),
        (rebuilt(primary(7, 0, 0, EID, [2, [1]], EID, [0, 0], 1), PAYLOAD), "primary block: source"),
        (rebuilt(primary(7, 0, 0, EID, EID, [3, 0], [0, 0], 1), PAYLOAD), "primary block: report-to"),
        (rebuilt(primary(7, 0, 0, EID, EID, EID, [0], 1), PAYLOAD), "primary block: creation timestamp"),
        (rebuilt(primary(7, 0, 0, EID, EID, EID, 0, 1), PAYLOAD), "primary block: creation timestamp"),
        (rebuilt(primary(7, 0, 0, EID, EID, EID, [0, 0], "1"), PAYLOAD), "primary block: lifetime"),
        (rebuilt(primary(7, 1, 0, EID, EID, EID, [0, 0], 1, 4, 10), PAYLOAD), "primary block: total length: 10"),
        (rebuilt(primary(7, 0, 0, EID, [1, 0], EID, [0, 0], 1), PAYLOAD), "primary block: flags: .* fragmented"),
        (rebuilt(primary(7, 0x4004, 0, EID, [1, 0], EID, [0, 0], 1), PAYLOAD), "primary block: flags: .* reports"),
        (rebuilt(primary(7, 0x4002, 0, EID, EID, EID, [0, 0], 1), PAYLOAD), "primary block: flags: .* reports"),
        (rebuilt(PRIMARY), "block at byte 26: array"),
        (rebuilt(PRIMARY, AGE), "block at byte 33: array"),
        (rebuilt(PRIMARY, primary(1, 1, 0, 0)), "block at byte 26: array: 4"),
        (rebuilt(PRIMARY, primary(1, 1, 0, 0, b"", b"crc!")), "block at byte 26: array: 6"),
        (rebuilt(PRIMARY, primary(1, 1, 0, 0, "text")), "block at byte 26: data"),
        (rebuilt(PRIMARY, primary(1, 2, 0, 0, b"")), "block at byte 26: number: 2 for type 1"),
        (rebuilt(PRIMARY, primary(7, 1, 0, 0, b"\0"), PAYLOAD), "block at byte 26: number: 1 for type 7"),
        (rebuilt(PRIMARY, primary(7, 0, 0, 0, b"\0"), PAYLOAD), "block at byte 26: number: 0"),
        (rebuilt(PRIMARY, AGE, primary(99, 3, 0, 0, b""), PAYLOAD), "block at byte 33: number: 3 is taken"),
        (rebuilt(PRIMARY, AGE, primary(7, 5, 0, 0, b"\0"), PAYLOAD), "block at byte 33: type"),
        (rebuilt(PRIMARY, primary(7, 5, 0, 0, b"\0\0"), PAYLOAD), "block at byte 26: data: 1 bytes after"),
        (rebuilt(PRIMARY, primary(7, 5, 0, 0, b""), PAYLOAD), "block at byte 26: age"),
        (rebuilt(PRIMARY, primary(10, 5, 0, 0, b"\x82\0\0"), PAYLOAD), "block at byte 26: hop limit: 0"),
        (rebuilt(PRIMARY, primary(10, 5, 0, 0, b"\x82\x19\x01\0\0"), PAYLOAD), "block at byte 26: hop limit: 256"),
        (rebuilt(PRIMARY, primary(10, 5, 0, 0, b"\x83\1\0\0"), PAYLOAD), "block at byte 26: hop"),
        (rebuilt(PRIMARY, primary(6, 5, 0, 0, b"\x80"), PAYLOAD), "block at byte 26: previous node"),
        (rebuilt(PRIMARY, PAYLOAD, AGE), "bundle: array and data must end"),
        (rebuilt(PRIMARY, PAYLOAD, PAYLOAD), "bundle: array and data must end"),
        (rebuilt(PRIMARY, PAYLOAD)[:-1], "bundle: array and data must end"),
        (rebuilt(PRIMARY, PAYLOAD) + b"\0", "bundle: array and data must end"),
        (rebuilt(PRIMARY, b"\x9f" + PAYLOAD[1:] + b"\xff"), "block at byte 26: array"),
        (rebuilt(PRIMARY, PAYLOAD[:5] + b"\x5b" + b"\xff" * 8), "block at byte 26: data"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_wrong_bundle_is_refused_with_the_block_and_the_field(data, reason):
    assert decode_bundle(rebuilt(PRIMARY, PAYLOAD)) == simple(crc_type=CRC_NONE, payload_crc_type=CRC_NONE)
    with pytest.raises(BundleError, match=reason):
        decode_bundle(data)


def test_blocks_and_length_are_bounded():
    extensions = [encode_block(99, (number, 0, CRC_NONE), b"") for number in range(2, BUNDLE_BLOCKS_MAX + 1)]
    assert len(decode_bundle(rebuilt(PRIMARY, *extensions[: BUNDLE_BLOCKS_MAX - 2], PAYLOAD)).blocks) == 30
    with pytest.raises(BundleError, match="more than 32 blocks"):
        decode_bundle(rebuilt(PRIMARY, *extensions, PAYLOAD))
    with pytest.raises(BundleError, match="at most 1048576"):
        decode_bundle(bytes(BUNDLE_BYTES_MAX + 1))
    with pytest.raises(BundleError, match="at most 1048576"):
        encode_bundle(simple(payload=bytes(BUNDLE_BYTES_MAX)))


@pytest.mark.parametrize(
    "changes",
    [
        {"crc_type": 3},
        {"payload_crc_type": 3},
        {"hop_count": (0, 0)},
        {"hop_count": (256, 0)},
        {"source": DTN_NONE},
        {"flags": BundleFlags.ADMINISTRATIVE_RECORD | BundleFlags.REPORT_DELETION},
        {"flags": BundleFlags.FRAGMENT, "total_length": 3},
        {"blocks": (CanonicalBlock(99, 3, 0, CRC_NONE, b""),)},
        {"blocks": (CanonicalBlock(99, 5, 0, CRC_NONE, b""), CanonicalBlock(98, 5, 0, CRC_NONE, b""))},
    ],
    ids=str,
)
def test_a_contradictory_bundle_is_our_mistake(changes):
    with pytest.raises(AssertionError):
        encode_bundle(simple(**changes))


def test_a_fragment_keeps_its_place():
    fragment = simple(flags=BundleFlags.FRAGMENT, fragment_offset=100, total_length=107)
    assert decode_bundle(encode_bundle(fragment)) == fragment


def test_block_flags_are_kept():
    flags = BlockFlags.DELETE_BUNDLE_IF_UNPROCESSED | BlockFlags.REPORT_IF_UNPROCESSED
    bundle = simple(blocks=(CanonicalBlock(11, 5, flags, CRC_32C, b"security"),), payload_flags=flags)
    assert decode_bundle(encode_bundle(bundle)) == bundle


@given(st.binary(max_size=60))
def test_only_bundle_errors_escape_from_noise(data):
    for candidate in (data, b"\x9f" + PRIMARY + data, b"\x9f\x88\x07" + data):
        with pytest.raises(BundleError):
            decode_bundle(candidate)


@given(
    BUNDLES, st.lists(st.tuples(st.integers(0, 2**16), st.integers(1, 255)), min_size=1, max_size=3), st.integers(0, 9)
)
def test_only_bundle_errors_escape_from_damage(bundle, flips, cut):
    damaged = bytearray(encode_bundle(bundle))
    for where, flip in flips:
        damaged[where % len(damaged)] ^= flip
    try:
        decoded = decode_bundle(bytes(damaged[: len(damaged) - cut]))
    except BundleError:
        return
    again = decode_bundle(encode_bundle(decoded))
    assert dataclasses.replace(again, heads=decoded.heads) == decoded
