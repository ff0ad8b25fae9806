"""What weight faults do to the shipped cloud mask, without and with each measure, and what the measures cost.

    python benchmarks/weight_faults.py [--sites 12000] [--several 2000] [--tiles 4] [--seed 1] [--json FILE]

Strikes bits of the weights as `hil/faults/weights.py` says: single bits, and then runs of 2, 3 and 4 adjacent bits.
Tiles are held-out real ground under generated clouds. Rates stand with their Wilson 95 % interval. Costs are ratios of
processor time within the run, on the job's step over one tile.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # read at the import of numpy; waiting threads would count as work

import numpy as np
from report import Report

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
from evaluate_cloud_mask import MODEL, real_tiles

from flightsw.compute import abft, cloud_mask
from flightsw.compute.inference import InferenceCache, ModelImage
from flightsw.core.modes import ModeManager, PowerLimits
from hil.faults.weights import TOLERANCE, Judged, Measure, Outcome, WeightFaults, count, judge, wilson_95
from hil.sim.disk import SimulatedDisk
from hil.sim.streams import Streams

TILES_SEED = 20_260_105
TILE_STRIDE = 9
"""Eight tiles an overflight: every ninth is another part of the scene under other clouds."""
TILE_TIMES = 4
"""A larger tile, on which fixed costs count less: so many times as wide and high."""
STRICT = 0.001
SINGLE = "single bits"
FEWER_GOAL = 20
RUNS = ((2, "2 adjacent bits"), (3, "3 adjacent bits"), (4, "4 adjacent bits"))
TIMED_ROUNDS = 7
TIMED_CALLS = 20
MATRIX_SIDES = (64, 256, 1024)
ASKED_TIMES = 1000


def rates(report: Report, name: str, judged: list[Judged]) -> None:
    """Print the outcomes of a campaign under each measure."""
    total = len(judged)
    for measure in Measure:
        outcomes = count(judged, measure)
        for outcome in Outcome:
            if outcomes[outcome] or outcome is Outcome.SILENT:
                low, high = wilson_95(outcomes[outcome], total)
                unit = f"% (95 % interval {100 * low:.3f} to {100 * high:.3f} %)"
                report.add(f"{name}, {measure.value}: {outcome.value}", 100 * outcomes[outcome] / total, unit)
    for tolerance in (TOLERANCE, STRICT):
        words = f"{name}, silent above {tolerance:.1%} of a tile"
        bare, kept = (count(judged, measure, tolerance)[Outcome.SILENT] for measure in (Measure.NONE, Measure.GUARD))
        report.add(f"{words}, no measure", bare, f"of {total}")
        report.add(f"{words}, range guard", kept, f"of {total}")
        goal = f"at least {FEWER_GOAL}" if (tolerance, name) == (TOLERANCE, SINGLE) else ""
        report.add(f"{words}, fewer with the guard", bare / max(kept, 1), "times" if kept else "times or more", goal)


def cpu_s(call: Callable[[], object]) -> float:
    """The least processor time of a call over some rounds [s]."""
    best = float("inf")
    for _ in range(TIMED_ROUNDS):
        begun = time.process_time()
        for _ in range(TIMED_CALLS):
            call()
        best = min(best, (time.process_time() - begun) / TIMED_CALLS)
    return best


def costs(report: Report, model: bytes, tile: cloud_mask.DnTile) -> None:
    """Print what the measures cost, in percent of a step."""
    image, cache = ModelImage(model), InferenceCache(results_bytes_max=0)
    for times in (1, TILE_TIMES):
        wide = np.tile(tile, (times, times, 1))
        begun = cloud_mask.begin(wide)
        after = cloud_mask.advance(begun, wide, image, cache).to_bytes()
        step_s = cpu_s(lambda begun=begun, wide=wide: cloud_mask.advance(begun, wide, image, cache))
        step = f"a step over {wide.shape[0]} px"
        report.add(step, 1e3 * step_s, "ms")
        report.add(f"{step}: range guard, before and after", 200 * cpu_s(image.guard_weights) / step_s, "% of it")
        report.add(f"{step}: one digest of the model, at a checkpoint", 100 * cpu_s(image.digest) / step_s, "% of it")

        done = cloud_mask.CloudMaskState(cloud_mask.STEPS, begun.logit_sum)
        finish_s = cpu_s(lambda done=done, wide=wide: cloud_mask.finish(done, wide))
        report.add(f"{step}: a result formed once more, once a job", 100 * finish_s / step_s, "% of it")

        def again(begun: object = begun, wide: object = wide, after: bytes = after) -> bool:
            return cloud_mask.advance(begun, wide, image, cache).to_bytes() == after

        report.add(f"{step}: computed again and compared", 100 * cpu_s(again) / step_s, "% of it")
    random = np.random.default_rng(1)
    for side in MATRIX_SIDES:
        left, right = (random.standard_normal((side, side)).astype(np.float32) for _ in range(2))
        plain_s = cpu_s(lambda left=left, right=right: left @ right)
        checked_s = cpu_s(lambda left=left, right=right: abft.checked_product(left, right))
        report.add(f"cost of checksums, product of {side} x {side}", 100 * (checked_s / plain_s - 1), "%")
    voted = ModeManager(SimulatedDisk(4096, Streams(1).random("disk")), 1, PowerLimits(0.3, 0.4, 0.15), 0).voted
    for asked, ask in (("three copies compared", lambda: voted.value), ("first copy alone", lambda: voted.unchecked)):
        ask_s = cpu_s(lambda ask=ask: [ask() for _ in range(ASKED_TIMES)]) / ASKED_TIMES
        report.add(f"the mode asked, {asked}", 1e6 * ask_s, "us")


def main() -> None:
    """Run all campaigns and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, default=12_000, metavar="N", help="single-bit faults")
    parser.add_argument("--several", type=int, default=2_000, metavar="N", help="faults of each run of adjacent bits")
    parser.add_argument("--tiles", type=int, default=4, metavar="N", help="tiles of the job")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the sites")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to a file")
    given = parser.parse_args()
    report = Report("weight faults")
    model = MODEL.read_bytes()
    tiles = [sample.dn for sample in islice(real_tiles(2 * given.tiles, TILES_SEED), 0, None, TILE_STRIDE)]
    tiles = tiles[: given.tiles]
    faults = WeightFaults(model, tiles)
    report.add("tiles", len(tiles), "of 48 x 48 px, eight turns each")
    costs(report, model, tiles[0])
    begun = time.process_time()
    judged = judge(faults, faults.draw(1, given.sites, np.random.default_rng((given.seed, 1))))
    spent_s = time.process_time() - begun
    rates(report, SINGLE, judged)
    report.add("faults judged, each without and with the guard", given.sites / spent_s, "1/s of processor time")
    for bits, name in RUNS:
        drawn = faults.draw(bits, given.several, np.random.default_rng((given.seed, bits)))
        rates(report, name, judge(faults, drawn))
    if given.json is not None:
        report.write_json(given.json)


if __name__ == "__main__":
    main()
