"""HARDWARE: what the board says is told on change, what it lacks is told at boot, and a value that is not there is no
number."""

from dataclasses import replace

import pytest

from flightsw.component import OK
from flightsw.core.hardware import LOOK_READINGS, NUMBERS, HardwareControl
from flightsw.dictionary import flight_dictionary
from flightsw.dictionary.hardware_report import decode_report
from flightsw.dictionary.values import check_value, event_text
from flightsw.errors import BoardError, MessageError
from flightsw.ports import Capability, HardwareReading, Support
from flightsw.wire.messages import CommandCode

S = 1_000_000_000
SOUND = (
    Capability("memory_limit", Support.PROVEN, "cgroup v2: a hog was stopped at 64 MiB"),
    Capability("watchdog", Support.PRESENT, "bcm2835-wdt, 15 s"),
    Capability("ecc", Support.ABSENT, "no driver counts"),
)
READING = HardwareReading(
    sampled_ns=1,
    temperatures_degc={"cpu-thermal": 48.3, "rp1_adc": 51.25},
    clocks_hz={"cpu0": 1.5e9, "cpu4": 2.4e9, "gpu": 9e9},
    input_w=5.2571,
    power_mode="ondemand",
    is_throttled=False,
    is_under_voltage=False,
    memory_share=0.25,
    storage_free_bytes=10**9,
    storage_errors_count=3,
    ecc_corrected_count=7,
    ecc_uncorrected_count=0,
)


class Board:
    """Hardware whose readings a test says."""

    def __init__(self, reading=READING, capabilities=SOUND):
        self.reading = reading
        self.found = capabilities
        self.modes = ("ondemand", "powersave")
        self.reads_count = 0
        self.refusal = ""

    def read(self):
        self.reads_count += 1
        return self.reading

    def capabilities(self):
        return self.found

    def power_modes(self):
        return self.modes

    def set_power_mode(self, name):
        if self.refusal:
            raise BoardError(self.refusal)
        self.reading = replace(self.reading, power_mode=name)


class Rig:
    """The component over a board; events come checked against the dictionary."""

    def __init__(self, board=None):
        self.board = board or Board()
        self.events, self.dumps = [], []
        self.now_s = 0
        parameters = {key: spec.default for key, spec in flight_dictionary().parameters.items()}
        self.part = HardwareControl(self.board, parameters.__getitem__, self.report, self.dump)

    def report(self, key, *arguments):
        spec = flight_dictionary().events[key]
        for one, value in zip(spec.arguments, arguments, strict=True):
            assert check_value(one, value) is None, (key, one.name, value)
        self.events.append(f"{key.removeprefix('HARDWARE.')} {event_text(spec, arguments)}")

    def dump(self, kind, data):
        self.dumps.append((kind, data))
        return len(self.dumps)

    def boot(self):
        self.part.boot(self.now_s * S)
        return self.taken()

    def next(self, **changes):
        """The events of the next reading, which differs so from the last."""
        self.board.reading = replace(self.board.reading, **changes)
        self.now_s += 10
        self.part.cycle(self.now_s * S)
        return self.taken()

    def taken(self):
        events, self.events = self.events, []
        return events


def test_every_channel_of_the_dictionary_has_a_value_of_its_type():
    for board in (Board(), Board(HardwareReading(sampled_ns=0), ())):
        rig = Rig(board)
        for _ in range(2):  # before the first reading too
            channels = rig.part.channels()
            specs = flight_dictionary().components["HARDWARE"].channels
            assert set(channels) == set(specs) - {"cmdpc", "cmdec"}
            assert [check_value(specs[name], value) for name, value in channels.items()] == [None] * len(channels)
            rig.boot()


def test_channels_tell_the_reading():
    rig = Rig()
    rig.boot()
    assert rig.part.channels() == {
        "hottest_degc": 51.25,
        "input_w": 5.257,
        "cpu_hz": 2.4e9,
        "memory_share": 0.25,
        "storage_free_bytes": 10**9,
        "storage_errors": 3,
        "ecc_corrected": 7,
        "ecc_uncorrected": 0,
        "throttled": "NO",
        "under_voltage": "NO",
        "power_mode": "ondemand",
        "readings": 1,
        "troubles": 0,
        "troubled": "",
        "unknown": "",
        "proven": 1,
        "present": 1,
        "degraded": 0,
        "absent": 1,
    }


def test_what_the_board_has_no_sensor_for_is_said_to_be_unknown():
    rig = Rig(Board(HardwareReading(sampled_ns=1)))
    rig.boot()
    channels = rig.part.channels()
    assert channels["unknown"].split(", ") == list(NUMBERS)
    assert (channels["throttled"], channels["under_voltage"]) == ("UNKNOWN", "UNKNOWN")
    assert {channels[name] for name in NUMBERS} == {0}


def test_a_clock_that_was_measured_counts_before_those_that_were_asked_for():
    rig = Rig(Board(replace(READING, clocks_hz={"cpu0": 2.4e9, "arm": 1.8e9})))
    rig.boot()
    assert rig.part.channels()["cpu_hz"] == 1.8e9


def test_readings_come_at_the_parameter_s_period():
    rig = Rig()
    rig.boot()
    for now_ns in (1, 5 * S, 10 * S - 2):
        rig.part.cycle(now_ns)
    assert rig.board.reads_count == 1
    rig.part.cycle(10 * S - 1)
    assert rig.board.reads_count == 2


def test_boot_tells_what_a_node_relies_on_and_has_not():
    assert Rig().boot() == []
    degraded = Capability("watchdog", Support.DEGRADED, "does not answer")
    absent = Capability("memory_limit", Support.ABSENT, "no memory controller: cgroup_enable=memory is missing")
    assert Rig(Board(capabilities=(absent, degraded))).boot() == [
        "CAPABILITY_ABSENT memory_limit: no memory controller: cgroup_enable=memory is missing",
        "CAPABILITY_ABSENT watchdog: does not answer",
    ]
    assert Rig(Board(capabilities=SOUND[:1])).boot() == [
        "CAPABILITY_ABSENT watchdog: the board's report does not have it"
    ]


def test_a_sensor_is_told_when_it_fails_and_when_it_is_back_and_never_in_between():
    rig = Rig()
    rig.boot()
    assert rig.next(troubles={"cpu-thermal": "Input/output error"}) == [
        "SENSOR_DEGRADED cpu-thermal: Input/output error"
    ]
    assert rig.next(troubles={"cpu-thermal": "not a number: 'hot'"}) == []
    assert rig.next(troubles={"cpu-thermal": "empty", "rpi_volt": "missing"}) == ["SENSOR_DEGRADED rpi_volt: missing"]
    assert rig.part.channels()["troubled"] == "cpu-thermal, rpi_volt"
    assert rig.part.channels()["troubles"] == 2
    assert rig.next(troubles={"rpi_volt": "missing"}) == ["SENSOR_BACK cpu-thermal"]
    assert rig.next(troubles={}) == ["SENSOR_BACK rpi_volt"]


def test_a_sensor_that_fails_at_boot_is_told_at_boot():
    rig = Rig(Board(replace(READING, troubles={"rpi_volt": "missing"})))
    assert rig.boot() == ["SENSOR_DEGRADED rpi_volt: missing"]


def test_a_sensor_that_fails_changes_what_is_counted_as_degraded():
    rig = Rig()
    rig.boot()
    rig.board.found = (Capability("under_voltage", Support.DEGRADED, "rpi_volt: missing"),)
    rig.next(troubles={"rpi_volt": "missing"})
    assert rig.part.channels()["degraded"] == 1


def test_what_a_worker_proves_after_the_boot_is_seen_within_a_minute():
    rig = Rig()
    rig.boot()
    rig.board.found = (*SOUND, Capability("accelerator", Support.PROVEN, "cpu"))
    for _ in range(LOOK_READINGS - 1):
        rig.next()
    assert rig.part.channels()["proven"] == 2


@pytest.mark.parametrize(
    ("field", "begins", "ends"),
    [
        ("is_under_voltage", "UNDER_VOLTAGE the supply is below", "VOLTAGE_BACK the supply is as"),
        ("is_throttled", "THROTTLED the board slows itself down, hottest sensor 51.2 degC", "UNTHROTTLED the board"),
    ],
)
def test_a_state_of_the_supply_is_told_when_it_begins_and_when_it_ends(field, begins, ends):
    rig = Rig()
    rig.boot()
    [event] = rig.next(**{field: True})
    assert event.startswith(begins)
    assert rig.next() == []
    [event] = rig.next(**{field: False})
    assert event.startswith(ends)
    rig.next(**{field: True})
    assert rig.next(**{field: None}) == [], "that it is over is not known"
    assert rig.next(**{field: True}) == [], "it has been told"
    rig.next(**{field: None})
    [event] = rig.next(**{field: False})
    assert event.startswith(ends)


def test_counted_errors_are_told_when_they_rise_and_not_for_what_was_there_at_the_start():
    rig = Rig()
    assert rig.boot() == []
    assert rig.next(ecc_corrected_count=9) == ["MEMORY_ERRORS 9 corrected, 0 uncorrected"]
    assert rig.next(ecc_uncorrected_count=1) == ["MEMORY_ERRORS 9 corrected, 1 uncorrected"]
    assert rig.next(storage_errors_count=5) == ["STORAGE_ERRORS 5"]
    assert rig.next(storage_errors_count=0, ecc_corrected_count=None) == []
    assert rig.next(storage_errors_count=None, ecc_corrected_count=10) == ["MEMORY_ERRORS 10 corrected, 1 uncorrected"]
    assert rig.next(storage_errors_count=2, ecc_corrected_count=None, ecc_uncorrected_count=2) == [
        "MEMORY_ERRORS 10 corrected, 2 uncorrected",
        "STORAGE_ERRORS 2",
    ]


def test_a_text_of_the_board_never_breaks_an_event_or_a_channel():
    strange = "\udcff\x00" + "°" * 4000
    rig = Rig(Board(replace(READING, power_mode=strange)))
    rig.boot()
    assert len(rig.next(troubles={strange: strange})) == 1
    rig.board.found = (Capability(strange, Support.ABSENT, strange),)
    rig.board.reading = READING
    rig.part.handlers()["REPORT"](())
    specs = flight_dictionary().components["HARDWARE"].channels
    assert all(check_value(specs[name], value) is None for name, value in rig.part.channels().items())


# Commands


def test_a_power_mode_is_set_and_its_change_is_told():
    rig = Rig()
    rig.boot()
    assert rig.part.handlers()["SET_POWER_MODE"](("powersave",)) == OK
    rig.part.cycle(1)  # at once, not at the end of the period
    assert rig.taken() == ["POWER_MODE ondemand to powersave"]


def test_a_power_mode_that_was_not_known_for_once_is_compared_with_the_one_before():
    rig = Rig()
    rig.boot()
    assert rig.next(power_mode="") == []
    assert rig.next(power_mode="powersave") == ["POWER_MODE ondemand to powersave"]


def test_a_power_mode_that_is_not_there_is_refused_with_those_that_are():
    rig = Rig()
    outcome = rig.part.handlers()["SET_POWER_MODE"](("MAXN",))
    assert outcome == (CommandCode.VALIDATION_ERROR, "mode is 'MAXN', expected one of ondemand, powersave")
    rig.board.modes = ()
    outcome = rig.part.handlers()["SET_POWER_MODE"](("MAXN",))
    assert outcome.detail == "mode is 'MAXN', expected none: the board has no power modes"


def test_a_board_that_refuses_a_power_mode_fails_the_command():
    rig = Rig()
    rig.board.refusal = "nvpmodel: a reboot is needed"
    outcome = rig.part.handlers()["SET_POWER_MODE"](("powersave",))
    assert outcome == (CommandCode.EXECUTION_ERROR, "nvpmodel: a reboot is needed")


def test_the_report_arrives_as_it_was_sent():
    rig = Rig()
    rig.boot()
    assert rig.part.handlers()["REPORT"](()) == (CommandCode.OK, "data product 1")
    kind, data = rig.dumps[0]
    report = decode_report(data)
    assert kind == "HARDWARE"
    assert [(one.name, one.support, one.detail) for one in report.capabilities] == [
        (one.name, one.support.name, one.detail) for one in SOUND
    ]
    assert report.power_modes == ("ondemand", "powersave")
    assert report.reading == READING


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"capabilities": 1}', b"\xff", b"[" * 9000])
def test_what_is_no_report_is_refused(data):
    with pytest.raises(MessageError, match="report of the hardware"):
        decode_report(data)
