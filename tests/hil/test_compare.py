from types import SimpleNamespace

import numpy as np
import pytest

from flightsw.compute.cloud_mask import encode_mask
from flightsw.errors import ConfigError
from flightsw.objects.digest import digest_of
from hil.bench.compare import PIXELS_DIFFERING_MAX, compare_masks
from hil.bench.invariants import Monitor
from hil.bench.judge import judge_results

SIDE = 48


@pytest.fixture
def folders(tmp_path):
    mask = np.zeros((SIDE, SIDE), bool)
    mask[:20] = True
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "job-00001.mask").write_bytes(encode_mask(mask))
    return tmp_path / "a", tmp_path / "b", mask


def flip(folder, mask, pixels):
    changed = mask.copy()
    changed.flat[:pixels] ^= True
    (folder / "job-00001.mask").write_bytes(encode_mask(changed))


def test_equal_masks_agree(folders):
    a, b, _ = folders
    assert compare_masks(a, b).differing_count == 0
    assert compare_masks(a, b).agrees


def test_masks_agree_up_to_the_tolerance_and_not_beyond(folders):
    a, b, mask = folders
    most = int(PIXELS_DIFFERING_MAX * SIDE * SIDE)
    flip(b, mask, most)
    assert compare_masks(a, b).agrees
    assert compare_masks(a, b).differing_count == 1
    flip(b, mask, most + 1)
    assert not compare_masks(a, b).agrees


def test_a_missing_mask_never_agrees(folders):
    a, b, mask = folders
    (a / "job-00002.mask").write_bytes(encode_mask(mask))
    assert compare_masks(a, b).worst_share == 1.0


def test_a_file_that_is_no_mask_is_named(folders):
    a, b, _ = folders
    (b / "job-00001.mask").write_bytes(b"nonsense")
    with pytest.raises(ConfigError, match=r"job-00001\.mask"):
        compare_masks(a, b)


PRODUCT = b"the clear part of the tile"


def judged(result, mask, *, product=b"", measure=1.0, foreign=(), items=(1,)):
    """What the judge says of one job of node 11, whose reference brings a product at up to half cover."""
    reference = SimpleNamespace(result=encode_mask(mask), product=PRODUCT, measure=measure)
    workload = SimpleNamespace(spec=SimpleNamespace(product_cover_max=0.5), reference=lambda item, cache: reference)
    report = SimpleNamespace(node=11, product=product, result_bytes=1, product_bytes=0, energy_j=1.0)
    done = SimpleNamespace(report=report, result=result, completed_ns=1)
    monitor = Monitor()
    known = {job: SimpleNamespace(truth=None) for job in items}
    counters = judge_results(monitor, workload, known, {1: done}, None, 1, frozenset(foreign))
    return not monitor.violations, counters


@pytest.mark.parametrize(
    ("pixels", "foreign", "holds"),
    [(0, (), True), (1, (), False), (1, (0,), True), (1, (3,), False), (200, (0,), False)],
)
def test_a_mask_of_another_processor_may_differ_within_the_tolerance_and_no_other(folders, pixels, foreign, holds):
    _, b, mask = folders
    flip(b, mask, pixels)
    passes, counters = judged((b / "job-00001.mask").read_bytes(), mask, foreign=foreign)
    assert passes is holds
    assert counters["results_equal"] == (pixels == 0)
    assert counters.get("results_within_tolerance", 0) == (holds and pixels > 0)


@pytest.mark.parametrize(
    ("pixels", "product", "measure", "holds"),
    [
        (0, digest_of(PRODUCT), 0.4, True),
        (0, digest_of(b"another"), 0.4, False),
        (0, b"", 0.4, False),
        (0, digest_of(PRODUCT), 0.6, False),
        (1, digest_of(b"another"), 0.4, True),
        (1, b"", 0.4, False),
        (1, digest_of(PRODUCT), 0.6, False),
        (1, b"", 0.498, True),
        (1, digest_of(PRODUCT), 0.502, True),
    ],
)
def test_the_product_of_another_processor_is_judged_as_its_mask_is(folders, pixels, product, measure, holds):
    _, b, mask = folders
    flip(b, mask, pixels)
    result = (b / "job-00001.mask").read_bytes()
    assert judged(result, mask, product=product, measure=measure, foreign=(0,))[0] is holds


def test_a_job_that_is_none_of_the_workloads_has_no_reference(folders):
    passes, counters = judged(b"of an operator", folders[2], items=())
    assert passes
    assert counters["results_equal"] == 0
