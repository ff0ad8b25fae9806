"""Planted bugs: the harness is worth its name only if it finds them, and finds nothing where there are none.

Each mutant breaks one mechanism that the rules lean on. It must be found within a few seeds, by the rule (or by the
unmet expectation) that is named with it. A mutant that survives is a hole in the harness.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
import pytest

from flightsw.compute.budget import Verdict
from flightsw.compute.executor import Executor
from flightsw.compute.inference import InferenceCache
from flightsw.compute.jobs import Job, JobTable
from flightsw.core.commanding import LOG_NAME, Commands
from flightsw.net.endpoint import Endpoint
from flightsw.net.forwarding import Forwarder
from flightsw.net.ltp import Span
from flightsw.net.queues import BundleQueue, QueuedBundle
from flightsw.objects.store import ObjectStore, object_name
from flightsw.wire import framing
from flightsw.wire.messages import JobReport, JobState
from flightsw.wire.segments import ReportSegment, Segment
from ground import segment
from ground.cluster import Cluster
from ground.ledger import Claim, Ledger
from hil.bench.invariants import RULES
from hil.bench.run import Bench
from hil.bench.scenario import Scenario, load
from hil.bench.sky import GROUND_NODE
from hil.faults.plan import LinkDegraded, LinkOutage, NodeReset, ObjectRot, WeightUpset

SEEDS = (1, 2, 3)
UNMET = "an unmet expectation"
MonkeyPatch = pytest.MonkeyPatch


@pytest.fixture(scope="module")
def cache() -> InferenceCache:
    return InferenceCache()


# -- scenarios


def short(**changes: Any) -> Scenario:
    """The shipped fleet with 24 small jobs and ten minutes."""
    scenario = load("three-body-12")
    assert scenario.workload is not None, "the shipped scenario computes"
    workload = msgspec.structs.replace(scenario.workload, covers=(0.3,), step_mpix=400.0, deadline_s=500)
    everything = {"jobs_completed": 24, "results_equal": 24}
    fields: dict[str, Any] = {"duration_s": 600.0, "faults": (), "radiation": None, "workload": workload}
    return msgspec.structs.replace(scenario, **({"expect": everything} | fields | changes))


def congested() -> Scenario:
    """Queues so short that bundles must be dropped; what is lost is sent again, as far as the time allows."""
    links = load("three-body-12").links
    ground = msgspec.structs.replace(links.ground, queue_bundles_max=8)
    return short(links=msgspec.structs.replace(links, ground=ground), expect={"bundles_dropped": 1})


def trouble() -> Scenario:
    """A bit of everything while the fleet works. The first answers to commands die with sat-06, which relays them."""
    return short(
        faults=(
            LinkOutage(link="miyun/sat-06", at_s=30.06, duration_s=10.0),
            NodeReset(node="sat-06", at_s=35.0, off_s=6.0),
            *(WeightUpset(node="sat-07", at_s=at_s, when="job_running") for at_s in (35.0, 50.0, 70.0)),
            *(ObjectRot(node=node, at_s=at_s) for at_s in (40.0, 55.0) for node in ("sat-01", "sat-05", "sat-07")),
            NodeReset(node="sat-07", at_s=60.0, when="job_running", off_s=8.0),
            NodeReset(node="sat-02", at_s=45.0, when="job_running", off_s=8.0),
            NodeReset(node="sat-02", at_s=75.0, when="job_running", off_s=8.0),
            LinkDegraded(link="miyun/sat-06", at_s=90.0, duration_s=60.0, bit_error_rate=2e-5, loss=0.05),
        ),
    )


def calm() -> Scenario:
    """Nothing happens; the jobs need two minutes."""
    return short(duration_s=120.0)


def cut_off() -> Scenario:
    """A node is out of reach for longer than an impatient ground waits, and computes all the while."""
    neighbours = ("sat-06/sat-07", "sat-07/sat-08")
    return short(faults=tuple(LinkOutage(link=link, at_s=33.0, duration_s=120.0) for link in neighbours))


def reset_while_cut_off() -> Scenario:
    """As before, and it is reset before anybody has heard of what it did."""
    scenario = cut_off()
    return msgspec.structs.replace(scenario, faults=(*scenario.faults, NodeReset(node="sat-07", at_s=100.0)))


def dusk() -> Scenario:
    """Batteries just above LOW_POWER and jobs that would empty them."""
    scenario = short(duration_s=900.0, expect={})
    nodes = tuple(msgspec.structs.replace(node, initial_charge=0.31) for node in scenario.nodes)
    assert scenario.workload is not None, "the shipped scenario computes"
    workload = msgspec.structs.replace(scenario.workload, step_mpix=4000.0, deadline_s=800)
    return msgspec.structs.replace(scenario, nodes=nodes, workload=workload)


def late_pass() -> Scenario:
    """Commands wait on the ground until they are of no use."""
    scenario = short(expect={})
    assert scenario.workload is not None, "the shipped scenario computes"
    workload = msgspec.structs.replace(scenario.workload, deadline_s=60)
    outages = tuple(LinkOutage(link=f"{station}/sat-06", at_s=0.0, duration_s=120.0) for station in ("miyun", "sanya"))
    return msgspec.structs.replace(scenario, workload=workload, faults=outages)


# -- mutants


def frames_are_not_checked(patch: MonkeyPatch) -> None:
    def decode(self: framing.CobsCrc32c, coded: bytes) -> bytes:
        try:
            return bytes(framing.cobs.decode(coded.removesuffix(b"\0")))[:-4] or b"?"
        except framing.cobs.DecodeError:
            raise framing.FrameError("stuffing") from None

    patch.setattr(framing.CobsCrc32c, "decode", decode)


def acknowledgements_are_dropped(patch: MonkeyPatch) -> None:
    """On the ground alone: a whole fleet that repeats itself for ever takes a minute to watch."""
    receive = Span.receive

    def dropping(self: Span, segment: Segment, now_ns: int) -> None:
        if not isinstance(segment, ReportSegment) or segment.session[0] != GROUND_NODE:
            receive(self, segment, now_ns)

    patch.setattr(Span, "receive", dropping)


def checkpoints_are_not_written(patch: MonkeyPatch) -> None:
    def checkpoint(self: JobTable, job: Job, now_ns: int) -> None:
        job.saved_step, job.saved = job.step, job.working

    patch.setattr(JobTable, "checkpoint", checkpoint)


def ended_jobs_are_not_written(patch: MonkeyPatch) -> None:
    save = JobTable.save

    def saving(self: JobTable, job: Job, now_ns: int) -> None:
        if job.report is None:
            save(self, job, now_ns)

    patch.setattr(JobTable, "save", saving)


def a_job_completes_twice(patch: MonkeyPatch) -> None:
    on_report = Cluster.on_report

    def twice(self: Cluster, report: JobReport, now_ns: int) -> None:
        was_open = report.job_id in self._open
        on_report(self, report, now_ns)
        if was_open and report.job_id not in self._open:
            self._note("job.completed", job=report.job_id, attempt=report.attempt, node="")

    patch.setattr(Cluster, "on_report", twice)


def the_ground_is_impatient(patch: MonkeyPatch) -> None:
    """No bug: attempts are overdue soon, so that late reports come."""
    patch.setattr(segment, "ClusterConfig", partial(segment.ClusterConfig, overdue_s=10.0, overdue_factor=0.0))


def old_attempts_are_not_fenced(patch: MonkeyPatch) -> None:
    the_ground_is_impatient(patch)
    patch.setattr(Ledger, "claim", lambda self, job_id, attempt, node: Claim.NEWEST)
    forget = Cluster._forget

    def keeping(self: Cluster, job: Any) -> None:
        forget(self, job)
        self._open[job.row.job_id] = job
        self._store.pin(job.row.request.model)
        self._store.pin(job.row.request.data)

    patch.setattr(Cluster, "_forget", keeping)


def weights_are_not_checked(patch: MonkeyPatch) -> None:
    patch.setattr(Executor, "_sound", lambda *_: True)
    patch.setattr(Executor, "_is_struck", lambda *_: False)


def repeated_commands_execute_again(patch: MonkeyPatch) -> None:
    receive = Commands.receive

    def forgetful(self: Commands, command: Any, age_ms: int) -> Any:
        self._done.pop(command.command_id, None)
        return receive(self, command, age_ms)

    patch.setattr(Commands, "receive", forgetful)


def a_reset_forgets_executed_commands(patch: MonkeyPatch) -> None:
    begin = Commands.__init__

    def fresh(self: Commands, node: int, disk: Any, *rest: Any) -> None:
        for copy in disk.names(f"{LOG_NAME}."):
            disk.remove(copy)
        begin(self, node, disk, *rest)

    patch.setattr(Commands, "__init__", fresh)


def commands_never_expire(patch: MonkeyPatch) -> None:
    refusal, send = Commands._refusal, Endpoint.send

    def patient(self: Commands, command: Any, age_ms: int) -> Any:
        return refusal(self, command, 0)

    def undying(self: Endpoint, *args: Any, lifetime_ms: int, **rest: Any) -> Any:
        return send(self, *args, lifetime_ms=lifetime_ms + 3_600_000, **rest)

    patch.setattr(Commands, "_refusal", patient)
    patch.setattr(Endpoint, "send", undying)


def reports_are_acknowledged_without_their_result(patch: MonkeyPatch) -> None:
    on_report = Cluster.on_report

    def hasty(self: Cluster, report: JobReport, now_ns: int) -> None:
        self._acknowledge(report)
        on_report(self, report, now_ns)

    patch.setattr(Cluster, "on_report", hasty)


def stored_objects_are_not_checked(patch: MonkeyPatch) -> None:
    def read(self: ObjectStore, digest: bytes) -> bytes:
        return self._disk.read(object_name(digest))

    patch.setattr(ObjectStore, "_read_checked", read)


def a_resubmitted_job_starts_over(patch: MonkeyPatch) -> None:
    submit = JobTable.submit

    def careless(self: JobTable, spec: Any, now_ns: int) -> str | None:
        held = self.jobs.get(spec.job_id)
        if held is not None and held.spec.attempt == spec.attempt:
            self.jobs[spec.job_id] = Job(spec, accepted_ns=now_ns)
            self.save(self.jobs[spec.job_id], now_ns)
            return None
        return submit(self, spec, now_ns)

    patch.setattr(JobTable, "submit", careless)


def energy_is_spent_without_limit(patch: MonkeyPatch) -> None:
    patch.setattr(Executor, "_verdict", lambda self, step_w, step_s: Verdict(True))


def resumed_work_is_dropped(patch: MonkeyPatch) -> None:
    """A job that was paused, or found again after a reset, never goes on."""
    runnable = JobTable.runnable

    def impatient(self: JobTable) -> list[Job]:
        return [job for job in runnable(self) if job.state is not JobState.PAUSED and not job.resumed_count]

    patch.setattr(JobTable, "runnable", impatient)


def queues_have_no_bound(patch: MonkeyPatch) -> None:
    def push(self: BundleQueue, queued: QueuedBundle) -> None:
        self.pushed_count += 1
        self._levels[queued.priority][queued.order] = queued
        self._count += 1

    patch.setattr(BundleQueue, "push", push)


def displaced_bundles_are_not_reported(patch: MonkeyPatch) -> None:
    patch.setattr(Forwarder, "_push", lambda self, queue, queued, now_ns: queue.push(queued))


def a_queue_loses_bundles_silently(patch: MonkeyPatch) -> None:
    pop = BundleQueue.pop

    def leaky(self: BundleQueue) -> QueuedBundle | None:
        if self._count > 4:
            level = next(level for level in self._levels if level)
            level.popitem()
            self._count -= 1
        return pop(self)

    patch.setattr(BundleQueue, "pop", leaky)


@dataclass(frozen=True)
class Mutant:
    """A bug and what must find it."""

    plant: Callable[[MonkeyPatch], None]
    found_by: int | str
    """Number of the rule, or `UNMET`."""
    scenario: Callable[[], Scenario] = trouble


MUTANTS = (
    Mutant(frames_are_not_checked, 2),
    Mutant(acknowledgements_are_dropped, UNMET, calm),
    Mutant(checkpoints_are_not_written, 4),
    Mutant(ended_jobs_are_not_written, 4, reset_while_cut_off),
    Mutant(a_job_completes_twice, 1),
    Mutant(old_attempts_are_not_fenced, 1, cut_off),
    Mutant(weights_are_not_checked, 2),
    Mutant(repeated_commands_execute_again, 3),
    Mutant(a_reset_forgets_executed_commands, 3),
    Mutant(commands_never_expire, 3, late_pass),
    Mutant(reports_are_acknowledged_without_their_result, 1),
    Mutant(stored_objects_are_not_checked, 2),
    Mutant(a_resubmitted_job_starts_over, 4),
    Mutant(energy_is_spent_without_limit, 5, dusk),
    Mutant(resumed_work_is_dropped, UNMET),
    Mutant(queues_have_no_bound, 6, congested),
    Mutant(displaced_bundles_are_not_reported, 6, congested),
    Mutant(a_queue_loses_bundles_silently, 6, congested),
)


def findings(scenario: Scenario, seed: int, cache: InferenceCache) -> dict[int | str, str]:
    """What the harness says of a run: rule, or `UNMET` -> the first complaint."""
    outcome = Bench(scenario, seed, cache=cache).run()
    found: dict[int | str, str] = {}
    for violation in outcome.violations:
        found.setdefault(violation.rule, f"{violation.t_ns / 1e9:.3f} s: {violation.text}")
    if outcome.unmet:
        found[UNMET] = outcome.unmet[0]
    return found


def test_every_rule_finds_a_planted_bug() -> None:
    """A rule that no bug can break is a rule that nobody judges."""
    assert {mutant.found_by for mutant in MUTANTS} - {UNMET} == set(RULES)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.plant.__name__)
def test_a_planted_bug_is_found(mutant: Mutant, cache: InferenceCache, monkeypatch: MonkeyPatch) -> None:
    mutant.plant(monkeypatch)
    heard: list[dict[int | str, str]] = []
    for seed in SEEDS:
        heard.append(findings(mutant.scenario(), seed, cache))
        if mutant.found_by in heard[-1]:
            return
    wanted = RULES.get(mutant.found_by, "") if isinstance(mutant.found_by, int) else ""
    pytest.fail(f"survived {len(SEEDS)} seeds: expected {mutant.found_by} {wanted}, the harness said {heard}")


@pytest.mark.parametrize("seed", [SEEDS[0], *(pytest.param(seed, marks=pytest.mark.slow) for seed in SEEDS[1:])])
@pytest.mark.parametrize(
    "scenario",
    [trouble, calm, dusk, late_pass, cut_off, reset_while_cut_off, congested],
    ids=lambda scenario: scenario.__name__,
)
def test_without_a_bug_the_same_run_passes(
    scenario: Callable[[], Scenario], seed: int, cache: InferenceCache, monkeypatch: MonkeyPatch
) -> None:
    if scenario is cut_off:
        the_ground_is_impatient(monkeypatch)
    assert findings(scenario(), seed, cache) == {}
