"""Weight faults are judged as the whole job would be, and the guard keeps nearly all silent ones away."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from flightsw.compute import cloud_mask
from flightsw.compute.inference import InferenceCache, ModelImage
from hil.faults.weights import (
    TOLERANCE,
    Effect,
    Judged,
    Measure,
    Outcome,
    Site,
    WeightFaults,
    count,
    judge,
    wilson_95,
)

ROOT = Path(__file__).resolve().parents[2]
MODEL = (ROOT / "hil" / "assets" / "cloud-mask.onnx").read_bytes()


def tiles(count: int, side_px: int = 20) -> list[cloud_mask.DnTile]:
    """Parts of the real scene."""
    with np.load(ROOT / "hil" / "assets" / "sentinel2-scene.npz") as scene:
        dn = scene["dn"]
    return [np.ascontiguousarray(dn[40 * i : 40 * i + side_px, 200 : 200 + side_px]) for i in range(count)]


@pytest.fixture(scope="module")
def faults() -> WeightFaults:
    return WeightFaults(MODEL, tiles(2))


def whole_job(site: Site, faults: WeightFaults, parts: list[cloud_mask.DnTile]) -> Effect:
    """The effect of a site as the job that flies has it: a struck image, step by step."""
    image, cached = ModelImage(MODEL), InferenceCache(sessions_max=1, results_bytes_max=0)
    before = sum(length for _, length in image.weight_ranges()[: site.tensor])
    for bit in range(site.bits):
        image.flip_weight_bit(8 * before + site.bit + bit)
    sums = []
    for tile in parts:
        state = cloud_mask.begin(tile)
        for _ in range(cloud_mask.STEPS):
            state = cloud_mask.advance(state, tile, image, cached)
        sums.append(state.logit_sum)
    return faults.compared(np.stack(sums))


def assert_equal_verdicts(faults: WeightFaults, sites: list[Site]) -> None:
    parts = tiles(2)
    unequal = []
    for site in sites:
        cut = faults.effect(site.tensor, site.struck(faults.words(site.tensor)))
        if cut.outcome() is not whole_job(site, faults, parts).outcome():
            unequal.append(site)
    assert unequal == []


def test_the_cut_graph_gives_the_verdict_of_the_whole_job(faults: WeightFaults) -> None:
    assert_equal_verdicts(faults, faults.draw(1, 40, np.random.Generator(np.random.PCG64(1))))
    assert_equal_verdicts(faults, faults.draw(4, 20, np.random.Generator(np.random.PCG64(2))))


@pytest.mark.slow
def test_the_cut_graph_gives_the_verdict_of_the_whole_job_on_a_thousand_sites(faults: WeightFaults) -> None:
    assert_equal_verdicts(faults, faults.draw(1, 1000, np.random.Generator(np.random.PCG64(3))))


def test_the_true_weights_change_nothing(faults: WeightFaults) -> None:
    for tensor in (0, 20, 41):
        assert faults.effect(tensor, faults.words(tensor)) == Effect(0.0, is_finite=True)


def test_the_guard_leaves_few_of_the_silent_corruptions_and_the_digest_none(faults: WeightFaults) -> None:
    random = np.random.Generator(np.random.PCG64(4))
    sites = [site._replace(bit=site.bit // 32 * 32 + 30) for site in faults.draw(1, 60, random)]
    judged = judge(faults, sites)
    assert count(judged, Measure.NONE)[Outcome.SILENT] >= 10
    assert count(judged, Measure.GUARD) == {Outcome.CORRECTED: 60}
    assert count(judged, Measure.DIGEST) == {Outcome.CORRECTED: 60}


def test_sites_are_drawn_by_the_seed_alone_and_never_twice(faults: WeightFaults) -> None:
    first, again = (faults.draw(3, 5000, np.random.Generator(np.random.PCG64(5))) for _ in range(2))
    assert first == again
    assert len(set(first)) == 5000
    assert len({site.tensor for site in first}) > 35
    for site in first:
        assert 0 <= site.bit <= 32 * len(faults.words(site.tensor)) - 3


def test_a_run_of_bits_may_cross_from_a_weight_to_the_next() -> None:
    words = np.zeros(2, np.uint32)
    assert list(Site(0, 31, 2).struck(words)) == [1 << 31, 1]
    assert list(words) == [0, 0]


@cache
def judged(changed: float, is_finite: bool, is_restored: bool, is_named: bool) -> Judged:
    return Judged(Effect(changed, is_finite), Effect(0.0, is_finite=True), is_restored, is_named, is_named)


def test_outcomes_are_what_the_table_says() -> None:
    none, digest, guard = Measure.NONE, Measure.DIGEST, Measure.GUARD
    assert judged(TOLERANCE, True, False, False).outcome(none) is Outcome.MASKED
    assert judged(TOLERANCE + 0.001, True, False, False).outcome(none) is Outcome.SILENT
    assert judged(0.0, False, False, False).outcome(none) is Outcome.NOT_FINITE
    assert judged(0.5, True, False, False).outcome(digest) is Outcome.CORRECTED
    assert judged(0.5, True, False, True).outcome(digest) is Outcome.SILENT
    assert judged(0.5, True, True, False).outcome(guard) is Outcome.CORRECTED
    assert judged(0.5, True, False, False).outcome(guard) is Outcome.MASKED


def test_the_interval_is_that_of_the_literature() -> None:
    low, high = wilson_95(0, 20)
    assert (low, round(high, 4)) == (0.0, 0.1611)  # Newcombe 1998, table 1: 0/20
    assert [round(end, 4) for end in wilson_95(81, 263)] == [0.2553, 0.3662]  # the same, 81/263
