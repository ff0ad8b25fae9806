"""OBJECTS for the type checker.

Printed from `flightsw/dictionary/components/*.toml` by `make docs`; edit those.
"""

from collections.abc import Callable
from typing import NamedTuple


class Remove(NamedTuple):
    """OBJECTS.REMOVE: Remove an object from the store; no error when it is not there."""

    digest: bytes
    """Name of the object."""


class Fetch(NamedTuple):
    """OBJECTS.FETCH: Get an object from the ground; completed when it is here, whole and verified."""

    digest: bytes
    """Name of the object."""
    size_bytes: int
    """Its size."""


def rotten(report: Callable[..., None], /, digest: bytes) -> None:
    """OBJECTS.ROTTEN: A stored object did not match its digest and was removed."""
    report("OBJECTS.ROTTEN", digest)


def transfer_failed(report: Callable[..., None], /, reason: str, digest: bytes) -> None:
    """OBJECTS.TRANSFER_FAILED: A transfer ended without the object."""
    report("OBJECTS.TRANSFER_FAILED", reason, digest)
