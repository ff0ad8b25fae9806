"""The recorder of a run: what a capture needs to know of a scenario."""

from pathlib import Path

from flightsw.errors import ConfigError
from hil.bench.folder import software_version
from hil.bench.scenario import Scenario
from hil.bench.sky import GROUND_NODE, RADIO
from hil.capture.recorder import Recorder
from hil.channel.relay import Endpoint


def run_recorder(path: Path, scenario: Scenario, seed: int, *, has_lost: bool) -> Recorder:
    """A recorder for a run of a scenario.

    Args:
        path: the capture; an old one is replaced.
        scenario: what is run.
        seed: of the run.
        has_lost: also write frames that did not arrive.

    Raises:
        ConfigError: the file cannot be written.
    """
    links = scenario.links

    def coding_for(source: Endpoint) -> str:
        node, interface = source
        if node == GROUND_NODE or interface == RADIO or links.isl is None:
            return links.ground.coding
        return links.isl.coding

    if path.is_dir():
        raise ConfigError(f"{path}: is a folder, expected the name of a capture file")
    identity = {"scenario": scenario.name, "seed": seed, "flatrack": software_version()}
    return Recorder(path, identity, scenario.epoch_utc_ns, coding_for, has_lost=has_lost)
