"""pcapng (draft-ietf-opsawg-pcapng): the blocks that a capture of ours is made of, written whole.

| block | here |
|---|---|
| section header | identity of the run as a comment, application |
| interface description | link type, name, description, time stamps of 1 ns |
| enhanced packet | interface, time [ns since 1970-01-01T00:00:00Z], data, direction, comment |

Blocks go to the file whole, many at a time: what a killed process leaves ends between two blocks and is a valid
capture as far as it goes.
"""

import struct
from pathlib import Path
from types import TracebackType
from typing import Final

from flightsw.errors import ConfigError

LINKTYPE_IPV4: Final = 228
LINKTYPE_USER0: Final = 147
"""Link types. Source: https://www.tcpdump.org/linktypes.html"""

BLOCK_SECTION: Final = 0x0A0D0D0A
BLOCK_INTERFACE: Final = 1
BLOCK_SIMPLE: Final = 3
BLOCK_PACKET: Final = 6
"""Block types. Source: draft-ietf-opsawg-pcapng §11.1. 3 is read only."""

BYTE_ORDER_MAGIC: Final = 0x1A2B3C4D
"""How a section header says its byte order."""

OPTION_END: Final = 0
OPTION_COMMENT: Final = 1
OPTION_APPLICATION: Final = 4
OPTION_NAME: Final = 2
OPTION_DESCRIPTION: Final = 3
OPTION_FLAGS: Final = 2
OPTION_TIME_RESOLUTION: Final = 9
OPTION_TIME_OFFSET: Final = 14
"""Option codes; 2 and 3 mean other things in other blocks."""

INBOUND: Final = 1
OUTBOUND: Final = 2
"""Direction in the two lowest bits of a packet's flags."""

OPTION_BYTES_MAX: Final = 65_532
"""Longest text of an option [bytes]: its length has 16 bits, and it is padded to four bytes."""

BUFFER_BYTES_MAX: Final = 262_144
"""Blocks that wait for the disk [bytes]: one write for about 1,000 frames, and that much is lost to a kill."""

_UNKNOWN_LENGTH: Final = 0xFFFF_FFFF_FFFF_FFFF
_NS_EXPONENT: Final = 9


def _options(*options: tuple[int, bytes]) -> bytes:
    """Options with their end; empty ones are left out."""
    parts = [struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4) for code, value in options if value]
    return b"".join([*parts, bytes(4)]) if parts else b""


def _text(text: str) -> bytes:
    data = text.encode()
    if len(data) <= OPTION_BYTES_MAX:
        return data
    return data[: OPTION_BYTES_MAX - 3].decode(errors="ignore").encode() + b"..."


def _block(kind: int, body: bytes) -> bytes:
    length = 12 + len(body)
    return struct.pack("<II", kind, length) + body + struct.pack("<I", length)


class PcapngWriter:
    """One section in one file.

    Args:
        path: the file; an old one is replaced.
        application: who writes.
        comment: of the section: what is captured.

    Raises:
        ConfigError: the file cannot be written.
    """

    def __init__(self, path: Path, application: str, comment: str) -> None:
        self._path = path
        self._interfaces_count = 0
        self._buffer = bytearray()
        self._failure: str | None = None
        try:
            self._file = path.open("wb", buffering=0)
        except OSError as error:
            raise ConfigError(f"{path}: cannot write the capture: {error.strerror}") from None
        options = _options((OPTION_COMMENT, _text(comment)), (OPTION_APPLICATION, _text(application)))
        self._add(_block(BLOCK_SECTION, struct.pack("<IHHQ", BYTE_ORDER_MAGIC, 1, 0, _UNKNOWN_LENGTH) + options))
        self.flush()

    def __enter__(self) -> "PcapngWriter":
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.close()

    def add_interface(self, link_type: int, name: str, description: str) -> int:
        """Describe an interface. Returns its number, which packets name."""
        options = _options(
            (OPTION_NAME, _text(name)),
            (OPTION_DESCRIPTION, _text(description)),
            (OPTION_TIME_RESOLUTION, bytes((_NS_EXPONENT,))),
        )
        self._add(_block(BLOCK_INTERFACE, struct.pack("<HHI", link_type, 0, 0) + options))
        self._interfaces_count += 1
        return self._interfaces_count - 1

    def write(self, interface: int, utc_ns: int, data: bytes, direction: int = 0, comment: str = "") -> None:
        """Add a packet.

        Args:
            interface: number that `add_interface` gave.
            utc_ns: its time [ns since 1970-01-01T00:00:00Z].
            data: its bytes.
            direction: `INBOUND`, `OUTBOUND` or 0 where unknown.
            comment: what to say about it.
        """
        assert 0 <= interface < self._interfaces_count, f"interface {interface} of {self._interfaces_count}"
        size = len(data)
        head = struct.pack("<IIIII", interface, utc_ns >> 32, utc_ns & 0xFFFF_FFFF, size, size)
        flags = struct.pack("<I", direction) if direction else b""
        options = _options((OPTION_COMMENT, _text(comment)), (OPTION_FLAGS, flags))
        self._add(_block(BLOCK_PACKET, head + data + bytes(-size % 4) + options))

    def flush(self) -> None:
        """Hand over to the system all that waits. What cannot be written is told by `close`: a run goes on without."""
        data = memoryview(bytes(self._buffer))
        self._buffer.clear()
        while data and self._failure is None:
            try:
                data = data[self._file.write(data) :]
            except OSError as error:
                self._failure = error.strerror

    def close(self) -> None:
        """Write what waits, and close the file; a second call does nothing.

        Raises:
            ConfigError: not everything could be written.
        """
        if self._file.closed:
            return
        self.flush()
        self._file.close()
        if self._failure is not None:
            raise ConfigError(f"{self._path}: the capture is not whole, it could not be written: {self._failure}")

    def _add(self, block: bytes) -> None:
        self._buffer += block
        if len(self._buffer) > BUFFER_BYTES_MAX:
            self.flush()
