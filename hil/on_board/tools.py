"""Programs of the board that the agent runs: never by a shell, never for long."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final

from flightsw.errors import BoardError

PATIENCE_S: Final = 40.0
"""Longest run of a tool [s]: systemctl waits for a service to end; the node's takes at most 20."""
WORDS_CHARACTERS_MAX: Final = 300
"""What an error quotes of a tool: a line or two."""

Tool = Callable[[Sequence[str]], Awaitable[str]]
"""Runs a program and returns what it wrote; raises `BoardError`."""


async def run_tool(command: Sequence[str]) -> str:
    """Run a program; returns its standard output.

    Raises:
        BoardError: it is not there, fails, or takes too long; says what it said.
    """
    name = command[0]
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
        )
    except OSError as error:
        raise BoardError(f"{name}: {error.strerror}") from None
    try:
        async with asyncio.timeout(PATIENCE_S):
            said, complained = await process.communicate()
    except BaseException as error:  # also a caller that has gone: what comes next must not meet a tool that still runs
        with suppress(ProcessLookupError):  # it has just ended
            process.kill()
        await process.wait()
        if isinstance(error, TimeoutError):
            raise BoardError(f"{name}: no end within {PATIENCE_S:g} s") from None
        raise
    if process.returncode:
        words = " ".join((complained or said).decode(errors="replace").split())[:WORDS_CHARACTERS_MAX]
        raise BoardError(f"{' '.join(command)}: exit code {process.returncode}: {words}")
    return said.decode(errors="replace")
