"""What a node's program is put together of, by its settings: sensors, profile, runner, and why it starts."""

import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec

from boards import profiles
from boards.settings import SIMULATED, BoardSettings, NodeSettings
from boards.simulated.board import SimulatedBoard
from boards.simulated.runner import SimulatedRunner
from boards.simulated.states import SavedBoard, load_board
from boards.support import trees
from boards.support.boot_evidence import Verdict, judge
from boards.support.boot_note import BootNote, load_note, note_of_start, store_note
from boards.support.hardware import BoardHardware, open_hardware
from boards.support.tools import Tool, run_tool
from boards.worker.isolation.proof import Proofs
from boards.worker.runner import WorkerRunner, open_runner
from boards.worker.settings import WorkerSettings
from flightsw.compute.inference import InferenceCache
from flightsw.config import BoardProfile
from flightsw.core.boots import UNASKED
from flightsw.errors import ConfigError, ControlError, SensorError, StorageError
from flightsw.host.settings import LinkSettings
from flightsw.ports import Capability, Clock, Log, ResetCause, Support

NAME: Final = "boards"
NS_PER_S: Final = 1_000_000_000
CLOCK_STEP_S_MAX: Final = 1.0
"""How far the machine's clock may have been set back since the last start [s]: more than NTP steps, less than a wrong
setting."""
NOTE_SUFFIX: Final = ".note"
"""Ends the name of the note that a start leaves for the next one, which lies beside the board's state."""
TREE_SUFFIX: Final = ".tree"
"""Ends the name of the folder where the files of a recorded board lie."""

HEADER: Final = "serial://header"
"""Stands for the UART of the board's pin header in `link.url`."""

Runner = SimulatedRunner | WorkerRunner


def say(text: str) -> None:
    """One line for a person, on standard error."""
    sys.stderr.write(f"{NAME}: {text}\n")


# -- sensors and profile


def open_sensors(
    settings: BoardSettings, base: Path, clock: Clock, run: Tool = run_tool, time_scale: float = 1.0
) -> BoardHardware | None:
    """What reads the board; None on a simulated board that shows no recorded one.

    Args:
        settings: of the board.
        base: folder that paths in the settings are relative to.
        clock: the mission's.
        run: runs the board's tools.
        time_scale: mission seconds in a second of the machine, by which tools are paced.

    Raises:
        ConfigError: the board is of another kind, or there is no such tree.
    """
    if settings.kind != SIMULATED:
        root, state = Path(settings.root), (base / settings.state).absolute().parent
        return open_hardware(
            settings.kind,
            root=root,
            monotonic_ns=clock.monotonic_ns,
            run=run,
            tool_ns=lambda: round(clock.monotonic_ns() / time_scale),
            state_folder=str(state)
            if root == Path("/")
            else "/",  # files that stand for a board's hold no node's state
        )
    if not settings.tree:
        return None
    folder = base / (settings.state + TREE_SUFFIX)
    shutil.rmtree(folder, ignore_errors=True)
    laid = trees.lay(settings.tree, folder)
    return open_hardware("auto", root=folder, monotonic_ns=clock.monotonic_ns, run=laid.run, read=laid.read)


def open_profile(settings: BoardSettings, base: Path, sensors: BoardHardware | None) -> BoardProfile:
    """The profile that is named, or the shipped one that fits the board.

    Raises:
        ConfigError: there is none, or it is wrong.
    """
    name = settings.profile
    if not name:
        assert sensors is not None, "the settings were checked"
        name = sensors.identity.profile
        if not name:
            model = sensors.identity.model or "a board without a name"
            raise ConfigError(f"board.profile: missing, and no shipped profile fits {model!r}")
    return profiles.load(base / name if name.endswith(profiles.SUFFIX) else name)


def header_link(link: LinkSettings, sensors: BoardHardware | None) -> LinkSettings:
    """The lab wire: `serial://header` is the board's own UART, found by its device-tree node.

    Raises:
        ConfigError: the board has none.
    """
    device, mark, options = link.url.partition("?")
    if device != HEADER:
        return link
    if sensors is None:
        raise ConfigError(f"link.url = {link.url!r}: expected another device with board.kind = 'simulated'")
    try:
        return msgspec.structs.replace(link, url=f"serial://{sensors.uart()}{mark}{options}")
    except SensorError as error:
        raise ConfigError(f"link.url = {link.url!r}: {error}") from None


def restored(
    bus: SimulatedBoard, settings: BoardSettings, path: Path, profile: BoardProfile, clock: Clock, time_scale: float
) -> SavedBoard | None:
    """Take up battery and heat where the last program has left them; None where there is nothing to take up.

    A simulated board is a laboratory's, where a state that does not fit is a mistake. On a real one it may come of a
    power cut, or of a clock that is not set yet, and the node starts all the same.

    Raises:
        ConfigError: the state of a simulated board does not fit.
    """
    is_real = settings.kind != SIMULATED
    try:
        saved = load_board(path, profile)
    except ConfigError as error:
        if not is_real:
            raise
        say(f"{error}: starts with a new battery")
        return None
    if saved is None:
        return None
    state, now_ns = saved.board, clock.monotonic_ns()
    ahead_s = (state.at_ns - now_ns) / NS_PER_S
    begins_at_zero = state.at_ns == 0  # a new world, written for a run whose T+0 is to come
    if ahead_s > CLOCK_STEP_S_MAX * time_scale and not begins_at_zero:
        if not is_real:
            raise ConfigError(
                f"{path}: board.at_ns = {state.at_ns}: expected an instant that has passed, and this "
                f"is {ahead_s:.1f} s ahead: clock.zero_utc_ns has changed, or the file is of another run"
            )
        say(f"{path}: of {ahead_s:.1f} s ahead, the clock is not set yet: goes on from there")
        state = replace(state, at_ns=now_ns)
    bus.restore(state)
    return saved


# -- jobs


async def open_jobs(
    settings: NodeSettings,
    profile: BoardProfile,
    log: Log,
    time_scale: float,
    resources: AsyncExitStack,
    proofs: Proofs | None = None,
) -> tuple[Runner, Callable[[], Sequence[Capability]]]:
    """What runs the steps of jobs, and what of the board it knows better than the board does.

    Raises:
        FlatrackError: what the settings ask for cannot be had.
    """
    worker = settings.worker or WorkerSettings()
    if settings.board.kind == SIMULATED or worker.isolation == "inline":
        return SimulatedRunner(profile, InferenceCache()), _inline_capabilities
    runner = await open_runner(worker, profile, name=settings.node.name, log=log, time_scale=time_scale, proofs=proofs)
    resources.push_async_callback(runner.close)
    return runner, runner.capabilities


def _inline_capabilities() -> tuple[Capability, ...]:
    return (Capability("memory_limit", Support.ABSENT, "jobs run inside the manager, which nothing confines"),)


class WorkerHang:
    """What a bench strikes where it would hang a simulated runner: a worker that is a process.

    Args:
        runner: whose worker it is.
        stop: stops a process, by its id, so that it does not run on.
    """

    def __init__(self, runner: WorkerRunner, stop: Callable[[int], None]) -> None:
        self._runner = runner
        self._stop = stop

    def hang(self, outlives_restart: bool = False) -> None:
        """Stop the worker until it is started anew. Raises: ControlError: a process cannot hang beyond that."""
        if outlives_restart:
            raise ControlError("trouble: a worker that is a process ends with its restart, expected clears = 'restart'")
        if self._runner.worker_pid == 0:
            raise ControlError("trouble: no worker runs")
        self._stop(self._runner.worker_pid)


# -- why it starts


class Evidence:
    """Why the program starts on a real board, and what it leaves for the next start.

    Args:
        path: of the note.
        root: folder that stands for the root of the board's files.
        words: what the program before has left.
        run: runs the board's tools.
    """

    def __init__(self, path: Path, root: Path, words: str, run: Tool = run_tool) -> None:
        self._path = path
        self._note: BootNote = note_of_start(root)
        self.verdict: Verdict = judge(root, load_note(path), run, words=words)

    def last_words(self, words: str) -> str:
        """What is known of the end before: the program's own words, else what the board has kept of an end that nobody
        asked for."""
        return words or (self.verdict.detail if self.verdict.cause in UNASKED else "")

    def begin(self) -> None:
        """The program runs from here on."""
        self._store(self._note)

    def end(self, cause: ResetCause) -> None:
        """The program ends in order, and the next start will be for this."""
        self._store(self._note.ended(cause))

    def _store(self, note: BootNote) -> None:
        """A disk that is full or read-only costs the evidence, not the node."""
        try:
            store_note(self._path, note)
        except StorageError as error:
            say(f"{error}: the next start may not know why it happens")
