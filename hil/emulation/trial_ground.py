"""The ground of one trial: it speaks with one node over the UART of its board, and knows nothing of before.

A board that is restored has forgotten all that came after its snapshot; a ground that remembered it would wait for
answers to questions that were never asked. So each trial has a ground of its own, as one that was started again on an
empty disk: its number of starts, above those of the snapshot's past, begins all its numbers, so that no session, bundle
or command of it can be an old one to the node. Frames, LTP, bundles, signatures and transfers are those of flight; of
the ground segment it does what one job takes: it uploads objects and serves those that are asked for, submits the job,
submits it again when the node says that it was reset, with commands that were never answered, and acknowledges the
report when the result is here.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import msgspec

from boards.simulated.clock import LoopClock
from flightsw.compute import cloud_mask
from flightsw.config import InterfaceConfig
from flightsw.dictionary import flight_dictionary
from flightsw.errors import MessageError
from flightsw.link.memory import MemoryLink
from flightsw.net.agent import BundleAgent, Delivery
from flightsw.net.agent_values import AgentLimits
from flightsw.net.contacts import Contact, ContactPlan
from flightsw.net.endpoint import Endpoint
from flightsw.net.keys import KeyRing, KeyStore
from flightsw.net.ltp_values import LtpConfig
from flightsw.net.security import BundleSecurity
from flightsw.objects.store import ObjectStore, digest_of
from flightsw.objects.transfers import Transfers
from flightsw.ports import Frame
from flightsw.wire.messages import (
    SERVICE_COMMAND,
    SERVICE_EVENT,
    SERVICE_JOB,
    SERVICE_OBJECT,
    Beacon,
    Chunk,
    Command,
    Event,
    JobReport,
    JobReportAck,
    JobSpec,
    JobState,
    Message,
    ObjectQuery,
    ObjectStatus,
    ObjectWant,
    Stage,
    Verification,
    decode_message,
    encode_message,
)
from hil.channel.uart import SocketWire
from hil.emulation.flip_outcomes import Heard
from hil.sim.disk import SimulatedDisk
from hil.sim.streams import Streams

GROUND: Final = 1
NODE: Final = 11
BOOT: Final = 1
"""Boot of the node that grounds of trials speak with first."""
RADIO: Final = (InterfaceConfig(index=0, name="radio"),)
RATE_BPS: Final = 160_000.0
"""Rate of the contact [bit/s]: 20 of the 25 kB/s that an emulated UART moves at least (`hil.bench.composition`)."""
LIGHT_NS: Final = 1_000_000
FOREVER_NS: Final = 1 << 62
PLAN: Final = ContactPlan(
    Contact(0, FOREVER_NS, one, 0, other, 0, RATE_BPS, LIGHT_NS) for one, other in ((NODE, GROUND), (GROUND, NODE))
)
MARGIN_S: Final = 5.0
"""What both ends wait for before they repeat [s]: an emulated board is slow, and a repetition is to mean a loss."""
REPETITIONS_MAX: Final = 1000
"""Of one block by the ground: however long a board takes to boot, it is not given up."""
STARTS_BITS: Final = 32
"""Numbers of one start; the number of starts stands above them. As of `ground.segment`."""
LIFETIME_MS: Final = 3_600_000
"""Of all messages, and of the job [ms]: longer than any trial."""
COMMAND_PRIORITY: Final = 2
STORE_BYTES: Final = 1 << 22
STEP_MPIX: Final = 0.001
"""What a step is charged for: next to nothing, so that no budget holds it up."""
NS_PER_S: Final = 1_000_000_000

_OBJECTS: Final = (Chunk, ObjectQuery, ObjectStatus, ObjectWant)


class TrialGround:
    """A ground that was just started. Needs a running loop.

    Args:
        wire: the bench's end of the UART, not plugged yet; the ground closes it at its end.
        ring: the ground's keys.
        starts_count: above that of every ground that the node has heard.
    """

    def __init__(self, wire: SocketWire, ring: KeyRing, starts_count: int) -> None:
        loop = asyncio.get_running_loop()
        self._clock = LoopClock(lambda: round(loop.time() * NS_PER_S), 0)
        self._wire = wire
        self._heard = Heard()
        self._boot = BOOT
        disk = SimulatedDisk(2 * STORE_BYTES, Streams(starts_count).random("disk"))
        self._store = ObjectStore(disk, quota_bytes=STORE_BYTES)
        self._transfers = Transfers(self._store, local=GROUND)
        self._commands_count = starts_count << STARTS_BITS
        self._link = MemoryLink(self._transmit)
        self._is_mute = False
        agent = BundleAgent(
            GROUND,
            PLAN,
            RADIO,
            session_base=starts_count << STARTS_BITS,
            limits=AgentLimits(
                ltp=LtpConfig(margin_ns=round(MARGIN_S * NS_PER_S), retransmissions_max=REPETITIONS_MAX)
            ),
            security=BundleSecurity(GROUND, KeyStore(ring)),
        )
        self._endpoint = Endpoint(self._clock, self._link, agent, self._on_delivery)
        self._unanswered: dict[int, Command] = {}
        self._news = asyncio.Event()
        wire.on_frame = self._receive
        wire.plug()
        self._endpoint.flush()

    @property
    def heard(self) -> Heard:
        """What came so far."""
        counters = self._endpoint.agent.counters
        self._heard.frames_rejected_count = counters.frames_rejected_count() + self._wire.status().bad_records_count
        self._heard.repeated_count = counters.ltp.retransmissions_count
        return self._heard

    async def close(self) -> None:
        """Let go of the UART."""
        self._wire.close()
        await self._endpoint.close()

    def fall_silent(self) -> None:
        """The node has ended: send nothing until it is heard again, and take back what waits in the line.

        QEMU's PL011 has no receive timeout: where more than its FIFO waits when a driver opens it, it may never
        interrupt again, and the node would be deaf (QEMU 7.2, hw/char/pl011.c).
        """
        self._is_mute = True
        self._wire.unplug()
        self._wire.plug()

    async def upload(self, data: bytes) -> None:
        """Return when the node says that it holds an object."""
        digest = self._offer(data)
        await self._until(lambda: not self._transfers.is_pushing(digest, NODE))

    async def beacon(self) -> Beacon:
        """Return with the first beacon from now on."""
        count = len(self._heard.beacons)
        await self._until(lambda: len(self._heard.beacons) > count)
        return self._heard.beacons[-1]

    async def run(self, number: int, model: bytes, tile: bytes) -> None:
        """Return when a cloud-mask job has ended and the node has answered a question after that, so that `heard` has
        what it had to say of the job.

        Args:
            number: of the job.
            model: that the node holds, unless it has lost it.
            tile: which is uploaded.
        """
        self._store.put(model)
        data = self._offer(tile)
        self._heard.spec = JobSpec(
            job_id=number,
            attempt=1,
            kind=cloud_mask.NAME,
            model=digest_of(model),
            model_bytes=len(model),
            data=data,
            data_bytes=len(tile),
            steps_count=cloud_mask.STEPS,
            step_mpix=STEP_MPIX,
            priority=3,
            deadline_s=LIFETIME_MS // 1000,
            checkpoint_steps=1,
            product_measure_max=-1.0,
        )
        self._submit(self._heard.spec)
        await self._until(self._is_report_whole)
        self._acknowledge()
        asked = self._command("NODE.NOOP")
        await self._until(lambda: asked in self._heard.answers)

    def _transmit(self, interface: int, frame: Frame) -> None:
        if not self._is_mute:
            self._wire.deliver(interface, frame)

    def _receive(self, interface: int, frame: Frame) -> None:
        self._is_mute = False
        self._link.deliver(interface, frame)

    def _offer(self, data: bytes) -> bytes:
        digest = self._store.put(data)
        self._transfers.push(digest, NODE, self._clock.monotonic_ns())
        return digest

    def _submit(self, spec: JobSpec) -> None:
        self._command("JOBS.SUBMIT", msgspec.to_builtins(spec, builtin_types=(bytes,)))

    def _is_report_whole(self) -> bool:
        """Whether the job has ended, and what its report announces is here."""
        report = self._heard.report
        if report is None or report.state is not JobState.COMPLETED:
            return report is not None
        return not report.result or self._store.has(report.result)  # what was completed without one is refused

    def _acknowledge(self) -> None:
        report = self._heard.report
        assert report is not None, "it is whole"
        if report.state is JobState.COMPLETED and report.result:
            self._heard.result = self._store.get(report.result)
        self._send(SERVICE_JOB, JobReportAck(report.job_id, report.attempt))

    def _command(self, opcode: str, *arguments: Any) -> int:
        self._commands_count += 1
        digest = flight_dictionary().digest
        command = Command(self._commands_count, opcode, LIFETIME_MS, arguments, digest)
        self._unanswered[command.command_id] = command
        self._send(SERVICE_COMMAND, command)
        return command.command_id

    def _begin_again(self) -> None:
        """The node was reset: what it may have lost is sent again, as the ground segment does."""
        for command in self._unanswered.values():
            self._send(SERVICE_COMMAND, command)
        if self._heard.spec is not None and self._heard.report is None:
            self._submit(self._heard.spec)

    def _send(self, service: int, message: Message, priority: int = COMMAND_PRIORITY) -> None:
        self._endpoint.send(NODE, service, encode_message(message), lifetime_ms=LIFETIME_MS, priority=priority)

    async def _until(self, holds: Callable[[], bool]) -> None:
        """Return when something holds; looks after each message and after the patience of transfers."""
        while not holds():
            now_ns = self._clock.monotonic_ns()
            for one in self._transfers.poll(now_ns):
                self._send(SERVICE_OBJECT, one.message, one.priority)
            due_ns = self._transfers.next_deadline_ns()
            try:
                async with asyncio.timeout(None if due_ns is None else max(0, due_ns - now_ns) / NS_PER_S):
                    await self._news.wait()
            except TimeoutError:
                continue
            self._news.clear()

    def _on_delivery(self, delivery: Delivery) -> None:
        try:
            message = decode_message(delivery.payload)
        except MessageError:
            self._heard.unreadable_count += 1
            return
        heard, service = self._heard, delivery.service
        if isinstance(message, _OBJECTS) and service == SERVICE_OBJECT:
            self._transfers.receive(message, delivery.source_node, self._clock.monotonic_ns())
            self._transfers.take_events()
        elif isinstance(message, Beacon) and delivery.authenticated:
            heard.beacons.append(message)
        elif isinstance(message, Event) and service == SERVICE_EVENT:
            heard.events.append(message)
        elif isinstance(message, Verification) and service == SERVICE_COMMAND:
            if message.stage in (Stage.COMPLETED, Stage.FAILED):
                heard.answers[message.command_id] = message
                self._unanswered.pop(message.command_id, None)
        elif isinstance(message, JobReport) and heard.spec is not None and message.job_id == heard.spec.job_id:
            heard.report = message
        if heard.boot > self._boot:
            self._boot = heard.boot
            self._begin_again()
        self._news.set()
