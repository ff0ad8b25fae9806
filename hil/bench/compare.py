"""Compares the masks of two runs: floating-point kernels differ between processors, and so may a few pixels.

On one machine masks are equal byte for byte. Between machines they agree when no mask differs in more than
`PIXELS_DIFFERING_MAX` of its pixels (docs/determinism.md).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from flightsw.compute import cloud_mask
from flightsw.errors import ConfigError, MessageError

PIXELS_DIFFERING_MAX: Final = 0.005
"""Share of a mask's pixels: logits within rounding of zero are rare, and lie at cloud edges."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How the masks of two runs differ."""

    masks_count: int
    differing_count: int
    """Masks that are not equal."""
    worst_share: float
    """Largest share of differing pixels in one mask; 1.0 where a mask is missing or has another size."""

    @property
    def agrees(self) -> bool:
        """Whether all masks are within the tolerance."""
        return self.worst_share <= PIXELS_DIFFERING_MAX


def compare_masks(results_a: Path, results_b: Path) -> Comparison:
    """Compare two folders of masks, `job-*.mask`.

    Raises:
        ConfigError: a file is no mask; names it.
    """
    names = sorted({path.name for folder in (results_a, results_b) for path in folder.glob("job-*.mask")})
    shares = [_share(results_a / name, results_b / name) for name in names]
    return Comparison(len(names), sum(share > 0 for share in shares), max(shares, default=0.0))


def masks_agree(a: bytes, b: bytes) -> bool:
    """Whether two masks are within the tolerance. Raises: MessageError: one is no mask."""
    return _differing(cloud_mask.decode_mask(a), cloud_mask.decode_mask(b)) <= PIXELS_DIFFERING_MAX


def _share(path_a: Path, path_b: Path) -> float:
    if not (path_a.exists() and path_b.exists()):
        return 1.0
    masks = []
    for path in (path_a, path_b):
        try:
            masks.append(cloud_mask.decode_mask(path.read_bytes()))
        except MessageError as error:
            raise ConfigError(f"{path}: {error}") from None
    return _differing(*masks)


def _differing(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Share of the pixels that differ; 1.0 when the sizes do."""
    return float(np.mean(a != b)) if a.shape == b.shape else 1.0
