"""The receiving half of an LTP span: segments into blocks, checkpoints into reports (RFC 5326 §6)."""

from itertools import count

from flightsw.net.ltp_core import SpanCore
from flightsw.net.ltp_sessions import Import, Report, Timer
from flightsw.net.ltp_values import CLIENT_SERVICE_BUNDLE, BlockReceived
from flightsw.wire.segments import CancelReason, CancelSegment, DataSegment, ReportAck, ReportSegment, SessionId


class Importer:
    """Blocks on their way from one remote engine."""

    def __init__(self, core: SpanCore) -> None:
        self._core = core
        self._imports: dict[SessionId, Import] = {}
        """By session; the one that was heard last is the last."""
        self._closed: dict[SessionId, int] = {}
        """Size of finished blocks by session [bytes], -1 when they did not arrive; the oldest first."""
        self.silence = Timer()
        """Runs until the block that was heard longest ago has been silent for too long."""
        self._serials = count(1)
        """Report serials: one row for all sessions of the span makes them unique in each."""

    def receive_data(self, segment: DataSegment, now_ns: int) -> None:
        """Take a piece of a block; deliver the block when it is whole; report when asked."""
        core = self._core
        session = segment.session
        if session in self._closed:
            self._receive_late(segment)
            return
        block_import = self._imports.pop(session, None)
        if block_import is None:
            if len(self._imports) >= core.config.imports_max:
                self._close(next(iter(self._imports.values())))
            block_import = Import(session, segment.red, now_ns)
        self._imports[session] = block_import
        block_import.heard_ns = core.contact_ns(now_ns)
        if self.silence.deadline_ns is None:
            core.arm(self.silence, block_import.heard_ns + core.config.import_idle_ns)
        reason = self._fault(block_import, segment)
        if reason is not None:
            self._refuse(block_import, reason)
            return
        if not block_import.is_delivered and block_import.is_complete():
            core.counters.blocks_received_count += 1
            block = block_import.deliver()
            core.events.append(BlockReceived(block, block_import.red, session, block_import.first_ns))
            if not block_import.red:
                self._close(block_import)
                return
        if segment.checkpoint:
            self._receive_checkpoint(block_import, segment)

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
        if block_import.is_delivered and block_import.open_reports_count == 0:
            self._close(block_import)

    def receive_cancel(self, segment: CancelSegment) -> None:
        """The sender gives a block up."""
        block_import = self._imports.get(segment.session)
        if block_import is not None:
            self._close(block_import)

    def report_expired(self, report: Report) -> None:
        """A report was not acknowledged in time."""
        if not self._core.is_exhausted(report):
            self._core.counters.retransmissions_count += 1
            self._core.queue_control(report)
        elif report.block_import.is_delivered:
            # RFC 5326 §6.8 cancels here as well. The block has been delivered: a cancellation could only make the
            # sender send it again, so we close in peace and answer a later checkpoint from memory.
            self._close(report.block_import)
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
        if segment.red is not block_import.red:
            return CancelReason.MISCOLORED
        is_mixed = segment.end_of_red and not segment.end_of_block
        is_large = segment.offset + len(segment.data) > self._core.config.block_bytes_max
        if is_mixed or is_large or not block_import.add(segment):
            return CancelReason.SYSTEM_CNCLD
        return None

    def _receive_checkpoint(self, block_import: Import, segment: DataSegment) -> None:
        """Report what is there, within the scope that RFC 5326 §6.11 gives."""
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
            report = Report(block_import, self._report(segment, lower, part_upper, part))
            lower = part_upper
            reports.append(report)
            block_import.reports[report.segment.report_serial] = report
            block_import.open_reports_count += 1
            core.queue_control(report)

    def _report(self, segment: DataSegment, lower: int, upper: int, claims: list[tuple[int, int]]) -> ReportSegment:
        return ReportSegment(
            session=segment.session,
            report_serial=next(self._serials),
            checkpoint_serial=segment.checkpoint_serial,
            upper=upper,
            lower=lower,
            claims=tuple((start - lower, end - start) for start, end in claims),
        )

    def _receive_late(self, segment: DataSegment) -> None:
        """A segment of a finished session: a checkpoint is told once more that all is there, the rest is ignored."""
        self._core.counters.late_segments_count += 1
        size = self._closed[segment.session]
        if segment.checkpoint and size > 0:
            self._core.control.append(self._report(segment, 0, size, [(0, size)]))

    def _refuse(self, block_import: Import, reason: CancelReason) -> None:
        self._close(block_import)
        if block_import.red:
            self._core.cancel_session(block_import.session, reason, by_sender=False)

    def _close(self, block_import: Import) -> None:
        del self._imports[block_import.session]
        block_import.close()
        if not block_import.is_delivered:
            self._core.counters.imports_abandoned_count += 1
        if len(self._closed) >= self._core.config.closed_sessions_max:
            del self._closed[next(iter(self._closed))]
        self._closed[block_import.session] = (block_import.size or 0) if block_import.is_delivered else -1
