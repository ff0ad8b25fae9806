"""The node: wires the machines of flight software to their ports. The only asyncio shell on board, beside the endpoint.

Frames come in by the endpoint's callback; a rate group runs sensors, modes, scrub, transfers, reports and the beacon in
a fixed order; one task runs jobs. Everything else decides without waiting.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from flightsw.assembly import Assembly, Hooks
from flightsw.compute.jobs import Job
from flightsw.config import BoardProfile, NodeConfig, SunInterval
from flightsw.core.commanding import Judged
from flightsw.core.dumps import Dumps
from flightsw.core.mode_commands import UNREAD
from flightsw.core.modes import Activity, Allowance, Cause, ModeEntry
from flightsw.core.rates import Rate, RateGroups, slack_ns
from flightsw.errors import MessageError, SensorError
from flightsw.net.agent import Delivery
from flightsw.net.contacts import ContactPlan
from flightsw.net.endpoint import Endpoint
from flightsw.net.keys import KeyRing, KeyState
from flightsw.net.security import Refusal
from flightsw.objects.transfers import ObjectArrived, TransferFailed
from flightsw.ports import NodePorts, ResetCause, Sensors
from flightsw.wire.messages import (
    SERVICE_COMMAND,
    SERVICE_DATA,
    SERVICE_JOB,
    SERVICE_OBJECT,
    SERVICE_TELEMETRY,
    Chunk,
    Command,
    Dump,
    Event,
    JobReport,
    JobReportAck,
    Message,
    ObjectQuery,
    ObjectStatus,
    ObjectWant,
    PlaybackAck,
    TimeQuery,
    Verification,
    decode_message,
    encode_message,
)

SEQUENCES_PLACE: Final = 10
"""Where sequences run in the cycle of one second: before the packets that tell of them."""

BEACON_LIFETIME_MS: Final = 60_000
"""A beacon older than this says nothing that the next one does not say better [ms]."""

REPORT_LIFETIME_MS: Final = 4 * 3_600_000
"""Reports, events and objects may wait for passes [ms]."""

LAST_WORDS_S: Final = 1.0
"""From a commanded reset to the reset [s]: the answer and the events that say why leave before the node does."""

OBJECT_MESSAGES: Final = (Chunk, ObjectQuery, ObjectStatus, ObjectWant)
NS_PER_S: Final = 1_000_000_000


class Node:
    """One satellite's compute manager, from one boot to the next reset.

    Args:
        config: settings of this node.
        profile: its board and bus.
        ports: the board's side.
        plan: predicted contacts.
        sun: predicted sunlit intervals.
        keys: as provisioned; what the disk holds of them rules. Without keys no command is taken.

    Raises:
        StorageError: durable state cannot be read.
    """

    def __init__(
        self,
        config: NodeConfig,
        profile: BoardProfile,
        ports: NodePorts,
        plan: ContactPlan,
        sun: Sequence[SunInterval],
        keys: KeyRing | None = None,
    ) -> None:
        self.config = config
        self._ports = ports
        self._clock = ports.clock
        self._log = ports.log
        self._unreported: list[tuple[str, tuple[object, ...]]] | None = []
        """What machines report while they are built, before there are events."""
        self._started_ns = ports.clock.monotonic_ns()
        hooks = Hooks(
            report=self._report,
            send_event=self._send_event,
            transmit=self._transmit,
            want_object=self._want_object,
            job_ended=self._on_job_end,
            send_report=self._send_job_report,
            repeat_ns=lambda: self._repeat_ns,
            key_changed=self._note_key,
            mode_changed=self._note_mode,
            dump=self._dump,
            reset=self._reset_soon,
            command_executed=self._note_command,
            command_judged=self._note_judged,
            answer=self._answer,
            sequences_running=self._attend_sequences,
        )
        parts = Assembly(config, profile, ports, plan, sun, keys, hooks)
        self.boot_count = parts.boot_count
        self.modes = parts.modes
        self.events = parts.events
        unreported, self._unreported = self._unreported, None
        for key, arguments in unreported:
            self._report(key, *arguments)
        self.store = parts.store
        self.transfers = parts.transfers
        self.jobs = parts.jobs
        self.models = parts.models
        self.keys = parts.keys
        self.executor = parts.executor
        self.agent = parts.agent
        self.commands = parts.commands
        self.health = parts.supervision.health
        self._parts = parts
        self._tasks: asyncio.TaskGroup | None = None
        self._executing: asyncio.Task[None] | None = None
        self._resetting: asyncio.TimerHandle | None = None
        self._dumps = Dumps(config.node, self.boot_count, self._send_dump)
        self.endpoint = Endpoint(parts.time, ports.link, self.agent, self._on_delivery, self._on_refusal)
        self._scrubbed_ns = self._started_ns
        self._parameter = parts.parameters.value
        self._take_periods()
        parts.parameters.on_change(
            ("TELEMETRY.beacon_period_s", "NODE.scrub_period_s", "JOBS.report_repeat_s"), self._take_periods
        )
        self.beaconed_ns = self._started_ns - self._beacon_ns
        """When the last beacon was sent [monotonic ns]."""
        self._sensors: Sensors | None = None
        self._due: asyncio.Future[None] | None = None
        """Done when the rate groups are to be looked at; none before they run."""
        self._join_rate_groups()

    def _take_periods(self) -> None:
        slack = slack_ns(round(self.config.tick_period_s * NS_PER_S))
        self._beacon_ns = round(self._parameter("TELEMETRY.beacon_period_s") * NS_PER_S) - slack
        self._scrub_ns = round(self._parameter("NODE.scrub_period_s") * NS_PER_S)
        self._repeat_ns = round(self._parameter("JOBS.report_repeat_s") * NS_PER_S)

    async def run(self) -> None:
        """Run until cancelled."""
        boots = self._parts.boots
        if boots.must_power_cycle:
            self._log("node.power_cycle", {"boot": self.boot_count})
            self._parts.trail.record("power cycle", {"boot": self.boot_count})
            boots.power_cycling(self._clock.monotonic_ns())
            self._ports.reset(ResetCause.POWER_CYCLE)
            return
        self._boot()
        self.endpoint.flush()
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                tasks.create_task(self._run_rate_groups(), name=f"{self.config.name}/rate groups")
                self._start_executor()
        finally:
            if self._resetting is not None:
                self._resetting.cancel()
            await self.endpoint.close()

    def _start_executor(self) -> None:
        assert self._tasks is not None, "the node runs"
        self._executing = self._tasks.create_task(self.executor.run(), name=f"{self.config.name}/executor")

    def _restart_executor(self) -> None:
        """The worker hangs, or the task that waits for it: both begin anew, and jobs go on from their checkpoints."""
        assert self._executing is not None, "a restart comes after a start"
        self._executing.cancel()
        self._ports.runner.restart()
        self.executor.abandon()
        self._start_executor()

    def _boot(self) -> None:
        cause = self._ports.board.reset_cause()
        recovered = [
            [job.spec.job_id, job.spec.attempt, job.saved_step, job.report is not None]
            for _, job in sorted(self.jobs.jobs.items())
        ]
        self._log("node.boot", {"boot": self.boot_count, "cause": cause.name, "jobs": recovered})
        self._parts.mode_control.boot(is_looping=self._parts.boots.is_loop)
        self._parts.trail.boot(cause)
        if self.boot_count > 1:
            self._report("NODE.RESET", self.boot_count, cause.name)
        self._parts.boots.announce(self._report)
        self._parts.time.boot()
        if self._parts.hardware is not None:
            self._parts.hardware.boot(self._clock.monotonic_ns())
        self._parts.parameters.boot()
        self._parts.limits.boot()
        self.commands.boot()
        if self.jobs.unreadable_count:
            self._report("JOBS.RECORDS_LOST", self.jobs.unreadable_count)
        if self.keys.damaged_count:
            self._report("KEYS.RECORD_LOST", self.keys.damaged_count)
        self._parts.results.boot()
        self._parts.sequences.boot(self._clock.monotonic_ns(), cause)
        self.events.begin()

    def _join_rate_groups(self) -> None:
        """Everything periodic, in its place in the cycle."""
        period_s = self.config.tick_period_s
        # nodes of a fleet start their cycle at different instants, so that a thousand beacons do not collide
        start_ns = self._started_ns + round(period_s * ((self.config.node * 0.6180339887) % 1.0) * NS_PER_S)
        periods_ns = {Rate.FAST: 100_000_000, Rate.NORMAL: NS_PER_S, Rate.SLOW: round(period_s * NS_PER_S)}
        self._groups = RateGroups(periods_ns, start_ns, self._note_slip)
        members: tuple[tuple[str, Callable[[int], object]], ...] = (
            ("endpoint", self.endpoint.is_prompt),
            ("sensors", self._judge_sensors),
            ("limits", self._judge_limits),
            ("time", self._parts.time.cycle),
            ("sequences", self._parts.sequences.cycle),
            ("beacon", self._send_beacon),
            ("telemetry", self._parts.schedule.cycle),
            ("scrub", self._while_allowed(Activity.SCRUB, self._scrub_when_due)),
            ("reports", self._while_allowed(Activity.TRANSFERS, self._parts.results.send_reports)),
            ("transfers", self._while_allowed(Activity.TRANSFERS, self._pump_transfers)),
            ("executor wake", self._wake_executor),
            ("events", self.events.cycle),
            ("recorder", self._parts.recorder.cycle),
            ("update", self._parts.update.cycle),
        )
        if self._parts.hardware is not None:
            members = (*members, ("hardware", self._parts.hardware.cycle))
        self._parts.schedule.attach(self._parts.components, self._groups)
        supervision = self._parts.supervision
        self._groups.join(Rate.SLOW, 0, supervision.attend(members), self._started_ns)
        supervision.attend_task("executor", self.executor.ping, self._restart_executor)
        self.executor.supervise(
            lambda key: self.health.reply("executor", key, self._clock.monotonic_ns()),
            lambda until_ns: self.health.busy("executor", until_ns),
        )

    def _while_allowed(self, activity: Activity, member: Callable[[int], None]) -> Callable[[int], None]:
        """A member of the rate group that rests in modes which do not allow its activity unasked."""

        def cycle(now_ns: int) -> None:
            if self.modes.allowance(activity) is Allowance.YES:
                member(now_ns)

        return cycle

    async def _run_rate_groups(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            deadline_ns = self._groups.next_deadline_ns()
            assert deadline_ns is not None, "the slow group has members"
            wait_s = (deadline_ns - self._clock.monotonic_ns()) / NS_PER_S
            self._due = loop.create_future()
            alarm = loop.call_later(max(0.0, wait_s), self._look)
            await self._due
            alarm.cancel()
            self._groups.run(self._clock.monotonic_ns())

    def _look(self) -> None:
        """The rate groups are to be looked at now."""
        if self._due is not None and not self._due.done():
            self._due.set_result(None)

    def _attend_sequences(self, is_running: bool) -> None:
        """While sequences run, they are looked at once a second."""
        self._groups.leave(Rate.NORMAL, SEQUENCES_PLACE)
        if is_running:
            self._groups.join(Rate.NORMAL, SEQUENCES_PLACE, self._parts.sequences.cycle, self._clock.monotonic_ns())
            self._look()

    def _note_slip(self, group: str, cycles: int) -> None:
        self._report("TELEMETRY.CYCLES_SLIPPED", group, cycles)

    def _judge_sensors(self, now_ns: int) -> None:
        self._sensors = None
        try:
            self._sensors = self._ports.board.sensors()
        except SensorError as error:  # no judgement without a reading; jobs pause for the same reason
            self._report("NODE.SENSOR_LOST", str(error))
        self._parts.mode_control.observe(self._sensors, now_ns)

    def _judge_limits(self, now_ns: int) -> None:
        limits = self._parts.limits
        limits.cycle(self._parts.samples.take(limits.rules), now_ns)

    def _send_beacon(self, now_ns: int) -> None:
        """The beacon, when it is due; without a reading it tells the last one, for it must never fall silent."""
        uptime_s = (now_ns - self._started_ns) // NS_PER_S
        if now_ns - self.beaconed_ns >= self._beacon_ns:
            self.beaconed_ns = now_ns
            sensors = self._sensors or self._parts.mode_control.sensors or UNREAD
            beacon = self._parts.telemetry.beacon(sensors, uptime_s, self._parts.time.utc_ns())
            self._send_telemetry(beacon, priority=1)

    def _scrub_when_due(self, now_ns: int) -> None:
        if now_ns - self._scrubbed_ns >= self._scrub_ns:
            self._scrubbed_ns = now_ns
            self._parts.disk.restore()
            self._parts.scrubber.scrub()
            self._parts.scrubber.fetch_missing(now_ns)

    def _wake_executor(self, now_ns: int) -> None:
        if self.jobs.jobs:
            self.executor.wake()

    def _reset_soon(self, cause: ResetCause) -> None:
        self._resetting = asyncio.get_running_loop().call_later(LAST_WORDS_S, self._ports.reset, cause)

    def _note_mode(self, entry: ModeEntry) -> None:
        self._log("node.mode", {"mode": entry.mode.name, "cause": entry.cause.value})
        self._parts.trail.record("mode", {"mode": entry.mode.name, "cause": entry.reason})
        if entry.cause in (Cause.NOMINAL_COMMANDED, Cause.MAINTENANCE_COMMANDED):
            self._parts.boots.released(self._clock.monotonic_ns())
        self.executor.wake()

    def _want_object(self, digest: bytes, size_bytes: int) -> None:
        self._log("object.wanted", {"object": digest})
        self.transfers.fetch(digest, size_bytes, self.config.ground, self._clock.monotonic_ns())
        self._pump_transfers(self._clock.monotonic_ns())

    # -- jobs

    def _on_job_end(self, job: Job) -> None:
        self._parts.results.push(job)
        self._parts.results.send_reports(self._clock.monotonic_ns())
        self._pump_transfers(self._clock.monotonic_ns())

    def _send_job_report(self, report: JobReport) -> None:
        self._send(SERVICE_JOB, report, REPORT_LIFETIME_MS, priority=2, reliable=True)

    # -- traffic

    def _send(self, service: int, message: Message, lifetime_ms: int, *, priority: int, reliable: bool) -> None:
        self.endpoint.send(
            self.config.ground,
            service,
            encode_message(message),
            lifetime_ms=lifetime_ms,
            priority=priority,
            reliable=reliable,
        )

    def _send_telemetry(self, message: Message, priority: int) -> None:
        self._send(SERVICE_TELEMETRY, message, BEACON_LIFETIME_MS, priority=priority, reliable=False)

    def _send_event(self, event: Event, now_ns: int) -> None:
        self._log("event", {"severity": event.severity.name, "name": f"{event.component}.{event.name}"})
        self._parts.downlink.event(event, now_ns)

    def _transmit(self, service: int, message: Message, lifetime_ms: int, priority: int, reliable: bool) -> None:
        self._send(service, message, lifetime_ms, priority=priority, reliable=reliable)

    def _dump(self, kind: str, data: bytes) -> int:
        return self._dumps.send(kind, data)

    def _send_dump(self, part: Dump) -> None:
        self._send(SERVICE_DATA, part, REPORT_LIFETIME_MS, priority=4, reliable=True)

    def _report(self, key: str, *arguments: object) -> None:
        if self._unreported is None:
            self.events.report(key, *arguments)
        else:
            self._unreported.append((key, arguments))

    def _pump_transfers(self, now_ns: int) -> None:
        for outgoing in self.transfers.poll(now_ns):
            self.endpoint.send(
                outgoing.destination,
                SERVICE_OBJECT,
                encode_message(outgoing.message),
                lifetime_ms=REPORT_LIFETIME_MS,
                priority=outgoing.priority,
                reliable=True,
                padding_bytes=outgoing.padding_bytes,
            )

    def _on_delivery(self, delivery: Delivery) -> None:
        if delivery.record is not None:
            return  # a status report that we did not ask for; the agent has counted it
        if delivery.source_node == self.config.ground:
            self._parts.limits.note_contact(self._clock.monotonic_ns())
        try:
            message = decode_message(delivery.payload)
        except MessageError as error:
            if delivery.service == SERVICE_COMMAND and delivery.source_node == self.config.ground:
                self.commands.receive_malformed(delivery.payload, str(error))
            self._report("NODE.BAD_MESSAGE", str(error))
            return
        if delivery.service == SERVICE_OBJECT and isinstance(message, OBJECT_MESSAGES):
            self._on_object_message(message, delivery.source_node)
        elif delivery.source_node != self.config.ground:
            self._report("NODE.NOT_AUTHORISED", delivery.source_node)
        elif delivery.service == SERVICE_COMMAND and isinstance(message, Command):
            self.commands.receive(message, delivery.age_ms)
        elif delivery.service == SERVICE_JOB and isinstance(message, JobReportAck):
            self._parts.results.acknowledged(message)
        elif delivery.service == SERVICE_TELEMETRY and isinstance(message, TimeQuery):
            answer = self._parts.time.reply(self.config.node, self.boot_count, message.number)
            self._send_telemetry(answer, priority=0)
        elif delivery.service == SERVICE_DATA and isinstance(message, PlaybackAck):
            self._parts.recorder.acknowledged(message.boot_count, message.number)
        else:
            self._report("NODE.BAD_MESSAGE", f"{type(message).__name__} at service {delivery.service}")

    def _on_refusal(self, refusal: Refusal) -> None:
        reason, source, service = refusal
        self._log("security.refused", {"reason": reason, "source": source, "service": service})
        self._report("KEYS.REFUSED", str(reason), source, service)

    def _on_object_message(self, message: Chunk | ObjectQuery | ObjectStatus | ObjectWant, source: int) -> None:
        now_ns = self._clock.monotonic_ns()
        self.transfers.receive(message, source, now_ns)
        for event in self.transfers.take_events():
            if isinstance(event, ObjectArrived):
                self._log("object.arrived", {"object": event.digest})
                self._parts.object_control.arrived(event.digest)
                self.executor.wake()
            elif isinstance(event, TransferFailed):
                self._parts.object_control.failed(event.digest, event.reason)
                self._parts.update.on_transfer_failed(event.digest, event.reason)
                self._report("OBJECTS.TRANSFER_FAILED", event.reason, event.digest)
        self._pump_transfers(now_ns)

    # -- commands

    def _note_key(self, key_id: int, state: KeyState) -> None:
        self._log("key.changed", {"key": key_id, "state": state.name})
        self._parts.trail.record("key", {"key": key_id, "state": state.name})
        self._report("KEYS.CHANGED", key_id, state.name)

    def _answer(self, verification: Verification) -> None:
        self._send(SERVICE_COMMAND, verification, REPORT_LIFETIME_MS, priority=2, reliable=True)

    def _note_judged(self, judged: Judged) -> None:
        code = judged.outcome.code.name
        self._log("command.judged", {"origin": judged.origin, "opcode": judged.opcode, "code": code})
        self._parts.trail.command(judged.origin, judged.opcode, judged.arguments, judged.outcome)

    def _note_command(self, command: Command, age_ms: int) -> None:
        self._parts.limits.note_command(self._clock.monotonic_ns())
        self._log(
            "command.executed",
            {
                "command": command.command_id,
                "opcode": command.opcode,
                "age_ms": age_ms,
                "lifetime_ms": command.lifetime_ms,
            },
        )
