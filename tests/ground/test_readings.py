import msgspec
import pytest

from flightsw.dictionary import flight_dictionary
from flightsw.errors import ConfigError
from flightsw.wire.messages import Beacon, Mode, Packets, PacketValues, encode_message
from ground import readings
from ground.archive import Archive
from ground.readings import TelemetryPort, colour

S = 1_000_000_000
NODE = 11
DICTIONARY = flight_dictionary()
SPEC = next(iter(DICTIONARY.channels.values()))


class Ground:
    """What the port asks of a ground segment."""

    def __init__(self):
        self.archive = Archive()
        self.membership = self
        self.members = {NODE: self}
        self.beacon, self.heard_ns = None, 0
        self.now_ns = 0
        self.sequence = 0

    def monotonic_ns(self):
        return self.now_ns

    def hear(self, uptime_s, boot_count=1):
        self.heard_ns = self.now_ns
        fields = (NODE, boot_count, uptime_s, 0, Mode.NOMINAL, 1, 900, 200, 500, 50, 0, 0, 0, 0, 0, 0, 0, 0, b"d" * 8)
        self.beacon = Beacon(*fields)

    def take(self, uptime_s, *, boot_count=1, recorded=False, **values):
        """A packet RECORDER.HK whose channels are 0 but these."""
        names = [key.partition(".")[2] for key in DICTIONARY.packets["RECORDER.HK"].channels]
        row = tuple(values.get(name, "AUTOMATIC" if name == "playback" else 0) for name in names)
        self.sequence += 1
        message = Packets(NODE, boot_count, self.sequence, round(uptime_s * 1000), (PacketValues("RECORDER.HK", row),))
        self.archive.add_packets(message, encode_message(message), self.now_ns, recorded=recorded)


@pytest.fixture
def ground():
    one = Ground()
    yield one
    one.archive.close()


@pytest.fixture
def ask(ground):
    def number(method, node):
        if node != "sat-11":
            raise ConfigError(f"{method}: node is {node!r}")
        return NODE

    handlers = TelemetryPort(ground, ground, number).handlers()
    return lambda method, *arguments: handlers[method]("sat-11", *arguments)


def limits(red_low=None, yellow_low=None, yellow_high=None, red_high=None):
    return msgspec.structs.replace(
        SPEC, red_low=red_low, yellow_low=yellow_low, yellow_high=yellow_high, red_high=red_high
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (-11, "RED_LOW"),
        (-10, "YELLOW_LOW"),
        (-5.1, "YELLOW_LOW"),
        (-5, "GREEN"),
        (0, "GREEN"),
        (5, "GREEN"),
        (5.1, "YELLOW_HIGH"),
        (10, "YELLOW_HIGH"),
        (11, "RED_HIGH"),
        ("text", ""),
    ],
)
def test_a_value_on_a_limit_is_inside_it(value, expected):
    assert colour(limits(-10, -5, 5, 10), value) == expected


def test_a_channel_without_limits_has_no_colour_and_one_with_half_of_them_is_judged_by_these():
    assert colour(limits(), 5) == ""
    assert colour(limits(yellow_high=0), 0) == "GREEN"
    assert colour(limits(yellow_high=0), 1) == "YELLOW_HIGH"
    assert colour(limits(red_low=3), 2) == "RED_LOW"


def test_the_newest_value_of_each_channel_is_told_with_its_age_and_colour(ground, ask):
    ground.hear(uptime_s=100)
    ground.take(60, stored=7)
    ground.take(120, stored=9, unrecorded=1)
    ground.now_ns = 25 * S
    found = {row["channel"]: row for row in ask("telemetry", "RECORDER.HK")}
    assert list(found) == list(DICTIONARY.packets["RECORDER.HK"].channels)
    assert found["RECORDER.stored"] == {
        "packet": "RECORDER.HK",
        "channel": "RECORDER.stored",
        "value": 9,
        "unit": "",
        "colour": "",
        "age_s": 5.0,
        "boot_count": 1,
        "uptime_s": 120.0,
        "recorded": False,
    }
    assert found["RECORDER.unrecorded"]["colour"] == "YELLOW_HIGH"


@pytest.mark.parametrize(("what", "count"), [("", 12), ("RECORDER", 10), ("RECORDER.stored", 1), ("KEYS", 0)])
def test_a_packet_a_component_a_channel_or_all_are_asked_for(ground, ask, what, count):
    ground.take(60)
    found = ask("telemetry", what)
    assert len(found) == min(count, len(DICTIONARY.packets["RECORDER.HK"].channels))


def test_what_was_recorded_does_not_hide_what_is_newer(ground, ask):
    ground.take(180, stored=3)
    newer = ground.sequence
    ground.sequence = newer - 2
    ground.take(120, stored=2, recorded=True)
    (row,) = ask("telemetry", "RECORDER.stored")
    assert (row["value"], row["recorded"]) == (3, False)


@pytest.mark.parametrize(
    ("sampled_s", "heard_s", "is_stale"), [((60, 120), 300, False), ((60, 120), 301, True), ((60, 360), 1260, False)]
)
def test_a_value_is_stale_when_three_periods_have_gone_by_without_a_newer_one(
    ground, ask, sampled_s, heard_s, is_stale
):
    for uptime_s in sampled_s:
        ground.take(uptime_s)
    ground.hear(heard_s)
    (row,) = ask("telemetry", "RECORDER.stored")
    assert (row["colour"] == "STALE") is is_stale


def test_a_value_of_an_earlier_boot_is_stale_and_has_no_age(ground, ask):
    ground.take(60, boot_count=1)
    ground.hear(1, boot_count=2)
    (row,) = ask("telemetry", "RECORDER.stored")
    assert (row["colour"], row["age_s"]) == ("STALE", None)


def test_a_packet_of_another_dictionary_is_left_out(ground, ask):
    message = Packets(NODE, 1, 1, 0, (PacketValues("RECORDER.HK", (1, 2)), PacketValues("NOBODY.HK", (1,))))
    ground.archive.add_packets(message, encode_message(message), 0)
    assert ask("telemetry") == []


def test_the_history_of_a_channel_is_told_oldest_first(ground, ask):
    for index in range(5):
        ground.take(60 * index, stored=index, unrecorded=index)
    found = ask("history", "RECORDER.unrecorded", 3)
    assert [(row["value"], row["uptime_s"], row["colour"]) for row in found] == [
        (2, 120.0, "YELLOW_HIGH"),
        (3, 180.0, "YELLOW_HIGH"),
        (4, 240.0, "YELLOW_HIGH"),
    ]


@pytest.mark.parametrize(
    ("method", "arguments"), [("telemetry", ("RECORDER.nonsense",)), ("history", ("nonsense",)), ("dump", (1, 7))]
)
def test_what_is_not_there_is_refused_by_name(ask, method, arguments):
    with pytest.raises(ConfigError, match=f"^{method}: .*{arguments[-1]}.*expected"):
        ask(method, *arguments)


def test_no_question_reads_back_more_than_so_many_messages(ground, ask, monkeypatch):
    monkeypatch.setattr(readings, "ROWS_MAX", 2)
    for index in range(5):
        ground.take(60 * index, stored=index)
    assert [row["value"] for row in ask("history", "RECORDER.stored")] == [3, 4]
