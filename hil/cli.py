"""The command line: `flatrack run`, `replay`, `list`, `soak`.

Exit codes: 0 the verdict is PASS, 1 it is FAIL, 2 the user's input is wrong, 130 interrupted.
"""

import math
import sys
import time
from pathlib import Path
from typing import Any, Literal

import click
from msgspec.structs import replace
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from flightsw.errors import ConfigError, FlatrackError
from hil.bench import folder as folders
from hil.bench import summary
from hil.bench.compare import PIXELS_DIFFERING_MAX, compare_masks
from hil.bench.execute import Execution, check_inputs, execute, prepare, real_time
from hil.bench.kinds import LAB_KINDS
from hil.bench.progress import Progress as RunProgress
from hil.bench.scenario import Scenario, load, needs_real_time, shipped, with_kind
from hil.bench.soak import Finding, seed_range, soak
from hil.capture.runs import run_recorder
from hil.commands.audit import audit_command
from hil.commands.boards import board_group
from hil.commands.completion import completion_command
from hil.commands.console import console_command
from hil.commands.dictionary import dictionary_command
from hil.commands.ground import command_command, status_command
from hil.commands.hardware import hardware_command
from hil.commands.inspection import inspect_command
from hil.commands.keys import keys_group
from hil.commands.mission_time import time_command
from hil.commands.null_modem import null_modem_command
from hil.commands.ping import ping_command
from hil.commands.rules import rules_group
from hil.commands.sequences import sequence_group
from hil.commands.telemetry import dumps_command, events_command, telemetry_command
from hil.commands.updates import update_group
from hil.sim.repeat import first_difference
from hil.sim.trace import read_trace

LoopKind = Literal["simulated", "process", "emulated"]
"""What all nodes of a scenario can be made of; a real board is one of its own."""
EXIT_FAIL = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


class Seconds(click.FloatRange):
    """A virtual time [s]: a millisecond or more, and finite."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number in the text."""
        seconds = float(super().convert(value, param, ctx))
        if not math.isfinite(seconds):
            self.fail(f"{value!r} is not a finite number of seconds.", param, ctx)
        return seconds


SECONDS = Seconds(min=0.001)


class Group(click.Group):
    """Turns the errors that flatrack raises on purpose into one line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            click.echo(f"flatrack: {error}", err=True)
            ctx.exit(EXIT_USAGE)
        except FlatrackError as error:
            click.echo(f"flatrack: {type(error).__name__}: {error}", err=True)
            ctx.exit(EXIT_FAIL)
        except KeyboardInterrupt:
            click.echo("flatrack: interrupted", err=True)
            ctx.exit(EXIT_INTERRUPTED)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="flatrack")
def main() -> None:
    """flatrack: a FlatSat for orbital data centres."""


@main.command()
@click.argument("scenario")
@click.option("--seed", type=click.IntRange(min=0), default=7, show_default=True, help="Seed of all chance.")
@click.option("--until", "until_s", type=SECONDS, help="Stop at this virtual time [s].")
@click.option("--scene", type=click.Path(path_type=Path), help="Your own multiband image instead of the shipped scene.")
@click.option(
    "--faults",
    type=click.Choice(["scenario", "random", "none"]),
    default="scenario",
    show_default=True,
    help="Faults of the scenario, drawn at random from the seed, or none.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Where run folders go."
)
@click.option("--pcap", type=click.Path(path_type=Path), help="Write what crosses the links as a pcapng capture.")
@click.option("--pcap-lost", is_flag=True, help="Also write frames that did not arrive.")
@click.option(
    "--kind",
    type=click.Choice(["simulated", "process", "emulated"]),
    help="What all nodes run as, whatever the scenario says.",
)
@click.option("--link", type=click.Choice(["serial", "mqtt"]), help="Lab wire of programs.  [default: serial]")
@click.option(
    "--time-scale",
    type=SECONDS,
    help="Run in real time, so many mission seconds in a second.  [default: virtual time; 1 with processes or boards]",
)
@click.option(
    "--image",
    type=click.Path(path_type=Path),
    help="Folder of the image of emulated boards.  [default: built on first use]",
)
@click.option(
    "--broker",
    default="nats",
    show_default=True,
    help="Of MQTT wires: nats, mosquitto or a URL mqtt://host:port.",
)
def run(
    scenario: str,
    seed: int,
    until_s: float | None,
    scene: Path | None,
    faults: str,
    out: Path,
    pcap: Path | None,
    pcap_lost: bool,
    kind: LoopKind | None,
    link: Literal["serial", "mqtt"] | None,
    time_scale: float | None,
    image: Path | None,
    broker: str,
) -> None:
    """Run a SCENARIO (a shipped name or a TOML file) and judge it: in virtual time, or in real time."""
    console = Console(highlight=False, markup=False)
    prepared = _of_kind(prepare(load(scenario), seed, faults), kind, link)
    if image is not None:
        prepared = replace(prepared, emulation=replace(prepared.emulation, image=str(image.resolve())))
    if time_scale is None and any(node.kind in LAB_KINDS for node in prepared.nodes):
        time_scale = 1.0
    pace = None if time_scale is None else real_time(prepared, time_scale, broker)
    check_inputs(prepared, scene)
    if pcap_lost and pcap is None:
        raise ConfigError("--pcap-lost: expected --pcap FILE beside it")
    recorder = None if pcap is None else run_recorder(pcap, prepared, seed, has_lost=pcap_lost)
    observer = None if recorder is None else recorder.observe
    try:
        folder = folders.create(out, prepared.name, seed)
        with _display(console) as show:
            done = execute(
                prepared,
                seed,
                until_s=until_s,
                scene=scene,
                folder=folder,
                on_progress=show,
                observer=observer,
                pace=pace,
            )
        _print(console, done)
    finally:
        if recorder is not None:
            recorder.close()
    if pace is None:
        console.print(f"replay: flatrack replay {folder}", soft_wrap=True)
    else:
        console.print(f"run folder: {folder}", soft_wrap=True)
    if done.outcome.interrupted:
        sys.exit(EXIT_INTERRUPTED)
    sys.exit(0 if done.outcome.passed else EXIT_FAIL)


@main.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
def replay(run_folder: Path) -> None:
    """Run the run in folder RUN again and compare the two, event by event."""
    console = Console(highlight=False, markup=False)
    identity = folders.load_identity(run_folder)
    if identity.time_scale:
        raise ConfigError(
            f"{run_folder}: ran in real time, at scale {identity.time_scale:g}; expected a run in virtual time, which "
            "alone can be repeated event for event"
        )
    recorded = run_folder / folders.TRACE_FILE
    events_count = sum(1 for _ in read_trace(recorded)[1])  # reading to the end proves the recorded trace whole
    scene = None if identity.scene is None else Path(identity.scene)
    check_inputs(identity.scenario, scene)
    if identity.interrupted:
        console.print(f"this run was interrupted after {events_count} events: the replay goes on to its planned end")
    again = folders.create(run_folder / "replays", identity.scenario.name, identity.seed)
    with _display(console) as show:
        done = execute(
            identity.scenario, identity.seed, until_s=identity.until_s, scene=scene, folder=again, on_progress=show
        )
    if done.outcome.interrupted:
        console.print("the replay was interrupted: nothing was compared", style="yellow")
        sys.exit(EXIT_INTERRUPTED)
    difference = first_difference(recorded, again / folders.TRACE_FILE, a_is_partial=identity.interrupted)
    console.print(f"recorded {identity.digest}\nreplayed {done.outcome.digest}")
    if difference is None and identity.interrupted:
        console.print(f"SAME as far as it went: the {events_count} events of the partial run", style="bold green")
        return
    if difference is None and identity.digest == done.outcome.digest:
        console.print("SAME: the replay is the run, event for event", style="bold green")
        return
    difference = difference or f"the events are equal, the digest in {run_folder / folders.RUN_FILE} is not theirs"
    console.print(difference, style="red", soft_wrap=True)
    if identity.flatrack != folders.software_version():
        console.print(f"recorded by flatrack {identity.flatrack}, this is {folders.software_version()}")
    masks = compare_masks(run_folder / folders.RESULTS_FOLDER, again / folders.RESULTS_FOLDER)
    worst = f"{masks.worst_share:.2%}"
    console.print(f"{masks.differing_count} of {masks.masks_count} masks differ, at most in {worst} of their pixels")
    arithmetic = folders.arithmetic()
    if identity.arithmetic() != arithmetic and masks.agrees:
        console.print(f"recorded on {', '.join(identity.arithmetic())}; this is {', '.join(arithmetic)}")
        console.print(
            f"SAME MASKS within {PIXELS_DIFFERING_MAX:.1%} of their pixels, as is expected of another machine",
            style="bold green",
        )
        return
    console.print("DIFFERENT", style="bold red")
    sys.exit(EXIT_FAIL)


@main.command(name="list")
def list_scenarios() -> None:
    """List the scenarios that come with flatrack."""
    for name in shipped():
        scenario = load(name)
        click.echo(f"{name:20} {len(scenario.nodes):5} nodes  {scenario.duration_s:8.0f} s  {scenario.title}")


@main.command(name="soak")
@click.argument("scenario")
@click.option("--seeds", default="1-20", show_default=True, help="Seeds to run, for example 1-200.")
@click.option("--workers", type=click.IntRange(min=1, max=256), default=2, show_default=True, help="Processes.")
@click.option(
    "--faults",
    type=click.Choice(["scenario", "random", "none"]),
    default="random",
    show_default=True,
    help="As for run.",
)
@click.option("--until", "until_s", type=SECONDS, help="Stop each at this virtual time [s].")
def soak_command(scenario: str, seeds: str, workers: int, faults: str, until_s: float | None) -> None:
    """Run a SCENARIO with many seeds, each with its own faults, and list those that break a rule."""
    numbers = seed_range(seeds)
    loaded = load(scenario)
    if needs_real_time(loaded):
        raise ConfigError(f"scenario {scenario!r}: has nodes that run in real time only, expected simulated ones")
    check_inputs(loaded)
    failed: list[Finding] = []
    started_s = time.monotonic()
    for finding in soak(scenario, numbers, workers=workers, faults=faults, until_s=until_s):
        if not finding.passed:
            failed.append(finding)
        click.echo(finding.line())
    for finding in sorted(failed, key=lambda f: f.seed):
        click.echo(f"FAIL seed {finding.seed}: {finding.reason}\n  replay: {finding.command}")
    click.echo(
        f"{len(numbers) - len(failed)} of {len(numbers)} seeds passed in {time.monotonic() - started_s:.0f} s with "
        f"{workers} workers"
    )
    sys.exit(EXIT_FAIL if failed else 0)


def _of_kind(scenario: Scenario, kind: LoopKind | None, link: Literal["serial", "mqtt"] | None) -> Scenario:
    """The scenario as the options ask."""
    if kind is None and link is None:
        return scenario
    if kind not in LAB_KINDS and link is not None:
        raise ConfigError(f"--link {link}: expected --kind process or emulated beside it")
    assert kind is not None, "a link alone is refused above"
    return with_kind(scenario, kind, link or "")


class _display:  # noqa: N801 - used as a context manager, like a function
    """A live progress bar on a terminal, a plain line each tenth of the run otherwise."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._tenth = 0

    def __enter__(self) -> "_display":
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("[bold]T+{task.fields[clock]}"),
                BarColumn(),
                TaskProgressColumn(),
                TextColumn("jobs {task.fields[jobs]}  {task.fields[news]}"),
                console=self._console,
                transient=True,
            )
            self._task = self._bar.add_task("run", total=1.0, clock="0:00:00", jobs="0/0", news="")
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, progress: RunProgress) -> None:
        """Show where the run is."""
        share = progress.now_ns / progress.until_ns
        seconds = progress.now_ns // 1_000_000_000
        clock = f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        jobs = f"{progress.jobs_ended}/{progress.jobs_accepted}"
        counts = progress.counters
        news = (
            f"paused {counts.get('job.paused', 0)}, upsets {counts.get('fault.upset', 0)}, "
            f"resets {counts.get('fault.node_reset', 0)}, retried {counts.get('job.retried', 0)}"
        )
        if self._bar is not None:
            self._bar.update(self._task, completed=share, clock=clock, jobs=jobs, news=news)
        elif int(share * 10) > self._tenth:
            self._tenth = int(share * 10)
            self._console.print(f"T+{clock}  jobs {jobs}  {news}")


def _print(console: Console, done: Execution) -> None:
    console.print(summary.table(done.outcome, done.title))
    if done.mosaic is not None:
        console.print(f"mosaic: {done.mosaic}", soft_wrap=True)
    console.print(f"trace digest: {done.outcome.digest}", soft_wrap=True)
    console.print(summary.verdict(done.outcome), soft_wrap=True)
    if done.outcome.crash:
        console.print(f"the traceback is in {folders.CRASH_FILE} of the run folder", soft_wrap=True)


main.add_command(inspect_command)
main.add_command(keys_group)
main.add_command(board_group)
main.add_command(command_command)
main.add_command(status_command)
main.add_command(telemetry_command)
main.add_command(events_command)
main.add_command(dumps_command)
main.add_command(hardware_command)
main.add_command(audit_command)
main.add_command(sequence_group)
main.add_command(time_command)
main.add_command(dictionary_command)
main.add_command(completion_command)
main.add_command(update_group)
main.add_command(null_modem_command)
main.add_command(ping_command)
main.add_command(rules_group)
ASKING = (
    command_command,
    status_command,
    telemetry_command,
    events_command,
    dumps_command,
    hardware_command,
    audit_command,
    sequence_group,
    time_command,
    update_group,
)
main.add_command(console_command(ASKING))


if __name__ == "__main__":
    main()
