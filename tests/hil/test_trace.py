"""The trace: what identifies a run, what a reader refuses, and where two runs part."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightsw.errors import ConfigError
from hil.sim.loop import LOOP_VERSION
from hil.sim.repeat import first_difference
from hil.sim.trace import TAIL_EVENTS_MAX, Event, Trace, read_trace

HEADER: dict[str, Any] = {
    "flatrack": "0.1.0",
    "scenario": "eclipse",
    "scenario_digest": "5f0c",
    "seed": 7,
    "until_ns": 60_000_000_000,
}
EVENTS: list[Event] = [
    (0, "sat-01", "mode", {"from": "BOOT", "to": "NOMINAL"}),
    (1_500_000_000, "sat-01/downlink", "frame", {"frame_bytes": 223, "delay_s": 0.0213}),
    (2_000_000_000, "ground", "result", {"job": "cloud-mask-1", "accepted": True}),
]


def write_trace(path: Path, events: list[Event] = EVENTS, **header: object) -> str:
    trace = Trace(path, {**HEADER, **header})
    for event in events:
        trace.record(*event)
    return trace.close()


def digest_of(header: dict[str, Any], events: list[Event] = EVENTS) -> str:
    trace = Trace(None, header)
    for event in events:
        trace.record(*event)
    return trace.close()


def read_all(path: Path) -> list[Event]:
    return list(read_trace(path)[1])


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(), values, max_size=3),
    max_leaves=6,
)
ANY_EVENTS = st.lists(
    st.tuples(st.integers(0, 2**62), st.text(), st.text(), st.dictionaries(st.text(), VALUES, max_size=4)), max_size=6
)


# Writing and reading back


@given(ANY_EVENTS)
def test_what_is_recorded_is_read_back(tmp_path_factory: pytest.TempPathFactory, events: list[Event]) -> None:
    path = tmp_path_factory.getbasetemp() / "round-trip.trace"
    digest = write_trace(path, events)
    header, read_back, footer = read_trace(path)
    assert header == {**HEADER, "loop_version": LOOP_VERSION}
    assert list(read_back) == events
    assert footer == {"digest": digest, "events_count": len(events)}


def test_a_trace_without_a_file_has_the_same_digest(tmp_path: Path) -> None:
    assert digest_of(HEADER) == write_trace(tmp_path / "a.trace")


def test_bytes_are_hex_and_odd_floats_are_text() -> None:
    trace = Trace(None, HEADER)
    fields = {
        "tag": b"\x01\xff",
        "nested": [b"\x02", (1, float("inf"))],
        "gain": float("nan"),
        "measure": np.float64(0.25),
        "count": np.int64(3),
    }
    trace.record(1, "sat-01", "probe", fields)
    assert trace.tail()[0][3] == {
        "tag": "01ff",
        "nested": ["02", [1, "inf"]],
        "gain": "nan",
        "measure": 0.25,
        "count": 3,
    }
    assert fields["tag"] == b"\x01\xff", "the caller's fields stay as they were"


def test_a_value_that_a_trace_cannot_hold_is_refused() -> None:
    with pytest.raises(TypeError, match="not object"):
        Trace(None, HEADER).record(1, "sat-01", "probe", {"thing": object()})


# Identity


def test_the_order_of_keys_and_members_of_sets_does_not_change_the_digest() -> None:
    first = [(1, "sat-01", "probe", {"a": 1, "b": {"x", "y", "z"}})]
    again = [(1, "sat-01", "probe", {"b": {"z", "y", "x"}, "a": 1})]
    assert digest_of(HEADER, first) == digest_of(HEADER, again)


@pytest.mark.parametrize("field", [*HEADER, "loop_version"])
def test_every_identity_field_changes_the_digest(field: str) -> None:
    assert digest_of({**HEADER, field: "another"}) != digest_of(HEADER)


def test_the_host_and_the_command_do_not_change_the_digest() -> None:
    assert digest_of({**HEADER, "host": "laptop", "command": "flatrack run"}) == digest_of(HEADER)


@given(st.integers(0, 2), st.integers(0, 3))
def test_every_part_of_every_event_changes_the_digest(event_index: int, part: int) -> None:
    changed = [list(event) for event in EVENTS]
    changed[event_index][part] = [3, "another", "another", {"another": 1}][part]
    assert digest_of(HEADER, [tuple(event) for event in changed]) != digest_of(HEADER)  # type: ignore[misc]


def test_the_digest_is_the_known_one() -> None:
    """A change here changes the identity of every run: raise LOOP_VERSION or the version of flatrack with it."""
    assert digest_of(HEADER) == "3a5f4f61f86959e8384790b90170e1cc"


# Observers, counts, tail


def test_observers_see_each_event_after_it_is_counted_until_they_leave() -> None:
    trace = Trace(None, HEADER)
    seen: list[tuple[Event, int]] = []
    leave = trace.subscribe(lambda event: seen.append((event, trace.events_count)))
    trace.record(*EVENTS[0])
    trace.record(*EVENTS[1])
    leave()
    trace.record(*EVENTS[2])
    assert seen == [(EVENTS[0], 1), (EVENTS[1], 2)]


def test_events_are_counted_by_kind() -> None:
    trace = Trace(None, HEADER)
    for event in [*EVENTS, EVENTS[1]]:
        trace.record(*event)
    assert dict(trace.counts) == {"mode": 1, "frame": 2, "result": 1}


def test_the_tail_is_bounded_and_keeps_the_last_events() -> None:
    trace = Trace(None, HEADER)
    for number in range(TAIL_EVENTS_MAX + 50):
        trace.record(number, "sat-01", "beat", {})
    assert [event[0] for event in trace.tail()] == list(range(50, TAIL_EVENTS_MAX + 50))


def test_closing_twice_gives_the_same_digest(tmp_path: Path) -> None:
    trace = Trace(tmp_path / "a.trace", HEADER)
    trace.record(*EVENTS[0])
    assert trace.close() == trace.close()
    assert len(read_all(tmp_path / "a.trace")) == 1


# What a reader refuses


def damaged(path: Path, line_index: int, line: bytes | None) -> Path:
    """The same trace with one line put in the place of another, or taken out."""
    lines = path.read_bytes().splitlines(keepends=True)
    lines[line_index : line_index + 1] = [] if line is None else [line]
    path.write_bytes(b"".join(lines))
    return path


@pytest.mark.parametrize(
    ("line_index", "line", "complaint"),
    [
        (0, b"not a header\n", r"line 1: expected the header"),
        (2, b"[1, 2\n", r"line 3: expected an event \[t_ns"),
        (2, b'["late","sat-01","mode",{}]\n', r"line 3: expected an event \[t_ns"),
        (2, b"\xff\xfe\n", r"line 3: expected an event"),
        (2, b'[1500000000,"sat-01/downlink","frame",{"frame_bytes":222}]\n', r"line 5: expected digest \w+ .*changed"),
        (2, None, r"line 4: expected an event"),
        (2, b'[0,"a","b",{}]\n[0,"a","b",{}]\n', r"line 5: expected the footer after 3 events, got an event"),
        (4, None, r"last line: expected the footer .*truncated"),
        (4, b'{"digest":"00","events_count":"3"}\n', r"last line: expected digest \(text\) and events_count"),
        (4, b'{"digest":"00","events_count":3\n', r"last line: expected the footer, a JSON object"),
        (4, b'{"digest":"00","events_count":3}\n', r"line 5: expected digest"),
        (0, b'{"seed":8}\n', r"line 5: expected digest"),
    ],
)
def test_a_changed_trace_is_refused_with_its_line(
    tmp_path: Path, line_index: int, line: bytes | None, complaint: str
) -> None:
    path = tmp_path / "a.trace"
    write_trace(path)
    damaged(path, line_index, line)
    with pytest.raises(ConfigError, match=rf"a\.trace: {complaint}") as raised:
        read_all(path)
    assert "\n" not in str(raised.value)


def test_a_trace_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = tmp_path / "a.trace"
    write_trace(whole)
    data = whole.read_bytes()
    cut = tmp_path / "cut.trace"
    for length in range(len(data)):
        cut.write_bytes(data[:length])
        with pytest.raises(ConfigError, match=r"cut\.trace: (line 1|last line): expected"):
            read_trace(cut)


def test_a_missing_trace_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_trace(tmp_path / "none.trace")


# Where two runs part


def test_equal_runs_have_no_difference(tmp_path: Path) -> None:
    write_trace(tmp_path / "a.trace", host="laptop")
    write_trace(tmp_path / "b.trace", host="board")
    assert first_difference(tmp_path / "a.trace", tmp_path / "b.trace") is None


def test_the_first_differing_event_is_told_with_what_led_up_to_it(tmp_path: Path) -> None:
    changed = [*EVENTS[:1], (1_500_000_000, "sat-01/downlink", "frame", {"frame_bytes": 224, "delay_s": 0.0213})]
    write_trace(tmp_path / "a.trace")
    write_trace(tmp_path / "b.trace", changed)
    story = first_difference(tmp_path / "a.trace", tmp_path / "b.trace")
    assert story == "\n".join(
        [
            "the runs part at event 2:",
            "    both  0.000000000 s sat-01 mode from='BOOT' to='NOMINAL'",
            f"  {tmp_path}/a.trace  1.500000000 s sat-01/downlink frame delay_s=0.0213 frame_bytes=223",
            f"  {tmp_path}/b.trace  1.500000000 s sat-01/downlink frame delay_s=0.0213 frame_bytes=224",
            "  differs in frame_bytes",
        ]
    )


def test_a_run_that_goes_on_longer_differs_where_the_other_ends(tmp_path: Path) -> None:
    write_trace(tmp_path / "a.trace", EVENTS[:2])
    write_trace(tmp_path / "b.trace")
    story = first_difference(tmp_path / "a.trace", tmp_path / "b.trace")
    assert story is not None
    assert "part at event 3" in story
    assert "a.trace  ends here" in story


def test_an_event_at_another_instant_differs_in_time_alone(tmp_path: Path) -> None:
    write_trace(tmp_path / "a.trace")
    write_trace(tmp_path / "b.trace", [*EVENTS[:2], (2_000_000_001, *EVENTS[2][1:])])
    story = first_difference(tmp_path / "a.trace", tmp_path / "b.trace")
    assert story is not None
    assert "2.000000001 s" in story
    assert story.endswith("differs in time alone")


def test_runs_of_other_seeds_are_not_the_same_run(tmp_path: Path) -> None:
    write_trace(tmp_path / "a.trace")
    write_trace(tmp_path / "b.trace", seed=8)
    story = first_difference(tmp_path / "a.trace", tmp_path / "b.trace")
    assert story is not None
    assert story.startswith("not the same run: seed is 7 in")
