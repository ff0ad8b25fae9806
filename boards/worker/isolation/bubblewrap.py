"""bubblewrap: namespaces for processes, network and files (bwrap(1)), with the memory limit of an rlimit."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from boards.worker.isolation.isolator import Limits, Setup
from boards.worker.isolation.rlimits import rlimits_enforced, rlimits_of

SYSTEM: Final = ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/alternatives")
"""What a program needs to start: libraries, and where they are found."""
GPU_SYSTEM: Final = ("/etc", "/sys", "/opt")
"""What the runtime of a GPU looks at."""


class Bubblewrap:
    """Implements `boards.worker.isolation.Isolator`.

    Args:
        which: finds programs.
    """

    name = "bubblewrap"

    def __init__(self, which: Callable[[str], str | None] = shutil.which) -> None:
        self._which = which

    def obstacle(self) -> str:
        """Why it cannot be used on this board; empty when it can."""
        return "bwrap is not installed" if self._which("bwrap") is None else ""

    def prepare(self, limits: Limits) -> None:
        """Nothing."""

    def command(self, argv: Sequence[str], limits: Limits, readable: Sequence[Path]) -> tuple[str, ...]:
        """The command that runs `argv` where it sees nothing but what it needs, and can write nothing but `/tmp`."""
        system = (*SYSTEM, *GPU_SYSTEM) if limits.needs_gpu else SYSTEM
        bound = [word for path in system for word in ("--ro-bind-try", path, path)]
        asked = [word for path in readable for word in ("--ro-bind", str(path), str(path))]
        devices = ("--dev-bind", "/dev", "/dev") if limits.needs_gpu else ("--dev", "/dev")
        return (
            *("bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--clearenv", "--cap-drop", "ALL"),
            *bound,
            *("--tmpfs", "/tmp"),
            *asked,  # after /tmp, which some of it may lie in
            *("--proc", "/proc"),
            *devices,
            *("--remount-ro", "/", "--chdir", "/", "--"),
            *argv,
        )

    def setup(self, limits: Limits) -> Setup:
        """The limits that namespaces do not have."""
        return {"rlimits": rlimits_of(limits), "no_new_privileges": True}

    def enforces(self, limits: Limits) -> dict[str, str]:
        """Limit -> by what."""
        return rlimits_enforced(limits)

    def clear(self) -> None:
        """Nothing: all die with the first process of their namespace."""

    def reason(self, words: str) -> str:
        """Nobody ends it from outside for a limit."""
        return ""
