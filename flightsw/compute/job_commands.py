"""JOBS: the table of attempts, as commands and channels."""

from collections.abc import Mapping

from flightsw.component import OK, Handler, Outcome, Scalar
from flightsw.compute.executor import Executor
from flightsw.compute.jobs import JobTable
from flightsw.compute.models import Models
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
        """SUBMIT, CANCEL."""
        return {"SUBMIT": self._do_submit, "CANCEL": self._do_cancel}

    def channels(self) -> Mapping[str, Scalar]:
        """Attempts by state, and models mended since boot."""
        return {
            **{state.name.lower(): self._jobs.count(state) for state in JobState},
            "models_repaired": self._models.repaired_count,
        }

    def _do_submit(self, arguments: tuple[list[object]]) -> Outcome:
        try:
            spec = job_spec(arguments[0])
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

    def _do_cancel(self, arguments: tuple[int, int]) -> Outcome:
        job_id, attempt = arguments
        job = self._jobs.jobs.get(job_id)
        if job is None or job.spec.attempt != attempt:
            return Outcome(CommandCode.EXECUTION_ERROR, f"job {job_id} attempt {attempt} is not here")
        self._executor.cancel(job, "cancelled by command")
        return OK
