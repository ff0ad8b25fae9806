"""The sessions of the LTP engine: what is known of one block on its way out or in, and the timers that belong to it."""

from collections import deque

from flightsw.net.coverage import Coverage
from flightsw.wire.segments import CancelReason, CancelSegment, DataSegment, ReportSegment


class Timer:
    """Something that is repeated until the peer answers. `deadline_ns` is None while it does not run.

    Deadlines are in contact time: nanoseconds during which the span was in contact.
    """

    __slots__ = ("attempts_count", "deadline_ns", "is_done", "is_queued")

    def __init__(self) -> None:
        self.deadline_ns: int | None = None
        self.attempts_count = 0
        self.is_done = False
        self.is_queued = False

    def finish(self) -> None:
        """The answer has come, or nobody waits for it any more."""
        self.is_done = True
        self.deadline_ns = None


class Export:
    """A block on its way out: a session of which we are the originator."""

    __slots__ = (
        "block",
        "checkpoint_serial",
        "checkpoints",
        "claimed",
        "in_resend",
        "is_closed",
        "number",
        "offset",
        "order",
        "red",
        "reports",
        "resend",
    )

    def __init__(self, number: int, order: int, block: bytes, red: bool) -> None:
        self.number = number
        self.order = order
        """Rises with each block of the span; session numbers run in a circle."""
        self.block = block
        self.red = red
        self.offset = 0
        """Bytes handed over at least once."""
        self.claimed = Coverage()
        self.checkpoint_serial = 0
        self.checkpoints: dict[int, Checkpoint] = {}
        """Checkpoints that no report has answered, by serial number."""
        self.reports: dict[int, ReportSegment] = {}
        """Reports that were acted upon, by serial number."""
        self.resend: deque[tuple[int, int, Checkpoint | None]] = deque()
        self.in_resend = False
        self.is_closed = False

    def checkpoint(self, lower: int, upper: int, report_serial: int) -> "Checkpoint":
        """A new checkpoint at the segment [lower, upper). Serial numbers rise by one (RFC 5326 §3.2.1)."""
        self.checkpoint_serial += 1
        checkpoint = Checkpoint(self, self.checkpoint_serial, report_serial, lower, upper)
        self.checkpoints[checkpoint.serial] = checkpoint
        return checkpoint

    def queue_gaps(self, gaps: list[tuple[int, int]], segment_bytes: int, report_serial: int) -> None:
        """Send the gaps again; the last segment is a checkpoint that names the report (RFC 5326 §6.13)."""
        pieces = [
            (lower, min(lower + segment_bytes, end))
            for start, end in gaps
            for lower in range(start, end, segment_bytes)
        ]
        for lower, upper in pieces[:-1]:
            self.resend.append((lower, upper, None))
        for lower, upper in pieces[-1:]:
            self.resend.append((lower, upper, self.checkpoint(lower, upper, report_serial)))

    def next_piece(self) -> tuple[int, int, "Checkpoint | None"] | None:
        """The next piece to send again; pieces and checkpoints that a report has answered meanwhile are left out."""
        while self.resend:
            lower, upper, checkpoint = self.resend.popleft()
            if checkpoint is None:
                if not self.claimed.covers(lower, upper):
                    return lower, upper, None
            elif not checkpoint.is_done:
                return lower, upper, checkpoint
        return None

    def close(self) -> None:
        """Stop all timers and forget the queue."""
        self.is_closed = True
        self.resend.clear()
        for checkpoint in self.checkpoints.values():
            checkpoint.finish()
        self.checkpoints.clear()


class Checkpoint(Timer):
    """A data segment that asks for a report, and is repeated until one comes."""

    __slots__ = ("export", "lower", "report_serial", "serial", "upper")

    def __init__(self, export: Export, serial: int, report_serial: int, lower: int, upper: int) -> None:
        super().__init__()
        self.export = export
        self.serial = serial
        self.report_serial = report_serial
        self.lower = lower
        self.upper = upper


class Import:
    """A block on its way in: a red part, reported until it is whole, then a green part; often only one of them.

    The block's bytes have one numbering over both parts (RFC 5326 §2), so one buffer takes both.
    """

    __slots__ = (
        "_buffer",
        "_green_lower",
        "_red_upper",
        "checkpoints",
        "coverage",
        "first_ns",
        "heard_ns",
        "highest",
        "is_green_delivered",
        "is_red_delivered",
        "open_reports_count",
        "primary_upper",
        "red_size",
        "report_serial",
        "reports",
        "session",
        "size",
    )

    def __init__(self, session: tuple[int, int], now_ns: int) -> None:
        self.session = session
        self.first_ns = now_ns
        self.heard_ns = 0
        """When the last segment came, in contact time [ns]."""
        self.coverage = Coverage()
        self.highest = 0
        self.size: int | None = None
        """Bytes of the block; known when its last segment has come."""
        self.red_size: int | None = None
        """Bytes of the red part; known when its last segment has come, or when all of the block is green."""
        self.is_red_delivered = False
        self.is_green_delivered = False
        self.checkpoints: dict[int, list[Report]] = {}
        self.reports: dict[int, Report] = {}
        self.report_serial = 0
        """Serial number of the last report; they rise by one (RFC 5326 §3.2.2)."""
        self.open_reports_count = 0
        self.primary_upper = 0
        """Upper bound of the last report that answered a checkpoint of new data."""
        self._red_upper = 0
        """Where the red data that came end [bytes]."""
        self._green_lower: int | None = None
        """Where the green data that came begin [bytes]."""
        self._buffer = bytearray()

    def add(self, segment: DataSegment) -> CancelReason | None:
        """Put the data of a segment in place, or say which rule forbids it; then nothing is put anywhere."""
        lower = segment.offset
        upper = lower + len(segment.data)
        if segment.red:
            if self._green_lower is not None and upper > self._green_lower:
                return CancelReason.MISCOLORED
            if self.red_size is not None and (upper > self.red_size or (segment.end_of_red and upper != self.red_size)):
                return CancelReason.SYS_CNCLD
            if segment.end_of_red and upper < self._red_upper:
                return CancelReason.SYS_CNCLD
        elif lower < self._red_upper:
            return CancelReason.MISCOLORED
        if self.size is not None and (upper > self.size or (segment.end_of_block and upper != self.size)):
            return CancelReason.SYS_CNCLD
        if segment.end_of_block and upper < self.highest:
            return CancelReason.SYS_CNCLD
        self._note(segment, lower, upper)
        if not self.coverage.covers(lower, upper):
            buffer = self._buffer
            if lower > len(buffer):
                buffer.extend(bytes(lower - len(buffer)))
            buffer[lower:upper] = segment.data
            self.coverage.add(lower, upper)
        return None

    def _note(self, segment: DataSegment, lower: int, upper: int) -> None:
        """What a segment says of the block's parts."""
        self.highest = max(self.highest, upper)
        if segment.red:
            self._red_upper = max(self._red_upper, upper)
            if segment.end_of_red:
                self.red_size = upper
        else:
            self._green_lower = lower if self._green_lower is None else min(self._green_lower, lower)
            if lower == 0:
                self.red_size = 0
        if segment.end_of_block:
            self.size = upper

    def take_red(self) -> bytes | None:
        """The red part, once, when it is whole (RFC 5326 §6.9)."""
        size = self.red_size
        if not size or self.is_red_delivered or not self.coverage.covers(0, size):
            return None
        self.is_red_delivered = True
        return bytes(self._buffer[:size])

    def take_green(self) -> bytes | None:
        """The green part, once, when it is whole.

        RFC 5326 §6.10 hands over every green segment as it comes; our client has no use for pieces of a bundle.
        """
        lower, upper = self.red_size, self.size
        if lower is None or upper is None or self.is_green_delivered or not self.coverage.covers(lower, upper):
            return None
        if lower == upper:
            return None
        self.is_green_delivered = True
        return bytes(self._buffer[lower:upper])

    @property
    def is_delivered(self) -> bool:
        """Whether all of the block was handed over."""
        if self.size is None or self.red_size is None:
            return False
        return (self.is_red_delivered or self.red_size == 0) and (self.is_green_delivered or self.red_size == self.size)

    def next_report_serial(self) -> int:
        """The serial number of a new report."""
        self.report_serial += 1
        return self.report_serial

    def close(self) -> None:
        """Stop all timers and give the memory back; a report that waits to be sent may outlive the session."""
        for report in self.reports.values():
            report.finish()
        self._buffer = bytearray()


class Report(Timer):
    """A report segment that is repeated until it is acknowledged."""

    __slots__ = ("block_import", "segment")

    def __init__(self, block_import: Import, segment: ReportSegment) -> None:
        super().__init__()
        self.block_import = block_import
        self.segment = segment


class Cancel(Timer):
    """A cancellation that is repeated until it is acknowledged."""

    __slots__ = ("segment",)

    def __init__(self, segment: CancelSegment) -> None:
        super().__init__()
        self.segment = segment
