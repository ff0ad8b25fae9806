"""`[worker]` of a node's settings: how jobs are confined and what they run on."""

from typing import Annotated, Final, Literal

import msgspec

MEMORY_BYTES_MIN: Final = 128 * 1024 * 1024
"""Least memory of a worker [bytes]: interpreter, runtime and one session of the shipped model take about 100 MB."""
MEMORY_SHARE: Final = 0.5
"""Share of the board's memory that a worker may take when the settings say nothing: the manager and the operating
system need the rest."""

Isolation = Literal["auto", "systemd", "cgroup2", "bubblewrap", "rlimits", "inline"]
Provider = Literal["auto", "cpu", "cuda", "tensorrt"]


class WorkerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[worker]`: the process that runs the steps of jobs."""

    isolation: Isolation = "auto"
    """How it is confined; `auto` takes the best way that is proven to hold on this board, `inline` does without a
    process."""
    python: str = ""
    """Its interpreter, as a path; empty: the manager's own. GPU builds of the runtime may need another version."""
    memory_bytes: Annotated[int, msgspec.Meta(ge=MEMORY_BYTES_MIN)] | None = None
    """Most memory that it may take [bytes]; None: half of what the profile says that the board has."""
    cpu_cores: Annotated[float, msgspec.Meta(gt=0, le=1024)] | None = None
    """Most processor time that it may take [s/s]; None: no limit."""
    tasks_max: Annotated[int, msgspec.Meta(ge=16, le=65_536)] = 256
    """Most processes and threads in it: GPU runtimes start dozens."""
    step_s_max: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 900.0
    """Longest step [s]: then the worker is killed. Supervision notices far earlier; this holds when it is off."""
    provider: Provider = "auto"
    """What computes; `auto` takes the fastest that gives right answers."""
