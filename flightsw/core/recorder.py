"""The on-board recorder: keeps what could not be sent, over resets and power cuts, and plays it back.

Records lie in segments, files `recorder/<priority>-<boot>-<number>` of at most `SEGMENT_BYTES_MAX`, so that their
names, sorted, are the order of playback: by priority, then by age. A segment is the unit of everything: it is played
back in one reliable message, it is erased when the ground has acknowledged it, and when the recorder is full the oldest
segment of the lowest priority gives way. So no book has to be kept of what was played: after a reset, what is there is
what was not acknowledged. A segment whose acknowledgement was lost is played again, and the ground knows its records by
(boot, sequence): at least once on the link, once in the archive.

A damaged record costs itself alone; those behind it are found again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, unique
from typing import Any, Final

from flightsw.component import OK, Handler, Outcome, Report, Scalar
from flightsw.errors import StorageError
from flightsw.ports import Disk
from flightsw.storage.entries import OVERHEAD_BYTES, Entry, entries_in, entry_bytes
from flightsw.wire.messages import CHUNK_BYTES, RECORDS_MAX, SERVICE_DATA, Message, Playback

FOLDER: Final = "recorder/"
NS_PER_S: Final = 1_000_000_000

SEGMENT_BYTES_MAX: Final = CHUNK_BYTES
"""Size of a segment [bytes]: one LTP block, like a chunk of an object, so that a lost pass costs little."""

LIFETIME_MS: Final = 4 * 3_600_000
"""What is under way may wait for contacts of other nodes as long as this [ms]."""

PLAYBACK_PRIORITY: Final = 4
"""Of the bundles of playback: behind events, before housekeeping."""

Transmit = Callable[[int, Message, int, int, bool], None]
"""Takes (service, message, lifetime [ms], priority, whether it goes reliably)."""

WINDOW_MAX: Final = 4
"""Segments under way without acknowledgement: a round trip is short against the time that four of them take."""


@unique
class PlaybackState(Enum):
    """How playback is started."""

    AUTOMATIC = "AUTOMATIC"
    COMMANDED = "COMMANDED"
    STOPPED = "STOPPED"


@dataclass(slots=True)
class _Segment:
    """A file of the recorder."""

    bytes_count: int = 0
    records_count: int = 0
    is_open: bool = False
    """Whether more may be appended."""
    is_unsynced: bool = False
    sent_ns: int | None = None
    """When it was last played back [ns, monotonic]."""


Key = tuple[int, int, int]
"""(priority, boot count, number) of a segment: sorted, the order of playback."""


class Recorder:
    """Records and plays back; the component RECORDER.

    Args:
        node, boot_count: whose it is.
        disk: where segments lie.
        parameter: key -> value of a parameter.
        has_route: whether there is a way to the ground at a monotonic time [ns].
        may_play: whether the mode allows playback that nobody commanded.
        transmit: hands a message to the bundle agent.
        report: takes events.
    """

    name = "RECORDER"

    def __init__(
        self,
        node: int,
        boot_count: int,
        disk: Disk,
        *,
        parameter: Callable[[str], Any],
        has_route: Callable[[int], bool],
        may_play: Callable[[], bool],
        transmit: Transmit,
        report: Report,
    ) -> None:
        self._node = node
        self._boot_count = boot_count
        self._disk = disk
        self._parameter = parameter
        self._has_route = has_route
        self._may_play = may_play
        self._transmit = transmit
        self._report = report
        self._segments: dict[Key, _Segment] = {}
        self._newest: dict[int, Key] = {}
        """The segment that takes records, by priority."""
        self._number = 0
        self._bytes_count = 0
        self._state = PlaybackState.AUTOMATIC
        self._from_priority = 0
        self._played_since = 0
        """Records acknowledged since this playback began."""
        self._gave_way: dict[int, int] = {}
        """Records by priority that gave way since the last cycle."""
        self._failure = ""
        """What the disk said since the last cycle."""
        self.recorded_count = 0
        self.played_count = 0
        self.gave_way_count = 0
        self.unrecorded_count = 0
        self.damaged_count = 0
        self._open()

    @property
    def stored_count(self) -> int:
        """Records that wait."""
        return sum(segment.records_count for segment in self._segments.values())

    def record(self, payload: bytes, priority: int, *, is_urgent: bool = False) -> None:
        """Keep an encoded message. Never raises for what the disk does.

        Args:
            payload: of a Packets or an Event message.
            priority: 0 is played first and gives way last.
            is_urgent: make it durable at once; otherwise it is with the next cycle.
        """
        size_bytes = len(payload) + OVERHEAD_BYTES
        if size_bytes > SEGMENT_BYTES_MAX:
            self.unrecorded_count += 1
            self._failure = f"a record of {len(payload)} bytes, at most {SEGMENT_BYTES_MAX - OVERHEAD_BYTES}"
            return
        while self._bytes_count + size_bytes > self._parameter("RECORDER.quota_bytes"):
            if not self._give_way(priority):
                self._count_gave_way(priority, 1)
                return
        while (error := self._append(payload, priority)) is not None:
            is_full = self._disk.free_bytes() < size_bytes  # to a full disk something gives way, not to a broken one
            if not is_full or not self._give_way(priority):
                self.unrecorded_count += 1
                self._failure = str(error)
                return
        self.recorded_count += 1
        if is_urgent:
            self._sync(self._newest[priority])

    def acknowledged(self, boot_count: int, number: int) -> None:
        """The ground has a segment on record: erase it."""
        for key, segment in self._segments.items():
            if key[1:] == (boot_count, number):
                self.played_count += segment.records_count
                self._played_since += segment.records_count
                self._erase(key)
                return

    def cycle(self, now_ns: int) -> None:
        """Make records durable, say what went wrong, and play back."""
        if self._gave_way or self._failure:
            self._tell()
        if not self._segments and not self._played_since and self._state is not PlaybackState.COMMANDED:
            return
        for key in self._newest.copy().values():
            if self._segments[key].is_unsynced:
                self._sync(key)
        if self._state is PlaybackState.STOPPED:
            return
        waiting = sorted(key for key in self._segments if key[0] >= self._from_priority)
        if not waiting:
            if self._played_since:
                self._report("RECORDER.PLAYED", self._played_since)
            self._begin(PlaybackState.AUTOMATIC, 0)
        elif (self._state is PlaybackState.COMMANDED or self._may_play()) and self._has_route(now_ns):
            self._play(waiting, now_ns)

    def handlers(self) -> Mapping[str, Handler]:
        """What PLAY, STOP and CLEAR do."""
        return {"PLAY": self._do_play, "STOP": self._do_stop, "CLEAR": self._do_clear}

    def channels(self) -> Mapping[str, Scalar]:
        """What is stored, and counts since boot."""
        return {
            "stored": self.stored_count,
            "stored_bytes": self._bytes_count,
            "recorded": self.recorded_count,
            "played": self.played_count,
            "gave_way": self.gave_way_count,
            "unrecorded": self.unrecorded_count,
            "damaged": self.damaged_count,
            "playback": self._state.value,
        }

    # -- recording

    def _open(self) -> None:
        """Take up what earlier boots left."""
        for name in self._disk.names(FOLDER):
            key = _key(name)
            if key is None:
                continue
            segment = self._segments[key] = _Segment()
            try:
                content = self._disk.read(name)
            except StorageError as error:
                self.damaged_count += 1
                self._failure = str(error)
                self._erase(key)
                continue
            segment.bytes_count = len(content)
            segment.records_count = len(entries_in(name, content).entries)
            self._bytes_count += len(content)

    def _append(self, payload: bytes, priority: int) -> StorageError | None:
        key = self._newest.get(priority)
        size_bytes = len(payload) + OVERHEAD_BYTES
        if key is not None:
            segment = self._segments[key]
            if segment.bytes_count + size_bytes > SEGMENT_BYTES_MAX or segment.records_count == RECORDS_MAX:
                self._close(key)
                key = None
        if key is None:
            self._number += 1
            key = self._newest[priority] = (priority, self._boot_count, self._number)
            self._segments[key] = _Segment(is_open=True)
        name, segment = _name(key), self._segments[key]
        try:
            self._disk.append(name, entry_bytes(name, Entry(segment.records_count, 0, 0, payload)))
        except StorageError as error:  # it may have taken a part, which only a new file keeps apart from what follows
            if segment.records_count:
                self._close(key)
            else:
                self._erase(key)
            return error
        segment.bytes_count += size_bytes
        segment.records_count += 1
        segment.is_unsynced = True
        self._bytes_count += size_bytes
        return None

    def _sync(self, key: Key) -> None:
        segment = self._segments[key]
        segment.is_unsynced = False
        try:
            self._disk.sync(_name(key))
        except StorageError as error:
            self._failure = str(error)
            segment.is_unsynced = False
            self._close(key)

    def _close(self, key: Key) -> None:
        """Append no more to a segment; what it has becomes durable."""
        segment = self._segments[key]
        if self._newest.get(key[0]) == key:
            del self._newest[key[0]]
        if segment.is_unsynced:
            self._sync(key)

    def _give_way(self, priority: int) -> bool:
        """Erase the oldest segment of the lowest priority, unless all are more urgent than a new record is."""
        key = max(self._segments, key=lambda one: (one[0], -one[1], -one[2]), default=None)
        if key is None or key[0] < priority:
            return False
        self._count_gave_way(key[0], self._segments[key].records_count)
        self._erase(key)
        return True

    def _count_gave_way(self, priority: int, count: int) -> None:
        self.gave_way_count += count
        self._gave_way[priority] = self._gave_way.get(priority, 0) + count

    def _erase(self, key: Key) -> None:
        """Forget a segment and remove its file; one that a broken disk keeps comes back with the next boot."""
        segment = self._segments.pop(key)
        self._bytes_count -= segment.bytes_count
        if self._newest.get(key[0]) == key:
            del self._newest[key[0]]
        try:
            self._disk.remove(_name(key))
        except StorageError as error:
            self._failure = str(error)

    def _tell(self) -> None:
        """Report with the cycle what came up meanwhile: an event may have to be recorded itself."""
        gave_way, self._gave_way = self._gave_way, {}
        for priority, count in sorted(gave_way.items()):
            self._report("RECORDER.GAVE_WAY", count, priority)
        failure, self._failure = self._failure, ""
        if failure:
            self._report("RECORDER.RECORDING_FAILED", failure)

    # -- playback

    def _play(self, waiting: list[Key], now_ns: int) -> None:
        """Send segments, as many as the pace and the window allow."""
        records_left = self._parameter("RECORDER.playback_packets_per_cycle")
        repeat_ns = round(self._parameter("RECORDER.repeat_s") * NS_PER_S)
        under_way = 0
        for key in waiting:
            segment = self._segments[key]
            if segment.sent_ns is not None and now_ns - segment.sent_ns < repeat_ns:
                under_way += 1
        for key in waiting:
            segment = self._segments[key]
            if records_left <= 0 or under_way >= WINDOW_MAX:
                return
            if segment.sent_ns is not None and now_ns - segment.sent_ns < repeat_ns:
                continue
            records = self._read(key)
            if records:
                segment.sent_ns = now_ns
                under_way += 1
                records_left -= len(records)
                message = Playback(self._node, key[1], key[2], tuple(records))
                self._transmit(SERVICE_DATA, message, LIFETIME_MS, PLAYBACK_PRIORITY, True)

    def _read(self, key: Key) -> list[bytes]:
        """The records of a segment that hold; one without any is erased."""
        self._close(key)
        name = _name(key)
        try:
            content = self._disk.read(name)
        except StorageError as error:
            self._failure = str(error)
            content = b""
        found = entries_in(name, content)
        self.damaged_count += found.damaged_count + (not content)
        if not found.entries:
            self._erase(key)
        return [entry.data for entry in found.entries]

    def _begin(self, state: PlaybackState, from_priority: int) -> None:
        self._state = state
        self._from_priority = from_priority
        self._played_since = 0

    # -- commands

    def _do_play(self, arguments: Any) -> Outcome:
        self._begin(PlaybackState.COMMANDED, arguments[0])
        return Outcome(OK.code, f"{self.stored_count} records stored")

    def _do_stop(self, arguments: Any) -> Outcome:
        self._begin(PlaybackState.STOPPED, 0)
        return OK

    def _do_clear(self, arguments: Any) -> Outcome:
        count = self.stored_count
        for key in list(self._segments):
            self._erase(key)
        self._report("RECORDER.CLEARED", count)
        return OK


def _name(key: Key) -> str:
    priority, boot_count, number = key
    return f"{FOLDER}{priority}-{boot_count:012x}-{number:08x}"


def _key(name: str) -> Key | None:
    """The segment that a file is; None when it is none of ours."""
    parts = name.removeprefix(FOLDER).split("-")
    try:
        priority, boot_count, number = int(parts[0]), int(parts[1], 16), int(parts[2], 16)
    except (IndexError, ValueError):
        return None
    key = (priority, boot_count, number)
    return key if _name(key) == name else None
