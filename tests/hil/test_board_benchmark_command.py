"""`flatrack board benchmark`: it really computes in a worker, and what it writes is a profile."""

import asyncio

import pytest
from click.testing import CliRunner

from boards import profiles
from boards.benchmark import Measured
from boards.support import trees
from boards.support.hardware import open_hardware
from boards.thermal_fit import ThermalFit
from boards.worker.settings import WorkerSettings
from flightsw.errors import ConfigError
from hil.commands import board_benchmark
from hil.commands.board_benchmark import benchmark_command, open_subject

FOUND = Measured(5.4321, 50, 3.1, 4.2, ThermalFit(300.0, 20.0, 6.0, 0.3, 0.2), ("power: a note",))


@pytest.fixture
def board(tmp_path, monkeypatch):
    """This machine is a recorded board."""

    def be(name):
        laid = trees.lay(name, tmp_path / "root")

        def opened(kind, *, monotonic_ns):
            return open_hardware(kind, root=laid.root, monotonic_ns=monotonic_ns, run=laid.run, read=laid.read)

        monkeypatch.setattr(board_benchmark, "open_hardware", opened)

    return be


@pytest.fixture
def measured(monkeypatch):
    """What was asked of a measurement that takes no time."""
    asked = []

    async def measure(subject, *, minutes, runs, say):
        asked.append((minutes, runs, await subject.compute()))
        return FOUND

    monkeypatch.setattr(board_benchmark, "measure", measure)
    return asked


def test_the_worker_really_computes_the_shipped_model():
    hardware = open_hardware("host", monotonic_ns=lambda: 0)
    said = []

    async def scenario():
        settings = WorkerSettings(isolation="rlimits")
        async with open_subject(hardware, settings, profiles.load("raspberry-pi-5"), said.append) as subject:
            before_ns = subject.now_ns()
            mpix = await subject.compute()
            return mpix, subject.now_ns() - before_ns, subject.read()

    mpix, taken_ns, reading = asyncio.run(scenario())
    assert mpix == 256 * 256 / 1e6
    assert taken_ns > 0
    assert reading.memory_share is not None
    assert {line.partition(":")[0] for line in said} == {"accelerator", "memory_limit"}


def test_what_it_writes_is_a_profile_of_this_board(board, measured, tmp_path):
    board("raspberry-pi-5")
    out = tmp_path / "sat-03.toml"
    result = CliRunner().invoke(benchmark_command, ["--out", str(out), "--minutes", "6", "--runs", "7"])
    assert result.exit_code == 0, result.output
    assert measured == [(6.0, 7, 256 * 256 / 1e6)]
    profile = profiles.load(out)
    assert (profile.name, profile.mpix_per_s.value, profile.mpix_per_s.flag) == ("sat-03", 5.432, "V")
    assert profile.mpix_per_s.source.startswith("measured on Raspberry Pi 5 Model B Rev 1.0 at 20")
    assert profile.memory_bytes == profiles.load("raspberry-pi-5").memory_bytes
    assert "benchmark: heat: 20.0 K after 300 s and more, 6.0 K at once\n" in result.stderr
    assert "benchmark: power: a note\n" in result.stderr


def test_without_a_file_the_profile_is_all_that_is_on_standard_output(board, measured, tmp_path):
    board("raspberry-pi-4")
    result = CliRunner().invoke(benchmark_command, ["--minutes", "6"])
    path = tmp_path / "out.toml"
    path.write_text(result.stdout)
    assert profiles.load(path).name == "raspberry-pi-4-measured"


def test_a_board_that_no_profile_fits_must_be_given_one(board, measured):
    board("host")
    result = CliRunner().invoke(benchmark_command, [])
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception).startswith("--profile: missing, and no shipped profile fits this board, expected one")
    assert CliRunner().invoke(benchmark_command, ["--profile", "raspberry-pi-4"]).exit_code == 0


def test_a_file_that_cannot_be_written_is_one_line(board, measured, tmp_path):
    board("raspberry-pi-4")
    result = CliRunner().invoke(benchmark_command, ["--out", str(tmp_path / "none" / "x.toml")])
    assert str(result.exception) == f"{tmp_path}/none/x.toml: cannot be written: No such file or directory"
