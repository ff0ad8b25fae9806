"""What a fetch asks of whom: chunks of one object spread over those that hold it.

Each source is asked for a share of what is missing, and for more when half of it has come. What a source does not send
in time goes to others. A source that has nothing left to do takes what silent ones owe, or half of what is owed by one
that has sent less than half of its share: that one is slow, and what it has on the way comes twice. A source that said
no is out, and so is one that sent something else than the object.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice

from flightsw.objects.digest import Shape, missing_chunks
from flightsw.objects.exchange import Timed, TransferConfig


@dataclass(slots=True, kw_only=True)
class Ask(Timed):
    """What one source was asked for."""

    fetch: "Fetch"
    source: int
    owed: dict[int, None] = field(default_factory=dict)
    """Chunks that it has not sent yet, in the order of asking."""
    share_count: int = 0
    """Chunks that it owed when it was asked last."""


class Fetch:
    """One object that we want.

    Args:
        digest: its name.
        shape: how it is cut.
        priority: how urgent it is.
        held: bitmap of the chunks that are here.
    """

    def __init__(self, digest: bytes, shape: Shape, priority: int, held: bytes) -> None:
        self.digest = digest
        self.shape = shape
        self.priority = priority
        self.asks: dict[int, Ask] = {}
        """By source, in the order in which the owner named them."""
        self.refusal = ""
        """The last reason of a source that is out."""
        self._open: dict[int, None] = {}
        """Missing chunks that nobody was asked for, in order."""
        self._missing_count = 0
        self.restart(held)

    @property
    def is_exhausted(self) -> bool:
        """Whether there is nothing left to ask for, or to wait for."""
        return not self._missing_count

    def add_sources(self, sources: Iterable[int]) -> None:
        """Further holders; one that is out has another chance."""
        for source in sources:
            if source not in self.asks:
                self.asks[source] = Ask(fetch=self, source=source)

    def drop_source(self, source: int) -> None:
        """Ask there no longer; what it owes is asked of others."""
        ask = self.asks.pop(source)
        ask.ended = True
        self._open.update(ask.owed)

    def take_back(self, ask: Ask) -> None:
        """A source is silent: what it owes may be asked of others."""
        self._open.update(ask.owed)
        ask.owed.clear()

    def arrived(self, index: int) -> None:
        """A chunk is here, wherever it came from."""
        was_missing = index in self._open
        self._open.pop(index, None)
        for ask in self.asks.values():
            if index in ask.owed:
                del ask.owed[index]
                was_missing = True
        self._missing_count -= was_missing

    def restart(self, held: bytes) -> None:
        """Begin anew with the chunks that are here."""
        for ask in self.asks.values():
            ask.owed.clear()
        self._open = dict.fromkeys(missing_chunks(held, self.shape.chunks_count))
        self._missing_count = len(self._open)

    def assign(self, config: TransferConfig) -> list[Ask]:
        """Spread what nobody was asked for, and give the idle something to do. Returns those who are to be asked."""
        # the silent come last, and by turns: a dead one must not get the last chunk for ever
        asks = sorted(self.asks.values(), key=lambda ask: ask.questions_count)
        chunks_max = config.burst_chunks_max
        if len(asks) > 1:
            chunks_max = min(config.share_chunks_max, -(-self._missing_count // len(asks)))
        changed = [ask for ask in asks if self._fill(ask, chunks_max)]
        for ask in asks:
            if not ask.owed and not ask.questions_count and self._relieve(ask):
                changed.append(ask)
        return changed

    def _fill(self, ask: Ask, chunks_max: int) -> bool:
        """Let a source that has sent half of its share have a full one again."""
        if not self._open or 2 * len(ask.owed) > chunks_max:
            return False
        _give(ask, list(islice(self._open, chunks_max - len(ask.owed))), self._open)
        return True

    def _relieve(self, ask: Ask) -> bool:
        """Let an idle source take all that a silent one owes, or half of what a slow one owes."""
        others = [other for other in self.asks.values() if other.owed]
        silent = [other for other in others if other.questions_count]
        slow = [other for other in others if 2 * len(other.owed) > max(2, other.share_count)]
        if silent:
            _give(ask, list(silent[0].owed), silent[0].owed)
        elif slow:
            slowest = max(slow, key=lambda other: len(other.owed))
            _give(ask, list(slowest.owed)[len(slowest.owed) // 2 :], slowest.owed)
        return bool(silent or slow)


def _give(ask: Ask, chunks: list[int], taken_from: dict[int, None]) -> None:
    for index in chunks:
        del taken_from[index]
        ask.owed[index] = None
    ask.share_count = len(ask.owed)
