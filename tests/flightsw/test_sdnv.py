import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightsw.errors import SegmentError
from flightsw.wire.sdnv import SDNV_BYTES_MAX, SDNV_VALUE_MAX, decode_sdnv, encode_sdnv


@pytest.mark.parametrize(
    ("value", "encoded"),
    [  # examples of RFC 6256 §2, then the edges
        (0xABC, "953c"),
        (0x1234, "a434"),
        (0x4234, "818434"),
        (0x7F, "7f"),
        (0, "00"),
        (0x80, "8100"),
        (0x3FFF, "ff7f"),
        (0x4000, "818000"),
        (0x1F_FFFF, "ffff7f"),
        (0x20_0000, "81808000"),
        (2**64 - 1, "81ffffffffffffffff7f"),
    ],
)
def test_known_values(value, encoded):
    assert encode_sdnv(value).hex() == encoded
    assert decode_sdnv(bytes.fromhex(encoded), 0, "n") == (value, len(encoded) // 2)


@given(st.integers(0, SDNV_VALUE_MAX), st.binary(max_size=3), st.binary(max_size=3))
def test_a_number_ends_where_it_says(value, before, after):
    encoded = encode_sdnv(value)
    assert decode_sdnv(before + encoded + after, len(before), "n") == (value, len(before) + len(encoded))


def test_leading_padding_is_taken_within_the_bound():
    assert decode_sdnv(b"\x80" * (SDNV_BYTES_MAX - 1) + b"\x05", 0, "n") == (5, SDNV_BYTES_MAX)
    with pytest.raises(SegmentError, match=r"offset.*64 bits"):
        decode_sdnv(b"\x80" * SDNV_BYTES_MAX + b"\x05", 0, "offset")


def test_more_than_64_bits_are_refused():
    with pytest.raises(SegmentError, match=r"offset.*64 bits"):
        decode_sdnv(bytes.fromhex("8280808080808080808000"), 0, "offset")
    with pytest.raises(SegmentError, match=r"offset.*64 bits"):
        decode_sdnv(bytes.fromhex("82808080808080808000"), 0, "offset")


@pytest.mark.parametrize("data", [b"", b"\x81", b"\xff\xff"])
def test_a_cut_number_is_refused(data):
    with pytest.raises(SegmentError, match="offset: the data end"):
        decode_sdnv(data, 0, "offset")


@pytest.mark.parametrize("value", [-1, 2**64])
def test_a_number_out_of_range_is_our_mistake(value):
    with pytest.raises(AssertionError):
        encode_sdnv(value)
