"""The MQTT bearer, the node's end: frames go to `<prefix>/<client>/up` and come from `<prefix>/<client>/down`."""

from collections import deque

from flightsw.errors import WireError
from flightsw.link.mqtt_session import INBOX_FRAMES_MAX, MqttSession, MqttSettings
from flightsw.link.records import pack_record, unpack_record
from flightsw.link.status import LinkStatus
from flightsw.ports import Frame, FrameReceiver


class MqttLink:
    """The node's end of an MQTT lab wire. Implements `flightsw.ports.Link`.

    Frames that arrive before there is a receiver are kept for it, up to `INBOX_FRAMES_MAX`: with QoS 1 the broker
    delivers at once what came while we were away, and counts on us from then.

    Args:
        settings: brokers and names.

    Raises:
        ConfigError: a file that the settings name is missing or wrong.
    """

    def __init__(self, settings: MqttSettings) -> None:
        self._receiver: FrameReceiver | None = None
        self._early: deque[tuple[int, Frame]] = deque()
        self._received_count = 0
        self._dropped_in_count = 0
        self._bad_records_count = 0
        self._topic = settings.topic("up")
        topics = [(settings.topic("down"), settings.qos)]
        self._session = MqttSession(settings, topics, has_presence=True, on_message=self._on_message)

    async def open(self) -> None:
        """Try to reach a broker; a failed try is in `status().error`, and others follow."""
        await self._session.open()

    async def wait_connected(self) -> None:
        """Return when the session is up."""
        await self._session.wait_connected()

    def send(self, interface: int, frame: Frame) -> None:
        """Hand over one coded frame; never blocks. What becomes of it without a connection: mqtt_session.py.

        Raises:
            LinkClosed: the link was closed.
        """
        self._session.publish(self._topic, pack_record(interface, frame))

    def set_receiver(self, receiver: FrameReceiver) -> None:
        """Say who takes arriving frames; it gets those that came before at once."""
        self._receiver = receiver
        while self._early:
            self._received_count += 1
            receiver(*self._early.popleft())

    def status(self) -> LinkStatus:
        """State and counts now; a copy."""
        status = self._session.status()
        status.received_count = self._received_count
        status.dropped_in_count += self._dropped_in_count
        status.bad_records_count = self._bad_records_count
        return status

    async def close(self) -> None:
        """Say that we leave, and give the wire back."""
        await self._session.close()

    def _on_message(self, _topic: str, payload: bytes) -> None:
        try:
            interface, frame = unpack_record(payload)
        except WireError:
            self._bad_records_count += 1
            return
        if self._receiver is not None:
            self._received_count += 1
            self._receiver(interface, frame)
            return
        if len(self._early) >= INBOX_FRAMES_MAX:
            self._early.popleft()
            self._dropped_in_count += 1
        self._early.append((interface, frame))
