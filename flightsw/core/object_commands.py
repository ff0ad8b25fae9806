"""OBJECTS: the store and the transfers, as commands and channels."""

from collections.abc import Mapping

from flightsw.component import OK, Handler, Outcome, Scalar
from flightsw.objects.store import ObjectStore
from flightsw.objects.transfers import Transfers
from flightsw.ports import Disk


class ObjectControl:
    """Implements `flightsw.component.Component`.

    Args:
        store: the node's objects.
        transfers: of them.
        disk: where they lie.
    """

    name = "OBJECTS"

    def __init__(self, store: ObjectStore, transfers: Transfers, disk: Disk) -> None:
        self._store = store
        self._transfers = transfers
        self._disk = disk

    def handlers(self) -> Mapping[str, Handler]:
        """REMOVE."""
        return {"REMOVE": self._do_remove}

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

    def _do_remove(self, arguments: tuple[bytes]) -> Outcome:
        self._store.remove(arguments[0])
        return OK
