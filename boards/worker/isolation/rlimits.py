"""rlimits: what any Linux has (getrlimit(2), prctl(2), unshare(2)). The program sets them itself, before it reads
anything foreign; what is set so cannot be raised again without the right to.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from boards.worker.isolation.isolator import Limits, Setup


class Rlimits:
    """Implements `boards.worker.isolation.Isolator`."""

    name = "rlimits"

    def obstacle(self) -> str:
        """Never one."""
        return ""

    def prepare(self, limits: Limits) -> None:
        """Nothing."""

    def command(self, argv: Sequence[str], limits: Limits, readable: Sequence[Path]) -> tuple[str, ...]:
        """The command itself."""
        return tuple(argv)

    def setup(self, limits: Limits) -> Setup:
        """Addresses, tasks, and writing; a network without interfaces."""
        return {"rlimits": rlimits_of(limits), "no_new_privileges": True, "own_network": True}

    def enforces(self, limits: Limits) -> dict[str, str]:
        """Limit -> by what."""
        return rlimits_enforced(limits)

    def clear(self) -> None:
        """Nothing: whoever has left the process group is not known."""

    def reason(self, words: str) -> str:
        """Nobody ends it from outside for a limit."""
        return ""


def rlimits_of(limits: Limits) -> dict[str, int]:
    """Name of a limit without `RLIMIT_` -> value. A GPU's runtime reserves more addresses than there is memory, and
    keeps files: for it neither is limited."""
    values = {} if limits.needs_gpu else {"AS": limits.memory_bytes, "FSIZE": 0}
    return values if os.geteuid() == 0 else {**values, "NPROC": limits.tasks_max}


def rlimits_enforced(limits: Limits) -> dict[str, str]:
    """What these limits enforce: that of tasks does not hold for root, getrlimit(2)."""
    enforced = {} if limits.needs_gpu else {"memory_limit": "RLIMIT_AS of the process"}
    return enforced if os.geteuid() == 0 else {**enforced, "tasks_limit": "RLIMIT_NPROC of the user"}
