"""Satellites and ground as processes of this machine: their folders, settings and programs.

```text
<run folder>/nodes/plan.json            predicted contacts, for all
                  sat-01/node.toml      settings          world.json   its sun
                         board.json     battery and heat  disk/        what it stored
                         stdout.log     stderr.log        keys.toml    (0600)
                  ground/ground.toml    ledger.db and archive.db lie in the run folder
```
"""

from pathlib import Path

from boards import profiles
from boards.program import BoardSettings, NodeSettings
from boards.simulated.board import SimulatedBoard
from boards.simulated.clock import LoopClock
from boards.simulated.states import SavedBoard, save_board
from flightsw.host.settings import LinkSettings, StorageSettings
from flightsw.ports import ResetCause
from ground.program import FleetSettings, GroundSettings, ResultSettings, SegmentSettings
from hil.bench import composition
from hil.bench.composition import DISK_BYTES, GROUND_DISK_BYTES
from hil.bench.lab_wires import LabWire
from hil.bench.process_ground import NAME as GROUND_NAME
from hil.bench.process_ground import ProcessGround
from hil.bench.process_node import BOARD_FILE, ProcessNode
from hil.bench.processes import Program
from hil.bench.settings_files import write_settings
from hil.bench.sky import GROUND_NODE
from hil.bench.table import PLAN_FILE, SETTINGS_FILE, WORLD_FILE, Table


def process_node(table: Table, index: int, wire: LabWire, bench: Path) -> ProcessNode:
    """A satellite as a program, ready to be started.

    Args:
        table: what it has in common with the others.
        index: of the satellite in the fleet.
        wire: the bench's end of its lab wire.
        bench: control socket of the bench.

    Raises:
        ConfigError: its profile cannot be used.
    """
    spec, config = table.spec(index), table.config(index)
    folder = table.make_folder(spec.name)
    profile = profiles.load(spec.profile)
    world = table.sky.world(index)
    table.write_world(folder, index)
    clock = LoopClock(lambda: max(0, table.loop.now_ns), table.scenario.epoch_utc_ns)  # the world begins at T+0
    board = SimulatedBoard(profile, clock, world.sunlight_at, spec.initial_charge)
    save_board(folder / BOARD_FILE, SavedBoard(board=board.state(), next_cause=ResetCause.POWER_ON.name))
    settings = NodeSettings(
        node=config,
        board=BoardSettings(
            kind="simulated",
            profile=str(Path(spec.profile).resolve()) if spec.profile.endswith(profiles.SUFFIX) else spec.profile,
            world=WORLD_FILE,
            initial_charge=spec.initial_charge,
            state=BOARD_FILE,
        ),
        clock=table.clock,
        link=LinkSettings(url=wire.url),
        storage=StorageSettings(folder="disk", capacity_bytes=DISK_BYTES),
        plan=f"../{PLAN_FILE}",
        keys=table.write_keys(folder, config.node),
    )
    write_settings(folder / SETTINGS_FILE, settings)
    program = Program(
        spec.name,
        ("-m", "boards", "--config", SETTINGS_FILE, "--bench", str(bench)),
        folder,
        lambda code: node.ended(code),
    )
    node = ProcessNode(
        config=config,
        profile=profile,
        program=program,
        wire=wire,
        relay=table.relay,
        board=board,
        log=table.log_of(spec.name),
        on_cut=table.watchers.on_cut,
        on_brown_out=table.watchers.on_brown_out,
        on_crash=table.watchers.on_crash,
    )
    return node


def process_ground(table: Table, wire: LabWire, bench: Path, databases: Path | None) -> ProcessGround:
    """The ground as a program, ready to be started.

    Args:
        table: what it has in common with the satellites.
        wire: the bench's end of its lab wire.
        bench: control socket of the bench.
        databases: where ledger and archive go; None for its own folder.
    """
    scenario = table.scenario
    folder = table.make_folder(GROUND_NAME)
    where = (databases or folder).resolve()
    fleet = [
        FleetSettings(
            **{
                name: getattr(node, name)
                for name in ("node", "name", "mpix_per_s", "compute_w", "idle_w", "array_w", "battery_j", "reserve")
            },
            sun=tuple((one.start_ns, one.end_ns) for one in node.sun),
        )
        for node in composition.fleet(scenario, table.sky)
    ]
    settings = GroundSettings(
        ground=SegmentSettings(
            node=GROUND_NODE,
            interfaces=composition.ground_interfaces(scenario, table.sky),
            beacon_period_s=scenario.manager.beacon_period_s,
            fleet=tuple(fleet),
            store_bytes=GROUND_DISK_BYTES // 2,
            ltp_margin_s=table.pace.ltp_margin_s,
        ),
        clock=table.clock,
        link=LinkSettings(url=wire.url),
        storage=StorageSettings(folder="disk", capacity_bytes=GROUND_DISK_BYTES),
        plan=f"../{PLAN_FILE}",
        keys=table.write_keys(folder, GROUND_NODE),
        ledger=str(where / "ledger.db"),
        archive=str(where / "archive.db"),
        result=ResultSettings(tile_px=48 if scenario.workload is None else scenario.workload.tile_px),
    )
    write_settings(folder / "ground.toml", settings)
    program = Program(
        GROUND_NAME,
        ("-m", "ground", "--config", "ground.toml", "--bench", str(bench)),
        folder,
        lambda code: ground.ended(code),
    )
    ground = ProcessGround(
        program=program,
        wire=wire,
        relay=table.relay,
        log=table.log_of(GROUND_NAME),
        on_complete=table.watchers.on_complete,
        on_crash=table.watchers.on_crash,
    )
    return ground
