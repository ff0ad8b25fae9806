"""Settings and files that a node cannot use: each is one line that says what was expected."""

import signal
import time  # noqa: TID251 - programs share the machine's clock

import msgspec
import pytest

from boards.program import main
from flightsw.config import InterfaceConfig
from hil.bench.settings_files import write_settings


def wrong(lab, capsys, *options):
    """Run in this process with settings that cannot be used; returns the one line."""
    write_settings(lab.config, lab.settings)
    assert main(["--config", str(lab.config), *map(str, options)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("boards: ")
    return printed.err.removeprefix("boards: ").rstrip("\n")


FILES = [
    ("world.json", None, "world.json: cannot be read: No such file or directory"),
    (
        "world.json",
        b'{"sun": [], "sunlight": [2.0], "step_s": 1}',
        "world.json: sunlight[0] = 2.0: Expected `float` <= 1",
    ),
    ("plan.json", b"[[5, 5, 1, 0, 2, 0, 1e6, 0]]", "plan.json: [0]: end_ns = 5: expected more than 5"),
    ("plan.json", b'[[0, 5, "x", 0, 2, 0, 1e6, 0]]', "plan.json: [0][2] = 'x': Expected `int`, got `str`"),
    ("board.json", b"{}", "board.json: Object missing required field `board`"),
]


@pytest.mark.parametrize(("name", "content", "why"), FILES, ids=range(len(FILES)))
def test_a_wrong_file_is_one_line_that_says_what(lab, capsys, name, content, why):
    (lab.folder / name).unlink(missing_ok=True)
    if content is not None:
        (lab.folder / name).write_bytes(content)
    assert wrong(lab, capsys).startswith(f"{lab.folder}/{why}")


SECTIONS = [
    ("board", {"profile": "raspberry-pi-9"}, "board profile 'raspberry-pi-9': expected one of "),
    ("board", {"profile": "mine.toml"}, "mine.toml: cannot be read: No such file or directory"),
    ("link", {"url": "pigeon://x"}, "link: scheme 'pigeon', expected one of "),
    ("storage", {"folder": "plan.json"}, "open "),
    ("node", {"interfaces": (InterfaceConfig(index=0, name="r", coding="morse"),)}, "coding 'morse'"),
]


@pytest.mark.parametrize(("section", "values", "why"), SECTIONS, ids=range(len(SECTIONS)))
def test_a_wrong_setting_is_one_line_that_says_what(lab, capsys, section, values, why):
    lab.change(section, **values)
    assert why in wrong(lab, capsys)


def test_a_wrong_toml_file_names_field_value_and_expectation(lab, capsys):
    write_settings(lab.config, lab.settings)
    lab.config.write_text(lab.config.read_text().replace('name = "sat-01"', "name = 7"))
    assert main(["--config", str(lab.config)]) == 2
    assert capsys.readouterr().err == f"boards: {lab.config}: node.name = 7: Expected `str`, got `int`\n"


def test_a_missing_settings_file_is_one_line(tmp_path, capsys):
    assert main(["--config", str(tmp_path / "none.toml")]) == 2
    assert capsys.readouterr().err == f"boards: {tmp_path}/none.toml: cannot be read: No such file or directory\n"


def test_the_state_of_another_run_is_refused(finish, first_line, lab, capsys):
    assert finish(lab.start(), signal.SIGKILL)
    board = lab.start()
    first_line(board)
    finish(board, signal.SIGTERM)
    lab.change("clock", zero_utc_ns=time.time_ns())
    saved = msgspec.json.decode((lab.folder / "board.json").read_bytes())
    saved["board"]["at_ns"] = 10**15
    (lab.folder / "board.json").write_bytes(msgspec.json.encode(saved))
    text = wrong(lab, capsys)
    assert text.startswith(f"{lab.folder}/board.json: board.at_ns = {10**15}: expected an instant that has passed")


def test_a_bench_that_is_not_there_is_one_line(lab, capsys, monkeypatch):
    monkeypatch.setattr("flightsw.host.program.end_with_parent", lambda: None)  # this process is the test's
    text = wrong(lab, capsys, "--bench", lab.folder / "bench")
    assert text == f"control socket {lab.folder}/bench: No such file or directory; is the program running?"


def test_unknown_options_are_refused(lab):
    with pytest.raises(SystemExit) as caught:
        main(["--config", str(lab.config), "--cause", "BOREDOM"])
    assert caught.value.code == 2
