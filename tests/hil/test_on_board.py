"""The on-board fault agent, on real processes, disks and terminals of this machine: every fault, and its end."""

import asyncio
import os
import pty
import signal
import subprocess
import sys
import tty
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from flightsw.errors import BoardError, ConfigError, ControlError, LinkBroken, LinkTimeout
from hil.on_board import disk_fill
from hil.on_board.agent import STEP_S_MAX, FaultAgent
from hil.on_board.memory import PAGE_BYTES, ProcessMemory
from hil.on_board.network_cut import NetworkCut
from hil.on_board.processes import Processes
from hil.on_board.remote import AgentPeer
from hil.on_board.streams import DescriptorTransport
from hil.on_board.tools import run_tool
from hil.on_board.uart_cut import UartCut, uart_of
from hil.sim.loop import VirtualLoop

PATIENCE_S = 30.0
VICTIM = """
import mmap, os, sys
memory = mmap.mmap(-1, 1 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory[:] = b"\\x55" * len(memory)
file = os.memfd_create("flatrack-models")
os.truncate(file, 1 << 17)
models = mmap.mmap(file, 1 << 17)
models[: 1 << 16] = b"\\xaa" * (1 << 16)  # the other half is never touched
print("ready", flush=True)
for line in sys.stdin:
    wrong = len(memory) - memory[:].count(0x55), (1 << 16) - models[: 1 << 16].count(0xAA)
    print(*wrong, flush=True)
"""


class Victim:
    """A process that looks like a node's, and knows what its memory should hold."""

    def __init__(self, root, *words, folder="boards"):
        package = root / "packages" / folder
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(VICTIM)
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [sys.executable, "-m", folder, *words], cwd=package.parent, stdin=pipe, stdout=pipe, text=True
        )
        assert self.process.stdout.readline() == "ready\n"
        self.pid = self.process.pid
        (root / "proc" / str(self.pid)).symlink_to(f"/proc/{self.pid}")  # and no other process of this machine

    def wrong(self):
        """Bytes that are not as they should be: (private, models)."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return tuple(int(word) for word in self.process.stdout.readline().split())

    def state(self):
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2][0]

    def end(self):
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def root(tmp_path):
    """A board's files: allowed to be struck, with no process."""
    for folder in ("etc/flatrack", "var/lib/flatrack", "proc/sys/kernel/random", "dev", "sys/fs/cgroup/init.scope"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "etc/flatrack/bench.toml").write_text("allows_faults = true\n")
    (tmp_path / "proc/sys/kernel/random/boot_id").write_text("0f5c\n")
    (tmp_path / "proc/uptime").write_text("12.50 3.00\n")
    (tmp_path / "proc/sysrq-trigger").touch()
    (tmp_path / "sys/fs/cgroup/init.scope/cgroup.freeze").write_text("0\n")
    (tmp_path / "dev/urandom").touch()
    return tmp_path


@pytest.fixture
def victim(root):
    made = Victim(root)
    yield made
    made.end()


def command(root, *words):
    return [sys.executable, "-m", "hil.on_board", *(words or ("--stdio",)), "--root", str(root)]


@asynccontextmanager
async def agent_of(root):
    """An agent as a program, over its standard input and output."""
    agent = await AgentPeer.over(command(root))
    try:
        yield agent
    finally:
        await agent.close()


async def until(condition):
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


def play(scene):
    """In virtual time, so that the times of faults pass at once."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(scene())


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
def test_without_permission_the_agent_does_not_start_and_says_why(root, text, why):
    path = root / "etc/flatrack/bench.toml"
    path.unlink()
    if text is not None:
        path.write_text(text)
    done = subprocess.run(command(root), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert str(path) in done.stderr
    assert why in done.stderr


def test_a_bench_is_told_of_an_agent_that_does_not_start(root):
    (root / "etc/flatrack/bench.toml").unlink()
    with pytest.raises(LinkBroken):
        asyncio.run(AgentPeer.over(command(root)))
    with pytest.raises(ConfigError, match="/nowhere/ssh: No such file"):
        asyncio.run(AgentPeer.over(["/nowhere/ssh"]))


# Settings and files


def test_the_agent_says_which_board_it_is_and_takes_its_settings(root):
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


def test_a_step_of_the_clock_has_bounds(root):
    async def scene():
        async with agent_of(root) as agent:
            for step_s in (float("inf"), float("nan"), -2 * STEP_S_MAX):
                with pytest.raises(ControlError, match=r"step_clock: step_s is .*: Expected `float` [<>]="):
                    await agent.call("step_clock", step_s)

    asyncio.run(scene())


# Processes


def test_the_processes_of_a_node_are_told_apart(root, victim):
    found = Processes(root / "proc")
    other = Victim(root, folder="boards_of_others")
    assert found.manager() == victim.pid
    assert found.launcher() is None
    assert found.workers() == []
    with pytest.raises(BoardError, match="no worker runs"):
        found.expect("worker")
    other.end()


def test_a_worker_is_found_by_its_path_and_killed(root):
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


def test_a_node_is_killed_by_the_signal_that_was_asked_for(root, victim):
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


def test_a_frozen_node_goes_on_when_it_is_thawed(root, victim):
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
def test_what_lasts_is_undone_when_the_agent_ends(root, victim, way):
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


def test_flipped_bits_of_a_running_process_are_seen_by_it(root, victim):
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


def test_a_filled_disk_leaves_so_much_and_is_given_back(root, small_disk):
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


def test_what_a_killed_agent_took_is_given_back_by_the_next(root, small_disk):
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


@pytest.fixture
def line():
    """A pseudo-terminal for the UART: (the far side, the node's side, its path)."""
    far, near = pty.openpty()
    tty.setraw(near)
    os.set_blocking(far, False)
    os.set_blocking(near, False)
    yield far, near, os.ttyname(near)
    os.close(far)
    os.close(near)


def read(descriptor):
    try:
        return os.read(descriptor, 4096)
    except BlockingIOError:
        return b""


def test_a_cut_uart_carries_nothing_and_is_whole_again_when_its_time_is_over(root, line):
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


def test_a_cut_uart_is_joined_when_the_agent_ends(root, line):
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


class Tools:
    """Notes what is run; some tools are missing."""

    def __init__(self, missing=(), **answers):
        self.missing = missing
        self.answers = answers
        self.ran = []

    async def __call__(self, words):
        self.ran.append(" ".join(words))
        if words[0] in self.missing:
            raise BoardError(f"{words[0]}: not on this board")
        return self.answers.get(words[0] + "_" + words[2] if words[0] == "ip" else words[0], "")


LINKS = '[{"ifname": "lo"}, {"ifname": "eth0"}]'


def test_the_network_is_cut_by_loss_and_joined_when_the_time_is_over(root):
    tools = Tools(ip_link=LINKS)

    async def scene():
        agent = FaultAgent(root, tools, None, None)
        assert await agent.cut_network(60.0) == "eth0: netem"
        await asyncio.sleep(59)
        assert tools.ran[1:] == ["tc qdisc add dev eth0 root netem loss 100%"]
        await asyncio.sleep(2)
        assert tools.ran[2:] == ["tc qdisc del dev eth0 root"]

    play(scene)


def test_without_netem_interfaces_go_down_and_come_back_with_their_routes():
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


def test_a_board_without_network_says_so(root):
    async def scene():
        agent = FaultAgent(root, Tools(ip_link='[{"ifname": "lo"}]'), None, None)
        with pytest.raises(BoardError, match="no network interface that is up"):
            await agent.cut_network(1.0)

    play(scene)


def test_a_clock_is_throttled_and_given_back(root):
    policy = root / "sys/devices/system/cpu/cpufreq/policy0"
    policy.mkdir(parents=True)
    for name, khz in (("cpuinfo_min_freq", 600_000), ("cpuinfo_max_freq", 1_500_000), ("scaling_max_freq", 1_500_000)):
        (policy / name).write_text(f"{khz}\n")

    async def scene():
        agent = FaultAgent(root, Tools(), None, None)
        assert await agent.throttle(0.5, 10.0) == "scaling_max_freq of 1 clocks"
        assert (policy / "scaling_max_freq").read_text() == "750000\n"
        await asyncio.sleep(11)
        assert (policy / "scaling_max_freq").read_text() == "1500000\n"
        await agent.throttle(0.1, 10.0)
        assert (policy / "scaling_max_freq").read_text() == "600000\n", "no lower than it can"
        assert await agent.undo() == ["throttle"]
        assert (policy / "scaling_max_freq").read_text() == "1500000\n"

    play(scene)


def test_a_board_without_a_clock_to_set_gives_its_node_less_time(root):
    tools = Tools()

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


def test_the_service_is_started_stopped_and_read_by_the_boards_tools(root):
    tools = Tools(journalctl="a line\n")

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


def test_a_tool_whose_caller_has_gone_is_ended(tmp_path):
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


# What does not begin, and what does not end


def test_all_that_lasts_is_tried_and_the_first_error_comes_last(root, victim):
    tools = Tools()

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


def test_a_fault_that_does_not_begin_does_not_last(root):
    tools = Tools(missing=("systemctl",))

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


def test_one_interface_that_cannot_be_cut_joins_the_others_again(root):
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


def test_a_cut_whose_caller_goes_while_it_begins_is_undone(root):
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


def test_the_end_waits_for_a_fault_that_is_being_begun_or_undone(root):
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


def test_a_trial_does_nothing_to_the_machine_it_runs_on(root):
    async def scene():
        async with agent_of(root) as agent:
            with pytest.raises(ControlError, match="journalctl: not run in a trial under --root"):
                await agent.call("log")
            with pytest.raises(ControlError, match="the clock is not set in a trial under --root"):
                await agent.call("step_clock", 0.0)

    asyncio.run(scene())


# The machine


def test_a_panic_comes_after_its_answer(root):
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


def test_a_panic_comes_also_when_the_bench_goes_at_once(root):
    async def scene():
        async with agent_of(root) as agent:
            await agent.call("panic")

    asyncio.run(scene())
    assert (root / "proc/sysrq-trigger").read_text() == "c"


def test_a_watchdog_that_is_fed_again_at_once_is_not_starved_later(root):
    freezer = root / "sys/fs/cgroup/init.scope/cgroup.freeze"

    async def scene():
        agent = FaultAgent(root, None, None, None)
        agent.stop_watchdog()
        await agent.undo_all()
        await agent.finish_soon()
        await asyncio.sleep(1)
        assert freezer.read_text() == "0"

    play(scene)


def test_the_watchdog_is_starved_by_whoever_feeds_it_and_fed_again_at_the_end(root):
    freezer = root / "sys/fs/cgroup/init.scope/cgroup.freeze"

    async def scene():
        agent = FaultAgent(root, None, None, None)
        agent.stop_watchdog()
        await asyncio.sleep(1)
        assert freezer.read_text() == "1"
        await agent.undo_all()
        assert freezer.read_text() == "0"

    play(scene)


# Ways to the bench


def test_an_agent_on_a_socket_answers_several_benches(root, tmp_path):
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


def test_an_agent_on_a_port_answers_through_it(root, line):
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


def test_an_answer_that_did_not_leave_is_not_sent_to_the_next_bench():
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
