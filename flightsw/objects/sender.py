"""The sending side of transfers: pushes that the owner or a peer asked for."""

from dataclasses import dataclass, field

from flightsw.errors import StorageError
from flightsw.objects.digest import ChunkTree, Shape, missing_chunks
from flightsw.objects.exchange import NOT_HELD, REPLY_PRIORITY, Exchange, ObjectDelivered, Timed
from flightsw.objects.store import ObjectStore
from flightsw.objects.turns import Turns
from flightsw.wire.messages import Chunk, ObjectQuery, ObjectStatus, ObjectWant


@dataclass(slots=True, kw_only=True)
class Push(Timed):
    """One object on its way to one peer. It is pinned in the store until the end."""

    digest: bytes
    peer: int
    priority: int
    shape: Shape
    to_send: list[int]
    """Chunks for its next turn; none when it is to ask first."""
    served: bool
    """Whether only the peer asked for it; when the peer falls silent it is then given up."""
    waiting_since: int = 0
    active_priority: int | None = None
    """Priority of its burst under way, None when there is none."""
    asked: bool = False
    """A question is out, and the first answer to it may make us send."""
    answers_from: int = 0
    """Answers to questions before this one know nothing of the last burst."""
    sent: set[int] = field(default_factory=set)
    """Chunks that were sent at least once."""
    tree: ChunkTree | None = None
    """Proofs of the chunks, made with the first burst."""


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
        self._turns: dict[int, Turns[Push]] = {}
        self._waiting_count = 0
        self._to_activate: dict[int, None] = {}
        """Peers with waiting pushes and perhaps room for them, in order."""

    def find(self, digest: bytes, peer: int) -> Push | None:
        """The push of an object to a peer that has not ended."""
        return self._pushes.get((digest, peer))

    def has_work(self) -> bool:
        """Whether `activate` would do something."""
        return bool(self._to_activate)

    def start(
        self,
        digest: bytes,
        peer: int,
        priority: int,
        wanted: list[int] | None = None,
        *,
        ask_first: bool = False,
    ) -> Push | None:
        """Begin a push; it fails by event when that cannot be.

        Args:
            digest: name of the object.
            peer: where it goes.
            priority: of its chunks.
            wanted: chunks that the peer asked for; None when our owner asked for the push.
            ask_first: ask what the peer has, whatever the size.
        """
        exchange = self._exchange
        if not self._store.has(digest):
            exchange.fail(digest, peer, NOT_HELD)
            return None
        if self._waiting_count >= exchange.config.waiting_max:
            exchange.fail(digest, peer, f"busy: {self._waiting_count} transfers wait")
            return None
        shape = self._store.shape(digest)
        served = wanted is not None
        if wanted is None:
            ask_first = ask_first or shape.chunks_count >= exchange.config.offer_chunks_min
            wanted = [] if ask_first else list(range(shape.chunks_count))
        push = Push(digest=digest, peer=peer, priority=priority, shape=shape, to_send=wanted, served=served)
        self._pushes[digest, peer] = push
        self._store.pin(digest)
        self._wait_turn(push)
        return push

    def end(self, push: Push) -> None:
        """End a push, whatever the reason."""
        push.ended = True
        del self._pushes[push.digest, push.peer]
        self._store.unpin(push.digest)
        self._leave(push)
        turns = self._turns[push.peer]
        if turns.is_idle:
            del self._turns[push.peer]
            self._to_activate.pop(push.peer, None)

    def activate(self, now_ns: int) -> None:
        """Let those send whose turn it is."""
        while self._to_activate:
            peer = next(iter(self._to_activate))
            del self._to_activate[peer]
            turns = self._turns.get(peer)
            while turns is not None and (turn := turns.next()) is not None:
                push, priority = turn
                self._waiting_count -= 1
                push.active_priority = priority
                to_send, push.to_send = push.to_send, []
                if to_send:
                    self._send_chunks(push, to_send, priority, now_ns)
                else:
                    self._ask(push, now_ns)
                turns = self._turns.get(peer)

    def on_silence(self, push: Push, now_ns: int) -> None:
        """Nothing was heard of a push for its time-out; one that waits for its turn has not spoken itself."""
        if push.waiting_since:
            return
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
        missing = missing_chunks(status.bitmap, push.shape.chunks_count)
        if not missing and not status.share:
            self.end(push)
            self._exchange.counts.delivered += 1
            self._exchange.report(ObjectDelivered(push.digest, source))
        elif not missing and push.served:
            self.end(push)
        elif push.asked and (not status.question or status.question >= push.answers_from):
            push.questions_count = 0
            push.asked = False
            if missing:
                self._send_later(push, missing)
            else:
                self._exchange.wait(push, now_ns)

    def on_want(self, want: ObjectWant, source: int) -> None:
        """The peer asks for chunks of an object.

        Those that this push has sent before are in flight, or our next question will find them missing: wants pile up
        in an outage, and must not make us send everything as often.
        """
        if not self._store.has(want.digest):
            self._exchange.send(source, ObjectStatus(want.digest, want.size_bytes, b"", NOT_HELD), REPLY_PRIORITY)
            return
        push = self.find(want.digest, source)
        wanted = missing_chunks(want.bitmap, self._store.shape(want.digest).chunks_count)
        if push is None:
            if wanted:
                priority = max(want.priority, self._exchange.config.served_priority_min)
                self.start(want.digest, source, priority, wanted)
            return
        push.questions_count = 0
        known = push.sent.union(push.to_send)
        fresh = [index for index in wanted if index not in known]
        if fresh:
            self._send_later(push, push.to_send + fresh)

    def _send_later(self, push: Push, chunks: list[int]) -> None:
        """Wait for a turn to send these chunks; the burst before is over."""
        push.to_send = chunks
        if not push.waiting_since:
            self._leave(push)
            self._wait_turn(push)

    def _wait_turn(self, push: Push) -> None:
        config = self._exchange.config
        turns = self._turns.get(push.peer)
        if turns is None:
            turns = self._turns[push.peer] = Turns(config.active_per_peer_max, config.fair_turns)
        turns.wait(push, self._exchange.next_sequence())
        self._waiting_count += 1
        self._to_activate[push.peer] = None

    def _leave(self, push: Push) -> None:
        """Neither wait for a turn nor have a burst under way."""
        turns = self._turns[push.peer]
        if push.waiting_since:
            turns.leave(push)
            self._waiting_count -= 1
        if push.active_priority is not None:
            turns.done(push.active_priority)
            push.active_priority = None
        if turns.waiting_count:
            self._to_activate[push.peer] = None

    def _send_chunks(self, push: Push, chunks: list[int], priority: int, now_ns: int) -> None:
        """One burst; when it does not cover all that is to be sent, also the question that brings the next."""
        exchange, shape = self._exchange, push.shape
        data = b""
        if not shape.is_synthetic:
            try:
                data = self._store.get(push.digest)
            except StorageError as error:
                self._lose(push, str(error))
                return
            if push.tree is None:
                push.tree = ChunkTree(data)
        burst = chunks[: exchange.config.burst_chunks_max]
        for index in burst:
            if push.tree is None:
                chunk, padding_bytes = Chunk(push.digest, shape.size_bytes, index, b""), shape.chunk_size_bytes(index)
            else:
                start = index * shape.chunk_bytes
                piece = data[start : start + shape.chunk_bytes]
                chunk, padding_bytes = Chunk(push.digest, shape.size_bytes, index, piece, push.tree.proof(index)), 0
            exchange.send(push.peer, chunk, priority, padding_bytes)
        exchange.counts.chunks_sent += len(burst)
        exchange.counts.chunks_sent_again += sum(index in push.sent for index in burst)
        push.sent.update(burst)
        push.asked = False
        push.answers_from = exchange.next_sequence()
        if len(burst) < len(chunks):
            self._ask(push, now_ns)
        else:
            exchange.wait(push, now_ns)

    def _lose(self, push: Push, reason: str) -> None:
        """Our own copy is gone."""
        self.end(push)
        if push.served:
            refusal = ObjectStatus(push.digest, push.shape.size_bytes, b"", NOT_HELD)
            self._exchange.send(push.peer, refusal, REPLY_PRIORITY)
        self._exchange.fail(push.digest, push.peer, f"our copy is lost: {reason}")

    def _ask(self, push: Push, now_ns: int) -> None:
        """Ask what the peer has; the question travels behind the chunks of its burst."""
        push.asked = True
        priority = push.priority if push.active_priority is None else push.active_priority
        self._exchange.counts.queries_sent += 1
        question = ObjectQuery(push.digest, push.shape.size_bytes, self._exchange.next_sequence())
        self._exchange.send(push.peer, question, priority)
        self._exchange.wait(push, now_ns)
