"""Segments, bundles, endpoints and numbers of the wire: valid ones, and ones that are wrong where it hurts.

Fields are wrong while the checksums around them hold, because a peer that lies computes them as well as an honest one.
"""

from typing import Final

from flightsw.ports import Random
from flightsw.wire.bundles import (
    BLOCK_AGE,
    BLOCK_HOP_COUNT,
    BLOCK_PAYLOAD,
    BLOCK_PREVIOUS_NODE,
    CRC_NONE,
    BundleFlags,
)
from flightsw.wire.cbor import ARRAY, BYTES, UNSIGNED, encode_head
from flightsw.wire.crc import CRC_16_X25, CRC_32C, with_crc
from flightsw.wire.framing import Coding
from flightsw.wire.sdnv import encode_sdnv
from hil.fuzz.cbor_samples import cbor_sample, message_sample
from hil.fuzz.mutation import EDGES, mutated

ENGINES: Final = (1, 2, 3, 4, 0, 2**64 - 1)
"""Node numbers: those of the machines under test (1 to 3), one that nobody has, and the ends of the range."""
SERVICES: Final = (0, 1, 2, 3, 4, 5, 6, 7, 64, 2047, 2**64 - 1)
SEGMENT_TYPES: Final = tuple(range(16))
BLOCK_TYPES: Final = (BLOCK_PREVIOUS_NODE, BLOCK_AGE, BLOCK_HOP_COUNT, 11, 12, 13, 192, 23, 24, 255, 2**64 - 1, 0)
PIECE_BYTES: Final = (0, 1, 16, 130, 1024)


def number(random: Random, usual: int = 40) -> int:
    """A small number, or one at the end of some width."""
    return random.choice(EDGES) if random.random() < 0.2 else random.randrange(usual)


# -- numbers and endpoints


def sdnv(random: Random, value: int) -> bytes:
    """The number as SDNV; now and then with zeros before it, which is allowed, or without its end, which is not."""
    data = encode_sdnv(value)
    draw = random.random()
    if draw < 0.02:
        return b"\x80" * random.choice((1, 2, 8, 64)) + data
    if draw < 0.03:
        return b"\xff" * random.choice((1, 9, 10, 11)) + data
    return data[:-1] if draw < 0.04 else data


def sdnv_sample(random: Random) -> bytes:
    """One number, or what was to be one."""
    return sdnv(random, number(random, 300)) + random.randbytes(random.choice((0, 0, 1)))


def endpoint(random: Random) -> bytes:
    """An endpoint: mostly ipn or none, sometimes another scheme, type or length."""
    if random.random() < 0.1:
        return cbor_sample(random)
    if random.random() < 0.1:
        return b"\x82\x01" + random.choice((b"\x00", b"\x01", b"\x65//a/b", b"\x60"))
    node = random.choice(ENGINES) if random.random() < 0.8 else number(random)
    pair = encode_head(UNSIGNED, node) + encode_head(UNSIGNED, random.choice(SERVICES))
    return random.choice((b"\x82\x02\x82", b"\x82\x02\x82", b"\x98\x02\x02\x98\x02", b"\x82\x18\x02\x82")) + pair


def endpoint_text_sample(random: Random) -> bytes:
    """The URI of an endpoint."""
    node, service = number(random), number(random)
    kinds = ("ipn:{}.{}", "ipn:{}.{}", "dtn:none", "dtn://{}/{}", "ipn:0{}.{}", "ipn:{}", "IPN:{}.{}", "ipn:-{}.{}\n")
    return random.choice(kinds).format(node, service).encode()


# -- segments


def segment_sample(random: Random, engines: tuple[int, ...] = ENGINES, piece: bytes | None = None) -> bytes:
    """One LTP segment.

    Args:
        random: stream of chance.
        engines: originators to choose from.
        piece: data of data segments; any when None.
    """
    kind = random.choice(SEGMENT_TYPES)
    extensions = random.randrange(256) if random.random() < 0.05 else 0
    parts = [
        bytes((kind if random.random() < 0.98 else random.randrange(256),)),
        sdnv(random, random.choice(engines)),
        sdnv(random, number(random, 8)),
        bytes((extensions,)),
    ]
    parts += [_extension(random) for _ in range(extensions >> 4)]
    parts += _content(random, kind, random.randbytes(random.choice(PIECE_BYTES)) if piece is None else piece)
    parts += [_extension(random) for _ in range(extensions & 15)]
    return b"".join(parts)


def _content(random: Random, kind: int, piece: bytes) -> list[bytes]:
    if kind < 8:
        length = len(piece) if random.random() < 0.95 else number(random)
        offset = random.choice((0, 0, 0, 1024, 2048, number(random, 4096)))
        fields = [random.choice((1, 1, 1, 1, 1, 1, 0, 2, number(random))), offset, length]
        if kind in (1, 2, 3, 5, 6):
            fields += [number(random, 4) if random.random() < 0.5 else 1, number(random, 3)]
        return [sdnv(random, field) for field in fields] + [piece]
    if kind == 8:
        count = random.choice((0, 1, 1, 2, 5))
        upper, lower = number(random, 4096), random.choice((0, 0, number(random, 2048)))
        fields = [
            number(random, 4),
            number(random, 4),
            upper,
            lower,
            count if random.random() < 0.95 else number(random),
        ]
        at = 0
        for _ in range(count):
            start = at + random.randrange(50) if random.random() < 0.9 else number(random)
            length = random.randrange(1, 400) if random.random() < 0.9 else number(random)
            fields += [start, length]
            at = start + length
        if random.random() < 0.5:
            fields[2] = min(fields[3] + at, EDGES[-1])
        return [sdnv(random, min(field, EDGES[-1])) for field in fields]
    if kind == 9:
        return [sdnv(random, number(random, 4))]
    return [bytes((random.choice((0, 1, 2, 3, 4, 5, 6, 255)),))] if kind in (12, 14) else []


def _extension(random: Random) -> bytes:
    value = random.randbytes(random.randrange(9))
    length = len(value) if random.random() < 0.9 else number(random)
    return bytes((random.choice((0, 1, 192, 255)),)) + sdnv(random, length) + value


# -- bundles


def bundle_sample(
    random: Random, destination: tuple[int, int] | None = None, source: int | None = None, payload: bytes | None = None
) -> bytes:
    """One bundle.

    Args:
        random: stream of chance.
        destination: (node, service); any when None.
        source: node; any when None.
        payload: of the payload block; a message or noise when None.
    """
    if payload is None:
        payload = message_sample(random) if random.random() < 0.7 else random.randbytes(random.choice(PIECE_BYTES))
    blocks = [_extension_block(random, at) for at in range(random.choice((0, 0, 1, 2, 3, 3, 6)))]
    if random.random() < 0.03:
        blocks.append(random.choice(blocks or [b""]))
    blocks.append(_block(random, BLOCK_PAYLOAD, 1, payload))
    if random.random() < 0.03:
        random.shuffle(blocks)
    start = b"\x9f" if random.random() < 0.98 else random.choice((b"\x82", b"\x83", b"\x9f\x9f", b""))
    end = b"\xff" if random.random() < 0.98 else random.choice((b"", b"\xff\xff", b"\xff\x00"))
    return start + _primary(random, destination, source) + b"".join(blocks) + end


def _primary(random: Random, destination: tuple[int, int] | None, source: int | None) -> bytes:
    flags = random.choice((0, 0, 0, 4, int(BundleFlags.ADMINISTRATIVE_RECORD), 0x74000, 0x40, number(random)))
    is_fragment = random.random() < 0.08
    flags = flags & ~1 | is_fragment
    crc_type = _crc_type(random)
    fields = [b"\x07" if random.random() < 0.99 else b"\x06", encode_head(UNSIGNED, flags)]
    fields.append(encode_head(UNSIGNED, crc_type))
    fields.append(endpoint(random) if destination is None else _known(*destination))
    fields.append(endpoint(random) if source is None else _known(source, random.choice(SERVICES)))
    fields.append(random.choice((b"\x82\x01\x00", endpoint(random))))
    fields.append(b"\x82" + encode_head(UNSIGNED, number(random)) + encode_head(UNSIGNED, number(random, 10_000)))
    fields.append(encode_head(UNSIGNED, random.choice((600_000, 3_600_000, number(random)))))
    if is_fragment:
        fields += [encode_head(UNSIGNED, number(random)), encode_head(UNSIGNED, number(random, 2000))]
    count = len(fields) + (crc_type != CRC_NONE)
    if random.random() < 0.02:
        del fields[random.randrange(len(fields))]
    return _closed(random, encode_head(ARRAY, count) + b"".join(fields), crc_type)


def _known(node: int, service: int) -> bytes:
    return b"\x82\x02\x82" + encode_head(UNSIGNED, node) + encode_head(UNSIGNED, service)


def _extension_block(random: Random, at: int) -> bytes:
    kind = random.choice(BLOCK_TYPES) if random.random() < 0.95 else number(random)
    if kind == BLOCK_PREVIOUS_NODE:
        data = endpoint(random)
    elif kind == BLOCK_AGE:
        data = encode_head(UNSIGNED, number(random, 1000))
    elif kind == BLOCK_HOP_COUNT:
        data = b"\x82" + encode_head(UNSIGNED, number(random, 64)) + encode_head(UNSIGNED, number(random, 8))
    elif kind == 192:
        data = bytes((random.randrange(10),))
    else:
        data = cbor_sample(random)
    block_number = at + 2 if random.random() < 0.85 else number(random)
    return _block(random, kind, block_number, data)


def _block(random: Random, kind: int, block_number: int, data: bytes) -> bytes:
    crc_type = _crc_type(random)
    flags = random.choice((0, 0, 0, 1, 2, 4, 16, number(random)))
    count = 5 + (crc_type != CRC_NONE) if random.random() < 0.99 else random.randrange(24)
    length = len(data) if random.random() < 0.99 else number(random)
    heads = [encode_head(ARRAY, count)]
    heads += [encode_head(UNSIGNED, value) for value in (kind, block_number, flags, crc_type)]
    return _closed(random, b"".join(heads) + encode_head(BYTES, length) + data, crc_type)


def _crc_type(random: Random) -> int:
    return random.choice((CRC_NONE, CRC_16_X25, CRC_32C, CRC_32C)) if random.random() < 0.99 else number(random)


def _closed(random: Random, block: bytes, crc_type: int) -> bytes:
    """The block with its CRC, which holds most of the time."""
    if crc_type > CRC_32C:
        return block
    closed = with_crc(block, crc_type)
    return closed if random.random() < 0.98 else closed[:-1] + bytes((closed[-1] ^ 1,))


# -- frames


def payload_sample(random: Random) -> bytes:
    """What a frame carries: a segment, noise, or bytes with many zeros."""
    draw = random.random()
    if draw < 0.5:
        return segment_sample(random) or b"\0"
    if draw < 0.8:
        return random.randbytes(random.choice((1, 2, 130, 253, 254, 255, 1058)))
    return bytes(random.choice((1, 254, 255, 600))) + random.randbytes(1)


def frame_sample(random: Random, code: Coding) -> bytes:
    """A coded frame: as sent, with noise of some bits, or damaged; rarely with a length at a limit."""
    coded = code.encode(payload_sample(random))
    draw = random.random()
    if draw < 0.2:
        return coded
    if draw < 0.6:
        noisy = bytearray(coded)
        for _ in range(random.choice((1, 2, 8, 16, 64))):
            noisy[random.randrange(len(noisy))] ^= 1 << random.randrange(8)
        return bytes(noisy)
    return mutated(random, coded, random.randbytes(64))


def stream_sample(random: Random, code: Coding) -> bytes:
    """Some frames in a row with damage and noise among them."""
    frames = [frame_sample(random, code) for _ in range(random.randint(1, 4))]
    if random.random() < 0.3:
        frames.insert(random.randrange(len(frames)), random.randbytes(random.choice((1, 64, 1024))))
    return b"".join(frames)
