"""One run: composes the fleet, the ground, the links and the world of a scenario, runs them in virtual time, and judges.

Same scenario, seed and commit: same trace, digest for digest. Nothing here reads a wall clock but to say what the run cost.
"""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from boards import profiles
from boards.simulated.board import SimulatedBoard
from boards.simulated.clock import LoopClock
from flightsw.compute import cloud_mask
from flightsw.compute.inference import InferenceCache
from flightsw.config import InterfaceConfig, NodeConfig
from flightsw.core.dictionary import DICTIONARY_DIGEST
from flightsw.link.memory import MemoryLink
from flightsw.net.contacts import ContactPlan
from flightsw.objects.digest import digest_of
from flightsw.ports import Random, ResetCause
from flightsw.wire.messages import JobReport, Mode
from ground.cluster import FleetNode
from ground.ledger import JobRequest
from ground.segment import GroundSegment
from hil.bench import sky as sky_of
from hil.bench.invariants import Monitor, Violation
from hil.bench.satellite import NodeCounts, Satellite
from hil.bench.scenario import LinkSpec, Scenario, isl_pairs
from hil.bench.sky import FIRST_NODE, GROUND_NODE, RADIO, Sky, SunlightTable, isl_terminals
from hil.bench.workload import KIND, Item, Workload, mosaic_rows
from hil.channel.impairments import Impairments
from hil.channel.link import Link
from hil.channel.relay import Relay
from hil.faults.injector import Injector
from hil.faults.plan import LinkDegraded
from hil.imagery.mosaic import MosaicRow
from hil.sim.disk import SimulatedDisk
from hil.sim.fence import fence
from hil.sim.loop import VirtualLoop
from hil.sim.streams import Streams
from hil.sim.trace import Trace

NS_PER_S: Final = 1_000_000_000
BROWN_OUT_CHECK_S: Final = 120.0
"""A node that browned out looks for charge at this period [s]."""
BROWN_OUT_BOOT_SHARE: Final = 0.2
"""Charge share at which it boots again."""
DISK_BYTES: Final = 64 * 1024 * 1024
"""Simulated disk of a node: real bytes in this process's memory, so smaller than the profile's storage."""
WATCH_S: Final = 60.0
"""Period at which the bench looks at charge and temperature of every board [s]."""
ENERGY_TOLERANCE_J: Final = 1.0
"""Rounding of some ten thousand additions in an energy account [J]."""
GROUND_DISK_BYTES: Final = 1024 * 1024 * 1024


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
    """

    digest: str
    counters: dict[str, float]
    violations: list[Violation]
    results: dict[int, JobResult]
    unmet: list[str]
    ended_ns: int
    fired: dict[str, int]
    interrupted: bool = False

    @property
    def passed(self) -> bool:
        """The verdict."""
        return not self.violations and not self.unmet and not self.interrupted


@dataclass(slots=True)
class Progress:
    """What a live display may show."""

    now_ns: int
    until_ns: int
    jobs_accepted: int
    jobs_ended: int
    counters: dict[str, int] = field(default_factory=dict)


class Bench:
    """One run of a scenario in virtual time.

    Args:
        scenario: what to run.
        seed: of all chance.
        until_s: stop earlier than the scenario says [s].
        folder: where trace, ledger and archive go; None keeps them in memory.
        workload: prepared by the caller when it wants the user's own scene; made here otherwise.
        cache: inference results shared by runs of this process.
        on_progress: called every `progress_s` of virtual time.
    """

    def __init__(
        self,
        scenario: Scenario,
        seed: int,
        *,
        until_s: float | None = None,
        folder: Path | None = None,
        user_scene: Path | None = None,
        cache: InferenceCache | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        progress_s: float = 60.0,
        header: dict[str, Any] | None = None,
    ) -> None:
        self.scenario = scenario
        self.seed = seed
        self.until_ns = (
            scenario.duration_ns if until_s is None else min(scenario.duration_ns, round(until_s * NS_PER_S))
        )
        self.streams = Streams(seed)
        self.cache = cache or InferenceCache()
        self.sky: Sky = sky_of.compute(scenario)
        self.workload = None if scenario.workload is None else Workload(scenario.workload, self.streams, user_scene)
        self.items: dict[int, Item] = {}
        self.results: dict[int, JobResult] = {}
        self.satellites: dict[str, Satellite] = {}
        self.monitor = Monitor()
        self.loop = VirtualLoop()
        self.trace = Trace(
            None if folder is None else folder / "trace.jsonl",
            {
                "scenario": scenario.name,
                "scenario_digest": scenario_digest(scenario),
                "seed": seed,
                "until_ns": self.until_ns,
                **(header or {}),
            },
        )
        self.trace.subscribe(self.monitor.observe)
        self._folder = folder
        self._on_progress = on_progress
        self._progress_s = progress_s
        self._crash: BaseException | None = None
        self._lowest_share = 1.0
        self._hottest_degc = -273.15
        self._stop = asyncio.Event()
        self._links: dict[str, list[Link]] = {}
        self._relay = Relay(self.loop.call_at_ns, lambda: self.loop.now_ns)

    def run(self) -> Outcome:
        """Run to the end, or until interrupted.

        Raises:
            SimulationError: the run itself is unsound.
        """
        interrupted = False
        try:
            with asyncio.Runner(loop_factory=lambda: self.loop) as runner, fence(self.loop):
                runner.run(self._main())
        except KeyboardInterrupt:
            interrupted = True
        finally:
            digest = self.trace.close()
        return self._judge(digest, interrupted)

    # -- composition

    async def _main(self) -> None:
        self._connect()
        plan = self.sky.plan(self.scenario)
        clock = LoopClock(lambda: self.loop.now_ns, self.scenario.epoch_utc_ns)
        for index in range(len(self.scenario.nodes)):
            self._make_satellite(index, plan, clock)
        self._make_ground(plan, clock)
        self._arm_faults()
        self._watch()
        if self._on_progress is not None:
            self._tell_progress()
        for satellite in self.satellites.values():
            satellite.boot(ResetCause.POWER_ON)
        self.ground.start()
        if self.workload is not None:
            self.loop.call_at_ns(round(self.workload.spec.submit_at_s * NS_PER_S), self._submit, 0)
        self.loop.call_at_ns(self.until_ns, self._stop.set)
        try:
            await self._stop.wait()
        finally:
            for satellite in self.satellites.values():
                satellite.stop()
            await self.ground.close()
        if self._crash is not None:
            raise self._crash

    def _connect(self) -> None:
        links: dict[tuple[str, tuple[int, int], tuple[int, int]], Link] = {}
        for sight in self.sky.sights:
            key = (sight.link, sight.a, sight.b)
            spec = self._link_spec(sight.a[0])
            if key not in links:
                antennas = self._links.setdefault(sight.link, [])
                name = sight.link if not antennas else f"{sight.link}#{len(antennas) + 1}"
                links[key] = Link(name, spec.impairments, self.streams.child("links").random)
                antennas.append(links[key])
                self._relay.connect(sight.a, sight.b, links[key])
            window = sight.window
            links[key].add_window(
                round(window.start_s * NS_PER_S),
                round(window.end_s * NS_PER_S),
                [round(float(t) * NS_PER_S) for t in window.times_s],
                [float(r) for r in window.range_km],
            )

    def _link_spec(self, first_node: int) -> LinkSpec:
        spec = self.scenario.links.ground if first_node == GROUND_NODE else self.scenario.links.isl
        assert spec is not None, "a sight exists only for a class of links that the scenario has"
        return spec

    def _make_satellite(self, index: int, plan: ContactPlan, clock: LoopClock) -> None:
        spec = self.scenario.nodes[index]
        profile = profiles.load(spec.profile)
        number = FIRST_NODE + index
        streams = self.streams.child(spec.name)
        manager = self.scenario.manager
        config = NodeConfig(
            node=number,
            name=spec.name,
            ground=GROUND_NODE,
            interfaces=self._interfaces(index),
            beacon_period_s=manager.beacon_period_s,
            tick_period_s=manager.tick_period_s,
            scrub_period_s=manager.scrub_period_s,
        )
        board = SimulatedBoard(
            profile,
            clock,
            SunlightTable(self.sky.sunlight[index], self.sky.step_s),
            initial_charge_share=spec.initial_charge,
            on_brown_out=lambda: self._brown_out(spec.name),
        )
        self.satellites[spec.name] = Satellite(
            config=config,
            profile=profile,
            plan=plan,
            sun=self.sky.sun[index],
            relay=self._relay,
            clock=clock,
            board=board,
            disk=SimulatedDisk(DISK_BYTES, streams.random("disk")),
            cache=self.cache,
            log=self._log_for(spec.name),
            on_crash=self._crashed,
        )

    def _interfaces(self, index: int) -> tuple[InterfaceConfig, ...]:
        ground = self.scenario.links.ground
        interfaces = [InterfaceConfig(index=RADIO, name="radio", segment_bytes=ground.segment_bytes)]
        isl = self.scenario.links.isl
        if isl is not None:
            terminals = isl_terminals(self.scenario)
            mine = [terminals[pair][pair.index(index)] for pair in isl_pairs(self.scenario) if index in pair]
            interfaces += [
                InterfaceConfig(index=number, name=f"laser-{number}", segment_bytes=isl.segment_bytes)
                for number in sorted(mine)
            ]
        return tuple(interfaces)

    def _log_for(self, source: str) -> Callable[[str, dict[str, object]], None]:
        record, loop = self.trace.record, self.loop

        def log(kind: str, fields: dict[str, object]) -> None:
            record(loop.now_ns, source, kind, fields)

        return log

    def _make_ground(self, plan: ContactPlan, clock: LoopClock) -> None:
        link = MemoryLink(lambda interface, frame: self._relay.send(GROUND_NODE, interface, frame))
        spec = self.scenario.links.ground
        fleet = [
            FleetNode(
                node=satellite.config.node,
                name=name,
                mpix_per_s=satellite.profile.mpix_per_s.value,
                compute_w=satellite.profile.compute_w.value,
                idle_w=satellite.profile.idle_w.value + satellite.profile.bus_w.value,
                array_w=satellite.profile.array_w.value,
                battery_j=satellite.profile.battery_wh.value * 3600.0,
                reserve=satellite.config.reserve,
                sun=self.sky.sun[index],
            )
            for index, (name, satellite) in enumerate(self.satellites.items())
        ]
        self.ground = GroundSegment(
            clock=clock,
            link=link,
            disk=SimulatedDisk(GROUND_DISK_BYTES, self.streams.random("ground/disk")),
            plan=plan,
            interfaces=tuple(
                InterfaceConfig(index=antenna, name=f"{station.name}-{antenna}", segment_bytes=spec.segment_bytes)
                for station, antennas in zip(self.scenario.stations, self.sky.station_interfaces, strict=True)
                for antenna in antennas
            ),
            fleet=fleet,
            dictionary_digest=DICTIONARY_DIGEST,
            beacon_period_s=self.scenario.manager.beacon_period_s,
            store_bytes=GROUND_DISK_BYTES // 2,
            verify=self._objection,
            on_complete=self._completed,
            record=self._log_for("ground"),
            ledger_path=None if self._folder is None else self._folder / "ledger.db",
            archive_path=None if self._folder is None else self._folder / "archive.db",
        )
        self._relay.attach(GROUND_NODE, link.deliver)
        if self.workload is not None:
            self.ground.store.put(self.workload.model)

    def _ground_counts(self) -> NodeCounts:
        return NodeCounts.of_agent(self.ground.agent)

    # -- work

    def _submit_one(self, item: Item) -> int:
        assert self.workload is not None, "nothing is submitted without a workload"
        spec = self.workload.spec
        self.ground.store.put(item.data)
        return self.ground.submit(
            JobRequest(
                kind=KIND,
                model=self.workload.model_digest,
                model_bytes=len(self.workload.model),
                data=item.digest,
                data_bytes=len(item.data),
                steps_count=cloud_mask.STEPS,
                step_mpix=spec.step_mpix,
                priority=spec.priority,
                deadline_s=spec.deadline_s,
                checkpoint_steps=spec.checkpoint_steps,
                product_measure_max=spec.product_cover_max,
            )
        )

    def _objection(self, report: JobReport, result: bytes, product: bytes | None) -> str | None:
        assert self.workload is not None, "nothing comes back without a workload"
        return self.workload.objection(result)

    def _completed(self, job: int, report: JobReport, result: bytes) -> None:
        self.results[job] = JobResult(report, result, self.loop.now_ns)

    def _submit(self, position: int) -> None:
        """Hand jobs to the ground, all at once or spaced."""
        assert self.workload is not None, "nothing is submitted without a workload"
        items, spacing_s = self.workload.items, self.workload.spec.submit_spacing_s
        while position < len(items):
            item = items[position]
            self.items[self._submit_one(item)] = item
            position += 1
            if spacing_s > 0 and position < len(items):
                self.loop.call_later(spacing_s, self._submit, position)
                return

    # -- being struck (hil.faults.injector.Strikable)

    def reset_node(self, node: str, cause: str, off_s: float) -> bool:
        """Cut a node's power and boot it later."""
        satellite = self.satellites[node]
        if not satellite.is_on:
            return False
        satellite.cut()
        satellite.boot_later(off_s, ResetCause[cause])
        return True

    def break_link(self, link: str, duration_s: float) -> bool:
        """Stop both directions of a link."""
        end_ns = self.loop.now_ns + round(duration_s * NS_PER_S)
        for channel in self._links.get(link, []):
            channel.add_outage(self.loop.now_ns, end_ns)
        return link in self._links

    def degrade_link(self, link: str, fault: LinkDegraded) -> bool:
        """Worsen a link for a while."""
        channels = self._links.get(link, [])
        if channels:
            base = self._base_impairments(link)
            worse = msgspec.structs.replace(
                base,
                bit_error_rate=max(base.bit_error_rate, fault.bit_error_rate),
                loss=max(base.loss, fault.loss),
                duplicate=max(base.duplicate, fault.duplicate),
                reorder=max(base.reorder, fault.reorder),
                reorder_delay_s=max(base.reorder_delay_s, 0.05),
            )
            for channel in channels:
                channel.set_impairments(worse)
            self.loop.call_later(fault.duration_s, self._restore_link, link)
        return bool(channels)

    def strike_weights(self, node: str, random: Random, bits: int) -> bool:
        """Flip bits of a model in a node's memory."""
        return self.satellites[node].strike_weights(random, bits)

    def rot_object(self, node: str, random: Random) -> bool:
        """Flip a bit of a stored object."""
        return self.satellites[node].rot_object(random)

    def _restore_link(self, link: str) -> None:
        for channel in self._links[link]:
            channel.set_impairments(self._base_impairments(link))
        self.trace.record(self.loop.now_ns, "bench", "fault.link_restored", {"link": link})

    def _base_impairments(self, link: str) -> Impairments:
        stations = {station.name for station in self.scenario.stations}
        return self._link_spec(GROUND_NODE if link.split("/")[0] in stations else FIRST_NODE).impairments

    def _arm_faults(self) -> None:
        injector = Injector(self, self.loop.call_at_ns, self._log_for("bench"), self.streams.child("strikes").random)
        self.trace.subscribe(injector.observe)
        injector.arm(self.scenario.faults)
        radiation = self.scenario.radiation
        if radiation is None or self.workload is None:
            return
        bits = self.workload.weight_bits_count
        for index, spec in enumerate(self.scenario.nodes):
            profile = self.satellites[spec.name].profile
            rate = profile.model_cross_section_cm2_bit.value * bits * radiation.acceleration
            steps = sky_of.flux_steps(self.sky, index, 0.0, self.until_ns / NS_PER_S)
            injector.arm_upsets(spec.name, steps, self.sky.step_s, rate)

    def _brown_out(self, name: str) -> None:
        self.trace.record(self.loop.now_ns, "bench", "fault.brown_out", {"node": name})
        self.loop.call_soon(self.satellites[name].cut)
        self.loop.call_later(BROWN_OUT_CHECK_S, self._after_brown_out, name)

    def _after_brown_out(self, name: str) -> None:
        satellite = self.satellites[name]
        sensors = satellite.board.sensors()
        if sensors.charge_j < BROWN_OUT_BOOT_SHARE * sensors.battery_j:
            self.loop.call_later(BROWN_OUT_CHECK_S, self._after_brown_out, name)
        elif not satellite.is_on:
            satellite.boot(ResetCause.BROWN_OUT)

    # -- ending

    def _crashed(self, name: str, error: BaseException) -> None:
        if self._crash is None:
            self._crash = error
            self.trace.record(self.loop.now_ns, name, "node.crashed", {"error": repr(error)})
            self._stop.set()

    def _tell_progress(self) -> None:
        assert self._on_progress is not None, "only called with a display"
        self._on_progress(
            Progress(
                now_ns=self.loop.now_ns,
                until_ns=self.until_ns,
                jobs_accepted=len(self.monitor.accepted),
                jobs_ended=len(self.monitor.ended),
                counters=dict(self.trace.counts),
            )
        )
        self.loop.call_later(self._progress_s, self._tell_progress)

    def _watch(self) -> None:
        """Sample the boards: extremes that no node reports."""
        for satellite in self.satellites.values():
            sensors = satellite.board.sensors()
            self._lowest_share = min(self._lowest_share, sensors.charge_j / sensors.battery_j)
            self._hottest_degc = max(self._hottest_degc, sensors.electronics_degc)
        self.loop.call_later(WATCH_S, self._watch)

    def _judge(self, digest: str, interrupted: bool) -> Outcome:
        now_ns = self.loop.now_ns
        if not interrupted:
            self.monitor.finish(now_ns)
        self._judge_frames(now_ns)
        self._judge_energy(now_ns)
        counters = self._count()
        counters.update(self._judge_results(now_ns))
        fired = {kind: count for kind, count in sorted(self.trace.counts.items()) if kind.startswith("fault.")}
        unmet = []
        if not interrupted and self.until_ns == self.scenario.duration_ns:
            for name, least in sorted(self.scenario.expect.items()):
                value = counters.get(name, self.trace.counts.get(name, 0))
                if value < least:
                    unmet.append(f"expect.{name}: {value:g}, at least {least} asked")
        return Outcome(
            digest=digest,
            counters=counters,
            violations=self.monitor.violations,
            results=self.results,
            unmet=unmet,
            ended_ns=now_ns,
            fired=fired,
            interrupted=interrupted,
        )

    def _judge_frames(self, now_ns: int) -> None:
        """Conservation: what a node accepted was delivered clean, what it rejected was delivered flipped."""
        clean, flipped = self._relay.delivered_clean, self._relay.delivered_flipped
        ends = {s.config.name: (s.config.node, s.totals()) for s in self.satellites.values()}
        ends["ground"] = (GROUND_NODE, self._ground_counts())
        for name, (number, counts) in ends.items():
            delivered = sum(count for (node, _), count in clean.items() if node == number)
            struck = sum(count for (node, _), count in flipped.items() if node == number)
            self.monitor.require(
                2,
                now_ns,
                counts.frames_accepted == delivered and counts.frames_rejected == struck,
                f"{name}: accepted {counts.frames_accepted} frames of {delivered} delivered clean, rejected "
                f"{counts.frames_rejected} of {struck} delivered with flips",
            )

    def _judge_energy(self, now_ns: int) -> None:
        for satellite in self.satellites.values():
            name, account = satellite.config.name, satellite.board.account
            left_j = satellite.board.sensors().charge_j
            balance_j = account.initial_j + account.harvested_j - account.drawn_j - account.lost_j - account.shunted_j
            self.monitor.require(
                5,
                now_ns,
                account.unserved_j == 0.0 and abs(balance_j - left_j) < ENERGY_TOLERANCE_J,
                f"{name}: drew {account.unserved_j:.3f} J that were not there; balance {balance_j - left_j:.3f} J",
            )
            node = satellite.node
            if node is not None and node.modes.mode is Mode.SAFE and self._crash is None:
                silent_ns = now_ns - node.beaconed_ns
                limit_ns = round(2 * (node.config.beacon_period_s + node.config.tick_period_s) * NS_PER_S)
                self.monitor.require(5, now_ns, silent_ns <= limit_ns, f"{name}: SAFE and no beacon for {silent_ns} ns")

    def _judge_results(self, now_ns: int) -> dict[str, float]:
        """Compare what came down with the fault-free reference, byte for byte."""
        if self.workload is None:
            return {}
        equal, saved_bytes, down_bytes, agreeing, judged = 0, 0, 0, 0, 0
        for job, done in sorted(self.results.items()):
            item = self.items[job]
            reference = self.workload.reference(item, self.cache)
            report = done.report
            wanted = reference.measure <= self.workload.spec.product_cover_max
            same = done.result == reference.result and report.product == (
                digest_of(reference.product) if wanted else b""
            )
            self.monitor.require(
                2, now_ns, same, f"job {job}: what node {report.node} brought is not the fault-free reference"
            )
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
            "energy_jobs_j": round(sum(done.report.energy_j for done in self.results.values()), 1),
            "last_job_s": round(max((done.completed_ns for done in self.results.values()), default=0) / NS_PER_S, 1),
        }
        if judged:
            counters["mask_accuracy_percent"] = round(100 * agreeing / judged, 2)
        return counters

    def _count(self) -> dict[str, float]:
        """Numbers of the whole run."""
        events, channel = self.trace.counts, self._relay.total()
        counts = sum((s.totals() for s in self.satellites.values()), self._ground_counts())
        ends = [end for ended in self.monitor.ended.values() for end in ended]
        return {
            "jobs_accepted": len(self.monitor.accepted),
            "jobs_completed": ends.count("job.completed"),
            "jobs_failed": ends.count("job.failed"),
            "attempts_placed": events.get("job.placed", 0),
            "jobs_paused": events.get("job.paused", 0),
            "jobs_resumed": events.get("job.resumed", 0),
            "uplinked_bytes": self.ground.cluster.counts.uplinked_bytes,
            "frames_sent": channel.sent,
            "frames_lost": channel.lost + channel.blocked() + channel.queue_dropped,
            "bits_flipped": channel.flipped_bits,
            "frames_flipped_rejected": channel.flipped_frames,
            "frames_rejected": counts.frames_rejected,
            "retransmissions": counts.retransmissions,
            "bundles_rerouted": counts.rerouted,
            "node_resets": events.get("fault.node_reset", 0),
            "link_outages": events.get("fault.link_outage", 0),
            "weight_upsets": events.get("fault.upset", 0) + events.get("fault.weight_upset", 0),
            "models_repaired": counts.models_repaired,
            "jobs_rolled_back": events.get("job.rolled_back", 0),
            "energy_drawn_j": round(sum(s.board.account.drawn_j for s in self.satellites.values())),
            "lowest_charge_percent": round(100 * self._lowest_share, 1),
            "hottest_degc": round(self._hottest_degc, 1),
            "virtual_s": round(self.loop.now_ns / NS_PER_S, 1),
            "trace_events": self.trace.events_count,
            "callbacks": self.loop.callbacks_count,
        }

    def mosaic_rows(self) -> list[MosaicRow]:
        """Scene, truth and masks that came down, for the picture."""
        assert self.workload is not None, "a mosaic needs a workload"
        masks = {job: (self.items[job], cloud_mask.decode_mask(done.result)) for job, done in self.results.items()}
        return mosaic_rows(self.workload, masks)


def scenario_digest(scenario: Scenario) -> str:
    """BLAKE2b-64 of a scenario's content in hex: two files that say the same have the same digest."""
    return hashlib.blake2b(msgspec.json.encode(scenario, order="deterministic"), digest_size=8).hexdigest()
