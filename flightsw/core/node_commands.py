"""NODE: the manager as a whole, its bundle agent and its resets."""

from collections.abc import Callable, Mapping

from flightsw.component import OK, Handler, Outcome, Scalar
from flightsw.core.events import Events
from flightsw.net.agent import BundleAgent
from flightsw.ports import ResetCause


class NodeControl:
    """Implements `flightsw.component.Component`.

    Args:
        agent: whose counters are told.
        events: whose suppressed are told.
        reset: restarts the node; returns, and the node ends soon after.
    """

    name = "NODE"

    def __init__(self, agent: BundleAgent, events: Events, reset: Callable[[ResetCause], None]) -> None:
        self._agent = agent
        self._events = events
        self._reset = reset

    def handlers(self) -> Mapping[str, Handler]:
        """RESET."""
        return {"RESET": self._do_reset}

    def channels(self) -> Mapping[str, Scalar]:
        """Counts of the bundle agent since boot."""
        agent = self._agent.counters
        return {
            "bundles_sourced": agent.bundles_sourced_count,
            "bundles_forwarded": agent.bundles_forwarded_count,
            "bundles_delivered": agent.bundles_delivered_count,
            "bundles_expired": agent.bundles_expired_count,
            "bundles_dropped": agent.bundles_dropped_count,
            "frames_rejected": agent.frames_rejected_count(),
            "retransmissions": agent.ltp.retransmissions_count,
            "events_suppressed": self._events.suppressed_count,
        }

    def _do_reset(self, _: tuple[object, ...]) -> Outcome:
        self._reset(ResetCause.RESET_COMMAND)
        return OK
