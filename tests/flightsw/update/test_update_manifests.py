"""What an update refuses: manifests for others, downgrades, forgeries, replays, and a second one beside the first."""

import pytest

from flightsw.core.update_states import UpdateState
from flightsw.errors import StorageError
from flightsw.storage.manifest import Manifest, encode_manifest, sign_manifest
from flightsw.wire.messages import CommandCode

KEY, OTHER_KEY = bytes(range(32)), bytes(32)


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
def test_a_signed_manifest_for_another_node_is_refused(make_node, manifest_of, signed, good, changes, said):
    assert said in refusal(make_node(good), signed(manifest_of(good, **changes)))


def test_a_downgrade_needs_the_word_of_who_signs(make_node, image_of, manifest_of, signed):
    old = image_of("0.0.9")
    node = make_node(old)
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
def test_a_manifest_with_any_field_tampered_is_refused(make_node, manifest_of, good, field):
    genuine = sign_manifest(manifest_of(good), KEY)
    changed = manifest_of(good, **{field: FIELDS[field]})
    forged = type(genuine)(encode_manifest(changed), genuine.key_id, genuine.signature)
    assert "the signature of key" in refusal(make_node(good), forged.encode())


def test_the_fields_that_are_tampered_with_are_all_there_are():
    assert list(FIELDS) == list(Manifest.__struct_fields__)


def test_any_flipped_bit_of_a_manifest_is_refused(make_node, manifest_of, signed, good):
    data = signed(manifest_of(good))
    node = make_node(good)
    for index in range(8 * len(data)):
        struck = bytearray(data)
        struck[index >> 3] ^= 1 << (index & 7)
        refusal(node, bytes(struck))
    assert node.disk.names() == []


def test_a_key_that_is_not_provisioned_vouches_for_nothing(make_node, manifest_of, signed, good):
    data = signed(manifest_of(good), OTHER_KEY)
    assert "unknown key" in refusal(make_node(good), data)
    assert "no update key is provisioned here" in refusal(make_node(good, keys=()), data)
    assert make_node(good, keys=(KEY, OTHER_KEY)).stage(data).code is CommandCode.OK


def test_an_old_manifest_that_is_replayed_is_refused(make_node, manifest_of, signed, good, newer):
    node = make_node(good, newer)
    old = signed(manifest_of(good, serial=5, allow_downgrade=True))
    node.stage(old)
    node.command("ABORT")
    node.upgrade(newer, version="0.3.0", serial=6)
    node.command("COMMIT")
    assert "serial 5 is below 6" in node.command("STAGE", old).detail
    node.boot()
    assert "serial 5 is below 6" in node.command("STAGE", old).detail
    other = signed(manifest_of(good, serial=6, allow_downgrade=True))
    assert "serial 6 was that of another manifest" in node.command("STAGE", other).detail


def test_a_manifest_may_be_staged_again_after_it_was_left(make_node, manifest_of, signed, good):
    node = make_node(good)
    data = signed(manifest_of(good))
    node.upgrade(good)
    node.command("ROLLBACK")
    node.cycle()
    assert node.state is UpdateState.ROLLED_BACK
    assert node.stage(data).code is CommandCode.OK
    assert node.state is UpdateState.STAGED


def test_a_node_without_slots_says_so(make_node, manifest_of, signed, good):
    node = make_node(good)
    node.update._slots = None
    assert "no slots" in node.command("STAGE", signed(manifest_of(good))).detail
    assert "no slots" in node.command("QUERY", 0).detail
    assert node.update.channels()["slot"] == "-"


def test_only_one_update_is_under_way(make_node, manifest_of, signed, good, newer):
    node = make_node(good, newer)
    data = signed(manifest_of(good))
    node.is_sending = False
    assert node.command("STAGE", data) == (CommandCode.OK, "RECEIVING")
    assert node.command("STAGE", data) == (CommandCode.OK, "RECEIVING")
    assert node.command("STAGE", signed(manifest_of(newer, "0.3.0", serial=6))).code is CommandCode.BUSY
    assert node.command("TRY").code is CommandCode.EXECUTION_ERROR
    assert node.command("COMMIT").code is CommandCode.EXECUTION_ERROR
    assert node.command("ROLLBACK").code is CommandCode.EXECUTION_ERROR
    assert node.command("ABORT").code is CommandCode.OK
    assert node.state is UpdateState.IDLE
    assert node.reports[-1] == ("ENDED", "aborted by command")


def test_a_slot_is_not_overwritten_while_it_runs_and_the_other_is_committed(
    make_node, image_of, manifest_of, signed, good, newer
):
    node = make_node(good, newer)
    node.upgrade(good)
    node.command("COMMIT")
    node.upgrade(newer, version="0.3.0", serial=6)
    with pytest.raises(StorageError, match="slots A and B are both in use"):
        node.slots.install(b"x", "0.4.0", bytes(32))
    node.command("COMMIT")
    is_reset, node.reset = [], lambda cause: is_reset.append(cause)
    node.update._reset = node.reset
    assert node.command("ROLLBACK").code is CommandCode.OK
    assert is_reset
    later = signed(manifest_of(image_of("0.4.0"), "0.4.0", serial=7))
    assert node.command("STAGE", later) == (CommandCode.BUSY, "the node leaves this slot")
