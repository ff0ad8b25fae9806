"""`flatrack inspect` tells segments, bundles and messages; a mistake of its user is one line and exit code 2."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from flightsw.wire.bundles import Bundle, CanonicalBlock, encode_bundle
from flightsw.wire.confidentiality import encrypt
from flightsw.wire.eids import Eid
from flightsw.wire.framing import coding
from flightsw.wire.integrity import sign
from flightsw.wire.messages import ObjectQuery, encode_message
from flightsw.wire.segments import CancelReason, CancelSegment, DataSegment, encode_segment
from hil.bench.execute import execute
from hil.bench.scenario import load
from hil.capture.inspection import Layer
from hil.capture.packets import Capture
from hil.capture.pcapng import LINKTYPE_USER0, PcapngWriter
from hil.capture.recorder import Recorder
from hil.channel.relay import Fate, Way
from hil.cli import main

S = 1_000_000_000
UTC_NS = 1_800_000_000 * S
CODING = coding("cobs-crc32c")
EXAMPLE = Path(__file__).parents[3] / "examples" / "three.toml"
SECTION = struct.pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28)
"""The head of a pcapng file."""


def test_the_layers_of_a_bundle_are_told(
    green: Callable[..., DataSegment],
    red: Callable[..., DataSegment],
    bundle_of: Callable[..., Bundle],
    record: Callable[..., None],
    findings_of: Callable[..., list[dict[str, Any]]],
    tmp_path: Path,
) -> None:
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


def test_an_encrypted_payload_is_not_taken_for_a_message(
    green: Callable[..., DataSegment],
    bundle_of: Callable[..., Bundle],
    record: Callable[..., None],
    findings_of: Callable[..., list[dict[str, Any]]],
    tmp_path: Path,
) -> None:
    path = tmp_path / "file.pcapng"
    sealed = encrypt(bundle_of(b"secret"), (1,), number=8, source=Eid(11, 0), key=bytes(32), iv=bytes(12))
    record(path, green(encode_bundle(sealed)))
    (finding,) = findings_of(path, Layer.MESSAGES)
    assert finding["verdict"] == "encrypted payload of 6 bytes"


def test_only_what_concerns_a_node_is_told(
    recorder_at: Callable[..., Recorder], findings_of: Callable[..., list[dict[str, Any]]], tmp_path: Path
) -> None:
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


def test_the_command_prints_a_line_for_each_and_what_the_file_held(
    green: Callable[..., DataSegment], bundle_of: Callable[..., Bundle], record: Callable[..., None], tmp_path: Path
) -> None:
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


def test_json_is_one_object_a_line(
    green: Callable[..., DataSegment], bundle_of: Callable[..., Bundle], record: Callable[..., None], tmp_path: Path
) -> None:
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
        (SECTION, ["--node", "sat-01"], "in a capture nodes are numbers"),
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
