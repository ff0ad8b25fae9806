"""Decoders of files and of stored records: what lies on a disk may be torn, rotten, or written by somebody else.

Recovery at a boot has no error to raise where it says that it takes what it finds: it then goes on with what holds, and
that is checked by using it.
"""

import atexit
import struct
import tempfile
import zlib
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from boards import boot_record
from boards.simulated.images import decode_image
from flightsw.compute import cloud_mask, jobs, matrix_file, matrix_product
from flightsw.config import BoardProfile, InterfaceConfig, NodeConfig, load_toml
from flightsw.core.update_states import UpdateRecord, UpdateState, decode_record
from flightsw.errors import ConfigError, MessageError, StorageError
from flightsw.objects.digest import Shape, digest_of, shape_of
from flightsw.objects.intents import LOG_NAME, Intents
from flightsw.objects.parts import Part
from flightsw.objects.store import ObjectStore
from flightsw.ports import Random
from flightsw.storage.copies import TwoCopies
from flightsw.storage.log import RecordLog
from flightsw.storage.manifest import (
    Manifest,
    decode_manifest,
    encode_manifest,
    public_key_of,
    sign_manifest,
    signature_fault,
)
from flightsw.storage.records import seal, unseal
from flightsw.wire import cbor
from flightsw.wire.messages import CHUNK_BYTES
from hil.bench import scenario
from hil.fuzz.cbor_samples import type_of, value_of, written, wrong
from hil.fuzz.decoders import Decoder
from hil.fuzz.mutation import EDGES, mutated
from hil.sim.disk import SimulatedDisk
from hil.world import elements

DISK_BYTES: Final = 1 << 26
QUOTA_BYTES: Final = 1 << 25
PART_DIGEST: Final = digest_of(b"part")
IMAGE_TEXT: Final = '{"version": "0.2.0", "defects": [{"kind": "crash", "after_s": 30, "nodes": ["sat-03"]}]}\n'
ROOT: Final = Path(__file__).resolve().parents[2]
OMM_TEXT: Final = """[{"OBJECT_NAME": "ISS", "OBJECT_ID": "1998-067A", "EPOCH": "2026-03-20T00:00:00",
"MEAN_MOTION": 15.5, "ECCENTRICITY": 0.0003, "INCLINATION": 51.64, "RA_OF_ASC_NODE": 12.5, "ARG_OF_PERICENTER": 30.1,
"MEAN_ANOMALY": 330.0, "EPHEMERIS_TYPE": 0, "CLASSIFICATION_TYPE": "U",
"NORAD_CAT_ID": 25544, "ELEMENT_SET_NO": 999, "REV_AT_EPOCH": 1,
"BSTAR": 0.0001, "MEAN_MOTION_DOT": 0.0001, "MEAN_MOTION_DDOT": 0}]"""
OMM_XML: Final = """<?xml version="1.0"?><ndm><omm><body><segment><metadata><OBJECT_NAME>ISS</OBJECT_NAME></metadata>
<data><meanElements><EPOCH>2026-03-20T00:00:00</EPOCH><MEAN_MOTION>15.5</MEAN_MOTION><ECCENTRICITY>0.0003</ECCENTRICITY>
<INCLINATION>51.64</INCLINATION><RA_OF_ASC_NODE>12.5</RA_OF_ASC_NODE><ARG_OF_PERICENTER>30.1</ARG_OF_PERICENTER>
<MEAN_ANOMALY>330.0</MEAN_ANOMALY></meanElements><tleParameters><BSTAR>0.0001</BSTAR></tleParameters></data></segment>
</body></omm></ndm>"""
ENTITIES: Final = (
    '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "bbbbbbbbbb">'
    + "".join(f'<!ENTITY {chr(99 + i)} "{f"&{chr(98 + i)};" * 10}">' for i in range(9))
    + "]><ndm>&k;</ndm>"
)
"""An entity of entities of entities: a thousand million letters for whoever expands it."""
TLE_TEXT: Final = """ISS
1 25544U 98067A   20029.54791435  .00001264  00000-0  29621-4 0  9993
2 25544  51.6434 353.1409 0007417  48.5626  83.3083 15.49181247210336
"""
SCENARIO_TEXT: Final = """name = "three"
title = "Three"
epoch = 2026-03-20T00:00:00Z
duration_s = 3000.0
[orbit]
kind = "ring"
altitude_km = 500.0
inclination_deg = 97.4
[[nodes]]
name = "sat-01"
profile = "jetson-orin-nano"
[[nodes]]
name = "sat-02"
profile = "raspberry-pi-5"
[[stations]]
name = "sanya"
latitude_deg = 18.31
longitude_deg = 109.31
[links]
topology = "ring"
[links.isl]
impairments = { rate_bps = 2e6 }
[links.ground]
coding = "ccsds-rs-5"
impairments = { rate_bps = 2e6, loss = 0.02, bit_error_rate = 1e-6, acquisition_s = [2.0, 5.0] }
[workload]
kind = "cloud_mask"
covers = [0.5]
step_mpix = 50.0
deadline_s = 2900
[[faults]]
kind = "node_reset"
node = "sat-01"
at_s = 600.0
"""
PROFILE_TEXT: Final = (ROOT / "boards" / "profiles" / "jetson-orin-nano.toml").read_text(encoding="utf-8")
NODE_TEXT: Final = 'node = 3\nname = "sat-03"\n[[interfaces]]\nindex = 0\nname = "radio"\ncoding = "ccsds-rs-1"\n'
PIECES: Final = (
    *("inf", "-1", "nan", '""', "[]", "{}", "1e400", "true", "2026-01-01", '"\\uD800"', "[[", '"\\u0000"', "0"),
    *("9" * 30, "9" * 5000, "[" * 5000, "{a=" * 3000, '"' + "x" * 140_000 + '"'),
)
"""What a value may be replaced by, in TOML, JSON and CSV; the long ones are past limits of the readers."""


def disk_with(files: dict[str, bytes]) -> SimulatedDisk:
    """A disk that holds these files and has no power cuts."""
    disk = SimulatedDisk(DISK_BYTES, Random(0))
    for name, content in files.items():
        disk.replace(name, content)
    return disk


# -- records, logs, objects, jobs


def _records_sample(random: Random) -> bytes:
    return b"".join([seal(random.randbytes(random.choice((0, 1, 8, 64, 600)))) for _ in range(random.randrange(6))])


def _unseal(data: bytes) -> None:
    assert seal(unseal(data)) == data


def _log(data: bytes) -> None:
    """What holds is read, what does not is cut off, and what is appended then is there at the next start."""
    disk = disk_with({"log": data})
    log = RecordLog(disk, "log")
    records = log.records()
    assert b"".join(map(seal, records)) == data[: len(data) - log.torn_bytes_count]
    log.append(b"next")
    log.sync()
    assert RecordLog(disk, "log").records() == [*records, b"next"]


def _part_sample(random: Random) -> bytes:
    size_bytes = random.choice((0, 1, 16_384, 16_385, 40_000, random.choice(EDGES)))
    records = [size_bytes.to_bytes(8, "big")]
    for _ in range(random.randrange(4)):
        index = random.choice((0, 1, 2, random.choice(EDGES) & 0xFFFFFFFF))
        length = max(0, Shape(min(size_bytes, 40_000), CHUNK_BYTES).chunk_size_bytes(min(index, 3)))
        records.append(index.to_bytes(4, "big") + bytes(length if random.random() < 0.9 else random.randrange(64)))
    if random.random() < 0.2:
        records[random.randrange(len(records))] = random.randbytes(random.randrange(12))
    return b"".join(map(seal, records))


def _part(data: bytes) -> None:
    part = Part(disk_with({"part": data}), "part", PART_DIGEST)
    shape = shape_of(PART_DIGEST, part.size_bytes)
    assert len(part.synced_bitmap()) == -(-shape.chunks_count // 8)
    part.joined()
    if not part.holds(0):
        part.add(0, bytes(shape.data_bytes(0)))
        assert part.holds(0)


def _store_sample(random: Random) -> bytes:
    name = digest_of(random.randbytes(4)).hex()[: random.choice((64, 64, 64, 63, 2))]
    kind = random.choice(("", ".part", ".part", ".PART", ".part.part"))
    return f"{name}{kind}\n".encode() + _part_sample(random)


def _store(data: bytes) -> None:
    """A store that starts on any files, then takes an object and gives it back."""
    name, _, content = data.partition(b"\n")
    disk = disk_with({"objects/" + name.decode("latin-1"): content})
    store = ObjectStore(disk, QUOTA_BYTES)
    for digest in store.digests():
        try:
            assert digest_of(store.get(digest)) == digest
        except StorageError:
            assert not store.has(digest), "what is rotten is removed"
    if store.used_bytes < QUOTA_BYTES:  # a part may have announced more than there is room for
        assert store.get(store.put(b"object")) == b"object"
    while store.scrub_next() is not None:
        continue


def _job_record_sample(random: Random) -> bytes:
    record = value_of(random, type_of(jobs._Record))
    content = msgspec.to_builtins(record, builtin_types=(bytes,))
    if random.random() < 0.5:
        content = wrong(random, content)
    data = written(random, content, random.choice((0.0, 0.0, 0.03)))
    return mutated(random, data, data) if random.random() < 0.2 else data


def _jobs(data: bytes) -> None:
    """A table that starts on any record, even one whose CRC holds; each job that it takes over can be kept again."""
    disk = disk_with({})
    TwoCopies(disk, f"{jobs.PREFIX}1").store(data)
    table = jobs.JobTable(disk, 8, 10**12)
    assert len(table.jobs) + table.unreadable_count == 1
    for job in table.jobs.values():
        job.urgency()
        job.expired(2 * 10**12)
        table.save(job, 2 * 10**12)
    assert len(jobs.JobTable(disk, 8, 3 * 10**12).jobs) == len(table.jobs)


@cache
def _signed_manifest() -> bytes:
    manifest = Manifest("wheel", "0.2.0", bytes(32), 1000, 1, "0.1.0", 1, False, bytes(8))
    return sign_manifest(manifest, bytes(32)).encode()


def _manifest_sample(random: Random) -> bytes:
    """A signed manifest, or one whose body was changed under the signature."""
    data = _signed_manifest()
    signed = decode_manifest(data)[0]
    if random.random() < 0.5:
        body = mutated(random, signed.body, data)[:600]
        data = cbor.dumps([body, signed.key_id, signed.signature])
    return data


def _manifest(data: bytes) -> None:
    """There is one form of a manifest, and no other passes; nor does a signature of anything else."""
    signed, manifest = decode_manifest(data)
    assert signed.encode() == data
    assert encode_manifest(manifest) == signed.body
    if data != _signed_manifest():
        assert signature_fault(signed, [public_key_of(bytes(32))]) is not None


def _boot_record_sample(random: Random) -> bytes:
    content = boot_record.Content("0.2.0", "ab" * 32, "cd" * 32, 1000)
    record = boot_record.BootRecord(
        random.choice((0, 1, 1 << 62)), "A", "F", "B", "B", 1, 2, "why", {"A": content, "B": content}
    )
    data = boot_record.encode(record)
    if random.random() < 0.7:  # damage that the CRC does not tell
        body = mutated(random, data.split(b"\n")[1], data)
        data = b"%08x\n%s\n" % (zlib.crc32(body), body)
    return data


def _boot_record(data: bytes) -> None:
    """What is taken can be written, and something can always be booted from it."""
    record = boot_record.decode(data)
    if record is None:
        return
    assert boot_record.decode(boot_record.encode(record)) == record
    chosen = boot_record.chosen(record, lambda _: True)
    assert chosen.running == boot_record.FACTORY or chosen.running in chosen.contents
    assert boot_record.chosen(record, lambda _: False).running == boot_record.FACTORY
    assert chosen.spare in boot_record.SLOTS or (chosen.is_trial and not chosen.spare)


def _update_record_sample(random: Random) -> bytes:
    data = UpdateRecord(UpdateState.TRIAL, _signed_manifest(), "why").encode()
    return mutated(random, data, data) if random.random() < 0.7 else data


def _update_record(data: bytes) -> None:
    record = decode_record(data)
    assert decode_record(record.encode()) == record


def _simulated_image(data: bytes) -> None:
    image = decode_image(data)
    assert decode_image(image.encode()) == image


def _intents_sample(random: Random) -> bytes:
    records = []
    for _ in range(random.randrange(5)):
        action, priority = random.choice((0, 1, 2, 3)), random.choice((0, 4, 255))
        head = struct.pack(">BBQ32s", action, priority, random.choice(EDGES), bytes(32))
        records.append(head + random.randbytes(random.choice((0, 3, 4, 8, 9))))
    return b"".join(map(seal, records))


def _intents(data: bytes) -> None:
    """What is remembered can be ended and written again."""
    disk = disk_with({LOG_NAME: data})
    intents = Intents(disk)
    for intent in intents.open():
        assert intents.holds(intent.key)
    intents.end([intent.key for intent in intents.open()])
    assert Intents(disk).open() == []


# -- tiles and masks


def _tile_sample(random: Random) -> bytes:
    height, width = random.choice((1, 3, 8)), random.choice((1, 5, 9))
    if random.random() < 0.5:
        return _tile_head(random, b"tile", height, width) + random.randbytes(8 * height * width)
    return _tile_head(random, b"mask", height, width) + bytes(-(-height * width // 8))


def _tile_head(random: Random, kind: bytes, height: int, width: int) -> bytes:
    if kind == b"tile":
        head = cloud_mask.encode_tile(np.zeros((height, width, cloud_mask.BANDS), np.uint16))
        return head[: len(head) - 8 * height * width]
    head = cloud_mask.encode_mask(np.zeros((height, width), np.bool_))
    return head[: len(head) - -(-height * width // 8)]


def _tile(data: bytes) -> None:
    assert cloud_mask.encode_tile(cloud_mask.decode_tile(data)) == data


def _mask(data: bytes) -> None:
    assert cloud_mask.encode_mask(cloud_mask.decode_mask(data)) == data


def _checkpoint(data: bytes) -> None:
    cloud_mask.CloudMaskState.from_bytes(data)


def _checkpoint_sample(random: Random) -> bytes:
    tile = cloud_mask.encode_tile(np.zeros((random.choice((1, 4)), random.choice((1, 7)), cloud_mask.BANDS), np.uint16))
    return cloud_mask.begin(cloud_mask.decode_tile(tile)).to_bytes()


def _matrix_sample(random: Random) -> bytes:
    """A matrix, or one whose header says something else."""
    shape, kind = (random.choice((1, 3, 40)), random.choice((1, 5))), random.choice(list(matrix_file.TYPES))
    data = matrix_file.encode_matrix(np.zeros(shape, matrix_file.TYPES[kind]))
    if random.random() < 0.5:
        return data
    said = repr(kind).encode()
    other = random.choice(("'<f8'", "'>f4'", "'|O'", "'<f4'", "'<i4'", "__import__('os')"))
    sides = str(shape).encode()
    size = random.choice((f"({shape[1]}, {shape[0]})", "(3,)", "()", "(-1, 5)", "(99999999, 99999999)", "(01, 5)"))
    return data.replace(said, other.encode()).replace(sides, size.encode())


def _matrix(data: bytes) -> None:
    matrix = matrix_file.decode_matrix(data)
    again = matrix_file.encode_matrix(matrix)
    assert matrix_file.decode_matrix(again).tobytes() == matrix.tobytes()
    assert again[-matrix.nbytes :] == data[-matrix.nbytes :], "what stands is what is read"


def _product_checkpoint_sample(random: Random) -> bytes:
    kind = random.choice(("<f4", "<i4"))
    rows = np.zeros((random.choice((0, 1, 512)), random.choice((1, 7))), kind)
    return matrix_product.ProductState(rows, random.choice((1, 512, 600))).to_bytes()


def _product_checkpoint(data: bytes) -> None:
    state = matrix_product.ProductState.from_bytes(data)
    assert state.to_bytes() == data
    if len(state.rows) == state.rows_count:
        matrix_product.finish(state)


# -- files of the user


@cache
def _folder() -> Path:
    """A folder of this process: readers of files want files."""
    folder = tempfile.TemporaryDirectory(prefix="flatrack-fuzz-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


def input_file(data: bytes, suffix: str) -> Path:
    """A file with this content; the next one of its kind takes its place."""
    path = _folder() / f"input{suffix}"
    path.write_bytes(data)
    return path


def text_sample(text: str, random: Random) -> bytes:
    """The text with a line or a value replaced: it stays readable more often than after a mutation of bytes."""
    lines = text.split("\n")
    at = random.randrange(len(lines))
    draw = random.randrange(5)
    if draw == 0:
        del lines[at]
    elif draw == 1:
        lines.insert(random.randrange(len(lines)), lines[at])
    elif draw < 4:
        mark = "=" if "=" in lines[at] else ":"
        key, found, _ = lines[at].partition(mark)
        lines[at] = f"{key}{found} {random.choice(PIECES)}{',' * (mark == ':')}"
    return "\n".join(lines).encode()


def _toml(kind: Any, data: bytes) -> None:
    load_toml(input_file(data, ".toml"), kind)


def _scenario(data: bytes) -> None:
    loaded = scenario.load(str(input_file(data, ".toml")))
    scenario.link_names(loaded)
    scenario.scenario_digest(loaded)


def _tle(data: bytes) -> None:
    elements.read_tle(input_file(data, ".tle"))


def _omm(suffix: str, data: bytes) -> None:
    elements.read_omm(input_file(data, suffix))


def _xml_sample(random: Random) -> bytes:
    return ENTITIES.encode() if random.random() < 0.05 else text_sample(OMM_XML.replace("><", ">\n<"), random)


def _csv_sample(random: Random) -> bytes:
    rows = (
        "OBJECT_NAME,EPOCH,MEAN_MOTION,ECCENTRICITY,INCLINATION,RA_OF_ASC_NODE,ARG_OF_PERICENTER,MEAN_ANOMALY,BSTAR\n"
    )
    return text_sample(rows + "ISS,2026-03-20T00:00:00,15.5,0.0003,51.6,12.5,30.1,330.0,0.0001\n", random)


def _tle_sample(random: Random) -> bytes:
    """Element sets whose checksums hold although a digit is wrong."""
    lines = TLE_TEXT.split("\n")
    at = random.randrange(3)
    if at and random.random() < 0.8:
        line = list(lines[at])
        line[random.randrange(2, 68)] = random.choice("0123456789 .-+A")
        text = "".join(line[:68])
        lines[at] = text + str(sum(int(c) if c.isdigit() else c == "-" for c in text) % 10)
    return "\n".join(lines).encode()


def stored() -> list[Decoder]:
    """Decoders of what lies on disks."""
    config, storage = (ConfigError,), (StorageError,)
    made = [
        Decoder("record", storage, _records_sample, _unseal),
        Decoder("log", (), _records_sample, _log, 3.0),
        Decoder("part", storage, _part_sample, _part, 6.0),
        Decoder("store", (), _store_sample, _store, 10.0),
        Decoder("intents", (), _intents_sample, _intents, 4.0),
        Decoder("manifest", (MessageError,), _manifest_sample, _manifest, 4.0),
        Decoder("boot-record", (), _boot_record_sample, _boot_record, 2.0),
        Decoder("update-record", storage, _update_record_sample, _update_record, 2.0),
        Decoder("simulated-image", config, partial(text_sample, IMAGE_TEXT), _simulated_image, 4.0),
        Decoder("jobs", (), _job_record_sample, _jobs, 10.0),
        Decoder("tile", (MessageError,), _tile_sample, _tile, 2.0),
        Decoder("mask", (MessageError,), _tile_sample, _mask, 2.0),
        Decoder("checkpoint", storage, _checkpoint_sample, _checkpoint, 2.0),
        Decoder("matrix", (MessageError,), _matrix_sample, _matrix, 2.0),
        Decoder("product-checkpoint", storage, _product_checkpoint_sample, _product_checkpoint, 2.0),
        Decoder("scenario", config, partial(text_sample, SCENARIO_TEXT), _scenario, 80.0),
        Decoder("tle", config, _tle_sample, _tle, 50.0),
        Decoder("omm-json", config, partial(text_sample, OMM_TEXT.replace(", ", ",\n")), partial(_omm, ".json"), 40.0),
        Decoder("omm-csv", config, _csv_sample, partial(_omm, ".csv"), 40.0),
        Decoder("omm-xml", config, _xml_sample, partial(_omm, ".xml"), 60.0),
    ]
    for name, text, kind in (
        ("profile", PROFILE_TEXT, BoardProfile),
        ("node-config", NODE_TEXT, NodeConfig),
        ("interface-config", 'index = 0\nname = "radio"\n', InterfaceConfig),
    ):
        made.append(Decoder(name, config, partial(text_sample, text), partial(_toml, kind), 60.0))
    return made
