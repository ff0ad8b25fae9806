"""The bench port: how a bench watches and strikes a node that runs as its own program.

It exists only when the program is started with `--bench`, or when its settings have a table `[bench]`; without that the
node has no such door. The program connects to the bench's control socket (`flightsw.host.control`): on the same machine
over a Unix socket, where the bench knows it by its process; from a board over TCP, where it has a token.

| node to bench | | bench to node | |
|---|---|---|---|
| `hello(name, pid[, token])` | a call, answered before the node starts | `accounts()` | its books |
| `log(t_ns, kind, fields)` | the on-board log | `strike_weights(seed, bits)` | whether a model was there to strike |
| `brown_out(t_ns, computing)` | the battery is empty | `rot_object(seed)` | whether an object was there |
| `reset(cause)` | the last before exit code 3 | `trouble(kind, fields)` | whether it hit (`boards.simulated.strikes`) |
| | | `stop()` | end with code 0 |
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Protocol

from boards.simulated.board import BoardState
from flightsw.errors import LinkError
from flightsw.host.control import ControlPeer
from flightsw.host.files import FileDisk
from flightsw.net.accounts import frame_counts, queue_counts
from flightsw.node import Node
from flightsw.ports import Random, Sensors
from flightsw.wire.messages import JobState

WHOLE_OBJECTS: Final = "objects/"
PART_SUFFIX: Final = ".part"


class Bus(Protocol):
    """The power system of a node and its account of energy: simulated, or modelled beneath a board that has none."""

    def truth(self) -> Sensors:
        """The state itself, whatever sensors make of it."""
        ...

    def state(self) -> BoardState:
        """Battery, heat and energy account now."""
        ...


class WeightImage(Protocol):
    """The weights of one model, where jobs run from."""

    @property
    def weight_bits_count(self) -> int:
        """How many bits there are to strike."""
        ...

    def flip_weight_bit(self, bit_index: int) -> None:
        """Change one bit."""
        ...


class WeightMemory(Protocol):
    """A runner whose models can be struck: in this process, or in the memory that it shares with a worker."""

    def weight_memory(self) -> Sequence[WeightImage]:
        """The models that are loaded."""
        ...


class Troubles(Protocol):
    """What can fail around a node."""

    def strike(self, kind: str, fields: Mapping[str, Any]) -> bool:
        """Let it fail; whether that hit anything."""
        ...


class BenchPort:
    """A node's end of the bench port.

    Args:
        peer: the connection.
        now_ns: the present instant [ns since T+0].
        stop: ends the program.
        token: what the bench knows the node by over TCP; empty over a Unix socket.
    """

    def __init__(self, peer: ControlPeer, now_ns: Callable[[], int], stop: Callable[[], None], token: str = "") -> None:
        self._peer = peer
        self._now_ns = now_ns
        self._stop = stop
        self._token = token
        self._node: Node | None = None

    async def attach(
        self,
        node: Node,
        bus: Bus,
        runner: WeightMemory,
        disk: FileDisk,
        troubles: Troubles,
        name: str,
    ) -> None:
        """Open the doors to a node and say hello; the node may start when this returns.

        Args:
            node: to be watched.
            bus: its power system.
            runner: holds its models.
            disk: holds its objects.
            troubles: lets something around it fail.
            name: of the node.

        Raises:
            LinkError: the bench refused, or has gone.
        """
        self._node, self._bus, self._runner, self._disk = node, bus, runner, disk
        self._peer.set_handlers(
            {
                "accounts": self.accounts,
                "strike_weights": self.strike_weights,
                "rot_object": self.rot_object,
                "trouble": troubles.strike,
                "stop": self._stop,
            }
        )
        token = (self._token,) if self._token else ()
        await self._peer.call("hello", name, os.getpid(), *token)

    def log(self, kind: str, fields: dict[str, object]) -> None:
        """Pass on a record of the on-board log; a `flightsw.ports.Log`."""
        self._tell("log", self._now_ns(), kind, fields)

    def brown_out(self) -> None:
        """Tell that the battery is empty."""
        computing = self._node is not None and self._node.jobs.count(JobState.RUNNING) > 0
        self._tell("brown_out", self._now_ns(), computing)

    def reset(self, cause: str) -> None:
        """Tell that the program ends to start again."""
        self._tell("reset", cause)

    def accounts(self) -> dict[str, Any]:
        """The books of the node: frames, queues, mode, energy, sensors."""
        node = self._attached()
        sensors, world = self._bus.truth(), self._bus.state()
        return {
            "counts": {**frame_counts(node.agent), "models_repaired": node.models.repaired_count},
            "queues": queue_counts(node.agent),
            "dropped": node.agent.counters.bundles_dropped_count,
            "mode": node.modes.mode.name,
            "computing": node.jobs.count(JobState.RUNNING) > 0,
            "beaconed_ns": node.beaconed_ns,
            "energy": {**asdict(world.account), "charge_j": world.charge_j},  # of one instant: they must balance
            "sensors": asdict(sensors),
        }

    def strike_weights(self, seed: int, bits: int) -> bool:
        """Flip random bits of one model in memory; False when none is loaded."""
        self._attached()
        random = Random(seed)
        images = self._runner.weight_memory()
        if not images:
            return False
        image = images[random.randrange(len(images))]
        for _ in range(bits):
            image.flip_weight_bit(random.randrange(image.weight_bits_count))
        return True

    def rot_object(self, seed: int) -> bool:
        """Flip one random bit of one stored object; False when there is none."""
        self._attached()
        random = Random(seed)
        names = [name for name in self._disk.names(WHOLE_OBJECTS) if not name.endswith(PART_SUFFIX)]
        if not names:
            return False
        name = names[random.randrange(len(names))]
        _flip_bit(self._disk.path(name), random.randrange(8 * len(self._disk.read(name))))
        return True

    def _attached(self) -> Node:
        assert self._node is not None, "the handlers are set when the node is attached"
        return self._node

    def _tell(self, method: str, *params: Any) -> None:
        try:
            self._peer.notify(method, *params)
        except LinkError:  # the bench has gone: the program ends, as `closed` tells it
            return


def _flip_bit(path: Path, bit_index: int) -> None:
    """Rot one bit of a file; bit 0 is the lowest of the first byte."""
    with path.open("r+b") as file:
        file.seek(bit_index >> 3)
        byte = file.read(1)[0]
        file.seek(bit_index >> 3)
        file.write(bytes([byte ^ (1 << (bit_index & 7))]))
