"""What a run needs and what takes longer than it may wait: the image of emulated boards, the inventory of real ones."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from hil.bench import composition
from hil.bench.inventory_board import LabBoards, open_boards
from hil.bench.lab_boards import Machines
from hil.bench.pace import Pace
from hil.bench.scenario import Scenario
from hil.emulation.command_line import RAM_MIB
from hil.emulation.image import ImageFiles, build, cache_folder
from hil.emulation.machine import Machine
from hil.emulation.ready import ready_snapshot
from hil.emulation.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Machines and boards that a run may use.

    Attributes:
        machines: makes the machine of an emulated node; None without any.
        boards: the inventory's; None without any.
    """

    machines: Machines | None = None
    boards: LabBoards | None = None

    def ceilings(self, scenario: Scenario, pace: Pace | None) -> dict[int, float]:
        """Node -> what its lab wire carries of each of its links [bit/s], where that may be less than the link."""
        if pace is None:
            return {}
        bauds = {} if self.boards is None else self.boards.bauds(scenario)
        return composition.wire_ceilings(scenario, bauds, pace.time_scale)


def prepare_surroundings(scenario: Scenario) -> Surroundings:
    """Build the image and boot it once, if nodes are emulated and that was not done before; read the inventory.

    Raises:
        FlatrackError: a tool, the image or the inventory is missing, or the image does not boot; says what to do.
    """
    boards = open_boards(scenario)
    if not any(node.kind == "emulated" for node in scenario.nodes):
        return Surroundings(None, boards)
    emulation = scenario.emulation
    files = build("qemu-virt", Path(emulation.image) if emulation.image else cache_folder())
    ready = asyncio.run(ready_snapshot(files, ram_mib=emulation.ram_mib or RAM_MIB))
    return Surroundings(machines_of(files, ready), boards)


def machines_of(files: ImageFiles, ready: Snapshot) -> Machines:
    """What makes machines that are restored from a snapshot."""
    return lambda name, folder, on_end: Machine(files, folder, name, origin=ready, ram_mib=ready.ram_mib, on_end=on_end)
