"""What of a job leaves the node: its result is pushed, its report repeated until the ground has it on record."""

from collections.abc import Callable

from flightsw.compute.jobs import Job, JobTable
from flightsw.objects.store import ObjectStore
from flightsw.objects.transfers import Transfers
from flightsw.ports import Clock, Log
from flightsw.wire.messages import JobReport, JobReportAck


class Results:
    """Results of the jobs of one node.

    Args:
        jobs: the durable table.
        store: where result and product lie, pinned until they are acknowledged.
        transfers: takes them to the ground.
        ground: its node number.
        clock: for repeats.
        send: sends a report to the ground.
        repeat_ns: period of an unacknowledged report [ns].
        log: the on-board log.
    """

    def __init__(
        self,
        jobs: JobTable,
        store: ObjectStore,
        transfers: Transfers,
        *,
        ground: int,
        clock: Clock,
        send: Callable[[JobReport], None],
        repeat_ns: Callable[[], int],
        log: Log,
    ) -> None:
        self._jobs = jobs
        self._store = store
        self._transfers = transfers
        self._ground = ground
        self._clock = clock
        self._send = send
        self._repeat_ns = repeat_ns
        self._log = log

    def boot(self) -> None:
        """Take up what was on its way before the reset: pins are lost with it."""
        for job in self._jobs.jobs.values():
            if job.saved_step and job.report is None:
                self._log("job.resumed", {"job": job.spec.job_id, "attempt": job.spec.attempt, "step": job.saved_step})
            if job.report is not None:
                for digest in filter(None, (job.report.result, job.report.product)):
                    self._store.pin(digest)
                self.push(job)

    def push(self, job: Job) -> None:
        """Send result and product of an ended job towards the ground."""
        assert job.report is not None, "only ended jobs have results"
        now_ns = self._clock.monotonic_ns()
        for digest in (job.report.result, job.report.product):
            if digest and self._store.has(digest):
                self._transfers.push(digest, self._ground, now_ns, priority=3)

    def send_reports(self, now_ns: int) -> None:
        """Send the reports that are due."""
        if not self._jobs.jobs:
            return
        for job in self._jobs.unreported(now_ns, self._repeat_ns()):
            assert job.report is not None, "unreported jobs have a report"
            job.reported_ns = now_ns
            self._send(job.report)

    def acknowledged(self, ack: JobReportAck) -> None:
        """The ground has a report on record: forget the job and what nobody else needs. The model stays."""
        job = self._jobs.jobs.get(ack.job_id)
        if job is None or job.report is None or job.spec.attempt != ack.attempt:
            return
        self._jobs.forget(ack.job_id)
        self._log("job.forgotten", {"job": ack.job_id, "attempt": ack.attempt})
        used = {digest for other in self._jobs.jobs.values() for digest in (other.spec.model, other.spec.data)}
        for digest in (job.report.result, job.report.product):
            if digest:
                self._transfers.cancel(digest, self._ground)
                self._store.unpin(digest)
        for digest in (job.report.result, job.report.product, job.spec.data):
            if digest and digest not in used:
                self._store.remove(digest)
