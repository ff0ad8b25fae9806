"""`flatrack telemetry` and `flatrack events`, on a console in virtual time."""

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from flightsw.storage.records import record_at
from flightsw.wire.messages import decode_message
from hil.cli import main
from hil.commands.telemetry import COLOURS

FLIGHT = Path(__file__).parents[2] / "examples" / "flight.toml"
LINES = [
    "wait 130",
    "telemetry sat-01 RECORDER",
    "command sat-01 TELEMETRY.RATE EVENTS.HK 1",
    "command sat-01 EVENTS.DISABLE NODE.BAD_MESSAGE",
    "command sat-01 TELEMETRY.SEND EVENTS.HK",
    "wait 10",
    "telemetry sat-01 EVENTS.disabled --history --most 3 --json",
    "telemetry 11 EVENTS.disabled --json",
    "telemetry sat-01 RECORDER.stord",
    "telemetry sat-99",
    "telemetry sat-02 UPDATE --history",
    "command sat-01 NODE.RESET",
    "wait 30",
    "telemetry sat-01 MODE.charge_j",
    "events sat-01 --severity FATAL",
    "events sat-01",
    "command sat-01 EVENTS.DUMP 10",
    "events --most 1 --json",
    "dumps sat-01",
    "dumps sat-01 --kind EVENTS --save {save}",
    "dumps sat-01 --kind NOBODY --save {save}",
]


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """What stands below each typed line."""
    folder = tmp_path_factory.mktemp("console")
    procedure = folder / "procedure.txt"
    procedure.write_text("\n".join(LINES).format(save=folder / "dump"))
    done = CliRunner().invoke(main, ["console", str(FLIGHT), str(procedure)])
    found, typed = {}, None
    for line in done.output.splitlines():
        if line.startswith("T+") and "> " in line:
            typed = line.partition("> ")[2]
            found[typed] = []
        elif typed is not None:
            found[typed].append(line)
    return found | {"saved": (folder / "dump").read_bytes(), "folder": str(folder)}


def test_the_channels_of_a_component_stand_one_below_the_other_with_unit_colour_and_time(shown):
    rows = [line.split() for line in shown["telemetry sat-01 RECORDER"]]
    assert rows[0][0] == "RECORDER.cmdpc"
    named = {row[0]: row[1:] for row in rows}
    assert named["RECORDER.stored_bytes"][:2] == ["0", "bytes"]
    assert named["RECORDER.unrecorded"][:2] == ["0", "GREEN"]
    assert named["RECORDER.playback"][:3] == ["AUTOMATIC", "boot", "1"]
    assert named["RECORDER.stored"][-2:] == ["s", "ago"]


def test_a_history_has_the_newest_values_oldest_first(shown):
    (line,) = shown["telemetry sat-01 EVENTS.disabled --history --most 3 --json"]
    rows = json.loads(line)
    assert [row["value"] for row in rows] == [1, 1, 1]
    uptimes_s = [row["uptime_s"] for row in rows]
    assert uptimes_s == [uptimes_s[0], uptimes_s[0] + 1, uptimes_s[0] + 2], "at the commanded rate"


def test_a_node_may_be_given_by_its_number(shown):
    (row,) = json.loads(shown["telemetry 11 EVENTS.disabled --json"][0])
    assert (row["channel"], row["value"]) == ("EVENTS.disabled", 1)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("telemetry sat-01 RECORDER.stord", "RECORDER."),
        ("telemetry sat-99", "'sat-99', expected one of sat-01, sat-02"),
        ("telemetry sat-02 UPDATE --history", "channel is 'UPDATE'"),
    ],
)
def test_what_is_not_there_is_one_line_that_says_what_was_expected(shown, line, why):
    (told,) = [one for one in shown[line] if one]
    assert told.startswith("flatrack: ")
    assert why in told


def test_what_was_told_before_a_reset_is_stale(shown):
    (line,) = shown["telemetry sat-01 MODE.charge_j"]
    assert " J " in line
    assert "STALE" in line


def test_events_stand_with_their_severity_and_are_filtered_by_it(shown):
    assert any("WARNING_HI" in line and "NODE.RESET: boot 2" in line for line in shown["events sat-01"])
    assert shown["events sat-01 --severity FATAL"] == []
    (row,) = json.loads(shown["events --most 1 --json"][0])
    assert row["node"] == "sat-01"


def test_dumped_events_are_kept_once(shown):
    (last,) = [line for line in shown["command sat-01 EVENTS.DUMP 10"] if "COMPLETED" in line]
    assert int(last.split()[-2]) >= 1
    names = [line.split()[4] for line in shown["events sat-01"]]
    assert names.count("NODE.RESET:") == 1


def test_dumps_are_listed_and_saved(shown):
    (line,) = shown["dumps sat-01"]
    assert line.split() == ["boot", "2", "dump", "1", "EVENTS", str(len(shown["saved"])), "bytes"]
    assert decode_message(record_at(shown["saved"], 0)).component == "NODE"
    (told,) = [line for line in shown[f"dumps sat-01 --kind NOBODY --save {shown['folder']}/dump"] if line][:1]
    assert told == "flatrack: no whole dump to save"


def test_every_colour_is_one_of_the_terminal():
    assert all(click.unstyle(click.style("x", fg=colour)) == "x" for colour in COLOURS.values())
