"""JOBS: the table of attempts, as commands and channels."""

from collections.abc import Mapping

from flightsw.component import OK, Handler, Outcome, Scalar
from flightsw.compute.executor import Executor
from flightsw.compute.jobs import FINAL_STATES, JobTable
from flightsw.compute.models import Models
from flightsw.dictionary.accessors.jobs_names import Cancel, Submit
from flightsw.errors import MessageError, StorageError
from flightsw.ports import Clock, Log
from flightsw.wire.messages import CommandCode, JobState, job_spec


class JobControl:
    """Implements `flightsw.component.Component`.

    Args:
        jobs: the durable table.
        executor: what runs them.
        models: what they run on.
        clock: for deadlines.
        log: the on-board log.
    """

    name = "JOBS"

    def __init__(self, jobs: JobTable, executor: Executor, models: Models, clock: Clock, log: Log) -> None:
        self._jobs = jobs
        self._executor = executor
        self._models = models
        self._clock = clock
        self._log = log

    def handlers(self) -> Mapping[str, Handler]:
        """SUBMIT, CANCEL, PAUSE, RESUME."""
        return {
            "SUBMIT": self._do_submit,
            "CANCEL": self._do_cancel,
            "PAUSE": lambda arguments: self._hold(arguments.job, is_held=True),
            "RESUME": lambda arguments: self._hold(arguments.job, is_held=False),
        }

    def channels(self) -> Mapping[str, Scalar]:
        """Attempts by state, those held by command, and models mended since boot."""
        return {
            **{state.name.lower(): self._jobs.count(state) for state in JobState},
            "models_repaired": self._models.repaired_count,
            "held": sum(job.is_held for job in self._jobs.jobs.values()),
            "failures": self._executor.failures_count,
        }

    def _do_submit(self, arguments: Submit) -> Outcome:
        try:
            spec = job_spec(arguments.spec)
        except MessageError as error:
            return Outcome(CommandCode.VALIDATION_ERROR, str(error))
        try:
            refusal = self._jobs.submit(spec, self._clock.monotonic_ns())
        except StorageError as error:
            return Outcome(CommandCode.EXECUTION_ERROR, str(error))
        if refusal is not None:
            return Outcome(CommandCode.BUSY, refusal)
        self._log("job.accepted", {"job": spec.job_id, "attempt": spec.attempt})
        self._executor.wake()
        return OK

    def _do_cancel(self, arguments: Cancel) -> Outcome:
        job = self._jobs.jobs.get(arguments.job)
        if job is None or job.spec.attempt != arguments.attempt:
            detail = f"job {arguments.job} attempt {arguments.attempt} is not here"
            return Outcome(CommandCode.EXECUTION_ERROR, detail)
        self._executor.cancel(job, "cancelled by command")
        return OK

    def _hold(self, number: int, *, is_held: bool) -> Outcome:
        job = self._jobs.jobs.get(number)
        if job is None:
            return Outcome(CommandCode.EXECUTION_ERROR, f"job {number} is not here")
        if job.state in FINAL_STATES:
            return Outcome(CommandCode.EXECUTION_ERROR, f"job {number} has ended: {job.state.name}")
        try:
            self._jobs.hold(job, is_held, self._clock.monotonic_ns())
        except StorageError as error:
            return Outcome(CommandCode.EXECUTION_ERROR, str(error))
        self._log("job.held" if is_held else "job.freed", {"job": number, "attempt": job.spec.attempt})
        self._executor.wake()
        return Outcome(CommandCode.OK, f"job {number} at step {job.step} of {job.spec.steps_count}")
