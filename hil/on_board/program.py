"""`python -m hil.on_board`: the fault agent as a program.

It speaks as all control connections do (`flightsw.host.control`) over one of

| option | is |
|---|---|
| `--port DEVICE` | a character device: the virtio port of an emulated board. It waits for one bench after another |
| `--stdio` | standard input and output: of ssh. It ends with them |
| `--socket PATH` | a Unix socket |

It needs the rights of root, and the permission of `hil.on_board.permission`.
"""

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from flightsw.errors import BoardError, ConfigError, FlatrackError
from flightsw.host.control import ControlPeer, serve
from hil.on_board.agent import FaultAgent
from hil.on_board.permission import check_permission
from hil.on_board.streams import attach, has_other_side
from hil.on_board.tools import run_tool

NAME: Final = "on_board"
LOOK_S: Final = 0.02
"""Time between two looks whether a bench has opened the port [s]."""


async def serve_port(agent: FaultAgent, path: Path) -> None:
    """Answer whoever opens the other side of a port, one after another. Raises: ConfigError."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    try:
        while True:
            while not has_other_side(descriptor):
                await asyncio.sleep(LOOK_S)
            await _answer(agent, descriptor, descriptor)
            await asyncio.sleep(LOOK_S)
    finally:
        os.close(descriptor)


async def serve_stdio(agent: FaultAgent) -> None:
    """Answer over standard input and output until they end."""
    await _answer(agent, sys.stdin.fileno(), sys.stdout.fileno())


async def serve_socket(agent: FaultAgent, path: Path) -> None:
    """Answer on a Unix socket. Raises: ConfigError."""
    server = await serve(path, agent.handlers())
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        await server.close()


async def _answer(agent: FaultAgent, reads: int, writes: int) -> None:
    peer = attach(lambda: ControlPeer(agent.handlers()), reads, writes)
    assert isinstance(peer, ControlPeer), "as made"
    try:
        await peer.closed
    finally:
        peer.close()


async def _run(given: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    is_trial = given.root.resolve() != Path("/")
    run, set_clock = (_refuse_tool, _refuse_clock) if is_trial else (run_tool, _set_clock)
    agent = FaultAgent(given.root, run, set_clock, time.time_ns)
    if given.port is not None:
        serving = loop.create_task(serve_port(agent, given.port))
    elif given.socket is not None:
        serving = loop.create_task(serve_socket(agent, given.socket))
    else:
        serving = loop.create_task(serve_stdio(agent))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, serving.cancel)
    try:
        with suppress(asyncio.CancelledError):  # by a signal: the end that was asked for
            await serving
    finally:
        try:
            await agent.undo_all()
        finally:
            await agent.finish_soon()


def _set_clock(utc_ns: int) -> None:
    time.clock_settime_ns(time.CLOCK_REALTIME, utc_ns)


async def _refuse_tool(command: Sequence[str]) -> str:
    raise BoardError(f"{command[0]}: not run in a trial under --root: it would act on this machine")


def _refuse_clock(utc_ns: int) -> None:
    raise BoardError("the clock is not set in a trial under --root: it is this machine's")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the agent; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m hil.on_board",
        description="The fault agent of a board that is on a bench. docs/boards/faults.md",
    )
    ways = parser.add_mutually_exclusive_group(required=True)
    ways.add_argument("--port", type=Path, metavar="DEVICE", help="character device that leads to the bench")
    ways.add_argument("--stdio", action="store_true", help="standard input and output lead to the bench")
    ways.add_argument("--socket", type=Path, metavar="PATH", help="Unix socket to listen on")
    parser.add_argument("--root", type=Path, default=Path("/"), help="root of the board's files, for trials")
    given = parser.parse_args(arguments)
    try:
        check_permission(given.root)
        asyncio.run(_run(given))
    except FlatrackError as error:
        sys.stderr.write(f"{NAME}: {error}\n")
        return 2
    return 0
