import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flightsw.errors import StorageError
from flightsw.net.contacts import Contact, ContactPlan
from flightsw.objects.digest import full_bitmap
from flightsw.objects.store import ObjectStore, digest_of, object_name
from flightsw.objects.transfers import Transfers
from flightsw.wire.messages import (
    Beacon,
    Chunk,
    Command,
    CommandCode,
    Event,
    JobReport,
    JobReportAck,
    JobState,
    Mode,
    ObjectStatus,
    ObjectWant,
    Severity,
    Stage,
    Verification,
    decode_message,
    encode_message,
    job_spec,
)
from ground.archive import Archive
from ground.cluster import Cluster
from ground.fleet import ClusterConfig, FleetNode
from ground.ledger import JobRequest, Ledger
from ground.membership import Membership
from hil.sim.disk import SimulatedDisk
from hil.sim.streams import Streams

S = 1_000_000_000
DICTIONARY = b"d" * 8
CONFIG = ClusterConfig()
MODEL, RESULT, PRODUCT = b"model" * 10, b"mask", b"product"


def plan(nodes, start_s=0, end_s=200_000):
    return ContactPlan(
        Contact(start_s * S, end_s * S, a, a_interface, b, b_interface, 1e6, 10**7)
        for node in nodes
        for a, a_interface, b, b_interface in ((1, node, node, 0), (node, 0, 1, node))
    )


def beacon(node, boot=1, uptime_s=100, dictionary=DICTIONARY):
    return Beacon(node, boot, uptime_s, 0, Mode.NOMINAL, 1, 900, 200, 500, 50, 0, 0, 0, 0, 0, 0, 0, 10**9, dictionary)


class World:
    """A cluster, and scripted nodes that say what a test tells them to say."""

    def __init__(self, nodes=(2, 3), contact_plan=None, config=CONFIG, ledger_path=None, disk=None, verify=None):
        self.nodes = nodes
        self.disk = SimulatedDisk(1 << 24, Streams(1).random("disk")) if disk is None else disk
        self.store = ObjectStore(self.disk, quota_bytes=1 << 23)
        self.transfers = Transfers(self.store, local=1)
        self.ledger = Ledger(ledger_path)
        self.archive = Archive()
        self.membership = Membership(nodes, DICTIONARY, 10.0)
        self.completed, self.notes, self.sent, self.objects = [], [], [], []
        self.cluster = Cluster(
            config,
            ledger=self.ledger,
            archive=self.archive,
            membership=self.membership,
            store=self.store,
            transfers=self.transfers,
            plan=plan(nodes) if contact_plan is None else contact_plan,
            fleet=[FleetNode(node, f"sat-{node}", 10.0, 5.0, 5.0, 50.0, 1e6, 0.35, ()) for node in nodes],
            verify=verify or (lambda request, report, result, product: None),
            on_complete=lambda job, report, result: self.completed.append((job, report.node, result)),
        )

    def close(self):
        self.ledger.close()
        self.archive.close()

    def take(self, now_s):
        """What the shell does after each message; returns the messages that left now."""
        self.cluster.on_transfers(now_s * S)
        self.notes += self.cluster.take_notes()
        new = [(one.destination, decode_message(one.payload)) for one in self.cluster.take_outgoing()]
        self.sent += new
        polled = [(one.destination, one.message) for one in self.transfers.poll(now_s * S)]
        self.objects += polled
        return new + polled

    def round(self, now_s):
        self.cluster.reach.refresh(now_s * S)
        self.cluster.round(now_s * S)
        return self.take(now_s)

    def rounds(self, start_s, end_s, step_s=30):
        return [message for now_s in range(start_s, end_s, step_s) for message in self.round(now_s)]

    def submit(self, data=b"tile", now_s=0, deadline_s=50_000, priority=4):
        request = JobRequest(
            kind="cloud_mask",
            model=self.store.put(MODEL),
            model_bytes=len(MODEL),
            data=self.store.put(data),
            data_bytes=len(data),
            steps_count=4,
            step_mpix=10.0,
            priority=priority,
            deadline_s=deadline_s,
            checkpoint_steps=1,
            product_measure_max=1.0,
        )
        return self.cluster.submit(request, now_s * S)

    def row(self, job=1):
        return next((row for row in self.ledger.open_jobs() if row.job_id == job), None)

    def report(self, job=1, state=JobState.COMPLETED, row=None, **changes):
        row = self.row(job) if row is None else row
        values = {
            "node": row.node,
            "job_id": job,
            "attempt": row.attempt,
            "state": state,
            "detail": "",
            "model": row.request.model,
            "data": row.request.data,
            "result": digest_of(RESULT),
            "result_bytes": len(RESULT),
            "product": b"",
            "product_bytes": 0,
            "measure": 0.1,
            "steps_run_count": 4,
            "resumed_count": 0,
            "paused_count": 0,
            "energy_j": 1.0,
            "software": "1",
        }
        return JobReport(**(values | changes))

    def say(self, report, now_s):
        self.cluster.on_report(report, now_s * S)
        return self.take(now_s)

    def bring(self, data, node, now_s):
        """An object comes down."""
        self.transfers.receive(Chunk(digest_of(data), len(data), 0, data), node, now_s * S)
        return self.take(now_s)

    def answer(self, command_id, node, now_s, stage=Stage.COMPLETED, code=CommandCode.OK, detail=""):
        self.cluster.on_verification(Verification(node, command_id, stage, code, detail), now_s * S)
        return self.take(now_s)

    def hear(self, one, now_s):
        self.cluster.on_beacon(one, encode_message(one), now_s * S)
        return self.take(now_s)

    def noted(self, kind):
        return [fields for one, fields in self.notes if one == kind]

    def retry_reasons(self):
        return [fields["reason"] for fields in self.noted("job.retried")]

    def ends(self):
        return [kind for kind, _ in self.notes if kind in ("job.completed", "job.failed")]


def commands(messages, opcode):
    return [(node, one) for node, one in messages if isinstance(one, Command) and one.opcode == opcode]


def specs(messages):
    """(node, job, attempt) of each submission."""
    found = [(node, job_spec(one.arguments[0])) for node, one in commands(messages, "JOBS.SUBMIT")]
    return [(node, spec.job_id, spec.attempt) for node, spec in found]


def acks(messages):
    return [(node, one.job_id, one.attempt) for node, one in messages if isinstance(one, JobReportAck)]


@pytest.fixture
def world():
    one = World()
    yield one
    one.close()


@pytest.fixture
def single():
    one = World(nodes=(2,))
    yield one
    one.close()


def other(node):
    return 5 - node


# -- the straight way


def test_a_job_goes_from_promise_to_result(single):
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


def test_a_result_that_comes_before_its_report_is_taken_at_once(single):
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


def test_the_ack_leaves_only_when_the_ledger_has_the_result(single, monkeypatch):
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


def test_a_repeated_report_of_an_ended_job_is_acknowledged_and_changes_nothing(single):
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


def test_a_report_of_an_unknown_job_is_acknowledged_so_that_it_ends(single):
    single.submit()
    single.round(0)
    assert acks(single.say(single.report(job=1, job_id=9), 5)) == [(2, 9, 1)]
    assert single.ends() == []


def test_a_report_by_a_node_that_does_not_have_the_attempt_changes_nothing(world):
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


# -- another attempt


def test_a_failed_attempt_is_followed_by_another_elsewhere(world):
    world.submit()
    first = specs(world.round(0))
    node = first[0][0]
    messages = world.say(world.report(state=JobState.FAILED, detail="weights rotten"), 50)
    assert acks(messages) == [(node, 1, 1)]
    assert [tuple(one.arguments) for _, one in commands(messages, "JOBS.CANCEL")] == [(1, 1)]
    assert specs(world.round(55)) == [(other(node), 1, 2)]
    assert world.retry_reasons() == ["FAILED on board: weights rotten"]


def test_a_report_of_the_attempt_before_changes_nothing(world):
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


def test_a_result_that_the_verification_refuses_is_not_taken():
    world = World(verify=lambda request, report, result, product: None if result == RESULT else "wrong shape")
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


def test_a_result_that_never_comes_is_computed_elsewhere(world):
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


def test_a_result_that_is_lost_on_board_is_computed_elsewhere(world):
    world.submit()
    world.round(0)
    report = world.report()
    world.say(report, 50)
    world.rounds(60, 200)
    status = ObjectStatus(digest_of(RESULT), len(RESULT), b"", "not held")
    world.transfers.receive(status, report.node, 200 * S)
    assert acks(world.take(200)) == [(report.node, 1, 1)]
    assert world.retry_reasons() == ["the result is lost on board: refused: not held"]


def test_an_overdue_attempt_is_followed_by_another_and_the_node_is_told(world):
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


def test_an_attempt_whose_node_is_long_out_of_reach_is_not_overdue_before_its_pass():
    world = World(nodes=(2,), contact_plan=plan((2,), 7200, 9000))
    world.submit()
    world.rounds(0, 9000)
    assert world.retry_reasons() == []
    world.close()


def test_patience_grows_with_the_predicted_length(single):
    single.submit()
    single.round(0)
    end_ns = single.noted("job.placed")[0]["end_ns"]
    assert single.row().due_ns == end_ns + round(CONFIG.overdue_s * S + CONFIG.overdue_factor * end_ns)


def test_a_called_off_attempt_is_not_submitted_again_by_repetition(world):
    """Its node may be out of reach until the cancellation has expired."""
    world.submit()
    world.round(0)
    node = world.row().node
    due_s = -(-world.row().due_ns // S)
    world.rounds(due_s, due_s + 40)
    later = world.rounds(due_s + 60, due_s + 3000)
    assert (node, 1, 1) not in specs(later)
    assert commands(later, "JOBS.CANCEL"), "the cancellation is repeated until it is answered"


def test_a_refused_submission_is_followed_by_another_attempt_elsewhere(world):
    world.submit()
    ((node, command),) = commands(world.round(0), "JOBS.SUBMIT")
    world.answer(command.command_id, node, 5, Stage.FAILED, CommandCode.BUSY, "256 jobs held")
    assert world.retry_reasons() == ["refused by the node: BUSY 256 jobs held"]
    assert specs(world.round(10)) == [(other(node), 1, 2)]
    assert world.ledger._db.execute("SELECT code, detail FROM commands WHERE command_id = 1").fetchone() == (
        int(CommandCode.BUSY),
        "256 jobs held",
    )


def test_a_refusal_that_comes_after_the_report_changes_nothing(world):
    world.submit()
    ((node, command),) = commands(world.round(0), "JOBS.SUBMIT")
    world.say(world.report(), 5)
    world.answer(command.command_id, node, 6, Stage.FAILED, CommandCode.EXPIRED)
    assert world.retry_reasons() == []
    world.bring(RESULT, node, 7)
    assert world.ends() == ["job.completed"]


def test_a_refused_object_is_followed_by_another_attempt_elsewhere(world):
    world.submit()
    world.round(0)
    node = world.row().node
    world.transfers.receive(ObjectStatus(digest_of(b"tile"), 4, b"", "no space"), node, 5 * S)
    world.take(5)
    assert world.retry_reasons() == ["object refused: refused: no space"]
    assert specs(world.round(10)) == [(other(node), 1, 2)]


def test_a_job_fails_at_its_deadline_and_what_comes_later_is_late(single):
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


def test_a_job_that_was_never_placed_fails_at_its_deadline():
    world = World(contact_plan=plan(()))
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


def test_a_silent_node_gets_no_jobs(world):
    for node in world.nodes:
        world.hear(beacon(node), 0)
    for now_s in range(0, 400, 5):
        if now_s % 10 == 0:
            world.hear(beacon(3, uptime_s=100 + now_s), now_s)
        world.round(now_s)
    for number in range(3):
        world.submit(b"tile %d" % number, now_s=400)
    assert {node for node, _, _ in specs(world.round(400))} == {3}


def test_a_node_with_another_dictionary_is_told_of_and_gets_no_jobs(world):
    world.hear(beacon(2, dictionary=b"x" * 8), 0)
    assert world.noted("node.refused") == [{"node": "sat-2", "dictionary": b"x" * 8}]
    world.submit()
    world.submit(b"more")
    assert {node for node, _, _ in specs(world.round(5))} == {3}


# -- resets, shared inputs, commands


def test_a_reset_node_gets_the_same_attempt_again_by_a_new_command(single):
    single.hear(beacon(2), 0)
    single.submit()
    ((_, command),) = commands(single.round(0), "JOBS.SUBMIT")
    single.answer(command.command_id, 2, 1)
    messages = single.hear(beacon(2, boot=2, uptime_s=1), 20)
    ((_, again),) = commands(messages, "JOBS.SUBMIT")
    assert again.command_id > command.command_id, "the node executes a number once"
    assert specs(messages) == [(2, 1, 1)]
    assert single.row().command_id == again.command_id
    assert single.noted("node.reset") == [{"node": "sat-2", "boot": 2}]
    assert single.cluster.counts.jobs_resubmitted == 1
    assert single.retry_reasons() == []


def test_a_reset_does_not_submit_what_has_been_reported(single):
    single.hear(beacon(2), 0)
    single.submit()
    single.round(0)
    single.say(single.report(), 10)
    assert specs(single.hear(beacon(2, boot=2, uptime_s=1), 20)) == []


def test_an_input_that_two_jobs_share_still_comes_when_one_of_them_is_called_off(single):
    first, second = single.submit(b"same"), single.submit(b"same")
    single.round(0)
    assert single.transfers.is_pushing(digest_of(b"same"), 2)
    single.say(single.report(first, state=JobState.FAILED), 5)
    assert single.transfers.is_pushing(digest_of(b"same"), 2)
    single.say(single.report(second, state=JobState.FAILED), 6)
    assert not single.transfers.is_pushing(digest_of(b"same"), 2), "nobody needs it there now"


def test_a_refused_model_is_pushed_again_with_the_next_attempt_there(single):
    single.submit()
    single.round(0)
    single.transfers.receive(ObjectStatus(digest_of(MODEL), len(MODEL), b"", "no space"), 2, 5 * S)
    single.take(5)
    assert not single.transfers.is_pushing(digest_of(MODEL), 2)
    single.round(10)
    assert single.transfers.is_pushing(digest_of(MODEL), 2)


def test_an_input_is_pushed_again_after_an_attempt_there_was_called_off_or_has_ended(single):
    delivered = ObjectStatus(digest_of(b"tile"), 4, full_bitmap(1))
    single.submit()
    single.round(0)
    single.transfers.receive(delivered, 2, S)
    single.say(single.report(state=JobState.FAILED), 5)
    single.round(10)
    assert single.transfers.is_pushing(digest_of(b"tile"), 2)
    single.transfers.receive(delivered, 2, 11 * S)
    single.bring(RESULT, 2, 12)
    single.say(single.report(), 13)
    assert single.ends() == ["job.completed"]
    again = single.submit()
    single.round(20)
    assert single.row(again).node == 2
    assert single.transfers.is_pushing(digest_of(b"tile"), 2)


def test_only_what_is_not_here_is_asked_for(single):
    single.submit()
    single.round(0)
    single.bring(RESULT, 2, 40)
    single.say(single.report(product=digest_of(PRODUCT), product_bytes=len(PRODUCT)), 50)
    messages = single.rounds(60, 200)
    assert {one.digest for _, one in messages if isinstance(one, ObjectWant)} == {digest_of(PRODUCT)}
    assert single.cluster.counts.results_fetched == 1


def test_an_attempt_is_due_by_the_deadline_of_its_job_at_the_latest(single):
    single.submit(deadline_s=600)
    single.round(0)
    assert single.row().due_ns == single.row().deadline_ns


def test_one_result_that_two_jobs_announce_ends_both(world):
    first, second = world.submit(b"a"), world.submit(b"b")
    world.round(0)
    world.say(world.report(first), 50)
    world.say(world.report(second), 51)
    world.bring(RESULT, world.row(first).node, 52)
    assert world.ends() == ["job.completed", "job.completed"]


def test_a_lost_command_is_repeated_under_its_number(single):
    single.submit()
    ((_, first),) = commands(single.round(0), "JOBS.SUBMIT")
    ((_, again),) = commands(single.round(round(CONFIG.command_repeat_s)), "JOBS.SUBMIT")
    assert again == first
    assert single.cluster.counts.commands_repeated == 1


def test_an_attempt_whose_submission_was_never_answered_is_given_up(single):
    """A submission lives in whole seconds, so it can expire a little before the deadline."""
    single.submit(deadline_s=600)
    single.cluster.reach.refresh(S // 2)
    single.cluster.round(S // 2)
    single.cluster.round(599 * S)
    assert single.row().attempt == 1
    single.cluster.round(599 * S + S * 3 // 4)
    single.take(599)
    assert single.retry_reasons() == ["the command was never answered"]


def test_a_user_command_runs_through_its_chain(single):
    number = single.cluster.command(2, "NODE.NOOP", (), 0)
    ((node, command),) = single.take(0)
    assert (node, command.command_id, command.opcode) == (2, number, "NODE.NOOP")
    single.answer(number, 2, 5, Stage.ACCEPTED)
    single.answer(number, 2, 6)
    single.round(10)
    assert single.ledger.open_commands() == []
    ended = {"node": "sat-2", "command": number, "stage": "COMPLETED", "code": "OK"}
    assert single.noted("command.ended") == [ended]


def test_a_delivered_object_is_told_and_counted(single):
    single.submit()
    single.round(0)
    single.transfers.receive(ObjectStatus(digest_of(MODEL), len(MODEL), full_bitmap(1)), 2, 5 * S)
    single.take(5)
    assert single.noted("object.delivered") == [{"object": digest_of(MODEL), "node": "sat-2", "size_bytes": len(MODEL)}]
    assert (single.cluster.counts.objects_delivered, single.cluster.counts.uplinked_bytes) == (1, len(MODEL))


def test_what_nodes_say_is_archived(single):
    single.hear(beacon(2), 5)
    single.cluster.on_event(Event(2, 1, 1, 0, Severity.FATAL, "node", "NODE RESET", "why"), 6 * S)
    assert single.archive.beacons(2, 0, 10 * S) == [(5 * S, beacon(2))]
    assert single.archive.events() == [(6 * S, 2, 1, "node", "NODE RESET", "why")]


# -- restart


def test_a_new_ground_on_the_same_files_completes_what_the_old_one_began(tmp_path):
    old = World(ledger_path=tmp_path / "ledger.db")
    placed, waiting = old.submit(b"a"), old.submit(b"b")
    ((node, command),) = commands(old.round(0), "JOBS.SUBMIT")[:1]
    ended = old.submit(b"c", now_s=1)
    old.round(5)
    old.bring(RESULT, old.row(ended).node, 6)
    ended_report = old.report(ended)
    old.say(ended_report, 7)
    report, last_id = old.report(placed), old.ledger.next_command_id()
    old.close()

    new = World(ledger_path=tmp_path / "ledger.db", disk=old.disk)
    new.cluster.resume(10 * S)
    assert new.cluster.open_count == 2
    messages = new.round(10)
    assert (node, command) in commands(messages, "JOBS.SUBMIT"), "the very same command: it is executed once"
    assert new.row(placed).attempt == 1
    assert acks(new.say(report, 20)) == [(report.node, placed, 1)], "the result had come before the restart"
    assert acks(new.say(ended_report, 21)) == [(ended_report.node, ended, 1)]
    assert new.cluster.command(2, "NODE.NOOP", (), 22 * S) == last_id
    new.say(new.report(waiting), 30)
    assert new.ledger.counts() == {"COMPLETED": 3}
    assert [job for job, _, _ in new.completed] == [placed, waiting]
    new.close()


def test_after_a_restart_the_objects_of_open_jobs_are_pinned_and_pushed_again(tmp_path):
    old = World(nodes=(2,), ledger_path=tmp_path / "ledger.db")
    old.submit()
    old.round(0)
    old.close()
    new = World(nodes=(2,), ledger_path=tmp_path / "ledger.db", disk=old.disk)
    new.cluster.resume(10 * S)
    for data in (b"tile", MODEL):
        assert new.transfers.is_pushing(digest_of(data), 2)
        new.transfers.cancel(digest_of(data), 2)
        assert not new.store.remove(digest_of(data))
    new.close()


def test_after_a_restart_an_overdue_attempt_is_still_overdue(tmp_path):
    old = World(ledger_path=tmp_path / "ledger.db")
    old.submit()
    old.round(0)
    due_s = -(-old.row().due_ns // S)
    node = old.row().node
    old.close()
    new = World(ledger_path=tmp_path / "ledger.db", disk=old.disk)
    new.cluster.resume((due_s - 10) * S)
    new.hear(beacon(other(node)), due_s - 10)
    new.round(due_s - 10)
    assert (new.row().attempt, new.row().node) == (1, node)
    new.round(due_s)
    assert new.retry_reasons() == ["overdue"]
    assert new.row().attempt == 2
    new.close()


# -- property

ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["complete", "fail", "result", "repeat", "reset", "round"]),
        st.integers(0, 10),
        st.sampled_from([1, 5, 600, 1500]),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(ACTIONS)
def test_whatever_nodes_report_in_whatever_order_a_job_ends_exactly_once(actions):
    world = World(nodes=(2, 3, 4))
    world.submit()
    now_s, boot, reports = 0, 1, []
    for action, choice, wait_s in actions:
        now_s += wait_s
        row = world.row()
        match action:
            case "complete" | "fail" if row is not None and row.node is not None:
                state = JobState.COMPLETED if action == "complete" else JobState.FAILED
                reports.append(world.report(row=row, state=state))
                world.say(reports[-1], now_s)
            case "repeat" if reports:
                world.say(reports[choice % len(reports)], now_s)
            case "result":
                world.bring(RESULT, 2 + choice % 3, now_s)
            case "reset":
                boot += 1
                world.hear(beacon(2 + choice % 3, boot=boot, uptime_s=1), now_s)
            case _:
                world.round(now_s)
    for _ in range(2):
        now_s += 60_000
        world.round(now_s)
    assert len(world.ends()) == 1
    assert len(world.completed) == world.ends().count("job.completed")
    assert world.ledger.open_jobs() == []
    assert sum(world.ledger.counts().values()) == 1
    if world.completed:
        accepted = {(one.node, one.attempt) for one in reports if one.state is JobState.COMPLETED}
        assert (world.completed[0][1], world.noted("job.completed")[0]["attempt"]) in accepted
    world.close()
