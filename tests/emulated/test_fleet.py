"""Eight emulated boards from one snapshot: each answers, with its own name and keys."""

import msgspec
import pytest

from hil.bench.execute import real_time
from hil.bench.handles import Cluster
from hil.bench.run import Bench
from hil.bench.scenario import check, load
from hil.bench.stepped import SteppedRun
from hil.bench.surroundings import Surroundings, machines_of

pytestmark = pytest.mark.emulated

COUNT = 8


def fleet_of(count):
    """The table with so many emulated satellites, and an antenna for each."""
    scenario = load("table")
    nodes = tuple(
        msgspec.structs.replace(scenario.nodes[0], name=f"sat-{number:02}", kind="emulated")
        for number in range(1, count + 1)
    )
    stations = (msgspec.structs.replace(scenario.stations[0], antennas=count),)
    changed = msgspec.structs.replace(scenario, nodes=nodes, stations=stations)
    check(changed, "fleet")
    return changed


def test_eight_boards_of_one_snapshot_answer_each_with_its_own_name_and_keys(image, ready, tmp_path):
    scenario = fleet_of(COUNT)
    surroundings = Surroundings(machines_of(image, ready))
    bench = Bench(scenario, 7, folder=tmp_path, pace=real_time(scenario, 1.0), surroundings=surroundings)
    with SteppedRun(bench) as run:  # which waits for the hello of each
        fleet = Cluster(run)
        numbers = set()
        for board in fleet.satellites.values():
            beacon = board.wait_for_beacon(within_s=120.0).beacon
            assert beacon["name"] == board.name
            assert beacon["boot_count"] == 1
            numbers.add(beacon["node"])
            # a command that a node executes was signed with the key of that node alone
            assert board.command("NODE.NOOP", within_s=120.0).is_completed
        assert len(numbers) == COUNT
        outcome = run.end()
        assert outcome.passed, (outcome.violations, outcome.crash)
    keys = {(tmp_path / "nodes" / name / "keys.toml").read_text() for name in fleet.satellites}
    assert len(keys) == COUNT
