"""Commands that ask a ground: a running one over its control socket, or that of a run in virtual time (`console`).

A command is a coroutine function that takes a `GroundPeer` first. On the shell it gets the ground of `--control`; the
console, whose loop runs already, awaits it with the ground of its own run.
"""

import asyncio
import functools
import sys
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Final, Protocol

import click

from flightsw.errors import ConfigError, ControlError, LinkTimeout
from flightsw.host.control import connect

ANSWER_S: Final = 10.0
"""How long a ground may take to answer [s]: it answers at once or hangs."""
EXIT_FAIL: Final = 1

Asking = Callable[..., Awaitable[bool | None]]
"""A command: `await ask(ground, **arguments)`; False is a failed verdict."""


Whole = Coroutine[Any, Any, bool | None]


class GroundPeer(Protocol):
    """What answers the methods of `ground.control`."""

    async def ask(self, method: str, *params: Any) -> Any:
        """The answer.

        Raises:
            ConfigError: the ground refuses; says why.
            LinkTimeout: it does not answer.
        """
        ...


def node_key(node: str) -> int | str:
    """A node as the ground takes it: its number or its name."""
    return int(node) if node.isdecimal() else node


class RemoteGround:
    """A running ground, over its control socket. Use as an asynchronous context manager.

    Args:
        control: the socket.
    """

    def __init__(self, control: Path) -> None:
        self._control = control

    async def __aenter__(self) -> "RemoteGround":
        self._peer = await connect(self._control, {})
        return self

    async def __aexit__(self, *_: object) -> None:
        self._peer.close()

    async def ask(self, method: str, *params: Any) -> Any:
        """The answer of the running ground."""
        try:
            async with asyncio.timeout(ANSWER_S):
                return await self._peer.call(method, *params)
        except ControlError as error:  # the user's: a node or an opcode that is not there
            raise ConfigError(str(error)) from None
        except TimeoutError:
            raise LinkTimeout(f"the ground did not answer within {ANSWER_S:g} s") from None


def asks_ground(function: Asking) -> Callable[..., Any]:
    """Makes the function of a click command of a coroutine function that asks a ground.

    It stands below `@click.command` and the command's own options, and adds `--control`.
    """

    def run(context: click.Context, /, control: Path | None, **arguments: Any) -> Whole | None:
        console = context.find_object(ConsoleGround)
        if console is not None:
            return _whole(function(console.peer, **arguments))
        if control is None:
            raise ConfigError("--control: missing, expected the control socket of a running ground")
        if asyncio.run(_ask(function, control, arguments)) is False:
            sys.exit(EXIT_FAIL)
        return None

    functools.update_wrapper(run, function)
    control = click.option(
        "--control",
        type=click.Path(path_type=Path),
        envvar="FLATRACK_CONTROL",
        help="The control socket of the ground.  [env: FLATRACK_CONTROL]",
    )
    return control(click.pass_context(run))


class ConsoleGround:
    """Marks a click context whose commands are awaited by a console.

    Args:
        peer: the ground of its run.
    """

    def __init__(self, peer: GroundPeer) -> None:
        self.peer = peer


async def _ask(function: Asking, control: Path, arguments: dict[str, Any]) -> bool | None:
    async with RemoteGround(control) as ground:
        return await function(ground, **arguments)


async def _whole(asking: Awaitable[bool | None]) -> bool | None:
    return await asking
