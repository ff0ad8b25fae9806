"""The summary of a run: one table of numbers that an engineer asks for first, and the verdict below it."""

from collections.abc import Sequence
from typing import Final

from rich.table import Table
from rich.text import Text

from hil.bench.invariants import RULES
from hil.bench.judge import Outcome

VIOLATIONS_SHOWN_MAX: Final = 10

ROWS: Final[tuple[tuple[str, tuple[tuple[str, str, str], ...]], ...]] = (
    (
        "jobs",
        (
            ("accepted", "jobs_accepted", ""),
            ("completed", "jobs_completed", ""),
            ("failed", "jobs_failed", ""),
            ("attempts placed", "attempts_placed", ""),
            ("paused for the energy of an eclipse", "jobs_paused_energy", "times"),
            ("paused for heat", "jobs_paused_heat", "times"),
            ("resumed from a checkpoint", "jobs_resumed", "times"),
            ("results equal to the fault-free reference", "results_equal", ""),
            ("mean accuracy against the laid clouds", "mask_accuracy_percent", "%"),
            ("last job ended after", "last_job_s", "s"),
        ),
    ),
    (
        "traffic",
        (
            ("goodput up: models and tiles", "uplinked_bytes", "B"),
            ("goodput down: masks and products", "downlinked_bytes", "B"),
            ("kept on board: products of cloudy tiles", "saved_bytes", "B"),
            ("frames sent", "frames_sent", ""),
            ("frames lost or blocked", "frames_lost", ""),
            ("bits flipped", "bits_flipped", ""),
            ("frames with flips / corrected / rejected", "frames_flipped_rejected", ""),
            ("LTP retransmissions", "retransmissions", ""),
            ("bundles re-routed", "bundles_rerouted", ""),
            ("bundles dropped: queue full, too many hops or failures", "bundles_dropped", ""),
        ),
    ),
    (
        "faults",
        (
            ("node resets", "node_resets", ""),
            ("link outages", "link_outages", ""),
            ("weight upsets that struck a loaded model", "weight_upsets", ""),
            ("upset rate is multiplied by", "upset_acceleration", "x"),
            ("models repaired after a scrub or check", "models_repaired", ""),
            ("jobs rolled back to a checkpoint", "jobs_rolled_back", ""),
        ),
    ),
    (
        "energy",
        (
            ("drawn by all nodes", "energy_drawn_j", "J"),
            ("of it by jobs", "energy_jobs_j", "J"),
            ("lowest charge of any node", "lowest_charge_percent", "%"),
            ("hottest electronics", "hottest_degc", "degC"),
        ),
    ),
    (
        "cost",
        (
            ("virtual time", "virtual_s", "s"),
            ("mission time", "mission_s", "s"),
            ("real time", "real_s", "s"),
            ("mission seconds in a real second", "time_scale", "x"),
            ("relay late, half of the frames at most", "relay_late_p50_ms", "ms"),
            ("relay late, 99 % of the frames at most", "relay_late_p99_ms", "ms"),
            ("through the broker, half of the probes at most", "broker_p50_ms", "ms"),
            ("through the broker, 99 % of the probes at most", "broker_p99_ms", "ms"),
            ("CPU time", "cpu_s", "s"),
            ("virtual over CPU time", "speed", "x"),
            ("events in the trace", "trace_events", ""),
            ("callbacks of the loop", "callbacks", ""),
        ),
    ),
)
"""Group -> (label, counter, unit)."""

FLIPPED_ENDS: Final = ("frames_corrected", "frames_rejected")
"""What becomes of frames with flips, printed beside them."""


def number(value: float) -> str:
    """A number for people: thousands apart, and no more digits than it deserves."""
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 10 else f"{value:,.3f}"


def table(outcome: Outcome, title: str) -> Table:
    """The summary as a table."""
    grid = Table(title=title, show_header=False, title_justify="left", pad_edge=False)
    grid.add_column(style="bold")
    grid.add_column()
    grid.add_column(justify="right")
    grid.add_column()
    for group, rows in ROWS:
        shown = group
        for label, counter, unit in rows:
            if counter in outcome.counters:
                value = number(outcome.counters[counter])
                if counter == "frames_flipped_rejected":
                    value = " / ".join([value, *(number(outcome.counters[name]) for name in FLIPPED_ENDS)])
                grid.add_row(shown, label, value, unit)
                shown = ""
        grid.add_section()
    return grid


def verdict(outcome: Outcome) -> Text:
    """PASS or FAIL with reasons."""
    lines = [f"rule {v.rule} ({RULES[v.rule]}): at {v.t_ns / 1e9:.3f} s: {v.text}" for v in outcome.violations]
    shown: Sequence[str] = lines[:VIOLATIONS_SHOWN_MAX]
    text = Text()
    for line in shown:
        text.append(f"broken: {line}\n", style="red")
    if len(lines) > len(shown):
        text.append(f"... and {len(lines) - len(shown)} more\n", style="red")
    for line in outcome.unmet:
        text.append(f"not met: {line}\n", style="red")
    if outcome.crash:
        text.append(f"crashed: {outcome.crash.strip().splitlines()[-1]}\n", style="red")
    for name, why in outcome.absent.items():
        text.append(f"missing: {name}: {why}\n", style="yellow")
    for line in outcome.bounds:
        text.append(f"judged as a bound: {line}\n")
    if outcome.time_scale and not outcome.bounds:
        text.append("all rules were judged exactly\n")
    if outcome.lag:
        text.append(f"behind: {outcome.lag}\n", style="yellow")
    if outcome.interrupted:
        text.append("interrupted: the partial run is kept\n", style="yellow")
    if outcome.passed:
        jobs = ""
        if outcome.counters.get("jobs_accepted"):
            completed, accepted = outcome.counters["jobs_completed"], outcome.counters["jobs_accepted"]
            jobs = f", {completed:.0f} of {accepted:.0f} jobs completed"
        if outcome.is_whole and outcome.lag:
            text.append(
                f"PASS of the invariants only{jobs}; the machine did not keep up, so nothing is said about timing",
                style="bold yellow",
            )
        elif outcome.is_whole:
            text.append(f"PASS: all {len(RULES)} invariants held{jobs}", style="bold green")
        else:
            text.append(
                f"PASS so far: no invariant broke{jobs}; it stopped before the scenario's end, so open jobs and "
                "expectations were not judged",
                style="bold green",
            )
    else:
        text.append("INTERRUPTED" if outcome.interrupted else "FAIL", style="bold red")
    return text
