"""systemd: a transient service unit for each worker (systemd-run(1), systemd.exec(5), systemd.resource-control(5)).

The unit has a fixed name, so that one that a dead manager left behind is ended by the next start. `systemd-run` stays
as its client: it hands its own standard streams to the unit, waits, and says at the end why it ended.
"""

import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from boards.worker.isolation.isolator import Limits, Setup

RUNNING: Final = Path("run/systemd/system")
"""Is there when systemd is the system's service manager. Source: sd_booted(3)."""
GPU_GROUPS: Final = "video render"
"""Who may open the devices of a GPU on Jetson and on desktop systems."""

_RESULT = re.compile(r"Finished with result: (\S+)")


class Systemd:
    """Implements `boards.worker.isolation.Isolator`.

    Args:
        name: of the worker, unique on this machine.
        root: where the system's files lie.
        which: finds programs.
    """

    name = "systemd"

    def __init__(self, name: str, root: Path = Path("/"), which: Callable[[str], str | None] = shutil.which) -> None:
        self.unit = f"flatrack-worker-{re.sub('[^A-Za-z0-9_.-]', '-', name)}.service"
        self._root = root
        self._which = which

    def obstacle(self) -> str:
        """Why it cannot be used on this board; empty when it can."""
        if not (self._root / RUNNING).is_dir():
            return "systemd does not run this system"
        if self._which("systemd-run") is None:
            return "systemd-run is not installed"
        return "" if os.geteuid() == 0 else "only root may start units of the system"

    def prepare(self, limits: Limits) -> None:
        """Nothing: a unit is made by its command."""

    def command(self, argv: Sequence[str], limits: Limits, readable: Sequence[Path]) -> tuple[str, ...]:
        """The command that runs `argv` in a unit of its own; a unit of this name that still runs is ended first."""
        properties = {
            "MemoryMax": f"{limits.memory_bytes}",
            "MemorySwapMax": "0",
            "OOMPolicy": "kill",
            "TasksMax": f"{limits.tasks_max}",
            "NoNewPrivileges": "yes",
            "DynamicUser": "yes",
            "ProtectSystem": "strict",
            "ProtectHome": "read-only",
            "PrivateTmp": "yes",
            "PrivateNetwork": "yes",
            "RestrictAddressFamilies": "AF_UNIX AF_NETLINK",
            "CapabilityBoundingSet": "",
            "SystemCallFilter": "@system-service",
            "LimitCORE": "0",
        }
        if limits.cpu_cores is not None:
            properties["CPUQuota"] = f"{max(1, round(100 * limits.cpu_cores))}%"
        if limits.needs_gpu:
            properties["SupplementaryGroups"] = GPU_GROUPS
        else:
            properties["PrivateDevices"] = "yes"
        given = [word for key, value in properties.items() for word in ("-p", f"{key}={value}")]
        run = ["systemd-run", "--pipe", "--wait", "--collect", f"--unit={self.unit}", *given, "--", *argv]
        ended = (
            f"systemctl kill --signal=KILL {self.unit}; systemctl stop {self.unit}; systemctl reset-failed {self.unit}"
        )
        return ("/bin/sh", "-c", f'({ended}) >/dev/null 2>&1; exec "$@"', "sh", *run)

    def setup(self, limits: Limits) -> Setup:
        """Nothing that the unit does not do."""
        return {}

    def enforces(self, limits: Limits) -> dict[str, str]:
        """Limit -> by what."""
        cpu = {} if limits.cpu_cores is None else {"cpu_limit": "CPUQuota of the unit"}
        return {"memory_limit": "MemoryMax of the unit", "tasks_limit": "TasksMax of the unit", **cpu}

    def clear(self) -> None:
        """Nothing: a unit ends as a whole."""

    def reason(self, words: str) -> str:
        """The unit's result, such as `oom-kill`."""
        found = _RESULT.findall(words)
        return found[-1] if found and found[-1] not in ("success", "exit-code", "signal") else ""
