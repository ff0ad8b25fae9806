"""Reads captures: pcap and pcapng, both byte orders, packet by packet.

A capture may come from anywhere. What contradicts the format is a `ConfigError` that names the byte; the packets
before it have been given. A file that ends inside a block (its writer was killed) gives all packets before it, and
`Capture.is_cut_short` says so. Memory stays flat: one block at a time, of a bounded size.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from flightsw.errors import ConfigError
from hil.capture.pcapng import (
    BLOCK_INTERFACE,
    BLOCK_PACKET,
    BLOCK_SECTION,
    BLOCK_SIMPLE,
    BYTE_ORDER_MAGIC,
    OPTION_COMMENT,
    OPTION_DESCRIPTION,
    OPTION_END,
    OPTION_FLAGS,
    OPTION_NAME,
    OPTION_TIME_OFFSET,
    OPTION_TIME_RESOLUTION,
)

BLOCK_BYTES_MAX: Final = 16 * 1024 * 1024
"""Longest block of a file [bytes]: libpcap takes packets up to 256 KiB (64 MiB on D-Bus), and one is in memory."""

INTERFACES_MAX: Final = 65_536
"""Interfaces of a section: ten for each node of the largest fleet; a file must not fill memory with descriptions."""

NS_PER_S: Final = 1_000_000_000

_PCAP: Final[dict[bytes, tuple[str, int]]] = {
    bytes.fromhex("a1b2c3d4"): (">", 1000),
    bytes.fromhex("d4c3b2a1"): ("<", 1000),
    bytes.fromhex("a1b23c4d"): (">", 1),
    bytes.fromhex("4d3cb2a1"): ("<", 1),
}
"""First bytes of a pcap file -> byte order, ns in a unit of its fractions of a second."""

_SECTION_MAGIC: Final = BLOCK_SECTION.to_bytes(4, "big")
_PCAP_HEAD_BYTES: Final = 24
_PCAP_RECORD_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Interface:
    """Where packets were captured."""

    link_type: int
    name: str = ""
    description: str = ""
    ticks_per_s: int = 1_000_000
    offset_s: int = 0

    def utc_ns(self, ticks: int) -> int:
        """A time stamp [ns since 1970-01-01T00:00:00Z]."""
        return self.offset_s * NS_PER_S + ticks * NS_PER_S // self.ticks_per_s


@dataclass(frozen=True, slots=True)
class Packet:
    """One captured packet."""

    number: int
    """From 1, as Wireshark counts."""
    utc_ns: int
    interface: Interface
    data: bytes
    is_cut: bool
    """The capture holds its beginning only."""
    direction: int = 0
    """`pcapng.INBOUND`, `OUTBOUND`, or 0."""
    comment: str = ""


@dataclass(slots=True)
class Capture:
    """A capture file.

    Attributes:
        path: the file.
        comment: of its first section: of a run of ours, its identity.
        is_cut_short: the file ended inside a block; known when all packets were read.
    """

    path: Path
    comment: str = ""
    is_cut_short: bool = False
    _interfaces: list[Interface] = field(default_factory=list)
    _order: str = "<"
    _count: int = 0

    def packets(self) -> Iterator[Packet]:
        """All packets in the order of the file.

        Raises:
            ConfigError: the file cannot be read, is no capture, or contradicts its format; names the byte.
        """
        try:
            with self.path.open("rb") as file:
                magic = file.read(4)
                if magic in _PCAP:
                    yield from self._pcap(file, *_PCAP[magic])
                elif magic == _SECTION_MAGIC:
                    file.seek(0)
                    yield from self._pcapng(file)
                else:
                    raise ConfigError(f"{self.path}: begins with {magic.hex()!r}, expected a pcap or pcapng capture")
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be read: {error.strerror}") from None

    def _pcap(self, file: BinaryIO, order: str, unit_ns: int) -> Iterator[Packet]:
        head = file.read(_PCAP_HEAD_BYTES - 4)
        if len(head) < _PCAP_HEAD_BYTES - 4:
            self.is_cut_short = True
            return
        # the upper bits say how frame check sequences were captured
        interface = Interface(struct.unpack_from(order + "I", head, 16)[0] & 0x0FFF_FFFF)
        while len(record := file.read(_PCAP_RECORD_BYTES)) == _PCAP_RECORD_BYTES:
            seconds, fraction, captured_bytes, sent_bytes = struct.unpack(order + "IIII", record)
            if captured_bytes > BLOCK_BYTES_MAX:
                raise self._error(file, f"a packet of {captured_bytes} bytes, at most {BLOCK_BYTES_MAX} are taken")
            data = file.read(captured_bytes)
            if len(data) < captured_bytes:
                self.is_cut_short = True
                return
            yield self._packet(seconds * NS_PER_S + fraction * unit_ns, interface, data, sent_bytes > captured_bytes)
        self.is_cut_short = bool(record)

    def _pcapng(self, file: BinaryIO) -> Iterator[Packet]:
        while len(head := file.read(8)) == 8:
            if head[:4] == _SECTION_MAGIC:
                magic = file.read(4)
                file.seek(-len(magic), 1)
                if len(magic) < 4:
                    self.is_cut_short = True
                    return
                self._order = self._byte_order(file, magic)
            kind, length = struct.unpack(self._order + "II", head)
            if length < 12 or length % 4 or length > BLOCK_BYTES_MAX:
                raise self._error(file, f"block of {length} bytes, expected 12 to {BLOCK_BYTES_MAX} in steps of 4")
            rest = file.read(length - 8)
            if len(rest) < length - 8:
                self.is_cut_short = True
                return
            if struct.unpack(self._order + "I", rest[-4:])[0] != length:
                raise self._error(file, f"the block's two lengths differ: {length} and {rest[-4:].hex()}")
            packet = self._block(file, kind, rest[:-4])
            if packet is not None:
                yield packet
        self.is_cut_short = bool(head)

    def _byte_order(self, file: BinaryIO, magic: bytes) -> str:
        for order in "<>":
            if struct.unpack(order + "I", magic)[0] == BYTE_ORDER_MAGIC:
                return order
        raise self._error(file, f"byte order {magic.hex()}, expected 1a2b3c4d in either order")

    def _block(self, file: BinaryIO, kind: int, body: bytes) -> Packet | None:
        """Take a block; blocks of other kinds are passed over."""
        if kind == BLOCK_SECTION:
            if len(body) < 16:
                raise self._error(file, "a section header that is too short")
            self._interfaces.clear()
            options = self._options(body, 16)
            self.comment = self.comment or _text(options.get(OPTION_COMMENT, b""))
        elif kind == BLOCK_INTERFACE:
            self._interfaces.append(self._interface(file, body))
        elif kind == BLOCK_PACKET:
            return self._enhanced(file, body)
        elif kind == BLOCK_SIMPLE:
            if len(body) < 4 or not self._interfaces:
                raise self._error(file, "a simple packet without its length, or without an interface")
            (sent_bytes,) = struct.unpack_from(self._order + "I", body)
            data = body[4 : 4 + sent_bytes]
            return self._packet(0, self._interfaces[0], data, sent_bytes > len(data))
        return None

    def _interface(self, file: BinaryIO, body: bytes) -> Interface:
        if len(body) < 8:
            raise self._error(file, "an interface description that is too short")
        if len(self._interfaces) == INTERFACES_MAX:
            raise self._error(file, f"more than {INTERFACES_MAX} interfaces")
        options = self._options(body, 8)
        resolution = options.get(OPTION_TIME_RESOLUTION, b"\x06")[:1] or b"\x06"
        exponent = resolution[0] & 0x7F
        offset = options.get(OPTION_TIME_OFFSET, b"")
        return Interface(
            link_type=struct.unpack_from(self._order + "H", body)[0],
            name=_text(options.get(OPTION_NAME, b"")),
            description=_text(options.get(OPTION_DESCRIPTION, b"")),
            ticks_per_s=2**exponent if resolution[0] & 0x80 else 10**exponent,
            offset_s=struct.unpack(self._order + "q", offset)[0] if len(offset) == 8 else 0,
        )

    def _enhanced(self, file: BinaryIO, body: bytes) -> Packet:
        if len(body) < 20:
            raise self._error(file, "a packet block that is too short")
        number, high, low, captured_bytes, sent_bytes = struct.unpack_from(self._order + "IIIII", body)
        if number >= len(self._interfaces):
            raise self._error(file, f"packet of interface {number}, {len(self._interfaces)} are described")
        if captured_bytes > len(body) - 20:
            raise self._error(file, f"packet of {captured_bytes} bytes in a block with room for {len(body) - 20}")
        options = self._options(body, 20 + captured_bytes + -captured_bytes % 4)
        flags = options.get(OPTION_FLAGS, b"")
        interface = self._interfaces[number]
        return self._packet(
            interface.utc_ns(high << 32 | low),
            interface,
            body[20 : 20 + captured_bytes],
            sent_bytes > captured_bytes,
            struct.unpack(self._order + "I", flags)[0] & 3 if len(flags) == 4 else 0,
            _text(options.get(OPTION_COMMENT, b"")),
        )

    def _options(self, body: bytes, at: int) -> dict[int, bytes]:
        """The first option of each code. What is cut is left out: options explain, they do not carry packets."""
        options: dict[int, bytes] = {}
        while at + 4 <= len(body):
            code, length = struct.unpack_from(self._order + "HH", body, at)
            if code == OPTION_END or at + 4 + length > len(body):
                break
            options.setdefault(code, body[at + 4 : at + 4 + length])
            at += 4 + length + -length % 4
        return options

    def _packet(
        self, utc_ns: int, interface: Interface, data: bytes, is_cut: bool, direction: int = 0, comment: str = ""
    ) -> Packet:
        self._count += 1
        return Packet(self._count, utc_ns, interface, data, is_cut, direction, comment)

    def _error(self, file: BinaryIO, what: str) -> ConfigError:
        return ConfigError(f"{self.path}: before byte {file.tell()}: {what}")


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="replace")
