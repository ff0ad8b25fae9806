"""A board that is lent to a bench, with systemd and a disk of its own: killed bench, power cut, and what comes back."""

import time  # noqa: TID251 - the board shares the time of the machine

import pytest

from hil.on_board.remote import AgentPeer

pytestmark = pytest.mark.emulated

RUN = {"node.toml": b"[node]\nname = 'of-the-run'\n", "world.json": b"{}"}
PATIENCE_S = 300.0
"""Longest wait for a boot [s of the machine]: 30 s alone on two cores."""


async def test_settings_of_before_a_run_outlast_a_killed_bench_and_a_power_cut(machine, ready):
    board = machine(origin=ready)
    await board.start()
    agent = await AgentPeer.open(board.agent_path, PATIENCE_S)
    before = await agent.call("files", "/etc/flatrack")
    assert "node.toml" not in before, "it waits for its settings"
    await agent.configure({"world.json": b"its own"}, time.time_ns())

    # a bench takes it, and is killed
    await agent.call("lend", sorted(RUN))
    await agent.call("stop")
    await agent.configure(RUN)
    assert (await agent.hello())["name"] == "of-the-run"
    await agent.close()

    # its power goes too
    await board.kill()
    await board.start()
    agent = await AgentPeer.open(board.agent_path, PATIENCE_S)
    assert (await agent.hello())["is_lent"]
    assert await agent.file("/etc/flatrack/world.json") == RUN["world.json"]

    # and it becomes what it was: no settings, and a program that waits for some
    assert await agent.restore() == {"files": sorted(RUN), "runs": True}
    assert await agent.call("files", "/etc/flatrack") == sorted([*before, "world.json"])
    assert await agent.file("/etc/flatrack/world.json") == b"its own"
    assert not (await agent.hello())["is_lent"]
    assert await agent.restore() == {"files": [], "runs": False}
    await agent.close()
