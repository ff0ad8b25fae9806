"""The ends of faults: what does not begin, what does not end, panics and the watchdog."""

import asyncio
import os

import pytest

from flightsw.errors import BoardError, ControlError
from hil.on_board import disk_fill
from hil.on_board.agent import FaultAgent

LINKS = '[{"ifname": "lo"}, {"ifname": "eth0"}]'


# What does not begin, and what does not end


def test_all_that_lasts_is_tried_and_the_first_error_comes_last(make_tools, play, root, victim):
    tools = make_tools()

    async def scene():
        agent = FaultAgent(root, tools, None, None)
        agent.freeze()
        await agent.throttle(0.5, 60.0)
        tools.missing = ("systemctl",)
        agent.stop_watchdog()
        with pytest.raises(BoardError, match="systemctl: not on this board"):
            await agent.undo_all()
        assert agent.hello()["faults"] == []
        assert (root / "sys/fs/cgroup/init.scope/cgroup.freeze").read_text() == "0", "though the one before it failed"

    play(scene)


def test_a_fault_that_does_not_begin_does_not_last(make_tools, play, root):
    tools = make_tools(missing=("systemctl",))

    async def scene():
        agent = FaultAgent(root, tools, None, None)
        with pytest.raises(BoardError, match="systemctl: not on this board"):
            await agent.throttle(0.5, 60.0)
        assert agent.hello()["faults"] == []
        tools.missing = ()
        await agent.throttle(0.5, 60.0)
        assert agent.hello()["faults"] == ["throttle"]
        await agent.undo()

    play(scene)


def test_one_interface_that_cannot_be_cut_joins_the_others_again(play, root):
    async def run(words):
        ran.append(" ".join(words))
        if (words[0] == "tc" and words[4] == "eth1") or words[:2] == ["ip", "route"]:
            raise BoardError(f"{words[0]}: not for eth1")
        return LINKS[:-1] + ', {"ifname": "eth1"}]'

    async def scene():
        agent = FaultAgent(root, run, None, None)
        with pytest.raises(BoardError, match="ip: not for eth1"):
            await agent.cut_network(60.0)
        assert agent.hello()["faults"] == []

    ran = []
    play(scene)
    assert ran[-1] == "tc qdisc del dev eth0 root"


def test_a_cut_whose_caller_goes_while_it_begins_is_undone(play, root):
    async def run(words):
        ran.append(" ".join(words))
        if words[:3] == ["tc", "qdisc", "add"]:
            await asyncio.sleep(1)
        return LINKS

    async def scene():
        agent = FaultAgent(root, run, None, None)
        cutting = asyncio.create_task(agent.cut_network(60.0))
        await asyncio.sleep(0.5)
        cutting.cancel()
        await asyncio.wait([cutting])
        assert agent.hello()["faults"] == []

    ran = []
    play(scene)
    assert ran[1:] == ["tc qdisc add dev eth0 root netem loss 100%", "tc qdisc del dev eth0 root"]


def test_the_end_waits_for_a_fault_that_is_being_begun_or_undone(play, root):
    async def run(words):
        await asyncio.sleep(5 if "add" in words else 1)
        ran.append(" ".join(words))
        return LINKS

    async def scene():
        agent = FaultAgent(root, run, None, None)
        cutting = asyncio.create_task(agent.cut_network(60.0))
        await asyncio.sleep(1.5)
        await agent.undo_all()
        await cutting
        assert ran[1:] == ["tc qdisc add dev eth0 root netem loss 100%", "tc qdisc del dev eth0 root"]
        ran.clear()
        await agent.cut_network(10.0)
        await asyncio.sleep(10.5)  # its end is under way
        assert agent.hello()["faults"] == []
        await agent.undo_all()
        assert ran[2:] == ["tc qdisc del dev eth0 root"]

    ran = []
    play(scene)


def test_a_disk_that_cannot_be_filled_is_given_back(root, monkeypatch):
    def broken(descriptor, *_):
        os.write(descriptor, b"taken")
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "posix_fallocate", broken)
    agent = FaultAgent(root, None, None, None)
    with pytest.raises(BoardError, match="cannot be filled: Input/output error"):
        agent.fill_disk(0)
    assert not (root / "var/lib/flatrack" / disk_fill.NAME).exists()
    assert agent.hello()["faults"] == []
    (root / "var/lib/flatrack").rmdir()
    with pytest.raises(BoardError, match="var/lib/flatrack: No such file"):
        agent.fill_disk(0)


def test_a_trial_does_nothing_to_the_machine_it_runs_on(agent_of, root):
    async def scene():
        async with agent_of(root) as agent:
            with pytest.raises(ControlError, match="journalctl: not run in a trial under --root"):
                await agent.call("log")
            with pytest.raises(ControlError, match="the clock is not set in a trial under --root"):
                await agent.call("step_clock", 0.0)

    asyncio.run(scene())


# The machine


def test_a_panic_comes_after_its_answer(play, root):
    async def scene():
        agent = FaultAgent(root, None, None, None)
        agent.panic()
        await asyncio.sleep(0.1)
        assert (root / "proc/sysrq-trigger").read_text() == ""
        await asyncio.sleep(1)
        assert (root / "proc/sysrq-trigger").read_text() == "c"
        (root / "proc/sysrq-trigger").unlink()
        with pytest.raises(BoardError, match="this kernel has no such switch"):
            agent.panic()

    play(scene)


def test_a_panic_comes_also_when_the_bench_goes_at_once(agent_of, root):
    async def scene():
        async with agent_of(root) as agent:
            await agent.call("panic")

    asyncio.run(scene())
    assert (root / "proc/sysrq-trigger").read_text() == "c"


def test_a_watchdog_that_is_fed_again_at_once_is_not_starved_later(play, root):
    freezer = root / "sys/fs/cgroup/init.scope/cgroup.freeze"

    async def scene():
        agent = FaultAgent(root, None, None, None)
        agent.stop_watchdog()
        await agent.undo_all()
        await agent.finish_soon()
        await asyncio.sleep(1)
        assert freezer.read_text() == "0"

    play(scene)


def test_the_watchdog_is_starved_by_whoever_feeds_it_and_fed_again_at_the_end(play, root):
    freezer = root / "sys/fs/cgroup/init.scope/cgroup.freeze"

    async def scene():
        agent = FaultAgent(root, None, None, None)
        agent.stop_watchdog()
        await asyncio.sleep(1)
        assert freezer.read_text() == "1"
        await agent.undo_all()
        assert freezer.read_text() == "0"

    play(scene)
