"""The inventory: `boards.toml`, one table for each board of a laboratory.

```toml
[boards.sat-03]
kind = "raspberry-pi-5"
ssh = "flatrack@sat-03.local"                          # as ssh(1) takes it, or a Host of ~/.ssh/config
uart = { id_serial_short = "FTB6SPL3", baud = 115200 } # or id_path, or path = "/dev/serial/by-path/..."
power = { kind = "usb_hub", location = "1-1", port = 2 }
settings = "sat-03"                                    # folder with node.toml, keys, plan and world
tags = ["lab"]
```

Ports are named by what udev keeps the same over replugging and reboots, never by ttyUSB0. Paths are relative to the
folder of the file.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from flightsw.config import load_toml
from flightsw.errors import ConfigError
from flightsw.host.settings import convert_settings
from flightsw.link.urls import BAUD_MAX, BAUD_MIN

FILE: Final = "boards.toml"
"""What the inventory of the present folder is called."""
NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
"""Names of boards: those that are host names too (RFC 1123), in lower case."""
BAUD: Final = 115_200
"""The rate of a stock console [bit/s]: what every board and adapter does."""
SSH_CHARACTERS_MAX: Final = 255
"""Longest destination of ssh [characters]: a host name may have 253 (RFC 1035)."""

Kind = Literal[
    "raspberry-pi-3",
    "raspberry-pi-4",
    "raspberry-pi-5",
    "raspberry-pi-zero-2-w",
    "jetson-orin-nano",
    "jetson-orin-nx",
    "jetson-agx-orin",
    "host",
    "emulated",
]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=3600)]


class Uart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """Which serial port of this machine leads to the board: by exactly one of three names."""

    id_serial_short: Text | None = None
    """Serial number of the adapter, udev's ID_SERIAL_SHORT: stays with the adapter."""
    id_path: Text | None = None
    """Place where it is plugged in, udev's ID_PATH: for adapters without a number of their own."""
    path: Text | None = None
    """A device; /dev/serial/by-id and by-path last, other names do not."""
    interface: Annotated[int, msgspec.Meta(ge=0, le=255)] | None = None
    """Which port of an adapter that has several: udev's ID_USB_INTERFACE_NUM."""
    baud: Annotated[int, msgspec.Meta(ge=BAUD_MIN, le=BAUD_MAX)] = BAUD

    def __post_init__(self) -> None:
        given = [name for name in ("id_serial_short", "id_path", "path") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"uart has {' and '.join(given) or 'no name'}, expected one of id_serial_short, id_path, path"
            )

    def __str__(self) -> str:
        name = next(name for name in ("id_serial_short", "id_path", "path") if getattr(self, name) is not None)
        port = "" if self.interface is None else f", interface {self.interface}"
        return f"{name} {getattr(self, name)!r}{port}"


class UsbHub(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="usb_hub"):
    """A port of a hub that switches its 5 V, by uhubctl(8)."""

    location: Text
    """The hub, as uhubctl names it: 1-1."""
    port: Annotated[int, msgspec.Meta(ge=1, le=64)]
    off_s: Seconds = 3.0
    """How long a power cycle stays off [s]: until a board's capacitors are empty."""


class NetworkRelay(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="network_relay"
):
    """A plug with the Tasmota firmware, by HTTP."""

    url: Text
    """Of the plug: http://plug4.local."""
    relay: Annotated[int, msgspec.Meta(ge=1, le=8)] = 1
    off_s: Seconds = 3.0


class Command(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="command"):
    """Programs of one's own; run without a shell."""

    on: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    off: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    off_s: Seconds = 3.0


class Emulator(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="emulator"):
    """A machine under QEMU, by its QMP socket: on and off are resume and freeze, a cycle is a reset."""

    qmp: Text
    off_s: Seconds = 0.0


class Manual(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="manual"):
    """A person, who is asked."""

    off_s: Seconds = 0.0


PowerSettings = UsbHub | NetworkRelay | Command | Emulator | Manual


class Board(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One board."""

    kind: Kind
    ssh: Annotated[str, msgspec.Meta(min_length=1, max_length=SSH_CHARACTERS_MAX)] | None = None
    """Where it is reached, as ssh(1) takes it: user@host, or a name of ~/.ssh/config."""
    ssh_options: tuple[str, ...] = ()
    """Further `-o` options of ssh: "Port=2222"."""
    python: Text | None = None
    """Interpreter on the board, 3.11 or newer; else one is looked for."""
    uart: Uart | None = None
    power: PowerSettings | None = None
    settings: Text | None = None
    """Folder of node.toml and what it names; else a folder of the board's name."""
    tags: tuple[Text, ...] = ()

    def __post_init__(self) -> None:
        if self.ssh is not None and (self.ssh.startswith("-") or re.search(r"\s", self.ssh)):
            raise ValueError(f"ssh is {self.ssh!r}, expected user@host or a host of ssh's configuration")


@dataclass(frozen=True, slots=True)
class Inventory:
    """The boards of one file."""

    path: Path
    boards: dict[str, Board]

    def board(self, name: str) -> Board:
        """The board of this name.

        Raises:
            ConfigError: there is none; says which there are.
        """
        found = self.boards.get(name)
        if found is None:
            known = ", ".join(sorted(self.boards)) or "none are there"
            raise ConfigError(f"{self.path}: board {name!r}, expected one of: {known}")
        return found

    def settings_folder(self, name: str) -> Path:
        """Where the settings of a board's node lie."""
        return self.path.parent / (self.board(name).settings or name)


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    boards: dict[str, Board] = {}


def load(path: Path) -> Inventory:
    """The inventory in a file.

    Raises:
        ConfigError: it cannot be read, or a field is wrong; names file, field, value and expectation. Or two boards
            have the same port.
    """
    file = convert_settings(load_toml(path, dict[str, Any]), _File, str(path))
    taken: dict[str, str] = {}
    for name, board in file.boards.items():
        if not NAME.fullmatch(name):
            raise ConfigError(f"{path}: boards.{name}: expected lower-case letters, digits and -, at most 63")
        if board.uart is not None and (other := taken.setdefault(str(board.uart), name)) != name:
            raise ConfigError(
                f"{path}: boards.{name}.uart: {board.uart} is that of {other}, expected a port of its own"
            )
    return Inventory(path, file.boards)
