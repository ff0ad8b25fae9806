"""What becomes of a run: what the bench watches while it goes on, and the verdict with its numbers at the end."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from flightsw.compute.inference import InferenceCache
from hil.bench.accounts import Accounts, NodeCounts
from hil.bench.invariants import Monitor
from hil.bench.judge import (
    FrameEnd,
    JobResult,
    Outcome,
    judge_channel,
    judge_energy,
    judge_frames,
    judge_queues,
    judge_results,
)
from hil.bench.member import Ground, Member
from hil.bench.scenario import Scenario, foreign_processors
from hil.bench.sky import FIRST_NODE, GROUND_NODE
from hil.bench.workload import Item, Workload
from hil.channel.external import ExternalNode
from hil.channel.relay import Relay
from hil.sim.trace import Trace

NS_PER_S: Final = 1_000_000_000


@dataclass(slots=True)
class Audit:
    """Follows a run from outside and judges it.

    Attributes:
        scenario: what runs.
        workload: its work, if it has any.
        relay, trace: those of the run.
        members: satellites by name.
        cache: inference results, for the reference.
        items: job -> its work. results: job -> what came down.
        patience_ns: how late a machine that keeps up in real time may make a beacon [ns].
    """

    scenario: Scenario
    workload: Workload | None
    relay: Relay
    trace: Trace
    members: Mapping[str, Member]
    cache: InferenceCache
    monitor: Monitor = field(default_factory=Monitor)
    items: dict[int, Item] = field(default_factory=dict)
    results: dict[int, JobResult] = field(default_factory=dict)
    patience_ns: int = 0
    externals: dict[int, ExternalNode] = field(default_factory=dict)
    """Foreign nodes by number."""
    absent: Mapping[str, str] = field(default_factory=dict)
    """Boards that are missing, and why."""
    _lowest_share: float = 1.0
    _hottest_degc: float = -273.15

    def watch(self, ground: Ground, now_ns: int) -> None:
        """Look at boards, queues and traffic: extremes that no node reports."""
        for member in self.members.values():
            energy = member.energy()
            if energy is None:
                continue  # a board that tells nobody
            self._lowest_share = min(self._lowest_share, energy.charge_share)
            self._hottest_degc = max(self._hottest_degc, energy.electronics_degc)
        judge_queues(self.monitor, self._accounts(ground), now_ns)
        channel = self.relay.total()
        # ties the digest to every frame, which would be too many to record one by one
        traffic = {"sent": channel.sent, "bytes": channel.delivered_bytes, "flipped_bits": channel.flipped_bits}
        self.trace.record(now_ns, "bench", "channel", traffic)

    def judge(
        self,
        ground: Ground,
        digest: str,
        now_ns: int,
        *,
        reached_end: bool,
        interrupted: bool,
        crash: str,
    ) -> Outcome:
        """The verdict.

        Args:
            ground: mission control, as it ended.
            digest: of the trace.
            now_ns: when the run ended [ns].
            reached_end: whether it was to run to the scenario's end.
            interrupted: by the user.
            crash: traceback of flight or ground, empty without.
        """
        is_whole = reached_end and not (interrupted or crash)
        if is_whole:  # a run that was stopped early leaves jobs open, and nobody broke a promise
            self.monitor.finish(now_ns)
        if not crash:  # which stops in the middle of a delivery
            judge_queues(self.monitor, self._accounts(ground), now_ns)
            judge_channel(self.monitor, self.relay, now_ns)
            judge_frames(self.monitor, self.relay, self._frame_ends(ground), now_ns)
        judge_energy(self.monitor, self.members.values(), now_ns, self.patience_ns)
        counters = self._count(ground, now_ns)
        if self.workload is not None:
            foreign = foreign_processors(self.scenario)
            counters |= judge_results(
                self.monitor, self.workload, self.items, self.results, self.cache, now_ns, foreign
            )
        counts = self.trace.counts
        unmet = []
        if is_whole:
            for name, least in sorted(self.scenario.expect.items()):
                value = counters.get(name, counts.get(name, 0))
                if value < least:
                    unmet.append(f"expect.{name}: {value:g}, at least {least} asked")
        return Outcome(
            digest=digest,
            counters=counters,
            violations=self.monitor.violations,
            results=self.results,
            unmet=unmet,
            ended_ns=now_ns,
            fired={kind: count for kind, count in sorted(counts.items()) if kind.startswith("fault.")},
            is_whole=is_whole,
            interrupted=interrupted,
            crash=crash,
            bounds=self._bounds(ground),
            absent=dict(self.absent),
        )

    def _bounds(self, ground: Ground) -> list[str]:
        """Which laws could only be judged as bounds, and of whom."""
        loose = [name for name, member in self.members.items() if not member.is_exact]
        loose += [] if ground.is_exact else ["ground"]
        texts = []
        if loose:
            texts.append(f"rule 2, frames accepted and rejected are at most those delivered: {', '.join(loose)}")
        silent = [name for name, member in self.members.items() if member.energy() is None]
        if silent:
            texts.append(f"all rules of a satellite, by what the ground heard of it alone: {', '.join(silent)}")
        if boots := self.monitor.bounded_boots:
            texts.append(f"rule 4, recovered state is not behind what was told before a kill: {', '.join(boots)}")
        return texts

    def _accounts(self, ground: Ground) -> dict[str, Accounts]:
        known = {name: accounts for name, member in self.members.items() if (accounts := member.accounts()) is not None}
        return known | {"ground": ground.accounts()}

    def _frame_ends(self, ground: Ground) -> dict[str, FrameEnd]:
        ends = {name: self._frame_end(m.config.node, m.totals(), m.is_exact) for name, m in self.members.items()}
        for number, external in self.externals.items():
            counts = external.counts
            taken = NodeCounts(
                frames_accepted=counts.delivered_count,
                frames_corrected=counts.corrected_count,
                frames_rejected=counts.rejected_count,
            )
            ends[self.scenario.nodes[number - FIRST_NODE].name] = FrameEnd(number, taken)
        return ends | {"ground": self._frame_end(GROUND_NODE, ground.accounts().counts, ground.is_exact)}

    def _frame_end(self, node: int, counts: NodeCounts, is_exact: bool) -> FrameEnd:
        """In virtual time nothing comes late, and a frame that held but was refused breaks the rule."""
        return FrameEnd(node, counts, is_exact, counts.segments_rejected if self.patience_ns else 0)

    def _count(self, ground: Ground, now_ns: int) -> dict[str, float]:
        """Numbers of the whole run."""
        events, channel, monitor = self.trace.counts, self.relay.total(), self.monitor
        counts = sum((member.totals() for member in self.members.values()), ground.accounts().counts)
        assert isinstance(counts, NodeCounts), "a sum of counts"
        ends = [end for ended in monitor.ended.values() for end in ended]
        energies = [member.energy() for member in self.members.values()]
        return {
            "jobs_accepted": len(monitor.accepted),
            "jobs_completed": ends.count("job.completed"),
            "jobs_failed": ends.count("job.failed"),
            "attempts_placed": events.get("job.placed", 0),
            "jobs_paused": events.get("job.paused", 0),
            "jobs_paused_energy": monitor.pauses.get("energy", 0),
            "jobs_paused_heat": monitor.pauses.get("temperature", 0),
            "jobs_resumed": events.get("job.resumed", 0),
            "uplinked_bytes": ground.uplinked_bytes,
            "frames_sent": channel.sent,
            "frames_lost": channel.lost + channel.blocked() + channel.queue_dropped,
            "bits_flipped": channel.flipped_bits,
            "frames_flipped_rejected": channel.flipped_frames,
            "frames_corrected": counts.frames_corrected,
            "frames_rejected": counts.frames_rejected,
            "retransmissions": counts.retransmissions,
            "bundles_rerouted": counts.rerouted,
            "bundles_dropped": counts.dropped,
            "node_resets": events.get("fault.node_reset", 0),
            "link_outages": events.get("fault.link_outage", 0),
            "weight_upsets": events.get("fault.upset", 0) + events.get("fault.weight_upset", 0),
            "upset_acceleration": 0 if self.scenario.radiation is None else self.scenario.radiation.acceleration,
            "models_repaired": counts.models_repaired,
            "jobs_rolled_back": events.get("job.rolled_back", 0),
            "energy_drawn_j": round(sum(energy.account.drawn_j for energy in energies if energy is not None)),
            "lowest_charge_percent": round(100 * self._lowest_share, 1),
            "hottest_degc": round(self._hottest_degc, 1),
            "virtual_s": round(now_ns / NS_PER_S, 1),
            "trace_events": self.trace.events_count,
        }
