"""Two computers and the link between them in virtual time, for one object to travel through. Used by `delivery.py`.

All layers are the product's: transfers, bundles, LTP, frames, channel; disks forget at a power cut what real ones may.
Both ends know a contact that never ends: the outages are not in the plan.
"""

import asyncio
from dataclasses import dataclass
from typing import Final

from boards.simulated.clock import LoopClock
from flightsw.config import InterfaceConfig
from flightsw.link.memory import MemoryLink
from flightsw.net.agent import BundleAgent
from flightsw.net.agent_values import Delivery
from flightsw.net.contacts import Contact, ContactPlan
from flightsw.net.endpoint import Endpoint
from flightsw.objects.digest import digest_of
from flightsw.objects.store import ObjectStore
from flightsw.objects.transfers import ObjectArrived, ObjectDelivered, TransferEvent, Transfers
from flightsw.wire.messages import SERVICE_OBJECT, decode_message, encode_message
from hil.channel.impairments import Impairments
from hil.channel.light_time import NS_PER_KM
from hil.channel.link import Link
from hil.channel.relay import Relay
from hil.sim.disk import SimulatedDisk
from hil.sim.fence import fence
from hil.sim.loop import VirtualLoop
from hil.sim.streams import Streams

NS_PER_S: Final = 1_000_000_000
EPOCH_UTC_NS: Final = 1_790_812_800_000_000_000  # 2026-10-01T00:00:00Z
GROUND, SAT = 1, 2
RATE_BPS: Final = 1_000_000.0
RANGE_KM: Final = 1500.0
SEGMENT_BYTES: Final = 1024
REBOOT_S: Final = 30.0
DISK_BYTES: Final = 64 << 20
MESSAGE_LIFETIME_MS: Final = 4 * 3_600_000
"""As nodes and ground give their object messages [ms]."""
LIMIT_S: Final = 86_400.0
"""When a run is given up [s]: a day after the last trouble."""
PLAN_END_NS: Final = 10**9 * NS_PER_S


@dataclass(frozen=True)
class Case:
    """What happens to one object on its way."""

    size_bytes: int
    loss: float = 0.0
    bit_error_rate: float = 0.0
    outage_s: float = 0.0
    reboot: str = ""
    """Which end loses power amid the transfer: sender, receiver or neither."""
    is_fetch: bool = False
    """Whether the receiver asks for the object, or the sender pushes it."""

    @property
    def channel(self) -> str:
        """What the link does to frames, in words."""
        if self.bit_error_rate:
            return f"ber-{self.bit_error_rate:.0e}"
        return f"loss-{100 * self.loss:.0f}%"

    @property
    def trouble(self) -> str:
        """What else happens, in words."""
        if self.reboot:
            return f"reboot-{self.reboot}"
        return f"outage-{self.outage_s:.0f}s" if self.outage_s else "calm"

    @property
    def name(self) -> str:
        """What `--only` calls it."""
        return f"{self.size_bytes // 1024}KiB/{self.channel}/{self.trouble}/{'fetch' if self.is_fetch else 'push'}"


@dataclass(frozen=True)
class Outcome:
    """How one run ended."""

    finished: bool
    """Whether the receiver has the very bytes, and who asked was told so."""
    seconds: float
    """Virtual time from the first to the last [s]."""
    frames: int
    """Frames sent while the link was up."""
    damaged: int
    """Those among them that were lost, or arrived with flipped bits."""
    blocked: int
    """Frames sent into an outage."""
    bytes_sent: int
    """Of all frames [bytes]."""
    detail: str = ""


class Computer:
    """One end: disk, store, transfers and network, from a boot to the next."""

    def __init__(self, world: "World", node: int) -> None:
        self.disk = SimulatedDisk(DISK_BYTES, world.streams.random(f"disk/{node}"))
        self.events: list[TransferEvent] = []
        self._world = world
        self._node = node
        self._boots_count = 0
        self._timer: asyncio.TimerHandle | None = None
        self._is_on = False
        self.boot()

    def boot(self) -> None:
        """Power on: everything anew but the disk."""
        world, node = self._world, self._node
        self._boots_count += 1
        self._is_on = True
        self.store = ObjectStore(self.disk, DISK_BYTES // 2)
        self.transfers = Transfers(self.store, local=node)
        agent = BundleAgent(
            node,
            world.plan,
            (InterfaceConfig(index=0, name="radio", segment_bytes=SEGMENT_BYTES),),
            session_base=self._boots_count << 32,
        )
        link = MemoryLink(lambda interface, frame: world.relay.send(node, interface, frame))
        self._endpoint = Endpoint(world.clock, link, agent, self._on_delivery)
        world.relay.attach(node, link.deliver)
        self._endpoint.flush()
        self.pump()

    def cut(self) -> None:
        """Power off."""
        self._is_on = False
        self._world.relay.detach(self._node)
        asyncio.get_running_loop().create_task(self._endpoint.close())
        if self._timer is not None:
            self._timer.cancel()
        self.disk.power_cut()

    def pump(self) -> None:
        """Send what transfers want sent, and see to it that they are asked again in time."""
        loop = self._world.loop
        for one in self.transfers.poll(loop.now_ns):
            self._endpoint.send(
                one.destination,
                SERVICE_OBJECT,
                encode_message(one.message),
                lifetime_ms=MESSAGE_LIFETIME_MS,
                priority=one.priority,
                padding_bytes=one.padding_bytes,
            )
        self.events += self.transfers.take_events()
        deadline_ns = self.transfers.next_deadline_ns()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if deadline_ns is None else loop.call_at_ns(max(deadline_ns, loop.now_ns), self._on_timer)

    def _on_timer(self) -> None:
        if self._is_on:
            self.pump()

    def _on_delivery(self, delivery: Delivery) -> None:
        if self._is_on:
            message = decode_message(delivery.payload)
            self.transfers.receive(message, delivery.source_node, self._world.loop.now_ns)  # type: ignore[arg-type]
            self.pump()


class World:
    """Both ends, the link and one object."""

    def __init__(self, case: Case, seed: int) -> None:
        self.case = case
        self.loop = VirtualLoop()
        self.streams = Streams(seed).child(case.name)
        self.relay = Relay(self.loop.call_at_ns, lambda: self.loop.now_ns)
        self.clock = LoopClock(lambda: self.loop.now_ns, EPOCH_UTC_NS)
        light_ns = round(RANGE_KM * NS_PER_KM)
        self.plan = ContactPlan(
            [Contact(0, PLAN_END_NS, a, 0, b, 0, RATE_BPS, light_ns) for a, b in ((GROUND, SAT), (SAT, GROUND))]
        )
        impairments = Impairments(
            rate_bps=RATE_BPS, loss=case.loss, bit_error_rate=case.bit_error_rate, queue_frames_max=65_536
        )
        self.link = Link("link", impairments, self.streams.child("link").random, range_km=RANGE_KM)
        self.relay.connect((GROUND, 0), (SAT, 0), self.link)

    def run(self) -> Outcome:
        """Let the object travel."""
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner, fence(self.loop):
            return runner.run(self._travel())

    async def _travel(self) -> Outcome:
        case = self.case
        data = self.streams.bytes("object", case.size_bytes)
        digest = digest_of(data)
        sender, receiver = Computer(self, GROUND), Computer(self, SAT)
        sender.store.put(data)
        if case.is_fetch:
            receiver.transfers.fetch(digest, case.size_bytes, GROUND, 0, durable=True)
        else:
            sender.transfers.push(digest, SAT, 0, durable=True)
        sender.pump()
        receiver.pump()
        chance = self.streams.random("trouble")
        await asyncio.sleep((0.2 + 0.6 * chance.random()) * case.size_bytes * 8 / RATE_BPS)
        if case.outage_s:
            now_ns = self.loop.now_ns
            self.link.add_outage(now_ns, now_ns + round(case.outage_s * NS_PER_S))
        if case.reboot:
            struck = sender if case.reboot == "sender" else receiver
            struck.cut()
            await asyncio.sleep(REBOOT_S)
            struck.boot()
        limit_s = self.loop.time() + case.outage_s + LIMIT_S
        asked, expected = (receiver, ObjectArrived) if case.is_fetch else (sender, ObjectDelivered)
        while not any(isinstance(event, expected) for event in asked.events) and self.loop.time() < limit_s:
            await asyncio.sleep(0.1)
        told = any(isinstance(event, expected) for event in asked.events)
        whole = receiver.store.has(digest) and receiver.store.get(digest) == data
        total = self.relay.total()
        seconds = self.loop.time()
        detail = "" if told and whole else f"told {told}, whole {whole}, events {sender.events + receiver.events}"
        for end in (sender, receiver):
            end.cut()
        return Outcome(
            finished=told and whole,
            seconds=seconds,
            frames=total.sent - total.blocked(),
            damaged=total.lost + total.flipped_frames,
            blocked=total.blocked(),
            bytes_sent=round(total.delivered_bytes * total.sent / max(1, total.delivered)),
            detail=detail,
        )
