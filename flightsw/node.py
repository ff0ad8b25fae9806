"""The node: wires the machines of flight software to their ports. The only asyncio shell on board, beside the endpoint.

Frames come in by the endpoint's callback; a rate group runs sensors, modes, scrub, transfers, reports and the beacon in
a fixed order; one task runs jobs. Everything else decides without waiting.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from flightsw.assembly import Hooks, assemble
from flightsw.compute.jobs import Job
from flightsw.compute.models import Scrub
from flightsw.config import BoardProfile, NodeConfig, SunInterval
from flightsw.core.modes import Cause
from flightsw.errors import MessageError, SensorError
from flightsw.net.agent import Delivery
from flightsw.net.contacts import ContactPlan
from flightsw.net.endpoint import Endpoint
from flightsw.net.keys import KeyRing, KeyState
from flightsw.net.security import Refusal
from flightsw.objects.transfers import ObjectArrived, TransferFailed
from flightsw.ports import NodePorts
from flightsw.wire.messages import (
    SERVICE_COMMAND,
    SERVICE_EVENT,
    SERVICE_JOB,
    SERVICE_OBJECT,
    SERVICE_TELEMETRY,
    Argument,
    Chunk,
    Command,
    Event,
    JobReportAck,
    JobState,
    Message,
    ObjectQuery,
    ObjectStatus,
    ObjectWant,
    Severity,
    decode_message,
    encode_message,
)

BEACON_LIFETIME_MS: Final = 60_000
"""A beacon older than this says nothing that the next one does not say better [ms]."""

REPORT_LIFETIME_MS: Final = 4 * 3_600_000
"""Reports, events and objects may wait for passes [ms]."""

PUSH_PATIENCE_NS: Final = 180_000_000_000
"""How long a job waits for its objects to be pushed before it asks for them [ns]: three of the sender's questions."""

SESSION_BITS: Final = 32
"""Session and bundle numbers of one boot; the boot count stands above them, so that a reset never repeats one."""

BOOT_FILE: Final = "boot"
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
        self._started_ns = ports.clock.monotonic_ns()
        hooks = Hooks(
            report=self._report,
            send_event=self._send_event,
            want_object=self._want_object,
            job_ended=self._on_job_end,
            weights_struck=self._on_upset,
            key_changed=self._note_key,
            mode_changed=self._note_mode,
            command_executed=self._note_command,
        )
        parts = assemble(config, profile, ports, plan, sun, keys, hooks)
        self.boot_count = parts.boot_count
        self.modes = parts.modes
        self.events = parts.events
        self.store = parts.store
        self.transfers = parts.transfers
        self.jobs = parts.jobs
        self.models = parts.models
        self.keys = parts.keys
        self.executor = parts.executor
        self.agent = parts.agent
        self.commands = parts.commands
        self._parts = parts
        self.endpoint = Endpoint(ports.clock, ports.link, self.agent, self._on_delivery, self._on_refusal)
        self._scrubbed_ns = self._started_ns
        # a nanosecond less than the period: a tick that comes at the very deadline counts as due
        self._beacon_ns = round(config.beacon_period_s * NS_PER_S) - 1
        self._housekeeping_ns = round(config.housekeeping_period_s * NS_PER_S) - 1
        self.beaconed_ns = self._started_ns - self._beacon_ns
        """When the last beacon was sent [monotonic ns]."""
        self._housekept_ns = self._started_ns

    async def run(self) -> None:
        """Run until cancelled."""
        self._boot()
        self.endpoint.flush()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._rate_group(), name=f"{self.config.name}/rate group")
                tasks.create_task(self.executor.run(), name=f"{self.config.name}/executor")
        finally:
            await self.endpoint.close()

    def _boot(self) -> None:
        cause = self._ports.board.reset_cause()
        self.modes.apply(Cause.BOOT_DONE)
        recovered = [
            [job.spec.job_id, job.spec.attempt, job.saved_step, job.report is not None]
            for _, job in sorted(self.jobs.jobs.items())
        ]
        self._log("node.boot", {"boot": self.boot_count, "cause": cause.name, "jobs": recovered})
        if self.boot_count > 1:
            self._report(Severity.WARNING_HI, "NODE", "RESET", f"boot {self.boot_count} after {cause.name}")
        if self.jobs.unreadable_count:
            self._report(
                Severity.WARNING_HI, "JOBS", "RECORDS_LOST", f"{self.jobs.unreadable_count} job records unreadable"
            )
        if self.keys.damaged_count:
            self._report(Severity.WARNING_HI, "KEYS", "RECORD_LOST", f"{self.keys.damaged_count} of 2 copies damaged")
        for job in self.jobs.jobs.values():
            if job.saved_step and job.report is None:
                self._log("job.resumed", {"job": job.spec.job_id, "attempt": job.spec.attempt, "step": job.saved_step})
            if job.report is not None:
                for digest in filter(None, (job.report.result, job.report.product)):
                    self.store.pin(digest)  # pins are lost at a reset
                self._push_results(job)

    async def _rate_group(self) -> None:
        period_s = self.config.tick_period_s
        # nodes of a fleet start their cycle at different instants, so that a thousand beacons do not collide
        await asyncio.sleep(period_s * ((self.config.node * 0.6180339887) % 1.0))
        while True:
            now_ns = self._clock.monotonic_ns()
            self._judge_sensors(now_ns)
            if now_ns - self._scrubbed_ns >= round(self.config.scrub_period_s * NS_PER_S):
                self._scrubbed_ns = now_ns
                self._scrub()
                self._fetch_missing(now_ns)
            self._send_reports(now_ns)
            self._pump_transfers(now_ns)
            if self.jobs.jobs:
                self.executor.wake()
            await asyncio.sleep(period_s)

    def _judge_sensors(self, now_ns: int) -> None:
        try:
            sensors = self._ports.board.sensors()
        except SensorError as error:  # no judgement without a reading; jobs pause for the same reason
            self._report(Severity.WARNING_HI, "NODE", "SENSOR_LOST", str(error)[:512])
            return
        self._parts.mode_control.sensors = sensors
        cause = self.modes.observe(sensors.charge_j / sensors.battery_j, sensors.sunlight)
        if cause is not None:
            self._note_mode(cause)
        uptime_s = (now_ns - self._started_ns) // NS_PER_S
        if now_ns - self.beaconed_ns >= self._beacon_ns:
            self.beaconed_ns = now_ns
            self._send_telemetry(self._parts.telemetry.beacon(sensors, uptime_s, self._clock.utc_ns()), priority=1)
        if now_ns - self._housekept_ns >= self._housekeeping_ns:
            self._housekept_ns = now_ns
            self._send_telemetry(self._parts.telemetry.housekeeping(uptime_s), priority=5)

    def _note_mode(self, cause: Cause) -> None:
        mode = self.modes.mode
        self._log("node.mode", {"mode": mode.name, "cause": cause.value})
        severity = Severity.WARNING_HI if mode.name in ("LOW_POWER", "SAFE") else Severity.ACTIVITY_LO
        self._report(severity, "MODE", "CHANGED", f"{mode.name}: {cause.value}")
        self.executor.wake()

    def _scrub(self) -> None:
        for digest in self.models.digests():
            found = self.models.scrub(digest)
            if found is not Scrub.HOLDS:
                self._on_upset(digest, found)
        rotten = self.store.scrub_next()
        if rotten is not None:
            self._log("object.rotten", {"object": rotten})
            self._report(Severity.WARNING_HI, "OBJECTS", "ROTTEN", f"{rotten.hex()[:16]} removed", rotten)
            sizes = {}
            for job in self.jobs.jobs.values():
                if job.report is None:
                    sizes.update({job.spec.model: job.spec.model_bytes, job.spec.data: job.spec.data_bytes})
            if rotten in sizes:
                self._want_object(rotten, sizes[rotten])

    def _fetch_missing(self, now_ns: int) -> None:
        """Ask for what waiting jobs have waited for too long: a push may have ended with a reset of either side."""
        for job in self.jobs.jobs.values():
            if job.state is not JobState.WAITING_OBJECTS or now_ns - job.accepted_ns < PUSH_PATIENCE_NS:
                continue
            spec = job.spec
            for digest, size_bytes in ((spec.model, spec.model_bytes), (spec.data, spec.data_bytes)):
                if not self.store.has(digest) and not self.transfers.is_fetching(digest):
                    self._want_object(digest, size_bytes)

    def _on_upset(self, digest: bytes, found: Scrub) -> None:
        self._log("model.upset", {"model": digest, "outcome": found.name})
        self._report(Severity.WARNING_LO, "JOBS", "WEIGHTS_STRUCK", f"{digest.hex()[:16]}: {found.value}", digest)

    def _want_object(self, digest: bytes, size_bytes: int) -> None:
        self._log("object.wanted", {"object": digest})
        self.transfers.fetch(digest, size_bytes, self.config.ground, self._clock.monotonic_ns())
        self._pump_transfers(self._clock.monotonic_ns())

    # -- jobs

    def _on_job_end(self, job: Job) -> None:
        self._push_results(job)
        self._send_reports(self._clock.monotonic_ns())
        self._pump_transfers(self._clock.monotonic_ns())

    def _push_results(self, job: Job) -> None:
        assert job.report is not None, "only ended jobs have results"
        now_ns = self._clock.monotonic_ns()
        for digest in (job.report.result, job.report.product):
            if digest and self.store.has(digest):
                self.transfers.push(digest, self.config.ground, now_ns, priority=3)

    def _send_reports(self, now_ns: int) -> None:
        for job in self.jobs.unreported(now_ns, round(self.config.report_repeat_s * NS_PER_S)):
            assert job.report is not None, "unreported jobs have a report"
            job.reported_ns = now_ns
            self._send(SERVICE_JOB, job.report, REPORT_LIFETIME_MS, priority=2, reliable=True)

    def _on_report_ack(self, ack: JobReportAck) -> None:
        job = self.jobs.jobs.get(ack.job_id)
        if job is None or job.report is None or job.spec.attempt != ack.attempt:
            return
        self.jobs.forget(ack.job_id)
        self._log("job.forgotten", {"job": ack.job_id, "attempt": ack.attempt})
        used = {digest for other in self.jobs.jobs.values() for digest in (other.spec.model, other.spec.data)}
        for digest in (job.report.result, job.report.product):
            if digest:
                self.transfers.cancel(digest, self.config.ground)
                self.store.unpin(digest)
        for digest in (job.report.result, job.report.product, job.spec.data):
            if digest and digest not in used:
                self.store.remove(digest)

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

    def _send_event(self, event: Event) -> None:
        self._log("event", {"severity": event.severity.name, "name": f"{event.component}.{event.name}"})
        self._send(SERVICE_EVENT, event, REPORT_LIFETIME_MS, priority=3, reliable=True)

    def _report(self, severity: Severity, component: str, name: str, text: str, *arguments: Argument) -> None:
        self.events.report(
            severity,
            component,
            name,
            text,
            *arguments,
            now_ns=self._clock.monotonic_ns(),
            utc_ns=self._clock.utc_ns(),
        )

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
        try:
            message = decode_message(delivery.payload)
        except MessageError as error:
            self._report(Severity.WARNING_LO, "NODE", "BAD_MESSAGE", str(error)[:512])
            return
        if delivery.service == SERVICE_OBJECT and isinstance(message, OBJECT_MESSAGES):
            self._on_object_message(message, delivery.source_node)
        elif delivery.source_node != self.config.ground:
            self._report(Severity.WARNING_LO, "NODE", "NOT_AUTHORISED", f"message from {delivery.source_node}")
        elif delivery.service == SERVICE_COMMAND and isinstance(message, Command):
            for verification in self.commands.receive(message, delivery.age_ms):
                self._send(SERVICE_COMMAND, verification, REPORT_LIFETIME_MS, priority=2, reliable=True)
        elif delivery.service == SERVICE_JOB and isinstance(message, JobReportAck):
            self._on_report_ack(message)
        else:
            self._report(
                Severity.WARNING_LO,
                "NODE",
                "BAD_MESSAGE",
                f"{type(message).__name__} at service {delivery.service}",
            )

    def _on_refusal(self, refusal: Refusal) -> None:
        reason, source, service = refusal
        self._log("security.refused", {"reason": reason, "source": source, "service": service})
        text = f"{reason}: bundle of node {source} for service {service}"
        self._report(Severity.WARNING_LO, "SECURITY", "REFUSED", text, str(reason), source, service)

    def _on_object_message(self, message: Chunk | ObjectQuery | ObjectStatus | ObjectWant, source: int) -> None:
        now_ns = self._clock.monotonic_ns()
        self.transfers.receive(message, source, now_ns)
        for event in self.transfers.take_events():
            if isinstance(event, ObjectArrived):
                self._log("object.arrived", {"object": event.digest})
                self.executor.wake()
            elif isinstance(event, TransferFailed):
                self._report(Severity.WARNING_LO, "OBJECTS", "TRANSFER_FAILED", event.reason[:512], event.digest)
        self._pump_transfers(now_ns)

    # -- commands

    def _note_key(self, key_id: int, state: KeyState) -> None:
        self._log("key.changed", {"key": key_id, "state": state.name})
        self._report(Severity.ACTIVITY_HI, "KEYS", "CHANGED", f"key {key_id} {state.name}", key_id, state.name)

    def _note_command(self, command: Command, age_ms: int) -> None:
        self._log(
            "command.executed",
            {
                "command": command.command_id,
                "opcode": command.opcode,
                "age_ms": age_ms,
                "lifetime_ms": command.lifetime_ms,
            },
        )
