"""PARAMETERS for the type checker.

Printed from `flightsw/dictionary/components/*.toml` by `make docs`; edit those.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple


class Load(NamedTuple):
    """PARAMETERS.LOAD: Put values into the inactive image, which begins as a copy of the active one. All of them are
    taken, or none.
    """

    values: Sequence[Any]
    """Texts as MODE.safe_enter=0.2."""


class LoadFile(NamedTuple):
    """PARAMETERS.LOAD_FILE: The same from a file."""

    file: bytes
    """TOML: MODE.safe_enter = 0.2, a line each."""


class Set(NamedTuple):
    """PARAMETERS.SET: Load, validate and activate one value. Refused while an inactive image is loaded."""

    parameter: str
    """For example MODE.safe_enter."""
    value: str
    """As text: 0.2, true, 17."""


class Get(NamedTuple):
    """PARAMETERS.GET: Answer with a parameter's value and validity."""

    parameter: str
    """For example MODE.safe_enter."""


class Dump(NamedTuple):
    """PARAMETERS.DUMP: Send both images as a data product, in the form that LOAD_FILE takes."""

    group: str
    """A group, which is a component if nothing else is said; empty: all."""


class Restore(NamedTuple):
    """PARAMETERS.RESTORE: Back to the defaults, in a group or in all, and forget the inactive image."""

    group: str
    """A group; empty: all."""


def activated(report: Callable[..., None], /, version: int, changes: str) -> None:
    """PARAMETERS.ACTIVATED: Parameters changed."""
    report("PARAMETERS.ACTIVATED", version, changes)


def invalid(report: Callable[..., None], /, parameter: str, reason: str) -> None:
    """PARAMETERS.INVALID: A kept value does not fit this software; the default is used. The kept value stays on the
    disk.
    """
    report("PARAMETERS.INVALID", parameter, reason)


def lost(report: Callable[..., None], /, reason: str) -> None:
    """PARAMETERS.LOST: Neither copy of the parameters holds."""
    report("PARAMETERS.LOST", reason)


def repaired(report: Callable[..., None]) -> None:
    """PARAMETERS.REPAIRED: One copy of the parameters did not hold at boot."""
    report("PARAMETERS.REPAIRED")
