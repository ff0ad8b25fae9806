"""A cloud mask is the same whether or not the job was interrupted, and its bytes are read strictly."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightsw.compute import cloud_mask
from flightsw.compute.cloud_mask import STEPS, CloudMaskState
from flightsw.compute.inference import InferenceCache, ModelImage
from flightsw.errors import MessageError, StorageError

MODEL = (Path(__file__).resolve().parents[2] / "hil" / "assets" / "cloud-mask.onnx").read_bytes()


def picture(height: int = 16, width: int = 16, seed: int = 1) -> np.ndarray:
    """Ground with a bright block in its north-west quarter."""
    random = np.random.Generator(np.random.PCG64(seed))
    tile = random.integers(900, 1500, (height, width, 4)).astype(np.uint16)
    tile[: height // 2, : width // 2] = random.integers(6900, 7200, (height // 2, width // 2, 4))
    return tile


def run(tile: np.ndarray, image: ModelImage, *, interrupted: bool = False) -> CloudMaskState:
    state = cloud_mask.begin(tile)
    cache = InferenceCache()
    for _ in range(STEPS):
        if interrupted:  # another process takes over: nothing survives but the checkpoint
            state, cache = CloudMaskState.from_bytes(state.to_bytes()), InferenceCache()
        state = cloud_mask.advance(state, tile, image, cache)
    return state


def test_the_cloud_is_found_and_blanked() -> None:
    tile = picture(48, 48)
    result = cloud_mask.finish(run(tile, ModelImage(MODEL)), tile)
    assert result.mask[4:20, 4:20].all()
    assert not result.mask[30:, 30:].any()
    assert result.cloud_fraction == pytest.approx(0.25, abs=0.05)
    assert result.is_finite
    assert np.array_equal(cloud_mask.decode_mask(result.mask_bytes), result.mask)
    product = cloud_mask.decode_tile(result.product_bytes)
    assert not product[result.mask].any()
    assert np.array_equal(product[~result.mask], tile[~result.mask])
    assert tile.min() >= 900  # the input is left alone


def test_an_interrupted_job_gives_the_same_bytes() -> None:
    tile, image = picture(), ModelImage(MODEL)
    straight, resumed = run(tile, image), run(tile, image, interrupted=True)
    assert straight.to_bytes() == resumed.to_bytes()
    assert cloud_mask.finish(straight, tile).mask_bytes == cloud_mask.finish(resumed, tile).mask_bytes


@pytest.mark.parametrize("size", [(16, 16), (20, 12), (13, 17), (1, 1)])
def test_every_size_of_tile_gives_a_mask_of_its_size(size: tuple[int, int]) -> None:
    tile = picture(*size)
    assert cloud_mask.finish(run(tile, ModelImage(MODEL)), tile).mask.shape == size


@pytest.mark.parametrize("turn", range(8))
def test_the_ensemble_does_not_care_how_the_tile_lies(turn: int) -> None:
    tile, image = picture(), ModelImage(MODEL)
    turned = np.rot90(tile, turn % 4)
    turned = np.ascontiguousarray(turned[:, ::-1] if turn >= 4 else turned)
    expected = np.rot90(run(tile, image).logit_sum, turn % 4)
    expected = expected[:, ::-1] if turn >= 4 else expected
    # the eight summands are the same in another order
    assert np.allclose(run(turned, image).logit_sum, expected, rtol=1e-4, atol=1e-4)


def test_the_steps_differ_from_each_other() -> None:
    tile, image, cache = picture(), ModelImage(MODEL), InferenceCache()
    state, gains = cloud_mask.begin(tile), []
    for _ in range(STEPS):
        after = cloud_mask.advance(state, tile, image, cache)
        gains.append((after.logit_sum - state.logit_sum).tobytes())
        state = after
    assert len(set(gains)) == STEPS
    assert cache.misses_count == STEPS


def test_a_struck_model_that_yields_no_numbers_is_told() -> None:
    tile, image = picture(), ModelImage(MODEL)
    start, length = image.weight_ranges()[-1]
    for weight in range(start, start + length, 4):
        image.data[weight : weight + 4] = bytes.fromhex("0000c07f")  # NaN
    result = cloud_mask.finish(run(tile, image), tile)
    assert not result.is_finite


def test_a_checkpoint_of_another_tile_is_refused() -> None:
    state = cloud_mask.begin(picture(16, 12))
    with pytest.raises(StorageError, match=r"\(16, 12\); expected \(16, 16\)"):
        cloud_mask.advance(state, picture(), ModelImage(MODEL), InferenceCache())


@given(step=st.integers(0, STEPS), height=st.integers(1, 9), width=st.integers(1, 9), seed=st.integers(0, 99))
def test_a_checkpoint_comes_back_as_it_was(step: int, height: int, width: int, seed: int) -> None:
    logit_sum = np.random.Generator(np.random.PCG64(seed)).normal(size=(height, width)).astype(np.float32)
    back = CloudMaskState.from_bytes(CloudMaskState(step, logit_sum).to_bytes())
    assert back.step == step
    assert back.logit_sum.tobytes() == logit_sum.tobytes()
    assert back.logit_sum.flags.writeable


CHECKPOINT = CloudMaskState(3, np.ones((2, 3), np.float32)).to_bytes()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        CHECKPOINT[:9],
        CHECKPOINT[:-1],
        CHECKPOINT + b"\0",
        b"X" + CHECKPOINT[1:],
        CHECKPOINT[:5] + b"\x09" + CHECKPOINT[6:],
    ],
)
def test_a_torn_checkpoint_is_refused(data: bytes) -> None:
    with pytest.raises(StorageError, match="checkpoint"):
        CloudMaskState.from_bytes(data)


@given(height=st.integers(1, 9), width=st.integers(1, 9), seed=st.integers(0, 99))
def test_tiles_and_masks_come_back_as_they_were(height: int, width: int, seed: int) -> None:
    tile = np.random.Generator(np.random.PCG64(seed)).integers(0, 65536, (height, width, 4)).astype(np.uint16)
    mask = tile[..., 0] % 2 == 1
    assert np.array_equal(cloud_mask.decode_tile(cloud_mask.encode_tile(tile)), tile)
    assert np.array_equal(cloud_mask.decode_mask(cloud_mask.encode_mask(mask)), mask)


def test_the_layout_of_a_tile_is_as_documented() -> None:
    tile = np.arange(8, dtype=np.uint16).reshape(1, 2, 4)
    header = b"FRTL" + bytes([1, 4]) + (1).to_bytes(2, "little") + (2).to_bytes(2, "little")
    assert cloud_mask.encode_tile(tile) == header + b"".join(value.to_bytes(2, "little") for value in range(8))


TILE = cloud_mask.encode_tile(picture(2, 2))
MASK = cloud_mask.encode_mask(np.ones((3, 3), np.bool_))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        TILE[:-1],
        TILE + b"\0",
        MASK,
        TILE[:4] + b"\x02" + TILE[5:],
        TILE[:5] + b"\x03" + TILE[6:],
        TILE[:6] + b"\0\0" + TILE[8:],
    ],
)
def test_what_is_not_exactly_a_tile_is_refused(data: bytes) -> None:
    with pytest.raises(MessageError, match="tile"):
        cloud_mask.decode_tile(data)


@pytest.mark.parametrize(
    "data", [b"", MASK[:-1], MASK + b"\0", TILE, MASK[:-1] + b"\x81", MASK[:5] + b"\x02" + MASK[6:]]
)
def test_what_is_not_exactly_a_mask_is_refused(data: bytes) -> None:
    with pytest.raises(MessageError, match="mask"):
        cloud_mask.decode_mask(data)


@pytest.mark.parametrize(
    "tile",
    [
        np.zeros((2, 2, 3), np.uint16),
        np.zeros((2, 2), np.uint16),
        np.zeros((2, 2, 4), np.float32),
        np.zeros((0, 2, 4), np.uint16),
        np.zeros((1025, 1, 4), np.uint16),
    ],
)
def test_an_array_that_is_no_tile_is_not_encoded(tile: np.ndarray) -> None:
    with pytest.raises(MessageError, match="tile"):
        cloud_mask.encode_tile(tile)
