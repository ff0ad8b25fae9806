"""A board that is struck starts again by itself, and its beacon and its events say over the UART why."""

import asyncio
import time  # noqa: TID251 - the board shares the time of the machine
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from boards.settings import BoardSettings, NodeSettings
from boards.worker.settings import WorkerSettings
from flightsw.config import InterfaceConfig, NodeConfig
from flightsw.host.settings import ClockSettings, LinkSettings, StorageSettings
from flightsw.link.record_stream import RecordReader
from flightsw.net.contacts import Contact, ContactPlan
from flightsw.net.plans import encode_plan
from flightsw.ports import ResetCause
from flightsw.wire.messages import Beacon, Event
from hil.bench.settings_files import write_settings
from hil.emulation.machine import Machine
from hil.emulation.snapshot import Snapshot
from hil.inventory.listening import Ear
from hil.on_board.remote import AgentPeer

pytestmark = pytest.mark.emulated

NODE = 11
GROUND = 1
RADIO = (InterfaceConfig(index=0, name="radio"),)
YEAR_NS = 365 * 86_400 * 10**9
PLAN = ContactPlan(
    [Contact(0, YEAR_NS, one, 0, other, 0, 1e5, 10**6) for one, other in ((NODE, GROUND), (GROUND, NODE))]
)
PATIENCE_S = 300.0
"""Longest wait for a boot [s of the machine]: 30 s alone on two cores, and a minute until a launcher gives up."""

BEACON_S = 2.0
CUT_S = 20.0
CONSOLE_CHARACTERS = 3000


class Uart:
    """Listens to the node on the other end of its board's UART."""

    def __init__(self) -> None:
        self.heard: list[Beacon | Event] = []
        self._news = asyncio.Event()

    async def listen(self, path: Path) -> None:
        """Take what comes until cancelled."""
        records, ear = RecordReader(), Ear(NODE, RADIO)
        reader, writer = await asyncio.open_unix_connection(str(path))
        try:
            while data := await reader.read(4096):
                for interface, frame in records.feed(data):
                    self.heard += ear.take(interface, frame)
                self._news.set()
        finally:
            writer.close()

    def beacons(self) -> list[Beacon]:
        """Those that came so far."""
        return [one for one in self.heard if isinstance(one, Beacon)]

    async def boot(self, count: int) -> tuple[Beacon, list[list[Any]]]:
        """The first beacon of a boot, and the arguments of the events NODE.RESET that were heard of it by then or
        just after."""
        async with asyncio.timeout(PATIENCE_S):
            while not (beacons := [one for one in self.beacons() if one.boot_count == count]):
                await self.wait()
            while not (resets := self._resets(count)) and count > 1:
                await self.wait()
        return beacons[0], resets

    def _resets(self, boot: int) -> list[list[Any]]:
        return [
            list(one.arguments)
            for one in self.heard
            if isinstance(one, Event) and f"{one.component}.{one.name}" == "NODE.RESET" and one.boot_count == boot
        ]

    async def wait(self) -> None:
        """Return when something more was heard."""
        self._news.clear()
        await self._news.wait()


def settings(folder: Path) -> dict[str, bytes]:
    """Files of a node that beacons every two seconds over its board's UART."""
    zero_utc_ns = time.time_ns()
    node = NodeSettings(
        node=NodeConfig(node=NODE, name="sat-01", interfaces=RADIO, beacon_period_s=BEACON_S, tick_period_s=1.0),
        board=BoardSettings(kind="auto", profile="qemu-virt", world="world.json", state="/var/lib/flatrack/board.json"),
        clock=ClockSettings(zero_utc_ns=zero_utc_ns, epoch_utc_ns=zero_utc_ns, time_scale=1.0),
        link=LinkSettings(url="serial:///dev/ttyAMA0?baud=115200"),
        storage=StorageSettings(folder="/var/lib/flatrack/node", capacity_bytes=1 << 24),
        plan="plan.json",
        worker=WorkerSettings(isolation="inline"),
    )
    write_settings(folder / "node.toml", node)
    world = {"sun": [[0, YEAR_NS]], "sunlight": [1.0], "step_s": 1.0}
    return {
        "node.toml": (folder / "node.toml").read_bytes(),
        "plan.json": encode_plan(PLAN),
        "world.json": msgspec.json.encode(world),
    }


@asynccontextmanager
async def node_on(board: Machine, folder: Path) -> AsyncIterator[tuple[AgentPeer, Uart]]:
    """A restored board that has become a node, and its first beacon was heard."""
    await board.start()
    uart = Uart()
    listening = asyncio.create_task(uart.listen(board.uart_path))
    agent = await AgentPeer.open(board.agent_path)
    try:
        await agent.configure(settings(folder), time.time_ns())
        first, _ = await uart.boot(1)
        assert first.reset_cause == ResetCause.POWER_ON
        yield agent, uart
    except BaseException:
        print(board.console()[-CONSOLE_CHARACTERS:])
        raise
    finally:
        await agent.close()
        listening.cancel()


CAUSES = {
    "kill": ResetCause.KILLED,
    "freeze": ResetCause.WATCHDOG,
    "panic": ResetCause.KERNEL_PANIC,
    "stop_watchdog": ResetCause.WATCHDOG,
}
"""Fault -> what the next boot must say."""


async def test_a_struck_board_starts_again_and_says_why(
    ready: Snapshot, machine: Callable[..., Machine], tmp_path: Path
) -> None:
    """Four boards at once: most of the time they wait, for a launcher, a watchdog or a kernel."""

    async def recovered(fault: str) -> tuple[str, list[list[Any]]]:
        folder = tmp_path / fault
        folder.mkdir()
        async with node_on(machine(fault.replace("_", "-"), origin=ready), folder) as (agent, uart):
            await agent.call(fault)
            beacon, resets = await uart.boot(2)
            return ResetCause(beacon.reset_cause).name, resets

    found = dict(zip(CAUSES, await asyncio.gather(*map(recovered, CAUSES)), strict=True))
    assert found == {fault: (cause.name, [[2, cause.name]]) for fault, cause in CAUSES.items()}


async def test_what_surrounds_a_node_is_struck_and_mended_on_a_kernel_of_its_own(
    ready: Snapshot, machine: Callable[..., Machine], tmp_path: Path
) -> None:
    async with node_on(machine(origin=ready), tmp_path) as (agent, uart):
        assert await agent.call("cut_network", 1.0) == "eth0: netem"
        assert "CPUQuota" in await agent.call("throttle", 0.5, 1.0)
        assert await agent.call("fill_disk", 8_000_000) > 0
        await agent.call("release_disk")
        (flip,) = await agent.call("flip_memory", "manager", 1, 1)
        assert flip["pid"] == (await agent.hello())["pid_of_node"]
        assert await agent.call("cut_uart", CUT_S) == "/dev/ttyAMA0"
        while (await agent.hello())["faults"]:
            await asyncio.sleep(0.2)
        heard_count = len(uart.beacons())
        async with asyncio.timeout(PATIENCE_S):
            while len(uart.beacons()) < heard_count + 2:
                await uart.wait()
        uptimes_s = [one.uptime_s for one in uart.beacons()]
        gap_s = max(after - before for before, after in pairwise(uptimes_s))
        assert gap_s >= CUT_S - 2 * BEACON_S, "what was said into the cut is lost"
        assert {one.boot_count for one in uart.beacons()} == {1}, "and the node has noticed nothing"
