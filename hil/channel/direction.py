"""One direction of one link: what happens to each frame, and when it arrives.

```text
 frame ─ queue ─ transmitter ─ sight? ─ bit flips ─ loss ─ duplication ─ light time ─ jitter ─ reordering ─ arrival
         full:    size × 8      no:                 lost                  range / c
         dropped  / rate        blocked
```

The transmitter is busy for each frame whether or not anybody listens, because a radio cannot know. A frame passes if
every one of its bits leaves while the ends see each other.

Chance. Each process has its own stream, made when first needed, and draws once for each frame that passes, also when
another process takes the frame. So a change of one parameter never shifts the draws of another.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Final

from flightsw.ports import Frame, Random
from hil.channel.bit_errors import BitErrors, bit_errors
from hil.channel.impairments import Impairments, checked
from hil.channel.visibility import SECOND_NS, Sight, Visibility

FLUSHES_KEPT: Final = 8
"""More power cuts than a node can have while one frame is in flight."""


@dataclass(slots=True)
class ChannelCounts:
    """Frames of one direction. Always `sent + duplicated == delivered + lost + blocked + dropped + flushed`.

    A frame counts as delivered when its last bit is on the way, hence frames in flight are among them.
    """

    sent: int = 0
    """Frames handed to the transmitter."""
    delivered: int = 0
    """Frames that arrive, copies included."""
    delivered_bytes: int = 0
    lost: int = 0
    """Frames that vanished whole."""
    flipped_frames: int = 0
    """Frames that arrive with at least one flipped bit, each copy once."""
    flipped_bits: int = 0
    """Bits that noise flipped in them, each copy's once for both."""
    duplicated: int = 0
    """Copies that the channel made."""
    reordered: int = 0
    """Frames held back so that later ones overtook them."""
    blocked_no_contact: int = 0
    """Frames sent, at least in part, out of view."""
    blocked_outage: int = 0
    blocked_acquiring: int = 0
    queue_dropped: int = 0
    """Frames that found the transmit queue full."""
    flushed: int = 0
    """Frames that were in the transmit queue when its node lost power."""

    def __add__(self, other: "ChannelCounts") -> "ChannelCounts":
        """Counts of both together."""
        return ChannelCounts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def blocked(self) -> int:
        """Frames that left while the ends could not hear each other."""
        return self.blocked_no_contact + self.blocked_outage + self.blocked_acquiring

    def copy(self) -> "ChannelCounts":
        """The counts as they are now."""
        return replace(self)


class Direction:
    """The channel from one interface to another.

    Args:
        name: name of the direction; its streams are `name/bit_flips`, `name/loss` and so on.
        impairments: what the link does to frames.
        random_for: gives the stream of a name.
        visibility: shared with the other direction; made here for a direction that stands alone.

    Raises:
        ConfigError: an impairment is out of range.
    """

    def __init__(
        self,
        name: str,
        impairments: Impairments,
        random_for: Callable[[str], Random],
        visibility: Visibility | None = None,
    ) -> None:
        self.name = name
        self.counts = ChannelCounts()
        self.visibility = visibility if visibility is not None else Visibility(name, random_for)
        self.begin_ns = 0
        """When the first bit of the frame sent last leaves [ns]."""
        self.busy_until_ns = 0
        """When its last bit has left [ns]."""
        self._random_for = random_for
        self._streams: dict[str, Random] = {}
        self._departures_ns: deque[int] = deque()
        self._last_arrival_ns = 0
        self._flushes: deque[tuple[int, int]] = deque(maxlen=FLUSHES_KEPT)
        self._errors: BitErrors | None = None
        self.impairments = checked(impairments, f"link {name}")
        self._apply(self.impairments, errors_changed=True)

    def set_impairments(self, impairments: Impairments) -> None:
        """Change the channel for the frames that are sent from now on.

        Streams go on where they are. An acquisition that has begun keeps its length.

        Raises:
            ConfigError: an impairment is out of range; nothing is changed then.
        """
        new, old = checked(impairments, f"link {self.name}"), self.impairments
        self.impairments = new
        self._apply(new, errors_changed=(new.bit_error_rate, new.burst) != (old.bit_error_rate, old.burst))

    def set_range(self, times_ns: Sequence[int], ranges_km: Sequence[float]) -> None:
        """See `Visibility.set_range`."""
        self.visibility.set_range(times_ns, ranges_km)

    def add_window(
        self, start_ns: int, end_ns: int, times_ns: Sequence[int] = (), ranges_km: Sequence[float] = ()
    ) -> None:
        """See `Visibility.add_window`."""
        self.visibility.add_window(start_ns, end_ns, times_ns, ranges_km)

    def add_outage(self, start_ns: int, end_ns: int) -> None:
        """See `Visibility.add_outage`; strikes both directions of a link."""
        self.visibility.add_outage(start_ns, end_ns)

    def transmit(self, frame: Frame, now_ns: int) -> list[tuple[Frame, int]]:
        """Send one coded frame.

        Args:
            frame: the coded frame.
            now_ns: the present instant, never earlier than at the call before [ns].

        Returns:
            Arrivals (frame as received, instant [ns]); none, one or two. The very same object arrives when no bit of it
            was flipped.
        """
        counts = self.counts
        counts.sent += 1
        departures_ns = self._departures_ns
        while departures_ns and departures_ns[0] <= now_ns:
            departures_ns.popleft()
        if len(departures_ns) > self._queue_frames_max:  # the first of them is in the transmitter, not in the queue
            counts.queue_dropped += 1
            return []
        begin_ns = self.busy_until_ns
        if begin_ns < now_ns:
            begin_ns = now_ns
        # Rounded up, so that the rate is never exceeded.
        done_ns = begin_ns - (-len(frame) * self._byte_time // self._byte_time_parts)
        self.begin_ns = begin_ns
        self.busy_until_ns = done_ns
        departures_ns.append(done_ns)
        visibility = self.visibility
        if begin_ns < visibility.up_from_ns or done_ns > visibility.up_to_ns:
            blockage = visibility.blockage(begin_ns, done_ns)
            if blockage is not Sight.UP:
                self._count_blocked(blockage)
                return []
        received: Frame = frame
        flips = 0
        if self._errors is not None:
            received, flips = self._errors.flip(frame)
        arrival_ns = done_ns + visibility.light_time.delay_ns(done_ns)
        if not self._is_plain:
            return self._perturb(received, flips, arrival_ns)
        if arrival_ns < self._last_arrival_ns:  # the range shrank faster than the frames are long, or jitter ended
            arrival_ns = self._last_arrival_ns
        self._last_arrival_ns = arrival_ns
        counts.delivered += 1
        counts.delivered_bytes += len(frame)
        if flips:
            counts.flipped_frames += 1
            counts.flipped_bits += flips
        return [(received, arrival_ns)]

    def flush(self, now_ns: int) -> None:
        """The sender lost power: what has not left its transmitter never will."""
        self.visibility.version += 1
        self._flushes.append((self.visibility.version, now_ns))
        self._departures_ns.clear()
        self.busy_until_ns = min(self.busy_until_ns, now_ns)
        # Frames on their way still keep their order, but nothing waits for the arrival of those that never leave.
        latest_ns = now_ns + self.visibility.light_time.delay_ns(now_ns) + round(self.impairments.jitter_s * SECOND_NS)
        self._last_arrival_ns = min(self._last_arrival_ns, latest_ns)

    def recall(self, version: int, begin_ns: int, done_ns: int, frame_bytes: int, was_flipped: bool) -> bool:
        """Whether an outage or a power cut that came after `transmit` struck a frame; corrects the counts if so.

        Args:
            version: `visibility.version` when the frame was sent.
            begin_ns: when its first bit left, or was to leave [ns].
            done_ns: when its last bit left, or was to leave [ns].
            frame_bytes: its size [bytes].
            was_flipped: whether it arrives with flipped bits.
        """
        is_flushed = any(flush > version and done_ns > flushed_ns for flush, flushed_ns in self._flushes)
        blockage = self.visibility.blockage(begin_ns, done_ns)
        if is_flushed:
            self.counts.flushed += 1
        elif blockage is not Sight.UP:
            self._count_blocked(blockage)
        else:
            return False
        self.counts.delivered -= 1
        self.counts.delivered_bytes -= frame_bytes
        self.counts.flipped_frames -= was_flipped
        return True

    def _perturb(self, received: Frame, flips: int, arrival_ns: int) -> list[tuple[Frame, int]]:
        """Loss, duplication, jitter and reordering; each draws, whatever the others decide."""
        values, counts = self.impairments, self.counts
        is_lost = values.loss > 0.0 and self._stream("loss").random() < values.loss
        copies = 2 if values.duplicate > 0.0 and self._stream("duplicate").random() < values.duplicate else 1
        if values.jitter_s > 0.0:
            arrival_ns += int(self._stream("jitter").random() * values.jitter_s * SECOND_NS)
        is_held = values.reorder > 0.0 and self._stream("reorder").random() < values.reorder
        if is_lost:
            counts.lost += 1
            return []
        arrival_ns = max(arrival_ns, self._last_arrival_ns)
        if is_held:
            counts.reordered += 1
            arrival_ns += round(values.reorder_delay_s * SECOND_NS)
        else:
            self._last_arrival_ns = arrival_ns
        counts.duplicated += copies - 1
        counts.delivered += copies
        counts.delivered_bytes += copies * len(received)
        if flips:
            counts.flipped_frames += copies
            counts.flipped_bits += flips
        return [(received, arrival_ns)] * copies

    def _apply(self, values: Impairments, errors_changed: bool) -> None:
        parts, unit = values.rate_bps.as_integer_ratio()
        self._byte_time, self._byte_time_parts = 8 * SECOND_NS * unit, parts  # exact, also for a rate like 0.1 bit/s
        self._queue_frames_max = values.queue_frames_max
        self._is_plain = not (values.loss or values.duplicate or values.jitter_s or values.reorder)
        self.visibility.acquisition_s = values.acquisition_s
        if errors_changed:
            # A geometric countdown has no memory, so a fresh one at the new rate is exact.
            has_errors = values.bit_error_rate > 0.0 or values.burst is not None
            self._errors = bit_errors(values, self._stream("bit_flips")) if has_errors else None

    def _stream(self, process: str) -> Random:
        stream = self._streams.get(process)
        if stream is None:
            stream = self._streams[process] = self._random_for(f"{self.name}/{process}")
        return stream

    def _count_blocked(self, blockage: Sight) -> None:
        if blockage is Sight.NO_CONTACT:
            self.counts.blocked_no_contact += 1
        elif blockage is Sight.OUTAGE:
            self.counts.blocked_outage += 1
        else:
            self.counts.blocked_acquiring += 1
