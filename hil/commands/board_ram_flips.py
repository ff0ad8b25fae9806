"""`flatrack board ram-flips`: a campaign of bit flips in the RAM of emulated boards. docs/boards/faults.md."""

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click

from flightsw.errors import ConfigError
from hil.emulation.flip_campaign import FlipCampaign, run_campaign
from hil.emulation.flip_outcomes import Outcome
from hil.emulation.flip_places import WHERES, Where
from hil.emulation.image import build, cache_folder
from hil.emulation.ram_flips import SUBJECTS, Stage, SubjectName, Trial
from hil.faults.weights import wilson_95

FLIPS: Final[dict[Where, int]] = {"weights": 1, "manager": 64, "worker": 64, "ram": 64}
"""Flips of a trial unless somebody says otherwise: of a single one in all of RAM next to nothing is seen."""
FLIPS_MAX: Final = 1_000_000
"""Flips of one trial: a byte in 500 of a board's RAM, which nothing outlives."""
TRIALS_MAX: Final = 1_000_000
"""Trials of one campaign: three weeks on one core."""
PATH: Final = click.Path(path_type=Path)


@click.command(name="ram-flips")
@click.option(
    "--subject", type=click.Choice(list(SUBJECTS)), default="manager", show_default=True, help="Who is asked."
)
@click.option("--where", type=click.Choice(WHERES), default="weights", show_default=True, help="What is struck.")
@click.option("--trials", type=click.IntRange(1, TRIALS_MAX), default=100, show_default=True, help="How many trials.")
@click.option(
    "--flips", type=click.IntRange(1, FLIPS_MAX), help="Bits in each trial.  [default: 1 in the weights, else 64]"
)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Of all trials.")
@click.option("--only", type=click.IntRange(min=0), metavar="N", help="Trial N alone: as it was, on the same snapshot.")
@click.option("--snapshot", default="", metavar="DIGEST", help="The only one whose trials are meant, as printed.")
@click.option("--at-once", type=click.IntRange(1, 64), default=1, show_default=True, help="Boards; each takes a core.")
@click.option("--image", type=PATH, metavar="FOLDER", help="Where images are kept.  [default: as board image]")
@click.option("--json", "to", type=PATH, metavar="FILE", help="Also write all trials to a file.")
def ram_flips_command(
    subject: SubjectName,
    where: Where,
    trials: int,
    flips: int | None,
    seed: int,
    only: int | None,
    snapshot: str,
    at_once: int,
    image: Path | None,
    to: Path | None,
) -> None:
    """Strike the RAM of an emulated board, ask it for a job, and judge what comes back; many times from one snapshot.

    Subjects: manager, the whole node as it flies, asked over its UART; job, the flight code of a job in a small
    program, twice as fast. Trials that are not masked are printed with the command that repeats them. Ctrl-C ends it
    with what was done so far.
    """
    if subject == "job" and where in ("manager", "worker"):
        raise ConfigError(f"--where {where}: expected weights or ram with --subject job, which has no {where}")
    if to is not None and not to.parent.is_dir():
        raise ConfigError(f"--json {to}: no folder {to.parent}")
    if to is not None and to.is_dir():
        raise ConfigError(f"--json {to}: expected a file, it is a folder")
    cores_count = len(os.sched_getaffinity(0))
    if at_once > cores_count:  # a board that waits for a core would look as one that hangs
        raise ConfigError(f"--at-once {at_once}: expected at most {cores_count}, a core for each board")
    numbers = range(trials) if only is None else (only,)
    campaign = FlipCampaign(subject, where, flips or FLIPS[where], seed, numbers, image, snapshot)
    stages: list[Stage] = []
    done: dict[int, Trial] = {}

    def take(number: int, trial: Trial) -> None:
        done[number] = trial
        if trial.outcome is not Outcome.MASKED:
            click.echo(f"trial {number}: {trial.outcome.value}: {trial.said}\n  {campaign.replay(number, stages[0])}")

    with _interrupted_by_sigterm():
        files = build("qemu-virt", image or cache_folder())
        try:
            asyncio.run(run_campaign(campaign, files, at_once, take, stages.append))
        finally:
            if done:
                _report(campaign, files.digest, stages[0], done, to)


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the command as Ctrl-C does: boards and scratch folders are given back."""
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _report(campaign: FlipCampaign, image: str, stage: Stage, done: dict[int, Trial], to: Path | None) -> None:
    """Print and write what was done. Raises: ConfigError: the file cannot be written."""
    click.echo(
        f"\nsubject {campaign.subject}, {campaign.where} struck, flips {campaign.flips_count}, seed {campaign.seed}, "
        f"image {image}, snapshot {stage.digest}"
    )
    for line in table([trial.outcome for trial in done.values()]):
        click.echo(line)
    if to is not None:
        try:
            to.write_text(json.dumps(as_json(campaign, image, stage, done), indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"--json {to}: {error.strerror}") from None


def table(found: Sequence[Outcome]) -> list[str]:
    """Each outcome that was: how often, its rate, and the 95 % interval of the rate."""
    lines = [f"{'outcome':18} {'trials':>6} {'rate':>7}  95 % interval"]
    for outcome, count in Counter(found).most_common():
        low, high = wilson_95(count, len(found))
        lines.append(f"{outcome.value:18} {count:6} {count / len(found):7.1%}  [{low:.1%}, {high:.1%}]")
    return lines


def as_json(campaign: FlipCampaign, image: str, stage: Stage, done: dict[int, Trial]) -> dict[str, Any]:
    """All of a campaign: what was asked for, and each trial with its flips and whose memory they struck."""
    return {
        "subject": campaign.subject,
        "where": campaign.where,
        "flips": campaign.flips_count,
        "seed": campaign.seed,
        "image": image,
        "snapshot": stage.digest,
        "trials": [
            {
                "number": number,
                "outcome": trial.outcome.name,
                "said": trial.said,
                "flips": trial.flips,
                "struck": Counter(stage.notes.places.owner(address) for address, _ in trial.flips),
            }
            for number, trial in sorted(done.items())
        ],
    }
