"""The one place that knows which MQTT library is there: aiomqtt 2.x, or asyncio-mqtt, its name until 2023.

Both wrap paho-mqtt and cannot share an environment: aiomqtt wants paho-mqtt 2, asyncio-mqtt breaks with it. A session
needs from either: a client as a context manager that connects, `subscribe`, `publish`, messages, and an `MqttError`
when the connection breaks.

What is received is acknowledged whether or not somebody takes it, and a broker sends what it has kept for us right
behind its answer to our connecting. So `_Inlet` is there before the connection is, and hands each message on at once: a
queue that is opened later, or left unread when the connection breaks, loses what was acknowledged. It stands in
aiomqtt's queue of messages, and among the callbacks of asyncio-mqtt, whose own `messages()` is such a queue.
"""

import asyncio
import functools
import logging
import select
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final, NoReturn

IS_AIOMQTT: Final = find_spec("aiomqtt") is not None
_library: Final[Any] = import_module("aiomqtt" if IS_AIOMQTT else "asyncio_mqtt")

MqttError: Final[type[Exception]] = _library.MqttError

TakeMessage = Callable[[str, bytes], None]
"""Called with (topic, payload) of each message; must not raise."""

_SOCKET_OPTIONS: Final = ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),)
"""Without it each handful of QoS 1 frames waits 40 ms for the other side's delayed acknowledgement."""

_LOGGER: Final = logging.getLogger(__name__)
"""For the library's own messages. Silent unless somebody listens: what matters of them is in `LinkStatus.error`."""
_LOGGER.addHandler(logging.NullHandler())

PACKETS_A_TURN_MAX: Final = 256
"""Packets read in one turn of the loop: a window of segments of some neighbours; others get their turn after 10 ms."""

_REFUSED: Final = 0x80
"""Codes of a broker's answer to a subscription from here on are refusals (MQTT 3.1.1 §3.9.3)."""


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """What one connection to one broker needs."""

    host: str
    port: int
    identifier: str
    is_persistent: bool
    """Whether the broker keeps subscriptions and undelivered messages while we are away."""
    keepalive_s: int
    timeout_s: float
    """Longest wait for an answer of the broker [s, on the running loop's clock]."""
    username: str | None
    password: str | None
    tls: ssl.SSLContext | None
    will_topic: str | None
    will_payload: bytes


class _Inlet(asyncio.Queue[Any]):
    """Stands where the library keeps messages until somebody asks, and hands them on instead; it is always empty."""

    def __init__(self, take: TakeMessage, maxsize: int = 0) -> None:
        super().__init__(maxsize)
        self._take_message = take

    def put_nowait(self, item: Any) -> None:
        self._take_message(str(item.topic), bytes(item.payload))


class _ClientLoop:
    """The loop as a client of the library sees it: sockets that are closed by then are not watched.

    The library asks for a socket to be watched in a later turn of the loop. When the connection breaks in the same
    turn, that is too late: the descriptor is closed, or another's. Here writers are added at once, and a closed
    descriptor is passed over; that the connection broke is told by other ways.

    The library also reads one packet in a turn of the loop, which under load is some hundred a second. Here it is asked
    until there is nothing more to read.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def add_reader(self, descriptor: int, callback: Callable[[], None]) -> None:
        def read_all() -> None:
            for _ in range(PACKETS_A_TURN_MAX):
                callback()
                try:
                    if not select.select((descriptor,), (), (), 0)[0]:
                        return
                except (OSError, ValueError):  # closed by what was read
                    return

        with suppress(OSError, ValueError):  # closed: EBADF, or -1
            self._loop.add_reader(descriptor, read_all)

    def add_writer(self, descriptor: int, callback: Callable[[], None]) -> None:
        with suppress(OSError, ValueError):  # closed: EBADF, or -1
            self._loop.add_writer(descriptor, callback)

    def call_soon_threadsafe(self, callback: Callable[..., None], *args: Any) -> asyncio.Handle | None:
        if callback == self.add_writer and asyncio._get_running_loop() is self._loop:
            callback(*args)
            return None
        return self._loop.call_soon_threadsafe(callback, *args)


def _make_client(options: ClientOptions, take: TakeMessage) -> Any:
    will = None
    if options.will_topic is not None:
        will = _library.Will(options.will_topic, options.will_payload, qos=1, retain=True)
    arguments: dict[str, Any] = {
        "hostname": options.host,
        "port": options.port,
        "username": options.username,
        "password": options.password,
        "clean_session": not options.is_persistent,
        "keepalive": options.keepalive_s,
        "tls_context": options.tls,
        "will": will,
        "socket_options": _SOCKET_OPTIONS,
        "logger": _LOGGER,
    }
    if IS_AIOMQTT:
        return _library.Client(
            **arguments,
            identifier=options.identifier,
            timeout=options.timeout_s,
            queue_type=functools.partial(_Inlet, take),
        )
    client = _library.Client(**arguments, client_id=options.identifier)
    client._on_message_callbacks.append(_Inlet(take).put_nowait)
    return client


@asynccontextmanager
async def connection(options: ClientOptions, take: TakeMessage) -> AsyncIterator[Any]:
    """A connected client whose messages go to `take`, from the first one that the broker sends.

    Raises:
        MqttError: the broker cannot be reached, does not answer, or refuses.
    """
    client = _make_client(options, take)
    client._loop = _ClientLoop(asyncio.get_running_loop())
    answered, lost = client._connected, client._disconnected
    _fail_early(client)
    try:
        async with client:
            yield client
    finally:
        # A connection that broke while nobody looked leaves an error that the loop would report as nobody's. aiomqtt
        # puts another `_disconnected` in place of one that was there as soon as the answer.
        for end in (answered, lost, client._disconnected):
            if end.done() and not end.cancelled():
                end.exception()


def _fail_early(client: Any) -> None:
    """Let a connection that ends before the broker has answered fail at once; the library would wait for the answer."""
    answered, on_disconnect = client._connected, client._client.on_disconnect

    def end(*arguments: Any) -> None:
        if not answered.done():
            answered.set_exception(MqttError("connection closed before the broker has answered"))
        on_disconnect(*arguments)

    client._client.on_disconnect = end


async def subscribe(client: Any, topic: str, qos: int, timeout_s: float) -> None:
    """Subscribe.

    Raises:
        MqttError: the broker does not answer, or refuses.
    """
    for code in await client.subscribe(topic, qos=qos, timeout=timeout_s):
        if getattr(code, "value", code) >= _REFUSED:
            raise MqttError(f"subscription to {topic} refused")


async def until_lost(client: Any) -> NoReturn:
    """Wait until the connection breaks.

    Raises:
        MqttError: it broke; says why.
    """
    lost = client._disconnected
    await asyncio.wait([lost])
    raise MqttError(str(lost.exception() or "connection closed"))
