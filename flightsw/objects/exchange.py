"""What both sides of object transfers share: limits, outgoing messages, events, counts and timers."""

from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final, NamedTuple

from flightsw.wire.messages import Chunk, ObjectQuery, ObjectStatus, ObjectWant

ObjectMessage = Chunk | ObjectQuery | ObjectStatus | ObjectWant

NS_PER_S: Final = 1_000_000_000

REPLY_PRIORITY: Final = 2
"""Priority of statuses and wants: small, and they end work at the other side. Queries travel at their transfer's
priority, behind its chunks, so that the answer tells of them."""

NOT_HELD: Final = "not held"
"""The refusal of a source that does not have what is wanted."""

FORGED: Final = "a chunk does not match the name of its object"
"""Why a source is dropped, and a push refused: what it sends is not what it says."""


@dataclass(frozen=True, slots=True)
class TransferConfig:
    """Patience and limits."""

    timeout_s: float = 60.0
    """Silence after which a sender asks, or a fetch asks again [s]: several round trips of a radio link in view."""
    timeout_max_s: float = 600.0
    """The longest wait between two questions [s]: a tenth of an orbit, so that no pass goes by unused."""
    unasked_gap_s: float = 30.0
    """Answers that nobody asked for (to chunks of an object that is whole or refused) keep this distance [s]."""
    part_idle_s: float = 21_600.0
    """A partial object that got no chunk for so long gives way when room is needed [s]: four orbits."""
    active_per_peer_max: int = 4
    """Pushes to one peer that have a burst under way, counting those that are at least as urgent as the one that wants
    to start: the urgent never wait for less urgent ones. By peer: one that is out of view blocks no other."""
    fair_turns: int = 8
    """Of so many bursts to a peer, one goes to the push that has waited longest, in the place of the most urgent."""
    waiting_max: int = 4096
    """Pushes that wait; more fail at once."""
    burst_chunks_max: int = 1024
    """Chunks sent before the sender asks how far it got, and chunks asked of a source at a time: 16 MiB, a quarter of
    the bundle agent's queue."""
    offer_chunks_min: int = 32
    """Pushes from this size on ask for room, and for what is there already, before the first chunk [chunks]: 512 KiB,
    which a refusal would waste."""
    share_chunks_max: int = 64
    """Chunks asked of one of several sources at a time: 1 MiB keeps a path of 10 Mbit/s busy for 0.8 s, and is all that
    is asked for twice when a source is slow."""
    served_priority_min: int = 3
    """The most urgent that a peer may have its wants served: no more than results, below commands and answers."""
    served_questions_max: int = 8
    """Unanswered questions after which a push that the peer had asked for is given up: the peer will ask again."""


class Outgoing(NamedTuple):
    """A message to send, reliably, at service OBJECT."""

    destination: int
    message: ObjectMessage
    priority: int
    padding_bytes: int = 0
    """Link time of a synthetic chunk: what its data would take if they moved [bytes]."""


class ObjectArrived(NamedTuple):
    """An object is whole and verified on our disk."""

    digest: bytes
    source: int


class ObjectDelivered(NamedTuple):
    """The peer says that it holds the object, whole and verified."""

    digest: bytes
    destination: int


class TransferFailed(NamedTuple):
    """A transfer ended without the object; asking again is up to the caller."""

    digest: bytes
    peer: int
    reason: str


class SourceDropped(NamedTuple):
    """A fetch goes on without a source that sent something else than it was asked for."""

    digest: bytes
    peer: int
    reason: str


TransferEvent = ObjectArrived | ObjectDelivered | TransferFailed | SourceDropped


@dataclass(slots=True)
class TransferCounts:
    """What happened since the start."""

    chunks_sent: int = 0
    chunks_sent_again: int = 0
    chunks_received: int = 0
    chunks_repeated: int = 0
    """Received chunks of objects that were whole already."""
    chunks_rejected: int = 0
    """Received chunks whose index or length cannot be, or whose proof does not hold."""
    queries_sent: int = 0
    wants_sent: int = 0
    delivered: int = 0
    arrived: int = 0
    failed: int = 0
    refused: int = 0
    """Refusals that we sent."""
    given_up: int = 0
    """Pushes that a peer had asked for and then answered no more."""
    sources_dropped: int = 0
    resumed: int = 0
    """Durable transfers that went on after a reset."""


@dataclass(slots=True, kw_only=True)
class Timed:
    """A transfer that asks again when it hears nothing."""

    questions_count: int = 0
    """Questions since the peer was last heard."""
    deadline_ns: int = 0
    """When it asks again."""
    armed_ns: int | None = None
    """The instant of its valid timer; never later than the deadline."""
    ended: bool = False


class Exchange:
    """Outbox, events, counts and timers of one `Transfers`."""

    def __init__(self, config: TransferConfig) -> None:
        self.config = config
        self.counts = TransferCounts()
        self.sequence = 0
        """Breaks ties of priority and time in the order of asking."""
        self._outbox: list[Outgoing] = []
        self._events: list[TransferEvent] = []
        self._timers: list[tuple[int, int, Timed]] = []

    def send(self, destination: int, message: ObjectMessage, priority: int, padding_bytes: int = 0) -> None:
        """Hand a message to the next poll."""
        self._outbox.append(Outgoing(destination, message, priority, padding_bytes))

    def report(self, event: TransferEvent) -> None:
        """Tell the owner."""
        self._events.append(event)

    def fail(self, digest: bytes, peer: int, reason: str) -> None:
        """Tell the owner that a transfer ended without its object."""
        self.counts.failed += 1
        self._events.append(TransferFailed(digest, peer, reason))

    def take_outbox(self) -> list[Outgoing]:
        """All messages since the last call, in order."""
        outbox, self._outbox = self._outbox, []
        return outbox

    def take_events(self) -> list[TransferEvent]:
        """All events since the last call, in order."""
        events, self._events = self._events, []
        return events

    def wait(self, transfer: Timed, now_ns: int) -> None:
        """Set the deadline: the first wait, doubled for each question that was not answered, up to the maximum."""
        config = self.config
        doublings = min(transfer.questions_count, 16)  # by then any maximum is long reached
        wait_s = min(config.timeout_s * 2**doublings, config.timeout_max_s)
        transfer.deadline_ns = now_ns + round(wait_s * NS_PER_S)
        if transfer.armed_ns is None or transfer.deadline_ns < transfer.armed_ns:
            self._arm(transfer)

    def take_due(self, now_ns: int) -> list[Timed]:
        """Transfers whose deadline has come, in order; each has no timer until it waits again."""
        due: list[Timed] = []
        while self._timers and self._timers[0][0] <= now_ns:
            when_ns, _, transfer = heappop(self._timers)
            if transfer.ended or transfer.armed_ns != when_ns:
                continue
            transfer.armed_ns = None
            if transfer.deadline_ns > now_ns:
                self._arm(transfer)
            else:
                due.append(transfer)
        return due

    def next_deadline_ns(self) -> int | None:
        """0 when there is something to send, else when the first timer runs out, or None."""
        if self._outbox:
            return 0
        while self._timers and (self._timers[0][2].ended or self._timers[0][2].armed_ns != self._timers[0][0]):
            heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def next_sequence(self) -> int:
        """A number that rises with every call."""
        self.sequence += 1
        return self.sequence

    def _arm(self, transfer: Timed) -> None:
        transfer.armed_ns = transfer.deadline_ns
        heappush(self._timers, (transfer.deadline_ns, self.next_sequence(), transfer))
