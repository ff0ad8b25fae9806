"""Agents joined by a wire that follows the plan, and the plans of two neighbours and of a ring."""

from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from itertools import count
from typing import Any

import pytest

from flightsw.config import InterfaceConfig
from flightsw.net.agent import AgentLimits, BundleAgent, Delivery
from flightsw.net.contacts import Contact, ContactPlan
from flightsw.net.ltp import LtpConfig
from flightsw.wire.framing import coding

SECOND_NS = 1_000_000_000
MS_NS = 1_000_000
UTC_NS = 1_800_000_000 * SECOND_NS
CODING = coding("cobs-crc32c")
LIMITS = AgentLimits(ltp=LtpConfig(margin_ns=200 * MS_NS, retransmissions_max=3))


def contact(
    start_s: float, end_s: float, source: tuple[int, int], target: tuple[int, int], rate_bps: float = 1e6
) -> Contact:
    return Contact(int(start_s * SECOND_NS), int(end_s * SECOND_NS), *source, *target, rate_bps, 5 * MS_NS)


def both_ways(
    start_s: float, end_s: float, one: tuple[int, int], other: tuple[int, int], rate_bps: float = 1e6
) -> list[Contact]:
    return [contact(start_s, end_s, one, other, rate_bps), contact(start_s, end_s, other, one, rate_bps)]


class World:
    """Agents joined by a wire that follows the plan, delays, and loses what `is_lost` says.

    It checks what every transmitter must keep to: inside the contact, and no faster than its rate.
    """

    def __init__(self, contacts: Iterable[Contact], limits: AgentLimits = LIMITS, segment_bytes: int = 1024) -> None:
        self.plan = ContactPlan(contacts)
        self.now_ns = 0
        self.agents: dict[int, BundleAgent] = {}
        self.delivered: dict[int, list[Delivery]] = {}
        self.frames: list[tuple[int, int, int, bytes]] = []
        """(when handed over [ns], node, interface, frame)."""
        self.is_lost: Callable[[int, int], bool] = lambda source, target: False
        self._air: list[tuple[int, int, int, int, bytes]] = []
        self._order = count()
        self._free_ns: dict[tuple[int, int], int] = {}
        self._limits = limits
        self._segment_bytes = segment_bytes
        for node in sorted({one.source for one in self.plan.contacts} | {one.target for one in self.plan.contacts}):
            self.boot(node, 1)

    def boot(self, node: int, boot_count: int) -> None:
        indices = sorted({c.source_interface for c in self.plan.contacts if c.source == node}) or [0]
        interfaces = tuple(
            InterfaceConfig(index=i, name=f"if{i}", coding=CODING.name, segment_bytes=self._segment_bytes)
            for i in indices
        )
        self.agents[node] = BundleAgent(node, self.plan, interfaces, boot_count << 24, self._limits)
        self.delivered.setdefault(node, [])

    def send(self, source: int, destination: int, payload: bytes, lifetime_s: float = 600, **options: object) -> None:
        agent = self.agents[source]
        agent.send(
            destination, 5, payload, now_ns=self.now_ns, utc_ns=UTC_NS, lifetime_ms=int(lifetime_s * 1000), **options
        )  # type: ignore[arg-type]

    def run(self, until_s: float) -> None:
        until_ns = int(until_s * SECOND_NS)
        for _ in range(100_000):
            self._serve()
            times = [at for agent in self.agents.values() if (at := agent.next_deadline_ns()) is not None]
            times += [self._air[0][0]] if self._air else []
            if not times or min(times) > until_ns:
                self.now_ns = until_ns
                return
            assert min(times) > self.now_ns or self._air, "an agent asks for now again and again"
            self.now_ns = max(self.now_ns, min(times))
            while self._air and self._air[0][0] <= self.now_ns:
                _, _, node, interface, frame = heappop(self._air)
                self.agents[node].receive_frame(interface, frame, self.now_ns)
        pytest.fail("it never falls silent")

    def _serve(self) -> None:
        for node, agent in self.agents.items():
            for interface, frame in agent.pump(self.now_ns):
                self._carry(node, interface, bytes(frame))
            self.delivered[node] += agent.take_deliveries()

    def _carry(self, node: int, interface: int, frame: bytes) -> None:
        self.frames.append((self.now_ns, node, interface, frame))
        open_contact = self.plan.at(node, interface, self.now_ns)
        assert open_contact is not None, "a frame outside of contact"
        start_ns = max(self.now_ns, self._free_ns.get((node, interface), 0))
        ends_ns = start_ns + int(len(frame) * 8e9 / open_contact.rate_bps)
        frame_ns_max = int(1.2 * self._segment_bytes * 8e9 / open_contact.rate_bps) + MS_NS
        assert start_ns - self.now_ns <= max(20 * MS_NS, 2 * frame_ns_max), "a flood ahead of the transmitter"
        assert ends_ns <= open_contact.end_ns, "a frame that the end of contact cuts off"
        self._free_ns[node, interface] = ends_ns
        if not self.is_lost(node, open_contact.target):
            at_ns = ends_ns + open_contact.light_time_ns
            entry = (at_ns, next(self._order), open_contact.target, open_contact.target_interface, frame)
            heappush(self._air, entry)

    def payloads(self, node: int) -> list[bytes]:
        return [delivery.payload for delivery in self.delivered[node]]


def pair(start_s: float = 0, end_s: float = 1000, rate_bps: float = 1e6) -> list[Contact]:
    return both_ways(start_s, end_s, (1, 0), (2, 0), rate_bps)


def ring(nodes: int, end_s: float = 1000) -> list[Contact]:
    """Nodes 1 to n, interface 1 toward the next and 2 toward the one before."""
    contacts = []
    for node in range(1, nodes + 1):
        contacts += both_ways(0, end_s, (node, 1), (node % nodes + 1, 2))
    return contacts


@pytest.fixture(scope="session")
def make_world() -> Callable[..., Any]:
    return World


@pytest.fixture(scope="session", name="both_ways")
def _both_ways() -> Callable[..., list[Contact]]:
    return both_ways


@pytest.fixture(scope="session", name="pair")
def _pair() -> Callable[..., list[Contact]]:
    return pair


@pytest.fixture(scope="session", name="ring")
def _ring() -> Callable[..., list[Contact]]:
    return ring
