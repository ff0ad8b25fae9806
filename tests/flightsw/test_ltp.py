"""The LTP engine: state rules of RFC 5326, timers in contact time, and what survives a bad link."""

import random  # noqa: TID251 - seeded
from heapq import heappop, heappush
from itertools import count, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flightsw.net.coverage import Coverage
from flightsw.net.ltp import BlockFailed, BlockReceived, BlockSent, CancelReason, LtpConfig, Span
from flightsw.wire.segments import (
    CancelAck,
    CancelSegment,
    DataSegment,
    ReportAck,
    ReportSegment,
    Segment,
    decode_segment,
)

SECOND_NS = 1_000_000_000
LIGHT_TIME_NS = 5_000_000
CONFIG = LtpConfig(margin_ns=100_000_000, retransmissions_max=4, closed_sessions_max=64)
TIMEOUT_NS = 2 * LIGHT_TIME_NS + CONFIG.margin_ns


def make_span(local: int = 1, remote: int = 2, config: LtpConfig = CONFIG, segment_bytes: int = 100) -> Span:
    span = Span(local, remote, config, count(1000 * local).__next__, segment_bytes=segment_bytes)
    span.set_light_time_ns(LIGHT_TIME_NS)
    span.resume(0)
    return span


def drain(span: Span, now_ns: int = 0) -> list[Segment]:
    segments = []
    while (data := span.next_segment(now_ns)) is not None:
        segments.append(decode_segment(data))
    return segments


def exchange(sender: Span, receiver: Span, now_ns: int = 0) -> None:
    """Carry everything, losslessly, until both are silent."""
    for _ in range(100):
        forth, back = drain(sender, now_ns), drain(receiver, now_ns)
        if not forth and not back:
            return
        for segment in forth:
            receiver.receive(segment, now_ns)
        for segment in back:
            sender.receive(segment, now_ns)
    pytest.fail("the spans never fall silent")


def data(
    offset: int, size: int, *, serial: int = 0, end: bool = False, report: int = 0, red: bool = True
) -> DataSegment:
    return DataSegment((2, 7), red, serial > 0, end and red, end, 1, offset, bytes(size), serial, report)


def test_a_red_block_arrives_whole_and_both_ends_close() -> None:
    sender, receiver = make_span(1, 2), make_span(2, 1)
    block = bytes(range(256)) * 2
    number = sender.send(block, True, 0)
    exchange(sender, receiver)
    assert receiver.take_events() == [BlockReceived(block, True, (1, number), 0)]
    assert sender.take_events() == [BlockSent(number)]
    assert sender.next_deadline_ns() is None
    assert not sender.has_work
    assert not receiver.has_work


def test_only_the_end_of_a_red_block_is_a_checkpoint_with_a_serial() -> None:
    sender = make_span()
    sender.send(bytes(250), True, 0)
    segments = drain(sender)
    assert [(s.offset, len(s.data), s.checkpoint, s.end_of_block) for s in segments if isinstance(s, DataSegment)] == [
        (0, 100, False, False),
        (100, 100, False, False),
        (200, 50, True, True),
    ]
    last = segments[-1]
    assert isinstance(last, DataSegment)
    assert last.checkpoint_serial > 0
    assert last.report_serial == 0


def test_a_report_claims_what_arrived_and_thereby_names_the_gaps() -> None:
    receiver = make_span()
    receiver.receive(data(0, 100), 0)
    receiver.receive(data(200, 100), 0)
    receiver.receive(data(400, 100, serial=3, end=True), 0)
    (report,) = drain(receiver)
    assert isinstance(report, ReportSegment)
    assert (report.checkpoint_serial, report.lower, report.upper) == (3, 0, 500)
    assert report.claims == ((0, 100), (200, 100), (400, 100))


def test_gaps_are_sent_again_and_the_last_piece_is_a_checkpoint_that_names_the_report() -> None:
    sender, receiver = make_span(1, 2), make_span(2, 1)
    sender.send(bytes(500), True, 0)
    for segment in drain(sender):
        if isinstance(segment, DataSegment) and segment.offset not in (100, 300):
            receiver.receive(segment, 0)
    (report,) = drain(receiver)
    assert isinstance(report, ReportSegment)
    sender.receive(report, 0)
    acknowledgement, first, second = drain(sender)
    assert acknowledgement == ReportAck((1, 1000), report.report_serial)
    assert isinstance(first, DataSegment)
    assert isinstance(second, DataSegment)
    assert (first.offset, first.checkpoint) == (100, False)
    assert (second.offset, second.checkpoint, second.report_serial) == (300, True, report.report_serial)
    assert second.checkpoint_serial == 2, "checkpoint serials rise by one"
    for segment in (acknowledgement, first, second):
        receiver.receive(segment, 0)
    (second_report,) = drain(receiver)
    assert isinstance(second_report, ReportSegment)
    assert (second_report.lower, second_report.upper) == (0, 400), "the scope of a secondary report, RFC 5326 6.11"
    sender.receive(second_report, 0)
    assert sender.take_events() == [BlockSent(1000)]


def test_a_checkpoint_is_repeated_after_the_timeout_and_not_before() -> None:
    sender = make_span()
    sender.send(bytes(50), True, 0)
    (first,) = drain(sender, 10)
    assert sender.next_deadline_ns() == 10 + TIMEOUT_NS
    sender.tick(10 + TIMEOUT_NS - 1)
    assert drain(sender, 10 + TIMEOUT_NS - 1) == []
    sender.tick(10 + TIMEOUT_NS)
    assert drain(sender, 10 + TIMEOUT_NS) == [first]


def test_suspended_timers_do_not_fire_and_go_on_with_what_was_left() -> None:
    sender = make_span()
    sender.send(bytes(50), True, 0)
    drain(sender)
    sender.suspend(TIMEOUT_NS - 7)
    assert sender.next_deadline_ns() is None
    sender.tick(3600 * SECOND_NS)
    assert sender.next_segment(3600 * SECOND_NS) is None
    sender.resume(3600 * SECOND_NS)
    assert sender.next_deadline_ns() == 3600 * SECOND_NS + 7
    sender.tick(3600 * SECOND_NS + 6)
    assert drain(sender, 3600 * SECOND_NS + 6) == []
    sender.tick(3600 * SECOND_NS + 7)
    assert len(drain(sender, 3600 * SECOND_NS + 7)) == 1


def test_a_sender_without_answer_gives_up_at_the_limit_says_so_and_cancels() -> None:
    sender = make_span()
    number = sender.send(b"block", True, 0)
    now_ns = 0
    sent_count = 0
    events = []
    while (deadline_ns := sender.next_deadline_ns()) is not None or sender.has_work:
        now_ns = deadline_ns or now_ns
        sender.tick(now_ns)
        sent_count += sum(isinstance(segment, DataSegment) for segment in drain(sender, now_ns))
        events += sender.take_events()
    assert sent_count == 1 + CONFIG.retransmissions_max
    assert events == [BlockFailed(number, b"block", CancelReason.RLEXC)]


def test_a_report_is_repeated_until_it_is_acknowledged() -> None:
    receiver = make_span()
    receiver.receive(data(0, 40, serial=1, end=True), 0)
    (report,) = drain(receiver)
    receiver.tick(TIMEOUT_NS)
    assert drain(receiver, TIMEOUT_NS) == [report]
    assert isinstance(report, ReportSegment)
    receiver.receive(ReportAck((2, 7), report.report_serial), TIMEOUT_NS)
    receiver.tick(10 * TIMEOUT_NS)
    assert drain(receiver, 10 * TIMEOUT_NS) == []


def test_a_repeated_checkpoint_gets_the_same_report_again() -> None:
    receiver = make_span()
    receiver.receive(data(100, 100, serial=1, end=True), 0)
    (report,) = drain(receiver)
    receiver.receive(data(100, 100, serial=1, end=True), 0)
    assert drain(receiver) == [report]


def test_a_finished_block_is_never_delivered_again_and_a_late_checkpoint_is_answered_from_memory() -> None:
    sender, receiver = make_span(1, 2), make_span(2, 1)
    sender.send(bytes(150), True, 0)
    segments = drain(sender)
    for segment in segments:
        receiver.receive(segment, 0)
    for segment in drain(receiver):
        sender.receive(segment, 0)
    exchange(sender, receiver)
    assert len(receiver.take_events()) == 1
    for segment in segments:
        receiver.receive(segment, 0)
    assert receiver.take_events() == []
    (answer,) = drain(receiver)
    assert isinstance(answer, ReportSegment)
    assert answer.claims == ((0, 150),)


def test_the_memory_of_finished_sessions_is_bounded() -> None:
    receiver = make_span(config=LtpConfig(closed_sessions_max=3))
    for number in range(10):
        receiver.receive(DataSegment((2, number), False, False, False, True, 1, 0, b"x"), 0)
    assert len(receiver._importer._closed) == 3


def test_a_cancellation_by_the_sender_is_acknowledged_and_the_rest_ignored() -> None:
    receiver = make_span()
    receiver.receive(data(0, 100), 0)
    receiver.receive(CancelSegment((2, 7), CancelReason.USR_CNCLD, True), 0)
    receiver.receive(data(100, 100, serial=1, end=True), 0)
    assert drain(receiver) == [CancelAck((2, 7), True)]
    assert receiver.take_events() == []


def test_a_cancellation_by_the_receiver_fails_the_block_and_is_acknowledged() -> None:
    sender = make_span()
    number = sender.send(b"block", True, 0)
    drain(sender)
    sender.receive(CancelSegment((1, number), CancelReason.SYS_CNCLD, False), 0)
    assert sender.take_events() == [BlockFailed(number, b"block", CancelReason.SYS_CNCLD, by_peer=True)]
    assert drain(sender) == [CancelAck((1, number), False)]
    assert sender.next_deadline_ns() is None


def test_a_cancellation_is_repeated_until_it_is_acknowledged() -> None:
    sender = make_span()
    number = sender.send(b"block", True, 0)
    drain(sender)
    sender.cancel(number, 0)
    (cancel,) = drain(sender)
    assert cancel == CancelSegment((1, number), CancelReason.USR_CNCLD, True)
    sender.tick(TIMEOUT_NS)
    assert drain(sender, TIMEOUT_NS) == [cancel]
    sender.receive(CancelAck((1, number), True), TIMEOUT_NS)
    sender.tick(9 * TIMEOUT_NS)
    assert drain(sender, 9 * TIMEOUT_NS) == []


def test_a_block_that_was_never_sent_is_cancelled_without_a_word() -> None:
    sender = make_span()
    sender.cancel(sender.send(b"block", True, 0), 0)
    assert drain(sender) == []


@pytest.mark.parametrize(
    ("segments", "reason"),
    [
        ([data(0, 50), data(20, 50, red=False)], CancelReason.MISCOLORED),
        ([data(50, 50, red=False), data(60, 10)], CancelReason.MISCOLORED),
        ([data(0, 50, serial=1, end=True), data(50, 50)], CancelReason.SYS_CNCLD),
        ([data(50, 50, serial=1, end=True), data(0, 40, serial=2, end=True)], CancelReason.SYS_CNCLD),
        ([data(CONFIG.block_bytes_max, 1)], CancelReason.SYS_CNCLD),
        ([DataSegment((2, 7), True, False, False, False, 9, 0, b"x")], CancelReason.UNREACH),
    ],
    ids=["green in red", "red above green", "beyond the end", "two ends", "too long", "unknown client"],
)
def test_a_block_that_breaks_a_rule_is_cancelled_with_the_reason(
    segments: list[DataSegment], reason: CancelReason
) -> None:
    receiver = make_span()
    for segment in segments:
        receiver.receive(segment, 0)
    assert CancelSegment((2, 7), reason, False) in drain(receiver)


def test_half_received_blocks_are_bounded_and_the_most_silent_gives_way() -> None:
    receiver = make_span(config=LtpConfig(imports_max=3))
    for number in (1, 2, 3):
        receiver.receive(DataSegment((2, number), True, False, False, False, 1, 0, b"x"), number)
    receiver.receive(DataSegment((2, 1), True, False, False, False, 1, 1, b"x"), 4)
    receiver.receive(DataSegment((2, 4), True, False, False, False, 1, 0, b"x"), 5)
    assert list(receiver._importer._imports) == [(2, 3), (2, 1), (2, 4)]
    assert receiver.counters.imports_abandoned_count == 1


def test_a_half_received_block_is_given_up_after_its_silence() -> None:
    receiver = make_span(config=LtpConfig(import_idle_ns=100))
    receiver.receive(data(0, 100, red=False), 10)
    receiver.receive(data(100, 100, red=False), 60)
    receiver.tick(110)
    assert receiver.next_deadline_ns() == 160
    receiver.tick(160)
    assert receiver.counters.imports_abandoned_count == 1
    assert receiver.next_deadline_ns() is None


def test_green_blocks_ask_for_nothing_and_arrive_only_whole() -> None:
    sender, receiver = make_span(1, 2), make_span(2, 1)
    whole, torn = sender.send(bytes(250), False, 0), sender.send(bytes(300), False, 0)
    segments = drain(sender)
    assert sender.take_events() == [BlockSent(whole), BlockSent(torn)]
    assert sender.next_deadline_ns() is None
    for segment in (*segments[:3], *segments[4:]):
        receiver.receive(segment, 0)
    assert receiver.take_events() == [BlockReceived(bytes(250), False, (1, whole), 0)]
    assert drain(receiver) == []


def test_a_green_block_that_the_end_of_contact_cuts_off_fails() -> None:
    sender = make_span()
    green, red = sender.send(bytes(250), False, 0), sender.send(bytes(250), True, 0)
    sender.next_segment(0)
    sender.suspend(1)
    assert sender.take_events() == [BlockFailed(green, bytes(250), CancelReason.SYS_CNCLD)]
    sender.resume(2)
    assert [segment.session[1] for segment in drain(sender, 2)] == [red] * 3


def test_control_goes_before_retransmissions_and_they_before_new_data() -> None:
    sender = make_span()
    first = sender.send(bytes(300), True, 0)
    drain(sender)
    second = sender.send(bytes(300), True, 0)
    sender.receive(ReportSegment((1, first), 5, 1, 300, 0, ((100, 200),)), 0)
    kinds = [(type(segment), segment.session[1]) for segment in drain(sender)]
    assert kinds[:3] == [(ReportAck, first), (DataSegment, first), (DataSegment, second)]


def test_a_report_of_an_unknown_session_is_acknowledged() -> None:
    sender = make_span()
    sender.receive(ReportSegment((1, 99), 5, 1, 10, 0, ((0, 10),)), 0)
    assert drain(sender) == [ReportAck((1, 99), 5)]


def test_a_peer_cannot_claim_what_was_never_sent() -> None:
    sender = make_span()
    sender.send(bytes(300), True, 0)
    sender.next_segment(0)
    sender.receive(ReportSegment((1, 1000), 5, 0, 300, 0, ((0, 300),)), 0)
    assert sender.take_events() == []
    assert [s.offset for s in drain(sender) if isinstance(s, DataSegment)] == [100, 200]


def test_what_no_report_ever_spoke_of_is_sent_again() -> None:
    sender = make_span()
    sender.send(bytes(300), True, 0)
    drain(sender)
    sender.receive(ReportSegment((1, 1000), 1, 1, 100, 0, ((0, 100),)), 0)
    again = [segment for segment in drain(sender) if isinstance(segment, DataSegment)]
    assert [(segment.offset, segment.checkpoint) for segment in again] == [(100, False), (200, True)]


def test_a_receiver_that_lost_its_memory_with_equal_serials_is_still_heard() -> None:
    sender = make_span()
    sender.send(bytes(200), True, 0)
    drain(sender)
    sender.receive(ReportSegment((1, 1000), 1, 1, 200, 0, ((100, 100),)), 0)
    drain(sender)
    sender.receive(ReportSegment((1, 1000), 1, 2, 100, 0, ((0, 100),)), 0)
    assert sender.take_events() == [BlockSent(1000)]


def test_endless_rounds_are_cancelled() -> None:
    sender = make_span(config=LtpConfig(cycles_max=3))
    sender.send(bytes(1000), True, 0)
    drain(sender)
    for serial in range(1, 6):
        sender.receive(ReportSegment((1, 1000), serial, serial, 1000, 0, ((0, 100),)), 0)
    assert [e.reason for e in sender.take_events() if isinstance(e, BlockFailed)] == [CancelReason.RXMTCYCEXC]


def test_many_gaps_are_reported_in_several_segments_that_join_without_a_hole() -> None:
    receiver = make_span(segment_bytes=64)
    for offset in range(0, 1990, 20):
        receiver.receive(data(offset, 10), 0)
    receiver.receive(data(1990, 10, serial=1, end=True), 0)
    reports = [segment for segment in drain(receiver) if isinstance(segment, ReportSegment)]
    assert len(reports) > 1
    assert reports[0].lower == 0
    assert reports[-1].upper == 2000
    assert all(one.upper == two.lower for one, two in pairwise(reports))
    claimed = [(r.lower + start, length) for r in reports for start, length in r.claims]
    assert claimed == [*((offset, 10) for offset in range(0, 1980, 20)), (1980, 20)]


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20))), st.integers(0, 60), st.integers(0, 30))
def test_coverage_is_a_set_of_bytes(pieces: list[tuple[int, int]], lower: int, length: int) -> None:
    coverage = Coverage()
    there: dict[int, None] = {}
    for start, size in pieces:
        coverage.add(start, start + size)
        there.update(dict.fromkeys(range(start, start + size)))
    scope = range(lower, lower + length)
    inside = [byte for start, end in coverage.within(lower, lower + length) for byte in range(start, end)]
    missing = [byte for start, end in coverage.gaps(lower, lower + length) for byte in range(start, end)]
    assert inside == [byte for byte in scope if byte in there]
    assert missing == [byte for byte in scope if byte not in there]
    assert coverage.covers(lower, lower + length) is (not missing)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    loss=st.floats(0, 0.95),
    duplication=st.floats(0, 0.5),
    sizes=st.lists(st.integers(1, 900), min_size=1, max_size=5),
    outages=st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 5000)), max_size=3),
)
def test_on_any_link_every_red_block_arrives_exactly_once_or_is_reported_failed(
    seed: int, loss: float, duplication: float, sizes: list[int], outages: list[tuple[int, int]]
) -> None:
    """Loss, duplication, reordering and suspension at will; then nothing may be left to do."""
    chance = random.Random(seed)
    config = LtpConfig(margin_ns=100_000_000, retransmissions_max=3, import_idle_ns=60 * SECOND_NS)
    spans = {1: make_span(1, 2, config), 2: make_span(2, 1, config)}
    blocks = {}
    for index, size in enumerate(sizes):
        block = bytes((index,)) * size
        blocks[spans[1].send(block, True, 0)] = block
    events: list[object] = []
    heap: list[tuple[int, int, str, int, bytes]] = []
    order = count()
    for start_ms, length_ms in outages:
        heappush(heap, (start_ms * 1_000_000, next(order), "suspend", 0, b""))
        heappush(heap, ((start_ms + length_ms) * 1_000_000, next(order), "resume", 0, b""))
    now_ns = 0
    for _ in range(20_000):
        for node, span in spans.items():
            while (coded := span.next_segment(now_ns)) is not None:
                for _ in range(2 if chance.random() < duplication else 1):
                    if chance.random() >= loss:
                        delay_ns = LIGHT_TIME_NS + int(chance.random() * 60_000_000)
                        heappush(heap, (now_ns + delay_ns, next(order), "arrive", 3 - node, coded))
            events += span.take_events()
        deadlines = [at for span in spans.values() if (at := span.next_deadline_ns()) is not None]
        deadlines += [heap[0][0]] if heap else []
        if not deadlines:
            break
        now_ns = min(deadlines)
        while heap and heap[0][0] <= now_ns:
            _, _, kind, node, coded = heappop(heap)
            if kind == "arrive":
                spans[node].receive(decode_segment(coded), now_ns)
            else:
                for span in spans.values():
                    span.suspend(now_ns) if kind == "suspend" else span.resume(now_ns)
        for span in spans.values():
            span.tick(now_ns)
    else:
        pytest.fail("it never ends")
    sent = [event.session for event in events if isinstance(event, BlockSent)]
    failed = [event.session for event in events if isinstance(event, BlockFailed)]
    assert sorted(sent + failed) == sorted(blocks), "each block has exactly one end"
    received = {event.session[1]: event.block for event in events if isinstance(event, BlockReceived)}
    assert len(received) == sum(isinstance(event, BlockReceived) for event in events), "delivered twice"
    assert all(received[number] == blocks[number] for number in sent)
    assert all(blocks[number] == block for number, block in received.items())
    if loss == 0:
        assert not failed
