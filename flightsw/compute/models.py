"""Models in memory: loaded from the store by digest, scrubbed, repaired.

Radiation changes weights in memory and bytes on the disk. The range guard sees the worst, weights that left their
range, and often brings them back without the true ones (`flightsw.compute.guard`). The scrub compares memory and disk
with the digest that names both; a model that does not hold is loaded again, and when the stored copy is rotten too, it
is fetched again from the ground.
A model's digest is also checked before any checkpoint or result is kept, and loads are counted, so that nothing
computed with struck weights survives, not even where the scrub has mended them meanwhile.
"""

from enum import Enum, unique

from flightsw.errors import StorageError
from flightsw.objects.store import ObjectStore
from flightsw.ports import Model, Runner


@unique
class Scrub(Enum):
    """What a scrub of one model found and did."""

    HOLDS = "holds"
    MENDED = "mended in place by the range guard"
    REPAIRED = "repaired from the store"
    STORE_ROTTEN = "the stored copy is rotten too"


class Models:
    """The models that jobs of this node use.

    Args:
        store: where model objects lie.
        runner: what holds them in memory.
    """

    def __init__(self, store: ObjectStore, runner: Runner) -> None:
        self._store = store
        self._runner = runner
        self._loads_count: dict[bytes, int] = {}
        self.repaired_count = 0
        """Times that weights did not hold and were mended, in place or from the store."""
        self.out_of_range_count = 0
        """Times that the range guard found something."""
        self.mended_count = 0
        """Times that what it did brought the true weights back."""

    def ensure(self, digest: bytes) -> Model | None:
        """The model in memory, loaded when it is not; None when the stored copy is missing or rotten.

        Raises:
            ConfigError: the object with this digest is no model.
        """
        model = self._runner.loaded().get(digest)
        if model is not None:
            return model
        try:
            return self._load(digest)
        except StorageError:
            return None

    def loads_count(self, digest: bytes) -> int:
        """Times that this model was loaded: work that spans two loads may have seen weights that did not hold."""
        return self._loads_count.get(digest, 0)

    def holds(self, digest: bytes) -> bool:
        """Whether the model in memory is still what its digest says."""
        model = self._runner.loaded().get(digest)
        return model is not None and model.digest() == digest

    def guard(self, digest: bytes) -> Scrub:
        """Look for weights out of range, mend them in place, and load the model again when that was not enough."""
        model = self._runner.loaded().get(digest)
        if model is None or not model.guard_weights():
            return Scrub.HOLDS  # as far as the guard can see
        self.out_of_range_count += 1
        if model.digest() != digest:
            return self.scrub(digest)
        self.mended_count += 1
        self.repaired_count += 1
        return Scrub.MENDED

    def scrub(self, digest: bytes) -> Scrub:
        """Check one model in memory and mend it; what cannot be mended is unloaded, so that nothing more runs on it."""
        if self.holds(digest):
            return Scrub.HOLDS
        try:
            self._load(digest)
        except StorageError:
            self._runner.unload(digest)
            return Scrub.STORE_ROTTEN
        self.repaired_count += 1
        return Scrub.REPAIRED

    def digests(self) -> list[bytes]:
        """Digests of the models in memory, sorted."""
        return sorted(self._runner.loaded())

    def _load(self, digest: bytes) -> Model:
        model = self._runner.load(digest, self._store.get(digest))
        self._loads_count[digest] = self.loads_count(digest) + 1
        return model
