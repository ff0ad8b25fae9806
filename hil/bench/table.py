"""What all that lies on the table in a run in real time has in common, and what each node's program is told of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from flightsw.config import NodeConfig
from flightsw.host.keyfile import save_keys
from flightsw.host.loop import PacedLoop
from flightsw.host.settings import ClockSettings, KeySettings
from flightsw.net.contacts import ContactPlan
from flightsw.net.keys import KeyRing
from flightsw.ports import Frame
from flightsw.wire.messages import JobReport
from hil.bench import composition
from hil.bench.pace import Pace
from hil.bench.scenario import NodeSpec, Scenario
from hil.bench.sky import Sky
from hil.channel.relay import Relay

PLAN_FILE: Final = "plan.json"
WORLD_FILE: Final = "world.json"
KEYS_FILE: Final = "keys.toml"
SETTINGS_FILE: Final = "node.toml"


@dataclass(frozen=True, slots=True)
class Watchers:
    """Whom the lab tells what happens in its programs."""

    log: Callable[[int, str, str, dict[str, object]], None]
    """(t_ns, source, kind, fields)."""
    on_frame: Callable[[str, int, int, Frame], None]
    """(name, node, interface, frame) from a lab wire."""
    on_complete: Callable[[int, JobReport, bytes], None]
    on_cut: Callable[[str], None]
    on_brown_out: Callable[[str, bool], None]
    on_crash: Callable[[str, BaseException], None]
    on_probe: Callable[[int], None]
    """Time that a probe took from the bench through the broker to the bench [mission ns]."""


@dataclass(frozen=True, slots=True)
class Table:
    """One run in real time, as those who set it up see it.

    Attributes:
        scenario, sky, plan: what runs, under which sky, with which predicted contacts.
        pace, loop: of the run.
        relay: joins all lab wires.
        keys: of every node, by its number.
        folder: of the programs' files.
        watchers: told what happens.
    """

    scenario: Scenario
    sky: Sky
    plan: ContactPlan
    pace: Pace
    loop: PacedLoop
    relay: Relay
    keys: Mapping[int, KeyRing]
    folder: Path
    watchers: Watchers

    @property
    def clock(self) -> ClockSettings:
        """The instant and the pace that all programs share."""
        return ClockSettings(
            zero_utc_ns=self.loop.zero_utc_ns,
            epoch_utc_ns=self.scenario.epoch_utc_ns,
            time_scale=self.pace.time_scale,
        )

    def config(self, index: int) -> NodeConfig:
        """Settings of one satellite's manager."""
        return composition.node_config(self.scenario, index, self.pace.ltp_margin_s)

    def spec(self, index: int) -> NodeSpec:
        """What the scenario says of one satellite."""
        return self.scenario.nodes[index]

    def make_folder(self, name: str) -> Path:
        """A new folder for the files of one program."""
        folder = self.folder / name
        folder.mkdir()
        return folder

    def write_world(self, folder: Path, index: int) -> None:
        """Write the sun of one satellite."""
        (folder / WORLD_FILE).write_bytes(msgspec.json.encode(self.sky.world(index)))

    def write_keys(self, folder: Path, node: int) -> KeySettings:
        """Write the keys that a node shares with all others, derived from the seed as in virtual time."""
        save_keys(folder / KEYS_FILE, self.keys[node], [other for other in sorted(self.keys) if other != node])
        return KeySettings(file=KEYS_FILE)

    def log_of(self, name: str) -> Callable[[int, str, dict[str, object]], None]:
        """Takes (t_ns, kind, fields) of what one program logs."""
        return lambda t_ns, kind, fields: self.watchers.log(t_ns, name, kind, fields)
