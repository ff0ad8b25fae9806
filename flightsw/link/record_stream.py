"""Lab records over a byte stream: a serial line, a pseudo-terminal or a socket.

A record is stuffed so that zeros stand only between records: a receiver that joins in the middle, or loses bytes, is in
step again at the next zero. Each stream begins with a zero, which ends what the last user of the line left half sent.
"""

import asyncio
import os
from collections.abc import Callable
from typing import Final

from cobs import cobs

from flightsw.errors import WireError
from flightsw.link.outbox import Outbox
from flightsw.link.pacing import LineRate
from flightsw.link.records import RECORD_BYTES_MAX, pack_record, unpack_record
from flightsw.ports import Frame
from flightsw.wire.crc import crc32c

STUFFED_BYTES_MAX: Final = (RECORD_BYTES_MAX + 4) * 255 // 254 + 2
"""Longest stuffed record [bytes]: COBS adds one byte in 254 and one more; longer ones are noise without zeros."""

_DELIMITER: Final = b"\0"
_CRC_BYTES: Final = 4
_READ_BYTES: Final = 65_536
_SECOND_NS: Final = 1_000_000_000


def stuff_record(interface: int, frame: Frame) -> bytes:
    """One record as it goes into a byte stream, with its delimiter."""
    record = pack_record(interface, frame)
    stuffed: bytes = cobs.encode(record + crc32c(record).to_bytes(_CRC_BYTES, "big"))
    return stuffed + _DELIMITER


class RecordReader:
    """Cuts a byte stream into records; what does not decode is counted and skipped."""

    def __init__(self) -> None:
        self.bad_records_count = 0
        self._partial = bytearray()
        self._is_oversize = False

    def feed(self, data: bytes) -> list[tuple[int, Frame]]:
        """(interface, frame) of the records that these bytes complete, in order."""
        *ended, tail = data.split(_DELIMITER)
        records: list[tuple[int, Frame]] = []
        for piece in ended:
            stuffed = bytes(self._partial) + piece if self._partial else piece
            is_oversize = self._is_oversize or len(stuffed) > STUFFED_BYTES_MAX
            self._partial.clear()
            self._is_oversize = False
            if is_oversize:
                self.bad_records_count += 1
            elif stuffed:  # zeros between records are idle fill
                try:
                    records.append(_unstuffed(stuffed))
                except (WireError, cobs.DecodeError):
                    self.bad_records_count += 1
        if tail and not self._is_oversize:
            self._partial += tail
            if len(self._partial) > STUFFED_BYTES_MAX:
                self._partial.clear()
                self._is_oversize = True
        return records


def _unstuffed(stuffed: bytes) -> tuple[int, Frame]:
    checked: bytes = cobs.decode(stuffed)
    record = checked[:-_CRC_BYTES]
    if crc32c(record) != int.from_bytes(checked[-_CRC_BYTES:], "big"):
        raise WireError("record: CRC-32C does not hold")
    return unpack_record(record)


class RecordStream:
    """Moves records through an open, non-blocking file descriptor on the running loop. Does not own the descriptor.

    Args:
        descriptor: of the line.
        on_record: called with (interface, frame) for each record.
        on_lost: called once with the reason when the line breaks; the stream is closed by then.
        outbox: queue of stuffed records and padding; it belongs to the caller and outlives the stream.
        baud: rate at which records leave, on the loop's clock [bit/s]; 0 for as fast as the line takes them.
        paces_intake: take bytes from the line at that rate, too, for a line that has none of its own: what comes faster
            waits in the line.
    """

    def __init__(
        self,
        descriptor: int,
        on_record: Callable[[int, Frame], None],
        on_lost: Callable[[str], None],
        outbox: "Outbox[tuple[bytes, int]]",
        baud: int = 0,
        *,
        paces_intake: bool = False,
    ) -> None:
        self.sent_count = 0
        self.cut_count = 0
        """Records that were under way when the line was closed or lost."""
        self._descriptor = descriptor
        self._on_record = on_record
        self._on_lost = on_lost
        self._outbox = outbox
        self._rate = LineRate(baud) if baud else None
        self._intake = LineRate(baud) if baud and paces_intake else None
        self._intake_timer: asyncio.TimerHandle | None = None
        self._reader = RecordReader()
        self._loop = asyncio.get_running_loop()
        self._pending = memoryview(_DELIMITER)
        self._pending_is_record = False
        self._owed_bytes = 0
        """Padding of the present record, which is charged and not moved."""
        self._is_writer_armed = False
        self._timer: asyncio.TimerHandle | None = None
        self._is_open = True
        self._loop.add_reader(descriptor, self._on_readable)
        self.flush()

    @property
    def bad_records_count(self) -> int:
        """Records that arrived damaged."""
        return self._reader.bad_records_count

    def flush(self) -> None:
        """Move what waits in the outbox as far as line and rate take it; the rest follows by itself."""
        if self._is_writer_armed or self._timer is not None or not self._is_open:
            return
        self._write()

    def close(self) -> None:
        """Let go of the descriptor. What is in the outbox stays there."""
        if not self._is_open:
            return
        self._is_open = False
        self._loop.remove_reader(self._descriptor)
        if self._is_writer_armed:
            self._loop.remove_writer(self._descriptor)
        for timer in (self._timer, self._intake_timer):
            if timer is not None:
                timer.cancel()
        self.cut_count += self._pending_is_record
        self._pending_is_record = False

    def forget(self) -> None:
        """Leave off the record under way, which counts as cut; the next begins behind a zero."""
        self.cut_count += self._pending_is_record
        self._pending_is_record = False
        self._pending = memoryview(_DELIMITER)
        self._owed_bytes = 0

    def _on_readable(self) -> None:
        wanted = _READ_BYTES
        if self._intake is not None:
            now_ns = self._now_ns()
            wanted = min(wanted, self._intake.granted_bytes(now_ns))
            if wanted <= 0:
                self._loop.remove_reader(self._descriptor)
                wait_s = self._intake.wait_ns(now_ns) / _SECOND_NS
                self._intake_timer = self._loop.call_later(wait_s, self._on_intake_timer)
                return
        try:
            data = os.read(self._descriptor, wanted)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(error.strerror or str(error))
            return
        if not data:
            self._lose("hung up")
            return
        if self._intake is not None:
            self._intake.charge(len(data), self._now_ns())
        for interface, frame in self._reader.feed(data):
            if not self._is_open:  # the receiver of the record before closed us
                return
            self._on_record(interface, frame)

    def _write(self) -> None:
        while self._is_open and self._next_pending():
            granted = len(self._pending)
            if self._rate is not None:
                now_ns = self._now_ns()
                granted = min(granted + self._owed_bytes, self._rate.granted_bytes(now_ns))
                if granted <= 0:
                    self._arm_writer(False)
                    self._timer = self._loop.call_later(self._rate.wait_ns(now_ns) / _SECOND_NS, self._on_timer)
                    return
            if not self._move(granted):
                return

    def _next_pending(self) -> bool:
        """Whether there is anything to move; a record that is through makes room for the next."""
        if self._pending or self._owed_bytes:
            return True
        if self._pending_is_record:
            self.sent_count += 1
            self._pending_is_record = False
        if not self._outbox:
            return False
        (record, padding_bytes), _ = self._outbox.take()
        self._pending = memoryview(record)
        self._pending_is_record = True
        self._owed_bytes = padding_bytes if self._rate is not None else 0
        return True

    def _move(self, granted: int) -> bool:
        """Hand bytes to the line and charge them; False when the line is full or lost."""
        owed = min(granted, self._owed_bytes)
        self._owed_bytes -= owed
        wanted = min(granted - owed, len(self._pending))
        written = 0
        if wanted:
            try:
                written = os.write(self._descriptor, self._pending[:wanted])
            except BlockingIOError:
                written = 0
            except OSError as error:
                self._lose(error.strerror or str(error))
                return False
            self._pending = self._pending[written:]
        if self._rate is not None:
            self._rate.charge(owed + written, self._now_ns())
        self._arm_writer(written < wanted)
        return written == wanted

    def _arm_writer(self, is_armed: bool) -> None:
        if is_armed and not self._is_writer_armed:
            self._loop.add_writer(self._descriptor, self._write)
        elif self._is_writer_armed and not is_armed:
            self._loop.remove_writer(self._descriptor)
        self._is_writer_armed = is_armed

    def _on_timer(self) -> None:
        self._timer = None
        self._write()

    def _on_intake_timer(self) -> None:
        self._intake_timer = None
        self._loop.add_reader(self._descriptor, self._on_readable)
        self._on_readable()

    def _now_ns(self) -> int:
        return int(self._loop.time() * _SECOND_NS)

    def _lose(self, reason: str) -> None:
        self.close()
        self._on_lost(reason)
