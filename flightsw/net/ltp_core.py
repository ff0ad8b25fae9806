"""What both halves of an LTP span share: contact time, timers, the control queue, cancellations and results."""

from collections import deque
from heapq import heappop, heappush
from itertools import count

from flightsw.net.ltp_sessions import Cancel, Report, Timer
from flightsw.net.ltp_values import LtpConfig, LtpCounters, LtpEvent
from flightsw.wire.segments import CancelAck, CancelReason, CancelSegment, ReportAck, ReportSegment, Segment, SessionId


class SpanCore:
    """Timers in contact time, and segments that go before all data.

    Contact time is monotonic time without the time in which the span was suspended: suspending freezes all timers with
    what is left to them (RFC 5326 §6.5 and §6.6), and costs nothing per timer.

    Reports and cancellations are repeated at growing intervals, see `wait_ns`: a sender asks again for a report that is
    lost, and nobody waits for a cancellation.
    """

    def __init__(self, local_engine: int, config: LtpConfig, counters: LtpCounters, segment_bytes: int) -> None:
        self.local_engine = local_engine
        self.config = config
        self.counters = counters
        self.segment_bytes = segment_bytes
        self.timeout_ns = config.margin_ns
        self.events: list[LtpEvent] = []
        self.control: deque[Report | Cancel | ReportAck | CancelAck | ReportSegment] = deque()
        self._cancels: dict[tuple[SessionId, bool], Cancel] = {}
        self._suspended_ns: int | None = 0
        self._lag_ns = 0
        """Monotonic time minus contact time [ns]."""
        self._timers: list[tuple[int, int, Timer]] = []
        self._order = count()

    @property
    def is_suspended(self) -> bool:
        """Whether there is no contact."""
        return self._suspended_ns is not None

    def suspend(self, now_ns: int) -> None:
        """Contact time stands still."""
        if self._suspended_ns is None:
            self._suspended_ns = now_ns

    def resume(self, now_ns: int) -> None:
        """Contact time goes on."""
        if self._suspended_ns is not None:
            self._lag_ns += now_ns - self._suspended_ns
            self._suspended_ns = None

    def contact_ns(self, now_ns: int) -> int:
        """Contact time at an instant [ns]."""
        return (now_ns if self._suspended_ns is None else self._suspended_ns) - self._lag_ns

    def next_deadline_ns(self) -> int | None:
        """When the first timer is due, in monotonic time [ns]; None while suspended."""
        if self._suspended_ns is not None:
            return None
        timers = self._timers
        while timers and timers[0][2].deadline_ns != timers[0][0]:
            heappop(timers)
        return timers[0][0] + self._lag_ns if timers else None

    def arm(self, timer: Timer, deadline_ns: int) -> None:
        """Let a timer run until a contact time [ns]."""
        timer.deadline_ns = deadline_ns
        heappush(self._timers, (deadline_ns, next(self._order), timer))

    def pop_due(self, contact_ns: int) -> Timer | None:
        """The next timer that is due, None when none is left."""
        timers = self._timers
        while timers and timers[0][0] <= contact_ns:
            deadline_ns, _, timer = heappop(timers)
            if timer.deadline_ns == deadline_ns:
                timer.deadline_ns = None
                return timer
        return None

    def is_exhausted(self, timer: Timer) -> bool:
        """Count one more try; whether it is one too many."""
        timer.attempts_count += 1
        return timer.attempts_count > self.config.retransmissions_max

    def wait_ns(self, doublings_count: int) -> int:
        """The timeout, doubled that often, but not beyond the limit [ns]. A timeout that is longer by itself stays."""
        return max(self.timeout_ns, min(self.timeout_ns << doublings_count, self.config.backoff_max_ns))

    def queue_control(self, item: Report | Cancel) -> None:
        """Send a report or a cancellation before all data; its timer starts when it leaves."""
        if not item.is_queued:
            item.deadline_ns = None
            item.is_queued = self.answer(item)

    def answer(self, item: Report | Cancel | ReportAck | CancelAck | ReportSegment) -> bool:
        """Send a segment before all data; False when so many wait already that it is dropped.

        Out of contact nothing leaves, and a peer that is heard all the same must not fill our memory. It asks again for
        whatever it misses.
        """
        if len(self.control) >= self.config.control_max:
            self.counters.control_dropped_count += 1
            if isinstance(item, Cancel):
                self._cancels.pop((item.segment.session, item.segment.by_sender), None)
            return False
        self.control.append(item)
        return True

    def next_control(self, contact_ns: int) -> Segment | None:
        """The next segment that is not data."""
        while self.control:
            item = self.control.popleft()
            if not isinstance(item, Timer):
                return item
            item.is_queued = False
            if not item.is_done:
                self.arm(item, contact_ns + self.wait_ns(item.attempts_count))
                return item.segment
        return None

    def cancel_session(self, session: SessionId, reason: CancelReason, *, by_sender: bool) -> None:
        """Tell the peer that a session is over, until it says that it knows."""
        if (session, by_sender) not in self._cancels:
            cancel = Cancel(CancelSegment(session=session, reason=reason, by_sender=by_sender))
            self._cancels[session, by_sender] = cancel
            self.queue_control(cancel)

    def receive_cancel_ack(self, segment: CancelAck) -> None:
        """The peer knows."""
        cancel = self._cancels.pop((segment.session, segment.by_sender), None)
        if cancel is not None:
            cancel.finish()

    def cancel_expired(self, cancel: Cancel) -> None:
        """A cancellation was not acknowledged in time."""
        if self.is_exhausted(cancel):
            self._cancels.pop((cancel.segment.session, cancel.segment.by_sender), None)
        else:
            self.counters.retransmissions_count += 1
            self.queue_control(cancel)
