"""A campaign of hostile inputs in batches: each is made from the seed, its decoder and its number alone.

So a batch gives the same inputs in whatever process and order it runs, and a finding is repeated by naming its batch.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from hil.fuzz.conversations import conversations
from hil.fuzz.decoders import Decoder, wire
from hil.fuzz.machines import machines
from hil.fuzz.mutation import inputs
from hil.fuzz.outside import outside
from hil.fuzz.secured import secured
from hil.fuzz.sequences import sequences
from hil.fuzz.stored import stored
from hil.sim.streams import Streams

BATCH_INPUTS: Final = 20_000
"""Inputs of a batch of the quickest decoders; of slower ones fewer, so that all batches take about as long."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Some inputs of one decoder."""

    decoder: str
    number: int
    count: int


def decoders() -> dict[str, Decoder]:
    """All decoders by name."""
    return {
        decoder.name: decoder
        for decoder in (*wire(), *secured(), *stored(), *sequences(), *outside(), *conversations(), *machines())
    }


def size_of(decoder: Decoder) -> int:
    """Inputs of a whole batch."""
    return max(1, round(BATCH_INPUTS / decoder.cost))


def batches(names: list[str], inputs_count: int) -> Iterator[Batch]:
    """Batches of about so many inputs in all, more for the quick decoders; of each decoder at least one.

    Args:
        names: decoders to take.
        inputs_count: inputs of all together.
    """
    known = decoders()
    shares = {name: 1 / known[name].cost for name in names}
    total = sum(shares.values())
    for name in names:
        left = max(1, round(inputs_count * shares[name] / total))
        size = size_of(known[name])
        for number in range(-(-left // size)):
            yield Batch(name, number, min(size, left - number * size))


def inputs_of(batch: Batch, seed: int) -> list[bytes]:
    """The inputs of a batch; a batch of fewer inputs has the first ones of a larger one."""
    random = Streams(seed).random(f"fuzz/{batch.decoder}/{batch.number}")
    return list(inputs(random, decoders()[batch.decoder].sample, batch.count))
