"""On the arm64 image, with systemd and a kernel of its own, the isolation of jobs is tried for real."""

import json
from collections.abc import Callable

import pytest

from hil.emulation.machine import Machine
from hil.emulation.snapshot import Snapshot
from hil.on_board.remote import AgentPeer

pytestmark = pytest.mark.emulated

CHECK = "boards.worker.check"
CHECK_S = 120.0


async def test_a_unit_of_systemd_stops_a_hog_and_the_worker_computes_in_it(
    ready: Snapshot, machine: Callable[..., Machine]
) -> None:
    board = machine(origin=ready)
    await board.start()
    agent = await AgentPeer.open(board.agent_path)
    try:
        report = json.loads(await agent.call("module", CHECK, [], within_s=CHECK_S))
    finally:
        await agent.close()
    ways, lines = report["ways"], report["capabilities"]
    for way in ("systemd", "bubblewrap", "rlimits"):
        assert ways[way]["is_proven"], ways[way]["detail"]
    assert "oom-kill" in ways["systemd"]["detail"]
    assert "Delegate=yes" in ways["cgroup2"]["detail"], "the agent's unit was not given its group"
    assert lines["worker_isolation"]["detail"] == "systemd"
    proven = {name for name, line in lines.items() if line["support"] == "PROVEN"}
    assert proven >= {"memory_limit", "network_isolation", "read_only_files", "no_new_privileges", "inference"}
    assert {name for name in ("cpu_limit", "tasks_limit") if lines[name]["support"] == "PRESENT"} == {
        "cpu_limit",
        "tasks_limit",
    }
    assert report["confinement"]["uid"] not in (0, None), "the unit has a user of its own"
