"""A node whose disk is full: it takes commands, keeps states, boots again, and is as before when there is room."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from flightsw.assembly import initial_values
from flightsw.config import InterfaceConfig, NodeConfig
from flightsw.dictionary import flight_dictionary
from hil.cli import main

PROCEDURE = """
wait 130
strike disk_full node=sat-01 duration_s=600
command sat-01 PARAMETERS.SET TELEMETRY.beacon_period_s 5
strike node_reset node=sat-01 cause=WATCHDOG
wait 120
command sat-01 PARAMETERS.GET TELEMETRY.beacon_period_s
wait 600
command sat-01 NODE.NOOP
audit sat-01
"""


@pytest.fixture(scope="module")
def flown(tmp_path_factory: pytest.TempPathFactory) -> str:
    procedure = tmp_path_factory.mktemp("procedure") / "lines.txt"
    procedure.write_text(PROCEDURE)
    scenario = Path(__file__).resolve().parents[2] / "examples" / "flight.toml"
    return str(CliRunner().invoke(main, ["console", str(scenario), str(procedure)]).output)


def test_commands_and_parameters_are_kept_on_a_full_disk_and_the_node_boots_there(flown: str) -> None:
    assert "PARAMETERS.SET COMPLETED" in flown
    assert "PARAMETERS.GET COMPLETED" in flown
    assert "TELEMETRY.beacon_period_s = 5.0 (VALID)" in flown
    assert "NODE.NOOP COMPLETED" in flown


def test_the_audit_trail_holds_over_the_full_disk_and_the_reset(flown: str) -> None:
    assert "the chain holds" in flown
    assert "boot 2 +0.0 s boot" in flown
    assert "opcode=PARAMETERS.SET" in flown


def test_a_configuration_that_says_nothing_has_the_defaults_of_the_dictionary() -> None:
    config = NodeConfig(node=11, name="sat", interfaces=(InterfaceConfig(index=0, name="radio"),))
    parameters = flight_dictionary().parameters
    assert initial_values(config) == {key: parameters[key].default for key in initial_values(config)}
