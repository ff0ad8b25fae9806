"""`flatrack audit` and PARAMETERS as an operator has them, against a run in virtual time."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from hil.cli import main

PROCEDURE = """
wait 60
command sat-01 PARAMETERS.LOAD values='["MODE.safe_enter=0.2", "TELEMETRY.beacon_period_s=5"]'
command sat-01 PARAMETERS.ACTIVATE
command sat-01 PARAMETERS.VALIDATE
command sat-01 PARAMETERS.ACTIVATE
command sat-01 PARAMETERS.SET MODE.safe_enter 0.9
audit sat-01
strike node_reset node=sat-01 cause=WATCHDOG
wait 60
command sat-01 PARAMETERS.GET MODE.safe_enter
audit sat-01
audit sat-99
"""


@pytest.fixture(scope="module")
def flown(tmp_path_factory: pytest.TempPathFactory) -> str:
    procedure = tmp_path_factory.mktemp("procedure") / "lines.txt"
    procedure.write_text(PROCEDURE)
    scenario = Path(__file__).resolve().parents[2] / "examples" / "flight.toml"
    result = CliRunner().invoke(main, ["console", str(scenario), str(procedure)])
    return str(result.output)


def test_parameters_are_activated_only_when_validated_and_survive_a_reset(flown: str) -> None:
    assert "PARAMETERS.ACTIVATE FAILED VALIDATION_ERROR the inactive image is LOADED, expected VALIDATED" in flown
    assert "expected at most MODE.low_power_enter, 0.3" in flown
    assert "changes=MODE.safe_enter=0.2, TELEMETRY.beacon_period_s=5.0" in flown.replace('"', "")
    assert 'detail="MODE.safe_enter = 0.2 (VALID)"' in flown, "after the reset"


def test_the_trail_is_verified_over_the_reset_from_where_it_was(flown: str) -> None:
    lines = flown.splitlines()
    first, second = (number for number, line in enumerate(lines) if "the chain holds up to record" in line)
    assert "boot 1 +0.0 s boot" in flown
    assert "code=VALIDATION_ERROR" in "\n".join(lines[:first])
    assert any("boot 2" in line and "cause=WATCHDOG" in line for line in lines[first:second])
    head = lines[first].split("record ")[1].split(",")[0]
    assert lines[first + 1].startswith("T+")
    assert any(line.lstrip().startswith(f"{head} boot 1") for line in lines[first:second])


def test_a_node_that_is_not_there_is_named(flown: str) -> None:
    assert "node is 'sat-99', expected one of sat-01, sat-02" in flown


def test_what_a_node_decides_of_its_jobs_is_in_the_trail(tmp_path: Path) -> None:
    procedure = tmp_path / "lines.txt"
    strike = "strike weight_upset node=sat-02 bits=64 when=job_running"
    procedure.write_text(f"wait 500\n{strike}\nwait 150\naudit sat-02\n")
    scenario = Path(__file__).resolve().parents[2] / "examples" / "three.toml"
    result = CliRunner().invoke(main, ["console", str(scenario), str(procedure)])
    assert "job.rolled_back job=1 step=2 attempt=1" in result.output
