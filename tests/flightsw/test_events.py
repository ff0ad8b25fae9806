from flightsw.core.events import EVENTS_PER_WINDOW_MAX, WINDOW_NS, Events
from flightsw.wire.messages import Severity


def make():
    out = []
    return Events(11, 1, out.append), out


def test_a_flood_is_throttled_and_counted():
    events, out = make()
    for _ in range(EVENTS_PER_WINDOW_MAX + 5):
        events.report(Severity.WARNING_LO, "NODE", "STUCK", "again", now_ns=0, utc_ns=0)
    assert len(out) == EVENTS_PER_WINDOW_MAX
    assert events.suppressed_count == 5


def test_another_name_is_not_throttled_and_a_new_window_opens():
    events, out = make()
    for _ in range(EVENTS_PER_WINDOW_MAX + 1):
        events.report(Severity.WARNING_LO, "NODE", "STUCK", "again", now_ns=0, utc_ns=0)
    events.report(Severity.WARNING_LO, "NODE", "OTHER", "once", now_ns=0, utc_ns=0)
    events.report(Severity.WARNING_LO, "NODE", "STUCK", "later", now_ns=WINDOW_NS, utc_ns=0)
    assert [event.name for event in out[-2:]] == ["OTHER", "STUCK"]


def test_fatal_events_are_never_suppressed():
    events, out = make()
    for _ in range(EVENTS_PER_WINDOW_MAX + 5):
        events.report(Severity.FATAL, "NODE", "DYING", "still", now_ns=0, utc_ns=0)
    assert len(out) == EVENTS_PER_WINDOW_MAX + 5


def test_events_are_numbered_without_gaps():
    events, out = make()
    for name in "ABC":
        events.report(Severity.ACTIVITY_HI, "NODE", name, "", now_ns=0, utc_ns=0)
    assert [event.sequence for event in out] == [1, 2, 3]
