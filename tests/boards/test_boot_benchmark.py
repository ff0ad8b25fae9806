"""The boot benchmark runs: what it prints and writes, no durations."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "boot.py"


def test_it_waits_for_a_beacon_and_measures_the_program(tmp_path):
    path = tmp_path / "boot.json"
    command = [sys.executable, str(BENCHMARK), "--boots", "1", "--json", str(path)]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    results = {result["name"]: result["value"] for result in json.loads(path.read_text())["results"]}
    assert printed.count("\n") == len(results) == 3
    assert results["boot to first beacon"] > 0
    assert results["most memory until then"] > 10
