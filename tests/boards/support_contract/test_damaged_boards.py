"""Whatever is done to any file of a board: a degraded reading that names it, and never an exception."""

import contextlib
import errno
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from boards.support import trees
from boards.support.findings import Ability
from boards.support.hardware import open_hardware
from boards.support.readings import BoardReading
from flightsw.errors import SensorError
from flightsw.ports import Support

NAMES = trees.names()
FREE_BYTES = 12_345_678


DAMAGES: dict[str, bytes | OSError] = {
    "empty": b"",
    "text": b"not a value?!\n",
    "too-large": b"999999999999\n",
    "nul-behind": b"42000\0\n",
    "not-utf-8": b"\xff\xfe\x80\n",
    "eio": OSError(errno.EIO, "EIO"),
    "eagain": OSError(errno.EAGAIN, "EAGAIN"),
    "eacces": OSError(errno.EACCES, "EACCES"),
}

DERIVED = ("soc_degc", "is_throttled", "is_under_voltage", "input_w")
"""Made of several sensors: they go on with those that are left."""


def touched(name: str, bench: Any) -> Callable[[str], bool]:
    """Whether a value may be missing when this file is damaged."""

    def text(file: str) -> str:
        path = bench.path(file)
        return path.read_text().strip() if path.exists() else ""

    folder = name.rpartition("/")[0]
    if "/thermal_zone" in name:
        zone = text(f"{folder}/type")
        return lambda value: value == f"temperatures_degc.{zone}"
    if "/hwmon/hwmon" in name:
        chip = text(f"{folder}/name")
        rails = {text(f"{folder}/in{number}_label") for number in (1, 2, 3)} - {""}
        if chip == "rpi_volt":
            rails = {"core", "sdram_c", "sdram_i", "sdram_p"}
        pattern = re.compile(rf"\w+\.({chip}(#2)?/.*|{'|'.join(rails) or 'none'})")
        return lambda value: pattern.fullmatch(value) is not None
    parts = (
        (r"/cpufreq/policy(\d+)/", r"clocks_hz.cpu\1|power_mode"),
        (r"/proc/meminfo", "memory_share"),
        (r"/proc/mounts", "storage.is_read_only"),
        (r"/ext4/", "storage.errors_count|storage_errors_count"),
        (r"/block/", "storage.life_used_share|storage.spare_state"),
        (r"/nvme/", "storage.nvme_state"),
        (r"/edac/mc/mc0/ce", "ecc_corrected_count"),
        (r"/edac/mc/mc0/ue", "ecc_uncorrected_count"),
        (r"gpu/load", "gpu_load"),
        (r"/devfreq/", "clocks_hz.gpu"),
    )
    for pattern_text, allowed in parts:
        found = re.search(pattern_text, name)
        if found is not None:
            allowed = found.expand(allowed)
            return lambda value: re.fullmatch(allowed, value) is not None
    return lambda value: False


MEASURES = re.compile(
    r"(thermal_zone\d+/temp|temp1_input|curr[123]_input|fan1_input|in0_lcrit_alarm|scaling_cur_freq|meminfo"
    r"|mounts|errors_count|[cu]e_count|/load|/cur_freq|life_time|pre_eol_info|nvme0/state|policy0/scaling_governor"
    r"|device[12]/cur_state)$"
)


def must_tell(name: str, bench: Any) -> bool:
    """Whether a damage of this file is one that a reading has to tell: it holds a value that is read."""
    folder = name.rpartition("/")[0]
    channel = re.search(r"/curr(\d)_input$", name)
    if channel is not None and bench.path(f"{folder}/in{channel[1]}_label").read_text() == "NC\n":
        return False
    if name.endswith("scaling_governor") and bench.hardware.identity.family == "jetson":
        return False  # nvpmodel gives its power modes
    chip = bench.path(f"{folder}/name")
    return MEASURES.search(name) is not None and not (chip.exists() and chip.read_text() in SHADOWS)


SHADOWS = ("cpu_thermal\n", "acpitz\n")
"""Chips that are thermal zones under another name."""


@pytest.fixture
def check_degraded(
    bench: Any, values: Callable[[BoardReading], dict[str, object]]
) -> Callable[[str, BoardReading], None]:
    """A reading with one damaged file: nothing else has changed, and what is missing is told."""

    def check(name: str, before: BoardReading) -> None:
        after = bench.hardware.read()
        may_miss = touched(name, bench)
        was, now = values(before), values(after)
        for value in was:
            if value in DERIVED or value.startswith("throttling"):
                continue
            if value not in now:
                assert may_miss(value), f"{name}: {value} is gone"
            elif not may_miss(value):
                assert now[value] == was[value], f"{name}: {value}"
        lost = [value for value in was if value not in now]
        if lost or must_tell(name, bench):
            assert after.troubles.keys() - before.troubles.keys(), f"{name}: {lost} without a trouble"
        assert all(why and len(why) < 100 for why in after.troubles.values())

    return check


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_costs_its_own_value_alone_and_is_named_until_it_heals(
    check_degraded: Callable[[str, BoardReading], None],
    values: Callable[[BoardReading], dict[str, object]],
    bench: Any,
    damage: str,
) -> None:
    before = bench.hardware.read()
    for name in bench.files():
        bench.damaged = {bench.path(name): DAMAGES[damage]}
        bench.now_ns += 10**9
        check_degraded(name, before)  # and so what was damaged before this one has healed
    bench.damaged = {}
    bench.now_ns += 60 * 10**9
    healed = bench.hardware.read()
    assert {name: value for name, value in values(healed).items() if name in values(before)} == values(before)
    assert before.troubles.items() <= healed.troubles.items()


def test_a_missing_file_costs_its_own_value_alone_and_is_named_until_it_is_back(
    values: Callable[[BoardReading], dict[str, object]], bench: Any
) -> None:
    before = bench.hardware.read()
    for name in bench.files():
        path = bench.path(name)
        text = path.read_bytes()
        may_miss, tells = touched(name, bench), must_tell(name, bench)
        path.unlink()
        after = bench.hardware.read()
        gone = [value for value in values(before) if value not in values(after) and value not in DERIVED]
        assert all(may_miss(value) for value in gone), f"{name}: {gone}"
        assert not (gone or tells) or after.troubles.keys() - before.troubles.keys(), name
        path.write_bytes(text)
    assert values(bench.hardware.read()) == values(before)
    assert bench.hardware.read().troubles == before.troubles


@pytest.mark.parametrize("damage", ["eio", "text", "not-utf-8"])
def test_reports_modes_and_the_uart_survive_a_damage_of_any_file_from_the_start(bench: Any, damage: str) -> None:
    for name in bench.files():
        bench.damaged = {bench.path(name): DAMAGES[damage]}
        hardware = open_hardware(
            "auto",
            root=bench.laid.root,
            monotonic_ns=lambda: 0,
            run=bench.laid.run,
            read=bench.laid.reader(bench.read),
            free_bytes=lambda _: FREE_BYTES,
        )
        assert len(hardware.capabilities()) == len(Ability)
        assert isinstance(hardware.power_modes(), tuple)
        with contextlib.suppress(SensorError):
            hardware.uart()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_bytes_in_any_files_give_a_reading(
    make_bench: Callable[..., Any], tmp_path: Path, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(NAMES))
    folder = tmp_path / name
    if name not in _benches:
        _benches[name] = make_bench(name, folder)
    bench = _benches[name]
    files = data.draw(st.lists(st.sampled_from(bench.files()), max_size=6))
    content = st.binary(max_size=40) | st.integers().map(lambda number: str(number).encode())
    bench.damaged = {bench.path(file): data.draw(content) for file in files}
    reading = bench.hardware.read()
    assert all(-60.0 <= degc <= 200.0 for degc in reading.temperatures_degc.values())
    assert reading.memory_share is None or 0.0 <= reading.memory_share <= 1.0
    assert len(bench.hardware.capabilities()) == len(Ability)


_benches: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def _forget_benches() -> Iterator[None]:
    yield
    _benches.clear()


def test_chips_that_change_their_numbers_between_two_readings_read_as_before(
    values: Callable[[BoardReading], dict[str, object]], bench: Any
) -> None:
    before = bench.hardware.read()
    for folder in ("sys/class/hwmon", "sys/class/thermal"):
        place = bench.laid.root / folder
        entries = sorted(entry.name for entry in place.iterdir()) if place.is_dir() else []
        for prefix in ("hwmon", "thermal_zone", "cooling_device"):
            of_kind = [entry for entry in entries if entry.startswith(prefix)]
            if any((place / entry / "temp").is_symlink() for entry in of_kind) or len(of_kind) < 2:
                continue  # the errors of a laid tree are bound to their paths
            for entry in of_kind:
                (place / entry).rename(place / f"moving-{entry}")
            for number, entry in enumerate(of_kind):
                (place / f"moving-{entry}").rename(place / f"{prefix}{40 - number}")
    after = bench.hardware.read()
    assert values(after) == values(before)
    assert after.troubles == before.troubles


def test_a_chip_that_vanishes_is_missed_by_name_and_welcome_back(
    make_bench: Callable[..., Any], values: Callable[[BoardReading], dict[str, object]], tmp_path: Path
) -> None:
    bench = make_bench("raspberry-pi-5", tmp_path)
    before = bench.hardware.read()
    fan = bench.path("/sys/class/hwmon/hwmon2")
    fan.rename(tmp_path / "away")
    for _ in range(3):
        after = bench.hardware.read()
        assert after.fans_rpm == {}
        assert after.troubles == {"pwmfan/fan1": "not there"}
    (line,) = [line for line in bench.hardware.capabilities() if line.name == "fan"]
    assert (line.support, line.detail) == (Support.DEGRADED, "pwmfan/fan1: not there")
    (tmp_path / "away").rename(bench.path("/sys/class/hwmon/hwmon7"))
    assert values(bench.hardware.read()) == values(before)


def test_a_temperature_that_a_family_must_have_is_missed_from_the_start(
    make_bench: Callable[..., Any], tmp_path: Path
) -> None:
    bench = make_bench("raspberry-pi-4", tmp_path)
    bench.path("/sys/class/thermal/thermal_zone0/type").unlink()
    reading = bench.hardware.read()
    assert reading.troubles == {"cpu-thermal": "not there"}
    assert reading.soc_degc is None


def test_a_gated_zone_is_named_and_does_not_degrade_the_others(make_bench: Callable[..., Any], tmp_path: Path) -> None:
    bench = make_bench("jetson-orin-nano", tmp_path)
    (line,) = [line for line in bench.hardware.capabilities() if line.name == "temperature"]
    assert line.support is Support.PROVEN
    bench.damaged[bench.path("/sys/class/thermal/thermal_zone0/temp")] = OSError(errno.EIO, "EIO")
    (line,) = [line for line in bench.hardware.capabilities() if line.name == "temperature"]
    assert (line.support, line.detail) == (Support.DEGRADED, "cpu-thermal: EIO")


def test_a_storage_that_went_read_only_is_degraded(make_bench: Callable[..., Any], tmp_path: Path) -> None:
    bench = make_bench("raspberry-pi-5", tmp_path)
    bench.damaged[bench.path("/proc/mounts")] = b"/dev/mmcblk0p2 / ext4 ro,noatime 0 0\n"
    (line,) = [line for line in bench.hardware.capabilities() if line.name == "storage"]
    assert (line.support, line.detail) == (Support.DEGRADED, "mounted read-only: nothing can be kept")
    assert bench.hardware.read().storage.is_read_only
