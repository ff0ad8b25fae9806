"""Same scenario, seed and commit, same digest: in one process, across processes, hash seeds and Pythons."""

import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import msgspec
import pytest

from flightsw.compute.inference import InferenceCache
from hil.bench import composition
from hil.bench.execute import prepare
from hil.bench.run import Bench
from hil.bench.scenario import load
from hil.faults.plan import LinkDegraded
from hil.sim.repeat import run_twice
from hil.sim.trace import Event

SHIPPED = "three-body-12"
UNTIL_S = 300.0
SLOW_SEEDS = range(11, 31)
SLOW_UNTIL_S = 900.0
PINNED = ("numpy", "onnxruntime")
"""The digests of other versions of these are not promised."""
REPOSITORY = Path(__file__).resolve().parents[2]

PROGRAM = """
import sys
from hil.bench.execute import prepare
from hil.bench.run import Bench
from hil.bench.scenario import load
seeds, until_s = [int(seed) for seed in sys.argv[1].split(",")], float(sys.argv[2])
for seed in seeds:
    print(Bench(prepare(load("three-body-12"), seed, "random"), seed, until_s=until_s).run().digest)
"""


def digest_here(seed: int, until_s: float, cache: InferenceCache | None = None) -> str:
    """The digest of a run with random faults in this process."""
    return Bench(prepare(load(SHIPPED), seed, "random"), seed, until_s=until_s, cache=cache).run().digest


def digests_elsewhere(
    seeds: list[int], until_s: float, python: str = sys.executable, cwd: Path = REPOSITORY, **environment: str
) -> list[str]:
    """The digests of the same runs in a fresh process, one after another."""
    done = subprocess.run(
        [python, "-c", PROGRAM, ",".join(map(str, seeds)), str(until_s)],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_two_runs_of_one_process_are_one_run() -> None:
    cache = InferenceCache()  # the second run finds what the first left there, and must not differ for it
    run_twice(lambda: digest_here(7, UNTIL_S, cache))


def test_the_digest_does_not_hang_on_the_hash_seed() -> None:
    here = digest_here(7, UNTIL_S)
    for hash_seed in ("0", "1", "random"):
        assert digests_elsewhere([7], UNTIL_S, PYTHONHASHSEED=hash_seed) == [here], f"PYTHONHASHSEED={hash_seed}"


def test_another_seed_is_another_run() -> None:
    assert digest_here(7, 60.0) != digest_here(8, 60.0)


# -- one link's chance is its own


def fates(disturbed: str | None) -> dict[str, list[list[tuple[bytes, int]]]]:
    """Link of the shipped fleet -> what arrives of two hundred frames each way, a few minutes into its first pass."""
    bench = Bench(load(SHIPPED), 7)
    bench._links.update(composition.connect(bench.scenario, bench.sky, bench.streams, bench._relay))
    bench.loop.close()
    if disturbed is not None:
        for link in bench._links[disturbed]:
            noisy = msgspec.structs.replace(
                link.forward.impairments, bit_error_rate=1e-4, loss=0.2, duplicate=0.1, reorder=0.1, reorder_delay_s=0.1
            )
            link.set_impairments(noisy)
    arrivals: dict[str, list[list[tuple[bytes, int]]]] = {}
    for name, links in bench._links.items():
        for link in links:
            start_ns = link.visibility.windows()[0][0] + 60_000_000_000
            for way in (link.forward, link.backward):
                for number in range(200):
                    fate = way.transmit(bytes(256), start_ns + number * 10_000_000)
                    arrivals.setdefault(name, []).append(fate)
    return arrivals


def test_what_happens_to_one_link_does_not_shift_the_chance_of_another() -> None:
    before = fates(None)
    assert all(any(fate) for fate in before.values()), "every link must carry something"
    for disturbed in ("sat-03/sat-04", "miyun/sat-06"):
        after = fates(disturbed)
        assert [name for name in before if before[name] != after[name]] == [disturbed]


def test_a_fault_leaves_the_run_before_it_as_it_was() -> None:
    scenario, at_s = load(SHIPPED), 100.0
    fault = LinkDegraded(link="sat-06/sat-07", at_s=at_s, duration_s=50.0, loss=0.5)
    runs = []
    for faults in ((), (fault,)):
        bench = Bench(msgspec.structs.replace(scenario, faults=faults), 7, until_s=UNTIL_S)
        events: list[Event] = []
        bench.trace.subscribe(events.append)
        bench.run()
        runs.append(events)
    quiet, struck = runs
    before = [event for event in quiet if event[0] < at_s * 1e9]
    assert before == struck[: len(before)]
    assert quiet != struck, "the fault must matter"


# -- slow


@pytest.mark.slow
def test_twenty_seeds_give_the_same_digest_in_a_fresh_process() -> None:
    cache = InferenceCache()
    here = [digest_here(seed, SLOW_UNTIL_S, cache) for seed in SLOW_SEEDS]
    assert digests_elsewhere(list(SLOW_SEEDS), SLOW_UNTIL_S, PYTHONHASHSEED="random") == here
    assert len(set(here)) == len(here)


def other_pythons() -> list[str]:
    """Interpreters of the other versions that are promised: named by FLATRACK_PYTHONS, on the path, or of pyenv."""
    found: dict[str, str] = {}
    named = os.environ.get("FLATRACK_PYTHONS", "").split(os.pathsep)
    pyenv = Path("~/.pyenv/versions").expanduser()
    for version in ("3.11", "3.12", "3.13"):
        installed = sorted(pyenv.glob(f"{version}.*/bin/python{version}"))
        for candidate in (*named, shutil.which(f"python{version}"), *map(str, installed)):
            if candidate and version not in found and _version(candidate) == version:
                found[version] = candidate
    found.pop(f"{sys.version_info.major}.{sys.version_info.minor}", None)
    return [found[version] for version in sorted(found)]


def _version(python: str) -> str:
    """The version as `3.12`, or nothing when it does not run, as the shim of an absent one."""
    program = "import sys; print(*sys.version_info[:2], sep='.')"
    try:
        return subprocess.run([python, "-c", program], capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


@pytest.mark.slow
def test_other_pythons_give_the_same_digest(tmp_path: Path) -> None:
    pythons = other_pythons()
    if not pythons:
        pytest.skip("no other Python of 3.11 to 3.13 is here; name some in FLATRACK_PYTHONS")
    here = digest_here(7, SLOW_UNTIL_S)
    for python in pythons:
        version = _version(python)
        home = tmp_path / version
        subprocess.run([python, "-m", "venv", str(home)], check=True, capture_output=True)
        pinned = [f"{name}=={metadata.version(name)}" for name in PINNED]
        install = [str(home / "bin" / "python"), "-m", "pip", "install", "-q", f"{REPOSITORY}[ai]", *pinned]
        done = subprocess.run(install, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"flatrack cannot be installed for Python {version} here: {done.stderr.strip()[-300:]}")
        found = digests_elsewhere([7], SLOW_UNTIL_S, str(home / "bin" / "python"), cwd=tmp_path)
        assert found == [here], f"Python {version}"
