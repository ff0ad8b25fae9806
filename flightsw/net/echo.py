"""The echo service: what comes to it goes back to the service that sent it.

It is what a ping asks. Service 7 is named after RFC 862; 2047 is where HDTN and DTNME answer by default. Echoes need no
keys and change nothing on the node; size, lifetime and rate are bounded, so that nobody is flooded by way of us.
"""

from typing import Final

from flightsw.net.agent_values import AgentCounters, Delivery
from flightsw.net.queues import priority_of
from flightsw.net.responses import Allowance, Response
from flightsw.wire.bundles import Bundle
from flightsw.wire.eids import DTN_NONE

ECHO_SERVICE: Final = 7
"""Service number of the echo, after the port of RFC 862."""

ECHO_SERVICES: Final = (ECHO_SERVICE, 2047)
"""All service numbers that echo; 2047: `myBpEchoServiceId` of HDTN's configuration."""

PING_SERVICE: Final = 8
"""Service number that our own pings are sent from; the answers come back to it."""

ECHO_BYTES_MAX: Final = 16_384
"""Longest payload that is echoed [bytes]: one object chunk, more says nothing new about a link."""

ECHO_LIFETIME_MAX_MS: Final = 3_600_000
"""Longest lifetime of an answer [ms]: an hour, some orbits' worth of contacts is more than a ping waits for."""

ECHO_BURST_MAX: Final = 20
"""Answers at once: pings that waited for a contact arrive together."""

ECHO_PERIOD_NS: Final = 100_000_000
"""Time for one more answer [ns]: ten a second are a tenth of a slow downlink with short payloads."""


class Echo:
    """Answers bundles for the echo service.

    Args:
        counters: of the agent.
    """

    def __init__(self, counters: AgentCounters) -> None:
        self._counters = counters
        self._allowance = Allowance(ECHO_BURST_MAX, ECHO_PERIOD_NS)

    def answer(self, bundle: Bundle, delivery: Delivery, *, reliable: bool, now_ns: int) -> Response | None:
        """The answer to a bundle that was sent to the echo service; None when it gets none.

        Nobody, an echo service and whoever sends too much or too often get none: two echoes would never fall silent.
        Nor does what came encrypted, since the answer goes in the clear.

        Args:
            bundle: for this node.
            delivery: made of it.
            reliable: it came in red blocks; the answer goes like it.
            now_ns: monotonic time [ns].
        """
        source = bundle.source
        is_wrong = (
            source == DTN_NONE
            or source.service in ECHO_SERVICES
            or delivery.confidential
            or len(delivery.payload) > ECHO_BYTES_MAX
        )
        if is_wrong or not self._allowance.take(now_ns):
            self._counters.echoes_refused_count += 1
            return None
        self._counters.echoes_answered_count += 1
        lifetime_ms = min(bundle.lifetime_ms, ECHO_LIFETIME_MAX_MS)
        return Response(source, delivery.service, delivery.payload, lifetime_ms, priority_of(bundle), reliable)
