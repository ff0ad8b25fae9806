"""OBJECTS as commands: fetched and removed."""

import random  # noqa: TID251 - the seed is in the test

import pytest

from flightsw.component import OK, Outcome
from flightsw.core.object_commands import ObjectControl
from flightsw.dictionary.accessors.objects_names import Fetch, Remove
from flightsw.objects.digest import digest_of
from flightsw.objects.store import ObjectStore
from flightsw.objects.transfers import Transfers
from flightsw.wire.messages import CommandCode
from hil.sim.disk import SimulatedDisk

DATA = b"what the ground has"
DIGEST = digest_of(DATA)


class Ending:
    """Keeps how a command that takes time ended."""

    def __init__(self):
        self.outcomes = []

    def progress(self, step, detail=""):
        raise AssertionError("a fetch tells no steps")

    def finish(self, outcome):
        self.outcomes.append(outcome)


class Shelf:
    def __init__(self):
        disk = SimulatedDisk(1 << 16, random.Random(1))
        self.store = ObjectStore(disk, 1 << 15)
        self.wanted = []
        want = lambda digest, size_bytes: self.wanted.append((digest, size_bytes))  # noqa: E731
        self.control = ObjectControl(self.store, Transfers(self.store, local=2), disk, want)

    def fetch(self, digest=DIGEST):
        """(outcome now, how it ended later)."""
        ending = Ending()
        return self.control.handlers()["FETCH"](Fetch(digest, len(DATA)), ending), ending


@pytest.fixture
def shelf():
    return Shelf()


def test_a_fetch_goes_on_until_the_object_is_here(shelf):
    outcome, ending = shelf.fetch()
    assert outcome is None
    assert shelf.wanted == [(DIGEST, len(DATA))]
    shelf.control.arrived(digest_of(b"another"))
    assert ending.outcomes == []
    shelf.control.arrived(DIGEST)
    shelf.control.arrived(DIGEST)
    assert ending.outcomes == [OK], "it ends once"


def test_a_fetch_that_fails_says_why(shelf):
    _, ending = shelf.fetch()
    shelf.control.failed(DIGEST, "no room")
    assert ending.outcomes == [Outcome(CommandCode.EXECUTION_ERROR, "no room")]
    assert shelf.fetch()[0] is None, "it can be asked for again"


def test_what_is_here_is_not_fetched(shelf):
    shelf.store.put(DATA)
    assert shelf.fetch()[0] == Outcome(CommandCode.OK, "it was here already")
    assert shelf.wanted == []


def test_one_object_is_fetched_once_at_a_time(shelf):
    shelf.fetch()
    assert shelf.fetch()[0] == Outcome(CommandCode.BUSY, "it is on its way")
    assert len(shelf.wanted) == 1


def test_what_is_no_name_of_an_object_is_refused(shelf):
    outcome, _ = shelf.fetch(b"short")
    assert outcome == Outcome(CommandCode.VALIDATION_ERROR, "digest has 5 bytes, expected 32")


def test_an_object_is_removed_by_its_name(shelf):
    shelf.store.put(DATA)
    assert shelf.control.handlers()["REMOVE"](Remove(DIGEST)) == OK
    assert not shelf.store.has(DIGEST)
