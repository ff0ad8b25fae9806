"""Workers that hang, die, or are not what they should be: the manager goes on, says it, and leaves none behind."""

import asyncio
import os
import select
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from boards import profiles
from boards.worker.interpreter import find_interpreter
from boards.worker.isolation.isolator import Limits, Setup
from boards.worker.isolation.proof import Choice, Proof
from boards.worker.isolation.rlimits import Rlimits
from boards.worker.runner import WorkerRunner
from boards.worker.settings import MEMORY_BYTES_MIN, WorkerSettings
from flightsw.errors import BoardError
from flightsw.objects.digest import digest_of

pytest.importorskip("onnxruntime")

ROOT = Path(__file__).parents[3]
MODEL = (ROOT / "hil" / "assets" / "cloud-mask.onnx").read_bytes()
DIGEST = digest_of(MODEL)
PROFILE = profiles.load("raspberry-pi-4")
HUNG_S = 30.0
"""A wait that lasts so long would never end."""

Logged = list[tuple[str, dict[str, object]]]
Opener = Callable[..., "asyncio.Future[WorkerRunner]"]


async def has_ended(pid: int) -> None:
    """Wait for the end of a process that need not be a child."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, ended.set)
    await ended.wait()
    loop.remove_reader(descriptor)
    os.close(descriptor)


# -- what happens to workers


async def test_a_worker_that_hangs_is_ended_by_a_restart_and_its_step_never_ends(
    steps: Callable[..., Awaitable[bytes]], computed_inline: Callable[[int], Awaitable[bytes]], open_worker: Opener
) -> None:
    runner = await open_worker()
    runner.load(DIGEST, MODEL)
    pid = runner.worker_pid
    os.kill(pid, signal.SIGSTOP)
    step = asyncio.create_task(steps(runner))
    await asyncio.sleep(0)
    runner.restart()
    assert runner.loaded() == {}
    runner.load(DIGEST, MODEL)
    assert await steps(runner) == await computed_inline(1)
    assert runner.worker_pid not in (0, pid)
    assert not Path(f"/proc/{pid}").exists()
    assert not step.done()
    assert runner.deaths_count == 0
    step.cancel()


async def test_the_death_of_a_worker_is_named_and_the_next_step_has_another(
    steps: Callable[..., Awaitable[bytes]],
    computed_inline: Callable[[int], Awaitable[bytes]],
    open_worker: Opener,
    logged: Logged,
) -> None:
    runner = await open_worker()
    runner.load(DIGEST, MODEL)
    pid = runner.worker_pid
    os.kill(pid, signal.SIGSTOP)
    step = asyncio.create_task(steps(runner))
    await asyncio.sleep(0)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(BoardError, match="the worker ended: killed by SIGKILL"):
        await step
    assert ("worker.died", {"pid": pid, "reason": "killed by SIGKILL"}) in logged
    assert runner.deaths_count == 1
    assert runner.loaded()[DIGEST].digest() == DIGEST
    assert await steps(runner) == await computed_inline(1)
    assert runner.worker_pid not in (0, pid)


async def test_a_step_that_is_given_up_does_not_answer_the_next(
    steps: Callable[..., Awaitable[bytes]], computed_inline: Callable[[int], Awaitable[bytes]], open_worker: Opener
) -> None:
    runner = await open_worker()
    runner.load(DIGEST, MODEL)
    first = await steps(runner)
    pid = runner.worker_pid
    os.kill(pid, signal.SIGSTOP)
    step = asyncio.create_task(steps(runner))
    await asyncio.sleep(0)
    step.cancel()
    os.kill(pid, signal.SIGCONT)
    assert await steps(runner, 1, first) == await computed_inline(2)
    assert runner.worker_pid == pid


async def test_a_step_longer_than_its_limit_is_ended(
    steps: Callable[..., Awaitable[bytes]], open_worker: Opener
) -> None:
    runner = await open_worker(step_s_max=0.05)
    runner.load(DIGEST, MODEL)
    os.kill(runner.worker_pid, signal.SIGSTOP)
    with pytest.raises(BoardError, match=r"longer than worker.step_s_max = 0.05 s"):
        await steps(runner)
    await runner.ready()


async def test_a_step_that_needs_too_much_memory_fails_and_the_manager_goes_on(
    make_tile: Callable[..., bytes],
    steps: Callable[..., Awaitable[bytes]],
    computed_inline: Callable[[int], Awaitable[bytes]],
    open_worker: Opener,
) -> None:
    runner = await open_worker(memory_bytes=2 * MEMORY_BYTES_MIN)
    runner.load(DIGEST, MODEL)
    with pytest.raises(BoardError, match="worker"):
        await steps(runner, tile=make_tile(1024, 1024))
    assert await steps(runner) == await computed_inline(1)


async def test_nobody_is_left_behind_at_the_end(open_worker: Opener) -> None:
    runner = await open_worker()
    pid = runner.worker_pid
    await runner.close()
    assert not Path(f"/proc/{pid}").exists()
    assert runner.worker_pid == 0


ORPHANED = """
import asyncio, sys
from boards import profiles
from boards.worker.runner import open_runner
from boards.worker.settings import WorkerSettings

async def main():
    settings = WorkerSettings(isolation=sys.argv[1])
    runner = await open_runner(settings, profiles.load("raspberry-pi-4"), name="orphan", log=lambda *_: None)
    await runner.ready()
    print(runner.worker_pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.parametrize("isolation", ["bubblewrap", "rlimits"])
async def test_a_worker_dies_with_its_manager(isolation: str, need_tool: Callable[[str], str]) -> None:
    if isolation == "bubblewrap":
        need_tool("bwrap")
    with subprocess.Popen([sys.executable, "-c", ORPHANED, isolation], stdout=subprocess.PIPE, cwd=ROOT) as manager:
        assert manager.stdout is not None
        pid = int(manager.stdout.readline())
        descriptor = os.pidfd_open(pid)
        os.kill(pid, signal.SIGSTOP)  # it cannot help itself
        manager.kill()
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    assert poll.poll(20_000), "the worker outlives its manager"
    os.close(descriptor)


# -- workers that are not what they should be


class Impostor(Rlimits):
    """Starts another program in the place of the worker's."""

    def __init__(self, script: Path) -> None:
        self._script = script

    def command(self, argv: object, limits: Limits, readable: object) -> tuple[str, ...]:
        return (sys.executable, str(self._script))

    def setup(self, limits: Limits) -> Setup:
        return {}


async def impostor(tmp_path: Path, script: str) -> WorkerRunner:
    path = tmp_path / "impostor.py"
    path.write_text(f"import os, sys\nsys.path.insert(0, {str(ROOT)!r})\n{script}")
    return WorkerRunner(
        settings=WorkerSettings(),
        profile=PROFILE,
        interpreter=await find_interpreter("", 1.0),
        limits=Limits(MEMORY_BYTES_MIN, None, 16),
        choice=Choice(Impostor(path), Proof(True, True, "proven"), {"rlimits": Proof(True, True, "proven")}),
        log=lambda *_: None,
    )


HELLO = """
from boards.worker.program import Manager, pack
import socket
manager = socket.socket(fileno=0)
manager.sendall(b"F")
hello = {"python": "3", "confinement": {"interfaces": [], "writing": "", "no_new_privileges": True, "environment": [],
         "uid": 0}, "provider": "cpu"}
manager.sendall(pack(hello, 0))
manager.recv(1)
"""


@pytest.mark.parametrize(
    ("script", "what"),
    [
        ("os.write(0, b'x'); os.read(0, 1)", "it greets with b'x'"),
        ("os.write(0, b'F' + 99 * b'!'); os.read(0, 1)", "a frame begins with"),
        (HELLO + "manager.sendall(b'FRWK' + 8 * b'\\xff'); os.pause()", "a frame of 4294967295"),
        (HELLO + "manager.sendall(pack({'number': 2}, 0)); os.pause()", "an answer to request 2, of 1"),
        (HELLO + "manager.sendall(pack({'number': 1, 'shape': [9, 9]}, 3) + b'abc'); os.pause()", "in 3 bytes"),
        (HELLO + "manager.sendall(pack({'number': 'x'}, 0)); os.pause()", "Expected `int`"),
        (
            HELLO + "manager.sendall(pack({'number': 1, 'dtype': '|O', 'shape': [1]}, 8) + bytes(8)); os.pause()",
            "Invalid enum",
        ),
        (
            HELLO + "manager.sendall(pack({'number': 1, 'shape': [0, 2**31, 2**31, 2**31]}, 0)); os.pause()",
            "a tensor (0, 2147483648, 2147483648, 2147483648)",
        ),
        (
            HELLO + "n = b'{\"other\":' + 16000 * b'['\n"
            "manager.sendall(b'FRWK' + len(n).to_bytes(4, 'little') + bytes(4) + n); os.pause()",
            "recursion",
        ),
        ("sys.exit('the card is worn out')", "exit code 1: the card is worn out"),
    ],
)
async def test_a_worker_that_does_not_keep_to_the_frames_is_killed_and_named(
    steps: Callable[..., Awaitable[bytes]], script: str, what: str, tmp_path: Path
) -> None:
    runner = await impostor(tmp_path, script.replace("os.pause()", "import signal; signal.pause()"))
    try:
        runner.load(DIGEST, MODEL)
        async with asyncio.timeout(HUNG_S):
            with pytest.raises(BoardError) as refused:
                await steps(runner)
        assert what in str(refused.value)
    finally:
        await runner.close()


async def test_what_a_worker_has_started_ends_with_it(tmp_path: Path) -> None:
    note = tmp_path / "child"
    script = f"""
child = os.fork()
if not child:
    import signal
    signal.pause()
open({str(note)!r}, "w").write(str(child))
{HELLO}
"""
    runner = await impostor(tmp_path, script)
    await runner.ready()
    pid = int(note.read_text())
    await runner.close()
    await has_ended(pid)


async def test_a_worker_that_dies_before_what_it_has_started_is_noticed_and_nothing_is_left(
    steps: Callable[..., Awaitable[bytes]], tmp_path: Path
) -> None:
    note = tmp_path / "child"
    script = f"""
child = os.fork()
if not child:  # holds socket and standard error
    import signal
    signal.pause()
open({str(note)!r}, "w").write(str(child))
{HELLO}
os._exit(3)
"""
    runner = await impostor(tmp_path, script)
    try:
        await runner.ready()
        pid = int(note.read_text())
        runner.load(DIGEST, MODEL)
        async with asyncio.timeout(HUNG_S):
            with pytest.raises(BoardError, match="exit code 3"):
                await steps(runner)
            await has_ended(pid)
    finally:
        async with asyncio.timeout(HUNG_S):
            await runner.close()
