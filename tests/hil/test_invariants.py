"""The monitor: each rule breaks on the events that break it, and on no others."""

from typing import Any

import pytest

from hil.bench.invariants import Monitor

S = 1_000_000_000
NODE = "sat-01"
Happening = tuple[float, str, str, dict[str, Any]]


def judged(*happenings: Happening, end_s: float | None = None) -> list[tuple[int, str]]:
    """(rule, text) of what the monitor has to say on (t [s], source, kind, fields)."""
    monitor = Monitor()
    for at_s, source, kind, fields in happenings:
        monitor.observe((round(at_s * S), source, kind, fields))
    if end_s is not None:
        monitor.finish(round(end_s * S))
    return [(violation.rule, violation.text) for violation in monitor.violations]


def ground(at_s: float, kind: str, **fields: Any) -> Happening:
    return at_s, "ground", kind, fields


def node(at_s: float, kind: str, **fields: Any) -> Happening:
    return at_s, NODE, kind, fields


def boot(at_s: float, *jobs: list[Any]) -> Happening:
    return node(at_s, "node.boot", boot=2, cause="WATCHDOG", jobs=list(jobs))


ACCEPTED = ground(1, "job.accepted", job=1)
COMPLETED = ground(9, "job.completed", job=1, attempt=1, node=NODE)
HELD = node(2, "job.accepted", job=1, attempt=1)
STEP_2 = node(3, "job.checkpoint", job=1, attempt=1, step=2)
ENDED = node(4, "job.ended", job=1, attempt=1, state="COMPLETED", detail="", result=b"")
FORGOTTEN = node(10, "job.forgotten", job=1, attempt=1)
SENT = ground(1, "command.sent", node=NODE, command=5, opcode="NODE.NOOP")


def executed(at_s: float, age_ms: int = 0, lifetime_ms: int = 10_000) -> Happening:
    return node(at_s, "command.executed", command=5, opcode="NODE.NOOP", age_ms=age_ms, lifetime_ms=lifetime_ms)


@pytest.mark.parametrize(
    "story",
    [
        [],
        [ACCEPTED, HELD, STEP_2, ENDED, COMPLETED, FORGOTTEN],
        [ACCEPTED, ground(9, "job.failed", job=1, reason="deadline passed")],
        [SENT, executed(10.9)],
        [HELD, STEP_2, boot(5, [1, 1, 2, False])],
        [HELD, STEP_2, ENDED, boot(5, [1, 1, 2, True])],
        [HELD, STEP_2, boot(5, [1, 1, 2, False]), node(6, "job.started", job=1, attempt=1, step=2)],
        [HELD, node(3, "job.accepted", job=1, attempt=2), boot(5, [1, 2, 0, False])],
        [node(3, "node.mode", mode="LOW_POWER"), boot(4), node(5, "job.started", job=1, attempt=1, step=0)],
        [(5, "bench", "fault.brown_out", {"node": NODE, "computing": False})],
    ],
    ids=range(10),
)
def test_what_is_in_order_is_not_complained_of(story: list[Happening]) -> None:
    assert judged(*story, end_s=20.0) == []


@pytest.mark.parametrize(
    ("rule", "text", "story"),
    [
        (1, "job 1 ended 0 times: never", [ACCEPTED]),
        (1, "job 1 accepted twice", [ACCEPTED, ACCEPTED, COMPLETED]),
        (1, "job 1 ended again", [ACCEPTED, COMPLETED, ground(9, "job.failed", job=1, reason="")]),
        (1, "job 1 ended but was never accepted", [COMPLETED]),
        (1, "attempt 1 forgotten before the ground had its end", [ACCEPTED, HELD, STEP_2, ENDED, FORGOTTEN, COMPLETED]),
        (3, "command 5 executed twice", [SENT, executed(2), executed(3)]),
        (3, "command 5 was never sent", [executed(2)]),
        (3, "executed 10000 ms after it was sent, lifetime 10000 ms", [SENT, executed(11)]),
        (4, "recovered as (1, 0, False), committed was (1, 2, False)", [HELD, STEP_2, boot(5, [1, 1, 0, False])]),
        (4, "recovered as None, committed was (1, 2, False)", [HELD, STEP_2, boot(5)]),
        (4, "recovered as (1, 4, False), committed was None", [boot(5, [1, 1, 4, False])]),
        (4, "committed was (1, 2, True)", [HELD, STEP_2, ENDED, boot(5, [1, 1, 2, False])]),
        (4, "started at step 0", [HELD, STEP_2, node(6, "job.started", job=1, attempt=1, step=0)]),
        (4, "started at step 2", [HELD, STEP_2, ENDED, node(6, "job.started", job=1, attempt=1, step=2)]),
        (
            5,
            "started in mode SAFE",
            [node(3, "node.mode", mode="SAFE"), node(6, "job.started", job=1, attempt=1, step=0)],
        ),
        (5, "browned out while a job ran", [(5, "bench", "fault.brown_out", {"node": NODE, "computing": True})]),
    ],
)
def test_what_breaks_a_rule_is_told(rule: int, text: str, story: list[Happening]) -> None:
    found = judged(*story, end_s=20.0)
    assert any(found_rule == rule and text in found_text for found_rule, found_text in found), found


def test_a_command_expires_by_the_time_since_it_was_sent_not_by_the_age_that_the_node_believes() -> None:
    assert [rule for rule, _ in judged(SENT, executed(12, age_ms=3))] == [3]


# -- a removal is durable with the next record only


REMOVED = (ACCEPTED, HELD, STEP_2, ENDED, COMPLETED, FORGOTTEN)


def test_a_power_cut_may_bring_a_forgotten_job_back_as_it_was() -> None:
    assert judged(*REMOVED, boot(11, [1, 1, 2, True]), boot(12, [1, 1, 2, True])) == []


def test_a_forgotten_job_may_stay_away() -> None:
    assert judged(*REMOVED, boot(11)) == []


def test_a_forgotten_job_does_not_come_back_unfinished() -> None:
    assert [rule for rule, _ in judged(*REMOVED, boot(11, [1, 1, 2, False]))] == [4]


@pytest.mark.parametrize(
    "record",
    [
        [node(10.5, "job.accepted", job=2, attempt=1)],
        [boot(10.5)],
    ],
    ids=["another job", "a boot"],
)
def test_a_forgotten_job_does_not_come_back_once_a_record_was_written(record: list[Happening]) -> None:
    others = [[2, 1, 0, False]] if record[0][2] == "job.accepted" else []
    assert [rule for rule, _ in judged(*REMOVED, *record, boot(11, [1, 1, 2, True], *others))] == [4]


def test_an_end_that_the_disk_did_not_take_is_not_committed() -> None:
    unsaved = node(4, "job.unsaved", job=1, attempt=1, detail="disk full")
    assert judged(HELD, STEP_2, unsaved, ENDED, boot(5, [1, 1, 2, False])) == []
