"""Resets of nodes and of the ground: no job is lost or ends twice, and what jobs share goes up as often as it must."""

from hypothesis import given, settings
from hypothesis import strategies as st

from flightsw.objects.digest import full_bitmap
from flightsw.objects.store import digest_of
from flightsw.wire.messages import Event, JobState, ObjectStatus, ObjectWant, Severity, Stage
from ground.fleet import ClusterConfig

S = 1_000_000_000
CONFIG = ClusterConfig()
MODEL, RESULT, PRODUCT = b"model" * 10, b"mask", b"product"


# -- resets, shared inputs, commands


def test_a_reset_node_gets_the_same_attempt_again_by_a_new_command(commands, specs, beacon, single):
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


def test_a_reset_does_not_submit_what_has_been_reported(specs, beacon, single):
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


def test_a_lost_command_is_repeated_under_its_number(commands, single):
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


def test_what_nodes_say_is_archived(beacon, single):
    single.hear(beacon(2), 5)
    single.cluster.on_event(Event(2, 1, 1, 0, Severity.FATAL, "node", "NODE RESET", "why"), 6 * S)
    assert single.archive.beacons(2, 0, 10 * S) == [(5 * S, beacon(2))]
    assert single.archive.events() == [(6 * S, 2, 1, "node", "NODE RESET", "why")]


# -- restart


def test_a_new_ground_on_the_same_files_completes_what_the_old_one_began(make_world, commands, acks, tmp_path):
    old = make_world(ledger_path=tmp_path / "ledger.db")
    placed, waiting = old.submit(b"a"), old.submit(b"b")
    ((node, command),) = commands(old.round(0), "JOBS.SUBMIT")[:1]
    ended = old.submit(b"c", now_s=1)
    old.round(5)
    old.bring(RESULT, old.row(ended).node, 6)
    ended_report = old.report(ended)
    old.say(ended_report, 7)
    report, last_id = old.report(placed), old.ledger.next_command_id()
    old.close()

    new = make_world(ledger_path=tmp_path / "ledger.db", disk=old.disk)
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


def test_after_a_restart_the_objects_of_open_jobs_are_pinned_and_pushed_again(make_world, tmp_path):
    old = make_world(nodes=(2,), ledger_path=tmp_path / "ledger.db")
    old.submit()
    old.round(0)
    old.close()
    new = make_world(nodes=(2,), ledger_path=tmp_path / "ledger.db", disk=old.disk)
    new.cluster.resume(10 * S)
    for data in (b"tile", MODEL):
        assert new.transfers.is_pushing(digest_of(data), 2)
        new.transfers.cancel(digest_of(data), 2)
        assert not new.store.remove(digest_of(data))
    new.close()


def test_after_a_restart_an_overdue_attempt_is_still_overdue(make_world, beacon, other, tmp_path):
    old = make_world(ledger_path=tmp_path / "ledger.db")
    old.submit()
    old.round(0)
    due_s = -(-old.row().due_ns // S)
    node = old.row().node
    old.close()
    new = make_world(ledger_path=tmp_path / "ledger.db", disk=old.disk)
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
def test_whatever_nodes_report_in_whatever_order_a_job_ends_exactly_once(make_world, beacon, actions):
    world = make_world(nodes=(2, 3, 4))
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
