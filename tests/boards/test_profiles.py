"""Board profiles: every number has its source, and the satellite around each board is what it is said to be."""

from pathlib import Path

import pytest

from boards import profiles
from boards.simulated.board import SimulatedBoard
from flightsw.config import BoardProfile, NodeConfig, Sourced
from flightsw.errors import ConfigError

NS_PER_S = 1_000_000_000
ECLIPSE_S = 36 * 60
STEADY_S = 40_000
HEAT_LIMITED = "three-body-744"
NAMES = [
    "jetson-agx-orin",
    "jetson-orin-nano",
    "jetson-orin-nx",
    "qemu-virt",
    "raspberry-pi-3",
    "raspberry-pi-4",
    "raspberry-pi-5",
    "raspberry-pi-zero-2-w",
    "three-body-744",
]
PROFILES = Path(profiles.__file__).parent
DOCS = Path(__file__).parents[2] / "docs"
RESERVE = NodeConfig(node=2, name="sat", interfaces=()).reserve


class HandClock:
    def __init__(self) -> None:
        self.now_ns = 0

    def monotonic_ns(self) -> int:
        return self.now_ns

    def utc_ns(self) -> int:
        return self.now_ns


def after(profile: BoardProfile, compute_w: float, sunlight: float, seconds: int) -> tuple[float, float]:
    """(charge share, electronics temperature [degree Celsius]) after a time of constant load and light, from 90 %."""
    clock = HandClock()
    board = SimulatedBoard(profile, clock, lambda _: sunlight, initial_charge_share=0.9)
    board.set_compute_load_w(compute_w)
    clock.now_ns = seconds * NS_PER_S
    sensors = board.sensors()
    return sensors.charge_j / sensors.battery_j, sensors.electronics_degc


def test_the_shipped_profiles_are_these() -> None:
    assert profiles.names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_profile_is_called_like_its_file_and_every_number_has_a_source(name: str) -> None:
    profile = profiles.load(name)
    assert profile.name == name
    numbers = profiles.numbers(profile)
    assert len(numbers) == len(BoardProfile.__struct_fields__) - 2
    assert all(isinstance(number, Sourced) and len(number.source) > 20 for number in numbers.values())


@pytest.mark.parametrize("name", NAMES)
def test_what_nobody_measured_says_so(name: str) -> None:
    numbers = profiles.numbers(profiles.load(name))
    speed = numbers["mpix_per_s"]
    assert (speed.flag == "V") is ("median of" in speed.source)  # as `flatrack board benchmark` measures it
    assert (speed.flag in "DU") is ("estimate" in speed.source)
    assert "proxy" in numbers["model_cross_section_cm2_bit"].source
    assert all(number.flag != "V" for number in numbers.values() if "our design" in number.source)


@pytest.mark.parametrize("name", NAMES)
def test_sunlight_carries_continuous_compute(name: str) -> None:
    profile = profiles.load(name)
    load_w = profile.bus_w.value + profile.idle_w.value + profile.compute_w.value
    assert profile.array_w.value > load_w
    assert after(profile, profile.compute_w.value, 1.0, STEADY_S)[0] == 1.0


@pytest.mark.parametrize("name", NAMES)
def test_an_eclipse_spares_an_idle_node_and_would_cost_a_computing_one_its_reserve(name: str) -> None:
    profile = profiles.load(name)
    assert after(profile, 0.0, 0.0, ECLIPSE_S)[0] > 0.50
    assert after(profile, profile.compute_w.value, 0.0, ECLIPSE_S)[0] < RESERVE == 0.35


@pytest.mark.parametrize("name", NAMES)
def test_heat_limits_continuous_compute_only_on_the_largest_node(name: str) -> None:
    profile = profiles.load(name)
    _, electronics_degc = after(profile, profile.compute_w.value, 1.0, STEADY_S)
    assert (electronics_degc > profile.electronics_max_degc.value) == (name == HEAT_LIMITED)
    assert after(profile, 0.0, 1.0, STEADY_S)[1] < profile.electronics_max_degc.value - 20


def test_the_largest_node_computes_in_bursts_of_about_a_quarter_of_an_hour() -> None:
    profile = profiles.load(HEAT_LIMITED)
    clock = HandClock()
    board = SimulatedBoard(profile, clock, lambda _: 1.0)
    clock.now_ns = start_ns = STEADY_S * NS_PER_S
    board.set_compute_load_w(profile.compute_w.value)
    while board.sensors().electronics_degc < profile.electronics_max_degc.value:
        clock.now_ns += 10 * NS_PER_S
    assert 12 * 60 <= (clock.now_ns - start_ns) / NS_PER_S <= 18 * 60


def test_an_unknown_name_is_refused_with_the_names_that_exist() -> None:
    with pytest.raises(ConfigError, match="raspberry-pi-5") as caught:
        profiles.load("raspberry-pi-6")
    assert "raspberry-pi-6" in str(caught.value)


def test_a_profile_of_ones_own_is_loaded_by_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text((PROFILES / "raspberry-pi-4.toml").read_text().replace("raspberry-pi-4", "mine"))
    assert profiles.load(path).name == profiles.load(str(path)).name == "mine"


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("battery_wh", "0.0", "above 0"),
        ("charge_efficiency", "95.0", "at most 1"),
        ("bus_w", "-1.0", "0 or more"),
        ("electronics_max_degc", "343.0", "150"),
        ("array_w", "inf", "above 0"),
        ("array_w", "nan", "above 0"),
        ("array_w", '"much"', "array_w"),
    ],
)
def test_a_wrong_number_is_refused_with_file_field_and_expectation(
    tmp_path: Path, field: str, value: str, expected: str
) -> None:
    lines = (PROFILES / "raspberry-pi-4.toml").read_text().splitlines()
    changed = [
        f'{field} = {{ value = {value}, source = "test", flag = "D" }}' if line.startswith(f"{field} ") else line
        for line in lines
    ]
    path = tmp_path / "wrong.toml"
    path.write_text("\n".join(changed))
    with pytest.raises(ConfigError, match=expected) as caught:
        profiles.load(path)
    assert "wrong.toml" in str(caught.value)
    assert field in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        profiles.load(tmp_path / "absent.toml")


def test_the_page_is_printed_from_the_files() -> None:
    assert (DOCS / "profiles.md").read_text(encoding="utf-8") == profiles.page()
