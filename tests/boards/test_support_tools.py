"""Parts of board support on their own: bounded reads, tools that are slow, gone or strange, power modes, UARTs."""

import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boards.support import tools, trees
from boards.support.findings import KNOWN_MAX, Ability, Findings
from boards.support.hardware import BoardHardware, open_hardware
from boards.support.sysfs import BoardFiles, read_file, whole
from boards.support.tools import PERIOD_NS, RETRY_NS, PacedTool, ToolResult, output_of, run_tool
from flightsw.errors import BoardError, SensorError
from flightsw.ports import Support


class Script:
    """A tool that says what it is told to, and counts."""

    def __init__(self, answers: dict[str, str | OSError]) -> None:
        self.answers = answers
        self.calls: list[str] = []

    def __call__(self, arguments: Sequence[str]) -> ToolResult:
        command = " ".join(arguments)
        self.calls.append(command)
        answer = self.answers[command]
        if isinstance(answer, OSError):
            raise answer
        return ToolResult(1 if answer.startswith("!") else 0, answer)


class Clock:
    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


# -- files


def test_a_read_is_bounded_and_takes_all_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "long").write_bytes(bytes(10_000))
    assert len(BoardFiles(tmp_path).data("/long")) == 4096
    read = os.read
    monkeypatch.setattr("boards.support.sysfs.os.read", lambda file, limit: read(file, min(limit, 1000)))
    assert len(read_file(tmp_path / "long", 4096)) == 4096


def test_a_pipe_or_a_folder_in_place_of_a_file_does_not_hold_up_a_reading(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    files = BoardFiles(tmp_path)
    with pytest.raises(SensorError, match="empty"):
        files.text("/pipe")
    with pytest.raises(SensorError, match="EISDIR"):
        files.text("/folder")


@settings(deadline=None)
@given(content=st.binary(max_size=60))
def test_any_bytes_are_a_number_in_range_or_a_trouble(content: bytes) -> None:
    files = BoardFiles(Path("/none"), lambda path, limit: content)
    try:
        value = files.integer("/x", -5, 5_000)
    except SensorError as error:
        assert 0 < len(str(error)) < 100  # noqa: PT017 - either is right
    else:
        assert -5 <= value <= 5_000
        assert int(content.decode().strip()) == value


@pytest.mark.parametrize("text", ["", "1_000", "٣", "0x10", "1e3", "+5", "1 2", "--1", "9" * 30])
def test_only_plain_whole_numbers_are_numbers(text: str) -> None:
    with pytest.raises(SensorError, match="not a whole number"):
        whole(text, -(10**40), 10**40)


def test_strings_of_a_device_tree_end_with_nul(tmp_path: Path) -> None:
    (tmp_path / "compatible").write_bytes(b"raspberrypi,5-model-b\0brcm,bcm2712\0")
    assert BoardFiles(tmp_path).strings("/compatible") == ("raspberrypi,5-model-b", "brcm,bcm2712")


def test_what_is_remembered_of_sensors_is_bounded() -> None:
    known: dict[str, Ability] = {}
    for number in range(3 * KNOWN_MAX):
        findings = Findings(known)
        findings.value(Ability.FAN, f"fan{number}", lambda: 1.0)
        findings.close()
    assert len(known) == KNOWN_MAX


# -- tools


def test_a_tool_is_run_without_a_shell_and_without_input() -> None:
    code = "import sys; print(sys.argv[1], repr(sys.stdin.read())); sys.exit(3)"
    assert run_tool([sys.executable, "-c", code, "$HOME; *"]) == ToolResult(3, "$HOME; * ''\n")


def test_a_tool_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "TOOL_S_MAX", 0.05)
    with pytest.raises(TimeoutError):
        run_tool([sys.executable, "-c", "import signal; signal.pause()"])


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (FileNotFoundError(errno.ENOENT, "no"), "vcgencmd is not installed"),
        (PermissionError(errno.EACCES, "no"), "vcgencmd: EACCES"),
        (TimeoutError("slow"), "vcgencmd gave no answer within"),
        ("!VCHI initialization failed", "vcgencmd exit 1: '!VCHI initialization fai...'"),
        ('error=1 error_msg="Command not registered"', "vcgencmd exit 0: 'error=1"),
    ],
)
def test_a_tool_that_fails_says_why(answer: str | OSError, why: str) -> None:
    with pytest.raises(SensorError) as caught:
        output_of(Script({"vcgencmd get_throttled": answer}), ["vcgencmd", "get_throttled"])
    assert why in str(caught.value)


def test_vcgencmd_is_asked_for_all_at_first_and_then_for_what_is_urgent_and_one_more() -> None:
    script, clock = Script({"v urgent": "u", "v a": "a", "v b": "b", "v c": "c"}), Clock()
    paced = PacedTool(script, clock, [("v", "urgent")], [("v", "a"), ("v", "b"), ("v", "c")])
    paced.refresh()
    assert script.calls == ["v urgent", "v a", "v b", "v c"]
    for expected in ("a", "b", "c", "a"):
        script.calls.clear()
        clock.now_ns += PERIOD_NS
        paced.refresh()
        assert script.calls == ["v urgent", f"v {expected}"]
    script.calls.clear()
    clock.now_ns += PERIOD_NS - 1
    paced.refresh()
    assert script.calls == []
    assert paced.answer("v", "b") == "b"


def test_a_tool_that_failed_is_left_alone_for_a_while() -> None:
    script, clock = Script({"v urgent": TimeoutError("slow")}), Clock()
    paced = PacedTool(script, clock, [("v", "urgent")])
    paced.refresh()
    clock.now_ns += RETRY_NS - 1
    paced.refresh()
    assert len(script.calls) == 1
    with pytest.raises(SensorError, match="no answer"):
        paced.answer("v", "urgent")
    script.answers["v urgent"] = "well"
    clock.now_ns += RETRY_NS
    paced.refresh()
    assert paced.answer("v", "urgent") == "well"


def test_a_question_that_fails_does_not_keep_the_others_from_being_asked() -> None:
    script, clock = Script({"v a": TimeoutError("slow"), "v b": "b", "v c": "c"}), Clock()
    paced = PacedTool(script, clock, [], [("v", "a"), ("v", "b"), ("v", "c")])
    paced.refresh()
    script.calls.clear()
    for _ in range(RETRY_NS // PERIOD_NS):
        clock.now_ns += PERIOD_NS
        paced.refresh()
    assert script.calls[:4] == ["v b", "v c", "v b", "v c"]
    assert script.calls[-1] == "v a", "its time is over"
    assert script.calls.count("v a") == 1


def test_tools_are_paced_by_the_machine_s_time_and_not_the_mission_s(tmp_path: Path) -> None:
    laid = trees.lay("raspberry-pi-5", tmp_path / "board")
    mission, machine, calls = Clock(), Clock(), list[str]()

    def run(arguments: Sequence[str]) -> ToolResult:
        calls.append(" ".join(arguments))
        return laid.run(arguments)

    hardware = open_hardware("auto", root=laid.root, monotonic_ns=mission, tool_ns=machine, run=run)
    hardware.read()
    calls.clear()
    mission.now_ns += 10 * PERIOD_NS
    hardware.read()
    assert calls == []
    machine.now_ns += PERIOD_NS
    assert hardware.read().sampled_ns == 10 * PERIOD_NS
    assert len(calls) == 2


# -- what a Raspberry Pi says of itself


def opened(folder: Path, name: str, changes: dict[str, str | OSError], clock: Clock) -> BoardHardware:
    laid = trees.lay(name, folder / name)

    def run(arguments: Sequence[str]) -> ToolResult:
        change = changes.get(" ".join(arguments))
        if isinstance(change, OSError):
            raise change
        return laid.run(arguments) if change is None else ToolResult(0, change)

    return open_hardware("auto", root=laid.root, monotonic_ns=clock, run=run, read=laid.read)


@pytest.mark.parametrize(
    ("bits", "is_throttled", "is_under_voltage", "now", "since"),
    [
        ("0x0", False, False, (), ()),
        ("0x1", False, True, ("under-voltage",), ()),
        ("0x2", True, False, ("clock capped",), ()),
        ("0x4", True, False, ("throttled",), ()),
        ("0x8", True, False, ("soft temperature limit",), ()),
        ("0x50000", False, False, (), ("under-voltage", "throttled")),
        ("0xe0008", True, False, ("soft temperature limit",), ("clock capped", "throttled", "soft temperature limit")),
    ],
)
def test_bits_of_get_throttled_are_now_and_since_the_boot(
    tmp_path: Path, bits: str, is_throttled: bool, is_under_voltage: bool, now: object, since: object
) -> None:
    changes: dict[str, str | OSError] = {"vcgencmd get_throttled": f"throttled={bits}\n"}
    reading = opened(tmp_path, "raspberry-pi-zero-2-w", changes, Clock()).read()
    assert reading.is_throttled is is_throttled
    assert reading.is_under_voltage is is_under_voltage
    assert reading.throttling is not None
    assert (reading.throttling.now, reading.throttling.since_boot) == (now, since)


@pytest.mark.parametrize("answer", ["", "throttled=0xzz\n", "throttled=\n", "\0\xff", "throttled=0x123456789\n"])
def test_nonsense_of_vcgencmd_is_a_trouble_once_it_has_made_sense(tmp_path: Path, answer: str) -> None:
    clock, changes = Clock(), dict[str, str | OSError]()
    hardware = opened(tmp_path, "raspberry-pi-zero-2-w", changes, clock)
    assert hardware.read().is_throttled is False
    changes["vcgencmd get_throttled"] = answer
    clock.now_ns += RETRY_NS
    reading = hardware.read()
    assert reading.is_throttled is None
    assert reading.is_under_voltage is None
    assert list(reading.troubles) == ["throttling"]


def test_the_kernel_tells_an_under_voltage_without_vcgencmd(tmp_path: Path) -> None:
    gone = FileNotFoundError(errno.ENOENT, "no")
    commands = ("get_throttled", "measure_volts core", "measure_clock arm", "pmic_read_adc")
    changes: dict[str, str | OSError] = {f"vcgencmd {command}": gone for command in commands}
    hardware = opened(tmp_path, "raspberry-pi-3", changes, Clock())
    reading = hardware.read()
    assert reading.is_under_voltage is True
    assert reading.is_throttled is None
    assert reading.troubles == {}
    lines = {line.name: line for line in hardware.capabilities()}
    assert lines["under_voltage"].support is Support.PROVEN
    assert lines["throttling"].support is Support.ABSENT
    assert "vcgencmd" in lines["throttling"].detail


@settings(deadline=None)
@given(text=st.text(max_size=80))
def test_any_answer_of_the_pmic_gives_a_reading(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    changes: dict[str, str | OSError] = {"vcgencmd pmic_read_adc": text}
    folder = tmp_path_factory.mktemp("pmic")
    assert opened(folder, "raspberry-pi-5", changes, Clock()).read().input_w is None


def test_a_rail_out_of_what_can_be_is_left_out_and_named(tmp_path: Path) -> None:
    changes: dict[str, str | OSError] = {
        "vcgencmd pmic_read_adc": "  VDD_CORE_A current(7)=9999.0A\n  VDD_CORE_V volt(15)=0.75V\n"
    }
    reading = opened(tmp_path, "raspberry-pi-5", changes, Clock()).read()
    assert "VDD_CORE" not in reading.powers_w
    assert reading.troubles == {"VDD_CORE current": "out of range: 9999, expected -200 to 200"}


@pytest.mark.parametrize(
    ("tree", "file", "is_throttled"),
    [
        ("jetson-orin-nano", "thermal/cooling_device1/cur_state", True),  # cpufreq-cpu0
        ("jetson-orin-nano", "thermal/cooling_device2/cur_state", True),  # devfreq-17000000.gpu
        ("jetson-orin-nano", "thermal/cooling_device0/cur_state", False),  # pwm-fan
        ("jetson-orin-nano", "hwmon/hwmon1/curr1_crit_alarm", True),
        ("host", "thermal/cooling_device0/cur_state", True),  # Processor
    ],
)
def test_what_slows_a_clock_down_is_throttling_and_a_fan_is_not(
    tmp_path: Path, tree: str, file: str, is_throttled: bool
) -> None:
    hardware = opened(tmp_path, tree, {}, Clock())
    (tmp_path / tree / "sys/class" / file).write_text("1\n")
    assert hardware.read().is_throttled is is_throttled


def test_a_soc_is_as_hot_as_its_hottest_zone_and_the_board_around_it_does_not_count(tmp_path: Path) -> None:
    hardware = opened(tmp_path, "jetson-agx-orin", {}, Clock())
    zones = tmp_path / "jetson-agx-orin/sys/class/thermal"
    (zones / "thermal_zone9/temp").write_text("95000\n")  # tboard
    assert hardware.read().soc_degc == 52.968
    for number in (0, 1, 2, 5, 8):  # cpu, gpu, cv0, soc0, tj
        degc = 80.0 + number
        (zones / f"thermal_zone{number}/temp").write_text(f"{degc * 1000:.0f}\n")
        assert hardware.read().soc_degc == degc


# -- storage


def test_the_wear_of_an_emmc_is_that_of_its_worse_blocks(tmp_path: Path) -> None:
    storage = opened(tmp_path, "jetson-agx-orin", {}, Clock()).read().storage
    assert (storage.life_used_share, storage.spare_state) == (0.2, 1)


@pytest.mark.parametrize(
    ("life", "spare", "expected"),
    [
        ("0x00 0x00", "0x00", (None, None)),
        ("0x00 0x03", "0x02", (0.3, 2)),
        ("0x0b 0x01", "0x03", (1.1, 3)),
    ],
)
def test_what_the_maker_of_an_emmc_has_not_defined_is_not_known_and_no_trouble(
    tmp_path: Path, life: str, spare: str, expected: object
) -> None:
    hardware = opened(tmp_path, "jetson-agx-orin", {}, Clock())
    before = hardware.read().troubles
    device = tmp_path / "jetson-agx-orin/sys/block/mmcblk0/device"
    (device / "life_time").write_text(f"{life}\n")
    (device / "pre_eol_info").write_text(f"{spare}\n")
    reading = hardware.read()
    assert (reading.storage.life_used_share, reading.storage.spare_state) == expected
    assert reading.troubles == before


def test_errors_of_file_systems_are_counted_together_or_not_at_all(tmp_path: Path) -> None:
    hardware = opened(tmp_path, "host", {}, Clock())
    ext4 = tmp_path / "host/sys/fs/ext4"
    (ext4 / "another").mkdir()
    (ext4 / "another/errors_count").write_text("5\n")
    assert hardware.read().storage_errors_count == 7
    (ext4 / "another/errors_count").write_text("?\n")
    reading = hardware.read()
    assert reading.storage_errors_count is None, "two would be a fall, and seven after it a rise"
    assert list(reading.troubles) == ["ext4 another errors"]


@pytest.mark.parametrize(("point", "is_read_only"), [("/var/lib", True), ("/var/lib/flatrack/x", False), ("/", False)])
def test_the_mount_of_the_state_folder_counts_and_no_other(tmp_path: Path, point: str, is_read_only: bool) -> None:
    laid = trees.lay("host", tmp_path / "board")
    (laid.root / "proc/mounts").write_text(
        f"/dev/a / ext4 rw,relatime 0 0\n/dev/b {point} ext4 ro 0 0\n/dev/c /var ext4 rw 0 0\n"
    )
    hardware = open_hardware("auto", root=laid.root, monotonic_ns=Clock(), state_folder="/var/lib/flatrack")
    assert hardware.read().storage.is_read_only is is_read_only


# -- power modes


def test_a_capped_mode_is_the_governor_that_follows_the_load_with_a_highest_clock(tmp_path: Path) -> None:
    hardware = opened(tmp_path, "raspberry-pi-4", {}, Clock())
    hardware.set_power_mode("schedutil@1000MHz")
    policy = tmp_path / "raspberry-pi-4/sys/devices/system/cpu/cpufreq/policy0"
    assert (policy / "scaling_governor").read_text() == "schedutil"
    assert (policy / "scaling_max_freq").read_text() == "1000000"
    assert hardware.read().power_mode == "schedutil@1000MHz"
    hardware.set_power_mode("performance")
    assert (policy / "scaling_max_freq").read_text() == "1800000"


def test_all_policies_are_set(tmp_path: Path) -> None:
    hardware = opened(tmp_path, "host", {}, Clock())
    hardware.set_power_mode("performance")
    folder = tmp_path / "host/sys/devices/system/cpu/cpufreq"
    assert {(folder / f"policy{number}/scaling_governor").read_text() for number in (0, 1)} == {"performance"}


@pytest.mark.parametrize(
    ("tree", "mode", "expected"),
    [
        ("raspberry-pi-5", "turbo", "expected one of conservative, ondemand"),
        ("raspberry-pi-5", "userspace", "expected one of"),
        ("raspberry-pi-5", "schedutil@9000MHz", "schedutil@2300MHz"),
        ("raspberry-pi-5", "../../etc/passwd", "expected one of"),
        ("jetson-orin-nano", "MAXN", "expected one of 15W, 7W"),
        ("qemu-virt", "performance", "this board has no power modes: no cpufreq driver"),
        ("jetson-agx-orin", "MAXN", "the board is in '30W': it takes a reboot, which was not confirmed"),
    ],
)
def test_a_refusal_names_what_was_asked_and_what_there_is(tmp_path: Path, tree: str, mode: str, expected: str) -> None:
    with pytest.raises(BoardError) as caught:
        opened(tmp_path, tree, {}, Clock()).set_power_mode(mode)
    assert f"power mode {mode!r}" in str(caught.value)
    assert expected in str(caught.value)


def test_a_mode_that_the_kernel_does_not_take_is_an_error(tmp_path: Path) -> None:
    hardware = opened(tmp_path, "raspberry-pi-5", {}, Clock())
    governor = tmp_path / "raspberry-pi-5/sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq"
    governor.unlink()
    governor.symlink_to("/dev/full")
    with pytest.raises(BoardError, match=r"power mode 'performance'"):
        hardware.set_power_mode("performance")


def test_a_mode_that_the_kernel_takes_and_does_not_follow_is_an_error(tmp_path: Path) -> None:
    laid = trees.lay("raspberry-pi-5", tmp_path / "board")

    def read(path: Path, limit_bytes: int) -> bytes:
        return b"ondemand\n" if path.name == "scaling_governor" else read_file(path, limit_bytes)

    hardware = open_hardware("auto", root=laid.root, monotonic_ns=Clock(), run=laid.run, read=read)
    with pytest.raises(BoardError, match=r"power mode 'performance' was written, and the board is in 'ondemand'"):
        hardware.set_power_mode("performance")


def test_a_mode_of_a_jetson_is_read_anew_once_it_was_set(tmp_path: Path) -> None:
    hardware = opened(tmp_path, "jetson-orin-nano", {}, Clock())
    assert hardware.read().power_mode == "15W"
    hardware.set_power_mode("7W")
    assert hardware.read().power_mode == "7W"


def test_a_jetson_without_nvpmodel_lists_its_modes_and_refuses_to_set_one(tmp_path: Path) -> None:
    gone = FileNotFoundError(errno.ENOENT, "no")
    commands = ("nvpmodel -q", "nvpmodel -p --verbose", "nvpmodel -m 1")
    hardware = opened(tmp_path, "jetson-orin-nano", dict.fromkeys(commands, gone), Clock())
    assert hardware.power_modes() == ("15W", "7W")
    assert hardware.read().power_mode == ""
    (line,) = [line for line in hardware.capabilities() if line.name == "power_modes"]
    assert (line.support, line.detail) == (Support.DEGRADED, "the present mode cannot be read, of 15W, 7W")
    with pytest.raises(BoardError, match=r"'7W' was not set: nvpmodel is not installed"):
        hardware.set_power_mode("7W")


# -- watchdogs


@pytest.mark.parametrize(
    ("state", "bootstatus", "support", "detail"),
    [
        ("active", "0", Support.PRESENT, ", fed"),
        ("inactive", "0", Support.DEGRADED, ", not fed by anybody"),
        ("active", "32", Support.PROVEN, ", fed; it caused the last reset"),
        ("inactive", "32", Support.DEGRADED, ", not fed by anybody; it caused the last reset"),
        ("?", "0", Support.PRESENT, " s"),
    ],
)
def test_a_watchdog_that_nobody_feeds_is_no_watchdog(
    tmp_path: Path, state: str, bootstatus: str, support: Support, detail: str
) -> None:
    hardware = opened(tmp_path, "raspberry-pi-5", {}, Clock())
    folder = tmp_path / "raspberry-pi-5/sys/class/watchdog/watchdog0"
    (folder / "state").write_text(f"{state}\n")
    (folder / "bootstatus").write_text(f"{bootstatus}\n")
    (line,) = [line for line in hardware.capabilities() if line.name == "watchdog"]
    assert line.support is support
    assert line.detail.endswith(detail)


# -- UARTs


def test_a_uart_that_is_off_says_so(tmp_path: Path) -> None:
    hardware = opened(tmp_path, "raspberry-pi-5", {}, Clock())
    (tmp_path / "raspberry-pi-5/sys/class/tty/ttyAMA0").unlink()
    with pytest.raises(SensorError, match=r"no tty on rp1/serial@30000"):
        hardware.uart()
    (line,) = [line for line in hardware.capabilities() if line.name == "uart"]
    assert line.support is Support.ABSENT
    assert line.detail == "no tty on rp1/serial@30000: it is off, or another driver has it"


def test_a_header_uart_is_found_by_its_node_under_any_name(tmp_path: Path) -> None:
    hardware = opened(tmp_path, "jetson-orin-nx", {}, Clock())
    ttys = tmp_path / "jetson-orin-nx/sys/class/tty"
    (ttys / "ttyTHS0").rename(ttys / "ttyTHS4")
    assert hardware.uart() == tmp_path / "jetson-orin-nx/dev/ttyTHS4"
