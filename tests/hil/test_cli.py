"""The command line: what is wrong is told in one line with file, field and expectation; the exit code says whose."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result

from hil.bench.scenario import find, shipped
from hil.cli import EXIT_FAIL, EXIT_INTERRUPTED, EXIT_USAGE, main

UNTIL = ("--until", "60")
SHIPPED = "three-body-12"


def flatrack(*arguments: str | Path) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def refused(result: Result, *words: str) -> None:
    """It must have ended with exit code 2 and one line that holds these words."""
    assert result.exit_code == EXIT_USAGE, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    for word in words:
        assert word in lines[0]


@pytest.fixture
def scenario(tmp_path: Path) -> Callable[[str, str], Path]:
    """Makes a scenario file: the shipped one with one text in place of another."""

    def make(old: str, new: str) -> Path:
        text = find(SHIPPED).read_text(encoding="utf-8")
        assert old in text, "the shipped scenario has changed; choose another line to break"
        path = tmp_path / "mine.toml"
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
        return path

    return make


@pytest.fixture(scope="module")
def good_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a minute's run."""
    base = tmp_path_factory.mktemp("runs")
    result = flatrack("run", SHIPPED, *UNTIL, "--out", base)
    assert result.exit_code == 0, result.output
    return base / f"{SHIPPED}-7"


@pytest.fixture
def run_copy(good_run: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    copy = tmp_path / "run"
    copy.mkdir()
    for name in ("run.json", "trace.jsonl"):
        (copy / name).write_bytes((good_run / name).read_bytes())
    return copy


# -- what the user may get wrong


def test_an_unknown_scenario_is_refused_and_the_shipped_ones_are_named(tmp_path: Path) -> None:
    refused(flatrack("run", "three-bodies", "--out", tmp_path), "'three-bodies'", "no such file", SHIPPED)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("duration_s = 5700.0", "duration_s = = 5700.0", ["not TOML", "line"]),
        ("duration_s = 5700.0", 'duration_s = "long"', ["$.duration_s", "float", "str"]),
        ("duration_s = 5700.0", "duration_s = -1.0", ["$.duration_s", "> 0"]),
        ("duration_s = 400.0", "duration_s = inf", ["$.faults[0].duration_s", "<= 1"]),
        ("loss = 0.01", "loss = 1.01", ["$.links.ground.impairments", "loss", "<= 1"]),
        ("tile_px = 48", "tile_pixels = 48", ["$.workload", "tile_pixels"]),
        ('node = "sat-05"', 'node = "sat-99"', ["faults[1].node", "'sat-99'", "not in the fleet"]),
        ('link = "sat-03/sat-04"', 'link = "sat-03/sat-09"', ["faults[0].link", "'sat-03/sat-09'", "no link"]),
        ("at_s = 300.0", "at_s = 9999.0", ["faults[1].at_s", "9999", "< 5700"]),
        ('profile = "raspberry-pi-4"', 'profile = "raspberry-pi-9"', ["raspberry-pi-9", "profile"]),
        ("tile_px = 48", 'model = "absent.onnx"', ["model", "'absent.onnx'", "no such file"]),
        ("tile_px = 48", 'scene = "absent.npz"', ["scene", "'absent.npz'", "no such file"]),
        ('name = "sat-02"', 'name = "sat-01"', ["nodes", "'sat-01'", "twice"]),
    ],
)
def test_a_mistake_in_a_scenario_is_named(
    scenario: Callable[[str, str], Path], tmp_path: Path, old: str, new: str, words: list[str]
) -> None:
    result = flatrack("run", scenario(old, new), "--out", tmp_path / "runs")
    refused(result, *words)
    assert not (tmp_path / "runs").exists(), "nothing is made for a run that cannot start"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused(flatrack("run", SHIPPED, *UNTIL, "--out", tmp_path / "file"), str(tmp_path / "file"), "cannot make")


def test_a_scene_that_is_not_there_is_named(tmp_path: Path) -> None:
    refused(flatrack("run", SHIPPED, "--scene", tmp_path / "none.npy", "--out", tmp_path), "none.npy", "scene")


def test_a_scene_smaller_than_a_tile_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "tiny.npy", np.ones((20, 60, 4), np.uint16))
    refused(flatrack("run", SHIPPED, "--scene", tmp_path / "tiny.npy", "--out", tmp_path), "tiny.npy", "20", "48")


@pytest.mark.parametrize("seeds", ["many", "5-", "-5", "9-3", "1-2-3", ""])
def test_a_seed_range_that_is_none_is_refused(seeds: str) -> None:
    refused(flatrack("soak", SHIPPED, f"--seeds={seeds}"), "--seeds", repr(seeds), "1-200")


def test_a_soak_that_cannot_start_says_so_once(scenario: Callable[[str, str], Path]) -> None:
    broken = scenario("tile_px = 48", 'model = "absent.onnx"')
    refused(flatrack("soak", broken, "--seeds", "1-9"), "model", "'absent.onnx'", "no such file")


@pytest.mark.parametrize(
    ("option", "value"),
    [("--seed", "-1"), ("--seed", "x"), ("--until", "0"), ("--until", "nan"), ("--until", "inf"), ("--faults", "some")],
)
def test_an_option_out_of_range_is_refused(option: str, value: str, tmp_path: Path) -> None:
    result = flatrack("run", SHIPPED, f"{option}={value}", "--out", tmp_path / "runs")
    assert result.exit_code == EXIT_USAGE
    assert option.removeprefix("--") in result.stderr
    assert not (tmp_path / "runs").exists()


# -- running


def test_list_lists_what_is_shipped() -> None:
    result = flatrack("list")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == shipped()
    assert re.search(r"12 nodes +5700 s +\S", lines[shipped().index(SHIPPED)])


def test_until_ends_the_run_early_and_open_jobs_are_no_failure(good_run: Path) -> None:
    kept = msgspec.json.decode((good_run / "summary.json").read_bytes())
    assert kept["passed"] is True
    assert kept["counters"]["virtual_s"] == 60.0
    assert kept["counters"]["jobs_completed"] < kept["counters"]["jobs_accepted"]


def test_a_run_leaves_what_its_documentation_lists(good_run: Path) -> None:
    names = {path.name for path in good_run.iterdir()} - {"replays"}
    assert {"run.json", "trace.jsonl", "summary.txt", "summary.json", "ledger.db", "archive.db", "results"} <= names
    text = (good_run / "summary.txt").read_text(encoding="utf-8")
    assert "jobs" in text
    assert "PASS" in text
    assert "\x1b" not in text, "a text file holds no colours"


def test_progress_is_plain_lines_where_there_is_no_terminal(tmp_path: Path) -> None:
    result = flatrack("run", SHIPPED, "--until", "600", "--faults", "none", "--out", tmp_path)
    lines = [line for line in result.stdout.splitlines() if line.startswith("T+")]
    assert len(lines) == 10
    assert lines[-1].startswith("T+0:10:00  jobs ")
    assert "\x1b" not in result.output
    assert "\r" not in result.output


def test_the_users_own_scene_is_used(tmp_path: Path) -> None:
    pixels = np.random.Generator(np.random.Philox(1)).integers(0, 4000, (96, 96, 4), dtype=np.uint16)
    np.save(tmp_path / "mine.npy", pixels)
    result = flatrack("run", SHIPPED, "--scene", tmp_path / "mine.npy", "--until", "500", "--out", tmp_path / "runs")
    assert result.exit_code == 0, result.output
    kept = msgspec.json.decode((tmp_path / "runs" / f"{SHIPPED}-7" / "summary.json").read_bytes())
    assert kept["counters"]["jobs_accepted"] == 4, "four tiles of 48 pixels a side"
    again = flatrack("replay", tmp_path / "runs" / f"{SHIPPED}-7")
    assert again.exit_code == 0, again.output


def test_runs_of_one_seed_get_numbered_folders(tmp_path: Path) -> None:
    for _ in range(2):
        flatrack("run", SHIPPED, "--until", "1", "--out", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{SHIPPED}-7", f"{SHIPPED}-7-2"]


# -- replay


def test_a_replay_is_the_run(good_run: Path) -> None:
    result = flatrack("replay", good_run)
    assert result.exit_code == 0, result.output
    assert "SAME" in result.stdout


def test_a_replay_with_another_seed_differs(run_copy: Path) -> None:
    identity = msgspec.json.decode((run_copy / "run.json").read_bytes())
    (run_copy / "run.json").write_bytes(msgspec.json.encode(identity | {"seed": 8}))
    result = flatrack("replay", run_copy)
    assert result.exit_code == EXIT_FAIL
    assert "seed is 7" in result.stdout
    assert result.stdout.strip().endswith("DIFFERENT")


def test_a_run_of_another_machine_is_compared_by_its_masks(tmp_path: Path) -> None:
    assert flatrack("run", SHIPPED, "--until", "240", "--out", tmp_path).exit_code == 0
    run_copy = tmp_path / f"{SHIPPED}-7"  # four minutes bring the first masks
    identity = msgspec.json.decode((run_copy / "run.json").read_bytes())
    elsewhere = identity | {"digest": "00" * 16, "machine": "riscv64"}
    (run_copy / "run.json").write_bytes(msgspec.json.encode(elsewhere))
    result = flatrack("replay", run_copy)
    assert result.exit_code == 0, result.output
    assert "SAME MASKS within 0.5% of their pixels" in result.stdout
    mask = min((run_copy / "results").glob("*.mask"))
    content = bytearray(mask.read_bytes())
    content[-8:] = bytes(255 - byte for byte in content[-8:])
    mask.write_bytes(bytes(content))
    result = flatrack("replay", run_copy)
    assert result.exit_code == EXIT_FAIL
    assert "1 of " in result.stdout


def test_a_replay_against_another_digest_differs(run_copy: Path) -> None:
    identity = msgspec.json.decode((run_copy / "run.json").read_bytes())
    (run_copy / "run.json").write_bytes(msgspec.json.encode(identity | {"digest": "00" * 16}))
    result = flatrack("replay", run_copy)
    assert result.exit_code == EXIT_FAIL
    assert "digest" in result.stdout
    assert result.stdout.strip().endswith("DIFFERENT")


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _flip(data: bytes) -> bytes:
    at = data.index(b'"boot"')
    return data[:at] + b'"boat"' + data[at + 6 :]


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("run.json", _cut, ["run.json"]),
        ("run.json", lambda data: b"\xff" + data, ["run.json"]),
        ("run.json", lambda data: data.replace(b'"seed":', b'"sead":'), ["run.json", "sead"]),
        ("run.json", lambda data: data.replace(b'"until_s": 60', b'"until_s": -60'), ["run.json", "until_s", "> 0"]),
        ("run.json", lambda data: data.replace(b'"node": "sat-05"', b'"node": "sat-55"'), ["run.json", "'sat-55'"]),
        ("trace.jsonl", _cut, ["trace.jsonl", "truncated"]),
        ("trace.jsonl", _flip, ["trace.jsonl", "digest", "changed"]),
        ("trace.jsonl", lambda data: b"", ["trace.jsonl"]),
    ],
)
def test_a_damaged_run_is_refused(
    run_copy: Path, name: str, damage: Callable[[bytes], bytes], words: list[str]
) -> None:
    before = (run_copy / name).read_bytes()
    (run_copy / name).write_bytes(damage(before))
    assert (run_copy / name).read_bytes() != before, "the damage must hit"
    refused(flatrack("replay", run_copy), *words)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    refused(flatrack("replay", tmp_path), "run.json", "expected the folder of a run")


# -- interrupt


def test_an_interrupted_run_is_kept_and_can_be_replayed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hil.cli", "run", SHIPPED, "--out", str(tmp_path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}
    ) as process:
        assert process.stdout is not None, "it was asked for"
        assert process.stdout.readline().startswith("T+")  # it runs
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == EXIT_INTERRUPTED, errors
    assert "Traceback" not in errors + output
    assert "interrupted: the partial run is kept" in output
    folder = tmp_path / f"{SHIPPED}-7"
    identity = msgspec.json.decode((folder / "run.json").read_bytes())
    assert identity["interrupted"] is True
    kept = msgspec.json.decode((folder / "summary.json").read_bytes())
    assert kept["violations"] == [], "an interrupt breaks no rule"
    assert 0 < kept["counters"]["virtual_s"] < 5700
    result = flatrack("replay", folder)
    assert result.exit_code == 0, result.output
    assert "was interrupted after" in result.stdout
    assert "SAME as far as it went" in result.stdout
