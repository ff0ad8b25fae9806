"""A real board on a modelled bus: what is measured is believed, what is not is modelled, and a temperature that is gone
is no temperature."""

import math
from dataclasses import replace

import pytest

from boards import profiles
from boards.hardware_board import FRESH_NS, HOLD_S, SMOOTHING_S, HardwareBoard, NodeHardware
from boards.simulated.board import SimulatedBoard
from boards.simulated.troubles import SensorTrouble
from boards.support import trees
from boards.support.hardware import open_hardware
from boards.support.readings import BoardReading
from flightsw.errors import BoardError, SensorError
from flightsw.ports import Capability, ResetCause, Support

S = 1_000_000_000
PROFILE = profiles.load("jetson-orin-nano")
BUS_W, IDLE_W, COMPUTE_W = (one.value for one in (PROFILE.bus_w, PROFILE.idle_w, PROFILE.compute_w))


class Sensors:
    """What a board reads, as a test says."""

    def __init__(self):
        self.reading = BoardReading(sampled_ns=0)
        self.reads_count = 0
        self.modes = ["slow"]

    def read(self):
        self.reads_count += 1
        return self.reading

    def capabilities(self):
        return (Capability("watchdog", Support.PRESENT, "board"), Capability("memory_limit", Support.ABSENT, "board"))

    def power_modes(self):
        return ("slow", "fast")

    def set_power_mode(self, name):
        if name == "broken":
            raise BoardError("no")
        self.modes.append(name)


class Rig:
    def __init__(self, others=()):
        self.now_ns = 0
        self.sensors = Sensors()
        self.bus = SimulatedBoard(PROFILE, self, lambda _: 0.0)
        self.hardware = NodeHardware(self.sensors, self, others)
        self.board = HardwareBoard(self.hardware, self.bus)

    def monotonic_ns(self):
        return self.now_ns

    def utc_ns(self):
        return self.now_ns

    def after(self, seconds, degc=None, **reading):
        """What the node reads after a time, when the board says so."""
        self.now_ns += round(seconds * S)
        self.sensors.reading = BoardReading(sampled_ns=self.now_ns, soc_degc=degc, **reading)
        return self.board.sensors()


def test_a_measured_load_takes_the_place_of_the_profile_s_and_the_bus_s_own_is_added():
    rig = Rig()
    rig.board.set_compute_load_w(COMPUTE_W)
    assert rig.after(1).load_w == BUS_W + IDLE_W + COMPUTE_W
    assert rig.after(1, input_w=5.25).load_w == BUS_W + 5.25
    assert rig.after(1).load_w == BUS_W + IDLE_W + COMPUTE_W, "a rail that no longer answers"


def test_a_negative_current_at_the_input_is_a_trouble_and_no_load(tmp_path):
    laid = trees.lay("jetson-orin-nano", tmp_path / "board")
    rig = Rig()
    sensors = open_hardware("auto", root=laid.root, monotonic_ns=rig.monotonic_ns, run=laid.run, read=laid.read)
    board = HardwareBoard(NodeHardware(sensors, rig), rig.bus)
    assert board.sensors().load_w == pytest.approx(BUS_W + 5.016 * 1.048)
    (laid.root / "sys/class/hwmon/hwmon1/curr1_input").write_text("-8\n")
    rig.now_ns += FRESH_NS
    assert board.sensors().load_w == BUS_W + IDLE_W
    assert sensors.read().troubles["input_power"] == "out of range: -0.040128, expected 0 to 2000"


def test_the_battery_is_drained_by_what_was_measured():
    rig = Rig()
    before_j = rig.after(1, input_w=5.25).charge_j
    after_j = rig.after(100, input_w=5.25).charge_j
    assert before_j - after_j == pytest.approx(100 * (BUS_W + 5.25) / PROFILE.discharge_efficiency.value)


def test_without_power_a_measured_load_draws_nothing():
    rig = Rig()
    rig.after(1, input_w=5.25)
    rig.bus.power_off()
    assert rig.bus.truth().load_w == BUS_W
    rig.bus.power_on(ResetCause.POWER_CYCLE)
    assert rig.bus.truth().load_w == BUS_W + 5.25
    assert rig.board.reset_cause() is ResetCause.POWER_CYCLE


def test_memory_is_what_the_operating_system_says():
    rig = Rig()
    assert rig.after(1, memory_share=0.61).memory_share == 0.61
    assert rig.after(1).memory_share == rig.bus.truth().memory_share


def test_the_first_temperature_is_the_sensor_s_and_later_ones_follow_it_slowly():
    rig = Rig()
    assert rig.after(1, degc=48.3).electronics_degc == 48.3
    before = 48.3
    rates = []
    for _ in range(60):  # a job starts, and the die is 30 K hotter at once
        now = rig.after(10, degc=78.3).electronics_degc
        rates.append((now - before) / 10)
        before = now
    assert max(rates) < 0.25, "what the rule temperature_runaway takes for a fault"
    assert now == pytest.approx(78.3, abs=30 * math.exp(-600 / SMOOTHING_S) + 1e-9)


def test_a_board_without_a_sensor_has_the_model_s_temperature():
    rig = Rig()
    for seconds in (1, 1000, 5000):
        assert rig.after(seconds).electronics_degc == rig.bus.truth().electronics_degc


def test_a_temperature_that_is_gone_is_held_for_a_while_and_then_there_is_no_reading():
    rig = Rig()
    rig.after(1, degc=48.0)
    assert rig.after(HOLD_S, troubles={"cpu-thermal": "Input/output error"}).electronics_degc == 48.0
    with pytest.raises(SensorError, match="no temperature of the processor for 61 s: cpu-thermal: Input/output error"):
        rig.after(1, troubles={"cpu-thermal": "Input/output error"})
    assert rig.after(1, degc=50.0).electronics_degc == pytest.approx(48.0 + 2 * (1 - math.exp(-62 / SMOOTHING_S)))


def test_a_bench_s_broken_sensor_is_broken_on_a_real_board_too():
    rig = Rig()
    rig.after(1, degc=48.0)
    rig.bus.break_sensor("electronics_degc", SensorTrouble.NONSENSE)
    assert rig.after(1, degc=48.0).electronics_degc == 1e4
    rig.bus.break_sensor("charge_j", SensorTrouble.MISSING)
    with pytest.raises(SensorError, match="charge_j"):
        rig.after(1, degc=48.0)
    rig.bus.mend_sensors("electronics_degc", "charge_j")
    assert rig.after(1, degc=48.0).electronics_degc == 48.0


def test_the_board_is_read_once_a_second_whoever_asks():
    rig = Rig()
    rig.board.sensors()
    rig.hardware.read()
    rig.board.sensors()
    rig.now_ns = FRESH_NS - 1
    rig.board.sensors()
    assert rig.sensors.reads_count == 1
    rig.now_ns = FRESH_NS
    rig.hardware.read()
    assert rig.sensors.reads_count == 2


def test_a_new_power_mode_is_seen_in_the_next_reading():
    rig = Rig()
    rig.hardware.read()
    rig.sensors.reading = replace(rig.sensors.reading, power_mode="fast")
    assert rig.hardware.power_modes() == ("slow", "fast")
    rig.hardware.set_power_mode("fast")
    assert rig.sensors.modes[-1] == "fast"
    assert rig.hardware.read().power_mode == "fast"
    with pytest.raises(BoardError):
        rig.hardware.set_power_mode("broken")


def test_what_runs_on_a_board_knows_its_capabilities_better_than_the_board():
    proven = Capability("memory_limit", Support.PROVEN, "worker")
    rig = Rig(others=(lambda: (proven, Capability("accelerator", Support.ABSENT, "worker")),))
    assert [(one.name, one.detail) for one in rig.hardware.capabilities()] == [
        ("watchdog", "board"),
        ("memory_limit", "worker"),
        ("accelerator", "worker"),
    ]
