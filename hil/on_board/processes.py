"""Which processes of the board are the node's: launcher, manager, workers; by what /proc says of their commands."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flightsw.errors import BoardError

LAUNCHER: Final = "boards.launcher"
MANAGER: Final = "boards"
WORKER_PROGRAM: Final = "boards/worker/program.py"
"""How the path ends by which a worker is started."""


@dataclass(frozen=True, slots=True)
class Processes:
    """Processes of one board.

    Args:
        proc: its /proc.
    """

    proc: Path

    def launcher(self) -> int | None:
        """The launcher, or None."""
        return next(iter(self._with_module(LAUNCHER)), None)

    def manager(self) -> int | None:
        """The manager, or None while none runs."""
        return next(iter(self._with_module(MANAGER)), None)

    def workers(self) -> list[int]:
        """Worker processes, oldest first."""
        return [pid for pid in self._numbers() if _program_of(self._command(pid)).endswith(WORKER_PROGRAM)]

    def expect(self, target: str) -> int:
        """The process of a name: manager, launcher or worker.

        Raises:
            BoardError: no such process runs.
        """
        found = {"manager": self.manager, "launcher": self.launcher}.get(target)
        pid = next(iter(self.workers()), None) if found is None else found()
        if pid is None:
            raise BoardError(f"no {target} runs on this board")
        return pid

    def _with_module(self, module: str) -> list[int]:
        """Processes that were started as `python -m module`."""
        found = []
        for pid in self._numbers():
            words = self._command(pid)
            if "-m" in words and words[words.index("-m") + 1 : words.index("-m") + 2] == [module]:
                found.append(pid)
        return found

    def _numbers(self) -> list[int]:
        return sorted(int(one.name) for one in self.proc.iterdir() if one.name.isdigit())

    def _command(self, pid: int) -> list[str]:
        """Words of its command; none when it has gone, or is a thread of the kernel."""
        try:
            return (self.proc / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
        except OSError:
            return []


def _program_of(words: list[str]) -> str:
    """What an interpreter runs: its first argument that is no option. `bwrap` and `systemd-run`, which stay beside the
    worker that they have started, name its program later: theirs is none."""
    return next((word for word in words[1:] if not word.startswith("-")), "")
