"""Object transfers: whatever the network and resets do, an object arrives whole, or its owner hears why not."""

from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flightsw.objects.digest import ChunkTree, digest_of, full_bitmap
from flightsw.objects.store import ObjectStore, object_name
from flightsw.objects.transfers import (
    ObjectArrived,
    ObjectDelivered,
    ObjectMessage,
    Outgoing,
    TransferConfig,
    TransferEvent,
    TransferFailed,
    Transfers,
)
from flightsw.wire.messages import CHUNK_BYTES, Chunk, ObjectQuery, ObjectStatus, ObjectWant
from hil.sim.disk import SimulatedDisk
from hil.sim.streams import Streams

NS_PER_S = 1_000_000_000
GROUND, SAT, OTHER = 1, 2, 3
SIZE_BYTES = 5 * CHUNK_BYTES - 7


def some_bytes(size_bytes: int = SIZE_BYTES, name: str = "object") -> bytes:
    return Streams(1).bytes(name, size_bytes)


def chunk(data: bytes, index: int) -> Chunk:
    tree = ChunkTree(data)
    piece = data[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]
    return Chunk(tree.digest, len(data), index, piece, tree.proof(index))


@dataclass
class End:
    """One node's store and transfers; `reset` loses all memory, and what the disk had not promised."""

    node: int
    quota_bytes: int = 1 << 22
    config: TransferConfig = field(default_factory=TransferConfig)
    seed: int = 1

    def __post_init__(self) -> None:
        self.disk = SimulatedDisk(1 << 23, Streams(self.seed).random(f"disk/{self.node}"))
        self.boot()

    def boot(self) -> None:
        self.store = ObjectStore(self.disk, self.quota_bytes)
        self.transfers = Transfers(self.store, self.config, local=self.node)

    def reset(self) -> None:
        self.disk.power_cut()
        self.boot()

    def take(self, source: int, *messages: ObjectMessage, now_ns: int = 0) -> list[Outgoing]:
        for message in messages:
            self.transfers.receive(message, source, now_ns)
        return self.transfers.poll(now_ns)


def carry(ends: list[End], now_ns: int = 0) -> list[TransferEvent]:
    """Carry all messages between the ends until none is left; returns the events of all, in order."""
    by_node = {end.node: end for end in ends}
    events: list[TransferEvent] = []
    moved = True
    while moved:
        moved = False
        for end in ends:
            for destination, message, *_ in end.transfers.poll(now_ns):
                moved = True
                by_node[destination].transfers.receive(message, end.node, now_ns)
            events += end.transfers.take_events()
    return events


def kinds(outgoing: list[Outgoing]) -> list[str]:
    return [type(message).__name__ for _, message, *_ in outgoing]


def test_a_push_delivers_and_both_ends_say_so() -> None:
    ground, sat = End(GROUND), End(SAT)
    digest = ground.store.put(some_bytes())
    ground.transfers.push(digest, SAT, now_ns=0)
    assert ground.transfers.next_deadline_ns() == 0
    assert sorted(carry([ground, sat])) == sorted([ObjectArrived(digest, GROUND), ObjectDelivered(digest, SAT)])
    assert sat.store.get(digest) == some_bytes()
    assert ground.transfers.next_deadline_ns() is None
    assert ground.transfers.counts.queries_sent == ground.transfers.counts.chunks_sent_again == 0


def test_a_fetch_delivers() -> None:
    ground, sat = End(GROUND), End(SAT)
    digest = ground.store.put(some_bytes())
    sat.transfers.fetch(digest, SIZE_BYTES, GROUND, now_ns=0)
    assert ObjectArrived(digest, GROUND) in carry([ground, sat])
    assert sat.store.get(digest) == some_bytes()
    assert not sat.transfers.is_fetching(digest)
    assert not ground.transfers.is_pushing(digest, SAT)


def test_only_the_chunks_that_were_lost_are_sent_again() -> None:
    ground, sat = End(GROUND), End(SAT)
    digest = ground.store.put(some_bytes())
    ground.transfers.push(digest, SAT, now_ns=0)
    sat.take(
        GROUND, *(message for index, (_, message, *_) in enumerate(ground.transfers.poll(0)) if index not in (1, 3))
    )
    assert ground.transfers.next_deadline_ns() == 60 * NS_PER_S
    assert ground.transfers.poll(60 * NS_PER_S - 1) == []
    (query,) = ground.transfers.poll(60 * NS_PER_S)
    (status,) = sat.take(GROUND, query.message)
    again = ground.take(SAT, status.message)
    assert [message.index for _, message, *_ in again if isinstance(message, Chunk)] == [1, 3]


def test_a_pile_of_late_answers_makes_the_chunks_go_once() -> None:
    ground = End(GROUND)
    digest = ground.store.put(some_bytes())
    ground.transfers.push(digest, SAT, now_ns=0)
    ground.transfers.poll(0)
    for minute in (1, 3, 7):
        ground.transfers.poll(minute * 60 * NS_PER_S)
    status = ObjectStatus(digest, SIZE_BYTES, b"\x80")
    assert kinds(ground.take(SAT, *[status] * 3, now_ns=421 * NS_PER_S)) == ["Chunk"] * 4


def test_an_answer_from_before_the_last_burst_does_not_make_its_chunks_go_again() -> None:
    ground, sat = End(GROUND, config=TransferConfig(burst_chunks_max=2)), End(SAT)
    digest = ground.store.put(some_bytes())
    ground.transfers.push(digest, SAT, now_ns=0)
    first = [one.message for one in ground.transfers.poll(0)]
    (again,) = ground.transfers.poll(60 * NS_PER_S)  # the link is slow, not broken
    answers = [one.message for one in sat.take(GROUND, *first, again.message)]
    second = ground.take(SAT, answers[0], now_ns=90 * NS_PER_S)
    assert [message.index for _, message, *_ in second if isinstance(message, Chunk)] == [2, 3]
    assert ground.take(SAT, answers[1], now_ns=91 * NS_PER_S) == []
    (status,) = sat.take(GROUND, *(one.message for one in second))
    third = ground.take(SAT, status.message, now_ns=92 * NS_PER_S)
    assert [message.index for _, message, *_ in third if isinstance(message, Chunk)] == [4]


def test_questions_come_at_doubling_distances_up_to_the_maximum_for_ever() -> None:
    ground = End(GROUND)
    ground.transfers.push(ground.store.put(b"x"), SAT, now_ns=0)
    ground.transfers.poll(0)
    instants = [0]
    for _ in range(8):
        deadline_ns = ground.transfers.next_deadline_ns()
        assert deadline_ns is not None
        assert kinds(ground.transfers.poll(deadline_ns)) == ["ObjectQuery"]
        instants.append(deadline_ns)
    waits_s = [(late - early) // NS_PER_S for early, late in pairwise(instants)]
    assert waits_s == [60, 120, 240, 480, 600, 600, 600, 600]


def test_queries_travel_behind_their_chunks_and_answers_before() -> None:
    ground, sat = End(GROUND), End(SAT)
    digest = ground.store.put(b"x")
    ground.transfers.push(digest, SAT, now_ns=0, priority=5)
    assert [priority for _, _, priority, _ in ground.transfers.poll(0) + ground.transfers.poll(60 * NS_PER_S)] == [5, 5]
    (status,) = sat.take(GROUND, ObjectQuery(digest, 1))
    assert status.priority < 4


def test_a_status_never_claims_what_a_power_cut_could_take() -> None:
    sat = End(SAT)
    data = some_bytes()
    sat.take(GROUND, chunk(data, 0))
    assert sat.disk.synced_view(object_name(digest_of(data)) + ".part") is None
    (status,) = sat.take(GROUND, ObjectQuery(digest_of(data), len(data)))
    assert isinstance(status.message, ObjectStatus)
    assert status.message.bitmap == b"\x80"
    sat.reset()
    assert sat.store.bitmap(digest_of(data)) == b"\x80"


def test_a_receiver_that_holds_the_object_says_so_at_once_but_not_for_every_chunk() -> None:
    ground, sat = End(GROUND), End(SAT)
    digest = ground.store.put(some_bytes())
    sat.store.put(some_bytes())
    ground.transfers.push(digest, SAT, now_ns=0)
    chunks = [message for _, message, *_ in ground.transfers.poll(0)]
    (status,) = sat.take(GROUND, *chunks)
    assert status.message == ObjectStatus(digest, SIZE_BYTES, full_bitmap(5))
    assert sat.transfers.take_events() == []
    ground.take(SAT, status.message)
    assert ground.transfers.take_events() == [ObjectDelivered(digest, SAT)]
    assert len(sat.take(GROUND, *chunks, now_ns=30 * NS_PER_S)) == 1


def test_an_object_without_room_is_refused_with_the_reason() -> None:
    ground, sat = End(GROUND), End(SAT, quota_bytes=100)
    digest = ground.store.put(some_bytes())
    ground.transfers.push(digest, SAT, now_ns=0)
    (event,) = carry([ground, sat])
    assert isinstance(event, TransferFailed)
    assert (event.digest, event.peer) == (digest, SAT)
    assert "no space" in event.reason
    assert sat.transfers.counts.refused == 1
    assert ground.transfers.next_deadline_ns() is None


def test_a_fetch_without_room_fails_at_once() -> None:
    sat = End(SAT, quota_bytes=100)
    sat.transfers.fetch(bytes(32), 1000, GROUND, now_ns=0)
    (event,) = sat.transfers.take_events()
    assert isinstance(event, TransferFailed)
    assert sat.transfers.poll(0) == []


def test_pushing_what_is_not_here_fails() -> None:
    ground = End(GROUND)
    ground.transfers.push(bytes(32), SAT, now_ns=0)
    assert ground.transfers.take_events() == [TransferFailed(bytes(32), SAT, "not held")]


def test_fetching_what_is_here_succeeds_without_a_message() -> None:
    sat = End(SAT)
    digest = sat.store.put(b"x")
    sat.transfers.fetch(digest, 1, GROUND, now_ns=0)
    assert sat.transfers.take_events() == [ObjectArrived(digest, SAT)]
    assert sat.transfers.poll(0) == []


def test_a_fetch_that_all_sources_refuse_fails() -> None:
    sat, other, ground = End(SAT), End(OTHER), End(GROUND)
    sat.transfers.fetch(bytes(32), SIZE_BYTES, [OTHER, GROUND], now_ns=0)
    assert carry([sat, other, ground]) == [TransferFailed(bytes(32), GROUND, "refused: not held")]
    assert sat.transfers.next_deadline_ns() is None


def test_a_fetch_waits_while_chunks_come() -> None:
    sat = End(SAT)
    data = some_bytes()
    sat.transfers.fetch(digest_of(data), len(data), GROUND, now_ns=0)
    sat.transfers.poll(0)
    sat.take(GROUND, chunk(data, 0), now_ns=50 * NS_PER_S)
    assert sat.transfers.poll(109 * NS_PER_S) == []
    (want,) = sat.transfers.poll(110 * NS_PER_S)
    assert want.message == ObjectWant(digest_of(data), len(data), b"\x80")
    assert want.priority < 4


def test_a_chunk_after_a_long_silence_brings_back_the_short_wait() -> None:
    sat = End(SAT)
    data = some_bytes()
    sat.transfers.fetch(digest_of(data), len(data), GROUND, now_ns=0)
    for second in (0, 60, 180, 420):  # the next question would come at 900 s
        sat.transfers.poll(second * NS_PER_S)
    sat.take(GROUND, chunk(data, 0), now_ns=500 * NS_PER_S)
    assert sat.transfers.next_deadline_ns() == 560 * NS_PER_S
    assert kinds(sat.transfers.poll(560 * NS_PER_S)) == ["ObjectWant"]


def test_a_want_is_served_with_missing_chunks_only_and_repeats_cost_nothing() -> None:
    ground = End(GROUND)
    digest = ground.store.put(some_bytes())
    want = ObjectWant(digest, SIZE_BYTES, b"\xe0")
    assert [m.index for _, m, *_ in ground.take(SAT, want, want, want) if isinstance(m, Chunk)] == [3, 4]
    assert ground.take(SAT, want) == []


def test_a_peer_that_wanted_and_fell_silent_is_given_up_but_a_push_is_not() -> None:
    ground = End(GROUND)
    digest = ground.store.put(b"x")
    ground.take(SAT, ObjectWant(digest, 1))
    ground.transfers.push(digest, OTHER, now_ns=0)
    now_ns = 0
    for _ in range(20):
        ground.transfers.poll(now_ns)
        now_ns += 600 * NS_PER_S
    assert not ground.transfers.is_pushing(digest, SAT)
    assert ground.transfers.is_pushing(digest, OTHER)
    assert ground.transfers.counts.given_up == 1
    assert ground.transfers.take_events() == []


def test_a_rebuilt_receiver_goes_on_from_its_disk() -> None:
    ground, sat = End(GROUND), End(SAT)
    data = some_bytes()
    digest = ground.store.put(data)
    sat.take(GROUND, *(chunk(data, index) for index in range(3)))
    sat.take(GROUND, ObjectQuery(digest, len(data)))
    sat.reset()
    sat.transfers.fetch(digest, len(data), GROUND, now_ns=0)
    carry([ground, sat])
    assert sat.store.get(digest) == data
    assert ground.transfers.counts.chunks_sent == 2


def test_pushes_to_one_peer_are_bounded_and_the_rest_wait_by_priority() -> None:
    ground = End(GROUND, config=TransferConfig(active_per_peer_max=2))
    digests = [ground.store.put(bytes([number])) for number in range(5)]
    for number, digest in enumerate(digests):
        ground.transfers.push(digest, SAT, now_ns=0, priority=7 - number)
    ground.transfers.push(digests[0], OTHER, now_ns=0)
    sent = [(destination, message.digest) for destination, message, *_ in ground.transfers.poll(0)]
    assert sent == [(SAT, digests[4]), (SAT, digests[3]), (OTHER, digests[0])]
    done = ObjectStatus(digests[4], 1, b"\x80")
    assert [message.digest for _, message, *_ in ground.take(SAT, done)] == [digests[2]]
    ground.transfers.cancel(digests[3], SAT)
    ground.transfers.cancel(digests[1], SAT)
    assert ground.transfers.next_deadline_ns() == 0
    assert [message.digest for _, message, *_ in ground.transfers.poll(0)] == [digests[0]]


def test_an_urgent_push_starts_though_less_urgent_ones_fill_all_places() -> None:
    ground = End(GROUND)
    for number in range(6):
        ground.transfers.push(ground.store.put(bytes([number])), SAT, now_ns=0, priority=6)
    assert kinds(ground.transfers.poll(0)) == ["Chunk"] * 4
    urgent = ground.store.put(b"urgent")
    ground.transfers.push(urgent, SAT, now_ns=0, priority=2)
    (chunk_sent,) = ground.transfers.poll(0)
    assert isinstance(chunk_sent.message, Chunk)
    assert (chunk_sent.message.digest, chunk_sent.priority) == (urgent, 2)


def test_a_push_of_the_least_urgency_is_delivered_while_urgent_ones_come_without_end() -> None:
    ground, sat = End(GROUND, config=TransferConfig(active_per_peer_max=1)), End(SAT)
    patient = ground.store.put(b"patient")
    ground.transfers.push(patient, SAT, now_ns=0, priority=7)
    for number in range(2):
        ground.transfers.push(ground.store.put(b"first %d" % number), SAT, now_ns=0, priority=0)
    sent: list[Outgoing] = []
    for number in range(20):
        ground.transfers.push(ground.store.put(b"urgent %d" % number), SAT, now_ns=0, priority=0)
        sent += (burst := ground.transfers.poll(0))
        for status in sat.take(GROUND, *(one.message for one in burst)):
            ground.transfers.receive(status.message, SAT, 0)
        if ObjectDelivered(patient, SAT) in ground.transfers.take_events():
            break
    assert number < 8
    assert sent[-1].priority == 0, "in the place of an urgent one it does not wait behind them in the bundle queue"


def test_a_push_beyond_the_waiting_limit_fails_at_once() -> None:
    ground = End(GROUND, config=TransferConfig(waiting_max=2))
    for number in range(3):
        ground.transfers.push(ground.store.put(bytes([number])), SAT, now_ns=0)
    (event,) = ground.transfers.take_events()
    assert isinstance(event, TransferFailed)
    assert "busy" in event.reason


def test_an_object_is_pinned_while_it_is_pushed() -> None:
    ground = End(GROUND, quota_bytes=20)
    digest = ground.store.put(b"x" * 15)
    ground.transfers.push(digest, SAT, now_ns=0)
    assert not ground.store.remove(digest)
    ground.transfers.cancel(digest, SAT)
    assert ground.store.remove(digest)
    assert ground.transfers.poll(0) == []


def test_a_large_object_goes_in_bursts_without_waiting_for_a_time_out() -> None:
    ground, sat = End(GROUND, config=TransferConfig(burst_chunks_max=2)), End(SAT)
    digest = ground.store.put(some_bytes())
    ground.transfers.push(digest, SAT, now_ns=0)
    first = ground.transfers.poll(0)
    assert kinds(first) == ["Chunk", "Chunk", "ObjectQuery"]
    sat.take(GROUND, *(message for _, message, *_ in first))
    ground.transfers.push(digest, SAT, now_ns=0)
    ground.transfers.receive(ObjectStatus(digest, SIZE_BYTES, b"\xc0"), SAT, 0)
    assert ObjectDelivered(digest, SAT) in carry([ground, sat])


def test_a_rotten_copy_is_never_sent_and_the_failure_is_told() -> None:
    ground = End(GROUND)
    digest = ground.store.put(some_bytes())
    ground.disk.flip_bit(object_name(digest), 9)
    ground.transfers.push(digest, OTHER, now_ns=0)
    assert ground.transfers.poll(0) == []
    (event,) = ground.transfers.take_events()
    assert isinstance(event, TransferFailed)
    digest = ground.store.put(some_bytes())
    ground.disk.flip_bit(object_name(digest), 9)
    (refusal,) = ground.take(SAT, ObjectWant(digest, SIZE_BYTES))
    assert refusal.message == ObjectStatus(digest, SIZE_BYTES, b"", "not held")


@pytest.mark.parametrize(
    "wrong",
    [Chunk(bytes(32), 10, 1, b""), Chunk(bytes(32), 10, 0, b"short"), Chunk(bytes(32), CHUNK_BYTES + 1, 2, b"x")],
)
def test_a_chunk_that_cannot_be_is_counted_and_changes_nothing(wrong: Chunk) -> None:
    sat = End(SAT)
    assert sat.take(GROUND, wrong) == []
    assert sat.transfers.counts.chunks_rejected == 1
    assert sat.store.partial_digests() == []


def test_an_absurd_size_is_refused() -> None:
    sat = End(SAT)
    (refusal,) = sat.take(GROUND, Chunk(bytes(32), 2**62, 0, bytes(CHUNK_BYTES)))
    assert isinstance(refusal.message, ObjectStatus)
    assert "no space" in refusal.message.refused


def test_a_partial_object_that_nobody_continues_gives_way_but_a_living_one_does_not() -> None:
    sat = End(SAT, quota_bytes=3 * CHUNK_BYTES)
    stale, new = chunk(bytes(2 * CHUNK_BYTES), 0), chunk(some_bytes(2 * CHUNK_BYTES), 0)
    sat.take(GROUND, stale)
    assert sat.take(OTHER, new, now_ns=21_599 * NS_PER_S) != []
    assert sat.store.partial_digests() == [stale.digest]
    assert sat.take(OTHER, new, now_ns=21_600 * NS_PER_S) == []
    assert sat.store.partial_digests() == [new.digest]


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    sizes=st.lists(st.integers(0, 4 * CHUNK_BYTES), min_size=1, max_size=4, unique=True),
    loss=st.floats(0, 0.6),
    doubled=st.floats(0, 0.4),
    resets=st.floats(0, 0.1),
    sat_quota_bytes=st.sampled_from([3 * CHUNK_BYTES, 1 << 22]),
)
def test_every_transfer_ends_with_the_same_digest_or_a_told_failure(
    seed: int, sizes: list[int], loss: float, doubled: float, resets: float, sat_quota_bytes: int
) -> None:
    chance = Streams(seed).random("network")
    config = TransferConfig(timeout_s=10.0, timeout_max_s=40.0)
    ground, sat = End(GROUND, config=config, seed=seed), End(SAT, quota_bytes=sat_quota_bytes, config=config, seed=seed)
    data = {digest_of(content): content for content in (some_bytes(size, f"object/{size}") for size in sizes)}
    wanted = sorted(data)[::2]
    for content in data.values():
        ground.store.put(content)
    ended: set[bytes] = set()
    flying: list[tuple[int, int, int, ObjectMessage]] = []
    rough_until_s, sequence = 300, 0
    for second in range(1200):
        now_ns = second * NS_PER_S
        rough = second < rough_until_s
        for end in (ground, sat):
            if second == 0 or (rough and chance.random() < resets):
                end.reset()
                for digest in sorted(set(data) - ended):  # the owner starts again what it has not seen end
                    if end is ground and digest not in wanted:
                        ground.transfers.push(digest, SAT, now_ns)
                    elif end is sat and digest in wanted:
                        sat.transfers.fetch(digest, len(data[digest]), [GROUND, OTHER], now_ns)
        for end, peer in ((ground, SAT), (sat, GROUND)):
            for destination, message, *_ in end.transfers.poll(now_ns):
                copies = 0 if rough and chance.random() < loss else 1 + (rough and chance.random() < doubled)
                for _ in range(copies if destination == peer else 0):
                    sequence += 1
                    flying.append((second + 1 + chance.randrange(30 if rough else 2), sequence, destination, message))
        flying.sort(key=lambda item: item[:2])
        while flying and flying[0][0] <= second:
            _, _, destination, message = flying.pop(0)
            end, source = (ground, SAT) if destination == GROUND else (sat, GROUND)
            end.transfers.receive(message, source, now_ns)
        for event in ground.transfers.take_events():
            if event.digest not in wanted:
                ended.add(event.digest)
                refused = isinstance(event, TransferFailed)
                assert refused or (isinstance(event, ObjectDelivered) and event.digest in data)
                assert not refused or sat_quota_bytes < sum(sizes)
        for event in sat.transfers.take_events():
            if isinstance(event, ObjectArrived) and sat.store.has(event.digest):
                assert sat.store.get(event.digest) == data[event.digest]
                ended |= {event.digest} & set(wanted)
            elif isinstance(event, TransferFailed):
                assert sat_quota_bytes < sum(sizes)
                ended.add(event.digest)
        if ended == set(data) and not rough:
            break
    assert ended == set(data)
    if sat_quota_bytes >= sum(sizes):
        assert all(sat.store.get(digest) == content for digest, content in data.items())
