"""The image is built once, and booted once; what needs a board restores it from the snapshot in a third of a second."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from hil.emulation.image import BUILD_TOOLS, ImageFiles, build
from hil.emulation.machine import Machine
from hil.emulation.ready import ready_snapshot
from hil.emulation.snapshot import Snapshot
from hil.emulation.tools import scratch_folder

FOLDER = Path(__file__).parents[2] / "build" / "emulation"


@pytest.fixture(scope="session")
def image(need_tool: Callable[[str], str]) -> ImageFiles:
    """The arm64 image of the code under test, for QEMU's virt machine."""
    for name in (*BUILD_TOOLS, "qemu-system-aarch64", "qemu-img"):
        need_tool(name)
    return build("qemu-virt", FOLDER)


@pytest.fixture(scope="session")
def ready(image: ImageFiles) -> Snapshot:
    """The snapshot of a board that has booted and waits for its settings."""
    return asyncio.run(ready_snapshot(image))


@pytest.fixture
def board_folder() -> AsyncIterator[Path]:
    """A folder for machines: in memory, and with a path short enough for sockets."""
    with scratch_folder() as folder:
        yield Path(folder)


@pytest.fixture
async def machine(image: ImageFiles, board_folder: Path) -> AsyncIterator[Callable[..., Machine]]:
    """Makes machines, of any arguments that `Machine` has; they end with the test."""
    machines: list[Machine] = []

    def make(name: str = "board", **arguments: object) -> Machine:
        machines.append(Machine(image, board_folder, name, **arguments))
        return machines[-1]

    yield make
    for made in machines:
        await made.kill()
        made.close()
