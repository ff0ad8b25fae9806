"""Faults as data: what strikes what, and when. Written in a scenario, or drawn at random (`hil.faults.drawing`)."""

from typing import Annotated, Literal

import msgspec

from flightsw.config import NonNegative, Positive, Share


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
