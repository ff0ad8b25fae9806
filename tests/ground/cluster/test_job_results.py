"""A job goes from promise to result: what is on record when, what is acknowledged, and what changes nothing."""

import pytest

from flightsw.errors import StorageError
from flightsw.objects.store import digest_of
from flightsw.wire.messages import Chunk, job_spec
from ground.ledger import JobRequest

MODEL, RESULT, PRODUCT = b"model" * 10, b"mask", b"product"


def test_a_job_goes_from_promise_to_result(commands, acks, single):
    job = single.submit()
    messages = single.round(0)
    ((node, command),) = commands(messages, "JOBS.SUBMIT")
    spec = job_spec(command.arguments[0])
    assert (node, spec.job_id, spec.attempt, spec.deadline_s) == (2, job, 1, 50_000)
    assert [one.data for _, one in messages if isinstance(one, Chunk)] == [MODEL, b"tile"]
    single.answer(command.command_id, 2, 5)
    assert acks(single.say(single.report(), 30)) == []
    assert acks(single.bring(RESULT, 2, 31)) == [(2, job, 1)]
    assert single.completed == [(job, 2, RESULT)]
    assert single.ledger.counts() == {"COMPLETED": 1}
    assert [kind for kind, _ in single.notes] == [
        "job.accepted",
        "command.sent",
        "job.placed",
        "command.ended",
        "job.completed",
    ]
    assert single.noted("job.placed")[0]["node"] == "sat-2"
    assert single.noted("job.completed") == [{"job": job, "attempt": 1, "node": "sat-2"}]
    assert single.cluster.open_count == 0


def test_the_promise_is_on_record_before_anything_leaves(single):
    job = single.submit()
    assert single.take(0) == []
    assert single.row().state == "ACCEPTED"
    single.cluster.reach.refresh(0)
    single.cluster.round(0)
    out = single.cluster.take_outgoing()
    assert out
    assert (single.row().state, single.row().attempt, single.row().job_id) == ("PLACED", 1, job)
    assert single.ledger.open_commands()[0].payload == out[0].payload


def test_a_job_without_its_objects_is_refused_and_not_on_record(single):
    missing = JobRequest("cloud_mask", b"m" * 32, 1, b"d" * 32, 1, 1, 1.0, 4, 100, 1, 1.0)
    with pytest.raises(StorageError, match="put it there first"):
        single.cluster.submit(missing, 0)
    assert single.ledger.counts() == {}


def test_a_result_that_comes_before_its_report_is_taken_at_once(acks, single):
    single.submit()
    single.round(0)
    single.bring(RESULT, 2, 50)
    assert acks(single.say(single.report(), 51)) == [(2, 1, 1)]
    assert single.ends() == ["job.completed"]


def test_a_job_waits_for_its_product_too(single):
    single.submit()
    single.round(0)
    single.say(single.report(product=digest_of(PRODUCT), product_bytes=len(PRODUCT)), 50)
    single.bring(RESULT, 2, 51)
    assert single.ends() == []
    single.bring(PRODUCT, 2, 52)
    assert single.ends() == ["job.completed"]


def test_the_ack_leaves_only_when_the_ledger_has_the_result(acks, single, monkeypatch):
    single.submit()
    single.round(0)
    single.say(single.report(), 50)

    def disk_full(report, now_ns):
        raise StorageError("disk full")

    monkeypatch.setattr(single.ledger, "complete", disk_full)
    with pytest.raises(StorageError):
        single.bring(RESULT, 2, 51)
    assert single.cluster.take_outgoing() == []
    assert single.completed == []
    monkeypatch.undo()
    assert acks(single.say(single.report(), 60)) == [(2, 1, 1)]


def test_a_repeated_report_of_an_ended_job_is_acknowledged_and_changes_nothing(acks, single):
    single.submit()
    single.round(0)
    report = single.report()
    single.bring(RESULT, 2, 50)
    single.say(report, 51)
    assert acks(single.say(report, 80)) == [(2, 1, 1)]
    assert single.ends() == ["job.completed"]
    assert len(single.completed) == 1
    assert single.cluster.counts.late_reports == 1
    assert single.noted("job.late_report") == [{"job": 1, "attempt": 1, "claim": "late"}]


def test_a_report_of_an_unknown_job_is_acknowledged_so_that_it_ends(acks, single):
    single.submit()
    single.round(0)
    assert acks(single.say(single.report(job=1, job_id=9), 5)) == [(2, 9, 1)]
    assert single.ends() == []


def test_a_report_by_a_node_that_does_not_have_the_attempt_changes_nothing(other, world):
    world.submit()
    world.round(0)
    node = world.row().node
    world.bring(RESULT, node, 50)
    world.say(world.report(node=other(node)), 51)
    assert world.ends() == []
    assert world.row().node == node


def test_what_the_job_pinned_is_free_when_it_has_ended(single):
    single.submit()
    assert not single.store.remove(digest_of(b"tile"))
    single.round(0)
    single.bring(RESULT, 2, 50)
    single.say(single.report(), 51)
    for data in (b"tile", MODEL):
        single.transfers.cancel(digest_of(data), 2)
    assert single.store.remove(digest_of(b"tile"))
