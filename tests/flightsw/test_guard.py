"""The weight guard: what leaves a channel's range is seen, mended as well as may be, and nothing else is touched."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flightsw.compute.guard import guard_of
from flightsw.compute.inference import ModelImage

MODEL = (Path(__file__).resolve().parents[2] / "hil" / "assets" / "cloud-mask.onnx").read_bytes()
WEIGHTS_COUNT = 10_325
TOP_EXPONENT_BIT = 30


def model_of(values: list[list[float]]) -> bytes:
    """A model of one weight tensor, a channel in each row."""
    weights = onnx.numpy_helper.from_array(np.array(values, np.float32), "w")
    graph = onnx.helper.make_graph([], "g", [], [], initializer=[weights])
    return onnx.helper.make_model(graph).SerializeToString()


def mended(values: list[list[float]], place: int, struck: float) -> tuple[float, int]:
    """What the guard makes of a struck weight, and how many weights it saw out of range."""
    data = bytearray(model_of(values))
    guard = guard_of(bytes(data), "model")
    start = guard.tensors[0].start + 4 * place
    data[start : start + 4] = np.float32(struck).tobytes()
    seen = guard.mend(data)
    return float(np.frombuffer(data, "<f4", 1, start)[0]), seen


def test_the_true_weights_are_in_range() -> None:
    data = bytearray(MODEL)
    assert guard_of(MODEL, "model").mend(data) == 0
    assert data == MODEL


@settings(max_examples=200, deadline=None)
@given(st.integers(0, WEIGHTS_COUNT - 1))
def test_every_flip_of_the_highest_exponent_bit_is_mended_to_the_true_weight(weight: int) -> None:
    image = ModelImage(MODEL)
    image.flip_weight_bit(32 * weight + TOP_EXPONENT_BIT)
    assert image.guard_weights() == 1
    assert image.data == MODEL


@pytest.mark.parametrize("struck", [np.nan, np.inf, -np.inf, 1e30, -1e30])
def test_what_is_no_flip_of_one_exponent_bit_and_far_out_becomes_zero(struck: float) -> None:
    assert mended([[0.5, -0.25, 0.3]], 1, struck) == (0.0, 1)


@pytest.mark.parametrize(("struck", "bound"), [(0.42, 0.4), (-0.42, -0.4), (0.29, 0.3)])
def test_what_is_near_the_range_becomes_its_bound(struck: float, bound: float) -> None:
    assert mended([[0.4, -0.3, 0.35]], 0, struck) == (pytest.approx(bound), 1)


def test_one_flipped_exponent_bit_is_flipped_back() -> None:
    for power in (-2, 1, 4, 8, 64):
        assert mended([[0.5, -0.45, 0.55]], 1, -0.45 * 2.0**-power) == (pytest.approx(-0.45), 1), power


def test_each_channel_has_its_own_range() -> None:
    values = [[0.5, 0.5], [0.01, 0.01]]
    assert mended(values, 0, 0.01)[1] == 1
    assert mended(values, 2, 0.01)[1] == 0


def test_a_flip_that_stays_in_range_is_not_seen() -> None:
    assert mended([[0.5, 0.25, 0.3]], 2, 0.4) == (pytest.approx(0.4), 0)


def test_a_tensor_of_one_dimension_has_one_range() -> None:
    data = model_of([0.5, 0.25, 0.3])  # type: ignore[list-item]
    guard = guard_of(data, "model")
    assert set(guard.low.view(np.float32)) == {np.float32(0.25)}
    assert set(guard.high.view(np.float32)) == {np.float32(0.5)}
