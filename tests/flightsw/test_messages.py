import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightsw.errors import MessageError
from flightsw.wire import cbor
from flightsw.wire.messages import (
    AnyMessage,
    Beacon,
    Chunk,
    Command,
    JobReportAck,
    Mode,
    decode_message,
    encode_message,
    job_spec,
)

BEACON = Beacon(11, 1, 10, 20, Mode.NOMINAL, 1, 900, 215, 300, 120, 1, 0, 0, 0, 0, 0, 0, 1 << 20, bytes(8))


@pytest.mark.parametrize(
    "message",
    [
        BEACON,
        Command(7, "JOBS.CANCEL", 60_000, (1, 2)),
        Chunk(bytes(32), 100_000, 3, b"\x00\xff"),
        JobReportAck(1, 2),
    ],
)
def test_every_message_survives_the_wire(message):
    assert decode_message(encode_message(message)) == message


def test_a_beacon_fits_in_one_small_frame():
    assert len(encode_message(BEACON)) < 80


@pytest.mark.parametrize(
    ("array", "names"),
    [
        ([1, 11], "length"),
        ([99, 1, 2], "99"),
        ([11, -1, 2], r"\$\[1\]"),
        ([5, b"short", 1, 0, b""], r"\$\[1\]"),
        ({"a": 1}, "array"),
        ([3, 1, "", 5], r"\$\[2\]"),
    ],
)
def test_a_wrong_message_is_refused_by_field(array, names):
    with pytest.raises(MessageError, match=names):
        decode_message(cbor.dumps(array))


def test_an_older_peer_without_the_last_field_is_understood():
    array = msgspec.to_builtins(Command(7, "NODE.NOOP", 60_000), builtin_types=(bytes,))
    assert decode_message(cbor.dumps(array[:-1])) == Command(7, "NODE.NOOP", 60_000)


@given(st.binary(max_size=200))
def test_noise_never_raises_anything_but_a_message_error(data):
    try:
        message: AnyMessage = decode_message(data)
    except MessageError:
        return
    assert isinstance(message, msgspec.Struct)


def test_a_job_argument_of_a_wrong_shape_is_refused():
    with pytest.raises(MessageError, match="job"):
        job_spec([9, 1])
