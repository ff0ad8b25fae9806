"""Bits flip in the RAM of a whole running board: what becomes of it, at least 200 times."""

import asyncio
import random  # noqa: TID251 - a seeded generator

import pytest

from hil.emulation.ram_flips import Outcome, RamFlips, outcomes
from hil.faults.weights import wilson_95

pytestmark = pytest.mark.emulated

SEED = 20
WEIGHT_TRIALS = 100
RAM_TRIALS = 100
RAM_FLIPS = 64
"""Flips in one trial anywhere in RAM: enough that some boards fall, few enough that most do not."""


@pytest.fixture
async def campaigns(machine, ready):
    """Two boards, a core each, whose job waits to be struck."""
    boards = [machine(name, origin=ready) for name in ("weights", "ram")]
    made = [RamFlips(board) for board in boards]
    await asyncio.gather(*(board.start() for board in boards))
    await asyncio.gather(*(campaign.prepare() for campaign in made))
    yield made
    for campaign in made:
        campaign.close()


def report(name, trials):
    """Print what became of them, with the 95 % intervals of the rates."""
    print(f"\n{name}: {len(trials)} trials, seed {SEED}")
    for outcome, count in outcomes(trials).most_common():
        low, high = wilson_95(count, len(trials))
        print(f"  {outcome.value:18} {count:4}  {count / len(trials):6.1%}  [{low:.1%}, {high:.1%}]")


async def strike(campaign, draw, count):
    """So many trials, after one in which nothing is struck."""
    assert (await campaign.trial(())).outcome is Outcome.MASKED, "nothing struck, nothing changed"
    rng = random.Random(SEED)
    return [await campaign.trial(draw(rng)) for _ in range(count)]


async def test_two_hundred_strikes_are_classified(campaigns, capsys):
    on_weights, on_ram = campaigns
    assert on_weights.weights_count > 0
    weights, ram = await asyncio.gather(
        strike(on_weights, on_weights.in_weights, WEIGHT_TRIALS),
        strike(on_ram, lambda rng: on_ram.anywhere(rng, RAM_FLIPS), RAM_TRIALS),
    )
    with capsys.disabled():
        report("one flip in the model's weights", weights)
        report(f"{RAM_FLIPS} flips anywhere in RAM", ram)
    found = outcomes(weights)
    assert found[Outcome.CORRECTED] > 0, "the copy that flight software computes with is guarded"
    assert found[Outcome.HANG] + found[Outcome.GARBLED] == 0, "weights are no code"
    assert 0 < outcomes(ram)[Outcome.MASKED] < RAM_TRIALS, "some boards fall, most do not"
    struck = next(trial for trial in weights if trial.outcome is Outcome.CORRECTED)
    assert (await on_weights.trial(struck.flips)).outcome is Outcome.CORRECTED, "a trial can be repeated"
