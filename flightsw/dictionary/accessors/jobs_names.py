"""JOBS for the type checker.

Printed from `flightsw/dictionary/components/*.toml` by `make docs`; edit those.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from flightsw.dictionary.model import ParameterKey

RESERVE: Final = ParameterKey[float]("JOBS.reserve")
"""Share of the battery that the forecast must leave at the end of the next eclipse for a step to run."""
REPORT_REPEAT_S: Final = ParameterKey[float]("JOBS.report_repeat_s")
"""A report is repeated at this period until the ground acknowledges it."""


class Submit(NamedTuple):
    """JOBS.SUBMIT: Take a job attempt. The ground's ledger sends it; a job that only a command knows would not come
    back.
    """

    spec: Sequence[Any]
    """The fields of JobSpec (docs/protocol.md), in order."""


class Cancel(NamedTuple):
    """JOBS.CANCEL: End an attempt; its report says CANCELLED."""

    job: int
    """Number of the job."""
    attempt: int
    """Attempt that is meant: a newer one is not touched."""


class Pause(NamedTuple):
    """JOBS.PAUSE: Hold a job at its next step until RESUME, over any reset. Its deadline counts on."""

    job: int
    """Number of the job."""


class Resume(NamedTuple):
    """JOBS.RESUME: Let a held job run again when the budget allows it."""

    job: int
    """Number of the job."""


def records_lost(report: Callable[..., None], /, count: int) -> None:
    """JOBS.RECORDS_LOST: Job records did not hold at boot."""
    report("JOBS.RECORDS_LOST", count)


def weights_struck(report: Callable[..., None], /, model: bytes, outcome: str) -> None:
    """JOBS.WEIGHTS_STRUCK: Weights in memory did not hold; says what was done."""
    report("JOBS.WEIGHTS_STRUCK", model, outcome)
