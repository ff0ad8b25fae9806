"""What is recorded is what crossed: each frame once, with its fate and what was flipped, and the run is the same."""

import random  # noqa: TID251 - seeded
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flightsw.wire.framing import coding
from flightsw.wire.segments import DataSegment, encode_segment
from hil.bench.execute import execute
from hil.bench.scenario import load
from hil.capture.datagrams import Datagram, ltp_datagram
from hil.capture.inspection import Inspection, Layer
from hil.capture.packets import Capture, Packet
from hil.capture.pcapng import INBOUND, LINKTYPE_USER0
from hil.capture.recorder import Recorder
from hil.capture.runs import run_recorder
from hil.channel.direction import ChannelCounts
from hil.channel.impairments import Impairments
from hil.channel.link import Link
from hil.channel.relay import Fate, Relay, Way

S = 1_000_000_000
CODING = coding("cobs-crc32c")
WAY = Way("isl-11-12", True, (11, 1), (12, 2))


def random_for(name: str) -> random.Random:
    return random.Random(f"3/{name}")


class Traffic:
    """Frames both ways over a link that does everything, with outages and power cuts; a recorder looks on."""

    def __init__(self, recorder: Recorder, green: Callable[..., DataSegment], impairments: Impairments) -> None:
        self.now_ns = 0
        self._agenda: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self.relay = Relay(self._call_at_ns, lambda: self.now_ns)
        self.recorder = recorder
        self._green = green
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
            frame = CODING.frame(encode_segment(self._green(rng.randbytes(rng.randrange(1, 900)), number)))
            self.relay.send(*((11, 1) if number % 2 else (12, 2)), frame if number % 3 else bytes(frame))
            self.run_to(self.now_ns + 5_000_000)

    def send_burst(self) -> None:
        for number in range(10):
            self.relay.send(11, 1, CODING.frame(encode_segment(self._green(bytes(500), number))))

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
def traffic(
    recorder_at: Callable[..., Recorder],
    green: Callable[..., DataSegment],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Traffic, Path]:
    path = tmp_path_factory.mktemp("traffic") / "all.pcapng"
    impairments = Impairments(
        rate_bps=5e5, loss=0.1, bit_error_rate=5e-5, duplicate=0.1, reorder=0.05, reorder_delay_s=0.02,
        jitter_s=0.001, queue_frames_max=4,
    )  # fmt: skip
    traffic = Traffic(recorder_at(path, has_lost=True), green, impairments)
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


def test_every_delivered_frame_is_in_the_file_exactly_once(
    packets_of: Callable[..., list[Packet]], traffic: tuple[Traffic, Path]
) -> None:
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
    packets_of: Callable[..., list[Packet]],
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


def test_lost_frames_are_left_out_unless_asked_for(
    green: Callable[..., DataSegment],
    recorder_at: Callable[..., Recorder],
    packets_of: Callable[..., list[Packet]],
    tmp_path: Path,
) -> None:
    path = tmp_path / "file.pcapng"
    rig = Traffic(recorder_at(path), green, Impairments(rate_bps=1e6, loss=0.5))
    rig.send(50)
    rig.run_to(rig.now_ns + S)
    rig.recorder.close()
    assert len(packets_of(path)) == len(rig.received) < 50


def test_a_rejected_frame_is_raw_and_says_which_bits_were_flipped(
    green: Callable[..., DataSegment],
    recorder_at: Callable[..., Recorder],
    packets_of: Callable[..., list[Packet]],
    tmp_path: Path,
) -> None:
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


def test_a_long_list_of_flips_is_cut(
    green: Callable[..., DataSegment],
    recorder_at: Callable[..., Recorder],
    packets_of: Callable[..., list[Packet]],
    tmp_path: Path,
) -> None:
    path = tmp_path / "file.pcapng"
    sent = CODING.encode(encode_segment(green(bytes(100))))
    recorder = recorder_at(path)
    recorder.observe(0, WAY, sent, bytes(byte ^ 0xFF for byte in sent), Fate.DELIVERED)
    recorder.close()
    (packet,) = packets_of(path)
    assert f"{8 * len(sent)} bits flipped" in packet.comment
    assert "2.7" not in packet.comment
    assert "1.7, ...; " in packet.comment


def test_a_corrected_frame_is_a_segment_and_says_what_was_flipped(
    green: Callable[..., DataSegment],
    recorder_at: Callable[..., Recorder],
    packets_of: Callable[..., list[Packet]],
    findings_of: Callable[..., list[dict[str, Any]]],
    tmp_path: Path,
) -> None:
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


def test_padding_is_told(
    green: Callable[..., DataSegment],
    recorder_at: Callable[..., Recorder],
    packets_of: Callable[..., list[Packet]],
    tmp_path: Path,
) -> None:
    path = tmp_path / "file.pcapng"
    frame = CODING.frame(encode_segment(green(b"data")), padding_bytes=1000)
    recorder = recorder_at(path)
    recorder.observe(0, WAY, frame, frame, Fate.DELIVERED)
    recorder.close()
    assert [packet.comment for packet in packets_of(path)] == ["1000 bytes of padding"]


def test_a_capture_changes_nothing_in_a_run_and_holds_all_of_it(
    packets_of: Callable[..., list[Packet]], tmp_path: Path
) -> None:
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
