"""The on-board side of an update: what is refused, what survives, and that some slot always boots."""

import pytest

from boards.boot_record import FACTORY
from boards.simulated.images import Defect, SimulatedImage, SimulatedSlots
from flightsw.core.update import Update
from flightsw.core.update_rules import self_test
from flightsw.core.update_states import TRANSITIONS, Step, UpdateSettings, UpdateState
from flightsw.dictionary import check_arguments, check_value, flight_dictionary
from flightsw.errors import SensorError, StorageError
from flightsw.objects.store import ObjectStore, digest_of, object_name
from flightsw.ports import Random, ResetCause
from flightsw.storage.manifest import Manifest, encode_manifest, parse_report, public_key_of, sign_manifest
from flightsw.wire.messages import CommandCode
from hil.sim.disk import SimulatedDisk

S = 1_000_000_000
KEY, OTHER_KEY = bytes(range(32)), bytes(32)
DICTIONARY = flight_dictionary()
SETTINGS = UpdateSettings(stable_s=60, window_s=600)


def image_of(version, *defects):
    return SimulatedImage(version=version, defects=defects).encode()


def manifest_of(data, version="0.2.0", **changes):
    fields = {
        "target": "simulated",
        "version": version,
        "image": digest_of(data),
        "size_bytes": len(data),
        "serial": 5,
        "minimum_version": "0.1.0",
        "minimum_launcher": 1,
        "allow_downgrade": False,
        "dictionary": bytes(8),
    }
    return Manifest(**(fields | changes))


def signed(manifest, key=KEY):
    return sign_manifest(manifest, key).encode()


class PowerCutError(Exception):
    """The power fails now."""


class FragileDisk(SimulatedDisk):
    """A disk whose power fails before or after one of its writes."""

    def __init__(self, capacity_bytes=1 << 20, seed=1):
        super().__init__(capacity_bytes, Random(seed))
        self.writes_left = None

    def replace(self, name, data):
        self.step()
        super().replace(name, data)
        self.step()

    def remove(self, name):
        self.step()
        super().remove(name)

    def step(self):
        if self.writes_left is not None:
            self.writes_left -= 1
            if self.writes_left < 0:
                self.writes_left = None
                raise PowerCutError


class Node:
    """A board that boots what its slots say, with an update and a ground that sends what is wanted."""

    def __init__(self, *images, disk=None, keys=(KEY,), settings=SETTINGS, window=True):
        self.disk = disk or FragileDisk()
        self.images = {digest_of(image): image for image in images}
        self.keys = tuple(public_key_of(key) for key in keys)
        self.settings = settings
        self.reports, self.audits = [], []
        self.boots = []
        self.is_sending = True
        self.self_test = None
        self.boot()

    def boot(self):
        self.slots = SimulatedSlots(self.disk, "sat-01", "0.1.0")
        self.software = self.slots.boot()
        self.boots.append(self.slots.record.running)
        self.store = ObjectStore(self.disk, quota_bytes=1 << 19)
        self.wanted = []
        self.is_reset = False
        self.now_ns = 0
        self.update = Update(
            disk=self.disk,
            slots=self.slots,
            store=self.store,
            keys=self.keys,
            want_object=lambda digest, size_bytes: self.wanted.append(digest),
            reset=self.reset,
            report=self.report,
            audit=lambda kind, fields: self.audits.append(fields),
            settings=lambda: self.settings,
            self_test=lambda: self.self_test,
            boot_count=len(self.boots),
            now_ns=0,
        )

    def reset(self, cause):
        assert cause is ResetCause.RESET_COMMAND
        self.is_reset = True

    def report(self, key, *arguments):
        spec = DICTIONARY.events[key]
        for one, value in zip(spec.arguments, arguments, strict=True):
            assert check_value(one, value) is None
        self.reports.append((key.removeprefix("UPDATE."), *arguments))

    def names(self):
        return [name for name, *_ in self.reports]

    def cycle(self, seconds=10):
        self.now_ns += seconds * S
        self.update.cycle(self.now_ns)
        if self.is_sending:
            for digest in self.wanted:
                self.store.put(self.images[digest])
            self.wanted = []
        channels = self.update.channels()
        for name, value in channels.items():
            assert check_value(DICTIONARY.channels[f"UPDATE.{name}"], value) is None
        own = {one.name for one in DICTIONARY.channels.values() if one.component == "UPDATE"}
        assert set(channels) == own - {"cmdpc", "cmdec"}
        if self.is_reset:
            self.boot()

    def cycles(self, count=5):
        for _ in range(count):
            self.cycle()

    def command(self, name, *arguments):
        spec = DICTIONARY.commands[f"UPDATE.{name}"]
        assert check_arguments(spec, arguments) is None
        outcome = self.update.handlers()[name](arguments)
        if self.is_reset:
            self.boot()
        return outcome

    def query(self):
        return parse_report(self.command("QUERY", len(self.boots)).detail)

    def stage(self, data):
        outcome = self.command("STAGE", data)
        if outcome.code is CommandCode.OK:
            self.cycles(2)
        return outcome

    @property
    def state(self):
        return self.update.state

    def upgrade(self, image, **changes):
        """Stage and try; returns when the trial has booted."""
        assert self.stage(signed(manifest_of(image, **changes))).code is CommandCode.OK
        assert self.state is UpdateState.STAGED
        assert self.command("TRY").code is CommandCode.OK


GOOD = image_of("0.2.0")
NEXT = image_of("0.3.0")


def test_every_command_of_the_dictionary_has_a_handler_and_no_other():
    names = {spec.name for spec in DICTIONARY.commands.values() if spec.component == "UPDATE"}
    assert names == set(Node().update.handlers()) | {"NOOP", "RESET_COUNTERS"}


def test_every_state_but_the_first_is_reached_and_every_step_leads_somewhere():
    assert {state for state, _ in TRANSITIONS} | set(TRANSITIONS.values()) == set(UpdateState)
    assert {step for _, step in TRANSITIONS} == set(Step)


def test_a_quiet_node_writes_nothing():
    node = Node()
    node.cycles(20)
    assert node.disk.names() == []
    assert node.reports == []


def test_an_update_is_staged_tried_and_kept():
    node = Node(GOOD)
    assert node.stage(signed(manifest_of(GOOD))).code is CommandCode.OK
    assert node.state is UpdateState.STAGED
    assert not node.store.has(digest_of(GOOD))  # its room is given back
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


def test_the_slots_take_turns_and_the_factory_image_stays():
    node = Node(GOOD, NEXT)
    node.upgrade(GOOD)
    node.command("COMMIT")
    node.upgrade(NEXT, version="0.3.0", serial=6)
    node.command("COMMIT")
    assert node.query()[:3] == ("COMMITTED", "0.3.0", "B")
    assert node.command("ROLLBACK").code is CommandCode.OK
    node.cycle()
    assert node.query()[:3] == ("ROLLED_BACK", "0.2.0", "A")
    assert node.query().reason == "rolled back by command"
    assert node.command("ROLLBACK").code is CommandCode.OK
    assert node.query()[1:3] == ("0.1.0", FACTORY)
    assert node.command("ROLLBACK").code is CommandCode.EXECUTION_ERROR


# -- what is refused


def refusal(node, data):
    node.cycle()
    outcome = node.command("STAGE", data)
    assert outcome.code is CommandCode.VALIDATION_ERROR
    assert node.reports[-1] == ("REFUSED", outcome.detail)
    assert node.state is UpdateState.IDLE
    return outcome.detail


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"target": "wheel"}, "target 'wheel', this board boots 'simulated'"),
        ({"version": "0.1.0"}, "version 0.1.0 is not above 0.1.0"),
        ({"version": "0.0.9"}, "version 0.0.9 is not above 0.1.0"),
        ({"minimum_version": "0.1.1"}, "needs version 0.1.1 to start from, 0.1.0 runs"),
        ({"minimum_launcher": 2}, "needs launcher 2, this is 1"),
        ({"size_bytes": 1 << 25}, "no space: 100663296 bytes needed"),
    ],
)
def test_a_signed_manifest_for_another_node_is_refused(changes, said):
    assert said in refusal(Node(GOOD), signed(manifest_of(GOOD, **changes)))


def test_a_downgrade_needs_the_word_of_who_signs():
    old = image_of("0.0.9")
    node = Node(old)
    assert node.stage(signed(manifest_of(old, "0.0.9", allow_downgrade=True))).code is CommandCode.OK
    assert node.state is UpdateState.STAGED


FIELDS = {
    "target": "wheel",
    "version": "0.9.0",
    "image": bytes(32),
    "size_bytes": 7,
    "serial": 99,
    "minimum_version": "0.0.1",
    "minimum_launcher": 0,
    "allow_downgrade": True,
    "dictionary": b"tampered",
}


@pytest.mark.parametrize("field", FIELDS)
def test_a_manifest_with_any_field_tampered_is_refused(field):
    genuine = sign_manifest(manifest_of(GOOD), KEY)
    changed = manifest_of(GOOD, **{field: FIELDS[field]})
    forged = type(genuine)(encode_manifest(changed), genuine.key_id, genuine.signature)
    assert "the signature of key" in refusal(Node(GOOD), forged.encode())


def test_the_fields_that_are_tampered_with_are_all_there_are():
    assert list(FIELDS) == list(Manifest.__struct_fields__)


def test_any_flipped_bit_of_a_manifest_is_refused():
    data = signed(manifest_of(GOOD))
    node = Node(GOOD)
    for index in range(8 * len(data)):
        struck = bytearray(data)
        struck[index >> 3] ^= 1 << (index & 7)
        refusal(node, bytes(struck))
    assert node.disk.names() == []


def test_a_key_that_is_not_provisioned_vouches_for_nothing():
    data = signed(manifest_of(GOOD), OTHER_KEY)
    assert "unknown key" in refusal(Node(GOOD), data)
    assert "no update key is provisioned here" in refusal(Node(GOOD, keys=()), data)
    assert Node(GOOD, keys=(KEY, OTHER_KEY)).stage(data).code is CommandCode.OK


def test_an_old_manifest_that_is_replayed_is_refused():
    node = Node(GOOD, NEXT)
    old = signed(manifest_of(GOOD, serial=5, allow_downgrade=True))
    node.stage(old)
    node.command("ABORT")
    node.upgrade(NEXT, version="0.3.0", serial=6)
    node.command("COMMIT")
    assert "serial 5 is below 6" in node.command("STAGE", old).detail
    node.boot()
    assert "serial 5 is below 6" in node.command("STAGE", old).detail
    other = signed(manifest_of(GOOD, serial=6, allow_downgrade=True))
    assert "serial 6 was that of another manifest" in node.command("STAGE", other).detail


def test_a_manifest_may_be_staged_again_after_it_was_left():
    node = Node(GOOD)
    data = signed(manifest_of(GOOD))
    node.upgrade(GOOD)
    node.command("ROLLBACK")
    node.cycle()
    assert node.state is UpdateState.ROLLED_BACK
    assert node.stage(data).code is CommandCode.OK
    assert node.state is UpdateState.STAGED


def test_a_node_without_slots_says_so():
    node = Node(GOOD)
    node.update._slots = None
    assert "no slots" in node.command("STAGE", signed(manifest_of(GOOD))).detail
    assert "no slots" in node.command("QUERY", 0).detail
    assert node.update.channels()["slot"] == "-"


def test_only_one_update_is_under_way():
    node = Node(GOOD, NEXT)
    data = signed(manifest_of(GOOD))
    node.is_sending = False
    assert node.command("STAGE", data) == (CommandCode.OK, "RECEIVING")
    assert node.command("STAGE", data) == (CommandCode.OK, "RECEIVING")
    assert node.command("STAGE", signed(manifest_of(NEXT, "0.3.0", serial=6))).code is CommandCode.BUSY
    assert node.command("TRY").code is CommandCode.EXECUTION_ERROR
    assert node.command("COMMIT").code is CommandCode.EXECUTION_ERROR
    assert node.command("ROLLBACK").code is CommandCode.EXECUTION_ERROR
    assert node.command("ABORT").code is CommandCode.OK
    assert node.state is UpdateState.IDLE
    assert node.reports[-1] == ("ENDED", "aborted by command")


def test_a_slot_is_not_overwritten_while_it_runs_and_the_other_is_committed():
    node = Node(GOOD, NEXT)
    node.upgrade(GOOD)
    node.command("COMMIT")
    node.upgrade(NEXT, version="0.3.0", serial=6)
    with pytest.raises(StorageError, match="slots A and B are both in use"):
        node.slots.install(b"x", "0.4.0", bytes(32))
    node.command("COMMIT")
    is_reset, node.reset = [], lambda cause: is_reset.append(cause)
    node.update._reset = node.reset
    assert node.command("ROLLBACK").code is CommandCode.OK
    assert is_reset
    later = signed(manifest_of(image_of("0.4.0"), "0.4.0", serial=7))
    assert node.command("STAGE", later) == (CommandCode.BUSY, "the node leaves this slot")


# -- images that do not hold


def test_an_image_of_another_size_than_the_manifest_says_is_not_installed():
    node = Node(GOOD)
    assert node.stage(signed(manifest_of(GOOD, size_bytes=len(GOOD) + 1))).code is CommandCode.OK
    assert node.state is UpdateState.IDLE
    assert "the manifest says" in node.reports[-1][1]


def test_an_image_that_rots_in_the_store_is_fetched_again():
    node = Node(GOOD)
    node.command("STAGE", signed(manifest_of(GOOD)))
    node.store.put(GOOD)
    node.disk.flip_bit(object_name(digest_of(GOOD)), 3)
    node.wanted = []
    node.update.cycle(S)
    assert node.wanted == [digest_of(GOOD)]
    node.cycles(2)
    assert node.state is UpdateState.STAGED


def test_an_image_that_rots_in_its_slot_is_not_tried():
    node = Node(GOOD)
    node.stage(signed(manifest_of(GOOD)))
    node.disk.flip_bit("slots/A.image", 5)
    assert "does not hold image" in node.command("TRY").detail
    assert node.state is UpdateState.IDLE
    node.boot()
    assert node.boots == [FACTORY, FACTORY]


def test_a_committed_slot_that_rots_gives_way_to_the_one_before():
    node = Node(GOOD, NEXT)
    node.upgrade(GOOD)
    node.command("COMMIT")
    node.upgrade(NEXT, version="0.3.0", serial=6)
    node.command("COMMIT")
    node.disk.flip_bit("slots/B.image", 5)
    node.boot()
    node.cycle()
    assert node.query()[:3] == ("ROLLED_BACK", "0.2.0", "A")
    assert node.query().reason == "the image in slot B does not hold"


def test_a_full_disk_leaves_what_runs_untouched():
    node = Node(GOOD)
    node.command("STAGE", signed(manifest_of(GOOD)))
    node.store.put(GOOD)
    node.disk.append("filler", bytes(node.disk.free_bytes() - len(GOOD) // 2))
    node.cycle()
    assert node.state is UpdateState.IDLE
    assert "cannot be installed: disk full" in node.reports[-1][1]
    node.boot()
    assert node.boots == [FACTORY, FACTORY]


def test_the_image_is_asked_for_again_when_it_does_not_come():
    node = Node(GOOD)
    node.is_sending = False
    node.command("STAGE", signed(manifest_of(GOOD)))
    for _ in range(61):
        node.cycle()
    assert node.wanted == [digest_of(GOOD)] * 2
    node.update.on_transfer_failed(digest_of(GOOD), "refused: no space")
    assert node.state is UpdateState.IDLE
    assert node.reports[-1] == ("ENDED", "the image did not come: refused: no space")


# -- trials that fail


def test_a_crash_loop_falls_back_by_itself():
    node = Node(GOOD)
    node.upgrade(GOOD)
    for _ in range(3):
        node.boot()  # each boot of the new version crashes before it can do anything
    assert node.boots == [FACTORY, "A", "A", FACTORY, FACTORY]
    node.cycle()
    assert node.query() == ("ROLLED_BACK", "0.1.0", FACTORY, 5, False, "2 boots of slot A without a commit")
    assert node.reports[-1] == ("ROLLED_BACK", "0.1.0", "2 boots of slot A without a commit")


def test_one_reset_in_a_trial_does_not_undo_it():
    node = Node(GOOD)
    node.upgrade(GOOD)
    node.boot()
    node.query()
    node.cycles(7)
    assert node.query()[:3] == ("COMMITTED", "0.2.0", "A")


def test_a_trial_whose_heartbeat_nobody_acknowledges_is_left():
    node = Node(GOOD)
    node.upgrade(GOOD)
    for _ in range(61):
        node.cycle()
        if node.boots[-1] == "A":
            node.command("QUERY", 1)  # the ground speaks, but has heard nothing since the boot before
    assert node.boots == [FACTORY, "A", FACTORY]
    assert node.query().reason == "no heartbeat was acknowledged by the ground within 600 s"


def test_a_trial_that_fails_its_self_test_is_left():
    bad = image_of("0.2.0", Defect(kind="self_test"))
    node = Node(bad)
    node.upgrade(bad)
    assert "self-test" in node.command("COMMIT").detail
    node.cycles(2)
    assert node.boots == [FACTORY, "A", FACTORY]
    assert node.query().reason == "self-test: the image fails its self-test"
    node = Node(GOOD)
    node.upgrade(GOOD)
    node.self_test = "no sensors"
    node.cycles(2)
    assert node.query().reason == "self-test: no sensors"


def test_without_auto_commit_the_ground_commits_a_trial_that_says_it_is_ready():
    node = Node(GOOD, settings=SETTINGS._replace(auto_commit=False))
    node.upgrade(GOOD)
    node.cycles(5)
    assert not node.query().is_ready
    node.cycles(2)
    assert node.query().is_ready
    assert node.command("COMMIT").code is CommandCode.OK
    assert node.query()[:3] == ("COMMITTED", "0.2.0", "A")
    node = Node(GOOD, settings=SETTINGS._replace(auto_commit=False))
    node.upgrade(GOOD)
    node.query()
    node.cycles(61)
    assert node.query().reason == "no commit within 600 s"


def test_an_image_that_is_no_image_boots_as_one_that_crashes():
    node = Node(b"not an image")
    node.upgrade(b"not an image")
    assert node.software.defect("crash", "sat-01") is not None


class FakeBoard:
    """A board with sensors that may be lost."""

    def __init__(self, is_well=True):
        self.is_well = is_well

    def sensors(self):
        if not self.is_well:
            raise SensorError("no answer on the bus")


def test_the_self_test_reads_the_sensors_and_proves_the_disk():
    disk = FragileDisk(1000)
    assert self_test(FakeBoard(), disk) is None
    assert disk.names() == []
    assert self_test(FakeBoard(is_well=False), disk) == "no answer on the bus"
    disk.append("filler", bytes(1000))
    assert "disk full" in self_test(FakeBoard(), disk)
    disk = FragileDisk(1000)
    disk.read = lambda name: b"something else"
    assert "something else" in self_test(FakeBoard(), disk)


# -- records that are lost


@pytest.mark.parametrize("name", ["update.a", "update.b", "slots/record", "slots/record.copy"])
def test_one_rotten_copy_changes_nothing(name):
    for at in ("STAGED", "TRIAL", "COMMITTED"):
        node = Node(GOOD)
        node.stage(signed(manifest_of(GOOD)))
        if at != "STAGED":
            node.command("TRY")
            node.cycle()
        if at == "COMMITTED":
            node.command("COMMIT")
        for bit in (3, 77, 200):
            node.disk.flip_bit(name, bit)
            node.boot()
            node.cycle()
            if at != "TRIAL":  # whose boots run out
                assert node.state.value == at
                assert node.boots[-1] == ("A" if at == "COMMITTED" else FACTORY)


def test_with_both_boot_records_lost_the_factory_image_boots_and_says_so():
    node = Node(GOOD)
    node.upgrade(GOOD)
    node.command("COMMIT")
    for name in ("slots/record", "slots/record.copy"):
        node.disk.flip_bit(name, 99)
    node.boot()
    node.cycle()
    assert node.query()[:3] == ("ROLLED_BACK", "0.1.0", FACTORY)
    assert node.query().reason == "both boot records were damaged"


def test_with_both_records_of_the_update_lost_the_trial_goes_on():
    node = Node(GOOD)
    node.upgrade(GOOD)
    for name in ("update.a", "update.b"):
        node.disk.flip_bit(name, 99)
    node.boot()
    node.cycle()
    assert node.names()[-2:] == ["RECORD_LOST", "TRIAL"]
    node.query()
    node.cycles(7)
    assert node.query()[:3] == ("COMMITTED", "0.2.0", "A")


# -- power cuts


def mission(node, image):
    """What a ground does until the update has ended: it commands what the last answer asks for."""
    data = signed(manifest_of(image))
    for _ in range(60):
        report = node.query()
        if report.state in ("COMMITTED", "ROLLED_BACK"):
            return report
        if report.state == "IDLE":
            node.command("STAGE", data)
        elif report.state == "STAGED":
            node.command("TRY")
        node.cycle()
    raise AssertionError(f"the update never ended: {node.query()}")


def cut_mission(image, writes_left, seed):
    """The mission with one power cut before write number `writes_left`; None when there are not so many writes."""
    disk = FragileDisk(seed=seed)
    node = Node(image, disk=disk)
    disk.writes_left = writes_left
    while True:
        try:
            report = mission(node, image)
            break
        except PowerCutError:
            disk.power_cut()
            node.boot()  # must work whatever the disk holds
    was_cut = disk.writes_left is None
    return report if was_cut else None


@pytest.mark.parametrize("seed", range(12))
def test_a_power_cut_at_any_write_leaves_a_slot_that_boots_and_an_update_that_ends_well(seed):
    cuts_count = 0
    while (report := cut_mission(GOOD, cuts_count, seed)) is not None:
        assert report[:3] == ("COMMITTED", "0.2.0", "A"), f"cut before write {cuts_count}"
        cuts_count += 1
    assert cuts_count > 30


@pytest.mark.parametrize("seed", range(4))
def test_a_power_cut_at_any_write_of_a_bad_update_ends_on_the_old_version(seed):
    bad = image_of("0.2.0", Defect(kind="self_test"))
    cuts_count = 0
    while (report := cut_mission(bad, cuts_count, seed)) is not None:
        assert report[:3] == ("ROLLED_BACK", "0.1.0", FACTORY), f"cut before write {cuts_count}"
        cuts_count += 1
    assert cuts_count > 30


def test_a_disk_that_takes_nothing_refuses_the_update():
    node = Node(GOOD)
    node.cycle()

    def full(name, data):
        raise StorageError("disk full")

    node.disk.replace = full
    assert node.command("STAGE", signed(manifest_of(GOOD))).code is CommandCode.EXECUTION_ERROR
    assert node.state is UpdateState.IDLE
