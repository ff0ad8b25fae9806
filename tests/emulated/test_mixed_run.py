"""Emulated boards, processes and coroutines as one fleet: the example runs to PASS, a power cut in mid-job included."""

from collections import Counter
from pathlib import Path

import pytest

from hil.bench.execute import real_time
from hil.bench.run import Bench
from hil.bench.scenario import load
from hil.bench.surroundings import Surroundings, machines_of
from hil.sim.trace import read_trace

pytestmark = pytest.mark.emulated

EXAMPLE = Path(__file__).parents[2] / "examples" / "mixed.toml"
TIME_SCALE = 2.0


def test_two_emulated_boards_three_processes_and_seven_coroutines_pass_as_one_fleet(image, ready, tmp_path):
    scenario = load(str(EXAMPLE))
    assert Counter(node.kind for node in scenario.nodes) == {"emulated": 2, "process": 3, "simulated": 7}
    surroundings = Surroundings(machines_of(image, ready))
    pace = real_time(scenario, TIME_SCALE)
    outcome = Bench(scenario, 7, folder=tmp_path, pace=pace, surroundings=surroundings).run()
    assert outcome.passed, (outcome.violations, outcome.unmet, outcome.crash, outcome.lag)
    judged = outcome.counters["results_equal"] + outcome.counters["results_within_tolerance"]
    assert judged == outcome.counters["jobs_completed"] == 24
    assert outcome.fired["fault.node_reset"] == 1
    boots = [
        fields["boot"]
        for _, source, kind, fields in read_trace(tmp_path / "trace.jsonl")[1]
        if (source, kind) == ("sat-05", "node.boot")
    ]
    assert boots == [1, 2]
