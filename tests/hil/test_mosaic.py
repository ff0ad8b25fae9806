"""The mosaic shows truth and mask as they are, is small, and has the same bytes every time."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flightsw.errors import ConfigError
from hil.imagery.mosaic import ROWS_MAX, MosaicRow, compare, render, save_mosaic

SHAPE = (48, 64)
WHITE, ORANGE, MAGENTA = (244, 246, 250), (240, 146, 32), (226, 52, 116)


def row(label: str = "acquisition 1", shape: tuple[int, int] = SHAPE, seed: int = 1) -> MosaicRow:
    """Truth is the western half, the mask the northern half, the last column is not known."""
    random = np.random.Generator(np.random.PCG64(seed))
    height, width = shape
    truth, mask, known = (np.zeros(shape, np.bool_) for _ in range(3))
    truth[:, : width // 2] = True
    mask[: height // 2] = True
    known[:, :-1] = True
    dn = random.integers(900, 2000, (height, width, 4)).astype(np.uint16)
    return MosaicRow(label, dn, truth, mask, known)


def decoded(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


def count(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((picture == np.array(colour)).all(axis=2).sum())


def test_a_mask_is_compared_where_it_is_known() -> None:
    one = row()
    agreement = compare(one.truth, one.mask, one.known)
    assert agreement.true_fraction == pytest.approx(32 / 63)
    assert agreement.found_fraction == pytest.approx(0.5)
    assert agreement.overlap == pytest.approx((24 * 32) / (24 * 63 + 24 * 32))
    assert agreement.known_fraction == pytest.approx(63 / 64)


def test_no_cloud_and_none_found_is_full_agreement_but_nothing_known_is_none() -> None:
    nothing = np.zeros(SHAPE, np.bool_)
    assert compare(nothing, nothing, ~nothing).overlap == 1.0
    assert compare(~nothing, ~nothing, nothing).overlap == 0.0


def test_missed_and_false_clouds_stand_out() -> None:
    picture = decoded(render([row()], "t"))
    assert 24 * 32 <= count(picture, ORANGE) <= 24 * 32 + 200  # and a square in the legend
    assert 24 * 31 <= count(picture, MAGENTA) <= 24 * 31 + 200
    assert count(picture, WHITE) >= 48 * 32 + 24 * 32


def test_the_same_rows_give_the_same_bytes() -> None:
    assert render([row()], "t") == render([row()], "t")
    assert render([row()], "t") != render([row(seed=2)], "t")


def test_the_noisiest_mosaic_is_smaller_than_a_megabyte() -> None:
    shown_count = 2  # of the eight, to be quick
    rows = [row(f"acquisition {index}", (300, 300), index) for index in range(shown_count)]
    assert len(render(rows, "t")) < 1_000_000 * shown_count / ROWS_MAX


def test_a_large_scene_is_thinned() -> None:
    picture = decoded(render([row(shape=(1000, 1300))], "t"))
    assert picture.shape[0] < 500
    assert picture.shape[1] < 1000


def test_rows_beyond_the_limit_are_left_out_and_the_picture_says_so() -> None:
    full, more = ([row(str(index)) for index in range(count)] for count in (ROWS_MAX, ROWS_MAX + 1))
    full_picture, more_picture = decoded(render(full, "t")), decoded(render(more, "t"))
    assert full_picture.shape == more_picture.shape
    assert not np.array_equal(full_picture[-40:], more_picture[-40:])


def test_a_scene_all_under_cloud_is_drawn() -> None:
    one = row()
    everything = np.ones(SHAPE, np.bool_)
    assert decoded(render([MosaicRow("a", one.dn, everything, everything, everything)], "t")).size


def test_where_the_truth_is_not_known_nothing_is_called_wrong() -> None:
    picture = decoded(render([replace(row(), truth=None)], "t"))
    assert count(picture, ORANGE) < 200  # the legend
    assert count(picture, MAGENTA) < 200
    assert 24 * 63 <= count(picture, WHITE) < 24 * 63 + 300


def test_a_scene_is_drawn_as_far_as_its_mask_goes() -> None:
    one = row()
    small = replace(one, mask=one.mask[:40, :60], known=one.known[:40, :60])
    cut = replace(small, dn=one.dn[:40, :60], truth=one.truth[:40, :60])
    assert render([small], "t") == render([cut], "t")


def test_a_scene_smaller_than_its_mask_is_refused() -> None:
    one = row()
    with pytest.raises(ConfigError, match=r"scene of \(40, 64\); expected at least \(48, 64\)"):
        render([replace(one, dn=one.dn[:40])], "t")


def test_a_mosaic_is_saved(tmp_path: Path) -> None:
    save_mosaic(tmp_path / "m.png", [row()])
    assert (tmp_path / "m.png").read_bytes() == render([row()])
    with pytest.raises(ConfigError, match="cannot be written"):
        save_mosaic(tmp_path / "gone" / "m.png", [row()])


def test_rows_of_different_sizes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"acquisition 1: mask of \(32, 32\)"):
        render([row(), row(shape=(32, 32))], "t")


def test_no_rows_are_refused() -> None:
    with pytest.raises(ConfigError, match="no acquisitions"):
        render([], "t")


def test_without_pillow_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(ConfigError, match=r"pip install flatrack\[ai\]"):
        render([row()], "t")
