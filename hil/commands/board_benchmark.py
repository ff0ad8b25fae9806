"""`flatrack board benchmark`: run on a board, it measures the board and writes the profile that fits it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import click
import numpy as np

from boards import profiles
from boards.benchmark import MINUTES, MINUTES_MIN, RUNS, Measured, measure, measured_profile, profile_text
from boards.support.hardware import BoardHardware, open_hardware
from boards.support.readings import BoardReading
from boards.worker.runner import WorkerRunner, open_runner
from boards.worker.settings import WorkerSettings
from flightsw.compute import cloud_mask
from flightsw.config import BoardProfile
from flightsw.errors import ConfigError
from flightsw.objects.digest import digest_of
from flightsw.ports import Model
from hil.bench.workload import asset

MODEL: Final = "cloud-mask.onnx"
SIDE_PX: Final = 256
"""Side of the tile that is computed [px]: so large that what a run costs beside the network does not show."""
PIXELS_A_MPIX: Final = 1_000_000


class BoardSubject:
    """Implements `boards.benchmark.Subject`: this machine, its sensors, and the shipped model in a worker.

    Args:
        hardware: reads the sensors.
        runner: computes.
        model: that was loaded into it.
        tile: encoded input.
        mpix: of the tile [Mpixel].
    """

    def __init__(self, hardware: BoardHardware, runner: WorkerRunner, model: Model, tile: bytes, mpix: float) -> None:
        self._hardware = hardware
        self._runner = runner
        self._model = model
        self._tile = tile
        self._mpix = mpix

    def now_ns(self) -> int:
        """Monotonic time of the machine [ns]."""
        return time.monotonic_ns()

    async def rest(self, seconds: float) -> None:
        """Do nothing for a time [s]."""
        await asyncio.sleep(seconds)

    async def compute(self) -> float:
        """One step of a cloud mask, computed by the worker; returns its size [Mpixel]. Raises: BoardError."""
        await self._runner.step(cloud_mask.NAME, self._model, b"", self._tile, self._mpix)
        return self._mpix

    def read(self) -> BoardReading:
        """All sensors now."""
        return self._hardware.read()


@asynccontextmanager
async def open_subject(
    hardware: BoardHardware, worker: WorkerSettings, profile: BoardProfile, say: Callable[[str], None]
) -> AsyncIterator[BoardSubject]:
    """The board with a worker that is ready.

    Raises:
        ConfigError: the interpreter or the model cannot be used.
        BoardError: the isolation that is asked for cannot be had, or the worker does not start.
    """
    tile = np.full((SIDE_PX, SIDE_PX, cloud_mask.BANDS), cloud_mask.REFLECTANCE_DN // 5, np.uint16)
    data = asset(MODEL, "model").read_bytes()
    runner = await open_runner(worker, profile, name="benchmark", log=lambda kind, fields: None)
    try:
        await runner.ready()
        for one in runner.capabilities():
            if one.name in ("accelerator", "memory_limit"):
                say(f"{one.name}: {one.support.name.lower()}: {one.detail}")
        model = runner.load(digest_of(data), data)
        yield BoardSubject(hardware, runner, model, cloud_mask.encode_tile(tile), SIDE_PX * SIDE_PX / PIXELS_A_MPIX)
    finally:
        await runner.close()


@click.command(name="benchmark")
@click.option("--profile", "base_name", default="", help="Profile to begin with.  [default: the one that fits]")
@click.option("--out", type=click.Path(path_type=Path), help="File to write.  [default: standard output]")
@click.option("--name", default="", help="Name of the new profile.  [default: that of the file, or NAME-measured]")
@click.option(
    "--minutes",
    type=click.FloatRange(min=MINUTES_MIN),
    default=MINUTES,
    show_default=True,
    help="How long it rests, computes and cools in all.",
)
@click.option("--runs", type=click.IntRange(min=1), default=RUNS, show_default=True, help="Timed runs of the model.")
@click.option("--python", default="", help="Interpreter of the worker.  [default: this one]")
@click.option("--kind", default="auto", show_default=True, help="Family of the board: raspberry-pi, jetson, host.")
def benchmark_command(
    base_name: str, out: Path | None, name: str, minutes: float, runs: int, python: str, kind: str
) -> None:
    """Measure THIS board and write its profile: speed, power, heat. Nothing else should run on it meanwhile."""
    hardware = open_hardware(kind, monotonic_ns=time.monotonic_ns)
    base = _base(hardware, base_name)
    model = hardware.identity.model or "a board without a name"
    _say(f"{model}, from profile {base.name}")

    async def work() -> Measured:
        async with open_subject(hardware, WorkerSettings(python=python), base, _say) as subject:
            return await measure(subject, minutes=minutes, runs=runs, say=_say)

    found = asyncio.run(work())
    for line in _lines(found):
        _say(line)
    date = time.strftime("%Y-%m-%d", time.gmtime())
    profile = measured_profile(base, found, name or _name_of(out, base), model, date)
    text = profile_text(profile)
    if out is None:
        click.echo(text, nl=False)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{out}: cannot be written: {error.strerror}") from None
    _say(f"{out}: written")


def _base(hardware: BoardHardware, name: str) -> BoardProfile:
    name = name or hardware.identity.profile
    if not name:
        shipped = ", ".join(profiles.names())
        raise ConfigError(f"--profile: missing, and no shipped profile fits this board, expected one of {shipped}")
    return profiles.load(name)


def _name_of(out: Path | None, base: BoardProfile) -> str:
    return f"{base.name}-measured" if out is None else out.name.removesuffix(profiles.SUFFIX)


def _lines(found: Measured) -> list[str]:
    """What was found, for a person."""
    lines = [f"speed: {found.mpix_per_s:.4g} Mpixel/s, median of {found.runs_count} runs"]
    if found.idle_w is not None:
        lines.append(f"idle: {found.idle_w:.2f} W")
    if found.compute_w is not None:
        lines.append(f"computing adds: {found.compute_w:.2f} W")
    if found.thermal is not None:
        thermal = found.thermal
        lines.append(
            f"heat: {thermal.rise_k:.1f} K after {thermal.tau_s:.0f} s and more, {thermal.die_k:.1f} K at once"
        )
    return [*lines, *found.notes]


def _say(text: str) -> None:
    click.echo(f"benchmark: {text}", err=True)
