"""The verdict of a run: the rules that need the whole run, the comparison with the reference, the numbers of the
summary."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from flightsw.compute import cloud_mask
from flightsw.compute.inference import InferenceCache
from flightsw.objects.digest import digest_of
from flightsw.wire.messages import JobReport, Mode
from hil.bench.invariants import Monitor, Violation
from hil.bench.satellite import NodeCounts, Satellite
from hil.bench.sky import GROUND_NODE
from hil.bench.workload import Item, Workload
from hil.channel.relay import Relay

NS_PER_S: Final = 1_000_000_000
ENERGY_TOLERANCE_J: Final = 1.0
"""Rounding of some ten thousand additions in an energy account [J]."""


@dataclass(slots=True)
class JobResult:
    """What came down for one job."""

    report: JobReport
    result: bytes
    completed_ns: int


@dataclass(slots=True)
class Outcome:
    """A finished run.

    Attributes:
        digest: the trace's digest, the identity of the run.
        counters: name -> number, everything that the summary prints.
        violations: broken rules.
        results: job -> what came down.
        unmet: expectations of the scenario that were not met, in words.
        ended_ns: virtual time at the end.
        fired: fault kind -> times that it struck.
        interrupted: whether the user stopped it.
        crash: traceback of what flight or ground code raised and nobody caught; empty when nothing was.
    """

    digest: str
    counters: dict[str, float]
    violations: list[Violation]
    results: dict[int, JobResult]
    unmet: list[str]
    ended_ns: int
    fired: dict[str, int]
    interrupted: bool = False
    crash: str = ""

    @property
    def passed(self) -> bool:
        """The verdict."""
        return not (self.violations or self.unmet or self.interrupted or self.crash)


def judge_frames(
    monitor: Monitor, relay: Relay, satellites: Iterable[Satellite], ground: NodeCounts, now_ns: int
) -> None:
    """Conservation: a node accepted what was delivered clean and what it corrected, and rejected all else."""
    clean, flipped = relay.delivered_clean, relay.delivered_flipped
    ends = {satellite.config.name: (satellite.config.node, satellite.totals()) for satellite in satellites}
    ends["ground"] = (GROUND_NODE, ground)
    for name, (number, counts) in ends.items():
        delivered = sum(count for (node, _), count in clean.items() if node == number)
        struck = sum(count for (node, _), count in flipped.items() if node == number)
        monitor.require(
            2,
            now_ns,
            counts.frames_accepted == delivered + counts.frames_corrected
            and counts.frames_rejected == struck - counts.frames_corrected,
            f"{name}: accepted {counts.frames_accepted} frames of {delivered} delivered clean, corrected "
            f"{counts.frames_corrected} and rejected {counts.frames_rejected} of {struck} delivered with flips",
        )


def judge_energy(monitor: Monitor, satellites: Iterable[Satellite], now_ns: int) -> None:
    """Nobody drew what was not there, the accounts balance, and SAFE nodes still beacon."""
    for satellite in satellites:
        name, account = satellite.config.name, satellite.board.account
        left_j = satellite.board.sensors().charge_j
        balance_j = account.initial_j + account.harvested_j - account.drawn_j - account.lost_j - account.shunted_j
        monitor.require(
            5,
            now_ns,
            account.unserved_j == 0.0 and abs(balance_j - left_j) < ENERGY_TOLERANCE_J,
            f"{name}: drew {account.unserved_j:.3f} J that were not there; balance {balance_j - left_j:.3f} J",
        )
        node = satellite.node
        if node is not None and node.modes.mode is Mode.SAFE:
            silent_ns = now_ns - node.beaconed_ns
            limit_ns = round(2 * (node.config.beacon_period_s + node.config.tick_period_s) * NS_PER_S)
            monitor.require(5, now_ns, silent_ns <= limit_ns, f"{name}: SAFE and no beacon for {silent_ns} ns")


def judge_results(
    monitor: Monitor,
    workload: Workload,
    items: dict[int, Item],
    results: dict[int, JobResult],
    cache: InferenceCache,
    now_ns: int,
) -> dict[str, float]:
    """Compare what came down with the fault-free reference, byte for byte; returns the numbers on it."""
    equal, saved_bytes, down_bytes, agreeing, judged = 0, 0, 0, 0, 0
    for job, done in sorted(results.items()):
        item, report = items[job], done.report
        reference = workload.reference(item, cache)
        wanted = reference.measure <= workload.spec.product_cover_max
        same = done.result == reference.result and report.product == (digest_of(reference.product) if wanted else b"")
        monitor.require(2, now_ns, same, f"job {job}: what node {report.node} brought is not the fault-free reference")
        equal += same
        down_bytes += report.result_bytes + (report.product_bytes if report.product else 0)
        saved_bytes += 0 if report.product else report.product_bytes
        if item.truth is not None:
            agreeing += int((cloud_mask.decode_mask(done.result) == item.truth).sum())
            judged += item.truth.size
    counters: dict[str, float] = {
        "results_equal": equal,
        "downlinked_bytes": down_bytes,
        "saved_bytes": saved_bytes,
        "energy_jobs_j": round(sum(done.report.energy_j for done in results.values()), 1),
        "last_job_s": round(max((done.completed_ns for done in results.values()), default=0) / NS_PER_S, 1),
    }
    if judged:
        counters["mask_accuracy_percent"] = round(100 * agreeing / judged, 2)
    return counters
