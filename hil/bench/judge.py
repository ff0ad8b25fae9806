"""The verdict of a run: the rules that need the whole run, the comparison with the reference, the numbers of the
summary."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from flightsw.compute import cloud_mask
from flightsw.compute.inference import InferenceCache
from flightsw.net.agent import BundleAgent
from flightsw.objects.digest import digest_of
from flightsw.wire.messages import JobReport, Mode
from hil.bench.accounts import Accounts, NodeCounts
from hil.bench.compare import PIXELS_DIFFERING_MAX, masks_agree
from hil.bench.invariants import Monitor, Violation
from hil.bench.member import Member
from hil.bench.sky import FIRST_NODE
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
        is_whole: whether it ran to the scenario's end; else open jobs and expectations were not judged.
        interrupted: whether the user stopped it.
        crash: traceback of what flight or ground code raised and nobody caught; empty when nothing was.
        time_scale: mission seconds in a second of the machine, 0 in virtual time.
        bounds: laws that could only be judged as bounds, and of whom, in words.
        lag: how far the machine was behind, in words; empty when it kept up.
        absent: boards that were missing, and why.
    """

    digest: str
    counters: dict[str, float]
    violations: list[Violation]
    results: dict[int, JobResult]
    unmet: list[str]
    ended_ns: int
    fired: dict[str, int]
    is_whole: bool = True
    interrupted: bool = False
    crash: str = ""
    time_scale: float = 0.0
    bounds: list[str] = field(default_factory=list)
    lag: str = ""
    absent: dict[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """The verdict."""
        return not (self.violations or self.unmet or self.interrupted or self.crash)


@dataclass(frozen=True, slots=True)
class FrameEnd:
    """Where frames end: a node and what it says became of them."""

    node: int
    counts: NodeCounts
    is_exact: bool = True
    """Whether nothing that was delivered can be missing from the counts."""
    late: int = 0
    """Frames that held and were refused because they came after the contact that they belonged to: real time alone."""


def judge_frames(monitor: Monitor, relay: Relay, ends: Mapping[str, FrameEnd], now_ns: int) -> None:
    """Conservation: a node accepted what was delivered clean and what it corrected, and rejected all else.

    Where counts may be missing, those that are there are judged as bounds: nobody accepts or rejects more than was
    delivered.
    """
    clean, flipped = relay.delivered_clean, relay.delivered_flipped
    for name, end in ends.items():
        counts = end.counts
        delivered = sum(count for (node, _), count in clean.items() if node == end.node)
        struck = sum(count for (node, _), count in flipped.items() if node == end.node)
        accepted, rejected = delivered + counts.frames_corrected - end.late, struck - counts.frames_corrected
        if end.is_exact:
            holds = counts.frames_accepted == accepted and counts.frames_rejected == rejected
        else:
            holds = counts.frames_accepted <= accepted and counts.frames_rejected <= rejected
        monitor.require(
            2,
            now_ns,
            holds,
            f"{name}: accepted {counts.frames_accepted} frames of {delivered} delivered clean, corrected "
            f"{counts.frames_corrected} and rejected {counts.frames_rejected} of {struck} delivered with flips"
            + (f", {end.late} came late" if end.late else ""),
        )


def judge_bounds(monitor: Monitor, name: str, agent: BundleAgent, now_ns: int) -> None:
    """No queue is longer than it may be, at this instant; that its length is true, `judge_queues` sees to."""
    for queue in agent.queues():
        if len(queue) > queue.bundles_max:
            monitor.require(6, now_ns, False, f"{name}: {len(queue)} bundles wait where {queue.bundles_max} may")


def judge_queues(monitor: Monitor, accounts: Mapping[str, Accounts], now_ns: int) -> None:
    """Bundle queues lose nothing silently and keep their bound, and the agent says what they dropped."""
    for name, books in accounts.items():
        displaced = 0
        for queue in books.queues:
            displaced += queue.displaced
            monitor.require(
                6,
                now_ns,
                queue.held == queue.length,
                f"{name}: {queue.held} bundles wait, the queue says {queue.length}",
            )
            monitor.require(
                6,
                now_ns,
                queue.length <= queue.bundles_max,
                f"{name}: {queue.length} bundles wait where {queue.bundles_max} may",
            )
            monitor.require(
                6,
                now_ns,
                queue.pushed == queue.taken + queue.displaced + queue.held,
                f"{name}: of {queue.pushed} bundles queued, {queue.taken} were taken, "
                f"{queue.displaced} displaced and {queue.held} wait",
            )
        dropped = books.dropped
        monitor.require(6, now_ns, dropped >= displaced, f"{name}: {displaced} bundles displaced, {dropped} reported")


def judge_channel(monitor: Monitor, relay: Relay, now_ns: int) -> None:
    """Every frame handed to a link is accounted for: it arrived, or is counted as lost, blocked or dropped."""
    for link, directions in relay.counts().items():
        for name, c in directions.items():
            ends = c.delivered + c.lost + c.blocked() + c.queue_dropped + c.flushed
            monitor.require(
                6, now_ns, c.sent + c.duplicated == ends, f"{link} {name}: {c.sent + c.duplicated} frames, {ends} ends"
            )
    arrived = sum((*relay.delivered_clean.values(), *relay.delivered_flipped.values(), *relay.dropped_off.values()))
    on_their_way, left = relay.in_flight_count(), relay.total().delivered
    monitor.require(
        6, now_ns, left == arrived + on_their_way, f"{left} frames left links, {arrived} arrived, {on_their_way} fly"
    )


def judge_energy(monitor: Monitor, members: Iterable[Member], now_ns: int, patience_ns: int = 0) -> None:
    """Nobody drew what was not there, the accounts balance, and SAFE nodes still beacon.

    Args:
        monitor: takes the violations.
        members: the fleet.
        now_ns: the present instant [ns].
        patience_ns: how late a beacon may be in real time because the machine was busy [ns].
    """
    for member in members:
        name, energy, books = member.config.name, member.energy(), member.accounts()
        if energy is None:
            continue  # a board that tells nobody
        account = energy.account
        balance_j = account.initial_j + account.harvested_j - account.drawn_j - account.lost_j - account.shunted_j
        monitor.require(
            5,
            now_ns,
            account.unserved_j == 0.0 and abs(balance_j - energy.charge_j) < ENERGY_TOLERANCE_J,
            f"{name}: drew {account.unserved_j:.3f} J that were not there; balance {balance_j - energy.charge_j:.3f} J",
        )
        if books is not None and books.mode == Mode.SAFE.name:
            silent_ns = now_ns - books.beaconed_ns
            limit_ns = round(2 * (member.config.beacon_period_s + member.config.tick_period_s) * NS_PER_S) + patience_ns
            monitor.require(5, now_ns, silent_ns <= limit_ns, f"{name}: SAFE and no beacon for {silent_ns} ns")


def judge_results(
    monitor: Monitor,
    workload: Workload,
    items: dict[int, Item],
    results: dict[int, JobResult],
    cache: InferenceCache,
    now_ns: int,
    foreign: frozenset[int] = frozenset(),
) -> dict[str, float]:
    """Compare what came down with the fault-free reference; returns the numbers on it.

    Byte for byte, but for masks that another processor may have computed: those may differ in as many pixels as
    `hil.bench.compare` tolerates, and then their products do too. A product must be there, or not, as in the
    reference, unless so few pixels decide that. Jobs that are none of the workload's have no reference.

    Args:
        monitor: takes the violations.
        workload: what was to be done.
        items: job -> its work.
        results: job -> what came down.
        cache: inference results, for the reference.
        now_ns: the present instant [ns].
        foreign: indices of the nodes on other processors.
    """
    equal, within, saved_bytes, down_bytes, agreeing, judged = 0, 0, 0, 0, 0, 0
    for job, done in sorted(results.items()):
        if job not in items:
            continue  # an operator's
        item, report = items[job], done.report
        reference = workload.reference(item, cache)
        threshold = workload.spec.product_cover_max
        wanted = reference.measure <= threshold
        is_same_mask = done.result == reference.result
        same = is_same_mask and report.product == (digest_of(reference.product) if wanted else b"")
        agrees = (
            report.node - FIRST_NODE in foreign
            and not is_same_mask
            and (bool(report.product) == wanted or abs(reference.measure - threshold) <= PIXELS_DIFFERING_MAX)
            and masks_agree(done.result, reference.result)
        )
        monitor.require(
            2, now_ns, same or agrees, f"job {job}: what node {report.node} brought is not the fault-free reference"
        )
        equal += same
        within += agrees
        down_bytes += report.result_bytes + (report.product_bytes if report.product else 0)
        saved_bytes += 0 if report.product else report.product_bytes
        if item.truth is not None:
            agreeing += int((cloud_mask.decode_mask(done.result) == item.truth).sum())
            judged += item.truth.size
    counters: dict[str, float] = {
        "results_equal": equal,
        **({"results_within_tolerance": within} if foreign else {}),
        "downlinked_bytes": down_bytes,
        "saved_bytes": saved_bytes,
        "energy_jobs_j": round(sum(done.report.energy_j for done in results.values()), 1),
        "last_job_s": round(max((done.completed_ns for done in results.values()), default=0) / NS_PER_S, 1),
    }
    if judged:
        counters["mask_accuracy_percent"] = round(100 * agreeing / judged, 2)
    return counters
