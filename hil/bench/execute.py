"""Runs a prepared scenario and leaves its folder behind: what `flatrack run`, `replay` and `soak` have in common."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console

from boards import profiles
from flightsw.compute.inference import InferenceCache
from hil.bench import folder as folders
from hil.bench import sky, summary
from hil.bench.inventory_board import open_boards
from hil.bench.judge import Outcome
from hil.bench.lab_broker import check_broker
from hil.bench.pace import LATENCY_MQTT_S, LATENCY_SERIAL_S, LATENCY_UART_S, Pace
from hil.bench.progress import Progress
from hil.bench.run import Bench, Operator
from hil.bench.scenario import ElementsOrbit, Scenario, link_names
from hil.bench.surroundings import prepare_surroundings
from hil.bench.workload import Workload
from hil.channel.relay import Observer
from hil.faults.drawing import draw
from hil.imagery.mosaic import save_mosaic
from hil.sim.streams import Streams

SUMMARY_COLUMNS: Final = 100
"""Width of `summary.txt`."""

QUIET_SHARE: Final = 0.45
"""Random faults begin in this first share of a run; the rest is time to converge."""


@dataclass(frozen=True, slots=True)
class Execution:
    """A run and what it left.

    Attributes:
        outcome: the verdict and its numbers.
        title: of the summary.
        mosaic: the picture, when there is a folder and a workload.
    """

    outcome: Outcome
    title: str
    mosaic: Path | None


def prepare(scenario: Scenario, seed: int, faults: str) -> Scenario:
    """The scenario with the faults that were asked for.

    Args:
        scenario: as loaded.
        seed: what random faults are drawn from.
        faults: `scenario`, `random` or `none`.
    """
    if faults == "scenario":
        return scenario
    if faults == "none":
        return msgspec.structs.replace(scenario, faults=(), expect={}, radiation=None)
    drawn = draw(
        Streams(seed).child("faults").random,
        [node.name for node in scenario.nodes],
        link_names(scenario),
        0.0,
        scenario.duration_s * QUIET_SHARE,
    )
    return msgspec.structs.replace(scenario, faults=drawn, expect={})


def check_inputs(scenario: Scenario, scene: Path | None = None) -> None:
    """Read every file that a scenario names, so that what is missing is told before anything is made.

    Raises:
        ConfigError: scene, model, profile or orbital elements cannot be used.
    """
    for node in scenario.nodes:
        if node.kind != "external":
            profiles.load(node.profile)
    if scenario.workload is not None:
        Workload(scenario.workload, Streams(0), scene)
    if isinstance(scenario.orbit, ElementsOrbit):
        sky.compute(scenario)
    open_boards(scenario)


def real_time(scenario: Scenario, time_scale: float, broker: str = "nats") -> Pace:
    """The pace of a run in real time on this machine.

    Args:
        scenario: what will run; its wires say how patient links must be.
        time_scale: mission seconds in a second of the machine.
        broker: as of `Pace`.

    Raises:
        ConfigError: a board on MQTT cannot reach this broker.
    """
    check_broker(scenario, broker)
    allowed = [LATENCY_SERIAL_S]
    allowed += [LATENCY_MQTT_S for node in scenario.nodes if node.link == "mqtt"]
    # an emulated processor is slow on any wire
    allowed += [
        LATENCY_UART_S
        for node in scenario.nodes
        if node.kind == "emulated" or (node.kind == "board" and node.link != "mqtt")
    ]
    latency_s = max(allowed)
    return Pace(time.time_ns, time_scale, broker, len(os.sched_getaffinity(0)), latency_s)


def execute(
    scenario: Scenario,
    seed: int,
    *,
    until_s: float | None = None,
    scene: Path | None = None,
    folder: Path | None = None,
    cache: InferenceCache | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    observer: Observer | None = None,
    pace: Pace | None = None,
    operator: Operator | None = None,
) -> Execution:
    """Run a scenario, in virtual time or at a pace in real time; with a folder, everything that a run leaves is written
    there, also when it is interrupted.

    Raises:
        ConfigError: scene, model or profile cannot be used.
        SimulationError: the run itself is unsound.
    """
    cpu_started_s, started_s = time.process_time(), time.monotonic()
    bench = Bench(
        scenario,
        seed,
        until_s=until_s,
        folder=folder,
        user_scene=scene,
        cache=cache,
        on_progress=on_progress,
        header={"flatrack": folders.software_version()},
        observer=observer,
        pace=pace,
        operator=operator,
        surroundings=prepare_surroundings(scenario),
    )
    outcome = bench.run()
    cpu_s = time.process_time() - cpu_started_s
    outcome.counters["cpu_s"] = round(cpu_s, 3)
    if pace is None:
        outcome.counters["speed"] = round(outcome.ended_ns / 1e9 / cpu_s, 1)
    else:
        outcome.counters["real_s"] = round(time.monotonic() - started_s, 1)
    title = f"{scenario.name}: {scenario.title}, seed {seed}"
    mosaic = None
    if folder is not None:
        mosaic = _leave(folder, bench, outcome, scene, title)
    return Execution(outcome, title, mosaic)


def _leave(folder: Path, bench: Bench, outcome: Outcome, scene: Path | None, title: str) -> Path | None:
    until_s = bench.until_ns / 1e9
    folders.save_json(
        folder / folders.RUN_FILE,
        folders.identity(
            bench.scenario,
            bench.seed,
            until_s,
            scene,
            outcome.digest,
            interrupted=outcome.interrupted,
            passed=outcome.passed,
            time_scale=outcome.time_scale,
        ),
    )
    folders.save_json(
        folder / "summary.json",
        {
            "passed": outcome.passed,
            "is_whole": outcome.is_whole,
            "digest": outcome.digest,
            "violations": outcome.violations,
            "unmet": outcome.unmet,
            "bounds": outcome.bounds,
            "lag": outcome.lag,
            "counters": outcome.counters,
        },
    )
    with (folder / "summary.txt").open("w", encoding="utf-8") as text:
        console = Console(file=text, width=SUMMARY_COLUMNS, highlight=False, markup=False)
        console.print(summary.table(outcome, title))
        console.print(summary.verdict(outcome), soft_wrap=True)
    if outcome.crash:
        (folder / folders.CRASH_FILE).write_text(outcome.crash, encoding="utf-8")
    results = folder / folders.RESULTS_FOLDER
    results.mkdir()
    for job, result in sorted(outcome.results.items()):
        (results / f"job-{job:05}.mask").write_bytes(result.result)
    if bench.workload is None or not outcome.results:
        return None
    path = folder / "mosaic.png"
    save_mosaic(path, bench.mosaic_rows(), title=title, attribution=bench.workload.scene.attribution)
    return path
