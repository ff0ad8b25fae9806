"""The benchmarks of the wire: small runs, what they count and find, no durations."""

import importlib.util
import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

import pytest

from flightsw.wire.bundles import Bundle, encode_bundle
from flightsw.wire.crc import crc32c
from flightsw.wire.eids import DTN_NONE, Eid

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def load(name, monkeypatch):
    """A benchmark as a module; they import their neighbours."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def results_of(tmp_path, name, *options):
    path = tmp_path / "results.json"
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), "--json", str(path), *options]
    subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return {result["name"]: result["value"] for result in json.loads(path.read_text())["results"]}


# -- undetected errors


def test_no_damaged_frame_is_delivered_as_another(tmp_path):
    results = results_of(tmp_path, "undetected", "--frames", "320000", "--processes", "1")
    assert results["cobs-crc32c: damaged frames through the real decoder"] > 319_000
    assert results["ccsds-rs-1: damaged frames through the real decoder"] == 3200
    assert results["cobs-crc32c: undetected errors"] == 0
    assert results["ccsds-rs-1: undetected errors"] == 0
    assert results["ccsds-rs-1: refused by the CRC alone"] == 800, "each frame of another code word"
    assert results["ccsds-rs-1: corrected, delivered as sent"] == 800, "each frame with at most 16 wrong symbols"


class Weak(int):
    """A CRC of which only eight bits are compared."""

    def __ne__(self, other):
        return (self ^ other) & 0xFF != 0

    __hash__ = None


def test_errors_that_pass_a_weak_check_are_counted(monkeypatch):
    """Else a count of zero would mean nothing."""
    undetected = load("undetected", monkeypatch)
    monkeypatch.setattr(undetected.framing, "crc32c", lambda data: Weak(crc32c(data)))
    counts = undetected.plain_shard(1, 0, 160_000)
    found = Counter(name for (name, what), count in counts.items() if what == "undetected" for _ in range(count))
    assert found["noise without zeros"] > 20, "of 10,000 that only the check can refuse"
    assert len(found) > 3


def test_a_short_crc_lets_through_what_theory_says(monkeypatch):
    undetected = load("undetected", monkeypatch)
    passed, expected = undetected.with_short_crc(2_000_000, 3)
    assert expected == 2_000_000 / 65_536
    assert abs(passed - expected) < 5 * expected**0.5


def test_bursts_are_as_long_as_asked_for(monkeypatch):
    undetected = load("undetected", monkeypatch)
    np = undetected.np
    chance = np.random.Generator(np.random.PCG64(1))
    wrong = np.unpackbits(undetected.burst(2, 32)(chance, np.zeros((2000, 30), np.uint8)), axis=1)
    places = [np.flatnonzero(row) for row in wrong]
    lengths = [place[-1] - place[0] + 1 for place in places]
    assert set(lengths) == set(range(2, 33))


def test_a_shard_gives_the_same_counts_again(monkeypatch):
    undetected = load("undetected", monkeypatch)
    assert undetected.plain_shard(5, 3, 40_000) == undetected.plain_shard(5, 3, 40_000)
    assert undetected.space_shard(5, 3, 400) == undetected.space_shard(5, 3, 400)


# -- goodput


@pytest.mark.parametrize(("minutes", "dropped_min"), [(10, 6000), pytest.param(60, 45_000, marks=pytest.mark.slow)])
def test_twice_the_line_rate_fills_bounded_queues_and_every_drop_is_counted(tmp_path, minutes, dropped_min):
    options = ("--seconds", "0", "--real-seconds", "0", "--soak-minutes", str(minutes))
    results = results_of(tmp_path, "goodput", *options)
    values = {name.partition(": ")[2]: value for name, value in results.items()}
    assert values["sourced"] == minutes * 60 * 25
    assert values["longest queue"] == 256, "it is full, and never longer"
    assert values["most frames in flight"] <= 2 * (64 + 2)
    assert values["dropped"] > dropped_min
    assert values["unaccounted"] == 0
    assert values["left"] == 0


@pytest.mark.parametrize(("name", "ber"), [("cobs-crc32c", 1e-5), ("ccsds-rs-1", 1e-3)])
def test_goodput_is_what_theory_says(monkeypatch, name, ber):
    goodput = load("goodput", monkeypatch)
    with goodput.asyncio.Runner(loop_factory=goodput.VirtualLoop) as runner:
        share = runner.run(goodput.virtual_goodput(name, ber, 10.0))
    assert abs(share / goodput.theory(name, ber) - 1) < 0.05


def test_reed_solomon_carries_on_where_detection_alone_collapses(monkeypatch):
    goodput = load("goodput", monkeypatch)
    assert goodput.theory("cobs-crc32c", 1e-3) < 0.001
    assert goodput.theory("ccsds-rs-1", 1e-3) > 0.75


def test_the_chart_is_a_picture_with_a_dot_for_each_point(monkeypatch):
    chart = load("goodput_chart", monkeypatch)
    points = ((1e-8, 0.9), (1e-5, 0.5), (1e-2, 0.0))
    picture = ET.fromstring(chart.write_chart([chart.Curve("a", points, points), chart.Curve("b", points, points)]))
    dots = [one for one in picture if one.tag.endswith("circle")]
    assert len(dots) == 2 * (len(points) + 1), "and one in the legend"
    assert all(0 <= float(dot.get("cx")) <= 760 and 0 <= float(dot.get("cy")) <= 420 for dot in dots)


# -- peers


def test_a_peer_in_another_environment_does_the_same_work(monkeypatch, peer_python):
    wire = load("wire", monkeypatch)
    bundle = Bundle(Eid(3, 2), Eid(7, 0), DTN_NONE, (700_000_000_000, 9), 600_000, b"x" * 130, age_ms=3)
    data = encode_bundle(bundle)
    with wire.Peers(str(peer_python("pyd3tn"))) as peers:
        (took_s, given), *others = peers.ask("bundles/encode", data).values()
        assert took_s > 0
        assert given == data.hex()
        assert others == []
        assert peers.ask("bundles/decode", data)["pyD3TN"][1] == "1"
