"""Fetches from several holders: shares, and sources that are slow, dead or lie."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flightsw.objects.digest import ChunkTree, digest_of, missing_chunks
from flightsw.objects.exchange import FORGED
from flightsw.objects.store import ObjectStore
from flightsw.objects.transfers import (
    ObjectArrived,
    ObjectDelivered,
    ObjectMessage,
    Outgoing,
    SourceDropped,
    TransferConfig,
    TransferEvent,
    TransferFailed,
    Transfers,
)
from flightsw.wire.messages import CHUNK_BYTES, Chunk, ObjectStatus, ObjectWant
from hil.sim.disk import SimulatedDisk
from hil.sim.streams import Streams

NS_PER_S = 1_000_000_000
SAT, SOURCES = 1, (2, 3, 4)
COUNT = 200
DATA = Streams(1).bytes("object", COUNT * CHUNK_BYTES - 7)
DIGEST = digest_of(DATA)
TREE = ChunkTree(DATA)

Change = Callable[[int, ObjectMessage], ObjectMessage | None]


def chunk(index: int) -> Chunk:
    return Chunk(DIGEST, len(DATA), index, DATA[index * CHUNK_BYTES :][:CHUNK_BYTES], TREE.proof(index))


def honest(source: int, message: ObjectMessage) -> ObjectMessage | None:
    return message


@dataclass
class World:
    """One node that fetches and some that may hold the object, joined by a network without delay."""

    change: Change = honest
    """What becomes of each message from a source on its way."""
    holders: tuple[int, ...] = SOURCES
    quota_bytes: int = 1 << 24

    def __post_init__(self) -> None:
        self.ends: dict[int, Transfers] = {}
        self.stores: dict[int, ObjectStore] = {}
        self.events: dict[int, list[TransferEvent]] = {}
        for node in (SAT, *SOURCES):
            disk = SimulatedDisk(1 << 25, Streams(1).random(f"disk/{node}"))
            store = self.stores[node] = ObjectStore(disk, self.quota_bytes)
            if node in self.holders:
                store.put(DATA)
            self.ends[node] = Transfers(store, TransferConfig(timeout_s=10.0), local=node)
            self.events[node] = []
        self.sent: dict[int, list[int]] = {source: [] for source in SOURCES}
        self.wants: list[tuple[int, ObjectWant]] = []

    def fetch(self, sources: tuple[int, ...] = SOURCES) -> None:
        self.ends[SAT].fetch(DIGEST, len(DATA), sources, now_ns=0)

    def carry(self, now_s: int = 0) -> None:
        """Carry messages, one of each node in turn, until there are none."""
        now_ns = now_s * NS_PER_S
        queues: dict[int, list[Outgoing]] = {node: [] for node in self.ends}
        moved = True
        while moved:
            moved = False
            for node, end in self.ends.items():
                queues[node] += end.poll(now_ns)
                self.events[node] += end.take_events()
                if queues[node]:
                    moved = True
                    self._carry_one(node, queues[node].pop(0), now_ns)

    def _carry_one(self, node: int, outgoing: Outgoing, now_ns: int) -> None:
        message = outgoing.message
        if isinstance(message, Chunk) and node != SAT:
            self.sent[node].append(message.index)
        if isinstance(message, ObjectWant):
            self.wants.append((outgoing.destination, message))
        changed = message if node == SAT else self.change(node, message)
        if changed is not None:
            self.ends[outgoing.destination].receive(changed, node, now_ns)

    def run(self, seconds: int) -> None:
        for second in range(seconds):
            self.carry(second)
            if not self.ends[SAT].is_fetching(DIGEST):
                return

    @property
    def is_whole(self) -> bool:
        return self.stores[SAT].has(DIGEST) and self.stores[SAT].get(DIGEST) == DATA


def test_chunks_are_spread_and_none_is_sent_twice() -> None:
    world = World()
    world.fetch()
    world.carry()
    assert world.is_whole
    assert sorted(chain(*world.sent.values())) == list(range(COUNT))
    assert all(len(sent) > COUNT // 5 for sent in world.sent.values())
    assert [type(event) for event in world.events[SAT]] == [ObjectArrived]
    assert all(end.next_deadline_ns() is None for end in world.ends.values())
    assert all(world.events[source] == [ObjectDelivered(DIGEST, SAT)] for source in SOURCES)


def test_the_first_wants_ask_each_source_for_a_share_of_its_own_at_the_priority_of_the_fetch() -> None:
    world = World()
    world.ends[SAT].fetch(DIGEST, len(DATA), SOURCES, 0, priority=6)
    shares = []
    for destination, message, *_ in world.ends[SAT].poll(0):
        assert isinstance(message, ObjectWant)
        assert message.priority == 6
        shares.append((destination, missing_chunks(message.bitmap, COUNT)))
    assert shares == [(2, list(range(64))), (3, list(range(64, 128))), (4, list(range(128, 192)))]


def test_a_source_serves_a_want_at_its_priority_but_none_more_urgent_than_allowed() -> None:
    world = World()
    for priority, served in ((6, 6), (0, 3)):
        end = Transfers(world.stores[2], local=2)
        end.receive(ObjectWant(DIGEST, len(DATA), b"", priority), SAT, 0)
        assert {outgoing.priority for outgoing in end.poll(0)} == {served}


@pytest.mark.parametrize("dead", [(2,), (3, 4)])
def test_a_dead_source_holds_nothing_up_for_longer_than_its_time_out(dead: tuple[int, ...]) -> None:
    world = World(change=lambda source, message: None if source in dead else message)
    world.fetch()
    world.run(12)
    assert world.is_whole


def test_a_source_that_dies_in_the_middle_is_replaced() -> None:
    world = World()

    def until_half(source: int, message: ObjectMessage) -> ObjectMessage | None:
        return None if source == 3 and len(world.sent[3]) > 40 else message

    world.change = until_half
    world.fetch()
    world.run(12)
    assert world.is_whole


def test_all_sources_silent_are_asked_for_ever_and_the_object_arrives_when_one_comes_back() -> None:
    world = World(change=lambda source, message: None)
    world.fetch()
    world.run(10_000)
    assert world.ends[SAT].is_fetching(DIGEST)
    assert {destination for destination, _ in world.wants[-6:]} == set(SOURCES)
    world.change = lambda source, message: message if source == 4 else None
    for second in range(10_000, 12_000):
        world.carry(second)
    assert world.is_whole


def corrupted(message: ObjectMessage, how: str) -> ObjectMessage:
    if not isinstance(message, Chunk):
        return message
    if how == "data":
        return replace_fields(message, data=bytes([message.data[0] ^ 1]) + message.data[1:])
    if how == "proof":
        return replace_fields(message, proof=message.proof[:-1] + bytes([message.proof[-1] ^ 1]))
    if how == "another chunk":
        return replace_fields(chunk((message.index + 1) % COUNT), index=message.index)
    assert how == "short"
    return replace_fields(message, data=message.data[:-1])


def replace_fields(message: Chunk, **fields: object) -> Chunk:
    values = {name: getattr(message, name) for name in Chunk.__struct_fields__} | fields
    return Chunk(**values)


@pytest.mark.parametrize("how", ["data", "proof", "another chunk", "short"])
def test_a_lying_source_is_named_and_dropped_at_its_first_wrong_chunk(how: str) -> None:
    world = World()
    world.change = lambda source, message: corrupted(message, how) if source == 3 else message
    world.fetch()
    world.carry()
    assert world.is_whole
    assert world.events[SAT][0] == SourceDropped(DIGEST, 3, FORGED)
    assert isinstance(world.events[SAT][-1], ObjectArrived)
    assert world.ends[SAT].counts.sources_dropped == 1
    assert 3 not in [destination for destination, _ in world.wants[3:]]


def test_a_fetch_whose_sources_all_lie_fails_loudly_and_keeps_what_was_good() -> None:
    world = World()
    world.change = lambda source, message: corrupted(message, "data") if len(world.sent[source]) > 20 else message
    world.fetch()
    world.carry()
    assert isinstance(world.events[SAT][-1], TransferFailed)
    assert world.events[SAT][-1].reason == FORGED
    held = COUNT - len(missing_chunks(world.stores[SAT].bitmap(DIGEST), COUNT))
    assert held >= 20
    world.change = honest
    world.fetch((2,))
    world.carry()
    assert world.is_whole


def test_a_forged_push_is_refused_loudly_at_both_ends() -> None:
    world = World()
    world.change = lambda source, message: corrupted(message, "data")
    world.ends[2].push(DIGEST, SAT, 0)
    world.carry()
    assert world.events[2] == [TransferFailed(DIGEST, SAT, f"refused: {FORGED}")]
    assert world.stores[SAT].bitmap(DIGEST) == bytes(COUNT // 8)


def test_a_source_that_has_it_not_is_out_and_the_others_bring_all() -> None:
    world = World(holders=(3,))
    world.fetch()
    world.carry()
    assert world.is_whole
    assert [type(event) for event in world.events[SAT]] == [ObjectArrived]


def test_a_fetch_that_nobody_can_serve_fails_with_the_reason() -> None:
    world = World(holders=())
    world.fetch()
    world.carry()
    assert world.events[SAT] == [TransferFailed(DIGEST, 4, "refused: not held")]
    assert world.ends[SAT].next_deadline_ns() is None


def test_a_cancelled_source_leaves_its_share_to_the_others() -> None:
    world = World(change=lambda source, message: None if source == 2 else message)
    world.fetch((2, 3))
    world.carry()
    assert not world.is_whole
    world.ends[SAT].cancel(DIGEST, 2)
    assert world.ends[SAT].next_deadline_ns() == 0
    world.carry()
    assert world.is_whole


def test_a_source_named_later_joins_in() -> None:
    world = World(change=lambda source, message: None if source == 2 else message)
    world.fetch((2,))
    world.carry()
    world.fetch((2, 3))
    world.run(12)
    assert world.is_whole


def test_a_push_beside_the_fetch_is_told_only_its_share_and_ends_when_the_object_is_whole() -> None:
    world = World()
    world.ends[2].push(DIGEST, SAT, 0)
    world.fetch()
    world.run(100)
    assert world.is_whole
    assert ObjectDelivered(DIGEST, SAT) in world.events[2]
    assert not world.ends[2].is_pushing(DIGEST, SAT)


def test_a_pile_of_wants_makes_a_source_send_once() -> None:
    world = World(holders=(2,))
    source = world.ends[2]
    for _ in range(5):
        source.receive(ObjectWant(DIGEST, len(DATA), b"\xff\x0f"), SAT, 0)
    assert sum(isinstance(one.message, Chunk) for one in source.poll(0)) == COUNT - 12
    assert source.poll(NS_PER_S) == []


def test_an_answer_to_a_source_says_only_what_is_wanted_of_it() -> None:
    world = World()
    world.ends[SAT].fetch(DIGEST, len(DATA), (2, 3), 0)
    world.ends[SAT].poll(0)
    sat = Transfers(world.stores[SAT], local=SAT)
    sat.fetch(DIGEST, len(DATA), (2, 3), 0)
    sat.poll(0)
    world.ends[2].push(DIGEST, SAT, 0)
    (query,) = world.ends[2].poll(0)
    sat.receive(query.message, 2, 0)
    (status,) = sat.poll(0)
    assert isinstance(status.message, ObjectStatus)
    assert status.message.share
    assert missing_chunks(status.message.bitmap, COUNT) == list(range(64))


def test_chunks_that_rot_before_the_object_is_whole_are_fetched_again() -> None:
    world = World()
    sat, store = world.ends[SAT], world.stores[SAT]
    assert isinstance(store.disk, SimulatedDisk)
    sat.fetch(DIGEST, len(DATA), (2,), 0)
    sat.poll(0)
    for index in range(COUNT - 1):
        sat.receive(chunk(index), 2, 0)
    store.disk.flip_bit(f"objects/{DIGEST.hex()}.part", 8 * 100_000)
    sat.receive(chunk(COUNT - 1), 2, 0)
    assert not store.has(DIGEST)
    world.run(30)
    assert world.is_whole


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    loss=st.floats(0, 0.5),
    deaths=st.lists(st.sampled_from(SOURCES), max_size=2, unique=True),
    liars=st.lists(st.sampled_from(SOURCES), max_size=2, unique=True),
)
def test_one_honest_living_source_is_enough(seed: int, loss: float, deaths: list[int], liars: list[int]) -> None:
    chance = Streams(seed).random("network")
    alive = chance.choice(SOURCES)
    dead_from = {source: chance.randrange(40) for source in deaths if source != alive}
    world = World()

    def spoil(source: int, message: ObjectMessage) -> ObjectMessage | None:
        if second >= dead_from.get(source, 10**9) or chance.random() < loss:
            return None
        if source in liars and source != alive and chance.random() < 0.1:
            return corrupted(message, chance.choice(["data", "proof", "another chunk", "short"]))
        return message

    world.change = spoil
    world.fetch()
    for second in range(20_000):  # spoil reads it
        world.carry(second)
        if world.is_whole:
            break
    assert world.is_whole
    assert not any(isinstance(event, TransferFailed) for event in world.events[SAT])
