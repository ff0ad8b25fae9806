"""UPDATE for the type checker.

Printed from `flightsw/dictionary/components/*.toml` by `make docs`; edit those.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from flightsw.dictionary.model import ParameterKey

AUTO_COMMIT: Final = ParameterKey[bool]("UPDATE.auto_commit")
"""Whether a trial that has passed commits itself; otherwise the ground does."""
STABLE_S: Final = ParameterKey[int]("UPDATE.stable_s")
"""How long a trial must run before it may be kept."""
WINDOW_S: Final = ParameterKey[int]("UPDATE.window_s")
"""How long a trial boot may last without a commit: more than the longest gap between passes."""
TRIAL_BOOTS: Final = ParameterKey[int]("UPDATE.trial_boots")
"""Boots of one trial: a reset that has nothing to do with the update must not undo it, a crash loop must."""


class Stage(NamedTuple):
    """UPDATE.STAGE: Check a signed manifest, fetch the image that it names and install it into the slot that is not
    in use.
    """

    manifest: bytes
    """Signed manifest (docs/update.md)."""


class Query(NamedTuple):
    """UPDATE.QUERY: Say where the update stands: the answer's detail is `state=... version=... slot=...`.
    Acknowledges the heartbeat.
    """

    heard_boot: int
    """Boot count in the last beacon that the ground heard; 0 for none."""


def accepted(report: Callable[..., None], /, version: str, serial: int, size_bytes: int) -> None:
    """UPDATE.ACCEPTED: A manifest passed all checks."""
    report("UPDATE.ACCEPTED", version, serial, size_bytes)


def refused(report: Callable[..., None], /, reason: str) -> None:
    """UPDATE.REFUSED: A manifest did not pass the checks."""
    report("UPDATE.REFUSED", reason)


def staged(report: Callable[..., None], /, version: str, slot: str) -> None:
    """UPDATE.STAGED: An image is installed and holds."""
    report("UPDATE.STAGED", version, slot)


def trying(report: Callable[..., None], /, version: str, slot: str) -> None:
    """UPDATE.TRYING: The next boots are a trial."""
    report("UPDATE.TRYING", version, slot)


def trial(report: Callable[..., None], /, version: str, slot: str, boots_left: int) -> None:
    """UPDATE.TRIAL: This boot is a trial."""
    report("UPDATE.TRIAL", version, slot, boots_left)


def committed(report: Callable[..., None], /, version: str, slot: str, why: str) -> None:
    """UPDATE.COMMITTED: A trial passed."""
    report("UPDATE.COMMITTED", version, slot, why)


def rolled_back(report: Callable[..., None], /, version: str, reason: str) -> None:
    """UPDATE.ROLLED_BACK: A trial failed, or the ground went back."""
    report("UPDATE.ROLLED_BACK", version, reason)


def ended(report: Callable[..., None], /, reason: str) -> None:
    """UPDATE.ENDED: An update ended before its trial."""
    report("UPDATE.ENDED", reason)


def record_lost(report: Callable[..., None], /, reason: str) -> None:
    """UPDATE.RECORD_LOST: Both copies of the state on disk were damaged; the slots themselves say what runs."""
    report("UPDATE.RECORD_LOST", reason)
