"""Lab records: what a byte bearer carries for one (interface, frame).

```text
record  SDNV interface | SDNV padding | coded frame
MQTT    the record is the payload of one message
stream  COBS(record | CRC-32C, most significant byte first) | 0x00      (record_stream.py)
```

The padding is link time of synthetic data [bytes]: it is charged on the emulated link but does not move
(`flightsw.wire.frames`). SDNV is RFC 6256, as in LTP segments.
"""

from typing import Final

from flightsw.errors import FrameError
from flightsw.ports import Frame
from flightsw.wire.frames import CodedFrame, padding_of
from flightsw.wire.sdnv import decode_sdnv, encode_sdnv

INTERFACE_MAX: Final = 65_535
"""Largest interface number: 16 bits are more antennas and terminals than any node has."""

RECORD_FRAME_BYTES_MAX: Final = 65_536
"""Longest coded frame in a record [bytes]: the longest that a coding makes, `flightsw.wire.framing.FRAME_BYTES_MAX`."""

PADDING_BYTES_MAX: Final = 1 << 30
"""Most padding of one frame [bytes]: 1 GiB, more than any object has; a larger one is noise."""

RECORD_BYTES_MAX: Final = RECORD_FRAME_BYTES_MAX + 3 + 5
"""Longest record [bytes]: the longest frame behind an interface of 16 bits and a padding of 31."""


def pack_record(interface: int, frame: Frame) -> bytes:
    """The record of one frame, of at most `RECORD_BYTES_MAX` bytes."""
    assert 0 <= interface <= INTERFACE_MAX, f"interface {interface} is outside 0..{INTERFACE_MAX}"
    coded, padding_bytes = bytes(frame), padding_of(frame)
    assert 0 < len(coded) <= RECORD_FRAME_BYTES_MAX, f"a frame of {len(coded)} bytes, at most {RECORD_FRAME_BYTES_MAX}"
    assert 0 <= padding_bytes <= PADDING_BYTES_MAX, f"padding of {padding_bytes} bytes, at most {PADDING_BYTES_MAX}"
    return encode_sdnv(interface) + encode_sdnv(padding_bytes) + coded


def unpack_record(record: bytes) -> tuple[int, Frame]:
    """(interface, frame) of a record: plain bytes, or a `CodedFrame` where the frame has padding.

    Raises:
        WireError: the record is no record; names the field.
    """
    interface, at = decode_sdnv(record, 0, "interface")
    if interface > INTERFACE_MAX:
        raise FrameError(f"interface: {interface}, expected at most {INTERFACE_MAX}")
    padding_bytes, at = decode_sdnv(record, at, "padding")
    if padding_bytes > PADDING_BYTES_MAX:
        raise FrameError(f"padding: {padding_bytes} bytes, expected at most {PADDING_BYTES_MAX}")
    coded = record[at:]
    if not 0 < len(coded) <= RECORD_FRAME_BYTES_MAX:
        raise FrameError(f"frame: {len(coded)} bytes, expected 1 to {RECORD_FRAME_BYTES_MAX}")
    return interface, CodedFrame.received(coded, padding_bytes) if padding_bytes else coded
