"""What a component of the manager is to the others: a name, handlers of its commands, values of its channels."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from flightsw.wire.messages import CommandCode

Scalar = int | float | bool | str
"""A channel's value."""


class Outcome(NamedTuple):
    """How an executed command ended."""

    code: CommandCode
    detail: str = ""


OK = Outcome(CommandCode.OK)

Handler = Callable[[Any], Outcome]
"""Executes one command; its arguments were checked against the dictionary and come in its order."""


class Execution(Protocol):
    """A command that takes time, while it is under way."""

    def progress(self, step: int, detail: str = "") -> None:
        """Tell the ground how far it is."""
        ...

    def finish(self, outcome: Outcome) -> None:
        """Say how it ended, once."""
        ...


LongHandler = Callable[[Any, Execution], Outcome | None]
"""Begins a command that takes time; None: it goes on, and `Execution.finish` will say how it ended."""

Report = Callable[..., None]
"""`report("LIMITS.FIRED", rule, reason)`: an event of the dictionary and its arguments in order."""

Dump = Callable[[str, bytes], int]
"""`dump("LIMITS", data)`: sends a data product to the ground; returns its number."""

Audit = Callable[[str, Mapping[str, object]], None]
"""`audit("command", fields)`: adds a record to the hash chain."""

Execute = Callable[[str, tuple[Any, ...], str], Outcome]
"""`execute(opcode, arguments, origin)`: runs a command of an on-board origin now, with all checks."""


class Component(Protocol):
    """A part of the manager with commands and channels.

    One with periodic work also has `cycle(now_ns)`, which the rate group calls in a fixed order.
    """

    @property
    def name(self) -> str:
        """As in the dictionary."""
        ...

    def handlers(self) -> Mapping[str, Handler | LongHandler]:
        """Command, without the component's name -> what executes it. NOOP and RESET_COUNTERS are not among them."""
        ...

    def channels(self) -> Mapping[str, Scalar]:
        """A value for every channel of the component in the dictionary."""
        ...
