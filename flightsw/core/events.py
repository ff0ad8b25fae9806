"""Events of a node: made from the dictionary, numbered, throttled by count and time, sent, and kept across resets.

An event goes through three gates: it may be disabled by command; its throttle may be full, which is said once when the
window ends; and it may be less severe than what the downlink takes. What passes the first two is kept in a ring on the
disk, what passes all three is sent. A FATAL event passes all three.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from flightsw.component import OK, Dump, Handler, Outcome, Scalar
from flightsw.core.dumps import DUMP_BYTES_MAX
from flightsw.dictionary import EventSpec, event_text, flight_dictionary
from flightsw.errors import MessageError, StorageError
from flightsw.ports import Clock, Disk
from flightsw.storage.records import seal
from flightsw.storage.ring_log import RingLog
from flightsw.wire.messages import CommandCode, Event, Severity, encode_message

RING_NAME: Final = "events"
NS_PER_S: Final = 1_000_000_000

EARLY_MAX: Final = 64
"""Events that wait for the end of the boot: what machines find wrong with their files; each says it once."""


class _Window:
    """How often an event came in its present window."""

    __slots__ = ("count", "start_ns")

    def __init__(self, start_ns: int) -> None:
        self.start_ns = start_ns
        self.count = 0


class Events:
    """Makes, keeps and sends the events of one boot; the component EVENTS.

    Args:
        node: the node's number.
        boot_count: which boot this is; (boot_count, sequence) orders all events of a node.
        clock: stamps events.
        disk: keeps them across resets.
        parameter: key -> value of a parameter.
        emit: takes (event, monotonic time [ns]) of each event that is to be sent.
        dump: sends a data product.
    """

    name = "EVENTS"

    def __init__(
        self,
        node: int,
        boot_count: int,
        clock: Clock,
        disk: Disk,
        parameter: Callable[[str], Any],
        emit: Callable[[Event, int], None],
        dump: Dump,
    ) -> None:
        self._node = node
        self._boot_count = boot_count
        self._clock = clock
        self._parameter = parameter
        self._emit = emit
        self._dump = dump
        self._specs = flight_dictionary().events
        self._ring = RingLog(disk, RING_NAME, int(parameter("EVENTS.ring_bytes")))
        self._sequence = 0
        self._windows: dict[str, _Window] = {}
        self._flooding: dict[str, None] = {}
        """Events whose present window holds some back."""
        self._disabled: dict[str, None] = {}
        self._is_unsynced = False
        self._keeping_failed = ""
        self._early: list[Event] | None = []
        """Events of the boot, before anything can be sent; None once it is over."""
        self.reported_count = 0
        self.sent_count = 0
        self.suppressed_count = 0
        self.filtered_count = 0
        self.unkept_count = 0

    def begin(self) -> None:
        """The boot is over: send what came up in it, and go on."""
        early, self._early = self._early or [], None
        for event in early:
            self._send(event, self._clock.monotonic_ns())
        if self._ring.damaged_count:
            self.report("EVENTS.KEPT_LOST", self._ring.damaged_count)

    def report(self, key: str, *arguments: Any) -> None:
        """Say that something happened. Never raises for what the disk does.

        Args:
            key: component and event.
            arguments: those of the dictionary, in its order.
        """
        spec = self._specs[key]
        self.reported_count += 1
        if key in self._disabled:
            self.filtered_count += 1
            return
        now_ns = self._clock.monotonic_ns()
        if spec.severity is not Severity.FATAL and self._is_throttled(spec, now_ns):
            self.suppressed_count += 1
            return
        self._sequence += 1
        event = Event(
            node=self._node,
            boot_count=self._boot_count,
            sequence=self._sequence,
            utc_ns=max(0, self._clock.utc_ns()),
            severity=spec.severity,
            component=spec.component,
            name=spec.name,
            text=event_text(spec, arguments),
            arguments=_bounded(spec, arguments),
        )
        self._keep(event)
        if spec.severity > Severity[self._parameter("EVENTS.downlink_severity")]:
            self.filtered_count += 1
        elif self._early is None:
            self._send(event, now_ns)
        elif len(self._early) < EARLY_MAX:
            self._early.append(event)

    def cycle(self, now_ns: int) -> None:
        """End windows that held events back, and make kept events durable."""
        if self._flooding:
            for key in list(self._flooding):
                self._end_window(self._specs[key], self._windows[key], now_ns)
        if self._keeping_failed:
            reason, self._keeping_failed = self._keeping_failed, ""
            self.report("EVENTS.KEEPING_FAILED", reason)
        if self._is_unsynced:
            self._sync()

    def kept(self, count: int) -> list[bytes]:
        """The newest events of the ring, oldest first; each is an Event message."""
        return self._ring.records()[-count:]

    def handlers(self) -> Mapping[str, Handler]:
        """What ENABLE, DISABLE and DUMP do."""
        return {"ENABLE": self._do_enable, "DISABLE": self._do_disable, "DUMP": self._do_dump}

    def channels(self) -> Mapping[str, Scalar]:
        """Counts since boot."""
        return {
            "reported": self.reported_count,
            "sent": self.sent_count,
            "suppressed": self.suppressed_count,
            "filtered": self.filtered_count,
            "unkept": self.unkept_count,
            "disabled": len(self._disabled),
        }

    def _is_throttled(self, spec: EventSpec, now_ns: int) -> bool:
        window = self._windows.get(spec.key)
        if window is None:
            window = self._windows[spec.key] = _Window(now_ns)
        elif now_ns - window.start_ns >= spec.throttle_window_s * NS_PER_S:
            self._end_window(spec, window, now_ns)
            window.start_ns, window.count = now_ns, 0
        window.count += 1
        if window.count <= spec.throttle_count:
            return False
        self._flooding[spec.key] = None
        return True

    def _end_window(self, spec: EventSpec, window: _Window, now_ns: int) -> None:
        """Say how many a window held back, if it is over and held any back."""
        if spec.key not in self._flooding or now_ns - window.start_ns < spec.throttle_window_s * NS_PER_S:
            return
        del self._flooding[spec.key]
        held_back = window.count - spec.throttle_count
        window.start_ns, window.count = now_ns, 0
        self.report("EVENTS.SUPPRESSED", spec.key, held_back, spec.throttle_window_s)

    def _keep(self, event: Event) -> None:
        try:
            self._ring.append(encode_message(event))
        except (StorageError, MessageError) as error:
            self._not_kept(error)
            return
        self._is_unsynced = True
        if event.severity <= Severity.WARNING_HI:
            self._sync()

    def _sync(self) -> None:
        self._is_unsynced = False
        try:
            self._ring.sync()
        except StorageError as error:
            self._not_kept(error)

    def _not_kept(self, error: StorageError | MessageError) -> None:
        """Count it; told with the next cycle, because telling it is an event too."""
        self.unkept_count += 1
        self._keeping_failed = str(error)

    def _send(self, event: Event, now_ns: int) -> None:
        self.sent_count += 1
        self._emit(event, now_ns)

    def _do_enable(self, arguments: Any) -> Outcome:
        key = arguments[0]
        if key not in self._specs:
            return Outcome(CommandCode.VALIDATION_ERROR, f"event is {key!r}, expected one of the dictionary")
        self._disabled.pop(key, None)
        return OK

    def _do_disable(self, arguments: Any) -> Outcome:
        key = arguments[0]
        if key not in self._specs:
            return Outcome(CommandCode.VALIDATION_ERROR, f"event is {key!r}, expected one of the dictionary")
        if self._specs[key].severity is Severity.FATAL:
            return Outcome(CommandCode.VALIDATION_ERROR, f"event is {key}, which is FATAL: expected one that is not")
        self._disabled[key] = None
        return OK

    def _do_dump(self, arguments: Any) -> Outcome:
        sealed = [seal(record) for record in self.kept(arguments[0])]
        size_bytes = sum(map(len, sealed))
        while size_bytes > DUMP_BYTES_MAX:  # a ring may be larger than a dump: the oldest stay on board
            size_bytes -= len(sealed.pop(0))
        number = self._dump(self.name, b"".join(sealed))
        return Outcome(CommandCode.OK, f"dump {number}: {len(sealed)} events")


def _bounded(spec: EventSpec, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments, with text and bytes cut to what the dictionary says."""
    return tuple(
        value[: one.bytes_limit] if isinstance(value, str | bytes) else value
        for one, value in zip(spec.arguments, arguments, strict=True)
    )
