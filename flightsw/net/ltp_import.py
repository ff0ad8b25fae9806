"""The receiving half of an LTP span: segments into blocks, checkpoints into reports (RFC 5326 §6)."""

from typing import NamedTuple

from flightsw.net.ltp_core import SpanCore
from flightsw.net.ltp_sessions import Import, Report, Timer
from flightsw.net.ltp_values import CLIENT_SERVICE_BUNDLE, BlockReceived
from flightsw.wire.segments import CancelReason, CancelSegment, DataSegment, ReportAck, ReportSegment, SessionId


class _Closed(NamedTuple):
    """What is remembered of a session that is over."""

    red_size: int
    """Bytes of the red part that was delivered; 0 where a checkpoint has nothing to claim."""
    report_serial: int
    """Of the last report."""
    heard_ns: int
    """When its last piece of data came, in contact time [ns]."""


class Importer:
    """Blocks on their way from one remote engine."""

    def __init__(self, core: SpanCore) -> None:
        self._core = core
        self._imports: dict[SessionId, Import] = {}
        """By session; the one that was heard last is the last."""
        self._closed: dict[SessionId, _Closed] = {}
        """By session, the oldest first."""
        self.silence = Timer()
        """Runs until the block that was heard longest ago has been silent for too long."""

    def receive_data(self, segment: DataSegment, now_ns: int) -> None:
        """Take a piece of a block; deliver each part when it is whole; report when asked."""
        core = self._core
        session = segment.session
        closed = self._closed.get(session)
        if closed is not None:
            if closed.heard_ns + core.config.closed_idle_ns > core.contact_ns(now_ns):
                self._receive_late(segment, closed)
                return
            del self._closed[session]
        block_import = self._imports.pop(session, None)
        if block_import is None:
            if len(self._imports) >= core.config.imports_max:
                self._give_way()
            block_import = Import(session, now_ns)
        self._imports[session] = block_import
        block_import.heard_ns = core.contact_ns(now_ns)
        if self.silence.deadline_ns is None:
            core.arm(self.silence, block_import.heard_ns + core.config.import_idle_ns)
        reason = self._fault(block_import, segment)
        if reason is not None:
            self._refuse(block_import, reason)
            return
        self._deliver(block_import)
        if segment.checkpoint:
            self._receive_checkpoint(block_import, segment)
        self._close_if_done(block_import)

    def receive_report_ack(self, segment: ReportAck) -> None:
        """The sender has a report; with the last one a delivered block is finished."""
        block_import = self._imports.get(segment.session)
        report = None if block_import is None else block_import.reports.get(segment.report_serial)
        if block_import is None or report is None:
            self._core.counters.late_segments_count += 1
            return
        if not report.is_done:
            report.finish()
            block_import.open_reports_count -= 1
        self._close_if_done(block_import)

    def receive_cancel(self, segment: CancelSegment) -> None:
        """The sender gives a block up (RFC 5326 §6.17)."""
        block_import = self._imports.get(segment.session)
        if block_import is not None:
            self._close(block_import)

    def report_expired(self, report: Report) -> None:
        """A report was not acknowledged in time (RFC 5326 §6.8)."""
        if not self._core.is_exhausted(report):
            self._core.counters.retransmissions_count += 1
            self._core.queue_control(report)
        elif report.block_import.is_red_delivered:
            # RFC 5326 §6.8 cancels here as well. The red part has been delivered: a cancellation could only make the
            # sender send it again, so we close in peace and answer a later checkpoint from memory.
            report.finish()
            report.block_import.open_reports_count -= 1
            self._close_if_done(report.block_import)
        else:
            self._refuse(report.block_import, CancelReason.RLEXC)

    def abandon_silent(self, contact_ns: int) -> None:
        """Give up blocks that were silent for too long."""
        while self._imports:
            oldest = next(iter(self._imports.values()))
            deadline_ns = oldest.heard_ns + self._core.config.import_idle_ns
            if deadline_ns > contact_ns:
                self._core.arm(self.silence, deadline_ns)
                return
            self._close(oldest)

    def _fault(self, block_import: Import, segment: DataSegment) -> CancelReason | None:
        """Why a segment makes us refuse its block; otherwise its data are put in place."""
        if segment.client_service != CLIENT_SERVICE_BUNDLE:
            return CancelReason.UNREACH
        if segment.offset + len(segment.data) > self._core.config.block_bytes_max:
            return CancelReason.SYS_CNCLD
        reason = block_import.add(segment)
        if reason is None and len(block_import.coverage) > self._core.config.pieces_max:
            return CancelReason.SYS_CNCLD
        return reason

    def _deliver(self, block_import: Import) -> None:
        """Hand over what has become whole."""
        core = self._core
        for part, is_red in ((block_import.take_red(), True), (block_import.take_green(), False)):
            if part is not None:
                core.counters.blocks_received_count += 1
                core.events.append(BlockReceived(part, is_red, block_import.session, block_import.first_ns))

    def _receive_checkpoint(self, block_import: Import, segment: DataSegment) -> None:
        """Report what is there, within the scope that RFC 5326 §6.11 gives.

        Where that scope would be empty, because a checkpoint was overtaken by a later one, the report begins at the
        start of the block, as §6.11 permits: without a report the sender would wait for its limit, and cancel.
        """
        core = self._core
        known = block_import.checkpoints.get(segment.checkpoint_serial)
        if known is not None:
            for report in known:
                if not report.is_done:
                    core.queue_control(report)
            return
        if len(block_import.checkpoints) >= core.config.cycles_max:
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
        # A claim takes up to 8 bytes: a report is about as long as a data segment at most.
        claims_max = max(1, core.segment_bytes // 8)
        reports = block_import.checkpoints[segment.checkpoint_serial] = []
        for start in range(0, len(claims), claims_max):
            part = claims[start : start + claims_max]
            part_upper = upper if start + claims_max >= len(claims) else claims[start + claims_max][0]
            serial = block_import.next_report_serial()
            report = Report(block_import, self._report(segment, serial, lower, part_upper, part))
            lower = part_upper
            reports.append(report)
            block_import.reports[report.segment.report_serial] = report
            block_import.open_reports_count += 1
            core.queue_control(report)

    def _report(
        self, segment: DataSegment, serial: int, lower: int, upper: int, claims: list[tuple[int, int]]
    ) -> ReportSegment:
        return ReportSegment(
            session=segment.session,
            report_serial=serial,
            checkpoint_serial=segment.checkpoint_serial,
            upper=upper,
            lower=lower,
            claims=tuple((start - lower, end - start) for start, end in claims),
        )

    def _receive_late(self, segment: DataSegment, closed: _Closed) -> None:
        """A segment of a finished session: a checkpoint is told once more that all is there, the rest is ignored."""
        self._core.counters.late_segments_count += 1
        if segment.checkpoint and closed.red_size > 0:
            closed = self._closed[segment.session] = closed._replace(report_serial=closed.report_serial + 1)
            claims = [(0, closed.red_size)]
            self._core.answer(self._report(segment, closed.report_serial, 0, closed.red_size, claims))

    def _give_way(self) -> None:
        """Forget a block for another: one that only waits for an acknowledgement, else the one silent for longest."""
        imports = self._imports.values()
        self._close(next((one for one in imports if one.is_delivered), next(iter(imports))))

    def _refuse(self, block_import: Import, reason: CancelReason) -> None:
        """Cancel a session (RFC 5326 §6.19); the sender of a green block is told as well (§6.21)."""
        self._close(block_import)
        self._core.cancel_session(block_import.session, reason, by_sender=False)

    def _close_if_done(self, block_import: Import) -> None:
        """A session ends when all parts are delivered and all reports acknowledged.

        RFC 5326 §6.14 ends it whenever no report is open, whatever is missing; then the memory of a half received block
        would be lost between two rounds.
        """
        if block_import.is_delivered and block_import.open_reports_count == 0:
            self._close(block_import)

    def _close(self, block_import: Import) -> None:
        del self._imports[block_import.session]
        block_import.close()
        if not block_import.is_delivered:
            self._core.counters.imports_abandoned_count += 1
        if len(self._closed) >= self._core.config.closed_sessions_max:
            del self._closed[next(iter(self._closed))]
        red_size = (block_import.red_size or 0) if block_import.is_red_delivered else 0
        self._closed[block_import.session] = _Closed(red_size, block_import.report_serial, block_import.heard_ns)
