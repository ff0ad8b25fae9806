"""Whole machines under hostile traffic: a bundle agent, a node, and a ground segment.

An input is a session (`sessions`); what a step means depends on the machine, and any bytes are some session. Nothing
may be raised, and at the end every queue must be within its bound.
"""

import asyncio
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Final

from msgspec.structs import replace

from boards import profiles
from boards.simulated.board import SimulatedBoard
from boards.simulated.clock import LoopClock
from flightsw.config import InterfaceConfig, NodeConfig
from flightsw.dictionary import flight_dictionary
from flightsw.errors import ConfigError, FrameError
from flightsw.link.memory import MemoryLink
from flightsw.net.agent import AgentLimits, BundleAgent
from flightsw.net.contacts import Contact, ContactPlan
from flightsw.net.ltp import LtpConfig
from flightsw.node import Node
from flightsw.objects.digest import digest_of
from flightsw.objects.store import ObjectStore
from flightsw.ports import Model, NodePorts, ProductChecks, Random
from flightsw.wire.bundles import Bundle, encode_bundle
from flightsw.wire.cbor import UNSIGNED, encode_head
from flightsw.wire.eids import DTN_NONE, Eid
from flightsw.wire.framing import coding
from flightsw.wire.messages import (
    SERVICE_COMMAND,
    SERVICE_DATA,
    SERVICE_EVENT,
    SERVICE_JOB,
    SERVICE_OBJECT,
    SERVICE_TELEMETRY,
    Beacon,
    Chunk,
    Command,
    Dump,
    Event,
    JobReport,
    JobReportAck,
    JobSpec,
    ObjectQuery,
    ObjectStatus,
    ObjectWant,
    Packets,
    Playback,
    PlaybackAck,
    Verification,
    encode_message,
)
from flightsw.wire.segments import DataSegment, encode_segment
from ground.fleet import FleetNode
from ground.ledger import JobRequest
from ground.segment import GroundSegment
from hil.fuzz.cbor_samples import FLOATS, message_sample, type_of, value_of
from hil.fuzz.decoders import Decoder
from hil.fuzz.mutation import EDGES
from hil.fuzz.secured import rings, security_of
from hil.fuzz.sessions import session, steps_of
from hil.fuzz.stored import disk_with
from hil.fuzz.wire_samples import bundle_sample, frame_sample, segment_sample
from hil.sim.disk import SimulatedDisk
from hil.sim.loop import VirtualLoop

SECOND_NS: Final = 1_000_000_000
GROUND: Final = 1
NODE: Final = 2
FAR: Final = 3
STRANGER: Final = 99
CODING: Final = coding("cobs-crc32c")
PLAN: Final = ContactPlan(
    [Contact(0, 50_000 * SECOND_NS, a, 0, b, 0, 1e6, 10**7) for a, b in ((GROUND, NODE), (NODE, GROUND))]
    + [Contact(s * SECOND_NS, e * SECOND_NS, NODE, 1, FAR, 0, 1e6, 10**7) for s, e in ((0, 20), (60, 90))]
    + [Contact(s * SECOND_NS, e * SECOND_NS, FAR, 0, NODE, 1, 1e6, 10**7) for s, e in ((0, 20), (60, 90))]
)
"""The node sees the ground all the time and a far node now and then, so that spans are suspended as well."""
LIMITS: Final = AgentLimits(
    ltp=LtpConfig(
        cycles_max=8, exports_max=4, imports_max=8, block_bytes_max=65_536, pieces_max=500, closed_sessions_max=16
    ),
    limbo_bundles_max=8,
    trail_bundles_max=32,
    seen_bundles_max=32,
)
"""Small, so that a session reaches them."""
QUEUE_BUNDLES_MAX: Final = 8
"""As the limits above."""
JOBS_MAX: Final = 4
"""Of the node; as the limits above."""
LINKS: Final = tuple(
    InterfaceConfig(index=index, name=f"if{index}", queue_bundles_max=QUEUE_BUNDLES_MAX) for index in (0, 1)
)


def green(payload: bytes, engine: int, session_number: int) -> bytes:
    """A segment that carries a whole block."""
    return encode_segment(DataSegment((engine, session_number), False, False, False, True, 1, 0, payload))


def red(payload: bytes, engine: int, session_number: int) -> bytes:
    """A segment that carries a whole reliable block."""
    return encode_segment(DataSegment((engine, session_number), True, True, True, True, 1, 0, payload, 1))


def bundle(source: int, destination: int, service: int, payload: bytes, sequence: int, is_signed: bool) -> bytes:
    """A sound bundle, signed where its source has keys."""
    eids = (Eid(destination, service), Eid(source, 0), DTN_NONE)
    made = Bundle(*eids, (1, sequence), 3_600_000, payload, age_ms=0, hop_count=(64, 0))
    return encode_bundle(security_of(source).protect(made) if is_signed and source in rings() else made)


# -- a bundle agent

FRAME, SEGMENT, FAR_SEGMENT, GREEN, RED, WAIT, SEND, FAR_SEND = range(8)
"""Steps: raw frame; segment of the ground's link, of the far link; block, green or red; time [ms]; a bundle of ours."""


def _agent_sample(random: Random) -> bytes:
    steps = []
    for _ in range(random.choice((2, 4, 8, 16))):
        kind = random.randrange(8)
        if kind == FRAME:
            content = frame_sample(random, CODING)
        elif kind in (SEGMENT, FAR_SEGMENT):
            content = segment_sample(random)
        elif kind in (GREEN, RED):
            destination = random.choice(((NODE, 5), (FAR, 5), (STRANGER, 1), None))
            content = bundle_sample(random, destination=destination)
        elif kind == WAIT:
            content = random.choice((1, 20, 500, 5000, 60_000)).to_bytes(4, "big")
        else:
            content = bytes(random.choice((1, 700, 5000)))
        steps.append((kind, content[:60_000]))
    return session(steps)


def _agent(data: bytes) -> None:
    agent = BundleAgent(NODE, PLAN, LINKS, 0, LIMITS)
    now_ns = 0
    for number, (kind, content) in enumerate(steps_of(data)):
        kind %= 8
        if kind == WAIT:
            now_ns = _waited(agent, now_ns, min(int.from_bytes(content[:4], "big"), 600_000) * 1_000_000)
        elif kind in (SEND, FAR_SEND):
            to = GROUND if kind == SEND else FAR
            agent.send(to, 5, content, now_ns=now_ns, utc_ns=0, lifetime_ms=60_000, reliable=len(content) % 2 == 0)
        else:
            segments = {FRAME: None, GREEN: green(content, GROUND, number), RED: red(content, GROUND, number)}
            segment = segments.get(kind, content)
            agent.receive_frame(int(kind == FAR_SEGMENT), content if segment is None else _frame(segment), now_ns)
        agent.pump(now_ns)
    _waited(agent, now_ns, 700 * SECOND_NS)
    for queue in agent.queues():
        assert len(queue) <= QUEUE_BUNDLES_MAX, "a queue is within its bound"
    for delivery in agent.take_deliveries():
        assert isinstance(delivery.payload, bytes)


def _waited(agent: BundleAgent, now_ns: int, wait_ns: int) -> int:
    """Let time pass, with all that is due in it."""
    until_ns = now_ns + wait_ns
    for _ in range(20_000):
        deadline_ns = agent.next_deadline_ns()
        if deadline_ns is None or deadline_ns > until_ns:
            return until_ns
        now_ns = max(now_ns, deadline_ns)
        agent.pump(now_ns)
    raise AssertionError("the agent never falls silent")


def _frame(segment: bytes) -> bytes:
    try:
        return CODING.encode(segment)
    except FrameError:  # empty or too long to be sent by anybody
        return segment


# -- a node and a ground segment

MODEL: Final = b"no model"
TILE: Final = b"no tile"


SERVICES: Final = {
    encode_head(UNSIGNED, int(kind.__struct_config__.tag or 0)): service
    for service, kinds in (
        (SERVICE_COMMAND, (Command, Verification)),
        (SERVICE_TELEMETRY, (Beacon, Packets)),
        (SERVICE_EVENT, (Event,)),
        (SERVICE_OBJECT, (Chunk, ObjectQuery, ObjectStatus, ObjectWant)),
        (SERVICE_JOB, (JobReport, JobReportAck)),
        (SERVICE_DATA, (Dump, Playback, PlaybackAck)),
    )
    for kind in kinds
}
"""Type number of a message, as its second byte -> where it belongs."""


class AnyModel:
    """A model that holds. Implements `flightsw.ports.Model`."""

    def __init__(self, digest: bytes) -> None:
        self._digest = digest

    def digest(self) -> bytes:
        """As it should be."""
        return self._digest

    def guard_weights(self) -> int:
        """None is out of range."""
        return 0


class AnyRunner:
    """Runs any model on any input, a byte of state for each step. Implements `flightsw.ports.Runner`."""

    def __init__(self) -> None:
        self._models: dict[bytes, Model] = {}

    def load(self, digest: bytes, data: bytes) -> Model:
        """Load a model."""
        return self._models.setdefault(digest, AnyModel(digest_of(data)))

    def loaded(self) -> dict[bytes, Model]:
        """All models."""
        return dict(self._models)

    def unload(self, digest: bytes) -> None:
        """Forget a model."""
        self._models.pop(digest, None)

    def restart(self) -> None:
        """Forget all models."""
        self._models.clear()

    def step_s(self, kind: str, work_mpix: float) -> float:
        """A tenth of a second for a megapixel. Raises: ConfigError."""
        if kind != "cloud_mask":
            raise ConfigError(f"job kind {kind!r}: expected cloud_mask")
        return work_mpix / 10

    def step_w(self, kind: str) -> float:
        """A watt."""
        return 1.0

    async def step(
        self,
        kind: str,
        model: Model,
        state: bytes,
        data: bytes,
        work_mpix: float,
        checks: ProductChecks | None = None,
    ) -> bytes:
        """One byte more."""
        await asyncio.sleep(self.step_s(kind, work_mpix))
        return state + b"s"

    def finish(self, kind: str, state: bytes, data: bytes) -> tuple[bytes, bytes, float]:
        """Small results."""
        return b"mask", b"product", 0.5


def node_message(random: Random) -> bytes:
    """What a node is sent: any message, or one of objects and commands that it knows."""
    digests = known()
    draw = random.random()
    if draw < 0.2:
        return message_sample(random)
    digest = random.choice((*digests, random.randbytes(32)))
    size_bytes = random.choice((len(MODEL), len(TILE), 20_000, random.choice(EDGES) & (1 << 63) - 1))
    if draw < 0.5:
        content = random.randbytes(random.choice((0, 1, 8, 9)))
        objects: list[Any] = [
            Chunk(digest, size_bytes, random.choice((0, 1, random.choice(EDGES) & (1 << 63) - 1)), content),
            ObjectQuery(digest, size_bytes),
            ObjectStatus(digest, size_bytes, content, random.choice(("", "no"))),
            ObjectWant(digest, size_bytes, content),
        ]
        return encode_message(random.choice(objects))
    return encode_message(_command(random, digest, digests))


def _command(random: Random, digest: bytes, digests: tuple[bytes, ...]) -> Command:
    """A command, most of the time with arguments of the right types."""
    arguments: dict[str, tuple[object, ...]] = {
        "JOBS.SUBMIT": (_spec(random, digests),),
        "JOBS.CANCEL": (random.choice((1, random.choice(EDGES))), 1),
        "OBJECTS.REMOVE": (digest,),
    }
    opcode = random.choice((*flight_dictionary().commands, *4 * ("JOBS.SUBMIT",), "NODE.", "x.y"))
    given = arguments.get(opcode, ())
    if random.random() < 0.2:
        given = random.choice(((), (1, 1), (digest,), (b"", 1), (random.choice(EDGES), bytes(40), "x")))
    return Command(random.randrange(200), opcode, random.choice((0, 10**6, 10**6)), given)


def _spec(random: Random, known: tuple[bytes, ...]) -> list[object]:
    """The argument of JOBS.SUBMIT, its numbers at the ends of their ranges."""
    spec = value_of(random, type_of(JobSpec))
    mpix = random.choice((0.0, 1.0, 1e300, float("inf"), float("nan")))
    kind = random.choice(("cloud_mask", "other"))
    job = (spec.job_id, spec.attempt, kind, random.choice(known), spec.model_bytes, random.choice(known))
    return [
        9,
        *job,
        spec.data_bytes,
        spec.steps_count,
        mpix,
        spec.priority,
        spec.deadline_s,
        spec.checkpoint_steps,
        1.0,
    ]


@cache
def known() -> tuple[bytes, ...]:
    """Digests of the objects that the machines hold."""
    store = ObjectStore(disk_with({}), 1 << 20)
    return store.put(MODEL), store.put(TILE)


def _step(random: Random, receiver: int, content: bytes) -> tuple[int, bytes]:
    """A step that hands over a message: mostly signed, by the right source, at the service where it belongs."""
    if random.random() < 0.2:
        return random.randrange(48), content
    if random.random() < 0.1:
        return random.randrange(48, 64), bundle_sample(random, (receiver, random.randrange(8)))
    return SERVICES.get(content[1:2], random.randrange(8)), content


def _node_sample(random: Random) -> bytes:
    return session([_step(random, NODE, node_message(random)) for _ in range(random.choice((4, 16, 32)))])


def _blocks(data: bytes, receiver: int, sources: tuple[int, int, int]) -> Iterator[bytes]:
    """The blocks of a session with a node or the ground: kind is 16 x source + 8 x unsigned + service; 48 on: raw."""
    for number, (kind, content) in enumerate(steps_of(data)):
        source, service, is_signed = kind % 64 // 16, kind % 8, not kind & 8
        yield content if source == 3 else bundle(sources[source], receiver, service, content, number, is_signed)


def _node(data: bytes) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(_node_session(data))


def make_node(loop: asyncio.AbstractEventLoop) -> tuple[Node, MemoryLink, SimulatedDisk]:
    """A node with keys and two objects that has not started; what it sends is lost."""
    clock, disk, link = _clock(loop), disk_with({}), MemoryLink(lambda interface, frame: None)
    profile = profiles.load("raspberry-pi-5")
    ports = NodePorts(
        clock=clock,
        link=link,
        disk=disk,
        board=SimulatedBoard(profile, clock, lambda now_ns: 1.0),
        runner=AnyRunner(),
        reset=lambda cause: None,
        log=lambda kind, fields: None,
    )
    config = NodeConfig(node=NODE, name="sat-02", interfaces=LINKS, jobs_max=JOBS_MAX)
    node = Node(config, profile, ports, PLAN, (), keys=rings()[NODE])
    node.store.put(MODEL)
    node.store.put(TILE)
    return node, link, disk


async def _node_session(data: bytes) -> None:
    node, link, _ = make_node(asyncio.get_running_loop())
    task = asyncio.get_running_loop().create_task(node.run())
    await _fed(link, _blocks(data, NODE, (GROUND, FAR, STRANGER)), GROUND, 0)
    await asyncio.sleep(200)
    if task.done():
        task.result()
    assert not task.done(), "the manager runs until it is cancelled"
    assert len(node.jobs.jobs) <= JOBS_MAX
    for queue in node.agent.queues():
        assert len(queue) <= QUEUE_BUNDLES_MAX
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _ground_sample(random: Random) -> bytes:
    return session([_step(random, GROUND, _ground_message(random)) for _ in range(random.choice((4, 16, 32)))])


def _ground_message(random: Random) -> bytes:
    """What the ground is sent: messages that name their true sender more often than chance would."""
    draw = random.random()
    if draw < 0.3:
        return message_sample(random)
    if draw < 0.5:
        return node_message(random)
    kind = random.choice((Beacon, Packets, Dump, Playback, Event, Verification, JobReport, JobReport))
    said = replace(value_of(random, type_of(kind)), node=NODE)
    if isinstance(said, Playback):
        said = replace(said, records=said.records[:3])  # more of the longest are no message
    if isinstance(said, JobReport):
        model, tile = known()
        said = replace(said, job_id=random.choice((1, 1, 2)), attempt=random.choice((0, 1, 2)), model=model, data=tile)
        measure, energy_j = random.choice(FLOATS), random.choice(FLOATS)
        said = replace(said, measure=measure, energy_j=energy_j, result=random.choice((b"", b"1", model, bytes(32))))
    return encode_message(said)


def _ground(data: bytes) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(_ground_session(data))


async def _ground_session(data: bytes) -> None:
    link = MemoryLink(lambda interface, frame: None)
    crashes: list[BaseException] = []
    ground = GroundSegment(
        clock=_clock(asyncio.get_running_loop()),
        link=link,
        disk=disk_with({}),
        plan=PLAN,
        interfaces=LINKS[:1],
        fleet=[FleetNode(NODE, "sat-2", 10.0, 5.0, 5.0, 50.0, 1e6, 0.35, ())],
        dictionary_digest=bytes(8),
        beacon_period_s=10.0,
        store_bytes=1 << 22,
        verify=lambda request, report, result, product: None,
        on_complete=lambda job, report, result: None,
        record=lambda kind, fields: None,
        on_crash=crashes.append,
        keys=rings()[GROUND],
    )
    try:
        ground.start()
        numbers = {"steps_count": 4, "step_mpix": 1.0, "priority": 4, "deadline_s": 20_000, "checkpoint_steps": 1}
        model, tile = ground.store.put(MODEL), ground.store.put(TILE)
        request = JobRequest(
            kind="cloud_mask",
            model=model,
            model_bytes=len(MODEL),
            data=tile,
            data_bytes=len(TILE),
            product_measure_max=1.0,
            **numbers,  # type: ignore[arg-type]
        )
        ground.submit(request)
        await _fed(link, _blocks(data, GROUND, (NODE, FAR, STRANGER)), NODE, 0)
        await asyncio.sleep(200)
        for crash in crashes:
            raise crash
    finally:
        await ground.close()


async def _fed(link: MemoryLink, blocks: Iterator[bytes], engine: int, interface: int) -> None:
    for number, block in enumerate(blocks):
        segment = red(block, engine, number) if number % 4 == 3 else green(block, engine, number)
        link.deliver(interface, _frame(segment))
        await asyncio.sleep(0.2 if number % 8 else 11.0)


def _clock(loop: asyncio.AbstractEventLoop) -> LoopClock:
    assert isinstance(loop, VirtualLoop)
    return LoopClock(lambda: loop.now_ns, 1_700_000_000 * SECOND_NS)


def machines() -> list[Decoder]:
    """Whole machines, as decoders of sessions that may raise nothing."""
    kinds: tuple[tuple[str, Callable[[Random], bytes], Callable[[bytes], None], float], ...] = (
        ("agent", _agent_sample, _agent, 40.0),
        ("node", _node_sample, _node, 400.0),
        ("ground", _ground_sample, _ground, 400.0),
    )
    return [Decoder(name, (), sample, decode, cost) for name, sample, decode, cost in kinds]
