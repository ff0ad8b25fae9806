"""Models in memory: loaded once, scrubbed, mended, and never run when they cannot be mended."""

import random  # noqa: TID251 - the stream that power cuts draw from

import pytest

from flightsw.compute.models import Models, Scrub
from flightsw.objects.store import ObjectStore, digest_of, object_name
from hil.sim.disk import SimulatedDisk

FILE = bytes(range(200))
DIGEST = digest_of(FILE)


class FakeModel:
    def __init__(self, data):
        self.data = bytearray(data)

    def digest(self):
        return digest_of(bytes(self.data))

    def guard_weights(self):
        """Byte 0 out of range above 100 is mended; byte 1 is noticed only."""
        seen = (self.data[0] > 100) + (self.data[1] > 100)
        if self.data[0] > 100:
            self.data[0] = FILE[0]
        return seen


class FakeRunner:
    """The part of the Runner port that holds models."""

    def __init__(self):
        self.memory = {}

    def load(self, digest, data):
        self.memory[digest] = FakeModel(data)
        return self.memory[digest]

    def loaded(self):
        return dict(self.memory)

    def unload(self, digest):
        self.memory.pop(digest, None)


@pytest.fixture
def disk():
    return SimulatedDisk(1 << 16, random.Random(1))


@pytest.fixture
def store(disk):
    store = ObjectStore(disk, 1 << 16)
    store.put(FILE)
    return store


@pytest.fixture
def runner():
    return FakeRunner()


@pytest.fixture
def models(store, runner):
    return Models(store, runner)


def test_a_model_is_loaded_from_the_store_once(models, runner):
    first = models.ensure(DIGEST)
    assert bytes(first.data) == FILE
    assert models.ensure(DIGEST) is first
    assert models.loads_count(DIGEST) == 1
    assert models.digests() == [DIGEST]


def test_a_model_that_the_store_lacks_is_not_loaded(models):
    assert models.ensure(bytes(32)) is None
    assert not models.holds(bytes(32))
    assert models.loads_count(bytes(32)) == 0


def test_a_rotten_stored_copy_is_never_loaded(models, disk, runner):
    disk.flip_bit(object_name(DIGEST), 7)
    assert models.ensure(DIGEST) is None
    assert runner.memory == {}


@pytest.mark.parametrize("bit_index", [0, 777, 8 * len(FILE) - 1])
def test_any_flipped_bit_is_found_and_mended_from_the_store(models, runner, bit_index):
    models.ensure(DIGEST).data[bit_index // 8] ^= 1 << bit_index % 8
    assert not models.holds(DIGEST)
    assert models.scrub(DIGEST) is Scrub.REPAIRED
    assert models.holds(DIGEST)
    assert bytes(runner.memory[DIGEST].data) == FILE
    assert models.repaired_count == 1


def test_a_scrub_of_sound_weights_changes_nothing(models):
    model = models.ensure(DIGEST)
    assert models.scrub(DIGEST) is Scrub.HOLDS
    assert models.ensure(DIGEST) is model
    assert (models.loads_count(DIGEST), models.repaired_count) == (1, 0)


def test_a_repair_counts_as_a_load_so_that_work_across_it_is_not_trusted(models):
    models.ensure(DIGEST).data[0] ^= 1
    models.scrub(DIGEST)
    assert models.loads_count(DIGEST) == 2


def test_weights_that_cannot_be_mended_leave_memory(models, disk, store):
    models.ensure(DIGEST).data[0] ^= 1
    disk.flip_bit(object_name(DIGEST), 7)
    assert models.scrub(DIGEST) is Scrub.STORE_ROTTEN
    assert models.digests() == []
    assert models.ensure(DIGEST) is None
    assert models.repaired_count == 0
    store.put(FILE)
    assert bytes(models.ensure(DIGEST).data) == FILE


def test_the_guard_counts_a_model_whose_true_weights_it_brought_back(models):
    models.ensure(DIGEST).data[0] ^= 1 << 7
    assert models.guard(DIGEST) is Scrub.MENDED
    assert models.holds(DIGEST)
    assert (models.loads_count(DIGEST), models.out_of_range_count, models.mended_count) == (1, 1, 1)
    assert models.repaired_count == 1


def test_a_model_that_the_guard_could_not_mend_is_loaded_again(models):
    models.ensure(DIGEST).data[1] ^= 1 << 7
    assert models.guard(DIGEST) is Scrub.REPAIRED
    assert models.holds(DIGEST)
    assert (models.loads_count(DIGEST), models.out_of_range_count, models.mended_count) == (2, 1, 0)


def test_the_guard_leaves_what_is_in_range(models):
    models.ensure(DIGEST).data[2] ^= 1
    assert models.guard(DIGEST) is Scrub.HOLDS
    assert models.guard(bytes(32)) is Scrub.HOLDS
    assert models.out_of_range_count == 0
