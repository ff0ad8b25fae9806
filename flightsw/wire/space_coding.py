"""Reed-Solomon coded frames after CCSDS 131.0-B: bit errors are corrected, and what cannot be is refused.

```text
marker 1ACFFC1D | length x 5 | block | block | ... | last block, shortened
                └──────────────────── pseudo-randomised ────────────────┘
block    data symbols of `depth` code words in turn | their 32 x depth parity symbols in turn
data of all blocks together    length (2 bytes) | payload | CRC-32C of both (4 bytes) | zeros to a multiple of `depth`
```

Marker, randomiser, code, interleaving and virtual fill are the standard's (B-3 §4, §9, §10). Ours is how frames of any
length are carried, for the standard has blocks of one fixed length: a frame is as many full blocks as its data fill and
a shortened last one, behind one marker; and five copies of the payload's length, of which the majority of each bit
counts, tell a stream receiver where the frame ends before it has decoded anything.

Nothing is delivered unless the CRC-32C within the code holds. So a miscorrection is found, and a frame whose CRC
holds at once needs no correction: its flips lie in parity, marker, fill or lengths.

A burst of flips strikes the code words of a block in turn, so that 16 x `depth` bytes in a row are corrected.
"""

import struct
from collections.abc import Iterator
from functools import cached_property
from typing import Final

import numpy as np

from flightsw.errors import FrameError, WireError
from flightsw.wire.crc import crc32c
from flightsw.wire.frames import CodedFrame
from flightsw.wire.randomiser import randomise
from flightsw.wire.reed_solomon import DATA_BYTES, ERRORS_MAX, PARITY_BYTES, ReedSolomon

DEPTHS: Final = (1, 2, 3, 4, 5)
"""Interleaving depths. Source: CCSDS 131.0-B-3 §4.3.5, which also has 8."""
MARKER: Final = bytes.fromhex("1ACFFC1D")
"""Attached sync marker. Source: CCSDS 131.0-B-3 §9.3."""
MARKER_BIT_ERRORS_MAX: Final = 3
"""A stream receiver takes a marker with so many wrong bits: at one wrong bit in 1000, one marker in 28 million is
missed; of random bytes, one place in 780,000 looks like a marker."""
LENGTH_BIT_ERRORS_MAX: Final = 8
"""So many bits of the 80 of the lengths may differ from the majority: ten times what the code behind them corrects.
Random bytes differ in 25, and in so few less than once in 10**9."""

_LENGTHS: Final = struct.Struct(">5H")
_HEAD_BYTES: Final = len(MARKER) + _LENGTHS.size
_LENGTH_BYTES: Final = 2
_CRC_BYTES: Final = 4
_FRAMING_BYTES: Final = _LENGTH_BYTES + _CRC_BYTES
_MARKER_NUMBER: Final = int.from_bytes(MARKER, "big")
_SCAN_BYTES: Final = 4096
"""A marker is looked for in pieces of this size: a page, so that one that is near costs little."""


class SpaceCoding:
    """Marker, randomiser, interleaved Reed-Solomon (255, 223), CRC-32C.

    Args:
        depth: interleaving depth, 1 to 5.
        dual_basis: symbols in the dual basis of the standard; conventional otherwise.
        frame_bytes_max: longest coded frame [bytes].
        marker_bit_errors_max: wrong bits that a stream receiver tolerates in a marker.
    """

    def __init__(
        self,
        depth: int,
        *,
        dual_basis: bool = False,
        frame_bytes_max: int,
        marker_bit_errors_max: int = MARKER_BIT_ERRORS_MAX,
    ) -> None:
        assert depth in DEPTHS, "the registry has these depths only"
        self.name: Final = f"ccsds-rs-{depth}" + ("-dual" if dual_basis else "")
        self.frame_bytes_max: Final = frame_bytes_max
        self._depth = depth
        self._dual_basis = dual_basis
        self._marker_bit_errors_max = marker_bit_errors_max
        self._block_data_bytes = DATA_BYTES * depth
        self._parity_bytes = PARITY_BYTES * depth
        self.burst_bytes_max: Final = ERRORS_MAX * depth
        """So many wrong bytes in a row are always corrected."""

    @cached_property
    def _code(self) -> ReedSolomon:
        return ReedSolomon(dual_basis=self._dual_basis)

    def coded_bytes(self, payload_bytes: int) -> int:
        """Length of the coded frame of a payload of that length [bytes]."""
        data_bytes = -(-(payload_bytes + _FRAMING_BYTES) // self._depth) * self._depth
        return _HEAD_BYTES + data_bytes + -(-data_bytes // self._block_data_bytes) * self._parity_bytes

    def frame(self, payload: bytes, padding_bytes: int = 0) -> CodedFrame:
        """The frame, its bits made on demand.

        Raises:
            FrameError: as `encode`.
        """
        return CodedFrame(payload, self, coded_bytes=self._checked_bytes(payload), padding_bytes=padding_bytes)

    def _checked_bytes(self, payload: bytes) -> int:
        """Length of the coded frame [bytes]. Raises: FrameError."""
        if not payload:
            raise FrameError("payload: an empty one has no frame")
        coded_bytes = self.coded_bytes(len(payload))
        if coded_bytes > self.frame_bytes_max:
            raise FrameError(
                f"payload of {len(payload)} bytes: the coded frame would exceed {self.frame_bytes_max} bytes"
            )
        return coded_bytes

    def encode(self, payload: bytes) -> bytes:
        """One coded frame, from the marker on.

        Raises:
            FrameError: the payload is empty, or its coded frame would be longer than the limit.
        """
        self._checked_bytes(payload)
        length = len(payload).to_bytes(_LENGTH_BYTES, "big")
        checked = length + payload
        data = checked + crc32c(checked).to_bytes(_CRC_BYTES, "big")
        data += bytes(-len(data) % self._depth)
        return MARKER + randomise(length * 5 + b"".join(self._blocks(data)))

    def _blocks(self, data: bytes) -> Iterator[bytes]:
        """Data and parity by turns, block after block."""
        size = self._block_data_bytes
        full_count = len(data) // size
        last = data[full_count * size :]
        if full_count:
            parity = self._code.parity(data[: full_count * size], self._depth, full_count)
            for block in range(full_count):
                yield data[block * size : (block + 1) * size]
                yield parity[block * self._parity_bytes : (block + 1) * self._parity_bytes]
        if last:
            yield last
            yield self._code.parity(last, self._depth)

    def decode(self, coded: bytes) -> bytes:
        """The payload of one coded frame. Where it ends is known, so neither marker nor lengths need to be right.

        Raises:
            CodingError: a code word has more errors than can be corrected.
            FrameError: no such frame has this length, or the CRC does not hold.
        """
        coded_bytes = len(coded)
        if coded_bytes > self.frame_bytes_max:
            raise FrameError(f"frame of {coded_bytes} bytes, at most {self.frame_bytes_max} are taken")
        block_bytes = self._block_data_bytes + self._parity_bytes
        last_bytes = (coded_bytes - _HEAD_BYTES) % block_bytes
        if coded_bytes <= _HEAD_BYTES or (last_bytes and last_bytes <= self._parity_bytes) or last_bytes % self._depth:
            raise FrameError(f"frame of {coded_bytes} bytes: {self.name} has none of this length")
        plain = randomise(coded[len(MARKER) :])
        blocks = [plain[at : at + block_bytes] for at in range(_LENGTHS.size, len(plain), block_bytes)]
        payload = self._proven(b"".join([block[: -self._parity_bytes] for block in blocks]))
        if payload is None:
            payload = self._proven(b"".join([self._corrected(block) for block in blocks]))
        if payload is None:
            raise FrameError("CRC-32C does not hold")
        return payload

    def _corrected(self, block: bytes) -> bytes:
        """The data of a block, free of up to 16 errors in each code word."""
        depth, data_bytes = self._depth, len(block) - self._parity_bytes
        data = bytearray(data_bytes)
        for word in range(depth):
            received = block[word:data_bytes:depth] + block[data_bytes + word :: depth]
            data[word::depth] = self._code.correct(received)[:-PARITY_BYTES]
        return bytes(data)

    def _proven(self, data: bytes) -> bytes | None:
        """The payload if its CRC holds."""
        end = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "big")
        if end == _LENGTH_BYTES or not 0 <= len(data) - end - _CRC_BYTES < self._depth:
            return None
        if crc32c(data[:end]) != int.from_bytes(data[end : end + _CRC_BYTES], "big"):
            return None
        return data[_LENGTH_BYTES:end]

    def correct(self, coded: bytes) -> tuple[bytes, int]:
        """The payload of one coded frame, and how many of the frame's bytes were not as they were sent.

        Raises:
            CodingError, FrameError: as `decode`.
        """
        payload = self.decode(coded)
        sent = self.encode(payload)
        if sent == coded:
            return payload, 0
        return payload, sum(map(int.__ne__, sent, coded))

    def deframer(self) -> "MarkerDeframer":
        """A fresh deframer for one byte stream."""
        return MarkerDeframer(self, self._marker_bit_errors_max)


class MarkerDeframer:
    """Deframer of codings whose frames begin with a marker and their length; bytes between frames are passed over.

    Bytes may be lost, added or wrong, but a byte begins where one was begun: bit slips are not looked for.

    Args:
        coding: of the frames.
        marker_bit_errors_max: wrong bits that are tolerated in a marker.
    """

    def __init__(self, coding: SpaceCoding, marker_bit_errors_max: int) -> None:
        self.accepted_count = 0
        self.corrected_count = 0
        self.rejected_count = 0
        """Markers that no whole frame follows; noise that looks like a marker is counted as well."""
        self._coding = coding
        self._marker_bit_errors_max = marker_bit_errors_max
        self._buffer = bytearray()
        self._wanted_bytes = 1
        """With fewer in the buffer there is nothing to do."""

    def feed(self, data: bytes) -> list[bytes]:
        """Payloads of the frames that these bytes complete, in order."""
        self._buffer += data
        if len(self._buffer) < self._wanted_bytes:
            return []
        stream, at = bytes(self._buffer), 0
        payloads: list[bytes] = []
        while True:
            at = self._marker(stream, at)
            self._wanted_bytes = _HEAD_BYTES
            if len(stream) - at < _HEAD_BYTES:
                break
            frame_bytes = self._frame_bytes(stream[at + len(MARKER) : at + _HEAD_BYTES])
            if len(stream) - at < frame_bytes:
                self._wanted_bytes = frame_bytes
                break
            try:
                payload, wrong_bytes = self._coding.correct(stream[at : at + frame_bytes])
            except WireError:
                # No frame, or its length is wrong: the next marker may lie within.
                self.rejected_count += 1
                at += 1
            else:
                self.accepted_count += 1
                self.corrected_count += wrong_bytes > 0
                payloads.append(payload)
                at += frame_bytes
                if wrong_bytes:
                    # Had bytes been lost near its end, the frame was whole again by correction, and has swallowed the
                    # next marker.
                    at -= self._coding.burst_bytes_max
        self._buffer = bytearray(stream[at:])
        return payloads

    def _marker(self, stream: bytes, at: int) -> int:
        """Where the next marker is, from `at` on; where one could begin that has not arrived yet if there is none."""
        last = len(stream) - len(MARKER)
        if at <= last and stream.startswith(MARKER, at):
            return at
        while at <= last:
            symbols = np.frombuffer(stream[at : at + _SCAN_BYTES + len(MARKER) - 1], np.uint8).astype(np.uint32)
            windows = symbols[:-3] << 24 | symbols[1:-2] << 16 | symbols[2:-1] << 8 | symbols[3:]
            wrong_bits = np.bitwise_count(windows ^ np.uint32(_MARKER_NUMBER))
            found = np.flatnonzero(wrong_bits <= self._marker_bit_errors_max)
            if len(found):
                return at + int(found[0])
            at += len(windows)
        return at

    def _frame_bytes(self, randomised: bytes) -> int:
        """Length of the frame by the majority of its lengths [bytes]; 0 if there is no such frame."""
        copies = _LENGTHS.unpack(randomise(randomised))
        length = copies[0]
        if copies.count(length) < len(copies):
            length = sum(1 << bit for bit in range(16) if sum(copy >> bit & 1 for copy in copies) > len(copies) // 2)
        wrong_bits = sum((copy ^ length).bit_count() for copy in copies)
        frame_bytes = self._coding.coded_bytes(length)
        if not length or wrong_bits > LENGTH_BIT_ERRORS_MAX or frame_bytes > self._coding.frame_bytes_max:
            return 0
        return frame_bytes
