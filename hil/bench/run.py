"""One run: composes fleet, ground, links and world of a scenario, runs them in virtual time, and judges.

Same scenario, seed and commit: same trace, digest for digest. Nothing here reads a wall clock but to say what the run
cost.
"""

import asyncio
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from boards import profiles
from boards.simulated.board import SimulatedBoard
from boards.simulated.clock import LoopClock
from flightsw.compute import cloud_mask
from flightsw.compute.inference import InferenceCache
from flightsw.config import InterfaceConfig, NodeConfig
from flightsw.core.dictionary import DICTIONARY_DIGEST
from flightsw.link.memory import MemoryLink
from flightsw.net.agent import BundleAgent
from flightsw.net.contacts import ContactPlan
from flightsw.ports import Frame, ResetCause
from flightsw.wire.messages import JobReport
from ground.fleet import FleetNode
from ground.ledger import JobRequest
from ground.segment import GroundSegment
from hil.bench import sky as sky_of
from hil.bench.invariants import Monitor
from hil.bench.judge import (
    JobResult,
    Outcome,
    judge_bounds,
    judge_channel,
    judge_energy,
    judge_frames,
    judge_queues,
    judge_results,
)
from hil.bench.satellite import NodeCounts, Satellite
from hil.bench.scenario import LinkSpec, Scenario, isl_pairs, scenario_digest
from hil.bench.sky import FIRST_NODE, GROUND_NODE, RADIO, Sky, SunlightTable, isl_terminals
from hil.bench.strikes import Strikes
from hil.bench.workload import KIND, Item, Workload, mosaic_rows
from hil.channel.impairments import Impairments
from hil.channel.link import Link
from hil.channel.relay import Relay
from hil.faults.injector import Injector
from hil.imagery.mosaic import MosaicRow
from hil.sim.disk import SimulatedDisk
from hil.sim.fence import fence
from hil.sim.loop import VirtualLoop
from hil.sim.streams import Streams
from hil.sim.trace import Trace

NS_PER_S: Final = 1_000_000_000
DISK_BYTES: Final = 64 * 1024 * 1024
"""Simulated disk of a node: real bytes in this process's memory, so smaller than the profile's storage."""
WATCH_S: Final = 60.0
"""Period at which the bench looks at charge and temperature of every board [s]."""
GROUND_DISK_BYTES: Final = 1024 * 1024 * 1024


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
        self._is_composed = False
        self._lowest_share = 1.0
        self._hottest_degc = -273.15
        self._stop = asyncio.Event()
        self._links: dict[str, list[Link]] = {}
        self._relay = Relay(self.loop.call_at_ns, lambda: self.loop.now_ns)
        self._strikes = Strikes(
            self.satellites, self._links, self._base_impairments, lambda: self.loop.now_ns, self._log_for("bench")
        )

    def run(self) -> Outcome:
        """Run to the end, until interrupted, or until flight or ground code crashes: the run so far is judged and kept.

        Raises:
            ConfigError: a profile or an orbit cannot be used.
        """
        interrupted, crash = False, ""
        try:
            with asyncio.Runner(loop_factory=lambda: self.loop) as runner, fence(self.loop):
                runner.run(self._main())
        except KeyboardInterrupt:
            if not self.satellites:
                raise  # nothing ran yet, so there is nothing to judge
            interrupted = True
        except Exception as error:  # what escaped from flight or ground is a finding about them, with its traceback
            if not self._is_composed:
                raise
            crash = "".join(traceback.format_exception(error))
        finally:
            digest = self.trace.close()
        return self._judge(digest, interrupted, crash)

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
        self._is_composed = True
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
            housekeeping_period_s=manager.housekeeping_period_s,
            tick_period_s=manager.tick_period_s,
            scrub_period_s=manager.scrub_period_s,
        )
        board = SimulatedBoard(
            profile,
            clock,
            SunlightTable(self.sky.sunlight[index], self.sky.step_s),
            initial_charge_share=spec.initial_charge,
            on_brown_out=lambda: self._strikes.brown_out(spec.name),
        )
        self.satellites[spec.name] = Satellite(
            config=config,
            profile=profile,
            plan=plan,
            sun=self.sky.sun[index],
            relay=self._relay,
            send=lambda node, interface, frame: self._send(spec.name, node, interface, frame),
            clock=clock,
            board=board,
            disk=SimulatedDisk(DISK_BYTES, streams.random("disk")),
            cache=self.cache,
            log=self._log_for(spec.name),
            on_crash=self._crashed,
        )

    def _interfaces(self, index: int) -> tuple[InterfaceConfig, ...]:
        interfaces = [self.scenario.links.ground.interface(RADIO, "radio")]
        isl = self.scenario.links.isl
        if isl is not None:
            terminals = isl_terminals(self.scenario)
            mine = [terminals[pair][pair.index(index)] for pair in isl_pairs(self.scenario) if index in pair]
            interfaces += [isl.interface(number, f"laser-{number}") for number in sorted(mine)]
        return tuple(interfaces)

    def _log_for(self, source: str) -> Callable[[str, dict[str, object]], None]:
        record, loop = self.trace.record, self.loop

        def log(kind: str, fields: dict[str, object]) -> None:
            record(loop.now_ns, source, kind, fields)

        return log

    def _make_ground(self, plan: ContactPlan, clock: LoopClock) -> None:
        link = MemoryLink(lambda interface, frame: self._send("ground", GROUND_NODE, interface, frame))
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
                spec.interface(antenna, f"{station.name}-{antenna}")
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
            on_crash=lambda error: self._crashed("ground", error),
            ledger_path=None if self._folder is None else self._folder / "ledger.db",
            archive_path=None if self._folder is None else self._folder / "archive.db",
        )
        self._relay.attach(GROUND_NODE, link.deliver)
        if self.workload is not None:
            self.ground.store.put(self.workload.model)

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

    def _arm_faults(self) -> None:
        injector = Injector(
            self._strikes, self.loop.call_at_ns, self._log_for("bench"), self.streams.child("strikes").random
        )
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

    def _base_impairments(self, link: str) -> Impairments:
        stations = {station.name for station in self.scenario.stations}
        return self._link_spec(GROUND_NODE if link.split("/")[0] in stations else FIRST_NODE).impairments

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

    def _send(self, name: str, node: int, interface: int, frame: Frame) -> None:
        """Take a frame from a lab wire: queues are longest while their transmitter is busy, so this is when to look."""
        satellite = self.satellites.get(name)
        agent = self.ground.agent if satellite is None else satellite.agent
        if agent is not None:
            judge_bounds(self.monitor, name, agent, self.loop.now_ns)
        self._relay.send(node, interface, frame)

    def _agents(self) -> dict[str, BundleAgent]:
        nodes = {name: s.node.agent for name, s in self.satellites.items() if s.node is not None}
        return nodes | {"ground": self.ground.agent}

    def _watch(self) -> None:
        """Sample the boards: extremes that no node reports."""
        for satellite in self.satellites.values():
            sensors = satellite.board.sensors()
            self._lowest_share = min(self._lowest_share, sensors.charge_j / sensors.battery_j)
            self._hottest_degc = max(self._hottest_degc, sensors.electronics_degc)
        judge_queues(self.monitor, self._agents(), self.loop.now_ns)
        channel = self._relay.total()
        # ties the digest to every frame, which would be too many to record one by one
        traffic = {"sent": channel.sent, "bytes": channel.delivered_bytes, "flipped_bits": channel.flipped_bits}
        self.trace.record(self.loop.now_ns, "bench", "channel", traffic)
        self.loop.call_later(WATCH_S, self._watch)

    def _judge(self, digest: str, interrupted: bool, crash: str) -> Outcome:
        now_ns = self.loop.now_ns
        is_whole = not (interrupted or crash) and self.until_ns == self.scenario.duration_ns
        if is_whole:  # a run that was stopped early leaves jobs open, and nobody broke a promise
            self.monitor.finish(now_ns)
        everyone = self.satellites.values()
        if not crash:  # which stops in the middle of a delivery
            judge_queues(self.monitor, self._agents(), now_ns)
            judge_channel(self.monitor, self._relay, now_ns)
            judge_frames(self.monitor, self._relay, everyone, NodeCounts.of_agent(self.ground.agent), now_ns)
        judge_energy(self.monitor, everyone, now_ns)
        counters = self._count()
        if self.workload is not None:
            counters |= judge_results(self.monitor, self.workload, self.items, self.results, self.cache, now_ns)
        fired = {kind: count for kind, count in sorted(self.trace.counts.items()) if kind.startswith("fault.")}
        unmet = []
        if is_whole:
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
            is_whole=is_whole,
            interrupted=interrupted,
            crash=crash,
        )

    def _count(self) -> dict[str, float]:
        """Numbers of the whole run."""
        events, channel = self.trace.counts, self._relay.total()
        counts = sum((s.totals() for s in self.satellites.values()), NodeCounts.of_agent(self.ground.agent))
        ends = [end for ended in self.monitor.ended.values() for end in ended]
        return {
            "jobs_accepted": len(self.monitor.accepted),
            "jobs_completed": ends.count("job.completed"),
            "jobs_failed": ends.count("job.failed"),
            "attempts_placed": events.get("job.placed", 0),
            "jobs_paused": events.get("job.paused", 0),
            "jobs_paused_energy": self.monitor.pauses.get("energy", 0),
            "jobs_paused_heat": self.monitor.pauses.get("temperature", 0),
            "jobs_resumed": events.get("job.resumed", 0),
            "uplinked_bytes": self.ground.cluster.counts.uplinked_bytes,
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
