import msgspec
import pytest

from boards.simulated.clock import LoopClock
from flightsw.core.events import EARLY_MAX, Events
from flightsw.dictionary import flight_dictionary
from flightsw.ports import Random
from flightsw.storage.records import HEADER, record_at
from flightsw.wire.messages import CommandCode, Severity, decode_message
from hil.sim.faulty_disk import FaultyDisk

S = 1_000_000_000
SPECS = flight_dictionary().events
STUCK, OTHER = "NODE.BAD_MESSAGE", "NODE.NOT_AUTHORISED"
COUNT = SPECS[STUCK].throttle_count
WINDOW_S = SPECS[STUCK].throttle_window_s


class Bench:
    """Events of one node over its boots."""

    def __init__(self, disk=None, boot_count=1, severities=None, **parameters):
        self.now_ns = 0
        self.sent, self.dumps = [], []
        self.disk = disk or FaultyDisk(1 << 20, Random(1))
        self.parameters = {key: spec.default for key, spec in flight_dictionary().parameters.items()}
        self.parameters.update({f"EVENTS.{name}": value for name, value in parameters.items()})
        self.events = Events(
            11,
            boot_count,
            LoopClock(lambda: self.now_ns, 1_700_000_000 * S),
            self.disk,
            self.parameters.__getitem__,
            lambda event, now_ns: self.sent.append(event),
            lambda kind, data: self.dumps.append((kind, data)) or len(self.dumps),
        )
        # events of the dictionary, some of them with another severity
        changed = {key: msgspec.structs.replace(SPECS[key], severity=one) for key, one in (severities or {}).items()}
        self.events._specs = SPECS | changed
        self.events.begin()

    def kept(self):
        return [decode_message(record) for record in self.events.kept(1000)]

    def do(self, name, *arguments):
        return self.events.handlers()[name](arguments)

    def names(self):
        return [f"{event.component}.{event.name}" for event in self.sent]


def test_an_event_says_what_the_dictionary_says():
    bench = Bench()
    bench.now_ns = 5 * S
    bench.events.report("KEYS.REFUSED", "NO_TAG", 7, 3)
    (event,) = bench.sent
    assert (event.node, event.boot_count, event.sequence, event.utc_ns) == (11, 1, 1, 1_700_000_005 * S)
    assert (event.component, event.name, event.severity) == ("KEYS", "REFUSED", SPECS["KEYS.REFUSED"].severity)
    assert event.text == "NO_TAG: bundle of node 7 for service 3"
    assert event.arguments == ("NO_TAG", 7, 3)


def test_events_are_numbered_without_gaps():
    bench = Bench()
    for source in range(3):
        bench.events.report(OTHER, source)
    assert [event.sequence for event in bench.sent] == [1, 2, 3]


def test_text_and_arguments_are_cut_to_what_a_message_holds():
    bench = Bench()
    bench.events.report(STUCK, "x" * 5000)
    (event,) = bench.sent
    assert len(event.text) == 512
    assert len(event.arguments[0]) == SPECS[STUCK].arguments[0].bytes_limit
    assert bench.kept() == [event]


def test_a_flood_is_throttled_and_counted_and_told_once_when_the_window_ends():
    bench = Bench()
    for _ in range(COUNT + 5):
        bench.events.report(STUCK, "again")
    assert bench.names() == [STUCK] * COUNT
    assert bench.events.suppressed_count == 5
    bench.now_ns = round(WINDOW_S * S) - 1
    bench.events.cycle(bench.now_ns)
    assert len(bench.sent) == COUNT
    bench.now_ns += 1
    for _ in range(3):
        bench.events.cycle(bench.now_ns)
        bench.now_ns += round(WINDOW_S * S)
    assert bench.names()[COUNT:] == ["EVENTS.SUPPRESSED"]
    assert bench.sent[-1].arguments == (STUCK, 5, WINDOW_S)


def test_a_new_window_opens_and_tells_of_the_one_before():
    bench = Bench()
    for _ in range(COUNT + 1):
        bench.events.report(STUCK, "again")
    bench.now_ns = round(WINDOW_S * S)
    bench.events.report(STUCK, "later")
    assert bench.names()[COUNT:] == ["EVENTS.SUPPRESSED", STUCK]


def test_a_flood_of_one_event_holds_no_other_back():
    bench = Bench()
    for _ in range(COUNT + 1):
        bench.events.report(STUCK, "again")
    bench.events.report(OTHER, 1)
    assert bench.names()[COUNT:] == [OTHER]


def test_fatal_events_pass_every_gate():
    bench = Bench(severities={STUCK: Severity.FATAL}, downlink_severity="FATAL")
    assert bench.do("DISABLE", STUCK).code is CommandCode.VALIDATION_ERROR
    for _ in range(COUNT + 5):
        bench.events.report(STUCK, "still")
    assert len(bench.sent) == len(bench.kept()) == COUNT + 5


def test_a_disabled_event_is_neither_sent_nor_kept_until_it_is_enabled_again():
    bench = Bench()
    assert bench.do("DISABLE", STUCK).code is CommandCode.OK
    bench.events.report(STUCK, "unheard")
    bench.events.report(OTHER, 1)
    assert bench.names() == [OTHER]
    assert len(bench.kept()) == 1
    assert bench.events.channels()["filtered"] == 1
    assert bench.events.channels()["disabled"] == 1
    assert bench.do("ENABLE", STUCK).code is CommandCode.OK
    bench.events.report(STUCK, "heard")
    assert bench.names() == [OTHER, STUCK]


@pytest.mark.parametrize("name", ["ENABLE", "DISABLE"])
def test_an_event_that_is_not_in_the_dictionary_is_refused(name):
    outcome = Bench().do(name, "NODE.NONSENSE")
    assert outcome.code is CommandCode.VALIDATION_ERROR
    assert "NODE.NONSENSE" in outcome.detail


def test_what_is_less_severe_than_the_downlink_takes_is_kept_and_not_sent():
    bench = Bench(severities={STUCK: Severity.DIAGNOSTIC})
    bench.events.report(STUCK, "quiet")
    assert bench.sent == []
    assert len(bench.kept()) == 1
    bench.parameters["EVENTS.downlink_severity"] = "DIAGNOSTIC"
    bench.events.report(STUCK, "told")
    assert [event.text for event in bench.sent] == ["told"]


def test_kept_events_survive_a_reset_and_a_severe_one_a_power_cut_at_once():
    bench = Bench(severities={STUCK: Severity.WARNING_HI})
    bench.events.report(OTHER, 1)
    bench.events.report(STUCK, "grave")
    bench.disk.power_cut()
    again = Bench(bench.disk, boot_count=2)
    again.events.report(OTHER, 2)
    again.events.cycle(0)
    again.disk.power_cut()
    kept = Bench(again.disk, boot_count=3).kept()
    assert [(event.boot_count, event.sequence) for event in kept] == [(1, 1), (1, 2), (2, 1)]


def test_a_quiet_cycle_writes_nothing():
    bench = Bench()
    bench.events.report(OTHER, 1)
    bench.events.cycle(0)
    calls_count = bench.disk.calls_count
    for now_ns in range(10):
        bench.events.cycle(now_ns)
    assert bench.disk.calls_count == calls_count


def test_a_disk_that_fails_is_counted_and_told_and_stops_no_event():
    bench = Bench()
    bench.disk.fail_writes("events/")
    for source in range(3):
        bench.events.report(OTHER, source)
    assert bench.names() == [OTHER] * 3
    assert bench.events.channels()["unkept"] == 3
    for _ in range(3):
        bench.events.cycle(bench.now_ns)
    assert bench.names()[3:] == ["EVENTS.KEEPING_FAILED"], "throttled: it is one fault, not three"


def test_the_newest_kept_events_are_dumped_on_command():
    bench = Bench()
    for source in range(5):
        bench.events.report(OTHER, source)
    assert bench.do("DUMP", 2).detail == "dump 1: 2 events"
    ((kind, data),) = bench.dumps
    first = record_at(data, 0)
    second = record_at(data, HEADER.size + len(first))
    assert kind == "EVENTS"
    assert [decode_message(record).arguments for record in (first, second)] == [(3,), (4,)]
    assert len(data) == 2 * HEADER.size + len(first) + len(second)


def test_events_of_the_boot_are_sent_when_it_is_over():
    bench = Bench()
    bench.events._early = []
    for source in range(EARLY_MAX + 3):
        bench.events.report(STUCK if source % 2 else OTHER, "x" if source % 2 else source)
    assert bench.sent == []
    bench.events.begin()
    assert [event.sequence for event in bench.sent] == list(range(1, len(bench.sent) + 1))
    assert len(bench.sent) == 2 * COUNT


def test_a_damaged_ring_is_told_after_the_boot():
    bench = Bench()
    for source in range(3):
        bench.events.report(OTHER, source)
        bench.events.cycle(0)
    name = bench.disk.names("events/")[0]
    bench.disk.flip_bit(name, 300)
    again = Bench(bench.disk, boot_count=2)
    assert again.names() == ["EVENTS.KEPT_LOST"]
    assert len(again.kept()) == 3, "two of three, and what was said of the third"
