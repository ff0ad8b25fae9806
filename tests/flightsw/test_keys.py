"""Keys: states, what the disk keeps through power cuts, derivation, and key files."""

import hmac
import os
import random  # noqa: TID251 - seeded
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flightsw.errors import ConfigError, StorageError
from flightsw.host.keyfile import load_keys, save_keys
from flightsw.net.keys import (
    KEY_FILES,
    KEY_ID_MAX,
    KEYS_MAX,
    KeyFault,
    KeyRing,
    KeyState,
    KeyStore,
    LiveKey,
    PeerKeys,
    TrafficKey,
    derived_rings,
    fingerprint,
    without_keys,
)
from flightsw.wire.confidentiality import unwrap_key
from hil.sim.disk import SimulatedDisk

PEER = 1
MASTER, OLD, NEW = bytes(32), b"o" * 32, b"n" * 32


def ring(node: int = 2) -> KeyRing:
    return KeyRing(node, {PEER: PeerKeys(MASTER, (TrafficKey(1, KeyState.ACTIVE, OLD),), 1)})


def disk(seed: int = 1) -> SimulatedDisk:
    return SimulatedDisk(1 << 20, random.Random(seed))


def test_the_life_of_a_key_as_sdls_tells_it() -> None:
    keys = KeyStore(ring())
    assert keys.load(PEER, 2, NEW) is None
    assert keys.active_id(PEER) == 1, "a key that is not active sends nothing"
    assert isinstance(keys.verifying(PEER, 2), LiveKey), "the peer may have activated it already"
    assert keys.activate(PEER, 2) is None
    assert keys.active_id(PEER) == 2, "the newest active key sends"
    assert keys.deactivate(PEER, 1) is None
    assert isinstance(keys.verifying(PEER, 1), LiveKey), "what was sent before may still be on its way"
    assert keys.destroy(PEER, 1) is None
    assert keys.verifying(PEER, 1) is KeyFault.STALE
    assert keys.verifying(PEER, 3) is KeyFault.UNKNOWN
    assert keys.verifying(PEER, 0) is KeyFault.UNKNOWN
    assert keys.verifying(9, 1) is KeyFault.NO_KEYS
    assert keys.inventory(PEER) == ((2, KeyState.ACTIVE),)


def test_the_last_active_key_is_neither_deactivated_nor_destroyed() -> None:
    keys = KeyStore(ring())
    assert keys.deactivate(PEER, 1) == "key 1 is the last active one"
    assert keys.destroy(PEER, 1) == "key 1 is ACTIVE; deactivate it first"
    keys.load(PEER, 2, NEW)
    assert keys.deactivate(PEER, 1) == "key 1 is the last active one", "a loaded key is not an active one"
    assert keys.active_id(PEER) == 1


def test_steps_that_the_states_do_not_have_are_refused_and_repeats_change_nothing() -> None:
    keys = KeyStore(ring())
    assert keys.load(PEER, 2, NEW) is None
    assert keys.load(PEER, 2, NEW) is None
    assert keys.load(PEER, 2, OLD) == "key 2 is another one"
    assert keys.load(PEER, 4, OLD[::-1]) is None
    assert keys.load(PEER, 3, OLD[::-1]) == f"key 3: expected 5 to {KEY_ID_MAX}", "numbers only rise"
    assert keys.load(PEER, KEY_ID_MAX + 1, NEW) is not None
    assert keys.load(PEER, 5, b"short") == "key 5: 5 bytes, expected 32"
    assert keys.load(9, 2, NEW) == "no keys are shared with node 9"
    assert keys.deactivate(PEER, 2) == "key 2 is PRE_ACTIVATION, expected ACTIVE"
    assert keys.activate(PEER, 2) is None
    assert keys.activate(PEER, 2) is None
    assert keys.deactivate(PEER, 1) is None
    assert keys.activate(PEER, 1) == "key 1 is DEACTIVATED, expected PRE_ACTIVATION"
    assert keys.destroy(PEER, 1) is None
    assert keys.destroy(PEER, 1) is None
    assert keys.deactivate(PEER, 1) is None, "it is beyond that"
    assert keys.activate(PEER, 1) == "key 1 is not here"
    assert keys.load(PEER, 1, OLD) is not None, "a destroyed key never comes back"
    assert keys.destroy(PEER, 9) == "key 9 is unknown"
    for number in range(10, 10 + KEYS_MAX - 2):
        assert keys.load(PEER, number, bytes([number]) * 32) is None
    assert keys.load(PEER, 99, NEW) == f"{KEYS_MAX} keys are there already; destroy one"


def test_the_provisioned_ring_is_imported_once_and_then_the_disk_rules() -> None:
    medium = disk()
    keys = KeyStore(ring(), medium)
    keys.load(PEER, 2, NEW)
    keys.activate(PEER, 2)
    again = KeyStore(ring(), medium)
    assert again.inventory(PEER) == ((1, KeyState.ACTIVE), (2, KeyState.ACTIVE))
    assert again.damaged_count == 0
    more = KeyRing(2, {**ring().peers, 7: PeerKeys(NEW, (TrafficKey(3, KeyState.ACTIVE, NEW),), 3)})
    grown = KeyStore(more, medium)
    assert grown.active_id(7) == 3, "a peer that the disk does not know comes from the provisioned ring"
    assert grown.active_id(PEER) == 2


def test_one_rotten_copy_costs_nothing_and_is_mended_and_two_bring_the_provisioned_keys_back() -> None:
    medium = disk()
    keys = KeyStore(ring(), medium)
    keys.load(PEER, 2, NEW)
    medium.flip_bit(KEY_FILES[0], 200)
    found = KeyStore(ring(), medium)
    assert (found.damaged_count, len(found.inventory(PEER))) == (1, 2)
    assert KeyStore(ring(), medium).damaged_count == 0
    for name in KEY_FILES:
        medium.flip_bit(name, 200)
    lost = KeyStore(ring(), medium)
    assert (lost.damaged_count, len(lost.inventory(PEER))) == (2, 1)


def test_keys_of_another_node_on_the_disk_are_refused() -> None:
    medium = disk()
    KeyStore(ring(2), medium)
    with pytest.raises(StorageError, match="keys of node 2, this is node 3"):
        KeyStore(KeyRing(3), medium)


def test_a_change_that_the_disk_does_not_take_is_no_change() -> None:
    medium = disk()
    keys = KeyStore(ring(), medium)
    medium.append("photos", bytes(medium.free_bytes() - 10))
    with pytest.raises(StorageError):
        keys.load(PEER, 2, NEW)
    assert keys.inventory(PEER) == ((1, KeyState.ACTIVE),)


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.integers(0, 12))
def test_a_power_cut_at_any_disk_operation_leaves_keys_from_before_or_after_a_change(seed: int, cut_at: int) -> None:
    class Cut(Exception):
        pass

    class CuttingDisk(SimulatedDisk):
        calls = 0

        def replace(self, name: str, data: bytes) -> None:
            CuttingDisk.calls += 1
            if CuttingDisk.calls == cut_at:
                raise Cut
            super().replace(name, data)

    CuttingDisk.calls = 0
    medium = CuttingDisk(1 << 20, random.Random(seed))
    history: list[tuple[tuple[int, KeyState], ...]] = [((1, KeyState.ACTIVE),)]
    steps = (
        lambda k: k.load(PEER, 2, NEW), lambda k: k.activate(PEER, 2), lambda k: k.deactivate(PEER, 1),
        lambda k: k.destroy(PEER, 1),
    )  # fmt: skip
    reference = KeyStore(ring())
    for step in steps:
        step(reference)
        history.append(reference.inventory(PEER))
    done = 0
    try:
        keys = KeyStore(ring(), medium)
        for step in steps:
            step(keys)
            done += 1
    except Cut:
        pass  # the power failed here
    medium.power_cut()
    after = KeyStore(ring(), medium)
    assert after.inventory(PEER) in history[done : done + 2]
    assert after.active_id(PEER) in (1, 2)


def test_derived_rings_agree_pair_by_pair_and_cost_nothing_before_they_are_used() -> None:
    rings = derived_rings(b"r" * 32, range(11, 2811), 1)
    assert len(rings) == 2801
    assert not rings[11].peers
    for one, other in ((1, 11), (11, 12), (500, 2810)):
        assert rings[one].of(other) == rings[other].of(one) is not None
    assert rings[1].of(11) != rings[1].of(12)
    assert rings[1].of(1) is None
    assert rings[1].of(5) is None, "a number that is not of the fleet has no keys"
    assert derived_rings(b"s" * 32, [11], 1)[1].of(11) != rings[1].of(11)


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=300))
def test_the_tag_is_hmac_sha_256_under_the_derived_key(secret: bytes, data: bytes) -> None:
    live = LiveKey(TrafficKey(1, KeyState.ACTIVE, secret))
    integrity_key = hmac.digest(secret, b"flatrack BIB-HMAC-SHA2\x01", "sha256")
    assert live.tag(data) == hmac.digest(integrity_key, data, "sha256")
    assert live.tag(data) == live.tag(data), "the hashed pads are not used up"
    assert live.encryption_key() == hmac.digest(secret, b"flatrack BCB-AES-GCM\x01", "sha256")
    assert len({secret, live.integrity_key(), live.encryption_key()}) == 3


def test_a_proof_is_of_the_node_the_key_and_the_challenge() -> None:
    keys = KeyStore(ring())
    keys.load(PEER, 2, NEW)
    proof = keys.proof(PEER, 1, b"why")
    others = (keys.proof(PEER, 2, b"why"), keys.proof(PEER, 1, b"who"), KeyStore(ring(3)).proof(PEER, 1, b"why"))
    assert proof not in others
    assert keys.proof(PEER, 9, b"why") is None


def test_a_wrapped_key_opens_with_the_master_key() -> None:
    keys = KeyStore(ring())
    keys.load(PEER, 2, NEW)
    assert unwrap_key(MASTER, keys.wrapped(PEER, 2)) == NEW


def test_what_is_printed_of_keys_shows_no_key() -> None:
    text = repr(ring().of(PEER)) + repr(ring())
    assert OLD.hex() not in text
    assert repr(OLD) not in text
    assert fingerprint(OLD) in text
    assert len(fingerprint(OLD)) == 16


@pytest.mark.parametrize(
    ("keys", "last_id", "fault"),
    [
        ((TrafficKey(1, KeyState.DEACTIVATED, OLD),), 1, "no ACTIVE key"),
        ((TrafficKey(2, KeyState.ACTIVE, OLD), TrafficKey(1, KeyState.ACTIVE, NEW)), 2, "expected to rise"),
        ((TrafficKey(2, KeyState.ACTIVE, OLD),), 1, "expected to rise"),
        ((TrafficKey(1, KeyState.DESTROYED, OLD), TrafficKey(2, KeyState.ACTIVE, OLD)), 2, "expected to be gone"),
    ],
)
def test_a_ring_that_cannot_be_is_refused(keys: tuple[TrafficKey, ...], last_id: int, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        KeyRing(2, {PEER: PeerKeys(MASTER, keys, last_id)})


def test_a_node_shares_no_keys_with_itself() -> None:
    with pytest.raises(ConfigError, match="another node"):
        KeyRing(PEER, ring().peers)


def test_a_key_file_reads_as_it_was_written_and_only_its_owner_may(tmp_path: Path) -> None:
    path = tmp_path / "sat.keys.toml"
    keys = KeyRing(2, {**ring().peers, 5: PeerKeys(NEW, (
        TrafficKey(3, KeyState.DEACTIVATED, OLD), TrafficKey(4, KeyState.ACTIVE, NEW),
        TrafficKey(9, KeyState.PRE_ACTIVATION, OLD[::-1])), 12)})  # fmt: skip
    save_keys(path, keys, [1, 5])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_keys(path) == keys
    with pytest.raises(ConfigError, match="never overwritten"):
        save_keys(path, keys, [1])
    for mode in (0o640, 0o604, 0o610, 0o666):
        path.chmod(mode)
        with pytest.raises(ConfigError, match=rf"mode {mode:04o} .*expected 0600 \(chmod 600"):
            load_keys(path)


def test_a_derived_ring_is_written_for_the_peers_that_are_named(tmp_path: Path) -> None:
    rings = derived_rings(b"r" * 32, [11, 12], 1)
    save_keys(tmp_path / "a", rings[11], [1, 12])
    found = load_keys(tmp_path / "a")
    assert found.peers == {1: rings[11].of(1), 12: rings[12].of(11)}
    with pytest.raises(ConfigError, match="shares no keys with node 99"):
        save_keys(tmp_path / "b", rings[11], [99])


GOOD = """node = 2
[[peer]]
node = 1
master = "MASTER"
last_id = 1
keys = [{ id = 1, state = "ACTIVE", key = "SECRET" }]
""".replace("MASTER", "0" * 64).replace("SECRET", "a" * 64)


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ("node = [", "not TOML"),
        ("node = 2\n\xff", "not TOML"),
        ("x = " + "[" * 5000, "not TOML"),
        ("", "node"),
        (GOOD.replace("node = 2", "node = 0"), "node"),
        (GOOD.replace("a" * 64, "a" * 63), r"peer\[0\]\.keys\[0\]\.key: 63 characters, expected 64"),
        (GOOD.replace("a" * 64, "g" * 64), r"keys\[0\]\.key: 64 characters, expected 64 hexadecimal"),
        (GOOD.replace("0" * 64, "0" * 62 + "  "), r"master: 64 characters"),
        (GOOD.replace("ACTIVE", "DESTROYED"), "state"),
        (GOOD.replace("ACTIVE", "DEACTIVATED"), "no ACTIVE key"),
        (GOOD.replace("id = 1,", "id = 70000,"), "id"),
        (GOOD.replace("last_id = 1", "last_id = 1\nlabel = 3"), "label"),
        (GOOD + GOOD.partition("\n")[2], "there twice"),
        (GOOD.replace("[[peer]]\nnode = 1", "[[peer]]\nnode = 2"), "another node"),
    ],
)
def test_a_file_that_is_no_key_file_is_refused_with_its_field_and_without_its_keys(
    tmp_path: Path, content: str, field: str
) -> None:
    path = tmp_path / "keys"
    path.write_bytes(content.encode("latin-1"))
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=field) as caught:
        load_keys(path)
    assert str(path) in str(caught.value)
    assert "aaaaaaaa" not in str(caught.value)


def test_what_is_no_readable_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    for path, why in (
        (tmp_path, "Is a directory|no regular file"),
        (pipe, "no regular file"),
        (tmp_path / "x", "No s"),
    ):
        with pytest.raises(ConfigError, match=why):
            load_keys(path)


def test_an_empty_ring_has_no_keys() -> None:
    keys = KeyStore(without_keys(2), disk())
    assert keys.sending(PEER) is None
    assert keys.active_id(PEER) == 0
    assert keys.inventory(PEER) == ()
    assert keys.load(PEER, 1, NEW) == "no keys are shared with node 1"
