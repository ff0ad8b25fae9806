"""Images that rot, records that are lost, full disks and power cuts at any write: some slot always boots."""

import pytest

from boards.boot_record import FACTORY
from boards.simulated.images import Defect
from flightsw.core.update_states import UpdateState
from flightsw.errors import StorageError
from flightsw.objects.store import digest_of, object_name
from flightsw.wire.messages import CommandCode

S = 1_000_000_000


# -- images that do not hold


def test_an_image_of_another_size_than_the_manifest_says_is_not_installed(make_node, manifest_of, signed, good):
    node = make_node(good)
    assert node.stage(signed(manifest_of(good, size_bytes=len(good) + 1))).code is CommandCode.OK
    assert node.state is UpdateState.IDLE
    assert "the manifest says" in node.reports[-1][1]


def test_an_image_that_rots_in_the_store_is_fetched_again(make_node, manifest_of, signed, good):
    node = make_node(good)
    node.command("STAGE", signed(manifest_of(good)))
    node.store.put(good)
    node.disk.flip_bit(object_name(digest_of(good)), 3)
    node.wanted = []
    node.update.cycle(S)
    assert node.wanted == [digest_of(good)]
    node.cycles(2)
    assert node.state is UpdateState.STAGED


def test_an_image_that_rots_in_its_slot_is_not_tried(make_node, manifest_of, signed, good):
    node = make_node(good)
    node.stage(signed(manifest_of(good)))
    node.disk.flip_bit("slots/A.image", 5)
    assert "does not hold image" in node.command("TRY").detail
    assert node.state is UpdateState.IDLE
    node.boot()
    assert node.boots == [FACTORY, FACTORY]


def test_a_committed_slot_that_rots_gives_way_to_the_one_before(make_node, good, newer):
    node = make_node(good, newer)
    node.upgrade(good)
    node.command("COMMIT")
    node.upgrade(newer, version="0.3.0", serial=6)
    node.command("COMMIT")
    node.disk.flip_bit("slots/B.image", 5)
    node.boot()
    node.cycle()
    assert node.query()[:3] == ("ROLLED_BACK", "0.2.0", "A")
    assert node.query().reason == "the image in slot B does not hold"


def test_a_full_disk_leaves_what_runs_untouched(make_node, manifest_of, signed, good):
    node = make_node(good)
    node.command("STAGE", signed(manifest_of(good)))
    node.store.put(good)
    node.disk.append("filler", bytes(node.disk.free_bytes() - len(good) // 2))
    node.cycle()
    assert node.state is UpdateState.IDLE
    assert "cannot be installed: disk full" in node.reports[-1][1]
    node.boot()
    assert node.boots == [FACTORY, FACTORY]


def test_the_image_is_asked_for_again_when_it_does_not_come(make_node, manifest_of, signed, good):
    node = make_node(good)
    node.is_sending = False
    node.command("STAGE", signed(manifest_of(good)))
    for _ in range(61):
        node.cycle()
    assert node.wanted == [digest_of(good)] * 2
    node.update.on_transfer_failed(digest_of(good), "refused: no space")
    assert node.state is UpdateState.IDLE
    assert node.reports[-1] == ("ENDED", "the image did not come: refused: no space")


# -- records that are lost


@pytest.mark.parametrize("name", ["update.a", "update.b", "slots/record", "slots/record.copy"])
def test_one_rotten_copy_changes_nothing(make_node, manifest_of, signed, good, name):
    for at in ("STAGED", "TRIAL", "COMMITTED"):
        node = make_node(good)
        node.stage(signed(manifest_of(good)))
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


def test_with_both_boot_records_lost_the_factory_image_boots_and_says_so(make_node, good):
    node = make_node(good)
    node.upgrade(good)
    node.command("COMMIT")
    for name in ("slots/record", "slots/record.copy"):
        node.disk.flip_bit(name, 99)
    node.boot()
    node.cycle()
    assert node.query()[:3] == ("ROLLED_BACK", "0.1.0", FACTORY)
    assert node.query().reason == "both boot records were damaged"


def test_with_both_records_of_the_update_lost_the_trial_goes_on(make_node, good):
    node = make_node(good)
    node.upgrade(good)
    for name in ("update.a", "update.b"):
        node.disk.flip_bit(name, 99)
    node.boot()
    node.cycle()
    assert node.names()[-2:] == ["RECORD_LOST", "TRIAL"]
    node.query()
    node.cycles(7)
    assert node.query()[:3] == ("COMMITTED", "0.2.0", "A")


# -- power cuts


def mission(node, data):
    """What a ground does with a manifest until the update has ended: it commands what the last answer asks for."""
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


@pytest.fixture
def cut_mission(make_disk, make_node, manifest_of, power_cut_error, signed):
    """The mission with one power cut before write number `writes_left`; None when there are not so many writes."""

    def fly(image, writes_left, seed):
        disk = make_disk(seed=seed)
        node = make_node(image, disk=disk)
        disk.writes_left = writes_left
        while True:
            try:
                report = mission(node, signed(manifest_of(image)))
                break
            except power_cut_error:
                disk.power_cut()
                node.boot()  # must work whatever the disk holds
        was_cut = disk.writes_left is None
        return report if was_cut else None

    return fly


@pytest.mark.parametrize("seed", range(12))
def test_a_power_cut_at_any_write_leaves_a_slot_that_boots_and_an_update_that_ends_well(cut_mission, good, seed):
    cuts_count = 0
    while (report := cut_mission(good, cuts_count, seed)) is not None:
        assert report[:3] == ("COMMITTED", "0.2.0", "A"), f"cut before write {cuts_count}"
        cuts_count += 1
    assert cuts_count > 30


@pytest.mark.parametrize("seed", range(4))
def test_a_power_cut_at_any_write_of_a_bad_update_ends_on_the_old_version(cut_mission, image_of, seed):
    bad = image_of("0.2.0", Defect(kind="self_test"))
    cuts_count = 0
    while (report := cut_mission(bad, cuts_count, seed)) is not None:
        assert report[:3] == ("ROLLED_BACK", "0.1.0", FACTORY), f"cut before write {cuts_count}"
        cuts_count += 1
    assert cuts_count > 30


def test_a_disk_that_takes_nothing_refuses_the_update(make_node, manifest_of, signed, good):
    node = make_node(good)
    node.cycle()

    def full(name, data):
        raise StorageError("disk full")

    node.disk.replace = full
    assert node.command("STAGE", signed(manifest_of(good))).code is CommandCode.EXECUTION_ERROR
    assert node.state is UpdateState.IDLE
