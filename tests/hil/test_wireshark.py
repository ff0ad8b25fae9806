"""Wireshark reads what crosses our links, and says the same of it as we do.

Wireshark 4.0 is excused where it is wrong, for frames that a condition names exactly. All three are in `packet-ltp.c`
of that version; the dissector was written anew in 4.2 (fields `ltp.block.*` of the display filter reference). No issue
about them is known to us.

- A checkpoint that does not end its block is taken for the block's end (`dissect_data_segment`: no more fragments after
  types 1 to 3). Data at offset 0 that are repeated as such a checkpoint are dissected as a whole bundle and found
  malformed, and a block that has had such a checkpoint may not be put together.
- A cancel acknowledgement has nothing behind its header, and the tree of the session is made one byte longer than the
  header: always malformed.
- Segments of four bytes are not taken for LTP (`LTP_MIN_DATA_BUFFER`): a cancel acknowledgement with short numbers.

"Unknown type code" is no fault: it says that Wireshark has no dissector for a payload, or for our priority block, whose
type 192 is of the private range of RFC 9171 §9.1.
"""

import heapq
import random  # noqa: TID251 - seeded
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flightsw.config import InterfaceConfig
from flightsw.net.agent import AgentLimits, BundleAgent
from flightsw.net.contacts import Contact, ContactPlan
from flightsw.net.ltp import LtpConfig
from flightsw.wire.bundles import Bundle, encode_bundle
from flightsw.wire.confidentiality import encrypt
from flightsw.wire.eids import DTN_NONE, Eid
from flightsw.wire.framing import coding
from flightsw.wire.integrity import sign
from flightsw.wire.messages import Beacon, Mode, encode_message
from flightsw.wire.security import decode_security
from flightsw.wire.segments import (
    CancelAck,
    CancelReason,
    CancelSegment,
    DataSegment,
    ReportAck,
    ReportSegment,
    decode_segment,
    encode_segment,
)
from hil.bench.execute import execute
from hil.bench.scenario import load
from hil.capture.datagrams import ltp_datagram
from hil.capture.inspection import Inspection, Layer
from hil.capture.packets import Capture
from hil.capture.pcapng import LINKTYPE_IPV4
from hil.capture.recorder import Recorder
from hil.capture.runs import run_recorder
from hil.channel.impairments import Impairments
from hil.channel.link import Link
from hil.channel.relay import Fate, Relay, Way

S = 1_000_000_000
UTC_NS = 1_800_000_000 * S
CODING = coding("cobs-crc32c")
LIMITS = AgentLimits(ltp=LtpConfig(margin_ns=200_000_000))
NODES = (11, 12, 13)
RATE_BPS = 1e6
CONTACTS_S = ((0, 100), (200, 400))
BLOCK_PRIORITY = 192
PAYLOAD, PRIORITY = "1", str(BLOCK_PRIORITY)
SESSION = "ltp.session.orig ltp.session.number"
CANCEL_ACKS = ("0x0d", "0x0f")
MALFORMED = "Malformed Packet (Exception occurred)"
COMMENT, CHAT = str(0x100000), str(0x200000)
"""Severities of Wireshark below a note."""


class Chain:
    """Three agents in a row, joined by a relay over links that lose and flip; a recorder looks on."""

    def __init__(self, path: Path, impairments: Impairments) -> None:
        self.now_ns = 0
        self._agenda: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = 0
        self.relay = Relay(self._call_at_ns, lambda: self.now_ns)
        self.recorder = Recorder(path, {"scenario": "chain"}, UTC_NS, lambda _: CODING.name)
        self.relay.observer = self.recorder.observe
        contacts = []
        for near, far in ((11, 12), (12, 13)):
            link = Link(f"isl-{near}-{far}", impairments, lambda name: random.Random(f"5/{name}"), range_km=1500)
            self.relay.connect((near, 1), (far, 2), link)
            for start_s, end_s in CONTACTS_S:
                link.add_window(start_s * S, end_s * S)
                for source, target in (((near, 1), (far, 2)), ((far, 2), (near, 1))):
                    contacts.append(Contact(start_s * S, end_s * S, *source, *target, RATE_BPS, 5_100_000))
        plan = ContactPlan(contacts)
        self.agents: dict[int, BundleAgent] = {}
        for node in NODES:
            interfaces = tuple(
                InterfaceConfig(index=index, name=f"laser-{index}", coding=CODING.name, segment_bytes=1024)
                for index in sorted({one.source_interface for one in contacts if one.source == node})
            )
            self.agents[node] = BundleAgent(node, plan, interfaces, 1 << 32, LIMITS)
            self.relay.attach(node, lambda i, frame, node=node: self.agents[node].receive_frame(i, frame, self.now_ns))
        self.delivered: Counter[int] = Counter()

    def send(self, source: int, target: int, payload: bytes, lifetime_s: int = 600, **options: Any) -> None:
        self.agents[source].send(
            target,
            4,
            payload,
            now_ns=self.now_ns,
            utc_ns=UTC_NS + self.now_ns,
            lifetime_ms=lifetime_s * 1000,
            **options,
        )

    def run(self, until_s: float) -> None:
        until_ns = int(until_s * S)
        while True:
            for node, agent in self.agents.items():
                for interface, frame in agent.pump(self.now_ns):
                    self.relay.send(node, interface, frame)
                self.delivered[node] += len(agent.take_deliveries())
            times = [at for agent in self.agents.values() if (at := agent.next_deadline_ns()) is not None]
            times += [self._agenda[0][0]] if self._agenda else []
            if not times or min(times) > until_ns:
                self.now_ns = until_ns
                return
            self.now_ns = max(self.now_ns, min(times))
            while self._agenda and self._agenda[0][0] <= self.now_ns:
                _, _, call, arguments = heapq.heappop(self._agenda)
                call(*arguments)

    def _call_at_ns(self, at_ns: int, call: Callable[..., None], *arguments: Any) -> None:
        self._order += 1
        heapq.heappush(self._agenda, (at_ns, self._order, call, arguments))


def beacon(node: int) -> bytes:
    return encode_message(
        Beacon(node, 1, 5, UTC_NS, Mode.NOMINAL, 1, 700, 200, 500, 300, 0, 0, 0, 0, 0, 0, 0, 1 << 20, bytes(8))
    )


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Chain, Path]:
    """A run with everything that LTP has, and its capture."""
    path = tmp_path_factory.mktemp("interop") / "chain.pcapng"
    chain = Chain(path, Impairments(rate_bps=RATE_BPS, loss=0.03, bit_error_rate=3e-6))
    for second in range(0, 90, 3):
        chain.run(second)
        chain.send(11, 13, beacon(11), reliable=False, priority=5)
        chain.send(13, 11, bytes(range(256)) * (second % 7 * 8 + 1), priority=second % 8)
        chain.send(12, 11, b"short", priority=4)
    unserved = DataSegment((11, 1 << 40), True, True, True, True, 9, 0, b"no such service", 1)
    chain.relay.send(11, 1, CODING.encode(encode_segment(unserved)))
    chain.run(99.9)
    for _ in range(3):  # cut off by the end of contact, too old when the next one begins: cancelled
        chain.send(11, 12, bytes(40_000), lifetime_s=50)
    chain.run(399)
    chain.recorder.close()
    return chain, path


@pytest.fixture(scope="module")
def mission(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The capture of a run of twelve satellites: signed bundles, chunks of many segments, forwarding."""
    path = tmp_path_factory.mktemp("interop") / "mission.pcapng"
    scenario = load("three-body-12")
    recorder = run_recorder(path, scenario, 7, has_lost=False)
    execute(scenario, 7, until_s=90, observer=recorder.observe)
    recorder.close()
    return path


@pytest.fixture(params=["chain", "mission"])
def path(request: pytest.FixtureRequest) -> Path:
    """Each of the two captures."""
    capture: Path = request.getfixturevalue("mission") if request.param == "mission" else chain_path(request)
    return capture


def chain_path(request: pytest.FixtureRequest) -> Path:
    made: tuple[Chain, Path] = request.getfixturevalue("chain")
    return made[1]


def dissect(tshark: str, path: Path, shown: str, fields: str) -> list[list[str]]:
    """The fields (separated by spaces) of the frames that a display filter takes; a field's values are joined by |."""
    columns = [part for field in fields.split() for part in ("-e", field)]
    command = [tshark, "-n", "-r", str(path), "-Y", shown, "-T", "fields", "-E", "aggregator=|", *columns]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [line.split("\t") for line in done.stdout.splitlines()]


def capture_bundles(path: Path, bundles: list[bytes]) -> None:
    """A capture with each of the bundles in a block of its own."""
    recorder = Recorder(path, {}, UTC_NS, lambda _: CODING.name)
    way = Way("isl-11-12", True, (11, 1), (12, 2))
    for number, bundle in enumerate(bundles, start=1):
        segment = DataSegment((11, number), False, False, False, True, 1, 0, bundle)
        frame = CODING.frame(encode_segment(segment))
        recorder.observe(number * S, way, frame, frame, Fate.DELIVERED)
    recorder.close()


def complaints(tshark: str, path: Path) -> list[str]:
    """What Wireshark finds wrong with frames of LTP, less what the text of this module excuses."""
    fields = "_ws.expert.message _ws.expert.severity ltp.type ltp.data.offset bpv7.canonical.type_code"
    found = []
    for messages, severities, kind, offset, types in dissect(tshark, path, "udp", fields):
        excused = Counter({"Unknown type code": sum(types.split("|").count(one) for one in (PAYLOAD, PRIORITY))})
        if kind in CANCEL_ACKS or (kind == "0x01" and offset == "0"):
            excused[MALFORMED] = 1
        for message, severity in zip(messages.split("|"), severities.split("|"), strict=True):
            if severity in ("", CHAT, COMMENT):
                continue
            if excused[message]:
                excused[message] -= 1
            else:
                found.append(f"type {kind}, offset {offset}: {message}")
    return found


def test_wireshark_has_no_complaint_about_a_run_with_all_types_of_segments(
    chain: tuple[Chain, Path], need_tool: Callable[[str], str]
) -> None:
    run, path = chain
    tshark = need_tool("tshark")
    kinds = Counter(int(row[0], 16) for row in dissect(tshark, path, "udp", "ltp.type"))
    assert set(kinds) >= {0, 1, 3, 7, 8, 9, 12, 13, 14, 15}
    assert kinds.total() > 500
    assert run.delivered[11] >= 59
    assert complaints(tshark, path) == []


def test_wireshark_has_no_complaint_about_a_mission(mission: Path, need_tool: Callable[[str], str]) -> None:
    tshark = need_tool("tshark")
    assert len(dissect(tshark, mission, "ltp", "frame.number")) > 5000
    assert len(dissect(tshark, mission, "bpsec.bib", "frame.number")) > 100
    assert complaints(tshark, mission) == []


def test_wireshark_reads_the_fields_of_segments_as_we_do(path: Path, need_tool: Callable[[str], str]) -> None:
    names = (
        "frame.number ltp.type ltp.session.orig ltp.session.number ltp.data.client.id ltp.data.offset ltp.data.length "
        "ltp.data.chkp ltp.data.rpt ltp.rpt.sno ltp.rpt.chkp ltp.rpt.ub ltp.rpt.lb ltp.rpt.clm.cnt ltp.rpt.clm.off "
        "ltp.rpt.clm.len ltp.rpt.ack.sno ltp.cancel.code"
    )
    theirs = {row[0]: row[1:] for row in dissect(need_tool("tshark"), path, "udp", names) if row[1] not in CANCEL_ACKS}
    ours = {}
    for packet in Capture(path).packets():
        if packet.interface.link_type == LINKTYPE_IPV4:
            datagram = ltp_datagram(LINKTYPE_IPV4, packet.data)
            assert not isinstance(datagram, str), datagram
            fields = fields_of(datagram.payload)
            if fields[0] not in CANCEL_ACKS:
                ours[str(packet.number)] = fields
    assert ours == theirs


def fields_of(data: bytes) -> list[str]:
    """The fields of a segment in the order and notation of tshark."""
    segment = decode_segment(data)
    fields: dict[int, object] = {}
    match segment:
        case DataSegment():
            fields = {0: segment.client_service, 1: segment.offset, 2: len(segment.data)}
            if segment.checkpoint:
                fields |= {3: segment.checkpoint_serial, 4: segment.report_serial}
        case ReportSegment():
            fields = {5: segment.report_serial, 6: segment.checkpoint_serial, 7: segment.upper, 8: segment.lower}
            fields[9] = len(segment.claims)
            fields[10] = "|".join(str(offset) for offset, _ in segment.claims)
            fields[11] = "|".join(str(length) for _, length in segment.claims)
        case ReportAck():
            fields = {12: segment.report_serial}
        case CancelSegment():
            fields = {13: f"0x{segment.reason:02x}"}
        case CancelAck():
            pass
    head = [f"0x{data[0]:02x}", *map(str, segment.session)]
    return head + [str(fields.get(column, "")) for column in range(14)]


def test_wireshark_puts_the_same_bundles_together_as_we_do(path: Path, need_tool: Callable[[str], str]) -> None:
    names = (
        "ltp.session.orig ltp.session.number frame.number bpv7.primary.src_uri bpv7.primary.dst_uri bpv7.time.dtntime "
        "bpv7.create_ts.seqno bpv7.primary.lifetime bpv7.bundle_age.time bpv7.hop_count.limit bpv7.hop_count.current "
        "bpv7.previous_node.uri"
    )
    tshark = need_tool("tshark")
    rows = dissect(tshark, path, "bpv7 and !_ws.malformed", f"bpv7.crc_status {names}")
    assert {status for row in rows for status in row[0].split("|")} == {"1"}, "a CRC that does not hold"
    theirs: dict[str, list[str]] = {}
    for _, originator, session, *fields in rows:
        theirs.setdefault(f"{originator}/{session}", fields)  # a repeated segment with a whole block is dissected again
    mistaken = {f"{row[0]}/{row[1]}" for row in dissect(tshark, path, "ltp.type == 1", SESSION)}
    ours = {}
    for bundle in Inspection(Capture(path), Layer.BUNDLES).findings():
        session = bundle["session"]
        if "to" not in bundle:
            assert bundle["verdict"] == "block of client service 9", bundle
        elif session in theirs or session not in mistaken:
            made, limit = bundle["hops"].split(" of ")
            fields = [bundle["number"], bundle["from"], bundle["to"], bundle["created_ms"], bundle["sequence"]]
            fields += [bundle["lifetime_ms"], bundle["age_ms"], limit, made, bundle.get("previous", "")]
            ours[session] = [str(field) for field in fields]
    assert len(ours) > 100
    assert len(mistaken) < len(ours) / 5, "the excuse must stay an exception"
    assert ours == theirs


def test_wireshark_reads_integrity_and_confidentiality_blocks(tmp_path: Path, need_tool: Callable[[str], str]) -> None:
    bundle = Bundle(Eid(12, 1), Eid(11, 1), DTN_NONE, (827_280_000_000, 1), 60_000, b"a command", age_ms=5)
    signed = sign(bundle, (0, 1), number=7, source=Eid(11, 0), key=bytes(32))
    iv = bytes(range(12))
    sealed = encrypt(signed, (1,), number=8, source=Eid(11, 0), key=bytes(32), iv=iv)
    path = tmp_path / "security.pcapng"
    capture_bundles(path, [encode_bundle(signed), encode_bundle(sealed)])
    tshark = need_tool("tshark")
    names = "bpsec.asb.ctxid bpsec.asb.target bpsec.asb.secsrc.uri bpsec.defaultsc.shavar bpsec.defaultsc.iv"
    assert dissect(tshark, path, "bpsec.bib", names) == [
        ["1", "0|1", "ipn:11.0", "5", ""],
        ["2|1", "1|0|1", "ipn:11.0|ipn:11.0", "5", iv.hex()],
    ]
    tags = "bpsec.defaultsc.hmac bpsec.defaultsc.authtag"
    ours = [
        [result[1].hex() for results in decode_security(block.data).results for result in results]
        for block in sealed.blocks
    ]
    assert dissect(tshark, path, "bpsec.bcb", tags) == [["|".join(ours[1]), ours[0][0]]]
    assert complaints(tshark, path) == []


def test_wireshark_finds_a_flipped_bit_in_a_bundle(tmp_path: Path, need_tool: Callable[[str], str]) -> None:
    bundle = encode_bundle(Bundle(Eid(12, 1), Eid(11, 1), DTN_NONE, (827_280_000_000, 1), 60_000, b"a command"))
    struck = bytearray(bundle)
    struck[-10] ^= 1
    path = tmp_path / "struck.pcapng"
    capture_bundles(path, [bundle, bytes(struck)])
    tshark = need_tool("tshark")
    assert dissect(tshark, path, "bpv7", "bpv7.crc_status") == [["1|1"], ["1|0"]]
    (complaint,) = complaints(tshark, path)
    assert "Block failed CRC" in complaint


def test_wireshark_finds_a_segment_that_is_cut(tmp_path: Path, need_tool: Callable[[str], str]) -> None:
    path = tmp_path / "cut.pcapng"
    recorder = Recorder(path, {}, UTC_NS, lambda _: CODING.name)
    cancel = encode_segment(CancelSegment((11, 300), CancelReason.UNREACH, by_sender=True))
    frame = CODING.frame(cancel[:-1])
    recorder.observe(0, Way("isl-11-12", True, (11, 1), (12, 2)), frame, frame, Fate.DELIVERED)
    recorder.close()
    assert complaints(need_tool("tshark"), path) == [f"type 0x0c, offset : {MALFORMED}"]
