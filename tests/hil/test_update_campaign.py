"""An update of a whole fleet in virtual time: what a bad version does, and what power cuts do."""

import msgspec
import pytest

from boards.simulated.images import TARGET, Defect, SimulatedImage
from flightsw.dictionary import flight_dictionary
from flightsw.objects.store import digest_of
from flightsw.ports import ResetCause
from flightsw.storage.manifest import Manifest, public_key_of, sign_manifest
from flightsw.wire.messages import Mode
from ground.update_book import CampaignState, NodeState
from hil.bench.run import Bench
from hil.bench.scenario import load
from hil.bench.sky import FIRST_NODE

S = 1_000_000_000
KEY = bytes(range(32))
START_S = 60.0
SCENARIO = load("three-body-12")


def manifest_of(image, version="0.2.0", serial=1):
    data = image.encode()
    manifest = Manifest(
        TARGET, version, digest_of(data), len(data), serial, "0.1.0", 1, False, flight_dictionary().digest
    )
    return sign_manifest(manifest, KEY).encode()


class Fleet:
    """The twelve satellites without a workload, and a campaign that begins a minute after T+0."""

    def __init__(self, image, *, seed=7, duration_s=6 * 3600.0, nodes=12, waves=(1, 4), soak_s=300):
        manager = msgspec.structs.replace(SCENARIO.manager, update_keys=(public_key_of(KEY).hex(),))
        scenario = msgspec.structs.replace(
            SCENARIO,
            duration_s=duration_s,
            manager=manager,
            workload=None,
            faults=(),
            radiation=None,
            expect={},
        )
        self.bench = Bench(scenario, seed)
        self.image = image
        self.numbers = [FIRST_NODE + index for index in range(nodes)]
        self.waves, self.soak_s = waves, soak_s
        self.logs = []
        self.bench.trace.subscribe(self.note)
        self.at(START_S, self.start)

    def note(self, event):
        self.logs.append(event)

    def at(self, t_s, what, *arguments):
        self.bench.loop.call_at_ns(round(t_s * S), what, *arguments)

    def start(self):
        self.segment = self.bench.ground.segment
        self.segment.store.put(self.image.encode())
        self.segment.updates.start(
            manifest_of(self.image),
            self.numbers,
            self.bench.loop.now_ns,
            waves=self.waves,
            soak_s=self.soak_s,
            limit_s=5 * 3600,
        )
        self.look()

    def look(self):
        """End the run when the campaign has ended, and the nodes have had time for the last reset."""
        self.campaign = self.segment.updates.status()
        self.states = {row.node: row.state for row in self.campaign.nodes}
        if self.campaign.state is not CampaignState.RUNNING:
            self.bench.loop.call_later(120.0, self.bench._stop.set)
            return
        self.bench.loop.call_later(10.0, self.look)

    def run(self):
        self.outcome = self.bench.run()
        assert not self.outcome.crash, self.outcome.crash
        assert not self.outcome.violations, self.outcome.violations
        return self.campaign

    def running(self):
        """Version that each node runs at the end, by the slot that is committed on its disk."""
        return {name: member.slots.status().version for name, member in self.bench.members.items()}

    def lost(self):
        """Nodes that the ground does not hear any more, or that have no manager."""
        heard = self.segment.membership.members
        return [
            name
            for name, member in self.bench.members.items()
            if not member.is_on or heard[member.config.node].beacon is None
        ]


def test_a_version_that_crashes_on_three_of_twelve_is_left_there_and_the_campaign_stops():
    bad = ("sat-03", "sat-04", "sat-05")
    fleet = Fleet(SimulatedImage(version="0.2.0", defects=(Defect(kind="crash", after_s=30, nodes=bad),)))
    campaign = fleet.run()
    assert campaign.state is CampaignState.STOPPED
    assert campaign.detail == "wave 2: sat-03, sat-04, sat-05 failed"
    by_name = {f"sat-{node - FIRST_NODE + 1:02}": row for node, row in zip(fleet.numbers, campaign.nodes, strict=True)}
    for name in ("sat-01", "sat-02"):
        assert by_name[name].state is NodeState.SUCCEEDED
    for name in bad:
        assert by_name[name].state is NodeState.FAILED
        assert by_name[name].detail == "2 boots of slot A without a commit"
    rest = [f"sat-{number:02}" for number in range(6, 13)]
    assert {by_name[name].state for name in rest} == {NodeState.UNTOUCHED}
    running = fleet.running()
    assert [name for name, version in running.items() if version == "0.2.0"] == ["sat-01", "sat-02"]
    assert {running[name] for name in (*bad, *rest)} == {"0.1.0"}
    assert fleet.lost() == []
    for name in rest:
        assert fleet.bench.members[name].boots_count == 1


def test_a_good_version_comes_to_all_twelve():
    fleet = Fleet(SimulatedImage(version="0.2.0"), waves=(1, 3))
    campaign = fleet.run()
    assert campaign.state is CampaignState.SUCCEEDED
    assert set(fleet.running().values()) == {"0.2.0"}
    assert fleet.lost() == []
    assert {member.boots_count for member in fleet.bench.members.values()} == {2}
    modes = {member.beacon.mode for member in fleet.segment.membership.members.values()}
    assert Mode.SAFE not in modes


STEPS = {
    "object.wanted": None,
    "object.arrived": None,
    "UPDATE.ACCEPTED": "event",
    "UPDATE.STAGED": "event",
    "UPDATE.TRYING": "event",
    "node.boot": None,
    "UPDATE.TRIAL": "event",
    "UPDATE.COMMITTED": "event",
}
"""What the log of a node shows in the course of an update; for `node.boot` the boot on trial."""


@pytest.mark.parametrize("late_s", [0.0, 0.5])
@pytest.mark.parametrize("step", STEPS)
def test_a_power_cut_at_any_step_of_one_node_loses_neither_node_nor_update(step, late_s):
    fleet = Fleet(SimulatedImage(version="0.2.0"), nodes=1, waves=(1,), soak_s=60)
    member = fleet.bench.members
    cuts = []

    def cut():
        satellite = member["sat-01"]
        satellite.cut()
        satellite.boot_later(20.0, ResetCause.POWER_CYCLE)

    def watch(event):
        t_ns, source, kind, fields = event
        name = fields.get("name") if STEPS[step] else kind
        is_here = source == "sat-01" and name == step and t_ns > START_S * S
        if is_here and not cuts:
            cuts.append(event)
            fleet.bench.loop.call_later(late_s, cut)

    fleet.bench.trace.subscribe(watch)
    campaign = fleet.run()
    assert len(cuts) == 1
    assert campaign.state is CampaignState.SUCCEEDED, campaign
    assert fleet.running()["sat-01"] == "0.2.0"
    assert fleet.lost() == []


@pytest.mark.parametrize(
    ("defect", "said"),
    [
        (Defect(kind="crash"), "2 boots of slot A without a commit"),
        (Defect(kind="hang", after_s=20), "2 boots of slot A without a commit"),
        (Defect(kind="self_test"), "self-test: the image fails its self-test"),
        pytest.param(
            Defect(kind="mute"),
            "no heartbeat was acknowledged by the ground within 7200 s",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["crash", "hang", "self-test", "mute"],
)
def test_every_way_in_which_a_version_can_be_bad_ends_on_the_old_one(defect, said):
    fleet = Fleet(SimulatedImage(version="0.2.0", defects=(defect,)), nodes=1, waves=(1,))
    campaign = fleet.run()
    assert campaign.state is CampaignState.STOPPED
    assert campaign.nodes[0].detail == said
    assert set(fleet.running().values()) == {"0.1.0"}
    assert fleet.lost() == []


def test_a_campaign_repeats_event_for_event():
    image = SimulatedImage(version="0.2.0", defects=(Defect(kind="crash", after_s=30, nodes=("sat-02",)),))
    runs = [Fleet(image, waves=(1, 2)) for _ in range(2)]
    for fleet in runs:
        fleet.run()
    assert runs[0].outcome.digest == runs[1].outcome.digest
