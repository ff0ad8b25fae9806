"""Settings and journals of programs: what a user did wrong is one line that says what, and a log loses no line that
somebody reads."""

import io
import json
import os
import subprocess
import sys
from typing import Annotated

import msgspec
import pytest

from flightsw.errors import ConfigError
from flightsw.host.journal import Journal
from flightsw.host.settings import ClockSettings, load_json, load_settings
from flightsw.ports import ResetCause


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    size: Annotated[int, msgspec.Meta(ge=1)]
    names: list[str] = []


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    inner: Inner
    rows: list[tuple[int, float]] = []


WRONG = [
    ('inner = {size = "x"}', "inner.size = 'x': Expected `int`, got `str`"),
    ("inner = {size = 0}", "inner.size = 0: Expected `int` >= 1"),
    ('inner = {size = 1, names = ["a", 2]}', "inner.names[1] = 2: Expected `str`, got `int`"),
    ("inner = {size = 1, sise = 2}", "inner: Object contains unknown field `sise`"),
    ("rows = [[1, 2.0]]", "Object missing required field `inner`"),
    (
        'rows = [[1, 2.0], [3, "y"]]\ninner = {size = 1}',
        "rows[1][1] = 'y': Expected `float`, got `str`",
    ),
    (f"inner = {{size = '{'x' * 100}'}}", f"inner.size = '{'x' * 59}...: Expected `int`, got `str`"),
    ("inner = ", "not TOML: "),
]


@pytest.mark.parametrize(("text", "why"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_setting_names_file_field_value_and_expectation(tmp_path, text, why):
    path = tmp_path / "settings.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_settings(path, Outer)
    assert str(caught.value).startswith(f"{path}: {why}")
    assert "\n" not in str(caught.value)


def test_right_settings_are_typed_values(tmp_path):
    path = tmp_path / "settings.toml"
    path.write_text('rows = [[1, 2]]\n[inner]\nsize = 3\nnames = ["a"]\n')
    assert load_settings(path, Outer) == Outer(Inner(3, ["a"]), [(1, 2.0)])


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"[[1, 2.0], [3]]", "[1] = [3]: Expected `array` of length 2, got 1"),
        (b"[", "not JSON: "),
        (b"\xff", "not JSON: "),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_a_wrong_json_file_does_too(tmp_path, data, why):
    path = tmp_path / "plan.json"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        load_json(path, list[tuple[int, float]])
    assert str(caught.value).startswith(f"{path}: {why}")


@pytest.mark.parametrize("scale", ["0", "0.0001", "1001", "inf", "nan"])
def test_a_time_scale_out_of_range_is_refused(tmp_path, scale):
    path = tmp_path / "clock.toml"
    path.write_text(f"zero_utc_ns = 1\nepoch_utc_ns = 2\ntime_scale = {scale}\n")
    with pytest.raises(ConfigError, match="time_scale"):
        load_settings(path, ClockSettings)


# The journal


def test_each_record_is_a_line_of_json_with_bytes_as_hexadecimal_digits():
    stream = io.StringIO()
    journal = Journal("sat-01", lambda: 1_500_000_000, stream)
    fields = {"object": b"\x00\xff", "jobs": [[1, (b"a",)]], "cause": ResetCause.BROWN_OUT, "share": 0.5, "none": None}
    journal("event", fields)
    journal("other", {"kind": "x", "t_ns": 3})
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert first == {
        "t_ns": 1_500_000_000,
        "source": "sat-01",
        "kind": "event",
        "object": "00ff",
        "jobs": [[1, ["61"]]],
        "cause": 6,
        "share": 0.5,
        "none": None,
    }
    assert second == {"t_ns": 1_500_000_000, "source": "sat-01", "kind": "other", "kind_": "x", "t_ns_": 3}


class Closed(io.StringIO):
    def write(self, text):
        raise BrokenPipeError(32, "Broken pipe")


def test_a_reader_that_goes_away_ends_the_journal_and_nothing_else():
    journal = Journal("sat-01", lambda: 0, Closed())
    journal("event", {})
    journal("event", {})
    assert journal.lost_count == 2


def test_a_program_whose_pager_is_quit_ends_as_if_it_had_not_been():
    code = (
        "import sys\nfrom flightsw.host.journal import Journal\n"
        "journal = Journal('x', lambda: 0, sys.stdout)\n"
        "journal('first', {})\nsys.stdin.readline()\n"
        "for number in range(100): journal('more', {'text': 'x'})\n"
        "sys.exit(7 if journal.lost_count == 100 else journal.lost_count)\n"
    )
    reading, writing = os.pipe()
    program = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=writing, stderr=subprocess.PIPE, text=True
    )
    os.close(writing)
    assert os.read(reading, 100).startswith(b'{"t_ns":0')
    os.close(reading)
    _, errors = program.communicate("go on\n")
    assert (program.returncode, errors) == (7, "")
