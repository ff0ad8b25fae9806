"""Control sockets: two programs call each other, over a Unix socket on one machine or over TCP in a laboratory.

The messages are those of MessagePack-RPC (github.com/msgpack-rpc/msgpack-rpc, spec.md), each behind its length in four
bytes, big-endian; both ends may call:

| message | means |
|---|---|
| `[0, number, method, [argument, ...]]` | a call |
| `[1, number, error, result]` | its answer: error is nil, or a text |
| `[2, method, [argument, ...]]` | a notification: a call without an answer |

A handler is a function, or a coroutine function, with annotated positional arguments. What a peer sends is checked
against the annotations before the handler runs: a wrong argument is the caller's error and names method, argument,
value and expectation. A `FlatrackError` of the handler is the caller's error too; anything else is our mistake and goes
up. Handlers that are functions run in the order of arrival.

A Unix socket is guarded by its mode: only its user may open it. A TCP socket is guarded by nothing: who serves one asks
for a token in the first call (`token_holds`), offers nothing else before, and keeps to loopback or a network of the
laboratory, since neither the token nor what follows is hidden from those who listen there.
"""

import asyncio
import hmac
import inspect
import os
import socket
import stat
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, get_type_hints
from urllib.parse import urlsplit

import msgspec

from flightsw.errors import ConfigError, ControlError, FlatrackError, LinkBroken, LinkClosed, LinkError
from flightsw.link.pacing import lab_s

MESSAGE_BYTES_MAX: Final = 64 * 1024 * 1024
"""One message [bytes]: the largest object that anybody puts through a control socket."""
UNREAD_BYTES_MAX: Final = 256 * 1024 * 1024
"""What may wait for a peer that does not read [bytes]: minutes of a node's log. Then the peer is given up."""
CALLS_MAX: Final = 1024
"""Calls of a peer that may be under way at once: more than any user has; a peer that asks more is refused."""
PATH_BYTES_MAX: Final = 107
"""Path of a socket [bytes]: sun_path of Linux, with its final zero."""
VALUE_CHARACTERS_MAX: Final = 60
"""How much of a wrong value an error shows: one line."""

SCHEME: Final = "tcp://"
"""How the address of a control socket over TCP begins: `tcp://host:port`."""
CONNECT_S_MAX: Final = 5.0
"""Longest wait for a TCP connection [s of the machine]: a laboratory network answers within one."""
KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 5), (socket.TCP_KEEPINTVL, 2), (socket.TCP_KEEPCNT, 3))
"""A peer that lost power is noticed after 5 + 3 x 2 s of silence; TCP alone would wait for hours."""

LENGTH_BYTES: Final = 4
CALL: Final = 0
ANSWER: Final = 1
NOTICE: Final = 2

Handler = Callable[..., Any]
Handlers = Mapping[str, Handler]
OnPeer = Callable[["ControlPeer"], None]


class Method:
    """A handler and what its arguments must be."""

    def __init__(self, name: str, handler: Handler) -> None:
        self._name = name
        self._handler = handler
        hints = get_type_hints(handler, include_extras=True)
        self._arguments: list[tuple[str, Any]] = []
        self._needed_count = 0
        self._rest: tuple[str, Any] | None = None
        for one in inspect.signature(handler).parameters.values():
            kind = hints.get(one.name, Any)
            if one.kind is inspect.Parameter.VAR_POSITIONAL:
                self._rest = (one.name, kind)
                continue
            assert one.kind is not inspect.Parameter.KEYWORD_ONLY, f"{name}: a call has positional arguments"
            self._arguments.append((one.name, kind))
            self._needed_count += one.default is inspect.Parameter.empty

    def __call__(self, params: list[Any]) -> Any:
        """Check the arguments and run the handler.

        Raises:
            ControlError: an argument is wrong.
        """
        if len(params) < self._needed_count or (len(params) > len(self._arguments) and self._rest is None):
            expected = ", ".join(name for name, _ in self._arguments) + (f", *{self._rest[0]}" if self._rest else "")
            raise ControlError(f"{self._name}: {len(params)} arguments, expected ({expected})")
        kinds = self._arguments[: len(params)]
        if self._rest is not None:
            kinds = kinds + [self._rest] * (len(params) - len(kinds))
        return self._handler(*(self._convert(*kind, value) for kind, value in zip(kinds, params, strict=True)))

    def _convert(self, argument: str, kind: Any, value: Any) -> Any:
        if kind is Any:
            return value
        try:
            return msgspec.convert(value, kind, builtin_types=(bytes,))
        except msgspec.ValidationError as error:
            shown = repr(value)
            if len(shown) > VALUE_CHARACTERS_MAX:
                shown = shown[:VALUE_CHARACTERS_MAX] + "..."
            raise ControlError(f"{self._name}: {argument} is {shown}: {error}") from None


class ControlPeer(asyncio.Protocol):
    """One end of a control connection.

    Args:
        handlers: method -> what answers it.
    """

    closed: asyncio.Future[None]
    """Done when the connection has ended, by whoever."""

    def __init__(self, handlers: Handlers) -> None:
        self.closed = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._needed_bytes = LENGTH_BYTES
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._calls_count = 0
        self._answers: set[asyncio.Task[None]] = set()
        self._why = "the peer closed the connection"
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(list[Any])
        self._on_made: Callable[[ControlPeer], None] | None = None
        self.set_handlers(handlers)

    def set_handlers(self, handlers: Handlers) -> None:
        """Say what answers from now on."""
        self._methods = {name: Method(name, handler) for name, handler in handlers.items()}

    # -- what this end asks

    async def call(self, method: str, *params: Any) -> Any:
        """Call the other end and wait for its answer. Who wants to wait only so long wraps it in a timeout.

        Raises:
            ControlError: the other end refused; says why.
            LinkBroken: the connection ended first.
            LinkClosed: it was closed here.
        """
        self._check_open()
        self._calls_count += 1
        number = self._calls_count
        answer = self._calls[number] = asyncio.get_running_loop().create_future()
        try:
            self._send([CALL, number, method, params])
            return await answer
        finally:
            del self._calls[number]

    def notify(self, method: str, *params: Any) -> None:
        """Tell the other end; it does not answer.

        Raises:
            LinkBroken: the connection has ended.
            LinkClosed: it was closed here.
        """
        self._check_open()
        self._send([NOTICE, method, params])

    def close(self) -> None:
        """End the connection; what was sent is still written, and `closed` is done when it is. No effect when it has
        ended."""
        self._why = ""
        if self._transport is not None:
            self._transport.close()

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands."""
        assert isinstance(transport, asyncio.Transport), "a stream socket"
        self._transport = transport
        line: socket.socket | None = transport.get_extra_info("socket")  # none on a board's port or pipe
        if line is not None and line.family != socket.AF_UNIX:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in KEEPALIVE:
                line.setsockopt(socket.IPPROTO_TCP, option, value)
        if self._on_made is not None:
            self._on_made(self)

    def connection_lost(self, error: Exception | None) -> None:
        """The connection has ended: nobody waits for an answer any longer."""
        if error is not None and self._why:
            self._why = str(error)
        for answer in self._calls.values():
            if not answer.done():
                answer.set_exception(self._ended())
        for task in self._answers:
            task.cancel()
        if not self.closed.done():
            self.closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Take bytes; whole messages are handled at once."""
        self._buffer += data
        while len(self._buffer) >= self._needed_bytes and not self.closed.done():
            length = int.from_bytes(self._buffer[:LENGTH_BYTES], "big")
            if length > MESSAGE_BYTES_MAX:
                self._abort(f"a message of {length} bytes, at most {MESSAGE_BYTES_MAX}")
                return
            self._needed_bytes = LENGTH_BYTES + length
            if len(self._buffer) < self._needed_bytes:
                return
            body = bytes(self._buffer[LENGTH_BYTES : self._needed_bytes])
            del self._buffer[: self._needed_bytes]
            self._needed_bytes = LENGTH_BYTES
            try:
                message = self._decoder.decode(body)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                self._abort(f"not MessagePack: {error}")
                return
            self._take(message)

    # -- messages

    def _take(self, message: list[Any]) -> None:
        match message:
            case [0, int(number), str(method), list(params)]:
                self._answer(number, method, params)
            case [1, int(number), error, result]:
                answer = self._calls.get(number)
                if answer is None or answer.done():
                    return  # its caller has gone
                if error is None:
                    answer.set_result(result)
                else:
                    answer.set_exception(ControlError(str(error)))
            case [2, str(method), list(params)]:
                self._answer(None, method, params)
            case _:
                self._abort("a message that is no call, answer or notification")

    def _answer(self, number: int | None, method: str, params: list[Any]) -> None:
        known = self._methods.get(method)
        try:
            if known is None:
                raise ControlError(f"{method}: no such method, expected one of {', '.join(sorted(self._methods))}")
            if len(self._answers) >= CALLS_MAX:
                raise ControlError(f"{method}: {CALLS_MAX} calls are under way")
            result = known(params)
        except FlatrackError as error:
            self._reply(number, error, None)
            return
        if not inspect.isawaitable(result):
            self._reply(number, None, result)
            return
        task = asyncio.get_running_loop().create_task(self._answer_later(number, result), name=f"control/{method}")
        self._answers.add(task)
        task.add_done_callback(self._answered)

    async def _answer_later(self, number: int | None, result: Awaitable[Any]) -> None:
        try:
            self._reply(number, None, await result)
        except FlatrackError as error:
            self._reply(number, error, None)

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._answers.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error  # ours: the loop takes it

    def _reply(self, number: int | None, error: FlatrackError | None, result: Any) -> None:
        if number is None or self.closed.done():
            return
        text = None if error is None else str(error) or type(error).__name__
        try:
            self._send([ANSWER, number, text, result])
        except ControlError as too_long:
            self._send([ANSWER, number, f"the answer is {too_long}", None])

    def _send(self, message: list[Any]) -> None:
        assert self._transport is not None, "connected"
        body = self._encoder.encode(message)
        if len(body) > MESSAGE_BYTES_MAX:
            raise ControlError(f"a message of {len(body)} bytes, at most {MESSAGE_BYTES_MAX}")
        self._transport.write(len(body).to_bytes(LENGTH_BYTES, "big") + body)
        if self._transport.get_write_buffer_size() > UNREAD_BYTES_MAX:
            self._abort(f"the peer leaves {UNREAD_BYTES_MAX} bytes unread")

    def _abort(self, why: str) -> None:
        """Give up a peer that does not keep the rules."""
        self._why = why
        if self._transport is not None:
            self._transport.abort()

    def _check_open(self) -> None:
        if self._transport is None or self._transport.is_closing():
            raise self._ended()

    def _ended(self) -> LinkError:
        return LinkBroken(f"control: {self._why}") if self._why else LinkClosed("control: closed")


class ControlServer:
    """A control socket that peers connect to.

    Args:
        path: of the socket; None for TCP.
        server: listens on it.
        peers: those that are connected.
    """

    def __init__(self, path: Path | None, server: asyncio.Server, peers: list[ControlPeer]) -> None:
        self.path = path
        self.peers = peers
        self._server = server

    @property
    def port(self) -> int:
        """The TCP port that it listens on."""
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        """Take no more peers, end those that are there, and remove the socket."""
        self._server.close()
        if self.path is not None:
            self.path.unlink(missing_ok=True)
        for peer in self.peers:
            peer.close()
        if self.peers:
            await asyncio.wait([peer.closed for peer in self.peers])


async def connect(path: Path, handlers: Handlers) -> ControlPeer:
    """Connect to the control socket of another program.

    Raises:
        ConfigError: the path is too long for a socket, or nobody listens there.
    """
    _check_path(path)
    try:
        _, peer = await asyncio.get_running_loop().create_unix_connection(lambda: ControlPeer(handlers), str(path))
    except OSError as error:
        raise ConfigError(f"control socket {path}: {error.strerror or error}; is the program running?") from None
    return peer


async def serve(path: Path, handlers: Handlers, on_peer: OnPeer | None = None) -> ControlServer:
    """Listen on a control socket that only this user may open. A socket that a dead program left behind is replaced.

    Args:
        path: of the socket.
        handlers: method -> what answers it; of every peer until it is given others.
        on_peer: told of each peer when it connects; may set its handlers.

    Raises:
        ConfigError: the path is too long, is no socket, or another program listens there.
    """
    _check_path(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _clear(path)
        mask = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(mask)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise ConfigError(f"control socket {path}: {error.strerror or error}") from None
    except ConfigError:
        listener.close()
        raise
    make, peers = _reception(handlers, on_peer)
    return ControlServer(path, await asyncio.get_running_loop().create_unix_server(make, sock=listener), peers)


async def connect_url(url: str, handlers: Handlers) -> ControlPeer:
    """Connect to a control socket over TCP, `tcp://host:port`.

    Raises:
        ConfigError: the URL is none of these, or nobody listens there.
    """
    host, port = parse_address(url)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(lab_s(CONNECT_S_MAX)):
            _, peer = await loop.create_connection(lambda: ControlPeer(handlers), host, port)
    except TimeoutError:
        raise ConfigError(f"control socket {url}: no answer within {CONNECT_S_MAX:g} s") from None
    except OSError as error:
        raise ConfigError(f"control socket {url}: {error.strerror or error}; is the program running?") from None
    return peer


async def serve_url(url: str, handlers: Handlers, on_peer: OnPeer | None = None) -> ControlServer:
    """Listen on a control socket over TCP; port 0 takes a free one, which the server tells.

    Args:
        url: `tcp://host:port`.
        handlers: method -> what answers it; of every peer until it is given others. Nothing but a method that checks
            a token should be among them.
        on_peer: told of each peer when it connects; may set its handlers.

    Raises:
        ConfigError: the URL is none of these, or the address cannot be had.
    """
    host, port = parse_address(url)
    make, peers = _reception(handlers, on_peer)
    try:
        server = await asyncio.get_running_loop().create_server(make, host, port)
    except OSError as error:
        raise ConfigError(f"control socket {url}: {error.strerror or error}") from None
    return ControlServer(None, server, peers)


def parse_address(url: str) -> tuple[str, int]:
    """Host and port of `tcp://host:port`.

    Raises:
        ConfigError: the URL is none of these.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not url.startswith(SCHEME) or not host or port is None or url[len(SCHEME) :].rpartition(":")[2] != str(port):
        raise ConfigError(f"control socket {url!r}, expected {SCHEME}host:port")
    return host, port


def token_holds(expected: str, given: str) -> bool:
    """Whether a peer has the token, in a time that does not say how much of it was right. No token opens nothing."""
    return bool(expected) and hmac.compare_digest(expected.encode(), given.encode())


def _reception(handlers: Handlers, on_peer: OnPeer | None) -> tuple[Callable[[], ControlPeer], list[ControlPeer]]:
    """What makes a server's peers, and the list of those that are connected."""
    peers: list[ControlPeer] = []

    def welcome(peer: ControlPeer) -> None:
        peers.append(peer)
        peer.closed.add_done_callback(lambda _: peers.remove(peer))
        if on_peer is not None:
            on_peer(peer)

    def make() -> ControlPeer:
        peer = ControlPeer(handlers)
        peer._on_made = welcome
        return peer

    return make, peers


def _check_path(path: Path) -> None:
    length = len(os.fsencode(path))
    if length > PATH_BYTES_MAX:
        raise ConfigError(f"control socket {path}: the path has {length} bytes, at most {PATH_BYTES_MAX}")


def _clear(path: Path) -> None:
    """Remove a socket that nobody listens on."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"control socket {path}: there is another file, expected no file or a socket")
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        probe.connect(str(path))
    except ConnectionRefusedError:
        path.unlink()
    else:
        raise ConfigError(f"control socket {path}: another program listens there")
    finally:
        probe.close()
