"""LTP over UDP (RFC 7122): a wire to nodes of other implementations.

Each interface is a socket of its own, bound to a local address and with one peer; each segment is one datagram, without
any framing, in the coding `ltp-udp`. A datagram that holds several segments, which RFC 5326 §5 allows, is taken apart.

Only datagrams from the peer's address are taken, from any port of it: ION sends from another port than the one that it
listens at. That keeps strays out, not an attacker: addresses can be forged, and bundles are authenticated by BPSec.
RFC 7122 §2 wants congestion control outside of private networks. There is none: the bundle agent keeps to the rate of
the contact, which is for its owner to choose.
"""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast
from urllib.parse import SplitResult, parse_qsl

from flightsw.config import InterfaceConfig
from flightsw.errors import ConfigError, LinkBroken, LinkClosed, SegmentError
from flightsw.link.status import LinkStatus
from flightsw.ports import Frame, FrameReceiver
from flightsw.wire.datagrams import DATAGRAM_BYTES_MAX, LTP_UDP
from flightsw.wire.segments import split_segments

LTP_PORT: Final = 1113
"""UDP port of LTP, RFC 5326 §10.1."""

BUFFER_BYTES_MAX: Final = 1_048_576
"""Datagrams that may wait for the operating system [bytes]: sixteen of the longest; later ones are dropped."""

INTERFACE_MAX: Final = 65_535
"""Largest interface number, as in `InterfaceConfig`."""

_ADDRESS: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[0-9.]+)(?::([0-9]{1,5}))?")

Address = tuple[str, int]
"""(host as a number, port)."""


@dataclass(frozen=True, slots=True)
class UdpPort:
    """One interface on UDP."""

    local: Address
    """Where segments arrive; port 0 takes a free one."""
    peer: Address
    """Where segments go, and whose are taken."""


@dataclass(frozen=True, slots=True)
class UdpSettings:
    """What a URL says."""

    ports: dict[int, UdpPort]
    """By interface."""


class UdpLink:
    """Sockets toward LTP nodes. Implements `flightsw.ports.Link`. Call `open` before use.

    Args:
        ports: by interface.
    """

    def __init__(self, ports: dict[int, UdpPort]) -> None:
        self._ports = ports
        self._sockets: dict[int, _Socket] = {}
        self._receiver: FrameReceiver | None = None
        self._status = LinkStatus()
        self._is_closed = False

    def check(self, interfaces: Sequence[InterfaceConfig]) -> None:
        """Whether interfaces on this link are set up for it; others are not looked at.

        Raises:
            ConfigError: one of them has another coding than `ltp-udp`.
        """
        for interface in interfaces:
            if interface.index in self._ports and interface.coding != LTP_UDP.name:
                raise ConfigError(
                    f"interface {interface.name!r}: coding {interface.coding!r}, expected {LTP_UDP.name!r} on UDP"
                )

    async def open(self) -> None:
        """Bind all sockets.

        Raises:
            LinkBroken: an address cannot be bound.
        """
        for interface, port in self._ports.items():
            loop = asyncio.get_running_loop()
            try:
                _, protocol = await loop.create_datagram_endpoint(
                    lambda interface=interface, port=port: _Socket(self, interface, port),  # type: ignore[misc]
                    local_addr=port.local,
                )
            except OSError as error:
                await self.close()
                raise LinkBroken(f"UDP {port.local[0]}:{port.local[1]}: cannot be bound: {error.strerror}") from None
            self._sockets[interface] = protocol
        self._status.is_connected = True
        self._status.connects_count = 1

    def local_address(self, interface: int) -> Address:
        """Where an open interface listens."""
        host, port = self._sockets[interface].transport.get_extra_info("sockname")[:2]
        return host, port

    def send(self, interface: int, frame: Frame) -> None:
        """Send one segment. What the operating system does not take soon is dropped and counted.

        Raises:
            LinkClosed: the link was closed, or not opened.
        """
        if self._is_closed or not self._sockets:
            raise LinkClosed("UDP link: send while it is not open")
        socket = self._sockets.get(interface)
        if socket is None or socket.waiting_bytes() > BUFFER_BYTES_MAX:
            self._status.dropped_out_count += 1
            return
        socket.transport.sendto(bytes(frame), socket.port.peer)
        self._status.sent_count += 1

    def set_receiver(self, receiver: FrameReceiver) -> None:
        """Say who takes arriving segments; those that arrive before are lost."""
        self._receiver = receiver

    def status(self) -> LinkStatus:
        """State and counts; `bad_records_count`: datagrams of others than the peer, or without whole segments."""
        return self._status

    async def close(self) -> None:
        """Close all sockets; their addresses are free when this returns."""
        self._is_closed = True
        self._status.is_connected = False
        sockets = list(self._sockets.values())
        self._sockets.clear()
        for socket in sockets:
            socket.transport.close()
        for socket in sockets:
            await socket.closed

    def received(self, interface: int, datagram: bytes) -> None:
        """A datagram of a peer."""
        status = self._status
        try:
            segments = split_segments(datagram)
        except SegmentError:
            status.bad_records_count += 1
            return
        for segment in segments:
            if self._receiver is None:
                status.dropped_in_count += 1
            else:
                status.received_count += 1
                self._receiver(interface, segment)

    def refused(self, error: str = "") -> None:
        """A datagram that is not the peer's, or an error that the network reported."""
        self._status.bad_records_count += not error
        self._status.error = error or self._status.error


class _Socket(asyncio.DatagramProtocol):
    """The socket of one interface."""

    transport: asyncio.DatagramTransport

    def __init__(self, link: UdpLink, interface: int, port: UdpPort) -> None:
        self.port = port
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._link = link
        self._interface = interface

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is bound."""
        # The selector loop's transport does not derive from the class whose methods it has.
        self.transport = cast(asyncio.DatagramTransport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed."""
        self.closed.set_result(None)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """A datagram has come."""
        if addr[0] == self.port.peer[0]:
            self._link.received(self._interface, data)
        else:
            self._link.refused()

    def error_received(self, exc: Exception) -> None:
        """The network says that something did not arrive; LTP repeats it."""
        self._link.refused(str(exc))

    def waiting_bytes(self) -> int:
        """Datagrams that the operating system has not taken yet [bytes]."""
        return int(cast(asyncio.WriteTransport, self.transport).get_write_buffer_size())


def udp_settings(parts: SplitResult) -> UdpSettings:
    """The interface that a URL describes: `udp://0.0.0.0:1113?peer=192.0.2.7:1113&interface=1`.

    Raises:
        ConfigError: a part is wrong; names it, its value and what was expected.
    """
    if parts.path not in ("", "/"):
        raise ConfigError(f"link udp: path {parts.path!r}, expected none after host:port")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name in options:
        if name not in ("peer", "interface"):
            raise ConfigError(f"link udp: option {name!r}, expected one of peer, interface")
    interface = options.get("interface", "0")
    if not re.fullmatch(r"[0-9]{1,5}", interface) or int(interface) > INTERFACE_MAX:
        raise ConfigError(f"link udp: interface {interface!r}, expected a whole number from 0 to {INTERFACE_MAX}")
    local = udp_address(parts.netloc, "address", 0)
    return UdpSettings({int(interface): UdpPort(local, udp_address(options.get("peer", ""), "peer", 1))})


def udp_address(text: str, what: str, port_least: int) -> Address:
    """The address in `host:port`; the host is a number, because names would have to be looked up in a thread.

    Raises:
        ConfigError: it is none; names what it is for.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise ConfigError(f"link udp: {what} {text!r}, expected a numeric host:port such as 192.0.2.7:{LTP_PORT}")
    port = LTP_PORT if match[2] is None else int(match[2])
    if not port_least <= port <= 65_535:
        raise ConfigError(f"link udp: {what} port {port}, expected {port_least} to 65535")
    return match[1].strip("[]"), port


assert DATAGRAM_BYTES_MAX < BUFFER_BYTES_MAX, "the buffer takes a datagram"
