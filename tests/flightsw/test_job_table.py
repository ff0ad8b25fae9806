import msgspec
import pytest

from flightsw.compute.jobs import JobTable
from flightsw.wire.messages import JobSpec, JobState
from hil.sim.disk import SimulatedDisk
from hil.sim.streams import Streams

S = 1_000_000_000


def spec(job_id=1, attempt=1, priority=4, deadline_s=100):
    return JobSpec(
        job_id=job_id,
        attempt=attempt,
        kind="cloud_mask",
        model=bytes(32),
        model_bytes=10,
        data=bytes([1]) * 32,
        data_bytes=20,
        steps_count=8,
        step_mpix=1.0,
        priority=priority,
        deadline_s=deadline_s,
        checkpoint_steps=2,
        product_measure_max=0.7,
    )


@pytest.fixture
def disk():
    return SimulatedDisk(1 << 20, Streams(1).random("disk"))


def test_an_accepted_job_survives_a_power_cut(disk):
    assert JobTable(disk, 4, 0).submit(spec(), 0) is None
    disk.power_cut()
    assert JobTable(disk, 4, 0).jobs[1].spec == spec()


def test_a_reset_returns_to_the_last_checkpoint_and_not_beyond(disk):
    table = JobTable(disk, 4, 0)
    table.submit(spec(), 0)
    job = table.jobs[1]
    table.move(job, JobState.READY)
    table.move(job, JobState.RUNNING)
    job.step, job.working = 2, b"two"
    table.checkpoint(job, 0)
    job.step, job.working = 3, b"three"
    disk.power_cut()
    again = JobTable(disk, 4, 0).jobs[1]
    assert (again.step, again.working, again.state) == (2, b"two", JobState.WAITING_OBJECTS)
    assert again.resumed_count == 1


def test_what_is_left_of_a_deadline_counts_on_after_a_reset_of_the_monotonic_clock(disk):
    table = JobTable(disk, 4, 1000 * S)
    table.submit(spec(deadline_s=100), 1000 * S)
    table.save(table.jobs[1], 1060 * S)
    job = JobTable(disk, 4, 0).jobs[1]
    assert not job.expired(39 * S)
    assert job.expired(40 * S)


def test_a_newer_attempt_replaces_an_older_one_and_never_the_reverse(disk):
    table = JobTable(disk, 4, 0)
    assert table.submit(spec(attempt=2), 0) is None
    assert table.submit(spec(attempt=2), 0) is None
    assert "newer" in table.submit(spec(attempt=1), 0)
    assert table.submit(spec(attempt=3), 0) is None
    assert table.jobs[1].spec.attempt == 3


def test_a_full_table_refuses_and_a_forgotten_job_makes_room(disk):
    table = JobTable(disk, 2, 0)
    assert table.submit(spec(1), 0) is None
    assert table.submit(spec(2), 0) is None
    assert "busy" in table.submit(spec(3), 0)
    table.forget(1)
    assert table.submit(spec(3), 0) is None


def test_the_most_urgent_job_comes_first(disk):
    table = JobTable(disk, 8, 0)
    for job_id, priority, deadline_s in ((1, 4, 50), (2, 1, 90), (3, 4, 20)):
        table.submit(spec(job_id, priority=priority, deadline_s=deadline_s), 0)
        table.move(table.jobs[job_id], JobState.READY)
    assert [job.spec.job_id for job in table.runnable()] == [2, 3, 1]


def test_a_rotten_record_is_dropped_and_counted_and_the_others_stay(disk):
    table = JobTable(disk, 8, 0)
    table.submit(spec(1), 0)
    table.submit(spec(2), 0)
    disk.flip_bit("jobs/1.a", 99)
    again = JobTable(disk, 8, 0)
    assert (sorted(again.jobs), again.unreadable_count) == ([1, 2], 0), "the other copy holds"
    for copy in ("jobs/1.a", "jobs/1.b"):
        disk.flip_bit(copy, 99)
    again = JobTable(disk, 8, 0)
    assert (sorted(again.jobs), again.unreadable_count) == ([2], 1)
    assert not disk.names("jobs/1")


def test_an_illegal_step_is_our_bug(disk):
    table = JobTable(disk, 8, 0)
    table.submit(spec(), 0)
    with pytest.raises(AssertionError, match="WAITING_OBJECTS -> COMPLETED"):
        table.move(table.jobs[1], JobState.COMPLETED)


def test_a_specification_survives_the_record_bit_for_bit(disk):
    odd = msgspec.structs.replace(spec(), step_mpix=0.1 + 0.2, product_measure_max=-1.0)
    JobTable(disk, 8, 0).submit(odd, 0)
    assert JobTable(disk, 8, 0).jobs[1].spec == odd
