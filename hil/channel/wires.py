"""The bench's ends of lab wires that leave the process: pseudo-terminals and MQTT.

Each wire carries (interface, coded frame) between one node and the relay: `deliver` is what the relay calls with a
frame for the node (`Relay.attach`), `on_frame` is called with each frame from it (`Relay.send`), and `url` is what the
node opens its end with. Those of boards' UARTs are in `hil.channel.uart`.
"""

import asyncio
import os
import termios
import tty
from dataclasses import replace
from typing import Final, Protocol

from flightsw.errors import ConfigError, LinkClosed, WireError
from flightsw.link.mqtt_session import ONLINE, MqttSession, MqttSettings
from flightsw.link.outbox import OUTBOX_FRAMES_MAX, Outbox
from flightsw.link.record_stream import RecordStream, stuff_record
from flightsw.link.records import pack_record, unpack_record
from flightsw.link.status import LinkStatus
from flightsw.link.urls import parse_url
from flightsw.ports import Frame, FrameReceiver
from flightsw.wire.frames import padding_of

PRESENT_MAX: Final = 65_536
"""Clients that are remembered as present before a wire is made for them; more than any bench has nodes."""

WIRES_FRAMES_MAX: Final = 4 * OUTBOX_FRAMES_MAX
"""Frames that wait for the broker, of all nodes together: the same instant ahead for some more of them."""

WIRES_BYTES_MAX: Final = 64 << 20
"""Bytes that wait for the broker, of all nodes together: 64 MiB, 5 s at 100 Mbit/s: a cluster re-elects."""


class Wire(Protocol):
    """The bench's end of one node's lab wire."""

    on_frame: FrameReceiver | None
    """Called with (interface, frame) for each frame from the node; None: they are dropped and counted."""

    @property
    def url(self) -> str:
        """What the node opens its end with."""
        ...

    def deliver(self, interface: int, frame: Frame) -> None:
        """Send one frame to the node; never blocks. Raises: LinkClosed."""
        ...

    def status(self) -> LinkStatus:
        """State and counts now; a copy."""
        ...


class PtyWire:
    """A lab wire over a pseudo-terminal of our own; needs a running loop.

    We keep both sides open, so that the node may close its end and open it again, as a process that restarts does.

    Args:
        baud: rate of the line on the loop's clock, both ways [bit/s]; 0: as fast as the kernel takes them.
        on_frame: called with (interface, frame) for each frame from the node.
    """

    def __init__(self, *, baud: int = 0, on_frame: FrameReceiver | None = None) -> None:
        self.on_frame = on_frame
        self._received_count = 0
        self._dropped_in_count = 0
        self._error = ""
        self._baud = baud
        self._outbox: Outbox[tuple[bytes, int]] = Outbox()
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self._path = os.ttyname(self._slave)
        self._stream = RecordStream(self._master, self._on_record, self._on_lost, self._outbox, baud)
        self._is_closed = False

    @property
    def path(self) -> str:
        """The device that the node opens."""
        return self._path

    @property
    def url(self) -> str:
        """What the node opens its end with."""
        return f"serial://{self._path}" + (f"?baud={self._baud}" if self._baud else "")

    def deliver(self, interface: int, frame: Frame) -> None:
        """Send one frame to the node; never blocks.

        Raises:
            LinkClosed: the wire was closed.
        """
        if self._is_closed:
            raise LinkClosed(f"wire {self._path}: send after close")
        record = stuff_record(interface, frame)
        self._outbox.put((record, padding_of(frame)), len(record))
        self._stream.flush()

    def forget(self) -> None:
        """Drop and count what waits for the node, here and in the kernel: its power went off."""
        self._outbox.clear()
        self._stream.forget()
        termios.tcflush(self._master, termios.TCOFLUSH)  # between the two sides
        termios.tcflush(self._slave, termios.TCIFLUSH)  # at the node's side

    def status(self) -> LinkStatus:
        """State and counts now; a copy. Connected means that the wire is whole, not that the node listens."""
        return LinkStatus(
            is_connected=not self._is_closed and not self._error,
            connects_count=1,
            sent_count=self._stream.sent_count,
            received_count=self._received_count,
            dropped_out_count=self._outbox.dropped_count + self._stream.cut_count,
            dropped_in_count=self._dropped_in_count,
            bad_records_count=self._stream.bad_records_count,
            error=self._error,
        )

    def close(self) -> None:
        """Give the pseudo-terminal back; the node sees its device disappear."""
        if self._is_closed:
            return
        self._is_closed = True
        self._stream.close()
        self._outbox.clear()
        os.close(self._master)
        os.close(self._slave)

    def _on_record(self, interface: int, frame: Frame) -> None:
        if self.on_frame is None:
            self._dropped_in_count += 1
            return
        self._received_count += 1
        self.on_frame(interface, frame)

    def _on_lost(self, reason: str) -> None:
        self._error = f"{self._path}: {reason}"


class MqttWire:
    """One node's wire of `MqttWires`; made by its `wire`."""

    def __init__(self, owner: "MqttWires", name: str, url: str, topic: str) -> None:
        self.on_frame: FrameReceiver | None = None
        self._present = asyncio.Event()
        self._absent = asyncio.Event()
        self._name = name
        self._url = url
        self._topic = topic
        self._owner = owner
        self._status = LinkStatus()

    @property
    def name(self) -> str:
        """Name of the node's client."""
        return self._name

    @property
    def url(self) -> str:
        """What the node opens its end with. Holds the password if the bench's URL did."""
        return self._url

    @property
    def is_present(self) -> bool:
        """Whether the node's client has said that it is at the broker, and neither it nor its last will denied it."""
        return self._present.is_set()

    async def wait_present(self) -> None:
        """Return when the node's client is at the broker."""
        await self._present.wait()

    async def wait_absent(self) -> None:
        """Return when the node's client has left or was lost, or we have lost the broker."""
        await self._absent.wait()

    def deliver(self, interface: int, frame: Frame) -> None:
        """Send one frame to the node; never blocks.

        Raises:
            LinkClosed: the wires were closed.
        """
        self._owner.publish(self._topic, pack_record(interface, frame))
        self._status.sent_count += 1

    def status(self) -> LinkStatus:
        """State and counts now; a copy. What is dropped on the way out is counted for all nodes, by `MqttWires`."""
        return replace(self._status, is_connected=self.is_present)

    def on_presence(self, is_present: bool) -> None:
        """The node's client came, or left, or was lost; told twice when it comes as a broker repeats what is kept."""
        if is_present:
            self._status.connects_count += not self.is_present
            self._absent.clear()
            self._present.set()
        else:
            self._present.clear()
            self._absent.set()

    def on_record(self, payload: bytes) -> None:
        """One message from the node."""
        try:
            interface, frame = unpack_record(payload)
        except WireError:
            self._status.bad_records_count += 1
            return
        if self.on_frame is None:
            self._status.dropped_in_count += 1
            return
        self._status.received_count += 1
        self.on_frame(interface, frame)


def broker_settings(url: str, prefix: str, client: str) -> MqttSettings:
    """What a URL says of a broker.

    Args:
        url: of the broker or brokers, as for a link (`flightsw.link.urls`).
        prefix: of all topics; replaces that of the URL, which may be left out then. Empty: the URL's.
        client: name of the client, if the URL has none.

    Raises:
        ConfigError: the URL is wrong, or none of a broker.
    """
    base, mark, query = url.partition("?")
    if prefix:
        scheme, rest = base.split("://", 1) if "://" in base else ("", base)
        base = f"{scheme}://{rest.split('/', 1)[0]}/{prefix}"
    settings = parse_url(base + mark + query, client=client)
    if not isinstance(settings, MqttSettings):
        raise ConfigError(f"broker: scheme {url.partition('://')[0]!r}, expected mqtt:// or mqtts://")
    return settings


class MqttWires:
    """One client of the bench for the lab wires of all nodes on a broker.

    Args:
        url: of the broker or brokers, as for a link (`flightsw.link.urls`); `client` may be left out.
        prefix: of all topics; replaces that of the URL, which may be left out then.

    Raises:
        ConfigError: the URL, or a file that it names, is wrong.
    """

    def __init__(self, url: str, prefix: str = "") -> None:
        settings = broker_settings(url, prefix, "bench")
        self._settings = settings
        self._wires: dict[str, MqttWire] = {}
        self._present: set[str] = set()
        """Clients at the broker, with or without a wire."""
        self.unknown_count = 0
        """Messages of clients that no wire was made for."""
        topics = [(settings.topic("up", "+"), settings.qos), (settings.topic("presence", "+"), 1)]
        self._session = MqttSession(
            settings,
            topics,
            has_presence=False,
            on_message=self._on_message,
            on_lost=self._on_lost,
            frames_max=WIRES_FRAMES_MAX,
            bytes_max=WIRES_BYTES_MAX,
        )

    async def open(self) -> None:
        """Try to reach the broker; a failed try is in `status().error`, and others follow."""
        await self._session.open()

    async def wait_connected(self) -> None:
        """Return when the session with the broker is up."""
        await self._session.wait_connected()

    def wire(self, name: str) -> MqttWire:
        """The wire of a client's name, made on first use."""
        if name not in self._wires:
            url = self._settings.url(name)
            self._wires[name] = MqttWire(self, name, url, self._settings.topic("down", name))
            self._wires[name].on_presence(name in self._present)
        return self._wires[name]

    def publish(self, topic: str, payload: bytes) -> None:
        """Queue one message for a node; called by its wire.

        Raises:
            LinkClosed: the wires were closed.
        """
        self._session.publish(topic, payload)

    def status(self) -> LinkStatus:
        """State and counts of the bench's client; a copy."""
        return self._session.status()

    async def close(self) -> None:
        """Leave the broker."""
        await self._session.close()

    def _on_message(self, topic: str, payload: bytes) -> None:
        _, name, leaf = topic.rsplit("/", 2)
        wire = self._wires.get(name)
        if leaf == "presence":
            self._note_presence(name, payload == ONLINE)
        elif wire is None:
            self.unknown_count += 1
        else:
            wire.on_record(payload)

    def _on_lost(self) -> None:
        """Nobody tells us of nodes that leave now; the broker tells anew when we are back."""
        for name in sorted(self._present):
            self._note_presence(name, False)

    def _note_presence(self, name: str, is_present: bool) -> None:
        if not is_present:
            self._present.discard(name)
        elif len(self._present) < PRESENT_MAX or name in self._wires:
            self._present.add(name)
        if name in self._wires:
            self._wires[name].on_presence(is_present)
