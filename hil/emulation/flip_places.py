"""Where flips strike: places in the RAM of one snapshot, and the flips that follow from a seed."""

from bisect import bisect_right
from functools import cached_property
from itertools import accumulate
from typing import Final, Literal

import msgspec

from flightsw.ports import Random
from hil.emulation.copies import Extent
from hil.emulation.memory import PAGE_BYTES, RAM_BASE
from hil.sim.streams import Streams

Where = Literal["weights", "manager", "worker", "ram"]
WHERES: Final[tuple[Where, ...]] = ("weights", "manager", "worker", "ram")
OWNERS: Final = ("manager", "worker", "models")
"""Whose pages are known, as of the on-board agent; `models` is what manager and worker share."""
ELSEWHERE: Final = "elsewhere"
Flip = tuple[int, int]
"""(physical address, bit 0 to 7)."""


class Places(msgspec.Struct, frozen=True, dict=True):
    """Places of one snapshot.

    Attributes:
        ram_bytes: RAM of the board.
        weights: stretches of copies of the model's weights, by address.
        pages: owner -> physical addresses of the pages of its memory; none of a subject that the agent does not know.
    """

    ram_bytes: int
    weights: list[Extent]
    pages: dict[str, list[int]]

    def size_bytes(self, where: Where) -> int:
        """How much can be struck there."""
        if where == "ram":
            return self.ram_bytes
        if where == "weights":
            return sum(one.length for one in self.weights)
        return len(self.pages.get(where, ())) * PAGE_BYTES

    def draw(self, where: Where, count: int, seed: int, number: int) -> tuple[Flip, ...]:
        """The flips of a trial, each in a byte of its own, by address.

        Args:
            where: what they strike.
            count: how many; no more than there are bytes.
            seed, number: of campaign and trial; no other trial has a say.
        """
        rng = Streams(seed).random(f"ram-flips/{where}/{number}")
        places = sorted(rng.sample(range(self.size_bytes(where)), count))
        return tuple((self._address(where, place), rng.randrange(8)) for place in places)

    def in_all_copies(self, rng: Random, but: str = "") -> tuple[Flip, ...]:
        """Draw a bit of the weights, and strike it in every copy that was found, but for those of an owner."""
        one = rng.choice(self.weights)
        at, bit = one.offset + rng.randrange(one.length), rng.randrange(8)
        found = (copy.address + at - copy.offset for copy in self.weights if 0 <= at - copy.offset < copy.length)
        return tuple((address, bit) for address in found if self.owner(address) != but)

    def owner(self, address: int) -> str:
        """Whose memory a physical address is of: manager, worker, models, or elsewhere."""
        return self._owners.get(address - address % PAGE_BYTES, ELSEWHERE)

    def _address(self, where: Where, place: int) -> int:
        if where == "ram":
            return RAM_BASE + place
        if where == "weights":
            index = bisect_right(self._ends, place)
            copy = self.weights[index]
            return copy.address + place - (self._ends[index] - copy.length)
        return self.pages[where][place // PAGE_BYTES] + place % PAGE_BYTES

    @cached_property
    def _owners(self) -> dict[int, str]:
        """Page -> owner."""
        return {page: owner for owner, pages in reversed(self.pages.items()) for page in pages}

    @cached_property
    def _ends(self) -> list[int]:
        """How many bytes of the weights lie in each copy and those before it."""
        return list(accumulate(one.length for one in self.weights))
