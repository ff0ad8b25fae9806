import msgspec
import pytest

from boards.simulated.clock import LoopClock
from flightsw.core import packets as packets_module
from flightsw.core.packets import PacketSchedule
from flightsw.core.rates import Rate, RateGroups
from flightsw.dictionary import flight_dictionary
from flightsw.wire.messages import CommandCode, Mode, decode_message, encode_message

S = 1_000_000_000
DICTIONARY = flight_dictionary()
PERIOD_S = 60


class Part:
    """A component whose channels count up each time that they are read."""

    def __init__(self, name):
        self.name = name
        self.reads_count = 0
        self.fixed = {}

    def handlers(self):
        return {}

    def channels(self):
        self.reads_count += 1
        own = DICTIONARY.components[self.name].channels
        values = {name: self.reads_count for name in own if name not in ("cmdpc", "cmdec")}
        return values | self.fixed


class Bench:
    """A schedule of packets on its rate groups."""

    def __init__(self, names=("OBJECTS", "KEYS"), is_sent=True):
        self.now_ns = 0
        self.mode = Mode.NOMINAL
        self.is_sent = is_sent
        self.out = []
        self.parameters = {key: spec.default for key, spec in DICTIONARY.parameters.items()}
        self.schedule = PacketSchedule(
            11,
            2,
            0,
            clock=LoopClock(lambda: self.now_ns, 0),
            counts=lambda component: (len(component), 1),
            parameter=self.parameters.__getitem__,
            mode=lambda: self.mode,
            has_route=lambda now_ns: self.is_sent,
            send=self.send,
        )
        self.parts = [Part(name) for name in names]
        periods_ns = {Rate.FAST: S // 10, Rate.NORMAL: S, Rate.SLOW: 10 * S}
        self.groups = RateGroups(periods_ns, 0, lambda *slip: None)
        self.schedule.attach([*self.parts, self.schedule], self.groups)
        self.groups.join(Rate.SLOW, 0, self.schedule.cycle, 0)

    def send(self, message, priority, now_ns):
        assert decode_message(encode_message(message)) == message
        self.out.append((now_ns, priority, message))
        return self.is_sent

    def run(self, until_s):
        """Run all cycles to a time; returns [(s, packet)] of what was sent."""
        self.out = []
        while (deadline_ns := self.groups.next_deadline_ns()) <= until_s * S:
            self.now_ns = deadline_ns
            self.groups.run(deadline_ns)
        self.now_ns = until_s * S
        return self.told()

    def told(self):
        return [(now_ns / S, packet.name) for now_ns, _, message in self.out for packet in message.packets]

    def do(self, name, *arguments):
        return self.schedule.handlers()[name](arguments)


def test_packets_of_the_slow_rate_go_every_housekeeping_period_in_one_message():
    bench = Bench()
    told = bench.run(150)
    names = ["OBJECTS.HK", "KEYS.HK", "TELEMETRY.HK"]
    assert told == [(60.0, name) for name in names] + [(120.0, name) for name in names]
    assert [(message.boot_count, message.sequence, message.uptime_ms) for _, _, message in bench.out] == [
        (2, 1, 60_000),
        (2, 2, 120_000),
    ]


def test_packets_go_every_period_when_cycles_are_late_each_by_another_time():
    bench = Bench(("OBJECTS",))
    for number in range(1, 31):
        bench.now_ns = number * 10 * S + (9_000_000 if number % 2 == 0 else 2_000_000) * (30 - number)
        bench.groups.run(bench.now_ns)
    assert [round(now_s / 10) * 10 for now_s, name in bench.told() if name == "OBJECTS.HK"] == [60, 120, 180, 240, 300]


def test_values_come_in_the_dictionarys_order_with_the_command_counters_first():
    bench = Bench(["OBJECTS"])
    bench.run(60)
    spec = DICTIONARY.packets["OBJECTS.HK"]
    values = dict(zip(spec.channels, bench.out[0][2].packets[0].values, strict=True))
    assert list(values)[:2] == ["OBJECTS.cmdpc", "OBJECTS.cmdec"]
    assert (values.pop("OBJECTS.cmdpc"), values.pop("OBJECTS.cmdec")) == (len("OBJECTS"), 1)
    assert set(values.values()) == {1}


def test_a_component_is_asked_once_in_a_cycle_and_not_at_all_in_a_quiet_one():
    bench = Bench()
    bench.run(59)
    assert [part.reads_count for part in bench.parts] == [0, 0]
    bench.run(60)
    assert [part.reads_count for part in bench.parts] == [1, 1]


def test_a_packet_of_a_component_that_is_not_there_is_not_sent():
    assert {name for _, name in Bench([]).run(60)} == {"TELEMETRY.HK"}


@pytest.mark.parametrize(
    ("mode", "parameter"), [(Mode.LOW_POWER, "TELEMETRY.low_power_factor"), (Mode.SAFE, "TELEMETRY.safe_factor")]
)
def test_periods_are_longer_when_power_is_short(mode, parameter):
    bench = Bench([])
    bench.parameters[parameter] = 3.0
    bench.run(60)
    bench.mode = mode
    assert bench.run(420) == [(240.0, "TELEMETRY.HK"), (420.0, "TELEMETRY.HK")]
    bench.mode = Mode.NOMINAL
    assert bench.run(540) == [(480.0, "TELEMETRY.HK"), (540.0, "TELEMETRY.HK")]


def test_a_new_housekeeping_period_counts_from_what_was_sent_last():
    bench = Bench([])
    bench.run(60)
    bench.parameters["TELEMETRY.housekeeping_period_s"] = 20.0
    assert bench.run(100) == [(80.0, "TELEMETRY.HK"), (100.0, "TELEMETRY.HK")]


def test_a_commanded_rate_brings_a_packet_into_a_faster_group_and_back():
    bench = Bench(["OBJECTS"])
    assert bench.do("RATE", "OBJECTS.HK", 0.5).code is CommandCode.OK
    told = [name for _, name in bench.run(3)]
    assert told == ["OBJECTS.HK"] * 6
    assert bench.do("RATE", "OBJECTS.HK", 0.0).code is CommandCode.OK
    assert bench.groups.next_deadline_ns() == 10 * S, "nobody runs in the fast group any more"
    assert bench.run(70) == [(60.0, "TELEMETRY.HK"), (70.0, "OBJECTS.HK")]


@pytest.mark.parametrize(
    ("period_s", "rate"), [(1.0, Rate.NORMAL), (9.9, Rate.NORMAL), (0.99, Rate.FAST), (10.0, None)]
)
def test_the_slowest_group_that_serves_is_taken(period_s, rate):
    bench = Bench(["OBJECTS"])
    bench.do("RATE", "OBJECTS.HK", period_s)
    groups = [group for group in (Rate.FAST, Rate.NORMAL) if bench.groups._groups[group].members]
    assert groups == ([] if rate is None else [rate])


def test_a_disabled_packet_is_sent_on_request_only():
    bench = Bench(["OBJECTS"])
    assert bench.do("DISABLE", "OBJECTS.HK").code is CommandCode.OK
    assert bench.run(60) == [(60.0, "TELEMETRY.HK")]
    assert bench.do("SEND", "OBJECTS.HK").code is CommandCode.OK
    assert bench.told()[-1] == (60.0, "OBJECTS.HK")
    assert bench.schedule.channels()["packets_disabled"] == 1
    assert bench.do("ENABLE", "OBJECTS.HK").code is CommandCode.OK
    assert (70.0, "OBJECTS.HK") in bench.run(70)


@pytest.mark.parametrize(("name", "more"), [("SEND", ()), ("ENABLE", ()), ("DISABLE", ()), ("RATE", (1.0,))])
def test_a_packet_that_is_not_known_is_refused(name, more):
    outcome = Bench().do(name, "OBJECTS.NONSENSE", *more)
    assert outcome.code is CommandCode.VALIDATION_ERROR
    assert "OBJECTS.NONSENSE" in outcome.detail


def test_a_period_shorter_than_the_fastest_cycle_is_refused():
    assert Bench().do("RATE", "OBJECTS.HK", 0.05).code is CommandCode.VALIDATION_ERROR


def test_what_goes_to_the_recorder_is_counted_apart():
    bench = Bench(["OBJECTS"], is_sent=False)
    bench.run(60)
    channels = bench.schedule.channels()
    assert (channels["packets_sent"], channels["packets_recorded"]) == (0, 2)


@pytest.fixture
def on_change(monkeypatch):
    """A dictionary in which OBJECTS.HK goes on change, and rejects small changes of free_bytes."""
    spec = msgspec.structs.replace(
        DICTIONARY.packets["OBJECTS.HK"],
        rate="on_change",
        channels=("OBJECTS.free_bytes", "OBJECTS.rotten"),
        priority=2,
    )
    free = msgspec.structs.replace(DICTIONARY.channels["OBJECTS.free_bytes"], deadband=100)

    class Changed:
        packets = DICTIONARY.packets | {"OBJECTS.HK": spec}
        channels = DICTIONARY.channels | {"OBJECTS.free_bytes": free}

    monkeypatch.setattr(packets_module, "flight_dictionary", lambda: Changed)
    packets_module._plans.cache_clear()
    yield
    packets_module._plans.cache_clear()


@pytest.mark.usefixtures("on_change")
def test_a_packet_on_change_goes_when_a_channel_leaves_its_deadband():
    bench = Bench(["OBJECTS"])
    (part,) = bench.parts
    sent = []
    for cycle, (free, rotten) in enumerate([(1000, 0), (1000, 0), (1100, 0), (1101, 0), (1001, 0), (1001, 1)]):
        part.fixed = {"free_bytes": free, "rotten": rotten}
        told = [one for one in bench.run(10 * cycle) if one[1] == "OBJECTS.HK"]
        sent.append(len(told))
    assert sent == [1, 0, 0, 1, 0, 1]


@pytest.mark.usefixtures("on_change")
def test_packets_of_a_cycle_go_in_one_message_as_urgent_as_the_most_urgent_of_them():
    bench = Bench(["OBJECTS", "KEYS"])
    bench.run(50)
    bench.parts[0].fixed = {"rotten": 7}
    bench.run(60)
    assert [(priority, [one.name for one in message.packets]) for _, priority, message in bench.out] == [
        (2, ["KEYS.HK", "TELEMETRY.HK", "OBJECTS.HK"])
    ]


@pytest.mark.usefixtures("on_change")
def test_packets_to_be_recorded_are_parted_by_priority_the_urgent_first():
    bench = Bench(["OBJECTS", "KEYS"], is_sent=False)
    bench.run(50)
    bench.parts[0].fixed = {"rotten": 7}
    bench.run(60)
    assert [(priority, [one.name for one in message.packets]) for _, priority, message in bench.out] == [
        (2, ["OBJECTS.HK"]),
        (5, ["KEYS.HK", "TELEMETRY.HK"]),
    ]


def test_a_message_holds_so_many_values_and_the_others_go_in_the_next(monkeypatch):
    monkeypatch.setattr(packets_module, "MESSAGE_VALUES_MAX", 12)
    bench = Bench(["OBJECTS", "KEYS"])
    bench.run(60)
    sizes = [[len(packet.values) for packet in message.packets] for _, _, message in bench.out]
    assert [name for _, name in bench.told()] == ["OBJECTS.HK", "KEYS.HK", "TELEMETRY.HK"]
    assert len(sizes) > 1
    assert all(sum(one) <= 12 for one in sizes)
    assert [message.sequence for _, _, message in bench.out] == list(range(1, len(sizes) + 1))
