"""A board of the inventory as the bench handles it: told who it is by its fault agent over ssh, switched by its plug.

Deployed with `flatrack board deploy NAME --bench`, a board has our software, and an agent that a bench may use. For a
run the bench lets it keep what it is, stops its node, gives it the settings of the run, and starts it; at the end what
it was is put back. A bench that is killed cannot do that: then the next run does, or `flatrack board restore NAME`.
"""

import asyncio
import shlex
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from flightsw.errors import ConfigError, FlatrackError, LinkError
from flightsw.link.pacing import lab_s
from hil.bench.scenario import NodeSpec, Scenario
from hil.channel.uart import SocketWire, port_line
from hil.faults.plan import NodeReset
from hil.inventory.boards import Board, Inventory, Manual, PowerSettings, Uart, load
from hil.inventory.locks import held
from hil.inventory.ports import find_uart
from hil.inventory.power import Power, open_power
from hil.inventory.remote import Remote
from hil.on_board.remote import REMOTE, AgentPeer


def switches_itself(power: PowerSettings | None) -> bool:
    """Whether a bench can switch a board during a run: nobody is asked to do it by hand, as mission time goes on."""
    return power is not None and not isinstance(power, Manual)


HEADER_UART: Final = "header"
"""The device that a board's node opens: its own header's UART, which it finds by its device tree."""
RISE_S_MAX: Final = 120.0
"""How long a board whose power the bench has cut may take until its agent answers [s of the machine]: a boot takes a
Raspberry Pi 30 s, and ssh as long to notice that its old connection has gone."""
RETRY_S: Final = 2.0
"""Between two tries to reach it [s of the machine]."""

Report = Callable[[str], None]


class InventoryBoard:
    """Implements `hil.bench.board_node.TableBoard`.

    Args:
        name: in the inventory.
        board: as the inventory has it.
        report: takes a line that somebody should read.
        needs_uart: whether its lab wire is its UART.
    """

    def __init__(self, name: str, board: Board, *, report: Report, needs_uart: bool = True) -> None:
        self.name = name
        self._board = board
        self._power: Power | None = None
        if switches_itself(board.power):
            self._power = open_power(board.power, name)
        self._files: Mapping[str, bytes] = {}
        self._utc_ns: Callable[[], int] = lambda: 0
        self._resources = AsyncExitStack()
        self._remote: Remote | None = None
        self._switching: asyncio.Task[None] | None = None
        self._needs_uart = needs_uart
        self._report = report
        self._is_lent = False
        """Whether it has settings of the run, or may have."""
        self._was_cut = False

    @property
    def can_switch(self) -> bool:
        """Whether the bench has its power; what only a person can switch is none during a run."""
        return self._power is not None

    async def missing(self) -> str:
        """Why it cannot take part; empty when it can. From then on nobody else may use it."""
        try:
            self._resources.enter_context(held(self.name, "flatrack run"))
            if self._needs_uart:
                find_uart(self._uart())
            if self._power is not None:
                await self._power.on()
            self._remote = await self._resources.enter_async_context(Remote(self.name, self._board))
            agent = await self._agent()
            try:
                if "is_lent" not in await agent.hello():
                    raise ConfigError(
                        f"board {self.name}: its flatrack is older than this bench, expected that of flatrack board "
                        f"deploy {self.name} --bench"
                    )
            finally:
                await agent.close()
        except FlatrackError as error:
            await self._resources.aclose()
            return str(error)
        except BaseException:
            await self._resources.aclose()
            raise
        return ""

    def wire(self) -> SocketWire:
        """The bench's end of its UART. Raises: ConfigError."""
        uart = self._uart()
        return SocketWire(
            self.name,
            lambda: port_line(find_uart(uart), uart.baud),
            device=HEADER_UART,
            baud=uart.baud,
            paces_intake=False,
        )

    def prepare(self, files: Mapping[str, bytes], utc_ns: Callable[[], int]) -> None:
        """Say who it is to be.

        Args:
            files: settings of the run, by their names on the board.
            utc_ns: the clock of this machine, to which the board's is set [ns since 1970].
        """
        self._files = files
        self._utc_ns = utc_ns

    async def start(self) -> None:
        """Tell it who it is and start its node. Raises: FlatrackError."""
        agent = await self._agent()
        try:
            self._is_lent = True
            await agent.call("lend", sorted(self._files))
            await agent.call("stop")
            await agent.configure(dict(self._files), self._utc_ns())
            await agent.call("start")
        finally:
            await agent.close()

    def cut(self) -> None:
        """Switch its plug off."""
        assert self._power is not None, "faults by power are refused for a board without a plug"
        self._was_cut = True
        self._switching = asyncio.get_running_loop().create_task(self._power.off(), name=f"{self.name}/off")

    async def boot(self) -> None:
        """Switch its plug on. Raises: FlatrackError."""
        assert self._power is not None, "faults by power are refused for a board without a plug"
        await self._switched()
        await self._power.on()

    async def close(self) -> None:
        """Put back what it was before the run, with power, and let others have it. What does not succeed is told."""
        try:
            await self._end_switching()
            if self._is_lent:
                await self._give_back()
        except FlatrackError as error:
            self._tell_lent(str(error))
        except BaseException:
            if self._is_lent:
                self._tell_lent("it was given up before they were put back")
            raise
        finally:
            await self._resources.aclose()

    async def _end_switching(self) -> None:
        """Wait for its plug, and give it power. A plug that fails is told: the board may be reached all the same."""
        for step in (self._switched, self._power_up):
            try:
                await step()
            except FlatrackError as error:
                self._report(f"board {self.name}: {error}")

    async def _power_up(self) -> None:
        if self._was_cut and self._power is not None:
            await self._power.on()

    def _tell_lent(self, why: str) -> None:
        self._report(
            f"board {self.name}: has the settings of the run still: {why}; flatrack board restore {self.name} puts "
            "back what was there before, and so does the next run"
        )

    async def _give_back(self) -> None:
        agent = await self._agent_that_rises()
        try:
            restored = await agent.restore()
            self._is_lent = False
        finally:
            await agent.close()
        if why := restored.get("trouble"):
            self._report(f"board {self.name}: has its own settings, but its node, which ran, does not start: {why}")

    async def _agent_that_rises(self) -> AgentPeer:
        """The agent of a board that may be booting, as its power was cut during the run. Raises: FlatrackError."""
        try:
            return await self._agent()
        except LinkError:
            if not self._was_cut:
                raise
        self._report(
            f"board {self.name}: its power was cut in the run: waits for it, {RISE_S_MAX:g} s at most, to put its "
            "settings back"
        )
        loop = asyncio.get_running_loop()
        until_s = loop.time() + lab_s(RISE_S_MAX)
        while True:
            await asyncio.sleep(lab_s(RETRY_S))
            try:
                return await self._agent()
            except LinkError:
                if loop.time() >= until_s:
                    raise

    def abandon(self) -> None:
        """Nothing: no part of it runs on this machine."""

    def last_words(self) -> str:
        """Nothing: its console is its own."""
        return ""

    async def _agent(self) -> AgentPeer:
        assert self._remote is not None, "a board that is missing does not take part"
        assert self._board.ssh is not None, "which Remote has seen to"
        return await AgentPeer.over([*self._remote.command(), self._board.ssh, shlex.join(REMOTE)])

    async def _switched(self) -> None:
        switching, self._switching = self._switching, None
        if switching is not None:
            await switching

    def _uart(self) -> Uart:
        if self._board.uart is None:
            raise ConfigError(
                f"board {self.name}: has no uart, expected one in the inventory: uart = {{ ... }}, or link = 'mqtt' of "
                "its node"
            )
        return self._board.uart


class LabBoards:
    """The boards of the inventory that a scenario names.

    Args:
        inventory: the file's.
    """

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory

    def bauds(self, scenario: Scenario) -> dict[str, int]:
        """Node -> rate of its board's UART [bit/s], of those that it is the lab wire of. Raises: ConfigError."""
        boards = {
            node.name: self._inventory.board(node.board or node.name)
            for node in scenario.nodes
            if node.kind == "board" and node.link != "mqtt"
        }
        return {name: board.uart.baud for name, board in boards.items() if board.uart is not None}

    def of(self, spec: NodeSpec, report: Report) -> InventoryBoard:
        """The board of a node; `report` takes a line that somebody should read. Raises: ConfigError."""
        name = spec.board or spec.name
        return InventoryBoard(name, self._inventory.board(name), needs_uart=spec.link != "mqtt", report=report)


def open_boards(scenario: Scenario) -> LabBoards | None:
    """The inventory of a scenario; None when it has no boards.

    Raises:
        ConfigError: the file or a board is not there, or a fault needs a plug that a board does not have.
    """
    specs = {node.name: node for node in scenario.nodes if node.kind == "board"}
    if not specs:
        return None
    inventory = load(Path(scenario.boards.inventory))
    for spec in specs.values():
        inventory.board(spec.board or spec.name)
    for index, fault in enumerate(scenario.faults):
        if isinstance(fault, NodeReset) and fault.node in specs:
            name = specs[fault.node].board or fault.node
            power = inventory.board(name).power
            if not switches_itself(power):
                raise ConfigError(
                    f"{scenario.name}: faults[{index}]: node_reset of {fault.node!r} needs to switch board {name}, "
                    f"expected power = {{ kind = ... }} that a bench can switch in {inventory.path}"
                )
    return LabBoards(inventory)
