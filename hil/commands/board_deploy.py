"""`flatrack board deploy`: software, settings and keys onto a board over ssh. docs/boards/raspberry-pi.md."""

import asyncio
from pathlib import Path
from typing import Final

import click
from click.core import ParameterSource

from flightsw.errors import ConfigError
from hil.inventory.boards import load
from hil.inventory.deployment import CONFIRM_S, WAIT_S, Deployment, Options
from hil.inventory.locks import held

PATH: Final = click.Path(path_type=Path)
SECONDS: Final = click.FloatRange(1.0, 3600.0)


@click.command(name="deploy")
@click.argument("name")
@click.option("--from", "wheelhouse", type=PATH, help="A folder with the board's wheels; else pip is asked for them.")
@click.option("--control", type=PATH, help="Socket of a ground that hears the node; else its UART is listened to.")
@click.option("--without-link", is_flag=True, help="Nobody listens: be content when the node has run for 20 s.")
@click.option("--bench", "is_bench", is_flag=True, help="Let the on-board fault agent run there.")
@click.option("--wait", "wait_s", type=SECONDS, default=WAIT_S, show_default=True, help="For the first beacon [s].")
@click.option(
    "--confirm",
    "confirm_s",
    type=SECONDS,
    default=CONFIRM_S,
    show_default=True,
    help="How much longer the board waits to be told that it came, before it goes back by itself [s].",
)
@click.pass_context
def deploy_command(
    context: click.Context,
    name: str,
    wheelhouse: Path | None,
    control: Path | None,
    without_link: bool,
    is_bench: bool,
    wait_s: float,
    confirm_s: float,
) -> None:
    """Bring this flatrack and the settings of a node onto board NAME, and keep them when the node then speaks.

    Else what ran before runs again, and the exit code is 1. A second run changes nothing.
    """
    if without_link and (control is not None or context.get_parameter_source("wait_s") is not ParameterSource.DEFAULT):
        raise ConfigError("--without-link: nobody listens, expected neither --control nor --wait beside it")
    options = Options(wheelhouse, control, is_bench, without_link, wait_s, confirm_s)
    with held(name, "deploy"):
        asyncio.run(Deployment(load(context.obj), name, options, click.echo).run())
