"""LTP over UDP: one segment a datagram, only from the peer, several taken apart, and all that is dropped is counted."""

import asyncio
from typing import Any

import pytest

from flightsw.config import InterfaceConfig
from flightsw.errors import ConfigError, FrameError, LinkBroken, LinkClosed
from flightsw.link.joined import JoinedLink, join_neighbours
from flightsw.link.memory import MemoryLink
from flightsw.link.udp import LTP_PORT, Address, UdpLink, UdpPort, UdpSettings
from flightsw.link.urls import open_link, parse_url
from flightsw.net.agent import BundleAgent
from flightsw.net.contacts import Contact, ContactPlan
from flightsw.wire.datagrams import DATAGRAM_BYTES_MAX, LTP_UDP, interface_coding
from flightsw.wire.framing import coding
from flightsw.wire.segments import DataSegment, ReportAck, encode_segment

LOCAL = ("127.0.0.1", 0)
DEADLINE_S = 20.0
SEGMENT = encode_segment(DataSegment((1, 2), False, False, False, True, 1, 0, bytes(range(256)) * 4))


class Ears:
    """Takes frames, and lets a test wait for them."""

    def __init__(self) -> None:
        self._frames: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()

    def __call__(self, interface: int, frame: Any) -> None:
        self._frames.put_nowait((interface, bytes(frame)))

    async def next(self) -> tuple[int, bytes]:
        async with asyncio.timeout(DEADLINE_S):
            return await self._frames.get()


async def pair() -> tuple[UdpLink, UdpLink, Ears, Ears]:
    """Two links that are each other's peers: interface 3 of one, interface 0 of the other."""
    first = UdpLink({0: UdpPort(LOCAL, ("127.0.0.1", 1))})
    await first.open()
    second = UdpLink({3: UdpPort(LOCAL, first.local_address(0))})
    await second.open()
    address = first.local_address(0)
    await first.close()
    first = UdpLink({0: UdpPort(address, second.local_address(3))})
    await first.open()
    ears = Ears(), Ears()
    first.set_receiver(ears[0])
    second.set_receiver(ears[1])
    return first, second, *ears


async def raw() -> tuple[asyncio.DatagramTransport, Address]:
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=LOCAL)
    return transport, transport.get_extra_info("sockname")[:2]


async def test_segments_go_both_ways_as_they_are_and_in_order() -> None:
    first, second, first_ears, second_ears = await pair()
    try:
        acknowledgement = encode_segment(ReportAck((1, 2), 3))
        first.send(0, LTP_UDP.frame(SEGMENT))
        first.send(0, acknowledgement)
        assert await second_ears.next() == (3, SEGMENT)
        assert await second_ears.next() == (3, acknowledgement)
        second.send(3, acknowledgement)
        assert await first_ears.next() == (0, acknowledgement)
        assert (first.status().sent_count, second.status().received_count) == (2, 2)
    finally:
        await first.close()
        await second.close()


async def test_the_longest_datagram_passes_and_a_longer_one_has_no_frame() -> None:
    first, second, _, second_ears = await pair()
    try:
        head = len(encode_segment(DataSegment((1, 2), False, False, False, True, 1, 0, bytes(60_000)))) - 60_000
        longest = encode_segment(DataSegment((1, 2), False, False, False, True, 1, 0, bytes(DATAGRAM_BYTES_MAX - head)))
        assert len(longest) == DATAGRAM_BYTES_MAX
        first.send(0, LTP_UDP.frame(longest))
        assert await second_ears.next() == (3, longest)
    finally:
        await first.close()
        await second.close()
    for wrong in (b"", bytes(DATAGRAM_BYTES_MAX + 1)):
        with pytest.raises(FrameError, match="a datagram holds"):
            LTP_UDP.frame(wrong)
    with pytest.raises(ConfigError, match="expected another one on a byte stream"):
        LTP_UDP.deframer()


async def test_a_datagram_of_several_segments_is_taken_apart_and_damage_is_counted() -> None:
    sender, address = await raw()
    link = UdpLink({0: UdpPort(LOCAL, address)})
    await link.open()
    ears = Ears()
    link.set_receiver(ears)
    try:
        acknowledgement = encode_segment(ReportAck((1, 2), 3))
        target = link.local_address(0)
        sender.sendto(acknowledgement + SEGMENT[:-1], target)
        sender.sendto(acknowledgement + SEGMENT + acknowledgement, target)
        assert [await ears.next() for _ in range(3)] == [(0, acknowledgement), (0, SEGMENT), (0, acknowledgement)]
        assert link.status().bad_records_count == 1
    finally:
        sender.close()
        await link.close()


async def test_another_port_of_the_peer_is_heard_and_another_host_is_not() -> None:
    sender, _ = await raw()
    link = UdpLink({0: UdpPort(LOCAL, ("127.0.0.1", 9)), 1: UdpPort(LOCAL, ("127.0.0.2", 9))})
    await link.open()
    ears = Ears()
    link.set_receiver(ears)
    try:
        sender.sendto(SEGMENT, link.local_address(1))
        sender.sendto(SEGMENT, link.local_address(0))
        assert await ears.next() == (0, SEGMENT)
        async with asyncio.timeout(DEADLINE_S):
            while not link.status().bad_records_count:
                await asyncio.sleep(0)
    finally:
        sender.close()
        await link.close()


async def test_what_cannot_be_sent_or_heard_is_counted() -> None:
    first, second, _, second_ears = await pair()
    try:
        first.send(77, SEGMENT)
        assert first.status().dropped_out_count == 1
        second._receiver = None
        first.send(0, SEGMENT)
        async with asyncio.timeout(DEADLINE_S):
            while not second.status().dropped_in_count:
                await asyncio.sleep(0)
        second.set_receiver(second_ears)
        first.send(0, SEGMENT)
        assert await second_ears.next() == (3, SEGMENT)
    finally:
        await first.close()
        await second.close()


async def test_a_link_that_is_closed_or_not_open_takes_nothing() -> None:
    link = UdpLink({0: UdpPort(LOCAL, ("127.0.0.1", 9))})
    with pytest.raises(LinkClosed):
        link.send(0, SEGMENT)
    await link.open()
    await link.close()
    with pytest.raises(LinkClosed):
        link.send(0, SEGMENT)


async def test_an_address_that_is_taken_is_said() -> None:
    transport, address = await raw()
    try:
        with pytest.raises(LinkBroken, match=rf"{address[1]}: cannot be bound"):
            await open_link(f"udp://127.0.0.1:{address[1]}?peer=127.0.0.1:9")
    finally:
        transport.close()


def test_a_url_says_address_peer_and_interface() -> None:
    wan = parse_url("udp://0.0.0.0:1114?peer=192.0.2.7&interface=3")
    assert wan == UdpSettings({3: UdpPort(("0.0.0.0", 1114), ("192.0.2.7", LTP_PORT))})
    assert parse_url("udp://[::1]:0?peer=[::1]:7") == UdpSettings({0: UdpPort(("::1", 0), ("::1", 7))})


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("udp://localhost:1113?peer=192.0.2.7", "address 'localhost:1113', expected a numeric host:port"),
        ("udp://0.0.0.0:1113", "peer '', expected a numeric host:port"),
        ("udp://0.0.0.0:99999?peer=192.0.2.7", "port 99999, expected 0 to 65535"),
        ("udp://0.0.0.0:1113?peer=192.0.2.7:0", "peer port 0, expected 1 to 65535"),
        ("udp://0.0.0.0:1113/x?peer=192.0.2.7", "path '/x', expected none"),
        ("udp://0.0.0.0:1113?peer=192.0.2.7&baud=9", "option 'baud'"),
        ("udp://0.0.0.0:1113?peer=192.0.2.7&interface=70000", "interface '70000', expected a whole number"),
    ],
)
def test_a_wrong_url_names_the_part(url: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        parse_url(url)


def test_only_interfaces_have_the_coding_of_datagrams_and_on_udp_no_other() -> None:
    assert interface_coding("ltp-udp") is LTP_UDP
    assert interface_coding("cobs-crc32c") is coding("cobs-crc32c")
    with pytest.raises(ConfigError, match="coding 'ltp-udp': expected one of"):
        coding("ltp-udp")  # links of the bench flip bits
    link = UdpLink({0: UdpPort(LOCAL, LOCAL)})
    link.check((InterfaceConfig(index=0, name="wan", coding="ltp-udp"), InterfaceConfig(index=1, name="radio")))
    with pytest.raises(ConfigError, match="interface 'wan': coding 'cobs-crc32c', expected 'ltp-udp' on UDP"):
        link.check((InterfaceConfig(index=0, name="wan"),))


def test_an_agent_speaks_it() -> None:
    plan = ContactPlan([Contact(0, 1 << 60, 1, 0, 2, 0, 1e6, 0), Contact(0, 1 << 60, 2, 0, 1, 0, 1e6, 0)])
    interface = InterfaceConfig(index=0, name="wan", coding="ltp-udp")
    one, two = (BundleAgent(node, plan, (interface,), 1 << 32) for node in (1, 2))
    one.send(2, 5, b"as it is", now_ns=0, utc_ns=0, lifetime_ms=1000)
    for _, frame in one.pump(0):
        two.receive_frame(0, bytes(frame), 0)
    assert [delivery.payload for delivery in two.take_deliveries()] == [b"as it is"]


async def test_joined_wires_carry_each_interface_on_its_own() -> None:
    sent: dict[str, list[int]] = {"radio": [], "wan": []}
    radio = MemoryLink(lambda at, _: sent["radio"].append(at))
    wan = MemoryLink(lambda at, _: sent["wan"].append(at))
    joined = JoinedLink(radio, {7: wan, 8: wan})
    heard: list[int] = []
    joined.set_receiver(lambda at, _: heard.append(at))
    for interface in (0, 7, 8, 1):
        joined.send(interface, b"frame")
    radio.deliver(0, b"frame")
    wan.deliver(7, b"frame")
    assert sent == {"radio": [0, 1], "wan": [7, 8]}
    assert heard == [0, 7]
    await joined.close()
    with pytest.raises(LinkClosed):
        joined.send(0, b"frame")
    with pytest.raises(LinkClosed):
        wan.send(0, b"frame")


def interface(index: int, code: str) -> InterfaceConfig:
    return InterfaceConfig(index=index, name=f"if{index}", coding=code)


async def test_neighbours_are_joined_to_the_lab_wire() -> None:
    radio: list[int] = []
    url = "udp://127.0.0.1:0?peer=127.0.0.1:9&interface="
    joined = await join_neighbours(
        MemoryLink(lambda at, _: radio.append(at)),
        [f"{url}1", f"{url}2"],
        [interface(0, "cobs-crc32c"), interface(1, "ltp-udp"), interface(2, "ltp-udp")],
    )
    try:
        joined.send(0, b"frame")
        joined.send(2, SEGMENT)
        assert radio == [0]
    finally:
        await joined.close()
    lab = MemoryLink(lambda *_: None)
    assert await join_neighbours(lab, [], [interface(0, "cobs-crc32c")]) is lab


@pytest.mark.parametrize(
    ("urls", "code", "expected"),
    [
        (["serial:///dev/ttyUSB0"], "ltp-udp", "neighbour 'serial', expected a udp:// URL"),
        (["udp://127.0.0.1:0?peer=127.0.0.1:9"] * 2, "ltp-udp", "two neighbours on interface 0"),
        (["udp://127.0.0.1:0?peer=127.0.0.1:9"], "ccsds-rs-1", "coding 'ccsds-rs-1', expected 'ltp-udp' on UDP"),
        ([], "ltp-udp", "coding 'ltp-udp', expected a neighbour on UDP for it"),
    ],
)
async def test_wrong_neighbours_are_refused(urls: list[str], code: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        await join_neighbours(MemoryLink(lambda *_: None), urls, [interface(0, code)])
