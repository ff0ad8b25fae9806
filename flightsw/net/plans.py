"""The contact plan as a file: JSON, a list with one row for each directed contact.

[start_ns, end_ns, source, source_interface, target, target_interface, rate_bps, light_time_ns]
"""

from collections.abc import Iterable
from typing import Annotated

import msgspec

from flightsw.errors import ConfigError
from flightsw.net.contacts import Contact, ContactPlan

_Time = Annotated[int, msgspec.Meta(ge=-(1 << 62), le=1 << 62)]
_Node = Annotated[int, msgspec.Meta(ge=1)]
_Interface = Annotated[int, msgspec.Meta(ge=0, le=65_535)]
_Rate = Annotated[float, msgspec.Meta(gt=0, le=1e15)]
_Duration = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]
PlanRow = tuple[_Time, _Time, _Node, _Interface, _Node, _Interface, _Rate, _Duration]
"""The fields of `Contact`, in their order."""


def plan_of(rows: Iterable[PlanRow], where: str) -> ContactPlan:
    """The plan of checked rows.

    Args:
        rows: as they come from a file.
        where: the file's name in messages.

    Raises:
        ConfigError: a contact ends before it starts, or two contacts of an interface overlap.
    """
    contacts = []
    for number, row in enumerate(rows):
        contact = Contact(*row)
        if contact.start_ns >= contact.end_ns:
            raise ConfigError(f"{where}: [{number}]: end_ns = {contact.end_ns}: expected more than {contact.start_ns}")
        contacts.append(contact)
    ends: dict[tuple[int, int], Contact] = {}
    for contact in sorted(contacts):
        key = (contact.source, contact.source_interface)
        before = ends.get(key)
        if before is not None and contact.start_ns < before.end_ns:
            raise ConfigError(
                f"{where}: node {key[0]} interface {key[1]}: a contact starts at {contact.start_ns} ns, expected "
                f"{before.end_ns} ns or later: contacts of an interface must not overlap"
            )
        ends[key] = contact
    return ContactPlan(contacts)


def encode_plan(plan: ContactPlan) -> bytes:
    """The file of a plan."""
    rows = [
        (
            one.start_ns,
            one.end_ns,
            one.source,
            one.source_interface,
            one.target,
            one.target_interface,
            one.rate_bps,
            one.light_time_ns,
        )
        for one in plan.contacts
    ]
    return msgspec.json.encode(rows)
