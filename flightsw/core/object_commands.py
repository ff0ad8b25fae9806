"""OBJECTS: the store and the transfers, as commands and channels."""

from collections.abc import Callable, Mapping

from flightsw.component import OK, Execution, Handler, LongHandler, Outcome, Scalar
from flightsw.dictionary.accessors.objects_names import Fetch, Remove
from flightsw.objects.digest import DIGEST_BYTES
from flightsw.objects.store import ObjectStore
from flightsw.objects.transfers import Transfers
from flightsw.ports import Disk
from flightsw.wire.messages import CommandCode


class ObjectControl:
    """Implements `flightsw.component.Component`.

    Args:
        store: the node's objects.
        transfers: of them.
        disk: where they lie.
        want: gets an object from the ground: (digest, size [bytes]).
    """

    name = "OBJECTS"

    def __init__(
        self, store: ObjectStore, transfers: Transfers, disk: Disk, want: Callable[[bytes, int], None]
    ) -> None:
        self._store = store
        self._transfers = transfers
        self._disk = disk
        self._want = want
        self._fetching: dict[bytes, Execution] = {}

    def handlers(self) -> Mapping[str, Handler | LongHandler]:
        """REMOVE, FETCH."""
        return {"REMOVE": self._do_remove, "FETCH": self._do_fetch}

    def arrived(self, digest: bytes) -> None:
        """An object is here, whole and verified."""
        self._end(digest, OK)

    def failed(self, digest: bytes, reason: str) -> None:
        """A transfer ended without the object."""
        self._end(digest, Outcome(CommandCode.EXECUTION_ERROR, reason))

    def channels(self) -> Mapping[str, Scalar]:
        """What is stored, and what moved since boot."""
        transfers = self._transfers.counts
        return {
            "used_bytes": self._store.used_bytes,
            "free_bytes": self._disk.free_bytes(),
            "rotten": self._store.rotten_count,
            "evicted": self._store.evicted_count,
            "arrived": transfers.arrived,
            "delivered": transfers.delivered,
            "chunks_sent_again": transfers.chunks_sent_again,
        }

    def _end(self, digest: bytes, outcome: Outcome) -> None:
        execution = self._fetching.pop(digest, None)
        if execution is not None:
            execution.finish(outcome)

    def _do_fetch(self, arguments: Fetch, execution: Execution) -> Outcome | None:
        digest = arguments.digest
        if len(digest) != DIGEST_BYTES:
            return Outcome(CommandCode.VALIDATION_ERROR, f"digest has {len(digest)} bytes, expected {DIGEST_BYTES}")
        if self._store.has(digest):
            return Outcome(CommandCode.OK, "it was here already")
        if digest in self._fetching:
            return Outcome(CommandCode.BUSY, "it is on its way")
        self._fetching[digest] = execution
        self._want(digest, arguments.size_bytes)
        return None

    def _do_remove(self, arguments: Remove) -> Outcome:
        self._store.remove(arguments.digest)
        return OK
