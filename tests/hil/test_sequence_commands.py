"""`flatrack sequence` and `flatrack time`; docs/sequences.md is run word for word."""

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from flightsw.core import mission_time, sequences
from flightsw.dictionary import sequence_file
from hil.cli import main

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "sequences.md").read_text(encoding="utf-8")
RUNS = re.findall(r"<!-- run -->\n```console\n(.*?)```", PAGE, re.DOTALL)
"""Blocks of commands and what they print."""
LIMITS = re.findall(r"^\| `(\w+)\.(\w+)` \| ([\d.,]+) ?(\w*)", PAGE, re.MULTILINE)
EXAMPLES = re.findall(r"<!-- example: (\S+) -->\n```python\n(.*?)```\n<!-- end -->", PAGE, re.DOTALL)


@pytest.fixture(autouse=True)
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def flatrack(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, words)
    return done.exit_code, done.output


def without_digest(text: str) -> str:
    """The dictionary's digest changes with the dictionary, which the page is not about."""
    return re.sub(r"dictionary [0-9a-f]{16}", "dictionary ................", text)


@pytest.mark.parametrize("block", RUNS, ids=lambda block: block.splitlines()[0])
def test_the_page_shows_what_its_commands_print(block: str) -> None:
    for part in re.split(r"^\$ flatrack ", block, flags=re.MULTILINE)[1:]:
        line, _, shown = part.partition("\n")
        _, printed = flatrack(*shlex.split(line))
        printed = re.sub(r"T\+\d+:\d\d:\d\d  PASS so far.*\n", "", printed)  # the bench's verdict of the run
        assert without_digest(printed) == without_digest(shown), line


@pytest.mark.parametrize(("path", "text"), EXAMPLES, ids=[path for path, _ in EXAMPLES])
def test_the_page_shows_the_shipped_examples(path: str, text: str) -> None:
    assert (ROOT / path).read_text(encoding="utf-8") == text
    assert RUNS


UNITS = {"": 1, "bytes": 1, "entries": 1, "sequences": 1, "s": 10**9, "ms": 10**6, "days": 86_400 * 10**9, "ppm": 1000}


@pytest.mark.parametrize(("owner", "name", "number", "unit"), LIMITS, ids=lambda part: part)
def test_a_limit_on_the_page_has_the_value_of_the_code(owner: str, name: str, number: str, unit: str) -> None:
    module = {one.__name__.rpartition(".")[2]: one for one in (mission_time, sequence_file, sequences)}[owner]
    assert int(number.replace(",", "")) * UNITS[unit] == getattr(module, name)


def test_a_compiled_sequence_is_shown_as_its_source_is(tmp_path: Path) -> None:
    out = tmp_path / "a.fsq"
    code, text = flatrack("sequence", "compile", "examples/sequences/eclipse-prep.seq", "-o", str(out))
    assert code == 0
    assert text == f"{out}: eclipse-prep, 4 entries in 161 bytes\n"
    assert flatrack("sequence", "show", str(out)) == flatrack("sequence", "show", "examples/sequences/eclipse-prep.seq")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"\xff", "not UTF-8 at byte 0, expected source of a sequence"),
        (b"FSQ1 and then nothing that holds", "header: "),
        (b"x" * 300_000, "bytes, at most 262144"),
        (b"", 'no sequence, expected sequence("name", kind="relative") first'),
    ],
)
def test_a_file_that_is_no_sequence_is_a_usage_error(content: bytes | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "a.seq"
    if content is not None:
        path.write_bytes(content)
    code, text = flatrack("sequence", "show", str(path))
    assert code == 2
    assert words in text
    assert text.startswith(f"flatrack: {path}")
    assert text.count("\n") == 1


def test_mission_time_is_measured_and_corrected_from_the_console(tmp_path: Path) -> None:
    lines = [
        "wait 500",
        "time sat-02 --no-measure",
        "time sat-02",
        "time sat-02 --step --set",
        "time sat-02 --adjust",
        "strike clock_jump node=sat-02 jump_s=259200",
        "wait 20",
        "time sat-02",
        "command sat-02 COMMANDS.ARM TIME.SET",
        "command sat-02 TIME.SET 259200000000000 1",
        "time sat-02",
        "time sat-02 --step",
        "time sat-02 --set",
        "time sat-02",
        "time sat-01 --wait 1",
    ]
    procedure = tmp_path / "lines.txt"
    procedure.write_text("\n".join(lines), encoding="utf-8")
    code, text = flatrack("console", "examples/three.toml", str(procedure))
    assert code == 2, "one line was wrong"
    parts = [part.partition("\n")[2] for part in re.split(r"^T\+0:\d\d:\d\d> ", text, flags=re.MULTILINE)[1:]]
    outputs = dict(enumerate(parts))
    found = {index: re.search(r"offset +([-+.\d]+) ms", part) for index, part in outputs.items()}
    offsets = {index: float(match[1]) for index, match in found.items() if match}
    assert "no answer on record" in outputs[1]
    assert "UNKNOWN, correlation 0" in outputs[2]
    assert abs(offsets[2]) < 50
    assert "expected one of them" in outputs[3]
    assert "TIME.ADJUST COMPLETED" in outputs[4]
    assert "CORRELATED, correlation 1" in outputs[7]
    assert abs(offsets[7]) < 50, "the jump of the board's clock was taken out"
    assert offsets[10] == pytest.approx(259_200_000, abs=50)
    assert "expected --set" in outputs[11]
    assert "TIME.SET COMPLETED" in outputs[12]
    assert abs(offsets[13]) < 50
    assert "correlation 3" in outputs[13]
    assert "no answer within 1 s" in outputs[14]


def test_sequences_go_on_over_a_reset_of_a_node_and_start_by_themselves_after_it(tmp_path: Path) -> None:
    plan = "KEYS.NOOP()\nwait(seconds=40)\n" * 4 + "KEYS.NOOP()"
    sources = {
        "steps": 'sequence("steps", kind="relative")\n' + "NODE.NOOP()\nwait(seconds=40)\n" * 4 + "MODE.NOOP()",
        "plan": f'sequence("plan", kind="absolute")\nat("2026-03-20T00:08:40Z")\n{plan}',
        "again": 'sequence("again", kind="relative", auto_start="after_power_on")\nwait(seconds=5)\nJOBS.NOOP()',
    }
    lines = ["wait 500", "time sat-02 --step"]
    for name, source in sources.items():
        (tmp_path / f"{name}.seq").write_text(source, encoding="utf-8")
        lines.append(f"sequence load sat-02 {tmp_path / name}.seq" + ("" if name == "again" else " --start"))
    lines += ["wait 70", "strike node_reset node=sat-02 off_s=20.0", "wait 200"]
    lines += [f"sequence status sat-02 {name}" for name in sources]
    lines += ["events sat-02 --most 40"]
    procedure = tmp_path / "lines.txt"
    procedure.write_text("\n".join(lines), encoding="utf-8")
    code, text = flatrack("console", "examples/three.toml", str(procedure))
    assert code == 0, text
    statuses = {
        name: re.findall(r"\)  ([A-Z_]+)$", part, re.MULTILINE)
        for name, part in re.findall(r"sequence status sat-02 (\w+)\n(.*?)(?=T\+)", text, re.DOTALL)
    }
    assert statuses == {
        "steps": ["EXECUTED"] * 5,
        "plan": ["EXECUTED"] * 5,
        "again": ["EXECUTED"],
    }, text
    for event in (
        "SEQUENCES.RESUMED: steps at entry 3",
        "SEQUENCES.RESUMED: plan at entry",
        "SEQUENCES.STARTED: again: at boot after POWER_CYCLE",
        "SEQUENCES.COMPLETED: steps: 5 executed, 0 failed, 0 skipped",
    ):
        assert event in text
