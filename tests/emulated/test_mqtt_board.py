"""An emulated board on a broker: joins over its network, computes as an x86 does, survives a power cut."""

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
PATIENCE_S = 600.0
"""Longest wait [mission s]: a cold boot takes a third of it on two cores that others use too."""


def test_a_board_joins_over_a_broker_computes_and_comes_back_from_a_power_cut_in_mid_job(
    image, ready, tmp_path, need_tool
):
    need_tool("mosquitto")
    scenario = with_kind(load("table"), "emulated", "mqtt")
    bench = Bench(
        scenario,
        SEED,
        folder=tmp_path,
        pace=real_time(scenario, TIME_SCALE, "mosquitto"),
        surroundings=Surroundings(machines_of(image, ready)),
    )
    workload = Workload(CloudMaskWorkload(covers=(0.5,), step_mpix=1.0, deadline_s=1200), Streams(SEED))
    item = workload.items[0]
    with SteppedRun(bench) as run:
        fleet = Cluster(run)
        board = fleet[NAME]
        board.wait_for_beacon(within_s=PATIENCE_S)
        job = fleet.submit(item.data, deadline_s=1200, step_mpix=1.0)
        fleet.until(lambda: bench.trace.counts["job.checkpoint"] >= 1, PATIENCE_S, "a checkpoint")

        # its client had no time to say goodbye, and comes back under the same name
        board.cut_power(off_s=2.0)
        board.wait_for_beacon(boot_count=2, within_s=PATIENCE_S)
        assert board.reset_cause == "POWER_CYCLE"
        assert job.wait(PATIENCE_S).row["state"] == "COMPLETED"
        assert masks_agree(job.result(), workload.reference(item, InferenceCache()).result)
        outcome = run.end()
    assert outcome.passed, (outcome.violations, outcome.crash)
    trace = list(read_trace(tmp_path / "trace.jsonl")[1])
    boots = [fields for _, _, kind, fields in trace if kind == "node.boot"]
    assert [(boot["boot"], boot["cause"]) for boot in boots] == [(1, "POWER_ON"), (2, "POWER_CYCLE")]
    assert [ended for _, _, _, ended in boots[1]["jobs"]] == [False], "it was under way, and is on the disk"
    told = (tmp_path / "nodes" / NAME / "node.toml").read_text()
    assert 'url = "mqtt://10.0.2.2:' in told, "this machine's loopback, as the board sees it"
    assert "/dev/tty" not in told
