"""Disk, UART, network and clock rate, taken away and given back; what is left to the tools of the board."""

import asyncio
import os
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from flightsw.errors import BoardError, ConfigError, ControlError
from hil.on_board.agent import FaultAgent
from hil.on_board.network_cut import NetworkCut
from hil.on_board.remote import AgentPeer
from hil.on_board.tools import run_tool
from hil.on_board.uart_cut import UartCut, uart_of

LINKS = '[{"ifname": "lo"}, {"ifname": "eth0"}]'


# Disk


@pytest.fixture
def small_disk(root):
    """Four megabytes for the node's data; needs the rights of root."""
    folder = root / "var/lib/flatrack"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "none", folder], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def free_bytes(folder):
    state = os.statvfs(folder)
    return state.f_bfree * state.f_frsize


def test_a_filled_disk_leaves_so_much_and_is_given_back(agent_of, root, small_disk):
    async def scene():
        async with agent_of(root) as agent:
            before_bytes = free_bytes(small_disk)
            taken_bytes = await agent.call("fill_disk", 100_000)
            assert 100_000 - 4096 < free_bytes(small_disk) < 100_000 + 4096
            assert taken_bytes == pytest.approx(before_bytes - 100_000, abs=4096)
            with pytest.raises(OSError, match="No space left"):
                (small_disk / "data").write_bytes(bytes(200_000))
            (small_disk / "data").unlink()
            await agent.call("fill_disk", 20_000)
            assert free_bytes(small_disk) < 20_000 + 4096
            with pytest.raises(ControlError, match="are free, expected more than 9999999"):
                await agent.call("fill_disk", 9_999_999)
            await agent.call("release_disk")
            assert free_bytes(small_disk) == before_bytes
            await agent.call("fill_disk", 0)

    asyncio.run(scene())
    assert free_bytes(small_disk) == 4 << 20, "its end gives the disk back"


def test_what_a_killed_agent_took_is_given_back_by_the_next(agent_of, command, root, small_disk):
    async def scene():
        agent = await AgentPeer.over(command(root))
        await agent.call("fill_disk", 1000)
        agent._process.kill()
        await agent.close()
        assert free_bytes(small_disk) < 10_000
        async with agent_of(root) as agent:
            assert free_bytes(small_disk) == 4 << 20

    asyncio.run(scene())


# UART


def test_a_cut_uart_carries_nothing_and_is_whole_again_when_its_time_is_over(play, read, root, line):
    far, near, path = line
    (root / "etc/flatrack/node.toml").write_text(f'[link]\nurl = "serial://{path}"\n')

    async def scene():
        agent = FaultAgent(root, None, None, None)
        os.write(near, b"before")
        assert read(far) == b"before"
        assert agent.cut_uart(60.0) == path
        with pytest.raises(BoardError, match="cut_uart: one lasts already"):
            agent.cut_uart(1.0)
        for _ in range(5):
            os.write(far, b"into the cut")
            await asyncio.sleep(10.0)
            assert read(near) == b""
            with suppress(BlockingIOError):  # a stopped terminal takes nothing
                os.write(near, b"out of it")
            assert read(far) == b""
        await asyncio.sleep(11.0)
        assert agent.hello()["faults"] == []
        assert (read(near), read(far)) == (b"", b""), "what was sent meanwhile is lost"
        os.write(near, b"after")
        assert read(far) == b"after"
        os.write(far, b"and back")
        assert read(near) == b"and back"

    play(scene)


def test_a_cut_uart_is_joined_when_the_agent_ends(agent_of, read, root, line):
    far, near, path = line
    (root / "etc/flatrack/node.toml").write_text(f'[link]\nurl = "serial://{path}"\n')

    async def scene():
        async with agent_of(root) as agent:
            await agent.call("cut_uart", 3600.0)

    asyncio.run(scene())
    os.write(near, b"after")
    assert read(far) == b"after"


def test_what_is_no_uart_is_not_cut(root):
    settings = root / "etc/flatrack/node.toml"
    for text, why in (
        ("", "names no lab wire"),
        ('[link]\nurl = "mqtt://broker/x"\n', "expected serial:///dev/"),
    ):
        settings.write_text(text)
        with pytest.raises(BoardError, match=why):
            uart_of(settings)
    with pytest.raises(BoardError, match="/dev/null: no UART: "):
        UartCut(Path("/dev/null"))
    with pytest.raises(BoardError, match="/nowhere: No such file"):
        UartCut(Path("/nowhere"))


# Network, throttling, service: what is told to the board's tools


def test_the_network_is_cut_by_loss_and_joined_when_the_time_is_over(make_tools, play, root):
    tools = make_tools(ip_link=LINKS)

    async def scene():
        agent = FaultAgent(root, tools, None, None)
        assert await agent.cut_network(60.0) == "eth0: netem"
        await asyncio.sleep(59)
        assert tools.ran[1:] == ["tc qdisc add dev eth0 root netem loss 100%"]
        await asyncio.sleep(2)
        assert tools.ran[2:] == ["tc qdisc del dev eth0 root"]

    play(scene)


def test_without_netem_interfaces_go_down_and_come_back_with_their_routes(play):
    async def show(words):
        ran.append(" ".join(words))
        if words[0] == "tc":
            raise BoardError("no netem")
        if words[1] == "-json":
            return LINKS
        return "default via 10.0.2.2 linkdown\n10.0.2.0/24 proto kernel scope link src 10.0.2.15\n"

    async def scene():
        cut = NetworkCut(show)
        assert await cut.begin() == "eth0: down"
        await cut.end()
        await cut.end()

    ran = []
    play(scene)
    assert ran[2:] == [
        "ip route show dev eth0",
        "ip link set dev eth0 down",
        "ip link set dev eth0 up",
        "ip route replace 10.0.2.0/24 proto kernel scope link src 10.0.2.15 dev eth0",
        "ip route replace default via 10.0.2.2 dev eth0",
    ]


def test_a_board_without_network_says_so(make_tools, play, root):
    async def scene():
        agent = FaultAgent(root, make_tools(ip_link='[{"ifname": "lo"}]'), None, None)
        with pytest.raises(BoardError, match="no network interface that is up"):
            await agent.cut_network(1.0)

    play(scene)


def test_a_clock_is_throttled_and_given_back(make_tools, play, root):
    policy = root / "sys/devices/system/cpu/cpufreq/policy0"
    policy.mkdir(parents=True)
    for name, khz in (("cpuinfo_min_freq", 600_000), ("cpuinfo_max_freq", 1_500_000), ("scaling_max_freq", 1_500_000)):
        (policy / name).write_text(f"{khz}\n")

    async def scene():
        agent = FaultAgent(root, make_tools(), None, None)
        assert await agent.throttle(0.5, 10.0) == "scaling_max_freq of 1 clocks"
        assert (policy / "scaling_max_freq").read_text() == "750000\n"
        await asyncio.sleep(11)
        assert (policy / "scaling_max_freq").read_text() == "1500000\n"
        await agent.throttle(0.1, 10.0)
        assert (policy / "scaling_max_freq").read_text() == "600000\n", "no lower than it can"
        assert await agent.undo() == ["throttle"]
        assert (policy / "scaling_max_freq").read_text() == "1500000\n"

    play(scene)


def test_a_board_without_a_clock_to_set_gives_its_node_less_time(make_tools, play, root):
    tools = make_tools()

    async def scene():
        agent = FaultAgent(root, tools, None, None)
        assert "CPUQuota" in await agent.throttle(0.5, 10.0)
        await asyncio.sleep(11)

    play(scene)
    share = 50 * os.cpu_count()
    assert tools.ran == [
        f"systemctl set-property --runtime flatrack.service CPUQuota={share}%",
        "systemctl set-property --runtime flatrack.service CPUQuota=",
    ]


def test_the_service_is_started_stopped_and_read_by_the_boards_tools(make_tools, play, root):
    tools = make_tools(journalctl="a line\n")

    async def scene():
        agent = FaultAgent(root, tools, None, None)
        await agent.start()
        await agent.stop()
        assert await agent.log(3) == "a line\n"
        with pytest.raises(ConfigError, match="module: 'os', expected one of boards"):
            await agent.module("os", [])

    play(scene)
    assert tools.ran == [
        "systemctl reset-failed flatrack.service",
        "systemctl start flatrack.service",
        "systemctl stop flatrack.service",
        "journalctl --no-pager --output=cat --unit=flatrack.service --lines=3",
    ]


def test_a_tool_that_fails_is_quoted(root):
    async def scene():
        with pytest.raises(BoardError, match=r"exit code 1: .*no_such_module"):
            await FaultAgent(root, run_tool, None, None).module("boards.no_such_module", [])

    asyncio.run(scene())


def test_a_tool_whose_caller_has_gone_is_ended(until, tmp_path):
    async def scene():
        script = f"echo $$ > {tmp_path / 'pid'}; exec sleep 3600"
        running = asyncio.create_task(run_tool(["sh", "-c", script]))
        await until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / "pid").read_text()), 0)

    asyncio.run(scene())
