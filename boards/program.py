"""`python -m boards`: one node as a program of its own, with the same `Node` as in a simulation.

The board is simulated: its battery, heat and sunlight go on while the program is not there, and the next start takes
them up (`boards.simulated.states`). docs/programs.md has the settings, exit codes and an example.
"""

import argparse
import asyncio
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec

from boards import profiles
from boards.bench_port import BenchPort
from boards.simulated.board import BOOT_CHARGE_SHARE, SimulatedBoard
from boards.simulated.clock import LoopClock
from boards.simulated.runner import SimulatedRunner
from boards.simulated.states import SavedBoard, load_board, save_board
from boards.simulated.strikes import BoardStrikes
from boards.simulated.world import World
from boards.slots import SLOT_NAMES, DiskSlots, open_slots
from boards.watchdog import LastWords, ProgramWatchdog
from flightsw.compute.inference import InferenceCache
from flightsw.config import BoardProfile, NodeConfig, Share
from flightsw.errors import ConfigError, FlatrackError
from flightsw.host.files import FileDisk
from flightsw.host.journal import Journal
from flightsw.host.loop import PacedLoop
from flightsw.host.program import Ending, Exit, meet_bench, misconfigured, open_wire, run, wait_for_zero
from flightsw.host.settings import (
    ClockSettings,
    KeySettings,
    LinkSettings,
    StorageSettings,
    load_json,
    load_ring,
    load_settings,
)
from flightsw.net.plans import PlanRow, plan_of
from flightsw.node import Node
from flightsw.ports import Clock, Log, NodePorts, ResetCause

NAME: Final = "boards"
NS_PER_S: Final = 1_000_000_000
CLOCK_STEP_S_MAX: Final = 1.0
"""How far the machine's clock may have been set back since the last start [s]: more than NTP steps, less than a wrong
setting."""
WORDS_SUFFIX: Final = ".words"
"""Ends the name of the file of last words, which lies beside the board's state."""
WATCHDOG_BOOT_S: Final = 120.0
"""How long the watchdog gives a boot until the first stroke [s]; a node with slower cycles strokes with its own."""


class BoardSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[board]`: what the node runs on."""

    kind: Literal["simulated"]
    profile: str
    """A shipped profile's name, or the path of a TOML file."""
    world: str
    """JSON file of sun and sunlight (`boards.simulated.world`)."""
    initial_charge: Share = 0.9
    """Charge of a new battery, as a share of the capacity."""
    state: str = "board.json"
    """Where battery and heat are kept while no program runs."""


class NodeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The settings of a node's program."""

    node: NodeConfig
    board: BoardSettings
    clock: ClockSettings
    link: LinkSettings
    storage: StorageSettings
    plan: str
    """JSON file of the predicted contacts (`flightsw.net.plans`)."""
    keys: KeySettings | None = None


@dataclass(slots=True)
class _Parts:
    """What one start of a node is made of."""

    node: Node
    board: SimulatedBoard
    log: Log
    watchdog: ProgramWatchdog
    words: LastWords
    resources: AsyncExitStack
    """What is given back at the end."""


class NodeProgram:
    """One start of a node.

    Args:
        settings: of the program.
        base: folder that paths in the settings are relative to.
        cause: why it starts; None lets the state of the board say it.
        bench: control socket of a bench, or None.
        loop: what it runs on.
        slots: folder of the slots and the slot that runs, when a launcher has started it.
    """

    def __init__(
        self,
        settings: NodeSettings,
        base: Path,
        cause: ResetCause | None,
        bench: Path | None,
        loop: PacedLoop,
        slots: tuple[Path, str] | None = None,
    ) -> None:
        self._settings = settings
        self._base = base
        self._cause = cause
        self._bench = bench
        self._loop = loop
        self._slots = slots
        self._state_path = base / settings.board.state
        self._next_cause: ResetCause = ResetCause.POWER_CYCLE
        self._port: BenchPort | None = None
        self._is_on = False

    async def compose(self, ending: Ending) -> Callable[[], Awaitable[Exit]]:
        """Put the node together; returns what runs it.

        Raises:
            FlatrackError: a setting, a file or a socket cannot be used.
        """
        async with AsyncExitStack() as resources:
            parts = await self._compose(ending, resources)
        return ending.wait if parts is None else lambda: self._run(parts, ending)

    async def _compose(self, ending: Ending, resources: AsyncExitStack) -> _Parts | None:
        settings, base, loop = self._settings, self._base, self._loop
        profile = profiles.load(_profile_name(settings.board.profile, base))
        world = load_json(base / settings.board.world, World)
        plan = plan_of(load_json(base / settings.plan, list[PlanRow]), str(base / settings.plan))
        keys = load_ring(settings.keys, base, settings.node.node)
        clock = LoopClock(lambda: loop.now_ns, settings.clock.epoch_utc_ns)
        log: Log = Journal(settings.node.name, lambda: loop.now_ns, sys.stdout)
        board, cause = self._board(profile, world, clock, ending)
        if ending.is_told:  # there is no power
            return None
        if self._bench is not None:
            peer = await meet_bench(self._bench, ending, resources, loop)
            self._port = BenchPort(peer, lambda: loop.now_ns, lambda: ending.tell(Exit.STOPPED))
            log = self._port.log
        disk = FileDisk(base / settings.storage.folder, settings.storage.capacity_bytes)
        resources.callback(disk.close)
        slots, config = self._open_slots(resources)
        words = LastWords(self._state_path.with_name(self._state_path.name + WORDS_SUFFIX))
        resources.callback(words.close)
        watchdog = ProgramWatchdog(words, loop.time_scale)
        resources.callback(watchdog.stop)
        if words.found and cause is ResetCause.POWER_CYCLE and self._cause is None:
            cause = ResetCause.WATCHDOG  # it died without saying why, and what hung has left its trace
        link = await open_wire(settings.link, settings.node.node, settings.node.interfaces, resources)
        board.power_on(cause)
        self._is_on = True
        runner = SimulatedRunner(profile, InferenceCache())

        def reset(why: ResetCause) -> None:
            self._next_cause = why
            ending.tell(Exit.RESET)

        ports = NodePorts(
            clock=clock,
            link=link,
            disk=disk,
            board=board,
            runner=runner,
            reset=reset,
            log=log,
            watchdog=watchdog,
            last_words=words.found,
            slots=slots,
        )
        node = Node(config, profile, ports, plan, world.intervals(), keys)
        if self._port is not None:
            strikes = BoardStrikes(board, disk, clock.jump, lambda: loop.call_soon(_stand_still))
            strikes.booted(cause, runner, node.health)
            await self._port.attach(node, board, runner, disk, strikes, settings.node.name)
        return _Parts(node, board, log, watchdog, words, resources.pop_all())

    def _open_slots(self, resources: AsyncExitStack) -> tuple[DiskSlots | None, NodeConfig]:
        """The slots, when a launcher has started the program; and the node's settings with the version that runs."""
        if self._slots is None:
            return None, self._settings.node
        slots, disk = open_slots(*self._slots)
        resources.callback(disk.close)
        version = slots.status().version
        return slots, msgspec.structs.replace(self._settings.node, software=f"flatrack {version}")

    def _board(
        self, profile: BoardProfile, world: World, clock: Clock, ending: Ending
    ) -> tuple[SimulatedBoard, ResetCause]:
        """The board as it is after the time without a program, without power; and the cause of the boot to come."""

        def brown_out() -> None:
            if not self._is_on:
                return  # while no program ran: whether there is power now is looked at below
            self._next_cause = ResetCause.BROWN_OUT
            if self._port is not None:
                self._port.brown_out()
            ending.tell(Exit.BROWN_OUT)

        board = SimulatedBoard(
            profile, clock, world.sunlight_at, self._settings.board.initial_charge, on_brown_out=brown_out
        )
        saved = load_board(self._state_path, profile)
        if saved is None:
            return board, self._cause or ResetCause.POWER_ON
        ahead_s = (saved.board.at_ns - clock.monotonic_ns()) / NS_PER_S
        begins_at_zero = saved.board.at_ns == 0  # a new world, written for a run whose T+0 is to come
        if ahead_s > CLOCK_STEP_S_MAX * self._loop.time_scale and not begins_at_zero:
            raise ConfigError(
                f"{self._state_path}: board.at_ns = {saved.board.at_ns}: expected an instant that has passed, and this "
                f"is {ahead_s:.1f} s ahead: clock.zero_utc_ns has changed, or the file is of another run"
            )
        board.restore(saved.board)
        sensors = board.truth()  # the time without a program passes here, perhaps into a brown-out
        if board.is_dark and sensors.charge_j < BOOT_CHARGE_SHARE * sensors.battery_j:
            sys.stderr.write(
                f"{NAME}: {self._settings.node.name}: brown-out: the battery holds "
                f"{sensors.charge_j / sensors.battery_j:.1%}, boots at {BOOT_CHARGE_SHARE:.0%}\n"
            )
            save_board(self._state_path, SavedBoard(board=board.state(), next_cause=ResetCause.BROWN_OUT.name))
            ending.tell(Exit.BROWN_OUT)
            return board, ResetCause.BROWN_OUT
        return board, ResetCause.BROWN_OUT if board.is_dark else (self._cause or saved.cause())

    async def _run(self, parts: _Parts, ending: Ending) -> Exit:
        tasks = [
            asyncio.create_task(self._run_node(parts), name=self._settings.node.name),
            asyncio.create_task(self._keep_board(parts.board), name="board"),
        ]
        for task in tasks:
            task.add_done_callback(lambda done: _pass_on(done, ending))
        try:
            code = await ending.wait()
            if code is Exit.RESET and self._port is not None:
                self._port.reset(self._next_cause.name)
        except BaseException as error:
            self._next_cause = ResetCause.EXCEPTION
            parts.words.write("".join(traceback.format_exception(error)))
            raise
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            self._save(parts.board)
            await parts.resources.aclose()
        return code

    async def _run_node(self, parts: _Parts) -> None:
        await wait_for_zero(self._loop, parts.log)
        parts.watchdog.stroke(WATCHDOG_BOOT_S)
        await parts.node.run()

    async def _keep_board(self, board: SimulatedBoard) -> None:
        while True:
            self._save(board)
            await asyncio.sleep(self._settings.node.tick_period_s)

    def _save(self, board: SimulatedBoard) -> None:
        state = board.state()  # which may find a brown-out, and so changes the cause
        save_board(self._state_path, SavedBoard(board=state, next_cause=self._next_cause.name))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m boards", description="One node as a program. docs/programs.md")
    parser.add_argument("--config", type=Path, required=True, help="TOML file with the node's settings")
    parser.add_argument(
        "--bench", type=Path, metavar="SOCKET", help="control socket of a bench that watches and strikes"
    )
    parser.add_argument("--cause", choices=[cause.name for cause in ResetCause], help="why it starts")
    parser.add_argument("--slots", type=Path, metavar="FOLDER", help="disk of the slots; set by the launcher")
    parser.add_argument("--slot", choices=SLOT_NAMES, help="the slot that runs; set by the launcher")
    given = parser.parse_args(arguments)
    if (given.slots is None) != (given.slot is None):
        parser.error("--slots and --slot come together, from python -m boards.launcher")
    try:
        settings = load_settings(given.config, NodeSettings)
        loop = PacedLoop(settings.clock.zero_utc_ns, settings.clock.time_scale)
    except FlatrackError as error:
        return misconfigured(NAME, error)
    cause = None if given.cause is None else ResetCause[given.cause]
    slots = None if given.slots is None else (given.slots, given.slot)
    program = NodeProgram(settings, given.config.parent, cause, given.bench, loop, slots)
    return run(NAME, loop, program.compose)


def _profile_name(name: str, base: Path) -> str | Path:
    """A path is relative to the settings' folder; a name is a shipped profile."""
    return base / name if name.endswith(profiles.SUFFIX) else name


def _stand_still() -> None:
    """Hang, as a bench has asked."""
    while True:
        signal.pause()


def _pass_on(task: asyncio.Task[None], ending: Ending) -> None:
    """A task of the program that ends by itself has crashed."""
    if not task.cancelled() and (error := task.exception()) is not None:
        ending.fail(error)
