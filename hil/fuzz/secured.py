"""Decoders around security: security blocks, bundles that claim to be signed, keys and windows on the disk.

The promise that matters: whatever is done to a bundle, what is accepted as authentic is what its source has signed.
"""

from dataclasses import replace
from functools import cache
from typing import Final

from flightsw.errors import BundleError, StorageError
from flightsw.net.keys import KEY_FILES, KeyRing, KeyStore, derived_rings
from flightsw.net.replay import LOG_NAME
from flightsw.net.security import BundleSecurity
from flightsw.ports import Random
from flightsw.storage.copies import SUFFIXES
from flightsw.storage.entries import Entry, entry_bytes
from flightsw.storage.records import seal
from flightsw.wire import cbor
from flightsw.wire.admin import STATUSES_COUNT, decode_status_report, encode_status_report
from flightsw.wire.aggregates import split_bundles
from flightsw.wire.bundles import Bundle, CanonicalBlock, decode_bundle, encode_bundle
from flightsw.wire.eids import DTN_NONE, Eid
from flightsw.wire.messages import SERVICE_COMMAND, SERVICE_OBJECT
from flightsw.wire.security import decode_security, encode_security
from hil.fuzz.cbor_samples import cbor_sample, plain, written, wrong
from hil.fuzz.decoders import Decoder
from hil.fuzz.mutation import EDGES, mutated
from hil.fuzz.stored import disk_with
from hil.fuzz.wire_samples import bundle_sample, endpoint, number

SENDER: Final = 1
RECEIVER: Final = 2
OTHER: Final = 3
ROOT_SECRET: Final = bytes(range(32))
SIGNED_PAYLOAD: Final = b"what the source has said"
SERVICES: Final = (SERVICE_COMMAND, SERVICE_OBJECT)
SEQUENCES: Final = (1, 2, 3)
LIFETIME_MS: Final = 3_600_000


@cache
def rings() -> dict[int, KeyRing]:
    """The keys of three nodes."""
    return derived_rings(ROOT_SECRET, (SENDER, RECEIVER, OTHER), SENDER)


@cache
def security_of(node: int) -> BundleSecurity:
    """What a node signs with; it keeps no windows, so it may be shared."""
    return BundleSecurity(node, KeyStore(rings()[node]))


def sound(service: int, sequence: int, source: int = SENDER) -> Bundle:
    """One of the few bundles that a source has ever sent, before it is signed."""
    eids = (Eid(RECEIVER, service), Eid(source, 0), DTN_NONE)
    return Bundle(*eids, (1, sequence), LIFETIME_MS, SIGNED_PAYLOAD, age_ms=0, hop_count=(64, 0))


@cache
def signed(service: int, sequence: int, source: int, confidential: bool) -> Bundle:
    """It, signed and perhaps encrypted, as it arrives."""
    protected = security_of(source).protect(sound(service, sequence, source), confidential=confidential)
    return decode_bundle(encode_bundle(protected))


def _signed_sample(random: Random) -> bytes:
    """A signed bundle, most of the time with something else in one of its parts."""
    source = random.choice((SENDER, SENDER, OTHER))
    bundle = signed(random.choice(SERVICES), random.choice(SEQUENCES), source, random.random() < 0.3)
    bundle = replace(bundle)
    draw = random.randrange(9)
    if draw == 0:
        bundle.payload = random.choice((b"", SIGNED_PAYLOAD + b"!", bytes(24), mutated(random, bundle.payload, b"x")))
    elif draw == 1:
        bundle.source = Eid(random.choice((SENDER, OTHER, 99)), random.choice((0, 1)))
    elif draw == 2:
        bundle.destination = Eid(RECEIVER, random.choice((0, 1, 4, 5)))
    elif draw == 3:
        bundle.creation = (random.choice((1, 2)), random.choice((*SEQUENCES, random.choice(EDGES))))
    elif draw == 4:
        bundle.lifetime_ms = random.choice((LIFETIME_MS, LIFETIME_MS + 1, EDGES[-1]))
    elif draw == 5:
        bundle.flags = random.choice((4, 2))
    elif draw < 8 and bundle.blocks:
        bundle.blocks = _changed(random, bundle.blocks)
    return encode_bundle(bundle)


def _changed(random: Random, blocks: tuple[CanonicalBlock, ...]) -> tuple[CanonicalBlock, ...]:
    """Blocks of which one is changed, moved from another bundle, doubled or left out."""
    kept = list(blocks)
    at = random.randrange(len(kept))
    draw = random.randrange(6)
    if draw == 0:
        del kept[at]
    elif draw == 1:
        kept.append(kept[at]._replace(number=40))
    elif draw == 2:
        data = signed(random.choice(SERVICES), random.choice(SEQUENCES), OTHER, False).blocks[0].data
        kept[at] = kept[at]._replace(data=data)
    elif draw == 3:
        kept[at] = kept[at]._replace(data=_security_sample(random))
    elif draw == 4:
        kept[at] = kept[at]._replace(type=random.choice((11, 12)), flags=random.choice((0, 1, 16)))
    else:
        kept[at] = kept[at]._replace(data=mutated(random, kept[at].data, kept[at].data))
    return tuple(kept)


def _accept(data: bytes) -> None:
    """Nothing is authentic but what was signed, whole and unchanged, and that only once."""
    bundle = decode_bundle(data)
    security = BundleSecurity(RECEIVER, KeyStore(rings()[RECEIVER]))
    verdict = security.accept(bundle, 0)
    if verdict.authenticated:
        true = sound(bundle.destination.service, bundle.creation[1], bundle.source.node)
        assert verdict.payload == SIGNED_PAYLOAD, "another payload under a tag"
        assert bundle.creation[1] in SEQUENCES, "a number that nobody used"
        said = (bundle.destination, bundle.source, bundle.creation, bundle.lifetime_ms, bundle.flags)
        assert said == (true.destination, true.source, true.creation, true.lifetime_ms, true.flags)
        assert security.accept(decode_bundle(data), 0).refusal is not None, "the same bundle twice"
    else:
        assert verdict.refusal is not None or bundle.destination.service not in SERVICES, "unsigned, and not refused"


def _security_sample(random: Random) -> bytes:
    """An abstract security block: targets, context, flags, source, parameters, results, each perhaps wrong."""
    blocks = signed(random.choice(SERVICES), 1, SENDER, random.random() < 0.5).blocks
    data = random.choice(blocks).data
    if random.random() < 0.5:
        return mutated(random, data, data) if random.random() < 0.6 else data
    targets = written(random, [number(random, 4) for _ in range(random.choice((0, 1, 1, 2, 30)))], 0.02)
    context = written(random, random.choice((1, 2, number(random))), 0.0)
    flags = written(random, random.choice((0, 1, number(random))), 0.0)
    return targets + context + flags + endpoint(random) + b"".join(_pairs(random) for _ in range(random.randrange(3)))


def _pairs(random: Random) -> bytes:
    pairs: list[object] = [[number(random, 5), plain(random, 1)] for _ in range(random.randrange(4))]
    return written(random, pairs if random.random() < 0.5 else [pairs], 0.02)


def _security(data: bytes) -> None:
    block = decode_security(data)
    assert decode_security(encode_security(block)) == block


def _report_sample(random: Random) -> bytes:
    statuses = [[True, number(random)] if random.random() < 0.5 else [False] for _ in range(STATUSES_COUNT)]
    creation = [number(random), number(random)]
    report: list[object] = [statuses, number(random, 12), [2, [number(random), number(random)]], creation]
    if random.random() < 0.2:
        report += [number(random), number(random)]
    content: object = [1, report]
    if random.random() < 0.4:
        content = wrong(random, content)
    return written(random, content, random.choice((0.0, 0.02)))


def _report(data: bytes) -> None:
    report = decode_status_report(data)
    assert decode_status_report(encode_status_report(report)) == report


def _aggregate_sample(random: Random) -> bytes:
    bundles = [bundle_sample(random) for _ in range(random.choice((1, 2, 3)))]
    return b"".join(bundles) if random.random() < 0.9 else b"\x9f\xff" * 1025


def _aggregate(data: bytes) -> None:
    bundles = split_bundles(data)
    assert b"".join(bundles) == data
    assert all(one[:1] == b"\x9f" and one[-1:] == b"\xff" for one in bundles)


def _keys_sample(random: Random) -> bytes:
    """A ring as the disk has it: valid, with a wrong part, or something else."""
    disk = disk_with({})
    KeyStore(rings()[RECEIVER], disk).load(SENDER, 2, bytes(32))
    content = cbor.loads(disk.read(KEY_FILES[0])[8:], 1 << 20)
    if random.random() < 0.8:
        content = wrong(random, content)
    return written(random, content, random.choice((0.0, 0.02))) if random.random() < 0.9 else cbor_sample(random)


def _keys(data: bytes) -> None:
    """A store that starts on any record whose CRC holds. Two damaged copies are as none: the provisioned keys rule."""
    store = KeyStore(rings()[RECEIVER], disk_with(dict.fromkeys(KEY_FILES, seal(data))))
    assert store.damaged_count <= len(KEY_FILES)
    for peer in (SENDER, OTHER):
        assert store.sending(peer) is not None, "a peer always keeps an active key"


def _windows_sample(random: Random) -> bytes:
    records = []
    for index in range(random.randrange(4)):
        flow = [random.choice((SENDER, OTHER)), random.choice(SERVICES), random.choice((1, number(random)))]
        content: object = [
            *flow,
            random.choice((-1, number(random))),
            [number(random) for _ in range(random.randrange(4))],
        ]
        if random.random() < 0.2:
            content = wrong(random, content)
        data = written(random, content, random.choice((0.0, 0.02)))
        records.append(entry_bytes(LOG_NAME, Entry(index, 0, 0, data)))
    return b"".join(records)


def _windows(data: bytes) -> None:
    """A node that starts on any log of windows still refuses what it accepts once."""
    disk = disk_with({LOG_NAME + suffix: data for suffix in SUFFIXES})
    security = BundleSecurity(RECEIVER, KeyStore(rings()[RECEIVER]), disk)
    security.accept(signed(SERVICE_COMMAND, 1, SENDER, False), 0)
    again = BundleSecurity(RECEIVER, KeyStore(rings()[RECEIVER]), disk)
    assert again.accept(signed(SERVICE_COMMAND, 1, SENDER, False), 0).refusal is not None


def secured() -> list[Decoder]:
    """Decoders around security and administrative records."""
    bundle, storage = (BundleError,), (StorageError,)
    return [
        Decoder("security-block", bundle, _security_sample, _security, 2.0),
        Decoder("signed-bundle", bundle, _signed_sample, _accept, 8.0),
        Decoder("status-report", bundle, _report_sample, _report, 2.0),
        Decoder("aggregate", bundle, _aggregate_sample, _aggregate, 6.0),
        Decoder("keys", storage, _keys_sample, _keys, 20.0),
        Decoder("windows", storage, _windows_sample, _windows, 20.0),
    ]
