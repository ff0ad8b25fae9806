"""Object transfers over bundles that may be lost, late, doubled or disordered, between ends that may lose their memory.

Sans-IO and the same on board and on the ground. Four messages (`flightsw.wire.messages`, service OBJECT):

| message | from | means |
|---|---|---|
| Chunk | sender | one piece; carries digest and size, so that a receiver that knows nothing can start |
| ObjectQuery | sender | which chunks do you hold? |
| ObjectStatus | receiver | these, on my disk (all: the object is whole and verified); or why I will not take it |
| ObjectStatus | source | I cannot give what you want, and why |
| ObjectWant | receiver | send me the chunks that I lack |

A push sends all chunks in bursts. The receiver answers when the object is whole. A sender that hears nothing asks; it
sends again what the answer lacks, once for each question, so that a pile of late answers costs nothing. A fetch asks a
holder, who then pushes; when chunks stop coming it asks the next source. The receiver's disk is the only memory that
matters: a rebuilt receiver goes on from its chunks, a rebuilt sender simply pushes again. Every message may come
twice.

A transfer ends as delivered or arrived, refused, or cancelled; until then something of it is in flight or on a timer.
One limit: a status carries no number, so one that is delayed past the end of a push can end a later push of the same
object to the same peer; if the peer has lost the object in between, it fetches.
"""

from collections.abc import Sequence

from flightsw.objects.exchange import (
    Exchange,
    ObjectArrived,
    ObjectDelivered,
    ObjectMessage,
    Outgoing,
    TransferConfig,
    TransferCounts,
    TransferEvent,
    TransferFailed,
)
from flightsw.objects.receiver import Fetch, Receiver
from flightsw.objects.sender import Push, Sender
from flightsw.objects.store import ObjectStore
from flightsw.wire.messages import Chunk, ObjectQuery, ObjectStatus, ObjectWant

__all__ = [
    "ObjectArrived",
    "ObjectDelivered",
    "ObjectMessage",
    "Outgoing",
    "TransferConfig",
    "TransferCounts",
    "TransferEvent",
    "TransferFailed",
    "Transfers",
]


class Transfers:
    """All transfers of one node, or of the ground.

    Args:
        store: where objects come from and go to.
        config: patience and limits.
        local: our own node number: the source of what is here already.
    """

    def __init__(self, store: ObjectStore, config: TransferConfig | None = None, *, local: int) -> None:
        self._exchange = Exchange(config or TransferConfig())
        self._sender = Sender(store, self._exchange)
        self._receiver = Receiver(store, self._exchange, local)

    @property
    def counts(self) -> TransferCounts:
        """What happened since the start."""
        return self._exchange.counts

    def push(self, digest: bytes, destination: int, now_ns: int, priority: int = 4) -> None:
        """Send an object until the destination holds it, refuses it, or `cancel`; no effect when that is under way.

        The object is pinned until the end. Without it, or with too many pushes waiting, the push fails by event.
        """
        del now_ns  # chunks leave with the next poll, as time is not needed before
        push = self._sender.find(digest, destination)
        if push is None:
            self._sender.start(digest, destination, priority, b"", served=False)
        else:
            push.served = False

    def fetch(self, digest: bytes, size_bytes: int, source: int | Sequence[int], now_ns: int) -> None:
        """Get an object from a source, or from any of several in turn; adds sources to a fetch under way."""
        sources = [source] if isinstance(source, int) else source
        assert sources, "a fetch has a source"
        self._receiver.start(digest, size_bytes, sources, now_ns)

    def cancel(self, digest: bytes, peer: int) -> None:
        """End the push of an object to a peer and stop fetching it from there; no event, no error when none is."""
        push = self._sender.find(digest, peer)
        if push is not None:
            self._sender.end(push)
        self._receiver.drop_source(digest, peer)

    def is_pushing(self, digest: bytes, destination: int) -> bool:
        """Whether a push has not ended."""
        return self._sender.find(digest, destination) is not None

    def is_fetching(self, digest: bytes) -> bool:
        """Whether a fetch has not ended."""
        return self._receiver.find(digest) is not None

    def receive(self, message: ObjectMessage, source: int, now_ns: int) -> None:
        """Take a message of a peer."""
        match message:
            case Chunk():
                self._receiver.on_chunk(message, source, now_ns)
            case ObjectQuery():
                self._receiver.answer(message.digest, message.size_bytes, source, now_ns)
            case ObjectStatus():
                if message.refused:
                    self._receiver.on_refusal(message, source, now_ns)
                self._sender.on_status(message, source, now_ns)
            case ObjectWant():
                self._sender.on_want(message, source, now_ns)

    def poll(self, now_ns: int) -> list[Outgoing]:
        """What to send now, in order."""
        for transfer in self._exchange.take_due(now_ns):
            if isinstance(transfer, Fetch):
                self._receiver.on_silence(transfer, now_ns)
            elif isinstance(transfer, Push):
                self._sender.on_silence(transfer, now_ns)
        self._sender.activate(now_ns)
        return self._exchange.take_outbox()

    def next_deadline_ns(self) -> int | None:
        """When `poll` should be called next: 0 for at once, None when only a message can change anything."""
        return 0 if self._sender.has_work() else self._exchange.next_deadline_ns()

    def take_events(self) -> list[TransferEvent]:
        """What happened since the last call, in order."""
        return self._exchange.take_events()
