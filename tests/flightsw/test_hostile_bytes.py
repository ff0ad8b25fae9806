"""Every decoder of bytes that are not trusted: documented errors only, bounded work and memory, promises kept."""

import importlib.util
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cbor2
import pytest

from flightsw.errors import MessageError, SegmentError
from flightsw.wire import cbor
from flightsw.wire.bundles import Bundle, CanonicalBlock, decode_bundle, encode_bundle, forwarded
from flightsw.wire.eids import DTN_NONE, Eid
from flightsw.wire.segments import decode_segment
from hil.fuzz import corpus
from hil.fuzz.batches import Batch, batches, decoders, inputs_of, size_of
from hil.fuzz.decoders import Decoder, verdict
from hil.fuzz.measure import lines_run, peak_bytes

ROOT = Path(__file__).resolve().parents[2]
CORPUS = ROOT / "tests" / "data" / "hostile"
NAMES = list(decoders())
MACHINES = ("agent", "transfers", "control", "node", "ground")
SAMPLED = 60
"""Inputs whose lines and memory are counted, which takes ten times longer than decoding them."""
LINES = 3000
LINES_PER_BYTE = 150
"""A decoder may run so many lines, and so many more for each byte: linear in what an attacker has to send."""
PEAK_BYTES = 2 << 20
"""Memory for an input of at most 16 KiB [bytes]: tables that are made at first use are in it."""

PEAKS_BYTES = {"capture": 20 << 20}
"""A capture's packets may be 16 MiB long, and room for one is taken before it is read."""

each_decoder = pytest.mark.parametrize("name", NAMES)
each_plain_decoder = pytest.mark.parametrize("name", [name for name in NAMES if name not in MACHINES])


@each_decoder
def test_hostile_bytes_give_documented_errors_and_promises_are_kept(name):
    decoder = decoders()[name]
    batch = Batch(name, 0, size_of(decoder))
    verdicts = Counter(verdict(decoder, data) for data in inputs_of(batch, 1))
    assert sum(verdicts.values()) == batch.count
    assert verdicts["accepted"] >= 2, "samples are sound enough to get through"
    if decoder.errors:
        assert len(verdicts) >= 2, "and damaged enough to be refused"


@pytest.mark.slow
@each_decoder
def test_more_hostile_bytes_give_documented_errors(name):
    decoder = decoders()[name]
    for number in range(1, 11):
        for data in inputs_of(Batch(name, number, size_of(decoder)), 2):
            verdict(decoder, data)


@each_decoder
def test_what_was_once_too_much_is_borne(name):
    decoder = decoders()[name]
    for data in corpus.cases(CORPUS, name):
        verdict(decoder, data)


def test_every_file_of_the_corpus_belongs_to_a_decoder():
    assert {path.stem for path in CORPUS.glob("*")} <= set(NAMES)
    assert {path.suffix for path in CORPUS.glob("*")} == {corpus.SUFFIX}


@each_plain_decoder
def test_work_is_linear_in_the_bytes_of_an_input(name):
    decoder = decoders()[name]
    for data in inputs_of(Batch(name, 1, SAMPLED), 3):
        verdict(decoder, data)  # once before, so that tables are made
        lines = lines_run(lambda data=data: verdict(decoder, data))
        assert lines <= LINES + LINES_PER_BYTE * len(data), f"{lines} lines for {len(data)} bytes: {data[:64].hex()}"


@each_plain_decoder
def test_memory_is_bounded(name):
    decoder = decoders()[name]
    for data in inputs_of(Batch(name, 2, SAMPLED), 3):
        verdict(decoder, data)
        peak = peak_bytes(lambda data=data: verdict(decoder, data))
        assert peak <= PEAKS_BYTES.get(name, PEAK_BYTES) + 128 * len(data), (
            f"{peak} bytes for {len(data)}: {data[:64].hex()}"
        )


# -- the worst that fits


@pytest.mark.parametrize(
    "data",
    [
        b"\x99\xff\xf0" + b"\x80" * 65_520,
        b"\x99\xff\xf0" + b"\x60" * 65_520,
        b"\xb9\x40\x00" + b"".join(b"\x19" + key.to_bytes(2, "big") + b"\x80" for key in range(16_383)),
        b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff" + b"\0" * 65_000,
        b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"\x81" * 65_536,
        b"\xd8\x1c\x81" * 21_845,
        b"\xc2\x59\xff\xf0" + b"\xff" * 65_520,
        b"\xc4\x82\x1b\x7f\xff\xff\xff\xff\xff\xff\xff\x01",
    ],
    ids=["arrays", "texts", "map", "count", "length", "nesting", "shared", "bignum", "decimal"],
)
def test_the_worst_cbor_takes_little_memory(data):
    def decode():
        try:
            cbor.loads(data)
        except MessageError:
            return

    assert peak_bytes(decode) < 8 << 20


def test_claims_of_a_report_cost_no_more_than_their_bytes():
    head = b"\x08\x01\x01\x00\x01\x01\x8f\xff\xff\xff\x7f\x00"
    with pytest.raises(SegmentError, match="claim count"):
        decode_segment(head + b"\x8f\xff\xff\xff\x7f")
    many = head + b"\xff\x00" + b"\x01\x01" * 16_256

    def decode():
        with pytest.raises(SegmentError, match="claim"):
            decode_segment(many)

    assert lines_run(decode) < 40 * len(many)


def test_a_bundle_whose_block_numbers_are_at_the_end_of_their_range_is_forwarded():
    """One above the largest number would be past 64 bits; found by these inputs."""
    data = corpus.cases(CORPUS, "bundle")[0]
    bundle = decode_bundle(data)
    assert {2, 2**64 - 1} <= {block.number for block in bundle.blocks}
    passed = decode_bundle(forwarded(bundle, Eid(7, 0), bundle.age_ms))
    assert passed.previous_node == Eid(7, 0)
    assert passed.blocks == bundle.blocks


# -- the harness itself


def test_a_batch_has_the_same_inputs_whenever_it_is_made():
    for name in ("segment", "bundle", "message"):
        first, again = (inputs_of(Batch(name, 4, 50), 9) for _ in range(2))
        assert first == again
        assert first[:20] == inputs_of(Batch(name, 4, 20), 9)
        assert first != inputs_of(Batch(name, 5, 50), 9)
        assert first != inputs_of(Batch(name, 4, 50), 10)


def test_batches_share_the_inputs_out_by_what_they_cost():
    counts = Counter()
    for batch in batches(NAMES, 500_000):
        counts[batch.decoder] += batch.count
    assert set(counts) == set(NAMES)
    assert 0.98 * 500_000 < sum(counts.values()) < 1.02 * 500_000
    assert counts["segment"] > 100 * counts["node"]


@pytest.mark.parametrize("error", [KeyError("x"), RecursionError(), AssertionError("x"), cbor2.CBORDecodeEOF("x")])
def test_an_error_that_is_not_documented_is_a_finding(error):
    def decode(data):
        raise error

    with pytest.raises(type(error)):
        verdict(Decoder("x", (MessageError,), lambda random: b"", decode), b"")


def test_an_error_without_a_text_is_a_finding():
    def decode(data):
        raise MessageError

    with pytest.raises(AssertionError, match="without a text"):
        verdict(Decoder("x", (MessageError,), lambda random: b"", decode), b"")


def test_a_decoder_that_changes_what_it_read_is_found(monkeypatch):
    from hil.fuzz import decoders as harness

    def forgetful(bundle, previous_node, age_ms):
        return forwarded(replace(bundle, blocks=bundle.blocks[:1]), previous_node, age_ms)

    monkeypatch.setattr(harness, "forwarded", forgetful)
    decoder = decoders()["bundle"]
    blocks = tuple(CanonicalBlock(200, number, 0, 0, b"x") for number in (5, 6))
    bundle = Bundle(Eid(1, 1), Eid(2, 1), DTN_NONE, (1, 1), 5, b"payload", blocks=blocks[:1])
    assert verdict(decoder, encode_bundle(bundle)) == "accepted"
    with pytest.raises(AssertionError, match="changes only what it may"):
        verdict(decoder, encode_bundle(replace(bundle, blocks=blocks)))


def script():
    spec = importlib.util.spec_from_file_location("fuzz_script", ROOT / "scripts" / "fuzz.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look it up
    spec.loader.exec_module(module)
    return module


def test_the_script_counts_what_it_did_and_keeps_what_it_found(monkeypatch, tmp_path, capsys):
    fuzz = script()
    sound = fuzz.run(Batch("sdnv", 0, 600), 1)
    assert sound.inputs_count == 600
    assert sound.findings == []
    assert sum(sound.verdicts.values()) == 600
    assert sound.lines_max > 5

    def broken(data):
        return decoders()["sdnv"].decode(data) if len(data) < 9 else [][0]

    planted = replace(decoders()["sdnv"], decode=broken)
    monkeypatch.setattr(fuzz, "decoders", lambda: {"sdnv": planted})
    monkeypatch.setattr(fuzz, "CORPUS", tmp_path)
    found = fuzz.run(Batch("sdnv", 0, 600), 1)
    assert 0 < len(found.findings) < 600
    assert found.verdicts["FINDING"] == len(found.findings)
    data, why = found.findings[0]
    assert why.startswith("IndexError at test_hostile_bytes.py:")
    fuzz._tell(Batch("sdnv", 0, 600), 1, data, why)
    assert "python scripts/fuzz.py --decoder sdnv --batch 0 --seed 1" in capsys.readouterr().out
    assert corpus.cases(tmp_path, "sdnv") == [data]
    assert not corpus.keep(tmp_path, "sdnv", data, "again")


def test_an_input_that_hangs_is_a_finding(monkeypatch):
    fuzz = script()
    hanging = Decoder("sdnv", (), lambda random: b"", lambda data: [None for _ in iter(int, 1)])
    monkeypatch.setattr(fuzz, "decoders", lambda: {"sdnv": hanging})
    monkeypatch.setattr(fuzz, "INPUT_S_MAX", 0.05)
    found = fuzz.run(Batch("sdnv", 0, 1), 1)
    assert found.findings[0][1].startswith("TooLong")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["segment", "bundle"])
def test_inputs_that_coverage_guides_find_nothing(peer_python, name):
    peer_python("fuzz")
    command = [sys.executable, str(ROOT / "scripts" / "fuzz.py"), "--decoder", name, "--coverage", "10"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "stat::new_units_added" in done.stderr, "coverage has led somewhere"
