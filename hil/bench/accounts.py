"""What a member of the fleet says of itself when the bench asks: plain values, whether it runs in this loop or in a
process of its own."""

from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import msgspec

from boards.simulated.board import EnergyAccount, SimulatedBoard
from flightsw.errors import ControlError
from flightsw.net.accounts import frame_counts, queue_counts
from flightsw.net.agent import BundleAgent
from flightsw.node import Node
from flightsw.ports import Sensors
from flightsw.wire.messages import JobState


@dataclass(slots=True)
class NodeCounts:
    """What the bench sums up over the boots of a node."""

    frames_accepted: int = 0
    frames_corrected: int = 0
    frames_rejected: int = 0
    segments_rejected: int = 0
    """Frames that held, with something that is no LTP segment of a known session."""
    retransmissions: int = 0
    rerouted: int = 0
    dropped: int = 0
    models_repaired: int = 0

    @classmethod
    def of(cls, node: Node) -> "NodeCounts":
        """Those of one boot."""
        return replace(cls.of_agent(node.agent), models_repaired=node.models.repaired_count)

    @classmethod
    def of_agent(cls, agent: BundleAgent) -> "NodeCounts":
        """Those of a bundle agent."""
        return cls(**frame_counts(agent))

    def __add__(self, other: "NodeCounts") -> "NodeCounts":
        """Field by field."""
        return NodeCounts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


class QueueAccount(NamedTuple):
    """The books of one bundle queue."""

    pushed: int
    taken: int
    displaced: int
    held: int
    """Bundles that wait, counted one by one."""
    length: int
    """Bundles that wait, as the queue says."""
    bundles_max: int


@dataclass(frozen=True, slots=True)
class Accounts:
    """The books of a running manager, at one instant."""

    counts: NodeCounts
    """Since its boot."""
    queues: tuple[QueueAccount, ...]
    dropped: int
    """Bundles that the agent reports as dropped."""
    mode: str = ""
    """Of a satellite."""
    beaconed_ns: int = 0
    """When its last beacon was sent [ns]."""
    computing: bool = False
    """Whether a job runs."""

    @classmethod
    def of_agent(cls, agent: BundleAgent) -> "Accounts":
        """Those of a bundle agent without a manager: the ground's."""
        return cls(NodeCounts.of_agent(agent), _queues(agent), agent.counters.bundles_dropped_count)

    @classmethod
    def of_node(cls, node: Node) -> "Accounts":
        """Those of a satellite's manager."""
        return cls(
            counts=NodeCounts.of(node),
            queues=_queues(node.agent),
            dropped=node.agent.counters.bundles_dropped_count,
            mode=node.modes.mode.name,
            beaconed_ns=node.beaconed_ns,
            computing=node.jobs.count(JobState.RUNNING) > 0,
        )


@dataclass(frozen=True, slots=True)
class EnergyState:
    """Battery, heat and energy account of a board, at one instant."""

    account: EnergyAccount
    charge_j: float
    battery_j: float
    electronics_degc: float

    @classmethod
    def of(cls, board: SimulatedBoard) -> "EnergyState":
        """Those of a simulated board, now."""
        sensors, world = board.truth(), board.state()
        return cls(world.account, world.charge_j, sensors.battery_j, sensors.electronics_degc)

    @property
    def charge_share(self) -> float:
        """Charge as a share of the capacity."""
        return self.charge_j / self.battery_j


@dataclass(frozen=True, slots=True)
class NodeAccounts:
    """The books of a satellite that runs elsewhere."""

    accounts: Accounts
    energy: EnergyState


class _Energy(msgspec.Struct):
    """An `EnergyAccount`, and the charge that is left."""

    initial_j: float
    harvested_j: float
    drawn_j: float
    lost_j: float
    shunted_j: float
    unserved_j: float
    charge_j: float


class _NodeBooks(msgspec.Struct):
    """What `boards.bench_port` says when it is asked for its accounts."""

    counts: NodeCounts
    queues: list[QueueAccount]
    dropped: int
    mode: str
    beaconed_ns: int
    energy: _Energy
    sensors: Sensors


class _GroundBooks(msgspec.Struct):
    """What `ground.program` says."""

    counts: NodeCounts
    queues: list[QueueAccount]
    dropped: int
    uplinked_bytes: int


def parse_node(raw: object, name: str) -> NodeAccounts:
    """The books of a satellite's program.

    Raises:
        ControlError: they are none; names the field.
    """
    books: _NodeBooks = _convert(raw, _NodeBooks, name)
    energy = msgspec.structs.asdict(books.energy)
    charge_j = energy.pop("charge_j")
    return NodeAccounts(
        Accounts(books.counts, tuple(books.queues), books.dropped, books.mode, books.beaconed_ns),
        EnergyState(EnergyAccount(**energy), charge_j, books.sensors.battery_j, books.sensors.electronics_degc),
    )


def parse_ground(raw: object) -> tuple[Accounts, int]:
    """The books of the ground's program, and the bytes that it uplinked.

    Raises:
        ControlError: they are none; names the field.
    """
    books: _GroundBooks = _convert(raw, _GroundBooks, "ground")
    return Accounts(books.counts, tuple(books.queues), books.dropped), books.uplinked_bytes


def _convert(raw: object, kind: Any, name: str) -> Any:
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        raise ControlError(f"{name}: accounts: {error}") from None


def _queues(agent: BundleAgent) -> tuple[QueueAccount, ...]:
    return tuple(QueueAccount(*row) for row in queue_counts(agent))
