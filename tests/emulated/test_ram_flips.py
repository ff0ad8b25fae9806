"""Bits flip in the RAM of a running board: what becomes of the whole node, and of the flight code of a job."""

import random  # noqa: TID251 - a seeded generator
from contextlib import asynccontextmanager, suppress

import pytest

from flightsw.errors import BoardError
from hil.commands.board_ram_flips import table
from hil.emulation.flip_outcomes import Outcome
from hil.emulation.ram_flips import RamFlips, stage_of

pytestmark = pytest.mark.emulated

SEED = 20
TRIALS = 100
RAM_FLIPS = 64
"""Flips in one trial anywhere in RAM: enough that some boards fall, few enough that most do not."""
MANY_FLIPS = 20_000
"""Flips in a manager's memory that no run of it outlives."""


@asynccontextmanager
async def campaign(subject, image, machine):
    """A board that waits to be struck, and did its job when nobody had struck it."""
    stage = await stage_of(subject, image)
    board = machine(subject, origin=stage.snapshot)
    await board.start()
    made = RamFlips(board, stage)
    await made.prepare()
    yield made


async def test_the_whole_node_is_struck_and_its_ground_tells_what_became_of_it(image, machine):
    async with campaign("manager", image, machine) as node:
        places, rng = node.places, random.Random(SEED)
        assert places.size_bytes("manager") > 10e6
        assert places.size_bytes("worker") > 10e6

        # the copies that flight software answers for: what the AI runtime keeps for itself is the worker's
        flips = next(
            flips
            for flips in iter(lambda: places.in_all_copies(rng, but="worker"), None)
            if "models" in map(places.owner, (address for address, _ in flips))
        )
        struck = await node.trial(flips)
        assert struck.outcome is Outcome.CORRECTED, struck
        assert "JOBS.WEIGHTS_STRUCK" in struck.said

        killed = await node.trial(places.draw("manager", MANY_FLIPS, SEED, 0))
        assert killed.outcome is Outcome.RESTARTED, killed
        assert killed.said.startswith("boot 2 after "), "and it said why"

        assert (await node.trial(())).outcome is Outcome.MASKED, "nothing of an earlier trial is left"
        with suppress(BoardError):
            await node._machine._run("quit")  # as QEMU ends when its guest has switched the board off
        again = await node.trial(flips)
        assert (again.outcome, again.said) == (struck.outcome, struck.said), "a trial can be repeated, by a new QEMU"


async def test_strikes_of_the_job_code_are_classified(image, machine, capsys):
    async with campaign("job", image, machine) as job:
        weights = [await job.trial(job.places.draw("weights", 1, SEED, number)) for number in range(TRIALS)]
        ram = [await job.trial(job.places.draw("ram", RAM_FLIPS, SEED, number)) for number in range(TRIALS)]
    with capsys.disabled():
        for name, trials in (("one flip in the model's weights", weights), (f"{RAM_FLIPS} flips in RAM", ram)):
            print(f"\n{name}, seed {SEED}:", *table([trial.outcome for trial in trials]), sep="\n  ")
    found = {trial.outcome for trial in weights}
    assert Outcome.CORRECTED in found, "the copy that flight software computes with is guarded"
    assert not found & {Outcome.HANG, Outcome.GARBLED}, "weights are no code"
    assert Outcome.MASKED in {trial.outcome for trial in ram}, "most boards do not fall"
