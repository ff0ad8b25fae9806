"""Every board tree against every reader: exact values, and whatever is done to any file, a degraded reading and never
an exception."""

import contextlib
import errno
import re
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from boards.support import trees
from boards.support.findings import Ability
from boards.support.hardware import BoardHardware, open_hardware
from boards.support.identity import Identity
from boards.support.readings import BoardReading
from boards.support.sysfs import read_file
from boards.support.tools import ToolResult
from flightsw.errors import BoardError, ConfigError, SensorError
from flightsw.ports import Support

NAMES = trees.names()
FREE_BYTES = 12_345_678
Reader = Callable[[Path, int], bytes]


class Bench:
    """A laid tree, its hardware, and what is done to files on the way."""

    def __init__(self, name: str, folder: Path, kind: str = "auto") -> None:
        self.laid = trees.lay(name, folder / "board")
        self.now_ns = 0
        self.damaged: dict[Path, bytes | OSError] = {}
        self.hardware: BoardHardware = open_hardware(
            kind,
            root=self.laid.root,
            monotonic_ns=lambda: self.now_ns,
            run=self.laid.run,
            read=self.laid.reader(self.read),
            free_bytes=lambda _: FREE_BYTES,
        )

    def read(self, path: Path, limit_bytes: int) -> bytes:
        damage = self.damaged.get(path)
        if isinstance(damage, OSError):
            raise damage
        return read_file(path, limit_bytes) if damage is None else damage[:limit_bytes]

    def path(self, name: str) -> Path:
        return self.laid.root / name[1:]

    def files(self) -> list[str]:
        return [path for facts in self.laid.tree.facts for path in facts.files]


@pytest.fixture(params=NAMES)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    return Bench(request.param, tmp_path)


def values(reading: BoardReading) -> dict[str, object]:
    """Everything that a reading says, flat; what is None or empty is not said."""
    flat: dict[str, object] = {}
    for field in fields(reading):
        value = getattr(reading, field.name)
        if field.name in ("sampled_ns", "troubles"):
            continue
        if field.name == "storage":
            flat |= {f"storage.{part.name}": getattr(value, part.name) for part in fields(value)}
        elif isinstance(value, dict):
            flat |= {f"{field.name}.{name}": one for name, one in value.items()}
        else:
            flat[field.name] = value
    return {name: value for name, value in flat.items() if value not in (None, "", {})}


ORIN_ZONES = {"cpu": 41.4, "gpu": 40.1, "soc0": 41.25, "soc1": 42.06, "soc2": 41.59, "tj": 42.06}
ORIN_DEGC = {f"{name}-thermal": degc for name, degc in ORIN_ZONES.items()} | {"nvme/Composite": 36.85}
EXPECTED: dict[str, dict[str, object]] = {
    "host": {
        "identity": Identity("Example Rack 1", (), "host", "", "x86_64"),
        "temperatures_degc": {
            "acpitz": 27.8,
            "x86_pkg_temp": 44.0,
            "nvme/Composite": 38.85,
            "coretemp/Package id 0": 44.0,
            "coretemp/Core 0": 43.0,
        },
        "soc_degc": 44.0,
        "voltages_v": {"nct6798/in0": 1.064},
        "fans_rpm": {"nct6798/fan1": 911.0},
        "clocks_hz": {"cpu0": 1_799_998_000.0, "cpu1": 1_799_999_000.0},
        "is_throttled": False,
        "is_under_voltage": None,
        "ecc_corrected_count": 3,
        "ecc_uncorrected_count": 0,
        "storage_errors_count": 2,
        "power_mode": "powersave",
        "uart": None,
        "absent": "power_rails input_power under_voltage gpu storage_wear uart",
    },
    "jetson-agx-orin": {
        "identity": Identity(
            "NVIDIA Jetson AGX Orin Developer Kit",
            ("nvidia,p3737-0000+p3701-0005", "nvidia,p3701-0005", "nvidia,tegra234"),
            "jetson",
            "jetson-agx-orin",
            "aarch64",
            "JetPack 7 (R38.4.0)",
        ),
        "soc_degc": 52.968,
        "voltages_v": {"VDD_GPU_SOC": 0.843, "VDD_CPU_CV": 0.78, "VIN_SYS_5V0": 4.968, "VDDQ_VDD2_1V8AO": 4.976},
        "currents_a": {"VDD_GPU_SOC": 6.17, "VDD_CPU_CV": 3.437, "VIN_SYS_5V0": 0.953, "VDDQ_VDD2_1V8AO": 0.624},
        "input_w": None,
        "gpu_load": 0.1,
        "power_mode": "30W",
        "is_throttled": False,
        "uart": "dev/ttyTHS1",
        "troubles": {"cv1-thermal": "EAGAIN"},
        "absent": "input_power under_voltage ecc panic_record",
    },
    "jetson-orin-nano": {
        "temperatures_degc": ORIN_DEGC,
        "soc_degc": 42.06,
        "voltages_v": {"VDD_IN": 5.016, "VDD_CPU_GPU_CV": 5.008, "VDD_SOC": 5.008},
        "currents_a": {"VDD_IN": 1.048, "VDD_CPU_GPU_CV": 0.208, "VDD_SOC": 0.312},
        "input_w": pytest.approx(5.256768),
        "fans_rpm": {"pwm_tach/fan1": 1820.0},
        "clocks_hz": {"cpu0": 729_600_000.0, "cpu4": 729_600_000.0, "gpu": 306_000_000.0},
        "gpu_load": 0.1,
        "power_mode": "15W",
        "uart": "dev/ttyTHS1",
        "troubles": {"cv0-thermal": "EAGAIN", "cv1-thermal": "EAGAIN", "cv2-thermal": "EAGAIN"},
        "absent": "under_voltage ecc storage_wear",
    },
    "jetson-orin-nx": {
        "temperatures_degc": ORIN_DEGC,
        "input_w": pytest.approx(5.901056),
        "power_mode": "15W",
        "uart": "dev/ttyTHS0",
        "absent": "under_voltage ecc storage_wear panic_record",
    },
    "qemu-raspi3b": {
        "temperatures_degc": {"cpu-thermal": 25.178},
        "soc_degc": 25.178,
        "is_throttled": None,
        "is_under_voltage": None,
        "clocks_hz": {},
        "power_mode": "",
        "uart": "dev/ttyAMA0",
        "troubles": {},
        "absent": "fan voltages power_rails input_power under_voltage throttling cpu_clock gpu power_modes ecc "
        "storage_wear panic_record",
    },
    "qemu-virt": {
        "temperatures_degc": {},
        "soc_degc": None,
        "memory_share": pytest.approx(1 - 312448 / 485120),
        "uart": "dev/ttyAMA0",
        "troubles": {},
        "absent": "temperature fan voltages power_rails input_power under_voltage throttling cpu_clock gpu power_modes "
        "ecc storage_wear",
    },
    "raspberry-pi-3": {
        "temperatures_degc": {"cpu-thermal": 51.54},
        "voltages_v": {"core": 1.2},
        "clocks_hz": {"cpu0": 600_000_000.0, "arm": 599_997_000.0},
        "is_throttled": True,
        "is_under_voltage": True,
        "uart": "dev/ttyAMA0",
        "troubles": {},
        "absent": "fan power_rails input_power gpu ecc storage_wear panic_record",
    },
    "raspberry-pi-4": {
        "voltages_v": {"core": 0.85, "sdram_c": 1.1, "sdram_i": 1.1, "sdram_p": 1.1},
        "is_throttled": False,
        "is_under_voltage": False,
        "power_mode": "ondemand",
        "uart": "dev/ttyAMA0",
        "troubles": {},
        "absent": "fan power_rails input_power gpu ecc storage_wear panic_record",
    },
    "raspberry-pi-5": {
        "identity": Identity(
            "Raspberry Pi 5 Model B Rev 1.0",
            ("raspberrypi,5-model-b", "brcm,bcm2712"),
            "raspberry-pi",
            "raspberry-pi-5",
            "aarch64",
        ),
        "temperatures_degc": {"cpu-thermal": 48.3, "rp1_adc/temp1": 45.312},
        "soc_degc": 48.3,
        "fans_rpm": {"pwmfan/fan1": 2410.0},
        "input_w": None,
        "is_throttled": False,
        "is_under_voltage": False,
        "memory_share": pytest.approx(1 - 7541248 / 8246336),
        "storage_free_bytes": FREE_BYTES,
        "storage_errors_count": 0,
        "uart": "dev/ttyAMA0",
        "troubles": {},
        "absent": "input_power gpu ecc storage_wear panic_record",
    },
    "raspberry-pi-zero-2-w": {
        "voltages_v": {"core": 1.2},
        "is_under_voltage": False,
        "uart": "dev/ttyS0",
        "absent": "fan power_rails input_power gpu ecc storage_wear panic_record",
    },
}
PRESENT = ("power_modes", "watchdog", "uart", "panic_record")
"""What acts is there, and nobody has tried it; all else is proven by its values."""


def test_every_tree_has_its_expected_values() -> None:
    assert sorted(EXPECTED) == NAMES


def test_a_board_reads_exactly_what_its_tree_says(bench: Bench) -> None:
    expected = dict(EXPECTED[bench.laid.tree.name])
    reading = bench.hardware.read()
    del expected["absent"]
    uart = expected.pop("uart")
    if uart is None:
        with pytest.raises(SensorError, match=r"names no UART|no device tree"):
            bench.hardware.uart()
    else:
        assert bench.hardware.uart() == bench.laid.root / str(uart)
    assert bench.hardware.identity == expected.pop("identity", bench.hardware.identity)
    assert {name: getattr(reading, name) for name in expected} == expected


def test_the_profile_that_fits_a_board_is_called_like_its_tree_where_there_is_one(bench: Bench) -> None:
    name = bench.laid.tree.name
    assert bench.hardware.identity.profile in ("", "raspberry-pi-3" if name == "qemu-raspi3b" else name)


def test_rails_of_a_pi_5_are_multiplied_and_never_added_up_to_its_input(tmp_path: Path) -> None:
    reading = Bench("raspberry-pi-5", tmp_path).hardware.read()
    assert len(reading.powers_w) == 12
    assert reading.powers_w["VDD_CORE"] == pytest.approx(0.76798460 * 0.56259000)
    assert reading.voltages_v["EXT5V"] == 5.14158
    assert "EXT5V" not in reading.powers_w
    assert reading.input_w is None


def test_a_capability_report_has_every_line_and_says_why_one_is_absent(bench: Bench) -> None:
    lines = bench.hardware.capabilities()
    assert [line.name for line in lines] == [ability.value for ability in Ability]
    absent = str(EXPECTED[bench.laid.tree.name]["absent"]).split()
    for line in lines:
        expected = (
            Support.ABSENT if line.name in absent else Support.PRESENT if line.name in PRESENT else Support.PROVEN
        )
        if (bench.laid.tree.name, line.name) == ("host", "watchdog"):
            expected = Support.DEGRADED  # nobody feeds it
        assert line.support is expected, line
        assert line.detail
        assert "\n" not in line.detail


def test_every_power_mode_is_set_and_read_back_or_refused_with_the_reason(bench: Bench) -> None:
    hardware = bench.hardware
    modes = hardware.power_modes()
    asking = {
        mode for mode in modes if bench.laid.tree.name in ("jetson-orin-nx", "jetson-agx-orin") and mode == "MAXN"
    }
    for mode in reversed(modes):
        if mode in asking:
            with pytest.raises(BoardError, match=rf"{mode!r} was not set.*it takes a reboot"):
                hardware.set_power_mode(mode)
        else:
            hardware.set_power_mode(mode)
        bench.now_ns += 10**9
        assert (hardware.read().power_mode == mode) == (mode not in asking)
    if modes:
        assert [line.support for line in hardware.capabilities() if line.name == "power_modes"] == [Support.PROVEN]


def test_a_kind_is_taken_from_the_board_or_must_fit_it(tmp_path: Path) -> None:
    assert Bench("jetson-orin-nx", tmp_path / "a", "jetson").hardware.read().input_w is not None
    as_host = Bench("jetson-orin-nx", tmp_path / "b", "host").hardware.read()
    assert as_host.input_w is None
    assert as_host.temperatures_degc["tj-thermal"] == 42.06
    with pytest.raises(ConfigError, match=r"board.kind = 'raspberry-pi'.*Jetson.*expected 'auto', 'jetson' or 'host'"):
        Bench("jetson-orin-nx", tmp_path / "c", "raspberry-pi")
    with pytest.raises(ConfigError, match=r"board.kind = 'pi'.*expected one of auto, raspberry-pi"):
        Bench("host", tmp_path / "d", "pi")


# -- the hostile part

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


def touched(name: str, bench: Bench) -> Callable[[str], bool]:
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


def must_tell(name: str, bench: Bench) -> bool:
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


def check_degraded(bench: Bench, name: str, before: BoardReading) -> None:
    """A reading with one damaged file: nothing else has changed, and what is missing is told."""
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


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_costs_its_own_value_alone_and_is_named_until_it_heals(bench: Bench, damage: str) -> None:
    before = bench.hardware.read()
    for name in bench.files():
        bench.damaged = {bench.path(name): DAMAGES[damage]}
        bench.now_ns += 10**9
        check_degraded(bench, name, before)  # and so what was damaged before this one has healed
    bench.damaged = {}
    bench.now_ns += 60 * 10**9
    healed = bench.hardware.read()
    assert {name: value for name, value in values(healed).items() if name in values(before)} == values(before)
    assert before.troubles.items() <= healed.troubles.items()


def test_a_missing_file_costs_its_own_value_alone_and_is_named_until_it_is_back(bench: Bench) -> None:
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
def test_reports_modes_and_the_uart_survive_a_damage_of_any_file_from_the_start(bench: Bench, damage: str) -> None:
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
def test_any_bytes_in_any_files_give_a_reading(tmp_path: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(NAMES))
    folder = tmp_path / name
    if name not in _benches:
        _benches[name] = Bench(name, folder)
    bench = _benches[name]
    files = data.draw(st.lists(st.sampled_from(bench.files()), max_size=6))
    content = st.binary(max_size=40) | st.integers().map(lambda number: str(number).encode())
    bench.damaged = {bench.path(file): data.draw(content) for file in files}
    reading = bench.hardware.read()
    assert all(-60.0 <= degc <= 200.0 for degc in reading.temperatures_degc.values())
    assert reading.memory_share is None or 0.0 <= reading.memory_share <= 1.0
    assert len(bench.hardware.capabilities()) == len(Ability)


_benches: dict[str, Bench] = {}


@pytest.fixture(autouse=True)
def _forget_benches() -> Iterator[None]:
    yield
    _benches.clear()


def test_chips_that_change_their_numbers_between_two_readings_read_as_before(bench: Bench) -> None:
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


def test_a_chip_that_vanishes_is_missed_by_name_and_welcome_back(tmp_path: Path) -> None:
    bench = Bench("raspberry-pi-5", tmp_path)
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


def test_a_temperature_that_a_family_must_have_is_missed_from_the_start(tmp_path: Path) -> None:
    bench = Bench("raspberry-pi-4", tmp_path)
    bench.path("/sys/class/thermal/thermal_zone0/type").unlink()
    reading = bench.hardware.read()
    assert reading.troubles == {"cpu-thermal": "not there"}
    assert reading.soc_degc is None


def test_a_gated_zone_is_named_and_does_not_degrade_the_others(tmp_path: Path) -> None:
    bench = Bench("jetson-orin-nano", tmp_path)
    (line,) = [line for line in bench.hardware.capabilities() if line.name == "temperature"]
    assert line.support is Support.PROVEN
    bench.damaged[bench.path("/sys/class/thermal/thermal_zone0/temp")] = OSError(errno.EIO, "EIO")
    (line,) = [line for line in bench.hardware.capabilities() if line.name == "temperature"]
    assert (line.support, line.detail) == (Support.DEGRADED, "cpu-thermal: EIO")


def test_a_storage_that_went_read_only_is_degraded(tmp_path: Path) -> None:
    bench = Bench("raspberry-pi-5", tmp_path)
    bench.damaged[bench.path("/proc/mounts")] = b"/dev/mmcblk0p2 / ext4 ro,noatime 0 0\n"
    (line,) = [line for line in bench.hardware.capabilities() if line.name == "storage"]
    assert (line.support, line.detail) == (Support.DEGRADED, "mounted read-only: nothing can be kept")
    assert bench.hardware.read().storage.is_read_only


def test_an_empty_machine_has_a_reading_and_a_report(tmp_path: Path) -> None:
    def nothing(_: object) -> ToolResult:
        raise FileNotFoundError

    hardware = open_hardware("auto", root=tmp_path / "nothing", monotonic_ns=lambda: 7, run=nothing)
    reading = hardware.read()
    assert reading.sampled_ns == 7
    assert values(reading) == {}
    assert set(reading.troubles) == {"memory", "mounts", "storage_free"}
    assert {line.support for line in hardware.capabilities()} == {Support.ABSENT, Support.DEGRADED}


def test_this_machine_can_be_read() -> None:
    hardware = open_hardware("host", monotonic_ns=lambda: 0)
    reading = hardware.read()
    assert reading.memory_share is not None
    assert reading.storage_free_bytes is not None
    assert hardware.identity.architecture
    assert len(hardware.capabilities()) == len(Ability)
