from pathlib import Path

import pytest
from click.testing import CliRunner

from flightsw.core.limits import DEFAULT_FILE, default_rules
from hil.cli import main


def run(*arguments):
    return CliRunner().invoke(main, ["rules", *map(str, arguments)])


def test_a_file_that_a_node_would_take_passes_the_check():
    done = run("check", DEFAULT_FILE)
    assert done.exit_code == 0
    rules = default_rules()
    assert f"default, {len(rules.rules)} rules" in done.stdout
    assert rules.digest.hex() in done.stdout


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("MODE.sunlight > 0", "MODE.sunlite > 0", "[watchpoints.in_sun]: when: MODE.sunlite is no channel (did you"),
        ("battery_at_end and in_safe", "battery_at_end and", "column 19: the end is there, expected a watchpoint"),
        ('name = "default"', "", "missing required field `name`"),
    ],
)
def test_a_file_that_a_node_would_refuse_is_refused_with_its_name_and_place(tmp_path, before, after, message):
    file = tmp_path / "mine.toml"
    file.write_text(DEFAULT_FILE.read_text().replace(before, after))
    done = run("check", file)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"flatrack: {file}: ")
    assert message in done.stderr


def test_a_missing_file_is_one_line_and_exit_code_2():
    done = run("check", Path("nowhere.toml"))
    assert (done.exit_code, done.stderr) == (2, "flatrack: nowhere.toml: cannot be read: No such file or directory\n")


def test_show_names_every_default_rule_with_its_response():
    done = run("show")
    assert done.exit_code == 0
    assert all(f"{rule.name}: " in done.stdout for rule in default_rules().rules)
    assert "latch_up: load_unexplained, 2 times in a row -> NODE.POWER_CYCLE" in done.stdout
