"""A frame that is coded only when somebody looks at its bits.

On a clean link encoding and decoding cancel. Ends in one process therefore hand each other the frame itself; the
channel asks for its bits when it flips one, and a byte bearer when it sends them. What arrives is the same either way
(`tests/hil/test_coding_on_demand.py`).
"""

from typing import Protocol

from flightsw.frame import Frame


class Encoder(Protocol):
    """The part of a coding that makes bits."""

    def encode(self, payload: bytes) -> bytes:
        """One coded frame, delimiter and all."""
        ...


class CodedFrame:
    """One frame of a coding, its length known and its bits made on demand.

    Args:
        payload: what it carries; None when only the bits are known, as of a frame that came over a wire.
        coding: of the frame; None when only the bits are known.
        coded: its bits, where they exist already.
        coded_bytes: their length [bytes]; needed where they do not exist yet.
        padding_bytes: bytes that follow on the link and are not moved here: link time of synthetic data [bytes].
    """

    __slots__ = ("_coded", "_length", "coding", "padding_bytes", "payload")

    def __init__(
        self,
        payload: bytes | None,
        coding: Encoder | None,
        coded: bytes | None = None,
        *,
        coded_bytes: int = 0,
        padding_bytes: int = 0,
    ) -> None:
        self.payload = payload
        self.coding = coding
        self.padding_bytes = padding_bytes
        self._coded = coded
        self._length = (coded_bytes if coded is None else len(coded)) + padding_bytes

    @classmethod
    def received(cls, coded: bytes, padding_bytes: int) -> "CodedFrame":
        """A frame of which only the bits are known."""
        return cls(None, None, coded, padding_bytes=padding_bytes)

    def __len__(self) -> int:
        """Bytes that it takes on the link, padding included."""
        return self._length

    def __bytes__(self) -> bytes:
        """The coded bits that move, without padding."""
        if self._coded is None:
            assert self.payload is not None, "a frame has its payload or its bits"
            assert self.coding is not None, "a payload has its coding"
            self._coded = self.coding.encode(self.payload)
            assert len(self._coded) == self._length - self.padding_bytes, "a coding knows the length of its frames"
        return self._coded


def padding_of(frame: Frame) -> int:
    """Bytes on the link that do not move here [bytes]."""
    return frame.padding_bytes if isinstance(frame, CodedFrame) else 0
