"""Generated clouds have the cover asked for, an exact truth, and come back from the same seed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightsw.errors import ConfigError
from hil.imagery.clouds import GROUND_COVERS, fractal_field, ground, overlay


def stream(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def plain(height: int = 32, width: int = 40) -> np.ndarray:
    return np.full((height, width, 4), 0.1, np.float32)


@given(cover=st.floats(0, 1), seed=st.integers(0, 1000))
def test_the_truth_has_the_cover_asked_for(cover: float, seed: int) -> None:
    picture, truth = overlay(plain(), cover, stream(seed))
    assert abs(int(truth.sum()) - cover * truth.size) <= 0.5
    assert picture.dtype == np.float32
    assert picture.shape == (32, 40, 4)
    assert picture.min() >= 0
    assert picture.max() <= 1.5


@given(seed=st.integers(0, 1000))
def test_clouds_brighten_and_shadows_darken(seed: int) -> None:
    picture, truth = overlay(plain(), 0.4, stream(seed))
    assert (picture[truth] > 0.1).all()
    assert picture[~truth].min() <= 0.1


def test_shadows_do_fall_beside_the_clouds() -> None:
    assert any(overlay(plain(), 0.4, stream(seed))[0].min() < 0.08 for seed in range(5))


def test_no_cover_leaves_the_ground_as_it_is() -> None:
    before = ground((24, 24), stream(3))
    picture, truth = overlay(before, 0.0, stream(4))
    assert np.array_equal(picture, before)
    assert picture is not before
    assert not truth.any()


def test_the_ground_given_is_not_changed() -> None:
    before = plain()
    overlay(before, 0.7, stream(1))
    assert (before == np.float32(0.1)).all()


def test_the_same_stream_gives_the_same_clouds_and_another_gives_others() -> None:
    one, same, other = (overlay(plain(), 0.5, stream(seed)) for seed in (1, 1, 2))
    assert one[0].tobytes() == same[0].tobytes()
    assert one[1].tobytes() == same[1].tobytes()
    assert one[1].tobytes() != other[1].tobytes()


@pytest.mark.parametrize("cover", [-0.1, 1.1, float("nan")])
def test_an_impossible_cover_is_refused(cover: float) -> None:
    with pytest.raises(ConfigError, match="cloud cover"):
        overlay(plain(), cover, stream(1))


def test_a_picture_of_three_bands_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"\(8, 8, 3\)"):
        overlay(np.zeros((8, 8, 3), np.float32), 0.5, stream(1))


def test_a_fractal_field_is_normal_and_smoother_with_slope() -> None:
    rough, smooth = (fractal_field((64, 48), slope, stream(5)) for slope in (1.0, 4.0))
    for field in (rough, smooth):
        assert field.shape == (64, 48)
        assert abs(float(field.mean())) < 1e-5
        assert float(field.std()) == pytest.approx(1.0, abs=1e-4)
    assert np.abs(np.diff(smooth)).mean() < 0.5 * np.abs(np.diff(rough)).mean()


def test_a_fractal_field_does_not_wrap_around() -> None:
    steps = [
        np.abs(np.diff(field, axis=1)).mean() for field in (fractal_field((32, 32), 4.0, stream(s)) for s in range(9))
    ]
    seams = [
        np.abs(field[:, 0] - field[:, -1]).mean()
        for field in (fractal_field((32, 32), 4.0, stream(s)) for s in range(9))
    ]
    assert np.mean(seams) > 5 * np.mean(steps)


@pytest.mark.parametrize("kind", [cover.name for cover in GROUND_COVERS])
def test_each_kind_of_ground_has_its_colour(kind: str) -> None:
    expected = next(cover.reflectance for cover in GROUND_COVERS if cover.name == kind)
    assert ground((32, 32), stream(2), (kind,)).mean(axis=(0, 1)) == pytest.approx(expected, rel=0.05, abs=0.003)


def test_an_unknown_kind_of_ground_is_refused() -> None:
    with pytest.raises(ConfigError, match="'lava' is unknown; expected some of ocean"):
        ground((8, 8), stream(1), ("lava",))


def test_the_shares_of_the_kinds_add_up() -> None:
    assert sum(cover.share for cover in GROUND_COVERS) == pytest.approx(1.0)
