"""One state in two copies: at any cut the old or the new, and no single damaged place costs it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flightsw.errors import StorageError
from flightsw.ports import Random
from flightsw.storage.copies import TwoCopies
from hil.sim.disk import SimulatedDisk
from hil.sim.faulty_disk import FaultyDisk, PowerCut
from hil.sim.streams import Streams


class FailingDisk(SimulatedDisk):
    """A disk whose replaces of some names fail."""

    failing: tuple[str, ...] = ()

    def replace(self, name: str, data: bytes) -> None:
        if name in self.failing:
            raise StorageError(f"{name}: EIO")
        super().replace(name, data)


def make_disk(seed: int = 1, capacity_bytes: int = 1 << 20) -> FailingDisk:
    return FailingDisk(capacity_bytes, Streams(seed).random("disk"))


def test_nothing_stored_is_none() -> None:
    copies = TwoCopies(make_disk(), "state")
    assert copies.load() is None
    assert copies.version == 0


@given(st.lists(st.binary(max_size=700), min_size=1, max_size=6))
def test_the_last_state_comes_back_with_a_rising_version(states: list[bytes]) -> None:
    disk = make_disk()
    for state in states:
        TwoCopies(disk, "state").store(state)
    copies = TwoCopies(disk, "state")
    assert copies.load() == states[-1]
    assert copies.version == len(states)
    assert copies.repaired_count == 0


@pytest.mark.parametrize("copy", ["state.a", "state.b"])
@given(content=st.binary(max_size=60), chosen=st.integers(min_value=0))
def test_any_flipped_bit_of_one_copy_is_mended_from_the_other(copy: str, content: bytes, chosen: int) -> None:
    disk = make_disk()
    TwoCopies(disk, "state").store(b"old")
    TwoCopies(disk, "state").store(content)
    whole = disk.read(copy)
    disk.flip_bit(copy, chosen % (8 * len(whole)))
    copies = TwoCopies(disk, "state")
    assert copies.load() == content
    assert copies.repaired_count == 1
    assert disk.read(copy) == whole


def test_a_missing_copy_is_made_again() -> None:
    disk = make_disk()
    TwoCopies(disk, "state").store(b"old")
    TwoCopies(disk, "state").store(b"new")
    disk.remove("state.a")
    copies = TwoCopies(disk, "state")
    assert copies.load() == b"new"
    assert copies.repaired_count == 1
    assert disk.read("state.a") == disk.read("state.b")


def test_damage_of_both_copies_is_an_error_and_a_store_starts_anew() -> None:
    disk = make_disk()
    TwoCopies(disk, "state").store(b"old")
    disk.flip_bit("state.a", 70)
    disk.flip_bit("state.b", 71)
    copies = TwoCopies(disk, "state")
    with pytest.raises(StorageError, match="neither copy holds"):
        copies.load()
    copies.store(b"new")
    assert TwoCopies(disk, "state").load() == b"new"


def test_with_one_copy_failing_a_store_holds_and_the_next_load_makes_the_other_again() -> None:
    disk = make_disk()
    copies = TwoCopies(disk, "state")
    copies.store(b"one")
    disk.failing = ("state.b",)
    copies.store(b"two")
    assert copies.failed_count == 1
    disk.failing = ()
    disk.power_cut()
    again = TwoCopies(disk, "state")
    assert again.load() == b"two"
    assert disk.read("state.a") == disk.read("state.b")


def test_with_both_copies_failing_the_old_state_stands() -> None:
    disk = make_disk()
    copies = TwoCopies(disk, "state")
    copies.store(b"one")
    disk.failing = ("state.a", "state.b")
    with pytest.raises(StorageError):
        copies.store(b"two")
    assert copies.load() == b"one"
    disk.failing = ()
    copies.store(b"three")
    assert TwoCopies(disk, "state").load() == b"three"


def test_a_full_disk_leaves_the_old_state() -> None:
    disk = make_disk(capacity_bytes=200)
    copies = TwoCopies(disk, "state")
    copies.store(b"small")
    with pytest.raises(StorageError, match="disk full"):
        copies.store(bytes(150))
    assert TwoCopies(disk, "state").load() == b"small"


def test_a_removed_state_is_none() -> None:
    disk = make_disk()
    copies = TwoCopies(disk, "state")
    copies.store(b"one")
    copies.remove()
    assert copies.load() is None
    assert TwoCopies(disk, "state").load() is None


@settings(max_examples=300)
@given(st.integers(0, 2**32))
def test_no_history_of_cuts_and_damage_of_one_copy_loses_a_stored_state(seed: int) -> None:
    draw = Random(seed)
    disk = FaultyDisk(1 << 20, Random(seed))
    copies = TwoCopies(disk, "state")
    stored: bytes | None = None
    for life in range(draw.randint(1, 10)):
        allowed = [stored]
        disk.cut_power_at(draw.randint(0, 8) if draw.random() < 0.7 else None)
        try:
            for number in range(draw.randint(0, 4)):
                state = b"%d/%d " % (life, number) * draw.choice((1, 200))
                allowed = [stored, state]
                copies.store(state)
                stored = state
                allowed = [stored]
        except PowerCut:
            pass
        disk.power_cut()
        if len(allowed) == 1 and draw.random() < 0.5 and len(disk.names("state")) == 2:
            copy = draw.choice(disk.names("state"))
            draw.choice((disk.spoil, disk.remove, lambda name: disk.flip_bit(name, 77)))(copy)
        copies = TwoCopies(disk, "state")
        disk.cut_power_at(draw.randint(0, 1) if draw.random() < 0.3 else None)
        try:
            copies.load()
        except PowerCut:
            disk.power_cut()
        disk.cut_power_at(None)
        copies = TwoCopies(disk, "state")
        stored = copies.load()
        assert stored in allowed, f"seed {seed}"
