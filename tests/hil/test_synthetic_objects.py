"""Synthetic objects take the link time of their size on every hop, meet its noise, move nothing and arrive by count."""

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

from boards.simulated.clock import LoopClock
from flightsw.config import InterfaceConfig
from flightsw.errors import ConfigError
from flightsw.link.memory import MemoryLink
from flightsw.net.agent import BundleAgent
from flightsw.net.agent_values import Delivery
from flightsw.net.contacts import Contact, ContactPlan
from flightsw.net.endpoint import Endpoint
from flightsw.net.padding import PADDING_BYTES_MAX, padding_blocks, padding_of
from flightsw.node import Node
from flightsw.objects.store import ObjectStore
from flightsw.objects.synthetic import SyntheticObject
from flightsw.objects.transfers import ObjectArrived, ObjectDelivered, TransferEvent, Transfers
from flightsw.wire.bundles import Bundle, decode_bundle, encode_bundle
from flightsw.wire.eids import DTN_NONE, Eid
from flightsw.wire.messages import SERVICE_OBJECT, decode_message, encode_message
from ground.segment import GroundSegment
from hil.channel.impairments import Impairments
from hil.channel.light_time import NS_PER_KM
from hil.channel.link import Link
from hil.channel.relay import Relay
from hil.sim.disk import SimulatedDisk
from hil.sim.loop import VirtualLoop
from hil.sim.streams import Streams

NS_PER_S = 1_000_000_000
RANGE_KM = 1500.0
ALWAYS_NS = 10**9 * NS_PER_S
LIFETIME_MS = 4 * 3_600_000


class Computer:
    """Store, transfers and network of one node."""

    def __init__(self, line: "Line", node: int, interfaces: list[InterfaceConfig]) -> None:
        self.store = ObjectStore(SimulatedDisk(1 << 24, line.streams.random(f"disk/{node}")), 10**15)
        self.transfers = Transfers(self.store, local=node)
        self.events: list[TransferEvent] = []
        self.line, self.timer = line, None
        link = MemoryLink(lambda interface, frame: line.relay.send(node, interface, frame))
        self.agent = BundleAgent(node, line.plan, tuple(interfaces), session_base=1 << 32)
        self.endpoint = Endpoint(line.clock, link, self.agent, self.on_delivery)
        line.relay.attach(node, link.deliver)

    def pump(self) -> None:
        for one in self.transfers.poll(self.line.loop.now_ns):
            self.endpoint.send(
                one.destination,
                SERVICE_OBJECT,
                encode_message(one.message),
                lifetime_ms=LIFETIME_MS,
                priority=one.priority,
                padding_bytes=one.padding_bytes,
            )
        self.events += self.transfers.take_events()
        deadline_ns = self.transfers.next_deadline_ns()
        if deadline_ns is not None:
            self.line.loop.call_at_ns(max(deadline_ns, self.line.loop.now_ns), self.pump)

    def on_delivery(self, delivery: Delivery) -> None:
        message = decode_message(delivery.payload)
        self.transfers.receive(message, delivery.source_node, self.line.loop.now_ns)  # type: ignore[arg-type]
        self.pump()


@dataclass
class Line:
    """Nodes 1, 2, ... in a row, each with a link to the next."""

    rates_bps: list[float]
    loss: float = 0.0
    bit_error_rate: float = 0.0
    coding: str = "cobs-crc32c"
    contacts_s: list[tuple[float, float]] = field(default_factory=lambda: [(0, ALWAYS_NS / NS_PER_S)])
    seed: int = 1

    def __post_init__(self) -> None:
        self.loop = VirtualLoop()
        self.streams = Streams(self.seed)
        self.relay = Relay(self.loop.call_at_ns, lambda: self.loop.now_ns)
        self.clock = LoopClock(lambda: self.loop.now_ns, 1_790_812_800_000_000_000)
        contacts: list[Contact] = []
        light_ns = round(RANGE_KM * NS_PER_KM)
        for near, rate_bps in enumerate(self.rates_bps, 1):
            for start_s, end_s in self.contacts_s:
                times_ns = (round(start_s * NS_PER_S), round(end_s * NS_PER_S))
                contacts.append(Contact(*times_ns, near, 1, near + 1, 0, rate_bps, light_ns))
                contacts.append(Contact(*times_ns, near + 1, 0, near, 1, rate_bps, light_ns))
            impairments = Impairments(rate_bps=rate_bps, loss=self.loss, bit_error_rate=self.bit_error_rate)
            link = Link(f"link-{near}", impairments, self.streams.child("links").random, range_km=RANGE_KM)
            self.relay.connect((near, 1), (near + 1, 0), link)
        self.plan = ContactPlan(contacts)
        interfaces = [InterfaceConfig(index=index, name=str(index), coding=self.coding) for index in (0, 1)]
        self.nodes = [Computer(self, node, interfaces) for node in range(1, len(self.rates_bps) + 2)]

    def carry(self, synthetic: SyntheticObject, limit_s: float, *, is_fetch: bool = False) -> float:
        """From the first node to the last; how long it took [s]."""

        async def travel() -> float:
            first, last = self.nodes[0], self.nodes[-1]
            for node in self.nodes:
                node.endpoint.flush()
            first.store.put_synthetic(synthetic)
            if is_fetch:
                last.transfers.fetch(synthetic.digest, synthetic.size_bytes, 1, 0)
            else:
                first.transfers.push(synthetic.digest, len(self.nodes), 0)
            for node in self.nodes:
                node.pump()
            arrived = ObjectArrived(synthetic.digest, 1)
            while arrived not in last.events:
                await asyncio.sleep(0.1)
                assert self.loop.time() < limit_s, f"not there after {limit_s} s; {last.transfers.counts}"
            arrived_s = self.loop.time()
            await asyncio.sleep(30)
            assert is_fetch or first.events == [ObjectDelivered(synthetic.digest, len(self.nodes))]
            for node in self.nodes:
                await node.endpoint.close()
            return arrived_s

        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            return runner.run(travel())


def test_ten_gigabytes_take_ten_gigabytes_of_link_time_and_next_to_no_work() -> None:
    line = Line([100e6])
    synthetic = SyntheticObject(1, 10_000_000_000)
    seconds = line.carry(synthetic, 900)
    assert seconds == pytest.approx(10e9 * 8 / 100e6, rel=0.02)
    last = line.nodes[-1]
    assert last.store.has(synthetic.digest)
    assert last.store.size_bytes(synthetic.digest) == 10_000_000_000
    assert last.transfers.counts.chunks_received == 9537
    assert last.transfers.counts.chunks_repeated == 0
    assert line.nodes[0].transfers.counts.chunks_sent_again == 0
    assert line.nodes[0].agent.counters.ltp.retransmissions_count == 0
    assert line.loop.callbacks_count < 20 * 9537


def test_a_fetched_synthetic_object_takes_its_time_too() -> None:
    line = Line([1e6])
    assert line.carry(SyntheticObject(2, 3_000_000), 60, is_fetch=True) == pytest.approx(24, rel=0.03)


def test_a_small_synthetic_object_takes_as_long_as_a_real_one() -> None:
    line = Line([1e6])
    seconds = line.carry(SyntheticObject(2, 1 << 20), 30)
    # a real one takes 8.77 s: python benchmarks/delivery.py --only 1024KiB/loss-0%/calm/push
    assert seconds == pytest.approx(8.77, rel=0.05)


def test_every_hop_is_charged_and_the_slowest_decides() -> None:
    line = Line([10e6, 1e6])
    assert line.carry(SyntheticObject(3, 2_000_000), 60) == pytest.approx(16, rel=0.06)
    for forwarder in (line.nodes[0], line.nodes[1]):
        assert forwarder.agent.counters.interfaces[1].frames_sent_count >= 123


def test_a_coding_that_makes_frames_longer_makes_synthetic_ones_longer() -> None:
    plain = Line([1e6]).carry(SyntheticObject(4, 1_000_000), 60)
    coded = Line([1e6], coding="ccsds-rs-5").carry(SyntheticObject(4, 1_000_000), 60)
    assert 1.10 < coded / plain < 1.30  # 255/223, and what fills up the last codewords


@pytest.mark.parametrize(("loss", "bit_error_rate"), [(0.2, 0.0), (0.0, 2e-6)])
def test_noise_strikes_a_synthetic_frame_as_one_of_its_length_and_it_arrives_all_the_same(
    loss: float, bit_error_rate: float
) -> None:
    line = Line([1e6], loss=loss, bit_error_rate=bit_error_rate)
    synthetic = SyntheticObject(5, 6_000_000)
    seconds = line.carry(synthetic, 400)
    count = 367
    struck_share = 1 - (1 - loss) * (1 - bit_error_rate) ** (8 * synthetic.chunk_bytes)
    counts = line.relay.total()
    frames = counts.sent if loss else count + counts.flipped_frames  # noise at this rate spares the short ones
    assert struck_share > 0.19
    assert (counts.lost + counts.flipped_frames) / frames == pytest.approx(struck_share, rel=0.25)
    assert seconds > 48 / (1 - 0.8 * struck_share)
    assert count <= line.nodes[-1].transfers.counts.chunks_received < 1.05 * count


def test_a_chunk_that_would_outlast_the_contact_waits_for_the_next_and_nothing_is_cut_off() -> None:
    line = Line([1e6], contacts_s=[(0, 20), (100, 120), (200, 220), (300, 400)])
    synthetic = SyntheticObject(6, 6_400_000, chunk_bytes=800_000)  # 6.5 s each, so 3 in a contact of 20 s
    seconds = line.carry(synthetic, 400)
    assert 200 < seconds < 220
    assert line.relay.total().blocked() == 0
    for queue in line.nodes[0].agent.queues():  # those that were put back count as if they had never left
        assert queue.pushed_count == queue.taken_count + queue.displaced_count + queue.held_count()
        assert len(queue) == queue.held_count()


def test_padding_travels_in_the_bundle_and_nonsense_is_none() -> None:
    def bundle(data: bytes) -> Bundle:
        block = padding_blocks(1)[0]._replace(data=data)
        return Bundle(Eid(2, 4), Eid(1, 4), DTN_NONE, (1, 1), 1000, b"x", age_ms=0, blocks=(block,))

    (block,) = padding_blocks(123_456)
    assert padding_of(decode_bundle(encode_bundle(bundle(block.data)))) == 123_456
    assert padding_blocks(0) == ()
    for nonsense in (b"", b"\xff", b"\x20", b"\x61x", padding_blocks(PADDING_BYTES_MAX + 1)[0].data):
        assert padding_of(bundle(nonsense)) == 0


@pytest.mark.parametrize(("padding_bytes", "reliable"), [(PADDING_BYTES_MAX + 1, True), (-1, True), (1, False)])
def test_padding_out_of_range_or_of_an_unreliable_bundle_is_refused(padding_bytes: int, reliable: bool) -> None:
    agent = BundleAgent(1, ContactPlan([]), (InterfaceConfig(index=0, name="radio"),), session_base=0)
    with pytest.raises(ConfigError, match=f"bundle padding: {padding_bytes} bytes"):
        agent.send(2, 4, b"x", now_ns=0, utc_ns=0, lifetime_ms=1, reliable=reliable, padding_bytes=padding_bytes)


def test_node_and_ground_declare_the_padding_of_what_transfers_send() -> None:
    synthetic = SyntheticObject(8, 40_000)
    for shell, act in ((Node, Node._pump_transfers), (GroundSegment, GroundSegment._act)):
        store = ObjectStore(SimulatedDisk(1 << 20, Streams(1).random("disk")), 1 << 20)
        store.put_synthetic(synthetic)
        sent: list[int] = []
        stub = MagicMock(spec=shell)
        stub.transfers = Transfers(store, local=1)
        stub.transfers.push(synthetic.digest, 2, 0)
        stub.endpoint = SimpleNamespace(send=lambda *_, padding_bytes, to=sent, **__: to.append(padding_bytes))
        stub.agent = SimpleNamespace(departed=[])
        stub.cluster, stub._clock = MagicMock(), LoopClock(lambda: 0, 0)
        act(stub, 0) if shell is Node else act(stub)
        assert sent == [16_384, 16_384, 7_232]
