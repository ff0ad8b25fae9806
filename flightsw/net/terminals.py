"""What the bundle agent knows of its terminals (interfaces) and of the neighbours at the other end."""

from flightsw.config import InterfaceConfig
from flightsw.net.agent_values import InterfaceCounters
from flightsw.net.contacts import Contact
from flightsw.net.ltp import Span
from flightsw.net.padding import padding_of, session_of_first
from flightsw.net.queues import BundleQueue, QueuedBundle
from flightsw.wire.frames import CodedFrame
from flightsw.wire.framing import Coding

SEGMENT_HEADER_BYTES_MAX = 64
"""Room for an LTP header with the longest numbers [bytes]: eight SDNVs of at most 8 bytes. Source: RFC 5326 §3."""


class Neighbour:
    """Another node that contacts lead to."""

    __slots__ = ("in_flight", "is_padded", "node", "queue", "scheduled_ns", "span", "suspect_until_ns", "terminals")

    def __init__(self, node: int, span: Span, queue: BundleQueue) -> None:
        self.node = node
        self.span = span
        self.queue = queue
        self.in_flight: dict[int, QueuedBundle] = {}
        """Bundles that LTP has, by session number."""
        self.terminals: list[Terminal] = []
        """Our terminals that are in contact with it now, in the order in which contact began."""
        self.scheduled_ns: int | None = None
        """The earliest wake-up that is scheduled for the span's timers [ns]."""
        self.suspect_until_ns = 0
        self.is_padded = False
        """Whether a padded bundle was ever sent to it; then each segment is looked at."""

    def padding_bytes(self, segment: bytes) -> int:
        """Padding that goes with a segment [bytes]."""
        session = session_of_first(segment) if self.is_padded else None
        queued = None if session is None else self.in_flight.get(session)
        return 0 if queued is None else padding_of(queued.bundle)

    def next_bundle(self) -> QueuedBundle | None:
        """The bundle that LTP takes now, None when it takes none. Green ones pass those that wait for answers."""
        if self.span.wants_block:
            return self.queue.pop()
        return self.queue.pop_green() if self.span.wants_green else None


class Terminal:
    """One interface: a transmitter, the contact that it has now, and how far it is busy."""

    __slots__ = (
        "busy_until_ns",
        "coding",
        "config",
        "contact",
        "counters",
        "frame_bytes_max",
        "frame_ns_max",
        "index",
        "longest_ns",
        "neighbour",
        "ns_per_byte",
        "wake_ns",
        "window_ns",
    )

    def __init__(self, config: InterfaceConfig, coding: Coding, frame_bytes_max: int) -> None:
        self.config = config
        self.index = config.index
        self.coding = coding
        self.frame_bytes_max = frame_bytes_max
        """Longest frame of a full segment [bytes]."""
        self.counters = InterfaceCounters()
        self.contact: Contact | None = None
        self.neighbour: Neighbour | None = None
        self.busy_until_ns = 0
        """When the last bit of all frames handed over leaves the transmitter [ns]."""
        self.wake_ns: int | None = None
        """The wake-up that is scheduled to go on sending [ns]."""
        self.ns_per_byte = 0.0
        self.frame_ns_max = 0
        self.longest_ns = 0
        """The longest frame of this contact so far, sent or received [ns]; with padding longer than any segment's."""
        self.window_ns = 0

    def open(self, contact: Contact, neighbour: Neighbour, window_ns: int) -> None:
        """Contact begins."""
        self.contact = contact
        self.neighbour = neighbour
        self.ns_per_byte = 8e9 / contact.rate_bps
        self.frame_ns_max = int(self.frame_bytes_max * self.ns_per_byte) + 1
        self.longest_ns = self.frame_ns_max
        self.window_ns = max(window_ns, self.frame_ns_max)
        self.wake_ns = None
        self._allow_for_answers()

    def next_bundle(self, at_ns: int) -> QueuedBundle | None:
        """The bundle that LTP takes now, None when it takes none; padded ones that would outlast the contact wait."""
        assert self.contact is not None, "bundles are sent in contact"
        assert self.neighbour is not None, "a contact is with a neighbour"
        neighbour = self.neighbour
        queued = neighbour.next_bundle()
        if queued is None or not padding_of(queued.bundle):
            return queued  # nearly always
        too_long: list[QueuedBundle] = []
        while queued is not None:
            padding_bytes = padding_of(queued.bundle)
            if not padding_bytes or not queued.reliable:
                break
            neighbour.is_padded = True
            if self._padded_until_ns(padding_bytes, at_ns) <= self.contact.end_ns:
                break
            too_long.append(queued)
            queued = neighbour.next_bundle()
        for one in reversed(too_long):
            neighbour.queue.put_back(one)
        return queued

    def frame(self, segment: bytes) -> CodedFrame:
        """The frame of a segment, with the padding that goes with it."""
        assert self.neighbour is not None, "frames are sent in contact"
        if not self.neighbour.is_padded:
            return self.coding.frame(segment)
        return self.coding.frame(segment, self._coded_bytes(self.neighbour.padding_bytes(segment)))

    def _padded_until_ns(self, padding_bytes: int, start_ns: int) -> int:
        """When a padded frame that starts now would have left [ns]; answers are given the time from now on."""
        padded_bytes = self.frame_bytes_max + self._coded_bytes(padding_bytes)
        self._stretch(padded_bytes)
        return start_ns + int(padded_bytes * self.ns_per_byte) + 1

    def _stretch(self, frame_bytes: int) -> None:
        """A frame longer than any segment's is sent or has come: answers may wait behind another one, at both ends."""
        frame_ns = int(frame_bytes * self.ns_per_byte) + 1
        if frame_ns > self.longest_ns and self.contact is not None:
            self.longest_ns = frame_ns
            self._allow_for_answers()

    def _coded_bytes(self, padding_bytes: int) -> int:
        """What so many bytes would take as coded frames [bytes]."""
        return padding_bytes * self.frame_bytes_max // (self.config.segment_bytes + SEGMENT_HEADER_BYTES_MAX)

    def _allow_for_answers(self) -> None:
        """Beside the light time, an answer waits behind what both transmitters have taken on already."""
        assert self.contact is not None, "answers come in contact"
        assert self.neighbour is not None, "a contact is with a neighbour"
        self.neighbour.span.set_light_time_ns(self.contact.light_time_ns + self.window_ns + self.longest_ns)

    def transit_ns(self, frame_bytes: int) -> int:
        """How long a frame that has just arrived was on the line and on its way [ns], as far as the plan knows."""
        if self.contact is None:
            return 0
        if frame_bytes > self.frame_bytes_max:
            self._stretch(frame_bytes)
        return self.contact.light_time_ns + int(frame_bytes * self.ns_per_byte)

    def close(self) -> None:
        """Contact ends."""
        self.contact = None
        self.neighbour = None
        self.wake_ns = None
