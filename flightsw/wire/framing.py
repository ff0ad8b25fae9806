"""Coded frames: what a bearer carries, delimited and checked.

A *coding* turns one payload into one coded frame and back. `CobsCrc32c` is COBS (Cheshire and Baker, IEEE/ACM ToN 7(2),
1999) over the payload and its CRC-32C (most significant byte first), then one zero byte. COBS leaves no other zero in
the frame, so a receiver that joins in the middle, or loses bytes, is in step again at the next zero.

What flips do: a burst of at most 32 bits within the stuffed data is always found (crc.py). A flip in a COBS length byte
moves zeros about and is found unless structure and CRC agree by chance, once in 2**32; so is a flip that makes a zero,
which splits the frame into two that both fail. A damaged frame is never delivered as something else but by that chance.
Empty payloads have no frame: their CRC is zero, so that a splinter of a frame full of zeros would pass for one.

Frames that correct errors are in space_coding.py. Further codings are added by writing the same members and one line in
`_CODINGS`.
"""

from typing import Final, Protocol

from cobs import cobs

from flightsw.errors import ConfigError, FrameError
from flightsw.frame import Frame
from flightsw.wire.crc import crc32c
from flightsw.wire.frames import CodedFrame
from flightsw.wire.space_coding import DEPTHS, SpaceCoding

FRAME_BYTES_MAX: Final = 65_536
"""Longest coded frame with its delimiter [bytes]: 68 s at 9600 Bd. Longer ones lose more to one flip than they gain."""

_DELIMITER: Final = b"\0"
_CRC_BYTES: Final = 4


class Deframer(Protocol):
    """Cuts a byte stream into frames and decodes them."""

    accepted_count: int
    """Frames delivered."""
    corrected_count: int
    """Those among them that arrived with errors."""
    rejected_count: int
    """Frames that did not decode, or grew beyond `FRAME_BYTES_MAX`."""

    def feed(self, data: bytes) -> list[bytes]:
        """Payloads of the frames that these bytes complete, in order."""
        ...


class Coding(Protocol):
    """One way to write payloads as coded frames."""

    @property
    def name(self) -> str:
        """What settings call it."""
        ...

    def encode(self, payload: bytes) -> bytes:
        """One coded frame, delimiter and all.

        Raises:
            FrameError: the payload is empty, or its coded frame would be longer than `FRAME_BYTES_MAX`.
        """
        ...

    def frame(self, payload: bytes, padding_bytes: int = 0) -> CodedFrame:
        """The same frame, coded when somebody looks at its bits.

        Args:
            payload: what it carries.
            padding_bytes: bytes that follow on the link and do not move here [bytes].

        Raises:
            FrameError: as `encode`.
        """
        ...

    def decode(self, coded: bytes) -> bytes:
        """The payload of one coded frame.

        Raises:
            FrameError: the frame is damaged, or longer than `FRAME_BYTES_MAX`.
            CodingError: it is damaged beyond what the coding can correct.
        """
        ...

    def correct(self, coded: bytes) -> tuple[bytes, int]:
        """The payload of one coded frame, and how many of the frame's bytes were not as they were sent.

        Raises:
            FrameError, CodingError: as `decode`.
        """
        ...

    def deframer(self) -> Deframer:
        """A fresh deframer for one byte stream."""
        ...


class CobsCrc32c:
    """Plain framing for links that need detection, not correction."""

    name: Final = "cobs-crc32c"

    def encode(self, payload: bytes) -> bytes:
        """The payload and its CRC-32C, stuffed and delimited.

        Raises:
            FrameError: the payload is empty, or its coded frame would be longer than `FRAME_BYTES_MAX`.
        """
        if not payload:
            raise FrameError("payload: an empty one has no frame")
        coded: bytes = cobs.encode(payload + crc32c(payload).to_bytes(_CRC_BYTES, "big")) + _DELIMITER
        if len(coded) > FRAME_BYTES_MAX:
            raise FrameError(f"payload of {len(payload)} bytes: the coded frame would exceed {FRAME_BYTES_MAX} bytes")
        return coded

    def frame(self, payload: bytes, padding_bytes: int = 0) -> CodedFrame:
        """The frame, its bits made at once: how long it is depends on every byte.

        Raises:
            FrameError: as `encode`.
        """
        return CodedFrame(payload, self, self.encode(payload), padding_bytes=padding_bytes)

    def decode(self, coded: bytes) -> bytes:
        """The payload of one frame, with or without its delimiter.

        Raises:
            FrameError: a zero inside, wrong stuffing, a CRC that does not hold, or more than `FRAME_BYTES_MAX` bytes.
        """
        stuffed = coded[:-1] if coded[-1:] == _DELIMITER else coded
        if len(stuffed) >= FRAME_BYTES_MAX:
            raise FrameError(f"frame of {len(stuffed) + 1} bytes, at most {FRAME_BYTES_MAX} are taken")
        try:
            checked: bytes = cobs.decode(stuffed)
        except cobs.DecodeError as error:
            raise FrameError(f"COBS: {error}") from None
        payload = checked[:-_CRC_BYTES]
        if not payload or crc32c(payload) != int.from_bytes(checked[-_CRC_BYTES:], "big"):
            raise FrameError("CRC-32C does not hold")
        return payload

    def correct(self, coded: bytes) -> tuple[bytes, int]:
        """The payload of one frame, all of whose bytes were as they were sent: nothing is corrected.

        Raises:
            FrameError: as `decode`.
        """
        return self.decode(coded), 0

    def deframer(self) -> "ZeroDeframer":
        """A fresh deframer for one byte stream."""
        return ZeroDeframer(self)


class ZeroDeframer:
    """Deframer of codings whose frames end with the only zero in them. Zeros between frames are idle fill."""

    def __init__(self, coding: Coding) -> None:
        self.accepted_count = 0
        self.corrected_count = 0
        self.rejected_count = 0
        self._coding = coding
        self._partial = bytearray()
        self._is_oversize = False

    def feed(self, data: bytes) -> list[bytes]:
        """Payloads of the frames that these bytes complete, in order."""
        *ended, tail = data.split(_DELIMITER)
        payloads: list[bytes] = []
        for piece in ended:
            stuffed = bytes(self._partial) + piece if self._partial else piece
            if self._is_oversize:
                self.rejected_count += 1
            elif stuffed:
                try:
                    payloads.append(self._coding.decode(stuffed))
                except FrameError:
                    self.rejected_count += 1
                else:
                    self.accepted_count += 1
            self._partial.clear()
            self._is_oversize = False
        if tail:
            self._extend(tail)
        return payloads

    def _extend(self, piece: bytes) -> None:
        """Keeps at most `FRAME_BYTES_MAX` bytes of an unfinished frame: noise without zeros must not fill memory."""
        if self._is_oversize:
            return
        if len(self._partial) + len(piece) >= FRAME_BYTES_MAX:
            self._is_oversize = True
            self._partial.clear()
        else:
            self._partial += piece


_SPACE_CODINGS: Final = tuple(
    SpaceCoding(depth, dual_basis=dual_basis, frame_bytes_max=FRAME_BYTES_MAX)
    for dual_basis in (False, True)
    for depth in DEPTHS
)
_CODINGS: Final[dict[str, Coding]] = {CobsCrc32c.name: CobsCrc32c()} | {one.name: one for one in _SPACE_CODINGS}


def received(coding: Coding, frame: Frame) -> tuple[bytes, int]:
    """The payload of a frame that arrived, and how many of its bytes were not as they were sent.

    A frame that nobody looked into arrives as it was handed over: decoding it would give back what was encoded.

    Raises:
        FrameError, CodingError: as `Coding.correct`.
    """
    if isinstance(frame, CodedFrame) and frame.payload is not None and frame.coding is coding:
        return frame.payload, 0
    return coding.correct(bytes(frame))


def coding(name: str) -> Coding:
    """The coding of that name.

    Raises:
        ConfigError: there is none; lists the names.
    """
    found = _CODINGS.get(name)
    if found is None:
        raise ConfigError(f"coding {name!r}: expected one of {', '.join(sorted(_CODINGS))}")
    return found
