"""What the fault agent does when a bench calls; docs/boards/faults.md has the list.

Every fault that lasts is undone when its time is over, when the bench says so, and when the agent ends. Only what ends
by itself is not: a killed process is started again by its launcher, a panic by the machine's reset.
"""

import asyncio
import os
import signal
import socket
import sys
import tomllib
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from flightsw.errors import BoardError, ConfigError
from hil.on_board import disk_fill, files
from hil.on_board.loan import DATA, Loan
from hil.on_board.memory import BITS_MAX, Part, ProcessMemory
from hil.on_board.network_cut import NetworkCut
from hil.on_board.processes import Processes
from hil.on_board.service import NodeService
from hil.on_board.throttle import Throttle
from hil.on_board.tools import Tool
from hil.on_board.uart_cut import UartCut, uart_of

ENTROPY: Final = "dev/urandom"
"""Source: random(4): what is written is mixed in."""
CRASH: Final = "proc/sysrq-trigger"
INIT_FREEZER: Final = "sys/fs/cgroup/init.scope/cgroup.freeze"
SOON_S: Final = 0.2
"""Between the answer and the end of the machine [s]: the answer leaves first."""
DURATION_S_MAX: Final = 86_400.0
"""Longest fault with a time of its own [s]: a day, longer than any bench runs unattended."""
STEP_S_MAX: Final = 3_155_760_000.0
"""Longest step of the clock [s]: a hundred years, which leaves it within 64 bits of nanoseconds."""
LOG_LINES_MAX: Final = 10_000
"""Lines of one answer: a megabyte or two, within one message."""
MODULE_PREFIX: Final = "boards."

Duration = Annotated[float, msgspec.Meta(gt=0, le=DURATION_S_MAX)]
Target = Literal["manager", "launcher", "worker"]
Struck = Literal["manager", "worker", "models"]
Undo = Callable[[], Awaitable[None]]


@dataclass(eq=False, slots=True)
class Lasting:
    """A fault that lasts: how it is undone, and what waits for its time."""

    undo: Undo
    timer: asyncio.TimerHandle | None = None


class FaultAgent:
    """The agent of one board. Needs a running event loop.

    Args:
        root: of the board's files.
        run: runs tools.
        set_clock: sets the board's clock to an instant [ns since 1970].
        read_clock: reads it.
    """

    def __init__(self, root: Path, run: Tool, set_clock: Callable[[int], None], read_clock: Callable[[], int]) -> None:
        self._root = root
        self._run = run
        self._set_clock = set_clock
        self._read_clock = read_clock
        self._proc = root / "proc"
        self._processes = Processes(self._proc)
        self._service = NodeService(run)
        self._loan = Loan(root)
        self._undos: dict[str, Lasting] = {}
        self._turn = asyncio.Lock()
        """One fault begins or ends at a time: none ends while its tools still begin it."""
        self._ending: set[asyncio.Task[None]] = set()
        self._coming: set[asyncio.Task[None]] = set()
        disk_fill.release(root / DATA)

    def handlers(self) -> dict[str, Callable[..., Any]]:
        """Method -> what answers it."""
        offered = (
            *(self.hello, self.configure, self.lend, self.restore, self.set_clock, self.step_clock),
            *(self.file, self.files, self.log, self.module, self.start, self.stop),
            *(self.kill, self.worker_kill, self.freeze, self.thaw, self.flip_memory, self.physical_pages),
            *(self.cut_uart, self.cut_network, self.fill_disk, self.release_disk),
            *(self.throttle, self.panic, self.stop_watchdog, self.undo),
        )
        return {one.__name__: one for one in offered}

    async def undo_all(self) -> None:
        """Undo all that still lasts, and wait for what is being undone. Raises: BoardError, after all was tried."""
        for name in list(self._undos):
            self._end(name)
        if ending := list(self._ending):
            await asyncio.wait(ending)
        for task in ending:
            task.result()

    async def finish_soon(self) -> None:
        """Wait for what was promised to come just after an answer."""
        if self._coming:
            await asyncio.wait(self._coming)

    # -- what a bench asks and sets

    def hello(self) -> dict[str, Any]:
        """Which board this is, and whether its node runs."""
        return {
            "name": self._name(),
            "boot_id": self._text("proc/sys/kernel/random/boot_id"),
            "pid_of_node": self._processes.manager(),
            "uptime_s": float((self._text("proc/uptime") or "0").split()[0]),
            "faults": sorted(self._undos),
            "is_lent": self._loan.is_open,
        }

    def configure(self, files_: dict[str, bytes], utc_ns: int | None = None, entropy: bytes = b"") -> None:
        """Stir entropy into the kernel's, which boards of one snapshot share; set the clock; write settings.
        Raises: ConfigError, BoardError."""
        if entropy:
            try:
                (self._root / ENTROPY).write_bytes(entropy)
            except OSError as error:
                raise BoardError(f"{self._root / ENTROPY}: {error.strerror}") from None
        if utc_ns is not None:
            self.set_clock(utc_ns)
        files.configure(self._root, files_)

    async def lend(self, names: list[str]) -> None:
        """Keep what is there of these settings, and whether the node runs, until `restore`, also over a restart of the
        board. What an earlier call has kept stays. Raises: ConfigError, BoardError."""
        self._loan.keep(names, runs=await self._service.runs())

    async def restore(self) -> dict[str, Any]:
        """Put back what `lend` has kept, remove what nodes have kept in runs, and start the node again if it ran then;
        `trouble` says why it does not start. No effect on a board that is not lent. Raises: BoardError: it stays
        lent."""
        if not self._loan.is_open:
            return {"files": [], "runs": False}
        names, runs = self._loan.kept()  # before the node is stopped: a damaged loan leaves it as it is
        if names:
            await self._service.stop()
            self._loan.put_back()
        trouble = {}
        if runs:
            try:
                await self._service.start()
            except BoardError as error:
                trouble = {"trouble": str(error)}
        self._loan.end()
        return {"files": names, "runs": runs and not trouble, **trouble}

    def set_clock(self, utc_ns: int) -> None:
        """Set the board's clock [ns since 1970]. Raises: BoardError."""
        try:
            self._set_clock(utc_ns)
        except (OSError, OverflowError) as error:
            raise BoardError(f"the clock cannot be set: {error}") from None

    def step_clock(self, step_s: Annotated[float, msgspec.Meta(ge=-STEP_S_MAX, le=STEP_S_MAX)]) -> None:
        """Step the board's clock [s]. Raises: BoardError."""
        self.set_clock(self._read_clock() + round(step_s * 1e9))

    def file(self, path: str) -> bytes:
        """A file of the node, its settings or the kernel's records. Raises: ConfigError."""
        return files.readable(self._root, path)

    def files(self, folder: str) -> list[str]:
        """Names of the files in such a folder. Raises: ConfigError."""
        return files.listing(self._root, folder)

    async def log(self, lines: Annotated[int, msgspec.Meta(ge=1, le=LOG_LINES_MAX)] = 200) -> str:
        """The newest lines of the node's service. Raises: BoardError."""
        return await self._service.log(lines)

    async def module(self, name: str, arguments: list[str]) -> str:
        """What a module of board support prints when it is run here. Raises: ConfigError, BoardError."""
        if not name.startswith(MODULE_PREFIX):
            raise ConfigError(f"module: {name!r}, expected one of {MODULE_PREFIX}*")
        return await self._run([sys.executable, "-I", "-m", name, *arguments])

    # -- the node's processes

    async def start(self) -> None:
        """Start the node's service. Raises: BoardError."""
        await self._service.start()

    async def stop(self) -> None:
        """Stop the node's service. Raises: BoardError."""
        await self._service.stop()

    def kill(self, signal_: str = "KILL", target: Target = "manager") -> int:
        """Send a signal; returns the process. Raises: ConfigError, BoardError."""
        number = getattr(signal, f"SIG{signal_}", None)
        if not isinstance(number, signal.Signals):
            raise ConfigError(f"kill: signal is {signal_!r}, expected KILL, TERM, SEGV or another")
        pid = self._processes.expect(target)
        self._signal(pid, number)
        return pid

    def worker_kill(self) -> int:
        """Kill a worker; returns its process. Raises: BoardError."""
        return self.kill("KILL", "worker")

    def freeze(self, target: Target = "manager") -> int:
        """Let a process stand still until `thaw`; returns it. Raises: BoardError."""
        pid = self._processes.expect(target)
        self._signal(pid, signal.SIGSTOP)
        self._lasts(f"freeze {target}", partial(self._thaw, pid), None)
        return pid

    async def thaw(self, target: Target = "manager") -> None:
        """Let it go on."""
        await self._undo(f"freeze {target}")

    def flip_memory(
        self,
        target: Struck,
        seed: int,
        bits: Annotated[int, msgspec.Meta(ge=1, le=BITS_MAX)] = 1,
    ) -> list[dict[str, Any]]:
        """Flip bits in the memory of a process; returns which. Raises: BoardError."""
        pid, memory, part = self._struck(target)
        flips = memory.flip(part, seed, bits)
        return [
            {"pid": pid, "address": one.address, "bit": one.bit, "mapping": one.mapping, "before": one.before}
            for one in flips
        ]

    def physical_pages(self, target: Struck) -> list[int]:
        """Physical addresses of the pages that `flip_memory` would strike now, but private ones that other processes
        have too. Raises: BoardError."""
        _, memory, part = self._struck(target)
        return memory.physical_pages(part)

    def _struck(self, target: Struck) -> tuple[int, ProcessMemory, Part]:
        pid = self._processes.expect("manager" if target == "models" else target)
        return pid, ProcessMemory(pid, self._proc), "models" if target == "models" else "private"

    # -- what surrounds it

    def cut_uart(self, duration_s: Duration) -> str:
        """Cut the node's UART for a time; returns which. Raises: BoardError."""
        device = uart_of(self._root / files.SETTINGS / files.MAIN)
        self._check_free("cut_uart")
        cut = UartCut(device)

        async def end() -> None:
            cut.end()

        self._lasts("cut_uart", end, duration_s)
        return str(device)

    async def cut_network(self, duration_s: Duration) -> str:
        """Cut the network for a time; returns by what. Raises: BoardError."""
        cut = NetworkCut(self._run)
        return await self._begin("cut_network", cut.begin, cut.end, duration_s)

    def fill_disk(self, free_bytes: Annotated[int, msgspec.Meta(ge=0)]) -> int:
        """Fill the node's disk until `release_disk`; returns the bytes taken. Raises: BoardError."""
        taken_bytes = disk_fill.fill(self._root / DATA, free_bytes)

        async def end() -> None:
            disk_fill.release(self._root / DATA)

        self._lasts("fill_disk", end, None)
        return taken_bytes

    async def release_disk(self) -> None:
        """Give the disk back."""
        await self._undo("fill_disk")

    async def throttle(self, share: Annotated[float, msgspec.Meta(gt=0, le=1)], duration_s: Duration) -> str:
        """Slow the board down for a time; returns by what. Raises: BoardError."""
        throttle = Throttle(self._root, self._service)
        return await self._begin("throttle", partial(throttle.begin, share), throttle.end, duration_s)

    def panic(self) -> None:
        """Let the kernel panic, just after the answer. Raises: BoardError."""
        self._soon(self._root / CRASH, "c")

    def stop_watchdog(self) -> None:
        """Let nobody feed the machine's watchdog any more: the system manager, which does, stands still from now on.
        Raises: BoardError."""
        path = self._root / INIT_FREEZER
        coming = self._soon(path, "1")

        async def end() -> None:
            coming.cancel()
            _write(path, "0")

        self._lasts("stop_watchdog", end, None)

    async def undo(self) -> list[str]:
        """Undo all that still lasts; returns what that was. Raises: BoardError."""
        names = sorted(self._undos)
        await self.undo_all()
        return names

    # -- how

    def _lasts(self, name: str, undo: Undo, duration_s: float | None) -> None:
        """Note how a fault is undone, and let its time run."""
        self._undos[name] = lasting = Lasting(undo)
        self._let_run(name, lasting, duration_s)

    async def _begin(self, name: str, begin: Callable[[], Awaitable[str]], undo: Undo, duration_s: float) -> str:
        """Begin a fault by tools, then let its time run. What has begun of one that fails, or whose caller has gone,
        is undone. Raises: BoardError."""
        self._check_free(name)
        self._undos[name] = lasting = Lasting(undo)
        try:
            async with self._turn:
                answer = await begin()
        except BaseException:
            if self._undos.get(name) is lasting:
                await asyncio.wait([self._end(name)])
            raise
        if self._undos.get(name) is lasting:  # and not undone meanwhile
            self._let_run(name, lasting, duration_s)
        return answer

    def _let_run(self, name: str, lasting: Lasting, duration_s: float | None) -> None:
        if duration_s is not None:
            lasting.timer = asyncio.get_running_loop().call_later(duration_s, self._end, name)

    def _check_free(self, name: str) -> None:
        if name in self._undos:
            raise BoardError(f"{name}: one lasts already")

    async def _undo(self, name: str) -> None:
        if name in self._undos:
            await asyncio.shield(self._end(name))

    def _end(self, name: str) -> asyncio.Task[None]:
        """Undo a fault, whether or not who asked for that waits."""
        lasting = self._undos.pop(name)
        if lasting.timer is not None:
            lasting.timer.cancel()
        return self._kept(self._in_turn(lasting.undo), self._ending)

    async def _in_turn(self, undo: Undo) -> None:
        async with self._turn:
            await undo()

    @staticmethod
    def _kept(work: Coroutine[Any, Any, None], tasks: set[asyncio.Task[None]]) -> asyncio.Task[None]:
        """A task of ours, noted until its end, which says on standard error what went wrong."""

        def ended(task: asyncio.Task[None]) -> None:
            tasks.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                sys.stderr.write(f"on_board: {error}\n")

        task = asyncio.get_running_loop().create_task(work)
        tasks.add(task)
        task.add_done_callback(ended)
        return task

    async def _thaw(self, pid: int) -> None:
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:  # it was ended while it stood still
            return

    def _signal(self, pid: int, number: signal.Signals) -> None:
        try:
            os.kill(pid, number)
        except OSError as error:
            raise BoardError(f"process {pid}: {error.strerror}") from None

    def _soon(self, path: Path, word: str) -> asyncio.Task[None]:
        """Write a word just after the answer. Raises: BoardError."""
        if not os.access(path, os.W_OK):
            raise BoardError(f"{path}: cannot be written; this kernel has no such switch, or the agent is not root")

        async def write() -> None:
            await asyncio.sleep(SOON_S)
            _write(path, word)

        return self._kept(write(), self._coming)

    def _text(self, name: str) -> str:
        try:
            return (self._root / name).read_text().strip()
        except OSError:
            return ""

    def _name(self) -> str:
        """Of the node, or of the board while it is none."""
        try:
            settings = tomllib.loads((self._root / files.SETTINGS / files.MAIN).read_text(encoding="utf-8"))
            return str(settings["node"]["name"])
        except (OSError, KeyError, TypeError, ValueError):
            return socket.gethostname()


def _write(path: Path, word: str) -> None:
    try:
        path.write_text(word)
    except OSError as error:
        raise BoardError(f"{path}: {error.strerror}") from None
