"""The receiving side of transfers: chunks onto the disk, answers about them, and fetches from one or more sources."""

from collections.abc import Sequence
from typing import Final

from flightsw.errors import StorageError
from flightsw.objects.digest import bitmap_without, chunk_holds, shape_of
from flightsw.objects.exchange import (
    FORGED,
    NS_PER_S,
    REPLY_PRIORITY,
    Exchange,
    ObjectArrived,
    SourceDropped,
)
from flightsw.objects.fetches import Ask, Fetch
from flightsw.objects.store import ObjectStore
from flightsw.wire.messages import Chunk, ObjectStatus, ObjectWant

ANSWERED_MAX: Final = 1024
"""Remembered (object, peer) pairs that had an answer; one that is forgotten costs one more status."""


class Receiver:
    """All incoming objects.

    Args:
        store: where they go.
        exchange: outbox, events, counts and timers.
        local: our own node number: the source of what is here already.
    """

    def __init__(self, store: ObjectStore, exchange: Exchange, local: int) -> None:
        self._store = store
        self._exchange = exchange
        self._local = local
        self._fetches: dict[bytes, Fetch] = {}
        self._to_ask: dict[bytes, None] = {}
        """Fetches that lost a source while there was no time to ask others."""
        self._answered: dict[tuple[bytes, int], tuple[int, bool]] = {}
        """When a peer last had an answer about an object [ns], and whether that was a refusal."""
        self._chunk_ns: dict[bytes, int] = {}
        """When a partial object last got a chunk, or was first seen."""

    def find(self, digest: bytes) -> Fetch | None:
        """The fetch of an object that has not ended."""
        return self._fetches.get(digest)

    def start(self, digest: bytes, size_bytes: int, sources: Sequence[int], priority: int, now_ns: int) -> None:
        """Fetch an object, or add sources to the fetch under way."""
        if self._store.has(digest):
            self._exchange.report(ObjectArrived(digest, self._local))
            return
        fetch = self._fetches.get(digest)
        if fetch is None:
            try:
                self._begin(digest, size_bytes, now_ns)
                if self._store.bitmap(digest) and self._store.has(digest):  # its last chunk came before a reset
                    self._exchange.report(ObjectArrived(digest, self._local))
                    return
            except StorageError as error:
                self._exchange.fail(digest, sources[0], str(error))
                return
            fetch = Fetch(digest, shape_of(digest, size_bytes), priority, self._store.held(digest))
            self._fetches[digest] = fetch
        fetch.add_sources(sources)
        self._ask(fetch, now_ns)

    def drop_source(self, digest: bytes, source: int) -> None:
        """Fetch this object no longer from there; without sources the fetch ends, and its chunks stay."""
        fetch = self._fetches.get(digest)
        if fetch is not None and source in fetch.asks:
            fetch.drop_source(source)
            self._to_ask[digest] = None
            if not fetch.asks:
                self._end(fetch)

    def has_work(self) -> bool:
        """Whether `activate` would do something."""
        return bool(self._to_ask)

    def activate(self, now_ns: int) -> None:
        """Ask for what sources owed that were taken away."""
        to_ask, self._to_ask = self._to_ask, {}
        for digest in to_ask:
            fetch = self._fetches.get(digest)
            if fetch is not None:
                self._ask(fetch, now_ns)

    def on_chunk(self, chunk: Chunk, source: int, now_ns: int) -> None:
        """Check and keep a chunk; the one that makes the object whole is answered."""
        digest, index, size_bytes = chunk.digest, chunk.index, chunk.size_bytes
        counts = self._exchange.counts
        if self._store.has(digest):
            counts.chunks_repeated += 1
            if self._may_answer_unasked(digest, source, now_ns):
                self.answer(digest, size_bytes, source, now_ns)
            return
        fetch = self._fetches.get(digest)
        try:
            shape = shape_of(digest, size_bytes)
            is_possible = index < shape.chunks_count and len(chunk.data) == shape.data_bytes(index)
            if not chunk_holds(digest, shape, index, chunk.data, chunk.proof):
                self._reject(chunk, source, is_possible, now_ns)
                return
            self._begin(digest, size_bytes, now_ns)
            whole = self._store.add_chunk(digest, index, chunk.data)
        except StorageError as error:
            self._refuse(digest, size_bytes, source, str(error), now_ns)
            return
        counts.chunks_received += 1
        self._chunk_ns[digest] = now_ns
        if whole:
            self._complete(digest, size_bytes, source, now_ns)
        elif fetch is not None:
            self._progress(fetch, index, source, now_ns)

    def answer(self, digest: bytes, size_bytes: int, peer: int, now_ns: int, question: int = 0) -> None:
        """Say what we hold, and promise the room for the rest; never claim more than a power cut would leave us."""
        bitmap, refused, share = b"", "", False
        try:
            self._begin(digest, size_bytes, now_ns)
            bitmap = self._store.bitmap(digest)
        except StorageError as error:
            refused = str(error)[:512]
        fetch = self._fetches.get(digest)
        if fetch is not None and self._store.has(digest):
            self._complete(digest, size_bytes, self._local, now_ns)
        elif fetch is not None and peer in fetch.asks and not refused:
            self._ask(fetch, now_ns)
            bitmap, share = bitmap_without(fetch.asks[peer].owed, fetch.shape.chunks_count), True
        self._send_status(ObjectStatus(digest, size_bytes, bitmap, refused, share, question), peer, now_ns)

    def on_refusal(self, status: ObjectStatus, source: int, now_ns: int) -> None:
        """A source will not, or cannot, give us the object: ask the others, or give up when there are none."""
        fetch = self._fetches.get(status.digest)
        if fetch is not None and source in fetch.asks:
            self._lose_source(fetch, source, f"refused: {status.refused}", now_ns)

    def on_silence(self, ask: Ask, now_ns: int) -> None:
        """No chunk came from a source for its time-out."""
        if ask.owed:
            ask.questions_count += 1
            ask.fetch.take_back(ask)
            self._ask(ask.fetch, now_ns)

    def _progress(self, fetch: Fetch, index: int, source: int, now_ns: int) -> None:
        """A chunk came; its source is alive."""
        fetch.arrived(index)
        ask = fetch.asks.get(source)
        if ask is not None:
            ask.questions_count = 0
            self._exchange.wait(ask, now_ns)
        self._ask(fetch, now_ns)

    def _ask(self, fetch: Fetch, now_ns: int) -> None:
        """Send wants to those who have something new to do."""
        if fetch.is_exhausted:  # all has come and it is not whole: chunks were removed, or rotted, and go again
            fetch.restart(self._store.held(fetch.digest))
        count, size_bytes = fetch.shape.chunks_count, fetch.shape.size_bytes
        for ask in fetch.assign(self._exchange.config):
            bitmap = bitmap_without(ask.owed, count)
            self._exchange.counts.wants_sent += 1
            want = ObjectWant(fetch.digest, size_bytes, bitmap, fetch.priority)
            self._exchange.send(ask.source, want, REPLY_PRIORITY)
            self._exchange.wait(ask, now_ns)

    def _complete(self, digest: bytes, size_bytes: int, source: int, now_ns: int) -> None:
        """The object is whole: tell our owner, and all who may be sending."""
        self._chunk_ns.pop(digest, None)
        fetch = self._fetches.get(digest)
        told = [] if fetch is None else [ask.source for ask in fetch.asks.values() if ask.share_count]
        if fetch is not None:
            self._end(fetch)
        self._exchange.counts.arrived += 1
        self._exchange.report(ObjectArrived(digest, source))
        for peer in dict.fromkeys([*told, source]):
            if peer != self._local:
                self.answer(digest, size_bytes, peer, now_ns)

    def _reject(self, chunk: Chunk, source: int, is_possible: bool, now_ns: int) -> None:
        """A chunk that is none of its object: whoever sends it has something else, and is not asked again."""
        self._exchange.counts.chunks_rejected += 1
        fetch = self._fetches.get(chunk.digest)
        if fetch is not None and source in fetch.asks:
            self._exchange.counts.sources_dropped += 1
            self._lose_source(fetch, source, FORGED, now_ns)
        if is_possible and self._may_answer_unasked(chunk.digest, source, now_ns, refusal=True):
            self._send_status(ObjectStatus(chunk.digest, chunk.size_bytes, b"", FORGED), source, now_ns)

    def _lose_source(self, fetch: Fetch, source: int, reason: str, now_ns: int) -> None:
        fetch.drop_source(source)
        if not fetch.asks:
            self._end(fetch)
            self._exchange.fail(fetch.digest, source, reason)
            return
        if reason == FORGED:
            self._exchange.report(SourceDropped(fetch.digest, source, reason))
        self._ask(fetch, now_ns)

    def _end(self, fetch: Fetch) -> None:
        for ask in fetch.asks.values():
            ask.ended = True
        del self._fetches[fetch.digest]

    def _begin(self, digest: bytes, size_bytes: int, now_ns: int) -> None:
        """Begin an object; when there is no room, partial ones that nobody continued give way."""
        try:
            self._store.begin(digest, size_bytes)
        except StorageError:
            seen_ns = {part: self._chunk_ns.get(part, now_ns) for part in self._store.partial_digests()}
            self._chunk_ns = seen_ns
            idle_ns = round(self._exchange.config.part_idle_s * NS_PER_S)
            idle = [part for part, at_ns in seen_ns.items() if now_ns - at_ns >= idle_ns and part not in self._fetches]
            if not idle:
                raise
            for part in idle:
                self._store.abandon(part)
                del seen_ns[part]
            self._store.begin(digest, size_bytes)

    def _refuse(self, digest: bytes, size_bytes: int, peer: int, reason: str, now_ns: int) -> None:
        fetch = self._fetches.get(digest)
        if fetch is not None:
            self._end(fetch)
            self._exchange.fail(digest, peer, reason)
        if self._may_answer_unasked(digest, peer, now_ns, refusal=True):
            self._send_status(ObjectStatus(digest, size_bytes, b"", reason[:512]), peer, now_ns)

    def _may_answer_unasked(self, digest: bytes, peer: int, now_ns: int, *, refusal: bool = False) -> bool:
        """Whether the last answer is long ago, or this is the first refusal after it."""
        answered_ns, was_refused = self._answered.get((digest, peer), (None, False))
        gap_ns = round(self._exchange.config.unasked_gap_s * NS_PER_S)
        return answered_ns is None or now_ns - answered_ns >= gap_ns or (refusal and not was_refused)

    def _send_status(self, status: ObjectStatus, peer: int, now_ns: int) -> None:
        self._exchange.counts.refused += bool(status.refused)
        self._answered.pop((status.digest, peer), None)
        self._answered[status.digest, peer] = now_ns, bool(status.refused)
        if len(self._answered) > ANSWERED_MAX:
            del self._answered[next(iter(self._answered))]
        self._exchange.send(peer, status, REPLY_PRIORITY)
