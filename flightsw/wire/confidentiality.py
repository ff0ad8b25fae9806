"""Block confidentiality blocks: BCB-AES-GCM (RFC 9173 §4), and the AES key wrap of both contexts (RFC 3394).

The ciphertext replaces the target's data and is as long; the tag stands in the block's results. A block has one
initialisation vector for all its targets, and GCM breaks when one comes twice under a key: encrypt one target with each
block, as `flightsw.net.security` does. More than one is for reading what others made (RFC 9173 A.4).
"""

from dataclasses import replace
from enum import IntEnum, unique
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from flightsw.errors import BundleError
from flightsw.wire.bundles import CRC_NONE, BlockFlags, Bundle, CanonicalBlock
from flightsw.wire.eids import Eid
from flightsw.wire.security import (
    BLOCK_CONFIDENTIALITY,
    BLOCK_INTEGRITY,
    CONTEXT_AES_GCM,
    NUMBER_PRIMARY,
    SCOPE_ALL,
    SecurityBlock,
    Value,
    decode_security,
    encode_security,
    result_of,
    scope_of,
    scoped,
    security_blocks,
    target_block,
    with_target,
)

PARAMETER_IV: Final = 1
PARAMETER_VARIANT: Final = 2
PARAMETER_WRAPPED_KEY: Final = 3
PARAMETER_SCOPE: Final = 4
"""Parameters of the context, RFC 9173 §4.3."""

IV_BYTES: Final = 12
"""Initialisation vector that we write [bytes]; RFC 9173 §4.3.1 recommends it and allows 8 to 16."""
IV_BYTES_MIN: Final = 8
IV_BYTES_MAX: Final = 16
"""Of those that we read [bytes]. Source: RFC 9173 §4.3.1."""
TAG_BYTES: Final = 16
"""Authentication tag [bytes], RFC 9173 §4.4.1."""
WRAP_BYTES: Final = 8
"""What key wrap adds to a key [bytes], RFC 3394 §2.2."""


@unique
class AesVariant(IntEnum):
    """AES variants by their COSE numbers, RFC 9173 §4.3.2."""

    A128GCM = 1
    A256GCM = 3


_KEY_BYTES: Final = {AesVariant.A128GCM: 16, AesVariant.A256GCM: 32}


def encrypt(
    bundle: Bundle,
    targets: tuple[int, ...],
    *,
    number: int,
    source: Eid,
    key: bytes,
    iv: bytes,
    variant: AesVariant = AesVariant.A256GCM,
    scope: int = SCOPE_ALL,
    wrapped_key: bytes = b"",
    flags: int = BlockFlags.REPLICATE_IN_FRAGMENTS,
) -> Bundle:
    """The bundle with its targets encrypted, and the block confidentiality block that says how.

    Args:
        bundle: what to encrypt, signed before where it is to be signed.
        targets: block numbers.
        number: of the new block; nobody else's.
        source: who encrypts.
        key: 16 or 32 bytes, as the variant says.
        iv: never used before under this key.
        variant, scope: of the context.
        wrapped_key: the key for the recipient, wrapped under one that it has; none when empty.
        flags: `BlockFlags` of the new block; RFC 9172 §3.8 asks for replication where the payload is a target.

    Raises:
        BundleError: a target is missing, is encrypted already, or must not be (RFC 9172 §3.8).
    """
    assert len(key) == _KEY_BYTES[variant], f"{variant.name} with a key of {len(key)} bytes"
    _check_targets(bundle, targets)
    for target in targets:
        bundle = with_target(bundle, target)
    block = CanonicalBlock(BLOCK_CONFIDENTIALITY, number, flags, CRC_NONE, b"")
    sealed: dict[int, bytes] = {}
    for target in targets:
        plain = target_block(bundle, target)
        sealed[target] = _cipher(key).encrypt(iv, plain.data, scoped(bundle, scope, plain, block))
    for target, text in sealed.items():
        bundle = with_target(bundle, target, text[:-TAG_BYTES])
    parameters: list[tuple[int, Value]] = [
        (PARAMETER_IV, iv),
        (PARAMETER_VARIANT, int(variant)),
    ]
    if wrapped_key:
        parameters.append((PARAMETER_WRAPPED_KEY, wrapped_key))
    parameters.append((PARAMETER_SCOPE, scope))
    results = tuple(((1, sealed[target][-TAG_BYTES:]),) for target in targets)
    security = SecurityBlock(targets, CONTEXT_AES_GCM, source, tuple(parameters), results)
    return replace(bundle, blocks=(block._replace(data=encode_security(security)), *bundle.blocks))


def decrypt(bundle: Bundle, block: CanonicalBlock, key: bytes) -> Bundle | None:
    """The bundle with the targets of a block confidentiality block in plain, and without that block.

    Returns:
        None when a tag does not hold: another key, or changed bytes.

    Raises:
        BundleError: the block is none of this context, does not fit the key, or a target is missing.
    """
    security = decode_security(block.data)
    if block.type != BLOCK_CONFIDENTIALITY or security.context != CONTEXT_AES_GCM:
        raise BundleError(f"security block: type {block.type} with context {security.context} is no BCB-AES-GCM")
    variant = security.parameter(PARAMETER_VARIANT, int(AesVariant.A256GCM))
    if variant not in (1, 3):
        raise BundleError(f"security block: AES variant: {variant!r}, 1 and 3 are defined")
    if len(key) != _KEY_BYTES[AesVariant(variant)]:
        raise BundleError(f"security block: AES variant: {variant} does not fit a key of {len(key)} bytes")
    iv = security.parameter(PARAMETER_IV)
    if not isinstance(iv, bytes) or not IV_BYTES_MIN <= len(iv) <= IV_BYTES_MAX:
        raise BundleError(f"security block: IV: a byte string of {IV_BYTES_MIN} to {IV_BYTES_MAX} bytes is expected")
    scope = scope_of(security, PARAMETER_SCOPE)
    plain: dict[int, bytes] = {}
    for index, number in enumerate(security.targets):
        if number == NUMBER_PRIMARY:
            raise BundleError("security block: target: the primary block is never encrypted")
        target = target_block(bundle, number)
        tag = result_of(security, index, (TAG_BYTES,))
        try:
            plain[number] = _cipher(key).decrypt(iv, target.data + tag, scoped(bundle, scope, target, block))
        except InvalidTag:
            return None
    primary = bundle.primary_bytes
    for number, data in plain.items():
        bundle = with_target(bundle, number, data)
    bundle = replace(bundle, blocks=tuple(one for one in bundle.blocks if one.number != block.number))
    bundle.primary_bytes = primary
    return bundle


def wrap_key(wrapping_key: bytes, key: bytes) -> bytes:
    """A key under another one (AES key wrap, RFC 3394); 8 bytes longer."""
    return aes_key_wrap(wrapping_key, key)


def unwrap_key(wrapping_key: bytes, wrapped: bytes) -> bytes:
    """The key that was wrapped.

    Raises:
        BundleError: it was wrapped under another key, or was changed.
    """
    try:
        return aes_key_unwrap(wrapping_key, wrapped)
    except (InvalidUnwrap, ValueError):
        raise BundleError(f"wrapped key: {len(wrapped)} bytes that this key did not wrap") from None


@lru_cache(maxsize=64)  # its key schedule costs more than a short text; a node speaks to few peers in confidence
def _cipher(key: bytes) -> AESGCM:
    return AESGCM(key)


def _check_targets(bundle: Bundle, targets: tuple[int, ...]) -> None:
    blocks = {block.number: decode_security(block.data) for block in security_blocks(bundle, BLOCK_CONFIDENTIALITY)}
    encrypted = {target for security in blocks.values() for target in security.targets}
    for target in targets:
        if target == NUMBER_PRIMARY or target in blocks:
            raise BundleError(f"security block: target: block {target} must not be encrypted")
        if target in encrypted:
            raise BundleError(f"security block: target: block {target} is encrypted already")
        block = target_block(bundle, target)
        if block.type == BLOCK_INTEGRITY and not set(decode_security(block.data).targets) & (encrypted | {*targets}):
            raise BundleError(f"security block: target: BIB {target} shares no target with what is encrypted")
