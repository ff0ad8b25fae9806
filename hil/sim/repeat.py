"""Replay checks: a run is sound only if it can be run again."""

from collections import deque
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from typing import Final

from flightsw.errors import ReplayDiverged
from hil.sim.trace import IDENTITY_FIELDS, Event, read_trace

SHARED_EVENTS_SHOWN: Final = 3  # what led up to the difference; more is in the traces


def run_twice(run: Callable[[], str]) -> str:
    """Run a world twice and compare.

    Args:
        run: Makes a fresh world, runs it and returns its trace's digest.

    Returns:
        The digest of both runs.

    Raises:
        ReplayDiverged: The digests differ.
    """
    first, second = run(), run()
    if first != second:
        raise ReplayDiverged(f"the same run gave digest {first}, then {second}: something in it is not seeded")
    return first


def first_difference(trace_a: Path, trace_b: Path, *, a_is_partial: bool = False) -> str | None:
    """Where two runs part.

    Args:
        trace_a: One trace.
        trace_b: The other, for example of the replay.
        a_is_partial: The first run was interrupted: it need only be the beginning of the other.

    Returns:
        The first differing header field or event in words, with the events that led up to it; None when the runs
        are the same.

    Raises:
        ConfigError: A trace is missing, truncated or changed.
    """
    header_a, events_a, _ = read_trace(trace_a)
    header_b, events_b, _ = read_trace(trace_b)
    for name in IDENTITY_FIELDS:
        value_a, value_b = header_a.get(name), header_b.get(name)
        if value_a != value_b:
            return f"not the same run: {name} is {value_a!r} in {trace_a} and {value_b!r} in {trace_b}"
    shared: deque[Event] = deque(maxlen=SHARED_EVENTS_SHOWN)
    difference: list[str] | None = None
    for number, (event_a, event_b) in enumerate(zip_longest(events_a, events_b), start=1):
        if difference is None and event_a != event_b and not (event_a is None and a_is_partial):
            difference = [f"the runs part at event {number}:"]
            difference += [f"    both  {describe(event)}" for event in shared]
            difference += [f"  {trace_a}  {describe(event_a)}", f"  {trace_b}  {describe(event_b)}"]
            difference += _differing_fields(event_a, event_b)
        if event_a is not None:
            shared.append(event_a)
    return None if difference is None else "\n".join(difference)


def describe(event: Event | None) -> str:
    """One event as a line for people."""
    if event is None:
        return "ends here"
    t_ns, source, kind, fields = event
    return " ".join([f"{t_ns / 1e9:.9f} s", source, kind, *(f"{name}={value!r}" for name, value in fields.items())])


def _differing_fields(event_a: Event | None, event_b: Event | None) -> list[str]:
    """Which fields of two events of one kind differ."""
    if event_a is None or event_b is None or event_a[1:3] != event_b[1:3]:
        return []
    fields_a, fields_b = event_a[3], event_b[3]
    names = [name for name in sorted({**fields_a, **fields_b}) if fields_a.get(name) != fields_b.get(name)]
    return [f"  differs in {', '.join(names)}"] if names else ["  differs in time alone"]
