"""Workers compute what flight code computes, and whatever happens to them, the manager goes on and says it."""

import asyncio
import gc
import os
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest

from boards import profiles
from boards.simulated.runner import SimulatedRunner
from boards.worker import program
from boards.worker.interpreter import find_interpreter
from boards.worker.isolation.isolator import Limits, Setup
from boards.worker.isolation.proof import Choice, Proof
from boards.worker.isolation.rlimits import Rlimits
from boards.worker.runner import WorkerRunner, open_runner
from boards.worker.settings import MEMORY_BYTES_MIN, WorkerSettings
from flightsw.compute import cloud_mask, matrix_product
from flightsw.compute.inference import InferenceCache
from flightsw.compute.matrix_file import encode_matrix
from flightsw.errors import BoardError, ConfigError, MessageError
from flightsw.objects.digest import digest_of
from flightsw.ports import ProductChecks, Support

pytest.importorskip("onnxruntime")

ROOT = Path(__file__).parents[2]
MODEL = (ROOT / "hil" / "assets" / "cloud-mask.onnx").read_bytes()
PROOF_MODEL = (ROOT / "boards" / "worker" / "proof.onnx").read_bytes()
DIGEST = digest_of(MODEL)
PROFILE = profiles.load("raspberry-pi-4")
SIGN_BIT = 31
HUNG_S = 30.0
"""A wait that lasts so long would never end."""
HEIGHT, WIDTH = 47, 50

Logged = list[tuple[str, dict[str, object]]]
Opener = Callable[..., "asyncio.Future[WorkerRunner]"]


def make_tile(height: int, width: int) -> bytes:
    dn = np.random.Generator(np.random.PCG64(7)).integers(0, 9000, (height, width, cloud_mask.BANDS))
    return cloud_mask.encode_tile(dn.astype(np.uint16))


TILE = make_tile(HEIGHT, WIDTH)


@pytest.fixture
def logged() -> Logged:
    return []


@pytest.fixture
async def open_worker(logged: Logged) -> AsyncIterator[Opener]:
    opened: list[WorkerRunner] = []

    async def open_one(**fields: object) -> WorkerRunner:
        settings = WorkerSettings(**{"isolation": "rlimits", **fields})
        runner = await open_runner(settings, PROFILE, name="sat-01", log=lambda kind, said: logged.append((kind, said)))
        opened.append(runner)
        await runner.ready()
        return runner

    yield open_one
    for runner in opened:
        await runner.close()


async def steps(
    runner: WorkerRunner | SimulatedRunner, count: int = 1, state: bytes = b"", tile: bytes = TILE
) -> bytes:
    for _ in range(count):
        state = await runner.step("cloud_mask", runner.loaded()[DIGEST], state, tile, 0.0)
    return state


async def computed_inline(count: int) -> bytes:
    runner = SimulatedRunner(PROFILE, InferenceCache())
    runner.load(DIGEST, MODEL)
    return await steps(runner, count)


async def until(holds: Callable[[], bool]) -> None:
    while not holds():
        await asyncio.sleep(0)


def descriptors_count(pid: int) -> int:
    gc.collect()  # a model in memory has one
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


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


# -- what is computed


@pytest.mark.parametrize("isolation", ["bubblewrap", "rlimits"])
async def test_masks_equal_those_computed_in_process_byte_for_byte(
    isolation: str, open_worker: Opener, need_tool: Callable[[str], str]
) -> None:
    if isolation == "bubblewrap":
        need_tool("bwrap")
    runner = await open_worker(isolation=isolation)
    runner.load(DIGEST, MODEL)
    state = await steps(runner, cloud_mask.STEPS)
    inline = SimulatedRunner(PROFILE, InferenceCache())
    assert state == await computed_inline(cloud_mask.STEPS)
    assert runner.finish("cloud_mask", state, TILE) == inline.finish("cloud_mask", state, TILE)


@pytest.mark.parametrize("kind", [np.float32, np.int8])
async def test_products_of_the_worker_pass_their_checksums(kind: type, open_worker: Opener) -> None:
    runner = await open_worker()
    draw = np.random.Generator(np.random.PCG64(3))
    left, right = (draw.integers(-100, 100, shape).astype(kind) for shape in ((700, 40), (40, 30)))
    data, matrix = encode_matrix(right), encode_matrix(left)
    model, checks, state = runner.load(digest_of(matrix), matrix), ProductChecks(), b""
    for _ in range(matrix_product.steps_count(len(left))):
        state = await runner.step("matrix_product", model, state, data, 0.0, checks)
    expected = encode_matrix(left.astype(np.int32) @ right.astype(np.int32))
    if kind is np.float32:  # whole numbers, and their sums too: float32 holds them all
        expected = encode_matrix(left @ right)
    assert runner.finish("matrix_product", state, data)[0] == expected
    assert checks == ProductChecks()


async def test_an_upset_in_the_shared_memory_is_executed_and_found_and_a_load_mends_it(open_worker: Opener) -> None:
    runner = await open_worker()
    runner.load(DIGEST, MODEL)
    sound = await steps(runner)
    runner.weight_memory()[0].flip_weight_bit(SIGN_BIT)
    assert await steps(runner) != sound
    assert runner.loaded()[DIGEST].digest() != DIGEST
    runner.load(DIGEST, MODEL)
    assert runner.loaded()[DIGEST].digest() == DIGEST
    assert await steps(runner) == sound


async def test_a_weight_that_the_guard_mends_is_mended_in_the_worker_too(open_worker: Opener) -> None:
    runner = await open_worker()
    image = runner.load(DIGEST, MODEL)
    sound = await steps(runner)
    image.flip_weight_bit(30)  # the highest bit of the first weight's exponent
    assert await steps(runner) != sound
    assert image.guard_weights() == 1
    assert image.digest() == DIGEST
    assert await steps(runner) == sound


async def test_a_model_that_was_struck_so_that_it_does_not_run_is_the_boards_fault(open_worker: Opener) -> None:
    runner = await open_worker()
    runner.load(DIGEST, MODEL).data[:64] = bytes(64)
    with pytest.raises(BoardError, match="the worker cannot run it"):
        await steps(runner)
    runner.load(DIGEST, MODEL)
    assert await steps(runner) == await computed_inline(1)


async def test_a_sound_model_that_does_not_fit_the_job_is_the_users_fault(open_worker: Opener) -> None:
    runner = await open_worker()
    model = runner.load(digest_of(PROOF_MODEL), PROOF_MODEL)
    with pytest.raises(ConfigError, match="refuses the model or its input"):
        await runner.step("cloud_mask", model, b"", TILE, 0.0)
    with pytest.raises(ConfigError, match=r"gives a tensor \(1, 2, 6, 6\); expected \(1, 1, 8, 8\)"):
        await runner.step("cloud_mask", model, b"", make_tile(8, 8), 0.0)
    with pytest.raises(MessageError):
        await runner.step("cloud_mask", model, b"", b"no tile", 0.0)
    with pytest.raises(ConfigError, match="job kind"):
        runner.step_s("fold_proteins", 1.0)


async def test_a_model_that_was_unloaded_is_not_run_and_its_memory_is_used_again(open_worker: Opener) -> None:
    runner = await open_worker()
    image = runner.load(DIGEST, MODEL)
    runner.unload(DIGEST)
    runner.unload(DIGEST)
    assert (runner.loaded(), runner.weight_memory()) == ({}, [])
    with pytest.raises(BoardError, match="no more in memory"):
        await runner.step("cloud_mask", image, b"", TILE, 0.0)


async def test_hundreds_of_steps_loads_and_restarts_leave_nothing_open(open_worker: Opener) -> None:
    runner = await open_worker()
    runner.load(DIGEST, MODEL)
    await steps(runner)
    pid = runner.worker_pid
    before = descriptors_count(os.getpid()), descriptors_count(pid)
    for _ in range(50):
        runner.load(DIGEST, MODEL)
        await steps(runner, 8)
    assert runner.worker_pid == pid
    assert (descriptors_count(os.getpid()), descriptors_count(pid)) == before
    for _ in range(3):
        runner.restart()
        await runner.ready()
    runner.load(DIGEST, MODEL)
    await steps(runner)
    assert descriptors_count(os.getpid()) == before[0]


# -- what happens to workers


async def test_a_worker_that_hangs_is_ended_by_a_restart_and_its_step_never_ends(open_worker: Opener) -> None:
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
    open_worker: Opener, logged: Logged
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


async def test_a_step_that_is_given_up_does_not_answer_the_next(open_worker: Opener) -> None:
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


async def test_a_step_longer_than_its_limit_is_ended(open_worker: Opener) -> None:
    runner = await open_worker(step_s_max=0.05)
    runner.load(DIGEST, MODEL)
    os.kill(runner.worker_pid, signal.SIGSTOP)
    with pytest.raises(BoardError, match=r"longer than worker.step_s_max = 0.05 s"):
        await steps(runner)
    await runner.ready()


async def test_a_step_that_needs_too_much_memory_fails_and_the_manager_goes_on(open_worker: Opener) -> None:
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
    script: str, what: str, tmp_path: Path
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


async def test_a_worker_that_dies_before_what_it_has_started_is_noticed_and_nothing_is_left(tmp_path: Path) -> None:
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


# -- interpreter, and what is reported


async def test_a_worker_may_have_an_interpreter_of_its_own(
    tmp_path: Path, open_worker: Opener, need_tool: Callable[[str], str]
) -> None:
    need_tool("bwrap")
    other = tmp_path / "other"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(other)], check=True)
    packages = next((other / "lib").glob("python3*/site-packages"))
    (packages / "runtime.pth").write_text(str(Path(np.__file__).parents[1]) + "\n")
    runner = await open_worker(python=str(other / "bin" / "python"), isolation="bubblewrap")
    command = Path(f"/proc/{runner.worker_pid}/cmdline").read_bytes().split(b"\0")
    assert command[0].decode() == str(other / "bin" / "python")
    runner.load(DIGEST, MODEL)
    assert await steps(runner) == await computed_inline(1)


@pytest.mark.parametrize(("python", "why"), [("/no/such/python", "No such file"), ("/bin/true", "say what it is")])
async def test_an_interpreter_that_is_none_is_the_users_mistake(python: str, why: str, open_worker: Opener) -> None:
    with pytest.raises(ConfigError, match=rf"worker.python = '{python}': .*{why}"):
        await open_worker(python=python)


async def test_without_a_runtime_the_board_says_so_and_jobs_fail(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    settings = WorkerSettings(python=str(bare / "bin" / "python"), isolation="rlimits")
    runner = await open_runner(settings, PROFILE, name="sat-01", log=lambda *_: None)
    try:
        with pytest.raises(ConfigError, match="the worker cannot compute: ModuleNotFoundError"):
            await runner.ready()
        lines = {line.name: line for line in runner.capabilities()}
        assert lines["inference"].support is Support.ABSENT
        assert "ModuleNotFoundError" in lines["inference"].detail
    finally:
        await runner.close()


async def test_a_provider_that_is_not_there_is_not_replaced_without_a_word(open_worker: Opener) -> None:
    with pytest.raises(ConfigError, match=r"worker.provider = 'cuda': cuda: "):
        await open_worker(provider="cuda")


@pytest.mark.parametrize("isolation", ["bubblewrap", "rlimits"])
async def test_a_worker_finds_itself_confined(
    isolation: str, open_worker: Opener, need_tool: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if isolation == "bubblewrap":
        need_tool("bwrap")
    monkeypatch.setenv("SECRET_OF_THE_MANAGER", "1")
    runner = await open_worker(isolation=isolation)
    found = runner.confinement
    assert found is not None
    assert (found.interfaces, found.no_new_privileges, found.environment) == ([], True, [])
    assert found.writing == {"bubblewrap": "EROFS", "rlimits": "EFBIG"}[isolation]
    assert os.getpriority(os.PRIO_PROCESS, runner.worker_pid) == os.getpriority(os.PRIO_PROCESS, 0) + program.NICE
    lines = {line.name: line for line in runner.capabilities()}
    proven = {name for name, line in lines.items() if line.support is Support.PROVEN}
    confined = {"network_isolation", "read_only_files", "no_new_privileges"}
    assert proven >= {"worker_isolation", "memory_limit", "inference", *confined}
    assert "hog" in lines["memory_limit"].detail
    assert lines["accelerator"].support is Support.ABSENT or "computed rightly" in lines["accelerator"].detail


async def test_the_isolation_that_is_used_is_in_the_log_with_why_no_better_one(
    open_worker: Opener, logged: Logged
) -> None:
    await open_worker(isolation="auto")
    kind, said = logged[0]
    assert kind == "worker.isolation"
    assert said["way"] in ("systemd", "cgroup2", "bubblewrap", "rlimits")
    assert isinstance(said["refused"], dict)
    assert said["way"] == "systemd" or "systemd" in said["refused"]
