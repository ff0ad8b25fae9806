"""What the firmware and the kernel of a Raspberry Pi must be told so that the board can be a node.

| board | config.txt | the UART on pins 8 and 10 is then |
|---|---|---|
| 3, 4, Zero 2 W | `enable_uart=1`, `dtoverlay=disable-bt` | the PL011, /dev/ttyAMA0, which Bluetooth has otherwise |
| 5 | `dtparam=uart0=on` | a PL011, /dev/ttyAMA0; the kernel's console is on the debug connector |

All boards: `dtparam=watchdog=on`. In cmdline.txt the console on that UART goes, as a node and a login prompt cannot
share a wire: on a Raspberry Pi 5 that of `ttyAMA0` alone, as `serial0` is the debug connector there (ttyAMA10). And
`cgroup_enable=memory` comes, as the firmware says `cgroup_disable=memory` before it and limits of memory would be
ignored without a word (raspberrypi/linux#6980, pi-gen#917). The files keep all else; to change them again changes
nothing.

Sources: Raspberry Pi documentation, config.txt and "Configure UARTs"; documentation#3239 for the Raspberry Pi 5.
Documented data only: no such board was at hand.
"""

import re
from typing import Final

from flightsw.errors import ConfigError

CONFIG: Final = "config.txt"
COMMAND_LINE: Final = "cmdline.txt"
UART_LINES: Final = {
    "raspberry-pi-3": ("enable_uart=1", "dtoverlay=disable-bt"),
    "raspberry-pi-4": ("enable_uart=1", "dtoverlay=disable-bt"),
    "raspberry-pi-5": ("dtparam=uart0=on",),
    "raspberry-pi-zero-2-w": ("enable_uart=1", "dtoverlay=disable-bt"),
}
"""Boards that boot from a card with a FAT partition, and what brings their UART to the header."""
WATCHDOG_LINE: Final = "dtparam=watchdog=on"
BEGIN: Final = "# flatrack: begin"
END: Final = "# flatrack: end"
MEMORY: Final = "cgroup_enable=memory"
NO_MEMORY: Final = "cgroup_disable=memory"
INSTANCE: Final = "ds=nocloud;i="
"""How Raspberry Pi Imager names the instance (rpi-imager#1529); it outweighs what meta-data says."""
COMMAND_LINE_CHARACTERS_MAX: Final = 1023
"""Longest command line that we write: the arm64 kernel takes 2047, and the firmware puts its own part before it."""

_SERIAL_CONSOLE: Final = re.compile(r"console=(serial\d|ttyAMA\d+|ttyS\d+)(,.*)?")
_SERIAL_CONSOLE_5: Final = re.compile(r"console=ttyAMA0(,.*)?")
"""The same of a Raspberry Pi 5."""


def config_text(text: str, board: str) -> str:
    """The text of config.txt with what the board needs, at its end, where it outweighs what is before it.

    Args:
        text: as it is.
        board: one of `UART_LINES`.
    """
    lines = text.replace("\r\n", "\n").split("\n")
    if BEGIN in lines and END in lines[lines.index(BEGIN) :]:
        begin = lines.index(BEGIN)
        del lines[begin : lines.index(END, begin) + 1]
    while lines and not lines[-1].strip():
        lines.pop()
    ours = [BEGIN, "[all]", *UART_LINES[board], WATCHDOG_LINE, END]
    return "\n".join([*lines, *([""] if lines else []), *ours, ""])


def command_line_text(text: str, instance: str, board: str) -> str:
    """The text of cmdline.txt: no console on the node's UART, memory limits, and the instance's name if one is there.

    Args:
        text: as it is; the firmware reads its first line.
        instance: name of this preparation.
        board: one of `UART_LINES`.

    Raises:
        ConfigError: it names no root, or is too long.
    """
    first = text.strip().partition("\n")[0].strip()
    if not any(word.startswith("root=") for word in first.split()):
        raise ConfigError(f"{COMMAND_LINE}: no root= in {first[:60]!r}, expected the command line of a stock image")
    console = _SERIAL_CONSOLE_5 if board == "raspberry-pi-5" else _SERIAL_CONSOLE
    words = [word for word in first.split() if not console.fullmatch(word) and word not in (MEMORY, NO_MEMORY)]
    words = [f"{INSTANCE}{instance}" if word.startswith(INSTANCE) else word for word in words]
    line = " ".join([*words, MEMORY])
    if len(line) > COMMAND_LINE_CHARACTERS_MAX:
        raise ConfigError(f"{COMMAND_LINE}: {len(line)} characters, expected at most {COMMAND_LINE_CHARACTERS_MAX}")
    return line + "\n"
