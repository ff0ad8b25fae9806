"""A model image is read without the onnx package, can be struck, and is computed once per image and input."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flightsw.compute.inference import InferenceCache, ModelImage
from flightsw.errors import BoardError, ConfigError

MODEL = (Path(__file__).resolve().parents[2] / "hil" / "assets" / "cloud-mask.onnx").read_bytes()
ONE_BIT_30 = 30  # the highest exponent bit of the first weight


def batch(seed: int = 1) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(seed)).random((1, 4, 16, 16), np.float32)


def tensor(values: np.ndarray, *, as_raw: bool = True) -> onnx.TensorProto:
    if as_raw:
        return onnx.numpy_helper.from_array(values, "w")
    return onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, values.shape, values.ravel().tolist())


def model_with(*tensors: onnx.TensorProto) -> bytes:
    graph = onnx.helper.make_graph([], "g", [], [], initializer=list(tensors))
    return onnx.helper.make_model(graph).SerializeToString()


def test_the_weights_found_are_those_that_the_onnx_package_finds() -> None:
    image = ModelImage(MODEL)
    expected = [
        onnx.numpy_helper.to_array(weights).tobytes()
        for weights in onnx.load_from_string(MODEL).graph.initializer
        if weights.data_type == onnx.TensorProto.FLOAT
    ]
    assert [MODEL[start : start + length] for start, length in image.weight_ranges()] == expected
    assert image.weight_bits_count == 8 * sum(map(len, expected))


def test_only_float_weights_are_found_in_either_encoding() -> None:
    values = np.array([1.5, -2.0, 3.25], np.float32)
    data = model_with(
        tensor(values),
        tensor(np.array([7], np.int64)),
        tensor(values + 1, as_raw=False),
        tensor(values.astype(np.float64)),
    )
    found = [data[start : start + length] for start, length in ModelImage(data).weight_ranges()]
    assert found == [values.tobytes(), (values + 1).tobytes()]


@settings(max_examples=20, deadline=None)
@given(bit_index=st.integers(0, 10_325 * 32 - 1))
def test_a_flip_changes_exactly_that_bit_of_the_weights(bit_index: int) -> None:
    image = ModelImage(MODEL)
    image.flip_weight_bit(bit_index)
    weights = b"".join(bytes(image.data[start : start + length]) for start, length in image.weight_ranges())
    before = b"".join(MODEL[start : start + length] for start, length in image.weight_ranges())
    difference = int.from_bytes(weights, "little") ^ int.from_bytes(before, "little")
    assert difference == 1 << bit_index
    assert sum(a != b for a, b in zip(image.data, MODEL, strict=True)) == 1
    assert not image.is_as_loaded()
    image.flip_weight_bit(bit_index)
    assert image.is_as_loaded()


@pytest.mark.parametrize("bit_index", [-1, 10_325 * 32])
def test_a_bit_that_is_not_there_is_refused(bit_index: int) -> None:
    with pytest.raises(ConfigError, match=f"weight bit {bit_index}"):
        ModelImage(MODEL).flip_weight_bit(bit_index)


def test_a_flipped_weight_changes_the_answer() -> None:
    cache, image = InferenceCache(), ModelImage(MODEL)
    before = image.run(batch(), cache)
    image.flip_weight_bit(ONE_BIT_30)
    after = image.run(batch(), cache)
    assert before.shape == after.shape == (1, 1, 16, 16)
    assert not np.array_equal(before, after, equal_nan=True)
    image.flip_weight_bit(ONE_BIT_30)
    assert np.array_equal(image.run(batch(), cache), before)


def test_the_guard_finds_a_weight_out_of_range_and_leaves_the_others() -> None:
    image = ModelImage(MODEL)
    assert image.guard_weights() == 0
    assert image.is_as_loaded()
    start, _ = image.weight_ranges()[0]
    image.data[start : start + 4] = bytes.fromhex("0100807f")  # a signalling NaN
    assert image.guard_weights() == 1
    assert image.data[start : start + 4] == bytes(4)
    assert image.data[start + 4 :] == MODEL[start + 4 :]


def test_the_same_image_and_input_are_computed_once() -> None:
    cache = InferenceCache()
    first = ModelImage(MODEL).run(batch(), cache)
    again = ModelImage(MODEL).run(batch(), cache)
    assert again is first
    assert (cache.misses_count, cache.hits_count, cache.sessions_count) == (1, 1, 1)
    ModelImage(MODEL).run(batch(2), cache)
    assert (cache.misses_count, cache.sessions_count) == (2, 1)


def test_a_result_handed_out_cannot_be_written() -> None:
    logits = ModelImage(MODEL).run(batch(), InferenceCache())
    with pytest.raises(ValueError, match="read-only"):
        logits[0, 0, 0, 0] = 1.0


def test_a_fresh_computation_gives_the_same_bytes() -> None:
    first, again = (ModelImage(MODEL).run(batch(), InferenceCache()) for _ in range(2))
    assert first.tobytes() == again.tobytes()


def test_sessions_are_bounded() -> None:
    cache, image = InferenceCache(sessions_max=2), ModelImage(MODEL)
    for bit_index in range(4):
        image.flip_weight_bit(bit_index)
        image.run(batch(), cache)
    assert cache.sessions_count == 2


def test_results_are_bounded_in_bytes_and_the_oldest_use_goes_first() -> None:
    cache, image = InferenceCache(results_bytes_max=2 * 16 * 16 * 4), ModelImage(MODEL)
    first = image.run(batch(1), cache)
    image.run(batch(2), cache)
    assert image.run(batch(1), cache) is first  # 2 is now the oldest use
    image.run(batch(3), cache)
    assert cache.results_bytes == 2 * 16 * 16 * 4
    assert image.run(batch(1), cache) is first
    misses_count = cache.misses_count
    image.run(batch(2), cache)
    assert cache.misses_count == misses_count + 1


def test_a_cache_of_no_bytes_computes_every_run() -> None:
    cache, image = InferenceCache(results_bytes_max=0), ModelImage(MODEL)
    image.run(batch(), cache)
    image.run(batch(), cache)
    assert (cache.hits_count, cache.misses_count, cache.results_bytes) == (0, 2, 0)


@given(data=st.binary(max_size=64))
def test_noise_is_not_a_model(data: bytes) -> None:
    with pytest.raises(ConfigError, match="noise"):
        ModelImage(data, "noise")


@given(length=st.integers(0, 4000))
def test_a_model_cut_short_is_refused(length: int) -> None:
    with pytest.raises(ConfigError, match=r"not an ONNX model|no float weights"):
        ModelImage(MODEL[:length])


def test_a_model_that_the_runtime_refuses_is_the_users_mistake() -> None:
    image = ModelImage(model_with(tensor(np.ones(2, np.float32))), "empty graph")
    with pytest.raises(ConfigError, match="empty graph: ONNX Runtime refuses"):
        image.run(batch(), InferenceCache())


def test_a_batch_that_does_not_fit_is_the_users_mistake() -> None:
    with pytest.raises(ConfigError, match=r"batch of shape \(1, 3, 16, 16\)"):
        ModelImage(MODEL).run(batch()[:, :3].copy(), InferenceCache())


def test_an_image_broken_in_memory_is_the_boards_fault() -> None:
    image = ModelImage(MODEL)
    start, _ = image.weight_ranges()[0]
    image.data[start - 1] ^= 0xFF  # the length before the numbers
    with pytest.raises(BoardError, match="no longer runs"):
        image.run(batch(), InferenceCache())


def test_without_the_runtime_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    modules: dict[str, Any] = sys.modules  # type: ignore[assignment]
    monkeypatch.setitem(modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"pip install flatrack\[ai\]"):
        ModelImage(MODEL).run(batch(), InferenceCache())
