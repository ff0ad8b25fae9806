"""The sending half of an LTP span: blocks into segments, checkpoints, reports into retransmissions (RFC 5326 §6).

A peer that answers nothing costs little: when a block has reached the limit of repetitions (RFC 5326 §6.7), the span
rests before it tries another, twice as long each time, and then tries with a single block. The first answer of whatever
kind, or a new contact, ends that. Green blocks are sent all the while.
"""

from collections import deque
from collections.abc import Callable

from flightsw.net.ltp_core import SpanCore
from flightsw.net.ltp_sessions import Checkpoint, Export, Timer
from flightsw.net.ltp_values import CLIENT_SERVICE_BUNDLE, BlockFailed, BlockSent
from flightsw.wire.segments import CancelReason, CancelSegment, DataSegment, ReportAck, ReportSegment


class Exporter:
    """Blocks on their way to one remote engine."""

    def __init__(self, core: SpanCore, next_session: Callable[[], int]) -> None:
        self._core = core
        self._next_session = next_session
        self._exports: dict[int, Export] = {}
        self.resend: deque[Export] = deque()
        """Blocks of which something is to be sent again."""
        self.fresh: deque[Export] = deque()
        """Blocks that were not sent whole yet, in order."""
        self.rest = Timer()
        """Runs while no block is tried because the peer does not answer."""
        self._silences_count = 0
        """Rounds of blocks in a row that ended without any answer."""
        self._newest = -1
        """Order of the last block."""
        self._silent_newest = -1
        """Order of the last block when the peer was last found silent: older ones are of the same round."""

    @property
    def wants_block(self) -> bool:
        """Whether a new block would not wait behind other new data, and is within the limit of blocks under way."""
        if self.fresh or self.rest.deadline_ns is not None:
            return False
        return len(self._exports) < (1 if self._silences_count else self._core.config.exports_max)

    def send(self, block: bytes, red: bool) -> int:
        """Take a block; returns its session number."""
        assert block, "an empty block has no segment"
        self._newest += 1
        export = Export(self._next_session(), self._newest, block, red)
        self._exports[export.number] = export
        self.fresh.append(export)
        return export.number

    def cancel(self, number: int) -> None:
        """Give up a block; no event follows."""
        export = self._exports.pop(number, None)
        if export is not None:
            self._close(export, CancelReason.USR_CNCLD)

    def cut_green(self) -> None:
        """Contact ends: green blocks that were not sent whole have failed; nobody could ask for the rest."""
        for export in self.fresh:
            if not export.red and not export.is_closed:
                self._fail(export, CancelReason.SYS_CNCLD, tell=False)
        self.fresh = deque(export for export in self.fresh if not export.is_closed)

    def next_data(self, contact_ns: int) -> DataSegment | None:
        """The next data segment: first what is sent again, then what is new."""
        core = self._core
        while self.resend:
            export = self.resend[0]
            piece = export.next_piece()
            if piece is not None:
                core.counters.retransmissions_count += 1
                return self._segment(export, piece[0], piece[1], piece[2], contact_ns)
            self.resend.popleft()
            export.in_resend = False
        while self.fresh:
            export = self.fresh[0]
            if export.is_closed:
                self.fresh.popleft()
                continue
            lower = export.offset
            size = len(export.block)
            upper = export.offset = min(lower + core.segment_bytes, size)
            checkpoint = None
            if upper == size:
                self.fresh.popleft()
                if export.red:
                    checkpoint = export.checkpoint(lower, upper, 0)
                else:
                    self._finish(export)
            return self._segment(export, lower, upper, checkpoint, contact_ns)
        return None

    def receive_report(self, report: ReportSegment) -> None:
        """Acknowledge always; then finish the block (RFC 5326 §6.12), or send the gaps again (§6.13)."""
        core = self._core
        core.answer(ReportAck(session=report.session, report_serial=report.report_serial))
        export = self._exports.get(report.session[1])
        if export is None or not export.red:
            core.counters.late_segments_count += 1
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
            # What was never sent cannot have arrived, whatever the peer claims.
            export.claimed.add(report.lower + offset, min(report.lower + offset + length, export.offset))
        if export.claimed.covers(0, size):
            self._finish(export)
            return
        if len(export.reports) > core.config.cycles_max:
            self._fail(export, CancelReason.RXMTCYCEXC, tell=True)  # RFC 5326 §6.22
            return
        gaps = export.claimed.gaps(report.lower, min(report.upper, export.offset))
        if not gaps and not export.checkpoints and export.offset == size:
            # Nothing would ever ask the peer again: what no report has claimed is sent again.
            gaps = export.claimed.gaps(0, size)
        export.queue_gaps(gaps, core.segment_bytes, report.report_serial)
        self._queue_resend(export)

    def receive_cancel(self, segment: CancelSegment) -> None:
        """The receiver gives a block up (RFC 5326 §6.17)."""
        export = self._exports.get(segment.session[1])
        if export is not None:
            self._fail(export, segment.reason, tell=False, by_peer=True)

    def answered(self) -> None:
        """The peer hears us."""
        if self._silences_count:
            self._silences_count = 0
            self.rest.finish()

    def checkpoint_expired(self, checkpoint: Checkpoint, contact_ns: int) -> None:
        """No report came in time (RFC 5326 §6.7)."""
        export = checkpoint.export
        if self._core.is_exhausted(checkpoint):
            if export.order > self._silent_newest:
                self._silent_newest = self._newest
                self._core.arm(self.rest, contact_ns + self._core.wait_ns(self._silences_count))
                self._silences_count += 1
            self._fail(export, CancelReason.RLEXC, tell=True)
        else:
            export.resend.append((checkpoint.lower, checkpoint.upper, checkpoint))
            self._queue_resend(export)

    def _segment(
        self, export: Export, lower: int, upper: int, checkpoint: Checkpoint | None, contact_ns: int
    ) -> DataSegment:
        is_last = upper == len(export.block)
        # The end of a red part is a checkpoint by its segment type (RFC 5326 §3.1.1); gaps are sent in order, so that
        # the end of the block is always the last of its round and the checkpoint.
        assert checkpoint is not None or not (is_last and export.red)
        if checkpoint is not None:
            self._core.arm(checkpoint, contact_ns + self._core.timeout_ns)
        return DataSegment(
            (self._core.local_engine, export.number),
            export.red,
            checkpoint is not None,
            is_last and export.red,
            is_last,
            CLIENT_SERVICE_BUNDLE,
            lower,
            export.block[lower:upper],
            0 if checkpoint is None else checkpoint.serial,
            0 if checkpoint is None else checkpoint.report_serial,
        )

    def _queue_resend(self, export: Export) -> None:
        if not export.in_resend and export.resend:
            export.in_resend = True
            self.resend.append(export)

    def _finish(self, export: Export) -> None:
        del self._exports[export.number]
        export.close()
        self._core.counters.blocks_sent_count += 1
        self._core.events.append(BlockSent(export.number))

    def _fail(self, export: Export, reason: CancelReason, *, tell: bool, by_peer: bool = False) -> None:
        """Give up a block, say so, and tell the peer unless it was the peer who said so."""
        del self._exports[export.number]
        self._core.counters.blocks_failed_count += 1
        self._core.events.append(BlockFailed(export.number, export.block, reason, by_peer))
        self._close(export, reason if tell else None)

    def _close(self, export: Export, reason: CancelReason | None) -> None:
        export.close()
        if reason is not None and export.red and export.offset > 0:
            self._core.cancel_session((self._core.local_engine, export.number), reason, by_sender=True)
