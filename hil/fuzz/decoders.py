"""Every decoder of bytes that are not trusted: how inputs are made, which errors it may raise, what must hold after.

A decoder's `decode` raises one of its documented `errors`, or returns and has kept its promise: what was accepted can
be written again and reads as the same. Anything else (another exception, a broken promise) is a finding.

`wire` here; decoders of files and stored records are in `stored`, whole agents and nodes in `machines`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from flightsw.errors import (
    BundleError,
    CodingError,
    ConfigError,
    FrameError,
    MessageError,
    SegmentError,
)
from flightsw.ports import Random
from flightsw.wire import cbor
from flightsw.wire.bundles import BUNDLE_BYTES_MAX, Bundle, decode_bundle, encode_bundle, forwarded
from flightsw.wire.eids import Eid, encode_eid, parse_eid, read_eid
from flightsw.wire.framing import FRAME_BYTES_MAX, Coding, coding
from flightsw.wire.messages import decode_message, encode_message, job_spec
from flightsw.wire.sdnv import decode_sdnv, encode_sdnv
from flightsw.wire.segments import decode_segment, encode_segment
from hil.fuzz.cbor_samples import cbor_sample, message_sample
from hil.fuzz.wire_samples import (
    bundle_sample,
    endpoint,
    endpoint_text_sample,
    frame_sample,
    sdnv_sample,
    segment_sample,
    stream_sample,
)

CODINGS: Final = ("cobs-crc32c", "ccsds-rs-1", "ccsds-rs-5-dual")
"""Of each kind of coding one; depths and bases differ in tables only."""

FORWARDER: Final = Eid(7, 0)


@dataclass(frozen=True, slots=True)
class Decoder:
    """One decoder of bytes that are not trusted."""

    name: str
    errors: tuple[type[Exception], ...]
    """Those that its documentation names; empty where it may raise nothing."""
    sample: Callable[[Random], bytes]
    """Makes one input: valid, or wrong in a way that only its format knows."""
    decode: Callable[[bytes], None]
    """Decodes, and asserts what must hold of what was accepted."""
    cost: float = 1.0
    """How many times more an input takes than one of the quick decoders; these get more inputs."""


def verdict(decoder: Decoder, data: bytes) -> str:
    """What the decoder says to an input: `accepted`, or the name of a documented error. All else is raised."""
    try:
        decoder.decode(data)
    except decoder.errors as error:
        name, text = type(error).__name__, str(error)
    else:
        return "accepted"
    assert text, f"{name} without a text"
    return name


def _cbor(data: bytes) -> None:
    value = cbor.loads(data)
    written = cbor.dumps(value)
    assert cbor.dumps(cbor.loads(written)) == written, f"{value!r} comes back as another"


def _message(data: bytes) -> None:
    message = decode_message(data)
    written = encode_message(message)
    again = encode_message(decode_message(written))
    assert again == written, f"{message!r} comes back as another"  # as bytes: NaN is not equal to itself


def _job_spec(data: bytes) -> None:
    job_spec(cbor.loads(data))


def _job_sample(random: Random) -> bytes:
    while True:
        data = message_sample(random)
        if data[1:2] == b"\x09" or random.random() < 0.1:
            return data


def _sdnv(data: bytes) -> None:
    value, end = decode_sdnv(data, 0, "number")
    assert end <= len(data)
    assert decode_sdnv(encode_sdnv(value), 0, "number")[0] == value


def _eid(data: bytes) -> None:
    eid, end = read_eid(data, 0, "endpoint")
    assert end <= len(data)
    assert read_eid(encode_eid(eid), 0, "endpoint")[0] == eid
    assert parse_eid(str(eid)) == eid


def _eid_text(data: bytes) -> None:
    eid = parse_eid(data.decode("latin-1"))
    assert str(eid) == data.decode("latin-1")


def _segment(data: bytes) -> None:
    segment = decode_segment(data)
    assert decode_segment(encode_segment(segment)) == segment, f"{segment!r} comes back as another"


def _bundle(data: bytes) -> None:
    bundle = decode_bundle(data)
    anew = decode_bundle(encode_bundle(bundle))
    assert anew == bundle, f"{bundle!r} comes back as {anew!r}"
    hops = bundle.hop_count
    if (hops is not None and hops[1] >= hops[0]) or len(data) > BUNDLE_BYTES_MAX - 64:
        return  # nobody forwards it: its hops are used up, or there is no room for what a forwarder adds
    passed = decode_bundle(forwarded(bundle, FORWARDER, bundle.age_ms))
    assert passed.previous_node == FORWARDER
    assert _identity(passed) == _identity(bundle), "a forwarder changes only what it may"


def _identity(bundle: Bundle) -> tuple[object, ...]:
    return (bundle.primary_bytes, bundle.payload_block_bytes, bundle.blocks, bundle.age_ms, bundle.payload)


def _frame(code: Coding, data: bytes) -> None:
    payload, _ = code.correct(data)
    assert payload, "no frame is empty"
    assert code.decode(code.encode(payload)) == payload
    assert code.decode(data) == payload, "decode and correct agree"


def _stream(code: Coding, data: bytes) -> None:
    """Whole and in pieces: a receiver cannot choose where reads of a device end."""
    at_once, in_pieces = code.deframer(), code.deframer()
    payloads = at_once.feed(data)
    step = 1 + len(data) // 7
    pieces = [payload for at in range(0, len(data), step) for payload in in_pieces.feed(data[at : at + step])]
    assert pieces == payloads, "where the stream is cut changes nothing"
    assert at_once.accepted_count == len(payloads)
    assert all(len(code.encode(payload)) <= FRAME_BYTES_MAX for payload in payloads)


def _codings() -> list[Decoder]:
    made = []
    for name in CODINGS:
        code = coding(name)
        cost = 1.0 if name == "cobs-crc32c" else 15.0
        errors = (FrameError, CodingError)
        made.append(Decoder(f"frame-{name}", errors, partial(_made, frame_sample, code), partial(_frame, code), cost))
        made.append(
            Decoder(f"stream-{name}", (), partial(_made, stream_sample, code), partial(_stream, code), 3.0 * cost)
        )
    return made


def _made(sample: Callable[[Random, Coding], bytes], code: Coding, random: Random) -> bytes:
    return sample(random, code)


def wire() -> list[Decoder]:
    """Decoders of the wire: pure functions and deframers."""
    return [
        Decoder("cbor", (MessageError,), cbor_sample, _cbor),
        Decoder("message", (MessageError,), message_sample, _message, 1.5),
        Decoder("job-spec", (MessageError,), _job_sample, _job_spec, 4.0),
        Decoder("sdnv", (SegmentError,), sdnv_sample, _sdnv),
        Decoder("eid", (MessageError, ConfigError), endpoint, _eid),
        Decoder("eid-text", (ConfigError,), endpoint_text_sample, _eid_text),
        Decoder("segment", (SegmentError,), segment_sample, _segment),
        Decoder("bundle", (BundleError,), bundle_sample, _bundle, 2.0),
        *_codings(),
    ]
