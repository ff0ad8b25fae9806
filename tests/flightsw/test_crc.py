import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightsw.errors import MessageError
from flightsw.wire.crc import CRC_16_X25, CRC_32C, CRC_NONE, checked_crc, crc16_x25, crc32c, with_crc

CHECK = b"123456789"


def crc16_x25_by_bits(data: bytes) -> int:
    """The definition: polynomial 0x1021 mirrored, all ones in, inverted out."""
    register = 0xFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x8408 if register & 1 else 0)
    return register ^ 0xFFFF


def test_the_check_values_of_the_catalogue():
    assert crc32c(CHECK) == 0xE3069283
    assert crc16_x25(CHECK) == 0x906E


@given(st.binary(max_size=64))
def test_crc16_x25_is_its_definition(data):
    assert crc16_x25(data) == crc16_x25_by_bits(data)


@given(st.binary(max_size=64), st.sampled_from((CRC_NONE, CRC_16_X25, CRC_32C)), st.binary(max_size=4))
def test_a_block_is_read_to_the_end_of_its_crc(block, crc_type, before):
    data = before + with_crc(block, crc_type)
    assert checked_crc(data + b"next", len(before), len(before) + len(block), crc_type) == len(data)


@pytest.mark.parametrize("crc_type", [CRC_16_X25, CRC_32C])
def test_a_flipped_bit_anywhere_breaks_the_crc(crc_type):
    block = b"\x85 a block"
    data = with_crc(block, crc_type)
    for bit in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(MessageError, match="CRC"):
            checked_crc(bytes(damaged), 0, len(block), crc_type)


def test_a_missing_or_undefined_crc_is_refused():
    with pytest.raises(MessageError, match="CRC: the data end"):
        checked_crc(b"block", 0, 5, CRC_32C)
    with pytest.raises(MessageError, match="CRC: does not hold"):
        checked_crc(with_crc(b"block", CRC_16_X25), 0, 5, CRC_32C)
    with pytest.raises(MessageError, match="CRC type: 3 is undefined"):
        checked_crc(b"block\x40", 0, 5, 3)
