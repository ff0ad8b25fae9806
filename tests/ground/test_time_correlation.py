"""Time correlation: estimates hold within their bounds, whatever the link does to queries and answers."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boards.simulated.clock import LoopClock
from flightsw.core.mission_time import MissionTime
from flightsw.wire.messages import CommandCode, TimeQuery, TimeReply, decode_message, encode_message
from ground.time_correlation import OPEN_MAX, READINGS_MAX, ROUND_TRIP_NS_MAX, TimeCorrelation
from hil.sim.disk import SimulatedDisk
from hil.sim.streams import Streams

S = 1_000_000_000
MS = 1_000_000
EPOCH = 1_795_262_400 * S
NODE = 3


@dataclass
class Pair:
    """A ground and a node with a clock that drifts, and a link that takes its time."""

    now_ns: int = 0
    light_time_ns: int | None = 5 * MS
    period_s: float = 0.0
    sent: list[tuple[int, TimeQuery]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.board = LoopClock(lambda: self.now_ns, EPOCH)
        self.disk = SimulatedDisk(1 << 20, Streams(1).random("disk"))
        self.boots_count = 0
        self.boot()
        self.times = TimeCorrelation(
            LoopClock(lambda: self.now_ns, EPOCH),
            lambda node, now_ns: self.light_time_ns,
            lambda node, query: self.sent.append((node, query)),
            self.period_s,
            (2, NODE),
        )

    def boot(self) -> None:
        self.boots_count += 1
        self.node = MissionTime(self.board, self.disk, lambda key, *arguments: None)

    def error_ns(self) -> int:
        return self.node.utc_ns() - (EPOCH + self.now_ns)

    def measure(self, up_ns: int, down_ns: int) -> None:
        number = self.times.ask(NODE)
        self.now_ns += up_ns
        reply = self.node.reply(NODE, self.boots_count, number)
        self.now_ns += down_ns
        again = decode_message(encode_message(reply))
        assert isinstance(again, TimeReply)
        assert self.times.receive(again) is not None


def test_a_reading_is_true_time_give_or_take_half_the_round_trip() -> None:
    pair = Pair()
    pair.board.jump(3 * S)
    pair.boot()  # the node cannot know that its clock is ahead
    pair.measure(4 * MS, 10 * MS)
    found = pair.times.estimate(NODE)
    assert found is not None
    assert found.offset_ns == 3 * S - 3 * MS
    assert found.offset_bound_ns == 7 * MS + 1_400, "half the round trip, and what a clock drifts meanwhile at most"
    assert (found.drift_ppb, found.drift_bound_ppb) == (None, None)
    assert found.newest.light_time_ns == 5 * MS
    assert pair.times.correction(NODE) == (-3 * S + 3 * MS, 0, 0)


@settings(deadline=None)
@given(
    st.integers(-200_000, 200_000),
    st.lists(st.tuples(st.integers(0, 100_000), st.integers(0, 500), st.integers(0, 500)), min_size=1, max_size=40),
)
def test_offset_and_drift_are_within_their_bounds_of_what_is_true(
    drift_ppb: int, exchanges: list[tuple[int, int, int]]
) -> None:
    pair = Pair()
    pair.board.jump(-S)
    pair.board.set_drift_ppb(drift_ppb)
    pair.boot()
    for gap_s, up_ms, down_ms in exchanges:
        pair.now_ns += gap_s * S
        pair.measure(up_ms * MS, down_ms * MS)
    found = pair.times.estimate(NODE)
    assert found is not None
    # true at the instant that the newest reading speaks of
    at_ns = found.newest.true_ns - EPOCH
    true_offset_ns = -S + at_ns * drift_ppb / S
    assert abs(found.offset_ns - true_offset_ns) <= found.offset_bound_ns + 2  # of rounding
    if found.drift_ppb is not None:
        assert found.drift_bound_ppb is not None
        assert abs(found.drift_ppb - drift_ppb) <= found.drift_bound_ppb * 1.001 + 1
    assert found.readings_count <= READINGS_MAX


def test_commanded_corrections_bring_the_node_to_true_time_and_keep_it_there_over_a_reset() -> None:
    pair = Pair()
    pair.board.set_drift_ppb(40_000)
    for _ in range(3):
        pair.measure(5 * MS, 5 * MS)
        pair.now_ns += 5_000 * S
    pair.measure(5 * MS, 5 * MS)
    assert pair.error_ns() > 500 * MS
    correction = pair.times.correction(NODE)
    assert correction is not None
    assert correction.rate_ppb == pytest.approx(-40_000, abs=100)
    assert pair.node.handlers()["ADJUST"](tuple(correction)).code is CommandCode.OK
    pair.now_ns += 5_000 * S
    assert abs(pair.error_ns()) < 10 * MS
    pair.boot()
    pair.now_ns += 5_000 * S
    pair.measure(5 * MS, 5 * MS)
    assert abs(pair.error_ns()) < 10 * MS
    found = pair.times.estimate(NODE)
    assert found is not None
    assert found.readings_count == 5, "the clock ran through, so older readings stay comparable"
    assert abs(found.offset_ns) < 10 * MS
    assert found.newest.reply.state == "KEPT"


def test_a_clock_that_was_lost_makes_the_ground_forget_what_it_knew() -> None:
    pair = Pair()
    pair.measure(5 * MS, 5 * MS)
    pair.now_ns += 1000 * S
    pair.measure(5 * MS, 5 * MS)
    pair.board.jump(-EPOCH)
    pair.boot()
    pair.measure(5 * MS, 5 * MS)
    found = pair.times.estimate(NODE)
    assert found is not None
    assert found.readings_count == 1
    assert found.offset_ns == pytest.approx(-EPOCH, abs=10 * MS)


def test_the_rate_is_left_alone_while_the_drift_is_less_sure_than_it_is_large() -> None:
    pair = Pair()
    pair.board.set_drift_ppb(1_000)
    pair.measure(50 * MS, 50 * MS)
    pair.now_ns += 1000 * S
    pair.measure(50 * MS, 50 * MS)
    correction = pair.times.correction(NODE)
    assert correction is not None
    assert correction.rate_ppb == 0


def test_answers_that_nobody_asked_for_came_twice_or_late_do_not_count() -> None:
    pair = Pair()
    reply = pair.node.reply(NODE, 1, 1)
    assert pair.times.receive(reply) is None
    number = pair.times.ask(NODE)
    assert pair.times.receive(pair.node.reply(2, 1, number)) is None, "another node's"
    assert pair.times.receive(pair.node.reply(NODE, 1, number)) is not None
    assert pair.times.receive(pair.node.reply(NODE, 1, number)) is None, "once more"
    late = pair.times.ask(NODE)
    pair.now_ns += ROUND_TRIP_NS_MAX + 1
    assert pair.times.receive(pair.node.reply(NODE, 1, late)) is None
    assert pair.times.refused_count == 4
    assert pair.times.estimate(2) is None
    assert pair.times.correction(2) is None


def test_queries_without_an_answer_are_bounded() -> None:
    pair = Pair()
    for _ in range(OPEN_MAX + 1):
        pair.times.ask(NODE)
    assert pair.times.receive(pair.node.reply(NODE, 1, 1)) is None
    assert pair.times.receive(pair.node.reply(NODE, 1, OPEN_MAX + 1)) is not None


def test_nodes_in_direct_contact_are_asked_once_in_a_period_where_one_is_set() -> None:
    for period_s, asked in ((0.0, []), (600.0, [2, NODE, 2, NODE])):
        pair = Pair(period_s=period_s)
        for _ in range(240):
            pair.now_ns += 5 * S
            pair.times.round(pair.now_ns)
        assert [node for node, _ in pair.sent] == asked
    pair.light_time_ns = None
    pair.now_ns += 10_000 * S
    pair.times.round(pair.now_ns)
    assert len(pair.sent) == 4
