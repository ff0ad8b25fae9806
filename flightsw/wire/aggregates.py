"""Several bundles in one LTP block, one behind the other: other implementations aggregate small bundles so.

A BPv7 bundle says by its structure where it ends (RFC 9171 §4.1: a CBOR array of indefinite length), so nothing stands
between them. Our own blocks hold one bundle each.
"""

from typing import Final

from flightsw.errors import BundleError

AGGREGATE_BUNDLES_MAX: Final = 1024
"""Most bundles in one block: 64 KiB of the shortest. Bounds the work that one block may ask for."""

NESTING_MAX: Final = 8
"""Deepest array in a bundle's blocks: an endpoint in the primary block is the third."""

_BUNDLE: Final = 0x9F
_BREAK: Final = 0xFF


def split_bundles(block: bytes) -> list[bytes]:
    """The bundles in a block, still encoded; only their outlines are looked at.

    Raises:
        BundleError: the block is not whole bundles one behind the other, or holds more than `AGGREGATE_BUNDLES_MAX`.
    """
    bundles: list[bytes] = []
    at = 0
    while at < len(block) or not bundles:
        if len(bundles) == AGGREGATE_BUNDLES_MAX:
            raise BundleError(f"block: more than {AGGREGATE_BUNDLES_MAX} bundles")
        end = _bundle_end(block, at)
        bundles.append(block[at:end])
        at = end
    return bundles


def _bundle_end(block: bytes, at: int) -> int:
    """The offset after the bundle at the offset."""
    if block[at : at + 1] != bytes((_BUNDLE,)):
        raise BundleError(f"block: no bundle begins at byte {at}")
    at += 1
    while block[at : at + 1] != bytes((_BREAK,)):
        at = _item_end(block, at, NESTING_MAX)
    return at + 1


def _item_end(block: bytes, at: int, depth_max: int) -> int:
    """The offset after the CBOR item at the offset: an integer, string or array of definite length."""
    if at >= len(block):
        raise BundleError("block: the data end inside a bundle")
    major, width = block[at] >> 5, block[at] & 0x1F
    at += 1
    if width < 24:
        value = width
    elif width <= 27:
        end = at + (1 << (width - 24))
        value = int.from_bytes(block[at:end], "big")
        at = end
    else:
        raise BundleError(f"block: byte {at - 1} begins no item of a bundle")
    if major in (0, 1):
        return at
    if major in (2, 3):
        return at + value
    if major != 4 or depth_max == 0 or value > len(block) - at:
        raise BundleError(f"block: no item of a bundle ends at byte {at}")
    for _ in range(value):
        at = _item_end(block, at, depth_max - 1)
    return at
