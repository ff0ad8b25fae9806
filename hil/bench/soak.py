"""Many seeds of one scenario on supervised processes: a crash or a hang of a worker is a finding, never a lost
batch."""

import multiprocessing
import shlex
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection, wait
from typing import Final

from flightsw.compute.inference import InferenceCache
from flightsw.errors import ConfigError
from hil.bench.execute import execute, prepare
from hil.bench.scenario import load

SEED_TIME_S: Final = 600.0
"""Longest that one seed may take [wall s]; more is a hang."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one seed."""

    seed: int
    passed: bool
    reason: str
    digest: str
    cpu_s: float
    fired: dict[str, int]
    """Fault kind -> times that it struck."""
    command: str

    def line(self) -> str:
        """One line for a person."""
        fired = " ".join(f"{kind.removeprefix('fault.')}={count}" for kind, count in sorted(self.fired.items()))
        return f"seed {self.seed:6} {'pass' if self.passed else 'FAIL'} {self.cpu_s:6.1f} s {self.digest[:16]} {fired}"


def seed_range(text: str) -> range:
    """Seeds from `7` or `1-200`.

    Raises:
        ConfigError: neither form.
    """
    first, dash, last = text.partition("-")
    if first.isdecimal() and (last.isdecimal() if dash else not last):
        numbers = range(int(first), int(last or first) + 1)
        if numbers:
            return numbers
    raise ConfigError(f"--seeds {text!r}: expected a number or a range such as 1-200")


def replay_command(scenario_name: str, seed: int, faults: str, until_s: float | None) -> str:
    """What to type to see one seed again."""
    until = "" if until_s is None else f" --until {until_s!r}"
    return f"flatrack run {shlex.quote(scenario_name)} --seed {seed} --faults {faults}{until}"


def run_seed(scenario_name: str, seed: int, faults: str, until_s: float | None, cache: InferenceCache) -> Finding:
    """Run one seed in this process."""
    scenario = prepare(load(scenario_name), seed, faults)
    started_s = time.process_time()
    outcome = execute(scenario, seed, until_s=until_s, cache=cache).outcome
    crash = [f"crash: {outcome.crash.strip().splitlines()[-1]}"] if outcome.crash else []
    reasons = crash + [f"rule {v.rule} at {v.t_ns / 1e9:.3f} s: {v.text}" for v in outcome.violations] + outcome.unmet
    return Finding(
        seed=seed,
        passed=outcome.passed,
        reason="; ".join(reasons[:3]),
        digest=outcome.digest,
        cpu_s=time.process_time() - started_s,
        fired=outcome.fired,
        command=replay_command(scenario_name, seed, faults, until_s),
    )


Run = Callable[[str, int, str, float | None, InferenceCache], Finding]
"""(scenario, seed, faults, until [s], cache) -> what became of the seed."""


def soak(
    scenario_name: str,
    seeds: Sequence[int],
    *,
    workers: int,
    faults: str,
    until_s: float | None = None,
    run: Run = run_seed,
    seed_time_s: float = SEED_TIME_S,
) -> Iterator[Finding]:
    """Run all seeds; findings come in the order in which they end.

    Args:
        scenario_name: shipped name or path.
        seeds: each run once.
        workers: processes.
        faults: as for `hil.bench.execute.prepare`.
        until_s: stop each run at this virtual time [s].
        run: what a worker does with a seed; a function of a module, since it goes to other processes by name.
        seed_time_s: longest that one seed may take [wall s].
    """
    context = multiprocessing.get_context("spawn")
    queue = iter(seeds)
    lanes: list[_Lane] = []
    try:
        for seed in islice(queue, workers):
            lane = _Lane(context, (scenario_name, faults, until_s), run, seed_time_s)
            lanes.append(lane)
            lane.give(seed)
        while any(lane.seed is not None for lane in lanes):
            busy = [lane for lane in lanes if lane.seed is not None]
            ready = wait([lane.pipe for lane in busy], timeout=1.0)
            for lane in busy:
                finding = lane.take(lane.pipe in ready)
                if finding is None:
                    continue
                yield finding
                following = next(queue, None)
                if following is not None:
                    lane.give(following)
    finally:
        for lane in lanes:
            lane.stop()


class _Lane:
    """One worker process and the seed that it works on."""

    def __init__(
        self,
        context: multiprocessing.context.SpawnContext,
        work: tuple[str, str, float | None],
        run: Run,
        seed_time_s: float,
    ) -> None:
        self._context = context
        self._work = work
        self._run = run
        self._seed_time_s = seed_time_s
        self.seed: int | None = None
        self._started_s = 0.0
        self._start()

    def give(self, seed: int) -> None:
        """Start on a seed."""
        self.seed, self._started_s = seed, time.monotonic()
        with suppress(OSError):  # a worker that died idle is found out by `take`
            self.pipe.send(seed)

    def take(self, is_ready: bool) -> Finding | None:
        """The finding on the seed, if there is one now."""
        assert self.seed is not None, "an idle lane has nothing to give"
        seed, reason = self.seed, ""
        if is_ready:
            try:
                finding: Finding = self.pipe.recv()
            except (EOFError, OSError):
                self._process.join()
                reason = f"worker died with exit code {self._process.exitcode}"
            else:
                self.seed = None
                return finding
        elif time.monotonic() - self._started_s > self._seed_time_s:
            reason = f"hang: no result within {self._seed_time_s:g} s"
        if not reason:
            return None
        self.stop()
        self._start()
        self.seed = None
        return _lost(self._work, seed, reason)

    def stop(self) -> None:
        """End the process."""
        self.pipe.close()
        self._process.kill()
        self._process.join()

    def _start(self) -> None:
        self.pipe, far = self._context.Pipe()
        self._process = self._context.Process(target=_serve, args=(far, self._work, self._run), daemon=True)
        self._process.start()
        far.close()


def _serve(pipe: Connection, work: tuple[str, str, float | None], run: Run) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the parent's business; it ends us
    cache = InferenceCache()
    while True:
        try:
            seed = pipe.recv()
        except EOFError:
            return
        scenario_name, faults, until_s = work
        try:
            finding = run(scenario_name, seed, faults, until_s, cache)
        except Exception as error:  # a crash of the run is the finding
            finding = _lost(work, seed, f"crash: {type(error).__name__}: {error}")
        pipe.send(finding)


def _lost(work: tuple[str, str, float | None], seed: int, reason: str) -> Finding:
    scenario_name, faults, until_s = work
    return Finding(seed, False, reason, "", 0.0, {}, replay_command(scenario_name, seed, faults, until_s))
