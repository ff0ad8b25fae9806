"""Another attempt follows one that failed, is late, was refused or brought a wrong result, until a job is given up."""

import pytest

from flightsw.objects.store import digest_of, object_name
from flightsw.wire.messages import CommandCode, JobState, ObjectStatus, ObjectWant, Stage
from ground.fleet import ClusterConfig

S = 1_000_000_000
CONFIG = ClusterConfig()
RESULT = b"mask"


def test_a_failed_attempt_is_followed_by_another_elsewhere(commands, specs, acks, other, world):
    world.submit()
    first = specs(world.round(0))
    node = first[0][0]
    messages = world.say(world.report(state=JobState.FAILED, detail="weights rotten"), 50)
    assert acks(messages) == [(node, 1, 1)]
    assert [tuple(one.arguments) for _, one in commands(messages, "JOBS.CANCEL")] == [(1, 1)]
    assert specs(world.round(55)) == [(other(node), 1, 2)]
    assert world.retry_reasons() == ["FAILED on board: weights rotten"]


def test_a_report_of_the_attempt_before_changes_nothing(acks, other, world):
    world.submit()
    world.round(0)
    old = world.report()
    world.say(world.report(state=JobState.FAILED), 50)
    world.round(55)
    world.bring(RESULT, old.node, 60)
    assert acks(world.say(old, 61)) == [(old.node, 1, 1)]
    assert world.ends() == []
    assert world.noted("job.late_report") == [{"job": 1, "attempt": 1, "claim": "stale"}]
    world.say(world.report(), 70)
    assert world.completed == [(1, other(old.node), RESULT)]


def test_a_result_that_the_verification_refuses_is_not_taken(make_world, specs, acks, other):
    world = make_world(verify=lambda request, report, result, product: None if result == RESULT else "wrong shape")
    world.submit()
    world.round(0)
    node = world.row().node
    world.bring(b"nonsense", node, 40)
    messages = world.say(world.report(result=digest_of(b"nonsense"), result_bytes=8), 41)
    assert acks(messages) == [(node, 1, 1)]
    assert (world.ends(), world.completed) == ([], [])
    assert world.retry_reasons() == ["result refused: wrong shape"]
    assert world.cluster.counts.results_refused == 1
    assert specs(world.round(45)) == [(other(node), 1, 2)]
    world.close()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"result": b""}, "result refused: completed without a result"),
        ({"model": b"x" * 32}, "result refused: computed with another model or input"),
        ({"data": b"x" * 32}, "result refused: computed with another model or input"),
    ],
)
def test_a_result_without_the_right_provenance_is_not_taken(world, changes, reason):
    world.submit()
    world.round(0)
    world.bring(RESULT, world.row().node, 40)
    world.say(world.report(**changes), 41)
    assert (world.ends(), world.retry_reasons()) == ([], [reason])


def test_a_result_that_rotted_on_the_ground_is_computed_again(world):
    world.submit()
    world.round(0)
    world.bring(RESULT, world.row().node, 40)
    world.disk.flip_bit(object_name(digest_of(RESULT)), 3)
    world.say(world.report(), 41)
    assert world.ends() == []
    assert "rotted here" in world.retry_reasons()[0]


def test_a_result_that_is_announced_and_not_here_is_asked_for(single):
    single.submit()
    single.round(0)
    single.say(single.report(), 50)
    fetch_s = round(50 + CONFIG.fetch_after_s)
    assert [one for _, one in single.rounds(50, fetch_s, 10) if isinstance(one, ObjectWant)] == []
    wants = [(node, one.digest) for node, one in single.round(fetch_s) if isinstance(one, ObjectWant)]
    assert wants == [(2, digest_of(RESULT))]
    assert single.cluster.counts.results_fetched == 1
    single.bring(RESULT, 2, fetch_s + 5)
    assert single.ends() == ["job.completed"]


def test_a_result_that_never_comes_is_computed_elsewhere(specs, acks, beacon, other, world):
    world.submit()
    world.round(0)
    report = world.report()
    world.say(report, 50)
    give_up_s = round(50 + CONFIG.result_wait_s)
    world.rounds(50, give_up_s)
    assert world.retry_reasons() == []
    world.hear(beacon(other(report.node)), give_up_s)
    messages = world.round(give_up_s)
    assert acks(messages) == [(report.node, 1, 1)]
    assert specs(messages) == [(other(report.node), 1, 2)]
    assert world.retry_reasons() == ["the result never came"]
    assert not world.transfers.is_fetching(digest_of(RESULT)), "nobody waits for it any longer"


def test_a_repeated_report_does_not_put_off_the_end_of_patience(world):
    world.submit()
    world.round(0)
    report = world.report()
    for now_s in range(50, round(60 + CONFIG.result_wait_s), 30):
        if world.row().attempt == 1 and world.row().node == report.node:
            world.say(report, now_s)
        world.round(now_s)
    assert world.retry_reasons() == ["the result never came"]


def test_a_result_that_is_lost_on_board_is_computed_elsewhere(acks, world):
    world.submit()
    world.round(0)
    report = world.report()
    world.say(report, 50)
    world.rounds(60, 200)
    status = ObjectStatus(digest_of(RESULT), len(RESULT), b"", "not held")
    world.transfers.receive(status, report.node, 200 * S)
    assert acks(world.take(200)) == [(report.node, 1, 1)]
    assert world.retry_reasons() == ["the result is lost on board: refused: not held"]


def test_an_overdue_attempt_is_followed_by_another_and_the_node_is_told(commands, specs, beacon, other, world):
    world.submit()
    world.round(0)
    row = world.row()
    due_s = -(-row.due_ns // S)
    world.rounds(30, due_s)
    assert world.retry_reasons() == []
    world.hear(beacon(other(row.node)), due_s)
    messages = world.round(due_s)
    assert world.retry_reasons() == ["overdue"]
    assert [(node, *one.arguments) for node, one in commands(messages, "JOBS.CANCEL")] == [(row.node, 1, 1)]
    assert specs(messages) == [(other(row.node), 1, 2)]


def test_an_attempt_whose_node_is_long_out_of_reach_is_not_overdue_before_its_pass(make_world, plan):
    world = make_world(nodes=(2,), contact_plan=plan((2,), 7200, 9000))
    world.submit()
    world.rounds(0, 9000)
    assert world.retry_reasons() == []
    world.close()


def test_patience_grows_with_the_predicted_length(single):
    single.submit()
    single.round(0)
    end_ns = single.noted("job.placed")[0]["end_ns"]
    assert single.row().due_ns == end_ns + round(CONFIG.overdue_s * S + CONFIG.overdue_factor * end_ns)


def test_a_called_off_attempt_is_not_submitted_again_by_repetition(commands, specs, world):
    """Its node may be out of reach until the cancellation has expired."""
    world.submit()
    world.round(0)
    node = world.row().node
    due_s = -(-world.row().due_ns // S)
    world.rounds(due_s, due_s + 40)
    later = world.rounds(due_s + 60, due_s + 3000)
    assert (node, 1, 1) not in specs(later)
    assert commands(later, "JOBS.CANCEL"), "the cancellation is repeated until it is answered"


def test_a_refused_submission_is_followed_by_another_attempt_elsewhere(commands, specs, other, world):
    world.submit()
    ((node, command),) = commands(world.round(0), "JOBS.SUBMIT")
    world.answer(command.command_id, node, 5, Stage.FAILED, CommandCode.BUSY, "256 jobs held")
    assert world.retry_reasons() == ["refused by the node: BUSY 256 jobs held"]
    assert specs(world.round(10)) == [(other(node), 1, 2)]
    assert world.ledger._db.execute("SELECT code, detail FROM commands WHERE command_id = 1").fetchone() == (
        int(CommandCode.BUSY),
        "256 jobs held",
    )


def test_a_refusal_that_comes_after_the_report_changes_nothing(commands, world):
    world.submit()
    ((node, command),) = commands(world.round(0), "JOBS.SUBMIT")
    world.say(world.report(), 5)
    world.answer(command.command_id, node, 6, Stage.FAILED, CommandCode.EXPIRED)
    assert world.retry_reasons() == []
    world.bring(RESULT, node, 7)
    assert world.ends() == ["job.completed"]


def test_a_refused_object_is_followed_by_another_attempt_elsewhere(specs, other, world):
    world.submit()
    world.round(0)
    node = world.row().node
    world.transfers.receive(ObjectStatus(digest_of(b"tile"), 4, b"", "no space"), node, 5 * S)
    world.take(5)
    assert world.retry_reasons() == ["object refused: refused: no space"]
    assert specs(world.round(10)) == [(other(node), 1, 2)]


def test_a_job_fails_at_its_deadline_and_what_comes_later_is_late(commands, acks, single):
    single.submit(deadline_s=600)
    single.round(0)
    report = single.report()
    single.round(599)
    assert single.ends() == []
    messages = single.round(600)
    assert single.noted("job.failed") == [{"job": 1, "reason": "deadline passed"}]
    assert commands(messages, "JOBS.CANCEL")
    single.bring(RESULT, 2, 610)
    assert acks(single.say(report, 611)) == [(2, 1, 1)]
    assert single.ends() == ["job.failed"]
    assert single.completed == []


def test_a_job_that_was_never_placed_fails_at_its_deadline(make_world, plan):
    world = make_world(contact_plan=plan(()))
    world.submit(deadline_s=100)
    world.rounds(0, 130)
    assert world.ends() == ["job.failed"]
    assert world.sent == []
    world.close()


def test_a_job_is_given_up_after_so_many_attempts(world):
    world.submit()
    for attempt in range(1, CONFIG.attempts_max + 1):
        world.round(attempt * 10)
        assert world.row().attempt == attempt
        world.say(world.report(state=JobState.FAILED), attempt * 10 + 1)
    assert world.noted("job.failed")[0]["reason"].startswith(f"{CONFIG.attempts_max} attempts, the last: FAILED")
    world.rounds(100, 500)
    assert world.ends() == ["job.failed"]
    assert world.ledger.counts() == {"FAILED": 1}


def test_a_silent_node_gets_no_jobs(specs, beacon, world):
    for node in world.nodes:
        world.hear(beacon(node), 0)
    for now_s in range(0, 400, 5):
        if now_s % 10 == 0:
            world.hear(beacon(3, uptime_s=100 + now_s), now_s)
        world.round(now_s)
    for number in range(3):
        world.submit(b"tile %d" % number, now_s=400)
    assert {node for node, _, _ in specs(world.round(400))} == {3}


def test_a_node_with_another_dictionary_is_told_of_and_gets_no_jobs(specs, beacon, world):
    world.hear(beacon(2, dictionary=b"x" * 8), 0)
    assert world.noted("node.refused") == [{"node": "sat-2", "dictionary": b"x" * 8}]
    world.submit()
    world.submit(b"more")
    assert {node for node, _, _ in specs(world.round(5))} == {3}
