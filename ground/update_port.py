"""What users may ask about software updates, over the control socket (`ground.control`).

| method | gives |
|---|---|
| `update_start(manifest, nodes, waves, soak_s, limit_s)` | the campaign's number; without nodes the whole fleet |
| `update_status()` | the campaign that runs or the last one, with its nodes; null before the first |
| `update_stop(why)` | stops the campaign |

The image is put into the store first (`put_object`).
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final

import msgspec

from flightsw.errors import ConfigError
from flightsw.ports import Clock
from flightsw.storage.manifest import SIGNED_BYTES_MAX, decode_manifest
from ground.segment import GroundSegment
from ground.update_book import Campaign
from ground.updates import LIMIT_S, SOAK_S

WHY_CHARACTERS_MAX: Final = 200
"""Longest reason for a stop [characters]: a sentence."""

NodeKey = int | str
Seconds = Annotated[int, msgspec.Meta(ge=1, le=1 << 31)]
Sizes = Annotated[list[Annotated[int, msgspec.Meta(ge=1, le=1 << 31)]], msgspec.Meta(max_length=64)]
Why = Annotated[str, msgspec.Meta(max_length=WHY_CHARACTERS_MAX)]
Signed = Annotated[bytes, msgspec.Meta(max_length=SIGNED_BYTES_MAX)]


class UpdatePort:
    """Answers for one ground segment.

    Args:
        ground: the segment.
        clock: its clock.
        nodes: names of the fleet by number, in the order in which they come.
        number: gives a node's number for (method, name or number). Raises: ConfigError.
    """

    def __init__(
        self, ground: GroundSegment, clock: Clock, nodes: dict[int, str], number: Callable[[str, NodeKey], int]
    ) -> None:
        self._ground = ground
        self._clock = clock
        self._nodes = nodes
        self._number = number

    def handlers(self) -> dict[str, Callable[..., Any]]:
        """Method -> what answers it."""
        return {"update_start": self.start, "update_status": self.status, "update_stop": self.stop}

    def start(
        self,
        manifest: Signed,
        nodes: list[NodeKey] = [],  # noqa: B006 - never changed
        waves: Sizes = [1],  # noqa: B006 - never changed
        soak_s: Seconds = SOAK_S,
        limit_s: Seconds = LIMIT_S,
    ) -> int:
        """Begin a campaign; it is on record when this returns. Raises: ConfigError."""
        numbers: Sequence[int] = [self._number("update_start", node) for node in nodes] or tuple(self._nodes)
        return self._ground.updates.start(
            manifest, numbers, self._clock.monotonic_ns(), waves=waves, soak_s=soak_s, limit_s=limit_s
        )

    def status(self) -> dict[str, Any] | None:
        """The campaign that runs, or the last one."""
        campaign = self._ground.updates.status()
        return None if campaign is None else self._told(campaign)

    def stop(self, why: Why = "by command") -> dict[str, Any]:
        """Stop the campaign. Raises: ConfigError."""
        self._ground.updates.stop(why, self._clock.monotonic_ns())
        campaign = self._ground.updates.status()
        if campaign is None:
            raise ConfigError("update_stop: no campaign was ever begun")
        return self._told(campaign)

    def _told(self, campaign: Campaign) -> dict[str, Any]:
        manifest = decode_manifest(campaign.plan.manifest)[1]
        nodes = [
            {
                "node": self._nodes.get(row.node, str(row.node)),
                "wave": row.wave + 1,
                "state": row.state.value,
                "version": row.version,
                "detail": row.detail,
            }
            for row in campaign.nodes
        ]
        return {
            "campaign": campaign.campaign_id,
            "version": manifest.version,
            "serial": manifest.serial,
            "state": campaign.state.value,
            "detail": campaign.detail,
            "started_ns": campaign.started_ns,
            "ended_ns": campaign.ended_ns,
            "nodes": nodes,
        }
