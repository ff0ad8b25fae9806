"""What security costs: a beacon on one hop with and without a tag, and protecting and judging bundles alone.

Run: python benchmarks/security.py [--rounds N] [--json FILE]

Each figure is the best of many short rounds, taken in turn: on a shared machine the best is what the code can do.
"""

import argparse
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Final

from report import Report

from flightsw.config import InterfaceConfig
from flightsw.net.agent import BundleAgent
from flightsw.net.contacts import Contact, ContactPlan
from flightsw.net.keys import KeyStore, derived_rings
from flightsw.net.security import BundleSecurity, SecurityPolicy
from flightsw.wire.bundles import Bundle, decode_bundle, departing
from flightsw.wire.eids import DTN_NONE, Eid
from flightsw.wire.messages import CHUNK_BYTES, SERVICE_OBJECT, SERVICE_TELEMETRY

NS_PER_S: Final = 1_000_000_000
UTC_NS: Final = 1_800_000_000 * NS_PER_S
GROUND: Final = 1
NODE: Final = 11
BEACON_BYTES: Final = 130
ROUND_MESSAGES: Final = 500
RINGS: Final = derived_rings(b"k" * 32, [NODE], GROUND)
PLAN: Final = ContactPlan(
    [Contact(0, 10**9 * NS_PER_S, a, 0, b, 0, 1e9, 1_000_000) for a, b in ((GROUND, NODE), (NODE, GROUND))]
)


def security(node: int, is_signed: bool = True) -> BundleSecurity:
    """Of one end, in memory."""
    return BundleSecurity(node, KeyStore(RINGS[node]), None, SecurityPolicy(is_signed))


class Hop:
    """A node that beacons to the ground."""

    def __init__(self, is_signed: bool) -> None:
        radio = (InterfaceConfig(index=0, name="radio"),)
        self._node = BundleAgent(NODE, PLAN, radio, 1 << 32, security=security(NODE, is_signed))
        self._ground = BundleAgent(GROUND, PLAN, radio, 1 << 32, security=security(GROUND, is_signed))
        self._ground.pump(0)
        self._now_ns = 0
        self.send_us = self.receive_us = float("inf")
        self.frame_bytes = 0

    def round(self) -> None:
        """Some beacons; the best round counts."""
        send_ns = receive_ns = 0
        for _ in range(ROUND_MESSAGES):
            self._now_ns += 1_000_000
            now_ns = self._now_ns
            start_ns = time.process_time_ns()
            self._node.send(
                GROUND, SERVICE_TELEMETRY, bytes(BEACON_BYTES), now_ns=now_ns, utc_ns=UTC_NS + now_ns,
                lifetime_ms=60_000, priority=1, reliable=False,
            )  # fmt: skip
            frames = self._node.pump(now_ns)
            middle_ns = time.process_time_ns()
            for interface, frame in frames:
                self._ground.receive_frame(interface, frame, now_ns)
            deliveries = self._ground.take_deliveries()
            receive_ns += time.process_time_ns() - middle_ns
            send_ns += middle_ns - start_ns
            assert len(deliveries) == 1, "every beacon arrives"
            self.frame_bytes = sum(len(frame) for _, frame in frames)
        self.send_us = min(self.send_us, send_ns / ROUND_MESSAGES / 1000)
        self.receive_us = min(self.receive_us, receive_ns / ROUND_MESSAGES / 1000)


def best_us(call: Callable[[], object], rounds: int) -> float:
    """The best time of a call."""
    best_ns = None
    for _ in range(rounds):
        start_ns = time.process_time_ns()
        for _ in range(ROUND_MESSAGES):
            call()
        spent_ns = time.process_time_ns() - start_ns
        best_ns = spent_ns if best_ns is None else min(best_ns, spent_ns)
    return (best_ns or 0) / ROUND_MESSAGES / 1000


def add_bundles(report: Report, name: str, payload: bytes, rounds: int) -> None:
    """Protecting and judging bundles of one payload, without the layers around."""
    sender, judge, numbers = security(GROUND), security(NODE), count(1)

    def made() -> Bundle:
        eids = (Eid(NODE, SERVICE_OBJECT), Eid(GROUND, 0), DTN_NONE)
        return Bundle(*eids, (1, next(numbers)), 60_000, payload, age_ms=0, hop_count=(64, 0))

    plain_us = best_us(made, rounds)
    for confidential in (False, True):
        what = "sign and encrypt" if confidential else "sign"
        spent_us = best_us(lambda secret=confidential: sender.protect(made(), confidential=secret), rounds)  # type: ignore[misc]
        report.add(f"{name}: {what}", spent_us - plain_us, "us")
        arriving = [
            decode_bundle(departing(sender.protect(made(), confidential=confidential), 0))
            for _ in range(rounds * ROUND_MESSAGES)
        ]
        waiting = iter(arriving)
        spent_us = best_us(lambda waiting=waiting: judge.accept(next(waiting), 0), rounds)  # type: ignore[misc]
        report.add(f"{name}: {'decrypt and verify' if confidential else 'verify'}", spent_us, "us")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="what security costs")
    parser.add_argument("--rounds", type=int, default=40, help="rounds of 500 messages")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to a file")
    options = parser.parse_args()
    report = Report("security")
    hops = {False: Hop(False), True: Hop(True)}
    for _ in range(options.rounds):
        for hop in hops.values():
            hop.round()
    for is_signed, hop in hops.items():
        name = "signed beacon" if is_signed else "unsigned beacon"
        report.add(f"{name}: send and pump", hop.send_us, "us")
        report.add(f"{name}: frame to delivery", hop.receive_us, "us")
        report.add(f"{name}: frame", hop.frame_bytes, "bytes")
    ratio = (hops[True].send_us + hops[True].receive_us) / (hops[False].send_us + hops[False].receive_us)
    report.add("signed to unsigned beacon, both ends", ratio, "times")
    add_bundles(report, "130 bytes", bytes(BEACON_BYTES), options.rounds)
    add_bundles(report, "a chunk", bytes(CHUNK_BYTES), max(1, options.rounds // 10))
    if options.json:
        report.write_json(options.json)


if __name__ == "__main__":
    main()
