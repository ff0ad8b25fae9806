"""Random faults over many seeds: every rule holds, every job ends once, and a lost worker is a finding."""

import os
import signal
from pathlib import Path
from typing import get_args

import pytest

from flightsw.compute.inference import InferenceCache
from flightsw.errors import ConfigError
from hil.bench.execute import execute, prepare
from hil.bench.scenario import load
from hil.bench.soak import Finding, Run, replay_command, run_seed, seed_range, soak
from hil.faults.plan import Fault

SHIPPED = "three-body-12"
SEEDS_FEW = range(1, 13)
SEEDS_MORE = range(13, 53)
SEEDS_NIGHT = range(1, 201)


@pytest.fixture(scope="module")
def cache() -> InferenceCache:
    return InferenceCache()


def complaint(finding: Finding) -> str:
    """What a person needs to see the failure again."""
    return f"seed {finding.seed}: {finding.reason}\n  replay: {finding.command}"


@pytest.mark.parametrize("seed", SEEDS_FEW)
def test_every_rule_holds_whatever_strikes(seed: int, cache: InferenceCache) -> None:
    outcome = execute(prepare(load(SHIPPED), seed, "random"), seed, cache=cache).outcome
    reasons = [f"rule {v.rule} at {v.t_ns / 1e9:.3f} s: {v.text}" for v in outcome.violations] + outcome.unmet
    again = replay_command(SHIPPED, seed, "random", None)
    assert outcome.passed, f"seed {seed}: {'; '.join(reasons)}\n  replay: {again}"
    ended = outcome.counters["jobs_completed"] + outcome.counters["jobs_failed"]
    assert ended == outcome.counters["jobs_accepted"] == 96, f"seed {seed}\n  replay: {again}"
    assert outcome.counters["results_equal"] == outcome.counters["jobs_completed"]


def test_the_few_seeds_strike_with_every_kind_of_fault() -> None:
    drawn = {type(fault) for seed in SEEDS_FEW for fault in prepare(load(SHIPPED), seed, "random").faults}
    assert drawn == set(get_args(Fault))


@pytest.mark.slow
@pytest.mark.parametrize(
    "seeds", [SEEDS_MORE, pytest.param(SEEDS_NIGHT, marks=pytest.mark.nightly)], ids=["40 more", "200"]
)
def test_seeds_hold(seeds: range) -> None:
    failed = [f for f in soak(SHIPPED, seeds, workers=2, faults="random") if not f.passed]
    assert not failed, "\n".join(map(complaint, failed))


# -- the supervisor; these stand in for `run_seed` and go to the workers by name


def _finding(seed: int, reason: str = "") -> Finding:
    return Finding(seed, not reason, reason, f"{seed:032}", 0.0, {}, "")


def _fine(name: str, seed: int, faults: str, until_s: float | None, cache: InferenceCache) -> Finding:
    return _finding(seed)


def _dies_at_two(name: str, seed: int, faults: str, until_s: float | None, cache: InferenceCache) -> Finding:
    if seed == 2:
        os._exit(7)
    return _finding(seed)


def _hangs_at_two(name: str, seed: int, faults: str, until_s: float | None, cache: InferenceCache) -> Finding:
    while seed == 2:
        signal.pause()
    return _finding(seed)


def _raises_at_two(name: str, seed: int, faults: str, until_s: float | None, cache: InferenceCache) -> Finding:
    if seed == 2:
        raise RuntimeError("out of luck")
    return _finding(seed)


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (_dies_at_two, "worker died with exit code 7"),
        pytest.param(_hangs_at_two, "hang: no result within 8 s", marks=pytest.mark.slow),
        (_raises_at_two, "crash: RuntimeError: out of luck"),
    ],
)
def test_a_lost_worker_is_a_finding_and_the_other_seeds_go_on(
    run: Run, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))  # the workers import this module by its name
    # the time includes the import of numpy by a worker on a busy machine
    findings = list(soak("mine.toml", range(1, 5), workers=1, faults="none", until_s=60.5, run=run, seed_time_s=8.0))
    assert [f.seed for f in findings] == [1, 2, 3, 4]
    assert [f.reason for f in findings] == ["", reason, "", ""]
    assert findings[1].command == "flatrack run mine.toml --seed 2 --faults none --until 60.5"
    assert "FAIL" in findings[1].line()


def test_every_seed_is_run_once_by_any_number_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    findings = list(soak(SHIPPED, range(1, 8), workers=3, faults="none", run=_fine))
    assert sorted(f.seed for f in findings) == list(range(1, 8))


def test_a_finding_names_rule_time_and_command(cache: InferenceCache) -> None:
    finding = run_seed(SHIPPED, 1, "none", 40.0, cache)
    assert finding.passed
    assert finding.command == "flatrack run three-body-12 --seed 1 --faults none --until 40.0"


@pytest.mark.parametrize(("text", "numbers"), [("7", [7]), ("1-3", [1, 2, 3]), ("0-0", [0])])
def test_a_seed_range_is_read(text: str, numbers: list[int]) -> None:
    assert list(seed_range(text)) == numbers


def test_a_seed_range_that_is_none_raises() -> None:
    with pytest.raises(ConfigError, match="1-200"):
        seed_range("3-1")
