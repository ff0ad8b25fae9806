"""IPv4 and UDP around LTP segments: written for captures of ours, found in captures of others.

Node *n* has the address 10.x.y.z whose last 24 bits are the last 24 bits of *n*; the port is LTP's, 1113, at both ends.
The whole node numbers are in the segments.
"""

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

LTP_PORT: Final = 1113
"""UDP port of LTP. Source: RFC 7122 §2.1, IANA."""

_ADDRESS_BITS: Final = 24
_ADDRESS_NET: Final = 10 << _ADDRESS_BITS
_IP_HEAD_BYTES: Final = 20
_UDP_HEAD_BYTES: Final = 8
_IPV6_HEAD_BYTES: Final = 40
_UDP: Final = 17
_DONT_FRAGMENT: Final = 0x4000
_FRAGMENT_MASK: Final = 0x3FFF
"""More fragments, and the offset."""

DATAGRAM_BYTES_MAX: Final = 65_535 - _IP_HEAD_BYTES - _UDP_HEAD_BYTES
"""Longest segment in one datagram [bytes]: lengths have 16 bits. Longer than the payload of any coded frame."""

_ETHERNET: Final = 1
_LINUX_COOKED: Final = 113
_LINUX_COOKED_2: Final = 276
_NULL: Final = 0
_LOOP: Final = 108
_RAW_IP: Final = (12, 14, 101, 228, 229)
"""Link types. Source: https://www.tcpdump.org/linktypes.html"""

_ETHERTYPES_IP: Final = (0x0800, 0x86DD)
_ETHERTYPES_VLAN: Final = (0x8100, 0x88A8)


def address(node: int) -> IPv4Address:
    """The address of a node in a capture."""
    return IPv4Address(_ADDRESS_NET | node & (1 << _ADDRESS_BITS) - 1)


def node_of(text: str) -> int | None:
    """The node that an address of ours stands for; None for addresses of others."""
    number = int(IPv4Address(text)) if ":" not in text else 0
    return number - _ADDRESS_NET if number >> _ADDRESS_BITS == _ADDRESS_NET >> _ADDRESS_BITS else None


class Addresses:
    """Heads of datagrams from one node to another."""

    def __init__(self, source: int, target: int) -> None:
        self._ends = address(source).packed + address(target).packed
        head = struct.pack("!BBHHHBBH", 0x45, 0, 0, 0, _DONT_FRAGMENT, 64, _UDP, 0) + self._ends
        self._sum = sum(struct.unpack("!10H", head))

    def datagram(self, payload: bytes) -> bytes:
        """The IPv4 packet with a payload to LTP's port. The UDP checksum is left out, as IPv4 allows."""
        size = _UDP_HEAD_BYTES + len(payload)
        total = _IP_HEAD_BYTES + size
        assert len(payload) <= DATAGRAM_BYTES_MAX, f"a payload of {len(payload)} bytes fits no datagram"
        checksum = self._sum + total
        checksum = (checksum & 0xFFFF) + (checksum >> 16)
        checksum = ~((checksum & 0xFFFF) + (checksum >> 16)) & 0xFFFF
        ip = struct.pack("!BBHHHBBH", 0x45, 0, total, 0, _DONT_FRAGMENT, 64, _UDP, checksum)
        return ip + self._ends + struct.pack("!HHHH", LTP_PORT, LTP_PORT, size, 0) + payload


@dataclass(frozen=True, slots=True)
class Datagram:
    """A UDP datagram to or from LTP's port."""

    source: str
    """IP address."""
    target: str
    payload: bytes


def ltp_datagram(link_type: int, data: bytes) -> Datagram | str:
    """The LTP datagram in a captured packet, or why there is none to be read: other traffic is no error.

    Args:
        link_type: of the interface.
        data: the packet from the link layer on.
    """
    packet = _ip_packet(link_type, data)
    if isinstance(packet, str):
        return packet
    version = packet[0] >> 4 if packet else 0
    if version == 4:
        return _from_ipv4(packet)
    if version == 6:
        return _from_ipv6(packet)
    return "no IP packet"


def _ip_packet(link_type: int, data: bytes) -> bytes | str:
    """What lies behind the head of the link layer."""
    if link_type in _RAW_IP:
        return data
    if link_type in (_NULL, _LOOP):
        return data[4:]
    if link_type == _ETHERNET:
        at = 12
        while int.from_bytes(data[at : at + 2], "big") in _ETHERTYPES_VLAN and at <= len(data):
            at += 4
    elif link_type == _LINUX_COOKED:
        at = 14
    elif link_type == _LINUX_COOKED_2:
        return data[20:] if int.from_bytes(data[:2], "big") in _ETHERTYPES_IP else "no IP packet"
    else:
        return f"link type {link_type}"
    return data[at + 2 :] if int.from_bytes(data[at : at + 2], "big") in _ETHERTYPES_IP else "no IP packet"


def _from_ipv4(packet: bytes) -> Datagram | str:
    head_bytes = (packet[0] & 0x0F) * 4
    if head_bytes < _IP_HEAD_BYTES or len(packet) < head_bytes:
        return "no IP packet"
    total, _, fragment = struct.unpack_from("!HHH", packet, 2)
    if packet[9] != _UDP:
        return "no UDP datagram"
    if fragment & _FRAGMENT_MASK:
        return "fragment of an IP packet"
    ends = str(IPv4Address(packet[12:16])), str(IPv4Address(packet[16:20]))
    # offloading leaves the total length zero
    return _from_udp(packet[head_bytes : total or None], *ends)


def _from_ipv6(packet: bytes) -> Datagram | str:
    if len(packet) < _IPV6_HEAD_BYTES:
        return "no IP packet"
    if packet[6] != _UDP:
        return "no UDP datagram"
    ends = str(IPv6Address(packet[8:24])), str(IPv6Address(packet[24:40]))
    return _from_udp(packet[_IPV6_HEAD_BYTES:], *ends)


def _from_udp(datagram: bytes, source: str, target: str) -> Datagram | str:
    if len(datagram) < _UDP_HEAD_BYTES:
        return "no UDP datagram"
    source_port, target_port, size, _ = struct.unpack_from("!HHHH", datagram)
    if LTP_PORT not in (source_port, target_port):
        return "no LTP datagram"
    if size < _UDP_HEAD_BYTES or size > len(datagram):
        return "cut short"
    return Datagram(source, target, datagram[_UDP_HEAD_BYTES:size])
