"""The shell of the bundle agent in asyncio's time: answers leave at once, and a contact begins by itself."""

import asyncio
from collections.abc import Callable

import pytest

from flightsw.config import InterfaceConfig
from flightsw.link.memory import MemoryLink
from flightsw.net.agent import BundleAgent, Delivery
from flightsw.net.contacts import Contact, ContactPlan
from flightsw.net.endpoint import Endpoint
from flightsw.wire.framing import coding

SECOND_NS = 1_000_000_000
UTC_NS = 1_800_000_000 * SECOND_NS
CODING = coding("cobs-crc32c")


class LoopClock:
    """Both kinds of time from the running loop."""

    def monotonic_ns(self) -> int:
        return int(asyncio.get_running_loop().time() * 1e9)

    def utc_ns(self) -> int:
        return UTC_NS + self.monotonic_ns()


@pytest.mark.parametrize(("is_echoing", "sent_counts"), [(True, [3, 3]), (False, [2, 1])])
async def test_two_endpoints_talk_over_a_wire_that_answers_at_once(
    pair: Callable[..., list[Contact]], is_echoing: bool, sent_counts: list[int]
) -> None:
    start_s = LoopClock().monotonic_ns() / 1e9
    plan = ContactPlan(pair(start_s - 10, start_s + 1000, rate_bps=1e9))
    interfaces = (InterfaceConfig(index=0, name="radio", coding=CODING.name),)
    received: list[Delivery] = []
    ends: dict[int, Endpoint] = {}
    links = {
        1: MemoryLink(lambda interface, frame: links[2].deliver(interface, frame)),
        2: MemoryLink(lambda interface, frame: links[1].deliver(interface, frame)),
    }

    def echo(delivery: Delivery) -> None:
        if is_echoing:
            ends[2].send(delivery.source_node, 6, delivery.payload.upper(), lifetime_ms=1000)

    services: dict[int, Callable[[Delivery], None]] = {1: received.append, 2: echo}
    for node, link in links.items():
        ends[node] = Endpoint(LoopClock(), link, BundleAgent(node, plan, interfaces, 1 << 24), services[node])
        ends[node].flush()
    ends[1].send(2, 5, b"ping", lifetime_ms=1000)
    assert [(delivery.service, delivery.payload) for delivery in received] == [(6, b"PING")] * is_echoing
    # Data, reports and acknowledgements: none of them waits for a timer.
    assert [end.agent.counters.ltp.segments_sent_count for end in ends.values()] == sent_counts
    for end in ends.values():
        await end.close()
    ends[1].agent.send(2, 5, b"late", now_ns=0, utc_ns=0, lifetime_ms=1000)
    ends[1].flush()
    assert len(received) == is_echoing


async def test_the_timer_begins_a_contact_without_any_call(pair: Callable[..., list[Contact]]) -> None:
    start_s = LoopClock().monotonic_ns() / 1e9
    plan = ContactPlan(pair(start_s + 0.02, start_s + 1000))
    interfaces = (InterfaceConfig(index=0, name="radio", coding=CODING.name),)
    sent: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    link = MemoryLink(lambda interface, frame: sent.set_result(bytes(frame)))
    end = Endpoint(LoopClock(), link, BundleAgent(1, plan, interfaces, 1 << 24), lambda delivery: None)
    end.send(2, 5, b"when contact begins", lifetime_ms=60_000, reliable=False)
    assert not sent.done()
    assert b"when contact begins" in await asyncio.wait_for(sent, 5)
    await end.close()
