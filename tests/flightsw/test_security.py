"""Security of bundles: what a node refuses, that it says so, and that nothing comes of it."""

import asyncio
import random  # noqa: TID251 - seeded
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boards import profiles
from boards.simulated.board import SimulatedBoard
from boards.simulated.clock import LoopClock
from boards.simulated.runner import SimulatedRunner
from flightsw.compute.inference import InferenceCache
from flightsw.config import InterfaceConfig, NodeConfig
from flightsw.errors import ConfigError
from flightsw.link.memory import MemoryLink
from flightsw.net.agent import BundleAgent, Delivery
from flightsw.net.contacts import Contact, ContactPlan
from flightsw.net.endpoint import Endpoint
from flightsw.net.keys import KeyRing, KeyState, KeyStore, PeerKeys, TrafficKey, derived_rings, without_keys
from flightsw.net.security import (
    REPORT_PERIOD_NS,
    REPORTED_MAX,
    WINDOWS,
    BundleSecurity,
    Reason,
    SecurityPolicy,
    initialisation_vector,
    key_ids,
)
from flightsw.node import Node
from flightsw.ports import Frame, NodePorts
from flightsw.wire import confidentiality, integrity
from flightsw.wire.bundles import CRC_32C, CRC_NONE, Bundle, CanonicalBlock, decode_bundle, departing, encode_bundle
from flightsw.wire.eids import DTN_NONE, Eid
from flightsw.wire.framing import coding
from flightsw.wire.messages import (
    SERVICE_COMMAND,
    SERVICE_EVENT,
    SERVICE_JOB,
    SERVICE_OBJECT,
    SERVICE_TELEMETRY,
    Beacon,
    Command,
    Event,
    JobReportAck,
    Message,
    ObjectWant,
    Verification,
    decode_message,
    encode_message,
)
from flightsw.wire.security import BLOCK_CONFIDENTIALITY, BLOCK_INTEGRITY, decode_security, security_blocks
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


@pytest.mark.parametrize(("make", "reason"), [one[1:] for one in ATTACKS], ids=[one[0] for one in ATTACKS])
def test_an_attack_is_refused_reported_and_without_effect(make: Callable[[], Bundle], reason: Reason) -> None:
    async def scenario(rig: Rig) -> None:
        before = len(rig.log)
        rig.inject(encode_bundle(make()))
        await asyncio.sleep(5)
        assert rig.refused() == [reason]
        assert {kind for kind, _ in rig.log[before:]} <= {"security.refused", "event"}
        assert not rig.executed()
        assert rig.node.modes.mode.name == "NOMINAL"
        assert rig.node.agent.counters.security_refused == {reason: 1}
        assert rig.node.agent.counters.bundles_delivered_count == 0
        rig.inject(encode_bundle(signed(sequence=9)))
        await asyncio.sleep(1)
        assert rig.executed() == [1], "what the forgery imitates still gets through"

    on_board(scenario)


def test_a_signed_command_is_executed_and_its_answer_is_signed() -> None:
    async def scenario(rig: Rig) -> None:
        rig.ground.send(NODE, SERVICE_COMMAND, command(), lifetime_ms=LIFETIME_MS)
        await asyncio.sleep(5)
        assert rig.executed() == [1]
        assert [one.stage.name for one in rig.heard if isinstance(one, Verification)] == ["ACCEPTED", "COMPLETED"]
        assert not rig.refused()

    on_board(scenario)


def test_a_replay_has_no_effect_in_the_same_boot_and_after_a_power_cut() -> None:
    async def scenario(rig: Rig) -> None:
        data = encode_bundle(signed())
        rig.inject(data)
        rig.inject(data)
        await asyncio.sleep(1)
        assert rig.executed() == [1]
        assert rig.node.agent.counters.bundles_duplicate_count == 1
        await rig.cut()
        for name in rig.disk.names("commands"):
            rig.disk.remove(name)  # what else would know the command
        rig.inject(data)
        await asyncio.sleep(5)
        assert rig.executed() == [1]
        assert rig.refused() == [Reason.REPLAYED]

    on_board(scenario)


def test_a_replay_under_a_new_age_or_with_other_unsigned_blocks_is_a_replay() -> None:
    judge = security(NODE)
    made = signed()
    assert judge.accept(received(made), 0).refusal is None
    again = replace(received(made), age_ms=77, blocks=(*made.blocks, CanonicalBlock(192, 9, 0, CRC_NONE, b"\x00")))
    assert judge.accept(decode_bundle(encode_bundle(again)), 0).refusal is Reason.REPLAYED


@pytest.mark.parametrize("seed", range(6))
def test_commands_that_come_in_any_order_and_often_are_executed_once_each(seed: int) -> None:
    async def scenario(rig: Rig) -> None:
        draw = random.Random(seed)
        numbers = list(range(1, 21)) * 3
        draw.shuffle(numbers)
        made = {number: encode_bundle(signed(command(number, "NODE.NOOP"), sequence=number)) for number in set(numbers)}
        for position, number in enumerate(numbers):
            rig.inject(made[number])
            if position % 20 == 10:
                await rig.cut()
        await asyncio.sleep(1)
        assert sorted(rig.executed()) == list(range(1, 21))  # type: ignore[type-var]

    on_board(scenario, seed=seed)


def test_a_stale_key_is_refused_and_a_deactivated_one_still_verifies() -> None:
    async def scenario(rig: Rig) -> None:
        node, ground = rig.node.keys, KeyStore(RINGS[GROUND])
        for keys, peer in ((node, GROUND), (ground, NODE)):
            keys.load(peer, 2, b"n" * 32)
        node.activate(GROUND, 2)
        node.deactivate(GROUND, 1)
        old = security()
        rig.inject(encode_bundle(old.protect(bundle(command(1, "NODE.NOOP"), SERVICE_COMMAND, 1))))
        node.destroy(GROUND, 1)
        rig.inject(encode_bundle(old.protect(bundle(command(2, "NODE.NOOP"), SERVICE_COMMAND, 2))))
        ground.activate(NODE, 2)
        new = BundleSecurity(GROUND, ground)
        rig.inject(encode_bundle(new.protect(bundle(command(3, "NODE.NOOP"), SERVICE_COMMAND, 3))))
        await asyncio.sleep(5)
        assert rig.executed() == [1, 3]
        assert rig.node.agent.counters.security_refused == {Reason.STALE_KEY: 1}

    on_board(scenario)


def test_a_node_without_keys_says_so_and_takes_no_command() -> None:
    async def scenario(rig: Rig) -> None:
        rig.ground.send(NODE, SERVICE_COMMAND, command(), lifetime_ms=LIFETIME_MS)
        await asyncio.sleep(20)
        assert not rig.executed()
        assert rig.node.agent.counters.security_refused == {Reason.NO_KEYS: 1}
        assert rig.beacons()[-1].key_id == 0
        assert rig.beacons()[-1].security_refused_count == 1

    on_board(scenario, keys=None)
    on_board(scenario, keys=without_keys(NODE))


def test_the_beacon_tells_the_key_and_is_signed_where_the_setting_says_so() -> None:
    async def scenario(rig: Rig) -> None:
        await asyncio.sleep(20)
        assert rig.beacons()[-1].key_id == 1

    on_board(scenario)
    for is_signed in (True, False):
        made = security(NODE, sign_telemetry=is_signed).protect(bundle(b"b", SERVICE_TELEMETRY, 1, NODE, GROUND))
        assert bool(security_blocks(made, BLOCK_INTEGRITY)) is is_signed


def test_unsigned_telemetry_is_taken_until_its_source_has_signed_some() -> None:
    judge, node = security(GROUND), security(NODE)
    unsigned = bundle(b"beacon", SERVICE_TELEMETRY, 1, NODE, GROUND)
    first = judge.accept(received(replace(unsigned)), 0)
    assert (first.refusal, first.authenticated, first.payload) == (None, False, b"beacon")
    true = judge.accept(received(node.protect(bundle(b"beacon", SERVICE_TELEMETRY, 2, NODE, GROUND))), 0)
    assert (true.refusal, true.authenticated) == (None, True)
    assert judge.accept(received(replace(unsigned, creation=(5, 3))), 0).refusal is Reason.NO_TAG
    other = judge.accept(received(bundle(b"x", SERVICE_TELEMETRY, 1, OTHER, GROUND)), 0)
    assert other.refusal is None, "each source for itself"


def test_other_services_are_open_and_what_is_signed_there_is_checked() -> None:
    judge = security(NODE)
    assert judge.accept(received(bundle(b"ping", 77, 1)), 0)[:2] == (None, False)
    secret = received(security().protect(bundle(b"ping", 77, 2), confidential=True))
    assert judge.accept(secret, 0) == (None, True, True, b"ping")
    assert judge.accept(secret, 0).refusal is Reason.REPLAYED


@given(st.binary(max_size=2000), st.integers(0, 2**62), st.booleans(), st.sampled_from(sorted(WINDOWS)))
def test_what_is_protected_arrives_whole_and_the_reference_agrees_with_the_fast_way(
    payload: bytes, sequence: int, confidential: bool, service: int
) -> None:
    sender, judge = security(), security(NODE)
    made = sender.protect(bundle(payload, service, sequence, hop_count=(64, 0)), confidential=confidential)
    data = departing(made, 3)
    verdict = judge.accept(decode_bundle(data), 0)
    assert verdict == (None, True, confidential, payload)
    if confidential:
        assert len(payload) < 8 or payload not in data
    else:
        key = KeyStore(RINGS[GROUND]).sending(NODE)
        assert key is not None
        arrived = decode_bundle(data)
        assert integrity.verify(arrived, arrived.blocks[0], key.integrity_key())
        twin = bundle(payload, service, sequence, hop_count=(64, 0))
        slow = integrity.sign(twin, (1,), number=6, source=Eid(GROUND, 1), key=key.integrity_key())
        assert departing(slow, 3) == data


@given(st.data())
def test_any_changed_byte_of_what_is_signed_is_found(data: st.DataObject) -> None:
    made = received(signed())
    (tag,) = made.blocks
    part = data.draw(st.sampled_from(["payload", "tag", "lifetime", "sequence", "source", "destination service"]))
    change = data.draw(st.integers(1, 255))
    if part in ("payload", "tag"):
        content = bytearray(made.payload if part == "payload" else tag.data)
        content[data.draw(st.integers(0, len(content) - 1))] ^= change
        changed = replace(made, payload=bytes(content))
        if part == "tag":
            changed = replace(made, blocks=(tag._replace(data=bytes(content)),))
    elif part == "lifetime":
        changed = replace(made, lifetime_ms=made.lifetime_ms + change)
    elif part == "sequence":
        changed = replace(made, creation=(made.creation[0], made.creation[1] + change))
    elif part == "source":
        changed = replace(made, source=Eid(GROUND, change))
    else:
        changed = replace(made, destination=Eid(NODE, SERVICE_JOB))
    assert security(NODE).accept(decode_bundle(encode_bundle(changed)), 0).refusal is not None


def test_order_is_sign_then_encrypt_and_each_block_has_a_vector_of_its_own() -> None:
    made = security().protect(bundle(b"secret" * 9, SERVICE_COMMAND, 5), confidential=True)
    secret_blocks = security_blocks(made, BLOCK_CONFIDENTIALITY)
    assert [decode_security(block.data).targets for block in secret_blocks] == [(6,), (1,)]
    vectors = [decode_security(block.data).parameter(1) for block in secret_blocks]
    assert vectors == [initialisation_vector(GROUND, 5, 6), initialisation_vector(GROUND, 5, 1)]
    (tag,) = security_blocks(made, BLOCK_INTEGRITY)
    assert bytes(made.payload) != b"secret" * 9
    assert b"\x58\x20" not in tag.data[:-32], "the tag block is encrypted too"
    assert key_ids(secret_blocks) == [(BLOCK_CONFIDENTIALITY, 1)] * 2


@given(st.lists(st.tuples(st.integers(1, 2**32 - 1), st.integers(0, 2**63 - 1)), unique=True, min_size=1))
def test_no_two_blocks_share_an_initialisation_vector(bundles: list[tuple[int, int]]) -> None:
    vectors = [initialisation_vector(*one, target) for one in bundles for target in (1, 6)]
    assert all(len(vector) == 12 for vector in vectors)
    assert len(set(vectors)) == len(vectors)


def test_a_confidential_message_never_leaves_in_clear() -> None:
    with pytest.raises(ConfigError, match="no key is shared with it"):
        security(GROUND, without_keys(GROUND)).protect(bundle(b"x", SERVICE_COMMAND, 1), confidential=True)
    agent = BundleAgent(GROUND, PLAN, RADIO, 1 << 32)
    with pytest.raises(ConfigError, match="has no security"):
        agent.send(NODE, 1, b"x", now_ns=0, utc_ns=UTC_NS, lifetime_ms=1000, confidential=True)


def test_a_message_to_the_own_node_is_trusted() -> None:
    agent = BundleAgent(NODE, PLAN, RADIO, 1 << 32, security=security(NODE))
    agent.send(NODE, 1, b"x", now_ns=0, utc_ns=UTC_NS, lifetime_ms=1000, source_service=4)
    (delivery,) = agent.take_deliveries()
    assert (delivery.authenticated, delivery.source_service) == (True, 4)


def test_a_bundle_from_outside_that_names_this_node_as_its_source_is_not() -> None:
    assert (
        security(NODE).accept(received(bundle(command(), SERVICE_COMMAND, 1, NODE, NODE)), 0).refusal is Reason.NO_KEYS
    )


def test_nodes_on_the_way_pass_security_blocks_on_untouched() -> None:
    relay = 9
    contacts = [(GROUND, 0, relay, 0), (relay, 0, GROUND, 0), (relay, 1, NODE, 0), (NODE, 0, relay, 1)]
    plan = ContactPlan(Contact(0, 1000 * S, a, i, b, j, 1e6, 10**6) for a, i, b, j in contacts)
    two = (*RADIO, InterfaceConfig(index=1, name="laser"))
    agents = {
        GROUND: BundleAgent(GROUND, plan, RADIO, 1 << 32, security=security(GROUND)),
        relay: BundleAgent(relay, plan, two, 1 << 32, security=BundleSecurity(relay, KeyStore(without_keys(relay)))),
        NODE: BundleAgent(NODE, plan, RADIO, 1 << 32, security=security(NODE)),
    }
    peers = {(a, i): (b, j) for a, i, b, j in contacts}
    agents[GROUND].send(
        NODE, SERVICE_COMMAND, command(), now_ns=0, utc_ns=UTC_NS, lifetime_ms=60_000, confidential=True
    )
    for step in range(50):
        for node, agent in agents.items():
            for interface, frame in agent.pump(step * S // 10):
                target, end = peers[node, interface]
                agents[target].receive_frame(end, frame, step * S // 10)
    (delivery,) = agents[NODE].take_deliveries()
    assert (delivery.authenticated, delivery.confidential, delivery.payload) == (True, True, command())
    assert agents[relay].counters.bundles_forwarded_count == 1
    assert not agents[relay].take_deliveries()


def test_a_flood_of_forgeries_is_counted_and_reported_within_bounds() -> None:
    judge = security(NODE)
    for number in range(1000):
        judge.accept(received(bundle(b"", SERVICE_COMMAND, number, 100 + number)), number)
        judge.accept(received(bundle(b"", SERVICE_COMMAND, number, GROUND)), number)
    assert judge.refused_counts == {Reason.NO_KEYS: 1000, Reason.NO_TAG: 1000}
    assert judge.refused_count == 2000
    reports = list(judge.refusals)
    judge.refusals.clear()
    assert len(reports) == REPORTED_MAX
    assert len(set(reports)) == len(reports)
    judge.accept(received(bundle(b"", SERVICE_COMMAND, 1, GROUND)), REPORT_PERIOD_NS)
    assert [one.reason for one in judge.refusals] == [Reason.NO_TAG], "once a minute"


def test_what_the_disk_does_not_take_is_refused() -> None:
    medium = SimulatedDisk(1 << 16, random.Random(1))
    judge = BundleSecurity(NODE, KeyStore(RINGS[NODE]), medium)
    medium.append("photos", bytes(medium.free_bytes()))
    assert judge.accept(received(signed()), 0).refusal is Reason.NOT_STORED
    assert judge.accept(received(signed(b"x", SERVICE_EVENT)), 0).refusal is None, "its window is in memory"
    medium.remove("photos")
    assert judge.accept(received(signed()), 0).refusal is None


def test_a_node_number_that_does_not_fit_into_a_vector_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected 1 to 4294967295"):
        BundleSecurity(1 << 32, KeyStore(KeyRing(1 << 32)))


@pytest.mark.parametrize("seed", range(12))
def test_a_power_cut_at_any_disk_operation_executes_no_command_twice(seed: int) -> None:
    """Each command comes three times, while the power fails at a drawn operation of the disk."""

    class Cut(Exception):
        pass

    async def scenario(rig: Rig) -> None:
        draw = random.Random(seed)
        made = [encode_bundle(signed(command(number, "NODE.NOOP"), sequence=number)) for number in range(1, 9)]
        sync, calls, cut_at = rig.disk.sync, 0, draw.randint(1, 12)

        def failing(name: str) -> None:
            nonlocal calls
            calls += 1
            if calls == cut_at:
                raise Cut
            sync(name)

        rig.disk.sync = failing  # type: ignore[method-assign]
        for _ in range(3):
            for data in made:
                try:
                    rig.inject(data)
                except Cut:
                    await rig.cut()
        await asyncio.sleep(1)
        assert len(rig.executed()) == len(set(rig.executed()))
        assert len(rig.executed()) >= 7, "only the one at the cut may be lost; the ground repeats it in a new bundle"

    on_board(scenario, seed=seed)
