"""NODE: the manager as a whole, its bundle agent, its boots and its resets."""

from collections.abc import Callable, Mapping

from flightsw.component import OK, Dump, Handler, Outcome, Scalar
from flightsw.core.boots import Boots
from flightsw.core.events import Events
from flightsw.net.agent import BundleAgent
from flightsw.ports import Clock, ResetCause


class NodeControl:
    """Implements `flightsw.component.Component`.

    Args:
        agent: whose counters are told.
        events: whose suppressed are told.
        boots: told why the node ends.
        clock: for the time since boot.
        reset: restarts the node; returns, and the node ends soon after.
        dump: sends a data product.
    """

    name = "NODE"

    def __init__(
        self,
        agent: BundleAgent,
        events: Events,
        boots: Boots,
        clock: Clock,
        reset: Callable[[ResetCause], None],
        dump: Dump,
    ) -> None:
        self._agent = agent
        self._events = events
        self._boots = boots
        self._clock = clock
        self._reset = reset
        self._dump = dump

    def handlers(self) -> Mapping[str, Handler]:
        """RESET, POWER_CYCLE, RESET_LOG, CLEAR_BOOTS."""
        return {
            "RESET": lambda _: self._do_reset(ResetCause.RESET_COMMAND),
            "POWER_CYCLE": lambda _: self._do_reset(ResetCause.POWER_CYCLE),
            "RESET_LOG": lambda _: self._boots.dump(self._dump),
            "CLEAR_BOOTS": lambda _: self._boots.clear(self._clock.monotonic_ns()),
        }

    def channels(self) -> Mapping[str, Scalar]:
        """Counts of the bundle agent since boot, and what is known of boots."""
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
            **self._boots.channels(self._clock.monotonic_ns()),
        }

    def _do_reset(self, cause: ResetCause) -> Outcome:
        self._boots.ending(f"{cause.name} by command", self._clock.monotonic_ns(), is_asked=True)
        self._reset(cause)
        return OK
