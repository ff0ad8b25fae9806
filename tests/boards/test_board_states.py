"""The world of a simulated board outlives the program: battery and heat go on, energy is accounted for throughout."""

from dataclasses import asdict

import msgspec
import pytest

from boards import profiles
from boards.simulated.board import SimulatedBoard
from boards.simulated.states import SavedBoard, load_board, save_board
from boards.simulated.world import World
from flightsw.config import SunInterval
from flightsw.errors import ConfigError, StorageError
from flightsw.ports import ResetCause

S = 1_000_000_000
PI_4 = profiles.load("raspberry-pi-4")


class HandClock:
    """A clock that a test sets."""

    def __init__(self, now_ns=0):
        self.now_ns = now_ns

    def monotonic_ns(self):
        return self.now_ns

    def utc_ns(self):
        return self.now_ns


def balance_j(board):
    account = board.account
    given_j = account.initial_j + account.harvested_j
    return given_j - account.drawn_j - account.lost_j - account.shunted_j - board.sensors().charge_j


def test_a_board_that_is_taken_up_at_once_is_the_same_board():
    clock = HandClock()
    board = SimulatedBoard(PI_4, clock, lambda _: 0.4)
    board.set_compute_load_w(3.0)
    clock.now_ns = 700 * S
    state = board.state()
    again = SimulatedBoard(PI_4, clock, lambda _: 0.4, initial_charge_share=0.1)
    again.restore(state)
    assert again.state() == state
    again.power_on(ResetCause.POWER_CYCLE)
    assert again.reset_cause() is ResetCause.POWER_CYCLE
    assert asdict(again.account) == asdict(board.account)
    assert again.sensors().charge_j == board.sensors().charge_j
    assert again.radiator_degc() == board.radiator_degc()


def test_the_time_without_a_program_passes_with_the_node_off():
    clock = HandClock()
    board = SimulatedBoard(PI_4, clock, lambda _: 0.0)
    clock.now_ns = 100 * S
    state = board.state()
    clock = HandClock(1100 * S)
    again = SimulatedBoard(PI_4, clock, lambda _: 0.0)
    again.restore(state)
    assert not again.is_powered
    assert again.sensors().load_w == PI_4.bus_w.value
    idle_w = PI_4.bus_w.value + PI_4.idle_w.value
    assert again.account.drawn_j == pytest.approx(100 * idle_w + 1000 * PI_4.bus_w.value)
    again.power_on(ResetCause.POWER_CYCLE)
    clock.now_ns += 10 * S
    assert again.account.drawn_j == pytest.approx(110 * idle_w + 1000 * PI_4.bus_w.value)
    assert abs(balance_j(again)) < 1e-6


def test_a_state_is_a_copy_that_the_board_does_not_change():
    clock = HandClock()
    board = SimulatedBoard(PI_4, clock, lambda _: 1.0)
    state = board.state()
    clock.now_ns = 50 * S
    board.sensors()
    assert state.account.harvested_j == 0.0


def test_a_battery_that_ran_empty_is_dark_until_it_is_switched_on():
    clock = HandClock()
    board = SimulatedBoard(PI_4, clock, lambda _: 0.0, initial_charge_share=0.01)
    clock.now_ns = 10_000 * S
    state = board.state()
    assert state.is_dark
    assert state.brown_outs_count == 1
    again = SimulatedBoard(PI_4, clock, lambda _: 1.0)
    again.restore(state)
    clock.now_ns += 100 * S
    assert again.is_dark
    assert again.sensors().load_w == 0.0
    assert again.account.drawn_j == state.account.drawn_j, "nothing draws in the dark"
    again.power_on(ResetCause.BROWN_OUT)
    assert not again.is_dark
    assert abs(balance_j(again)) < 1e-6


def test_many_restarts_lose_no_energy():
    clock = HandClock()
    board = SimulatedBoard(PI_4, clock, lambda now_ns: 0.6 if now_ns % (5676 * S) > 2160 * S else 0.0)
    for step in range(200):
        clock.now_ns += (7 + step % 50) * S
        state = msgspec.json.decode(msgspec.json.encode(board.state()), type=type(board.state()))
        clock.now_ns += (step % 13) * S
        board = SimulatedBoard(PI_4, clock, lambda now_ns: 0.6 if now_ns % (5676 * S) > 2160 * S else 0.0)
        board.restore(state)
        board.power_on(ResetCause.POWER_CYCLE)
        board.set_compute_load_w(2.0)
    assert abs(balance_j(board)) < 1e-6
    assert board.account.unserved_j == 0.0


# The file


def saved(**changes):
    board = SimulatedBoard(PI_4, HandClock(), lambda _: 1.0)
    return SavedBoard(board=board.state(), **changes)


def test_the_file_holds_the_state_to_the_last_bit_and_the_cause_of_the_next_boot(tmp_path):
    one = saved(next_cause="BROWN_OUT")
    save_board(tmp_path / "board.json", saved())
    save_board(tmp_path / "board.json", one)
    assert load_board(tmp_path / "board.json", PI_4) == one
    assert one.cause() is ResetCause.BROWN_OUT
    assert saved().cause() is ResetCause.POWER_CYCLE
    assert [path.name for path in tmp_path.iterdir()] == ["board.json"]


def test_a_board_without_a_file_is_new(tmp_path):
    assert load_board(tmp_path / "board.json", PI_4) is None


WRONG = [
    (("charge_j", 1e12), r"board.charge_j = 1e\+12: expected 0 to \d+, the battery of raspberry-pi-4"),
    (("charge_j", -1.0), r"board.charge_j = -1: expected 0 to"),
    (("charge_j", "full"), r"board.charge_j = 'full': Expected `float`, got `str`"),
    (("at_ns", None), r"board.at_ns = None: Expected `int`, got `null`"),
]


@pytest.mark.parametrize(("change", "why"), WRONG, ids=range(len(WRONG)))
def test_a_file_that_cannot_be_is_refused(tmp_path, change, why):
    content = msgspec.to_builtins(saved())
    content["board"][change[0]] = change[1]
    (tmp_path / "board.json").write_bytes(msgspec.json.encode(content))
    with pytest.raises(ConfigError, match=why):
        load_board(tmp_path / "board.json", PI_4)


def test_an_unknown_cause_is_refused(tmp_path):
    content = msgspec.to_builtins(saved()) | {"next_cause": "BOREDOM"}
    (tmp_path / "board.json").write_bytes(msgspec.json.encode(content))
    with pytest.raises(ConfigError, match=r"next_cause = 'BOREDOM'"):
        load_board(tmp_path / "board.json", PI_4)


def test_a_file_that_cannot_be_written_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match=r"board.json: cannot be written: No such file or directory"):
        save_board(tmp_path / "absent" / "board.json", saved())


# The sun


def test_sunlight_is_linear_between_the_samples_and_holds_its_ends():
    world = World(sun=((0, 5),), sunlight=(0.0, 1.0, 0.5), step_s=10.0)
    at_s = {-5: 0.0, 0: 0.0, 2.5: 0.25, 10: 1.0, 15: 0.75, 20: 0.5, 1000: 0.5}
    assert {t_s: world.sunlight_at(round(t_s * S)) for t_s in at_s} == at_s
    assert world.intervals() == (SunInterval(0, 5),)


@pytest.mark.parametrize(
    "content", [{"sun": [], "sunlight": [], "step_s": 1}, {"sun": [], "sunlight": [2], "step_s": 1}]
)
def test_a_world_that_cannot_be_is_refused(content):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(content, World)
