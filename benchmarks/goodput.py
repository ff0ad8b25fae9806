"""Goodput of whole bundles through noise, against line rate and theory; and what the relay adds in real time.

    python benchmarks/goodput.py [--seconds 30] [--real-seconds 10] [--soak-minutes 60] [--chart FILE] [--json FILE]

Goodput is payload delivered to a service, as a share of the bits that the line could carry in that time. Payloads of
16,000 bytes go one way as reliable bundles, reports come back, everything is sent again that is lost.

Theory: a segment of up to 1024 bytes is in a frame of n coded bytes that holds with chance p, and is sent 1/p times, so

    goodput = payload / sum over segments of n / p
    p = (1 - BER)^(8 n)                                        COBS and CRC-32C: every bit must be right
    p = product over code words of P(at most 16 symbols wrong)  Reed-Solomon; a symbol is wrong with 1 - (1 - BER)^8

It counts no reports, no checkpoints sent again and no waiting: what is lost to those is the distance to it.
"""

import argparse
import asyncio
import time
from dataclasses import dataclass
from math import comb
from pathlib import Path
from random import Random
from typing import Final

from goodput_chart import Curve, write_chart
from report import Report

from boards.simulated.clock import LoopClock
from flightsw.config import InterfaceConfig
from flightsw.host.loop import PacedLoop
from flightsw.link.memory import MemoryLink
from flightsw.link.serial import SerialLink
from flightsw.link.urls import open_link
from flightsw.net.agent import AgentLimits, BundleAgent, Delivery
from flightsw.net.contacts import Contact, ContactPlan
from flightsw.net.endpoint import Endpoint
from flightsw.wire.framing import coding
from flightsw.wire.reed_solomon import DATA_BYTES, ERRORS_MAX, PARITY_BYTES
from hil.channel.impairments import Impairments
from hil.channel.link import Link
from hil.channel.relay import Relay
from hil.channel.wires import PtyWire
from hil.sim.loop import VirtualLoop

NS_PER_S: Final = 1_000_000_000
RATE_BPS: Final = 1e6
LIGHT_TIME_NS: Final = 5_000_000
PAYLOAD_BYTES: Final = 16_000
SEGMENT_BYTES: Final = 1024
BUNDLE_HEADERS_BYTES: Final = 78
SEGMENT_HEADERS_BYTES: Final = 12
"""Around a payload and before a segment's data, with numbers as they are here."""
SPACE_FRAMING_BYTES: Final = 6
"""Length and CRC within the code words. Source: flightsw/wire/space_coding.py."""
CODINGS: Final = ("cobs-crc32c", "ccsds-rs-1")
SYNTHETIC_RATES: Final = (1e-8, 1e-7, 1e-6, 1e-5, 3e-5, 1e-4, 2e-4, 3e-4, 5e-4, 1e-3, 2e-3, 3e-3, 5e-3, 7e-3, 1e-2)
GOALS: Final = {("cobs-crc32c", 1e-7): "> 85", ("ccsds-rs-1", 1e-3): "> 75"}
NEAR: Final = 1
FAR: Final = 2
SERVICE: Final = 4
SETTLING_S: Final = 10.0
"""Not counted: the first payloads are still on their way [s]."""
REAL_SETTLING_S: Final = 1.0
"""The same without noise to speak of."""
LATENCY_FRAMES: Final = 500
LATENCY_PERIOD_S: Final = 0.01
SOAK_RATE_BPS: Final = 100_000.0
SOAK_PAYLOAD_BYTES: Final = 1000
SOAK_LIFETIME_MS: Final = 120_000
SOAK_QUEUE_BUNDLES: Final = 256
SOAK_QUEUE_FRAMES: Final = 64
SOAK_LOAD: Final = 2.0


@dataclass
class Ends:
    """Two endpoints on a relay, and what has arrived at the far one."""

    near: Endpoint
    far: Endpoint
    relay: Relay
    delivered_bytes: int = 0
    delivered_count: int = 0

    def take(self, delivery: Delivery) -> None:
        """A payload has arrived."""
        self.delivered_bytes += len(delivery.payload)
        self.delivered_count += 1

    def send(self, count: int, payload_bytes: int = PAYLOAD_BYTES, lifetime_ms: int = 3_600_000) -> None:
        """Let the near end send payloads."""
        for _ in range(count):
            self.near.send(FAR, SERVICE, bytes(payload_bytes), lifetime_ms=lifetime_ms, reliable=True)


def plan(rate_bps: float) -> ContactPlan:
    """Both ends see each other all the time."""
    pairs = ((NEAR, FAR), (FAR, NEAR))
    return ContactPlan(Contact(0, 10**15, one, 0, other, 0, rate_bps, LIGHT_TIME_NS) for one, other in pairs)


def line(ber: float, rate_bps: float, seed: int, queue_frames_max: int = 512) -> Link:
    """The line: its rate, its light time, its noise; both ways the same."""
    impairments = Impairments(rate_bps=rate_bps, bit_error_rate=ber, queue_frames_max=queue_frames_max)
    return Link("line", impairments, lambda name: Random(f"{seed}/{name}"), range_km=LIGHT_TIME_NS * 299_792.458 / 1e9)


def agent(node: int, name: str, rate_bps: float, queue_bundles_max: int = 4096) -> BundleAgent:
    """A bundle agent with one interface."""
    interface = InterfaceConfig(
        index=0, name="line", coding=name, segment_bytes=SEGMENT_BYTES, queue_bundles_max=queue_bundles_max
    )
    return BundleAgent(node, plan(rate_bps), (interface,), 1 << 32, AgentLimits())


def virtual_ends(name: str, ber: float, rate_bps: float, seed: int, queues: tuple[int, int] = (4096, 512)) -> Ends:
    """Both ends in one process, in virtual time."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    clock = LoopClock(lambda: loop.now_ns, 1_700_000_000 * NS_PER_S)
    relay = Relay(loop.call_at_ns, lambda: loop.now_ns)
    links = {node: MemoryLink(lambda index, frame, node=node: relay.send(node, index, frame)) for node in (NEAR, FAR)}
    ends: Ends

    near = Endpoint(clock, links[NEAR], agent(NEAR, name, rate_bps, queues[0]), lambda delivery: None)
    far = Endpoint(clock, links[FAR], agent(FAR, name, rate_bps), lambda delivery: ends.take(delivery))
    ends = Ends(near, far, relay)
    for node, link in links.items():
        relay.attach(node, link.deliver)
    relay.connect((NEAR, 0), (FAR, 0), line(ber, rate_bps, seed, queues[1]))
    near.flush()
    far.flush()
    return ends


# -- goodput in virtual time


async def virtual_goodput(name: str, ber: float, seconds: float) -> float:
    """Share of the line rate that arrives as payload."""
    ends = virtual_ends(name, ber, RATE_BPS, 1)
    ends.send(1 + round((SETTLING_S + seconds) * RATE_BPS / 8 / PAYLOAD_BYTES))
    await asyncio.sleep(SETTLING_S)
    before_bytes = ends.delivered_bytes
    await asyncio.sleep(seconds)
    share = 8 * (ends.delivered_bytes - before_bytes) / (RATE_BPS * seconds)
    await ends.near.close()
    await ends.far.close()
    return share


def theory(name: str, ber: float) -> float:
    """The same by the formula in the module's text."""
    line_bytes, left_bytes = 0.0, BUNDLE_HEADERS_BYTES + PAYLOAD_BYTES
    while left_bytes:
        piece_bytes = min(SEGMENT_BYTES, left_bytes)
        left_bytes -= piece_bytes
        coded_bytes = len(coding(name).encode(Random(1).randbytes(SEGMENT_HEADERS_BYTES + piece_bytes)))
        line_bytes += coded_bytes / chance_to_hold(name, SEGMENT_HEADERS_BYTES + piece_bytes, coded_bytes, ber)
    return PAYLOAD_BYTES / line_bytes


def chance_to_hold(name: str, segment_bytes: int, coded_bytes: int, ber: float) -> float:
    """Chance that a frame is delivered."""
    if name == "cobs-crc32c":
        return float((1 - ber) ** (8 * coded_bytes))
    wrong = 1 - (1 - ber) ** 8
    words_count, rest = divmod(segment_bytes + SPACE_FRAMING_BYTES, DATA_BYTES)
    words = [DATA_BYTES + PARITY_BYTES] * words_count + ([rest + PARITY_BYTES] if rest else [])
    holds = 1.0
    for symbols in words:
        few = range(ERRORS_MAX + 1)
        holds *= sum(comb(symbols, count) * wrong**count * (1 - wrong) ** (symbols - count) for count in few)
    return holds


def sweep(report: Report, seconds: float) -> list[Curve]:
    """Goodput over bit error rates, in virtual time."""
    curves = []
    for name in CODINGS:
        measured = []
        for ber in SYNTHETIC_RATES:
            with asyncio.Runner(loop_factory=VirtualLoop) as runner:
                share = runner.run(virtual_goodput(name, ber, seconds))
            expected = theory(name, ber)
            report.add(f"{name} at BER {ber:g}: goodput", 100 * share, "% of line rate", GOALS.get((name, ber), ""))
            if expected > 0.01:
                report.add(
                    f"{name} at BER {ber:g}: over theory", share / expected, f"({100 * expected:.1f} % in theory)"
                )
            measured.append((ber, share))
        fine = [10 ** (-8 + step / 40) for step in range(241)]
        curves.append(Curve(name, tuple(measured), tuple((ber, theory(name, ber)) for ber in fine)))
    return curves


# -- over pseudo-terminals, in real time


class Ptys:
    """Two nodes' ends of pseudo-terminals, and a relay between the other ends. Needs a running `PacedLoop`."""

    def __init__(self, ber: float, rate_bps: float) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, PacedLoop)
        self.loop = loop
        self.relay = Relay(loop.call_at_ns, lambda: loop.now_ns)
        self.wires = {node: PtyWire() for node in (NEAR, FAR)}
        self.links: dict[int, SerialLink] = {}
        for node, wire in self.wires.items():
            wire.on_frame = lambda index, frame, node=node: self.relay.send(node, index, frame)  # type: ignore[misc]
            self.relay.attach(node, wire.deliver)
        self.relay.connect((NEAR, 0), (FAR, 0), line(ber, rate_bps, 1))

    async def open(self) -> None:
        """Open the nodes' ends."""
        for node, wire in self.wires.items():
            link = await open_link(wire.url)
            assert isinstance(link, SerialLink)
            await link.wait_connected()
            self.links[node] = link

    async def close(self) -> None:
        """Give all back."""
        for node, link in self.links.items():
            self.relay.detach(node)  # what is still on its way has nobody to go to
            await link.close()
        for wire in self.wires.values():
            wire.close()


async def real_goodput(seconds: float) -> float:
    """The same over pseudo-terminals in real time, COBS and CRC-32C at a bit error rate of 1e-7."""
    ptys = Ptys(1e-7, RATE_BPS)
    await ptys.open()
    clock = LoopClock(lambda: ptys.loop.now_ns, 1_700_000_000 * NS_PER_S)
    ends: Ends
    near = Endpoint(clock, ptys.links[NEAR], agent(NEAR, CODINGS[0], RATE_BPS), lambda delivery: None)
    far = Endpoint(clock, ptys.links[FAR], agent(FAR, CODINGS[0], RATE_BPS), lambda delivery: ends.take(delivery))
    ends = Ends(near, far, ptys.relay)
    near.flush()
    far.flush()
    ends.send(1 + round((REAL_SETTLING_S + seconds) * RATE_BPS / 8 / PAYLOAD_BYTES))
    await asyncio.sleep(REAL_SETTLING_S)
    before_bytes, start_ns = ends.delivered_bytes, ptys.loop.now_ns
    await asyncio.sleep(seconds)
    share = 8 * (ends.delivered_bytes - before_bytes) / (RATE_BPS * (ptys.loop.now_ns - start_ns) / NS_PER_S)
    await near.close()
    await far.close()
    await ptys.close()
    return share


async def latencies_s(frames_count: int) -> list[float]:
    """How much later than the link says frames arrive over two pseudo-terminals and the relay [s], sorted."""
    ptys = Ptys(0.0, 1e8)
    await ptys.open()
    frame = coding(CODINGS[0]).encode(bytes(200))
    due_ns = LIGHT_TIME_NS + int(len(frame) * 8e9 / 1e8)
    sent_ns: list[int] = []
    late_s: list[float] = []
    all_here = asyncio.Event()

    def received(interface: int, arrived: object) -> None:
        late_s.append((time.monotonic_ns() - sent_ns[len(late_s)] - due_ns) / NS_PER_S)
        if len(late_s) == frames_count:
            all_here.set()

    ptys.links[FAR].set_receiver(received)
    for _ in range(frames_count):
        sent_ns.append(time.monotonic_ns())
        ptys.links[NEAR].send(0, frame)
        await asyncio.sleep(LATENCY_PERIOD_S)
    await asyncio.wait_for(all_here.wait(), 30)
    await ptys.close()
    return sorted(late_s)


def in_real_time(report: Report, seconds: float) -> None:
    """What pseudo-terminals, the relay and a real clock do to both."""
    zero_utc_ns = time.time_ns()
    with asyncio.Runner(loop_factory=lambda: PacedLoop(zero_utc_ns)) as runner:
        share = runner.run(real_goodput(seconds))
        report.add(f"{CODINGS[0]} at BER 1e-07 over pseudo-terminals: goodput", 100 * share, "% of line rate", "> 85")
        report.add("the same, over theory", share / theory(CODINGS[0], 1e-7), "times")
        late_s = runner.run(latencies_s(LATENCY_FRAMES))
    for percent in (50, 99):
        value = late_s[min(len(late_s) - 1, len(late_s) * percent // 100)]
        report.add(f"later than the link says, two pseudo-terminals and the relay: p{percent}", 1e3 * value, "ms")
    report.add("frames that came too early", sum(late < 0 for late in late_s), "frames", "0")


# -- an hour of twice too much


async def overload(minutes: int) -> dict[str, float]:
    """Send twice what the line takes for so long, then let the queues run empty; counts of all bundles."""
    limits = (SOAK_QUEUE_BUNDLES, SOAK_QUEUE_FRAMES)
    ends = virtual_ends(CODINGS[0], 1e-6, SOAK_RATE_BPS, 2, limits)
    counters = ends.near.agent.counters
    period_s = 8 * SOAK_PAYLOAD_BYTES / (SOAK_LOAD * SOAK_RATE_BPS)
    longest_bundles = longest_frames = 0
    for _ in range(round(60 * minutes / period_s)):
        ends.send(1, SOAK_PAYLOAD_BYTES, SOAK_LIFETIME_MS)
        longest_bundles = max(longest_bundles, *(len(queue) for queue in ends.near.agent.queues()))
        longest_frames = max(longest_frames, ends.relay.in_flight_count())
        await asyncio.sleep(period_s)
    await asyncio.sleep(2 * SOAK_LIFETIME_MS / 1000)
    left = sum(len(queue) for queue in ends.near.agent.queues())
    gone = counters.bundles_dropped_count + counters.bundles_expired_count + left
    results = {
        "sourced": counters.bundles_sourced_count,
        "delivered": ends.delivered_count,
        "dropped": counters.bundles_dropped_count,
        "expired": counters.bundles_expired_count,
        "left": left,
        "unaccounted": counters.bundles_sourced_count - ends.delivered_count - gone,
        "longest queue": longest_bundles,
        "most frames in flight": longest_frames,
    }
    await ends.near.close()
    await ends.far.close()
    return results


def soak(report: Report, minutes: int) -> None:
    """Queues are bounded and what is dropped is counted, however long it lasts."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        results = runner.run(overload(minutes))
    goals = {
        "unaccounted": "0",
        "left": "0",
        "longest queue": f"at most {SOAK_QUEUE_BUNDLES}",
        "most frames in flight": f"at most {2 * (SOAK_QUEUE_FRAMES + 2)}",
    }
    for name, value in results.items():
        unit = "frames" if "frames" in name else "bundles"
        report.add(f"{minutes} min at {SOAK_LOAD:g} times the line rate: {name}", value, unit, goals.get(name, ""))


def main() -> None:
    """Run what is asked for and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="virtual time of each point of the sweep, 0: none")
    parser.add_argument("--real-seconds", type=float, default=10.0, help="real time of the run over ptys, 0: none")
    parser.add_argument("--soak-minutes", type=int, default=60, help="virtual time of the overload, 0: none")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="also draw the sweep as SVG")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to a file")
    options = parser.parse_args()
    report = Report("goodput")
    if options.seconds:
        curves = sweep(report, options.seconds)
        if options.chart is not None:
            options.chart.write_text(write_chart(curves), encoding="utf-8")
    if options.real_seconds:
        in_real_time(report, options.real_seconds)
    if options.soak_minutes:
        soak(report, options.soak_minutes)
    if options.json is not None:
        report.write_json(options.json)


if __name__ == "__main__":
    main()
