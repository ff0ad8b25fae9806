"""Where a fleet is: the kinds of `[orbit]` in a scenario."""

from typing import Annotated

import msgspec

from flightsw.config import Positive


class RingOrbit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="ring", tag_field="kind"):
    """All satellites in one circular plane, evenly spaced, in the order of the fleet."""

    altitude_km: Annotated[float, msgspec.Meta(ge=200, le=2000)]
    inclination_deg: Annotated[float, msgspec.Meta(ge=0, le=180)]
    raan_deg: float = 0.0
    phase_deg: float = 0.0


class WalkerOrbit(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="walker", tag_field="kind"
):
    """A Walker delta constellation; the fleet's size must be divisible by the planes."""

    altitude_km: Annotated[float, msgspec.Meta(ge=200, le=2000)]
    inclination_deg: Annotated[float, msgspec.Meta(ge=0, le=180)]
    planes: Annotated[int, msgspec.Meta(ge=1)]
    phasing: Annotated[int, msgspec.Meta(ge=0)] = 1


class ElementsOrbit(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="elements", tag_field="kind"
):
    """Satellites from a TLE or OMM file, in the order of the fleet; the path is relative to the scenario's."""

    file: str


class TableOrbit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="table", tag_field="kind"):
    """No orbit: the fleet stays on the table, in light and in view of the first station, with an antenna for each."""

    range_km: Positive = 600.0
    """How far away it seems to be [km]."""
