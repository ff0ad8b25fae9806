"""What goes wrong with a simulated board: the node sees it, the physics and the bench's books stay true."""

import asyncio

import msgspec
import pytest

from boards import profiles
from boards.simulated.board import SimulatedBoard
from boards.simulated.runner import SimulatedRunner
from boards.simulated.states import SavedBoard, load_board, save_board
from boards.simulated.strikes import PROGRAM, BoardStrikes
from boards.simulated.troubles import NONSENSE, SENSORS, SensorTrouble
from flightsw.compute.inference import InferenceCache
from flightsw.core.health import Health, Party
from flightsw.errors import SensorError
from flightsw.ports import ResetCause
from hil.bench.accounts import EnergyState
from hil.faults.injector import details
from hil.faults.plan import ClockJump, ComponentHang, DiskFull, Fault, Heat, LatchUp, SensorFault, WorkerHang
from hil.sim.disk import SimulatedDisk
from hil.sim.loop import VirtualLoop
from hil.sim.streams import Streams

S = 1_000_000_000
PI_4 = profiles.load("raspberry-pi-4")
IDLE_W = PI_4.bus_w.value + PI_4.idle_w.value


class HandClock:
    """A clock that a test sets."""

    def __init__(self):
        self.now_ns = 0

    def monotonic_ns(self):
        return self.now_ns

    def utc_ns(self):
        return self.now_ns

    def wait_s(self, seconds):
        self.now_ns += round(seconds * S)


@pytest.fixture
def clock():
    return HandClock()


@pytest.fixture
def board(clock):
    return SimulatedBoard(PI_4, clock, lambda now_ns: 0.5)


def changed(board, clock):
    """Readings before and after an hour in which every value changes."""
    before = board.sensors()
    clock.wait_s(3600)
    board.set_compute_load_w(3.0)
    return before, board.sensors()


def test_every_value_changes_in_the_hour_of_these_tests(clock):
    board = SimulatedBoard(PI_4, clock, lambda now_ns: 0.5 if now_ns else 0.4)
    before, after = changed(board, clock)
    assert all(getattr(before, sensor) != getattr(after, sensor) for sensor in SENSORS)


@pytest.mark.parametrize("sensor", SENSORS)
def test_a_stuck_sensor_keeps_its_value_with_a_fresh_time_and_the_others_go_on(clock, sensor):
    board = SimulatedBoard(PI_4, clock, lambda now_ns: 0.5 if now_ns else 0.4)
    board.break_sensor(sensor, SensorTrouble.STUCK)
    before, after = changed(board, clock)
    assert [one for one in SENSORS if getattr(before, one) == getattr(after, one)] == [sensor]
    assert after.sampled_ns == clock.now_ns


@pytest.mark.parametrize("sensor", SENSORS)
def test_a_sensor_that_speaks_nonsense_reads_what_cannot_be(board, sensor):
    board.break_sensor(sensor, SensorTrouble.NONSENSE)
    assert getattr(board.sensors(), sensor) == NONSENSE[sensor]
    assert getattr(board.truth(), sensor) != NONSENSE[sensor]


def test_a_missing_sensor_takes_the_whole_reading(board):
    board.break_sensor("sunlight", SensorTrouble.MISSING)
    with pytest.raises(SensorError, match="sunlight: the sensor bus does not answer"):
        board.sensors()
    board.mend_sensors("sunlight")
    assert board.sensors().sunlight == 0.5


def test_a_stale_reading_is_old_and_says_so(board, clock):
    clock.wait_s(10)
    board.break_sensor("sunlight", SensorTrouble.STALE)
    before, after = changed(board, clock)
    assert after == before
    assert after.sampled_ns == 10 * S


def test_the_books_of_the_bench_are_not_deceived(board, clock):
    for sensor in SENSORS:
        board.break_sensor(sensor, SensorTrouble.NONSENSE)
    energy = EnergyState.of(board)
    assert energy.charge_share == pytest.approx(0.9)
    assert energy.electronics_degc == pytest.approx(15.0)


def test_what_latched_up_draws_through_a_processor_reset_and_lets_go_without_power(board, clock):
    board.latch_up(7.0)
    assert board.sensors().load_w == pytest.approx(IDLE_W + 7.0)
    for cause in (ResetCause.RESET_COMMAND, ResetCause.WATCHDOG, ResetCause.EXCEPTION):
        board.power_off()
        assert board.truth().load_w == PI_4.bus_w.value, "a node without power draws nothing"
        board.power_on(cause)
        assert board.sensors().load_w == pytest.approx(IDLE_W + 7.0)
    board.power_off()
    board.power_on(ResetCause.POWER_CYCLE)
    assert board.sensors().load_w == pytest.approx(IDLE_W)


def test_what_latched_up_is_paid_by_the_battery(clock):
    board = SimulatedBoard(PI_4, clock, lambda _: 0.0)
    board.latch_up(7.0)
    before_j = board.truth().charge_j
    clock.wait_s(100)
    paid_j = 100 * (IDLE_W + 7.0) / PI_4.discharge_efficiency.value
    assert before_j - board.truth().charge_j == pytest.approx(paid_j)


def test_a_blocked_radiator_heats_the_board_until_it_is_free_again(board, clock):
    clock.wait_s(20_000)
    normal_degc = board.truth().electronics_degc
    board.set_radiator_share(0.0)
    clock.wait_s(3600)
    hot_degc = board.truth().electronics_degc
    assert hot_degc > normal_degc + 20
    board.set_radiator_share(1.0)
    clock.wait_s(20_000)
    assert board.truth().electronics_degc == pytest.approx(normal_degc, abs=1.0)


def test_troubles_outlive_the_program(board, clock, tmp_path):
    board.latch_up(7.0)
    board.set_radiator_share(0.25)
    board.break_sensor("load_w", SensorTrouble.STUCK)
    save_board(tmp_path / "board.json", SavedBoard(board=board.state()))
    again = SimulatedBoard(PI_4, clock, lambda _: 0.5)
    again.restore(load_board(tmp_path / "board.json", PI_4).board)
    again.power_on(ResetCause.WATCHDOG)
    assert again.troubles == board.troubles
    assert again.sensors() == board.sensors()


# -- the worker


def in_virtual_time(main):
    loop = VirtualLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main(loop))


class NoModel:
    """A model whose step is known without running it."""

    def digest(self):
        return b"model"


def ends(runner, loop, *, within_s):
    """Whether a step ends within a time of the mission."""
    task = loop.create_task(runner.step("cloud_mask", NoModel(), b"", b"", 1.0))

    async def look():
        done, _ = await asyncio.wait([task], timeout=within_s)
        task.cancel()
        await asyncio.wait([task])
        return bool(done)

    return look()


def test_a_worker_that_hangs_ends_no_step_until_it_is_started_anew():
    async def main(loop):
        runner = SimulatedRunner(PI_4, InferenceCache())
        runner.step = _without_compute(runner)
        assert await ends(runner, loop, within_s=10)
        runner.hang()
        assert not await ends(runner, loop, within_s=100_000)
        runner.restart()
        assert await ends(runner, loop, within_s=10)
        runner.hang(outlives_restart=True)
        runner.restart()
        assert not await ends(runner, loop, within_s=100_000)

    in_virtual_time(main)


def _without_compute(runner):
    """The step of a runner up to where it would compute."""
    step = runner.step

    async def short(*arguments):
        try:
            return await step(*arguments)
        except AssertionError as error:
            if "models come from load" not in str(error):
                raise
            return b""

    return short


# -- faults, as a scenario has them


class Struck:
    """A node's surroundings, for the strikes."""

    def __init__(self):
        self.clock = HandClock()
        self.board = SimulatedBoard(PI_4, self.clock, lambda _: 0.5)
        self.disk = SimulatedDisk(10_000, Streams(1).random("disk"))
        self.jumps_ns = []
        self.frozen = []
        self.strikes = BoardStrikes(self.board, self.disk, self.jumps_ns.append, lambda: self.frozen.append(1))
        self.boot(ResetCause.POWER_ON)

    def boot(self, cause):
        self.strikes.off()
        self.runner = SimulatedRunner(PI_4, InferenceCache())
        self.health = Health(lambda *_: None)
        self.health.add(Party("beacon", S, 2 * S))
        self.beacon = self.health.supervised([lambda now_ns: None])
        self.health.add(Party("executor", S, 2 * S, 0, lambda key: None, lambda: None))
        self.strikes.booted(cause, self.runner, self.health)

    def strike(self, fault):
        fields = details(fault)
        del fields["node"]
        return self.strikes.strike(str(type(fault).__struct_config__.tag), fields)

    def answers(self, party):
        """Whether a party's reply reaches health."""
        self.health.cycle(self.clock.now_ns)
        if party == "beacon":
            self.beacon(self.clock.now_ns)
        else:
            self.health.reply(party, self.health.asked(party), self.clock.now_ns)
        return self.health.asked(party) == 0


BASE = {"node": "sat-01", "at_s": 1.0}


def test_a_clock_jump_is_told_in_nanoseconds():
    struck = Struck()
    assert struck.strike(ClockJump(jump_s=-259_200.5, **BASE))
    assert struck.jumps_ns == [-259_200_500_000_000]


def test_a_sensor_fault_ends_after_its_duration_or_never():
    async def main(loop):
        struck = Struck()
        assert struck.strike(SensorFault(sensor="load_w", how="nonsense", duration_s=50.0, **BASE))
        assert struck.strike(SensorFault(sensor="solar_w", how="nonsense", **BASE))
        await asyncio.sleep(49)
        assert struck.board.sensors().load_w == NONSENSE["load_w"]
        await asyncio.sleep(2)
        assert struck.board.sensors().load_w == pytest.approx(IDLE_W)
        assert struck.board.sensors().solar_w == NONSENSE["solar_w"]

    in_virtual_time(main)


def test_heat_ends_after_the_later_of_two():
    async def main(loop):
        struck = Struck()
        struck.strike(Heat(duration_s=100.0, radiator_share=0.5, **BASE))
        await asyncio.sleep(50)
        struck.strike(Heat(duration_s=100.0, **BASE))
        await asyncio.sleep(60)
        assert struck.board.troubles.radiator_share == 0.0, "the first one's end is not the second one's"
        await asyncio.sleep(50)
        assert struck.board.troubles.radiator_share == 1.0

    in_virtual_time(main)


def test_a_full_disk_has_what_the_fault_leaves_and_is_emptied_after_it():
    async def main(loop):
        struck = Struck()
        struck.disk.append("kept", bytes(4000))
        struck.strike(DiskFull(duration_s=100.0, free_bytes=10, **BASE))
        assert struck.disk.free_bytes() == 10
        await asyncio.sleep(101)
        assert struck.disk.free_bytes() == 6000

    in_virtual_time(main)


def test_latch_up_needs_power():
    struck = Struck()
    assert struck.strike(LatchUp(extra_w=5.0, **BASE))
    struck.strikes.off()
    assert not struck.strike(LatchUp(extra_w=9.0, **BASE))
    assert struck.board.troubles.latch_up_w == 5.0


@pytest.mark.parametrize(
    ("clears", "after_restart", "after_reset"),
    [("restart", True, True), ("reset", False, True), ("power_cycle", False, False)],
)
def test_a_component_hangs_until_what_clears_it(clears, after_restart, after_reset):
    struck = Struck()
    assert struck.answers("executor")
    assert struck.strike(ComponentHang(party="executor", clears=clears, **BASE))
    assert not struck.answers("executor")
    assert struck.answers("beacon"), "the others go on"
    struck.health.restart("executor")
    assert struck.answers("executor") is after_restart
    struck.boot(ResetCause.WATCHDOG)
    assert struck.answers("executor") is after_reset
    struck.boot(ResetCause.POWER_CYCLE)
    assert struck.answers("executor")


def test_a_hang_of_somebody_unknown_or_of_a_node_that_is_off_hits_nothing():
    struck = Struck()
    assert not struck.strike(ComponentHang(party="nobody", **BASE))
    struck.strikes.off()
    assert not struck.strike(ComponentHang(party="beacon", **BASE))
    assert not struck.strike(WorkerHang(**BASE))


def test_the_whole_program_can_stand_still_over_resets():
    async def main(loop):
        struck = Struck()
        assert struck.strike(ComponentHang(party=PROGRAM, clears="power_cycle", **BASE))
        assert struck.frozen == [1]
        struck.boot(ResetCause.WATCHDOG)
        assert struck.frozen == [1]
        await asyncio.sleep(60)
        assert struck.frozen == [1, 1]
        struck.boot(ResetCause.WATCHDOG)
        struck.boot(ResetCause.POWER_CYCLE)
        await asyncio.sleep(60)
        assert struck.frozen == [1, 1], "a boot that is over does not stand still"

    in_virtual_time(main)


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("sensor_fault", "how", "tired"),
        ("sensor_fault", "sensor", "smell"),
        ("worker_hang", "clears", "prayer"),
        ("latch_up", "extra_w", -1.0),
        ("heat", "radiator_share", 1.5),
        ("boot_loop", "crashes", 0),
        ("clock_jump", "jump_s", 1e12),
        ("disk_full", "free_bytes", -1),
    ],
)
def test_a_fault_that_cannot_be_is_refused(kind, field, value):
    whole = {"sensor_fault": {"how": "stuck"}, "latch_up": {"extra_w": 1.0}, "clock_jump": {"jump_s": 1.0}}
    timed = {"heat": {"duration_s": 1.0}, "disk_full": {"duration_s": 1.0}}
    fields = {"kind": kind, **BASE, **whole.get(kind, {}), **timed.get(kind, {})}
    assert msgspec.convert(fields, Fault)
    with pytest.raises(msgspec.ValidationError, match=field):
        msgspec.convert({**fields, field: value}, Fault)
