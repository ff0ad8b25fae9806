"""What the bench needs of a satellite and of the ground, whatever they run as.

| kind | satellite | ground |
|---|---|---|
| in this loop | `hil.bench.satellite.Satellite` | `hil.bench.mission_control.LocalGround` |
| as a process | `hil.bench.process_node.ProcessNode` | `hil.bench.process_ground.ProcessGround` |
| on a board of its own, emulated or real | `hil.bench.board_node.BoardNode` | |
"""

from collections.abc import Callable
from typing import Any, Protocol

from flightsw.config import BoardProfile, NodeConfig
from flightsw.net.agent import BundleAgent
from flightsw.ports import Random, ResetCause
from ground.ledger import JobRequest
from hil.bench.accounts import Accounts, EnergyState, NodeCounts
from hil.faults.injector import Struck


class Member(Protocol):
    """A satellite of the fleet that can lose power and boot again."""

    config: NodeConfig
    profile: BoardProfile
    boots_count: int

    @property
    def agent(self) -> BundleAgent | None:
        """The bundle agent, None while the node is off or when it runs elsewhere."""
        ...

    @property
    def is_on(self) -> bool:
        """Whether the manager runs."""
        ...

    @property
    def is_exact(self) -> bool:
        """Whether `totals` counts every frame that was delivered: not when a process took counts to its grave, nor over
        a wire that promises nothing."""
        ...

    def boot(self, cause: ResetCause) -> None:
        """Power on."""
        ...

    def cut(self) -> None:
        """Power off at this instant."""
        ...

    def stop(self) -> None:
        """End the manager at the end of a run; nothing is lost or torn."""
        ...

    def boot_later(self, off_s: float, cause: ResetCause) -> None:
        """Boot after a time, if nothing booted it meanwhile."""
        ...

    def strike_weights(self, random: Random, bits: int) -> Struck:
        """Flip random bits of one model in memory; False when none is loaded."""
        ...

    def rot_object(self, random: Random) -> Struck:
        """Flip one random bit of one stored object; False when there is none."""
        ...

    def trouble(self, kind: str, fields: dict[str, object]) -> Struck:
        """Let something around the node fail (`boards.simulated.strikes`); whether that hit anything."""
        ...

    def accounts(self) -> Accounts | None:
        """The books of the manager, as last heard; None while it is off."""
        ...

    def energy(self) -> EnergyState | None:
        """Battery and heat, as last heard; None of a board that tells nobody."""
        ...

    def totals(self) -> NodeCounts:
        """Counters of all boots, the present one included."""
        ...


class Ground(Protocol):
    """Mission control, as the workload and the judges see it."""

    @property
    def is_exact(self) -> bool:
        """As of `Member`."""
        ...

    @property
    def agent(self) -> BundleAgent | None:
        """The bundle agent, None when it runs elsewhere."""
        ...

    def put_object(self, data: bytes) -> None:
        """Put an object into the ground's store."""
        ...

    async def ask(self, method: str, *params: Any) -> Any:
        """Ask it as its users do (`ground.control`). Raises: FlatrackError."""
        ...

    def submit(self, request: JobRequest, accepted: Callable[[int], None]) -> None:
        """Hand over a job, whose objects are in the store; `accepted` is told its number."""
        ...

    def accounts(self) -> Accounts:
        """The books, as last heard."""
        ...

    @property
    def uplinked_bytes(self) -> int:
        """Bytes of models and tiles that reached satellites, as last heard."""
        ...

    async def close(self) -> None:
        """End it; its files are written."""
        ...
