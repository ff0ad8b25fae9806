"""A board's files that may be struck, a process that looks like its node, and the fault agent beside them."""

import asyncio
import os
import pty
import subprocess
import sys
import tty
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from flightsw.errors import BoardError
from hil.on_board.remote import AgentPeer
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


def read(descriptor):
    try:
        return os.read(descriptor, 4096)
    except BlockingIOError:
        return b""


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


@pytest.fixture(scope="session")
def make_victim() -> type[Victim]:
    return Victim


@pytest.fixture(scope="session", name="command")
def _command():
    return command


@pytest.fixture(scope="session", name="agent_of")
def _agent_of():
    return agent_of


@pytest.fixture(scope="session", name="until")
def _until():
    return until


@pytest.fixture(scope="session", name="play")
def _play():
    return play


@pytest.fixture(scope="session", name="read")
def _read():
    return read


@pytest.fixture(scope="session")
def make_tools() -> type[Tools]:
    return Tools
