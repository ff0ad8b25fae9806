"""Weight faults: strikes bits of a model's weights and says what becomes of the job's masks.

A *site* is a run of adjacent bits of one weight tensor; its fault flips them, and they stay so for the whole job. The
job under test is the one that flies: cloud masks of several tiles, eight turns each, so that one fault is judged on all
of them.

| outcome | the weights, and the masks against those of the true weights |
|---|---|
| MASKED | no tile differs in more than the tolerance |
| CORRECTED | the measure noticed, and what is kept was computed with the true bits |
| SILENT | some tile differs in more, and every sum of logits is finite: nobody can tell (SDC) |
| NOT_FINITE | some sum of logits is infinite or not a number, which anybody can tell |

The graph is cut behind each tensor (`hil.faults.onnx_parts`): what lies before is computed once, so that a fault costs
only the nodes that depend on it, on all turns of all tiles in one batch, and loads no model.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from enum import Enum, unique
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from flightsw.compute import cloud_mask
from flightsw.compute.guard import WeightGuard, Words, guard_of
from flightsw.compute.inference import INPUT_NAME, OUTPUT_NAME, load_runtime, new_session
from flightsw.compute.onnx_file import FLOAT_BYTES
from flightsw.objects.digest import digest_of
from hil.faults.onnx_parts import Graph

WORD_BITS: Final = 32
TOLERANCE: Final = 0.01
"""Part of a tile's pixels that may differ: about what the network itself calls wrong (hil/assets/MODEL_CARD.md)."""


@unique
class Outcome(Enum):
    """What became of a fault."""

    MASKED = "masked"
    CORRECTED = "corrected"
    SILENT = "silent corruption"
    NOT_FINITE = "not finite"


@unique
class Measure(Enum):
    """What stands against weight faults."""

    NONE = "no measure"
    GUARD = "range guard"
    DIGEST = "digest at checkpoints"
    BOTH = "range guard and digest"


class Effect(NamedTuple):
    """What a change of weights does to the job.

    Attributes:
        changed_share: part of the pixels that differ, of the tile where most do.
        is_finite: whether all sums of logits are.
    """

    changed_share: float
    is_finite: bool

    def outcome(self, tolerance: float = TOLERANCE) -> Outcome:
        """What it is when no measure notices."""
        if not self.is_finite:
            return Outcome.NOT_FINITE
        return Outcome.SILENT if self.changed_share > tolerance else Outcome.MASKED


class Site(NamedTuple):
    """Adjacent bits of a tensor.

    Attributes:
        tensor: which, in the order of the file.
        bit: the first, counted from the lowest bit of the tensor's first weight.
        bits: how many.
    """

    tensor: int
    bit: int
    bits: int

    def struck(self, words: Words) -> Words:
        """Return the tensor's weights with these bits flipped."""
        words = words.copy()
        for bit in range(self.bit, self.bit + self.bits):
            words[bit // WORD_BITS] ^= np.uint32(1 << bit % WORD_BITS)
        return words


class WeightFaults:
    """One job, ready to be struck.

    Args:
        model: the ONNX file.
        tiles: ``(height, width, 4)`` digital numbers, all of one size.

    Raises:
        ConfigError: ONNX Runtime is missing, or the file is no model.
    """

    def __init__(self, model: bytes, tiles: Sequence[cloud_mask.DnTile]) -> None:
        assert len({tile.shape for tile in tiles}) == 1, "tiles of one size go through in one batch"
        self.guard: WeightGuard = guard_of(model, "model")
        self._side = tiles[0].shape[:2]
        self._tiles_count = len(tiles)
        self._file = model
        self._name = digest_of(model)
        self._graph = Graph(model)
        self._words = [
            np.frombuffer(model, "<u4", tensor.length // FLOAT_BYTES, tensor.start) for tensor in self.guard.tensors
        ]
        self._firsts = np.cumsum([0, *map(len, self._words)])
        self._runtime = load_runtime()
        self._parts = [self._graph.behind(tensor.name) for tensor in self.guard.tensors]
        self._session: tuple[int, Any] | None = None
        """The tensor struck last, and what computes behind it; one at a time, for each takes some 60 MB."""
        names = list(dict.fromkeys(name for part in self._parts for name in part.inputs if name != INPUT_NAME))
        batch = np.concatenate(
            [cloud_mask.network_input(tile, turn) for tile in tiles for turn in range(cloud_mask.STEPS)]
        )
        prefix = new_session(self._runtime, self._graph.with_outputs([OUTPUT_NAME, *names]))
        logits, *values = prefix.run(None, {INPUT_NAME: batch})
        self._values: dict[str, NDArray[np.float32]] = {INPUT_NAME: batch, **dict(zip(names, values, strict=True))}
        self._true = self._sums(logits) > 0

    def words(self, tensor: int) -> Words:
        """Return the true weights of a tensor."""
        return self._words[tensor]

    def draw(self, bits: int, count: int, random: Generator) -> list[Site]:
        """Draw different sites, each run of adjacent bits within a tensor as likely as any other.

        Args:
            bits: length of the run.
            count: how many sites.
            random: the stream to draw from.
        """
        starts = [WORD_BITS * len(words) - bits + 1 for words in self._words]
        ends = np.cumsum(starts)
        drawn = random.choice(int(ends[-1]), size=count, replace=False)
        tensors = np.searchsorted(ends, drawn, side="right")
        return [
            Site(int(tensor), int(place - (ends[tensor] - starts[tensor])), bits)
            for place, tensor in zip(drawn, tensors, strict=True)
        ]

    def effect(self, tensor: int, words: Words) -> Effect:
        """Say what other weights in a tensor do to the masks."""
        if self._session is None or self._session[0] != tensor:
            self._session = tensor, new_session(self._runtime, self._parts[tensor].model)
        session = self._session[1]
        place = self.guard.tensors[tensor]
        weights = words.view(np.float32).reshape(place.shape)
        inputs = {name: self._values[name] for name in self._parts[tensor].inputs}
        return self.compared(self._sums(session.run(None, {place.name: weights, **inputs})[0]))

    def compared(self, sums: NDArray[np.float32]) -> Effect:
        """Compare the masks that sums of logits ``(tiles, height, width)`` give with those of the true weights."""
        changed = ((sums > 0) != self._true).mean(axis=(1, 2))
        return Effect(float(changed.max()), bool(np.isfinite(sums).all()))

    def guarded(self, site: Site) -> tuple[Words, bool]:
        """Return the tensor of a site as the guard leaves it once struck, and whether it saw anything."""
        first = self._firsts[site.tensor]
        words = site.struck(self._words[site.tensor])
        place = WeightGuard((), *(bound[first : first + len(words)] for bound in (self.guard.low, self.guard.high)))
        where = place.outside(words)
        words[where] = place.mended(words[where], where)
        return words, bool(where.size)

    def is_named(self, tensor: int, words: Words) -> bool:
        """Whether the digest of the file with other weights in a tensor is that of the model."""
        start, length = self.guard.tensors[tensor].start, self.guard.tensors[tensor].length
        return digest_of(self._file[:start] + words.tobytes() + self._file[start + length :]) == self._name

    def _sums(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Add up the turns of each tile, in the order of the job's steps."""
        height, width = self._side
        sums = np.zeros((self._tiles_count, height, width), np.float32)
        with np.errstate(all="ignore"):  # a model may add infinities of both signs
            for tile in range(self._tiles_count):
                for turn in range(cloud_mask.STEPS):
                    answer = logits[tile * cloud_mask.STEPS + turn, 0]
                    sums[tile] += cloud_mask.turn_back(answer, turn)[:height, :width]
        return sums


class Judged(NamedTuple):
    """One site, struck once without and once with the guard.

    Attributes:
        bare: effect of the fault.
        guarded: effect of what the guard left of it.
        is_restored: whether the guard brought the true bits back.
        is_named: whether the digest of the struck file still is the model's name.
        is_named_after: whether that of the file that the guard left is.
    """

    bare: Effect
    guarded: Effect
    is_restored: bool
    is_named: bool
    is_named_after: bool

    def outcome(self, measure: Measure, tolerance: float = TOLERANCE) -> Outcome:
        """What becomes of the fault under a measure. Where the digest is off, the model is loaded again from the store
        and what was computed meanwhile is thrown away."""
        is_restored = self.is_restored and measure in (Measure.GUARD, Measure.BOTH)
        is_reloaded = not self.is_named if measure is Measure.DIGEST else not self.is_named_after
        if is_restored or (is_reloaded and measure in (Measure.DIGEST, Measure.BOTH)):
            return Outcome.CORRECTED
        return (self.bare if measure in (Measure.NONE, Measure.DIGEST) else self.guarded).outcome(tolerance)


def judge(faults: WeightFaults, sites: Iterable[Site]) -> list[Judged]:
    """Strike each site once, without and with the guard, tensor by tensor."""
    judged = []
    unchanged = Effect(0.0, is_finite=True)
    for site in sorted(sites):
        struck = site.struck(faults.words(site.tensor))
        bare = faults.effect(site.tensor, struck)
        words, is_seen = faults.guarded(site)
        is_restored = bool((words == faults.words(site.tensor)).all())
        guarded = bare
        if is_seen:
            guarded = unchanged if is_restored else faults.effect(site.tensor, words)
        named, named_after = (faults.is_named(site.tensor, some) for some in (struck, words))
        judged.append(Judged(bare, guarded, is_restored, named, named_after))
    return judged


def count(judged: Iterable[Judged], measure: Measure, tolerance: float = TOLERANCE) -> Counter[Outcome]:
    """Count the outcomes under a measure."""
    return Counter(one.outcome(measure, tolerance) for one in judged)


def wilson_95(hits: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a rate. Source: Wilson, J. Am. Stat. Assoc. 22 (1927), the score interval."""
    z = 1.959964
    middle = (hits + z * z / 2) / (total + z * z)
    half = z / (total + z * z) * float(np.sqrt(hits * (total - hits) / total + z * z / 4))
    return max(0.0, middle - half), min(1.0, middle + half)
