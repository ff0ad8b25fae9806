"""`flatrack hardware`: the report of a node, as its ground has received it."""

import asyncio
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from flightsw.dictionary.hardware_report import encode_report
from flightsw.errors import ConfigError
from flightsw.ports import Capability, HardwareReading, Support
from hil.cli import ASKING, main
from hil.commands.asking import ConsoleGround
from hil.commands.hardware import hardware_command

FLIGHT = Path(__file__).parents[2] / "examples" / "flight.toml"
REPORT = encode_report(
    (
        Capability("memory_limit", Support.PROVEN, "systemd: a hog was stopped"),
        Capability("ecc", Support.ABSENT, "no driver counts memory errors"),
    ),
    ("ondemand", "powersave"),
    HardwareReading(
        sampled_ns=1,
        temperatures_degc={"cpu-thermal": 48.3},
        clocks_hz={"arm": 2.4e9},
        power_mode="powersave",
        troubles={"rpi_volt": "ENOENT"},
    ),
)


class Ground:
    """A ground that has one data product of its node."""

    def __init__(self, data=REPORT, stage="COMPLETED"):
        self.data, self.stage, self.asked = data, stage, []

    async def ask(self, method, *params):
        self.asked.append((method, *params))
        match method:
            case "command":
                return 7
            case "command_state":
                return {"node": "sat-01", "stage": self.stage, "code": "UNKNOWN", "detail": "data product 3"}
            case "dumps":
                return [{"number": number, "is_whole": True, "boot_count": 2} for number in (2, 3)]
            case "dump":
                return self.data


def shown(capsys, ground, *options):
    """(verdict, lines) of the command."""
    with hardware_command.make_context("hardware", ["sat-01", *options], obj=ConsoleGround(ground)) as context:
        verdict = asyncio.run(hardware_command.invoke(context))
    return verdict, capsys.readouterr().out.splitlines()


def test_each_capability_stands_with_how_far_it_is_there_and_by_what_or_why_not(capsys):
    ground = Ground()
    verdict, lines = shown(capsys, ground)
    assert verdict is True
    assert lines == [
        "command 7 to sat-01: HARDWARE.REPORT COMPLETED data product 3",
        "memory_limit         PROVEN    systemd: a hog was stopped",
        "ecc                  ABSENT    no driver counts memory errors",
        "power modes          ondemand, [powersave]",
        "cpu-thermal                              48.3 degC",
        "arm                                   2.4e+09 Hz",
        "rpi_volt                             no value ENOENT",
    ]
    assert ground.asked[-1] == ("dump", "sat-01", 2, 3)


def test_the_report_itself_is_printed_on_request(capsys):
    assert shown(capsys, Ground(), "--json")[1][1:] == [REPORT.decode()]


def test_a_node_without_hardware_refuses(capsys):
    verdict, lines = shown(capsys, Ground(stage="FAILED"))
    assert verdict is False
    assert lines == ["command 7 to sat-01: HARDWARE.REPORT FAILED UNKNOWN data product 3"]


def test_a_data_product_that_is_no_report_is_refused(capsys):
    with pytest.raises(ConfigError, match="data product 3: report of the hardware"):
        shown(capsys, Ground(data=b"{}"))


def test_a_node_in_a_simulation_has_no_such_component(tmp_path):
    procedure = tmp_path / "procedure.txt"
    procedure.write_text("wait 130\ntelemetry sat-01 HARDWARE\ncommand sat-01 HARDWARE.NOOP\nhardware sat-01\n")
    done = CliRunner().invoke(main, ["console", str(FLIGHT), str(procedure)])
    assert "nothing on record" in done.output
    assert "HARDWARE.NOOP FAILED INVALID_OPCODE" in done.output
    assert "HARDWARE.REPORT FAILED INVALID_OPCODE" in done.output


def test_it_is_a_command_of_the_console_and_of_the_shell():
    assert isinstance(main.commands["hardware"], click.Command)
    assert hardware_command in ASKING
