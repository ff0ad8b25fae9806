"""A satellite whose manager runs on a board with an operating system of its own: emulated, or on the table.

The bench has three ways to it: its power, its UART (or a broker), and the bench port of its program over TCP. What the
bench is told over that port is what it judges by; a board without one is judged by what the ground hears of it.

A board starts its program again by itself after a reset, a crash or a panic, and finds out itself why. The bench
notices by the end of the connection and by the next hello. Each end takes counts with it and may take the last of the
log, as a kill does, so what comes after is judged as a bound.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from flightsw.config import BoardProfile, NodeConfig
from flightsw.errors import ControlError, FlatrackError, SimulationError
from flightsw.host.control import ControlPeer, Handler
from flightsw.link.pacing import lab_s
from flightsw.net.agent import BundleAgent
from flightsw.ports import Random, ResetCause
from hil.bench.accounts import Accounts, EnergyState, NodeCounts
from hil.bench.lab_wires import LabWire
from hil.bench.process_node import SEED_BITS
from hil.bench.remote_books import RemoteBooks
from hil.channel.relay import Relay

RETURN_S_MAX: Final = 180.0
"""How long a board may take from the end of its program to the next hello [s of the machine]: a kernel that panics and
boots under emulation takes a third of it on two cores that others use too."""


class BoardLost(SimulationError):
    """A board's program ended and did not come back."""


class TableBoard(Protocol):
    """A board and its power, as the bench handles them."""

    @property
    def can_switch(self) -> bool:
        """Whether the bench has its power."""
        ...

    async def start(self) -> None:
        """First boot of a run, with the settings of the run. Raises: FlatrackError."""
        ...

    def cut(self) -> None:
        """Power off, at this instant or as soon as the switch can. No effect without power."""
        ...

    async def boot(self) -> None:
        """Power on after a cut; it starts from its own disk. Raises: FlatrackError."""
        ...

    async def close(self) -> None:
        """End of the run. No error when it has ended."""
        ...

    def abandon(self) -> None:
        """Leave no machine behind, without the loop. No effect when it was closed."""
        ...

    def last_words(self) -> str:
        """The end of what its console said, for a report."""
        ...


class BoardNode:
    """Implements `hil.bench.member.Member`.

    Args:
        config, profile: of the node.
        board: it, and its power.
        wire: the bench's end of its lab wire.
        relay: joins the wires.
        has_door: whether its program reports to the bench.
        log: takes (t_ns, kind, fields) of its on-board log.
        note: takes (kind, fields) of what the bench notices of it.
        on_cut: told the name when a boot ends before its run.
        on_brown_out: told (name, computing) when its battery is empty.
        on_crash: told when it cannot be started or does not come back.
    """

    is_exact = False
    """A UART promises nothing, and ends of programs take counts with them."""

    def __init__(
        self,
        *,
        config: NodeConfig,
        profile: BoardProfile,
        board: TableBoard,
        wire: LabWire,
        relay: Relay,
        has_door: bool,
        log: Callable[[int, str, dict[str, object]], None],
        note: Callable[[str, dict[str, object]], None],
        on_cut: Callable[[str], None],
        on_brown_out: Callable[[str, bool], None],
        on_crash: Callable[[str, BaseException], None],
    ) -> None:
        self.config = config
        self.profile = profile
        self.boots_count = 0
        self.board = board
        self.wire = wire
        self.said_hello = asyncio.Event()
        """Whether its present boot has reported to the bench."""
        self._relay = relay
        self._has_door = has_door
        self._log = log
        self._note = note
        self._on_cut = on_cut
        self._on_brown_out = on_brown_out
        self._on_crash = on_crash
        self._books = RemoteBooks(config.name)
        self._energy: EnergyState | None = None
        self._has_power = False
        self._is_on = False
        self._is_leaving = False
        """It said that it ends by itself."""
        self._is_dark = False
        """Its own battery is empty, which ends its program."""
        self._is_stopping = False
        self._has_started = False
        """Whether it has the settings of the run."""
        self._switches_count = 0
        """Changes of its power: what belongs to an earlier one is of the past."""
        self._rising: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._absence: asyncio.TimerHandle | None = None

    # -- the Member

    @property
    def agent(self) -> BundleAgent | None:
        """Always None: it runs elsewhere."""
        return None

    @property
    def is_on(self) -> bool:
        """Whether the program runs, or is started by the bench."""
        return self._is_on

    def boot(self, cause: ResetCause) -> None:
        """Power on. The board finds the cause itself; when it has power, it starts by itself too."""
        if self._has_power:
            return
        self._has_power = self._is_on = True
        self._is_leaving = self._is_dark = False
        self._switches_count += 1
        self._rising = self._spawn(self._bring_up(self._switches_count, self._rising), "boot")

    def cut(self) -> None:
        """Take its power at this instant. A board whose own battery is empty keeps that of the laboratory: its program
        ends by itself, and starts again when there is charge."""
        if not self._has_power:
            return
        is_dark, self._is_dark = self._is_dark, False
        self._is_leaving = False
        if not is_dark:
            self._has_power = False
            self._switches_count += 1
            self.board.cut()
            self.wire.forget()
            self._stop_waiting()
        self._off()

    def stop(self) -> None:
        """It is about to be ended: that is no crash."""
        self._is_stopping = True
        self._stop_waiting()

    def boot_later(self, off_s: float, cause: ResetCause) -> None:
        """Boot after a time, if nothing booted it meanwhile."""
        asyncio.get_running_loop().call_later(off_s, self._boot_unless_stopping, cause)

    def strike_weights(self, random: Random, bits: int) -> asyncio.Future[bool]:
        """Flip random bits of one model in its memory."""
        return self._books.strike("strike_weights", random.getrandbits(SEED_BITS), bits)

    def rot_object(self, random: Random) -> asyncio.Future[bool]:
        """Flip one random bit of one file of its store."""
        return self._books.strike("rot_object", random.getrandbits(SEED_BITS))

    def trouble(self, kind: str, fields: dict[str, object]) -> asyncio.Future[bool]:
        """Let something around its node fail."""
        return self._books.strike("trouble", kind, fields)

    def accounts(self) -> Accounts | None:
        """The books as last heard; None while it is off or when it does not tell them."""
        heard = self._books.heard
        return None if heard is None or not self._is_on else heard.accounts

    def energy(self) -> EnergyState | None:
        """Battery and heat as last heard; None when it never told them."""
        heard = self._books.heard
        return self._energy if heard is None else heard.energy

    def totals(self) -> NodeCounts:
        """Counters of all boots, as last heard."""
        return self._books.totals

    # -- the bench's side

    def handlers(self) -> dict[str, Handler]:
        """What the program may tell the bench."""
        return {"log": self._log, "brown_out": self._take_brown_out, "reset": self._take_reset}

    def hello(self, peer: ControlPeer) -> None:
        """A boot of its program is ready: plug in its wire; it starts when this has been answered.

        Raises:
            ControlError: it has no power, as far as the bench knows.
        """
        if not self._has_power or self._is_stopping:
            raise ControlError("hello: the power went off")
        self._off()  # that of the boot before, if its end was not seen
        self._stop_waiting()
        self._is_on = True
        self._is_leaving = self._is_dark = False
        self.boots_count += 1
        self._books.open(peer)
        peer.closed.add_done_callback(lambda _: self._left(peer))
        self._relay.attach(self.config.node, self.wire.deliver)
        self.said_hello.set()

    def lost(self, why: str) -> None:
        """Its machine has ended. No effect when it was asked to, or rises still: who starts it will say so."""
        is_rising = self._rising is not None and not self._rising.done()
        if self._has_power and not self._is_stopping and not is_rising:
            self._stop_waiting()
            self._lose(why)

    async def refresh(self) -> None:
        """Ask for its books."""
        await self._books.refresh()

    async def close(self) -> None:
        """End it. What it still does with its power is waited for."""
        self.stop()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self.board.close()

    async def _bring_up(self, number: int, before: asyncio.Task[None] | None) -> None:
        """Let it boot, after what a boot before does still.

        Args:
            number: of the change of power that this is.
            before: the boot before.
        """
        if before is not None:
            await asyncio.wait((before,))
        if number != self._switches_count:
            return  # it was cut before it began
        try:
            await (self.board.boot() if self._has_started else self.board.start())
            self._has_started = True
        except FlatrackError as error:
            if number == self._switches_count:
                self._on_crash(self.config.name, error)
                return
        if number != self._switches_count:  # it was cut meanwhile: no crash, and what rose all the same goes again
            if not self._has_power:
                self.board.cut()
            return
        self.wire.plug()
        if self._has_door:
            self._wait_for_hello()
        else:
            self.boots_count += 1
            self._relay.attach(self.config.node, self.wire.deliver)
            self.said_hello.set()

    def _wait_for_hello(self) -> None:
        if self._absence is None and not self.said_hello.is_set():
            self._absence = asyncio.get_running_loop().call_later(lab_s(RETURN_S_MAX), self._miss)

    def _stop_waiting(self) -> None:
        if self._absence is not None:
            self._absence.cancel()
            self._absence = None

    def _miss(self) -> None:
        self._absence = None
        self._lose(f"no hello within {RETURN_S_MAX:g} s")

    def _lose(self, why: str) -> None:
        words = self.board.last_words() or "(nothing on the console)"
        name = self.config.name
        self._on_crash(name, BoardLost(f"{name}: {why}; its console ends with:\n{words}"))

    def _left(self, peer: ControlPeer) -> None:
        """The connection of a boot has ended."""
        if not self._books.is_of(peer) or self._is_stopping:
            return
        self._note("board.left", {"announced": self._is_leaving})
        self._off()
        self._wait_for_hello()

    def _off(self) -> None:
        """The manager does not run from now on."""
        self._is_on = False
        self.said_hello.clear()
        self._energy = self.energy()
        if self._books.close():
            self._on_cut(self.config.name)
        self._relay.detach(self.config.node)

    def _boot_unless_stopping(self, cause: ResetCause) -> None:
        if not self._is_stopping:
            self.boot(cause)

    def _spawn(self, coroutine: Coroutine[Any, Any, None], what: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine, name=f"{self.config.name}/{what}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # -- what the program tells

    def _take_brown_out(self, t_ns: int, computing: bool) -> None:
        self._is_leaving = self._is_dark = True
        self._on_brown_out(self.config.name, computing)

    def _take_reset(self, cause: str) -> None:
        self._is_leaving = True
