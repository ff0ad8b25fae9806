"""The in-memory bearer: two ends in one process, joined by whatever callable carries frames between them."""

from collections.abc import Callable

from flightsw.errors import LinkClosed
from flightsw.ports import Frame, FrameReceiver


class MemoryLink:
    """A lab wire without a wire. Implements `flightsw.ports.Link`.

    Args:
        transmit: takes (interface, coded frame) from this end, for example the bench's relay.
    """

    def __init__(self, transmit: Callable[[int, Frame], None]) -> None:
        self._transmit = transmit
        self._receiver: FrameReceiver | None = None
        self._closed = False

    def send(self, interface: int, frame: Frame) -> None:
        """Hand over one coded frame.

        Raises:
            LinkClosed: the link was closed.
        """
        if self._closed:
            raise LinkClosed("memory link: send after close")
        self._transmit(interface, frame)

    def set_receiver(self, receiver: FrameReceiver) -> None:
        """Say who takes arriving frames; frames that arrive before are lost, as on a wire with nobody listening."""
        self._receiver = receiver

    def deliver(self, interface: int, frame: Frame) -> None:
        """Called by the other side for each frame that arrives."""
        if self._receiver is not None and not self._closed:
            self._receiver(interface, frame)

    async def close(self) -> None:
        """Stop carrying frames, both ways."""
        self._closed = True
