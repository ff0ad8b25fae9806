"""MODELS for the type checker.

Printed from `flightsw/dictionary/components/*.toml` by `make docs`; edit those.
"""

from collections.abc import Callable
from typing import Final

from flightsw.dictionary.model import ParameterKey

RANGE_GUARD: Final = ParameterKey[bool]("MODELS.range_guard")
"""Look for weights out of range before the first and after each step of a job."""
SCRUB_ON_CHECKPOINT: Final = ParameterKey[bool]("MODELS.scrub_on_checkpoint")
"""Compare the model with its digest before a checkpoint or a result is kept. Off: only the guard and the periodic
scrub see struck weights.
"""
DUPLICATE_STEPS: Final = ParameterKey[bool]("MODELS.duplicate_steps")
"""Compute each step twice and keep it only when both agree: for errors in computing, at twice the time and energy."""
VOTE_RESULTS: Final = ParameterKey[bool]("MODELS.vote_results")
"""Form a job's result and the decision on its product twice, and a third time when they differ."""
ABFT: Final = ParameterKey[bool]("MODELS.abft")
"""Check the blocks of jobs of kind matrix_product by the sums of their rows and columns; put one wrong element
right, compute again what has more.
"""


def product_struck(
    report: Callable[..., None], /, job: int, step: int, corrected: int, repeated: int, refused: int
) -> None:
    """MODELS.PRODUCT_STRUCK: The checksums of a matrix product did not hold; says what was done."""
    report("MODELS.PRODUCT_STRUCK", job, step, corrected, repeated, refused)
