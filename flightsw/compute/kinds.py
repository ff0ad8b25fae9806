"""Kinds of jobs, in one place for every runner.

A step of a job is a conversation: `step` asks for operations on the model, one after another, and ends with the new
state. Whoever runs it computes them where it likes: in this process (`compute`), or in a worker that gets numbers and
gives numbers back and knows no flight code. Tiles, states and checks stay here.
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flightsw.compute import abft, cloud_mask, matrix_product
from flightsw.compute.inference import InferenceCache, ModelImage
from flightsw.compute.matrix_file import MAGIC
from flightsw.compute.matrix_image import MatrixImage
from flightsw.errors import ConfigError
from flightsw.ports import ProductChecks

KINDS: Final = (cloud_mask.NAME, matrix_product.NAME)
"""What nodes run."""

Image: TypeAlias = ModelImage | MatrixImage
"""What lies in memory for a job's model."""


@dataclass(frozen=True, slots=True)
class Inference:
    """Run the network over a batch ``(n, bands, height, width)`` float32; the answer is ``(n, 1, height, width)``."""

    batch: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class RowProduct:
    """Multiply some rows of the model's matrix by another one.

    Attributes:
        rows: of the model's ``(m, k)``.
        right: ``(k, n)`` float32 or int8; the answer is ``(rows, n)`` float32, or int32, in which int8 is summed.
    """

    rows: slice
    right: NDArray[Any]


Operation: TypeAlias = Inference | RowProduct
Step: TypeAlias = Generator[Operation, NDArray[Any], bytes]


def check(kind: str) -> None:
    """Raise `ConfigError` for a kind that nobody knows."""
    if kind not in KINDS:
        raise ConfigError(f"job kind {kind!r}: expected one of {', '.join(KINDS)}")


def load(data: bytes | bytearray | memoryview, name: str) -> Image:
    """Load a model of any kind: a matrix, or a network.

    Raises:
        ConfigError: The bytes are neither.
    """
    return MatrixImage(data, name) if data[: len(MAGIC)] == MAGIC else ModelImage(data, name)


def step(kind: str, image: Image, state: bytes, data: bytes, checks: ProductChecks | None) -> Step:
    """Begin one step of a job.

    Args:
        kind: of the job.
        image: its model in memory.
        state: the last step's, empty at first.
        data: the input object.
        checks: takes what the checksums of products found; None: they are not checked.

    Raises:
        ConfigError: An unknown kind, or a model of another.
        BoardError: A product does not hold, computed twice.
        MessageError: The input is none of this kind.
        StorageError: The state is no checkpoint of this job.
    """
    check(kind)
    if kind == cloud_mask.NAME and isinstance(image, ModelImage):
        return _mask_step(state, data)
    if kind == matrix_product.NAME and isinstance(image, MatrixImage):
        return _product_step(image, state, data, checks)
    found = "a matrix" if isinstance(image, MatrixImage) else "a network"
    raise ConfigError(f"{image.name} is {found}; expected another model for jobs of kind {kind!r}")


def finish(kind: str, state: bytes, data: bytes) -> tuple[bytes, bytes, float]:
    """Return (result object, product object, measure) of a job whose steps are done; an empty product is none.

    Raises:
        ConfigError: An unknown kind.
        MessageError: The input is none of this kind, or the job had too few steps.
        StorageError: The state is no checkpoint.
    """
    check(kind)
    if kind == matrix_product.NAME:
        return matrix_product.finish(matrix_product.ProductState.from_bytes(state))
    tile = cloud_mask.decode_tile(data)
    result = cloud_mask.finish(cloud_mask.CloudMaskState.from_bytes(state), tile)
    return result.mask_bytes, result.product_bytes, result.cloud_fraction


def compute(
    operation: Operation, image: Image, cache: InferenceCache, product: abft.Product = np.matmul
) -> NDArray[Any]:
    """Do what a step asks for, in this process.

    Args:
        operation: what is asked.
        image: the model in memory.
        cache: sessions and results of networks.
        product: what multiplies two matrices; for int8 it is given int32.

    Raises:
        ConfigError: ONNX Runtime is missing, or refuses the model.
        BoardError: The image was struck and no longer runs.
    """
    if isinstance(operation, Inference):
        assert isinstance(image, ModelImage), "a network is asked of a network"
        return image.run(operation.batch, cache)
    assert isinstance(image, MatrixImage), "a product is asked of a matrix"
    left, right = image.matrix[operation.rows], operation.right
    if left.dtype == np.int8:
        left, right = left.astype(np.int32), right.astype(np.int32)
    with np.errstate(all="ignore"):  # a struck matrix may hold anything
        return product(left, right)


def _mask_step(state: bytes, data: bytes) -> Step:
    tile = cloud_mask.decode_tile(data)
    before = cloud_mask.CloudMaskState.from_bytes(state) if state else cloud_mask.begin(tile)
    answer = yield Inference(cloud_mask.asked(before, tile))
    return cloud_mask.added(before, tile, answer).to_bytes()


def _product_step(image: MatrixImage, state: bytes, data: bytes, checks: ProductChecks | None) -> Step:
    right = matrix_product.decode_right(data, image.matrix)
    before = matrix_product.ProductState.from_bytes(state) if state else matrix_product.begin(image.matrix, right)
    rows = matrix_product.next_rows(before, image.matrix, right)
    asked = RowProduct(rows, right)
    if checks is None:
        return matrix_product.added(before, (yield asked)).to_bytes()
    checking = abft.checked(image.matrix[rows], right, checks)
    next(checking)
    try:
        while True:
            checking.send((yield asked))
    except StopIteration as done:
        return matrix_product.added(before, done.value).to_bytes()
