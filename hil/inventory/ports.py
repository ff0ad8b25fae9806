"""Serial ports of this machine, by names that last: what udev says of them, and of sysfs what udev would have said.

udev keeps what it knows of a device in `/run/udev/data/c<major>:<minor>`: `E:` lines are properties (ID_SERIAL_SHORT,
ID_PATH, ID_USB_INTERFACE_NUM), `S:` lines are links below /dev. Source: udev_device_get_properties in systemd's
libudev, and udev(7). Where udev does not run, as in a container, the serial number of a USB adapter is read from sysfs.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from flightsw.errors import ConfigError
from hil.inventory.boards import Uart

_ROOT: Final = Path("/")
_LASTING: Final = ("/dev/serial/by-id/", "/dev/serial/by-path/")
_PORTS: Final = re.compile(r"tty(USB|ACM|AMA|THS|S|mxc)\d+")
"""Devices that are serial ports: adapters by USB, PL011, Tegra, 8250, i.MX."""
_ABSENT_UART: Final = "0"
"""`type` of an 8250 port for which there is no chip: PORT_UNKNOWN of linux/serial_core.h."""


@dataclass(frozen=True, slots=True)
class SerialPort:
    """One serial port of this machine."""

    device: str
    """/dev/ttyUSB0: may be another one tomorrow."""
    id_serial_short: str = ""
    id_path: str = ""
    interface: int | None = None
    """Number of the port in an adapter that has several."""
    links: tuple[str, ...] = ()
    """Other names of the device that last: /dev/serial/by-id/..., by-path/..."""
    model: str = ""
    properties: dict[str, str] = field(default_factory=dict, compare=False)

    def names(self) -> tuple[str, ...]:
        """All names by which a person would know it."""
        return (self.device, *self.links)


def scan(root: Path = _ROOT) -> list[SerialPort]:
    """The serial ports of this machine, by device.

    Args:
        root: where /sys and /run lie; another one in tests.
    """
    return [_port(one, root) for one in sorted((root / "sys/class/tty").glob("tty*")) if _is_port(one)]


def find_uart(uart: Uart, root: Path = _ROOT) -> Path:
    """The device of a port that the inventory names.

    Raises:
        ConfigError: it is not there, or several fit; says what was looked for and what there is.
    """
    ports = scan(root)
    fitting = [port for port in ports if _fits(port, uart)]
    if len(fitting) == 1:
        return Path(fitting[0].device)
    if uart.path is not None and not fitting and (root / uart.path.lstrip("/")).exists():
        return Path(uart.path)  # a pseudo-terminal, or a device of a kind that is not listed
    if len(fitting) > 1:
        devices = ", ".join(f"{port.device} (interface {port.interface})" for port in fitting)
        raise ConfigError(
            f"uart {uart}: {devices} have it, expected one; add interface = ..., or name the place by id_path"
        )
    there = ", ".join(f"{port.device} ({_mark(port)})" for port in ports) or "none"
    raise ConfigError(f"uart {uart}: no such port; is the adapter plugged in? Ports of this machine: {there}")


def lasting(port: SerialPort, ports: list[SerialPort]) -> Uart:
    """The best name of a port: of the adapter when it has one of its own, else of the place where it is plugged in.

    Args:
        port: which.
        ports: all of them: some makers give all their adapters the same serial number.
    """
    shared = [one for one in ports if (one.id_serial_short, one.interface) == (port.id_serial_short, port.interface)]
    if port.id_serial_short and len(shared) == 1:
        return Uart(id_serial_short=port.id_serial_short, interface=port.interface)
    if port.id_path:
        return Uart(id_path=port.id_path, interface=port.interface)
    by_name = [link for link in port.links if link.startswith(_LASTING)]
    return Uart(path=(by_name or [port.device])[0])


def _fits(port: SerialPort, uart: Uart) -> bool:
    if uart.interface is not None and port.interface != uart.interface:
        return False
    if uart.id_serial_short is not None:
        return port.id_serial_short == uart.id_serial_short
    if uart.id_path is not None:
        return port.id_path == uart.id_path
    return uart.path in port.names()


def _mark(port: SerialPort) -> str:
    return port.id_serial_short or port.id_path or "no name that lasts"


def _is_port(entry: Path) -> bool:
    if not _PORTS.fullmatch(entry.name) or not (entry / "device").exists():
        return False
    return _read(entry / "type") != _ABSENT_UART


def _port(entry: Path, root: Path) -> SerialPort:
    properties, links = _udev(root, _read(entry / "dev"))
    usb = _usb_device(entry)
    number = properties.get("ID_USB_INTERFACE_NUM", "")
    return SerialPort(
        device=f"/dev/{entry.name}",
        id_serial_short=properties.get("ID_SERIAL_SHORT") or _read(usb / "serial" if usb else None),
        id_path=properties.get("ID_PATH", ""),
        interface=int(number, 16) if re.fullmatch("[0-9a-fA-F]{1,2}", number) else None,
        links=tuple(sorted(link for link in links if link.startswith(_LASTING))),
        model=properties.get("ID_MODEL") or _read(usb / "product" if usb else None),
        properties=properties,
    )


def _udev(root: Path, number: str) -> tuple[dict[str, str], list[str]]:
    """(properties, links) that udev keeps of a character device; empty without udev."""
    text = _read(root / "run/udev/data" / f"c{number}") if number else ""
    properties, links = {}, []
    for line in text.splitlines():
        mark, _, rest = line.partition(":")
        if mark == "E":
            name, _, value = rest.partition("=")
            properties[name] = value
        elif mark == "S":
            links.append(f"/dev/{rest}")
    return properties, links


def _usb_device(entry: Path) -> Path | None:
    """The folder of the USB device that a port belongs to: the nearest above it with a vendor number."""
    for folder in (entry / "device").resolve().parents:
        if (folder / "idVendor").exists():
            return folder
    return None


def _read(path: Path | None) -> str:
    """The text of a small file; nothing where it cannot be read, as a device may go at any time."""
    try:
        return "" if path is None else path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
