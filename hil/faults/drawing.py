"""Random plans of faults, from named streams.

A drawn plan takes its own *rates* first and then its faults (swarm testing, after TigerBeetle's simulator): one seed is
quiet but for resets, the next has rotten links only, so that rare combinations are met.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from flightsw.ports import Random
from hil.faults.plan import (
    BootLoop,
    ClockJump,
    ComponentHang,
    DiskFull,
    Fault,
    Heat,
    LatchUp,
    LinkDegraded,
    LinkOutage,
    NodeReset,
    ObjectRot,
    SensorFault,
    WeightUpset,
    WorkerHang,
)

STRIKE_SHARE: Final = 0.75
"""Share of the seeds in which a kind of fault strikes at all."""


class Targets(NamedTuple):
    """Names that may be struck."""

    nodes: Sequence[str]
    links: Sequence[str]


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
    for kind, (most, make) in KINDS.items():
        random = stream(kind)
        count = random.randint(0, most) if random.random() < STRIKE_SHARE else 0
        times_s = [round(random.uniform(start_s, end_s), 3) for _ in range(count)]
        faults += [make(random, at_s, Targets(nodes, links)) for at_s in times_s]
    return tuple(sorted(faults, key=lambda fault: fault.at_s))


def _node_reset(random: Random, at_s: float, targets: Targets) -> Fault:
    cause = random.choice(("POWER_CYCLE", "WATCHDOG", "EXCEPTION"))
    when = random.choice(("now", "job_running"))
    return NodeReset(
        node=random.choice(targets.nodes),
        at_s=at_s,
        when=when,  # type: ignore[arg-type]
        cause=cause,  # type: ignore[arg-type]
        off_s=_seconds(random, 5, 120),
    )


def _link_outage(random: Random, at_s: float, targets: Targets) -> Fault:
    return LinkOutage(link=random.choice(targets.links), at_s=at_s, duration_s=_seconds(random, 10, 900))


def _link_degraded(random: Random, at_s: float, targets: Targets) -> Fault:
    return LinkDegraded(
        link=random.choice(targets.links),
        at_s=at_s,
        duration_s=_seconds(random, 30, 900),
        bit_error_rate=random.choice((0.0, 1e-6, 1e-5, 1e-4)),
        loss=round(random.choice((0.0, 0.01, 0.1, 0.3)) * random.random(), 4),
        duplicate=round(random.choice((0.0, 0.2)) * random.random(), 4),
        reorder=round(random.choice((0.0, 0.2)) * random.random(), 4),
    )


def _weight_upset(random: Random, at_s: float, targets: Targets) -> Fault:
    return WeightUpset(
        node=random.choice(targets.nodes),
        at_s=at_s,
        bits=random.randint(1, 3),
        when=random.choice(("now", "job_running")),
    )


def _object_rot(random: Random, at_s: float, targets: Targets) -> Fault:
    return ObjectRot(node=random.choice(targets.nodes), at_s=at_s)


def _worker_hang(random: Random, at_s: float, targets: Targets) -> Fault:
    clears = random.choice(("restart", "reset", "power_cycle"))
    when = random.choice(("now", "job_running"))
    return WorkerHang(node=random.choice(targets.nodes), at_s=at_s, when=when, clears=clears)  # type: ignore[arg-type]


def _component_hang(random: Random, at_s: float, targets: Targets) -> Fault:
    clears = random.choice(("reset", "power_cycle"))
    party = random.choice(("program", "telemetry", "events", "recorder", "beacon"))
    return ComponentHang(node=random.choice(targets.nodes), at_s=at_s, party=party, clears=clears)  # type: ignore[arg-type]


def _sensor_fault(random: Random, at_s: float, targets: Targets) -> Fault:
    sensor = random.choice(("charge_j", "solar_w", "load_w", "electronics_degc", "sunlight"))
    how = random.choice(("stuck", "nonsense", "missing", "stale"))
    return SensorFault(
        node=random.choice(targets.nodes),
        at_s=at_s,
        sensor=sensor,  # type: ignore[arg-type]
        how=how,  # type: ignore[arg-type]
        duration_s=_seconds(random, 30, 900),
    )


def _latch_up(random: Random, at_s: float, targets: Targets) -> Fault:
    return LatchUp(node=random.choice(targets.nodes), at_s=at_s, extra_w=round(random.uniform(1, 10), 2))


def _heat(random: Random, at_s: float, targets: Targets) -> Fault:
    share = round(random.uniform(0, 0.5), 3)
    duration_s = _seconds(random, 60, 900)
    return Heat(node=random.choice(targets.nodes), at_s=at_s, duration_s=duration_s, radiator_share=share)


def _boot_loop(random: Random, at_s: float, targets: Targets) -> Fault:
    crashes = random.randint(1, 4)
    cause = random.choice(("WATCHDOG", "EXCEPTION"))
    after_s = _seconds(random, 1, 120)
    node = random.choice(targets.nodes)
    return BootLoop(node=node, at_s=at_s, crashes=crashes, after_s=after_s, cause=cause)  # type: ignore[arg-type]


def _disk_full(random: Random, at_s: float, targets: Targets) -> Fault:
    free_bytes = random.choice((0, 4096, 1 << 20))
    duration_s = _seconds(random, 30, 900)
    return DiskFull(node=random.choice(targets.nodes), at_s=at_s, duration_s=duration_s, free_bytes=free_bytes)


def _clock_jump(random: Random, at_s: float, targets: Targets) -> Fault:
    jump_s = random.choice((-259_200.0, -1.0, 1.0, 259_200.0))
    return ClockJump(node=random.choice(targets.nodes), at_s=at_s, jump_s=jump_s)


def _seconds(random: Random, low_s: float, high_s: float) -> float:
    return round(random.uniform(low_s, high_s), 3)


KINDS: Final[dict[str, tuple[int, Callable[[Random, float, Targets], Fault]]]] = {
    "node_reset": (4, _node_reset),
    "link_outage": (6, _link_outage),
    "link_degraded": (6, _link_degraded),
    "weight_upset": (12, _weight_upset),
    "object_rot": (3, _object_rot),
    "worker_hang": (2, _worker_hang),
    "component_hang": (2, _component_hang),
    "sensor_fault": (3, _sensor_fault),
    "latch_up": (2, _latch_up),
    "heat": (2, _heat),
    "boot_loop": (1, _boot_loop),
    "disk_full": (2, _disk_full),
    "clock_jump": (2, _clock_jump),
}
"""Kind, which names its stream -> most faults of it in one plan, and what draws one. Harsh, yet a cluster that heals
must still finish its jobs."""
