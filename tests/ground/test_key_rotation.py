"""A node's key is changed over the air, with real node and ground, whoever loses power at whatever step."""

import asyncio
import random  # noqa: TID251 - seeded
from pathlib import Path

import pytest

from boards import profiles
from boards.simulated.board import SimulatedBoard
from boards.simulated.clock import LoopClock
from boards.simulated.runner import SimulatedRunner
from flightsw.compute.inference import InferenceCache
from flightsw.config import InterfaceConfig, NodeConfig
from flightsw.dictionary import flight_dictionary
from flightsw.errors import ConfigError
from flightsw.link.memory import MemoryLink
from flightsw.net.contacts import Contact, ContactPlan
from flightsw.net.keys import KeyRing, KeyState, KeyStore, PeerKeys, TrafficKey
from flightsw.node import Node
from flightsw.ports import NodePorts
from flightsw.wire.messages import CommandCode, Stage, Verification
from ground.fleet import ClusterConfig, FleetNode
from ground.keys import REFUSALS_MAX, KeyRotations
from ground.membership import Presence
from ground.segment import GroundSegment
from hil.sim.disk import SimulatedDisk
from hil.sim.loop import VirtualLoop

S = 1_000_000_000
GROUND, NODE = 1, 2
MASTER, OLD, NEW = b"m" * 32, b"o" * 32, b"n" * 32
DELAY_S = 0.01
PLAN = ContactPlan(Contact(0, 10**6 * S, a, 0, b, 0, 1e6, 10**7) for a, b in ((GROUND, NODE), (NODE, GROUND)))
RADIO = (InterfaceConfig(index=0, name="radio"),)
ROTATED = ((2, KeyState.ACTIVE),)


def ring(node: int, secret: bytes = OLD) -> KeyRing:
    peer = GROUND + NODE - node
    return KeyRing(node, {peer: PeerKeys(MASTER, (TrafficKey(1, KeyState.ACTIVE, secret),), 1)})


class Pair:
    """A node and a ground that can lose power, apart or both."""

    def __init__(self, folder: Path) -> None:
        self.loop = asyncio.get_running_loop()
        self.clock = LoopClock(lambda: self.loop.now_ns, 1_700_000_000 * S)  # type: ignore[attr-defined]
        self.folder = folder
        self.node_disk = SimulatedDisk(1 << 24, random.Random(1))
        self.ground_disk = SimulatedDisk(1 << 24, random.Random(2))
        self.notes: list[tuple[str, dict[str, object]]] = []
        self.frames: list[bytes] = []
        self.starts_count = 0
        self.crashes: list[BaseException] = []
        self.node_link = self.ground_link = MemoryLink(lambda interface, frame: None)
        self.boot_node()
        self.start_ground()

    def boot_node(self, keys: KeyRing | None = None) -> None:
        profile = profiles.load("raspberry-pi-5")
        self.node_link = MemoryLink(lambda i, frame: self.carry(bytes(frame), lambda: self.ground_link))
        ports = NodePorts(
            clock=self.clock,
            link=self.node_link,
            disk=self.node_disk,
            board=SimulatedBoard(profile, self.clock, lambda now_ns: 1.0),
            runner=SimulatedRunner(profile, InferenceCache()),
            reset=lambda cause: None,
            log=lambda kind, fields: None,
        )
        config = NodeConfig(node=NODE, name="sat-2", interfaces=RADIO)
        self.node = Node(config, profile, ports, PLAN, (), ring(NODE) if keys is None else keys)
        self.task = asyncio.create_task(self.node.run())

    def start_ground(self) -> None:
        self.starts_count += 1
        self.ground_link = MemoryLink(lambda i, frame: self.carry(bytes(frame), lambda: self.node_link))
        self.ground = GroundSegment(
            clock=self.clock,
            link=self.ground_link,
            disk=self.ground_disk,
            plan=PLAN,
            interfaces=RADIO,
            fleet=[FleetNode(NODE, "sat-2", 10.0, 5.0, 5.0, 50.0, 1e6, 0.35, ())],
            dictionary_digest=flight_dictionary().digest,
            beacon_period_s=10.0,
            store_bytes=1 << 22,
            verify=lambda request, report, result, product: None,
            on_complete=lambda job, report, result: None,
            record=lambda kind, fields: self.notes.append((kind, fields)),
            on_crash=self.crashes.append,
            config=ClusterConfig(command_lifetime_s=1800),
            ledger_path=self.folder / "ledger.db",
            archive_path=self.folder / "archive.db",
            start_count=self.starts_count,
            keys=ring(GROUND),
        )
        self.ground.start()

    def carry(self, frame: bytes, end) -> None:
        self.frames.append(frame)
        self.loop.call_later(DELAY_S, lambda: end().deliver(0, frame))

    async def cut_node(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.node_disk.power_cut()
        self.boot_node()

    async def cut_ground(self) -> None:
        await self.ground.close()
        self.ground_disk.power_cut()
        self.start_ground()

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.ground.close()

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.notes]


def virtual(scenario, *arguments):
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(scenario(*arguments))


async def assert_rotated(pair: Pair) -> None:
    """Both sides have the new key and no other, and commands get through."""
    for _ in range(200):
        if not pair.ground.rotations.nodes and pair.ground.keys.inventory(NODE) == ROTATED:
            break
        await asyncio.sleep(60)
    assert pair.ground.keys.inventory(NODE) == ROTATED
    assert pair.node.keys.inventory(GROUND) == ROTATED
    number = pair.ground.command(NODE, "NODE.NOOP")
    await asyncio.sleep(10)
    assert ("COMPLETED", number) in [
        (fields["stage"], fields["command"]) for kind, fields in pair.notes if kind == "command.ended"
    ]
    assert not pair.crashes


def test_a_key_is_changed_and_never_travels_in_clear(tmp_path):
    async def scenario():
        pair = Pair(tmp_path)
        await asyncio.sleep(1)
        assert pair.ground.rotate_key(NODE, NEW) == 2
        with pytest.raises(ConfigError, match="being changed already"):
            pair.ground.rotate_key(NODE, NEW)
        await asyncio.sleep(5)
        await assert_rotated(pair)
        opcodes = [fields["opcode"] for kind, fields in pair.notes if kind == "command.sent"]
        assert opcodes == [
            "KEYS.LOAD", "KEYS.VERIFY", "KEYS.ACTIVATE", "KEYS.DEACTIVATE", "KEYS.DESTROY", "NODE.NOOP",
        ]  # fmt: skip
        store = KeyStore(ring(GROUND))
        store.load(NODE, 2, NEW)
        for secret in (NEW, store.wrapped(NODE, 2), b"KEYS.LOAD"):
            assert not any(secret in frame for frame in pair.frames)
        assert any(b"KEYS.ACTIVATE" in frame for frame in pair.frames)
        await asyncio.sleep(20)
        member = pair.ground.membership.members[NODE]
        assert member.beacon.key_id == 2
        assert pair.ground.membership.presence(NODE) is Presence.ALIVE
        assert "node.unkeyed" not in pair.kinds()
        assert pair.ground.rotate_key(NODE, b"3" * 32) == 3
        await pair.close()

    virtual(scenario)


async def rotation_s(folder) -> float:
    """How long a change takes when nothing happens [s]."""
    pair = Pair(folder)
    await asyncio.sleep(1)
    pair.ground.rotate_key(NODE, NEW)
    begun_ns = pair.loop.now_ns
    while pair.ground.rotations.nodes:
        await asyncio.sleep(0.001)
    lasted_s = (pair.loop.now_ns - begun_ns) / S
    await pair.close()
    return lasted_s


async def cut_and_wait(folder, who, at_s):
    pair = Pair(folder)
    await asyncio.sleep(1)
    pair.ground.rotate_key(NODE, NEW)
    await asyncio.sleep(at_s)
    if who in ("node", "both"):
        await pair.cut_node()
    if who in ("ground", "both"):
        await pair.cut_ground()
    await assert_rotated(pair)
    await pair.close()


@pytest.mark.parametrize("cuts_count", [8, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("who", ["node", "ground", "both"])
def test_a_change_survives_a_power_cut_of_either_side_at_any_step(tmp_path, who, cuts_count):
    lasted_s = virtual(rotation_s, tmp_path)
    for number in range(cuts_count):
        folder = tmp_path / str(number)
        folder.mkdir()
        virtual(cut_and_wait, folder, who, lasted_s * number / (cuts_count - 1))


class PowerFailed(Exception):
    """After a command was noted as done, and before it was."""


@pytest.mark.parametrize("step", ["KEYS.LOAD", "KEYS.VERIFY", "KEYS.ACTIVATE", "KEYS.DEACTIVATE", "KEYS.DESTROY"])
def test_a_step_that_was_noted_as_done_when_the_power_failed_is_done_again(tmp_path, step):
    async def scenario():
        pair = Pair(tmp_path)
        pair.loop.set_exception_handler(lambda loop, context: failures.append(context["exception"]))
        failures = []
        await asyncio.sleep(1)
        hooks = pair.node.commands._hooks

        def fail_once(command, age_ms):
            hooks.on_execute(command, age_ms)
            if command.opcode == step and not failures:
                asyncio.get_running_loop().create_task(pair.cut_node())
                raise PowerFailed

        pair.node.commands._hooks = hooks._replace(on_execute=fail_once)
        pair.ground.rotate_key(NODE, NEW)
        await asyncio.sleep(5)
        assert [type(one) for one in failures] == [PowerFailed]
        await assert_rotated(pair)
        await pair.close()

    virtual(scenario)


class Desk:
    """Rotations over a node of which only the answers are told."""

    def __init__(self, keys: KeyStore | None = None) -> None:
        self.keys = KeyStore(ring(GROUND)) if keys is None else keys
        self.sent: list[tuple[str, tuple[object, ...]]] = []
        self.notes: list[tuple[str, dict[str, object]]] = []
        self.rotations = KeyRotations(self.keys, self.command, lambda *note: self.notes.append(note), 100)

    def command(self, node, opcode, arguments, now_ns):
        self.sent.append((opcode, arguments))
        return len(self.sent)

    def answer(self, detail="", stage=Stage.COMPLETED, code=CommandCode.OK, now_ns=0):
        self.rotations.on_verification(Verification(NODE, len(self.sent), stage, code, detail), now_ns)

    def opcodes(self):
        return [opcode.removeprefix("KEYS.") for opcode, _ in self.sent]


def test_an_answer_that_does_not_say_what_was_done_proves_nothing():
    desk = Desk()
    desk.rotations.begin(NODE, NEW, 0)
    desk.answer("")
    desk.answer("key 2 PRE_ACTIVATION")
    desk.answer("")
    assert desk.opcodes() == ["LOAD", "LOAD", "VERIFY", "VERIFY"]
    assert desk.sent[2][1][1] == desk.sent[3][1][1], "at one instant"
    desk.rotations.round(100)
    assert desk.sent[4][1][1] != desk.sent[3][1][1], "a challenge is never the same twice"


def test_a_node_that_has_another_key_under_the_number_keeps_the_old_one():
    desk = Desk()
    desk.rotations.begin(NODE, NEW, 0)
    desk.answer("key 2 PRE_ACTIVATION")
    desk.answer("00" * 32)
    assert desk.notes[-1][0] == "key.rotation_failed"
    assert desk.keys.inventory(NODE) == ((1, KeyState.ACTIVE),)
    assert desk.rotations.nodes == []
    assert desk.rotations.begin(NODE, NEW, 0) == 3, "the next key has a number of its own"


def test_a_node_that_lost_its_activation_is_asked_for_it_again():
    desk = Desk()
    desk.rotations.begin(NODE, NEW, 0)
    desk.answer("key 2 PRE_ACTIVATION")
    node = KeyStore(ring(NODE))
    node.load(GROUND, 2, NEW)
    desk.answer(node.proof(GROUND, 2, desk.sent[-1][1][1]).hex())
    desk.answer("key 2 ACTIVE")
    desk.answer("key 1 is the last active one", Stage.FAILED, CommandCode.EXECUTION_ERROR)
    desk.answer("key 2 ACTIVE")
    desk.answer("key 1 DEACTIVATED")
    desk.answer("key 1 DESTROYED")
    assert desk.opcodes() == ["LOAD", "VERIFY", "ACTIVATE", "DEACTIVATE", "ACTIVATE", "DEACTIVATE", "DESTROY"]
    assert desk.keys.inventory(NODE) == ROTATED
    assert desk.notes[-1][0] == "key.rotated"


def test_a_refused_load_ends_the_change_and_refusals_end_it_at_last():
    desk = Desk()
    desk.rotations.begin(NODE, NEW, 0)
    desk.answer("key 2: expected 5 to 65535", Stage.FAILED, CommandCode.EXECUTION_ERROR)
    assert desk.notes[-1] == (
        "key.rotation_failed",
        {"node": NODE, "key": 2, "why": "KEYS.LOAD: EXECUTION_ERROR key 2: expected 5 to 65535"},
    )
    desk.rotations.begin(NODE, NEW, 0)
    for _ in range(REFUSALS_MAX - 1):
        desk.answer("", Stage.FAILED, CommandCode.EXPIRED)
    assert desk.rotations.nodes == [NODE]
    desk.answer("", Stage.FAILED, CommandCode.EXPIRED)
    assert desk.rotations.nodes == []


def test_a_step_without_an_answer_is_begun_again_and_stages_and_strangers_do_not_count():
    desk = Desk()
    desk.rotations.begin(NODE, NEW, 0)
    desk.rotations.round(99)
    assert desk.opcodes() == ["LOAD"]
    desk.rotations.round(100)
    assert desk.opcodes() == ["LOAD", "LOAD"]
    desk.answer("key 2 PRE_ACTIVATION", Stage.ACCEPTED)
    desk.rotations.on_verification(Verification(7, 2, Stage.COMPLETED, CommandCode.OK, "key 2 ACTIVE"), 0)
    desk.rotations.on_verification(Verification(NODE, 1, Stage.COMPLETED, CommandCode.OK, "key 2 ACTIVE"), 0)
    assert desk.opcodes() == ["LOAD", "LOAD"]


def test_a_node_without_keys_cannot_be_given_one_over_the_air():
    desk = Desk(KeyStore(KeyRing(GROUND)))
    with pytest.raises(ConfigError, match="no keys are shared with it"):
        desk.rotations.begin(NODE, NEW, 0)
    with pytest.raises(ConfigError, match="5 bytes, expected 32"):
        Desk().rotations.begin(NODE, b"short", 0)


def test_a_node_with_another_key_is_noted_once_and_gets_no_jobs(tmp_path):
    async def scenario():
        pair = Pair(tmp_path)
        pair.task.cancel()
        await asyncio.gather(pair.task, return_exceptions=True)
        for name in pair.node_disk.names("keys"):
            pair.node_disk.remove(name)
        pair.boot_node(KeyRing(NODE))
        await asyncio.sleep(60)
        assert pair.kinds().count("node.unkeyed") == 1
        assert pair.ground.membership.presence(NODE) is Presence.UNKEYED
        assert not pair.ground.membership.is_usable(NODE)
        await pair.close()

    virtual(scenario)


def test_a_key_for_a_node_without_keys_is_not_sent_and_does_not_end_the_ground(tmp_path):
    async def scenario():
        pair = Pair(tmp_path)
        pair.ground.agent.has_way = lambda *_: True
        pair.ground.command(99, "KEYS.LOAD", 2, b"x" * 40)
        await asyncio.sleep(300)
        assert "message.unsent" in pair.kinds()
        assert not pair.crashes
        await pair.close()

    virtual(scenario)
