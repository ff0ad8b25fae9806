"""Jobs on board: a table of attempts that survives a reset, one durable record each.

A record holds the specification, the state, the last checkpoint and, at the end, the report until the ground has it. It
is in two copies, each replaced atomically, so that after a power cut the table is one that was committed.
"""

from dataclasses import dataclass
from typing import Final

import msgspec

from flightsw.errors import MessageError, StorageError
from flightsw.ports import Disk
from flightsw.storage.copies import SUFFIXES, TwoCopies
from flightsw.wire import cbor
from flightsw.wire.messages import COUNT_MAX, Count, JobReport, JobSpec, JobState

PREFIX: Final = "jobs/"
NS_PER_S: Final = 1_000_000_000

RECORD_BYTES_MAX: Final = 1 << 23
"""One job on the disk [bytes]: 8 MiB. The checkpoint of the largest tile, 1024 px a side, takes half of it."""

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
    is_held: bool = False
    """Paused by command: it does not run until the ground says so, over any reset."""

    def urgency(self) -> tuple[int, int, int]:
        """Sort key: priority, then deadline, then number."""
        return (self.spec.priority, self.accepted_ns + self.spec.deadline_s * NS_PER_S, self.spec.job_id)

    def expired(self, now_ns: int) -> bool:
        """Whether the deadline has passed."""
        return now_ns >= self.accepted_ns + self.spec.deadline_s * NS_PER_S


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
        self._copies: dict[int, TwoCopies] = {}
        self.unreadable_count = 0
        for name in sorted({name[: -len(SUFFIXES[0])] for name in disk.names(PREFIX) if name.endswith(SUFFIXES)}):
            copies = TwoCopies(disk, name)
            try:
                job = _unpack(copies.load() or b"", now_ns)
            except (StorageError, MessageError):
                self.unreadable_count += 1
                copies.remove()
                continue
            self.jobs[job.spec.job_id] = job
            self._copies[job.spec.job_id] = copies

    def submit(self, spec: JobSpec, now_ns: int) -> str | None:
        """Take an attempt; returns why not, or None. The same attempt again is no error.

        Raises:
            StorageError: its record cannot be kept; then the attempt is not taken.
        """
        held = self.jobs.get(spec.job_id)
        if held is not None and held.spec.attempt >= spec.attempt:
            return None if held.spec.attempt == spec.attempt else f"attempt {held.spec.attempt} is newer"
        if held is None and len(self.jobs) >= self._jobs_max:
            return f"busy: {self._jobs_max} jobs held"
        job = Job(spec, accepted_ns=now_ns)
        self.save(job, now_ns)
        self.jobs[spec.job_id] = job
        return None

    def move(self, job: Job, state: JobState) -> None:
        """Change the state by the table."""
        assert state in TRANSITIONS[job.state], f"job {job.spec.job_id}: {job.state.name} -> {state.name}"
        job.state = state

    def checkpoint(self, job: Job, now_ns: int) -> None:
        """Make the working state the one that a reset returns to. Raises: StorageError, MessageError when too large."""
        job.saved_step, job.saved = job.step, job.working
        self.save(job, now_ns)

    def roll_back(self, job: Job) -> None:
        """Return to the last checkpoint: what was computed since is not to be trusted."""
        job.step, job.working = job.saved_step, job.saved

    def hold(self, job: Job, is_held: bool, now_ns: int) -> None:
        """Hold a job, or let it go again; durable on return. Raises: StorageError; then nothing has changed."""
        before, job.is_held = job.is_held, is_held
        try:
            self.save(job, now_ns)
        except StorageError:
            job.is_held = before
            raise
        if is_held and job.state is JobState.READY:
            self.move(job, JobState.PAUSED)

    def save(self, job: Job, now_ns: int) -> None:
        """Write the record; durable on return. Raises: StorageError."""
        job_id = job.spec.job_id
        copies = self._copies.get(job_id)
        if copies is None:
            copies = self._copies[job_id] = TwoCopies(self._disk, f"{PREFIX}{job_id}")
        copies.store(_pack(job, now_ns))

    def forget(self, job_id: int) -> None:
        """Drop a job and its record."""
        if self.jobs.pop(job_id, None) is not None:
            self._copies.pop(job_id).remove()

    def runnable(self) -> list[Job]:
        """Attempts whose objects are here and that nobody holds, most urgent first."""
        states = (JobState.READY, JobState.PAUSED)
        waiting = [job for job in self.jobs.values() if job.state in states and not job.is_held]
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
        return sum(job.state in states for job in self.jobs.values()) if self.jobs else 0


class _Record(msgspec.Struct, array_like=True, frozen=True):
    """A job on the disk, as a CBOR array under a CRC."""

    spec: JobSpec
    left_s: Count
    """What was left of the deadline when the record was written [s]."""
    state: JobState
    step: Count
    checkpoint: bytes
    steps_run_count: Count
    resumed_count: Count
    paused_count: Count
    energy_j: float
    report: JobReport | None
    is_held: bool = False


def _pack(job: Job, now_ns: int) -> bytes:
    record = _Record(
        job.spec,
        max(0, job.spec.deadline_s - (now_ns - job.accepted_ns) // NS_PER_S),
        job.state,
        job.saved_step,
        job.saved,
        job.steps_run_count,
        job.resumed_count,
        job.paused_count,
        job.energy_j,
        job.report,
        job.is_held,
    )
    return cbor.dumps(msgspec.to_builtins(record, builtin_types=(bytes,)), RECORD_BYTES_MAX)


def _unpack(data: bytes, now_ns: int) -> Job:
    try:
        record = msgspec.convert(cbor.loads(data, RECORD_BYTES_MAX), _Record, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise MessageError(f"job record: {error}") from None
    job = Job(
        record.spec,
        accepted_ns=now_ns - (record.spec.deadline_s - record.left_s) * NS_PER_S,
        state=record.state,
        step=record.step,
        working=record.checkpoint,
        saved_step=record.step,
        saved=record.checkpoint,
        steps_run_count=record.steps_run_count,
        resumed_count=record.resumed_count,
        paused_count=record.paused_count,
        energy_j=record.energy_j,
        report=record.report,
        is_held=record.is_held,
    )
    if job.state in (JobState.RUNNING, JobState.PAUSED, JobState.READY):
        job.state = JobState.WAITING_OBJECTS  # whether its objects survived is looked up, not assumed
        job.resumed_count = min(job.resumed_count + (job.saved_step > 0), COUNT_MAX)
    return job
