"""The sessions of the LTP engine: what is known of one block on its way out or in, and the timers that belong to it."""

from collections import deque

from flightsw.net.coverage import Coverage
from flightsw.wire.segments import CancelSegment, DataSegment, ReportSegment


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
        "red",
        "reports",
        "resend",
    )

    def __init__(self, number: int, block: bytes, red: bool) -> None:
        self.number = number
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
    """A block on its way in."""

    __slots__ = (
        "_buffer",
        "checkpoints",
        "coverage",
        "first_ns",
        "heard_ns",
        "highest",
        "is_delivered",
        "open_reports_count",
        "primary_upper",
        "red",
        "reports",
        "session",
        "size",
    )

    def __init__(self, session: tuple[int, int], red: bool, now_ns: int) -> None:
        self.session = session
        self.red = red
        self.first_ns = now_ns
        self.heard_ns = 0
        """When the last segment came, in contact time [ns]."""
        self.coverage = Coverage()
        self.highest = 0
        self.size: int | None = None
        """Bytes of the block; known when its last segment has come."""
        self.is_delivered = False
        self.checkpoints: dict[int, list[Report]] = {}
        self.reports: dict[int, Report] = {}
        self.open_reports_count = 0
        self.primary_upper = 0
        """Upper bound of the last report that answered a checkpoint of new data."""
        self._buffer = bytearray()

    def add(self, segment: DataSegment) -> bool:
        """Put the data of a segment in place. False when it contradicts an earlier one about the block's size."""
        lower = segment.offset
        upper = lower + len(segment.data)
        if segment.end_of_block:
            if self.size is None:
                self.size = upper
            elif self.size != upper:
                return False
        if upper > self.highest:
            self.highest = upper
        if self.size is not None and self.highest > self.size:
            return False
        if not self.is_delivered and not self.coverage.covers(lower, upper):
            buffer = self._buffer
            if lower > len(buffer):
                buffer.extend(bytes(lower - len(buffer)))
            buffer[lower:upper] = segment.data
            self.coverage.add(lower, upper)
        return True

    def is_complete(self) -> bool:
        """Whether every byte of the block is there."""
        return self.size is not None and self.coverage.covers(0, self.size)

    def deliver(self) -> bytes:
        """The block, once; its memory is given back."""
        self.is_delivered = True
        block = bytes(self._buffer)
        self._buffer = bytearray()
        return block

    def close(self) -> None:
        """Stop all timers."""
        for report in self.reports.values():
            report.finish()


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
