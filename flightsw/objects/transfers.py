"""Object transfers over bundles that may be lost, late, doubled or disordered, between ends that may lose their memory.

Sans-IO and the same on board and on the ground. Four messages (`flightsw.wire.messages`, service OBJECT):

| message | from | means |
|---|---|---|
| Chunk | sender | one piece; carries name, size and proof, so that a receiver that knows nothing can check and start |
| ObjectQuery | sender | will you take this object, and which chunks do you hold? |
| ObjectStatus | receiver | these, on my disk (all: the object is whole and verified); or why I will not take it |
| ObjectStatus | source | I cannot give what you want, and why |
| ObjectWant | receiver | send me these chunks |

A push of some size asks first: the answer promises the room for the whole object and tells what is there already. Then
chunks go in bursts, whose turn is by `turns.py`. The receiver answers when the object is whole. A sender that hears
nothing asks; it sends again what the answer lacks, once for each question, so that a pile of late answers costs
nothing. A fetch asks one or more holders for shares (`fetches.py`), who then push; when a share stops coming others are
asked. A chunk that is none of its object is never kept, and whoever sent it is out. Every message may come twice.

The receiver's chunks on its disk are the memory of a transfer: a rebuilt receiver goes on from them. That a transfer is
wanted at all is the owner's to remember, or ours when it is `durable`: then it is on the disk before the first message
leaves, and goes on after a reset. It is forgotten with the first `poll` after its end was taken with `take_events`,
when the owner has had time to act: a power cut in between lets the end be told once more, and never lost.

A transfer ends as delivered or arrived, refused, or cancelled; until then something of it is in flight, on a timer, or
waiting for its turn behind those that are. One limit: a status that nobody asked for carries no number, so one that is
delayed past the end of a push can end a later push of the same object to the same peer; if the peer has lost the object
in between, it fetches.
"""

from collections.abc import Sequence

from flightsw.errors import StorageError
from flightsw.objects.exchange import (
    Exchange,
    ObjectArrived,
    ObjectDelivered,
    ObjectMessage,
    Outgoing,
    SourceDropped,
    TransferConfig,
    TransferCounts,
    TransferEvent,
    TransferFailed,
)
from flightsw.objects.fetches import Ask
from flightsw.objects.intents import FETCH, Intent, Intents, Key
from flightsw.objects.receiver import Receiver
from flightsw.objects.sender import Push, Sender
from flightsw.objects.store import ObjectStore
from flightsw.wire.messages import Chunk, ObjectQuery, ObjectStatus, ObjectWant

__all__ = [
    "ObjectArrived",
    "ObjectDelivered",
    "ObjectMessage",
    "Outgoing",
    "SourceDropped",
    "TransferConfig",
    "TransferCounts",
    "TransferEvent",
    "TransferFailed",
    "Transfers",
]


class Transfers:
    """All transfers of one node, or of the ground.

    Args:
        store: where objects come from and go to; durable transfers are remembered on its disk.
        config: patience and limits.
        local: our own node number: the source of what is here already.

    Raises:
        StorageError: the disk cannot be read.
    """

    def __init__(self, store: ObjectStore, config: TransferConfig | None = None, *, local: int) -> None:
        self._exchange = Exchange(config or TransferConfig())
        self._sender = Sender(store, self._exchange)
        self._receiver = Receiver(store, self._exchange, local)
        self._store = store
        self._intents = Intents(store.disk)
        self._to_resume = self._intents.open()
        self._told: list[Key] = []
        """Durable transfers whose end the owner has taken: to be forgotten."""

    @property
    def counts(self) -> TransferCounts:
        """What happened since the start."""
        return self._exchange.counts

    def push(self, digest: bytes, destination: int, now_ns: int, priority: int = 4, *, durable: bool = False) -> None:
        """Send an object until the destination holds it, refuses it, or `cancel`; no effect when that is under way.

        The object is pinned until the end. Without it, or with too many pushes waiting, the push fails by event; a
        durable one also when the disk cannot remember it.
        """
        self._resume(now_ns)
        push = self._sender.find(digest, destination)
        if durable and self._store.has(digest):
            intent = Intent(digest, self._store.size_bytes(digest), priority, destination)
            if not self._remember(intent, destination):
                return
        if push is None:
            self._sender.start(digest, destination, priority)
        else:
            push.served = False

    def fetch(
        self,
        digest: bytes,
        size_bytes: int,
        source: int | Sequence[int],
        now_ns: int,
        priority: int = 4,
        *,
        durable: bool = False,
    ) -> None:
        """Get an object from a source, or from several at once; adds sources to a fetch under way.

        Fails by event when there is no room, or no source is left; a durable one also when the disk cannot remember it.
        """
        self._resume(now_ns)
        sources = (source,) if isinstance(source, int) else tuple(dict.fromkeys(source))
        assert sources, "a fetch has a source"
        fetch = self._receiver.find(digest)
        if durable:
            known = () if fetch is None else tuple(fetch.asks)
            intent = Intent(digest, size_bytes, priority, FETCH, tuple(dict.fromkeys(known + sources)))
            if not self._remember(intent, sources[0]):
                return
        self._receiver.start(digest, size_bytes, sources, priority, now_ns)

    def cancel(self, digest: bytes, peer: int) -> None:
        """End the push of an object to a peer and stop fetching it from there; no event, no error when none is."""
        push = self._sender.find(digest, peer)
        if push is not None:
            self._sender.end(push)
        ended: list[Key] = [(digest, peer)]
        if self._receiver.find(digest) is not None:
            self._receiver.drop_source(digest, peer)
            if self._receiver.find(digest) is None:
                ended.append((digest, FETCH))
        elif any(one.key == (digest, FETCH) and set(one.sources) == {peer} for one in self._to_resume):
            ended.append((digest, FETCH))
        self._to_resume = [one for one in self._to_resume if one.key not in ended]
        self._intents.end(ended)

    def is_pushing(self, digest: bytes, destination: int) -> bool:
        """Whether a push has not ended."""
        return self._sender.find(digest, destination) is not None

    def is_fetching(self, digest: bytes) -> bool:
        """Whether a fetch has not ended."""
        return self._receiver.find(digest) is not None

    def receive(self, message: ObjectMessage, source: int, now_ns: int) -> None:
        """Take a message of a peer."""
        self._resume(now_ns)
        match message:
            case Chunk():
                self._receiver.on_chunk(message, source, now_ns)
            case ObjectQuery():
                self._receiver.answer(message.digest, message.size_bytes, source, now_ns, message.question)
            case ObjectStatus():
                if message.refused:
                    self._receiver.on_refusal(message, source, now_ns)
                self._sender.on_status(message, source, now_ns)
            case ObjectWant():
                self._sender.on_want(message, source)

    def poll(self, now_ns: int) -> list[Outgoing]:
        """What to send now, in order."""
        deadline_ns = self.next_deadline_ns()
        if deadline_ns is None or deadline_ns > now_ns:
            return []  # nearly always
        self._resume(now_ns)
        self._intents.end([key for key in self._told if not self._is_under_way(key)])
        self._told.clear()
        for transfer in self._exchange.take_due(now_ns):
            if isinstance(transfer, Ask):
                self._receiver.on_silence(transfer, now_ns)
            elif isinstance(transfer, Push):
                self._sender.on_silence(transfer, now_ns)
        self._receiver.activate(now_ns)
        self._sender.activate(now_ns)
        return self._exchange.take_outbox()

    def next_deadline_ns(self) -> int | None:
        """When `poll` should be called next: 0 for at once, None when only a message can change anything."""
        if self._to_resume or self._told or self._sender.has_work() or self._receiver.has_work():
            return 0
        return self._exchange.next_deadline_ns()

    def take_events(self) -> list[TransferEvent]:
        """What happened since the last call, in order."""
        events = self._exchange.take_events()
        for event in events:
            keys = [(event.digest, FETCH)]
            if not isinstance(event, ObjectArrived):
                keys.append((event.digest, event.destination if isinstance(event, ObjectDelivered) else event.peer))
            if not isinstance(event, SourceDropped):
                self._told += [key for key in keys if self._intents.holds(key) and not self._is_under_way(key)]
        return events

    def _is_under_way(self, key: Key) -> bool:
        digest, destination = key
        return self.is_fetching(digest) if destination == FETCH else self.is_pushing(digest, destination)

    def _remember(self, intent: Intent, peer: int) -> bool:
        """Keep a transfer over resets; it fails when the disk will not."""
        try:
            self._intents.add(intent)
        except StorageError as error:
            self._exchange.fail(intent.digest, peer, f"cannot be made durable: {error}")
            return False
        return True

    def _resume(self, now_ns: int) -> None:
        """Go on with what was durable before the reset. A sender asks first: it does not know how far it got."""
        to_resume, self._to_resume = self._to_resume, []
        for intent in to_resume:
            digest, destination = intent.key
            if destination == FETCH:
                self.counts.resumed += 1
                self._receiver.start(digest, intent.size_bytes, intent.sources, intent.priority, now_ns)
            elif self._sender.find(digest, destination) is None:
                self.counts.resumed += 1
                self._sender.start(digest, destination, intent.priority, ask_first=True)
