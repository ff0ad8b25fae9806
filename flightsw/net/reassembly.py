"""Fragments put together at their destination (RFC 9171 §5.9). We make none; other implementations do.

Memory and time are bounded: what does not become whole is given up when its lifetime ends, or when newer fragments need
the room, the oldest bundle first. Where fragments overlap, what came first counts ("material extents", §5.9).
"""

from dataclasses import replace
from typing import Final

from flightsw.net.agent_values import AgentCounters, BundleId
from flightsw.net.coverage import Coverage
from flightsw.net.queues import NS_PER_MS
from flightsw.wire.bundles import BUNDLE_BYTES_MAX, Bundle, BundleFlags

REASSEMBLY_BYTES_MAX: Final = 4_194_304
"""Memory for fragments [bytes]: four bundles of the largest size, as many foreign sources as we expect at a time."""

REASSEMBLY_NS_MAX: Final = 86_400_000_000_000
"""Longest wait for the rest of a bundle [ns]: a day. RFC 9171 §8 advises to override long lifetimes here."""

PIECE_BYTES: Final = 256
"""What a piece is charged on top of its bytes [bytes]: a flood of tiny fragments must not cost more than it counts."""

_FRAGMENT: Final = int(BundleFlags.FRAGMENT)


class _Partial:
    """A bundle of which fragments have come."""

    __slots__ = ("born_ns", "coverage", "deadline_ns", "first", "held_bytes", "pieces", "total_length")

    def __init__(self, fragment: Bundle, born_ns: int, now_ns: int) -> None:
        self.total_length = fragment.total_length
        self.born_ns = born_ns
        """When the bundle was made, as the oldest of its fragments says, monotonic [ns]."""
        self.deadline_ns = min(born_ns + fragment.lifetime_ms * NS_PER_MS, now_ns + REASSEMBLY_NS_MAX)
        self.first: Bundle | None = None
        """The fragment at offset zero: the whole bundle has its blocks."""
        self.pieces: list[tuple[int, bytes]] = []
        self.coverage = Coverage()
        self.held_bytes = PIECE_BYTES

    def add(self, fragment: Bundle) -> None:
        """Keep what is new of a fragment."""
        lower = fragment.fragment_offset
        if lower == 0 and self.first is None:
            self.first = replace(fragment, payload=b"")
        for start, end in self.coverage.gaps(lower, lower + len(fragment.payload)):
            self.pieces.append((start, fragment.payload[start - lower : end - lower]))
            self.coverage.add(start, end)
            self.held_bytes += end - start + PIECE_BYTES

    def whole(self) -> Bundle | None:
        """The bundle, when nothing is missing."""
        if self.first is None or not self.coverage.covers(0, self.total_length):
            return None
        payload = b"".join(piece for _, piece in sorted(self.pieces))
        flags = self.first.flags & ~_FRAGMENT
        return replace(self.first, flags=flags, payload=payload, fragment_offset=0, total_length=0)


class Reassembler:
    """Fragments for this node that wait for the rest of their bundle.

    Args:
        counters: of the agent.
        bytes_max: memory for them [bytes].
    """

    def __init__(self, counters: AgentCounters, bytes_max: int = REASSEMBLY_BYTES_MAX) -> None:
        self._counters = counters
        self._bytes_max = bytes_max
        self._held_bytes = 0
        self._partials: dict[BundleId, _Partial] = {}
        """In the order in which their first fragment came."""

    def held_bytes(self) -> int:
        """Memory that is charged for fragments now [bytes]."""
        return self._held_bytes

    def add(self, fragment: Bundle, age_ms: int, now_ns: int) -> tuple[Bundle, int] | None:
        """Take a fragment; the whole bundle and its age [ms] when this was the last that was missing.

        Args:
            fragment: for this node.
            age_ms: its age now [ms].
            now_ns: monotonic time [ns].
        """
        self.expire(now_ns)
        source = fragment.source
        bundle_id = BundleId(source.node, source.service, *fragment.creation)
        born_ns = now_ns - age_ms * NS_PER_MS
        partial = self._partials.get(bundle_id)
        if partial is None:
            if fragment.total_length > BUNDLE_BYTES_MAX:
                self._counters.fragments_dropped_count += 1
                return None
            partial = self._partials[bundle_id] = _Partial(fragment, born_ns, now_ns)
            self._held_bytes += partial.held_bytes
        elif fragment.total_length != partial.total_length:
            self._counters.fragments_dropped_count += 1
            return None
        self._held_bytes -= partial.held_bytes
        partial.add(fragment)
        partial.born_ns = min(partial.born_ns, born_ns)
        self._held_bytes += partial.held_bytes
        whole = partial.whole()
        if whole is not None:
            self._forget(bundle_id)
            self._counters.bundles_reassembled_count += 1
            return whole, -((partial.born_ns - now_ns) // NS_PER_MS)
        while self._held_bytes > self._bytes_max:
            self._give_up(next(iter(self._partials)))
        return None

    def expire(self, now_ns: int) -> None:
        """Give up what has waited for too long."""
        late = [bundle_id for bundle_id, partial in self._partials.items() if partial.deadline_ns <= now_ns]
        for bundle_id in late:
            self._give_up(bundle_id)

    def _give_up(self, bundle_id: BundleId) -> None:
        self._counters.fragments_dropped_count += len(self._partials[bundle_id].pieces)
        self._forget(bundle_id)

    def _forget(self, bundle_id: BundleId) -> None:
        self._held_bytes -= self._partials.pop(bundle_id).held_bytes
