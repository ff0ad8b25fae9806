"""cgroup v2: a control group of our own below the manager's (kernel documentation, admin-guide/cgroup-v2.rst).

The manager's own group must have been given to it: by systemd with `Delegate=yes`, or because there is nobody else, as
in a container. A group with processes in it cannot hand controllers down ("no internal processes"), so the processes of
ours first move down into `manager`. What groups do not do, namespaces or rlimits do: the worker is started through
bubblewrap where there is one.
"""

import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from boards.worker.isolation.isolator import Isolator, Limits, Setup
from flightsw.errors import BoardError

MOUNT: Final = Path("sys/fs/cgroup")
OWN: Final = Path("proc/self/cgroup")
MANAGER: Final = "manager"
"""The group of the manager below the one that it was given; also what `DelegateSubgroup=` should say."""
CONTROLLERS: Final = ("memory", "cpu", "pids")
DELEGATE: Final = ("user.delegate", "trusted.delegate")
"""Attributes by which systemd marks a group that it has given away. Source: systemd, CGROUP_DELEGATION."""
CPU_PERIOD_US: Final = 100_000

_ENTER: Final = 'echo $$ > "$0" && exec "$@"'


class Cgroup2:
    """Implements `boards.worker.isolation.Isolator`.

    Args:
        name: of the worker, unique on this machine.
        inner: what does the rest.
        root: where the system's files lie.
    """

    name = "cgroup2"

    def __init__(self, name: str, inner: Isolator, root: Path = Path("/")) -> None:
        self._name = f"worker-{name}".replace("/", "-")
        self._inner = inner
        self._mount = root / MOUNT
        self._own = root / OWN
        self._kills_before = 0

    @property
    def group(self) -> Path:
        """The worker's group."""
        return self._base() / self._name

    def obstacle(self) -> str:
        """Why it cannot be used on this board; empty when it can."""
        try:
            offered = (self._mount / "cgroup.controllers").read_text().split()
        except OSError:
            return "there is no cgroup v2"
        missing = [name for name in CONTROLLERS if name not in offered]
        if missing:
            return f"controllers are off in this kernel: {', '.join(missing)}" + _hint(missing)
        try:
            base = self._base()
            given = (base / "cgroup.controllers").read_text().split()
        except (OSError, BoardError) as error:
            return f"the manager's group is not known: {error}"
        if base != self._mount and not _is_delegated(base):
            return f"{base} was not given to the manager; expected Delegate=yes in its unit"
        missing = [name for name in CONTROLLERS if name not in given]
        return f"{base} was given without controllers: {', '.join(missing)}" if missing else ""

    def prepare(self, limits: Limits) -> None:
        """Make the worker's group, empty, with these limits. Raises: BoardError."""
        base, group = self._base(), self.group
        try:
            if base != self._mount:
                self._move_down(base)
            (base / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in CONTROLLERS))
            group.mkdir(exist_ok=True)
            self._kill_all()
            (group / "memory.max").write_text(f"{limits.memory_bytes}")
            with suppress(OSError):  # a kernel without swap accounting has no such file
                (group / "memory.swap.max").write_text("0")
            (group / "memory.oom.group").write_text("1")
            (group / "pids.max").write_text(f"{limits.tasks_max}")
            quota = "max" if limits.cpu_cores is None else f"{round(limits.cpu_cores * CPU_PERIOD_US)}"
            (group / "cpu.max").write_text(f"{quota} {CPU_PERIOD_US}")
        except OSError as error:
            raise BoardError(f"control group {group}: {error.strerror}") from error
        self._kills_before = self._kills_count()

    def command(self, argv: Sequence[str], limits: Limits, readable: Sequence[Path]) -> tuple[str, ...]:
        """The command that enters the group, and then confines `argv` further."""
        return ("/bin/sh", "-c", _ENTER, str(self.group / "cgroup.procs"), *self._inner.command(argv, limits, readable))

    def setup(self, limits: Limits) -> Setup:
        """That of the rest, without the limit of addresses: the group limits memory."""
        setup = dict(self._inner.setup(limits))
        setup["rlimits"] = {name: value for name, value in setup.get("rlimits", {}).items() if name != "AS"}
        return setup

    def enforces(self, limits: Limits) -> dict[str, str]:
        """Limit -> by what."""
        cpu = {} if limits.cpu_cores is None else {"cpu_limit": "cpu.max of its group"}
        return {"memory_limit": "memory.max of its group", "tasks_limit": "pids.max of its group", **cpu}

    def clear(self) -> None:
        """Kill what is left in the group."""
        with suppress(OSError, BoardError):  # then there is no group, and nobody in it
            self._kill_all()

    def reason(self, words: str) -> str:
        """`oom-kill` when the group's memory was all taken since the start."""
        return "oom-kill" if self._kills_count() > self._kills_before else ""

    def _base(self) -> Path:
        """The group that the manager was given. Raises: BoardError, OSError."""
        for line in self._own.read_text().splitlines():
            if line.startswith("0::/"):
                own = self._mount / line.removeprefix("0::/")
                return own.parent if own.name == MANAGER else own
        raise BoardError("no line 0:: in /proc/self/cgroup")

    def _move_down(self, base: Path) -> None:
        pids = (base / "cgroup.procs").read_text().split()
        if not pids:
            return
        (base / MANAGER).mkdir(exist_ok=True)
        for pid in pids:
            with suppress(ProcessLookupError):  # it has ended meanwhile
                (base / MANAGER / "cgroup.procs").write_text(pid)

    def _kill_all(self) -> None:
        """End what a dead manager has left in the group."""
        for pid in (self.group / "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):  # it has ended meanwhile
                os.kill(int(pid), signal.SIGKILL)

    def _kills_count(self) -> int:
        try:
            events = (self.group / "memory.events").read_text()
        except OSError:
            return 0
        counts = dict(line.split() for line in events.splitlines())
        return int(counts.get("oom_kill", 0))


def _is_delegated(group: Path) -> bool:
    for attribute in DELEGATE:
        with suppress(OSError):  # it has no such attribute
            if os.getxattr(group, attribute) == b"1":
                return True
    return False


def _hint(missing: Sequence[str]) -> str:
    return "; expected cgroup_enable=memory in the kernel's command line" if "memory" in missing else ""
