"""Captures: what is written is what crossed, and any file, ours, foreign or hostile, is read without harm."""

import json
import random  # noqa: TID251 - seeded
import socket
import struct
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cbor2
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from flightsw.errors import ConfigError
from flightsw.wire.bundles import Bundle, CanonicalBlock, encode_bundle
from flightsw.wire.confidentiality import encrypt
from flightsw.wire.eids import DTN_NONE, Eid
from flightsw.wire.framing import coding
from flightsw.wire.integrity import sign
from flightsw.wire.messages import ObjectQuery, encode_message
from flightsw.wire.segments import CancelReason, CancelSegment, DataSegment, Segment, encode_segment
from hil.bench.execute import execute
from hil.bench.scenario import load
from hil.capture import blocks as blocks_module
from hil.capture.blocks import Blocks, bundles_in
from hil.capture.datagrams import LTP_PORT, Addresses, Datagram, address, ltp_datagram, node_of
from hil.capture.inspection import Inspection, Layer
from hil.capture.packets import Capture, Packet
from hil.capture.pcapng import INBOUND, LINKTYPE_IPV4, LINKTYPE_USER0, OUTBOUND, PcapngWriter
from hil.capture.recorder import Recorder
from hil.capture.runs import run_recorder
from hil.channel.direction import ChannelCounts
from hil.channel.impairments import Impairments
from hil.channel.link import Link
from hil.channel.relay import Fate, Relay, Way
from hil.cli import main

S = 1_000_000_000
UTC_NS = 1_800_000_000 * S
CODING = coding("cobs-crc32c")
WAY = Way("isl-11-12", True, (11, 1), (12, 2))
EXAMPLE = Path(__file__).parents[2] / "examples" / "three.toml"


def green(data: bytes, number: int = 1) -> DataSegment:
    return DataSegment((11, number), False, False, False, True, 1, 0, data)


def red(offset: int, data: bytes, *, is_last: bool = False, number: int = 1) -> DataSegment:
    return DataSegment((11, number), True, is_last, is_last, is_last, 1, offset, data, 1 if is_last else 0)


def bundle_of(payload: bytes, **options: Any) -> Bundle:
    return Bundle(Eid(12, 4), Eid(11, 0), DTN_NONE, (827_280_000_000, 7), 60_000, payload, age_ms=5, **options)


def recorder_at(path: Path, *, name: str = CODING.name, has_lost: bool = False) -> Recorder:
    identity = {"scenario": "test", "seed": 7, "flatrack": "1"}
    return Recorder(path, identity, UTC_NS, lambda _: name, has_lost=has_lost)


def record(path: Path, *segments: Segment) -> None:
    """A capture of these segments, one each second."""
    recorder = recorder_at(path)
    for second, segment in enumerate(segments, start=1):
        frame = CODING.frame(encode_segment(segment))
        recorder.observe(second * S, WAY, frame, frame, Fate.DELIVERED)
    recorder.close()


def packets_of(path: Path) -> list[Packet]:
    return list(Capture(path).packets())


def findings_of(path: Path, layer: Layer, node: int | None = None) -> list[dict[str, Any]]:
    return list(Inspection(Capture(path), layer, node).findings())


# -- the file


@settings(max_examples=50)
@given(
    data=st.binary(max_size=300),
    utc_ns=st.integers(0, 2**64 - 1),
    direction=st.sampled_from((0, INBOUND, OUTBOUND)),
    comment=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=50),
)
def test_a_packet_comes_back_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, utc_ns: int, direction: int, comment: str
) -> None:
    path = tmp_path_factory.mktemp("capture") / "file.pcapng"
    with PcapngWriter(path, "test", "of a test") as writer:
        writer.add_interface(LINKTYPE_USER0, "first", "")
        second = writer.add_interface(LINKTYPE_IPV4, "second", "has a description")
        writer.write(second, utc_ns, data, direction, comment)
    capture = Capture(path)
    (packet,) = capture.packets()
    assert (packet.data, packet.utc_ns, packet.direction, packet.comment) == (data, utc_ns, direction, comment)
    assert (packet.interface.link_type, packet.interface.name) == (LINKTYPE_IPV4, "second")
    assert (packet.interface.description, packet.is_cut) == ("has a description", False)
    assert (capture.comment, capture.is_cut_short) == ("of a test", False)


def test_a_file_that_is_not_closed_ends_between_two_packets(tmp_path: Path) -> None:
    path = tmp_path / "killed.pcapng"
    writer = PcapngWriter(path, "test", "")
    interface = writer.add_interface(LINKTYPE_USER0, "link", "")
    for number in range(2000):
        writer.write(interface, number, bytes(1000))
    capture = Capture(path)
    assert 0 < sum(1 for _ in capture.packets()) < 2000
    assert not capture.is_cut_short
    writer.close()
    assert len(packets_of(path)) == 2000


def test_of_a_file_that_is_cut_all_packets_before_the_cut_are_read(tmp_path: Path) -> None:
    path = tmp_path / "cut.pcapng"
    record(path, green(b"one"), green(b"two", 2))
    whole = path.read_bytes()
    ends = {0: 0}
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        if cut < 4:
            with pytest.raises(ConfigError, match="expected a pcap or pcapng capture"):
                packets_of(path)
            continue
        capture = Capture(path)
        count = sum(1 for _ in capture.packets())
        if not capture.is_cut_short:
            ends[count] = cut
    assert ends[2] == len(whole)
    assert sorted(ends) == [0, 1, 2]


def test_a_full_disk_ends_the_capture_and_not_the_run() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("missing tool: /dev/full")
    recorder = recorder_at(full)
    frame = CODING.frame(encode_segment(green(bytes(50_000))))
    for number in range(20):
        recorder.observe(number, WAY, frame, frame, Fate.DELIVERED)
    with pytest.raises(ConfigError, match=r"/dev/full: the capture is not whole.*No space left"):
        recorder.close()


def test_a_file_that_cannot_be_made_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no/such.pcapng: cannot write the capture: No such file"):
        recorder_at(tmp_path / "no" / "such.pcapng")
    with pytest.raises(ConfigError, match="is a folder, expected the name of a capture file"):
        run_recorder(tmp_path, load(str(EXAMPLE)), 7, has_lost=False)


def test_the_tools_of_wireshark_read_the_file(tmp_path: Path, need_tool: Callable[[str], str]) -> None:
    path = tmp_path / "file.pcapng"
    record(path, green(b"one"), green(b"two", 2))
    done = subprocess.run([need_tool("capinfos"), "-M", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = {line.partition(":")[0].strip(): line.partition(":")[2].strip() for line in done.stdout.splitlines()}
    assert told["Number of packets"] == "2"
    assert told["File timestamp precision"] == "nanoseconds (9)"
    assert told["Capture duration"] == "1.000000000 second"
    assert told["Capture application"] == "flatrack 1"
    assert json.loads(told["Capture comment"].removeprefix("flatrack "))["seed"] == 7


@pytest.mark.parametrize(("kind", "precision_ns"), [("pcap", 1000), ("nsecpcap", 1), ("pcapng", 1)])
def test_what_wireshark_writes_is_read(
    tmp_path: Path, need_tool: Callable[[str], str], kind: str, precision_ns: int
) -> None:
    path, other = tmp_path / "ours.pcapng", tmp_path / "theirs"
    recorder = recorder_at(path)
    frame = CODING.frame(encode_segment(green(b"data")))
    recorder.observe(1_234_567_891, WAY, frame, frame, Fate.DELIVERED)
    recorder.close()
    subprocess.run([need_tool("editcap"), "-F", kind, path, other], check=True, capture_output=True)
    (ours,), (theirs,) = packets_of(path), packets_of(other)
    assert theirs.data == ours.data
    assert theirs.utc_ns == ours.utc_ns // precision_ns * precision_ns


# -- what is recorded


def random_for(name: str) -> random.Random:
    return random.Random(f"3/{name}")


class Traffic:
    """Frames both ways over a link that does everything, with outages and power cuts; a recorder looks on."""

    def __init__(self, path: Path, impairments: Impairments, *, has_lost: bool = True) -> None:
        self.now_ns = 0
        self._agenda: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self.relay = Relay(self._call_at_ns, lambda: self.now_ns)
        self.recorder = recorder_at(path, has_lost=has_lost)
        self.relay.observer = self.recorder.observe
        self.link = Link("isl-11-12", impairments, random_for, range_km=3000)
        self.relay.connect((11, 1), (12, 2), self.link)
        self.received: list[bytes] = []
        for node in (11, 12):
            self.power_on(node)

    def power_on(self, node: int) -> None:
        self.relay.attach(node, lambda _, frame: self.received.append(bytes(frame)))

    def send(self, count: int) -> None:
        rng = random_for("payloads")
        for number in range(count):
            frame = CODING.frame(encode_segment(green(rng.randbytes(rng.randrange(1, 900)), number)))
            self.relay.send(*((11, 1) if number % 2 else (12, 2)), frame if number % 3 else bytes(frame))
            self.run_to(self.now_ns + 5_000_000)

    def send_burst(self) -> None:
        for number in range(10):
            self.relay.send(11, 1, CODING.frame(encode_segment(green(bytes(500), number))))

    def run_to(self, until_ns: int) -> None:
        while due := [one for one in self._agenda if one[0] <= until_ns]:
            first = min(due, key=lambda one: one[:2])
            self._agenda.remove(first)
            self.now_ns = first[0]
            first[2](*first[3])
        self.now_ns = until_ns

    def _call_at_ns(self, at_ns: int, call: Callable[..., None], *arguments: Any) -> None:
        self._agenda.append((at_ns, len(self._agenda) + self.now_ns, call, arguments))


@pytest.fixture(scope="module")
def traffic(tmp_path_factory: pytest.TempPathFactory) -> tuple[Traffic, Path]:
    path = tmp_path_factory.mktemp("traffic") / "all.pcapng"
    impairments = Impairments(
        rate_bps=5e5, loss=0.1, bit_error_rate=5e-5, duplicate=0.1, reorder=0.05, reorder_delay_s=0.02,
        jitter_s=0.001, queue_frames_max=4,
    )  # fmt: skip
    traffic = Traffic(path, impairments)
    traffic.link.add_window(0, 3 * S)
    traffic.send(200)
    traffic.link.add_outage(traffic.now_ns, traffic.now_ns + S // 5)
    traffic.send(100)
    traffic.send_burst()
    traffic.relay.detach(11)
    traffic.send(60)
    traffic.power_on(11)
    traffic.send(300)
    traffic.run_to(traffic.now_ns + S)
    traffic.recorder.close()
    return traffic, path


def verdict(packet: Packet) -> str:
    return packet.comment.partition(":")[0]


def test_every_delivered_frame_is_in_the_file_exactly_once(traffic: tuple[Traffic, Path]) -> None:
    rig, path = traffic
    delivered = [packet for packet in packets_of(path) if verdict(packet) != "lost"]
    clean, flipped = sum(rig.relay.delivered_clean.values()), sum(rig.relay.delivered_flipped.values())
    assert clean > 100
    assert flipped > 10
    assert len(delivered) == clean + flipped == rig.recorder.delivered_count
    frames = [frame_in(packet) for packet in delivered]
    assert frames == rig.received, "the very frames, in the order of their arrival"
    assert Counter(verdict(packet) for packet in delivered) == {"": clean, "rejected": flipped}


def frame_in(packet: Packet) -> bytes:
    """The coded frame that a packet stands for."""
    if packet.interface.link_type == LINKTYPE_USER0:
        return packet.data
    datagram = ltp_datagram(packet.interface.link_type, packet.data)
    assert isinstance(datagram, Datagram)
    return CODING.encode(datagram.payload)


def test_every_lost_frame_is_in_the_file_with_the_reason_that_the_channel_counted(
    traffic: tuple[Traffic, Path],
) -> None:
    rig, path = traffic
    lost = Counter(packet.comment.partition("lost: ")[2] for packet in packets_of(path) if verdict(packet) == "lost")
    counts: ChannelCounts = rig.relay.total()
    assert lost == {
        "vanished": counts.lost,
        "no contact": counts.blocked_no_contact,
        "outage": counts.blocked_outage,
        "transmit queue full": counts.queue_dropped,
        "sender lost power": counts.flushed,
        "receiver off": sum(rig.relay.dropped_off.values()),
    } | ({"acquiring": counts.blocked_acquiring} if counts.blocked_acquiring else {})
    assert min(lost.values()) > 0
    assert lost.total() == rig.recorder.lost_count


def test_lost_frames_are_left_out_unless_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "file.pcapng"
    rig = Traffic(path, Impairments(rate_bps=1e6, loss=0.5), has_lost=False)
    rig.send(50)
    rig.run_to(rig.now_ns + S)
    rig.recorder.close()
    assert len(packets_of(path)) == len(rig.received) < 50


def test_a_rejected_frame_is_raw_and_says_which_bits_were_flipped(tmp_path: Path) -> None:
    path = tmp_path / "file.pcapng"
    sent = CODING.encode(encode_segment(green(b"data")))
    struck = bytearray(sent)
    struck[2] ^= 0x80
    struck[5] ^= 0x01
    recorder = recorder_at(path)
    recorder.observe(0, WAY._replace(is_forward=False), sent, bytes(struck), Fate.DELIVERED)
    recorder.close()
    (packet,) = packets_of(path)
    assert (packet.interface.link_type, packet.interface.name) == (LINKTYPE_USER0, "isl-11-12/raw")
    assert (packet.data, packet.direction) == (bytes(struck), INBOUND)
    assert packet.comment.startswith("rejected: 2 bits flipped at byte.bit 2.0, 5.7; ")


def test_a_long_list_of_flips_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "file.pcapng"
    sent = CODING.encode(encode_segment(green(bytes(100))))
    recorder = recorder_at(path)
    recorder.observe(0, WAY, sent, bytes(byte ^ 0xFF for byte in sent), Fate.DELIVERED)
    recorder.close()
    (packet,) = packets_of(path)
    assert f"{8 * len(sent)} bits flipped" in packet.comment
    assert "2.7" not in packet.comment
    assert "1.7, ...; " in packet.comment


def test_a_corrected_frame_is_a_segment_and_says_what_was_flipped(tmp_path: Path) -> None:
    path = tmp_path / "file.pcapng"
    code = coding("ccsds-rs-1")
    segment = encode_segment(green(b"data"))
    sent = code.frame(segment)
    struck = bytearray(bytes(sent))
    struck[20] ^= 0x10
    recorder = recorder_at(path, name=code.name)
    recorder.observe(0, WAY, sent, bytes(struck), Fate.DELIVERED)
    recorder.close()
    (packet,) = packets_of(path)
    assert packet.comment == "corrected: 1 bit flipped at byte.bit 20.3"
    assert packet.interface.description == "LTP segments; coding ccsds-rs-1"
    assert ltp_datagram(packet.interface.link_type, packet.data) == Datagram("10.0.0.11", "10.0.0.12", segment)
    (frame,) = findings_of(path, Layer.FRAMES)
    assert (frame["bytes"], frame["coding"], frame["verdict"]) == (len(sent), code.name, packet.comment)


def test_padding_is_told(tmp_path: Path) -> None:
    path = tmp_path / "file.pcapng"
    frame = CODING.frame(encode_segment(green(b"data")), padding_bytes=1000)
    recorder = recorder_at(path)
    recorder.observe(0, WAY, frame, frame, Fate.DELIVERED)
    recorder.close()
    assert [packet.comment for packet in packets_of(path)] == ["1000 bytes of padding"]


def test_a_capture_changes_nothing_in_a_run_and_holds_all_of_it(tmp_path: Path) -> None:
    scenario, path = load("three-body-12"), tmp_path / "run.pcapng"
    without = execute(scenario, 3, until_s=40).outcome
    recorder = run_recorder(path, scenario, 3, has_lost=True)
    outcome = execute(scenario, 3, until_s=40, observer=recorder.observe).outcome
    recorder.close()
    assert outcome.digest == without.digest
    verdicts = Counter(verdict(packet) for packet in packets_of(path))
    assert verdicts["lost"] >= outcome.counters["frames_lost"]
    assert verdicts["rejected"] == outcome.counters["frames_rejected"]
    assert verdicts[""] > 500
    inspection = Inspection(Capture(path), Layer.MESSAGES)
    kinds = Counter(finding.get("message") for finding in inspection.findings())
    assert inspection.tally.rejected_count == 0
    assert kinds["Beacon"] > 10
    assert kinds["Chunk"] > 10


# -- datagrams


@pytest.mark.parametrize(("node", "text"), [(1, "10.0.0.1"), (70_000, "10.1.17.112"), (2**32 - 1, "10.255.255.255")])
def test_the_address_holds_the_last_bits_of_the_node(node: int, text: str) -> None:
    assert str(address(node)) == text
    assert node_of(text) == node % 2**24


def test_a_foreign_address_is_no_node() -> None:
    assert node_of("192.168.1.2") is None
    assert node_of("::1") is None


def test_the_checksum_of_the_ip_head_holds() -> None:
    packet = Addresses(11, 65_000).datagram(b"payload")
    total = sum(struct.unpack("!10H", packet[:20]))
    assert (total & 0xFFFF) + (total >> 16) == 0xFFFF


PAYLOAD = b"a segment"
IPV4 = Addresses(11, 12).datagram(PAYLOAD)
UDP = IPV4[20:]
IPV6 = struct.pack("!IHBB", 6 << 28, len(UDP), 17, 64) + bytes(15) + b"\1" + bytes(15) + b"\2" + UDP
FRAMED = [
    (228, IPV4, "10.0.0.11"),
    (101, IPV4, "10.0.0.11"),
    (101, IPV6, "::1"),
    (0, struct.pack("<I", socket.AF_INET) + IPV4, "10.0.0.11"),
    (1, bytes(12) + b"\x08\x00" + IPV4, "10.0.0.11"),
    (1, bytes(12) + b"\x86\xdd" + IPV6, "::1"),
    (1, bytes(12) + b"\x81\x00\0\1\x08\x00" + IPV4 + bytes(6), "10.0.0.11"),
    (113, bytes(14) + b"\x08\x00" + IPV4, "10.0.0.11"),
    (276, b"\x08\x00" + bytes(18) + IPV4, "10.0.0.11"),
]


@pytest.mark.parametrize(("link_type", "data", "source"), FRAMED)
def test_the_datagram_is_found_behind_every_head(link_type: int, data: bytes, source: str) -> None:
    datagram = ltp_datagram(link_type, data)
    assert isinstance(datagram, Datagram), datagram
    assert (datagram.payload, datagram.source) == (PAYLOAD, source)


@pytest.mark.parametrize(
    ("link_type", "data", "reason"),
    [
        (1, bytes(12) + b"\x08\x06" + bytes(30), "no IP packet"),
        (228, b"", "no IP packet"),
        (228, IPV4[:19], "no IP packet"),
        (228, IPV4[:9] + b"\x06" + IPV4[10:], "no UDP datagram"),
        (228, IPV4[:6] + b"\x20\x00" + IPV4[8:], "fragment of an IP packet"),
        (228, IPV4.replace(struct.pack("!HH", LTP_PORT, LTP_PORT), struct.pack("!HH", 53, 54)), "no LTP datagram"),
        (228, IPV4[:-1], "cut short"),
        (105, IPV4, "link type 105"),
    ],
)
def test_what_is_no_ltp_says_what_it_is(link_type: int, data: bytes, reason: str) -> None:
    assert ltp_datagram(link_type, data) == reason


@given(st.sampled_from((0, 1, 101, 113, 147, 228, 276)), st.binary(max_size=120))
def test_no_packet_raises(link_type: int, data: bytes) -> None:
    ltp_datagram(link_type, data)


# -- captures of others


def pcap(order: str, magic: int, records: list[tuple[int, int, bytes]], link_type: int = 1) -> bytes:
    head = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65_535, link_type)
    return head + b"".join(
        struct.pack(order + "IIII", seconds, fraction, len(data), len(data)) + data
        for seconds, fraction, data in records
    )


def foreign(segment: Segment) -> bytes:
    """An Ethernet frame between two hosts that are not ours."""
    packet = Addresses(1, 2).datagram(encode_segment(segment))
    return bytes(12) + b"\x08\x00" + packet[:12] + bytes((192, 0, 2, 1, 192, 0, 2, 9)) + packet[20:]


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("magic", "unit_ns"), [(0xA1B2C3D4, 1000), (0xA1B23C4D, 1)])
def test_a_foreign_pcap_is_read_in_both_byte_orders(tmp_path: Path, order: str, magic: int, unit_ns: int) -> None:
    path = tmp_path / "foreign.pcap"
    records = [(100, 5, foreign(green(b"one"))), (101, 7, b"noise"), (102, 9, foreign(green(b"two", 2)))]
    path.write_bytes(pcap(order, magic, records))
    first, second = findings_of(path, Layer.SEGMENTS)
    assert (first["t_ns"], second["t_ns"]) == (0, 2 * S + 4 * unit_ns)
    assert (second["source"], second["target"], second["session"]) == ("192.0.2.1", "192.0.2.9", "11/2")


def block(order: str, kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    return struct.pack(order + "II", kind, 12 + len(body)) + body + struct.pack(order + "I", 12 + len(body))


def section(order: str) -> bytes:
    return block(order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))


def interface(order: str, link_type: int, options: bytes = b"") -> bytes:
    return block(order, 1, struct.pack(order + "HHI", link_type, 0, 0) + options)


def enhanced(order: str, number: int, ticks: int, data: bytes) -> bytes:
    head = struct.pack(order + "IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, len(data), len(data))
    return block(order, 6, head + data)


@pytest.mark.parametrize("order", "<>")
def test_a_foreign_pcapng_is_read_in_both_byte_orders(tmp_path: Path, order: str) -> None:
    path = tmp_path / "foreign.pcapng"
    binary = struct.pack(order + "HHB3xHHqHH", 9, 1, 0x80 | 10, 14, 8, 5, 0, 0)  # 1/1024 s, 5 s later
    data = foreign(green(b"one"))
    simple = block(order, 3, struct.pack(order + "I", len(data)) + data)
    other = block(order, 0x0BAD, b"custom")
    path.write_bytes(
        section(order) + interface(order, 1) + interface(order, 1, binary) + other
        + enhanced(order, 0, 2_000_000, data) + enhanced(order, 1, 1536, data) + simple
        + section("<>".replace(order, "")) + interface("<>".replace(order, ""), 1)
        + enhanced("<>".replace(order, ""), 0, 3_000_000, data)
    )  # fmt: skip
    packets = packets_of(path)
    assert [packet.utc_ns for packet in packets] == [2 * S, 5 * S + 3 * S // 2, 0, 3 * S]
    assert {packet.data for packet in packets} == {data}


HOSTILE = [
    (b"", "begins with ''"),
    (b"hello world", "expected a pcap or pcapng capture"),
    (pcap("<", 0xA1B2C3D4, [])[:24] + struct.pack("<IIII", 0, 0, 2**31, 2**31), "a packet of 2147483648 bytes"),
    (section("<")[:8] + b"\0\0\0\0", "byte order 00000000"),
    (section("<") + struct.pack("<II", 6, 2**32 - 4), "block of 4294967292 bytes, expected 12 to"),
    (section("<") + struct.pack("<II", 6, 8), "block of 8 bytes"),
    (section("<") + struct.pack("<III", 6, 12, 16), "the block's two lengths differ"),
    (section("<") + enhanced("<", 0, 0, b""), "packet of interface 0, 0 are described"),
    (section("<") + interface("<", 1) + block("<", 6, struct.pack("<IIIII", 0, 0, 0, 9, 9)), "packet of 9 bytes in"),
    (section("<") + block("<", 1, b""), "interface description that is too short"),
    (section("<") + block("<", 6, b"1234"), "packet block that is too short"),
    (section("<") + block("<", 3, bytes(8)), "a simple packet without"),
]


@pytest.mark.parametrize(("data", "reason"), HOSTILE)
def test_a_hostile_capture_is_refused_with_what_is_wrong(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "hostile"
    path.write_bytes(data)
    with pytest.raises(ConfigError) as told:
        packets_of(path)
    assert reason in str(told.value)
    assert str(path) in str(told.value)


def test_too_many_interfaces_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hil.capture.packets.INTERFACES_MAX", 3)
    path = tmp_path / "hostile"
    path.write_bytes(section("<") + 4 * interface("<", 1))
    with pytest.raises(ConfigError, match="more than 3 interfaces"):
        packets_of(path)


@pytest.fixture(scope="module")
def varied(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A capture with a bit of everything."""
    path = tmp_path_factory.mktemp("varied") / "file.pcapng"
    signed = sign(bundle_of(b"x" * 50), (0, 1), number=7, source=Eid(11, 0), key=bytes(32))
    sealed = encrypt(signed, (1,), number=8, source=Eid(11, 0), key=bytes(32), iv=bytes(12))
    query = encode_bundle(bundle_of(encode_message(ObjectQuery(bytes(32), 5))))
    record(
        path,
        green(query),
        red(0, query[:40], number=2),
        red(40, query[40:], is_last=True, number=2),
        green(encode_bundle(sealed) + encode_bundle(signed), 3),
        CancelSegment((12, 5), CancelReason.UNREACH, by_sender=False),
    )
    return path.read_bytes()


@settings(max_examples=300)
@given(data=st.data())
def test_a_damaged_capture_never_raises_anything_but_its_error(
    tmp_path_factory: pytest.TempPathFactory, varied: bytes, data: st.DataObject
) -> None:
    damaged = bytearray(varied)
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "file"
    path.write_bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    layer = data.draw(st.sampled_from([layer.value for layer in Layer]))
    form = data.draw(st.sampled_from(([], ["--json"])))
    result = CliRunner().invoke(main, ["inspect", str(path), f"--{layer}", *form])
    assert result.exit_code in (0, 2), result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)


# -- blocks


def test_a_block_is_put_together_from_segments_in_any_order_once() -> None:
    data = random_for("block").randbytes(100)
    pieces = [red(80, data[80:], is_last=True), red(0, data[:40]), red(30, data[30:60]), red(55, data[55:80])]
    for order in ((0, 1, 2, 3), (3, 2, 1, 0), (1, 0, 3, 2)):
        blocks = Blocks()
        given = [blocks.add(pieces[index], "a", "b") for index in order]
        assert given == [None, None, None, data]
        assert [blocks.add(piece, "a", "b") for piece in pieces] == [None] * 4, "repetitions give nothing again"
        assert blocks.open_count == 0


def test_blocks_of_other_neighbours_and_sessions_are_kept_apart() -> None:
    blocks = Blocks()
    assert blocks.add(red(0, b"one"), "a", "b") is None
    assert blocks.add(red(3, b"two", is_last=True), "a", "c") is None
    assert blocks.add(red(3, b"two", is_last=True, number=2), "a", "b") is None
    assert blocks.add(red(3, b"two", is_last=True), "a", "b") == b"onetwo"
    assert blocks.open_count == 2


@pytest.mark.parametrize("by_sender", [True, False])
def test_a_cancelled_block_is_forgotten(by_sender: bool) -> None:
    blocks = Blocks()
    blocks.add(red(0, b"one"), "a", "b")
    ends = ("a", "b") if by_sender else ("b", "a")
    blocks.add(CancelSegment((11, 1), CancelReason.RLEXC, by_sender), *ends)
    assert blocks.open_count == 0


def test_unfinished_blocks_are_bounded_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks_module, "OPEN_BYTES_MAX", 100_000)
    monkeypatch.setattr(blocks_module, "FINISHED_MAX", 10)
    blocks = Blocks()
    for number in range(1000):
        blocks.add(red(0, bytes(1000), number=number), "a", "b")
    assert blocks.open_count <= 100
    assert blocks.given_up_count == 1000 - blocks.open_count
    for offset in range(0, 2000, 2):
        blocks.add(red(offset, b"1", number=5000), "a", "b")
    assert blocks.given_up_count > 1000, "one block of many short segments is bounded too"
    assert blocks.add(red(2**40, b"1", number=6000), "a", "b") is None
    assert blocks.open_count == 1, "no bundle is that long"
    for number in range(100):
        assert blocks.add(green(b"whole", number), "a", "b") == b"whole"
    assert blocks.add(green(b"whole", 0), "a", "b") == b"whole", "forgotten after ten others"


def test_a_block_with_several_bundles_is_taken_apart() -> None:
    bundles = [encode_bundle(bundle_of(bytes(size))) for size in (0, 10, 300)]
    assert bundles_in(b"".join(bundles)) == bundles
    assert bundles_in(bundles[0] + b"noise") == [bundles[0], b"noise"]
    assert bundles_in(b"") == []


@pytest.mark.parametrize(
    "block",
    [b"\x9f", b"\x9f" + b"\x81" * 5000, b"\x9f\x9b" + b"\xff" * 8, b"\x9f\x5b" + b"\xff" * 8, b"\x9f" + b"\0" * 99],
)
def test_a_hostile_block_stays_whole(block: bytes) -> None:
    assert bundles_in(block) == [block]


@given(st.binary(max_size=200))
def test_a_block_loses_no_byte(data: bytes) -> None:
    assert b"".join(bundles_in(b"\x9f" + data)) == b"\x9f" + data


# -- what is told


def test_the_layers_of_a_bundle_are_told(tmp_path: Path) -> None:
    path = tmp_path / "file.pcapng"
    message = encode_message(ObjectQuery(bytes(range(32)), 5))
    signed = sign(bundle_of(message, hop_count=(64, 2)), (0, 1), number=7, source=Eid(11, 9), key=bytes(32))
    priority = CanonicalBlock(192, 9, 1, 0, b"\x02")
    plain = encode_bundle(bundle_of(message, blocks=(priority,), previous_node=Eid(13, 0)))
    record(path, red(0, plain[:50]), red(50, plain[50:], is_last=True), green(encode_bundle(signed), 2))
    first, second = findings_of(path, Layer.BUNDLES)
    assert (first["number"], first["t_ns"], first["source"], first["target"]) == (2, 2 * S, "11", "12")
    assert (first["from"], first["to"], first["previous"]) == ("ipn:11.0", "ipn:12.4", "ipn:13.0")
    assert (first["lifetime_ms"], first["age_ms"], first["blocks"]) == (60_000, 5, ["priority 02"])
    assert second["hops"] == "2 of 64"
    assert second["blocks"] == ["BIB of 0, 1 by ipn:11.9, key 9, context 1, parameters 1=5, 3=7"]
    for finding in findings_of(path, Layer.MESSAGES):
        assert (finding["message"], finding["service"]) == ("ObjectQuery", "OBJECT")
        assert finding["fields"] == {"digest": bytes(range(32)), "size_bytes": 5, "question": 0}
    record(path, red(0, plain[:50]), CancelSegment((11, 1), CancelReason.RLEXC, by_sender=True))
    begun, cancelled = findings_of(path, Layer.SEGMENTS)
    assert (begun["type"], begun["marks"], begun["offset"], begun["length"]) == ("red data", [], 0, 50)
    assert (cancelled["type"], cancelled["reason"]) == ("cancel by sender", "RLEXC")


def test_an_encrypted_payload_is_not_taken_for_a_message(tmp_path: Path) -> None:
    path = tmp_path / "file.pcapng"
    sealed = encrypt(bundle_of(b"secret"), (1,), number=8, source=Eid(11, 0), key=bytes(32), iv=bytes(12))
    record(path, green(encode_bundle(sealed)))
    (finding,) = findings_of(path, Layer.MESSAGES)
    assert finding["verdict"] == "encrypted payload of 6 bytes"


def test_only_what_concerns_a_node_is_told(tmp_path: Path) -> None:
    path = tmp_path / "file.pcapng"
    recorder = recorder_at(path)
    for second, (source, target) in enumerate(((11, 12), (12, 13), (13, 14))):
        frame = CODING.frame(encode_segment(DataSegment((source, 1), False, False, False, True, 1, 0, b"data")))
        recorder.observe(second, Way("link", True, (source, 1), (target, 1)), frame, frame, Fate.DELIVERED)
    recorder.close()
    assert [finding["number"] for finding in findings_of(path, Layer.SEGMENTS, 13)] == [2, 3]
    assert [finding["number"] for finding in findings_of(path, Layer.FRAMES, 11)] == [1]
    assert findings_of(path, Layer.FRAMES, 99) == []


# -- the command


def inspect(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["inspect", *map(str, arguments)])
    return result.exit_code, result.output


def test_the_command_prints_a_line_for_each_and_what_the_file_held(tmp_path: Path) -> None:
    path = tmp_path / "file.pcapng"
    record(path, green(b"noise"), green(encode_bundle(bundle_of(b"\x80")), 2))
    code, output = inspect(path)
    assert code == 0
    assert output.splitlines() == [
        "      1       T+1.000000000  isl-11-12  11 > 12  session 11/1  green data  end_of_block  offset 0  length 5",
        "      2       T+2.000000000  isl-11-12  11 > 12  session 11/2  green data  end_of_block  offset 0  length 57",
        "2 packets: 2 LTP segments, 0 rejected or lost frames, 0 other; 0 could not be read",
    ]
    assert inspect(path, "--limit", 1)[1].count("\n") == 1
    code, output = inspect(path, "--bundles")
    assert "no bundle: bundle: no CBOR array of indefinite length" in output
    assert "2 blocks with 1 bundles; 0 blocks not whole, 0 given up" in output
    assert "no message: " in inspect(path, "--messages")[1]


def test_json_is_one_object_a_line(tmp_path: Path) -> None:
    path = tmp_path / "file.pcapng"
    record(path, green(encode_bundle(bundle_of(encode_message(ObjectQuery(bytes(32), 5))))))
    for layer in Layer:
        code, output = inspect(path, f"--{layer}", "--json")
        assert code == 0
        (line,) = output.splitlines()
        assert json.loads(line)["utc_ns"] == UTC_NS + S
    assert json.loads(line)["fields"] == {"digest": "00" * 32, "size_bytes": 5, "question": 0}


def test_text_of_a_capture_does_not_steer_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "file.pcapng"
    with PcapngWriter(path, "test", "") as writer:
        number = writer.add_interface(LINKTYPE_USER0, "\x1b[2J", "coding \x1b[31m")
        writer.write(number, 0, b"", comment="\x07\x1b]0;title")
    code, output = inspect(path, "--frames")
    assert code == 0
    assert "\x1b" not in output
    assert r"\x1b[2J" in output
    assert r"\x07\x1b]0;title" in output


def test_a_trace_is_printed_and_chosen_from_by_name(tmp_path: Path) -> None:
    execute(load(str(EXAMPLE)), 3, until_s=20, folder=tmp_path)
    trace = tmp_path / "trace.jsonl"
    code, output = inspect(trace, "--node", "sat-02")
    assert code == 0
    assert output
    assert all("  sat-02  " in line and line.lstrip().startswith("T+") for line in output.splitlines())
    code, output = inspect(trace, "--json", "--limit", 1)
    assert type(json.loads(output)[0]) is int


@pytest.mark.parametrize(
    ("content", "options", "reason"),
    [
        (b"{}\n", ["--frames"], "is a trace, expected a capture for --frames"),
        (b"{}\n", [], "expected the footer"),
        (b"{" + bytes(2_000_000), [], "a line of more than 1048576 bytes"),
        (b"nothing", [], "expected a pcap or pcapng capture"),
        (section("<"), ["--node", "sat-01"], "in a capture nodes are numbers"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(
    tmp_path: Path, content: bytes, options: list[str], reason: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    code, output = inspect(path, *options)
    assert code == 2
    assert reason in output
    assert output.count("\n") == 1


def test_a_missing_file_is_a_users_mistake(tmp_path: Path) -> None:
    code, output = inspect(tmp_path / "none")
    assert (code, output) == (2, f"flatrack: {tmp_path / 'none'}: cannot be read: No such file or directory\n")


def test_a_run_writes_its_capture(tmp_path: Path) -> None:
    path = tmp_path / "run.pcapng"
    options = ["--until", "30", "--out", str(tmp_path / "runs"), "--pcap", str(path), "--pcap-lost"]
    result = CliRunner().invoke(main, ["run", "three-body-12", *options])
    assert result.exit_code == 0, result.output
    capture = Capture(path)
    assert sum(1 for _ in capture.packets()) > 100
    assert '"scenario":"three-body-12","seed":7' in capture.comment
    refused = CliRunner().invoke(main, ["run", str(EXAMPLE), "--pcap-lost"])
    assert (refused.exit_code, refused.output) == (2, "flatrack: --pcap-lost: expected --pcap FILE beside it\n")


def test_the_peer_of_cbor_is_not_ours() -> None:
    """The ends of bundles that we find are those of another CBOR reader."""
    data = encode_bundle(bundle_of(bytes(300), hop_count=(9, 1)))
    assert len(cbor2.loads(bundles_in(data + data)[0])) == 4
