"""The sending side of transfers: pushes that the owner or a peer asked for."""

from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from flightsw.errors import StorageError
from flightsw.objects.digest import chunks_count, missing_chunks
from flightsw.objects.exchange import NOT_HELD, REPLY_PRIORITY, Exchange, ObjectDelivered, Timed
from flightsw.objects.store import ObjectStore
from flightsw.wire.messages import CHUNK_BYTES, Chunk, ObjectQuery, ObjectStatus, ObjectWant


@dataclass(slots=True, kw_only=True)
class Push(Timed):
    """One object on its way to one peer. It is pinned in the store until the end."""

    digest: bytes
    peer: int
    priority: int
    size_bytes: int
    missing: list[int]
    """Chunks to send when it becomes active."""
    served: bool
    """Whether only the peer asked for it; when the peer falls silent it is then given up."""
    active: bool = False
    asked: bool = False
    """A question is out, and the first answer to it may make us send."""
    sent_chunks_count: int = 0
    """Chunks below this index were sent at least once."""


class Sender:
    """All pushes.

    Args:
        store: where the objects are.
        exchange: outbox, events, counts and timers.
    """

    def __init__(self, store: ObjectStore, exchange: Exchange) -> None:
        self._store = store
        self._exchange = exchange
        self._pushes: dict[tuple[bytes, int], Push] = {}
        self._waiting: dict[int, list[tuple[int, int, Push]]] = {}
        """Pushes that wait for their turn: one heap of (priority, sequence, push) for each peer."""
        self._waiting_count = 0
        self._active_count: dict[int, int] = {}
        self._to_activate: dict[int, None] = {}
        """Peers with waiting pushes and perhaps room for them, in order."""

    def find(self, digest: bytes, peer: int) -> Push | None:
        """The push of an object to a peer that has not ended."""
        return self._pushes.get((digest, peer))

    def has_work(self) -> bool:
        """Whether `activate` would do something."""
        return bool(self._to_activate)

    def start(self, digest: bytes, peer: int, priority: int, held: bytes, *, served: bool) -> None:
        """Begin a push of the chunks that the peer does not hold; it fails by event when that cannot be."""
        if not self._store.has(digest):
            self._exchange.fail(digest, peer, NOT_HELD)
            return
        if self._waiting_count >= self._exchange.config.waiting_max:
            self._exchange.fail(digest, peer, f"busy: {self._waiting_count} transfers wait")
            return
        size_bytes = self._store.size_bytes(digest)
        missing = missing_chunks(held, chunks_count(size_bytes))
        if not missing:
            return
        push = Push(digest=digest, peer=peer, priority=priority, size_bytes=size_bytes, missing=missing, served=served)
        self._pushes[digest, peer] = push
        self._store.pin(digest)
        heappush(self._waiting.setdefault(peer, []), (priority, self._exchange.next_sequence(), push))
        self._waiting_count += 1
        self._to_activate[peer] = None

    def end(self, push: Push) -> None:
        """End a push, whatever the reason."""
        push.ended = True
        del self._pushes[push.digest, push.peer]
        self._store.unpin(push.digest)
        peer = push.peer
        if not push.active:
            self._waiting_count -= 1
            left = [entry for entry in self._waiting[peer] if entry[2] is not push]
            heapify(left)
            self._waiting[peer] = left
        else:
            self._active_count[peer] -= 1
            if not self._active_count[peer]:
                del self._active_count[peer]
        if self._waiting.get(peer):
            self._to_activate[peer] = None
        else:
            self._waiting.pop(peer, None)

    def activate(self, now_ns: int) -> None:
        """Start waiting pushes, most urgent first, to peers that have room for them."""
        while self._to_activate:
            peer = next(iter(self._to_activate))
            del self._to_activate[peer]
            while self._waiting.get(peer) and self._has_room(peer):
                push = heappop(self._waiting[peer])[2]
                self._waiting_count -= 1
                self._active_count[peer] = self._active_count.get(peer, 0) + 1
                push.active = True
                missing, push.missing = push.missing, []
                self._send_chunks(push, missing, now_ns)
            if not self._waiting.get(peer):
                self._waiting.pop(peer, None)

    def on_silence(self, push: Push, now_ns: int) -> None:
        """Nothing was heard of a push for its time-out."""
        push.questions_count += 1
        if push.served and push.questions_count > self._exchange.config.served_questions_max:
            self._exchange.counts.given_up += 1
            self.end(push)
            return
        self._ask(push, now_ns)

    def on_status(self, status: ObjectStatus, source: int, now_ns: int) -> None:
        """The peer says what it holds, or refuses."""
        push = self.find(status.digest, source)
        if push is None:
            return
        if status.refused:
            self.end(push)
            self._exchange.fail(push.digest, source, f"refused: {status.refused}")
            return
        missing = missing_chunks(status.bitmap, chunks_count(push.size_bytes))
        if not missing:
            self.end(push)
            self._exchange.counts.delivered += 1
            self._exchange.report(ObjectDelivered(push.digest, source))
        elif push.asked:
            push.questions_count = 0
            self._send_chunks(push, missing, now_ns)

    def on_want(self, want: ObjectWant, source: int, now_ns: int) -> None:
        """The peer asks for an object."""
        if not self._store.has(want.digest):
            self._exchange.send(source, ObjectStatus(want.digest, want.size_bytes, b"", NOT_HELD), REPLY_PRIORITY)
        elif self.find(want.digest, source) is None:
            self.start(want.digest, source, self._exchange.config.served_priority, want.bitmap, served=True)
        else:
            self.on_status(ObjectStatus(want.digest, want.size_bytes, want.bitmap), source, now_ns)

    def _has_room(self, peer: int) -> bool:
        return self._active_count.get(peer, 0) < self._exchange.config.active_per_peer_max

    def _send_chunks(self, push: Push, missing: list[int], now_ns: int) -> None:
        """One burst; when it does not cover all that is missing, also the question that brings the next."""
        exchange = self._exchange
        try:
            data = self._store.get(push.digest)
        except StorageError as error:
            self.end(push)
            if push.served:
                refusal = ObjectStatus(push.digest, push.size_bytes, b"", NOT_HELD)
                exchange.send(push.peer, refusal, REPLY_PRIORITY)
            exchange.fail(push.digest, push.peer, f"our copy is lost: {error}")
            return
        burst = missing[: exchange.config.burst_chunks_max]
        for index in burst:
            piece = data[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]
            exchange.send(push.peer, Chunk(push.digest, push.size_bytes, index, piece), push.priority)
        exchange.counts.chunks_sent += len(burst)
        exchange.counts.chunks_sent_again += sum(index < push.sent_chunks_count for index in burst)
        push.sent_chunks_count = max(push.sent_chunks_count, burst[-1] + 1)
        push.asked = False
        if len(burst) < len(missing):
            self._ask(push, now_ns)
        else:
            exchange.wait(push, now_ns)

    def _ask(self, push: Push, now_ns: int) -> None:
        push.asked = True
        self._exchange.counts.queries_sent += 1
        self._exchange.send(push.peer, ObjectQuery(push.digest, push.size_bytes), push.priority)
        self._exchange.wait(push, now_ns)
