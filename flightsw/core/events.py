"""Events of a node: numbered, throttled by count and time, and counted when suppressed."""

from collections.abc import Callable
from typing import Final

from flightsw.wire.messages import Argument, Event, Severity

EVENTS_PER_WINDOW_MAX: Final = 20
"""Events of one name in one window: a stuck fault reports itself, but does not fill the downlink."""

WINDOW_NS: Final = 60_000_000_000
"""Throttle window [ns]."""


class Events:
    """Makes event records and throttles each name apart.

    Args:
        node: the node's number.
        boot_count: which boot this is; (boot_count, sequence) orders all events of a node.
        emit: takes each event that passes.
    """

    def __init__(self, node: int, boot_count: int, emit: Callable[[Event], None]) -> None:
        self._node = node
        self._boot_count = boot_count
        self._emit = emit
        self._sequence = 0
        self._windows: dict[str, tuple[int, int]] = {}
        self.suppressed_count = 0

    def report(
        self, severity: Severity, component: str, name: str, text: str, *arguments: Argument, now_ns: int, utc_ns: int
    ) -> None:
        """Say that something happened; a name that floods is suppressed and counted."""
        start_ns, count = self._windows.get(name, (now_ns, 0))
        if now_ns - start_ns >= WINDOW_NS:
            start_ns, count = now_ns, 0
        self._windows[name] = (start_ns, count + 1)
        if count >= EVENTS_PER_WINDOW_MAX and severity is not Severity.FATAL:
            self.suppressed_count += 1
            return
        self._sequence += 1
        self._emit(
            Event(
                node=self._node,
                boot_count=self._boot_count,
                sequence=self._sequence,
                utc_ns=utc_ns,
                severity=severity,
                component=component,
                name=name,
                text=text,
                arguments=arguments,
            )
        )
