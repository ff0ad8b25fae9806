"""What the ground knows of its fleet, its patience, and what it counts: the values that the cluster works with."""

from collections.abc import Callable
from dataclasses import dataclass

from flightsw.config import SunInterval
from flightsw.wire.messages import JobReport
from ground.ledger import JobRequest

Verify = Callable[[JobRequest, JobReport, bytes, bytes | None], str | None]
"""(job, report, result, product that came down) -> why it cannot be, or None."""
OnComplete = Callable[[int, JobReport, bytes], None]
"""(job, report, result), once the job is on record as completed."""


@dataclass(frozen=True, slots=True)
class FleetNode:
    """What the ground knows of a node before it speaks."""

    node: int
    name: str
    mpix_per_s: float
    compute_w: float
    idle_w: float
    """Load when no job runs: board and bus [W]."""
    array_w: float
    battery_j: float
    reserve: float
    """Charge share that is not for jobs."""
    sun: tuple[SunInterval, ...]


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """Patience and limits of the ground."""

    node: int = 1
    command_lifetime_s: int = 4 * 3600
    """Of commands other than JOBS.SUBMIT, which lives as long as its job may take [s]."""
    command_repeat_s: float = 120.0
    """A command without an answer is sent again after this [s]: longer than a round trip across a fleet in contact."""
    attempts_max: int = 5
    """Attempts before a job is given up."""
    overdue_factor: float = 0.5
    overdue_s: float = 900.0
    """An attempt is overdue this long after its predicted end, plus the factor of its predicted length [s]: predictions
    know neither heat nor outages."""
    fetch_after_s: float = 90.0
    """A result that is announced and not here is asked for after this [s]."""
    result_wait_s: float = 1800.0
    """A result that is announced and has not come after this is not waited for [s]: a third of an orbit."""
    time_period_s: float = 0.0
    """A node in direct contact is asked for its time this often [s]; 0: only when somebody asks."""
    expected_charge: float = 0.8
    """Charge share assumed of a node that has not been heard."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to send."""

    destination: int
    service: int
    payload: bytes
    lifetime_ms: int
    priority: int
    confidential: bool = False
    """Encrypted for its destination, or not sent at all."""
    command_id: int | None = None
    """Of a command whose departure is to be told."""


@dataclass(slots=True)
class ClusterCounts:
    """What happened since the start of this ground segment."""

    placements: int = 0
    retries: int = 0
    late_reports: int = 0
    """Reports of attempts that had lost their say: repeated, late, or fenced out."""
    commands_repeated: int = 0
    jobs_resubmitted: int = 0
    """After a reset of their node."""
    results_refused: int = 0
    results_fetched: int = 0
    objects_delivered: int = 0
    uplinked_bytes: int = 0
