"""What a way of isolation offers, and what it is asked to enforce."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

Setup = dict[str, Any]
"""What a program gives up by itself; as `boards.worker.program.confine` reads it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a worker may take."""

    memory_bytes: int
    cpu_cores: float | None
    """Processor time [s/s]; None: no limit."""
    tasks_max: int
    needs_gpu: bool = False
    """It must see the devices, and may reserve far more addresses than memory."""


class Isolator(Protocol):
    """One way to confine a program."""

    name: str

    def obstacle(self) -> str:
        """Why it cannot be used on this board; empty when it can."""
        ...

    def prepare(self, limits: Limits) -> None:
        """Make ready for one start. Raises: BoardError."""
        ...

    def command(self, argv: Sequence[str], limits: Limits, readable: Sequence[Path]) -> tuple[str, ...]:
        """The command that runs `argv` confined.

        Args:
            argv: program and arguments; its standard streams are those of the command.
            limits: what it may take.
            readable: files and folders that it must be able to read, beside the system's.
        """
        ...

    def setup(self, limits: Limits) -> Setup:
        """What the program has to give up by itself."""
        ...

    def enforces(self, limits: Limits) -> dict[str, str]:
        """Limit (`memory_limit`, `cpu_limit`, `tasks_limit`) -> by what; a limit that is not there is not enforced."""
        ...

    def clear(self) -> None:
        """Kill what a confined program has left behind, after it has ended."""
        ...

    def reason(self, words: str) -> str:
        """Why a confined program was ended from outside, where this way knows more than its exit code.

        Args:
            words: the last that the command said on standard error.
        """
        ...
