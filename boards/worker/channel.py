"""The manager's end of the talk with a worker: frames over a stream socket, one answer for each request.

A worker is not trusted: what it sends is bounded before it is kept, checked before it is used, and whatever does not
keep to the frames ends the talk.
"""

import asyncio
import math
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from boards.worker import program
from flightsw.errors import BoardError

Text = Annotated[str, msgspec.Meta(max_length=1000)]
Side = Annotated[int, msgspec.Meta(ge=0, le=2**31)]
UNSENT_BYTES_MAX: Final = 2 * program.BODY_BYTES_MAX
"""What may wait for a worker that does not read [bytes]: a request that was given up, and its successor."""


class Confinement(msgspec.Struct, frozen=True):
    """How a worker found itself confined."""

    interfaces: Annotated[list[Text], msgspec.Meta(max_length=256)]
    """Of networks, beside the loopback."""
    writing: Text
    """Error with which writing was refused; empty when it was not."""
    no_new_privileges: bool
    environment: Annotated[list[Text], msgspec.Meta(max_length=256)]
    """Names of variables that are not its own."""
    uid: int


class Hello(msgspec.Struct, frozen=True):
    """What a worker says first."""

    python: Text
    confinement: Confinement
    trouble: Text = ""
    """What it could not give up."""
    error: Text = ""
    """Why it can compute nothing; empty when it can."""
    runtime: Text = ""
    provider: Text = ""
    """What computes; empty when nothing that was wanted gives right answers."""
    refusals: Annotated[dict[Text, Text], msgspec.Meta(max_length=8)] = {}
    """Provider -> why it is not used."""


class Answer(msgspec.Struct, frozen=True):
    """What a request brought."""

    number: int
    dtype: Literal["<f4", "<i4"] = "<f4"
    shape: Annotated[tuple[Side, ...], msgspec.Meta(max_length=program.SIDES_MAX)] = ()
    error: Text = ""
    is_memory: bool = False


class Refused(Exception):
    """The worker could not do what was asked; says why."""

    def __init__(self, why: str, is_memory: bool) -> None:
        super().__init__(why)
        self.is_memory = is_memory


class Channel(asyncio.Protocol):
    """One talk.

    Args:
        on_nonsense: called with what is wrong when the worker does not keep to the frames.
    """

    def __init__(self, on_nonsense: Callable[[str], None]) -> None:
        self._on_nonsense = on_nonsense
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._expected: tuple[int, int] | None = None
        self._numbers_count = 0
        self._pending: dict[int, asyncio.Future[NDArray[Any]]] = {}
        self.closed = asyncio.Event()
        """The socket is no more ours."""
        self.hello: asyncio.Future[Hello] = asyncio.get_running_loop().create_future()

    def request(self, header: dict[str, Any], tensor: NDArray[Any]) -> "asyncio.Future[NDArray[Any]]":
        """Send a request with a tensor; the future brings the answer's tensor, or `Refused`.

        Raises:
            BoardError: the tensor is too large, or the worker leaves too much unread.
        """
        assert self._transport is not None, "connected"
        if tensor.nbytes > program.BODY_BYTES_MAX:
            raise BoardError(f"a tensor of {tensor.nbytes} bytes for the worker, expected {program.BODY_BYTES_MAX}")
        if self._transport.get_write_buffer_size() + tensor.nbytes > UNSENT_BYTES_MAX:
            raise BoardError(f"the worker leaves {self._transport.get_write_buffer_size()} bytes unread")
        self._numbers_count += 1
        head = {"number": self._numbers_count, "dtype": tensor.dtype.str, "shape": tensor.shape, **header}
        self._transport.write(program.pack(head, tensor.nbytes))
        self._transport.write(np.ascontiguousarray(tensor).tobytes())
        answer: asyncio.Future[NDArray[Any]] = asyncio.get_running_loop().create_future()
        self._pending[self._numbers_count] = answer
        return answer

    def fail(self, error: BoardError) -> None:
        """Nobody will answer any more: whoever waits gets this error."""
        waiting: list[asyncio.Future[Any]] = [*self._pending.values(), self.hello]
        self._pending.clear()
        for future in waiting:
            if not future.done():
                future.set_exception(error)
                future.exception()  # whoever has gone need not hear it

    def close(self) -> None:
        """Close the socket."""
        if self._transport is not None:
            self._transport.abort()

    # of asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is ours."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        """The socket is closed, by either end."""
        self.closed.set()

    def data_received(self, data: bytes) -> None:
        """Take what has arrived."""
        self._received += data
        try:
            while self._take():
                pass
        except (program.Nonsense, msgspec.MsgspecError, RecursionError) as error:
            self._received.clear()
            self._on_nonsense(str(error))

    def _take(self) -> bool:
        """Take one frame; False when it is not yet all there."""
        head_bytes = program.HEAD.size
        if len(self._received) < head_bytes:
            return False
        if self._expected is None:
            self._expected = program.lengths(bytes(self._received[:head_bytes]))
        header_bytes, body_bytes = self._expected
        if len(self._received) < head_bytes + header_bytes + body_bytes:
            return False
        header = bytes(self._received[head_bytes : head_bytes + header_bytes])
        body = bytes(self._received[head_bytes + header_bytes : head_bytes + header_bytes + body_bytes])
        del self._received[: head_bytes + header_bytes + body_bytes]
        self._expected = None
        if not self.hello.done():
            self.hello.set_result(msgspec.json.decode(header, type=Hello))
        else:
            self._answered(msgspec.json.decode(header, type=Answer), body)
        return True

    def _answered(self, answer: Answer, body: bytes) -> None:
        if not 1 <= answer.number <= self._numbers_count:
            raise program.Nonsense(f"an answer to request {answer.number}, of {self._numbers_count}")
        size_bytes = 0 if answer.error else 4 * math.prod(answer.shape)
        if len(body) != size_bytes:
            raise program.Nonsense(f"a tensor {answer.shape} in {len(body)} bytes")
        try:  # before the request is forgotten: whoever waits is to hear of nonsense
            tensor = None if answer.error else np.frombuffer(body, answer.dtype).reshape(answer.shape)
        except ValueError as error:
            raise program.Nonsense(f"a tensor {answer.shape}: {error}") from None
        future = self._pending.pop(answer.number, None)
        if future is None or future.done():
            return  # given up meanwhile
        if tensor is None:
            future.set_exception(Refused(answer.error, answer.is_memory))
        else:
            future.set_result(tensor)
