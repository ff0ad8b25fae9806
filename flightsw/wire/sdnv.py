"""Self-delimiting numeric values (RFC 6256): seven bits a byte, most significant first, bit 7 set on all but the last.

Segments are made of them. Values are bounded to 64 bits, as in RFC 5326 implementations; leading 0x80 bytes, which RFC
6256 permits, are taken as long as the whole stays within `SDNV_BYTES_MAX`.
"""

from typing import Final

from flightsw.errors import SegmentError

SDNV_VALUE_MAX: Final = 2**64 - 1
"""Largest value: no offset, serial or identifier needs more than 64 bits."""

SDNV_BYTES_MAX: Final = 10
"""Longest encoding [bytes]: ceil(64 bits / 7 bits)."""

_ONE_BYTE: Final = tuple(bytes((value,)) for value in range(128))


def encode_sdnv(value: int) -> bytes:
    """The shortest SDNV of a value from 0 to `SDNV_VALUE_MAX`."""
    if 0 <= value < 0x80:
        return _ONE_BYTE[value]
    assert 0 <= value <= SDNV_VALUE_MAX, f"{value} is outside an SDNV of 64 bits"
    if value < 0x4000:
        return bytes((value >> 7 | 0x80, value & 0x7F))
    if value < 0x20_0000:
        return bytes((value >> 14 | 0x80, value >> 7 & 0x7F | 0x80, value & 0x7F))
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.append(value & 0x7F | 0x80)
    groups.reverse()
    return bytes(groups)


def decode_sdnv(data: bytes, at: int, field: str) -> tuple[int, int]:
    """The value at the offset, and the offset after it.

    Raises:
        SegmentError: the data end inside the number, or it does not fit 64 bits; names the field.
    """
    try:
        byte = data[at]
        if byte < 0x80:
            return byte, at + 1
        value = byte & 0x7F
        for index in range(at + 1, at + SDNV_BYTES_MAX):
            byte = data[index]
            value = value << 7 | byte & 0x7F
            if byte < 0x80:
                if value > SDNV_VALUE_MAX:
                    break
                return value, index + 1
    except IndexError:
        raise SegmentError(f"{field}: the data end inside the number at byte {at}") from None
    raise SegmentError(f"{field}: the number at byte {at} does not fit 64 bits")
