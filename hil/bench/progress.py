"""What a live display may show of a run."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Progress:
    """What a live display may show."""

    now_ns: int
    until_ns: int
    jobs_accepted: int
    jobs_ended: int
    counters: dict[str, int] = field(default_factory=dict)
