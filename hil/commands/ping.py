"""`flatrack ping`: ask the echo service of a node, by way of a running ground or as a small LTP node of our own."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import click

from flightsw.config import InterfaceConfig
from flightsw.errors import ConfigError, ControlError
from flightsw.host.clock import HostClock
from flightsw.host.control import connect
from flightsw.host.loop import PacedLoop
from flightsw.link.udp import LTP_PORT, Address, UdpLink, UdpPort, udp_address
from flightsw.net.agent import BundleAgent, Delivery
from flightsw.net.contacts import Contact, ContactPlan
from flightsw.net.echo import ECHO_SERVICE, PING_SERVICE
from flightsw.net.endpoint import Endpoint
from flightsw.net.ping import PING_BYTES, PING_BYTES_MAX, PING_BYTES_MIN, PingStatistics
from flightsw.wire.datagrams import LTP_UDP
from flightsw.wire.eids import Eid, parse_eid
from ground.ping import Pinger

RATE_BPS: Final = 10_000_000.0
"""Rate that our own node keeps to [bit/s]: pings are small, and a network of Ethernet takes it."""

FOREVER_NS: Final = 1 << 62
"""End of the contact of our own node [ns since 1970]: in the year 2116."""

EXIT_FAIL: Final = 1

Ask = Callable[[float], Awaitable[tuple[int, int] | None]]
"""Sends one ping and waits so long [s]; gives (bytes, round trip [ns]) of the answer."""


@click.command(name="ping")
@click.argument("endpoint")
@click.option("--control", type=click.Path(path_type=Path), help="Ask the ground with this control socket.")
@click.option("--udp", "peer", metavar="HOST:PORT", help="Be an LTP node, with a neighbour that listens there.")
@click.option("--node", type=click.IntRange(min=1), default=99, show_default=True, help="Our own node number (--udp).")
@click.option("--via", type=click.IntRange(min=1), help="Node number of the neighbour (--udp); else the one we ask.")
@click.option("--local", default=f"0.0.0.0:{LTP_PORT}", show_default=True, help="Where we listen (--udp).")
@click.option("-c", "--count", type=click.IntRange(1, 100_000), default=4, show_default=True, help="Pings to send.")
@click.option("-i", "--interval", "interval_s", type=click.FloatRange(0.01, 3600), default=1.0, show_default=True)
@click.option("-s", "--size", "size_bytes", type=click.IntRange(PING_BYTES_MIN, PING_BYTES_MAX), default=PING_BYTES)
@click.option(
    "-W",
    "--wait",
    "wait_s",
    type=click.FloatRange(0.1, 86_400),
    default=10.0,
    show_default=True,
    help="How long to wait for each answer [s].",
)
def ping_command(
    endpoint: str,
    control: Path | None,
    peer: str | None,
    node: int,
    via: int | None,
    local: str,
    count: int,
    interval_s: float,
    size_bytes: int,
    wait_s: float,
) -> None:
    """Ask an ENDPOINT for echoes: ipn:NODE.SERVICE, or a node number or, with --control, a name for its echo service.

    Ends with 0 when at least one answer came, 1 when none did.
    """
    if (control is None) is (peer is None):
        raise ConfigError("ping: expected either --control SOCKET or --udp HOST:PORT")
    statistics = PingStatistics()

    async def pings(ask: Ask) -> None:
        await _ping(endpoint, ask, statistics, count, interval_s, wait_s)

    try:
        if control is not None:
            asyncio.run(_by_control(control, endpoint, size_bytes, pings))
        else:
            target = _target(endpoint)
            port = UdpPort(udp_address(local, "local", 0), _peer(peer or ""))
            with asyncio.Runner(loop_factory=lambda: PacedLoop(0)) as runner:
                runner.run(_by_udp(port, node, via or target.node, target, size_bytes, pings))
    finally:
        for line in statistics.lines() if statistics.sent_count else ():
            click.echo(line)
    if not statistics.rtts_ns:
        sys.exit(EXIT_FAIL)


async def _ping(
    endpoint: str, ask: Ask, statistics: PingStatistics, count: int, interval_s: float, wait_s: float
) -> None:
    """Send pings at the interval, whatever has become of the earlier ones, and print what comes of each."""

    async def one(sequence: int) -> None:
        answer = await ask(wait_s)
        if answer is None:
            click.echo(f"seq={sequence}: no answer within {wait_s:g} s")
        else:
            size_bytes, rtt_ns = answer
            statistics.rtts_ns.append(rtt_ns)
            click.echo(f"{size_bytes} bytes from {endpoint}: seq={sequence} time={rtt_ns / 1e6:.1f} ms")

    try:
        async with asyncio.TaskGroup() as tasks:
            for sequence in range(1, count + 1):
                statistics.sent_count += 1
                tasks.create_task(one(sequence))
                if sequence < count:
                    await asyncio.sleep(interval_s)
    except* ControlError as errors:
        raise ConfigError(str(errors.exceptions[0])) from None


async def _by_control(control: Path, endpoint: str, size_bytes: int, pings: Callable[[Ask], Awaitable[None]]) -> None:
    """By way of the ground that listens at a socket."""
    is_name = not endpoint.isdecimal() and not endpoint.startswith("ipn:")
    target = Eid(0, ECHO_SERVICE) if is_name else _target(endpoint)
    peer = await connect(control, {})

    async def ask(wait_s: float) -> tuple[int, int] | None:
        node = endpoint if is_name else target.node
        answer = await peer.call("ping", node, target.service, size_bytes, wait_s)
        return None if answer is None else (answer["bytes"], answer["rtt_ns"])

    try:
        await pings(ask)
    finally:
        peer.close()


async def _by_udp(
    port: UdpPort, node: int, via: int, target: Eid, size_bytes: int, pings: Callable[[Ask], Awaitable[None]]
) -> None:
    """As a node of our own, with one neighbour."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, PacedLoop), "the runner was given it"
    if node in (via, target.node):
        raise ConfigError(f"ping: --node {node} is the node that is asked, or its neighbour; expected another")
    hops = [(node, via)] if via == target.node else [(node, via), (via, target.node)]
    plan = ContactPlan(
        Contact(0, FOREVER_NS, one, 0, other, 0, RATE_BPS, 0) for hop in hops for one, other in (hop, hop[::-1])
    )
    link = UdpLink({0: port})
    await link.open()
    clock = HostClock(loop, 0)
    interface = InterfaceConfig(index=0, name="udp", coding=LTP_UDP.name)
    # The real time begins the numbers, so that no later ping of this node number repeats one.
    agent = BundleAgent(node, plan, (interface,), session_base=loop.now_ns)

    def on_delivery(delivery: Delivery) -> None:
        if delivery.service == PING_SERVICE:
            pinger.receive(delivery)

    endpoint = Endpoint(clock, link, agent, on_delivery)
    pinger = Pinger(endpoint, clock)

    async def ask(wait_s: float) -> tuple[int, int] | None:
        reply = await pinger.ping(target.node, service=target.service, size_bytes=size_bytes, wait_s=wait_s)
        return None if reply is None else (reply.size_bytes, reply.rtt_ns)

    try:
        endpoint.flush()
        await pings(ask)
    finally:
        await endpoint.close()


def _target(text: str) -> Eid:
    """The endpoint in `ipn:3.7`, or the echo service of the node in `3`."""
    if text.isdecimal():
        return Eid(int(text), ECHO_SERVICE)
    endpoint = parse_eid(text)
    if endpoint.node == 0:
        raise ConfigError(f"endpoint {text!r}: expected a node of its own, for example ipn:3.{ECHO_SERVICE}")
    return endpoint


def _peer(text: str) -> Address:
    return udp_address(text, "--udp", 1)
