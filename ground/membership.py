"""Membership: who is there, judged from beacons and from the contact plan. Sans-IO.

Silence counts only while a route existed: a satellite out of every station's and neighbour's reach is not late. So a
node is OVERDUE when it has been silent for a few beacon periods in which the plan had a route from it, and SILENT when
for longer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import Final

from flightsw.wire.messages import Beacon, Mode

OVERDUE_BEACONS: Final = 6
"""Beacons missed with a route before a node is OVERDUE: a burst of losses is not a death."""
SILENT_BEACONS: Final = 30
"""Beacons missed with a route before it is SILENT: nothing is placed there."""


@unique
class Presence(StrEnum):
    """How present a node is."""

    UNKNOWN = "UNKNOWN"
    """Never heard."""
    ALIVE = "ALIVE"
    OVERDUE = "OVERDUE"
    SILENT = "SILENT"
    SAFE = "SAFE"
    """Heard, and in SAFE or MAINTENANCE: no jobs are placed there."""
    REFUSED = "REFUSED"
    """Heard, with another command dictionary: it is not commanded."""
    UNKEYED = "UNKEYED"
    """Heard, without a key or with one that the ground has not: it would take no command."""


@dataclass(frozen=True, slots=True)
class NodeReset:
    """The boot counter of a node went up."""

    node: int
    boot_count: int


@dataclass(frozen=True, slots=True)
class DictionaryMismatch:
    """A node has another dictionary than the ground."""

    node: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class KeyMismatch:
    """A node signs with no key, or with one that the ground has not."""

    node: int
    key_id: int


@dataclass(slots=True)
class Member:
    """What is known of one node."""

    node: int
    beacon: Beacon | None = None
    heard_ns: int = 0
    missed_s: float = 0.0
    """Silence while a route existed [s]."""
    is_refused: bool = False
    is_unkeyed: bool = False


class Membership:
    """The fleet as the ground sees it.

    Args:
        nodes: numbers of the fleet.
        dictionary_digest: of the ground's own dictionary.
        beacon_period_s: how often nodes beacon.
        has_key: whether the ground has the key of a node with this number.
    """

    def __init__(
        self,
        nodes: tuple[int, ...],
        dictionary_digest: bytes,
        beacon_period_s: float,
        has_key: Callable[[int, int], bool] = lambda node, key_id: True,
    ) -> None:
        self.members = {node: Member(node) for node in nodes}
        self._dictionary_digest = dictionary_digest
        self._beacon_period_s = beacon_period_s
        self._has_key = has_key
        self._judged_ns: int | None = None

    def on_beacon(self, beacon: Beacon, now_ns: int) -> list[NodeReset | DictionaryMismatch | KeyMismatch]:
        """Take a beacon; one that overtook a newer one is ignored."""
        member = self.members.get(beacon.node)
        if member is None:
            return []
        before = member.beacon
        if before is not None and (beacon.boot_count, beacon.uptime_s) < (before.boot_count, before.uptime_s):
            return []
        events: list[NodeReset | DictionaryMismatch | KeyMismatch] = []
        if beacon.boot_count > (1 if before is None else before.boot_count):
            events.append(NodeReset(beacon.node, beacon.boot_count))
        is_refused = beacon.dictionary_digest != self._dictionary_digest
        if is_refused and not member.is_refused:
            events.append(DictionaryMismatch(beacon.node, beacon.dictionary_digest))
        is_unkeyed = not self._has_key(beacon.node, beacon.key_id)
        if is_unkeyed and not member.is_unkeyed:
            events.append(KeyMismatch(beacon.node, beacon.key_id))
        member.beacon, member.heard_ns, member.missed_s, member.is_refused = beacon, now_ns, 0.0, is_refused
        member.is_unkeyed = is_unkeyed
        return events

    def judge(self, now_ns: int, has_route: Callable[[int], bool]) -> None:
        """Count silence since the last call for the nodes that had a route to us."""
        if self._judged_ns is not None:
            gap_s = (now_ns - self._judged_ns) / 1e9
            for member in self.members.values():
                if member.heard_ns < self._judged_ns and has_route(member.node):
                    member.missed_s += gap_s
        self._judged_ns = now_ns

    def presence(self, node: int) -> Presence:
        """How present a node is."""
        member = self.members[node]
        if member.is_refused:
            return Presence.REFUSED
        if member.is_unkeyed:
            return Presence.UNKEYED
        missed_beacons = member.missed_s / self._beacon_period_s
        if missed_beacons >= SILENT_BEACONS:
            return Presence.SILENT
        if member.beacon is None:
            return Presence.UNKNOWN
        if missed_beacons >= OVERDUE_BEACONS:
            return Presence.OVERDUE
        return Presence.SAFE if member.beacon.mode in (Mode.SAFE, Mode.MAINTENANCE) else Presence.ALIVE

    def dictionary_refusal(self, node: int) -> str | None:
        """Why a node is not commanded: its last beacon spoke another dictionary; or None."""
        member = self.members.get(node)
        if member is None or member.beacon is None or not member.is_refused:
            return None
        theirs, ours = member.beacon.dictionary_digest, self._dictionary_digest
        return f"node {node} speaks dictionary {theirs.hex()}, expected {ours.hex()}, the ground's"

    def is_usable(self, node: int) -> bool:
        """Whether jobs may be placed there."""
        return self.presence(node) in (Presence.ALIVE, Presence.UNKNOWN, Presence.OVERDUE)
