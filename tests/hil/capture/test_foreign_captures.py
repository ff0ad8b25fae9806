"""Captures of others: any head before LTP, pcap and pcapng in both byte orders; the hostile and damaged are refused."""

import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from flightsw.errors import ConfigError
from flightsw.wire.bundles import Bundle, encode_bundle
from flightsw.wire.confidentiality import encrypt
from flightsw.wire.eids import Eid
from flightsw.wire.integrity import sign
from flightsw.wire.messages import ObjectQuery, encode_message
from flightsw.wire.segments import CancelReason, CancelSegment, DataSegment, Segment, encode_segment
from hil.capture.datagrams import LTP_PORT, Addresses, Datagram, address, ltp_datagram, node_of
from hil.capture.inspection import Layer
from hil.capture.packets import Packet
from hil.cli import main

S = 1_000_000_000


@pytest.mark.parametrize(("node", "text"), [(1, "10.0.0.1"), (70_000, "10.1.17.112"), (2**32 - 1, "10.255.255.255")])
def test_the_address_holds_the_last_bits_of_the_node(node: int, text: str) -> None:
    assert str(address(node)) == text
    assert node_of(text) == node % 2**24


def test_a_foreign_address_is_no_node() -> None:
    assert node_of("192.168.1.2") is None
    assert node_of("::1") is None


def test_the_checksum_of_the_ip_head_holds() -> None:
    packet = Addresses(11, 65_000).datagram(b"payload")
    total = sum(struct.unpack("!10H", packet[:20]))
    assert (total & 0xFFFF) + (total >> 16) == 0xFFFF


PAYLOAD = b"a segment"
IPV4 = Addresses(11, 12).datagram(PAYLOAD)
UDP = IPV4[20:]
IPV6 = struct.pack("!IHBB", 6 << 28, len(UDP), 17, 64) + bytes(15) + b"\1" + bytes(15) + b"\2" + UDP
FRAMED = [
    (228, IPV4, "10.0.0.11"),
    (101, IPV4, "10.0.0.11"),
    (101, IPV6, "::1"),
    (0, struct.pack("<I", socket.AF_INET) + IPV4, "10.0.0.11"),
    (1, bytes(12) + b"\x08\x00" + IPV4, "10.0.0.11"),
    (1, bytes(12) + b"\x86\xdd" + IPV6, "::1"),
    (1, bytes(12) + b"\x81\x00\0\1\x08\x00" + IPV4 + bytes(6), "10.0.0.11"),
    (113, bytes(14) + b"\x08\x00" + IPV4, "10.0.0.11"),
    (276, b"\x08\x00" + bytes(18) + IPV4, "10.0.0.11"),
]


@pytest.mark.parametrize(("link_type", "data", "source"), FRAMED)
def test_the_datagram_is_found_behind_every_head(link_type: int, data: bytes, source: str) -> None:
    datagram = ltp_datagram(link_type, data)
    assert isinstance(datagram, Datagram), datagram
    assert (datagram.payload, datagram.source) == (PAYLOAD, source)


@pytest.mark.parametrize(
    ("link_type", "data", "reason"),
    [
        (1, bytes(12) + b"\x08\x06" + bytes(30), "no IP packet"),
        (228, b"", "no IP packet"),
        (228, IPV4[:19], "no IP packet"),
        (228, IPV4[:9] + b"\x06" + IPV4[10:], "no UDP datagram"),
        (228, IPV4[:6] + b"\x20\x00" + IPV4[8:], "fragment of an IP packet"),
        (228, IPV4.replace(struct.pack("!HH", LTP_PORT, LTP_PORT), struct.pack("!HH", 53, 54)), "no LTP datagram"),
        (228, IPV4[:-1], "cut short"),
        (105, IPV4, "link type 105"),
    ],
)
def test_what_is_no_ltp_says_what_it_is(link_type: int, data: bytes, reason: str) -> None:
    assert ltp_datagram(link_type, data) == reason


@given(st.sampled_from((0, 1, 101, 113, 147, 228, 276)), st.binary(max_size=120))
def test_no_packet_raises(link_type: int, data: bytes) -> None:
    ltp_datagram(link_type, data)


# -- captures of others


def pcap(order: str, magic: int, records: list[tuple[int, int, bytes]], link_type: int = 1) -> bytes:
    head = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65_535, link_type)
    return head + b"".join(
        struct.pack(order + "IIII", seconds, fraction, len(data), len(data)) + data
        for seconds, fraction, data in records
    )


def foreign(segment: Segment) -> bytes:
    """An Ethernet frame between two hosts that are not ours."""
    packet = Addresses(1, 2).datagram(encode_segment(segment))
    return bytes(12) + b"\x08\x00" + packet[:12] + bytes((192, 0, 2, 1, 192, 0, 2, 9)) + packet[20:]


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("magic", "unit_ns"), [(0xA1B2C3D4, 1000), (0xA1B23C4D, 1)])
def test_a_foreign_pcap_is_read_in_both_byte_orders(
    green: Callable[..., DataSegment],
    findings_of: Callable[..., list[dict[str, Any]]],
    tmp_path: Path,
    order: str,
    magic: int,
    unit_ns: int,
) -> None:
    path = tmp_path / "foreign.pcap"
    records = [(100, 5, foreign(green(b"one"))), (101, 7, b"noise"), (102, 9, foreign(green(b"two", 2)))]
    path.write_bytes(pcap(order, magic, records))
    first, second = findings_of(path, Layer.SEGMENTS)
    assert (first["t_ns"], second["t_ns"]) == (0, 2 * S + 4 * unit_ns)
    assert (second["source"], second["target"], second["session"]) == ("192.0.2.1", "192.0.2.9", "11/2")


def block(order: str, kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    return struct.pack(order + "II", kind, 12 + len(body)) + body + struct.pack(order + "I", 12 + len(body))


def section(order: str) -> bytes:
    return block(order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))


def interface(order: str, link_type: int, options: bytes = b"") -> bytes:
    return block(order, 1, struct.pack(order + "HHI", link_type, 0, 0) + options)


def enhanced(order: str, number: int, ticks: int, data: bytes) -> bytes:
    head = struct.pack(order + "IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, len(data), len(data))
    return block(order, 6, head + data)


@pytest.mark.parametrize("order", "<>")
def test_a_foreign_pcapng_is_read_in_both_byte_orders(
    green: Callable[..., DataSegment], packets_of: Callable[..., list[Packet]], tmp_path: Path, order: str
) -> None:
    path = tmp_path / "foreign.pcapng"
    binary = struct.pack(order + "HHB3xHHqHH", 9, 1, 0x80 | 10, 14, 8, 5, 0, 0)  # 1/1024 s, 5 s later
    data = foreign(green(b"one"))
    simple = block(order, 3, struct.pack(order + "I", len(data)) + data)
    other = block(order, 0x0BAD, b"custom")
    path.write_bytes(
        section(order) + interface(order, 1) + interface(order, 1, binary) + other
        + enhanced(order, 0, 2_000_000, data) + enhanced(order, 1, 1536, data) + simple
        + section("<>".replace(order, "")) + interface("<>".replace(order, ""), 1)
        + enhanced("<>".replace(order, ""), 0, 3_000_000, data)
    )  # fmt: skip
    packets = packets_of(path)
    assert [packet.utc_ns for packet in packets] == [2 * S, 5 * S + 3 * S // 2, 0, 3 * S]
    assert {packet.data for packet in packets} == {data}


HOSTILE = [
    (b"", "begins with ''"),
    (b"hello world", "expected a pcap or pcapng capture"),
    (pcap("<", 0xA1B2C3D4, [])[:24] + struct.pack("<IIII", 0, 0, 2**31, 2**31), "a packet of 2147483648 bytes"),
    (section("<")[:8] + b"\0\0\0\0", "byte order 00000000"),
    (section("<") + struct.pack("<II", 6, 2**32 - 4), "block of 4294967292 bytes, expected 12 to"),
    (section("<") + struct.pack("<II", 6, 8), "block of 8 bytes"),
    (section("<") + struct.pack("<III", 6, 12, 16), "the block's two lengths differ"),
    (section("<") + enhanced("<", 0, 0, b""), "packet of interface 0, 0 are described"),
    (section("<") + interface("<", 1) + block("<", 6, struct.pack("<IIIII", 0, 0, 0, 9, 9)), "packet of 9 bytes in"),
    (section("<") + block("<", 1, b""), "interface description that is too short"),
    (section("<") + block("<", 6, b"1234"), "packet block that is too short"),
    (section("<") + block("<", 3, bytes(8)), "a simple packet without"),
]


@pytest.mark.parametrize(("data", "reason"), HOSTILE)
def test_a_hostile_capture_is_refused_with_what_is_wrong(
    packets_of: Callable[..., list[Packet]], tmp_path: Path, data: bytes, reason: str
) -> None:
    path = tmp_path / "hostile"
    path.write_bytes(data)
    with pytest.raises(ConfigError) as told:
        packets_of(path)
    assert reason in str(told.value)
    assert str(path) in str(told.value)


def test_too_many_interfaces_are_refused(
    packets_of: Callable[..., list[Packet]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hil.capture.packets.INTERFACES_MAX", 3)
    path = tmp_path / "hostile"
    path.write_bytes(section("<") + 4 * interface("<", 1))
    with pytest.raises(ConfigError, match="more than 3 interfaces"):
        packets_of(path)


@pytest.fixture(scope="module")
def varied(
    green: Callable[..., DataSegment],
    red: Callable[..., DataSegment],
    bundle_of: Callable[..., Bundle],
    record: Callable[..., None],
    tmp_path_factory: pytest.TempPathFactory,
) -> bytes:
    """A capture with a bit of everything."""
    path = tmp_path_factory.mktemp("varied") / "file.pcapng"
    signed = sign(bundle_of(b"x" * 50), (0, 1), number=7, source=Eid(11, 0), key=bytes(32))
    sealed = encrypt(signed, (1,), number=8, source=Eid(11, 0), key=bytes(32), iv=bytes(12))
    query = encode_bundle(bundle_of(encode_message(ObjectQuery(bytes(32), 5))))
    record(
        path,
        green(query),
        red(0, query[:40], number=2),
        red(40, query[40:], is_last=True, number=2),
        green(encode_bundle(sealed) + encode_bundle(signed), 3),
        CancelSegment((12, 5), CancelReason.UNREACH, by_sender=False),
    )
    return path.read_bytes()


@settings(max_examples=300)
@given(data=st.data())
def test_a_damaged_capture_never_raises_anything_but_its_error(
    tmp_path_factory: pytest.TempPathFactory, varied: bytes, data: st.DataObject
) -> None:
    damaged = bytearray(varied)
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "file"
    path.write_bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    layer = data.draw(st.sampled_from([layer.value for layer in Layer]))
    form = data.draw(st.sampled_from(([], ["--json"])))
    result = CliRunner().invoke(main, ["inspect", str(path), f"--{layer}", *form])
    assert result.exit_code in (0, 2), result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
