"""What an agent sends by itself: echoes and status reports, when they are due, and how many at most."""

from dataclasses import replace

import pytest

from flightsw.config import InterfaceConfig
from flightsw.net.agent import AgentLimits, BundleAgent, Delivery
from flightsw.net.contacts import Contact, ContactPlan
from flightsw.net.echo import (
    ECHO_BURST_MAX,
    ECHO_BYTES_MAX,
    ECHO_LIFETIME_MAX_MS,
    ECHO_PERIOD_NS,
    ECHO_SERVICE,
    ECHO_SERVICES,
    PING_SERVICE,
)
from flightsw.net.ltp import LtpConfig
from flightsw.net.reports import REPORT_BURST_MAX, REPORT_LIFETIME_MAX_MS
from flightsw.wire.admin import Reason, Status, StatusReport, decode_status_report, encode_status_report
from flightsw.wire.bundles import BlockFlags, Bundle, BundleFlags, CanonicalBlock, decode_bundle, encode_bundle
from flightsw.wire.eids import DTN_NONE, Eid
from flightsw.wire.framing import coding
from flightsw.wire.segments import (
    CancelReason,
    CancelSegment,
    DataSegment,
    ReportSegment,
    decode_segment,
    encode_segment,
)

SECOND_NS = 1_000_000_000
UTC_NS = 1_800_000_000 * SECOND_NS
DTN_MS = UTC_NS // 1_000_000 - 946_684_800_000
CODING = coding("cobs-crc32c")
REPORTING = AgentLimits(status_reports=True)
NODE = 2
ANY_REPORT = int(
    BundleFlags.REPORT_RECEPTION
    | BundleFlags.REPORT_FORWARDING
    | BundleFlags.REPORT_DELIVERY
    | BundleFlags.REPORT_DELETION
)


class Desk:
    """Node 2 in contact with node 1, which is played by the test: bundles in, bundles out."""

    def __init__(self, limits: AgentLimits | None = None, *, beyond: bool = False) -> None:
        pairs = [(1, 2), (2, 1)] + ([(2, 3), (3, 2)] if beyond else [])
        contacts = [
            Contact(0, 10**6 * SECOND_NS, one, int(3 in (one, other)), other, 0, 1e9, 0) for one, other in pairs
        ]
        interfaces = tuple(InterfaceConfig(index=i, name=f"if{i}", segment_bytes=30_000) for i in (0, 1))
        self.agent = BundleAgent(NODE, ContactPlan(contacts), interfaces, 1 << 24, limits)
        self.now_ns = 0
        self._sessions = 0
        self._sequence = 0

    def arrive(self, bundle: Bundle, *, red: bool = False) -> None:
        """A bundle comes from node 1."""
        self._sessions += 1
        block = encode_bundle(bundle)
        segment = DataSegment((1, self._sessions), red, red, red, True, 1, 0, block, int(red), 0)
        self.agent.receive_frame(0, CODING.encode(encode_segment(segment)), self.now_ns)

    def bundle(self, service: int, **changes: object) -> Bundle:
        """A bundle from ipn:1.9 for a service of the node; each has a timestamp of its own."""
        self._sequence += 1
        made = Bundle(Eid(NODE, service), Eid(1, 9), DTN_NONE, (5, self._sequence), 60_000, b"payload", age_ms=0)
        return replace(made, **changes)  # type: ignore[arg-type]

    def leaves(self, interface: int = 0) -> list[tuple[Bundle, bool]]:
        """Bundles that the agent sends now, and whether they go red; node 1 acknowledges them."""
        found = []
        for at, frame in self.agent.pump(self.now_ns):
            segment = decode_segment(CODING.decode(bytes(frame)))
            if at == interface and isinstance(segment, DataSegment):
                assert segment.end_of_block, "one segment is enough here"
                found.append((decode_bundle(segment.data), segment.red))
                if segment.red:
                    size = len(segment.data)
                    report = ReportSegment(segment.session, 1, segment.checkpoint_serial, size, 0, ((0, size),))
                    self.agent.receive_frame(interface, CODING.encode(encode_segment(report)), self.now_ns)
        return found

    def reports(self) -> list[StatusReport]:
        """Status reports that leave now."""
        bundles = [bundle for bundle, _ in self.leaves() if bundle.flags & BundleFlags.ADMINISTRATIVE_RECORD]
        assert all(bundle.source == Eid(NODE, 0) for bundle in bundles)
        return [decode_status_report(bundle.payload) for bundle in bundles]


# -- echo


@pytest.mark.parametrize("service", ECHO_SERVICES)
@pytest.mark.parametrize("red", [False, True])
def test_what_comes_to_an_echo_service_goes_back_to_the_service_that_sent_it(service: int, red: bool) -> None:
    desk = Desk()
    desk.arrive(desk.bundle(service, payload=b"anybody there?"), red=red)
    ((answer, is_red),) = desk.leaves()
    assert (answer.destination, answer.source) == (Eid(1, 9), Eid(NODE, service))
    assert answer.payload == b"anybody there?"
    assert is_red is red, "as reliable as it came"
    assert desk.agent.take_deliveries() == []
    assert desk.agent.counters.echoes_answered_count == 1


def test_an_echo_keeps_the_priority_and_bounds_the_lifetime() -> None:
    desk = Desk()
    urgent = (CanonicalBlock(192, 5, 1, 0, b"\x01"),)
    desk.arrive(desk.bundle(ECHO_SERVICE, blocks=urgent, lifetime_ms=2**40))
    ((answer, _),) = desk.leaves()
    assert answer.blocks == urgent
    assert answer.lifetime_ms == ECHO_LIFETIME_MAX_MS


def test_the_same_ping_that_comes_twice_is_answered_once() -> None:
    desk = Desk()
    ping = desk.bundle(ECHO_SERVICE)
    desk.arrive(ping)
    desk.arrive(ping)
    assert len(desk.leaves()) == 1
    assert desk.agent.counters.bundles_duplicate_count == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"source": DTN_NONE, "flags": int(BundleFlags.MUST_NOT_FRAGMENT)},
        {"source": Eid(1, 7)},
        {"source": Eid(1, 2047)},
        {"payload": bytes(ECHO_BYTES_MAX + 1)},
    ],
    ids=["nobody", "echo", "other echo", "too long"],
)
def test_nobody_an_echo_and_what_is_too_long_get_no_answer(changes: dict[str, object]) -> None:
    desk = Desk()
    desk.arrive(desk.bundle(ECHO_SERVICE, **changes))
    assert desk.leaves() == []
    assert desk.agent.counters.echoes_refused_count == 1


def test_echoes_are_limited_in_rate() -> None:
    desk = Desk()
    for _ in range(ECHO_BURST_MAX + 5):
        desk.arrive(desk.bundle(ECHO_SERVICE))
    assert len(desk.leaves()) == ECHO_BURST_MAX
    assert desk.agent.counters.echoes_refused_count == 5
    desk.now_ns = 2 * ECHO_PERIOD_NS
    for _ in range(5):
        desk.arrive(desk.bundle(ECHO_SERVICE))
    assert len(desk.leaves()) == 2


def test_an_echo_has_no_creation_time_before_mission_time_is_known_and_then_that() -> None:
    desk = Desk()
    desk.arrive(desk.bundle(ECHO_SERVICE))
    desk.agent.send(1, 5, b"x", now_ns=0, utc_ns=UTC_NS, lifetime_ms=1000, reliable=False)
    desk.now_ns = 3 * SECOND_NS
    assert [bundle.creation[0] for bundle, _ in desk.leaves()] != []
    desk.arrive(desk.bundle(ECHO_SERVICE))
    ((answer, _),) = desk.leaves()
    assert answer.creation[0] == DTN_MS + 3000
    fresh = Desk()
    fresh.arrive(fresh.bundle(ECHO_SERVICE))
    ((answer, _),) = fresh.leaves()
    assert answer.creation[0] == 0
    assert answer.age_ms is not None


def test_the_own_node_echoes_as_well() -> None:
    desk = Desk()
    desk.agent.send(NODE, ECHO_SERVICE, b"self", now_ns=0, utc_ns=UTC_NS, lifetime_ms=1000, source_service=PING_SERVICE)
    (delivery,) = desk.agent.take_deliveries()
    assert (delivery.service, delivery.source_service, delivery.payload) == (PING_SERVICE, ECHO_SERVICE, b"self")


# -- status reports


def asking(desk: Desk, service: int = 5, **changes: object) -> Bundle:
    """A bundle that wants to hear of everything."""
    options = {"flags": ANY_REPORT, "report_to": Eid(1, 4)} | changes
    return desk.bundle(service, **options)


def test_nothing_is_reported_unless_the_node_is_set_to_it() -> None:
    desk = Desk()
    desk.arrive(asking(desk))
    assert desk.leaves() == []
    assert len(desk.agent.take_deliveries()) == 1


def test_reception_and_delivery_are_reported_to_whoever_asked() -> None:
    desk = Desk(REPORTING)
    subject = asking(desk)
    desk.arrive(subject)
    leaving = [bundle for bundle, red in desk.leaves() if red]
    assert [bundle.destination for bundle in leaving] == [Eid(1, 4)] * 2
    assert all(bundle.flags == BundleFlags.ADMINISTRATIVE_RECORD for bundle in leaving), "reports ask for nothing"
    desk.arrive(asking(desk, lifetime_ms=2**50))
    assert [bundle.lifetime_ms for bundle, _ in desk.leaves()] == [REPORT_LIFETIME_MAX_MS] * 2
    desk.arrive(subject := asking(desk))
    assert desk.reports() == [
        StatusReport(Eid(1, 9), subject.creation, ((Status.RECEIVED, None),)),
        StatusReport(Eid(1, 9), subject.creation, ((Status.DELIVERED, None),)),
    ]


def test_the_time_is_said_where_it_is_asked_for() -> None:
    desk = Desk(REPORTING)
    desk.agent.send(1, 5, b"x", now_ns=0, utc_ns=UTC_NS, lifetime_ms=1000, reliable=False)
    desk.leaves()
    desk.now_ns = 2 * SECOND_NS
    flags = int(BundleFlags.REPORT_DELIVERY | BundleFlags.STATUS_TIME)
    desk.arrive(asking(desk, flags=flags))
    (report,) = desk.reports()
    assert report.statuses == ((Status.DELIVERED, DTN_MS + 2000),)


def test_forwarding_is_reported_when_the_next_node_has_the_bundle() -> None:
    desk = Desk(REPORTING, beyond=True)
    flags = int(BundleFlags.REPORT_FORWARDING)
    desk.arrive(asking(desk, destination=Eid(3, 5), flags=flags), red=True)
    ((passed_on, _),) = desk.leaves(interface=1)
    assert passed_on.flags == flags, "on its way it is as it came"
    (report,) = desk.reports()
    assert report.statuses == ((Status.FORWARDED, None),)


DELETED = {
    "expired": ({"age_ms": 60_000}, Reason.LIFETIME_EXPIRED),
    "hops": ({"destination": Eid(3, 5), "hop_count": (4, 4)}, Reason.HOP_LIMIT_EXCEEDED),
    "block": (
        {"blocks": (CanonicalBlock(99, 9, int(BlockFlags.DELETE_BUNDLE_IF_UNPROCESSED), 0, b""),)},
        Reason.BLOCK_UNSUPPORTED,
    ),
}


@pytest.mark.parametrize("name", DELETED)
def test_a_bundle_that_is_deleted_is_reported_with_the_reason(name: str) -> None:
    changes, reason = DELETED[name]
    desk = Desk(REPORTING, beyond=True)
    desk.arrive(asking(desk, flags=int(BundleFlags.REPORT_DELETION), **changes))
    (report,) = desk.reports()
    assert (report.statuses, report.reason) == (((Status.DELETED, None),), reason)


def test_what_expires_while_it_waits_or_finds_no_room_is_reported() -> None:
    desk = Desk(replace(REPORTING, limbo_bundles_max=1))
    flags = int(BundleFlags.REPORT_DELETION)
    desk.arrive(asking(desk, destination=Eid(77, 5), flags=flags, lifetime_ms=5000))
    desk.arrive(asking(desk, destination=Eid(77, 5), flags=flags, lifetime_ms=5000))
    (displaced,) = desk.reports()
    assert displaced.reason == Reason.DEPLETED_STORAGE
    desk.now_ns = 6 * SECOND_NS
    (expired,) = desk.reports()
    assert expired.reason == Reason.LIFETIME_EXPIRED


def test_a_block_that_asks_for_it_is_reported_when_it_is_not_understood() -> None:
    desk = Desk(REPORTING)
    block = CanonicalBlock(99, 9, int(BlockFlags.REPORT_IF_UNPROCESSED), 0, b"")
    desk.arrive(desk.bundle(5, report_to=Eid(1, 4), blocks=(block,)))
    (report,) = desk.reports()
    assert (report.statuses, report.reason) == (((Status.RECEIVED, None),), Reason.BLOCK_UNSUPPORTED)
    assert len(desk.agent.take_deliveries()) == 1


def test_a_fragment_is_reported_as_the_fragment_that_it_is() -> None:
    desk = Desk(REPORTING)
    flags = int(BundleFlags.REPORT_RECEPTION | BundleFlags.FRAGMENT)
    desk.arrive(asking(desk, flags=flags, fragment_offset=100, total_length=500))
    (report,) = desk.reports()
    assert report.fragment == (100, len(b"payload"))


def test_reports_are_limited_in_rate() -> None:
    desk = Desk(REPORTING)
    for _ in range(REPORT_BURST_MAX + 10):
        desk.arrive(asking(desk, flags=int(BundleFlags.REPORT_RECEPTION)))
    assert len(desk.reports()) + len(desk.reports()) == REPORT_BURST_MAX, "more than LTP takes at once"
    assert desk.agent.counters.status_reports_suppressed_count == 10


def test_nothing_is_reported_to_nobody() -> None:
    desk = Desk(REPORTING)
    desk.arrive(asking(desk, report_to=DTN_NONE))
    assert desk.leaves() == []
    assert desk.agent.counters.bundles_sourced_count == 0


def test_a_status_report_for_this_node_is_handed_up_as_what_it_says() -> None:
    desk = Desk()
    report = StatusReport(Eid(NODE, 5), (8, 1), ((Status.DELIVERED, None),))
    record = desk.bundle(0, flags=int(BundleFlags.ADMINISTRATIVE_RECORD), payload=encode_status_report(report))
    desk.arrive(record)
    (delivery,) = desk.agent.take_deliveries()
    assert isinstance(delivery, Delivery)
    assert delivery.record == report
    assert desk.agent.counters.status_reports_received_count == 1


def test_a_record_that_is_none_is_rejected() -> None:
    desk = Desk()
    desk.arrive(desk.bundle(0, flags=int(BundleFlags.ADMINISTRATIVE_RECORD), payload=b"\x82\x09\x80"))
    assert desk.agent.take_deliveries() == []
    assert desk.agent.counters.bundles_rejected_count == 1


def test_an_administrative_record_to_an_echo_service_is_no_ping() -> None:
    desk = Desk()
    report = StatusReport(Eid(NODE, 5), (8, 1), ((Status.DELIVERED, None),))
    flags = int(BundleFlags.ADMINISTRATIVE_RECORD)
    desk.arrive(desk.bundle(ECHO_SERVICE, flags=flags, payload=encode_status_report(report)))
    assert desk.leaves() == []


# -- fragments and aggregates


def test_fragments_for_this_node_become_one_delivery() -> None:
    desk = Desk()
    whole = bytes(range(100))
    pieces = [(60, 100), (0, 40), (30, 70)]
    first = desk.bundle(5)
    for lower, upper in pieces:
        flags = int(BundleFlags.FRAGMENT)
        desk.arrive(
            replace(first, flags=flags, payload=whole[lower:upper], fragment_offset=lower, total_length=len(whole))
        )
    (delivery,) = desk.agent.take_deliveries()
    assert delivery.payload == whole
    desk.arrive(replace(first, flags=int(BundleFlags.FRAGMENT), payload=whole[:40], total_length=len(whole)))
    assert desk.agent.take_deliveries() == []
    assert desk.agent.counters.bundles_duplicate_count == 1, "a fragment of what was delivered is a duplicate"


def test_a_block_of_several_bundles_is_several_deliveries() -> None:
    desk = Desk()
    good, bad, last = (encode_bundle(desk.bundle(5, payload=text)) for text in (b"one", b"two", b"three"))
    broken = bytearray(bad)
    broken[-3] ^= 1
    block = good + bytes(broken) + last
    segment = DataSegment((1, 500), True, True, True, True, 1, 0, block, 1, 0)
    desk.agent.receive_frame(0, CODING.encode(encode_segment(segment)), 0)
    assert [one.payload for one in desk.agent.take_deliveries()] == [b"one", b"three"]
    assert desk.agent.counters.bundles_rejected_count == 1


# -- a neighbour that does not answer


def test_a_neighbour_that_cancels_because_it_does_not_hear_us_is_no_silent_one() -> None:
    desk = Desk()
    desk.agent.send(1, 5, b"reliable", now_ns=0, utc_ns=UTC_NS, lifetime_ms=10**7)
    ((_, frame),) = desk.agent.pump(0)
    session = decode_segment(CODING.decode(bytes(frame))).session
    cancel = CancelSegment(session, CancelReason.RLEXC, by_sender=False)
    desk.agent.receive_frame(0, CODING.encode(encode_segment(cancel)), 0)
    ((again, is_red),) = desk.leaves()
    assert (again.payload, is_red) == (b"reliable", True)
    assert desk.agent.counters.suspicions_count == 0


def test_a_silent_neighbour_gets_beacons_and_little_else() -> None:
    desk = Desk(AgentLimits(ltp=LtpConfig(margin_ns=200_000_000)))
    frames = []
    for number in range(300):
        desk.agent.send(1, 5, b"reliable", now_ns=desk.now_ns, utc_ns=UTC_NS, lifetime_ms=10**7)
        desk.agent.send(1, 2, b"beacon %d" % number, now_ns=desk.now_ns, utc_ns=UTC_NS, lifetime_ms=500, reliable=False)
        until_ns = desk.now_ns + SECOND_NS
        while True:
            frames += [decode_segment(CODING.decode(bytes(frame))) for _, frame in desk.agent.pump(desk.now_ns)]
            following_ns = desk.agent.next_deadline_ns()
            if following_ns is None or following_ns > until_ns:
                break
            desk.now_ns = max(desk.now_ns, following_ns)
        desk.now_ns = until_ns
    beacons = [one for one in frames if isinstance(one, DataSegment) and not one.red]
    assert len(beacons) == 300, "what asks for no answer goes all the while"
    # Without rest, 48 blocks at a time would make some thousands of frames in five minutes.
    assert len(frames) - len(beacons) < 600
