"""The contact plan: who can talk to whom, when, over which interfaces, how fast and how far.

Flight and ground plan with it; it is computed from orbits before a run or uplinked. It says what is *predicted*:
outages are not in it, and neither end is told of the channel's impairments.
"""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Contact:
    """A directed opportunity to transmit from source to target, half open [start_ns, end_ns) in monotonic time."""

    start_ns: int
    end_ns: int
    source: int
    source_interface: int
    target: int
    target_interface: int
    rate_bps: float
    light_time_ns: int
    """Longest one-way light time in the contact [ns]."""


class ContactPlan:
    """All contacts, indexed by source node; immutable.

    Args:
        contacts: directed contacts in any order; contacts of one (source, interface) must not overlap.
    """

    def __init__(self, contacts: Iterable[Contact]) -> None:
        self.contacts: tuple[Contact, ...] = tuple(sorted(contacts))
        self._by_source: dict[int, list[Contact]] = {}
        self._by_interface: dict[tuple[int, int], list[Contact]] = {}
        for contact in self.contacts:
            assert contact.start_ns < contact.end_ns, f"an empty contact: {contact}"
            self._by_source.setdefault(contact.source, []).append(contact)
            self._by_interface.setdefault((contact.source, contact.source_interface), []).append(contact)
        self._starts_ns = {key: [c.start_ns for c in contacts] for key, contacts in self._by_interface.items()}

    def from_node(self, source: int) -> list[Contact]:
        """Contacts in which the node transmits, by start."""
        return self._by_source.get(source, [])

    def at(self, source: int, interface: int, now_ns: int) -> Contact | None:
        """The contact open on an interface at an instant."""
        index = bisect_right(self._starts_ns.get((source, interface), []), now_ns) - 1
        if index < 0:
            return None
        contact = self._by_interface[source, interface][index]
        return contact if now_ns < contact.end_ns else None

    def next_on(self, source: int, interface: int, now_ns: int) -> Contact | None:
        """The first contact on an interface that starts after an instant."""
        starts = self._starts_ns.get((source, interface), [])
        index = bisect_right(starts, now_ns)
        return self._by_interface[source, interface][index] if index < len(starts) else None
