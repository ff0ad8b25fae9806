"""Block integrity blocks: BIB-HMAC-SHA2 (RFC 9173 §3). A tag over a block, and over what the scope flags add to it.

`sign` and `verify` serve any target, variant and scope; they are the reference. What a node does for each bundle, one
tag over payload and primary block, is `flightsw.net.security`, which is faster and gives the same bytes.
"""

import hmac
from dataclasses import replace
from enum import IntEnum, unique
from typing import Final

from flightsw.errors import BundleError
from flightsw.wire.bundles import CRC_NONE, Bundle, CanonicalBlock
from flightsw.wire.eids import Eid
from flightsw.wire.security import (
    BLOCK_CONFIDENTIALITY,
    BLOCK_INTEGRITY,
    CONTEXT_HMAC_SHA2,
    NUMBER_PRIMARY,
    SCOPE_ALL,
    SecurityBlock,
    Value,
    byte_string,
    canonical_primary,
    decode_security,
    encode_security,
    result_of,
    scope_of,
    scoped,
    security_blocks,
    target_block,
    with_target,
)

PARAMETER_SHA_VARIANT: Final = 1
PARAMETER_WRAPPED_KEY: Final = 2
PARAMETER_SCOPE: Final = 3
"""Parameters of the context, RFC 9173 §3.3."""


@unique
class ShaVariant(IntEnum):
    """SHA variants by their COSE numbers, RFC 9173 §3.3.1."""

    HMAC_256 = 5
    HMAC_384 = 6
    HMAC_512 = 7


_DIGESTS: Final = {ShaVariant.HMAC_256: "sha256", ShaVariant.HMAC_384: "sha384", ShaVariant.HMAC_512: "sha512"}
_TAG_BYTES: Final = {ShaVariant.HMAC_256: 32, ShaVariant.HMAC_384: 48, ShaVariant.HMAC_512: 64}


def integrity_input(bundle: Bundle, number: int, scope: int, block: CanonicalBlock) -> bytes:
    """The integrity-protected plaintext (IPPT) of a target, RFC 9173 §3.7.

    A primary block that is itself the target goes in as a byte string, as in RFC 9173 A.3.3.1.

    Raises:
        BundleError: the bundle has no such block.
    """
    if number == NUMBER_PRIMARY:
        return scoped(bundle, scope, None, block) + byte_string(canonical_primary(bundle))
    target = target_block(bundle, number)
    return scoped(bundle, scope, target, block) + byte_string(target.data)


def sign(
    bundle: Bundle,
    targets: tuple[int, ...],
    *,
    number: int,
    source: Eid,
    key: bytes,
    variant: ShaVariant = ShaVariant.HMAC_256,
    scope: int = SCOPE_ALL,
    wrapped_key: bytes = b"",
    flags: int = 0,
) -> Bundle:
    """The bundle with a block integrity block, and without the CRCs of the targets.

    Args:
        bundle: what to sign.
        targets: block numbers, 0 for the primary block.
        number: of the new block; nobody else's.
        source: who signs.
        key: as long as the digest or longer, to be as strong.
        variant, scope: of the context.
        wrapped_key: the key for the verifier, wrapped under one that it has; none when empty.
        flags: `BlockFlags` of the new block.

    Raises:
        BundleError: a target is missing, is a security block, is signed already, or is encrypted (RFC 9172 §3.7, §3.9).
    """
    _check_targets(bundle, targets)
    for target in targets:
        if target != NUMBER_PRIMARY:
            bundle = with_target(bundle, target)
    block = CanonicalBlock(BLOCK_INTEGRITY, number, flags, CRC_NONE, b"")
    parameters: list[tuple[int, Value]] = [(PARAMETER_SHA_VARIANT, int(variant))]
    if wrapped_key:
        parameters.append((PARAMETER_WRAPPED_KEY, wrapped_key))
    parameters.append((PARAMETER_SCOPE, scope))
    results = tuple(
        ((1, hmac.digest(key, integrity_input(bundle, target, scope, block), _DIGESTS[variant])),) for target in targets
    )
    security = SecurityBlock(targets, CONTEXT_HMAC_SHA2, source, tuple(parameters), results)
    return replace(bundle, blocks=(block._replace(data=encode_security(security)), *bundle.blocks))


def verify(bundle: Bundle, block: CanonicalBlock, key: bytes) -> bool:
    """Whether all tags of a block integrity block hold.

    Raises:
        BundleError: the block is none of this context, or a target is missing.
    """
    security = decode_security(block.data)
    if block.type != BLOCK_INTEGRITY or security.context != CONTEXT_HMAC_SHA2:
        raise BundleError(f"security block: type {block.type} with context {security.context} is no BIB-HMAC-SHA2")
    variant = sha_variant(security)
    scope = scope_of(security, PARAMETER_SCOPE)
    holds = True
    for index, target in enumerate(security.targets):
        tag = result_of(security, index, (_TAG_BYTES[variant],))
        expected = hmac.digest(key, integrity_input(bundle, target, scope, block), _DIGESTS[variant])
        holds &= hmac.compare_digest(tag, expected)
    return holds


def sha_variant(security: SecurityBlock) -> ShaVariant:
    """The SHA variant of a block; 384 when it does not say (RFC 9173 §3.3.1).

    Raises:
        BundleError: a number that is not defined.
    """
    value = security.parameter(PARAMETER_SHA_VARIANT, int(ShaVariant.HMAC_384))
    if value not in (5, 6, 7):
        raise BundleError(f"security block: SHA variant: {value!r}, 5, 6 and 7 are defined")
    return ShaVariant(value)


def _check_targets(bundle: Bundle, targets: tuple[int, ...]) -> None:
    encrypted = {
        target
        for block in security_blocks(bundle, BLOCK_CONFIDENTIALITY)
        for target in decode_security(block.data).targets
    }
    signed = {
        target
        for block in security_blocks(bundle, BLOCK_INTEGRITY)
        if block.number not in encrypted
        for target in decode_security(block.data).targets
    }
    for target in targets:
        if target in signed:
            raise BundleError(f"security block: target: block {target} is signed already")
        if target in encrypted:
            raise BundleError(f"security block: target: block {target} is encrypted, which comes after signing")
        if target != NUMBER_PRIMARY and target_block(bundle, target).type in (BLOCK_INTEGRITY, BLOCK_CONFIDENTIALITY):
            raise BundleError(f"security block: target: block {target} is a security block")
