"""Runs jobs one at a time, step by step, within the budget, and keeps only what was computed with sound weights."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from flightsw.component import Report
from flightsw.compute.budget import Budget, Verdict
from flightsw.compute.jobs import FINAL_STATES, Job, JobTable
from flightsw.compute.models import Models, Scrub
from flightsw.config import NodeConfig
from flightsw.errors import BoardError, ConfigError, SensorError, StorageError, WireError
from flightsw.objects.store import ObjectStore
from flightsw.ports import Board, Clock, Log, Model, ProductChecks, Runner
from flightsw.storage.voting import agreed
from flightsw.wire.messages import JobReport, JobState

STRIKES_MAX: Final = 8
"""Times that the weights may be struck between two checkpoints before the job is given up: a board that is
hit this often needs the ground."""
HANGS_MAX: Final = 1
"""Times that a job may be under way when the worker hangs; with one more it is given up, so that a job which makes the
worker hang does not take the node with it."""
STEP_PATIENCE: Final = 2.0
"""Times the profile's step that a step may take before it counts as owed: boards differ, and share their machine."""
NS_PER_S: Final = 1_000_000_000


class Executor:
    """The job loop of a node.

    Args:
        config, clock, board, runner: the node's.
        jobs: the durable table.
        models: loading, checking and repair.
        store: objects.
        budget: admission by power and heat.
        may_run: why no job may run now, or None.
        want_model: called with (digest, size) when the stored model is missing or rotten.
        on_end: called when an attempt has its report.
        on_upset: called with (digest, scrub result) when weights did not hold.
        report: takes events.
        log: the on-board log.
        parameter: values of MODELS, which measures against strikes are on.
    """

    def __init__(
        self,
        *,
        config: NodeConfig,
        clock: Clock,
        board: Board,
        runner: Runner,
        jobs: JobTable,
        models: Models,
        store: ObjectStore,
        budget: Budget,
        may_run: Callable[[], str | None],
        want_model: Callable[[bytes, int], None],
        on_end: Callable[[Job], None],
        on_upset: Callable[[bytes, Scrub], None],
        report: Report,
        log: Log,
        parameter: Callable[[str], Any],
    ) -> None:
        self._config = config
        self._clock = clock
        self._board = board
        self._runner = runner
        self._jobs = jobs
        self._models = models
        self._store = store
        self._budget = budget
        self._may_run = may_run
        self._want_model = want_model
        self._on_end = on_end
        self._on_upset = on_upset
        self._report = report
        self._log = log
        self._parameter = parameter
        self._wake = asyncio.Event()
        self.load_w = 0.0
        """What the running step draws on top of idle, by the board's profile [W]."""
        self.failures_count = 0
        """Jobs that ended FAILED before their deadline."""
        self.disagreed_count = 0
        """Steps that came out differently when computed twice."""
        self.outvoted_count = 0
        """Results that needed a third vote."""
        self._did_not_run = ""
        """Why the last step that gave nothing gave nothing."""
        self.checks = ProductChecks()
        """What the checksums of matrix products found."""
        self._hangs: dict[tuple[int, int], int] = {}
        """(job, attempt) -> times that the worker hung in it."""
        self._owed = 0
        """Key of the ping that is to be answered; 0: none."""
        self._reply: Callable[[int], None] = _unheard
        self._busy: Callable[[int], None] = _unheard

    def supervise(self, reply: Callable[[int], None], busy: Callable[[int], None]) -> None:
        """Let health ask by `ping`.

        Args:
            reply: called with the key of a ping, between steps and while nothing runs.
            busy: called before each step with the instant until which it may take [monotonic ns].
        """
        self._reply, self._busy = reply, busy

    def ping(self, key: int) -> None:
        """Be asked whether the task still runs."""
        self._owed = key
        self._wake.set()

    def wake(self) -> None:
        """Something changed: look again for work."""
        self._wake.set()

    async def run(self) -> None:
        """Run jobs until cancelled."""
        while True:
            self._answer()
            self._sort_out()
            job = next(iter(self._jobs.runnable()), None)
            if job is None or not await self._run(job):
                await self._wake.wait()
                self._wake.clear()

    def cancel(self, job: Job, detail: str) -> None:
        """End an attempt by command."""
        if job.state not in FINAL_STATES:
            self._end(job, JobState.CANCELLED, detail)

    def abandon(self) -> None:
        """Give up the step under way, whose end nobody expects any more: its job goes back to its checkpoint, or fails
        when the worker has hung in it too often. Whoever calls this starts worker and task again."""
        self._owed = 0  # the task that was asked is gone
        for job in list(self._jobs.jobs.values()):
            if job.state is not JobState.RUNNING:
                continue
            attempt = (job.spec.job_id, job.spec.attempt)
            hangs = self._hangs.get(attempt, 0) + 1
            if hangs > HANGS_MAX:
                self._hangs.pop(attempt, None)
                self._end(job, JobState.FAILED, f"the worker hung {hangs} times in it")
                continue
            self._hangs[attempt] = hangs
            self._jobs.roll_back(job)
            self._jobs.move(job, JobState.READY)
            self._log("job.rolled_back", {"job": job.spec.job_id, "attempt": job.spec.attempt, "step": job.step})

    def _answer(self) -> None:
        if self._owed:
            key, self._owed = self._owed, 0
            self._reply(key)

    def _sort_out(self) -> None:
        """Give up what is late, and see whose objects have come or gone."""
        for job in list(self._jobs.jobs.values()):
            if job.state in FINAL_STATES:
                continue
            if job.expired(self._clock.monotonic_ns()):
                self._end(job, JobState.FAILED, "deadline passed on board")
                continue
            spec = job.spec
            if job.state is JobState.WAITING_OBJECTS and self._store.has(spec.model) and self._store.has(spec.data):
                self._jobs.move(job, JobState.READY)

    async def _run(self, job: Job) -> bool:
        """Work on one job until it ends or must stop; False when nothing more can be done now."""
        spec = job.spec
        try:
            loaded = self._load(job)
            if loaded is not None and self._is_struck(job):
                loaded = self._load(job)
            if loaded is None:
                return True  # it waits for its objects now; another job may run
            model, data = loaded
            step_s = self._runner.step_s(spec.kind, spec.step_mpix)
            step_w = self._runner.step_w(spec.kind)
            verdict = self._verdict(step_w, step_s)
            if not verdict.allowed:
                self._pause(job, verdict.reason)
                return False
            self._jobs.move(job, JobState.RUNNING)
            self._log("job.started", {"job": spec.job_id, "attempt": spec.attempt, "step": job.step})
            return await self._steps(job, model, data, step_w, step_s)
        except StorageError as error:
            self._end(job, JobState.FAILED, f"storage: {error}")
        except (WireError, ConfigError) as error:
            self._end(job, JobState.FAILED, f"input: {error}")
        except BoardError as error:
            self._end(job, JobState.FAILED, f"board: {error}")
        finally:
            self._draw(0.0)
        return True

    async def _steps(self, job: Job, model: Model, data: bytes, step_w: float, step_s: float) -> bool:
        """Step through a job; False when it had to pause."""
        spec = job.spec
        strikes = 0
        first: bytes | None = None
        loads_count = self._models.loads_count(spec.model)
        while job.step < spec.steps_count:
            verdict = self._verdict(step_w, step_s)
            if job.is_held or not verdict.allowed:
                if self._sound(job, loads_count, is_struck=False):
                    self._checkpoint(job)
                self._pause(job, "held by command" if job.is_held else verdict.reason)
                return job.is_held  # another job may run
            self._draw(step_w)
            self._answer()
            self._busy(self._clock.monotonic_ns() + round(STEP_PATIENCE * step_s * NS_PER_S))
            after = await self._step(job, model, data)
            if job.state is not JobState.RUNNING or self._jobs.jobs.get(spec.job_id) is not job:
                return True  # cancelled or replaced by a newer attempt meanwhile
            job.steps_run_count += 1
            job.energy_j += step_w * step_s
            if job.expired(self._clock.monotonic_ns()):
                self._end(job, JobState.FAILED, "deadline passed on board")
                return True
            is_struck = after is None or self._is_struck(job)
            if after is not None and not is_struck and self._parameter("MODELS.duplicate_steps"):
                if first is None:
                    first = after
                    continue
                is_struck = self._disagrees(job, first, after)
            first = None
            if after is not None and not is_struck:
                job.working = after
                job.step += 1
                if job.step % spec.checkpoint_steps and job.step < spec.steps_count:
                    continue
            if self._sound(job, loads_count, is_struck) and not is_struck:
                strikes = 0
                if job.step < spec.steps_count:
                    self._checkpoint(job)
                continue
            strikes += 1
            if strikes > STRIKES_MAX:
                why = f": {self._did_not_run}" if after is None else ""
                self._end(job, JobState.FAILED, f"struck {strikes} times since the last checkpoint{why}")
                return True
            reloaded = self._load(job)
            if reloaded is None:
                return True  # it waits for its objects now
            model = reloaded[0]
            loads_count = self._models.loads_count(spec.model)
        self._complete(job, data)
        return True

    async def _step(self, job: Job, model: Model, data: bytes) -> bytes | None:
        """Run one step; None when it did not run, or its products do not hold: the caller's check mends the model."""
        spec, found = job.spec, ProductChecks()
        checks = found if self._parameter("MODELS.abft") else None
        try:
            return await self._runner.step(spec.kind, model, job.working, data, spec.step_mpix, checks)
        except BoardError as error:  # struck so badly that it does not even run, or its worker died
            self._did_not_run = str(error)
            return None
        finally:
            if found != ProductChecks():
                counts = (found.corrected_count, found.repeated_count, found.refused_count)
                self.checks.corrected_count += found.corrected_count
                self.checks.repeated_count += found.repeated_count
                self.checks.refused_count += found.refused_count
                self._report("MODELS.PRODUCT_STRUCK", spec.job_id, job.step, *counts)

    def _draw(self, load_w: float) -> None:
        self.load_w = load_w
        self._board.set_compute_load_w(load_w)

    def _verdict(self, step_w: float, step_s: float) -> Verdict:
        refusal = self._may_run()
        if refusal is not None:
            return Verdict(False, refusal)
        try:
            sensors = self._board.sensors()
        except SensorError as error:
            return Verdict(False, f"sensors: {error}")
        return self._budget.may_step(sensors, step_w, step_s, self._clock.monotonic_ns())

    def _load(self, job: Job) -> tuple[Model, bytes] | None:
        """Model and input of a job; None, and the job waits, when one of them is missing or rotten."""
        spec = job.spec
        model = self._models.ensure(spec.model)
        if model is None:
            self._want_model(spec.model, spec.model_bytes)
        else:
            try:
                return model, self._store.get(spec.data)
            except StorageError:
                self._want_model(spec.data, spec.data_bytes)
        self._jobs.move(job, JobState.WAITING_OBJECTS)
        self._log("job.waiting", {"job": spec.job_id, "attempt": spec.attempt})
        return None

    def _checkpoint(self, job: Job) -> None:
        self._jobs.checkpoint(job, self._clock.monotonic_ns())
        self._log("job.checkpoint", {"job": job.spec.job_id, "attempt": job.spec.attempt, "step": job.step})

    def _is_struck(self, job: Job) -> bool:
        """Whether the range guard found weights out of range; they are mended, and what they computed is not kept."""
        if not self._parameter("MODELS.range_guard"):
            return False
        found = self._models.guard(job.spec.model)
        if found is not Scrub.HOLDS:
            self._on_upset(job.spec.model, found)
        return found is not Scrub.HOLDS

    def _disagrees(self, job: Job, first: bytes, second: bytes) -> bool:
        """Whether a step that was computed twice came out differently; then neither is kept."""
        if first == second:
            return False
        self.disagreed_count += 1
        self._log("job.disagreed", {"job": job.spec.job_id, "attempt": job.spec.attempt, "step": job.step})
        return True

    def _sound(self, job: Job, loads_count: int, is_struck: bool) -> bool:
        """Whether the weights held since the last checkpoint; if not, mend them and roll the job back. The digest is
        asked when that is on, and when the last step was struck.

        Weights that were loaded again meanwhile did not hold: the periodic scrub mended them, but not what had been
        computed with them before.
        """
        digest = job.spec.model
        is_asked = is_struck or self._parameter("MODELS.scrub_on_checkpoint")
        holds = self._models.holds(digest) if is_asked else True
        if holds and self._models.loads_count(digest) == loads_count:
            return True
        self._jobs.roll_back(job)
        found = self._models.scrub(digest)
        if found is not Scrub.HOLDS:
            self._on_upset(digest, found)
        self._log("job.rolled_back", {"job": job.spec.job_id, "attempt": job.spec.attempt, "step": job.step})
        return False

    def _pause(self, job: Job, reason: str) -> None:
        if job.state is not JobState.PAUSED:
            self._jobs.move(job, JobState.PAUSED)
            job.paused_count += 1
            self._log(
                "job.paused",
                {"job": job.spec.job_id, "attempt": job.spec.attempt, "step": job.step, "reason": reason},
            )

    def _complete(self, job: Job, data: bytes) -> None:
        result, product, measure, is_wanted = self._decided(job, data)
        result_digest = self._store.put(result)
        self._store.pin(result_digest)
        product_digest = b""
        if is_wanted and product:
            product_digest = self._store.put(product)
            self._store.pin(product_digest)
        self._end(job, JobState.COMPLETED, "", result_digest, len(result), product_digest, len(product), measure)

    def _decided(self, job: Job, data: bytes) -> tuple[bytes, bytes, float, bool]:
        """Result, product, measure, and whether the product is wanted; by majority when that is on.

        Raises:
            BoardError: it came out differently three times.
        """
        spec = job.spec

        def decide() -> tuple[bytes, bytes, float, bool]:
            result, product, measure = self._runner.finish(spec.kind, job.working, data)
            return result, product, measure, measure <= spec.product_measure_max

        if not self._parameter("MODELS.vote_results"):
            return decide()
        decision = agreed(decide)
        self.outvoted_count += decision.is_disputed
        return decision.value

    def _end(
        self,
        job: Job,
        state: JobState,
        detail: str,
        result: bytes = b"",
        result_bytes: int = 0,
        product: bytes = b"",
        product_bytes: int = 0,
        measure: float = 0.0,
    ) -> None:
        self._jobs.move(job, state)
        spec = job.spec
        if state is JobState.FAILED and not job.expired(self._clock.monotonic_ns()):
            self.failures_count += 1
        job.report = JobReport(
            node=self._config.node,
            job_id=spec.job_id,
            attempt=spec.attempt,
            state=state,
            detail=detail[:512],
            model=spec.model,
            data=spec.data,
            result=result,
            result_bytes=result_bytes,
            product=product,
            product_bytes=product_bytes,
            measure=measure,
            steps_run_count=job.steps_run_count,
            resumed_count=job.resumed_count,
            paused_count=job.paused_count,
            energy_j=job.energy_j,
            software=self._config.software,
        )
        job.working = job.saved = b""  # nothing resumes from here; the record gets small, the more so on a full disk
        try:
            self._jobs.save(job, self._clock.monotonic_ns())
        except StorageError as error:  # the ground gets the report all the same; a reset would run the attempt again
            self._log("job.unsaved", {"job": spec.job_id, "attempt": spec.attempt, "detail": str(error)})
        self._log(
            "job.ended",
            {"job": spec.job_id, "attempt": spec.attempt, "state": state.name, "detail": detail, "result": result},
        )
        self._on_end(job)


def _unheard(_: int) -> None:
    """Nobody supervises this executor."""
