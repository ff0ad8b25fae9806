"""A node of another implementation on the bench, in a process of its own, behind impaired links.

The peer (`tests/peers/ltp_peer.py`) is an LTP engine written from RFC 5326 by itself, with pyD3TN's bundles.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from flightsw.config import InterfaceConfig
from flightsw.errors import ConfigError, LinkBroken
from flightsw.host.clock import HostClock
from flightsw.host.loop import PacedLoop
from flightsw.link.memory import MemoryLink
from flightsw.net.agent import AgentLimits, BundleAgent, Delivery
from flightsw.net.contacts import Contact, ContactPlan
from flightsw.net.echo import PING_SERVICE
from flightsw.net.endpoint import Endpoint
from flightsw.ports import Random
from flightsw.wire.framing import coding
from flightsw.wire.segments import DataSegment, ReportAck, encode_segment
from ground.ping import Pinger
from hil.channel.external import ExternalNode
from hil.channel.impairments import Impairments
from hil.channel.link import Link
from hil.channel.relay import Relay

PEER = Path(__file__).resolve().parents[1] / "peers" / "ltp_peer.py"
OURS, THEIRS = 1, 9
RATE_BPS = 1e6
DEADLINE_S = 60.0
TEXT = b"a payload of some hundred bytes, which takes several segments. " * 6


class Foreign:
    """The peer's process, and what it said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.said: list[dict[str, Any]] = []

    async def hear(self, **wanted: object) -> dict[str, Any]:
        """The next thing that it says with these fields; all else is kept in `said`."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                assert self._process.stdout is not None
                line = await self._process.stdout.readline()
                assert line, "the peer has ended"
                found = json.loads(line)
                self.said.append(found)
                if all(found.get(name) == value for name, value in wanted.items()):
                    return found

    def send(self, destination: str, payload: bytes, source: str = f"ipn:{THEIRS}.4", **more: object) -> None:
        assert self._process.stdin is not None
        order = {"source": source, "destination": destination, "payload": payload.hex()} | more
        self._process.stdin.write(json.dumps(order).encode() + b"\n")


class Bench:
    """Our node 1 and the peer as node 9, with an impaired link between them."""

    def __init__(self, agent: BundleAgent, endpoint: Endpoint, clock: HostClock) -> None:
        self.agent = agent
        self.endpoint = endpoint
        self.pinger = Pinger(endpoint, clock)
        self.deliveries: asyncio.Queue[Delivery] = asyncio.Queue()
        self.foreign: Foreign
        self.external: ExternalNode
        self.relay: Relay

    def on_delivery(self, delivery: Delivery) -> None:
        if delivery.service == PING_SERVICE:
            self.pinger.receive(delivery)
        else:
            self.deliveries.put_nowait(delivery)

    async def next(self) -> Delivery:
        async with asyncio.timeout(DEADLINE_S):
            return await self.deliveries.get()


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def random_for(name: str) -> Random:
    return Random(f"5/{name}")


@asynccontextmanager
async def bench(python: Path, impairments: Impairments, code: str, limits: AgentLimits | None) -> AsyncIterator[Bench]:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, PacedLoop)
    relay = Relay(loop.call_at_ns, lambda: loop.now_ns)
    relay.connect((OURS, 0), (THEIRS, 0), Link("foreign", impairments, random_for))
    contacts = [Contact(0, 1 << 62, one, 0, other, 0, RATE_BPS, 0) for one, other in ((OURS, THEIRS), (THEIRS, OURS))]
    interface = InterfaceConfig(index=0, name="radio", coding=code, segment_bytes=256)
    agent = BundleAgent(OURS, ContactPlan(contacts), (interface,), 1 << 32, limits)
    link = MemoryLink(lambda at, frame: relay.send(OURS, at, frame))
    clock = HostClock(loop, 0)
    made: list[Bench] = []
    endpoint = Endpoint(clock, link, agent, lambda delivery: made[0].on_delivery(delivery))
    found = Bench(agent, endpoint, clock)
    made.append(found)
    relay.attach(OURS, link.deliver)
    their_port = free_port()
    ports = {0: (("127.0.0.1", 0), ("127.0.0.1", their_port))}
    external = ExternalNode(relay, THEIRS, ports, {0: coding(code)})
    await external.open()
    arguments = map(str, (python, PEER, THEIRS, their_port, external.local_address(0)[1]))
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*arguments, stdin=pipe, stdout=pipe)
    try:
        found.relay, found.external, found.foreign = relay, external, Foreign(process)
        await found.foreign.hear(ready=their_port)
        endpoint.flush()
        yield found
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await external.close()
        await endpoint.close()


def run(story: Callable[[Bench], Any], python: Path, **options: Any) -> None:
    async def told() -> None:
        impairments = options.get("impairments", Impairments(rate_bps=RATE_BPS))
        code = options.get("code", "cobs-crc32c")
        async with bench(python, impairments, code, options.get("limits")) as made:
            await story(made)

    with asyncio.Runner(loop_factory=lambda: PacedLoop(0)) as runner:
        runner.run(told())


LINKS = {
    "clean": {},
    "lossy": {"impairments": Impairments(rate_bps=RATE_BPS, loss=0.15)},
    "bit errors": {"impairments": Impairments(rate_bps=RATE_BPS, bit_error_rate=3e-4)},
    "coded": {"impairments": Impairments(rate_bps=RATE_BPS, bit_error_rate=1e-3), "code": "ccsds-rs-2"},
}


@pytest.mark.parametrize("name", LINKS)
def test_pings_and_bundles_go_both_ways(peer_python: Callable[[str], Path], name: str) -> None:
    async def story(made: Bench) -> None:
        reply = await made.pinger.ping(THEIRS, size_bytes=400, wait_s=DEADLINE_S)
        assert reply is not None
        assert (reply.node, reply.size_bytes) == (THEIRS, 400)

        made.foreign.send(f"ipn:{OURS}.7", TEXT)
        assert bytes.fromhex((await made.foreign.hear(source=f"ipn:{OURS}.7"))["arrived"]) == TEXT

        made.foreign.send(f"ipn:{OURS}.5", TEXT)
        delivery = await made.next()
        assert (delivery.source_node, delivery.source_service, delivery.service) == (THEIRS, 4, 5)
        assert delivery.payload == TEXT
        counts = made.external.counts
        assert counts.sent_count > 0
        assert counts.delivered_count > 0
        radio = made.agent.counters.interfaces[0]
        if name == "bit errors":
            assert counts.rejected_count + radio.frames_rejected_count > 0, "radios drop what is damaged"
        if name == "coded":
            assert counts.corrected_count > 0
            assert radio.frames_corrected_count > 0

    run(story, peer_python("pyd3tn"), **LINKS[name])


def test_what_only_others_do_is_understood(peer_python: Callable[[str], Path]) -> None:
    async def story(made: Bench) -> None:
        made.foreign.send(f"ipn:{OURS}.5", b"aggregated", times=3)
        assert [(await made.next()).payload for _ in range(3)] == [b"aggregated"] * 3

        made.foreign.send(f"ipn:{OURS}.5", TEXT, green=b"green part".hex())
        assert sorted([(await made.next()).payload, (await made.next()).payload]) == sorted([TEXT, b"green part"])

        made.foreign.send(f"ipn:{OURS}.5", TEXT, fragmented=True)
        assert (await made.next()).payload == TEXT
        assert made.agent.counters.bundles_reassembled_count == 1
        assert made.agent.counters.bundles_rejected_count == 0

    run(story, peer_python("pyd3tn"))


def test_it_reads_our_status_reports_and_our_green_blocks(peer_python: Callable[[str], Path]) -> None:
    async def story(made: Bench) -> None:
        report_delivery = 0x2_0000
        to = f"ipn:{THEIRS}.6"
        made.foreign.send(f"ipn:{OURS}.5", b"tell me", flags=report_delivery, report_to=to)
        report = await made.foreign.hear(destination=to)
        assert report["statuses"] == [[False], [False], [True], [False]]
        assert (report["source"], report["of"]) == (f"ipn:{OURS}.0", f"ipn:{THEIRS}.4")

        made.endpoint.send(THEIRS, 3, b"beacon", lifetime_ms=60_000, reliable=False)
        assert bytes.fromhex((await made.foreign.hear(color="green"))["arrived"]) == b"beacon"

    run(story, peer_python("pyd3tn"), limits=AgentLimits(status_reports=True))


def test_an_external_node_needs_a_coding_for_each_interface() -> None:
    relay = Relay(lambda *_: None, lambda: 0)
    with pytest.raises(ConfigError, match="interface 1: coding missing"):
        ExternalNode(relay, 9, {1: (("127.0.0.1", 0), ("127.0.0.1", 1))}, {})


class Wire:
    """A relay that only keeps what it is given."""

    def __init__(self) -> None:
        self.deliver: Any = None
        self.sent: list[tuple[int, int, bytes]] = []

    def attach(self, node: int, deliver: Any) -> None:
        self.deliver = deliver

    def detach(self, node: int) -> None:
        self.deliver = None

    def send(self, node: int, interface: int, frame: Any) -> None:
        self.sent.append((node, interface, bytes(frame)))


async def test_frames_and_segments_are_turned_into_each_other_and_damage_stops_at_the_radio() -> None:
    class Ears(asyncio.DatagramProtocol):
        def __init__(self) -> None:
            self.heard: asyncio.Queue[bytes] = asyncio.Queue()

        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            self.heard.put_nowait(data)

    code = coding("ccsds-rs-1")
    wire: Any = Wire()
    loop = asyncio.get_running_loop()
    transport, ears = await loop.create_datagram_endpoint(Ears, local_addr=("127.0.0.1", 0))
    external = ExternalNode(wire, 9, {2: (("127.0.0.1", 0), transport.get_extra_info("sockname")[:2])}, {2: code})
    await external.open()
    try:
        one, two = (encode_segment(ReportAck((1, number), 3)) for number in (1, 2))
        flipped = bytearray(code.encode(one))
        flipped[20] ^= 4
        broken = bytearray(code.encode(one))
        broken[10:60] = bytes(50)
        for frame in (bytes(broken), bytes(flipped), code.frame(two)):
            wire.deliver(2, frame)
        async with asyncio.timeout(DEADLINE_S):
            assert [await ears.heard.get(), await ears.heard.get()] == [one, two]
        counts = external.counts
        assert (counts.rejected_count, counts.corrected_count, counts.delivered_count) == (1, 1, 2)
        transport.sendto(one + two, external.local_address(2))
        async with asyncio.timeout(DEADLINE_S):
            while len(wire.sent) < 2:
                await asyncio.sleep(0)
        assert wire.sent == [(9, 2, code.encode(one)), (9, 2, code.encode(two))]
        too_long = encode_segment(DataSegment((9, 5), False, False, False, True, 1, 0, bytes(65_000)))
        transport.sendto(too_long, external.local_address(2))
        async with asyncio.timeout(DEADLINE_S):
            while not external.counts.refused_count:
                await asyncio.sleep(0)
    finally:
        transport.close()
        await external.close()
    assert wire.deliver is None


async def test_an_address_that_is_taken_is_refused() -> None:
    relay = Relay(lambda *_: None, lambda: 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        external = ExternalNode(relay, 9, {0: (taken.getsockname(), ("127.0.0.1", 1))}, {0: coding("cobs-crc32c")})
        with pytest.raises(LinkBroken, match="cannot be bound"):
            await external.open()
