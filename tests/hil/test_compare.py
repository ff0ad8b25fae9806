import numpy as np
import pytest

from flightsw.compute.cloud_mask import encode_mask
from flightsw.errors import ConfigError
from hil.bench.compare import PIXELS_DIFFERING_MAX, compare_masks

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
