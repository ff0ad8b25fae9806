"""A control connection over whatever a board has: a character device, standard input and output, a socket."""

import asyncio
import os
import select
from collections.abc import Callable
from typing import Any, Final

READ_BYTES: Final = 65_536


class DescriptorTransport(asyncio.Transport):
    """A transport over two descriptors, which may be one. They are the owner's: closing leaves them open.

    Args:
        protocol: takes what arrives.
        reads, writes: descriptors; they are made non-blocking.
    """

    def __init__(self, protocol: asyncio.Protocol, reads: int, writes: int) -> None:
        super().__init__()
        self._protocol = protocol
        self._reads, self._writes = reads, writes
        self._loop = asyncio.get_running_loop()
        self._waiting = bytearray()
        self._is_closing = False
        for descriptor in {reads, writes}:
            os.set_blocking(descriptor, False)
        self._loop.add_reader(reads, self._read)
        self._loop.call_soon(protocol.connection_made, self)

    def write(self, data: "bytes | bytearray | memoryview[Any]") -> None:
        """Send as soon as the other side takes it."""
        if not self._is_closing:
            self._waiting += data
            self._write()

    def close(self) -> None:
        """End the connection; what still waits to be written is written when it can be at once."""
        if not self._is_closing:  # a descriptor that has ended may be another connection's by now
            self._write()
        self._end(None)

    def abort(self) -> None:
        """End the connection now."""
        self._end(None)

    def is_closing(self) -> bool:
        """Whether it has ended."""
        return self._is_closing

    def get_write_buffer_size(self) -> int:
        """Bytes that wait to be written."""
        return len(self._waiting)

    def _read(self) -> None:
        try:
            data = os.read(self._reads, READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(error)
            return
        if data:
            self._protocol.data_received(data)
        else:
            self._end(None)

    def _write(self) -> None:
        try:
            while self._waiting:
                written = os.write(self._writes, self._waiting)
                del self._waiting[:written]
        except BlockingIOError:
            self._loop.add_writer(self._writes, self._write)
            return
        except OSError as error:
            self._end(error)
            return
        self._loop.remove_writer(self._writes)

    def _end(self, error: Exception | None) -> None:
        if self._is_closing:
            return
        self._is_closing = True
        self._waiting.clear()
        self._loop.remove_reader(self._reads)
        self._loop.remove_writer(self._writes)
        self._loop.call_soon(self._protocol.connection_lost, error)


def has_other_side(descriptor: int) -> bool:
    """Whether somebody has the other end of a virtio port open: without, reads end at once and it hangs up."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return not any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))


def attach(make: Callable[[], asyncio.Protocol], reads: int, writes: int) -> asyncio.Protocol:
    """Let a protocol speak over two descriptors."""
    protocol = make()
    DescriptorTransport(protocol, reads, writes)
    return protocol
