"""Measures a board, and writes the profile that fits it: how fast it computes, what it draws, how it heats.

The board rests, computes the shipped model without a pause, and rests again. What it measures takes the place of a
profile's estimates, with the board's name, the date and the number of runs as the source; what it cannot measure (a
board without a sensor at its input knows no power) keeps the number and the source that it had, and is said.
"""

import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec
import numpy as np

from boards import profiles
from boards.support.readings import BoardReading
from boards.thermal_fit import ThermalFit, fit
from flightsw.config import BoardProfile, Sourced
from flightsw.errors import BoardError, ConfigError

WARM_RUNS: Final = 5
"""Runs that do not count: a session is made, caches and clocks come up."""
RUNS: Final = 50
"""Runs whose median counts."""
SAMPLE_S: Final = 1.0
"""Time between two readings [s]."""
MINUTES: Final = 30.0
"""All of the resting and heating [min]: a bare board takes five to warm up, one in a box half an hour."""
SHARES: Final = (0.1, 0.5, 0.4)
"""Of that time: at rest, under load, cooling."""
MINUTES_MIN: Final = 6.0
"""Shortest measurement [min]: 36 readings at rest."""
TAIL: Final = 0.5
"""The last part of a phase, in which its power is taken: clocks have settled."""
NS_PER_S: Final = 1_000_000_000


class Subject(Protocol):
    """The board that is measured, and its time."""

    def now_ns(self) -> int:
        """Monotonic time [ns]."""
        ...

    async def rest(self, seconds: float) -> None:
        """Do nothing for a time [s]."""
        ...

    async def compute(self) -> float:
        """Run the shipped model once, really; returns how much it has computed [Mpixel]. Raises: BoardError."""
        ...

    def read(self) -> BoardReading:
        """All sensors now."""
        ...


@dataclass(slots=True)
class _Samples:
    """What was read."""

    times_s: list[float] = field(default_factory=list)
    degc: list[float] = field(default_factory=list)
    watts: list[tuple[float, float]] = field(default_factory=list)
    """(time [s], power at the input [W])."""

    def median_w(self, start_s: float, end_s: float) -> float | None:
        """Of the power in the last part of a phase; None where it was not measured all along."""
        begin_s = end_s - (end_s - start_s) * TAIL
        found = [watts for time_s, watts in self.watts if begin_s <= time_s < end_s]
        return statistics.median(found) if found else None


@dataclass(frozen=True, slots=True)
class Measured:
    """What a board has shown of itself."""

    mpix_per_s: float
    runs_count: int
    idle_w: float | None
    """Board power at rest [W]; None where no sensor covers it."""
    compute_w: float | None
    """What computing adds [W]."""
    thermal: ThermalFit | None
    notes: tuple[str, ...]
    """What could not be measured, and why: a line each."""


async def measure(
    subject: Subject, *, minutes: float = MINUTES, runs: int = RUNS, say: Callable[[str], None] = lambda _: None
) -> Measured:
    """Measure a board. Nothing else should run there.

    Args:
        subject: the board.
        minutes: how long it rests and heats in all [min].
        runs: timed runs of the model.
        say: told what happens now.

    Raises:
        BoardError: the model does not run there.
        ConfigError: the time or the number of runs is too small.
    """
    if minutes < MINUTES_MIN:
        raise ConfigError(f"minutes is {minutes:g}, expected at least {MINUTES_MIN:g}")
    if runs < 1:
        raise ConfigError(f"runs is {runs}, expected at least 1")
    rest_s, load_s, cool_s = (60 * minutes * share for share in SHARES)
    samples = _Samples()
    say(f"at rest for {rest_s:.0f} s")
    start_s = _now_s(subject)
    on_s = await _rest(subject, start_s + rest_s, samples)
    say(f"under load for {load_s:.0f} s")
    mpix_per_s, runs_count = await _compute(subject, on_s + load_s, samples, runs)
    off_s = _now_s(subject)
    say(f"cooling for {cool_s:.0f} s")
    await _rest(subject, off_s + cool_s, samples)

    notes = []
    idle_w, loaded_w = samples.median_w(start_s, on_s), samples.median_w(on_s, off_s)
    compute_w = None
    if idle_w is None or loaded_w is None:
        notes.append("power: no sensor covers all that the board draws")
    elif loaded_w <= idle_w:
        notes.append(f"power: {loaded_w:.2f} W under load, {idle_w:.2f} W at rest: computing does not show")
    else:
        compute_w = loaded_w - idle_w
    thermal = None
    try:
        thermal = fit(np.array(samples.times_s), np.array(samples.degc), on_s, off_s)
    except BoardError as error:
        notes.append(f"heat: {error}")
    if thermal is not None and compute_w is None:
        notes.append(
            f"heat: time constant {thermal.tau_s:.0f} s, rise {thermal.rise_k:.1f} K; heat capacity and conductance "
            "need the power, which was not measured"
        )
    return Measured(mpix_per_s, runs_count, idle_w, compute_w, thermal, tuple(notes))


def measured_profile(base: BoardProfile, found: Measured, name: str, model: str, date: str) -> BoardProfile:
    """The profile of the board that was measured: the base, with what was measured in its place.

    Args:
        base: of the kind of board.
        found: of `measure`.
        name: of the new profile.
        model: of the board, as it says it.
        date: of the measurement, as the source shows it.
    """
    where = f"measured on {model} at {date}"

    def number(value: float, how: str) -> Sourced:
        return Sourced(float(f"{value:.4g}"), f"{where}, {how}", "V")

    numbers = {"mpix_per_s": number(found.mpix_per_s, f"median of {found.runs_count} runs in the worker")}
    if found.idle_w is not None:
        numbers["idle_w"] = number(found.idle_w, "1 run: median at rest, by the sensor at its input")
    if found.compute_w is not None:
        numbers["compute_w"] = number(found.compute_w, "1 run: median under load, by the same sensor, less idle")
        if found.thermal is not None:
            how = f"1 run: one mass fitted to heating and cooling on the table, {found.thermal.residual_k:.2f} K left"
            numbers["electronics_heat_capacity_j_k"] = number(found.thermal.heat_capacity_j_k(found.compute_w), how)
            numbers["conductance_w_k"] = number(found.thermal.conductance_w_k(found.compute_w), f"{how}; to the air")
    return msgspec.structs.replace(base, name=name, title=f"{base.title}; measured on {model}", **numbers)


def profile_text(profile: BoardProfile) -> str:
    """The profile as a TOML file."""
    lines = [f"name = {_quoted(profile.name)}", f"title = {_quoted(profile.title)}", ""]
    for name, number in profiles.numbers(profile).items():
        value, source, flag = f"{number.value!r}", _quoted(number.source), _quoted(number.flag)
        lines.append(f"{name} = {{ value = {value}, source = {source}, flag = {flag} }}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A basic string of TOML, whose escapes are those of JSON."""
    return json.dumps(text)


async def _rest(subject: Subject, until_s: float, samples: _Samples) -> float:
    """Rest and read; returns when that was over [s]."""
    while (now_s := _now_s(subject)) < until_s:
        await subject.rest(min(SAMPLE_S, until_s - now_s))
        _read(subject, samples)
    return _now_s(subject)


async def _compute(subject: Subject, until_s: float, samples: _Samples, runs: int) -> tuple[float, int]:
    """Compute and read; returns (throughput [Mpixel/s], runs that count)."""
    rates: list[float] = []
    done, read_s = 0, -SAMPLE_S
    while done < WARM_RUNS + runs or _now_s(subject) < until_s:
        start_ns = subject.now_ns()
        mpix = await subject.compute()
        taken_s = (subject.now_ns() - start_ns) / NS_PER_S
        done += 1
        if WARM_RUNS < done <= WARM_RUNS + runs and taken_s > 0:
            rates.append(mpix / taken_s)
        if _now_s(subject) - read_s >= SAMPLE_S:
            read_s = _now_s(subject)
            _read(subject, samples)
    if not rates:
        raise BoardError("the clock does not advance while the model runs")
    return statistics.median(rates), len(rates)


def _read(subject: Subject, samples: _Samples) -> None:
    now_s = _now_s(subject)
    reading = subject.read()
    if reading.soc_degc is not None:
        samples.times_s.append(now_s)
        samples.degc.append(reading.soc_degc)
    if reading.input_w is not None:
        samples.watts.append((now_s, reading.input_w))


def _now_s(subject: Subject) -> float:
    return subject.now_ns() / NS_PER_S
