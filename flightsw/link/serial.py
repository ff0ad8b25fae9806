"""The serial bearer: a UART, a pseudo-terminal, or a network serial server behind raw TCP.

pyserial opens and sets up a port (rate, raw mode, exclusive use); the bytes move through the loop's own watching of the
file descriptor, without threads. A device that disappears is looked for again under the same path, whatever device has
that path by then; a server is connected again.
"""

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import serial

from flightsw.errors import LinkClosed
from flightsw.link.outbox import Outbox
from flightsw.link.pacing import Backoff, lab_s
from flightsw.link.record_stream import RecordStream, stuff_record
from flightsw.link.status import LinkStatus
from flightsw.link.tasks import end_tasks, watched
from flightsw.ports import Frame, FrameReceiver
from flightsw.wire.frames import padding_of

BAUD_UNPACED: Final = 115_200
"""Rate to which a port is set when none is given [bit/s]; a pseudo-terminal ignores it, a UART should be given one."""

CONNECT_S_MAX: Final = 5.0
"""Longest wait for a serial server to accept [s]: a laboratory network answers within one."""

_KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 5), (socket.TCP_KEEPINTVL, 2), (socket.TCP_KEEPCNT, 3))
"""A server that lost power is noticed after 5 + 3 x 2 s of silence; TCP alone would wait for hours."""


@dataclass(frozen=True, slots=True)
class SerialSettings:
    """Which line to open, and how."""

    path: str = ""
    """Device; empty for a server."""
    host: str = ""
    port: int = 0
    """TCP port of the server."""
    baud: int = 0
    """Rate of the line on the loop's clock [bit/s]; 0: as fast as the line takes them."""

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"


class SerialLink:
    """The node's end of a serial lab wire. Implements `flightsw.ports.Link`.

    Args:
        settings: the line.
    """

    def __init__(self, settings: SerialSettings) -> None:
        self._settings = settings
        self._receiver: FrameReceiver | None = None
        self._outbox: Outbox[tuple[bytes, int]] = Outbox()
        self._stream: RecordStream | None = None
        self._status = LinkStatus()
        self._connected = asyncio.Event()
        self._tried = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False

    async def open(self) -> None:
        """Try to reach the line; a failed try is in `status().error`, and others follow."""
        assert self._task is None, "a link is opened once"
        self._task = watched(self._stay_connected(), f"serial link {self._settings}")
        await self._tried.wait()

    async def wait_connected(self) -> None:
        """Return when the line is up."""
        await self._connected.wait()

    def send(self, interface: int, frame: Frame) -> None:
        """Hand over one coded frame; while the line is down it is dropped and counted.

        Raises:
            LinkClosed: the link was closed.
        """
        if self._is_closed:
            raise LinkClosed(f"serial link {self._settings}: send after close")
        if self._stream is None:
            self._status.dropped_out_count += 1
            return
        record = stuff_record(interface, frame)
        self._outbox.put((record, padding_of(frame)), len(record))
        self._stream.flush()

    def set_receiver(self, receiver: FrameReceiver) -> None:
        """Say who takes arriving frames; those that arrived before are lost and counted."""
        self._receiver = receiver

    def status(self) -> LinkStatus:
        """State and counts now; a copy."""
        status, stream = self._status, self._stream
        return LinkStatus(
            is_connected=stream is not None,
            connects_count=status.connects_count,
            sent_count=status.sent_count + (stream.sent_count if stream else 0),
            received_count=status.received_count,
            dropped_out_count=status.dropped_out_count + self._outbox.dropped_count,
            dropped_in_count=status.dropped_in_count,
            bad_records_count=status.bad_records_count + (stream.bad_records_count if stream else 0),
            error=status.error,
        )

    async def close(self) -> None:
        """Give the line back; what has not left is dropped and counted."""
        self._is_closed = True
        if self._task is not None:
            await end_tasks([self._task])

    async def _stay_connected(self) -> None:
        backoff, loop = Backoff(), asyncio.get_running_loop()
        while True:
            try:
                descriptor, give_back = await self._open_line()
            except OSError as error:  # pyserial's errors are among them
                self._status.error = f"{self._settings}: {error.strerror or error}"
            else:
                began_s = loop.time()
                try:
                    self._status.error = f"{self._settings}: {await self._run(descriptor)}"
                finally:
                    give_back()
                backoff.note(loop.time() - began_s)
            self._tried.set()
            await asyncio.sleep(backoff.next_s())

    async def _run(self, descriptor: int) -> str:
        """Carry frames until the line is lost; why it was."""
        lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        stream = RecordStream(descriptor, self._on_record, lost.set_result, self._outbox, self._settings.baud)
        self._stream = stream
        self._status.connects_count += 1
        self._connected.set()
        self._tried.set()
        try:
            return await lost
        finally:
            stream.close()
            self._stream = None
            self._connected.clear()
            self._outbox.clear()
            self._status.sent_count += stream.sent_count
            self._status.dropped_out_count += stream.cut_count
            self._status.bad_records_count += stream.bad_records_count

    def _on_record(self, interface: int, frame: Frame) -> None:
        if self._receiver is None:
            self._status.dropped_in_count += 1
            return
        self._status.received_count += 1
        self._receiver(interface, frame)

    async def _open_line(self) -> tuple[int, Callable[[], None]]:
        if self._settings.path:
            return self._open_port()
        return await self._connect()

    def _open_port(self) -> tuple[int, Callable[[], None]]:
        port = serial.Serial(
            self._settings.path,
            baudrate=self._settings.baud or BAUD_UNPACED,
            exclusive=True,
            inter_byte_timeout=0,  # VMIN = 1: a read of nothing then means that the line hung up
        )
        return port.fileno(), port.close

    async def _connect(self) -> tuple[int, Callable[[], None]]:
        loop = asyncio.get_running_loop()
        host, number = self._settings.host, self._settings.port
        try:
            async with asyncio.timeout(lab_s(CONNECT_S_MAX)):
                family, kind, protocol, _, address = (await loop.getaddrinfo(host, number, type=socket.SOCK_STREAM))[0]
                line = socket.socket(family, kind, protocol)
                try:
                    line.setblocking(False)
                    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                    for option, value in _KEEPALIVE:
                        line.setsockopt(socket.IPPROTO_TCP, option, value)
                    await loop.sock_connect(line, address)
                except BaseException:
                    line.close()
                    raise
        except TimeoutError:
            raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None
        return line.fileno(), line.close
