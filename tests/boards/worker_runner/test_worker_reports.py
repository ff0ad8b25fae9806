"""A worker's interpreter and confinement, and what is told of them."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

from boards import profiles
from boards.worker import program
from boards.worker.runner import WorkerRunner, open_runner
from boards.worker.settings import WorkerSettings
from flightsw.errors import ConfigError
from flightsw.objects.digest import digest_of
from flightsw.ports import Support

pytest.importorskip("onnxruntime")

ROOT = Path(__file__).parents[3]
MODEL = (ROOT / "hil" / "assets" / "cloud-mask.onnx").read_bytes()
DIGEST = digest_of(MODEL)
PROFILE = profiles.load("raspberry-pi-4")

Logged = list[tuple[str, dict[str, object]]]
Opener = Callable[..., "asyncio.Future[WorkerRunner]"]


async def test_a_worker_may_have_an_interpreter_of_its_own(
    steps: Callable[..., Awaitable[bytes]],
    computed_inline: Callable[[int], Awaitable[bytes]],
    tmp_path: Path,
    open_worker: Opener,
    need_tool: Callable[[str], str],
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
