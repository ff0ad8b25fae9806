"""The demonstration job: find the clouds in a tile of imagery, in eight steps that can be interrupted.

A node that masks clouds on board need not send down what nobody can use. The job is an ensemble over the eight
symmetries of the square (four rotations, each also mirrored): step k turns the tile, runs the network, turns the logits
back and adds them to a running sum. Between steps the whole state is a step number and that sum, so that a node in
eclipse writes a checkpoint and another node goes on from it. The sums are formed in one order, whoever forms them: an
interrupted job gives the same bytes as one that was not.

Layouts (all little endian; ours):

    tile   "FRTL" | version 1 u8 | bands u8 | height u16 | width u16 | height x width x bands u16
    mask   "FRMK" | version 1 u8 | bands 1 u8 | height u16 | width u16 | bits, row after row, first pixel in bit 7
    state  "FRCM" | version 1 u8 | step u8    | height u16 | width u16 | height x width float32
"""

import struct
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flightsw.compute.inference import InferenceCache, ModelImage
from flightsw.errors import MessageError, StorageError

NAME: Final = "cloud_mask"
"""The kind of job."""

STEPS: Final = 8
"""Steps of a job: one for each symmetry of the square."""

BANDS: Final = 4
"""Bands of a tile: blue, green, red, near infrared."""

TILE_SIDE_PX_MAX: Final = 1024  # 8 MiB a tile; its network activations take about 0.5 GB
NETWORK_STRIDE_PX: Final = 4  # the network halves the picture twice; sides are padded to a multiple of this
REFLECTANCE_DN: Final = 10_000
"""Digital number of reflectance 1. Source: Sentinel-2 products specification, quantification value."""

DnTile: TypeAlias = NDArray[np.uint16]
"""Digital numbers ``(height, width, bands)``."""

_HEADER = struct.Struct("<4sBBHH")
_TILE_MAGIC, _MASK_MAGIC, _STATE_MAGIC = b"FRTL", b"FRMK", b"FRCM"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class CloudMaskState:
    """Where a job stands.

    Attributes:
        step: Steps done, 0 to 8.
        logit_sum: ``(height, width)`` float32, the sum of the logits of those steps.
    """

    step: int
    logit_sum: NDArray[np.float32]

    def to_bytes(self) -> bytes:
        """Return the state as a checkpoint."""
        height, width = self.logit_sum.shape
        header = _HEADER.pack(_STATE_MAGIC, _VERSION, self.step, height, width)
        return header + self.logit_sum.astype("<f4").tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> "CloudMaskState":
        """Return the state in a checkpoint.

        Raises:
            StorageError: The bytes are not a checkpoint of this job.
        """
        try:
            step, height, width, body = _split(data, _STATE_MAGIC, "checkpoint")
            _expect_length(body, 4 * height * width, "checkpoint")
        except MessageError as error:
            raise StorageError(str(error)) from error
        if step > STEPS:
            raise StorageError(f"checkpoint: step {step}; expected 0 to {STEPS}")
        return cls(step, np.frombuffer(body, "<f4").reshape(height, width).astype(np.float32))


@dataclass(frozen=True, slots=True)
class CloudMaskResult:
    """What a job brings back.

    Attributes:
        mask: ``(height, width)``, true where there is cloud.
        cloud_fraction: Part of the tile that is cloud.
        is_finite: False where a logit was infinite or not a number, a sure sign of a struck model.
        mask_bytes: The mask as it is sent down.
        product_bytes: The tile with its cloudy pixels set to 0, which Sentinel-2 uses for "no data".
    """

    mask: NDArray[np.bool_]
    cloud_fraction: float
    is_finite: bool
    mask_bytes: bytes
    product_bytes: bytes


def begin(tile: DnTile) -> CloudMaskState:
    """Return the state of a job that has done nothing yet."""
    return CloudMaskState(0, np.zeros(tile.shape[:2], np.float32))


def advance(state: CloudMaskState, tile: DnTile, image: ModelImage, cache: InferenceCache) -> CloudMaskState:
    """Do one step.

    Args:
        state: Where the job stands; it is not changed.
        tile: ``(height, width, 4)`` digital numbers.
        image: The network.
        cache: Where its sessions and results are kept.

    Returns:
        The state after the step.

    Raises:
        StorageError: The state belongs to a tile of another size.
        ConfigError: ONNX Runtime is missing, or refuses the model.
        BoardError: The image was struck and no longer runs.
    """
    return added(state, tile, image.run(asked(state, tile), cache))


def asked(state: CloudMaskState, tile: DnTile) -> NDArray[np.float32]:
    """Return what the network is asked in the next step, ``(1, 4, h, w)``.

    Raises:
        StorageError: The state belongs to a tile of another size.
    """
    assert state.step < STEPS, "a finished job does no further step"
    assert tile.shape[2:] == (BANDS,), "the tile codec hands us four bands"
    if state.logit_sum.shape != tile.shape[:2]:
        raise StorageError(f"checkpoint: of a tile {state.logit_sum.shape}; expected {tile.shape[:2]}")
    return network_input(tile, state.step)


def added(state: CloudMaskState, tile: DnTile, answer: NDArray[np.float32]) -> CloudMaskState:
    """Return the state after a step in which the network gave this answer, logits ``(1, 1, h, w)``."""
    height, width = tile.shape[:2]
    logits = turn_back(answer[0, 0], state.step)[:height, :width]
    with np.errstate(all="ignore"):  # a struck model may add infinities of both signs
        return CloudMaskState(state.step + 1, state.logit_sum + logits)


def network_input(tile: DnTile, turn: int) -> NDArray[np.float32]:
    """Return what the network is asked in a step, ``(1, 4, h, w)`` reflectances; h and w are multiples of 4."""
    height, width = tile.shape[:2]
    padding = [(0, -height % NETWORK_STRIDE_PX), (0, -width % NETWORK_STRIDE_PX), (0, 0)]
    reflectance = np.pad(tile, padding, mode="edge").astype(np.float32) / np.float32(REFLECTANCE_DN)
    return np.ascontiguousarray(np.moveaxis(_turn(reflectance, turn), -1, 0)[None])


def finish(state: CloudMaskState, tile: DnTile) -> CloudMaskResult:
    """Return the result of a job whose steps are done."""
    assert state.step == STEPS, "a job is finished after its last step"
    mask = state.logit_sum > 0  # not a number compares false: ground
    product = tile.copy()
    product[mask] = 0
    return CloudMaskResult(
        mask=mask,
        cloud_fraction=float(mask.mean()),
        is_finite=bool(np.isfinite(state.logit_sum).all()),
        mask_bytes=encode_mask(mask),
        product_bytes=encode_tile(product),
    )


def turn_back(picture: NDArray[np.float32], turn: int) -> NDArray[np.float32]:
    """Return the network's answer ``(h, w)`` in a step as the tile lies."""
    unmirrored = picture[:, ::-1] if turn >= 4 else picture
    return np.rot90(unmirrored, -(turn % 4), (0, 1))


def encode_tile(tile: DnTile) -> bytes:
    """Return a tile as bytes.

    Args:
        tile: ``(height, width, 4)`` uint16.

    Raises:
        MessageError: The tile has another shape or type, or is larger than 1024 px a side.
    """
    if tile.ndim != 3 or tile.shape[2] != BANDS or tile.dtype != np.uint16:
        raise MessageError(f"tile: {tile.dtype} {tile.shape}; expected uint16 (height, width, {BANDS})")
    height, width = tile.shape[:2]
    _expect_size(height, width, "tile")
    return _HEADER.pack(_TILE_MAGIC, _VERSION, BANDS, height, width) + tile.astype("<u2").tobytes()


def decode_tile(data: bytes) -> DnTile:
    """Return the tile in bytes, ``(height, width, 4)`` uint16.

    Raises:
        MessageError: The bytes are not exactly one tile.
    """
    bands, height, width, body = _split(data, _TILE_MAGIC, "tile")
    if bands != BANDS:
        raise MessageError(f"tile: {bands} bands; expected {BANDS}")
    _expect_length(body, 2 * height * width * bands, "tile")
    return np.frombuffer(body, "<u2").reshape(height, width, bands).astype(np.uint16)


def encode_mask(mask: NDArray[np.bool_]) -> bytes:
    """Return a mask ``(height, width)`` as bytes, one bit a pixel."""
    height, width = mask.shape
    return _HEADER.pack(_MASK_MAGIC, _VERSION, 1, height, width) + np.packbits(mask).tobytes()


def decode_mask(data: bytes) -> NDArray[np.bool_]:
    """Return the mask in bytes, ``(height, width)``.

    Raises:
        MessageError: The bytes are not exactly one mask.
    """
    bands, height, width, body = _split(data, _MASK_MAGIC, "mask")
    if bands != 1:
        raise MessageError(f"mask: {bands} bands; expected 1")
    _expect_length(body, -(-height * width // 8), "mask")
    bits = np.unpackbits(np.frombuffer(body, np.uint8))
    if bits[height * width :].any():
        raise MessageError("mask: bits after the last pixel are set; expected zeros")
    return bits[: height * width].reshape(height, width).astype(np.bool_)


def _turn(picture: NDArray[np.float32], turn: int) -> NDArray[np.float32]:
    """Return a picture under one of the eight symmetries: rotated, then mirrored left to right from the fifth on."""
    rotated = np.rot90(picture, turn % 4, (0, 1))
    return rotated[:, ::-1] if turn >= 4 else rotated


def _split(data: bytes, magic: bytes, what: str) -> tuple[int, int, int, bytes]:
    """Return the byte after the version, height, width and the rest.

    Raises:
        MessageError: The header is short, of another kind or version, or names an impossible size.
    """
    if len(data) < _HEADER.size:
        raise MessageError(f"{what}: {len(data)} bytes; expected a header of {_HEADER.size}")
    found, version, detail, height, width = _HEADER.unpack_from(data)
    if found != magic or version != _VERSION:
        raise MessageError(f"{what}: begins with {found!r} version {version}; expected {magic!r} version {_VERSION}")
    _expect_size(height, width, what)
    return detail, height, width, data[_HEADER.size :]


def _expect_size(height: int, width: int, what: str) -> None:
    """Raise `MessageError` unless both sides are 1 to 1024 px."""
    if not (1 <= height <= TILE_SIDE_PX_MAX and 1 <= width <= TILE_SIDE_PX_MAX):
        raise MessageError(f"{what}: {height} x {width} px; expected sides of 1 to {TILE_SIDE_PX_MAX}")


def _expect_length(body: bytes, length_bytes: int, what: str) -> None:
    """Raise `MessageError` unless the body has that length."""
    if len(body) != length_bytes:
        raise MessageError(f"{what}: {len(body)} bytes after the header; expected {length_bytes}")
