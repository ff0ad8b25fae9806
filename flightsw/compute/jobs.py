"""Jobs on board: a table of attempts that survives a reset, one durable record each.

A record holds the specification, the state, the last checkpoint and, at the end, the report until the ground has it. It is
replaced atomically, so that after a power cut the table is one that was committed (DESIGN §9.4).
"""

from dataclasses import dataclass
from typing import Final

import msgspec

from flightsw.errors import MessageError, StorageError
from flightsw.ports import Disk
from flightsw.storage.records import seal, unseal
from flightsw.wire import cbor
from flightsw.wire.messages import JobReport, JobSpec, JobState, job_spec

PREFIX: Final = "jobs/"

FINAL_STATES: Final = (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED)

TRANSITIONS: Final[dict[JobState, tuple[JobState, ...]]] = {
    JobState.WAITING_OBJECTS: (JobState.READY, JobState.FAILED, JobState.CANCELLED),
    JobState.READY: (JobState.RUNNING, JobState.PAUSED, JobState.WAITING_OBJECTS, JobState.FAILED, JobState.CANCELLED),
    JobState.RUNNING: (
        JobState.PAUSED,
        JobState.READY,
        JobState.WAITING_OBJECTS,
        JobState.COMPLETED,
        JobState.FAILED,
        JobState.CANCELLED,
    ),
    JobState.PAUSED: (JobState.READY, JobState.RUNNING, JobState.WAITING_OBJECTS, JobState.FAILED, JobState.CANCELLED),
    JobState.COMPLETED: (),
    JobState.FAILED: (),
    JobState.CANCELLED: (),
}
"""State -> states that may follow; printed into the documents."""


@dataclass(slots=True)
class Job:
    """One attempt and how far it is."""

    spec: JobSpec
    accepted_ns: int
    state: JobState = JobState.WAITING_OBJECTS
    step: int = 0
    """Steps done in the working state."""
    working: bytes = b""
    """The runner's state after `step` steps; lost at a reset."""
    saved_step: int = 0
    saved: bytes = b""
    """The last checkpoint; survives a reset."""
    steps_run_count: int = 0
    resumed_count: int = 0
    paused_count: int = 0
    energy_j: float = 0.0
    report: JobReport | None = None
    reported_ns: int | None = None
    """When the report was last sent."""

    def urgency(self) -> tuple[int, int, int]:
        """Sort key: priority, then deadline, then number."""
        return (self.spec.priority, self.accepted_ns + self.spec.deadline_s * 1_000_000_000, self.spec.job_id)

    def expired(self, now_ns: int) -> bool:
        """Whether the deadline has passed."""
        return now_ns >= self.accepted_ns + self.spec.deadline_s * 1_000_000_000


class JobTable:
    """All attempts that this node knows, mirrored on its disk.

    Args:
        disk: keeps one record for each job.
        jobs_max: attempts held at once; more are refused as BUSY.
        now_ns: monotonic time of this start: after a reset deadlines count on from what was left of them.
    """

    def __init__(self, disk: Disk, jobs_max: int, now_ns: int) -> None:
        self._disk = disk
        self._jobs_max = jobs_max
        self.jobs: dict[int, Job] = {}
        self.unreadable_count = 0
        for name in disk.names(PREFIX):
            try:
                job = _unpack(unseal(disk.read(name)), now_ns)
            except (StorageError, MessageError):
                self.unreadable_count += 1
                disk.remove(name)
                continue
            self.jobs[job.spec.job_id] = job

    def submit(self, spec: JobSpec, now_ns: int) -> str | None:
        """Take an attempt; returns why not, or None. The same attempt again is no error."""
        held = self.jobs.get(spec.job_id)
        if held is not None and held.spec.attempt >= spec.attempt:
            return None if held.spec.attempt == spec.attempt else f"attempt {held.spec.attempt} is newer"
        if held is None and len(self.jobs) >= self._jobs_max:
            return f"busy: {self._jobs_max} jobs held"
        job = Job(spec, accepted_ns=now_ns)
        self.jobs[spec.job_id] = job
        self.save(job, now_ns)
        return None

    def move(self, job: Job, state: JobState) -> None:
        """Change the state by the table."""
        assert state in TRANSITIONS[job.state], f"job {job.spec.job_id}: {job.state.name} -> {state.name}"
        job.state = state

    def checkpoint(self, job: Job, now_ns: int) -> None:
        """Make the working state the one that a reset returns to."""
        job.saved_step, job.saved = job.step, job.working
        self.save(job, now_ns)

    def roll_back(self, job: Job) -> None:
        """Return to the last checkpoint: what was computed since is not to be trusted."""
        job.step, job.working = job.saved_step, job.saved

    def save(self, job: Job, now_ns: int) -> None:
        """Write the record; durable on return. Raises: StorageError."""
        self._disk.replace(f"{PREFIX}{job.spec.job_id}", seal(_pack(job, now_ns)))

    def forget(self, job_id: int) -> None:
        """Drop a job and its record."""
        if self.jobs.pop(job_id, None) is not None:
            self._disk.remove(f"{PREFIX}{job_id}")

    def runnable(self) -> list[Job]:
        """Attempts whose objects are here, most urgent first."""
        waiting = [job for job in self.jobs.values() if job.state in (JobState.READY, JobState.PAUSED)]
        return sorted(waiting, key=Job.urgency)

    def unreported(self, now_ns: int, repeat_ns: int) -> list[Job]:
        """Ended attempts whose report is due to be sent, or sent again."""
        return [
            job
            for _, job in sorted(self.jobs.items())
            if job.report is not None and (job.reported_ns is None or now_ns - job.reported_ns >= repeat_ns)
        ]

    def count(self, *states: JobState) -> int:
        """Jobs in these states."""
        return sum(job.state in states for job in self.jobs.values())


def _pack(job: Job, now_ns: int) -> bytes:
    left_s = job.spec.deadline_s - (now_ns - job.accepted_ns) // 1_000_000_000
    return cbor.dumps(
        [
            msgspec.to_builtins(job.spec, builtin_types=(bytes,)),
            max(0, left_s),
            int(job.state),
            job.saved_step,
            job.saved,
            job.steps_run_count,
            job.resumed_count,
            job.paused_count,
            job.energy_j,
            None if job.report is None else msgspec.to_builtins(job.report, builtin_types=(bytes,)),
        ]
    )


def _unpack(data: bytes, now_ns: int) -> Job:
    fields = cbor.loads(data)
    try:
        spec_fields, left_s, state, step, saved, steps_run, resumed, paused, energy_j, report = fields  # type: ignore[misc]
        spec = job_spec(spec_fields)
        job = Job(
            spec,
            accepted_ns=now_ns - (spec.deadline_s - left_s) * 1_000_000_000,
            state=JobState(state),
            step=step,
            working=saved,
            saved_step=step,
            saved=saved,
            steps_run_count=steps_run,
            resumed_count=resumed,
            paused_count=paused,
            energy_j=energy_j,
            report=None if report is None else msgspec.convert(report, JobReport, builtin_types=(bytes,)),
        )
    except (TypeError, ValueError, msgspec.ValidationError) as error:
        raise MessageError(f"job record: {error}") from None
    if job.state in (JobState.RUNNING, JobState.PAUSED, JobState.READY):
        job.state = JobState.READY
        if job.saved_step > 0:
            job.resumed_count += 1
    return job
