"""AUDIT for the type checker.

Printed from `flightsw/dictionary/components/*.toml` by `make docs`; edit those.
"""

from collections.abc import Callable
from typing import NamedTuple


class Dump(NamedTuple):
    """AUDIT.DUMP: Send the records from a number on as a data product, for `flatrack audit`."""

    first: int
    """Number of the first record; those that are no longer there are left out."""


def unsaved(report: Callable[..., None], /, reason: str) -> None:
    """AUDIT.UNSAVED: A record was not written. The next one that is says how many were missed."""
    report("AUDIT.UNSAVED", reason)


def damaged(report: Callable[..., None], /, count: int, first: int) -> None:
    """AUDIT.DAMAGED: At boot, records of the chain did not hold; the others do, and the ground sees the gap."""
    report("AUDIT.DAMAGED", count, first)
