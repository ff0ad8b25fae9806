"""An emulated board as a satellite: joins over its UART, computes as an x86 does, loses nothing to a power cut."""

import pytest

from flightsw.compute.inference import InferenceCache
from hil.bench.compare import masks_agree
from hil.bench.execute import real_time
from hil.bench.handles import Cluster
from hil.bench.run import Bench
from hil.bench.scenario import CloudMaskWorkload, load, with_kind
from hil.bench.stepped import SteppedRun
from hil.bench.surroundings import Surroundings, machines_of
from hil.bench.workload import Workload
from hil.sim.streams import Streams
from hil.sim.trace import read_trace

pytestmark = pytest.mark.emulated

SEED = 7
TIME_SCALE = 2.0
NAME = "sat-01"
JOBS = 4
PATIENCE_S = 600.0
"""Longest wait [mission s]: a cold boot takes a third of it on two cores that others use too."""


def test_a_board_joins_computes_and_comes_back_from_a_power_cut_in_mid_job(image, ready, tmp_path):
    scenario = with_kind(load("table"), "emulated", "")
    bench = Bench(
        scenario,
        SEED,
        folder=tmp_path,
        pace=real_time(scenario, TIME_SCALE),
        surroundings=Surroundings(machines_of(image, ready)),
    )
    workload = Workload(CloudMaskWorkload(covers=(0.5,), step_mpix=1.0, deadline_s=1200), Streams(SEED))
    with SteppedRun(bench) as run:
        fleet = Cluster(run)
        board = fleet[NAME]

        # it joins through the channel
        board.wait_for_beacon(within_s=PATIENCE_S)
        assert board.mode == "NOMINAL"
        assert board.command("NODE.NOOP", within_s=PATIENCE_S).is_completed

        # power goes in the middle of a job, and nothing that it has told is lost
        jobs = {fleet.submit(item.data, deadline_s=1200, step_mpix=1.0): item for item in workload.items[:JOBS]}
        fleet.until(lambda: bench.trace.counts["job.checkpoint"] >= 2, PATIENCE_S, "two checkpoints")
        board.cut_power(off_s=2.0)
        board.wait_for_beacon(boot_count=2, within_s=PATIENCE_S)
        assert board.wait_for_event("NODE.RESET", within_s=PATIENCE_S)
        assert board.reset_cause == "POWER_CYCLE"

        # the masks agree with those of this machine
        cache = InferenceCache()
        for job, item in jobs.items():
            assert job.wait(PATIENCE_S).row["state"] == "COMPLETED"
            assert masks_agree(job.result(), workload.reference(item, cache).result)

        outcome = run.end()
    assert outcome.passed, (outcome.violations, outcome.crash)
    boots = [fields for _, source, kind, fields in read_trace(tmp_path / "trace.jsonl")[1] if kind == "node.boot"]
    assert [(boot["boot"], boot["cause"]) for boot in boots] == [(1, "POWER_ON"), (2, "POWER_CYCLE")]
    assert any(not ended for _, _, _, ended in boots[1]["jobs"]), "a job was under way, and is on its disk"
    assert any(text.startswith("rule 4") and NAME in text for text in outcome.bounds)
