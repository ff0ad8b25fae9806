"""Security of bundles at their source and at their destination. What lies between passes security blocks on untouched.

At the source: a tag (BIB-HMAC-SHA2, 256 bits) over the payload, the primary block and the headers of both blocks, so
that source, destination, sequence number and lifetime are authentic; where it is asked for, then payload and tag block
are encrypted (BCB-AES-GCM), each by a block of its own. At the destination, before anything is delivered: decrypt,
check the tag, check that the number is new. Age, hops, priority and previous node change on the way and are not
covered.

The number of the key is the service number of the security source, `ipn:<node>.<key number>`: the contexts of RFC 9173
have no parameter for it.

Initialisation vectors are 96 bits: node (32), sequence number of the bundle (63), and one bit that tells the payload
from the tag block. A source never uses a sequence number twice under a key, so no vector comes twice, and no entropy is
needed.
"""

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum, unique
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple

from flightsw.errors import BundleError, ConfigError, StorageError
from flightsw.net.keys import KeyFault, KeyStore, LiveKey
from flightsw.net.replay import Flow, ReplayGuard
from flightsw.ports import Disk
from flightsw.wire.bundles import BLOCK_PAYLOAD, CRC_NONE, Bundle, CanonicalBlock, encode_block, primary_block
from flightsw.wire.cbor import BYTES, encode_head
from flightsw.wire.eids import Eid
from flightsw.wire.integrity import PARAMETER_SCOPE, PARAMETER_SHA_VARIANT, ShaVariant, integrity_input
from flightsw.wire.messages import (
    SERVICE_COMMAND,
    SERVICE_DATA,
    SERVICE_EVENT,
    SERVICE_JOB,
    SERVICE_OBJECT,
    SERVICE_TELEMETRY,
)
from flightsw.wire.security import (
    BLOCK_CONFIDENTIALITY,
    BLOCK_INTEGRITY,
    CONTEXT_HMAC_SHA2,
    NUMBER_PAYLOAD,
    SCOPE_ALL,
    SecurityBlock,
    decode_security,
    encode_security,
)

NUMBER_TAG: Final = 6
NUMBER_SECRET_PAYLOAD: Final = 7
NUMBER_SECRET_TAG: Final = 8
"""Block numbers of what we add; 2 to 5 are previous node, age, hop count and priority."""

TAG_BYTES: Final = 32
NODE_NUMBER_MAX: Final = 0xFFFF_FFFF
SEQUENCE_MAX: Final = (1 << 63) - 1
"""What fits into an initialisation vector; a boot count of 2^31 above 32 bits of numbers is within."""

WINDOWS: Final = MappingProxyType(
    {
        SERVICE_COMMAND: 512,  # twice the jobs that a node takes: a command each, and the answers to them
        SERVICE_TELEMETRY: 512,  # an hour of beacons: a packet that waits at a relay for a pass is overtaken by them
        SERVICE_EVENT: 1024,  # three per second over a pass, while one of the first is sent again
        SERVICE_OBJECT: 4096,  # a full queue of one neighbour: so many chunks can overtake one that waits there
        SERVICE_JOB: 512,  # as commands
        SERVICE_DATA: 1024,  # four dumps of the largest size, while one part of the first is sent again
    }
)
"""Accepted numbers that are remembered of each source and service. What is refused because it was overtaken by more is
asked for again by its service under a new number: no message counts on being delivered once."""

WINDOW_OTHER: Final = 64
"""The same for all other services, which are signed only where somebody asks for it."""

DURABLE: Final = frozenset((SERVICE_COMMAND, SERVICE_JOB))
"""Services whose windows survive a reset: what a replay would do there is an act."""

REPORTED_MAX: Final = 64
"""Pairs of reason and source that are reported in one minute: a flood of forged sources fills no downlink."""
REPORT_PERIOD_NS: Final = 60_000_000_000
"""Each pair is reported once in this time [ns]; all are counted."""

_IPPT_SCOPE: Final = bytes((SCOPE_ALL,))
_IPPT_HEADERS: Final = bytes((BLOCK_PAYLOAD, 1, 0, BLOCK_INTEGRITY, NUMBER_TAG, 0))
"""Headers of payload block and tag block as they are protected: types, numbers and no flags."""
_PAYLOAD_HEAD: Final = (1, 0, CRC_NONE)
_PAYLOAD_START_BYTES: Final = 5
"""Array, type, number, flags and CRC type of a payload block without CRC; the byte string follows."""


@unique
class Reason(StrEnum):
    """Why a bundle is refused."""

    NO_KEYS = "NO_KEYS"
    """Nothing is shared with its source."""
    NO_TAG = "NO_TAG"
    """It must be signed and is not."""
    BAD_TAG = "BAD_TAG"
    """The tag does not hold: forged, changed, or made for another bundle."""
    STALE_KEY = "STALE_KEY"
    """Signed with a key that is destroyed."""
    UNKNOWN_KEY = "UNKNOWN_KEY"
    """Signed with a key that never was here."""
    WRONG_NODE = "WRONG_NODE"
    """Signed or encrypted by another node than its source."""
    REPLAYED = "REPLAYED"
    """It came before, or is older than what is remembered."""
    BAD_BLOCK = "BAD_BLOCK"
    """A security block that does not decode, or does not cover what it must."""
    NOT_STORED = "NOT_STORED"
    """The disk did not take the number, so that a replay after a reset could not be told."""


_FAULTS: Final = {
    KeyFault.NO_KEYS: Reason.NO_KEYS,
    KeyFault.UNKNOWN: Reason.UNKNOWN_KEY,
    KeyFault.STALE: Reason.STALE_KEY,
}


class Verdict(NamedTuple):
    """What is to become of a bundle at its destination."""

    refusal: Reason | None
    authenticated: bool
    confidential: bool
    payload: bytes
    """In plain."""


class Refusal(NamedTuple):
    """One that is to be reported."""

    reason: Reason
    source_node: int
    """As the bundle says; nobody has proved it."""
    service: int


@dataclass(frozen=True, slots=True)
class SecurityPolicy:
    """What is signed, and must be."""

    sign_telemetry: bool = True
    """Whether telemetry is signed too. What is not signed is then taken only from a source that has never signed any:
    so a node without keys is seen, and none that has keys can be spoken for."""
    signed: frozenset[int] = frozenset((SERVICE_COMMAND, SERVICE_EVENT, SERVICE_OBJECT, SERVICE_JOB, SERVICE_DATA))
    """Services whose bundles are refused without a tag."""


class BundleSecurity:
    """Protects what a node sends and judges what it receives.

    Args:
        node: the node's number.
        keys: its keys.
        disk: keeps the windows of commands and jobs; None for memory only.
        policy: what is signed.

    Raises:
        ConfigError: a node number that does not fit into an initialisation vector.
        StorageError: the disk is broken.
    """

    def __init__(
        self, node: int, keys: KeyStore, disk: Disk | None = None, policy: SecurityPolicy | None = None
    ) -> None:
        if not 0 < node <= NODE_NUMBER_MAX:
            raise ConfigError(f"node {node}: expected 1 to {NODE_NUMBER_MAX} where bundles are secured")
        self.refused_counts: dict[str, int] = {}
        """By reason."""
        self.refusals: list[Refusal] = []
        """What is to be reported; the owner takes it out."""
        self._node = node
        self._keys = keys
        self._policy = SecurityPolicy() if policy is None else policy
        telemetry = {SERVICE_TELEMETRY} if self._policy.sign_telemetry else set()
        self._sign = self._policy.signed | telemetry
        self._replay = ReplayGuard(WINDOWS, WINDOW_OTHER, DURABLE, self._is_known, disk)
        self._reported_ns: dict[tuple[Reason, int], int] = {}

    @property
    def refused_count(self) -> int:
        """Bundles refused, all reasons."""
        return sum(self.refused_counts.values())

    def protect(self, bundle: Bundle, *, confidential: bool = False) -> Bundle:
        """Sign a bundle of ours, and encrypt it where that is asked for. Without keys it stays as it is.

        Args:
            bundle: just made, nobody else holds it; it is changed in place unless it is encrypted.
            confidential: encrypt payload and tag.

        Raises:
            ConfigError: it is to be encrypted, and there is no key for its destination.
        """
        peer, service = bundle.destination[:2]
        if service not in self._sign and not confidential:
            return bundle
        key = self._keys.sending(peer)
        if key is None:
            if confidential:
                raise ConfigError(f"a confidential message to node {peer}: no key is shared with it")
            return bundle
        bundle.payload_crc_type = CRC_NONE
        primary = bundle.primary_bytes = primary_block(bundle)
        payload = bundle.payload_block_bytes = encode_block(BLOCK_PAYLOAD, _PAYLOAD_HEAD, bundle.payload)
        tag = key.tag(b"".join((_IPPT_SCOPE, primary, _IPPT_HEADERS, payload[_PAYLOAD_START_BYTES:])))
        block = CanonicalBlock(BLOCK_INTEGRITY, NUMBER_TAG, 0, CRC_NONE, _tag_start(self._node, key.key_id) + tag)
        bundle.blocks = (*bundle.blocks, block)
        return self._encrypted(bundle, key) if confidential else bundle

    def accept(self, bundle: Bundle, now_ns: int) -> Verdict:
        """Judge a bundle for this node; what is refused is counted, and reported now and then.

        Args:
            bundle: decoded.
            now_ns: monotonic time [ns].
        """
        try:
            verdict = self._judge(bundle)
        except BundleError:
            verdict = _refused(Reason.BAD_BLOCK)
        except StorageError:
            verdict = _refused(Reason.NOT_STORED)
        if verdict.refusal is not None:
            self._note(Refusal(verdict.refusal, bundle.source.node, bundle.destination.service), now_ns)
        return verdict

    # -- inside

    def _judge(self, bundle: Bundle) -> Verdict:
        source, service = bundle.source.node, bundle.destination.service
        is_confidential = False
        for block in bundle.blocks:
            if block.type == BLOCK_CONFIDENTIALITY:
                opened = self._decrypted(bundle, block)
                if isinstance(opened, Reason):
                    return _refused(opened)
                bundle, is_confidential = opened, True
        for block in bundle.blocks:
            if block.type != BLOCK_INTEGRITY:
                continue
            signer = _signer(block.data[:-TAG_BYTES])
            if signer is None:
                _require_other_target(block)
                continue
            if signer[0] != source:
                return _refused(Reason.WRONG_NODE)
            key = self._keys.verifying(source, signer[1])
            if isinstance(key, KeyFault):
                return _refused(_FAULTS[key])
            if not hmac.compare_digest(key.tag(_signed_bytes(bundle, block)), block.data[-TAG_BYTES:]):
                return _refused(Reason.BAD_TAG)
            if not self._replay.accept(Flow(source, service, key.key_id), bundle.creation[1]):
                return _refused(Reason.REPLAYED)
            return Verdict(None, True, is_confidential, bundle.payload)
        if service in self._sign and not self._is_first_word(source, service):
            return _refused(Reason.NO_KEYS if self._keys.of(source) is None else Reason.NO_TAG)
        return Verdict(None, False, is_confidential, bundle.payload)

    def _is_first_word(self, source: int, service: int) -> bool:
        """Whether unsigned telemetry is taken: the source has signed none so far."""
        if service in self._policy.signed:
            return False
        shared = self._keys.of(source)
        return shared is None or not any(
            self._replay.has_heard(Flow(source, service, key.key_id)) for key in shared.keys
        )

    def _encrypted(self, bundle: Bundle, key: LiveKey) -> Bundle:
        # Loaded when first needed: it would take a twentieth of a second of every boot.
        from flightsw.wire.confidentiality import encrypt

        source, secret, sequence = Eid(self._node, key.key_id), key.encryption_key(), bundle.creation[1]
        for number, target in ((NUMBER_SECRET_PAYLOAD, NUMBER_PAYLOAD), (NUMBER_SECRET_TAG, NUMBER_TAG)):
            vector = initialisation_vector(self._node, sequence, target)
            bundle = encrypt(bundle, (target,), number=number, source=source, key=secret, iv=vector)
        return bundle

    def _decrypted(self, bundle: Bundle, block: CanonicalBlock) -> Bundle | Reason:
        from flightsw.wire.confidentiality import decrypt  # as above

        source = decode_security(block.data).source
        if source.node != bundle.source.node:
            return Reason.WRONG_NODE
        key = self._keys.verifying(source.node, source.service)
        if isinstance(key, KeyFault):
            return _FAULTS[key]
        opened = decrypt(bundle, block, key.encryption_key())
        return Reason.BAD_TAG if opened is None else opened

    def _is_known(self, node: int, key_id: int) -> bool:
        shared = self._keys.of(node)
        return shared is not None and shared.key(key_id) is not None

    def _note(self, refusal: Refusal, now_ns: int) -> None:
        counts, reported_ns = self.refused_counts, self._reported_ns
        counts[refusal.reason] = counts.get(refusal.reason, 0) + 1
        pair = (refusal.reason, refusal.source_node)
        since_ns = reported_ns.get(pair)
        if since_ns is not None and now_ns - since_ns < REPORT_PERIOD_NS:
            return
        if since_ns is None and len(reported_ns) >= REPORTED_MAX:
            for old in [one for one, at_ns in reported_ns.items() if now_ns - at_ns >= REPORT_PERIOD_NS]:
                del reported_ns[old]
            if len(reported_ns) >= REPORTED_MAX:
                return
        reported_ns[pair] = now_ns
        self.refusals.append(refusal)


def initialisation_vector(node: int, sequence: int, target: int) -> bytes:
    """The vector for a block of a bundle: payload or tag block."""
    assert sequence <= SEQUENCE_MAX, f"sequence number {sequence} would share a vector with another"
    return node.to_bytes(4, "big") + (sequence << 1 | (target == NUMBER_TAG)).to_bytes(8, "big")


def key_ids(blocks: Iterable[CanonicalBlock]) -> list[tuple[int, int]]:
    """(block type, number of the key) of the security blocks that can be read; for tools that show bundles.

    Raises:
        BundleError: a security block that is none, or is itself encrypted.
    """
    kinds = (BLOCK_INTEGRITY, BLOCK_CONFIDENTIALITY)
    return [(block.type, decode_security(block.data).source.service) for block in blocks if block.type in kinds]


def _refused(reason: Reason) -> Verdict:
    return Verdict(reason, False, False, b"")


@lru_cache(maxsize=4096)  # one for each key in use
def _tag_start(node: int, key_id: int) -> bytes:
    """The data of our tag block up to the tag."""
    parameters = ((PARAMETER_SHA_VARIANT, int(ShaVariant.HMAC_256)), (PARAMETER_SCOPE, SCOPE_ALL))
    results = (((1, bytes(TAG_BYTES)),),)
    block = SecurityBlock((NUMBER_PAYLOAD,), CONTEXT_HMAC_SHA2, Eid(node, key_id), parameters, results)
    return encode_security(block)[:-TAG_BYTES]


@lru_cache(maxsize=8192)  # one for each node and key that is heard; noise only drives them out
def _signer(start: bytes) -> tuple[int, int] | None:
    """(node, number of the key) of a tag block that begins like this and ends with a tag; None when it is another."""
    try:
        block = decode_security(start + bytes(TAG_BYTES))
    except BundleError:
        return None
    node, key_id, _ = block.source
    return (node, key_id) if start == _tag_start(node, key_id) else None


def _require_other_target(block: CanonicalBlock) -> None:
    """A tag block of another kind may be there, but not over the payload: it would not cover what it must.

    Raises:
        BundleError: it is over the payload, or none at all.
    """
    if NUMBER_PAYLOAD in decode_security(block.data).targets:
        raise BundleError("security block: a tag over the payload is HMAC-SHA-256 with all scope flags, and alone")


def _signed_bytes(bundle: Bundle, block: CanonicalBlock) -> bytes:
    """The bytes under the tag of a received bundle."""
    if bundle.payload_flags or block.number != NUMBER_TAG or block.flags or not bundle.primary_bytes:
        return integrity_input(bundle, NUMBER_PAYLOAD, SCOPE_ALL, block)
    payload = bundle.payload
    return b"".join((_IPPT_SCOPE, bundle.primary_bytes, _IPPT_HEADERS, encode_head(BYTES, len(payload)), payload))
