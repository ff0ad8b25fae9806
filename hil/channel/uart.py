"""The bench's end of the UART of a board: emulated, behind a Unix socket, or real, on a port of this machine."""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import serial

from flightsw.errors import ConfigError, LinkClosed
from flightsw.link.outbox import Outbox
from flightsw.link.pacing import Backoff
from flightsw.link.record_stream import RecordStream, stuff_record
from flightsw.link.status import LinkStatus
from flightsw.ports import Frame, FrameReceiver
from flightsw.wire.frames import padding_of

UNSENT_BYTES: Final = 4096
"""What the kernel holds on its way into the UART of an emulated board [bytes]: as a board's own receive buffer. What
waits beyond it waits in our queue, where it can be counted."""

Line = tuple[int, Callable[[], None]]
"""An open, non-blocking descriptor, and what gives it back."""


def socket_line(path: Path) -> Line:
    """The Unix socket that is the other end of an emulated board's UART. Raises: OSError."""
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        line.setblocking(False)
        line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNSENT_BYTES)
        line.connect(str(path))
    except OSError:
        line.close()
        raise
    return line.fileno(), line.close


def port_line(path: Path, baud: int) -> Line:
    """A serial port of this machine, at a rate [bit/s]. Raises: OSError."""
    port = serial.Serial(
        str(path),
        baudrate=baud,
        exclusive=True,
        inter_byte_timeout=0,  # VMIN = 1: a read of nothing then means that the line hung up
    )
    return port.fileno(), port.close


class SocketWire:
    """A lab wire over the UART of a board: emulated, behind a socket, or real, on a port of this machine. Needs a
    running loop.

    An emulated UART moves bytes as fast as its machine runs, whatever its rate is set to, so we pace them, both ways:
    they leave at the rate, and are taken at the rate. What a board sends faster than that waits in the kernel and then
    in the board, as behind a transmitter that is busy.

    A line that is lost is looked for again until `unplug`: a machine that starts, an adapter that is put back.

    Args:
        name: of the line, for reports.
        open_line: opens it; asked again for each try. Raises OSError, or ConfigError when there is no such port.
        device: what the node opens at its end.
        baud: rate of the line on the loop's clock, both ways [bit/s].
        paces_intake: whether the line has no rate of its own.
        on_frame: called with (interface, frame) for each frame from the node.
    """

    def __init__(
        self,
        name: str,
        open_line: Callable[[], Line],
        *,
        device: str,
        baud: int,
        paces_intake: bool = True,
        on_frame: FrameReceiver | None = None,
    ) -> None:
        self.on_frame = on_frame
        self._name = name
        self._open_line = open_line
        self._device = device
        self._baud = baud
        self._paces_intake = paces_intake
        self._outbox: Outbox[tuple[bytes, int]] = Outbox()
        self._stream: RecordStream | None = None
        self._give_back: Callable[[], None] | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._backoff = Backoff()
        self._connected_s = 0.0
        self._is_plugged = False
        self._is_closed = False
        self._past = LinkStatus()
        """Of the connections that ended."""

    @property
    def url(self) -> str:
        """What the node opens its end with."""
        return f"serial://{self._device}?baud={self._baud}"

    def plug(self) -> None:
        """Look for the line from now on. No effect when plugged."""
        if not self._is_plugged and not self._is_closed:
            self._is_plugged = True
            self._backoff = Backoff()
            self._try()

    def unplug(self) -> None:
        """Let go of the line; what waits for the node is lost and counted. No effect when unplugged."""
        self._is_plugged = False
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._let_go()
        self._outbox.clear()

    def deliver(self, interface: int, frame: Frame) -> None:
        """Send one frame to the node; never blocks. While there is no line it is dropped and counted.

        Raises:
            LinkClosed: the wire was closed.
        """
        if self._is_closed:
            raise LinkClosed(f"wire {self._name}: send after close")
        if self._stream is None:
            self._past.dropped_out_count += 1
            return
        record = stuff_record(interface, frame)
        self._outbox.put((record, padding_of(frame)), len(record))
        self._stream.flush()

    def status(self) -> LinkStatus:
        """State and counts now; a copy."""
        past, stream = self._past, self._stream
        return replace(
            past,
            is_connected=stream is not None,
            sent_count=past.sent_count + (stream.sent_count if stream else 0),
            dropped_out_count=past.dropped_out_count + self._outbox.dropped_count + (stream.cut_count if stream else 0),
            bad_records_count=past.bad_records_count + (stream.bad_records_count if stream else 0),
        )

    def close(self) -> None:
        """Give the line back for good."""
        self.unplug()
        self._is_closed = True

    def _try(self) -> None:
        self._retry = None
        loop = asyncio.get_running_loop()
        try:
            descriptor, self._give_back = self._open_line()
        except (OSError, ConfigError) as error:  # pyserial's errors are among them
            self._past.error = f"{self._name}: {getattr(error, 'strerror', None) or error}"
            self._retry = loop.call_later(self._backoff.next_s(), self._try)
            return
        self._past.connects_count += 1
        self._past.error = ""
        self._connected_s = loop.time()
        stream = RecordStream(
            descriptor, self._on_record, self._on_lost, self._outbox, self._baud, paces_intake=self._paces_intake
        )
        if self._give_back is not None:  # else it was lost at its first byte
            self._stream = stream

    def _on_record(self, interface: int, frame: Frame) -> None:
        if self.on_frame is None:
            self._past.dropped_in_count += 1
            return
        self._past.received_count += 1
        self.on_frame(interface, frame)

    def _on_lost(self, reason: str) -> None:
        loop = asyncio.get_running_loop()
        self._past.error = f"{self._name}: {reason}"
        self._let_go()
        self._outbox.clear()
        self._backoff.note(loop.time() - self._connected_s)
        if self._is_plugged:
            self._retry = loop.call_later(self._backoff.next_s(), self._try)

    def _let_go(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()
            self._past.sent_count += stream.sent_count
            self._past.dropped_out_count += stream.cut_count
            self._past.bad_records_count += stream.bad_records_count
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back()
