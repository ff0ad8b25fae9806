"""Update campaigns: waves, stop on failure, and going on after a restart of the ground."""

import pytest

from flightsw.errors import ConfigError
from flightsw.objects.store import ObjectStore, digest_of
from flightsw.ports import Random
from flightsw.storage.manifest import Manifest, UpdateReport, sign_manifest
from flightsw.wire.messages import Beacon, CommandCode, Event, Mode, Severity, Stage, Verification
from ground.ledger import Ledger
from ground.update_book import CampaignState, NodeState, UpdateBook
from ground.updates import Campaigns
from hil.sim.disk import SimulatedDisk

S = 1_000_000_000
ROUND_NS = 5 * S
IMAGE = b"the new version"
DICTIONARY = b"d" * 8
MANIFEST = sign_manifest(
    Manifest("simulated", "0.2.0", digest_of(IMAGE), len(IMAGE), 3, "0.1.0", 1, False, DICTIONARY), bytes(32)
).encode()
FLEET = range(11, 19)


class FakeNode:
    """A node reduced to what a campaign sees of one."""

    def __init__(self, number):
        self.number = number
        self.state, self.version, self.serial, self.reason = "IDLE", "0.1.0", 0, ""
        self.is_good = True
        self.commits_itself = True
        self.refuses = ""
        self.armed = ""
        self.rounds = 0
        self.is_silent = False
        self.executed = []

    def work(self):
        """A round passes on board."""
        self.rounds += 1
        if self.state == "RECEIVING" and self.rounds > 3:
            self.state, self.rounds = "STAGED", 0
        elif self.state == "TRIAL" and self.rounds > 10:
            if not self.is_good:
                self.state, self.version, self.reason = "ROLLED_BACK", "0.1.0", "2 boots of slot A without a commit"
            elif self.commits_itself:
                self.state = "COMMITTED"

    def execute(self, opcode, arguments):
        self.executed.append(opcode)
        if opcode in ("UPDATE.STAGE", "UPDATE.TRY"):
            if self.armed != opcode:
                return CommandCode.NOT_ARMED, "not armed"
            self.armed = ""
        match opcode:
            case "COMMANDS.ARM":
                self.armed = arguments[0]
            case "UPDATE.STAGE":
                if self.refuses:
                    return CommandCode.VALIDATION_ERROR, self.refuses
                assert arguments == (MANIFEST,)
                self.state, self.serial, self.rounds = "RECEIVING", 3, 0
            case "UPDATE.TRY":
                if self.state != "STAGED":
                    return CommandCode.EXECUTION_ERROR, "nothing is staged"
                self.state, self.version, self.rounds = "TRIAL", "0.2.0", 0
            case "UPDATE.COMMIT":
                self.state = "COMMITTED"
            case "UPDATE.ABORT":
                self.state = "IDLE"
            case "UPDATE.QUERY":
                is_ready = self.state == "TRIAL" and self.rounds > 10
                report = UpdateReport(self.state, self.version, "A", self.serial, is_ready, self.reason)
                return CommandCode.OK, report.text()
        return CommandCode.OK, ""


class World:
    """A fleet of fake nodes and a ground with its files."""

    def __init__(self, folder, random=None):
        self.ledger_path = folder / "ledger.db"
        self.disk = SimulatedDisk(1 << 20, Random(1))
        self.nodes = {number: FakeNode(number) for number in FLEET}
        self.now_ns = 0
        self.next_id = 1
        self.notes = []
        self.flying = []
        self.random = random
        self.dictionary = DICTIONARY
        self.ledger = None
        self.start_ground()
        self.store.put(IMAGE)

    def start_ground(self):
        if self.ledger is not None:
            self.ledger.close()
        self.ledger = Ledger(self.ledger_path)
        self.store = ObjectStore(self.disk, 1 << 20)
        self.campaigns = Campaigns(
            UpdateBook(self.ledger), self.store, self.command, 600 * S, self.beacon, str, self.note
        )
        self.campaigns.resume(self.now_ns)

    def note(self, kind, fields):
        self.notes.append((kind, fields))

    def beacon(self, number):
        node = self.nodes[number]
        if node.is_silent:
            return None
        fields = (number, 1, 100, 0, Mode.NOMINAL, 1, 900, 200, 500, 50, 0, 0, 0, 0, 0, 0, 0, 0, self.dictionary)
        return Beacon(*fields), self.now_ns

    def command(self, number, opcode, arguments, now_ns):
        command_id, self.next_id = self.next_id, self.next_id + 1
        self.flying.append((number, command_id, opcode, arguments))
        return command_id

    def round(self):
        """Commands that are on their way arrive, nodes work, and the ground has its round."""
        self.now_ns += ROUND_NS
        flying, self.flying = self.flying, []
        for number, command_id, opcode, arguments in flying:
            node = self.nodes[number]
            if node.is_silent or (self.random is not None and self.random.random() < 0.2):
                continue  # lost, until the ground gives it up
            code, detail = node.execute(opcode, arguments)
            stage = Stage.COMPLETED if code is CommandCode.OK else Stage.FAILED
            if self.random is not None and self.random.random() < 0.1:
                detail = ""  # a repeat after a reset
            self.campaigns.on_verification(Verification(number, command_id, stage, code, detail), self.now_ns)
        for node in self.nodes.values():
            node.work()
        self.campaigns.round(self.now_ns)

    def start(self, **options):
        return self.campaigns.start(MANIFEST, list(FLEET), self.now_ns, **({"waves": (1, 3), "soak_s": 60} | options))

    def run(self, rounds=2000):
        """Until the campaign ends."""
        for _ in range(rounds):
            if self.campaigns.status().state is not CampaignState.RUNNING:
                break
            self.round()
        return self.campaigns.status()

    def until(self, is_so):
        """Rounds until something is so."""
        for _ in range(2000):
            if is_so():
                return
            self.round()
        raise AssertionError("it never came")

    def states(self):
        return {row.node: row.state for row in self.campaigns.status().nodes}


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.ledger.close()


def test_a_campaign_goes_wave_by_wave_and_succeeds(world):
    world.start()
    tried = []
    for _ in range(2000):
        if world.campaigns.status().state is not CampaignState.RUNNING:
            break
        world.round()
        now = [number for number, node in world.nodes.items() if "UPDATE.TRY" in node.executed]
        if now != tried:
            tried = now
            done = [number for number, state in world.states().items() if state is NodeState.SUCCEEDED]
            assert (len(tried), len(done)) in [(1, 0), (4, 1), (8, 4)]
    assert set(world.states().values()) == {NodeState.SUCCEEDED}
    assert {node.version for node in world.nodes.values()} == {"0.2.0"}
    assert [row.version for row in world.campaigns.status().nodes] == ["0.2.0"] * 8
    for node in world.nodes.values():  # each command with effect exactly once
        assert [opcode for opcode in node.executed if opcode != "UPDATE.QUERY"] == [
            "COMMANDS.ARM",
            "UPDATE.STAGE",
            "COMMANDS.ARM",
            "UPDATE.TRY",
        ]


def test_a_failed_node_ends_its_wave_and_no_other_node_is_touched(world):
    for number in (12, 14):
        world.nodes[number].is_good = False
    world.start()
    campaign = world.run()
    assert campaign.state is CampaignState.STOPPED
    assert campaign.detail == "wave 2: 12, 14 failed"
    states = world.states()
    assert states[11] is states[13] is NodeState.SUCCEEDED
    assert states[12] is states[14] is NodeState.FAILED
    assert {states[number] for number in range(15, 19)} == {NodeState.UNTOUCHED}
    assert campaign.nodes[1].detail == "2 boots of slot A without a commit"
    assert all(not world.nodes[number].executed for number in range(15, 19))


def test_a_node_that_refuses_stops_the_wave_before_any_trial(world):
    world.nodes[13].refuses = "no space: 45 bytes needed, 0 are free"
    world.start()
    campaign = world.run()
    assert campaign.state is CampaignState.STOPPED
    assert campaign.nodes[2].detail == "refused: VALIDATION_ERROR no space: 45 bytes needed, 0 are free"
    assert world.states()[12] is NodeState.UNTOUCHED
    world.round()
    for number in (12, 14):
        assert "UPDATE.TRY" not in world.nodes[number].executed
        assert world.nodes[number].state == "IDLE"  # what was staged is given up


def test_a_node_that_is_never_heard_fails_after_its_limit(world):
    world.nodes[11].is_silent = True
    world.start(limit_s=3600)
    campaign = world.run()
    assert campaign.state is CampaignState.STOPPED
    assert campaign.nodes[0].detail == "not done within 3600 s: nothing was heard"
    assert world.now_ns < 3700 * S


def test_a_node_that_falls_silent_after_its_commit_is_no_success(world):
    world.start(limit_s=3600)
    world.until(lambda: world.nodes[11].state == "COMMITTED")
    world.round()
    world.nodes[11].is_silent = True
    campaign = world.run()
    assert campaign.nodes[0].state is NodeState.FAILED


def test_a_committed_node_is_watched_for_the_whole_soak(world):
    world.start(soak_s=900)
    world.until(lambda: world.states()[11] is NodeState.SOAKING)
    since_ns = world.now_ns
    world.until(lambda: world.states()[11] is not NodeState.SOAKING)
    assert world.states()[11] is NodeState.SUCCEEDED
    assert world.now_ns - since_ns >= 900 * S


def test_a_node_that_leaves_the_new_version_while_it_is_watched_fails(world):
    world.start(soak_s=600)
    world.until(lambda: world.states()[11] is NodeState.SOAKING)
    world.nodes[11].state, world.nodes[11].reason = "ROLLED_BACK", "the image in slot A does not hold"
    campaign = world.run()
    assert campaign.nodes[0].detail == "the image in slot A does not hold"


def test_beacons_of_another_dictionary_than_the_manifest_says_are_a_failure(world):
    world.dictionary = b"another!"
    world.start()
    assert "another dictionary" in world.run().nodes[0].detail


def test_the_ground_commits_trials_that_are_ready_where_nodes_do_not(world):
    for node in world.nodes.values():
        node.commits_itself = False
    world.start()
    assert world.run().state is CampaignState.SUCCEEDED


@pytest.mark.parametrize("seed", range(10))
def test_lost_commands_and_restarts_of_the_ground_change_no_outcome(tmp_path, seed):
    world = World(tmp_path, Random(seed))
    world.nodes[16].is_good = False
    number = world.start(limit_s=86_400)
    restarts = Random(seed)
    for _ in range(8000):
        if world.campaigns.status().state is not CampaignState.RUNNING:
            break
        world.round()
        if restarts.random() < 0.02:
            world.start_ground()
            assert world.campaigns.status().campaign_id == number
    campaign = world.campaigns.status()
    assert campaign.state is CampaignState.STOPPED
    assert campaign.detail == "wave 3: 16 failed"
    states = world.states()
    assert [number for number in FLEET if states[number] is NodeState.FAILED] == [16]
    assert {states[number] for number in FLEET if number != 16} == {NodeState.SUCCEEDED}
    assert all(node.executed.count("UPDATE.TRY") == 1 for node in world.nodes.values())
    world.ledger.close()


def test_an_event_of_the_node_is_asked_about_at_once(world):
    world.start()
    for _ in range(4):
        world.round()
    asked = world.nodes[11].executed.count("UPDATE.QUERY")
    event = Event(11, 1, 1, 0, Severity.ACTIVITY_HI, "UPDATE", "STAGED", "")
    world.campaigns.on_event(event, world.now_ns)
    world.round()
    world.round()
    assert world.nodes[11].executed.count("UPDATE.QUERY") == asked + 1


def test_a_stopped_campaign_touches_nobody_any_more(world):
    world.start()
    world.until(lambda: world.nodes[12].state == "STAGED")
    world.campaigns.stop("by command", world.now_ns)
    world.round()
    counts = {number: len(node.executed) for number, node in world.nodes.items()}
    for _ in range(50):
        world.round()
    assert {number: len(node.executed) for number, node in world.nodes.items()} == counts
    assert "UPDATE.TRY" not in world.nodes[12].executed
    world.start_ground()
    assert world.campaigns.status().state is CampaignState.STOPPED
    with pytest.raises(ConfigError, match="no campaign runs"):
        world.campaigns.stop("again", world.now_ns)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"manifest": b"none"}, "CBOR"),
        ({"nodes": []}, "expected some, each once"),
        ({"nodes": [11, 11]}, "expected some, each once"),
        ({"waves": (0,)}, "sizes of 1 or more"),
        ({"waves": (1,) * 65}, "at most 64"),
        ({"soak_s": 0}, "soak_s is 0, expected 1 to"),
        ({"limit_s": 10**9}, "limit_s is 1000000000"),
    ],
)
def test_what_is_wrong_with_a_campaign_is_said(world, change, said):
    given = {"manifest": MANIFEST, "nodes": [11, 12], "now_ns": 0} | change
    with pytest.raises(ConfigError, match=said):
        world.campaigns.start(given.pop("manifest"), given.pop("nodes"), given.pop("now_ns"), **given)


def test_the_image_must_be_in_the_store_and_one_campaign_runs_at_a_time(world):
    world.start()
    with pytest.raises(ConfigError, match="campaign 1 is running"):
        world.start()
    world.campaigns.stop("", 0)
    world.store.unpin(digest_of(IMAGE))
    world.store.remove(digest_of(IMAGE))
    with pytest.raises(ConfigError, match="not in the store"):
        world.start()
