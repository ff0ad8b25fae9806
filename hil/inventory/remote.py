"""A board over ssh: the system's own client, so that a user's configuration, agent and jump hosts hold here too.

All commands of one session share a connection (ControlMaster), and a password, where one is needed, is asked for once.
"""

import asyncio
import shlex
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from flightsw.errors import BoardError, BoardNotFound, ConfigError, LinkBroken
from hil.inventory import board_side
from hil.inventory.boards import Board
from hil.inventory.wheelhouse import PYTHON_MIN, Target

SSH_FAILED: Final = 255
"""Exit code of ssh(1) when it is the connection that failed."""
CONNECT_S: Final = 15
OPTIONS: Final = (
    f"ConnectTimeout={CONNECT_S}",
    # a board that lost power is noticed within 30 s
    "ServerAliveInterval=10",
    "ServerAliveCountMax=3",
    "ControlMaster=auto",
    "ControlPersist=60",
)
PIECE_BYTES: Final = 1 << 18
PYTHONS: Final = (
    "python3 python3.14 python3.13 python3.12 python3.11 "
    ".local/share/uv/python/cpython-3.1[1-9]*/bin/python3 .pyenv/versions/3.1[1-9]*/bin/python3"
)
"""Where a Python is looked for: in the PATH, and where uv and pyenv install them."""
_LOADER: Final = "import sys;SOURCE=sys.stdin.buffer.read({size}).decode();exec(compile(SOURCE,'board_side','exec'))"
_PROBE: Final = """\
echo "user $(id -u)"
echo "prefix ${FLATRACK_PREFIX:-/}"
echo "machine $(uname -m)"
cd
for python in %s; do
  path=$(command -v "$python") && "$path" -I -c 'import os, struct, sys, venv, zipfile
libc = os.confstr("CS_GNU_LIBC_VERSION") or "none 0.0"
bits = 8 * struct.calcsize("P")
print("python", *sys.version_info[:2], libc.split()[1], bits, os.path.realpath(sys.executable))' 2>/dev/null
done
true
"""


class Probe(NamedTuple):
    """What a board is."""

    is_root: bool
    prefix: Path
    """Folder below which everything lies; / but in tests."""
    target: Target
    python: str
    """Its interpreter."""


class Remote:
    """One session with a board. Use as an asynchronous context manager.

    Args:
        name: of the board.
        board: of the inventory.

    Raises:
        ConfigError: the board has no `ssh`, or there is no ssh client.
    """

    def __init__(self, name: str, board: Board) -> None:
        if board.ssh is None:
            raise ConfigError(f'board {name}: has no ssh, expected one in the inventory: ssh = "user@host"')
        if shutil.which("ssh") is None:
            raise ConfigError("missing tool: ssh; on Debian or Ubuntu: apt-get install openssh-client")
        self.name = name
        self._board = board
        self._destination = board.ssh
        self._resources = AsyncExitStack()
        self._probe: Probe | None = None
        self._control = "none"  # as ssh has it: without a session there is nothing to share

    async def __aenter__(self) -> "Remote":
        folder = self._resources.enter_context(tempfile.TemporaryDirectory(prefix="flatrack-ssh-"))
        self._control = f"{folder}/control"
        return self

    async def __aexit__(self, *_: object) -> None:
        if Path(self._control).exists():
            await self._run([*self.command(), "-O", "exit", self._destination], ())
        await self._resources.aclose()

    def command(self) -> list[str]:
        """ssh and its options, without destination."""
        options = (*OPTIONS, f"ControlPath={self._control}", *self._board.ssh_options)
        return ["ssh", *(word for option in options for word in ("-o", option))]

    def interactive(self, script: str = "") -> list[str]:
        """What gives a person a shell of the board on this terminal, or what a command of that shell prints."""
        return [*self.command(), "-t", self._destination, *([script] if script else [])]

    async def run(self, script: str, parts: Sequence[bytes | Path] = (), *, is_asked: bool = False) -> str:
        """Run a shell command on the board; its standard output.

        Args:
            script: of sh(1).
            parts: its standard input: bytes, and files.
            is_asked: whether its exit code says nothing.

        Raises:
            BoardNotFound: there is no connection.
            LinkBroken: it was lost.
            BoardError: the command failed.
        """
        was_connected = Path(self._control).exists()
        code, out, err = await self._run([*self.command(), self._destination, script], parts)
        words = err.decode(errors="replace").strip().rpartition("\n")[2]
        if code == SSH_FAILED and was_connected:
            raise LinkBroken(f"board {self.name}: the connection was lost: {words or 'no reason given'}")
        if code == SSH_FAILED:
            raise BoardNotFound(f"board {self.name}: ssh {self._destination}: {words or 'no connection'}")
        if code < 0 or (code and not is_asked):
            raise BoardError(f"board {self.name}: ended with {code}: {words}")
        return out.decode(errors="replace")

    async def probe(self) -> Probe:
        """What the board is.

        Raises:
            ConfigError: it has no Python that fits, or is of another kind of machine.
        """
        if self._probe is not None:
            return self._probe
        pythons = shlex.quote(self._board.python) if self._board.python else PYTHONS
        lines = [line.split(None, 1) for line in (await self.run(_PROBE % pythons)).splitlines()]
        said = {line[0]: line[1] for line in lines if len(line) == 2 and line[0] != "python"}
        found = [line[1].split(None, 4) for line in lines if len(line) == 2 and line[0] == "python"]
        fitting = [one for one in found if (int(one[0]), int(one[1])) >= PYTHON_MIN]
        wanted = ".".join(map(str, PYTHON_MIN))
        if not fitting:
            there = ", ".join(f"{one[0]}.{one[1]}" for one in found) or "none"
            raise ConfigError(
                f"board {self.name}: Python {there}, expected {wanted} or newer with venv; on the board: "
                f"apt-get install python3 python3-venv, or where the distribution has an older one: "
                f"pip install uv && uv python install {wanted}, then give python = ... in the inventory"
            )
        major, minor, libc, bits, path = fitting[0]
        if bits != "64":  # a kernel of 64 bits may have programs of 32
            raise ConfigError(f"board {self.name}: a system of {bits} bits, expected one of 64")
        if not libc.startswith("2."):
            raise ConfigError(f"board {self.name}: no glibc, expected a system that takes manylinux wheels")
        target = Target(said["machine"], (int(major), int(minor)), int(libc.split(".")[1]))
        self._probe = Probe(said["user"] == "0", Path(said["prefix"]), target, path)
        return self._probe

    async def ask(
        self, operation: str, request: dict[str, Any], payload: Sequence[bytes | Path] = ()
    ) -> dict[str, Any]:
        """Have `board_side` do an operation on the board; its result.

        Raises:
            BoardError: the board refuses; says why. Others as of `run`.
        """
        probe = await self.probe()
        source = Path(board_side.__file__).read_bytes()
        words = [probe.python, "-I", "-c", _LOADER.format(size=len(source)), operation, str(probe.prefix)]
        head = source + msgspec.json.encode(request) + b"\n"
        out = await self.run(self.as_root(words, probe), (head, *payload))
        try:
            result = msgspec.json.decode(out.strip().rpartition("\n")[2], type=dict[str, Any])
        except msgspec.DecodeError:
            raise BoardError(f"board {self.name}: {operation}: answered {out[:200]!r}") from None
        if "error" in result:
            raise BoardError(f"board {self.name}: {result['error']}")
        return result

    @staticmethod
    def as_root(words: Sequence[str], probe: Probe) -> str:
        """The command of a shell that runs these words as root."""
        return shlex.join(words if probe.is_root else ("sudo", "-n", "--", *words))

    async def _run(self, command: list[str], parts: Sequence[bytes | Path]) -> tuple[int, bytes, bytes]:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        assert process.stdin is not None, "a pipe was asked for"
        feeding = asyncio.create_task(_feed(process.stdin, parts))
        try:
            out, err = await asyncio.gather(_read(process.stdout), _read(process.stderr))
            return await process.wait(), out, err
        finally:
            feeding.cancel()
            await asyncio.wait([feeding])
            if process.returncode is None:
                process.kill()
                await process.wait()


async def _feed(pipe: asyncio.StreamWriter, parts: Sequence[bytes | Path]) -> None:
    """Write bytes and files; a reader that goes away ends it, and says why itself."""
    try:
        for part in parts:
            if isinstance(part, bytes):
                pipe.write(part)
                await pipe.drain()
                continue
            with part.open("rb") as file:
                while piece := file.read(PIECE_BYTES):
                    pipe.write(piece)
                    await pipe.drain()
        pipe.close()
        await pipe.wait_closed()
    except OSError:
        return


async def _read(pipe: asyncio.StreamReader | None) -> bytes:
    assert pipe is not None, "a pipe was asked for"
    return await pipe.read()
