"""Contact plans as files, and counters of starts."""

import random  # noqa: TID251 - the seed is in the test

import msgspec
import pytest

from flightsw.errors import ConfigError
from flightsw.net.contacts import Contact, ContactPlan
from flightsw.net.plans import PlanRow, encode_plan, plan_of
from flightsw.storage.counters import DAMAGED_START, raise_counter
from hil.sim.disk import SimulatedDisk


def rows(data):
    return msgspec.json.decode(data, type=list[PlanRow])


def test_a_plan_comes_back_as_it_was():
    plan = ContactPlan([Contact(0, 10, 1, 0, 11, 2, 1e6, 5), Contact(10, 30, 1, 0, 12, 0, 9.6e3, 7)])
    assert plan_of(rows(encode_plan(plan)), "plan.json").contacts == plan.contacts


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"[[0,10,1,0,2,0,1e6,0],[5,5,1,1,2,0,1e6,0]]", r"^plan.json: \[1\]: end_ns = 5: expected more than 5$"),
        (
            b"[[0,10,1,0,2,0,1e6,0],[9,20,1,0,3,0,1e6,0]]",
            r"^plan.json: node 1 interface 0: a contact starts at 9 ns, expected 10 ns or later",
        ),
    ],
)
def test_a_plan_that_cannot_be_is_refused(data, why):
    with pytest.raises(ConfigError, match=why):
        plan_of(rows(data), "plan.json")


@pytest.mark.parametrize("row", [[0, 1, 0, 0, 2, 0, 1e6, 0], [0, 1, 1, -1, 2, 0, 1e6, 0], [0, 1, 1, 0, 2, 0, 0, 0]])
def test_a_row_out_of_range_is_refused(row):
    with pytest.raises(msgspec.ValidationError):
        rows(msgspec.json.encode([row]))


def test_a_counter_rises_with_each_start_and_over_power_cuts():
    disk = SimulatedDisk(10_000, random.Random(1))
    assert [raise_counter(disk, "starts") for _ in range(3)] == [1, 2, 3]
    disk.power_cut()
    assert raise_counter(disk, "starts") == 4


def test_a_damaged_counter_goes_on_where_none_can_have_been():
    disk = SimulatedDisk(10_000, random.Random(1))
    raise_counter(disk, "starts")
    disk.flip_bit("starts.a", 80)
    assert raise_counter(disk, "starts") == 2, "the other copy holds"
    for copy in ("starts.a", "starts.b"):
        disk.flip_bit(copy, 80)
    assert raise_counter(disk, "starts") == DAMAGED_START + 1
    assert raise_counter(disk, "starts") == DAMAGED_START + 2
