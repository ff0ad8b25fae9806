"""The periodic scrub of models in memory and of stored objects, and the search for what jobs have long waited for."""

from collections.abc import Callable
from typing import Final

from flightsw.component import Report
from flightsw.compute.jobs import JobTable
from flightsw.compute.models import Models, Scrub
from flightsw.objects.store import ObjectStore
from flightsw.objects.transfers import Transfers
from flightsw.ports import Log
from flightsw.wire.messages import JobState

PUSH_PATIENCE_NS: Final = 180_000_000_000
"""How long a job waits for its objects to be pushed before it asks for them [ns]: three of the sender's questions."""


class Scrubber:
    """Scrubs one node.

    Args:
        models: in memory.
        store: the objects.
        jobs: who needs them.
        transfers: what is under way already.
        want_object: called with (digest, size [bytes]) of what is to be fetched.
        report: takes events.
        log: the on-board log.
    """

    def __init__(
        self,
        models: Models,
        store: ObjectStore,
        jobs: JobTable,
        transfers: Transfers,
        *,
        want_object: Callable[[bytes, int], None],
        report: Report,
        log: Log,
    ) -> None:
        self._models = models
        self._store = store
        self._jobs = jobs
        self._transfers = transfers
        self._want_object = want_object
        self._report = report
        self._log = log

    def scrub(self) -> None:
        """Check all models in memory, and one stored object in turn."""
        self.scrub_models()
        rotten = self._store.scrub_next()
        if rotten is None:
            return
        self._log("object.rotten", {"object": rotten})
        self._report("OBJECTS.ROTTEN", rotten)
        sizes = {}
        for job in self._jobs.jobs.values():
            if job.report is None:
                sizes.update({job.spec.model: job.spec.model_bytes, job.spec.data: job.spec.data_bytes})
        if rotten in sizes:
            self._want_object(rotten, sizes[rotten])

    def scrub_models(self) -> list[Scrub]:
        """Check all models in memory; returns what was found of each."""
        digests = self._models.digests()
        found = [self._models.scrub(digest) for digest in digests]
        for digest, one in zip(digests, found, strict=True):
            if one is not Scrub.HOLDS:
                self.struck(digest, one)
        return found

    def fetch_missing(self, now_ns: int) -> None:
        """Ask for what waiting jobs have waited for too long: a push may have ended with a reset of either side."""
        for job in self._jobs.jobs.values():
            if job.state is not JobState.WAITING_OBJECTS or now_ns - job.accepted_ns < PUSH_PATIENCE_NS:
                continue
            spec = job.spec
            for digest, size_bytes in ((spec.model, spec.model_bytes), (spec.data, spec.data_bytes)):
                if not self._store.has(digest) and not self._transfers.is_fetching(digest):
                    self._want_object(digest, size_bytes)

    def struck(self, digest: bytes, found: Scrub) -> None:
        """Weights in memory did not hold; says what was done."""
        self._log("model.upset", {"model": digest, "outcome": found.name})
        self._report("JOBS.WEIGHTS_STRUCK", digest, found.value)
