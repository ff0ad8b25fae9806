"""What the bundle agent knows of its terminals (interfaces) and of the neighbours at the other end."""

from flightsw.config import InterfaceConfig
from flightsw.net.agent_values import InterfaceCounters
from flightsw.net.contacts import Contact
from flightsw.net.ltp import Span
from flightsw.net.queues import BundleQueue, QueuedBundle
from flightsw.wire.framing import Coding

SEGMENT_HEADER_BYTES_MAX = 64
"""Room for an LTP header with the longest numbers [bytes]: eight SDNVs of at most 8 bytes. Source: RFC 5326 §3."""


class Neighbour:
    """Another node that contacts lead to."""

    __slots__ = ("in_flight", "node", "queue", "scheduled_ns", "span", "suspect_until_ns", "terminals")

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
        self.window_ns = 0

    def open(self, contact: Contact, neighbour: Neighbour, window_ns: int) -> None:
        """Contact begins."""
        self.contact = contact
        self.neighbour = neighbour
        self.ns_per_byte = 8e9 / contact.rate_bps
        self.frame_ns_max = int(self.frame_bytes_max * self.ns_per_byte) + 1
        self.window_ns = max(window_ns, self.frame_ns_max)
        self.wake_ns = None

    def transit_ns(self, frame_bytes: int) -> int:
        """How long a frame that has just arrived was on the line and on its way [ns], as far as the plan knows."""
        if self.contact is None:
            return 0
        return self.contact.light_time_ns + int(frame_bytes * self.ns_per_byte)

    def close(self) -> None:
        """Contact ends."""
        self.contact = None
        self.neighbour = None
        self.wake_ns = None
