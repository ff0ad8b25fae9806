"""Power cuts: whenever an end loses power, the transfer ends with the right bytes; durable ones need no reminder."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flightsw.errors import StorageError
from flightsw.objects.digest import digest_of, missing_chunks
from flightsw.objects.intents import ENDED_KEPT_MAX, FETCH, LOG_NAME, Intent, Intents
from flightsw.objects.store import ObjectStore
from flightsw.objects.transfers import (
    ObjectArrived,
    ObjectDelivered,
    ObjectMessage,
    TransferConfig,
    TransferEvent,
    TransferFailed,
    Transfers,
)
from flightsw.wire.messages import CHUNK_BYTES, ObjectQuery
from hil.sim.disk import SimulatedDisk
from hil.sim.streams import Streams

NS_PER_S = 1_000_000_000
GROUND, SAT = 1, 2
SMALL = Streams(1).bytes("object", 2 * CHUNK_BYTES + 9)


class PowerLost(BaseException):
    """Ends whatever runs, as a power cut does; no handler for errors catches it."""


class CutDisk(SimulatedDisk):
    """A disk whose power fails at the operations that `cuts` counts down to: just before them, or just after."""

    def __init__(self, seed: int, cuts: list[tuple[int, bool]]) -> None:
        super().__init__(1 << 23, Streams(seed).random("disk"))
        self.operations_count = 0
        self._cuts = cuts
        self._left_count = cuts[0][0] if cuts else -1

    def _do(self, operation: Callable[[], None]) -> None:
        self.operations_count += 1
        if self._left_count != 0:
            self._left_count -= 1
            operation()
            return
        _, is_after = self._cuts.pop(0)
        self._left_count = self._cuts[0][0] if self._cuts else -1
        if is_after:
            operation()
        raise PowerLost

    def append(self, name: str, data: bytes) -> None:
        self._do(lambda: super(CutDisk, self).append(name, data))

    def write(self, name: str, data: bytes) -> None:
        self._do(lambda: super(CutDisk, self).write(name, data))

    def sync(self, name: str) -> None:
        self._do(lambda: super(CutDisk, self).sync(name))

    def replace(self, name: str, data: bytes) -> None:
        self._do(lambda: super(CutDisk, self).replace(name, data))

    def remove(self, name: str) -> None:
        self._do(lambda: super(CutDisk, self).remove(name))


@dataclass
class End:
    """One end: a computer that boots again when its power was lost."""

    node: int
    seed: int
    cuts: list[tuple[int, bool]]
    owner: Callable[["End", int], None]
    """Asks for the transfer; called until it has returned once, and after each boot when it is not durable."""
    is_durable: bool = True
    events: list[TransferEvent] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.disk = CutDisk(self.seed, self.cuts)
        self.has_asked = False
        self.transfers: Transfers | None = None

    def step(self, inbox: list[tuple[int, ObjectMessage]], now_ns: int) -> list[tuple[int, ObjectMessage]]:
        """One cycle; what was not sent when the power fails is lost."""
        try:
            if self.transfers is None:
                self.store = ObjectStore(self.disk, 1 << 22)
                self.transfers = Transfers(
                    self.store, TransferConfig(timeout_s=10.0, timeout_max_s=40.0), local=self.node
                )
                self.has_asked &= self.is_durable
            if not self.has_asked:
                self.owner(self, now_ns)
                self.has_asked = True
            for source, message in inbox:
                self.transfers.receive(message, source, now_ns)
            outgoing = [(one.destination, one.message) for one in self.transfers.poll(now_ns)]
            self.events += self.transfers.take_events()
            return outgoing
        except PowerLost:
            self.disk.power_cut()
            self.transfers = None
            return []

    def is_quiet(self) -> bool:
        return self.transfers is not None and self.transfers.next_deadline_ns() is None


def run(
    data: bytes, cuts: dict[int, list[tuple[int, bool]]], seed: int = 1, *, how: str = "push", durable: bool = True
):
    """Transfer an object from GROUND to SAT; returns both ends when nothing is left to do."""
    digest = digest_of(data)

    def ground_owner(end: End, now_ns: int) -> None:
        assert end.transfers is not None
        if not end.store.has(digest):
            end.store.put(data)
        if how == "push" and ObjectDelivered(digest, SAT) not in end.events:
            end.transfers.push(digest, SAT, now_ns, durable=durable)

    def sat_owner(end: End, now_ns: int) -> None:
        assert end.transfers is not None
        if how == "fetch" and ObjectArrived(digest, GROUND) not in end.events:
            end.transfers.fetch(digest, len(data), GROUND, now_ns, durable=durable)

    ends = {
        node: End(node, seed + node, cuts.get(node, []), owner, durable)
        for node, owner in ((GROUND, ground_owner), (SAT, sat_owner))
    }
    inboxes: dict[int, list[tuple[int, ObjectMessage]]] = {GROUND: [], SAT: []}
    quiet_s = 0
    for second in range(3000):
        sent = {node: end.step(inboxes[node], second * NS_PER_S) for node, end in ends.items()}
        inboxes = {
            node: [(source, message) for source in ends for destination, message in sent[source] if destination == node]
            for node in ends
        }
        quiet_s = quiet_s + 1 if all(end.is_quiet() for end in ends.values()) and not any(inboxes.values()) else 0
        if quiet_s == 3:
            return ends[GROUND], ends[SAT]
    raise AssertionError(f"never quiet: cuts {cuts}, seed {seed}, {how}, durable {durable}")


def check(data: bytes, cuts: dict[int, list[tuple[int, bool]]], seed: int, how: str, durable: bool) -> None:
    digest, story = digest_of(data), f"cuts {cuts}, seed {seed}, {how}, durable {durable}"
    ground, sat = run(data, {node: list(one) for node, one in cuts.items()}, seed, how=how, durable=durable)
    assert sat.store.has(digest), story
    assert sat.store.get(digest) == data, story
    assert sat.store.partial_digests() == [], story
    told = (
        any(isinstance(event, ObjectDelivered) for event in ground.events)
        if how == "push"
        else any(isinstance(event, ObjectArrived) for event in sat.events)
    )
    assert told, story
    assert not any(isinstance(event, TransferFailed) for event in ground.events + sat.events), story


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("how", ["push", "fetch"])
def test_a_cut_at_every_operation_of_either_disk_only_delays_the_object(how: str, durable: bool) -> None:
    clean = run(SMALL, {}, how=how, durable=durable)
    counts = {end.node: end.disk.operations_count for end in clean}
    assert counts[SAT] >= 6  # a part of three chunks, its sync, the whole object, the part's end
    for node, count in counts.items():
        for number, is_after, seed in product(range(count), (False, True), range(2)):
            check(SMALL, {node: [(number, is_after)]}, seed, how, durable)


@pytest.mark.parametrize("how", ["push", "fetch"])
def test_cuts_of_both_ends_at_every_pair_of_operations_only_delay_the_object(how: str) -> None:
    ground, sat = run(SMALL, {}, how=how)
    for at_ground, at_sat in product(range(ground.disk.operations_count), range(sat.disk.operations_count)):
        is_after = bool((at_ground + at_sat) & 1)
        check(SMALL, {GROUND: [(at_ground, is_after)], SAT: [(at_sat, not is_after)]}, 1, how, True)


@pytest.mark.parametrize("how", ["push", "fetch"])
def test_a_second_cut_at_every_operation_of_the_recovery_only_delays_the_object(how: str) -> None:
    for node, end in zip((GROUND, SAT), run(SMALL, {}, how=how), strict=True):
        for number, later in product(range(end.disk.operations_count), range(5)):
            check(SMALL, {node: [(number, True), (later, bool(later & 1))]}, 3, how, True)


@settings(max_examples=30, deadline=None)
@given(
    size_bytes=st.integers(0, 60 * CHUNK_BYTES),
    ground_cuts=st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=6),
    sat_cuts=st.lists(st.tuples(st.integers(0, 60), st.booleans()), max_size=12),
    seed=st.integers(0, 2**32),
    how=st.sampled_from(["push", "fetch"]),
    durable=st.booleans(),
)
def test_larger_objects_arrive_through_many_cuts(
    size_bytes: int,
    ground_cuts: list[tuple[int, bool]],
    sat_cuts: list[tuple[int, bool]],
    seed: int,
    how: str,
    durable: bool,
) -> None:
    check(Streams(seed).bytes("object", size_bytes), {GROUND: ground_cuts, SAT: sat_cuts}, seed, how, durable)


def test_a_durable_push_asks_first_after_a_reset_and_sends_only_what_is_missing() -> None:
    data = Streams(2).bytes("object", 8 * CHUNK_BYTES)
    digest = digest_of(data)
    disk = SimulatedDisk(1 << 22, Streams(1).random("disk"))
    store = ObjectStore(disk, 1 << 20)
    store.put(data)
    Transfers(store, local=GROUND).push(digest, SAT, 0, priority=2, durable=True)
    disk.power_cut()
    again = Transfers(ObjectStore(disk, 1 << 20), local=GROUND)
    assert again.next_deadline_ns() == 0
    (question,) = again.poll(0)
    assert question.message == ObjectQuery(digest, len(data), 2)
    assert question.priority == 2
    assert again.is_pushing(digest, SAT)
    assert again.counts.resumed == 1


def test_a_durable_push_whose_object_is_lost_fails_loudly_after_the_reset_and_only_once() -> None:
    disk = SimulatedDisk(1 << 22, Streams(1).random("disk"))
    store = ObjectStore(disk, 1 << 20)
    digest = store.put(b"x")
    Transfers(store, local=GROUND).push(digest, SAT, 0, durable=True)
    disk.remove(f"objects/{digest.hex()}")
    for expected in ([TransferFailed(digest, SAT, "not held")], []):
        again = Transfers(ObjectStore(disk, 1 << 20), local=GROUND)
        assert again.poll(0) == []
        assert again.take_events() == expected
        assert again.poll(0) == []


def test_an_end_that_nobody_took_is_told_again_after_a_reset() -> None:
    disk = SimulatedDisk(1 << 22, Streams(1).random("disk"))
    store = ObjectStore(disk, 1 << 20)
    first = Transfers(store, local=SAT)
    first.fetch(digest_of(b"x"), 1, GROUND, 0, durable=True)
    store.put(b"x")
    for _ in range(2):
        again = Transfers(ObjectStore(disk, 1 << 20), local=SAT)
        again.poll(0)
        assert again.take_events() == [ObjectArrived(digest_of(b"x"), SAT)]
        assert again.next_deadline_ns() == 0
    again.poll(0)
    assert again.next_deadline_ns() is None
    last = Transfers(ObjectStore(disk, 1 << 20), local=SAT)
    last.poll(0)
    assert last.take_events() == []


@pytest.mark.parametrize("is_resumed", [False, True])
def test_a_cancelled_durable_transfer_does_not_come_back(is_resumed: bool) -> None:
    disk = SimulatedDisk(1 << 22, Streams(1).random("disk"))
    store = ObjectStore(disk, 1 << 20)
    digest = store.put(b"x")
    transfers = Transfers(store, local=GROUND)
    transfers.push(digest, SAT, 0, durable=True)
    transfers.fetch(bytes(32), 5, SAT, 0, durable=True)
    assert len(transfers.poll(0)) == 2
    if is_resumed:  # cancelled before the first poll after a reset
        transfers = Transfers(ObjectStore(disk, 1 << 20), local=GROUND)
    transfers.cancel(digest, SAT)
    transfers.cancel(bytes(32), SAT)
    assert Intents(disk).open() == []
    assert transfers.poll(0) == []
    assert Transfers(ObjectStore(disk, 1 << 20), local=GROUND).poll(0) == []


def test_a_transfer_that_cannot_be_made_durable_fails_at_once() -> None:
    disk = SimulatedDisk(20, Streams(1).random("disk"))
    store = ObjectStore(disk, 1 << 20)
    digest = store.put(b"x")
    transfers = Transfers(store, local=GROUND)
    transfers.push(digest, SAT, 0, durable=True)
    transfers.fetch(bytes(32), 5, SAT, 0, durable=True)
    events = transfers.take_events()
    assert [type(event) for event in events] == [TransferFailed] * 2
    assert all("cannot be made durable: disk full" in event.reason for event in events)  # type: ignore[union-attr]
    assert transfers.poll(0) == []


def test_the_log_of_intents_keeps_what_is_open_and_does_not_grow_with_what_ended() -> None:
    disk = SimulatedDisk(1 << 22, Streams(1).random("disk"))
    intents = Intents(disk)
    stays = [Intent(b"f" * 32, 7, 3, FETCH, (5, 6)), Intent(b"p" * 32, 8, 1, 9)]
    for intent in stays:
        intents.add(intent)
    for number in range(3 * ENDED_KEPT_MAX):
        passing = Intent(number.to_bytes(32, "big"), 1, 4, SAT)
        intents.add(passing)
        intents.end([passing.key])
        assert not intents.holds(passing.key)
    disk.power_cut()
    assert Intents(disk).open() == stays
    assert len(disk.read(LOG_NAME)) < 60 * (ENDED_KEPT_MAX + 4)


def test_a_disk_that_will_not_forget_an_intent_costs_a_question_after_the_reset_and_nothing_else() -> None:
    disk = SimulatedDisk(130, Streams(1).random("disk"))
    intents = Intents(disk)
    intents.add(Intent(b"p" * 32, 8, 1, 9))
    disk.append("filler", bytes(disk.free_bytes()))
    intents.end([(b"p" * 32, 9)])
    assert intents.open() == []
    assert len(Intents(disk).open()) == 1


def test_a_full_disk_amid_a_transfer_fails_it_at_both_ends_and_it_goes_on_when_there_is_room() -> None:
    data = Streams(2).bytes("object", 6 * CHUNK_BYTES)
    digest = digest_of(data)
    ground_store = ObjectStore(SimulatedDisk(1 << 22, Streams(1).random("ground")), 1 << 20)
    ground_store.put(data)
    disk = SimulatedDisk(1 << 18, Streams(1).random("sat"))
    store = ObjectStore(disk, 1 << 20)
    ground, sat = Transfers(ground_store, local=GROUND), Transfers(store, local=SAT)
    ground.push(digest, SAT, 0)
    sent = ground.poll(0)
    for one in sent[:2]:
        sat.receive(one.message, GROUND, 0)
    disk.append("log of somebody else", bytes(disk.free_bytes()))
    for one in sent[2:]:
        sat.receive(one.message, GROUND, 0)
    (refusal,) = sat.poll(0)
    ground.receive(refusal.message, SAT, 0)
    (event,) = ground.take_events()
    assert isinstance(event, TransferFailed)
    assert event.reason.startswith("refused: disk full: append of 16")
    assert "bytes are free" in event.reason
    with pytest.raises(StorageError):
        store.bitmap(digest)  # what came stands, but nothing may be claimed while the disk cannot be trusted
    disk.remove("log of somebody else")
    assert missing_chunks(store.bitmap(digest), 6) == [2, 3, 4, 5]
    ground.push(digest, SAT, 0)
    for now_ns in range(0, 100 * NS_PER_S, 10 * NS_PER_S):
        for end, other, node in ((ground, sat, GROUND), (sat, ground, SAT)):
            for one in end.poll(now_ns):
                other.receive(one.message, node, now_ns)
    assert store.get(digest) == data
    assert ObjectDelivered(digest, SAT) in ground.take_events()


def test_room_is_promised_for_the_whole_object_before_its_first_chunk() -> None:
    disk = SimulatedDisk(100 * CHUNK_BYTES, Streams(1).random("disk"))
    store = ObjectStore(disk, 90 * CHUNK_BYTES)
    store.begin(b"a" * 32, 20 * CHUNK_BYTES)
    store.begin(b"b" * 32, 30 * CHUNK_BYTES)  # 50 in chunks, and 30 once more to put the larger together
    with pytest.raises(StorageError, match=r"are missing \(disk\)") as refused:
        store.begin(b"c" * 32, 30 * CHUNK_BYTES)
    assert f"{30 * CHUNK_BYTES} bytes needed; free are {40 * CHUNK_BYTES} of the quota" in str(refused.value)
    with pytest.raises(StorageError, match=r"are missing \(quota\)"):
        store.begin(b"c" * 32, 41 * CHUNK_BYTES)
    with pytest.raises(StorageError, match="disk"):
        store.put(bytes(30 * CHUNK_BYTES))
    store.begin(b"d" * 32, 15 * CHUNK_BYTES)


def test_a_large_push_waits_for_the_promise_and_a_refusal_costs_no_chunk() -> None:
    data = bytes(40 * CHUNK_BYTES)
    ground_store = ObjectStore(SimulatedDisk(1 << 22, Streams(1).random("ground")), 1 << 21)
    digest = ground_store.put(data)
    sat = Transfers(ObjectStore(SimulatedDisk(1 << 22, Streams(1).random("sat")), 1 << 19), local=SAT)
    ground = Transfers(ground_store, local=GROUND)
    ground.push(digest, SAT, 0)
    (offer,) = ground.poll(0)
    assert offer.message == ObjectQuery(digest, len(data), 2)
    sat.receive(offer.message, GROUND, 0)
    (refusal,) = sat.poll(0)
    ground.receive(refusal.message, SAT, 0)
    (event,) = ground.take_events()
    assert isinstance(event, TransferFailed)
    assert f"no space: {len(data)} bytes needed; free are {1 << 19} of the quota" in event.reason
    assert ground.counts.chunks_sent == 0
