"""The on-board fault agent: who may start it, what it writes and reads of its board, and the ways to the bench."""

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from flightsw.errors import BoardError, ConfigError, ControlError, LinkBroken, LinkTimeout
from hil.on_board.agent import STEP_S_MAX, FaultAgent
from hil.on_board.remote import AgentPeer
from hil.on_board.streams import DescriptorTransport

PATIENCE_S = 30.0


# Permission


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "no such file, expected allows_faults = true; this board is of no bench"),
        ("", "allows_faults is false, expected true"),
        ("allows_faults = false\n", "allows_faults is false, expected true"),
        ("allows_faults = 1\n", "Expected `bool`"),
        ("allows_fault = true\n", "allows_fault"),
    ],
)
def test_without_permission_the_agent_does_not_start_and_says_why(command, root, text, why):
    path = root / "etc/flatrack/bench.toml"
    path.unlink()
    if text is not None:
        path.write_text(text)
    done = subprocess.run(command(root), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert str(path) in done.stderr
    assert why in done.stderr


def test_a_bench_is_told_of_an_agent_that_does_not_start(command, root):
    (root / "etc/flatrack/bench.toml").unlink()
    with pytest.raises(LinkBroken):
        asyncio.run(AgentPeer.over(command(root)))
    with pytest.raises(ConfigError, match="/nowhere/ssh: No such file"):
        asyncio.run(AgentPeer.over(["/nowhere/ssh"]))


# Settings and files


def test_the_agent_says_which_board_it_is_and_takes_its_settings(agent_of, root):
    async def scene():
        async with agent_of(root) as agent:
            before = await agent.hello()
            assert (before["boot_id"], before["uptime_s"], before["pid_of_node"]) == ("0f5c", 12.5, None)
            await agent.configure({"node.toml": b'[node]\nname = "sat-09"\n', "keys/own.toml": b"secret"})
            assert (await agent.hello())["name"] == "sat-09"
            assert await agent.file("/etc/flatrack/keys/own.toml") == b"secret"
            assert await agent.call("files", "/etc/flatrack") == ["bench.toml", "keys/own.toml", "node.toml"]

    asyncio.run(scene())
    assert (root / "etc/flatrack/keys/own.toml").stat().st_mode & 0o777 == 0o600
    assert len((root / "dev/urandom").read_bytes()) == 32, "the bench's entropy"


def test_the_main_settings_come_last_and_a_wrong_path_stops_the_rest(root):
    agent = FaultAgent(root, None, None, None)
    written = []
    replace = Path.replace

    def noted(path, target):
        written.append(Path(target).name)
        return replace(path, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", noted)
        agent.configure({"node.toml": b"1", "plan.json": b"2", "aa": b"3"})
    assert written == ["aa", "plan.json", "node.toml"]
    for name in ("../passwd", "/etc/passwd", "a/../../b", ""):
        with pytest.raises(ConfigError, match="expected a path under /etc/flatrack"):
            agent.configure({name: b""})
    with pytest.raises(ConfigError, match="257 files"):
        agent.configure({str(number): b"" for number in range(257)})


def test_a_bench_does_not_give_itself_permission(root):
    with pytest.raises(ConfigError, match=r"'./bench.toml': the permission to strike this board"):
        FaultAgent(root, None, None, None).configure({"./bench.toml": b"allows_faults = false\n"})
    assert (root / "etc/flatrack/bench.toml").read_text() == "allows_faults = true\n"


def test_a_setting_that_cannot_be_written_is_named_and_leaves_nothing(root):
    (root / "etc/flatrack/taken").mkdir()
    (root / "etc/flatrack/taken/by").touch()
    agent = FaultAgent(root, None, None, None)
    for name in ("taken", "bench.toml/under"):
        with pytest.raises(BoardError, match=f"etc/flatrack/{name}: cannot be written: "):
            agent.configure({name: b"content"})
    assert agent.files("/etc/flatrack") == ["bench.toml", "taken/by"]


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "/var/lib/flatrack/../../../etc/passwd", "/etc/flatrack/link", "/proc/1/mem"]
)
def test_only_files_of_the_node_are_read(root, path):
    (root / "etc/flatrack/link").symlink_to("/etc/passwd")
    with pytest.raises(ConfigError, match="expected a path under one of /var/lib/flatrack"):
        FaultAgent(root, None, None, None).file(path)


def test_the_clock_is_set_and_stepped(root):
    set_to = []
    agent = FaultAgent(root, None, set_to.append, lambda: 5_000_000_000)
    agent.configure({}, 7)
    agent.step_clock(-1.5)
    assert set_to == [7, 3_500_000_000]

    def refused(_):
        raise PermissionError("not root")

    with pytest.raises(BoardError, match="the clock cannot be set: not root"):
        FaultAgent(root, None, refused, lambda: 0).set_clock(1)


def test_a_step_of_the_clock_has_bounds(agent_of, root):
    async def scene():
        async with agent_of(root) as agent:
            for step_s in (float("inf"), float("nan"), -2 * STEP_S_MAX):
                with pytest.raises(ControlError, match=r"step_clock: step_s is .*: Expected `float` [<>]="):
                    await agent.call("step_clock", step_s)

    asyncio.run(scene())


# Ways to the bench


def test_an_agent_on_a_socket_answers_several_benches(command, root, tmp_path):
    async def scene():
        process = subprocess.Popen(command(root, "--socket", tmp_path / "agent"))
        one = await AgentPeer.open(tmp_path / "agent", PATIENCE_S)
        two = await AgentPeer.open(tmp_path / "agent", PATIENCE_S)
        assert await one.hello() == await two.hello()
        await one.close()
        await two.close()
        process.terminate()
        assert process.wait(PATIENCE_S) == 0

    asyncio.run(scene())


def test_an_agent_on_a_port_answers_through_it(command, root, line):
    far, _, path = line

    async def scene():
        process = subprocess.Popen(command(root, "--port", path))
        os.set_blocking(far, True)
        hello = bytes.fromhex("940007a5") + b"hello" + bytes.fromhex("90")
        os.write(far, len(hello).to_bytes(4, "big") + hello)
        loop = asyncio.get_running_loop()
        answer = await asyncio.wait_for(loop.run_in_executor(None, os.read, far, 4096), PATIENCE_S)
        assert answer[4:7] == bytes.fromhex("940107")
        assert b"boot_id" in answer
        process.terminate()
        assert process.wait(PATIENCE_S) == 0

    asyncio.run(scene())


def test_an_answer_that_did_not_leave_is_not_sent_to_the_next_bench(read):
    async def scene():
        reads, writes = os.pipe()
        transport = DescriptorTransport(asyncio.Protocol(), reads, writes)
        transport.write(bytes(1 << 20))
        assert transport.get_write_buffer_size() > 0
        transport.abort()
        assert transport.get_write_buffer_size() == 0
        while read(reads):
            pass
        other = DescriptorTransport(asyncio.Protocol(), reads, writes)
        other._loop.remove_reader(reads)  # this test reads
        other.write(b"next" * (1 << 16))
        transport.close()
        got = bytearray()
        async with asyncio.timeout(PATIENCE_S):
            while len(got) < 4 << 16:
                got += read(reads)
                await asyncio.sleep(0)
        assert got == b"next" * (1 << 16)
        other.close()
        os.close(reads)
        os.close(writes)

    asyncio.run(scene())


def test_a_bench_that_finds_no_agent_gives_up_in_time(tmp_path):
    async def scene():
        with pytest.raises(LinkTimeout, match=r"no fault agent has answered within 0.1 s"):
            await AgentPeer.open(tmp_path / "nobody", 0.1)

    asyncio.run(scene())
