"""Faults as data: what strikes what, and when. Written in a scenario, or drawn at random from named streams.

A drawn plan takes its own *rates* first and then its faults (swarm testing, after TigerBeetle's simulator): one seed is
quiet but for resets, the next has rotten links only, so that rare combinations are met.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Final, Literal

import msgspec

from flightsw.config import NonNegative, Positive, Share
from flightsw.ports import Random


class NodeReset(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="node_reset", tag_field="kind"
):
    """The node loses power or is reset: memory is gone, and what was not synced may vanish or tear."""

    node: str
    at_s: NonNegative
    when: Literal["now", "job_running"] = "now"
    """`job_running` waits for the first checkpoint of a job at or after `at_s`."""
    cause: Literal["POWER_CYCLE", "WATCHDOG", "EXCEPTION"] = "POWER_CYCLE"
    off_s: Positive = 20.0
    """From the cut to the start of the boot [s]."""


class LinkOutage(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="link_outage", tag_field="kind"
):
    """The link carries nothing, in either direction; afterwards it must be acquired again."""

    link: str
    at_s: NonNegative
    duration_s: Positive


class LinkDegraded(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="link_degraded", tag_field="kind"
):
    """The link is worse than its class for a while: pointing error, interference, rain."""

    link: str
    at_s: NonNegative
    duration_s: Positive
    bit_error_rate: Share = 0.0
    loss: Share = 0.0
    duplicate: Share = 0.0
    reorder: Share = 0.0


class WeightUpset(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="weight_upset", tag_field="kind"
):
    """Bits of model weights in memory flip."""

    node: str
    at_s: NonNegative
    bits: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 1
    when: Literal["now", "job_running"] = "now"


class ObjectRot(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="object_rot", tag_field="kind"
):
    """A bit of a stored file flips."""

    node: str
    at_s: NonNegative


Clears = Literal["restart", "reset", "power_cycle"]
"""What it takes to end a hang: the least of the steps of the ladder of escalation that helps."""


class WorkerHang(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="worker_hang", tag_field="kind"
):
    """The worker that runs steps of jobs never ends a step again."""

    node: str
    at_s: NonNegative
    when: Literal["now", "job_running"] = "now"
    clears: Clears = "restart"


class ComponentHang(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="component_hang", tag_field="kind"
):
    """A party of health answers no ping any more. The party `program` is all of the manager: it stands still."""

    node: str
    at_s: NonNegative
    party: str = "program"
    clears: Clears = "reset"


class SensorFault(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="sensor_fault", tag_field="kind"
):
    """A sensor of the board fails. `missing` and `stale` take the whole reading: the sensors share a bus."""

    node: str
    at_s: NonNegative
    sensor: Literal["charge_j", "solar_w", "load_w", "electronics_degc", "sunlight"] = "electronics_degc"
    how: Literal["stuck", "nonsense", "missing", "stale"]
    duration_s: Positive | None = None
    """Without one it stays broken."""


class LatchUp(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="latch_up", tag_field="kind"):
    """A part of the electronics draws extra current until the node loses power."""

    node: str
    at_s: NonNegative
    extra_w: Positive


class Heat(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="heat", tag_field="kind"):
    """The radiator does not radiate as it should: it is turned to the Earth, or a loop has lost its fluid."""

    node: str
    at_s: NonNegative
    duration_s: Positive
    radiator_share: Share = 0.0
    """What is left of it."""


class BootLoop(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="boot_loop", tag_field="kind"
):
    """The manager crashes, and again early in each boot that follows, until this has happened `crashes` times."""

    node: str
    at_s: NonNegative
    crashes: Annotated[int, msgspec.Meta(ge=1, le=64)] = 3
    after_s: Positive = 30.0
    """How long a boot lasts [s]."""
    cause: Literal["WATCHDOG", "EXCEPTION"] = "EXCEPTION"


class DiskFull(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="disk_full", tag_field="kind"
):
    """Something else has filled the disk."""

    node: str
    at_s: NonNegative
    duration_s: Positive
    free_bytes: Annotated[int, msgspec.Meta(ge=0)] = 0
    """What it has left."""


class ClockJump(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="clock_jump", tag_field="kind"
):
    """Mission time steps, forwards or backwards; monotonic time does not."""

    node: str
    at_s: NonNegative
    jump_s: Annotated[float, msgspec.Meta(ge=-1e9, le=1e9)]


NodeTrouble = WorkerHang | ComponentHang | SensorFault | LatchUp | Heat | DiskFull | ClockJump
"""What strikes the surroundings of one node."""

Fault = NodeReset | LinkOutage | LinkDegraded | WeightUpset | ObjectRot | BootLoop | NodeTrouble

RESETS_MAX: Final = 4
OUTAGES_MAX: Final = 6
DEGRADED_MAX: Final = 6
UPSETS_MAX: Final = 12
ROTS_MAX: Final = 3
"""Most faults of each kind in one drawn plan: harsh, yet a cluster that heals must still finish its jobs."""


def draw(
    stream: Callable[[str], Random],
    nodes: Sequence[str],
    links: Sequence[str],
    start_s: float,
    end_s: float,
) -> tuple[Fault, ...]:
    """A random plan.

    Args:
        stream: named streams of the run's seed; each kind of fault draws from its own.
        nodes, links: names that may be struck.
        start_s, end_s: faults begin in this interval; nothing begins after it, so that the cluster can converge.

    Returns:
        Faults sorted by their time.
    """
    faults: list[Fault] = []

    def times(kind: str, most: int) -> tuple[Random, list[float]]:
        random = stream(kind)
        count = random.randint(0, most) if random.random() < 0.75 else 0
        return random, [round(random.uniform(start_s, end_s), 3) for _ in range(count)]

    random, at = times("node_reset", RESETS_MAX)
    for at_s in at:
        cause = random.choice(("POWER_CYCLE", "WATCHDOG", "EXCEPTION"))
        when = random.choice(("now", "job_running"))
        faults.append(
            NodeReset(
                node=random.choice(nodes),
                at_s=at_s,
                when=when,  # type: ignore[arg-type]
                cause=cause,  # type: ignore[arg-type]
                off_s=round(random.uniform(5, 120), 3),
            )
        )
    random, at = times("link_outage", OUTAGES_MAX)
    faults += [
        LinkOutage(link=random.choice(links), at_s=at_s, duration_s=round(random.uniform(10, 900), 3)) for at_s in at
    ]
    random, at = times("link_degraded", DEGRADED_MAX)
    faults += [
        LinkDegraded(
            link=random.choice(links),
            at_s=at_s,
            duration_s=round(random.uniform(30, 900), 3),
            bit_error_rate=random.choice((0.0, 1e-6, 1e-5, 1e-4)),
            loss=round(random.choice((0.0, 0.01, 0.1, 0.3)) * random.random(), 4),
            duplicate=round(random.choice((0.0, 0.2)) * random.random(), 4),
            reorder=round(random.choice((0.0, 0.2)) * random.random(), 4),
        )
        for at_s in at
    ]
    random, at = times("weight_upset", UPSETS_MAX)
    faults += [
        WeightUpset(
            node=random.choice(nodes),
            at_s=at_s,
            bits=random.randint(1, 3),
            when=random.choice(("now", "job_running")),
        )
        for at_s in at
    ]
    random, at = times("object_rot", ROTS_MAX)
    faults += [ObjectRot(node=random.choice(nodes), at_s=at_s) for at_s in at]
    return tuple(sorted(faults, key=lambda fault: fault.at_s))
