"""One lasting session with a broker: connects, comes back after a loss, and keeps bounded queues both ways.

- **QoS 0**: a frame is sent at most once; without a connection it is dropped and counted. LTP repeats.
- **QoS 1**: a frame leaves the queue only when the broker has acknowledged it, and is sent again over the next
  connection otherwise. With a persistent session the broker keeps what is for us while we are away. So a frame arrives
  at least once as long as the queues keep their bounds and the broker keeps its store; it may arrive twice.

Broker after broker of the list is tried. The presence topic holds, retained, whether we are there: set by us when the
session is up and when it is closed, and by the broker's last will when the connection is lost.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from flightsw.errors import ConfigError, LinkClosed
from flightsw.link.mqtt_client import ClientOptions, MqttError, TakeMessage, connection, subscribe, until_lost
from flightsw.link.outbox import OUTBOX_BYTES_MAX, OUTBOX_FRAMES_MAX, Outbox
from flightsw.link.pacing import Backoff, lab_s
from flightsw.link.status import LinkStatus
from flightsw.link.tasks import end_tasks, watched

ONLINE: Final = b"online"
OFFLINE: Final = b"offline"
"""Payloads of the presence topic."""

ANSWER_S_MAX: Final = 10.0
"""Longest wait for a broker's answer [s]: a cluster that elects a leader takes a few."""

IN_FLIGHT_MAX: Final = 8
"""Frames that wait for their acknowledgement (QoS 1) or for the socket (QoS 0): enough for 10,000 a second at 0.8 ms,
and several go out in one turn of the loop; after a loss so many may arrive twice with QoS 1."""

INBOX_FRAMES_MAX: Final = 4096
"""Messages that arrived and wait for the next turn of the loop, which takes all; only a stalled loop fills it."""


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """How to know the broker, and be known."""

    cafile: str = ""
    """Certificates of the authorities that we trust; empty: those of the system."""
    certfile: str = ""
    """Our certificate, for brokers that want one."""
    keyfile: str = ""
    """Its key; empty: in the same file."""

    def context(self) -> ssl.SSLContext:
        """The settings of TLS connections; the broker's name is always checked.

        Raises:
            ConfigError: a file is missing or is no certificate.
        """
        try:
            context = ssl.create_default_context(cafile=self.cafile or None)
        except OSError as error:  # SSLError is one
            raise ConfigError(f"cafile {self.cafile}: {error}; expected certificates in PEM") from None
        if self.certfile:
            try:
                context.load_cert_chain(self.certfile, self.keyfile or None)
            except OSError as error:
                where = f"certfile {self.certfile}, keyfile {self.keyfile or 'in the same file'}"
                raise ConfigError(f"{where}: {error}; expected a certificate and its key in PEM") from None
        return context


@dataclass(frozen=True, slots=True)
class MqttSettings:
    """Which brokers, as whom, and where among their topics."""

    servers: tuple[tuple[str, int], ...]
    prefix: str
    client: str
    qos: int = 0
    """Quality of service of frames, 0 or 1."""
    username: str = ""
    password: str = field(default="", repr=False)
    userfile: str = ""
    """File with one line `user:password`, which is not shown in lists of processes as a URL is."""
    tls: TlsSettings | None = None
    keepalive_s: int = 15

    @property
    def identifier(self) -> str:
        """The client's name at the broker: one for each client of a prefix."""
        return f"flatrack-{self.prefix.replace('/', '-')}-{self.client}"

    def topic(self, leaf: str, client: str | None = None) -> str:
        """A topic of a client, this one by default: leaf is `up`, `down` or `presence`."""
        return f"{self.prefix}/{client or self.client}/{leaf}"

    def url(self, client: str) -> str:
        """The URL with which another client reaches the same brokers and prefix. Holds the password if ours did."""
        scheme = "mqtts" if self.tls is not None else "mqtt"
        user = f"{quote(self.username, safe='')}:{quote(self.password, safe='')}@" if self.username else ""
        servers = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.servers)
        options = {"client": client, "qos": str(self.qos), "keepalive": str(self.keepalive_s)}
        if self.userfile:
            options["userfile"] = self.userfile
        if self.tls is not None:
            files = {"cafile": self.tls.cafile, "certfile": self.tls.certfile, "keyfile": self.tls.keyfile}
            options |= {name: value for name, value in files.items() if value}
        query = "&".join(f"{name}={quote(value, safe='/')}" for name, value in options.items())
        return f"{scheme}://{user}{servers}/{self.prefix}?{query}"

    def login(self) -> tuple[str, str] | tuple[None, None]:
        """(user, password), from the file if there is one.

        Raises:
            ConfigError: the file cannot be read or is not of the form `user:password`.
        """
        if not self.userfile:
            return (self.username, self.password) if self.username else (None, None)
        try:
            line = Path(self.userfile).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"userfile {self.userfile}: {error}; expected a line user:password") from None
        user, colon, password = line.partition(":")
        if not colon or not user or "\n" in line:
            raise ConfigError(f"userfile {self.userfile}: expected one line user:password")
        return user, password


@dataclass(frozen=True, slots=True)
class _Message:
    topic: str
    payload: bytes


class MqttSession:
    """A client that stays connected.

    Args:
        settings: brokers and names.
        topics: filters to subscribe to, with the quality of service of each.
        has_presence: whether this client says on its presence topic that it is there.
        on_message: called with (topic, payload) of each message, in a callback of its own.
        on_lost: called when a connection has ended.
        frames_max: bound of the queues in both directions.
        bytes_max: bound of the queue before the broker [bytes].

    Raises:
        ConfigError: a file that the settings name is missing or wrong.
    """

    def __init__(
        self,
        settings: MqttSettings,
        topics: Sequence[tuple[str, int]],
        *,
        has_presence: bool,
        on_message: TakeMessage,
        on_lost: Callable[[], None] | None = None,
        frames_max: int = OUTBOX_FRAMES_MAX,
        bytes_max: int = OUTBOX_BYTES_MAX,
    ) -> None:
        self._settings = settings
        self._topics = topics
        self._has_presence = has_presence
        self._on_message = on_message
        self._on_lost = on_lost
        self._login = settings.login()
        self._tls = settings.tls.context() if settings.tls is not None else None
        self._status = LinkStatus()
        self._outbox: Outbox[_Message] = Outbox(frames_max, bytes_max)
        self._has_outgoing = asyncio.Event()
        self._in_flight: dict[int, tuple[_Message, int]] = {}
        """Taken from the queue and not known to have arrived, by number of the attempt, so in order."""
        self._attempts_count = 0
        self._inbox: deque[_Message] = deque()
        self._inbox_max = max(frames_max, INBOX_FRAMES_MAX)
        self._connected = asyncio.Event()
        self._tried = asyncio.Event()
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Try to reach a broker; a failed try is in `status().error`, and others follow."""
        assert self._task is None, "a session is opened once"
        self._task = watched(self._stay_connected(), f"MQTT session {self._settings.identifier}")
        await self._tried.wait()

    async def wait_connected(self) -> None:
        """Return when the session is up."""
        await self._connected.wait()

    def publish(self, topic: str, payload: bytes) -> None:
        """Queue one message. Without a connection it is dropped and counted (QoS 0) or kept (QoS 1).

        Raises:
            LinkClosed: the session was closed.
        """
        if self._closing.is_set():
            raise LinkClosed(f"MQTT session {self._settings.identifier}: send after close")
        if self._settings.qos == 0 and not self._connected.is_set():
            self._status.dropped_out_count += 1
            return
        self._outbox.put(_Message(topic, payload), len(payload))
        self._has_outgoing.set()

    def status(self) -> LinkStatus:
        """State and counts now; a copy. Received are the messages handed to `on_message`."""
        status = self._status
        return LinkStatus(
            is_connected=self._connected.is_set(),
            connects_count=status.connects_count,
            sent_count=status.sent_count,
            received_count=status.received_count,
            dropped_out_count=status.dropped_out_count + self._outbox.dropped_count,
            dropped_in_count=status.dropped_in_count,
            error=status.error,
        )

    async def close(self) -> None:
        """Say that we leave, and leave; what has not left is dropped and counted."""
        self._closing.set()
        if self._task is None:
            return
        try:
            await asyncio.wait([self._task])
        finally:
            self._task.cancel()  # only when we ourselves are cancelled is there anything left to cancel
        self._outbox.clear()

    async def _stay_connected(self) -> None:
        backoff, loop, index = Backoff(), asyncio.get_running_loop(), 0
        while not self._closing.is_set():
            began_s = loop.time()
            host, port = self._settings.servers[index % len(self._settings.servers)]
            try:
                await self._run(host, port)
            except MqttError as error:
                self._status.error = f"{host}:{port}: {error}"
                index += 1
            backoff.note(loop.time() - began_s)
            self._tried.set()
            try:
                async with asyncio.timeout(backoff.next_s()):
                    await self._closing.wait()
            except TimeoutError:
                continue

    async def _run(self, host: str, port: int) -> None:
        """One connection, from its begin until it breaks or we close.

        Raises:
            MqttError: it could not be made, or broke.
        """
        timeout_s = lab_s(ANSWER_S_MAX)
        presence = self._settings.topic("presence") if self._has_presence else None
        options = ClientOptions(
            host=host,
            port=port,
            identifier=self._settings.identifier,
            is_persistent=self._settings.qos > 0,
            keepalive_s=self._settings.keepalive_s,
            timeout_s=timeout_s,
            username=self._login[0],
            password=self._login[1],
            tls=self._tls,
            will_topic=presence,
            will_payload=OFFLINE,
        )
        async with connection(options, self._take) as client:
            try:
                await self._carry(client, presence, timeout_s)
            finally:
                self._connected.clear()
                self._take_back()
                if self._on_lost is not None:
                    self._on_lost()
            if presence is not None:
                await client.publish(presence, OFFLINE, qos=1, retain=True, timeout=timeout_s)

    async def _carry(self, client: Any, presence: str | None, timeout_s: float) -> None:
        """Move messages both ways until we close.

        Raises:
            MqttError: the connection broke, or the broker does not answer.
        """
        loop = asyncio.get_running_loop()
        tasks = [
            loop.create_task(self._closing.wait()),
            loop.create_task(until_lost(client)),
            loop.create_task(self._begin(client, presence, timeout_s)),
        ]
        tasks += [loop.create_task(self._send(client, timeout_s)) for _ in range(IN_FLIGHT_MAX)]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end_tasks(tasks)
        errors = [task.exception() for task in tasks if not task.cancelled()]  # of all: the loop asks who took them
        for error in errors:
            if error is not None:
                raise error

    async def _begin(self, client: Any, presence: str | None, timeout_s: float) -> None:
        """Subscribe, say that we are there, let the senders begin, and wait for ever."""
        for topic, qos in self._topics:
            await subscribe(client, topic, qos, timeout_s)
        if presence is not None:
            await client.publish(presence, ONLINE, qos=1, retain=True, timeout=timeout_s)
        self._status.connects_count += 1
        self._connected.set()
        self._tried.set()
        await asyncio.get_running_loop().create_future()

    async def _send(self, client: Any, timeout_s: float) -> None:
        """One sender. Each takes and hands over a message in one step, so that several keep the order."""
        qos = self._settings.qos
        await self._connected.wait()
        while True:
            while not self._outbox:
                self._has_outgoing.clear()
                await self._has_outgoing.wait()
            message, size_bytes = self._outbox.take()
            self._attempts_count += 1
            number = self._attempts_count
            self._in_flight[number] = (message, size_bytes)
            await client.publish(message.topic, message.payload, qos=qos, timeout=timeout_s)
            del self._in_flight[number]
            self._status.sent_count += 1
            await asyncio.sleep(0)  # a full queue must not keep what arrives from being read

    def _take_back(self) -> None:
        """What was under way when the connection broke: sent again (QoS 1) or lost (QoS 0)."""
        if self._settings.qos:
            self._outbox.put_back(self._in_flight.values())
        else:
            self._status.dropped_out_count += len(self._in_flight)
            self._outbox.clear()
        self._in_flight.clear()

    def _take(self, topic: str, payload: bytes) -> None:
        """Keep a message until the next turn of the loop: the library would take an error of ours for a broken line."""
        if not self._inbox:
            asyncio.get_running_loop().call_soon(self._hand_on)
        elif len(self._inbox) >= self._inbox_max:
            self._inbox.popleft()
            self._status.dropped_in_count += 1
        self._inbox.append(_Message(topic, payload))

    def _hand_on(self) -> None:
        while self._inbox:
            message = self._inbox.popleft()
            self._status.received_count += 1
            self._on_message(message.topic, message.payload)
