"""What all programs have in common: exit codes, signals, and what their end means.

| exit code | means | the supervisor |
|---|---|---|
| 0 | ended by SIGTERM or SIGINT, or told to stop | leaves it |
| 1 | crashed; the traceback is on standard error | starts it again, as a watchdog would |
| 2 | a setting is wrong; one line on standard error says which | leaves it: it would end the same way |
| 3 | a reset was asked for | starts it again |
| 4 | brown-out: the battery is empty | starts it again when there is charge |

What goes wrong while the program is put together (a file, a socket, a folder) is a matter of its settings; what goes
wrong later is a finding about the program.
"""

import asyncio
import ctypes
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from enum import IntEnum, unique
from pathlib import Path
from typing import Final

from flightsw.config import InterfaceConfig
from flightsw.errors import FlatrackError
from flightsw.host.control import ControlPeer, connect, connect_url
from flightsw.host.loop import PacedLoop
from flightsw.host.settings import LinkSettings
from flightsw.link.joined import join_neighbours
from flightsw.link.urls import open_link
from flightsw.ports import Link, Log

PR_SET_PDEATHSIG: Final = 1
"""Source: prctl(2), linux/prctl.h."""
ENDING_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
GOODBYE_S: Final = 2.0
"""How long the last words to a bench may take [s of the machine]: it reads them at once or not at all."""


@unique
class Exit(IntEnum):
    """Exit codes of the programs."""

    STOPPED = 0
    CRASHED = 1
    """Given by the interpreter, not by us."""
    MISCONFIGURED = 2
    RESET = 3
    BROWN_OUT = 4


class Ending:
    """How a running program is told to end; the first who tells it decides. Needs a running event loop."""

    def __init__(self) -> None:
        self._told: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()

    def tell(self, code: Exit) -> None:
        """End with this exit code. No effect when told before."""
        if not self._told.done():
            self._told.set_result(code)

    def fail(self, error: BaseException) -> None:
        """End as a crash with this error. No effect when told before."""
        if not self._told.done():
            self._told.set_exception(error)

    @property
    def is_told(self) -> bool:
        """Whether it was told to end."""
        return self._told.done()

    async def wait(self) -> Exit:
        """The exit code, once somebody has told; raises the error of a crash."""
        return await self._told


Compose = Callable[[Ending], Awaitable[Callable[[], Awaitable[Exit]]]]
"""Puts the program together; returns what runs it to its end. It is given how the program is told to end."""


def run(name: str, loop: PacedLoop, compose: Compose) -> int:
    """Run a program to its end; returns the exit code. A crash is raised.

    Args:
        name: how it calls itself on standard error.
        loop: what it runs on.
        compose: puts it together.
    """
    is_composed = False

    async def main() -> Exit:
        nonlocal is_composed
        ending = Ending()
        for number in ENDING_SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, ending.tell, Exit.STOPPED)
        runs = await compose(ending)
        is_composed = True
        return await runs()

    try:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            return runner.run(main())
    except FlatrackError as error:
        if is_composed:
            raise  # as any other crash: the interpreter prints the traceback and ends with code 1
        return misconfigured(name, error)


def misconfigured(name: str, error: FlatrackError) -> int:
    """Say in one line what is wrong with the settings; returns the exit code."""
    sys.stderr.write(f"{name}: {error}\n")
    return Exit.MISCONFIGURED


def end_with_parent() -> None:
    """Ask the kernel to kill this process when its parent ends, however it ends.

    A parent that ended before is not noticed: who needs that also opens a connection to it.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


async def meet_bench(socket: Path, ending: Ending, resources: AsyncExitStack, loop: PacedLoop) -> ControlPeer:
    """Connect to the bench that started this program, and live no longer than it does.

    Raises:
        LinkError: nobody listens there.
    """
    end_with_parent()
    peer = await connect(socket, {})
    resources.push_async_callback(_part, peer, loop)
    peer.closed.add_done_callback(lambda _: ending.tell(Exit.STOPPED))
    return peer


async def meet_remote_bench(url: str, resources: AsyncExitStack, loop: PacedLoop) -> ControlPeer:
    """Connect to a bench on another machine, `tcp://host:port`; the program outlives it.

    Raises:
        ConfigError: the URL is none of these, or nobody listens there.
    """
    peer = await connect_url(url, {})
    resources.push_async_callback(_part, peer, loop)
    return peer


async def _part(peer: ControlPeer, loop: PacedLoop) -> None:
    """Part from a bench once it has the last words."""
    peer.close()
    await asyncio.wait([peer.closed], timeout=GOODBYE_S * loop.time_scale)


async def open_wire(
    settings: LinkSettings, node: int, interfaces: tuple[InterfaceConfig, ...], resources: AsyncExitStack
) -> Link:
    """The lab wire of a program, with its neighbours over UDP.

    Raises:
        FlatrackError: a URL is wrong, or its bearer cannot be opened.
    """
    link: Link = await open_link(settings.url, node=node)
    resources.push_async_callback(link.close)
    link = await join_neighbours(link, settings.neighbours, interfaces)
    resources.push_async_callback(link.close)
    return link


async def wait_for_zero(loop: PacedLoop, log: Log) -> None:
    """Return at T+0; at once when that has passed."""
    early_s = -loop.time()
    if early_s > 0:
        log("program.waits", {"until_ns": 0, "wait_s": round(early_s, 3)})
        await asyncio.sleep(early_s)
