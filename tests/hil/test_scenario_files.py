"""Scenario files: what is shipped can be used as it is, and a file says what it means, however it is written."""

from pathlib import Path

import msgspec
import pytest

from flightsw.errors import ConfigError
from hil.bench.execute import check_inputs, prepare
from hil.bench.scenario import Scenario, check, find, isl_pairs, link_names, load, scenario_digest, shipped
from hil.faults.plan import LinkOutage, NodeReset


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_scenario_can_be_used_as_it_is(name: str) -> None:
    scenario = load(name)
    assert scenario.name == name, "the name in the file is the name of the file"
    check_inputs(scenario)
    assert scenario.expect, "a run that does nothing must not pass"


@pytest.mark.parametrize("name", shipped())
def test_a_scenario_survives_the_way_through_a_run_folder(name: str) -> None:
    scenario = load(name)
    again = msgspec.json.decode(msgspec.json.encode(scenario), type=Scenario)
    assert again == scenario
    assert scenario_digest(again) == scenario_digest(scenario)


def test_the_digest_is_of_the_content_not_of_the_text(tmp_path: Path) -> None:
    text = find("three-body-12").read_text(encoding="utf-8")
    commented = tmp_path / "commented.toml"
    commented.write_text("# mine\n" + text.replace("5700.0  #", "5_700.0 #"), encoding="utf-8")
    changed = tmp_path / "changed.toml"
    changed.write_text(text.replace("duration_s = 5700.0", "duration_s = 5701.0"), encoding="utf-8")
    assert scenario_digest(load(str(commented))) == scenario_digest(load("three-body-12"))
    assert scenario_digest(load(str(changed))) != scenario_digest(load("three-body-12"))


def test_a_path_works_wherever_a_name_does() -> None:
    assert load(str(find("three-body-12"))) == load("three-body-12")


@pytest.mark.parametrize(
    ("faults", "field"),
    [
        ((NodeReset(node="sat-13", at_s=1.0),), "faults[0].node"),
        ((LinkOutage(link="sat-01/sat-03", at_s=1.0, duration_s=1.0),), "faults[0].link"),
        ((LinkOutage(link="sat-02/sat-01", at_s=1.0, duration_s=1.0),), "faults[0].link"),
        ((NodeReset(node="sat-01", at_s=1.0), NodeReset(node="sat-01", at_s=5700.0)), "faults[1].at_s"),
    ],
)
def test_a_fault_that_can_strike_nothing_is_refused(faults: tuple[NodeReset | LinkOutage, ...], field: str) -> None:
    scenario = msgspec.structs.replace(load("three-body-12"), faults=faults)
    with pytest.raises(ConfigError) as caught:
        check(scenario, "mine.toml")
    assert str(caught.value).startswith(f"mine.toml: {field}: ")


def test_a_ring_closes_and_a_chain_of_two_is_one_link() -> None:
    scenario = load("three-body-12")
    assert isl_pairs(scenario)[-1] == (11, 0)
    two = msgspec.structs.replace(scenario, nodes=scenario.nodes[:2])
    assert isl_pairs(two) == [(0, 1)]
    assert isl_pairs(msgspec.structs.replace(scenario, nodes=scenario.nodes[:1])) == []


def test_every_link_has_one_name() -> None:
    names = link_names(load("three-body-12"))
    assert len(names) == len(set(names)) == 12 + 3 * 12


# -- faults that are asked for


def test_drawn_faults_name_what_is_there_and_leave_time_to_recover() -> None:
    scenario = load("three-body-12")
    for seed in range(50):
        drawn = prepare(scenario, seed, "random")
        check(drawn, f"seed {seed}")
        assert all(fault.at_s < scenario.duration_s / 2 for fault in drawn.faults)


def test_drawn_faults_hang_on_the_seed_alone() -> None:
    scenario = load("three-body-12")
    assert prepare(scenario, 3, "random") == prepare(scenario, 3, "random")
    assert prepare(scenario, 3, "random").faults != prepare(scenario, 4, "random").faults


def test_no_faults_means_no_protons_either() -> None:
    quiet = prepare(load("three-body-12"), 1, "none")
    assert (quiet.faults, quiet.radiation, quiet.expect) == ((), None, {})


def test_a_grid_without_planes_is_refused_and_never_taken_for_a_ring() -> None:
    scenario = load("three-body-12")
    grid = msgspec.structs.replace(scenario, links=msgspec.structs.replace(scenario.links, topology="plus_grid"))
    with pytest.raises(ConfigError, match=r"mine: links.topology: 'plus_grid' needs planes"):
        check(grid, "mine")
