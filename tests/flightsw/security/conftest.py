"""A real node on a wire that anybody may write to, a ground that signs, and every forgery that we know."""

import asyncio
import random  # noqa: TID251 - seeded
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from boards import profiles
from boards.simulated.board import SimulatedBoard
from boards.simulated.clock import LoopClock
from boards.simulated.runner import SimulatedRunner
from flightsw.compute.inference import InferenceCache
from flightsw.config import InterfaceConfig, NodeConfig
from flightsw.link.memory import MemoryLink
from flightsw.net.agent import BundleAgent, Delivery
from flightsw.net.contacts import Contact, ContactPlan
from flightsw.net.endpoint import Endpoint
from flightsw.net.keys import KeyRing, KeyState, KeyStore, PeerKeys, TrafficKey, derived_rings
from flightsw.net.security import BundleSecurity, Reason, SecurityPolicy
from flightsw.node import Node
from flightsw.ports import Frame, NodePorts
from flightsw.wire import confidentiality, integrity
from flightsw.wire.bundles import CRC_32C, CRC_NONE, Bundle, CanonicalBlock, decode_bundle, departing
from flightsw.wire.eids import DTN_NONE, Eid
from flightsw.wire.framing import coding
from flightsw.wire.messages import (
    SERVICE_COMMAND,
    SERVICE_JOB,
    SERVICE_OBJECT,
    SERVICE_TELEMETRY,
    Beacon,
    Command,
    Event,
    JobReportAck,
    Message,
    ObjectWant,
    decode_message,
    encode_message,
)
from flightsw.wire.security import BLOCK_CONFIDENTIALITY
from flightsw.wire.segments import DataSegment, encode_segment
from hil.sim.disk import SimulatedDisk
from hil.sim.loop import VirtualLoop

S = 1_000_000_000
UTC_NS = 1_800_000_000 * S
GROUND, NODE, OTHER = 1, 2, 3
CODING = coding("cobs-crc32c")
RADIO = (InterfaceConfig(index=0, name="radio", coding=CODING.name),)
RINGS = derived_rings(b"r" * 32, [NODE, OTHER], GROUND)
PLAN = ContactPlan(
    [Contact(0, 100_000 * S, a, 0, b, 0, 1e6, 10**6) for a, b in ((GROUND, NODE), (NODE, GROUND))]
)  # fmt: skip
LIFETIME_MS = 3_600_000


def security(node: int = GROUND, ring: KeyRing | None = None, **policy: bool) -> BundleSecurity:
    return BundleSecurity(node, KeyStore(RINGS[node] if ring is None else ring), None, SecurityPolicy(**policy))


def bundle(
    payload: bytes, service: int, sequence: int, source: int = GROUND, destination: int = NODE, **changes: object
) -> Bundle:
    made = Bundle(Eid(destination, service), Eid(source, 0), DTN_NONE, (5, sequence), LIFETIME_MS, payload, age_ms=0)
    return replace(made, **changes)  # type: ignore[arg-type]


def command(command_id: int = 1, opcode: str = "MODE.SAFE") -> bytes:
    return encode_message(Command(command_id, opcode, LIFETIME_MS))


def received(made: Bundle) -> Bundle:
    """As it comes out of the wire."""
    return decode_bundle(departing(made, 0))


class Rig:
    """A real node on a memory link, a ground that signs, sends and listens, and a wire that anybody may write to."""

    def __init__(self, keys: KeyRing | None, seed: int = 1) -> None:
        self.loop = asyncio.get_running_loop()
        self.clock = LoopClock(lambda: self.loop.now_ns, UTC_NS)  # type: ignore[attr-defined]
        self.disk = SimulatedDisk(1 << 24, random.Random(seed))
        self.log: list[tuple[str, dict[str, object]]] = []
        self.heard: list[Message] = []
        self.frames: list[bytes] = []
        self.to_node = MemoryLink(lambda interface, frame: None)
        self._keys = keys
        self._sessions = iter(range(1 << 20, 1 << 30))
        link = MemoryLink(lambda interface, frame: self.loop.call_later(0.001, self.to_node.deliver, 0, frame))
        agent = BundleAgent(GROUND, PLAN, RADIO, 1 << 32, security=security(GROUND))
        self.ground = Endpoint(self.clock, link, agent, self._hear)
        self._from_node = link.deliver
        self.ground.flush()
        self.boot()

    def boot(self) -> None:
        profile = profiles.load("raspberry-pi-5")
        self.to_node = MemoryLink(self._carry)
        ports = NodePorts(
            clock=self.clock,
            link=self.to_node,
            disk=self.disk,
            board=SimulatedBoard(profile, self.clock, lambda now_ns: 1.0),
            runner=SimulatedRunner(profile, InferenceCache()),
            reset=lambda cause: None,
            log=lambda kind, fields: self.log.append((kind, fields)),
        )
        self.node = Node(NodeConfig(node=NODE, name="sat-2", interfaces=RADIO), profile, ports, PLAN, (), self._keys)
        self.task = asyncio.create_task(self.node.run())

    async def cut(self) -> None:
        """The power fails, and comes back."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.disk.power_cut()
        self.boot()
        await asyncio.sleep(1)

    def _carry(self, interface: int, frame: Frame) -> None:
        self.frames.append(bytes(frame))
        self.loop.call_later(0.001, self._from_node, 0, frame)

    def _hear(self, delivery: Delivery) -> None:
        assert delivery.authenticated or delivery.service == SERVICE_TELEMETRY
        self.heard.append(decode_message(delivery.payload))

    def inject(self, data: bytes) -> None:
        """Write a bundle on the wire, in a block of the ground's engine."""
        segment = DataSegment((GROUND, next(self._sessions)), False, False, False, True, 1, 0, data)
        self.to_node.deliver(0, CODING.encode(encode_segment(segment)))

    def executed(self) -> list[object]:
        return [fields["command"] for kind, fields in self.log if kind == "command.executed"]

    def refused(self) -> list[object]:
        """Reasons in the events that reached the ground."""
        events = [one for one in self.heard if isinstance(one, Event) and one.name == "REFUSED"]
        return [event.arguments[0] for event in events]

    def beacons(self) -> list[Beacon]:
        return [one for one in self.heard if isinstance(one, Beacon)]


def on_board(scenario: Callable[[Rig], Awaitable[None]], keys: KeyRing | None = RINGS[NODE], seed: int = 1) -> None:
    async def run() -> None:
        rig = Rig(keys, seed)
        await asyncio.sleep(1)
        await scenario(rig)
        rig.task.cancel()
        await asyncio.gather(rig.task, return_exceptions=True)
        await rig.ground.close()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(run())


def signed(
    payload: bytes | None = None, service: int = SERVICE_COMMAND, sequence: int = 9, **changes: object
) -> Bundle:
    """A sound bundle of the ground."""
    return security().protect(bundle(command() if payload is None else payload, service, sequence, **changes))  # type: ignore[arg-type]


def with_tag_data(change: Callable[[bytes], bytes]) -> Bundle:
    made = received(signed())
    (tag,) = made.blocks
    return replace(made, blocks=(tag._replace(data=change(tag.data)),))


def resigned(**options: object) -> Bundle:
    """Signed with the right key, in another way than is asked for."""
    key = KeyStore(RINGS[GROUND]).sending(NODE)
    assert key is not None
    settings = {"number": 6, "source": Eid(GROUND, 1), "key": key.integrity_key()}
    return integrity.sign(bundle(command(), SERVICE_COMMAND, 9), (1,), **(settings | options))  # type: ignore[arg-type]


def by_another_node() -> Bundle:
    """Node 3 speaks for the ground, with a key of its own."""
    return BundleSecurity(OTHER, KeyStore(RINGS[OTHER])).protect(bundle(command(), SERVICE_COMMAND, 9))


def by_a_stranger() -> Bundle:
    """Node 99 has made up keys that it shares with nobody."""
    ring = KeyRing(99, {NODE: PeerKeys(bytes(32), (TrafficKey(1, KeyState.ACTIVE, bytes(32)),), 1)})
    return BundleSecurity(99, KeyStore(ring)).protect(bundle(command(), SERVICE_COMMAND, 9, 99))


def with_key(key_id: int) -> Bundle:
    shared = RINGS[GROUND].of(NODE)
    assert shared is not None
    key = TrafficKey(key_id, KeyState.ACTIVE, shared.keys[0].secret)
    ring = KeyRing(GROUND, {NODE: PeerKeys(shared.master, (key,), key_id)})
    return security(GROUND, ring).protect(bundle(command(), SERVICE_COMMAND, 9))


ATTACKS: list[tuple[str, Callable[[], Bundle], Reason]] = [
    ("unsigned command", lambda: bundle(command(), SERVICE_COMMAND, 9), Reason.NO_TAG),
    ("unsigned acknowledgement", lambda: bundle(encode_message(JobReportAck(1, 1)), SERVICE_JOB, 9), Reason.NO_TAG),
    ("unsigned want", lambda: bundle(encode_message(ObjectWant(bytes(32), 9)), SERVICE_OBJECT, 9), Reason.NO_TAG),
    ("forged tag", lambda: with_tag_data(lambda data: data[:-1] + bytes((data[-1] ^ 1,))), Reason.BAD_TAG),
    ("tag of zeros", lambda: with_tag_data(lambda data: data[:-32] + bytes(32)), Reason.BAD_TAG),
    ("changed payload", lambda: replace(received(signed()), payload=command(2)), Reason.BAD_TAG),
    ("changed lifetime", lambda: replace(received(signed()), lifetime_ms=LIFETIME_MS * 9), Reason.BAD_TAG),
    ("changed sequence", lambda: replace(received(signed()), creation=(5, 10)), Reason.BAD_TAG),
    ("changed source", lambda: replace(received(signed()), source=Eid(GROUND, 7)), Reason.BAD_TAG),
    ("for another service", lambda: replace(signed(), destination=Eid(NODE, SERVICE_JOB), crc_type=CRC_32C),
     Reason.BAD_TAG),
    ("flagged payload", lambda: replace(received(signed()), payload_flags=4), Reason.BAD_TAG),
    ("for another node", lambda: replace(received(signed(destination=OTHER)), destination=Eid(NODE, 1)),
     Reason.BAD_TAG),
    ("spoken for by another node", by_another_node, Reason.WRONG_NODE),
    ("changed node of the source", lambda: replace(received(signed()), source=Eid(99, 0)), Reason.WRONG_NODE),
    ("stranger", by_a_stranger, Reason.NO_KEYS),
    ("unknown key", lambda: with_key(7), Reason.UNKNOWN_KEY),
    ("truncated block", lambda: with_tag_data(lambda data: data[:20]), Reason.BAD_BLOCK),
    ("empty block", lambda: with_tag_data(lambda data: b""), Reason.BAD_BLOCK),
    ("corrupt block", lambda: with_tag_data(lambda data: b"\xff" + data[1:]), Reason.BAD_BLOCK),
    ("tag that covers the payload only", lambda: resigned(scope=0), Reason.BAD_BLOCK),
    ("tag without the primary block", lambda: resigned(scope=6), Reason.BAD_BLOCK),
    ("tag of another kind", lambda: resigned(variant=integrity.ShaVariant.HMAC_512), Reason.BAD_BLOCK),
    ("tag over the primary block only",
     lambda: integrity.sign(bundle(command(), SERVICE_COMMAND, 9), (0,), number=6, source=Eid(1, 1), key=bytes(32)),
     Reason.NO_TAG),
    ("encrypted with another key",
     lambda: confidentiality.encrypt(signed(), (1,), number=7, source=Eid(1, 1), key=bytes(32), iv=bytes(12)),
     Reason.BAD_TAG),
    ("encrypted by another node",
     lambda: confidentiality.encrypt(signed(), (1,), number=7, source=Eid(3, 1), key=bytes(32), iv=bytes(12)),
     Reason.WRONG_NODE),
    ("corrupt encryption",
     lambda: replace(signed(), blocks=(*signed().blocks, CanonicalBlock(BLOCK_CONFIDENTIALITY, 7, 1, CRC_NONE, b"x"))),
     Reason.BAD_BLOCK),
]  # fmt: skip


@pytest.fixture(params=[one[1:] for one in ATTACKS], ids=[one[0] for one in ATTACKS])
def attack(request: pytest.FixtureRequest) -> tuple[Callable[[], Bundle], Reason]:
    """What makes a forged bundle, and the reason why it is to be refused."""
    forged: tuple[Callable[[], Bundle], Reason] = request.param
    return forged


@pytest.fixture(scope="session", name="on_board")
def _on_board() -> Callable[..., None]:
    return on_board


@pytest.fixture(scope="session", name="security")
def _security() -> Callable[..., BundleSecurity]:
    return security


@pytest.fixture(scope="session", name="bundle")
def _bundle() -> Callable[..., Bundle]:
    return bundle


@pytest.fixture(scope="session", name="command")
def _command() -> Callable[..., bytes]:
    return command


@pytest.fixture(scope="session", name="received")
def _received() -> Callable[..., Bundle]:
    return received


@pytest.fixture(scope="session", name="signed")
def _signed() -> Callable[..., Bundle]:
    return signed
