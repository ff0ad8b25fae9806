"""The LTP engine toward one remote engine (RFC 5326), without input and output.

A `Span` turns blocks into segments and segments into blocks, in both directions at once. Red blocks are repeated until
the peer has claimed every byte or a limit is reached; green blocks are sent once. Time is an argument, the next segment
is pulled by whoever owns the transmitter, and results are pulled with `take_events`.

The halves are `ltp_export` (sending) and `ltp_import` (receiving); `ltp_core` holds what they share, above all contact
time, in which all timers run. Blocks that are sent are all red or all green (RFC 5326 §4.1 leaves the choice to
the client); blocks that arrive may have both parts. `docs/protocol.md` goes through the standard section by section.
"""

from collections.abc import Callable

from flightsw.net.ltp_core import SpanCore
from flightsw.net.ltp_export import Exporter
from flightsw.net.ltp_import import Importer
from flightsw.net.ltp_sessions import Cancel, Checkpoint, Report
from flightsw.net.ltp_values import BlockFailed, BlockReceived, BlockSent, LtpConfig, LtpCounters, LtpEvent
from flightsw.wire.segments import (
    CancelAck,
    CancelReason,
    CancelSegment,
    DataSegment,
    ReportAck,
    ReportSegment,
    Segment,
    encode_segment,
)

__all__ = ["BlockFailed", "BlockReceived", "BlockSent", "CancelReason", "LtpConfig", "LtpCounters", "LtpEvent", "Span"]


class Span:
    """The LTP engine of `local_engine` toward `remote_engine`. Starts suspended: call `resume` when contact begins.

    Args:
        local_engine: our engine number (the node number).
        remote_engine: the peer's.
        config: limits.
        next_session: gives a session number that this engine never used before, not even before a reset.
        counters: shared by all spans of a node.
        segment_bytes: data in one segment [bytes].
    """

    def __init__(
        self,
        local_engine: int,
        remote_engine: int,
        config: LtpConfig,
        next_session: Callable[[], int],
        counters: LtpCounters | None = None,
        segment_bytes: int = 1024,
    ) -> None:
        self.remote_engine = remote_engine
        self.counters = LtpCounters() if counters is None else counters
        self._core = SpanCore(local_engine, config, self.counters, segment_bytes)
        self._exporter = Exporter(self._core, next_session)
        self._importer = Importer(self._core)

    @property
    def has_work(self) -> bool:
        """Whether `next_segment` may have something to send."""
        return bool(self._core.control or self._exporter.resend or self._exporter.fresh)

    @property
    def wants_block(self) -> bool:
        """Whether a new block would not wait behind other new data, and is within the limit of blocks under way."""
        return self._exporter.wants_block

    @property
    def wants_green(self) -> bool:
        """Whether a new green block would not wait behind other new data: no answer is needed for it."""
        return not self._exporter.fresh

    @property
    def is_suspended(self) -> bool:
        """Whether there is no contact: timers stand still and nothing is sent."""
        return self._core.is_suspended

    @property
    def segment_bytes(self) -> int:
        """Data in one segment [bytes]; may change from contact to contact, also amid a block."""
        return self._core.segment_bytes

    @segment_bytes.setter
    def segment_bytes(self, segment_bytes: int) -> None:
        self._core.segment_bytes = segment_bytes

    def next_deadline_ns(self) -> int | None:
        """When `tick` has something to do [ns]; None when nothing is timed or the span is suspended."""
        return self._core.next_deadline_ns()

    def take_events(self) -> list[LtpEvent]:
        """What happened since the last call, in order."""
        events = self._core.events
        if events:
            self._core.events = []
        return events

    def set_light_time_ns(self, light_time_ns: int) -> None:
        """Timers that start from now on allow for this one-way time [ns]."""
        self._core.timeout_ns = 2 * light_time_ns + self._core.config.margin_ns

    def send(self, block: bytes, red: bool, now_ns: int) -> int:
        """Take a block to send and return its session number; blocks are sent in the order of these calls."""
        return self._exporter.send(block, red)

    def cancel(self, number: int, now_ns: int) -> None:
        """Give up a block that was to be sent; no event follows, the peer is told."""
        self._exporter.cancel(number)

    def suspend(self, now_ns: int) -> None:
        """Contact ends: timers stand still. Green blocks that were not sent whole fail; red ones wait."""
        if not self._core.is_suspended:
            self._core.suspend(now_ns)
            self._exporter.cut_green()

    def resume(self, now_ns: int) -> None:
        """Contact begins: timers go on with the time that was left to them, and a silent peer gets a new chance."""
        if self._core.is_suspended:
            self._core.resume(now_ns)
            self._exporter.answered()

    def tick(self, now_ns: int) -> None:
        """Act on all timers that are due."""
        core = self._core
        if core.is_suspended:
            return
        contact_ns = core.contact_ns(now_ns)
        while (timer := core.pop_due(contact_ns)) is not None:
            if isinstance(timer, Checkpoint):
                self._exporter.checkpoint_expired(timer, contact_ns)
            elif isinstance(timer, Report):
                self._importer.report_expired(timer)
            elif isinstance(timer, Cancel):
                core.cancel_expired(timer)
            elif timer is self._importer.silence:
                self._importer.abandon_silent(contact_ns)
            else:
                assert timer is self._exporter.rest, "its end is all that there is to it"

    def next_segment(self, now_ns: int) -> bytes | None:
        """The next encoded segment: control, then what is sent again, then new data; None when there is none."""
        core = self._core
        if core.is_suspended:
            return None
        contact_ns = core.contact_ns(now_ns)
        segment = core.next_control(contact_ns) or self._exporter.next_data(contact_ns)
        if segment is None:
            return None
        self.counters.segments_sent_count += 1
        return encode_segment(segment)

    def receive(self, segment: Segment, now_ns: int) -> None:
        """Take a segment that came from the remote engine."""
        self.counters.segments_received_count += 1
        match segment:
            case DataSegment():
                self._importer.receive_data(segment, now_ns)
            case ReportSegment():
                self._exporter.answered()
                self._exporter.receive_report(segment)
            case ReportAck():
                self._exporter.answered()
                self._importer.receive_report_ack(segment)
            case CancelSegment():
                # Acknowledged even when the session is unknown: the peer repeats it until then (RFC 5326 §6.17).
                self._core.answer(CancelAck(session=segment.session, by_sender=segment.by_sender))
                if segment.by_sender:
                    self._importer.receive_cancel(segment)
                else:
                    self._exporter.answered()
                    self._exporter.receive_cancel(segment)
            case CancelAck():
                self._exporter.answered()
                self._core.receive_cancel_ack(segment)
