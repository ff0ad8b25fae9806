"""What a run needs and what takes longer than it may wait: the image of emulated boards, the inventory of real ones."""

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hil.bench import composition
from hil.bench.inventory_board import LabBoards, open_boards
from hil.bench.lab_boards import Machines
from hil.bench.pace import Pace
from hil.bench.scenario import Scenario
from hil.emulation.disk import Overlay
from hil.emulation.image import ImageFiles, build
from hil.emulation.machine import RAM_MIB, Machine
from hil.emulation.ready import ready_snapshot

CACHE_VARIABLE: Final = "XDG_CACHE_HOME"


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
    files = build("qemu-virt", Path(emulation.image) if emulation.image else image_folder())
    ready = asyncio.run(ready_snapshot(files, ram_mib=emulation.ram_mib or RAM_MIB))
    return Surroundings(machines_of(files, ready), boards)


def machines_of(files: ImageFiles, ready: Overlay) -> Machines:
    """What makes machines that are restored from a snapshot."""
    return lambda name, folder: Machine(files, folder, name, origin=ready, ram_mib=ready.ram_mib)


def image_folder() -> Path:
    """Where images are kept that no scenario names a folder for: `flatrack/emulation` in the user's cache."""
    cache = os.environ.get(CACHE_VARIABLE)
    return (Path(cache) if cache else Path.home() / ".cache") / "flatrack" / "emulation"
