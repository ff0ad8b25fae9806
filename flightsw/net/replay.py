"""Anti-replay: which authenticated bundles came before.

A source never uses a sequence number twice, also not over its resets, so a number that was accepted is never accepted
again. Bundles overtake each other, by priority and on other routes, and a number that is missing may still come; how
far apart numbers are says nothing, because all traffic of a source shares one counter. A window is therefore the set of
the last numbers accepted, and a floor: the highest number that it has forgotten. Below the floor everything is refused.
"""

from collections.abc import Callable, Mapping
from heapq import heapify, heappop, heappush
from typing import Annotated, Final, NamedTuple

import msgspec

from flightsw.errors import MessageError, StorageError
from flightsw.ports import Disk
from flightsw.storage.state_log import StateLog
from flightsw.wire import cbor

LOG_NAME: Final = "replay"

LOGGED_MAX: Final = 8192
"""Records after which the log is written anew: with some 25 bytes each they take 200 kB beside the windows."""


class Flow(NamedTuple):
    """What has a window of its own. A new key begins a new one: nothing signed under it can be older."""

    source: int
    service: int
    key_id: int


class ReplayWindow:
    """The last numbers accepted, and the floor below which nothing is.

    Args:
        numbers_max: how many are remembered.
    """

    __slots__ = ("_heap", "floor", "numbers_max", "seen")

    def __init__(self, numbers_max: int, floor: int = -1, numbers: tuple[int, ...] = ()) -> None:
        self.numbers_max = numbers_max
        self.floor = floor
        self._heap = list(numbers)
        heapify(self._heap)
        self.seen = set(numbers)  # asked only whether a number is in it, never iterated

    def is_new(self, number: int) -> bool:
        """Whether the number was surely not accepted before."""
        return number > self.floor and number not in self.seen

    def add(self, number: int) -> None:
        """The number is accepted now."""
        heappush(self._heap, number)
        self.seen.add(number)
        if len(self._heap) > self.numbers_max:
            self.floor = heappop(self._heap)
            self.seen.remove(self.floor)

    def close(self) -> None:
        """Accept nothing but what is above all numbers so far."""
        if self._heap:
            self.floor = max(self._heap)
            self._heap = []
            self.seen = set()

    def numbers(self) -> list[int]:
        """Those remembered, rising."""
        return sorted(self._heap)


class _Snapshot(msgspec.Struct, frozen=True, array_like=True):
    """A record of the log: one number, or a whole window."""

    source: int
    service: int
    key_id: int
    floor: int
    numbers: Annotated[tuple[int, ...], msgspec.Meta(max_length=1 << 16)]


class ReplayGuard:
    """Windows of all flows; those of some services survive a reset.

    Args:
        windows: service -> how many numbers are remembered.
        others: the same for services that are not named.
        durable: services whose windows are on disk.
        is_known: whether a key is still there; windows of others are forgotten when the log is written anew.
        disk: where they are; None for memory only.

    Raises:
        StorageError: the disk is broken.
    """

    def __init__(
        self,
        windows: Mapping[int, int],
        others: int,
        durable: frozenset[int],
        is_known: Callable[[int, int], bool],
        disk: Disk | None = None,
    ) -> None:
        self._sizes = windows
        self._others = others
        self._durable = durable
        self._is_known = is_known
        self._windows: dict[Flow, ReplayWindow] = {}
        self.unsaved_count = 0
        """Times that the log could not be written anew; it goes on as it is, and that is tried again."""
        self._compact_at = LOGGED_MAX
        self._log = None if disk is None else StateLog(disk, LOG_NAME)
        for record in [] if self._log is None else self._log.records():
            self._restore(record)
        if self._log is not None and self._log.lost_count:
            for window in self._windows.values():
                window.close()  # which numbers are lost is not known: none of before passes any more
            self._compact(self._log)

    def accept(self, flow: Flow, number: int) -> bool:
        """Whether a number is new; if so it is known from now on, durably where that is asked for.

        Raises:
            StorageError: it could not be made durable, so it is not accepted.
        """
        window = self._windows.get(flow)
        if window is not None and (number <= window.floor or number in window.seen):
            return False
        if flow.service in self._durable and self._log is not None:
            self._log.append(cbor.dumps([*flow, -1, [number]]))
            self._log.sync()
        if window is None:
            window = self._windows[flow] = ReplayWindow(self._sizes.get(flow.service, self._others))
        window.add(number)
        if self._log is not None and self._log.records_count > self._compact_at:
            self._compact(self._log)
        return True

    def has_heard(self, flow: Flow) -> bool:
        """Whether something of this flow was accepted since the start."""
        return flow in self._windows

    def _restore(self, record: bytes) -> None:
        try:
            one = msgspec.convert(cbor.loads(record), _Snapshot)
        except (MessageError, msgspec.ValidationError) as error:
            raise StorageError(f"{LOG_NAME}: a record passed its CRC but does not decode: {error}") from None
        flow = Flow(one.source, one.service, one.key_id)
        window = self._windows.get(flow)
        if window is None:
            window = self._windows[flow] = ReplayWindow(self._sizes.get(one.service, self._others))
        window.floor = max(window.floor, one.floor)
        for number in one.numbers:
            if window.is_new(number):
                window.add(number)

    def _compact(self, log: StateLog) -> None:
        self._windows = {
            flow: window for flow, window in self._windows.items() if self._is_known(flow.source, flow.key_id)
        }
        records = [
            cbor.dumps([*flow, window.floor, window.numbers()])
            for flow, window in self._windows.items()
            if flow.service in self._durable
        ]
        try:
            log.snapshot(records)
        except StorageError:  # what was accepted is on the disk already
            self.unsaved_count += 1
        self._compact_at = log.records_count + LOGGED_MAX
