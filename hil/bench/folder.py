"""The run folder: what a run leaves behind, and what a replay needs.

| file | content |
|---|---|
| `run.json` | identity: scenario, seed, end, versions, digest; enough to run it again |
| `trace.jsonl` | every event, one JSON line each, with a rolling digest |
| `summary.txt`, `summary.json` | the verdict and its numbers |
| `ledger.db`, `archive.db` | the ground's SQLite files |
| `results/` | each job's mask as it came down |
| `crash.txt` | traceback, when flight or ground code crashed |
| `nodes/` | of each program: settings, state, disk, what it printed (docs/processes.md) |
| `mosaic.png` | scene, truth and masks side by side |
"""

import platform
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from flightsw.config import Positive
from flightsw.errors import ConfigError
from hil.bench.scenario import Scenario, check
from hil.sim.loop import LOOP_VERSION

RUN_FILE: Final = "run.json"
TRACE_FILE: Final = "trace.jsonl"
RESULTS_FOLDER: Final = "results"
CRASH_FILE: Final = "crash.txt"
RUNS_MAX: Final = 10_000
"""Runs of one scenario and seed in one folder; more means that somebody forgot to clean."""


class RunIdentity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What makes a run that run, and what it ran on (the last four are for the reader)."""

    scenario: Scenario
    seed: Annotated[int, msgspec.Meta(ge=0)]
    until_s: Positive
    scene: str | None
    """Path of the user's own scene."""
    flatrack: str
    loop_version: int
    digest: str
    interrupted: bool
    passed: bool
    python: str
    machine: str
    numpy: str
    onnxruntime: str
    time_scale: float = 0.0
    """Mission seconds in a second of the machine; 0 in virtual time."""

    def arithmetic(self) -> tuple[str, ...]:
        """What floating-point results depend on."""
        return (self.machine, f"numpy {self.numpy}", f"onnxruntime {self.onnxruntime}")


def identity(
    scenario: Scenario,
    seed: int,
    until_s: float,
    scene: Path | None,
    digest: str,
    *,
    interrupted: bool,
    passed: bool,
    time_scale: float = 0.0,
) -> RunIdentity:
    """The identity of a run that ended in this process."""
    return RunIdentity(
        scenario=scenario,
        seed=seed,
        until_s=until_s,
        scene=None if scene is None else str(scene.resolve()),
        flatrack=software_version(),
        loop_version=LOOP_VERSION,
        digest=digest,
        interrupted=interrupted,
        passed=passed,
        python=sys.version.split()[0],
        machine=platform.machine(),
        numpy=metadata.version("numpy"),
        onnxruntime=_version_or_absent("onnxruntime"),
        time_scale=time_scale,
    )


@cache
def software_version() -> str:
    """Version of flatrack, with the commit when it runs from a checkout."""
    version = metadata.version("flatrack")
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return version
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return version
    return f"{version}+{answer.stdout.strip()}" if answer.returncode == 0 else version


def arithmetic() -> tuple[str, ...]:
    """What floating-point results depend on, in this process."""
    return (
        platform.machine(),
        f"numpy {metadata.version('numpy')}",
        f"onnxruntime {_version_or_absent('onnxruntime')}",
    )


def create(base: Path, scenario: str, seed: int) -> Path:
    """Make a new folder below base, named by scenario and seed, numbered when it is taken.

    Raises:
        ConfigError: the folder cannot be made.
    """
    for number in range(1, RUNS_MAX):
        folder = base / (f"{scenario}-{seed}" if number == 1 else f"{scenario}-{seed}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise ConfigError(f"{folder}: cannot make the run folder: {error.strerror}") from None
        return folder
    raise ConfigError(f"{base}: holds {RUNS_MAX} runs of {scenario} with seed {seed}; remove some or use --out")


def save_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")


def load_identity(folder: Path) -> RunIdentity:
    """Read what a run was.

    Raises:
        ConfigError: the folder holds no run, or its file is damaged.
    """
    path = folder / RUN_FILE
    try:
        identity = msgspec.json.decode(path.read_bytes(), type=RunIdentity)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; expected the folder of a run") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    check(identity.scenario, f"{path}: scenario")
    return identity


def _version_or_absent(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "absent"
