"""`python -m boards`: one node as a program of its own, with the same `Node` as in a simulation.

On a simulated board battery, heat and sunlight go on while the program is not there, and the next start takes them up
(`boards.simulated.states`); on a real one that is so of the modelled bus around it (`boards.hardware_board`).
docs/programs.md has the settings, exit codes and an example.
"""

import argparse
import asyncio
import os
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from boards.bench_port import BenchPort
from boards.composition import (
    NAME,
    NOTE_SUFFIX,
    Evidence,
    Runner,
    WorkerHang,
    header_link,
    open_jobs,
    open_profile,
    open_sensors,
    restored,
    say,
)
from boards.hardware_board import HardwareBoard, NodeHardware
from boards.settings import SIMULATED
from boards.settings import BoardSettings as BoardSettings
from boards.settings import NodeSettings as NodeSettings
from boards.simulated.board import BOOT_CHARGE_SHARE, SimulatedBoard
from boards.simulated.clock import LoopClock
from boards.simulated.runner import SimulatedRunner
from boards.simulated.states import SavedBoard, save_board
from boards.simulated.strikes import BoardStrikes
from boards.simulated.world import World
from boards.slots import SLOT_NAMES, DiskSlots, open_slots
from boards.support.tools import Tool, run_tool
from boards.waiting import wait_for_settings
from boards.watchdog import LastWords, ProgramWatchdog
from boards.worker.isolation.proof import Proofs
from flightsw.config import BoardProfile, NodeConfig
from flightsw.errors import ConfigError, FlatrackError, StorageError
from flightsw.host.control import parse_address
from flightsw.host.files import FileDisk
from flightsw.host.journal import Journal
from flightsw.host.loop import PacedLoop
from flightsw.host.program import (
    Ending,
    Exit,
    meet_bench,
    meet_remote_bench,
    misconfigured,
    open_wire,
    run,
    wait_for_zero,
)
from flightsw.host.settings import load_json, load_ring, load_settings
from flightsw.net.plans import PlanRow, plan_of
from flightsw.node import Node
from flightsw.ports import Board, Clock, Log, NodePorts, ResetCause

WORDS_SUFFIX: Final = ".words"
"""Ends the name of the file of last words, which lies beside the board's state."""
WATCHDOG_BOOT_S: Final = 120.0
"""How long the watchdog gives a boot until the first stroke [s]; a node with slower cycles strokes with its own."""
REBOOT: Final = ("systemctl", "reboot")
"""How a board that runs systemd is started anew: the nearest to a power cycle that it can do by itself."""


@dataclass(slots=True)
class _Parts:
    """What one start of a node is made of."""

    node: Node
    bus: SimulatedBoard
    log: Log
    watchdog: ProgramWatchdog
    words: LastWords
    evidence: Evidence | None
    """None on a simulated board."""
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
        tool: runs the operating system's tools.
        proofs: of memory limits, made before.
    """

    def __init__(
        self,
        settings: NodeSettings,
        base: Path,
        cause: ResetCause | None,
        bench: Path | None,
        loop: PacedLoop,
        slots: tuple[Path, str] | None = None,
        tool: Tool = run_tool,
        proofs: Proofs | None = None,
    ) -> None:
        self._settings = settings
        self._base = base
        self._cause = cause
        self._bench = bench
        self._loop = loop
        self._slots = slots
        self._tool = tool
        self._proofs = proofs
        self._state_path = base / settings.board.state
        self._next_cause: ResetCause = ResetCause.POWER_CYCLE
        self._port: BenchPort | None = None
        self._is_on = False
        self._is_saved = True

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
        settings.check()
        world = load_json(base / settings.board.world, World)
        plan = plan_of(load_json(base / settings.plan, list[PlanRow]), str(base / settings.plan))
        keys = load_ring(settings.keys, base, settings.node.node)
        clock = LoopClock(lambda: loop.now_ns, settings.clock.epoch_utc_ns)
        sensors = open_sensors(settings.board, base, clock, self._tool, loop.time_scale)
        profile = open_profile(settings.board, base, sensors)
        bus, cause = self._open_bus(profile, world, clock, ending)
        if ending.is_told:  # there is no power
            return None
        log = await self._meet_bench(ending, resources)
        disk = FileDisk(base / settings.storage.folder, settings.storage.capacity_bytes)
        resources.callback(disk.close)
        slots, config = self._open_slots(resources)
        words = LastWords(self._state_path.with_name(self._state_path.name + WORDS_SUFFIX))
        resources.callback(words.close)
        watchdog = ProgramWatchdog(words, loop.time_scale)
        resources.callback(watchdog.stop)
        evidence, cause, last_words = self._judge(cause, words.found, log)
        link = await open_wire(
            header_link(settings.link, sensors), settings.node.node, settings.node.interfaces, resources
        )
        bus.power_on(cause)
        self._is_on = True
        async with watchdog.waiting():
            runner, abilities = await open_jobs(settings, profile, log, loop.time_scale, resources, self._proofs)
        hardware = None if sensors is None else NodeHardware(sensors, clock, (abilities,))
        board: Board = bus
        if hardware is not None and settings.board.kind != SIMULATED:
            board = HardwareBoard(hardware, bus)

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
            last_words=last_words,
            hardware=hardware,
            slots=slots,
        )
        node = Node(config, profile, ports, plan, world.intervals(), keys)
        if self._port is not None:
            strikes = BoardStrikes(bus, disk, clock.jump, lambda: loop.call_soon(_stand_still))
            strikes.booted(cause, _hangable(runner), node.health)
            await self._port.attach(node, bus, runner, disk, strikes, settings.node.name)
        if evidence is not None:
            evidence.begin()
        return _Parts(node, bus, log, watchdog, words, evidence, resources.pop_all())

    async def _meet_bench(self, ending: Ending, resources: AsyncExitStack) -> Log:
        """The bench port, where there is a bench; returns where the on-board log goes."""
        settings, loop = self._settings, self._loop
        journal = Journal(settings.node.name, lambda: loop.now_ns, sys.stdout)
        if self._bench is not None:
            peer = await meet_bench(self._bench, ending, resources, loop)
            self._port = BenchPort(peer, lambda: loop.now_ns, lambda: ending.tell(Exit.STOPPED))
            return self._port.log
        if settings.bench is None:
            return journal
        parse_address(settings.bench.url)
        try:
            peer = await meet_remote_bench(settings.bench.url, resources, loop)
        except ConfigError as error:  # a board on its own flies on
            say(f"{settings.node.name}: no bench: {error}")
            return journal
        port = BenchPort(peer, lambda: loop.now_ns, lambda: ending.tell(Exit.STOPPED), settings.bench.token)
        self._port = port

        def log(kind: str, fields: dict[str, object]) -> None:
            (journal if peer.closed.done() else port.log)(kind, fields)

        return log

    def _open_slots(self, resources: AsyncExitStack) -> tuple[DiskSlots | None, NodeConfig]:
        """The slots, when a launcher has started the program; and the node's settings with the version that runs."""
        if self._slots is None:
            return None, self._settings.node
        slots, disk = open_slots(*self._slots)
        resources.callback(disk.close)
        version = slots.status().version
        return slots, msgspec.structs.replace(self._settings.node, software=f"flatrack {version}")

    def _open_bus(
        self, profile: BoardProfile, world: World, clock: Clock, ending: Ending
    ) -> tuple[SimulatedBoard, ResetCause]:
        """The bus as it is after the time without a program, without power; and, as far as it knows, the cause of the
        boot to come."""

        def brown_out() -> None:
            if not self._is_on:
                return  # while no program ran: whether there is power now is looked at below
            self._next_cause = ResetCause.BROWN_OUT
            if self._port is not None:
                self._port.brown_out()
            ending.tell(Exit.BROWN_OUT)

        settings = self._settings.board
        bus = SimulatedBoard(profile, clock, world.sunlight_at, settings.initial_charge, on_brown_out=brown_out)
        saved = restored(bus, settings, self._state_path, profile, clock, self._loop.time_scale)
        if saved is None:
            return bus, self._cause or ResetCause.POWER_ON
        sensors = bus.truth()  # the time without a program passes here, perhaps into a brown-out
        if bus.is_dark and sensors.charge_j < BOOT_CHARGE_SHARE * sensors.battery_j:
            share = sensors.charge_j / sensors.battery_j
            name = self._settings.node.name
            say(f"{name}: brown-out: the battery holds {share:.1%}, boots at {BOOT_CHARGE_SHARE:.0%}")
            self._next_cause = ResetCause.BROWN_OUT
            self._save(bus)
            ending.tell(Exit.BROWN_OUT)
            return bus, ResetCause.BROWN_OUT
        return bus, ResetCause.BROWN_OUT if bus.is_dark else (self._cause or saved.cause())

    def _judge(self, cause: ResetCause, words: str, log: Log) -> tuple[Evidence | None, ResetCause, str]:
        """What a real board has left of the last end; the cause of this boot, and the last words before it."""
        is_told = self._cause is not None or cause is ResetCause.BROWN_OUT
        if self._settings.board.kind == SIMULATED:
            if words and cause is ResetCause.POWER_CYCLE and not is_told:
                cause = ResetCause.WATCHDOG  # it died without saying why, and what hung has left its trace
            return None, cause, words
        path = self._state_path.with_name(self._state_path.name + NOTE_SUFFIX)
        evidence = Evidence(path, Path(self._settings.board.root), words, self._tool)
        verdict = evidence.verdict
        log("board.evidence", {"cause": verdict.cause.name, "detail": verdict.detail})
        return evidence, cause if is_told else verdict.cause, evidence.last_words(words)

    async def _run(self, parts: _Parts, ending: Ending) -> Exit:
        tasks = [
            asyncio.create_task(self._run_node(parts), name=self._settings.node.name),
            asyncio.create_task(self._keep_board(parts.bus), name="board"),
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
            try:
                self._save(parts.bus)
            finally:
                await parts.resources.aclose()
        if parts.evidence is not None:
            # who ends the program of a board in order will start it again: that is no loss of power
            parts.evidence.end(ResetCause.RESET_COMMAND if code is Exit.STOPPED else self._next_cause)
            if self._next_cause is ResetCause.POWER_CYCLE and code is Exit.RESET:
                self._cycle_power()
        return code

    def _cycle_power(self) -> None:
        """As far as the board can: else the program ends with a reset, as it would anyway."""
        if self._settings.board.power_cycle == "reboot":
            try:
                done = self._tool(REBOOT)
            except OSError as error:
                say(f"{' '.join(REBOOT)}: {error}: starts the program again instead")
                return
            if done.exit_code != 0:
                say(f"{' '.join(REBOOT)}: {done.output.strip()}: starts the program again instead")

    async def _run_node(self, parts: _Parts) -> None:
        async with parts.watchdog.waiting():
            await wait_for_zero(self._loop, parts.log)
        parts.watchdog.stroke(WATCHDOG_BOOT_S)
        await parts.node.run()

    async def _keep_board(self, bus: SimulatedBoard) -> None:
        while True:
            self._save(bus)
            await asyncio.sleep(self._settings.node.tick_period_s)

    def _save(self, bus: SimulatedBoard) -> None:
        state = bus.state()  # which may find a brown-out, and so changes the cause
        try:
            save_board(self._state_path, SavedBoard(board=state, next_cause=self._next_cause.name))
        except StorageError as error:
            if self._settings.board.kind == SIMULATED:
                raise
            if self._is_saved:  # a disk that is full or read-only takes the model's state, not the node
                say(f"{error}: the battery's charge is not kept")
            self._is_saved = False
        else:
            self._is_saved = True


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
    parser.add_argument("--await-config", action="store_true", help="wait, loaded, until the settings are there")
    given = parser.parse_args(arguments)
    if (given.slots is None) != (given.slot is None):
        parser.error("--slots and --slot come together, from python -m boards.launcher")
    proofs = Proofs()
    if given.await_config and not wait_for_settings(given.config, NAME, proofs):
        return Exit.STOPPED
    try:
        settings = load_settings(given.config, NodeSettings)
        loop = PacedLoop(settings.clock.zero_utc_ns, settings.clock.time_scale)
    except FlatrackError as error:
        return misconfigured(NAME, error)
    cause = None if given.cause is None else ResetCause[given.cause]
    slots = None if given.slots is None else (given.slots, given.slot)
    program = NodeProgram(settings, given.config.parent, cause, given.bench, loop, slots, proofs=proofs)
    return run(NAME, loop, program.compose)


def _hangable(runner: Runner) -> SimulatedRunner | WorkerHang:
    """What a bench hangs when it strikes the worker."""
    if isinstance(runner, SimulatedRunner):
        return runner
    return WorkerHang(runner, lambda pid: os.kill(pid, signal.SIGSTOP))


def _stand_still() -> None:
    """Hang, as a bench has asked."""
    while True:
        signal.pause()


def _pass_on(task: asyncio.Task[None], ending: Ending) -> None:
    """A task of the program that ends by itself has crashed."""
    if not task.cancelled() and (error := task.exception()) is not None:
        ending.fail(error)
