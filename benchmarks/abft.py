"""What checksums do for jobs of kind `matrix_product`: flipped bits found and put right, and what they cost.

    python benchmarks/abft.py [--faults 4000] [--rounds 7] [--seed 1] [--json FILE]

A fault is one flipped bit of one element of a block while it is computed, each bit as likely as any other. It is
corrected when the checksums put the element right; unseen when its error is below what rounding may have done. What
then is left is compared with what rounding does to the same block. Without checksums the same faults come down, and the
ground's check (`ground/results.py`) refuses the product or does not. Rates stand with their Wilson 95 % interval. Costs
are ratios of processor time within the run, one core.
"""

import argparse
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # read at the import of numpy; waiting threads would count as work

import numpy as np
from report import Report

from flightsw.compute import kinds, matrix_product
from flightsw.compute.inference import InferenceCache
from flightsw.compute.matrix_file import encode_matrix
from flightsw.compute.matrix_image import MatrixImage
from flightsw.ports import ProductChecks
from ground.results import product_objection
from hil.faults.weights import wilson_95

BLOCK = (64, 96, 48)
"""Rows, inner side and columns of the block that is struck."""
SHAPES = ((512, 256, 256), (512, 512, 512), (512, 1024, 1024), (512, 2048, 1024))
"""A step of the job: rows of the block, inner side, columns."""
BITS = 32
CACHE = InferenceCache()


def cpu_s(call: Callable[[], object], rounds: int) -> float:
    """The least processor time of a call over some rounds [s]."""
    best = float("inf")
    for _ in range(rounds):
        begun = time.process_time()
        call()
        best = min(best, time.process_time() - begun)
    return best


def factors(random: np.random.Generator, shape: tuple[int, int, int], is_whole: bool) -> tuple[Any, Any]:
    """Two factors of a product."""
    m, k, n = shape
    if is_whole:
        return random.integers(-128, 128, (m, k), dtype=np.int8), random.integers(-128, 128, (k, n), dtype=np.int8)
    return random.standard_normal((m, k)).astype(np.float32), random.standard_normal((k, n)).astype(np.float32)


def step(image: MatrixImage, data: bytes, checks: ProductChecks | None, product: Any = np.matmul) -> bytes:
    """The first step of a job."""
    conversation = kinds.step(matrix_product.NAME, image, b"", data, checks)
    try:
        asked = next(conversation)
        while True:
            asked = conversation.send(kinds.compute(asked, image, CACHE, product))
    except StopIteration as done:
        after: bytes = done.value
        return after


class Flip:
    """Multiplies, and flips one bit of the first product that it is asked for."""

    def __init__(self, place: int, bit: int) -> None:
        self._place, self._bit = place, bit
        self._is_due = True

    def __call__(self, left: Any, right: Any) -> Any:
        result = left @ right
        if self._is_due:
            self._is_due = False
            result.reshape(-1).view(np.uint32)[self._place] ^= np.uint32(1 << self._bit)
        return result


def faults(report: Report, random: np.random.Generator, count: int, is_whole: bool) -> None:
    """Strike a block, with and without checksums, and print what became of it."""
    left, right = factors(random, BLOCK, is_whole)
    image, data = MatrixImage(encode_matrix(left)), encode_matrix(right)
    exact = left.astype(np.float64) @ right
    rounding = float(np.abs(matrix_product.ProductState.from_bytes(step(image, data, None)).rows - exact).max())
    outcomes: Counter[str] = Counter()
    left_over = 0.0
    for _ in range(count):
        flip = int(random.integers(exact.size)), int(random.integers(BITS))
        checks = ProductChecks()
        rows = matrix_product.ProductState.from_bytes(step(image, data, checks, Flip(*flip))).rows
        outcomes[
            "corrected" if checks.corrected_count else "computed again" if checks.repeated_count else "unseen"
        ] += 1
        left_over = max(left_over, float(np.abs(rows - exact).max()))
        bare = matrix_product.ProductState.from_bytes(step(image, data, None, Flip(*flip))).rows
        refused = product_objection(bytes(image.data), data, encode_matrix(bare), repr(flip).encode()) is not None
        outcomes["refused by the ground" if refused else "taken by the ground"] += 1
    name = "int8" if is_whole else "float32"
    for outcome in ("corrected", "computed again", "unseen"):
        add_rate(report, f"{name}, checksums: {outcome}", outcomes[outcome], count)
    report.add(f"{name}, checksums: largest error left", left_over, f"in elements of up to {np.abs(exact).max():.4g}")
    report.add(f"{name}, rounding alone: largest error", rounding, "")
    for outcome in ("refused by the ground", "taken by the ground"):
        add_rate(report, f"{name}, no checksums: {outcome}", outcomes[outcome], count)


def add_rate(report: Report, name: str, found: int, total: int) -> None:
    """Print a share with its interval."""
    low, high = wilson_95(found, total)
    report.add(name, 100 * found / total, f"% (95 % interval {100 * low:.3f} to {100 * high:.3f} %)")


def costs(report: Report, random: np.random.Generator, rounds: int) -> None:
    """Print what checksums cost on board, and the check on the ground."""
    for is_whole in (False, True):
        for shape in SHAPES[: 2 if is_whole else len(SHAPES)]:  # integers multiply without BLAS, for seconds
            left, right = factors(random, shape, is_whole)
            image, data = MatrixImage(encode_matrix(left)), encode_matrix(right)
            plain_s = cpu_s(lambda image=image, data=data: step(image, data, None), rounds)
            checked_s = cpu_s(lambda image=image, data=data: step(image, data, ProductChecks()), rounds)
            rows = matrix_product.ProductState.from_bytes(step(image, data, None)).rows
            objects = bytes(image.data), data, encode_matrix(rows)
            ground_s = cpu_s(lambda objects=objects: product_objection(*objects, b""), rounds)
            name = f"{'int8' if is_whole else 'float32'}, {shape[0]} rows of {shape[1]} by {shape[1]} x {shape[2]}"
            report.add(f"{name}: a step", 1e3 * plain_s, "ms")
            report.add(f"{name}: checksums", 100 * (checked_s / plain_s - 1), "% of it")
            report.add(f"{name}: the ground's check", 100 * ground_s / plain_s, "% of it")


def main() -> None:
    """Strike, time and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=4_000, metavar="N", help="flipped bits, of each type")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="the least time of so many counts")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of matrices and faults")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to a file")
    given = parser.parse_args()
    report = Report("abft")
    report.add("block that is struck, rows", BLOCK[0], f"of {BLOCK[1]} by {BLOCK[1]} x {BLOCK[2]}")
    for is_whole in (False, True):
        faults(report, np.random.default_rng((given.seed, is_whole)), given.faults, is_whole)
    costs(report, np.random.default_rng((given.seed, 2)), given.rounds)
    if given.json is not None:
        report.write_json(given.json)


if __name__ == "__main__":
    main()
