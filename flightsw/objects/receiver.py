"""The receiving side of transfers: chunks onto the disk, answers about them, and fetches from one or more sources."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from flightsw.errors import StorageError
from flightsw.objects.digest import chunk_size_bytes, chunks_count
from flightsw.objects.exchange import NS_PER_S, REPLY_PRIORITY, Exchange, ObjectArrived, Timed
from flightsw.objects.store import ObjectStore
from flightsw.wire.messages import Chunk, ObjectStatus, ObjectWant

ANSWERED_MAX: Final = 1024
"""Remembered (object, peer) pairs that had an answer; one that is forgotten costs one more status."""


@dataclass(slots=True, kw_only=True)
class Fetch(Timed):
    """One object that we want."""

    digest: bytes
    size_bytes: int
    sources: list[int]
    """The first is asked; the others wait for their turn."""
    refused: list[int] = field(default_factory=list)
    """Sources that said no since the last chunk came."""


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
        self._answered_ns: dict[tuple[bytes, int], int] = {}
        self._chunk_ns: dict[bytes, int] = {}
        """When a partial object last got a chunk, or was first seen."""

    def find(self, digest: bytes) -> Fetch | None:
        """The fetch of an object that has not ended."""
        return self._fetches.get(digest)

    def start(self, digest: bytes, size_bytes: int, sources: Sequence[int], now_ns: int) -> None:
        """Fetch an object, or add sources to the fetch under way."""
        if self._store.has(digest):
            self._exchange.report(ObjectArrived(digest, self._local))
            return
        fetch = self._fetches.get(digest)
        if fetch is not None:
            fetch.sources += [source for source in sources if source not in fetch.sources]
            return
        fetch = Fetch(digest=digest, size_bytes=size_bytes, sources=list(dict.fromkeys(sources)))
        self._fetches[digest] = fetch
        self._want(fetch, now_ns)

    def drop_source(self, digest: bytes, source: int) -> None:
        """Fetch this object no longer from there; without sources the fetch ends, and its chunks stay."""
        fetch = self._fetches.get(digest)
        if fetch is not None and source in fetch.sources:
            fetch.sources.remove(source)
            if not fetch.sources:
                self._end(fetch)

    def on_chunk(self, chunk: Chunk, source: int, now_ns: int) -> None:
        """Keep a chunk; the one that makes the object whole is answered."""
        digest, index, size_bytes = chunk.digest, chunk.index, chunk.size_bytes
        counts = self._exchange.counts
        if self._store.has(digest):
            counts.chunks_repeated += 1
            if self._may_answer_unasked(digest, source, now_ns):
                self.answer(digest, size_bytes, source, now_ns)
            return
        if index >= chunks_count(size_bytes) or len(chunk.data) != chunk_size_bytes(size_bytes, index):
            counts.chunks_rejected += 1
            return
        try:
            self._begin(digest, size_bytes, now_ns)
            whole = self._store.add_chunk(digest, index, chunk.data)
        except StorageError as error:
            self._refuse(digest, size_bytes, source, str(error), now_ns)
            return
        counts.chunks_received += 1
        self._chunk_ns[digest] = now_ns
        fetch = self._fetches.get(digest)
        if fetch is not None:
            fetch.questions_count = 0
            fetch.refused.clear()
            self._exchange.wait(fetch, now_ns)
        if whole:
            del self._chunk_ns[digest]
            if fetch is not None:
                self._end(fetch)
            counts.arrived += 1
            self._exchange.report(ObjectArrived(digest, source))
            self.answer(digest, size_bytes, source, now_ns)

    def answer(self, digest: bytes, size_bytes: int, peer: int, now_ns: int) -> None:
        """Say what we hold; never more than a power cut would leave us."""
        try:
            status = ObjectStatus(digest, size_bytes, self._store.bitmap(digest))
        except StorageError as error:
            status = ObjectStatus(digest, size_bytes, b"", str(error)[:512])
        self._send_status(status, peer, now_ns)

    def on_refusal(self, status: ObjectStatus, source: int, now_ns: int) -> None:
        """A source will not, or cannot, give us the object: ask the next, or give up when all have said so."""
        fetch = self._fetches.get(status.digest)
        if fetch is None or source not in fetch.sources:
            return
        if source not in fetch.refused:
            fetch.refused.append(source)
        if all(candidate in fetch.refused for candidate in fetch.sources):
            self._end(fetch)
            self._exchange.fail(fetch.digest, source, f"refused: {status.refused}")
        elif source == fetch.sources[0]:
            self._want_elsewhere(fetch, now_ns)

    def on_silence(self, fetch: Fetch, now_ns: int) -> None:
        """No chunk came for the time-out."""
        fetch.questions_count += 1
        self._want_elsewhere(fetch, now_ns)

    def _want_elsewhere(self, fetch: Fetch, now_ns: int) -> None:
        fetch.sources.append(fetch.sources.pop(0))
        self._want(fetch, now_ns)

    def _want(self, fetch: Fetch, now_ns: int) -> None:
        """Ask the first source for what is not here."""
        digest, source = fetch.digest, fetch.sources[0]
        try:
            self._begin(digest, fetch.size_bytes, now_ns)
            bitmap = self._store.bitmap(digest)
        except StorageError as error:
            self._end(fetch)
            self._exchange.fail(digest, source, str(error))
            return
        if self._store.has(digest):  # the owner has put it there meanwhile
            self._end(fetch)
            self._exchange.report(ObjectArrived(digest, self._local))
            return
        self._exchange.counts.wants_sent += 1
        self._exchange.send(source, ObjectWant(digest, fetch.size_bytes, bitmap), REPLY_PRIORITY)
        self._exchange.wait(fetch, now_ns)

    def _end(self, fetch: Fetch) -> None:
        fetch.ended = True
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
        if self._may_answer_unasked(digest, peer, now_ns):
            self._send_status(ObjectStatus(digest, size_bytes, b"", reason[:512]), peer, now_ns)

    def _may_answer_unasked(self, digest: bytes, peer: int, now_ns: int) -> bool:
        answered_ns = self._answered_ns.get((digest, peer))
        gap_ns = round(self._exchange.config.unasked_gap_s * NS_PER_S)
        return answered_ns is None or now_ns - answered_ns >= gap_ns

    def _send_status(self, status: ObjectStatus, peer: int, now_ns: int) -> None:
        self._exchange.counts.refused += bool(status.refused)
        self._answered_ns.pop((status.digest, peer), None)
        self._answered_ns[status.digest, peer] = now_ns
        if len(self._answered_ns) > ANSWERED_MAX:
            del self._answered_ns[next(iter(self._answered_ns))]
        self._exchange.send(peer, status, REPLY_PRIORITY)
