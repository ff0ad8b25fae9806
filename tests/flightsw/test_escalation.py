"""The ladder: one step at a time, each given time to help, and remembered over a reset."""

import pytest

from flightsw.core.escalation import CALM_S, COOLDOWN_S, NAME, RESTARTS_MAX, Escalation, Step
from hil.sim.disk import SimulatedDisk
from hil.sim.streams import Streams

S = 1_000_000_000
COOLDOWN_NS, CALM_NS = round(COOLDOWN_S * S), round(CALM_S * S)


@pytest.fixture
def disk():
    return SimulatedDisk(1 << 20, Streams(1).random("disk"))


def ladder(disk):
    return Escalation(disk, lambda *_: None)


def climb(escalation, count):
    """Steps taken about a party that hangs all the time, each as soon as the last had its time."""
    return [escalation.step("executor", True, index * COOLDOWN_NS) for index in range(count)]


def test_a_party_is_restarted_and_then_the_node_is(disk):
    assert climb(ladder(disk), RESTARTS_MAX + 2) == [Step.RESTART] * RESTARTS_MAX + [Step.RESET_NODE] * 2


def test_what_cannot_be_restarted_takes_the_node_with_it_at_once(disk):
    assert ladder(disk).step("beacon", False, 0) is Step.RESET_NODE


def test_a_step_is_given_time_to_help(disk):
    escalation = ladder(disk)
    assert escalation.step("executor", True, 0) is Step.RESTART
    assert escalation.step("executor", True, COOLDOWN_NS - 1) is Step.WAIT
    assert escalation.step("executor", True, COOLDOWN_NS) is Step.RESTART


def test_parties_climb_for_themselves(disk):
    escalation = ladder(disk)
    climb(escalation, RESTARTS_MAX)
    assert escalation.step("other", True, RESTARTS_MAX * COOLDOWN_NS) is Step.RESTART


def test_the_rung_is_kept_over_a_reset(disk):
    climb(ladder(disk), RESTARTS_MAX)
    disk.power_cut()
    assert ladder(disk).step("executor", True, 0) is Step.RESET_NODE


def test_a_party_that_was_well_for_long_begins_at_the_bottom(disk):
    escalation = ladder(disk)
    climb(escalation, RESTARTS_MAX)
    last_ns = (RESTARTS_MAX - 1) * COOLDOWN_NS
    escalation.cycle(last_ns + CALM_NS - 1)
    assert escalation.taken == {"executor": RESTARTS_MAX}
    escalation.cycle(last_ns + CALM_NS)
    assert escalation.taken == {}
    assert ladder(disk).taken == {}, "durably"
    assert escalation.step("executor", True, last_ns + CALM_NS) is Step.RESTART


def test_after_a_reset_the_calm_is_counted_from_the_boot(disk):
    climb(ladder(disk), 1)
    again = ladder(disk)
    again.cycle(0)
    again.cycle(CALM_NS - 1)
    assert again.taken == {"executor": 1}
    again.cycle(CALM_NS)
    assert again.taken == {}


def test_nothing_is_written_while_nobody_hangs(disk):
    escalation = ladder(disk)
    for now_s in range(0, 10_000, 10):
        escalation.cycle(now_s * S)
    assert disk.names() == []


def test_forgiveness_is_durable(disk):
    climb(ladder(disk), RESTARTS_MAX)
    again = ladder(disk)
    again.forgive()
    assert ladder(disk).step("executor", True, 0) is Step.RESTART


def test_a_full_disk_stops_no_restart(disk):
    disk.capacity_bytes = 0
    escalation = ladder(disk)
    assert climb(escalation, RESTARTS_MAX + 1)[-1] is Step.RESET_NODE
    assert escalation.unsaved_count == RESTARTS_MAX


@pytest.mark.parametrize("damage", [b"", b"\xff" * 40], ids=["empty", "rubbish"])
def test_a_record_that_does_not_hold_counts_from_zero(disk, damage):
    climb(ladder(disk), RESTARTS_MAX)
    for name in disk.names(NAME):
        disk.replace(name, damage)
    assert ladder(disk).step("executor", True, 0) is Step.RESTART
