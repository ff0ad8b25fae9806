"""Runs a campaign of RAM flips on one or more boards, and says how each of its trials is repeated."""

import asyncio
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from flightsw.errors import ConfigError, FlatrackError
from hil.emulation.flip_places import Where
from hil.emulation.image import ImageFiles
from hil.emulation.machine import Machine
from hil.emulation.ram_flips import RamFlips, Stage, SubjectName, Trial, stage_of
from hil.emulation.tools import scratch_folder


@dataclass(frozen=True, slots=True)
class FlipCampaign:
    """What is struck, where, and how often.

    Attributes:
        subject: who is asked for jobs.
        where: what is struck.
        flips_count: in one trial.
        seed: of all trials; a trial's flips follow from it and from the trial's number.
        numbers: of the trials.
        image: where images are kept, where somebody has said so.
        snapshot: digest of the only one whose trials these are; empty for any.
    """

    subject: SubjectName
    where: Where
    flips_count: int
    seed: int
    numbers: Sequence[int]
    image: Path | None = None
    snapshot: str = ""

    def replay(self, number: int, stage: Stage) -> str:
        """The command that repeats a trial, on the same snapshot."""
        image = "" if self.image is None else f" --image {shlex.quote(str(self.image))}"
        return (
            f"flatrack board ram-flips --subject {self.subject} --where {self.where} --flips {self.flips_count} "
            f"--seed {self.seed} --only {number} --snapshot {stage.digest}{image}"
        )

    def check(self, stage: Stage) -> None:
        """Whether it is the snapshot that was asked for, with enough to strike. Raises: ConfigError."""
        if self.snapshot not in ("", stage.digest):
            raise ConfigError(
                f"--snapshot {self.snapshot}: expected {stage.digest}, of the snapshot that is kept beside the image; "
                "places of one are not those of another"
            )
        size_bytes = stage.notes.places.size_bytes(self.where)
        if size_bytes == 0:
            raise ConfigError(f"--where {self.where}: nothing of it is known of --subject {self.subject}")
        if self.flips_count > size_bytes:
            raise ConfigError(f"--flips {self.flips_count}: expected at most {size_bytes}, a bit of each byte")


async def run_campaign(
    campaign: FlipCampaign,
    files: ImageFiles,
    boards_count: int,
    on_trial: Callable[[int, Trial], None],
    on_stage: Callable[[Stage], None] = lambda _: None,
) -> None:
    """Run all trials.

    Args:
        campaign: the trials.
        files: image of the boards.
        boards_count: boards that run at once; each takes a core.
        on_trial: told number and trial, in the order in which they end.
        on_stage: told before them what is struck.

    Raises:
        ConfigError: QEMU is missing, it is another snapshot, or there is less to strike than flips.
        BoardError: a board does not come up, or QEMU has failed.
        LinkError: the agent of a board has gone.
    """
    stage = await stage_of(campaign.subject, files)
    campaign.check(stage)
    on_stage(stage)
    numbers = iter(campaign.numbers)

    async def strike(name: str, folder: Path) -> None:
        machine = Machine(files, folder, name, origin=stage.snapshot)
        try:
            await machine.start()
            flips = RamFlips(machine, stage)
            await flips.prepare()
            for number in numbers:  # which all boards share
                drawn = flips.places.draw(campaign.where, campaign.flips_count, campaign.seed, number)
                on_trial(number, await flips.trial(drawn))
        finally:
            await machine.kill()
            machine.close()

    with scratch_folder() as folder:
        try:
            async with asyncio.TaskGroup() as tasks:
                for index in range(min(boards_count, len(campaign.numbers))):
                    tasks.create_task(strike(f"board{index}", Path(folder)))
        except* FlatrackError as errors:
            failed = errors.exceptions[0]
            raise failed from None
