"""The UART of a board's pin header, found by its device-tree node: names of ttys change with overlays and releases.

| family | node | tty |
|---|---|---|
| Raspberry Pi 3, 4, Zero 2 W | that of the alias `serial0`, of the firmware | ttyS0; with `disable-bt` ttyAMA0 |
| Raspberry Pi 5 | `rp1/serial@30000`; `serial0` is its debug connector | ttyAMA0, with `dtparam=uart0=on` |
| Jetson Orin | `serial@3100000` | ttyTHS0 or ttyTHS1 |
| other | the alias `serial0`, else `chosen/stdout-path` | |

A tty belongs to a node when the link `of_node` of its device, or of a device above it (the serial core has devices of
its own between them since Linux 6.5), leads there. A node that a Bluetooth chip sits on has no tty.
"""

from typing import Final

from boards.support.identity import JETSON, Identity
from boards.support.sysfs import BoardFiles
from flightsw.errors import SensorError

TREE: Final = "/proc/device-tree"
TTYS: Final = "/sys/class/tty"
PREFIXES: Final = ("ttyAMA", "ttyS", "ttyTHS")
ABOVE_MAX: Final = 4
"""Devices above a tty that are looked at: the serial core puts two between the tty and the controller."""


def find_uart(files: BoardFiles, identity: Identity) -> str:
    """Name of the header UART's device, for example `/dev/ttyAMA0`. Raises: SensorError: why there is none."""
    node = _header_node(files, identity)
    for tty in files.names(TTYS):
        if tty.startswith(PREFIXES) and _node_of(files, tty).endswith(node):
            return f"/dev/{tty}"
    raise SensorError(f"no tty on {node.lstrip('/')}: it is off, or another driver has it")


def _header_node(files: BoardFiles, identity: Identity) -> str:
    """End of the path of the node, with a slash before it. Raises: SensorError."""
    if identity.family == JETSON:
        return "/serial@3100000"
    if any(name.endswith("bcm2712") for name in identity.compatible):
        return "/rp1/serial@30000"
    for property_name in ("aliases/serial0", "chosen/stdout-path"):
        try:
            path = files.strings(f"{TREE}/{property_name}")[0].partition(":")[0]
        except SensorError:
            continue
        if path.startswith("/") and len(path) > 1:
            return path
    raise SensorError("the device tree names no UART" if identity.compatible else "no device tree")


def _node_of(files: BoardFiles, tty: str) -> str:
    """Path of the device-tree node that a tty belongs to; empty where it has none."""
    if not files.has(f"{TTYS}/{tty}/device"):
        return ""
    device = files.place(f"{TTYS}/{tty}/device")
    for _ in range(ABOVE_MAX):
        if files.has(f"{device}/of_node"):
            return files.place(f"{device}/of_node")
        device = device.rpartition("/")[0]
        if not device.startswith("/sys/devices/"):
            break
    return ""
