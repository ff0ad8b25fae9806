import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightsw.errors import ConfigError, FrameError
from flightsw.wire.framing import FRAME_BYTES_MAX, CobsCrc32c, coding

CODING = coding("cobs-crc32c")
PAYLOADS = st.binary(min_size=1, max_size=600) | st.builds(
    lambda zeros, tail: bytes(zeros) + tail, st.integers(1, 300), st.binary()
)


def flipped(coded: bytes, bits: list[int]) -> bytes:
    damaged = bytearray(coded)
    for bit in bits:
        damaged[bit // 8] ^= 0x80 >> bit % 8
    return bytes(damaged)


def test_a_known_frame():
    """CRC-32C of "123456789" is e3069283; no byte is zero: one COBS length byte, 13 data bytes, the delimiter."""
    assert CODING.encode(b"123456789").hex() == "0e" + b"123456789".hex() + "e3069283" + "00"


@given(PAYLOADS)
def test_a_payload_comes_back_with_and_without_the_delimiter(payload):
    coded = CODING.encode(payload)
    assert coded.index(0) == len(coded) - 1
    assert CODING.decode(coded) == payload
    assert CODING.decode(coded[:-1]) == payload


@pytest.mark.parametrize(
    "payload", [b"\0", b"telemetry", bytes(12), bytes(40), b"x" * 300, bytes(range(256)) + b"\0\1"]
)
def test_a_flipped_bit_is_never_delivered_as_another_payload(payload):
    coded = CODING.encode(payload)
    for bit in range(len(coded) * 8):
        damaged = flipped(coded, [bit])
        with pytest.raises(FrameError):
            CODING.decode(damaged)
        assert CODING.deframer().feed(damaged + b"\0") == []


@given(PAYLOADS, st.data())
def test_a_burst_is_never_delivered_as_another_payload(payload, data):
    coded = CODING.encode(payload)
    start = data.draw(st.integers(0, len(coded) * 8 - 1))
    pattern = data.draw(st.integers(1, 2**32 - 1))
    bits = [start + i for i in range(32) if pattern >> i & 1 and start + i < len(coded) * 8]
    damaged = flipped(coded, bits)
    deframer = CODING.deframer()
    assert all(delivered == payload for delivered in deframer.feed(damaged + b"\0"))
    if bits:
        with pytest.raises(FrameError):
            CODING.decode(damaged)


@given(st.binary(max_size=100))
def test_only_frame_errors_escape_from_noise(data):
    with pytest.raises(FrameError):
        CODING.decode(data)
    CODING.deframer().feed(data)


def test_zeros_are_no_frame():
    """CRC-32C of nothing is zero, so four zeros would be an empty payload: what a split frame of zeros can leave."""
    with pytest.raises(FrameError, match="empty"):
        CODING.encode(b"")
    assert CODING.deframer().feed(b"\x01\x01\x01\x01\x01\0") == []


@pytest.mark.parametrize("coded", [b"", b"\0", b"\x01", b"\x05abcd", b"\x03ab\0\x02a\0", b"\0" + CODING.encode(b"x")])
def test_a_malformed_frame_is_refused(coded):
    with pytest.raises(FrameError):
        CODING.decode(coded)


@given(st.lists(PAYLOADS, max_size=5), st.data())
def test_a_stream_gives_the_payloads_however_it_is_cut(payloads, data):
    stream = b"\0".join(CODING.encode(payload) for payload in payloads)
    deframer = CODING.deframer()
    received: list[bytes] = []
    while stream:
        length = data.draw(st.integers(1, 400))
        received += deframer.feed(stream[:length])
        stream = stream[length:]
    assert received == payloads
    assert (deframer.accepted_count, deframer.rejected_count) == (len(payloads), 0)


def test_a_damaged_frame_costs_itself_alone():
    first, second, third = (CODING.encode(payload) for payload in (b"first", b"second", b"third"))
    deframer = CODING.deframer()
    assert deframer.feed(first + flipped(second, [13]) + third) == [b"first", b"third"]
    assert (deframer.accepted_count, deframer.rejected_count) == (2, 1)


def test_a_receiver_that_joins_in_the_middle_is_in_step_at_the_next_frame():
    deframer = CODING.deframer()
    assert deframer.feed(CODING.encode(b"first")[3:] + CODING.encode(b"second")) == [b"second"]
    assert deframer.rejected_count == 1


def test_the_longest_frame_passes_and_one_byte_more_does_not():
    longest = b"x" * (FRAME_BYTES_MAX - 1 - 4 - (FRAME_BYTES_MAX - 2) // 255 - 1)  # delimiter, CRC, COBS lengths
    coded = CODING.encode(longest)
    assert len(coded) == FRAME_BYTES_MAX
    assert CODING.decode(coded) == CODING.decode(coded[:-1]) == longest
    assert CODING.deframer().feed(coded) == [longest]
    with pytest.raises(FrameError, match="65536"):
        CODING.encode(longest + b"x")
    with pytest.raises(FrameError, match="at most 65536"):
        CODING.decode(b"\x02" * FRAME_BYTES_MAX)


@pytest.mark.parametrize("piece_bytes", [1000, FRAME_BYTES_MAX * 3])
def test_endless_noise_is_one_rejection_and_no_memory(piece_bytes):
    deframer = CobsCrc32c().deframer()
    for _ in range(3 * FRAME_BYTES_MAX // piece_bytes + 1):
        assert deframer.feed(b"\xaa" * piece_bytes) == []
        assert len(deframer._partial) < FRAME_BYTES_MAX
    assert deframer.rejected_count == 0
    assert deframer.feed(b"\0" + CODING.encode(b"after")) == [b"after"]
    assert (deframer.accepted_count, deframer.rejected_count) == (1, 1)


def test_an_unknown_coding_is_refused_with_the_known_names():
    assert coding("cobs-crc32c").name == "cobs-crc32c"
    with pytest.raises(ConfigError, match=r"'rs': expected one of ccsds-rs-1, .*, cobs-crc32c"):
        coding("rs")
