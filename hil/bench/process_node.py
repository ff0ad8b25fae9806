"""A satellite whose manager is a program of its own: `python -m boards`, on a lab wire, under the bench's eyes.

A power cut is SIGKILL. While no program runs, the board is the bench's: it goes on from the state that the program
left, as the next start will, so that a battery can be asked when it has charge enough to boot.
"""

import asyncio
import signal
from collections.abc import Callable
from typing import Final

from boards.simulated.board import SimulatedBoard
from boards.simulated.states import load_board
from flightsw.config import BoardProfile, NodeConfig
from flightsw.errors import ControlError
from flightsw.host.control import ControlPeer, Handler
from flightsw.host.program import Exit
from flightsw.net.agent import BundleAgent
from flightsw.ports import Random, ResetCause
from hil.bench.accounts import Accounts, EnergyState, NodeCounts
from hil.bench.lab_wires import LabWire
from hil.bench.processes import Program
from hil.bench.remote_books import RemoteBooks
from hil.bench.satellite import BOOT_S
from hil.channel.relay import Relay

BOARD_FILE: Final = "board.json"
"""In the program's folder: the board while no program runs."""
SEED_BITS: Final = 63
"""Of the seed that a program is given for a strike: what MessagePack takes as a positive integer."""


class ProcessNode:
    """Implements `hil.bench.member.Member`.

    Args:
        config, profile: of the node.
        program: its program, ready to be started; the owner passes its ends on to `ended`.
        wire: the bench's end of its lab wire.
        relay: joins the wires.
        board: the same board as the program's, for the time when no program runs.
        log: takes (t_ns, kind, fields) of its on-board log.
        on_cut: told the name when a boot ends before its run.
        on_brown_out: told (name, computing) when its battery is empty.
        on_crash: told of an end that nobody asked for.
    """

    def __init__(
        self,
        *,
        config: NodeConfig,
        profile: BoardProfile,
        program: Program,
        wire: LabWire,
        relay: Relay,
        board: SimulatedBoard,
        log: Callable[[int, str, dict[str, object]], None],
        on_cut: Callable[[str], None],
        on_brown_out: Callable[[str, bool], None],
        on_crash: Callable[[str, BaseException], None],
    ) -> None:
        self.config = config
        self.profile = profile
        self.boots_count = 0
        self.program = program
        self.wire = wire
        self.said_hello = asyncio.Event()
        """Whether its present boot has reported to the bench."""
        self._relay = relay
        self._board = board
        self._log = log
        self._on_cut = on_cut
        self._on_brown_out = on_brown_out
        self._on_crash = on_crash
        self._books = RemoteBooks(config.name)
        self._is_on = False
        self._is_leaving = False
        """It said that it ends by itself."""
        self._is_stopping = False
        self._next_cause = ResetCause.RESET_COMMAND
        self._waiting_cause: ResetCause | None = None
        """A boot that waits for the last process to be gone."""
        self._lost_count = 0
        """Boots whose last counts nobody heard."""

    # -- the Member

    @property
    def agent(self) -> BundleAgent | None:
        """Always None: it runs elsewhere."""
        return None

    @property
    def is_on(self) -> bool:
        """Whether the program runs, or starts."""
        return self._is_on

    @property
    def is_exact(self) -> bool:
        """Whether the counts can be complete: no boot took some with it, and the wire lost nothing."""
        return self._lost_count == 0 and self.wire.is_exact

    def boot(self, cause: ResetCause) -> None:
        """Start the program."""
        assert not self._is_on, "a running satellite cannot boot"
        self._is_on = True
        self._is_leaving = False
        if self.program.pid is not None:
            self._waiting_cause = cause
            return
        self.boots_count += 1
        self.program.start("--cause", cause.name)

    def cut(self) -> None:
        """Kill the program at this instant, unless it is about to end by itself."""
        if not self._is_on:
            return
        if not self._is_leaving:
            self.program.kill()
        self._off()

    def stop(self) -> None:
        """It is about to be ended: that is no crash."""
        self._is_stopping = True

    def boot_later(self, off_s: float, cause: ResetCause) -> None:
        """Boot after a time, if nothing booted it meanwhile."""
        asyncio.get_running_loop().call_later(off_s, self._boot_if_off, cause)

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
        """The books as last heard; None while it is off."""
        heard = self._books.heard
        return None if heard is None or not self._is_on else heard.accounts

    def energy(self) -> EnergyState:
        """Battery and heat: as last heard while it runs, of the bench's board while it does not."""
        heard = self._books.heard
        return EnergyState.of(self._board) if heard is None or not self._is_on else heard.energy

    def totals(self) -> NodeCounts:
        """Counters of all boots, as last heard."""
        return self._books.totals

    # -- the bench's side

    def handlers(self) -> dict[str, Handler]:
        """What the program may tell the bench."""
        return {"log": self._take_log, "brown_out": self._take_brown_out, "reset": self._take_reset}

    def hello(self, peer: ControlPeer) -> None:
        """The program is ready: plug in its wire; it starts when this has been answered.

        Raises:
            ControlError: it was told to end meanwhile.
        """
        if not self._is_on or self._is_stopping:
            raise ControlError("hello: the power went off")
        self._books.open(peer)
        self._relay.attach(self.config.node, self.wire.deliver)
        self.said_hello.set()

    async def refresh(self) -> None:
        """Ask for its books."""
        await self._books.refresh()

    def ended(self, code: int) -> None:
        """The program has ended."""
        if not self._is_stopping:
            self._take_board()
        if self._waiting_cause is not None:
            cause, self._waiting_cause, self._is_on = self._waiting_cause, None, False
            self.boot(cause)
            return
        if not self._is_on or self._is_stopping:
            return
        self._off()
        if code == Exit.RESET:
            self.boot_later(BOOT_S, self._next_cause)
        elif code == -signal.SIGALRM:
            self._log(self._board.state().at_ns, "watchdog.expired", {})
            self.boot_later(BOOT_S, ResetCause.WATCHDOG)
        elif code == Exit.BROWN_OUT:
            self._on_brown_out(self.config.name, False)  # it found no charge when it started
        else:
            self._on_crash(self.config.name, self.program.death(code))

    def _off(self) -> None:
        """The node has no power from now on."""
        self._is_on = False
        self._waiting_cause = None
        self.said_hello.clear()
        self._lost_count += 1
        if self._books.close():
            self._relay.detach(self.config.node)
            self._on_cut(self.config.name)
        self.wire.forget()

    def _take_board(self) -> None:
        """Go on with the board where the program left it."""
        saved = load_board(self.program.folder / BOARD_FILE, self.profile)
        if saved is not None:
            self._board.restore(saved.board)

    def _boot_if_off(self, cause: ResetCause) -> None:
        if not self._is_on and not self._is_stopping:
            self.boot(cause)

    # -- what the program tells

    def _take_log(self, t_ns: int, kind: str, fields: dict[str, object]) -> None:
        self._log(t_ns, kind, fields)

    def _take_brown_out(self, t_ns: int, computing: bool) -> None:
        self._is_leaving = True
        self._on_brown_out(self.config.name, computing)

    def _take_reset(self, cause: str) -> None:
        self._is_leaving = True
        self._next_cause = ResetCause[cause]
