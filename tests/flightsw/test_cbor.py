import enum
from datetime import date
from fractions import Fraction

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightsw.errors import MessageError
from flightsw.wire.cbor import (
    ARRAY,
    BYTES,
    DEPTH_MAX,
    MESSAGE_BYTES_MAX,
    UNSIGNED,
    dumps,
    encode_head,
    loads,
    read_bytes,
    read_head,
)

KEYS = st.integers(-(2**64), 2**64 - 1) | st.text() | st.binary()
SCALARS = KEYS | st.none() | st.booleans() | st.floats(allow_nan=False)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=6)


@given(VALUES)
def test_a_value_comes_back(value):
    assert loads(dumps(value)) == value


@given(st.dictionaries(KEYS, st.integers(), max_size=5))
def test_the_order_of_a_map_does_not_matter(value):
    try:
        encoded = dumps(value)
    except MessageError:
        return  # an integer beyond 64 bits
    assert dumps(dict(reversed(value.items()))) == encoded


def test_shorter_keys_sort_first():
    assert dumps({"bb": 1, "c": 2, 300: 3, 1: 4}).hex() == "a4010461630219012c0362626201"


@pytest.mark.parametrize(
    ("hostile", "reason"),
    [
        ("", "premature end"),
        ("8201", "premature end"),
        ("0102", "1 bytes after the value"),
        ("c16161", "tags"),
        ("c24101", "tags"),
        ("c482 1a7fffffff 01", "tags"),
        ("d81c81d81d00", "tags"),
        ("d8236a28612b292b28622b292b", "tags"),
        ("d9d9f701", "tags"),
        ("da000f423f01", "tags"),
        ("a201020103", "Duplicate"),
        ("a20102f503", "map key"),
        ("a1f503", "map key"),
        ("a1f97e0001", "map key"),
        ("a18001", "map key"),
        ("a1a00001", "map key"),
        ("9f01ff", "indefinite"),
        ("bf0102ff", "indefinite"),
        ("5f4101ff", "indefinite"),
        ("7f6161ff", "indefinite"),
        ("8201ff", "break"),
        ("5b4000000000000000616263", "premature end"),
        ("9b0000010000000000", "premature end"),
        ("bbffffffffffffffff", "premature end"),
        ("1c", "CBOR"),
        ("62ffff", "utf-8|UTF-8|decod"),
        ("f7", "simple"),
        ("8301e002", "simple"),
        ("a101f820", "simple"),
        ("f805", "simple"),
    ],
)
def test_a_hostile_value_is_refused_with_the_reason(hostile, reason):
    with pytest.raises(MessageError, match=reason):
        loads(bytes.fromhex(hostile))


def test_nesting_is_bounded_both_ways():
    deepest: object = 0
    for _ in range(DEPTH_MAX):
        deepest = [deepest]
    assert loads(dumps(deepest)) == deepest
    with pytest.raises(MessageError, match="depth"):
        dumps([deepest])
    with pytest.raises(MessageError, match="depth"):
        loads(b"\x81" * (DEPTH_MAX + 1) + b"\0")
    with pytest.raises(MessageError, match="depth"):
        loads(b"\x81" * MESSAGE_BYTES_MAX)


def test_length_is_bounded_both_ways():
    longest = bytes(MESSAGE_BYTES_MAX - 5)
    assert len(dumps(bytes(longest))) == MESSAGE_BYTES_MAX - 2
    with pytest.raises(MessageError, match="at most 65536"):
        dumps(longest + bytes(3))
    with pytest.raises(MessageError, match="at most 65536"):
        loads(bytes(MESSAGE_BYTES_MAX + 1))
    assert loads(dumps(longest + bytes(3), bytes_max=70_000), bytes_max=70_000) == longest + bytes(3)


@pytest.mark.parametrize(
    "value",
    [2**64, -(2**64) - 1, [2**70], {1, 2}, date(2030, 1, 1), Fraction(1, 3), {1.5: 1}, {(1,): 1}, {True: 1},
     cbor2.undefined, cbor2.CBORTag(5, 1), cbor2.CBORSimpleValue(3), object(), "\ud800"],
    ids=lambda value: "an object" if type(value) is object else repr(value),
)  # fmt: skip
def test_what_could_not_be_read_is_not_written(value):
    with pytest.raises(MessageError):
        dumps(value)
    with pytest.raises(MessageError):
        dumps([[1], {"deep": value}])


def test_a_cycle_is_refused():
    cycle: list[object] = []
    cycle.append(cycle)
    with pytest.raises(MessageError):
        dumps(cycle)


def test_tuples_and_enumerations_are_written_as_what_they_hold():
    class Mode(enum.IntEnum):
        SAFE = 4

    assert loads(dumps((Mode.SAFE, (1, 2)))) == [4, [1, 2]]


@given(st.binary(max_size=80))
def test_only_message_errors_escape_from_noise(data):
    try:
        value = loads(data)
    except MessageError:
        return
    dumps(value)  # what is read can be written


@given(VALUES, st.integers(0, 2**16), st.integers(1, 255))
def test_only_message_errors_escape_from_damage(value, where, flips):
    damaged = bytearray(dumps(value))
    damaged[where % len(damaged)] ^= flips
    try:
        value = loads(bytes(damaged))
    except MessageError:
        return
    dumps(value)


@given(st.integers(0, 2**64 - 1), st.sampled_from((UNSIGNED, BYTES, ARRAY)), st.binary(max_size=3))
def test_a_head_is_the_shortest_and_ends_where_it_says(value, base, before):
    head = encode_head(base, value)
    assert head[1:] == cbor2.dumps(value)[1:]
    assert head[0] == cbor2.dumps(value)[0] + base
    assert read_head(before + head + b"?", len(before), base, "n") == (value, len(before) + len(head))


@pytest.mark.parametrize("data", ["", "18", "1901", "1bffffffffffffff", "1c", "1f", "20", "40", "f5"])
def test_another_head_is_refused_with_the_field(data):
    with pytest.raises(MessageError, match="lifetime: "):
        read_head(bytes.fromhex(data), 0, UNSIGNED, "lifetime")


def test_a_byte_string_is_read_whole_or_not_at_all():
    assert read_bytes(b"?\x43abc?", 1, "data") == (b"abc", 5)
    for data in ("43 6162", "5bffffffffffffffff", "5f4101ff", "6161"):
        with pytest.raises(MessageError, match="data: "):
            read_bytes(bytes.fromhex(data), 0, "data")
