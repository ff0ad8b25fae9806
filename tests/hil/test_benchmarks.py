"""The benchmarks run: tiny sizes, what they print and write, no durations."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_sim_speed_carries_the_beacons_of_each_size_to_the_ground(tmp_path):
    path = tmp_path / "speed.json"
    command = [
        sys.executable,
        str(BENCHMARKS / "sim_speed.py"),
        "--nodes",
        "2,5",
        "--seconds",
        "600",
        "--json",
        str(path),
    ]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    results = {result["name"]: result for result in json.loads(path.read_text())["results"]}
    assert printed.count("\n") == len(results)
    for nodes in (2, 5):
        assert 90 < results[f"{nodes} nodes: delivered"]["value"] <= 101  # one in a hundred is lost
        assert results[f"{nodes} nodes: callbacks"]["value"] >= 3  # tick, task, arrival
        assert results[f"{nodes} nodes: peak memory"]["value"] > 0
    shares = [result["value"] for name, result in results.items() if name.startswith("profile share")]
    assert abs(sum(shares) - 100) < 1e-6
    assert any(name.endswith("flightsw/wire/bundles") for name in results)


def test_security_measures_both_ends_and_finds_what_a_tag_adds_to_a_frame(tmp_path):
    path = tmp_path / "security.json"
    command = [sys.executable, str(BENCHMARKS / "security.py"), "--rounds", "1", "--json", str(path)]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    results = {result["name"]: result["value"] for result in json.loads(path.read_text())["results"]}
    assert printed.count("\n") == len(results)
    assert 40 <= results["signed beacon: frame"] - results["unsigned beacon: frame"] <= 64
    assert results["signed to unsigned beacon, both ends"] > 0


def test_abft_counts_every_fault_with_checksums_and_without(tmp_path):
    path = tmp_path / "abft.json"
    command = [sys.executable, str(BENCHMARKS / "abft.py"), "--faults", "40", "--rounds", "1", "--json", str(path)]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    results = {result["name"]: result["value"] for result in json.loads(path.read_text())["results"]}
    assert printed.count("\n") == len(results)
    for kind in ("float32", "int8"):
        with_sums = [results[f"{kind}, checksums: {found}"] for found in ("corrected", "computed again", "unseen")]
        without = [results[f"{kind}, no checksums: {found} by the ground"] for found in ("refused", "taken")]
        assert sum(with_sums) == sum(without) == pytest.approx(100)
    assert results["int8, checksums: corrected"] == results["int8, no checksums: refused by the ground"] == 100
    assert results["int8, checksums: largest error left"] == 0


def test_weight_faults_counts_every_site_under_every_measure(tmp_path):
    path = tmp_path / "faults.json"
    command = [sys.executable, str(BENCHMARKS / "weight_faults.py"), "--sites", "60", "--several", "5", "--tiles", "1"]
    subprocess.run([*command, "--json", str(path)], check=True, stdout=subprocess.PIPE, text=True)
    results = {result["name"]: result["value"] for result in json.loads(path.read_text())["results"]}
    for measure in ("no measure", "range guard", "digest at checkpoints", "range guard and digest"):
        rates = [rate for name, rate in results.items() if name.startswith(f"single bits, {measure}: ")]
        assert abs(sum(rates) - 100) < 1e-6, measure
    assert results["single bits, digest at checkpoints: silent corruption"] == 0
    assert results["a step over 48 px: range guard, before and after"] > 0


def test_node_measures_a_quiet_node_that_sends_its_housekeeping(tmp_path):
    path = tmp_path / "node.json"
    command = [sys.executable, str(BENCHMARKS / "node.py"), "--idle", "3", "--boots", "1", "--json", str(path)]
    subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    results = {result["name"]: result["value"] for result in json.loads(path.read_text())["results"]}
    assert 0 < results["proportional memory (PSS)"] <= results["resident memory (RSS)"]
    assert results["AI runtime loaded"] == 0
    assert results["Packets messages heard"] > 0
    assert results["boot to first beacon"] > 0
