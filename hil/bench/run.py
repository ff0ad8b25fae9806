"""One run: composes fleet, ground, links and world of a scenario, runs them, and judges.

In virtual time, same scenario, seed and commit mean the same trace, digest for digest, and nothing reads a wall clock
but to say what the run cost. In real time the same parts run on a paced loop, and satellites and ground may be
programs of their own (`hil.bench.lab`).
"""

import asyncio
import signal
import traceback
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Final

from boards import profiles
from boards.simulated.board import SimulatedBoard
from boards.simulated.clock import LoopClock
from flightsw.compute import cloud_mask
from flightsw.compute.inference import InferenceCache
from flightsw.host.loop import PacedLoop
from flightsw.link.memory import MemoryLink
from flightsw.link.tasks import end_tasks
from flightsw.net.contacts import ContactPlan
from flightsw.net.keys import KEY_BYTES, derived_rings
from flightsw.ports import Frame, Log, ResetCause
from flightsw.wire.messages import JobReport
from ground.fleet import FleetNode
from ground.segment import GroundSegment
from hil.bench import composition
from hil.bench import sky as sky_of
from hil.bench.composition import DISK_BYTES, GROUND_DISK_BYTES
from hil.bench.ending import Audit
from hil.bench.judge import JobResult, Outcome, judge_bounds
from hil.bench.kinds import LAB_KINDS
from hil.bench.lab import Lab
from hil.bench.lateness import Lateness, WatchedTimers
from hil.bench.member import Ground, Member
from hil.bench.mission_control import LocalGround, local_segment
from hil.bench.pace import LTP_MARGIN_S, Pace, describe
from hil.bench.progress import Progress
from hil.bench.satellite import Satellite
from hil.bench.scenario import Scenario, check_virtual, scenario_digest
from hil.bench.sky import FIRST_NODE, GROUND_NODE, Sky
from hil.bench.strikes import Strikes
from hil.bench.surroundings import Surroundings
from hil.bench.table import Watchers
from hil.bench.workload import Item, Workload, mosaic_rows
from hil.channel.link import Link
from hil.channel.relay import Observer, Relay
from hil.faults.injector import Injector
from hil.imagery.mosaic import MosaicRow
from hil.sim.disk import SimulatedDisk
from hil.sim.fence import fence
from hil.sim.loop import VirtualLoop
from hil.sim.streams import Streams
from hil.sim.trace import Trace

NS_PER_S: Final = 1_000_000_000
WATCH_S: Final = 60.0
"""Period at which the bench looks at charge and temperature of every board [s]."""


Operator = Callable[["Bench"], Coroutine[Any, Any, None]]
"""Somebody who works with a running bench."""


class Bench:
    """One run of a scenario.

    Args:
        scenario: what to run.
        seed: of all chance.
        until_s: stop earlier than the scenario says [s].
        folder: where trace, ledger and archive go; None keeps them in memory.
        user_scene: the user's own scene instead of the scenario's.
        cache: inference results shared by runs of this process.
        on_progress: called every `progress_s` of mission time.
        observer: of the relay, such as a capture.
        pace: of a run in real time; None for virtual time.
        operator: works with the running bench, which ends when it returns; None lets the scenario run by itself.
        surroundings: emulated machines and boards, where nodes are of these kinds.

    Raises:
        ConfigError: a node's kind needs real time, or scene, model or orbit cannot be used.
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
        observer: Observer | None = None,
        pace: Pace | None = None,
        operator: Operator | None = None,
        surroundings: Surroundings | None = None,
    ) -> None:
        if pace is None:
            check_virtual(scenario)
        self.scenario = scenario
        self.seed = seed
        self.until_ns = (
            scenario.duration_ns if until_s is None else min(scenario.duration_ns, round(until_s * NS_PER_S))
        )
        self.streams = Streams(seed)
        self.cache = cache or InferenceCache()
        self.sky: Sky = sky_of.compute(scenario)
        self.workload = None if scenario.workload is None else Workload(scenario.workload, self.streams, user_scene)
        numbers = range(FIRST_NODE, FIRST_NODE + len(scenario.nodes))
        self.keys = derived_rings(self.streams.bytes("keys", KEY_BYTES), numbers, GROUND_NODE)
        self.members: dict[str, Member] = {}
        self.pace = pace
        self._ltp_margin_s = LTP_MARGIN_S if pace is None else pace.ltp_margin_s
        self._surroundings = surroundings or Surroundings()
        # last of what takes long: T+0 of a run in real time is counted from here
        self.loop = VirtualLoop() if pace is None else pace.loop(scenario)
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
        self._folder = folder
        self._on_progress = on_progress
        self._progress_s = progress_s
        self.operator = operator
        self._crash: BaseException | None = None
        self._is_composed = False
        self._ended_ns: int | None = None
        self._late_ns = 0
        self._stop = asyncio.Event()
        self._lab: Lab | None = None
        self._watching: set[asyncio.Task[None]] = set()
        self.lateness = Lateness(1.0 if pace is None else pace.time_scale)
        """Of the relay's deliveries, in real time."""
        self.wire_delays = Lateness(1.0 if pace is None else pace.time_scale)
        """Of probes through the broker, where there is one."""
        watched = WatchedTimers(self.loop.call_at_ns, lambda: self.loop.now_ns, self.lateness)
        self._relay = Relay(self.loop.call_at_ns if pace is None else watched.call_at_ns, lambda: self.loop.now_ns)
        self._relay.observer = observer
        self._audit = Audit(scenario, self.workload, self._relay, self.trace, self.members, self.cache)
        self._audit.patience_ns = 0 if pace is None else round(pace.patience_s * NS_PER_S)
        self.monitor = self._audit.monitor
        self.trace.subscribe(self.monitor.observe)
        self._links: dict[str, list[Link]] = {}
        self._strikes = Strikes(
            self.members,
            self._links,
            lambda link: composition.base_impairments(scenario, link),
            lambda: self.loop.now_ns,
            self._log_for("bench"),
        )

    def run(self) -> Outcome:
        """Run to the end, until interrupted, or until flight or ground code crashes: the run so far is judged and kept.

        Raises:
            ConfigError: a profile or an orbit cannot be used.
        """
        interrupted, crash = False, ""
        try:
            with asyncio.Runner(loop_factory=lambda: self.loop) as runner, self.fence():
                runner.run(self.main())
        except (KeyboardInterrupt, asyncio.CancelledError):
            if not self._is_composed:
                raise KeyboardInterrupt from None  # nothing ran yet, so there is nothing to judge
            interrupted = True
        except Exception as error:  # what escaped from flight or ground is a finding about them, with its traceback
            if not self._is_composed:
                raise
            crash = "".join(traceback.format_exception(error))
        finally:
            self.trace.close()
        return self.conclude(interrupted=interrupted, crash=crash)

    def conclude(self, *, interrupted: bool = False, crash: str = "") -> Outcome:
        """The verdict, when `main` has ended.

        Args:
            interrupted: by the user.
            crash: traceback of flight or ground, empty without.
        """
        digest = self.trace.close()
        outcome = self._audit.judge(
            self.ground,
            digest,
            self.loop.now_ns if self._ended_ns is None else self._ended_ns,
            reached_end=self._ended_ns is not None and self._ended_ns >= self.scenario.duration_ns,
            interrupted=interrupted,
            crash=crash,
        )
        if self.pace is None:
            outcome.counters["callbacks"] = self.loop.callbacks_count
        else:
            describe(outcome, self.pace, self.lateness, self.wire_delays, self._late_ns)
        return outcome

    # -- composition

    async def main(self) -> None:
        """The run, on the bench's own loop."""
        main = asyncio.current_task()
        if self.pace is not None and main is not None:
            self.loop.add_signal_handler(signal.SIGTERM, main.cancel)  # as Ctrl-C: the run so far is judged and kept
        self._links.update(composition.connect(self.scenario, self.sky, self.streams, self._relay))
        plan = self.sky.plan(self.scenario, self._surroundings.ceilings(self.scenario, self.pace))
        clock = LoopClock(self._world_ns, self.scenario.epoch_utc_ns)
        try:
            segment = await self._compose(plan, clock)
            self._arm_faults()
            if self._lab is not None:
                await self._lab.start()
            await self._wait_for_zero()
            self._watch()
            if self._on_progress is not None:
                self._tell_progress()
            for member in self.members.values():
                if not member.is_on:
                    member.boot(ResetCause.POWER_ON)
            if segment is not None:
                segment.start()
            self._is_composed = True
            if self.workload is not None:
                self.loop.call_at_ns(round(self.workload.spec.submit_at_s * NS_PER_S), self._submit, 0)
            self.loop.call_at_ns(self.until_ns, self._stop.set)
            await self._operate()
        finally:
            await self._end()
        if self._crash is not None:
            raise self._crash

    async def _operate(self) -> None:
        """Wait for the end, or let an operator work until he has done or the end comes."""
        ended = self.loop.create_task(self._stop.wait(), name="bench/end")
        tasks: list[asyncio.Task[Any]] = [ended]
        if self.operator is not None:
            tasks.append(self.loop.create_task(self.operator(self), name="operator"))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._ended_ns = self.loop.now_ns
            await end_tasks(tasks)
        for task in tasks:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    async def _compose(self, plan: ContactPlan, clock: LoopClock) -> GroundSegment | None:
        """Make satellites and ground; returns the ground segment if it runs in this loop."""
        if any(node.kind in LAB_KINDS for node in self.scenario.nodes):
            self._lab = await self._open_lab(plan)
        for index, spec in enumerate(self.scenario.nodes):
            if spec.kind == "simulated":
                self.members[spec.name] = self._satellite(index, plan)
            elif spec.kind == "external":
                external = composition.external_node(self.scenario, index, self._relay)
                await external.open()
                self._audit.externals[FIRST_NODE + index] = external
            elif self._lab is not None and (member := self._lab.member(spec.name)) is not None:
                self.members[spec.name] = member
        segment, fleet = None, tuple(composition.fleet(self.scenario, self.sky))
        if self._lab is not None and self._lab.ground is not None:
            self.ground: Ground = self._lab.ground
        else:
            segment = self._segment(plan, clock, fleet)
            self.ground = LocalGround(segment, clock, fleet)
        if self.workload is not None:
            self.ground.put_object(self.workload.model)
        return segment

    async def _open_lab(self, plan: ContactPlan) -> Lab:
        assert self.pace is not None, "processes run in real time"
        assert isinstance(self.loop, PacedLoop), "which has a loop of its own"
        watchers = Watchers(
            log=self.trace.record,
            on_frame=self._send,
            on_complete=self._completed,
            on_cut=self.monitor.power_cut,
            on_brown_out=self._strikes.brown_out,
            on_crash=self._crashed,
            on_probe=self.wire_delays.note,
        )
        lab = Lab(
            self.scenario,
            self.sky,
            plan,
            pace=self.pace,
            loop=self.loop,
            relay=self._relay,
            keys=self.keys,
            folder=self._folder,
            watchers=watchers,
            machines=self._surroundings.machines,
            boards=self._surroundings.boards,
        )
        self._lab = lab  # from here on `_end` closes it
        await lab.open()
        return lab

    async def _wait_for_zero(self) -> None:
        """In real time, parts are ready before T+0, or the run begins late and says so."""
        if self.pace is None:
            return
        now_ns = self.loop.now_ns
        self.trace.record(now_ns, "bench", "bench.ready", {"early_ns": -now_ns})
        self._late_ns = max(0, now_ns)
        if now_ns < 0:
            await asyncio.sleep(-now_ns / NS_PER_S)

    async def _end(self) -> None:
        """Stop all that runs. In real time, what is on wires is waited for first, so that the books can be closed."""
        if self.pace is not None:
            self._ended_ns = self.loop.now_ns
            for index in range(len(self.scenario.nodes)):
                self._relay.detach(FIRST_NODE + index)
            self._relay.detach(GROUND_NODE)
        for external in self._audit.externals.values():
            await external.close()
        for member in self.members.values():
            member.stop()
        if self._lab is not None:
            try:
                if self._is_composed:
                    await self._lab.settle()
            finally:
                await self._lab.close()
        elif self._is_composed:
            await self.ground.close()

    def _world_ns(self) -> int:
        """The instant for clocks and boards; their world begins at T+0, which in real time is to come at first."""
        now_ns = self.loop.now_ns
        return now_ns if now_ns > 0 else 0

    def fence(self) -> AbstractContextManager[object]:
        """Around virtual time. In real time, the bearers of our own nodes need clock and sockets."""
        return fence(self.loop) if isinstance(self.loop, VirtualLoop) else nullcontext()

    def _satellite(self, index: int, plan: ContactPlan) -> Satellite:
        spec = self.scenario.nodes[index]
        clock = LoopClock(self._world_ns, self.scenario.epoch_utc_ns)  # of its own: it may jump
        profile = profiles.load(spec.profile)
        board = SimulatedBoard(
            profile,
            clock,
            self.sky.world(index).sunlight_at,
            initial_charge_share=spec.initial_charge,
            on_brown_out=lambda: self._browned_out(spec.name),
        )
        return Satellite(
            config=composition.node_config(self.scenario, index, self._ltp_margin_s),
            profile=profile,
            plan=plan,
            sun=self.sky.sun[index],
            relay=self._relay,
            send=lambda node, interface, frame: self._send(spec.name, node, interface, frame),
            clock=clock,
            board=board,
            disk=SimulatedDisk(DISK_BYTES, self.streams.child(spec.name).random("disk")),
            cache=self.cache,
            log=self._log_for(spec.name),
            on_crash=self._crashed,
            keys=self.keys[FIRST_NODE + index],
        )

    def _browned_out(self, name: str) -> None:
        accounts = self.members[name].accounts()
        self._strikes.brown_out(name, accounts is not None and accounts.computing)

    def _log_for(self, source: str) -> Log:
        record, loop = self.trace.record, self.loop

        def log(kind: str, fields: dict[str, object]) -> None:
            record(loop.now_ns, source, kind, fields)

        return log

    def _segment(self, plan: ContactPlan, clock: LoopClock, fleet: tuple[FleetNode, ...]) -> GroundSegment:
        """The ground segment in this loop, on the relay."""
        link = MemoryLink(lambda interface, frame: self._send("ground", GROUND_NODE, interface, frame))
        segment = local_segment(
            self.scenario,
            self.sky,
            plan,
            fleet,
            clock=clock,
            link=link,
            disk=SimulatedDisk(GROUND_DISK_BYTES, self.streams.random("ground/disk")),
            workload=self.workload,
            on_complete=self._completed,
            record=self._log_for("ground"),
            on_crash=lambda error: self._crashed("ground", error),
            folder=self._folder,
            keys=self.keys[GROUND_NODE],
            ltp_margin_s=self._ltp_margin_s,
        )
        self._relay.attach(GROUND_NODE, link.deliver)
        return segment

    def _arm_faults(self) -> None:
        self.injector = Injector(
            self._strikes, self.loop.call_at_ns, self._log_for("bench"), self.streams.child("strikes").random
        )
        self.trace.subscribe(self.injector.observe)
        members = list(self.members.values())
        absent = {} if self._lab is None else self._lab.absent
        composition.arm_faults(self.injector, self.scenario, absent, self.sky, members, self.workload, self.until_ns)
        self._audit.absent = absent

    # -- work

    def _submit(self, position: int) -> None:
        """Hand jobs to the ground, all at once or spaced."""
        assert self.workload is not None, "nothing is submitted without a workload"
        items, spacing_s = self.workload.items, self.workload.spec.submit_spacing_s
        while position < len(items):
            self._submit_one(items[position], self.workload)
            position += 1
            if spacing_s > 0 and position < len(items):
                self.loop.call_later(spacing_s, self._submit, position)
                return

    def _submit_one(self, item: Item, workload: Workload) -> None:
        self.ground.put_object(item.data)
        self.ground.submit(workload.request(item), lambda job: self._audit.items.update({job: item}))

    def _completed(self, job: int, report: JobReport, result: bytes) -> None:
        self._audit.results[job] = JobResult(report, result, self.loop.now_ns)

    # -- while it runs

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
        member = self.members.get(name)
        agent = self.ground.agent if member is None else member.agent
        if agent is not None:
            judge_bounds(self.monitor, name, agent, self.loop.now_ns)
        self._relay.send(node, interface, frame)

    def _watch(self) -> None:
        """Sample boards, queues and traffic."""
        if self._lab is None:
            self._audit.watch(self.ground, self.loop.now_ns)
        else:
            watching = asyncio.get_running_loop().create_task(self._ask_and_watch(self._lab), name="bench/watch")
            self._watching.add(watching)
            watching.add_done_callback(self._watching.discard)
        self.loop.call_later(WATCH_S, self._watch)

    async def _ask_and_watch(self, lab: Lab) -> None:
        await lab.refresh()
        self._audit.watch(self.ground, self.loop.now_ns)

    def mosaic_rows(self) -> list[MosaicRow]:
        """Scene, truth and masks that came down, for the picture."""
        assert self.workload is not None, "a mosaic needs a workload"
        items = self._audit.items
        results = {job: done.result for job, done in self._audit.results.items() if job in items}
        masks = {job: (items[job], cloud_mask.decode_mask(result)) for job, result in results.items()}
        return mosaic_rows(self.workload, masks)
