"""Anti-replay: windows over reordered traffic, and what survives power cuts."""

import random  # noqa: TID251 - seeded

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flightsw.errors import StorageError
from flightsw.net.replay import LOG_NAME, LOGGED_MAX, Flow, ReplayGuard, ReplayWindow
from flightsw.storage.state_log import StateLog
from hil.sim.disk import SimulatedDisk
from hil.sim.faulty_disk import FaultyDisk

COMMANDS, BEACONS = 1, 2
FLOW = Flow(1, COMMANDS, 1)


def guard(disk: SimulatedDisk | None, size: int = 8, known: tuple[int, ...] = (1, 2)) -> ReplayGuard:
    return ReplayGuard({COMMANDS: size}, size, frozenset({COMMANDS}), lambda node, key: key in known, disk)


def disk(seed: int = 1) -> SimulatedDisk:
    return SimulatedDisk(1 << 22, random.Random(seed))


@given(st.integers(1, 20), st.lists(st.integers(0, 60), max_size=200))
def test_no_number_is_accepted_twice_and_none_that_may_be_new_is_refused(size: int, numbers: list[int]) -> None:
    window = ReplayWindow(size)
    accepted: list[int] = []
    for number in numbers:
        is_new = window.is_new(number)
        assert not (is_new and number in accepted)
        if not is_new and number not in accepted:
            assert sum(other > number for other in accepted) >= size, "refused only when overtaken by a whole window"
        if is_new:
            window.add(number)
            accepted.append(number)
        assert len(window.numbers()) <= size


def test_how_far_numbers_are_apart_says_nothing() -> None:
    one = guard(None)
    assert one.accept(FLOW, 1 << 40)
    assert one.accept(FLOW, 5), "bulk traffic of the same source may have used all numbers between"
    assert not one.accept(FLOW, 5)


def test_each_source_service_and_key_has_a_window_of_its_own() -> None:
    one = guard(None)
    for flow in (FLOW, FLOW._replace(source=2), FLOW._replace(service=BEACONS), FLOW._replace(key_id=2)):
        assert one.accept(flow, 7)
        assert not one.accept(flow, 7)


@given(st.permutations(range(8)))
def test_any_order_within_a_window_is_accepted_once(order: list[int]) -> None:
    one = guard(None)
    assert [one.accept(FLOW, number) for number in order] == [True] * 8
    assert [one.accept(FLOW, number) for number in order] == [False] * 8


def test_windows_of_durable_services_survive_a_power_cut_and_others_do_not() -> None:
    medium = disk()
    before = guard(medium)
    assert before.accept(FLOW, 3)
    assert before.accept(Flow(1, BEACONS, 1), 4)
    medium.power_cut()
    after = guard(medium)
    assert not after.accept(FLOW, 3)
    assert after.accept(FLOW, 4)
    assert after.accept(Flow(1, BEACONS, 1), 4)


@settings(max_examples=200)
@given(st.integers(0, 2**32), st.integers(0, 60))
def test_a_power_cut_at_any_disk_operation_lets_no_number_through_twice(seed: int, cut_at: int) -> None:
    class Cut(Exception):
        pass

    class CuttingDisk(SimulatedDisk):
        left = cut_at

        def spend(self) -> None:
            self.left -= 1
            if self.left == 0:
                raise Cut

        def append(self, name: str, data: bytes) -> None:
            self.spend()
            super().append(name, data)
            self.spend()

        def sync(self, name: str) -> None:
            self.spend()
            super().sync(name)
            self.spend()

        def replace(self, name: str, data: bytes) -> None:
            self.spend()
            super().replace(name, data)
            self.spend()

    medium = CuttingDisk(1 << 22, random.Random(seed))
    draw = random.Random(seed)
    numbers = draw.sample(range(30), 30)
    delivered: list[int] = []
    running = guard(medium, size=40)
    for number in numbers + numbers:
        try:
            if running.accept(FLOW, number):
                delivered.append(number)
            if draw.random() < 0.1:
                running._compact(running._log)  # type: ignore[arg-type]
        except Cut:
            medium.power_cut()
            medium.left = 0
            running = guard(medium, size=40)
    assert len(delivered) == len(set(delivered))
    assert len(delivered) >= 29, "at most the one at the cut is lost"


def test_the_log_is_written_anew_and_forgets_destroyed_keys_only() -> None:
    medium = disk()
    known = [1, 2]
    one = ReplayGuard({COMMANDS: 8}, 8, frozenset({COMMANDS}), lambda node, key: key in known, medium)
    assert one.accept(FLOW._replace(key_id=2), 1)
    known.remove(2)
    for number in range(LOGGED_MAX + 2):
        assert one.accept(FLOW, number)
    assert len(medium.read(f"{LOG_NAME}.a")) < 1000
    again = guard(medium)
    assert not again.accept(FLOW, LOGGED_MAX), "remembered"
    assert not again.accept(FLOW, 5), "below the floor"
    assert again.accept(FLOW, LOGGED_MAX + 2)
    assert again.accept(FLOW._replace(key_id=2), 1), "a destroyed key has no window, and verifies nothing"


def test_what_the_disk_does_not_take_is_not_accepted_and_may_come_again() -> None:
    medium = disk()
    one = guard(medium)
    medium.append("photos", bytes(medium.free_bytes()))
    with pytest.raises(StorageError):
        one.accept(FLOW, 1)
    medium.remove("photos")
    assert one.accept(FLOW, 1)


def test_a_record_that_is_none_stops_the_boot_instead_of_opening_the_window() -> None:
    medium = disk()
    guard(medium).accept(FLOW, 1)
    log = StateLog(medium, LOG_NAME)
    log.append(b"\x81\x01")
    log.sync()
    with pytest.raises(StorageError, match="does not decode"):
        guard(medium)


def test_numbers_that_the_disk_lost_in_both_copies_let_nothing_older_pass() -> None:
    medium = disk()
    one = guard(medium)
    for number in (1, 5, 9):
        one.accept(FLOW, number)
    entry_bytes = len(medium.read("replay.a")) // 3
    for copy in ("replay.a", "replay.b"):
        medium.flip_bit(copy, 8 * (entry_bytes + 20))
    for start in range(2):
        again = guard(medium)
        assert not any(again.accept(FLOW, number) for number in range(10)), f"start {start}"
    assert again.accept(FLOW, 10)


def test_a_log_that_cannot_be_written_anew_goes_on() -> None:
    medium = FaultyDisk(1 << 22, random.Random(1))
    one = guard(medium)
    for number in range(LOGGED_MAX):
        free_bytes = medium.free_bytes()
        assert one.accept(FLOW, number)
    medium.fill(free_bytes - medium.free_bytes())  # room for one record more
    assert one.accept(FLOW, LOGGED_MAX)
    assert one.unsaved_count == 1
    medium.unfill()
    assert one.accept(FLOW, LOGGED_MAX + 1)
    medium.power_cut()
    again = guard(medium)
    assert not any(again.accept(FLOW, LOGGED_MAX + extra) for extra in range(2))
