"""The bench's ends of the lab wires of programs, and what each kind of wire promises."""

from typing import Protocol

from flightsw.ports import Frame, FrameReceiver
from hil.channel.uart import SocketWire
from hil.channel.wires import MqttWire, PtyWire


class LabWire(Protocol):
    """One program's lab wire."""

    @property
    def url(self) -> str:
        """What the program opens its end with."""
        ...

    @property
    def is_exact(self) -> bool:
        """Whether everything that was delivered to it has reached the program, or will."""
        ...

    def on_frame(self, receiver: FrameReceiver) -> None:
        """Say who takes (interface, frame) from the program."""
        ...

    def plug(self) -> None:
        """The program's machine has power: look for its end."""
        ...

    def deliver(self, interface: int, frame: Frame) -> None:
        """Send one frame to the program."""
        ...

    def forget(self) -> None:
        """The program's power went off: what waits for it is lost."""
        ...

    def close(self) -> None:
        """Give the wire back."""
        ...


class SerialLabWire:
    """A pseudo-terminal: loses nothing but what its bounded queue drops, and counts that."""

    def __init__(self) -> None:
        self._wire = PtyWire()

    @property
    def url(self) -> str:
        """What the program opens its end with."""
        return self._wire.url

    @property
    def is_exact(self) -> bool:
        """Whether nothing was dropped."""
        return self._wire.status().dropped_out_count == 0

    def on_frame(self, receiver: FrameReceiver) -> None:
        """Say who takes (interface, frame) from the program."""
        self._wire.on_frame = receiver

    def plug(self) -> None:
        """Nothing to look for: both ends are ours."""

    def deliver(self, interface: int, frame: Frame) -> None:
        """Send one frame to the program."""
        self._wire.deliver(interface, frame)

    def forget(self) -> None:
        """The program's power went off: what waits for it is lost."""
        self._wire.forget()

    def close(self) -> None:
        """Give the pseudo-terminal back."""
        self._wire.close()


class UartLabWire:
    """The UART of a board: what is lost between the two UARTs, nobody counts.

    Args:
        wire: not plugged yet.
    """

    is_exact = False

    def __init__(self, wire: SocketWire) -> None:
        self._wire = wire

    @property
    def url(self) -> str:
        """What the program opens its end with."""
        return self._wire.url

    def on_frame(self, receiver: FrameReceiver) -> None:
        """Say who takes (interface, frame) from the program."""
        self._wire.on_frame = receiver

    def plug(self) -> None:
        """The board has power: look for its UART."""
        self._wire.plug()

    def deliver(self, interface: int, frame: Frame) -> None:
        """Send one frame to the program."""
        self._wire.deliver(interface, frame)

    def forget(self) -> None:
        """The board's power went off: what waits for it is lost."""
        self._wire.unplug()

    def close(self) -> None:
        """Give the line back."""
        self._wire.close()


class MqttLabWire:
    """A client of a broker with QoS 0: the broker may drop, and says nothing.

    Args:
        wire: of `MqttWires`, which its owner closes.
        url: what the program opens its end with, where it reaches the broker by another URL than the bench does.
    """

    is_exact = False

    def __init__(self, wire: MqttWire, url: str = "") -> None:
        self._wire = wire
        self._url = url or wire.url

    @property
    def url(self) -> str:
        """What the program opens its end with."""
        return self._url

    def on_frame(self, receiver: FrameReceiver) -> None:
        """Say who takes (interface, frame) from the program."""
        self._wire.on_frame = receiver

    def deliver(self, interface: int, frame: Frame) -> None:
        """Send one frame to the program."""
        self._wire.deliver(interface, frame)

    def plug(self) -> None:
        """Nothing to look for: the client comes to the broker."""

    def forget(self) -> None:
        """Nothing waits here: what the broker still has goes to nobody, since a session of QoS 0 ends with its
        client, or when a board that had no time to say goodbye comes back under its name."""

    def close(self) -> None:
        """Nothing to give back: the client is shared."""
