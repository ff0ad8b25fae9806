"""Passes: what an operator asks of the contact plan, in the field's words."""

from dataclasses import dataclass

from flightsw.net.contacts import Contact, ContactPlan

NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Pass:
    """A contact between an antenna of ours and a satellite."""

    node: int
    interface: int
    """The antenna."""
    aos_ns: int
    """Acquisition of signal."""
    los_ns: int
    """Loss of signal."""

    @property
    def duration_s(self) -> float:
        """Length [s]."""
        return (self.los_ns - self.aos_ns) / NS_PER_S


def passes(plan: ContactPlan, ground: int, start_ns: int, end_ns: int) -> list[Pass]:
    """Passes that overlap [start, end), by AOS; those under way begin before start."""
    found = [
        _pass(contact) for contact in plan.from_node(ground) if contact.end_ns > start_ns and contact.start_ns < end_ns
    ]
    return sorted(found, key=lambda one: (one.aos_ns, one.interface))


def next_pass(plan: ContactPlan, ground: int, node: int, now_ns: int) -> Pass | None:
    """The pass of a satellite that is under way or comes next; None when the plan has none."""
    for contact in plan.from_node(ground):
        if contact.target == node and contact.end_ns > now_ns:
            return _pass(contact)
    return None


def time_to_aos_s(plan: ContactPlan, ground: int, node: int, now_ns: int) -> float | None:
    """Seconds until a satellite's next AOS: 0 while it is in contact, None when the plan has no pass."""
    coming = next_pass(plan, ground, node, now_ns)
    return None if coming is None else max(0, coming.aos_ns - now_ns) / NS_PER_S


def contact_s(plan: ContactPlan, ground: int) -> dict[int, float]:
    """Planned contact time of each satellite [s], by node number."""
    total: dict[int, float] = {}
    for contact in plan.from_node(ground):
        total[contact.target] = total.get(contact.target, 0.0) + _pass(contact).duration_s
    return dict(sorted(total.items()))


def _pass(contact: Contact) -> Pass:
    return Pass(contact.target, contact.source_interface, contact.start_ns, contact.end_ns)
