"""An update is staged, tried and kept; a trial that fails in any way is left for the version before."""

from boards.boot_record import FACTORY
from boards.simulated.images import Defect
from flightsw.core.update_rules import self_test
from flightsw.core.update_states import TRANSITIONS, Step, UpdateSettings, UpdateState
from flightsw.dictionary import flight_dictionary
from flightsw.errors import SensorError
from flightsw.objects.store import digest_of
from flightsw.wire.messages import CommandCode

DICTIONARY = flight_dictionary()
SETTINGS = UpdateSettings(stable_s=60, window_s=600)


def test_every_command_of_the_dictionary_has_a_handler_and_no_other(make_node):
    names = {spec.name for spec in DICTIONARY.commands.values() if spec.component == "UPDATE"}
    assert names == set(make_node().update.handlers()) | {"NOOP", "RESET_COUNTERS"}


def test_every_state_but_the_first_is_reached_and_every_step_leads_somewhere():
    assert {state for state, _ in TRANSITIONS} | set(TRANSITIONS.values()) == set(UpdateState)
    assert {step for _, step in TRANSITIONS} == set(Step)


def test_a_quiet_node_writes_nothing(make_node):
    node = make_node()
    node.cycles(20)
    assert node.disk.names() == []
    assert node.reports == []


def test_an_update_is_staged_tried_and_kept(make_node, manifest_of, signed, good):
    node = make_node(good)
    assert node.stage(signed(manifest_of(good))).code is CommandCode.OK
    assert node.state is UpdateState.STAGED
    assert not node.store.has(digest_of(good))  # its room is given back
    assert node.command("TRY").code is CommandCode.OK
    assert node.boots == [FACTORY, "A"]
    node.cycle()
    assert node.state is UpdateState.TRIAL
    node.command("QUERY", 1)  # which acknowledges a heartbeat of the old version
    node.command("QUERY", 2)
    node.cycles(4)
    assert node.state is UpdateState.TRIAL  # not stable yet
    node.cycle()
    assert node.state is UpdateState.COMMITTED
    assert node.query() == ("COMMITTED", "0.2.0", "A", 5, False, "")
    node.boot()
    node.cycle()
    assert node.state is UpdateState.COMMITTED
    assert node.boots == [FACTORY, "A", "A"]
    assert node.names() == ["ACCEPTED", "STAGED", "TRYING", "TRIAL", "COMMITTED"]
    assert [one["step"] for one in node.audits] == [
        "manifest accepted",
        "image verified",
        "image installed",
        "trial",
        "commit",
    ]


def test_the_slots_take_turns_and_the_factory_image_stays(make_node, good, newer):
    node = make_node(good, newer)
    node.upgrade(good)
    node.command("COMMIT")
    node.upgrade(newer, version="0.3.0", serial=6)
    node.command("COMMIT")
    assert node.query()[:3] == ("COMMITTED", "0.3.0", "B")
    assert node.command("ROLLBACK").code is CommandCode.OK
    node.cycle()
    assert node.query()[:3] == ("ROLLED_BACK", "0.2.0", "A")
    assert node.query().reason == "rolled back by command"
    assert node.command("ROLLBACK").code is CommandCode.OK
    assert node.query()[1:3] == ("0.1.0", FACTORY)
    assert node.command("ROLLBACK").code is CommandCode.EXECUTION_ERROR


# -- trials that fail


def test_a_crash_loop_falls_back_by_itself(make_node, good):
    node = make_node(good)
    node.upgrade(good)
    for _ in range(3):
        node.boot()  # each boot of the new version crashes before it can do anything
    assert node.boots == [FACTORY, "A", "A", FACTORY, FACTORY]
    node.cycle()
    assert node.query() == ("ROLLED_BACK", "0.1.0", FACTORY, 5, False, "2 boots of slot A without a commit")
    assert node.reports[-1] == ("ROLLED_BACK", "0.1.0", "2 boots of slot A without a commit")


def test_one_reset_in_a_trial_does_not_undo_it(make_node, good):
    node = make_node(good)
    node.upgrade(good)
    node.boot()
    node.query()
    node.cycles(7)
    assert node.query()[:3] == ("COMMITTED", "0.2.0", "A")


def test_a_trial_whose_heartbeat_nobody_acknowledges_is_left(make_node, good):
    node = make_node(good)
    node.upgrade(good)
    for _ in range(61):
        node.cycle()
        if node.boots[-1] == "A":
            node.command("QUERY", 1)  # the ground speaks, but has heard nothing since the boot before
    assert node.boots == [FACTORY, "A", FACTORY]
    assert node.query().reason == "no heartbeat was acknowledged by the ground within 600 s"


def test_a_trial_that_fails_its_self_test_is_left(make_node, image_of, good):
    bad = image_of("0.2.0", Defect(kind="self_test"))
    node = make_node(bad)
    node.upgrade(bad)
    assert "self-test" in node.command("COMMIT").detail
    node.cycles(2)
    assert node.boots == [FACTORY, "A", FACTORY]
    assert node.query().reason == "self-test: the image fails its self-test"
    node = make_node(good)
    node.upgrade(good)
    node.self_test = "no sensors"
    node.cycles(2)
    assert node.query().reason == "self-test: no sensors"


def test_without_auto_commit_the_ground_commits_a_trial_that_says_it_is_ready(make_node, good):
    node = make_node(good, settings=SETTINGS._replace(auto_commit=False))
    node.upgrade(good)
    node.cycles(5)
    assert not node.query().is_ready
    node.cycles(2)
    assert node.query().is_ready
    assert node.command("COMMIT").code is CommandCode.OK
    assert node.query()[:3] == ("COMMITTED", "0.2.0", "A")
    node = make_node(good, settings=SETTINGS._replace(auto_commit=False))
    node.upgrade(good)
    node.query()
    node.cycles(61)
    assert node.query().reason == "no commit within 600 s"


def test_an_image_that_is_no_image_boots_as_one_that_crashes(make_node):
    node = make_node(b"not an image")
    node.upgrade(b"not an image")
    assert node.software.defect("crash", "sat-01") is not None


class FakeBoard:
    """A board with sensors that may be lost."""

    def __init__(self, is_well=True):
        self.is_well = is_well

    def sensors(self):
        if not self.is_well:
            raise SensorError("no answer on the bus")


def test_the_self_test_reads_the_sensors_and_proves_the_disk(make_disk):
    disk = make_disk(1000)
    assert self_test(FakeBoard(), disk) is None
    assert disk.names() == []
    assert self_test(FakeBoard(is_well=False), disk) == "no answer on the bus"
    disk.append("filler", bytes(1000))
    assert "disk full" in self_test(FakeBoard(), disk)
    disk = make_disk(1000)
    disk.read = lambda name: b"something else"
    assert "something else" in self_test(FakeBoard(), disk)
