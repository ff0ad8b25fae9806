"""Faults of processes and of their memory: who is struck, how it is seen, and how it ends."""

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from flightsw.errors import BoardError, ControlError
from hil.on_board.memory import PAGE_BYTES, ProcessMemory
from hil.on_board.processes import Processes
from hil.on_board.remote import AgentPeer

PATIENCE_S = 30.0


# Processes


def test_the_processes_of_a_node_are_told_apart(make_victim, root, victim):
    found = Processes(root / "proc")
    other = make_victim(root, folder="boards_of_others")
    assert found.manager() == victim.pid
    assert found.launcher() is None
    assert found.workers() == []
    with pytest.raises(BoardError, match="no worker runs"):
        found.expect("worker")
    other.end()


def test_a_worker_is_found_by_its_path_and_killed(agent_of, root):
    program = root / "boards" / "worker" / "program.py"
    program.parent.mkdir(parents=True)
    program.write_text("import sys; sys.stdin.read()")
    worker = subprocess.Popen([sys.executable, program], stdin=subprocess.PIPE)
    (root / "proc" / str(worker.pid)).symlink_to(f"/proc/{worker.pid}")

    async def scene():
        async with agent_of(root) as agent:
            assert await agent.call("worker_kill") == worker.pid

    asyncio.run(scene())
    worker.communicate()
    assert worker.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    "wrapper",
    [
        ("bwrap", "--unshare-all", "--cap-drop", "ALL", "--ro-bind-try", "/usr", "/usr", "--"),
        ("systemd-run", "--pipe", "--wait", "--unit=flatrack-worker", "-p", "MemoryMax=1", "--"),
        ("/bin/sh", "-c", '(systemctl stop it) >/dev/null 2>&1; exec "$@"', "sh", "systemd-run", "--"),
    ],
)
def test_what_has_started_a_worker_is_none(root, wrapper):
    worker = ("/usr/bin/python3", "-I", "/opt/flatrack/boards/worker/program.py", "{}")
    for pid, words in ((71, (*wrapper, *worker)), (72, worker)):
        (root / "proc" / str(pid)).mkdir()
        (root / "proc" / str(pid) / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in words))
    assert Processes(root / "proc").workers() == [72]


def test_a_node_is_killed_by_the_signal_that_was_asked_for(agent_of, root, victim):
    async def scene():
        async with agent_of(root) as agent:
            with pytest.raises(ControlError, match="signal is 'BOOM', expected KILL"):
                await agent.call("kill", "BOOM")
            assert await agent.call("kill", "SEGV") == victim.pid
            victim.process.wait(PATIENCE_S)
            (root / "proc" / str(victim.pid)).unlink()
            with pytest.raises(ControlError, match="no manager runs on this board"):
                await agent.call("kill")

    asyncio.run(scene())
    assert victim.process.returncode == -signal.SIGSEGV


def test_a_frozen_node_goes_on_when_it_is_thawed(agent_of, until, root, victim):
    async def scene():
        async with agent_of(root) as agent:
            await agent.call("freeze")
            await until(lambda: victim.state() == "T")
            assert (await agent.hello())["faults"] == ["freeze manager"]
            await agent.call("thaw")
            await until(lambda: victim.state() != "T")
            assert (await agent.hello())["faults"] == []

    asyncio.run(scene())


@pytest.mark.parametrize("way", ["close", "TERM"])
def test_what_lasts_is_undone_when_the_agent_ends(command, until, root, victim, way):
    async def scene():
        agent = await AgentPeer.over(command(root))
        await agent.call("freeze")
        await until(lambda: victim.state() == "T")
        if way == "TERM":
            agent._process.send_signal(signal.SIGTERM)
            await until(lambda: victim.state() != "T")
        await agent.close()

    asyncio.run(scene())
    assert victim.state() != "T"
    assert victim.wrong() == (0, 0)


# Memory


def test_flipped_bits_of_a_running_process_are_seen_by_it(agent_of, root, victim):
    async def scene():
        async with agent_of(root) as agent:
            assert victim.wrong() == (0, 0)
            flips = await agent.call("flip_memory", "models", 1, 5)
            assert victim.wrong() == (0, 5)
            assert {(one["mapping"], one["before"]) for one in flips} == {("/memfd:flatrack-models (deleted)", 0xAA)}
            assert len({one["address"] for one in flips}) == 5

    asyncio.run(scene())


def test_private_memory_is_struck_and_the_same_seed_gives_the_same_bits(root, victim):
    os.kill(victim.pid, signal.SIGSTOP)  # so that its pages stay the same
    memory = ProcessMemory(victim.pid, root / "proc")
    first = memory.flip("private", 7, 1000)
    again = memory.flip("private", 7, 1000)
    assert [(one.address, one.bit) for one in first] == [(one.address, one.bit) for one in again]
    assert all(two.before == one.before ^ 1 << one.bit for one, two in zip(first, again, strict=True))
    assert [(one.address, one.bit) for one in memory.flip("private", 8, 1000)] != [(o.address, o.bit) for o in first]
    memory.flip("private", 8, 1000)
    os.kill(victim.pid, signal.SIGCONT)
    assert victim.wrong() == (0, 0), "each bit was flipped twice"
    names = {one.name for one in memory.mappings("private")}
    assert "[heap]" in names
    assert "[stack]" not in names
    assert not any(name.startswith("/") for name in names), "no files: they are shared among processes"


def test_only_pages_that_lie_in_memory_are_struck(root, victim):
    memory = ProcessMemory(victim.pid, root / "proc")
    pages = memory._pages("models")
    assert len(pages) == (1 << 16) // PAGE_BYTES
    with pytest.raises(BoardError, match=f"{1 << 16} bytes of models memory, expected at least"):
        memory.flip("models", 1, (1 << 16) + 1)


def test_a_process_that_has_gone_cannot_be_struck(root, victim):
    memory = ProcessMemory(victim.pid, root / "proc")
    victim.end()
    with pytest.raises(BoardError, match=f"process {victim.pid}: "):
        memory.flip("private", 1, 1)
