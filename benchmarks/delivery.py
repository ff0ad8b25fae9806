"""Does an object arrive, whatever happens on its way? A thousand seeded runs, and the same trouble for a CFDP peer.

Run: python benchmarks/delivery.py [--runs 1000] [--peer-runs 1000] [--quick] [--json FILE]
Replay: python benchmarks/delivery.py --only 1024KiB/ber-1e-04/outage-7200s/push --seed 7

Each run sends one object of 64 KiB or 1 MiB over one link of 1 Mbit/s at 1500 km, in virtual time, through all layers
(`delivery_world.py`), half of them pushed by the sender and half fetched by the receiver. At a drawn instant amid the
transfer, one in five each: nothing; an outage of 60 s; one of 2 h; the sender reboots; the receiver reboots (power cut,
30 s off, its disk loses what was not synced). Nobody reminds the ends of the transfer: it is durable. A run is finished
when the receiver has the very bytes and who asked has been told.

The peer is cfdp-py, class 2, in an environment of its own (`cfdp_peer.py` says how it is set up), with frames of the
same size on a link of the same rate, delay, loss, bit errors, outages and reboots. Its limits are its documented
defaults: it gives up where we go on asking, which is what the comparison is about. It has an hour after the last
trouble.
"""

import argparse
import importlib.util
import json
import random
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any, Final

from delivery_world import RANGE_KM, RATE_BPS, Case, World
from report import Report

SIZES: Final = (64 << 10, 1 << 20)
CHANNELS: Final = (
    *({"loss": loss} for loss in (0.0, 0.02, 0.05, 0.1, 0.2)),
    *({"bit_error_rate": rate} for rate in (1e-6, 1e-5, 1e-4)),
)
TROUBLES: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"outage_s": 60.0},
    {"outage_s": 7200.0},
    {"reboot": "sender"},
    {"reboot": "receiver"},
)
CASES: Final = tuple(
    Case(size_bytes, **channel, **trouble) for size_bytes, channel, trouble in product(SIZES, CHANNELS, TROUBLES)
)
RUNS: Final = 1000
QUICK_CASES: Final = (
    Case(64 << 10),
    Case(64 << 10, bit_error_rate=1e-4, reboot="sender"),
    Case(1 << 20, loss=0.05, outage_s=60.0),
)
PEER_HOUR_S: Final = 3600.0
LIGHT_S: Final = RANGE_KM / 299_792.458


@dataclass
class Tally:
    """Runs of one row or column."""

    runs: int = 0
    finished: int = 0

    def count(self, finished: bool) -> None:
        """One more run."""
        self.runs += 1
        self.finished += finished

    def __str__(self) -> str:
        return f"{self.finished}/{self.runs}"


Key = tuple[str, str]
"""(size and channel, trouble)"""


def key_of(case: Case) -> Key:
    """The cell of the table that a case belongs to."""
    return f"{case.size_bytes // 1024} KiB {case.channel}", case.trouble


def plan(runs: int, cases: tuple[Case, ...]) -> list[tuple[Case, int]]:
    """(case, seed) of each run: all cases in turn, pushed and fetched by turns of the seed."""
    return [
        (replace(cases[number % len(cases)], is_fetch=bool(number // len(cases) % 2)), number // len(cases) + 1)
        for number in range(runs)
    ]


def run_ours(runs: list[tuple[Case, int]], report: Report) -> dict[Key, Tally]:
    """Run all, print a replay line for each that fails, and add the totals."""
    cells: defaultdict[Key, Tally] = defaultdict(Tally)
    late_s, costs, frames, damaged, blocked = [], [], 0, 0, 0
    for case, seed in runs:
        outcome = World(case, seed).run()
        cells[key_of(case)].count(outcome.finished)
        if not outcome.finished:
            print(f"FAILED {case.name} seed {seed}: {outcome.detail}")
            print(f"  replay: python benchmarks/delivery.py --only {case.name} --seed {seed}")
        frames += outcome.frames
        damaged += outcome.damaged
        blocked += outcome.blocked
        if case.trouble == "calm":
            costs.append(outcome.bytes_sent / case.size_bytes)
        elif case.outage_s and outcome.finished:
            late_s.append(outcome.seconds - case.outage_s)
    finished = sum(tally.finished for tally in cells.values())
    report.add("finished with the right bytes", 100 * finished / len(runs), f"% of {len(runs)} runs", "100")
    report.add("frames lost or damaged while the link was up", 100 * damaged / max(1, frames), f"% of {frames}")
    report.add("frames sent into outages", blocked, "frames")
    if costs:
        report.add("bytes on the link without trouble, median", median(costs), "x object")
    if late_s:
        report.add("time beside the outage, median", median(late_s), "s")
        report.add("time beside the outage, longest", max(late_s), "s")
    return cells


def peer_case(case: Case, seed: int) -> dict[str, Any]:
    """A case in the words of `cfdp_peer.py`."""
    chance = random.Random(f"peer/{case.name}/{seed}")
    struck_s = (0.2 + 0.6 * chance.random()) * case.size_bytes * 8 / RATE_BPS
    return {
        "name": "/".join(key_of(case)),
        "seed": seed,
        "size_bytes": case.size_bytes,
        "loss": case.loss,
        "bit_error_rate": case.bit_error_rate,
        "rate_bps": RATE_BPS,
        "delay_s": LIGHT_S,
        "struck_s": struck_s,
        "outage_s": case.outage_s,
        "reboot": case.reboot,
        "limit_s": struck_s + case.outage_s + PEER_HOUR_S,
    }


def run_peer(runs: list[tuple[Case, int]], report: Report) -> dict[Key, Tally]:
    """Let cfdp-py do the same; empty, with the reason printed, when it cannot be had here."""
    environment = load_script("peer_environment")
    try:
        python = environment.interpreter("cfdp-py")
    except environment.PeerUnavailable as error:
        print(f"cfdp-py: not compared: {error}")
        return {}
    command = [str(python), str(Path(__file__).with_name("cfdp_peer.py"))]
    wanted = json.dumps([peer_case(case, seed) for case, seed in runs])
    done = subprocess.run(command, check=True, input=wanted, capture_output=True, text=True)
    cells: defaultdict[Key, Tally] = defaultdict(Tally)
    ends: defaultdict[str, int] = defaultdict(int)
    for (case, _), line in zip(runs, done.stdout.splitlines(), strict=True):
        outcome = json.loads(line)
        cells[key_of(case)].count(outcome["finished"])
        if not outcome["finished"]:
            crash = ["an exception"] if outcome["crash"] else []
            ends[" and ".join(outcome["faults"] + crash) or "no word of it"] += 1
    finished = sum(tally.finished for tally in cells.values())
    report.add("cfdp-py: finished with the right bytes", 100 * finished / len(runs), f"% of {len(runs)} runs")
    for end, count in sorted(ends.items(), key=lambda item: -item[1]):
        report.add(f"cfdp-py: ended by {end}", count, "runs")
    return cells


def load_script(name: str) -> ModuleType:
    """A module of the folder `scripts`."""
    path = Path(__file__).resolve().parent.parent / "scripts" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def print_table(title: str, cells: dict[Key, Tally]) -> None:
    """Finished runs of all runs, by size and channel, and by trouble."""
    if not cells:
        return
    rows = list(dict.fromkeys(row for row, _ in cells))
    columns = list(dict.fromkeys(column for _, column in cells))
    widths = [max(len(column), 7) for column in columns]
    print(f"\n{title}: finished of all runs")
    heads = "  ".join(column.rjust(width) for column, width in zip(columns, widths, strict=True))
    print(f"{'':20}  {heads}")
    for row in rows:
        values = [str(cells.get((row, column), "")).rjust(width) for column, width in zip(columns, widths, strict=True)]
        print(f"{row:20}  {'  '.join(values)}")


def replay(name: str, seed: int) -> int:
    """One run again, with what happened; returns the exit code."""
    cases = {one.name: one for case in CASES for one in (case, replace(case, is_fetch=True))}
    if name not in cases:
        print(f"--only {name}: expected a case such as {next(iter(cases))}", file=sys.stderr)
        return 2
    outcome = World(cases[name], seed).run()
    print(f"{name} seed {seed}: {outcome}")
    return 0 if outcome.finished else 1


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description="objects through loss, bit errors, outages and reboots")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--peer-runs", type=int, default=RUNS, help="runs of cfdp-py; 0 for none")
    parser.add_argument("--quick", action="store_true", help="three cases, once each way")
    parser.add_argument("--only", metavar="CASE", help="replay one case")
    parser.add_argument("--seed", type=int, default=1, help="of --only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to a file")
    options = parser.parse_args()
    if options.only:
        return replay(options.only, options.seed)
    cases = QUICK_CASES if options.quick else CASES
    runs, peer_runs = (
        min(count, 2 * len(cases)) if options.quick else count for count in (options.runs, options.peer_runs)
    )
    report = Report("delivery")
    print(f"seeds 1 to {-(-runs // len(cases))}, {len(cases)} cases")
    ours = run_ours(plan(runs, cases), report)
    peers = run_peer(plan(peer_runs, cases), report) if peer_runs else {}
    print_table("flatrack", ours)
    print_table("cfdp-py", peers)
    if options.json:
        report.write_json(options.json)
    return 0 if all(tally.finished == tally.runs for tally in ours.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
