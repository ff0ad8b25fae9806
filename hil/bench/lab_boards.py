"""Satellites on boards with a system of their own: what each is told, and what makes it a member of the fleet."""

from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from boards import profiles
from boards.settings import BoardSettings, Kind, NodeSettings
from flightsw.host.settings import BenchSettings, LinkSettings, StorageSettings
from flightsw.net.plans import encode_plan
from hil.bench.board_node import BoardNode, TableBoard
from hil.bench.composition import DISK_BYTES
from hil.bench.emulated_board import EmulatedBoard, Emulator
from hil.bench.inventory_board import InventoryBoard
from hil.bench.lab_wires import LabWire, UartLabWire
from hil.bench.settings_files import write_settings
from hil.bench.table import KEYS_FILE, PLAN_FILE, SETTINGS_FILE, WORLD_FILE, Table
from hil.channel.uart import SocketWire, socket_line
from hil.on_board.loan import RUN_DATA

DATA_FOLDER: Final = "/var/lib/flatrack"
"""Where a board keeps its node's state."""
EMULATED_UART: Final = "/dev/ttyAMA0"
PROFILE_FILE: Final = "profile.toml"

Machines = Callable[[str, Path, Callable[[int], None]], Emulator]
"""Makes the machine of a node, by its name, with its files in a folder; told the exit code when the machine ends."""


class Door(NamedTuple):
    """The bench port, as one board is told of it."""

    url: str
    """`tcp://host:port`, as the board reaches it."""
    token: str


def settings_of(table: Table, index: int, link: str, kind: Kind, data: str, door: Door | None) -> dict[str, bytes]:
    """The files under /etc/flatrack that make a board this satellite; also kept in the run folder.

    Args:
        table: what it has in common with the others.
        index: of the satellite in the fleet.
        link: URL of its end of the lab wire.
        kind: of board, as `[board]` says it.
        data: folder on the board for what the node keeps.
        door: the bench port; None for none.
    """
    spec, config = table.spec(index), table.config(index)
    folder = table.make_folder(spec.name)
    table.write_world(folder, index)
    (folder / PLAN_FILE).write_bytes(encode_plan(table.plan))
    profile = spec.profile
    if profile.endswith(profiles.SUFFIX):
        (folder / PROFILE_FILE).write_bytes(Path(profile).read_bytes())
        profile = PROFILE_FILE
    settings = NodeSettings(
        node=config,
        board=BoardSettings(
            kind=kind,
            profile=profile,
            world=WORLD_FILE,
            initial_charge=spec.initial_charge,
            state=f"{data}/board.json",
        ),
        clock=table.clock,
        link=LinkSettings(url=link),
        storage=StorageSettings(folder=f"{data}/disk", capacity_bytes=DISK_BYTES),
        plan=PLAN_FILE,
        keys=table.write_keys(folder, config.node),
        bench=None if door is None else BenchSettings(url=door.url, token=door.token),
    )
    write_settings(folder / SETTINGS_FILE, settings)
    names = {PLAN_FILE, WORLD_FILE, KEYS_FILE, SETTINGS_FILE, *([PROFILE_FILE] if profile == PROFILE_FILE else [])}
    return {name: (folder / name).read_bytes() for name in sorted(names)}


def emulated_node(
    table: Table,
    index: int,
    machines: Machines,
    door: Door,
    folder: Path,
    utc_ns: Callable[[], int],
    mqtt: LabWire | None = None,
) -> BoardNode:
    """A satellite on an emulated board.

    Args:
        table: what it has in common with the others.
        index: of the satellite in the fleet.
        machines: makes its machine.
        door: the bench port.
        folder: of its machine; its path must be short, since sockets lie in it.
        utc_ns: the clock of this machine [ns since 1970].
        mqtt: its lab wire over a broker; None for its UART.
    """
    emulator = machines(table.spec(index).name, folder, lambda code: node.lost(f"its machine ended with code {code}"))
    wire = mqtt or UartLabWire(
        SocketWire(
            table.spec(index).name,
            lambda: socket_line(emulator.uart_path),
            device=EMULATED_UART,
            baud=table.scenario.emulation.baud,
        )
    )
    files = settings_of(table, index, wire.url, "auto", DATA_FOLDER, door)
    board = EmulatedBoard(emulator, files, utc_ns, table.folder / table.spec(index).name)
    node = member(table, index, board, wire, has_door=True)
    return node


def inventory_node(
    table: Table,
    index: int,
    board: InventoryBoard,
    door: Door | None,
    utc_ns: Callable[[], int],
    mqtt: LabWire | None = None,
) -> BoardNode:
    """A satellite on a board of the inventory.

    Args:
        table: what it has in common with the others.
        index: of the satellite in the fleet.
        board: it.
        door: the bench port; None where the boards do not reach it.
        utc_ns: the clock of this machine [ns since 1970].
        mqtt: its lab wire over a broker; None for its UART.
    """
    wire = mqtt or UartLabWire(board.wire())
    # a folder of its own: what the board stored in another run is of another mission
    data = f"{DATA_FOLDER}/{RUN_DATA}{table.clock.zero_utc_ns}"
    board.prepare(settings_of(table, index, wire.url, "auto", data, door), utc_ns)
    return member(table, index, board, wire, has_door=door is not None)


def member(table: Table, index: int, board: TableBoard, wire: LabWire, *, has_door: bool) -> BoardNode:
    """A board as a member of the fleet."""
    spec, config, watchers = table.spec(index), table.config(index), table.watchers
    wire.on_frame(lambda interface, frame: watchers.on_frame(spec.name, config.node, interface, frame))
    return BoardNode(
        config=config,
        profile=profiles.load(spec.profile),
        board=board,
        wire=wire,
        relay=table.relay,
        has_door=has_door,
        log=table.log_of(spec.name),
        note=lambda kind, fields: watchers.log(table.loop.now_ns, spec.name, kind, fields),
        on_cut=watchers.on_cut,
        on_brown_out=watchers.on_brown_out,
        on_crash=watchers.on_crash,
    )
