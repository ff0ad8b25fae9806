"""What goes down now and what waits: packets and events are sent while there is a way, and recorded otherwise."""

from collections.abc import Callable
from typing import Final

from flightsw.core.recorder import LIFETIME_MS, Recorder, Transmit
from flightsw.wire.messages import SERVICE_EVENT, SERVICE_TELEMETRY, Event, Packets, Severity, encode_message

EVENT_PRIORITY: Final = 3
"""Of the bundles of events, between reports and housekeeping."""

RECORD_PRIORITIES: Final = {
    Severity.FATAL: 0,
    Severity.WARNING_HI: 0,
    Severity.WARNING_LO: 1,
    Severity.COMMAND: 2,
    Severity.ACTIVITY_HI: 2,
    Severity.ACTIVITY_LO: 4,
    Severity.DIAGNOSTIC: 6,
}
"""How urgent a recorded event is; housekeeping packets are 5 where the dictionary says nothing else."""


class Downlink:
    """Sends or records.

    Args:
        recorder: keeps what cannot be sent.
        has_route: whether there is a way to the ground at a monotonic time [ns].
        transmit: hands a message to the bundle agent.
    """

    def __init__(self, recorder: Recorder, has_route: Callable[[int], bool], transmit: Transmit) -> None:
        self._recorder = recorder
        self._has_route = has_route
        self._transmit = transmit

    def packets(self, message: Packets, priority: int, now_ns: int) -> bool:
        """Send telemetry packets, best effort; says whether they were sent, rather than recorded."""
        if self._has_route(now_ns):
            self._transmit(SERVICE_TELEMETRY, message, LIFETIME_MS, priority, False)
            return True
        self._recorder.record(encode_message(message), priority)
        return False

    def event(self, event: Event, now_ns: int) -> None:
        """Send an event, reliably, or record it."""
        if self._has_route(now_ns):
            self._transmit(SERVICE_EVENT, event, LIFETIME_MS, EVENT_PRIORITY, True)
        else:
            priority = RECORD_PRIORITIES[event.severity]
            self._recorder.record(encode_message(event), priority, is_urgent=event.severity <= Severity.WARNING_HI)
