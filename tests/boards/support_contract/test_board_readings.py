"""Every board tree against every reader: exact values, capabilities with reasons, and power modes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from boards.support import trees
from boards.support.findings import Ability
from boards.support.hardware import open_hardware
from boards.support.identity import Identity
from boards.support.readings import BoardReading
from boards.support.tools import ToolResult
from flightsw.errors import BoardError, ConfigError, SensorError
from flightsw.ports import Support

NAMES = trees.names()
FREE_BYTES = 12_345_678


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


def test_a_board_reads_exactly_what_its_tree_says(bench: Any) -> None:
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


def test_the_profile_that_fits_a_board_is_called_like_its_tree_where_there_is_one(bench: Any) -> None:
    name = bench.laid.tree.name
    assert bench.hardware.identity.profile in ("", "raspberry-pi-3" if name == "qemu-raspi3b" else name)


def test_rails_of_a_pi_5_are_multiplied_and_never_added_up_to_its_input(
    make_bench: Callable[..., Any], tmp_path: Path
) -> None:
    reading = make_bench("raspberry-pi-5", tmp_path).hardware.read()
    assert len(reading.powers_w) == 12
    assert reading.powers_w["VDD_CORE"] == pytest.approx(0.76798460 * 0.56259000)
    assert reading.voltages_v["EXT5V"] == 5.14158
    assert "EXT5V" not in reading.powers_w
    assert reading.input_w is None


def test_a_capability_report_has_every_line_and_says_why_one_is_absent(bench: Any) -> None:
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


def test_every_power_mode_is_set_and_read_back_or_refused_with_the_reason(bench: Any) -> None:
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


def test_a_kind_is_taken_from_the_board_or_must_fit_it(make_bench: Callable[..., Any], tmp_path: Path) -> None:
    assert make_bench("jetson-orin-nx", tmp_path / "a", "jetson").hardware.read().input_w is not None
    as_host = make_bench("jetson-orin-nx", tmp_path / "b", "host").hardware.read()
    assert as_host.input_w is None
    assert as_host.temperatures_degc["tj-thermal"] == 42.06
    with pytest.raises(ConfigError, match=r"board.kind = 'raspberry-pi'.*Jetson.*expected 'auto', 'jetson' or 'host'"):
        make_bench("jetson-orin-nx", tmp_path / "c", "raspberry-pi")
    with pytest.raises(ConfigError, match=r"board.kind = 'pi'.*expected one of auto, raspberry-pi"):
        make_bench("host", tmp_path / "d", "pi")


def test_an_empty_machine_has_a_reading_and_a_report(
    values: Callable[[BoardReading], dict[str, object]], tmp_path: Path
) -> None:
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
