"""The file of a capture: what is written comes back, also by the tools of Wireshark; a file cut short ends whole."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flightsw.errors import ConfigError
from flightsw.wire.framing import coding
from flightsw.wire.segments import DataSegment, encode_segment
from hil.bench.scenario import load
from hil.capture.packets import Capture, Packet
from hil.capture.pcapng import INBOUND, LINKTYPE_IPV4, LINKTYPE_USER0, OUTBOUND, PcapngWriter
from hil.capture.recorder import Recorder
from hil.capture.runs import run_recorder
from hil.channel.relay import Fate, Way

CODING = coding("cobs-crc32c")
WAY = Way("isl-11-12", True, (11, 1), (12, 2))
EXAMPLE = Path(__file__).parents[3] / "examples" / "three.toml"


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


def test_a_file_that_is_not_closed_ends_between_two_packets(
    packets_of: Callable[..., list[Packet]], tmp_path: Path
) -> None:
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


def test_of_a_file_that_is_cut_all_packets_before_the_cut_are_read(
    green: Callable[..., DataSegment],
    record: Callable[..., None],
    packets_of: Callable[..., list[Packet]],
    tmp_path: Path,
) -> None:
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


def test_a_full_disk_ends_the_capture_and_not_the_run(
    green: Callable[..., DataSegment], recorder_at: Callable[..., Recorder]
) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("missing tool: /dev/full")
    recorder = recorder_at(full)
    frame = CODING.frame(encode_segment(green(bytes(50_000))))
    for number in range(20):
        recorder.observe(number, WAY, frame, frame, Fate.DELIVERED)
    with pytest.raises(ConfigError, match=r"/dev/full: the capture is not whole.*No space left"):
        recorder.close()


def test_a_file_that_cannot_be_made_is_refused_at_once(recorder_at: Callable[..., Recorder], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no/such.pcapng: cannot write the capture: No such file"):
        recorder_at(tmp_path / "no" / "such.pcapng")
    with pytest.raises(ConfigError, match="is a folder, expected the name of a capture file"):
        run_recorder(tmp_path, load(str(EXAMPLE)), 7, has_lost=False)


def test_the_tools_of_wireshark_read_the_file(
    green: Callable[..., DataSegment], record: Callable[..., None], tmp_path: Path, need_tool: Callable[[str], str]
) -> None:
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
    green: Callable[..., DataSegment],
    recorder_at: Callable[..., Recorder],
    packets_of: Callable[..., list[Packet]],
    tmp_path: Path,
    need_tool: Callable[[str], str],
    kind: str,
    precision_ns: int,
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
