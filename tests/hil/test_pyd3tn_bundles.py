"""pyD3TN reads our bundles and we read its own, and both write the same bytes again."""

import json
import random  # noqa: TID251 - seeded
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cbor2

from flightsw.wire.bundles import (
    CRC_16_X25,
    CRC_32C,
    CRC_NONE,
    Bundle,
    BundleFlags,
    CanonicalBlock,
    decode_bundle,
    encode_bundle,
)
from flightsw.wire.eids import DTN_NONE, Eid, parse_eid

BLOCK_PRIORITY = 192
"""Our priority block: of the private range of RFC 9171 §9.1."""


PEER = r"""
import json, sys
from pyd3tn.bundle7 import *

def eid(text):
    return EID(text)

def made(spec):
    kinds = {"previous": PreviousNodeBlock, "hops": HopCountBlock}
    primary = PrimaryBlock(
        bundle_proc_flags=BundleProcFlag(spec["flags"]), crc_type=CRCType(spec["crc"]),
        destination=eid(spec["destination"]), source=eid(spec["source"]), report_to=eid(spec["report_to"]),
        creation_time=tuple.__new__(CreationTimestamp, spec["creation"]), lifetime=spec["lifetime_ms"],
        fragment_offset=spec["offset"], total_payload_length=spec["total"])
    blocks = [
        CanonicalBlock(one["type"], bytes.fromhex(one["data"]), block_number=one["number"],
                       block_proc_flags=BlockProcFlag(one["flags"]), crc_type=CRCType(one["crc"]))
        for one in spec["blocks"]]
    payload = PayloadBlock(bytes.fromhex(spec["payload"]), crc_type=CRCType(spec["payload_crc"]))
    return bytes(Bundle(primary, payload, blocks))

def told(data):
    bundle = Bundle.parse(data)
    primary = bundle.primary_block
    return {
        "again": bytes(bundle).hex(), "flags": int(primary.bundle_proc_flags), "crc": int(primary.crc_type),
        "destination": str(primary.destination), "source": str(primary.source),
        "report_to": str(primary.report_to), "creation": list(primary.creation_time),
        "lifetime_ms": primary.lifetime, "payload": bundle.payload_block.data.hex(),
        "crcs_hold": all(one.crc_type == 0 or one.crc_provided == one.calculate_crc() for one in bundle),
        "blocks": [[int(one.block_type), one.block_number, one.data.hex()] for one in bundle.blocks],
    }

work = json.load(sys.stdin)
json.dump({
    "made": [made(spec).hex() for spec in work["make"]],
    "told": [told(bytes.fromhex(data)) for data in work["tell"]],
}, sys.stdout)
"""

BUNDLES_COUNT = 400


def ask_peer(python: Path, work: dict[str, Any]) -> dict[str, Any]:
    done = subprocess.run([python, "-c", PEER], input=json.dumps(work), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def any_number(rng: random.Random) -> int:
    """Of any length that CBOR has."""
    return rng.getrandbits(rng.choice((4, 5, 8, 9, 16, 17, 32, 33, 63)))


def any_eid(rng: random.Random) -> Eid:
    return DTN_NONE if rng.random() < 0.1 else Eid(any_number(rng), any_number(rng))


def any_bundle(rng: random.Random) -> Bundle:
    """Any bundle that pyD3TN can say: it knows no block types but those of RFC 9171, and ends in the year 9999."""
    flags = BundleFlags(0)
    for flag in BundleFlags:
        if flag is not BundleFlags.ADMINISTRATIVE_RECORD and rng.random() < 0.2:
            flags |= flag
    source = any_eid(rng)
    if source == DTN_NONE:
        flags = BundleFlags.MUST_NOT_FRAGMENT
    payload = rng.randbytes(rng.choice((0, 1, 23, 24, 255, 256, 2000)))
    fragment = bool(flags & BundleFlags.FRAGMENT)
    offset = any_number(rng) if fragment else 0
    numbers = rng.sample(range(2, 300), 3)
    crcs = (CRC_NONE, CRC_16_X25, CRC_32C)
    heads = [(number, rng.choice((0, 1, 2, 4, 0x10, 0x15)), rng.choice(crcs)) for number in numbers]
    return Bundle(
        any_eid(rng),
        source,
        any_eid(rng),
        (rng.choice((0, 1, rng.randrange(2**47))), any_number(rng)),
        any_number(rng),
        payload,
        int(flags),
        crc_type=rng.choice(crcs),
        payload_crc_type=rng.choice(crcs),
        fragment_offset=offset,
        total_length=offset + len(payload) + any_number(rng) if fragment else 0,
        previous_node=any_eid(rng) if rng.random() < 0.5 else None,
        age_ms=any_number(rng),
        hop_count=(rng.randrange(1, 256), rng.randrange(256)) if rng.random() < 0.5 else None,
        heads=(heads[0], heads[1], heads[2]),
    )


def canonical_blocks(bundle: Bundle) -> list[tuple[int, tuple[int, int, int], bytes]]:
    """(type, head, data) of the three known extension blocks, as this test's own CBOR."""
    blocks = []
    if bundle.previous_node is not None:
        eid = bundle.previous_node
        content = [1, 0] if eid == DTN_NONE else [2, [eid.node, eid.service]]
        blocks.append((6, bundle.heads[0], cbor2.dumps(content)))
    if bundle.age_ms is not None:
        blocks.append((7, bundle.heads[1], cbor2.dumps(bundle.age_ms)))
    if bundle.hop_count is not None:
        blocks.append((10, bundle.heads[2], cbor2.dumps(list(bundle.hop_count))))
    return blocks


def spec_of(bundle: Bundle) -> dict[str, Any]:
    """A bundle as the peer's script takes it."""
    return {
        "flags": bundle.flags,
        "crc": bundle.crc_type,
        "payload_crc": bundle.payload_crc_type,
        "destination": str(bundle.destination),
        "source": str(bundle.source),
        "report_to": str(bundle.report_to),
        "creation": bundle.creation,
        "lifetime_ms": bundle.lifetime_ms,
        "offset": bundle.fragment_offset,
        "total": bundle.total_length,
        "payload": bundle.payload.hex(),
        "blocks": [
            {"type": kind, "number": head[0], "flags": head[1], "crc": head[2], "data": data.hex()}
            for kind, head, data in canonical_blocks(bundle)
        ],
    }


def test_pyd3tn_reads_our_bundles_and_writes_the_same_bytes(peer_python: Callable[[str], Path]) -> None:
    rng = random.Random("pyd3tn reads")
    bundles = [any_bundle(rng) for _ in range(BUNDLES_COUNT)]
    encoded = [encode_bundle(bundle) for bundle in bundles]
    told = ask_peer(peer_python("pyd3tn"), {"make": [], "tell": [data.hex() for data in encoded]})["told"]
    assert len(told) == BUNDLES_COUNT
    for bundle, data, theirs in zip(bundles, encoded, told, strict=True):
        assert theirs.pop("again") == data.hex()
        assert theirs.pop("crcs_hold") is True
        ours = spec_of(bundle)
        blocks = [[one["type"], one["number"], one["data"]] for one in ours["blocks"]]
        assert theirs == {name: ours[name] for name in theirs} | {"creation": list(bundle.creation), "blocks": blocks}


def test_we_read_bundles_of_pyd3tn_and_write_the_same_bytes(peer_python: Callable[[str], Path]) -> None:
    rng = random.Random("pyd3tn writes")
    bundles = [any_bundle(rng) for _ in range(BUNDLES_COUNT)]
    made = ask_peer(peer_python("pyd3tn"), {"make": [spec_of(bundle) for bundle in bundles], "tell": []})["made"]
    assert len(made) == BUNDLES_COUNT
    for bundle, data in zip(bundles, made, strict=True):
        read = decode_bundle(bytes.fromhex(data))
        assert encode_bundle(read).hex() == data
        assert replace(read, heads=bundle.heads) == bundle


def test_we_read_extension_blocks_of_pyd3tn_that_neither_knows(peer_python: Callable[[str], Path]) -> None:
    spec = spec_of(Bundle(Eid(1, 2), Eid(3, 4), parse_eid("ipn:3.0"), (1000, 7), 60_000, b"payload", age_ms=1))
    unknown = {"type": BLOCK_PRIORITY, "number": 9, "flags": 1, "crc": CRC_16_X25, "data": "05"}
    spec["blocks"].append(unknown)
    (data,) = ask_peer(peer_python("pyd3tn"), {"make": [spec], "tell": []})["made"]
    read = decode_bundle(bytes.fromhex(data))
    assert read.blocks == (CanonicalBlock(BLOCK_PRIORITY, 9, 1, CRC_16_X25, b"\x05"),)
    assert encode_bundle(read).hex() == data
