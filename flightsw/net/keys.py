"""Keys of a node: for each peer one that wraps keys, and traffic keys with the states of CCSDS 355.1-B.

| state | sends | is accepted | may become |
|---|---|---|---|
| PRE_ACTIVATION | no | yes: the peer may have activated it already | ACTIVE, DESTROYED |
| ACTIVE | the newest does | yes | DEACTIVATED |
| DEACTIVATED | no | yes: what was sent before the change may still be on its way | DESTROYED |
| DESTROYED | no | no | – |

A peer always keeps an active key: the last one is neither deactivated nor destroyed, whoever asks. Numbers of keys
rise: a number that is not above all that were there before is refused, so that a destroyed key never comes back, and
what is not there and not above is known to be stale.

A `KeyRing` is what somebody provisioned; a `KeyStore` is the ring as it has become, on the node's disk. A traffic key
is never used itself: a key for each purpose is derived from it (HKDF-Expand with SHA-256, RFC 5869 §2.3).
"""

import hashlib
import hmac
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, unique
from functools import partial
from typing import Annotated, Final

import msgspec

from flightsw.errors import ConfigError, MessageError, StorageError
from flightsw.ports import Disk
from flightsw.storage.records import seal, unseal
from flightsw.wire import cbor
from flightsw.wire.eids import NODE_MAX

KEY_BYTES: Final = 32
"""Of every key [bytes]: HMAC-SHA-256 and AES-256."""
KEY_ID_MAX: Final = 0xFFFF
"""Largest number of a key: 16 bits, as SDLS has (CCSDS 355.1-B-1 §3.2); a rotation a day lasts for 179 years."""
KEYS_MAX: Final = 8
"""Keys of one peer that are not destroyed: a rotation needs two. What one forgot to destroy must not pile up."""
RECORD_BYTES_MAX: Final = 1 << 24
"""The ring on disk [bytes]: 2,800 peers with eight keys each take 1.3 MB."""
KEY_FILES: Final = ("keys", "keys.copy")
"""Written one after the other, so that rot of one file does not cost the keys."""

_PAIR: Final = struct.Struct(">QQ")


@unique
class KeyState(IntEnum):
    """States of a key. Source: CCSDS 355.1-B-1 §3.2."""

    PRE_ACTIVATION = 0
    ACTIVE = 1
    DEACTIVATED = 2
    DESTROYED = 3


@unique
class KeyFault(IntEnum):
    """Why there is no key to verify with."""

    NO_KEYS = 0
    """None for this peer at all."""
    UNKNOWN = 1
    """A number that was never here."""
    STALE = 2
    """It is destroyed."""


class TrafficKey(msgspec.Struct, frozen=True, array_like=True):
    """A key for traffic with one peer."""

    key_id: Annotated[int, msgspec.Meta(ge=1, le=KEY_ID_MAX)]
    state: KeyState
    secret: Annotated[bytes, msgspec.Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]

    def __repr__(self) -> str:
        """Without the secret: logs and tracebacks are read by many."""
        return f"TrafficKey({self.key_id}, {self.state.name}, {fingerprint(self.secret)})"


class PeerKeys(msgspec.Struct, frozen=True, array_like=True):
    """What two nodes share."""

    master: Annotated[bytes, msgspec.Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
    """Wraps traffic keys, nothing else."""
    keys: Annotated[tuple[TrafficKey, ...], msgspec.Meta(min_length=1, max_length=KEYS_MAX)]
    """By number, rising; destroyed ones are gone."""
    last_id: Annotated[int, msgspec.Meta(ge=1, le=KEY_ID_MAX)]
    """The highest number that there ever was."""

    def __repr__(self) -> str:
        """Without the secrets."""
        return f"PeerKeys({fingerprint(self.master)}, {self.keys!r}, {self.last_id})"

    def key(self, key_id: int) -> TrafficKey | None:
        """The key with this number, unless it is destroyed or unknown."""
        return next((key for key in self.keys if key.key_id == key_id), None)

    def sending(self) -> TrafficKey | None:
        """The newest active key."""
        return next((key for key in reversed(self.keys) if key.state is KeyState.ACTIVE), None)


class _Record(msgspec.Struct, frozen=True, array_like=True):
    """The ring on disk."""

    node: int
    peers: tuple[tuple[int, PeerKeys], ...]


@dataclass(frozen=True, slots=True)
class KeyRing:
    """Keys as they were provisioned; an empty ring means no keys.

    Raises:
        ConfigError: numbers that do not rise, or no active key.
    """

    node: int
    peers: Mapping[int, PeerKeys] = field(default_factory=dict)
    derive: Callable[[int], PeerKeys | None] | None = None
    """Gives the keys of a peer that is not in `peers`, when they are asked for."""

    def __post_init__(self) -> None:
        for peer, shared in self.peers.items():
            fault = _fault(shared)
            if peer == self.node or not 0 < peer <= NODE_MAX:
                fault = "expected the number of another node"
            if fault is not None:
                raise ConfigError(f"keys of node {self.node}: peer {peer}: {fault}")

    def of(self, peer: int) -> PeerKeys | None:
        """What is shared with a peer."""
        shared = self.peers.get(peer)
        return self.derive(peer) if shared is None and self.derive is not None else shared


def _fault(shared: PeerKeys) -> str | None:
    numbers = [key.key_id for key in shared.keys]
    if numbers != sorted(set(numbers)) or numbers[-1] > shared.last_id:
        return f"key numbers {numbers} up to {shared.last_id}, expected to rise"
    if any(key.state is KeyState.DESTROYED for key in shared.keys):
        return "a destroyed key, expected to be gone"
    return None if shared.sending() is not None else "no ACTIVE key, expected one"


class LiveKey:
    """A traffic key in use, with what was worked out of it."""

    __slots__ = ("_encryption", "_inner", "_outer", "_secret", "key_id", "state")

    def __init__(self, key: TrafficKey) -> None:
        self.key_id = key.key_id
        self.state = key.state
        self._secret = key.secret
        self._encryption = b""
        padded = self.integrity_key().ljust(64, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in padded))

    def integrity_key(self) -> bytes:
        """For BIB-HMAC-SHA2."""
        return expand(self._secret, b"flatrack BIB-HMAC-SHA2")

    def encryption_key(self) -> bytes:
        """For BCB-AES-GCM."""
        if not self._encryption:
            self._encryption = expand(self._secret, b"flatrack BCB-AES-GCM")
        return self._encryption

    def tag(self, data: bytes) -> bytes:
        """HMAC-SHA-256 under the integrity key; the hashed pads are kept, which halves the time of a short text."""
        inner = self._inner.copy()
        inner.update(data)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.digest()

    def proof(self, node: int, challenge: bytes) -> bytes:
        """What only a node that has the key can answer to a challenge."""
        key = expand(self._secret, b"flatrack key verification")
        return hmac.digest(key, _PAIR.pack(node, self.key_id) + challenge, "sha256")


class KeyStore:
    """The keys of a node, as they have become.

    Args:
        ring: as provisioned; it counts for peers that the disk knows nothing of.
        disk: keeps them; None for memory only.

    Raises:
        StorageError: the disk is broken, or holds the keys of another node.
    """

    def __init__(self, ring: KeyRing, disk: Disk | None = None) -> None:
        self.node = ring.node
        self.damaged_count = 0
        """Copies on disk that did not hold. Both: the provisioned keys count again."""
        self._ring = ring
        self._disk = disk
        self._changed: dict[int, PeerKeys] = {}
        self._live: dict[tuple[int, int], LiveKey] = {}
        self._sending: dict[int, LiveKey] = {}
        if disk is not None:
            self._load(disk)

    def sending(self, peer: int) -> LiveKey | None:
        """The key that is used towards a peer."""
        live = self._sending.get(peer)
        if live is None and (shared := self.of(peer)) is not None and (key := shared.sending()) is not None:
            live = self._sending[peer] = self._made_live(peer, key)
        return live

    def verifying(self, peer: int, key_id: int) -> LiveKey | KeyFault:
        """The key with which a peer has signed, or why there is none."""
        live = self._live.get((peer, key_id))
        if live is not None:
            return live
        shared = self.of(peer)
        if shared is None:
            return KeyFault.NO_KEYS
        key = shared.key(key_id)
        if key is None:
            return KeyFault.STALE if 0 < key_id <= shared.last_id else KeyFault.UNKNOWN
        return self._made_live(peer, key)

    def of(self, peer: int) -> PeerKeys | None:
        """What is shared with a peer now."""
        return self._changed.get(peer) or self._ring.of(peer)

    def active_id(self, peer: int) -> int:
        """Number of the key that is used towards a peer; 0 without one."""
        live = self.sending(peer)
        return 0 if live is None else live.key_id

    def load(self, peer: int, key_id: int, secret: bytes) -> str | None:
        """Take a new key, PRE_ACTIVATION. Returns why not, or None; the same key again is no change.

        Raises:
            StorageError: the disk did not take it; nothing has changed. So for all changes.
        """
        shared = self.of(peer)
        if shared is None:
            return f"no keys are shared with node {peer}"
        there = shared.key(key_id)
        if there is not None and there.secret == secret:
            return None
        if there is not None:
            return f"key {key_id} is another one"
        if not shared.last_id < key_id <= KEY_ID_MAX:
            return f"key {key_id}: expected {shared.last_id + 1} to {KEY_ID_MAX}"
        if len(secret) != KEY_BYTES:
            return f"key {key_id}: {len(secret)} bytes, expected {KEY_BYTES}"
        if len(shared.keys) >= KEYS_MAX:
            return f"{KEYS_MAX} keys are there already; destroy one"
        key = TrafficKey(key_id, KeyState.PRE_ACTIVATION, secret)
        self._change(peer, PeerKeys(shared.master, (*shared.keys, key), key_id))
        return None

    def activate(self, peer: int, key_id: int) -> str | None:
        """PRE_ACTIVATION to ACTIVE; the newest active key is the one that sends."""
        return self._move(peer, key_id, KeyState.PRE_ACTIVATION, KeyState.ACTIVE)

    def deactivate(self, peer: int, key_id: int) -> str | None:
        """ACTIVE to DEACTIVATED, unless it is the last active key."""
        return self._move(peer, key_id, KeyState.ACTIVE, KeyState.DEACTIVATED)

    def destroy(self, peer: int, key_id: int) -> str | None:
        """Forget a key that is not ACTIVE, for good."""
        shared = self.of(peer)
        if shared is None:
            return f"no keys are shared with node {peer}"
        key = shared.key(key_id)
        if key is None:
            return None if 0 < key_id <= shared.last_id else f"key {key_id} is unknown"
        if key.state is KeyState.ACTIVE:
            return f"key {key_id} is ACTIVE; deactivate it first"
        self._change(peer, PeerKeys(shared.master, tuple(one for one in shared.keys if one is not key), shared.last_id))
        return None

    def proof(self, peer: int, key_id: int, challenge: bytes) -> bytes | None:
        """This node's answer to a challenge under a key that it shares with the peer; None when it is not here."""
        live = self.verifying(peer, key_id)
        return None if isinstance(live, KeyFault) else live.proof(self.node, challenge)

    def inventory(self, peer: int) -> tuple[tuple[int, KeyState], ...]:
        """Numbers and states of the keys that are shared with a peer."""
        shared = self.of(peer)
        return () if shared is None else tuple((key.key_id, key.state) for key in shared.keys)

    def unsettled(self) -> list[int]:
        """Peers with which more than one key is shared: a change is under way, or was given up."""
        return sorted(peer for peer, shared in self._changed.items() if len(shared.keys) > 1)

    def wrapped(self, peer: int, key_id: int) -> bytes:
        """A key that is here, wrapped for the peer under what wraps keys (RFC 3394)."""
        # Loaded when first needed: it would take a twentieth of a second of every boot.
        from flightsw.wire.confidentiality import wrap_key

        shared = self.of(peer)
        key = None if shared is None else shared.key(key_id)
        assert shared is not None, f"no keys are shared with node {peer}"
        assert key is not None, f"key {key_id} is not here"
        return wrap_key(shared.master, key.secret)

    def _move(self, peer: int, key_id: int, before: KeyState, after: KeyState) -> str | None:
        shared = self.of(peer)
        key = None if shared is None else shared.key(key_id)
        if shared is None or key is None:
            was_here = shared is not None and 0 < key_id <= shared.last_id
            return None if was_here and after is KeyState.DEACTIVATED else f"key {key_id} is not here"
        if key.state is after:
            return None
        if key.state is not before:
            return f"key {key_id} is {key.state.name}, expected {before.name}"
        if before is KeyState.ACTIVE and sum(one.state is KeyState.ACTIVE for one in shared.keys) == 1:
            return f"key {key_id} is the last active one"
        moved = TrafficKey(key_id, after, key.secret)
        keys = tuple(moved if one is key else one for one in shared.keys)
        self._change(peer, PeerKeys(shared.master, keys, shared.last_id))
        return None

    def _change(self, peer: int, shared: PeerKeys) -> None:
        """Durable first, then in force."""
        changed = {**self._changed, peer: shared}
        self._save(changed)
        self._changed = changed
        self._sending.pop(peer, None)
        for one in [one for one in self._live if one[0] == peer]:
            del self._live[one]

    def _made_live(self, peer: int, key: TrafficKey) -> LiveKey:
        live = self._live.get((peer, key.key_id))
        if live is None:
            live = self._live[peer, key.key_id] = LiveKey(key)
        return live

    def _save(self, peers: Mapping[int, PeerKeys]) -> None:
        if self._disk is None:
            return
        record = msgspec.to_builtins(_Record(self.node, tuple(sorted(peers.items()))), builtin_types=(bytes,))
        sealed = seal(cbor.dumps(record, RECORD_BYTES_MAX))
        for name in KEY_FILES:
            self._disk.replace(name, sealed)

    def _load(self, disk: Disk) -> None:
        found = [disk.read(name) if disk.exists(name) else None for name in KEY_FILES]
        records = [self._unpacked(content) for content in found]
        record = next((one for one in records if one is not None), None)
        self.damaged_count = sum(
            one is None and content is not None for one, content in zip(records, found, strict=True)
        )
        if record is None:
            self._changed = dict(self._ring.peers)
            if self._changed:
                self._save(self._changed)
            return
        if record.node != self.node:
            raise StorageError(f"{KEY_FILES[0]}: keys of node {record.node}, this is node {self.node}")
        self._changed = {**self._ring.peers, **dict(record.peers)}
        if found[0] != found[1] or self._changed != dict(record.peers):
            self._save(self._changed)  # the power failed between the copies, one is rotten, or there are new peers

    def _unpacked(self, content: bytes | None) -> _Record | None:
        if content is None:
            return None
        try:
            value = cbor.loads(unseal(content), RECORD_BYTES_MAX)
            record = msgspec.convert(value, _Record, builtin_types=(bytes,), strict=True)
        except (StorageError, MessageError, msgspec.ValidationError):
            return None  # counted by the caller
        return None if any(_fault(shared) is not None for _, shared in record.peers) else record


def expand(key: bytes, purpose: bytes) -> bytes:
    """A key of 32 bytes for a purpose: HKDF-Expand with SHA-256, one block. Source: RFC 5869 §2.3."""
    return hmac.digest(key, purpose + b"\x01", "sha256")


def derived_rings(root: bytes, nodes: Sequence[int], ground: int) -> dict[int, KeyRing]:
    """Rings of a whole fleet from one secret, for benches: worked out pair by pair, when a pair first speaks.

    Args:
        root: the secret.
        nodes: numbers of the nodes.
        ground: number of the ground.
    """
    known = frozenset((*nodes, ground))
    return {node: KeyRing(node, {}, partial(_derived, root, known, node)) for node in sorted(known)}


def _derived(root: bytes, known: frozenset[int], node: int, peer: int) -> PeerKeys | None:
    if peer not in known or peer == node:
        return None
    pair = _PAIR.pack(min(node, peer), max(node, peer))
    key = TrafficKey(1, KeyState.ACTIVE, expand(root, b"flatrack traffic key 1" + pair))
    return PeerKeys(expand(root, b"flatrack master key" + pair), (key,), 1)


def fingerprint(secret: bytes) -> str:
    """What may be shown of a key: 8 bytes of a digest, as hex."""
    return hashlib.blake2b(secret, digest_size=8, person=b"fingerprint").hexdigest()


def without_keys(node: int) -> KeyRing:
    """An empty ring: the node signs nothing and refuses all that must be signed."""
    return KeyRing(node)
