import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightsw.wire.randomiser import PERIOD_BYTES, SEQUENCE, randomise


def test_the_sequence_begins_as_the_standard_prints_it():
    """CCSDS 131.0-B-3 §10.4.2 prints the first 40 bits."""
    assert SEQUENCE[:8] == bytes.fromhex("ff480ec09a0d70bc")


def test_the_sequence_has_the_period_of_its_polynomial():
    bits = "".join(f"{byte:08b}" for byte in SEQUENCE)
    assert len(bits) == 8 * PERIOD_BYTES
    assert bits == bits[:255] * 8, "255 bits, eight times"
    assert bits[:255].count("1") == 128
    for at in range(len(bits) - 8):  # x^8 = x^7 + x^5 + x^3 + 1
        assert int(bits[at + 8]) == sum(int(bits[at + power]) for power in (7, 5, 3, 0)) % 2


@given(st.binary(max_size=1200))
def test_twice_is_as_if_nothing_had_been_done(data):
    assert randomise(randomise(data)) == data
    assert randomise(bytes(len(data))) == (SEQUENCE * 5)[: len(data)]


@pytest.mark.parametrize("length", [65_535, 65_536, 65_537, 70_000])
def test_the_longest_frames_and_longer_data_are_randomised_to_the_end(length):
    assert randomise(bytes(length)) == (SEQUENCE * 275)[:length]
