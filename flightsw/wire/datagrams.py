"""LTP segments in datagrams, as they are: what other implementations of LTP speak over UDP (RFC 5326 §5, RFC 7122).

The coding `ltp-udp` adds nothing to a segment, so that any LTP node understands it. It is for interfaces with UDP as
bearer, and no others: a datagram arrives whole or not at all, its 16-bit checksum finds most damage, and the CRC-32C of
the bundle's blocks finds what is left in the data. LTP's own numbers have the checksum alone, which RFC 5326 §5 allows
on private networks. Links of the bench flip bits, so their codings are those of `flightsw.wire.framing`.
"""

from typing import Final, Never

from flightsw.errors import ConfigError, FrameError
from flightsw.wire.frames import CodedFrame
from flightsw.wire.framing import Coding, coding

DATAGRAM_BYTES_MAX: Final = 65_507
"""Longest segment [bytes]: what a UDP datagram over IPv4 holds (65,535 less 20 and 8 bytes of headers)."""


class DatagramCoding:
    """Segments as they are. Implements `flightsw.wire.framing.Coding`."""

    name: Final = "ltp-udp"

    def encode(self, payload: bytes) -> bytes:
        """The payload itself.

        Raises:
            FrameError: it is empty, or longer than a datagram.
        """
        if not 0 < len(payload) <= DATAGRAM_BYTES_MAX:
            raise FrameError(f"payload of {len(payload)} bytes: a datagram holds 1 to {DATAGRAM_BYTES_MAX}")
        return payload

    def frame(self, payload: bytes, padding_bytes: int = 0) -> CodedFrame:
        """The payload as a frame. Padding counts for the transmitter's time, as with other codings, and is not sent.

        Raises:
            FrameError: as `encode`.
        """
        return CodedFrame(payload, self, self.encode(payload), padding_bytes=padding_bytes)

    def decode(self, coded: bytes) -> bytes:
        """The frame itself.

        Raises:
            FrameError: as `encode`.
        """
        return self.encode(coded)

    def correct(self, coded: bytes) -> tuple[bytes, int]:
        """The frame itself; what is wrong in it is not seen here.

        Raises:
            FrameError: as `encode`.
        """
        return self.encode(coded), 0

    def deframer(self) -> Never:
        """There is none.

        Raises:
            ConfigError: always: without framing a byte stream has no frames.
        """
        raise ConfigError(f"coding {self.name!r}: expected another one on a byte stream, it is for datagrams only")


LTP_UDP: Final = DatagramCoding()


def interface_coding(name: str) -> Coding:
    """The coding of that name that an interface of a node may have: those of links, and `ltp-udp`.

    Raises:
        ConfigError: there is none; lists the names.
    """
    return LTP_UDP if name == LTP_UDP.name else coding(name)
