"""What RFC 5326 asks of an engine, by section, where another implementation could tell the difference."""

from collections.abc import Iterator
from itertools import count, islice, pairwise

import pytest

from flightsw.net.ltp import BlockFailed, BlockReceived, BlockSent, CancelReason, LtpConfig, Span
from flightsw.net.session_numbers import SESSION_NUMBER_BITS, session_numbers
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
CONFIG = LtpConfig(margin_ns=100_000_000, retransmissions_max=4)
TIMEOUT_NS = CONFIG.margin_ns
SESSION = (2, 7)


def span(config: LtpConfig = CONFIG, segment_bytes: int = 100) -> Span:
    made = Span(1, 2, config, count(1000).__next__, segment_bytes=segment_bytes)
    made.set_light_time_ns(0)
    made.resume(0)
    return made


def drain(sender: Span, now_ns: int = 0) -> list[Segment]:
    return [decode_segment(data) for data in iter(lambda: sender.next_segment(now_ns), None)]


def red(lower: int, upper: int, *, serial: int = 0, report: int = 0, eorp: bool = False, eob: bool = False) -> Segment:
    data = bytes(i % 251 for i in range(lower, upper))
    return DataSegment(SESSION, True, serial > 0, eorp or eob, eob, 1, lower, data, serial, report)


def green(lower: int, upper: int, *, eob: bool = False, service: int = 1) -> DataSegment:
    return DataSegment(SESSION, False, False, False, eob, service, lower, bytes(i % 251 for i in range(lower, upper)))


def whole(lower: int, upper: int) -> bytes:
    return bytes(i % 251 for i in range(lower, upper))


def feed(receiver: Span, *segments: Segment, now_ns: int = 0) -> list[object]:
    for segment in segments:
        receiver.receive(segment, now_ns)
    return list(receiver.take_events())


def reports(receiver: Span, now_ns: int = 0) -> list[ReportSegment]:
    return [segment for segment in drain(receiver, now_ns) if isinstance(segment, ReportSegment)]


# -- blocks with two parts: §2, §4.1, §6.9, §6.10


def test_the_parts_of_a_block_with_two_are_delivered_each_by_itself() -> None:
    receiver = span()
    events = feed(receiver, red(0, 100), red(100, 150, serial=1, eorp=True), green(150, 250), green(250, 260, eob=True))
    assert events == [
        BlockReceived(whole(0, 150), True, SESSION, 0),
        BlockReceived(whole(150, 260), False, SESSION, 0),
    ]
    (report,) = reports(receiver)
    assert (report.lower, report.upper, report.claims) == (0, 150, ((0, 150),)), "reports speak of the red part only"


def test_a_green_part_that_overtakes_the_end_of_the_red_part_waits_for_it() -> None:
    receiver = span()
    assert feed(receiver, red(0, 100), green(150, 200, eob=True)) == []
    assert feed(receiver, red(100, 150, serial=1, eorp=True)) == [
        BlockReceived(whole(0, 150), True, SESSION, 0),
        BlockReceived(whole(150, 200), False, SESSION, 0),
    ]


def test_a_lost_piece_of_the_green_part_costs_the_green_part_and_not_the_red_one() -> None:
    receiver = span()
    events = feed(receiver, red(0, 50, serial=1, eorp=True), green(150, 200, eob=True))
    assert events == [BlockReceived(whole(0, 50), True, SESSION, 0)]
    (report,) = reports(receiver)
    receiver.receive(ReportAck(SESSION, report.report_serial), 0)
    receiver.tick(CONFIG.import_idle_ns)
    assert receiver.counters.imports_abandoned_count == 1
    assert receiver.next_deadline_ns() is None


def test_the_red_part_is_acknowledged_before_the_green_part_is_through() -> None:
    receiver = span()
    feed(receiver, red(0, 50, serial=1, eorp=True))
    (report,) = reports(receiver)
    receiver.receive(ReportAck(SESSION, report.report_serial), 0)
    assert feed(receiver, green(50, 60, eob=True)) == [BlockReceived(whole(50, 60), False, SESSION, 0)]
    feed(receiver, red(0, 50, serial=1, eorp=True))
    (late,) = reports(receiver)
    assert (late.upper, late.claims) == (50, ((0, 50),)), "a late checkpoint hears of the red part"


@pytest.mark.parametrize(
    ("segments", "reason"),
    [
        ([green(100, 150), red(100, 120)], CancelReason.MISCOLORED),
        ([red(100, 150), green(0, 20)], CancelReason.MISCOLORED),
        ([red(0, 50, serial=1, eorp=True), red(50, 60)], CancelReason.SYS_CNCLD),
        ([red(0, 50, serial=1, eorp=True), red(0, 40, serial=2, eorp=True)], CancelReason.SYS_CNCLD),
        ([green(20, 50, eob=True), green(50, 60)], CancelReason.SYS_CNCLD),
        ([green(0, 60), green(0, 50, eob=True)], CancelReason.SYS_CNCLD),
        ([green(0, 10, service=9)], CancelReason.UNREACH),
    ],
    ids=["red above green", "green below red", "red beyond its end", "two ends of red", "beyond the end", "end", "who"],
)
def test_a_session_that_breaks_a_rule_is_cancelled_also_when_it_is_green(
    segments: list[Segment], reason: CancelReason
) -> None:
    receiver = span()
    feed(receiver, *segments)
    assert CancelSegment(SESSION, reason, by_sender=False) in drain(receiver)
    assert feed(receiver, red(0, 50, serial=3, eob=True)) == [], "the session is over"


# -- reports: §3.2.2, §6.8, §6.11, §6.14


def test_serial_numbers_of_reports_rise_by_one_within_each_session() -> None:
    receiver = span()
    other = DataSegment((2, 8), True, True, True, True, 1, 0, b"x", 1, 0)
    feed(receiver, red(0, 10, serial=1), other, red(10, 20, serial=2), red(30, 40, serial=3, eob=True))
    assert [one.report_serial for one in reports(receiver) if one.session == SESSION] == [1, 2, 3]


def test_a_late_answer_has_the_next_serial_number_of_its_session() -> None:
    receiver = span()
    feed(receiver, red(0, 10, serial=1, eob=True))
    (report,) = reports(receiver)
    receiver.receive(ReportAck(SESSION, report.report_serial), 0)
    for serial in (2, 3):
        feed(receiver, red(0, 10, serial=1, eob=True))
        assert [one.report_serial for one in reports(receiver)] == [serial]


def test_discretionary_checkpoints_are_reported_from_where_the_last_primary_report_ended() -> None:
    receiver = span()
    feed(receiver, red(0, 10, serial=1), red(10, 20), red(20, 30, serial=2), red(30, 40, serial=3, eob=True))
    assert [(one.lower, one.upper) for one in reports(receiver)] == [(0, 10), (10, 30), (30, 40)]


def test_a_discretionary_checkpoint_that_was_overtaken_is_reported_from_the_start() -> None:
    receiver = span()
    feed(receiver, red(20, 40, serial=2, eob=True), red(0, 20, serial=1))
    first, second = reports(receiver)
    assert (first.lower, first.upper, first.claims) == (0, 40, ((20, 20),))
    assert (second.lower, second.upper, second.claims) == (0, 20, ((0, 20),))


def test_a_checkpoint_without_a_scope_gets_no_report() -> None:
    receiver = span()
    feed(receiver, DataSegment(SESSION, True, True, False, False, 1, 0, b"", 1, 0))
    assert drain(receiver) == []


def test_an_answered_checkpoint_is_reported_from_the_lower_bound_of_the_report_that_it_answers() -> None:
    receiver = span()
    feed(receiver, red(0, 10, serial=1), red(20, 30, serial=2), red(40, 50, serial=3, eob=True))
    second = reports(receiver)[1]
    assert (second.lower, second.upper) == (10, 30)
    feed(receiver, red(10, 20, serial=4, report=second.report_serial))
    (secondary,) = reports(receiver)
    assert (secondary.checkpoint_serial, secondary.lower, secondary.upper) == (4, 10, 20)


def test_an_asynchronous_report_sends_the_gaps_again_and_stops_no_timer() -> None:
    sender = span()
    sender.send(bytes(300), True, 0)
    drain(sender)
    deadline_ns = sender.next_deadline_ns()
    sender.receive(ReportSegment((1, 1000), 9, 0, 300, 0, ((0, 100), (200, 100))), 0)
    acknowledgement, again = drain(sender)
    assert acknowledgement == ReportAck((1, 1000), 9)
    assert isinstance(again, DataSegment)
    assert (again.offset, len(again.data), again.report_serial) == (100, 100, 9)
    assert sender.next_deadline_ns() == deadline_ns


def test_claims_of_several_report_segments_add_up() -> None:
    sender = span()
    number = sender.send(bytes(300), True, 0)
    drain(sender)
    sender.receive(ReportSegment((1, number), 1, 1, 200, 0, ((0, 200),)), 0)
    assert sender.take_events() == []
    sender.receive(ReportSegment((1, number), 2, 1, 300, 200, ((0, 100),)), 0)
    assert sender.take_events() == [BlockSent(number)]


def test_a_report_that_is_never_acknowledged_is_repeated_at_growing_intervals_and_to_a_limit() -> None:
    receiver = span()
    feed(receiver, red(0, 10, serial=1, eob=True))
    sent_ns = []
    now_ns = 0
    while True:
        sent_ns += [now_ns for _ in reports(receiver, now_ns)]
        deadline_ns = receiver.next_deadline_ns()
        if deadline_ns is None or deadline_ns >= CONFIG.import_idle_ns:
            break
        now_ns = deadline_ns
        receiver.tick(now_ns)
    assert [at // TIMEOUT_NS for at in sent_ns] == [0, 1, 3, 7, 15]
    assert not any(isinstance(segment, CancelSegment) for segment in drain(receiver, now_ns)), "it was delivered"


def test_a_session_with_gaps_stays_open_when_all_its_reports_are_acknowledged() -> None:
    receiver = span()
    feed(receiver, red(0, 10), red(20, 30, serial=1, eob=True))
    (report,) = reports(receiver)
    receiver.receive(ReportAck(SESSION, report.report_serial), 0)
    assert feed(receiver, red(10, 20, serial=2, report=1)) == [BlockReceived(whole(0, 30), True, SESSION, 0)]


# -- what is remembered of finished sessions


def test_a_finished_session_is_forgotten_so_that_its_number_may_come_again() -> None:
    receiver = span(LtpConfig(closed_idle_ns=100))
    assert len(feed(receiver, green(0, 10, eob=True), now_ns=1000)) == 1
    assert feed(receiver, green(0, 10, eob=True), now_ns=1099) == []
    assert len(feed(receiver, green(0, 10, eob=True), now_ns=1100)) == 1


def test_when_there_is_no_room_a_block_that_only_waits_for_an_acknowledgement_goes_first() -> None:
    receiver = span(LtpConfig(imports_max=2))
    receiver.receive(DataSegment((2, 1), True, False, False, False, 1, 0, b"x"), 0)
    receiver.receive(DataSegment((2, 2), True, True, True, True, 1, 0, b"x", 1, 0), 0)
    receiver.receive(DataSegment((2, 3), True, False, False, False, 1, 0, b"x"), 0)
    assert receiver.counters.imports_abandoned_count == 0
    receiver.receive(DataSegment((2, 1), True, True, True, True, 1, 1, b"y", 1, 0), 0)
    assert [event.block for event in receiver.take_events() if isinstance(event, BlockReceived)] == [b"x", b"xy"]


# -- a peer that does not answer: §6.7 and our back-off


def tries(sender: Span, until_ns: int) -> Iterator[int]:
    """When a sender begins a block [ns], while nobody hears it and its owner has always one more."""
    now_ns = 0
    under_way = 0
    while now_ns <= until_ns:
        if sender.wants_block and not under_way:
            sender.send(b"block", True, now_ns)
            under_way += 1
            yield now_ns
        drain(sender, now_ns)
        under_way -= len(sender.take_events())
        deadline_ns = sender.next_deadline_ns()
        assert deadline_ns is not None, "nothing would ever happen again"
        now_ns = deadline_ns
        sender.tick(now_ns)


def test_a_peer_that_never_answers_is_tried_ever_less_often_and_never_given_up() -> None:
    config = LtpConfig(margin_ns=100_000_000, retransmissions_max=4, backoff_max_ns=3 * SECOND_NS)
    begins_ns = list(tries(span(config), 120 * SECOND_NS))
    pauses_ns = [later - earlier for earlier, later in pairwise(begins_ns)]
    session_ns = 5 * config.margin_ns  # one try and four repetitions
    assert [pause // config.margin_ns for pause in pauses_ns[:8]] == [6, 7, 9, 13, 21, 35, 35, 35]
    assert max(pauses_ns) == session_ns + config.backoff_max_ns


def test_only_one_block_is_tried_at_a_silent_peer_and_all_again_once_it_answers() -> None:
    sender = span()
    now_ns = 0
    for _ in range(3):
        sender.send(b"block", True, now_ns)
        drain(sender, now_ns)
    assert sender.wants_block, "several blocks may be under way"
    while not [event for event in sender.take_events() if isinstance(event, BlockFailed)]:
        now_ns = sender.next_deadline_ns() or 0
        sender.tick(now_ns)
        drain(sender, now_ns)
    assert not sender.wants_block, "it rests"
    sender.tick(now_ns + TIMEOUT_NS)
    assert sender.wants_block
    number = sender.send(b"probe", True, now_ns + TIMEOUT_NS)
    drain(sender, now_ns + TIMEOUT_NS)
    assert not sender.wants_block, "a single one as a probe"
    assert sender.wants_green, "what needs no answer may go"
    sender.receive(ReportSegment((1, number), 1, 1, 5, 0, ((0, 5),)), now_ns + TIMEOUT_NS)
    for _ in range(CONFIG.exports_max):
        assert sender.wants_block
        sender.send(b"block", True, now_ns + TIMEOUT_NS)
        drain(sender, now_ns + TIMEOUT_NS)
    assert not sender.wants_block


def silenced() -> tuple[Span, int]:
    """A span that rests, and the instant."""
    sender = span()
    sender.send(b"block", True, 0)
    drain(sender)
    now_ns = 0
    while not sender.take_events():
        now_ns = sender.next_deadline_ns() or 0
        sender.tick(now_ns)
        drain(sender, now_ns)
    assert not sender.wants_block
    return sender, now_ns


@pytest.mark.parametrize(
    "answer",
    [
        ReportSegment((1, 1000), 1, 1, 5, 0, ((0, 5),)),
        ReportAck(SESSION, 1),
        CancelSegment((1, 1000), CancelReason.USR_CNCLD, by_sender=False),
        CancelAck((1, 1000), by_sender=True),
    ],
    ids=["report", "acknowledgement", "cancellation", "acknowledged cancellation"],
)
def test_whatever_answers_us_ends_the_rest(answer: Segment) -> None:
    sender, now_ns = silenced()
    sender.receive(red(0, 10), now_ns)
    assert not sender.wants_block, "that it sends does not say that it hears"
    sender.receive(answer, now_ns)
    assert sender.wants_block


def test_a_new_contact_ends_the_rest() -> None:
    sender, now_ns = silenced()
    sender.suspend(now_ns)
    sender.resume(now_ns + 5)
    assert sender.wants_block


# -- session numbers: §3.1


def test_session_numbers_are_short_and_never_zero() -> None:
    for base in (0, 1 << 24, 5 << 32, 2**64 - 1):
        numbers = list(islice(session_numbers(base), 1000))
        assert len(dict.fromkeys(numbers)) == 1000
        assert all(0 < number < 1 << SESSION_NUMBER_BITS for number in numbers)


def test_session_numbers_go_round_without_zero() -> None:
    numbers = session_numbers(0)
    first = next(numbers)
    assert first == 1, "the base 0 begins at the start of the circle"
    # A base whose place is the last on the circle: found by the inverse of the multiplier.
    last = (1 << SESSION_NUMBER_BITS) - 2
    base = (last << 64 - SESSION_NUMBER_BITS) * pow(0x9E37_79B9_7F4A_7C15, -1, 1 << 64) % (1 << 64)
    assert list(islice(session_numbers(base), 3)) == [last + 1, 1, 2]


@pytest.mark.parametrize("shift", [24, 32])
def test_successive_boots_begin_far_from_each_other(shift: int) -> None:
    starts = sorted(next(session_numbers(boot << shift)) for boot in range(1, 1001))
    assert min(later - earlier for earlier, later in pairwise(starts)) > 30_000
