"""The LTP engine toward one remote engine (RFC 5326), without input and output.

A `Span` turns blocks into segments and segments into blocks, in both directions at once. Red blocks are repeated until
the peer has claimed every byte or a limit is reached; green blocks are sent once. Time is an argument, the next segment
is pulled by whoever owns the transmitter, and results are pulled with `take_events`.

Timers run in *contact time*, a clock that stands still while the span is suspended: that is all of RFC 5326 §6.5 and §6.6,
and it costs nothing per timer.

A block is all red or all green. Mixed blocks, discretionary checkpoints of our own and LTP authentication are not
implemented; `docs/protocol.md` has the list.
"""

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

from flightsw.net.ltp_sessions import Cancel, Checkpoint, Export, Import, Report, Timer
from flightsw.net.ltp_values import (
    CLIENT_SERVICE_BUNDLE,
    BlockFailed,
    BlockReceived,
    BlockSent,
    LtpConfig,
    LtpCounters,
    LtpEvent,
)
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
        segment_bytes: data in one segment [bytes]; may change with `segment_bytes` from contact to contact.
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
        self.segment_bytes = segment_bytes
        self.counters = LtpCounters() if counters is None else counters
        self._local_engine = local_engine
        self._config = config
        self._next_session = next_session
        self._timeout_ns = config.margin_ns
        self._suspended_ns: int | None = 0
        self._lag_ns = 0
        """Monotonic time minus contact time [ns]."""
        self._exports: dict[int, Export] = {}
        self._imports: dict[tuple[int, int], Import] = {}
        """By session; the one that was heard last is the last."""
        self._closed: dict[tuple[int, int], int] = {}
        """Size of finished blocks by session, -1 when they did not arrive; the oldest first."""
        self._cancels: dict[tuple[tuple[int, int], bool], Cancel] = {}
        self._control: deque[Report | Cancel | ReportAck | CancelAck | ReportSegment] = deque()
        self._resend: deque[Export] = deque()
        self._fresh: deque[Export] = deque()
        self._timers: list[tuple[int, int, Timer]] = []
        self._silence = Timer()
        self._order = count()
        self._report_serials = count(1)
        self._events: list[LtpEvent] = []

    # -- what the owner asks

    @property
    def has_work(self) -> bool:
        """Whether `next_segment` may have something to send."""
        return bool(self._control or self._resend or self._fresh)

    @property
    def wants_block(self) -> bool:
        """Whether a new block would be sent without a wait behind other new data, and within the limit of red blocks."""
        return not self._fresh and len(self._exports) < self._config.exports_max

    @property
    def is_suspended(self) -> bool:
        """Whether there is no contact: timers stand still and nothing is sent."""
        return self._suspended_ns is not None

    def next_deadline_ns(self) -> int | None:
        """When `tick` has something to do [ns], None when nothing is timed or the span is suspended."""
        if self._suspended_ns is not None:
            return None
        timers = self._timers
        while timers and timers[0][2].deadline_ns != timers[0][0]:
            heappop(timers)
        return timers[0][0] + self._lag_ns if timers else None

    def take_events(self) -> list[LtpEvent]:
        """What happened since the last call, in order."""
        events = self._events
        if events:
            self._events = []
        return events

    # -- what the owner says

    def send(self, block: bytes, red: bool, now_ns: int) -> int:
        """Take a block to send and return its session number; blocks are sent in the order of these calls."""
        assert block, "an empty block has no segment"
        export = Export(self._next_session(), block, red)
        self._exports[export.number] = export
        self._fresh.append(export)
        return export.number

    def cancel(self, number: int, now_ns: int) -> None:
        """Give up a block that was to be sent; no event follows."""
        export = self._exports.pop(number, None)
        if export is not None:
            self._close_export(export, CancelReason.USR_CNCLD)

    def set_light_time_ns(self, light_time_ns: int) -> None:
        """Timers that start from now on allow for this one-way time [ns]."""
        self._timeout_ns = 2 * light_time_ns + self._config.margin_ns

    def suspend(self, now_ns: int) -> None:
        """Contact ends: timers stand still. Green blocks that were not sent whole fail; red ones wait."""
        if self._suspended_ns is not None:
            return
        self._suspended_ns = now_ns
        for export in self._fresh:
            if not export.red and not export.is_closed:
                self._fail(export, CancelReason.SYSTEM_CNCLD, tell=False)
        self._fresh = deque(export for export in self._fresh if not export.is_closed)

    def resume(self, now_ns: int) -> None:
        """Contact begins: timers go on with the time that was left to them."""
        if self._suspended_ns is not None:
            self._lag_ns += now_ns - self._suspended_ns
            self._suspended_ns = None

    def tick(self, now_ns: int) -> None:
        """Act on all timers that are due."""
        if self._suspended_ns is not None:
            return
        contact_ns = now_ns - self._lag_ns
        timers = self._timers
        while timers and timers[0][0] <= contact_ns:
            deadline_ns, _, timer = heappop(timers)
            if timer.deadline_ns == deadline_ns:
                timer.deadline_ns = None
                self._expire(timer, contact_ns)

    def next_segment(self, now_ns: int) -> bytes | None:
        """The next encoded segment to transmit now: control, then retransmissions, then new data; None when there is none."""
        if self._suspended_ns is not None:
            return None
        contact_ns = now_ns - self._lag_ns
        segment = self._next_control(contact_ns) or self._next_data(contact_ns)
        if segment is None:
            return None
        self.counters.segments_sent_count += 1
        return encode_segment(segment)

    def receive(self, segment: Segment, now_ns: int) -> None:
        """Take a segment that came from the remote engine."""
        self.counters.segments_received_count += 1
        if isinstance(segment, DataSegment):
            self._receive_data(segment, now_ns)
        elif isinstance(segment, ReportSegment):
            self._receive_report(segment)
        elif isinstance(segment, ReportAck):
            self._receive_report_ack(segment)
        elif isinstance(segment, CancelSegment):
            self._receive_cancel(segment)
        else:
            cancel = self._cancels.pop((segment.session, segment.by_sender), None)
            if cancel is not None:
                cancel.finish()

    # -- sending

    def _next_control(self, contact_ns: int) -> Segment | None:
        while self._control:
            item = self._control.popleft()
            if not isinstance(item, Timer):
                return item
            item.is_queued = False
            if not item.is_done:
                self._arm(item, contact_ns + self._timeout_ns)
                return item.segment
        return None

    def _next_data(self, contact_ns: int) -> Segment | None:
        while self._resend:
            export = self._resend[0]
            piece = export.next_piece()
            if piece is not None:
                self.counters.retransmissions_count += 1
                return self._data_segment(export, piece[0], piece[1], piece[2], contact_ns)
            self._resend.popleft()
            export.in_resend = False
        while self._fresh:
            export = self._fresh[0]
            if export.is_closed:
                self._fresh.popleft()
                continue
            lower = export.offset
            size = len(export.block)
            upper = export.offset = min(lower + self.segment_bytes, size)
            checkpoint = None
            if upper == size:
                self._fresh.popleft()
                if export.red:
                    checkpoint = export.checkpoint(lower, upper, 0)
                else:
                    del self._exports[export.number]
                    export.close()
                    self.counters.blocks_sent_count += 1
                    self._events.append(BlockSent(export.number))
            return self._data_segment(export, lower, upper, checkpoint, contact_ns)
        return None

    def _data_segment(
        self, export: Export, lower: int, upper: int, checkpoint: Checkpoint | None, contact_ns: int
    ) -> DataSegment:
        is_last = upper == len(export.block)
        # The end of a red part is a checkpoint by its segment type (RFC 5326 §3.1); gaps are sent in order, so that the
        # end of the block is always the last of its round and the checkpoint.
        assert checkpoint is not None or not (is_last and export.red)
        if checkpoint is not None:
            self._arm(checkpoint, contact_ns + self._timeout_ns)
        return DataSegment(
            session=(self._local_engine, export.number),
            red=export.red,
            checkpoint=checkpoint is not None,
            end_of_red=is_last and export.red,
            end_of_block=is_last,
            client_service=CLIENT_SERVICE_BUNDLE,
            offset=lower,
            data=export.block[lower:upper],
            checkpoint_serial=0 if checkpoint is None else checkpoint.serial,
            report_serial=0 if checkpoint is None else checkpoint.report_serial,
        )

    def _queue_control(self, item: Report | Cancel) -> None:
        if not item.is_queued:
            item.is_queued = True
            item.deadline_ns = None
            self._control.append(item)

    def _queue_resend(self, export: Export) -> None:
        if not export.in_resend and export.resend:
            export.in_resend = True
            self._resend.append(export)

    def _fail(self, export: Export, reason: CancelReason, *, tell: bool) -> None:
        """Give up a block, say so, and tell the peer unless it was the peer who said so."""
        del self._exports[export.number]
        self.counters.blocks_failed_count += 1
        self._events.append(BlockFailed(export.number, export.block, reason))
        self._close_export(export, reason if tell else None)

    def _close_export(self, export: Export, reason: CancelReason | None) -> None:
        export.close()
        if reason is not None and export.red and export.offset > 0:
            self._cancel_session((self._local_engine, export.number), reason, by_sender=True)

    def _cancel_session(self, session: tuple[int, int], reason: CancelReason, *, by_sender: bool) -> None:
        if (session, by_sender) not in self._cancels:
            cancel = Cancel(CancelSegment(session=session, reason=reason, by_sender=by_sender))
            self._cancels[session, by_sender] = cancel
            self._queue_control(cancel)

    # -- timers

    def _arm(self, timer: Timer, deadline_ns: int) -> None:
        timer.deadline_ns = deadline_ns
        heappush(self._timers, (deadline_ns, next(self._order), timer))

    def _expire(self, timer: Timer, contact_ns: int) -> None:
        if timer is self._silence:
            self._abandon_silent(contact_ns)
            return
        timer.attempts_count += 1
        is_exhausted = timer.attempts_count > self._config.retransmissions_max
        if isinstance(timer, Checkpoint):
            if is_exhausted:
                self._fail(timer.export, CancelReason.RLEXC, tell=True)
            else:
                timer.export.resend.append((timer.lower, timer.upper, timer))
                self._queue_resend(timer.export)
        elif isinstance(timer, Report):
            if not is_exhausted:
                self.counters.retransmissions_count += 1
                self._queue_control(timer)
            elif timer.session_import.is_delivered:
                # RFC 5326 §6.8 cancels here as well. The block has been delivered: a cancellation could only make the
                # sender send it again, so we close in peace and answer a later checkpoint from memory.
                self._close_import(timer.session_import)
            else:
                self._refuse(timer.session_import, CancelReason.RLEXC)
        elif isinstance(timer, Cancel):
            if is_exhausted:
                self._cancels.pop((timer.segment.session, timer.segment.by_sender), None)
            else:
                self.counters.retransmissions_count += 1
                self._queue_control(timer)

    def _abandon_silent(self, contact_ns: int) -> None:
        """Give up blocks that were silent for too long; one timer waits for the one that was heard longest ago."""
        while self._imports:
            oldest = next(iter(self._imports.values()))
            deadline_ns = oldest.heard_ns + self._config.import_idle_ns
            if deadline_ns > contact_ns:
                self._arm(self._silence, deadline_ns)
                return
            self._close_import(oldest)

    # -- receiving

    def _receive_data(self, segment: DataSegment, now_ns: int) -> None:
        session = segment.session
        if session in self._closed:
            self._receive_late(segment)
            return
        block_import = self._imports.pop(session, None)
        if block_import is None:
            if len(self._imports) >= self._config.imports_max:
                self._close_import(next(iter(self._imports.values())))
            block_import = Import(session, segment.red, now_ns)
        self._imports[session] = block_import
        block_import.heard_ns = self._contact_ns(now_ns)
        if self._silence.deadline_ns is None:
            self._arm(self._silence, block_import.heard_ns + self._config.import_idle_ns)
        if segment.client_service != CLIENT_SERVICE_BUNDLE:
            self._refuse(block_import, CancelReason.UNREACH)
            return
        if segment.red is not block_import.red:
            self._refuse(block_import, CancelReason.MISCOLORED)
            return
        is_mixed = segment.end_of_red and not segment.end_of_block
        is_large = segment.offset + len(segment.data) > self._config.block_bytes_max
        if is_mixed or is_large or not block_import.add(segment):
            self._refuse(block_import, CancelReason.SYSTEM_CNCLD)
            return
        if not block_import.is_delivered and block_import.is_complete():
            self.counters.blocks_received_count += 1
            block = block_import.deliver()
            self._events.append(BlockReceived(block, block_import.red, session, block_import.first_ns))
            if not block_import.red:
                self._close_import(block_import)
                return
        if segment.checkpoint:
            self._receive_checkpoint(block_import, segment)

    def _receive_checkpoint(self, block_import: Import, segment: DataSegment) -> None:
        """Report what is there, within the scope that RFC 5326 §6.11 gives."""
        known = block_import.checkpoints.get(segment.checkpoint_serial)
        if known is not None:
            for report in known:
                if not report.is_done:
                    self._queue_control(report)
            return
        if len(block_import.checkpoints) >= self._config.cycles_max:
            self._refuse(block_import, CancelReason.RXMTCYCEXC)
            return
        upper = segment.offset + len(segment.data)
        if segment.report_serial:
            answered = block_import.reports.get(segment.report_serial)
            lower = 0 if answered is None else answered.segment.lower
        else:
            lower = block_import.primary_upper
            block_import.primary_upper = max(lower, upper)
        if lower >= upper:
            lower = 0
        claims = block_import.coverage.within(lower, upper)
        # A claim takes up to 8 bytes: a report is never longer than a data segment.
        claims_max = max(1, self.segment_bytes // 8)
        reports = block_import.checkpoints[segment.checkpoint_serial] = []
        for start in range(0, len(claims), claims_max):
            part = claims[start : start + claims_max]
            part_upper = upper if start + claims_max >= len(claims) else claims[start + claims_max][0]
            report = Report(block_import, self._report(segment, lower, part_upper, part))
            lower = part_upper
            reports.append(report)
            block_import.reports[report.segment.report_serial] = report
            block_import.open_reports_count += 1
            self._queue_control(report)

    def _report(self, segment: DataSegment, lower: int, upper: int, claims: list[tuple[int, int]]) -> ReportSegment:
        return ReportSegment(
            session=segment.session,
            report_serial=next(self._report_serials),
            checkpoint_serial=segment.checkpoint_serial,
            upper=upper,
            lower=lower,
            claims=tuple((start - lower, end - start) for start, end in claims),
        )

    def _receive_late(self, segment: DataSegment) -> None:
        """A segment of a finished session: a checkpoint is told once more that all is there, the rest is ignored."""
        self.counters.late_segments_count += 1
        size = self._closed[segment.session]
        if segment.checkpoint and size > 0:
            self._control.append(self._report(segment, 0, size, [(0, size)]))

    def _receive_report(self, report: ReportSegment) -> None:
        """Acknowledge always; then finish the block, or send the gaps again (RFC 5326 §6.13)."""
        self._control.append(ReportAck(session=report.session, report_serial=report.report_serial))
        export = self._exports.get(report.session[1])
        if export is None or not export.red:
            self.counters.late_segments_count += 1
            return
        # Compared in full: after a reset the receiver begins its serial numbers anew.
        if export.reports.get(report.report_serial) == report:
            return
        export.reports[report.report_serial] = report
        checkpoint = export.checkpoints.pop(report.checkpoint_serial, None)
        if checkpoint is not None:
            checkpoint.finish()
        size = len(export.block)
        for offset, length in report.claims:
            export.claimed.add(report.lower + offset, min(report.lower + offset + length, export.offset))
        if export.claimed.covers(0, size):
            del self._exports[export.number]
            export.close()
            self.counters.blocks_sent_count += 1
            self._events.append(BlockSent(export.number))
            return
        if len(export.reports) > self._config.cycles_max:
            self._fail(export, CancelReason.RXMTCYCEXC, tell=True)
            return
        gaps = export.claimed.gaps(report.lower, min(report.upper, export.offset))
        if not gaps and not export.checkpoints and export.offset == size:
            # Nothing would ever ask the peer again: what no report has claimed is sent again.
            gaps = export.claimed.gaps(0, size)
        export.queue_gaps(gaps, self.segment_bytes, report.report_serial)
        self._queue_resend(export)

    def _receive_report_ack(self, segment: ReportAck) -> None:
        block_import = self._imports.get(segment.session)
        report = None if block_import is None else block_import.reports.get(segment.report_serial)
        if block_import is None or report is None:
            self.counters.late_segments_count += 1
            return
        if not report.is_done:
            report.finish()
            block_import.open_reports_count -= 1
        if block_import.is_delivered and block_import.open_reports_count == 0:
            self._close_import(block_import)

    def _receive_cancel(self, segment: CancelSegment) -> None:
        self._control.append(CancelAck(session=segment.session, by_sender=segment.by_sender))
        if segment.by_sender:
            block_import = self._imports.get(segment.session)
            if block_import is not None:
                self._close_import(block_import)
        else:
            export = self._exports.get(segment.session[1])
            if export is not None:
                self._fail(export, segment.reason, tell=False)

    def _refuse(self, block_import: Import, reason: CancelReason) -> None:
        self._close_import(block_import)
        if block_import.red:
            self._cancel_session(block_import.session, reason, by_sender=False)

    def _close_import(self, block_import: Import) -> None:
        del self._imports[block_import.session]
        block_import.close()
        if not block_import.is_delivered:
            self.counters.imports_abandoned_count += 1
        if len(self._closed) >= self._config.closed_sessions_max:
            del self._closed[next(iter(self._closed))]
        self._closed[block_import.session] = (block_import.size or 0) if block_import.is_delivered else -1

    def _contact_ns(self, now_ns: int) -> int:
        return (now_ns if self._suspended_ns is None else self._suspended_ns) - self._lag_ns
