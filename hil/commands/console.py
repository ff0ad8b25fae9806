"""`flatrack console`: fly a scenario by hand, in virtual time."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from flightsw.errors import ConfigError
from hil.bench import folder as folders
from hil.bench import summary
from hil.bench.console import Console, RunGround, clock_text
from hil.bench.execute import check_inputs, execute, prepare
from hil.bench.scenario import load, needs_real_time
from hil.commands.asking import ConsoleGround

EXIT_FAIL = 1
EXIT_USAGE = 2


def console_command(commands: Sequence[click.Command]) -> click.Command:
    """The subcommand.

    Args:
        commands: those that may be typed: they ask a ground (`hil.commands.asking`).
    """
    group = click.Group(
        name="", commands={str(one.name): one for one in commands}, context_settings={"help_option_names": ["--help"]}
    )

    async def run(words: list[str], ground: RunGround) -> bool | None:
        try:
            asked: Any = group.main(words, prog_name="", standalone_mode=False, obj=ConsoleGround(ground))
        except click.ClickException as error:
            raise ConfigError(error.format_message()) from None
        if not hasattr(asked, "__await__"):
            return None  # it was asked for help
        done: bool | None = await asked
        return done

    @click.command(name="console")
    @click.argument("scenario")
    @click.argument("procedure", type=click.Path(path_type=Path), required=False)
    @click.option("--seed", type=click.IntRange(min=0), default=7, show_default=True, help="Seed of all chance.")
    @click.option(
        "--faults",
        type=click.Choice(["scenario", "random", "none"]),
        default="scenario",
        show_default=True,
        help="As for run.",
    )
    @click.option("--out", type=click.Path(path_type=Path), help="Also leave a run folder here.")
    def command(scenario: str, procedure: Path | None, seed: int, faults: str, out: Path | None) -> None:
        """Fly a SCENARIO by hand in virtual time: lines of PROCEDURE, or what is typed.

        A line is `wait SECONDS`, `strike KIND field=value ...`, `quit`, or a command that asks a ground, such as
        `command sat-01 NODE.NOOP`. Time goes on while a line waits, and not otherwise. The same lines give the same
        text. Ends with 1 when a rule of the house was broken, with 2 when a line was wrong.
        """
        prepared = prepare(load(scenario), seed, faults)
        if needs_real_time(prepared):
            raise ConfigError(f"scenario {scenario!r}: has nodes that run in real time only, expected simulated ones")
        check_inputs(prepared)
        typed = procedure is None and sys.stdin.isatty()
        console = Console(_lines(procedure, typed), click.echo, run, echo=not typed)
        folder = None if out is None else folders.create(out, prepared.name, seed)
        done = execute(prepared, seed, folder=folder, operator=console)
        click.echo(f"{clock_text(done.outcome.ended_ns)}  {summary.verdict(done.outcome).plain.rstrip()}")
        if not done.outcome.passed:
            sys.exit(EXIT_FAIL)
        if console.error is not None and not typed:
            sys.exit(EXIT_USAGE)

    return command


def _lines(procedure: Path | None, typed: bool) -> Iterator[str]:
    if procedure is not None:
        try:
            yield from procedure.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{procedure}: cannot be read: {error}") from None
        return
    while True:
        try:
            yield input("> ") if typed else _line()
        except EOFError:
            return


def _line() -> str:
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line
