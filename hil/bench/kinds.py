"""What a node of a scenario runs as, and what each kind can suffer.

| kind | node | power | why it starts is found by |
|---|---|---|---|
| `simulated` | a coroutine of the bench | the bench's | the bench |
| `process` | `python -m boards` | SIGKILL | the bench |
| `emulated` | an arm64 board under QEMU | the machine's end | the board |
| `board` | a board on the table | the inventory's power control | the board |
| `external` | somebody else's | none of ours | |

A bench can let a simulated node believe anything. A board with an operating system of its own finds out itself why it
starts, measures its own heat and runs its jobs in its own worker. What cannot be done to it is refused before a run.
"""

from typing import Final, Literal

from hil.faults.plan import ComponentHang, Fault, NodeReset, SensorFault, WorkerHang

Kind = Literal["simulated", "process", "emulated", "board", "external"]

REAL_TIME_KINDS: Final = ("process", "emulated", "board", "external")
"""Kinds that cannot run in virtual time."""
LAB_KINDS: Final = ("process", "emulated", "board")
"""Kinds that are programs of ours outside the bench's process."""
OWN_BOARD_KINDS: Final = ("emulated", "board")
"""Kinds with an operating system, a processor and a reset cause of their own."""

_BY_POWER: Final = "node_reset"
_BY_DOOR: Final = (
    "weight_upset",
    "object_rot",
    "worker_hang",
    "component_hang",
    "sensor_fault",
    "latch_up",
    "disk_full",
    "clock_jump",
)
"""Faults that the node's own program carries out when the bench asks."""
SUFFERS: Final = (_BY_POWER, *_BY_DOOR)
"""Faults of nodes that a board with a system of its own can suffer."""


def objection(kind: Kind, fault: Fault) -> str:
    """Why a node of this kind cannot suffer a fault that strikes a node; empty when it can."""
    name = str(type(fault).__struct_config__.tag)
    if kind == "external":
        return "is external, expected a node of the bench"
    if kind not in OWN_BOARD_KINDS:
        return ""
    if name not in SUFFERS:
        return f"is of kind {kind!r}, which cannot suffer {name}, expected one of {', '.join(SUFFERS)}"
    match fault:
        case NodeReset() if fault.cause != "POWER_CYCLE":
            return (
                f"is of kind {kind!r}, which finds the cause of its resets itself: cause = {fault.cause!r} cannot be "
                "pretended, expected 'POWER_CYCLE'"
            )
        case WorkerHang() if fault.clears != "restart":
            return (
                f"is of kind {kind!r}, whose worker is a process: clears = {fault.clears!r} outlives none, expected "
                "'restart'"
            )
        case ComponentHang() if fault.clears == "power_cycle":
            return f"is of kind {kind!r}: clears = 'power_cycle' outlives no program, expected 'restart' or 'reset'"
        case SensorFault() if fault.sensor == "electronics_degc":
            return f"is of kind {kind!r}, which measures {fault.sensor} itself: expected another sensor"
    return ""


def needs_door(fault: Fault) -> bool:
    """Whether a fault is carried out by the node's own program."""
    return type(fault).__struct_config__.tag in _BY_DOOR
