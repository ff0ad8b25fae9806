"""What a test holds in its hands: a fleet and its satellites, whatever they run as, asked through their ground.

Nothing here looks into a node: what it answers came down through the links, as it would from orbit. Power and faults
are the bench's.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from flightsw.compute import cloud_mask
from flightsw.errors import ConfigError, SimulationError
from flightsw.objects.digest import digest_of
from flightsw.ports import ResetCause
from hil.bench.board_node import BoardNode
from hil.bench.member import Member
from hil.bench.run import Bench
from hil.bench.scenario import check_fault
from hil.bench.stepped import SteppedRun
from hil.bench.workload import KIND, asset
from hil.faults.plan import Fault, NodeReset

NS_PER_S: Final = 1_000_000_000
PERIOD_S: Final = 1.0
"""Between two looks at what is waited for [mission s]."""
WITHIN_S: Final = 300.0
"""How long a command, a beacon or a job may take [mission s] unless the test says otherwise."""
EVENTS_MAX: Final = 1000
"""Newest events that a test sees of a satellite: the most that the ground gives in one answer."""
TILE_PX: Final = 48


class Stage(NamedTuple):
    """The end of a command."""

    stage: str
    """COMPLETED or FAILED."""
    code: str
    detail: str

    @property
    def is_completed(self) -> bool:
        """Whether the node did it."""
        return self.stage == "COMPLETED"


class Job:
    """A job of a cluster.

    Args:
        cluster: its ground knows it.
        number: of the job.
    """

    def __init__(self, cluster: "Cluster", number: int) -> None:
        self.number = number
        self._cluster = cluster

    @property
    def row(self) -> dict[str, Any]:
        """What the ground has on record of it."""
        row: dict[str, Any] = self._cluster.ask("job", self.number)
        return row

    def wait(self, within_s: float = WITHIN_S) -> "Job":
        """Let time pass until it has ended. Raises: SimulationError: it did not in time [mission s]."""
        self._cluster.until(lambda: self.row["ended_ns"] is not None, within_s, f"the end of job {self.number}")
        return self

    def result(self) -> bytes:
        """What came down."""
        data: bytes = self._cluster.ask("get_object", self.row["result"])
        return data


class Satellite:
    """One satellite of a cluster.

    Args:
        cluster: it is of.
        name: its.
    """

    def __init__(self, cluster: "Cluster", name: str) -> None:
        self.name = name
        self.cluster = cluster

    @property
    def beacon(self) -> dict[str, Any]:
        """What its last beacon said: boot_count, uptime_s, mode, charge_permille, electronics_degc; empty before."""
        rows = self.cluster.ask("nodes")
        row: dict[str, Any] = next(row for row in rows if row["name"] == self.name)
        return row if "mode" in row else {}

    @property
    def boot_count(self) -> int:
        """Boots that its beacons told of; 0 before the first."""
        return int(self.beacon.get("boot_count", 0))

    @property
    def mode(self) -> str:
        """Its mode by its last beacon; empty before."""
        return str(self.beacon.get("mode", ""))

    @property
    def reset_cause(self) -> str:
        """Why it booted last, as it has told by an event; empty before."""
        resets = [text for name, text in self.events() if name == "NODE.RESET"]
        return resets[-1].rpartition(" after ")[2].split()[0].rstrip(".,:;") if resets else ""

    def events(self) -> list[tuple[str, str]]:
        """(component and name, text) of its events that have come down, oldest first."""
        rows = self.cluster.ask("events", self.name, EVENTS_MAX)
        return [(f"{row['component']}.{row['name']}", row["text"]) for row in rows]

    def telemetry(self, what: str = "") -> dict[str, Any]:
        """Channel -> its newest value: of all, of a component, of a packet or of one channel."""
        return {row["channel"]: row["value"] for row in self.cluster.ask("telemetry", self.name, what)}

    def command(self, opcode: str, *arguments: Any, within_s: float = WITHIN_S) -> Stage:
        """Command it and wait for the end of the chain. Raises: SimulationError: none in time [mission s]."""
        number = self.cluster.ask("command", self.name, opcode, list(arguments))
        state: dict[str, Any] = {}

        def is_ended() -> bool:
            state.update(self.cluster.ask("command_state", number))
            return state["stage"] in ("COMPLETED", "FAILED")

        self.cluster.until(is_ended, within_s, f"the end of {opcode} at {self.name}")
        return Stage(state["stage"], state["code"], state["detail"])

    def wait_for_beacon(self, boot_count: int = 1, within_s: float = WITHIN_S) -> "Satellite":
        """Let time pass until a beacon of this boot, or of a later one, has come. Raises: SimulationError."""
        self.cluster.until(lambda: self.boot_count >= boot_count, within_s, f"a beacon of {self.name}")
        return self

    def wait_for_event(self, name: str, within_s: float = WITHIN_S) -> str:
        """Let time pass until an event has come down; returns its text. Raises: SimulationError."""
        self.cluster.until(lambda: any(one == name for one, _ in self.events()), within_s, f"{name} of {self.name}")
        return next(text for one, text in reversed(self.events()) if one == name)

    def cut_power(self, off_s: float = 20.0) -> None:
        """Take its power at this instant, and give it back after a time [mission s]."""
        self.cluster.cut_power(self.name, off_s)


class Cluster:
    """A fleet on the bench.

    Args:
        run: of the fleet; started.
    """

    def __init__(self, run: SteppedRun) -> None:
        self._run = run
        self._strikes_count = 0
        self.satellites = {node.name: Satellite(self, node.name) for node in run.bench.scenario.nodes}

    @property
    def bench(self) -> Bench:
        """The bench itself."""
        return self._run.bench

    @property
    def now_s(self) -> float:
        """Mission time [s]."""
        return self.bench.loop.now_ns / NS_PER_S

    def __getitem__(self, name: str) -> Satellite:
        """A satellite by its name."""
        return self.satellites[name]

    def ask(self, method: str, *params: Any) -> Any:
        """Ask the ground, as over its control socket (`ground.control`). Raises: ConfigError, ControlError."""
        return self._run.do(self.bench.ground.ask(method, *params))

    def wait(self, seconds: float) -> None:
        """Let mission time pass [s]."""
        self._run.do(asyncio.sleep(seconds))

    def until(self, holds: Callable[[], bool], within_s: float = WITHIN_S, what: str = "the condition") -> None:
        """Let time pass until something holds. Raises: SimulationError: it did not in time [mission s]."""
        end_s = self.now_s + within_s
        while not holds():
            if self.now_s >= end_s:
                raise SimulationError(f"{what}: not within {within_s:g} s, at T+{self.now_s:.0f} s")
            self.wait(PERIOD_S)

    def submit(
        self,
        tile: bytes | None = None,
        *,
        model: bytes | Path | None = None,
        deadline_s: int = 600,
        step_mpix: float = 0.5,
        seed: int = 0,
    ) -> Job:
        """Give the ground a cloud-mask job.

        Args:
            tile: of `flightsw.compute.cloud_mask`; noise when there is none.
            model: an ONNX file or its bytes; the shipped one when there is none.
            deadline_s: after which it is not worth running [s].
            step_mpix: what one of its steps is charged for [Mpixel].
            seed: of the noise.
        """
        if tile is None:
            noise = self.bench.streams.generator(f"tile/{seed}").integers(0, 4000, (TILE_PX, TILE_PX, 4))
            tile = cloud_mask.encode_tile(noise.astype(np.uint16))
        if not isinstance(model, bytes):
            model = (model or asset("cloud-mask.onnx", "model")).read_bytes()
        for data in (tile, model):
            self.ask("put_object", data)
        job = {
            "kind": KIND,
            "model": digest_of(model),
            "model_bytes": len(model),
            "data": digest_of(tile),
            "data_bytes": len(tile),
            "steps_count": cloud_mask.STEPS,
            "step_mpix": step_mpix,
            "deadline_s": deadline_s,
            "checkpoint_steps": 1,
        }
        return Job(self, self.ask("submit", job))

    def strike(self, fault: Fault) -> None:
        """Let a fault of a scenario strike now. Raises: ConfigError: its node cannot suffer it, or is missing."""
        check_fault(self.bench.scenario, fault, "strike")
        if (name := getattr(fault, "node", None)) is not None:
            member = self.bench.members.get(name)
            if member is None:
                raise ConfigError(f"strike: {name} is missing, expected a satellite that takes part")
            if isinstance(fault, NodeReset):
                _check_switch("strike", member)
        self._strikes_count += 1
        random = self.bench.streams.child("test").random(f"strikes/{self._strikes_count}")
        self._run.do(_call(lambda: self.bench.injector.strike(fault, random)))

    def cut_power(self, name: str, off_s: float) -> None:
        """Take a satellite's power at this instant, and give it back after a time [mission s].

        Raises:
            ConfigError: the bench cannot switch it, or it is off.
        """
        member = self.bench.members.get(name)
        if member is None or not member.is_on:
            raise ConfigError(f"cut_power: {name} is off or missing, expected a satellite that runs")
        _check_switch("cut_power", member)

        def cut() -> None:
            member.cut()
            member.boot_later(off_s, ResetCause.POWER_CYCLE)

        self._run.do(_call(cut))


def _check_switch(what: str, member: Member) -> None:
    if isinstance(member, BoardNode) and not member.board.can_switch:
        raise ConfigError(
            f"{what}: the bench cannot switch {member.config.name}, expected power = {{ kind = ... }} in the inventory"
        )


async def _call(function: Callable[[], object]) -> None:
    function()
