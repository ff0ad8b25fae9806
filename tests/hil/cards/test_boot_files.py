"""The edits of config.txt and cmdline.txt: what a node needs comes, what stands in its way goes, the rest stays."""

import pytest

from flightsw.errors import ConfigError
from hil.cards.boot_files import UART_LINES, command_line_text, config_text

STOCK = "console=serial0,115200 console=tty1 root=PARTUUID=4d8fd085-02 rootfstype=ext4 fsck.repair=yes rootwait resize"


@pytest.mark.parametrize("board", UART_LINES)
def test_the_lines_of_a_board_stand_last_and_hold_for_all_models(board):
    lines = config_text("dtparam=audio=on\n\n[cm4]\notg_mode=1\n", board).splitlines()
    assert lines[:4] == ["dtparam=audio=on", "", "[cm4]", "otg_mode=1"]
    ours = lines[lines.index("# flatrack: begin") + 1 : lines.index("# flatrack: end")]
    assert ours == ["[all]", *UART_LINES[board], "dtparam=watchdog=on"]


def test_a_raspberry_pi_5_has_another_way_to_its_uart_than_the_others():
    assert UART_LINES["raspberry-pi-5"] == ("dtparam=uart0=on",)
    others = {lines for board, lines in UART_LINES.items() if board != "raspberry-pi-5"}
    assert others == {("enable_uart=1", "dtoverlay=disable-bt")}


@pytest.mark.parametrize("text", ["", "a=1", "a=1\n", "a=1\r\n[all]\r\n", "a=1\n\n\n"])
def test_to_edit_config_again_changes_nothing(text):
    once = config_text(text, "raspberry-pi-5")
    assert config_text(once, "raspberry-pi-5") == once


def test_another_board_takes_the_place_of_the_one_before():
    text = config_text(config_text("a=1\n", "raspberry-pi-5"), "raspberry-pi-4")
    assert "uart0" not in text
    assert text.count("# flatrack: begin") == 1


def test_the_console_leaves_the_uart_and_memory_limits_come():
    assert command_line_text(STOCK + "\n", "i-1", "raspberry-pi-4") == (
        "console=tty1 root=PARTUUID=4d8fd085-02 rootfstype=ext4 fsck.repair=yes rootwait resize cgroup_enable=memory\n"
    )


@pytest.mark.parametrize(
    "console", ["console=serial0,115200", "console=ttyAMA0,115200", "console=ttyS0", "console=serial1"]
)
def test_a_console_on_any_uart_goes(console):
    assert console not in command_line_text(f"root=/dev/sda2 {console} quiet", "i-1", "raspberry-pi-4")


def test_a_raspberry_pi_5_keeps_the_console_of_its_debug_connector():
    text = "root=/dev/sda2 console=serial0,115200 console=ttyAMA10,115200 console=ttyAMA0,115200 console=tty1"
    line = command_line_text(text, "i-1", "raspberry-pi-5")
    assert line.split()[1:-1] == ["console=serial0,115200", "console=ttyAMA10,115200", "console=tty1"]


def test_what_takes_memory_limits_away_goes():
    assert (
        command_line_text("root=/dev/sda2 cgroup_disable=memory", "i-1", "raspberry-pi-4")
        == "root=/dev/sda2 cgroup_enable=memory\n"
    )


def test_to_edit_the_command_line_again_changes_nothing():
    once = command_line_text(STOCK, "i-1", "raspberry-pi-4")
    assert command_line_text(once, "i-1", "raspberry-pi-4") == once


def test_an_instance_that_the_imager_named_there_is_named_anew():
    text = f"{STOCK} ds=nocloud;i=rpi-imager-1786770245730"
    assert "ds=nocloud;i=i-2 " in command_line_text(text, "i-2", "raspberry-pi-4")
    assert "rpi-imager" not in command_line_text(text, "i-2", "raspberry-pi-4")


def test_only_the_first_line_counts_for_the_firmware():
    assert (
        command_line_text("root=/dev/sda2\nquiet\n", "i-1", "raspberry-pi-4") == "root=/dev/sda2 cgroup_enable=memory\n"
    )


@pytest.mark.parametrize("text", ["", "quiet splash", "\n"])
def test_a_command_line_without_a_root_is_refused(text):
    with pytest.raises(ConfigError, match=r"cmdline\.txt: no root="):
        command_line_text(text, "i-1", "raspberry-pi-4")


def test_a_command_line_that_is_too_long_is_refused():
    with pytest.raises(ConfigError, match="expected at most 1023"):
        command_line_text("root=/dev/sda2 " + "x" * 1000, "i-1", "raspberry-pi-4")
