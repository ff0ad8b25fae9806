"""The settings of a node's program, as its TOML file has them. docs/programs.md lists them."""

from pathlib import PurePosixPath
from typing import Final, Literal

import msgspec

from boards.worker.settings import WorkerSettings
from flightsw.config import NodeConfig, Share
from flightsw.errors import ConfigError
from flightsw.host.settings import BenchSettings, ClockSettings, KeySettings, LinkSettings, StorageSettings

SIMULATED: Final = "simulated"

Kind = Literal["simulated", "auto", "host", "raspberry-pi", "jetson"]


class BoardSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[board]`: what the node runs on."""

    kind: Kind
    """`simulated`, or a family of boards: then its sensors are read, on a modelled bus."""
    profile: str = ""
    """A shipped profile's name, or the path of a TOML file; empty takes the shipped one that fits the board."""
    world: str
    """JSON file of sun and sunlight (`boards.simulated.world`)."""
    initial_charge: Share = 0.9
    """Charge of a new battery, as a share of the capacity."""
    state: str = "board.json"
    """Where battery and heat are kept while no program runs."""
    tree: str = ""
    """A simulated board shows the sensors and the capability report of this recorded one; empty: it has none."""
    root: str = "/"
    """Folder that stands for the root of the board's files, where its sensors are read."""
    power_cycle: Literal["process", "reboot"] = "process"
    """What a power cycle by command does on a real board, which cannot take its own power: start the program again, or
    the board."""

    def check(self) -> None:
        """Whether the fields go together. Raises: ConfigError."""
        if self.kind == SIMULATED:
            if not self.profile:
                raise ConfigError("board.profile: missing, expected a profile's name with board.kind = 'simulated'")
            for name, default in (("root", "/"), ("power_cycle", "process")):
                if (value := getattr(self, name)) != default:
                    raise ConfigError(f"board.{name} = {value!r}: expected none with board.kind = 'simulated'")
        elif self.tree:
            raise ConfigError(f"board.tree = {self.tree!r}: expected none with board.kind = {self.kind!r}")
        elif not PurePosixPath(self.root).is_absolute():
            raise ConfigError(f"board.root = {self.root!r}: expected an absolute path")


class NodeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The settings of a node's program."""

    node: NodeConfig
    board: BoardSettings
    clock: ClockSettings
    link: LinkSettings
    storage: StorageSettings
    plan: str
    """JSON file of the predicted contacts (`flightsw.net.plans`)."""
    keys: KeySettings | None = None
    worker: WorkerSettings | None = None
    """How the process is confined that runs jobs on a real board; without it, as well as can be proven."""
    bench: BenchSettings | None = None
    """Of a board on the table; a program of the bench's own machine has `--bench`."""

    def check(self) -> None:
        """Whether the tables go together. Raises: ConfigError."""
        self.board.check()
        if self.board.kind == SIMULATED and self.worker is not None:
            raise ConfigError("worker: expected no such table with board.kind = 'simulated', whose jobs run inside")
