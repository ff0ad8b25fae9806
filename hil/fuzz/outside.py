"""Decoders of what other programs and people hand in: lab records, captures, link addresses, settings as JSON."""

import struct
from functools import cache, partial
from typing import Final

import msgspec

from flightsw.config import NodeConfig
from flightsw.dictionary.hardware_report import decode_report, encode_report
from flightsw.errors import ConfigError, FrameError, MessageError, SegmentError
from flightsw.host.keyfile import load_keys, save_keys
from flightsw.host.settings import load_json
from flightsw.link.record_stream import RecordReader, stuff_record
from flightsw.link.records import pack_record, unpack_record
from flightsw.link.urls import parse_url
from flightsw.net.plans import PlanRow, encode_plan, plan_of
from flightsw.ports import Capability, Random, Support
from flightsw.wire.frames import CodedFrame
from hil.capture.inspection import Inspection, Layer
from hil.capture.packets import Capture
from hil.capture.pcapng import INBOUND, LINKTYPE_IPV4, LINKTYPE_USER0, PcapngWriter
from hil.fuzz.cbor_samples import wrong
from hil.fuzz.decoders import Decoder
from hil.fuzz.machines import green
from hil.fuzz.mutation import EDGES, mutated
from hil.fuzz.secured import OTHER, RECEIVER, SENDER, rings
from hil.fuzz.stored import PIECES, input_file, text_sample
from hil.fuzz.wire_samples import bundle_sample, sdnv, segment_sample

URLS: Final = (
    "serial:///dev/ttyUSB0?baud=921600",
    "serial:///dev/pts/3",
    "socket://10.0.0.1:5000",
    "serial+socket://[::1]:5000?baud=9600",
    "mqtt://user:secret@broker:1883/bench?client=sat-03&qos=1",
    "mqtts://a,b:8883/bench?cafile=/etc/ca.pem",
)
JSON_TEXT: Final = """{"node": 3,
"name": "sat-03",
"interfaces": [
{"index": 0,
"name": "radio",
"coding": "ccsds-rs-1"}]}
"""


HARDWARE_TEXT: Final = """{"capabilities": [
{"name": "memory_limit", "support": "ABSENT", "detail": "no memory controller"},
{"name": "watchdog", "support": "PRESENT", "detail": "15 s"}],
"power_modes": ["ondemand", "powersave"],
"reading": {"sampled_ns": 7, "temperatures_degc": {"cpu-thermal": 48.3},
"is_throttled": null, "memory_share": 0.25, "troubles": {"rpi_volt": "ENOENT"}}}
"""


# -- lab records


def _record_sample(random: Random) -> bytes:
    head = sdnv(random, random.choice((0, 1, 65_535, 65_536, random.choice(EDGES))))
    padding = sdnv(random, random.choice((0, 0, 1, 1 << 30, random.choice(EDGES))))
    return head + padding + random.randbytes(random.choice((0, 1, 64, 300)))


def _record(data: bytes) -> None:
    interface, frame = unpack_record(data)
    again, same = unpack_record(pack_record(interface, frame))
    assert (again, bytes(same), len(same)) == (interface, bytes(frame), len(frame))


def _records_sample(random: Random) -> bytes:
    parts = []
    for _ in range(random.randrange(1, 5)):
        frame = CodedFrame.received(random.randbytes(random.choice((1, 64, 300))), random.choice((0, 1000)))
        parts.append(stuff_record(random.randrange(3), frame))
        if random.random() < 0.3:
            parts.append(mutated(random, parts[-1], parts[0]))
    return b"\0".join(parts)


def _records(data: bytes) -> None:
    """Whole and in pieces."""
    at_once, in_pieces = RecordReader(), RecordReader()
    step = 1 + len(data) // 5
    whole = [(interface, bytes(frame), len(frame)) for interface, frame in at_once.feed(data)]
    pieces = [one for at in range(0, len(data), step) for one in in_pieces.feed(data[at : at + step])]
    assert [(interface, bytes(frame), len(frame)) for interface, frame in pieces] == whole
    assert in_pieces.bad_records_count == at_once.bad_records_count


# -- captures


@cache
def _sound_capture() -> bytes:
    """A capture of ours with a few packets of both kinds."""
    path = input_file(b"", ".pcapng")
    random = Random(1)
    with PcapngWriter(path, "fuzz", 'flatrack {"epoch": "2026-03-20T00:00:00Z"}') as writer:
        ltp = writer.add_interface(LINKTYPE_IPV4, "a/b", "link")
        raw = writer.add_interface(LINKTYPE_USER0, "a/b/raw", "coding cobs-crc32c")
        for number in range(6):
            payload = green(bundle_sample(random), 1, number) if number % 2 else segment_sample(random)
            writer.write(ltp, number, _ip_packet(payload), INBOUND, "a comment")
        writer.write(raw, 9, b"\x01\x02", INBOUND)
    return path.read_bytes()


def _ip_packet(payload: bytes) -> bytes:
    """An IPv4 packet with a UDP datagram to port 1113; its checksums are zero, which readers must bear."""
    udp = struct.pack(">HHHH", 1113, 1113, 8 + len(payload), 0) + payload
    return struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, b"\x0a\0\0\x01", b"\x0a\0\0\x02") + udp


def _capture_sample(random: Random) -> bytes:
    if random.random() < 0.6:
        return _sound_capture() if random.random() < 0.3 else mutated(random, _sound_capture(), _sound_capture())
    order, magic = random.choice(((">", 0xA1B2C3D4), ("<", 0xA1B2C3D4), ("<", 0xA1B23C4D), (">", 0xA1B23C4D)))
    link_type = random.choice((1, 12, 101, 228, 147, 113, 276, 0, random.choice(EDGES) & 0xFFFFFFFF))
    parts = [struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65_535, link_type)]
    for _ in range(random.randrange(4)):
        packet = _ip_packet(segment_sample(random))
        if link_type == 1:
            packet = bytes(12) + random.choice((b"\x08\x00", b"\x86\xdd", b"\x81\x00\x00\x01\x08\x00")) + packet
        length = len(packet) if random.random() < 0.9 else random.choice(EDGES) & 0xFFFFFFFF
        parts.append(struct.pack(order + "IIII", 1, 2, length, len(packet)) + packet)
    return b"".join(parts)


def _capture(data: bytes) -> None:
    path = input_file(data, ".pcapng")
    for layer in Layer:
        inspection = Inspection(Capture(path), layer)
        assert sum(1 for _ in inspection.findings()) < 10_000


# -- addresses and settings


def _url_sample(random: Random) -> bytes:
    url = random.choice(URLS)
    if random.random() < 0.4:
        at = random.randrange(len(url))
        url = url[:at] + random.choice((*PIECES[:13], "@", ":", "//", "?", "#", "%00", "[", "\u0660")) + url[at:]
    return url.encode()


def _url(data: bytes) -> None:
    try:
        parse_url(data.decode("utf-8", "surrogateescape"), client="sat-03")
    except ConfigError as error:
        wrong = error
    else:
        return
    before, _, after = data.partition(b"@")
    is_mistyped = data.startswith((b"mqtt:", b"mqtts:")) and before.endswith(b"secret") and b"=" not in before
    is_password = is_mistyped and b"secret" not in before[:-6] + after
    assert not is_password or "secret" not in str(wrong), "a password in an error"
    raise wrong


def _json(data: bytes) -> None:
    load_json(input_file(data, ".json"), NodeConfig)


def _hardware(data: bytes) -> None:
    report = decode_report(data)
    rows = tuple(Capability(one.name, Support[one.support], one.detail) for one in report.capabilities)
    assert decode_report(encode_report(rows, report.power_modes, report.reading)) == report


@cache
def _keys_text() -> str:
    path = input_file(b"", ".toml")
    path.unlink()
    save_keys(path, rings()[RECEIVER], (SENDER, OTHER))
    return path.read_text(encoding="utf-8")


def _keys_sample(random: Random) -> bytes:
    return text_sample(_keys_text(), random)


def _keys(data: bytes) -> None:
    path = input_file(data, ".keys")
    path.chmod(0o600)
    ring = load_keys(path)
    assert all(shared.sending() is not None for shared in ring.peers.values()), "a peer always keeps an active key"


def _plan_sample(random: Random) -> bytes:
    rows = [[0, 10**9, 1, 0, 2, 0, 1e6, 10**7], [2 * 10**9, 3 * 10**9, 1, 0, 2, 0, 1e6, 10**7]]
    content: object = [*rows, [0, 9, 2, 0, 1, 0, 1.0, 0]][: random.randrange(4)]
    return msgspec.json.encode(wrong(random, content) if random.random() < 0.7 else content)


def _plan(data: bytes) -> None:
    plan = plan_of(load_json(input_file(data, ".json"), list[PlanRow]), "plan")
    assert plan_of(msgspec.json.decode(encode_plan(plan), type=list[PlanRow]), "plan").contacts == plan.contacts


def outside() -> list[Decoder]:
    """Decoders of what comes from other programs and people."""
    return [
        Decoder("lab-record", (FrameError, SegmentError), _record_sample, _record),
        Decoder("lab-stream", (), _records_sample, _records, 3.0),
        Decoder("capture", (ConfigError,), _capture_sample, _capture, 40.0),
        Decoder("link-url", (ConfigError,), _url_sample, _url, 2.0),
        Decoder("key-file", (ConfigError,), _keys_sample, _keys, 40.0),
        Decoder("plan-file", (ConfigError,), _plan_sample, _plan, 10.0),
        Decoder("settings-json", (ConfigError,), partial(text_sample, JSON_TEXT), _json, 50.0),
        Decoder("hardware-report", (MessageError,), partial(text_sample, HARDWARE_TEXT), _hardware, 3.0),
    ]
