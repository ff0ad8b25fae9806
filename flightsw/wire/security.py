"""Bundle Protocol Security (RFC 9172): the blocks that protect other blocks of a bundle, as bytes and as values.

The data of a block integrity block (BIB, type 11) and of a block confidentiality block (BCB, type 12) is an abstract
security block, a CBOR sequence (RFC 9172 §3.6):

| item | CBOR |
|---|---|
| targets | array of block numbers, 0 for the primary block |
| context | 1 BIB-HMAC-SHA2, 2 BCB-AES-GCM (RFC 9173) |
| flags | 1 when parameters follow |
| source | endpoint of the node that added the block |
| parameters | array of [number, value] |
| results | for each target, in order, an array of [number, value] |

Values are unsigned integers or byte strings: all that the two contexts of RFC 9173 have. What they protect is the
*canonical form* of the target, with as much of the bundle around it as the scope flags name. `integrity` and
`confidentiality` compute over what `scoped` and `target_block` give. Nothing here holds a key.
"""

from dataclasses import replace
from enum import IntFlag
from typing import Final, NamedTuple, TypeAlias

from flightsw.errors import BundleError, MessageError
from flightsw.wire.bundles import (
    BLOCK_AGE,
    BLOCK_HOP_COUNT,
    BLOCK_PAYLOAD,
    BLOCK_PREVIOUS_NODE,
    BUNDLE_BLOCKS_MAX,
    CRC_NONE,
    Bundle,
    CanonicalBlock,
    primary_block,
)
from flightsw.wire.cbor import ARRAY, BYTES, UNSIGNED, encode_head, read_bytes, read_head
from flightsw.wire.eids import Eid, encode_eid, read_eid

BLOCK_INTEGRITY: Final = 11
BLOCK_CONFIDENTIALITY: Final = 12
"""Block types, RFC 9172 §11.1."""

CONTEXT_HMAC_SHA2: Final = 1
CONTEXT_AES_GCM: Final = 2
"""Security context identifiers, RFC 9173 §5.1."""

NUMBER_PRIMARY: Final = 0
NUMBER_PAYLOAD: Final = 1

PARAMETERS_MAX: Final = 8
"""Most parameters of a block: BCB-AES-GCM has four. Bounds the work that hostile bytes may ask for."""
RESULTS_MAX: Final = 4
"""Most results for one target: both contexts have one."""

_PARAMETERS_PRESENT: Final = 1

Value: TypeAlias = int | bytes


class Scope(IntFlag):
    """What is protected beside the target: integrity scope flags and AAD scope flags, RFC 9173 §3.3.3 and §4.3.4."""

    PRIMARY = 1
    TARGET_HEADER = 2
    SECURITY_HEADER = 4


SCOPE_ALL: Final = 7
"""The default of both contexts. With it a target cannot move to another bundle or to another block of its own."""


class SecurityBlock(NamedTuple):
    """An abstract security block."""

    targets: tuple[int, ...]
    context: int
    source: Eid
    parameters: tuple[tuple[int, Value], ...]
    results: tuple[tuple[tuple[int, Value], ...], ...]
    """For each target, in the order of the targets."""

    def parameter(self, number: int, default: Value | None = None) -> Value | None:
        """The value of a parameter."""
        return next((value for own, value in self.parameters if own == number), default)


def encode_security(block: SecurityBlock) -> bytes:
    """The data of a security block."""
    assert len(block.results) == len(block.targets) > 0, "each target has its results"
    parts = [encode_head(ARRAY, len(block.targets)), *(encode_head(UNSIGNED, number) for number in block.targets)]
    parts.append(encode_head(UNSIGNED, block.context))
    parts.append(encode_head(UNSIGNED, _PARAMETERS_PRESENT if block.parameters else 0))
    parts.append(encode_eid(block.source))
    if block.parameters:
        parts.append(_encode_pairs(block.parameters))
    parts.append(encode_head(ARRAY, len(block.results)))
    parts += [_encode_pairs(results) for results in block.results]
    return b"".join(parts)


def _encode_pairs(pairs: tuple[tuple[int, Value], ...]) -> bytes:
    parts = [encode_head(ARRAY, len(pairs))]
    for number, value in pairs:
        parts.append(b"\x82" + encode_head(UNSIGNED, number))
        parts.append(
            encode_head(BYTES, len(value)) + value if isinstance(value, bytes) else encode_head(UNSIGNED, value)
        )
    return b"".join(parts)


def decode_security(data: bytes) -> SecurityBlock:
    """The abstract security block in the data of a BIB or BCB.

    Raises:
        BundleError: it is none, or not of a context of RFC 9173; names the field.
    """
    try:
        block, at = _read_security(data)
    except MessageError as error:
        raise BundleError(f"security block: {error}") from None
    if at != len(data):
        raise BundleError(f"security block: {len(data) - at} bytes after the results")
    return block


def _read_security(data: bytes) -> tuple[SecurityBlock, int]:
    count, at = read_head(data, 0, ARRAY, "targets")
    if not 1 <= count <= BUNDLE_BLOCKS_MAX:
        raise MessageError(f"targets: {count}, from 1 to {BUNDLE_BLOCKS_MAX} are taken")
    targets = []
    for _ in range(count):
        number, at = read_head(data, at, UNSIGNED, "target")
        if number in targets:
            raise MessageError(f"target: {number} is named twice")
        targets.append(number)
    context, at = read_head(data, at, UNSIGNED, "context")
    if context not in (CONTEXT_HMAC_SHA2, CONTEXT_AES_GCM):
        raise MessageError(f"context: {context}, those of RFC 9173 are 1 and 2")
    flags, at = read_head(data, at, UNSIGNED, "flags")
    if flags > _PARAMETERS_PRESENT:
        raise MessageError(f"flags: {flags}, 0 or 1 are defined")
    source, at = read_eid(data, at, "source")
    parameters: tuple[tuple[int, Value], ...] = ()
    if flags & _PARAMETERS_PRESENT:
        parameters, at = _read_pairs(data, at, PARAMETERS_MAX, "parameters")
    results_count, at = read_head(data, at, ARRAY, "results")
    if results_count != count:
        raise MessageError(f"results: of {results_count} targets, {count} are named")
    results = []
    for _ in range(count):
        one, at = _read_pairs(data, at, RESULTS_MAX, "results")
        results.append(one)
    return SecurityBlock(tuple(targets), context, source, parameters, tuple(results)), at


def _read_pairs(data: bytes, at: int, count_max: int, field: str) -> tuple[tuple[tuple[int, Value], ...], int]:
    count, at = read_head(data, at, ARRAY, field)
    if count > count_max:
        raise MessageError(f"{field}: {count}, at most {count_max} are taken")
    pairs: list[tuple[int, Value]] = []
    for _ in range(count):
        elements_count, at = read_head(data, at, ARRAY, field)
        if elements_count != 2:
            raise MessageError(f"{field}: {elements_count} elements, pairs are expected")
        number, at = read_head(data, at, UNSIGNED, f"{field}: number")
        value: Value
        if data[at : at + 1] < b"\x40":
            value, at = read_head(data, at, UNSIGNED, f"{field}: value")
        else:
            value, at = read_bytes(data, at, f"{field}: value")
        if any(number == other for other, _ in pairs):
            raise MessageError(f"{field}: number {number} is there twice")
        pairs.append((number, value))
    return tuple(pairs), at


def security_blocks(bundle: Bundle, block_type: int) -> list[CanonicalBlock]:
    """The bundle's blocks of this type, in order."""
    return [block for block in bundle.blocks if block.type == block_type]


def target_block(bundle: Bundle, number: int) -> CanonicalBlock:
    """The block with this number, which is not the primary one.

    Raises:
        BundleError: the bundle has no such block.
    """
    if number == NUMBER_PAYLOAD:
        return CanonicalBlock(BLOCK_PAYLOAD, 1, bundle.payload_flags, bundle.payload_crc_type, bundle.payload)
    for block in bundle.blocks:
        if block.number == number:
            return block
    previous, age, hops = bundle.heads
    if bundle.previous_node is not None and previous[0] == number:
        return CanonicalBlock(BLOCK_PREVIOUS_NODE, *previous, encode_eid(bundle.previous_node))
    if bundle.age_ms is not None and age[0] == number:
        return CanonicalBlock(BLOCK_AGE, *age, encode_head(UNSIGNED, bundle.age_ms))
    if bundle.hop_count is not None and hops[0] == number:
        limit, made = bundle.hop_count
        data = b"\x82" + encode_head(UNSIGNED, limit) + encode_head(UNSIGNED, made)
        return CanonicalBlock(BLOCK_HOP_COUNT, *hops, data)
    raise BundleError(f"security block: target: the bundle has no block {number}")


def with_target(bundle: Bundle, number: int, data: bytes | None = None) -> Bundle:
    """The bundle with a block that a security operation has worked on: no CRC, and other data where they are given.

    RFC 9173 §3.8.1 and §4.8.1 take the CRC away: it would say what an encrypted block holds, and adds nothing to a tag.

    Raises:
        BundleError: there is no such block, or new data for one that every forwarder must read.
    """
    block = target_block(bundle, number)
    if number == NUMBER_PAYLOAD:
        return replace(bundle, payload=bundle.payload if data is None else data, payload_crc_type=CRC_NONE)
    changed = block._replace(crc_type=CRC_NONE, data=block.data if data is None else data)
    if block in bundle.blocks:
        return replace(bundle, blocks=tuple(changed if one is block else one for one in bundle.blocks))
    if data is not None:
        raise BundleError(f"security block: target: block {number} of type {block.type} cannot be encrypted")
    heads = [(*head[:2], CRC_NONE) if head[0] == number else head for head in bundle.heads]
    return replace(bundle, heads=(heads[0], heads[1], heads[2]))


def canonical_primary(bundle: Bundle) -> bytes:
    """The primary block as it is protected: its own bytes, CRC included."""
    return bundle.primary_bytes or primary_block(bundle)


def scoped(bundle: Bundle, scope: int, target: CanonicalBlock | None, security: CanonicalBlock) -> bytes:
    """What is protected before the target's own data: the scope flags, and what they name.

    Args:
        bundle: that the blocks are in.
        scope: `Scope`.
        target: the block that is protected, None for the primary block.
        security: the security block; only its header counts.

    Source: RFC 9173 §3.7 (IPPT) and §4.7.2 (AAD), which are alike up to here.
    """
    parts = [encode_head(UNSIGNED, scope)]
    if scope & Scope.PRIMARY and target is not None:
        parts.append(canonical_primary(bundle))
    if scope & Scope.TARGET_HEADER and target is not None:
        parts += [encode_head(UNSIGNED, value) for value in target[:3]]
    if scope & Scope.SECURITY_HEADER:
        parts += [encode_head(UNSIGNED, value) for value in security[:3]]
    return b"".join(parts)


def byte_string(data: bytes) -> bytes:
    """Data as a CBOR byte string, with the shortest head."""
    return encode_head(BYTES, len(data)) + data


def scope_of(block: SecurityBlock, number: int) -> int:
    """The scope flags of a security block, all when it does not say.

    Raises:
        BundleError: flags that are not defined.
    """
    scope = block.parameter(number, SCOPE_ALL)
    if not isinstance(scope, int) or scope > SCOPE_ALL:
        raise BundleError(f"security block: scope flags: {scope!r}, 0 to {SCOPE_ALL} are defined")
    return scope


def result_of(block: SecurityBlock, index: int, lengths: tuple[int, ...]) -> bytes:
    """The tag of the target at an index: the only result, number 1, of both contexts.

    Raises:
        BundleError: there is another result, or it has another length.
    """
    results = block.results[index]
    if len(results) != 1 or results[0][0] != 1 or not isinstance(value := results[0][1], bytes):
        raise BundleError("security block: results: one byte string with number 1 is expected for each target")
    if len(value) not in lengths:
        raise BundleError(f"security block: result: {len(value)} bytes, expected {' or '.join(map(str, lengths))}")
    return value
