import asyncio
import json
import os
import signal
import subprocess
import sys
import time  # noqa: TID251 - only to give up waiting for other processes
from pathlib import Path

import pytest

from flightsw.errors import ConfigError
from hil.bench import processes
from hil.bench.processes import Program, ProgramDied

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "three.toml"
PATIENCE_S = 120.0
"""How long a test waits for an event; nothing is asserted about it."""


async def ended(codes):
    async with asyncio.timeout(PATIENCE_S):
        while not codes:
            await asyncio.sleep(0.01)
    return codes[-1]


def gone(pid):
    """Whether a process has ended; one that nobody has waited for yet has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_for(condition, what):
    deadline_s = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < deadline_s, f"waited in vain for {what}"
        time.sleep(0.05)
    return found


# -- one program


@pytest.fixture
async def program(tmp_path):
    """Makes a program of Python text; `.codes` are the codes that its ends told."""
    made = []

    def make(text):
        codes = []
        one = Program("sat-99", ("-c", text), tmp_path, codes.append)
        one.codes = codes
        made.append(one)
        return one

    yield make
    for one in made:
        one.abandon()


async def test_the_end_of_a_program_is_told_with_its_code(program):
    one = program("import sys; sys.exit(3)")
    one.start()
    assert await ended(one.codes) == 3
    assert one.pid is None


async def test_a_kill_is_told_as_the_signal(program):
    one = program("import time; time.sleep(1000)")
    one.start()
    one.kill()
    assert await ended(one.codes) == -signal.SIGKILL


async def test_a_program_that_died_is_reported_with_the_end_of_its_standard_error(program):
    one = program("raise AssertionError('planted')")
    one.start()
    report = one.death(await ended(one.codes))
    assert isinstance(report, ProgramDied)
    assert str(report).startswith("sat-99 ended with exit code 1")
    assert str(report).endswith("AssertionError: planted")


async def test_a_program_can_be_started_again_after_its_end(program):
    one = program("import sys; sys.exit(int(sys.argv[1]))")
    one.start("0")
    await ended(one.codes)
    one.codes.clear()
    one.start("4")
    assert await ended(one.codes) == 4
    assert one.starts_count == 2


async def test_a_program_that_will_not_end_is_killed(program, monkeypatch):
    monkeypatch.setattr(processes, "STOP_S_MAX", 0.2)
    one = program(
        "import signal, time; signal.signal(15, lambda *_: None); print('deaf', flush=True); time.sleep(1000)"
    )
    one.start()
    async with asyncio.timeout(PATIENCE_S):
        while "deaf" not in (one.folder / processes.STDOUT_FILE).read_text():
            await asyncio.sleep(0.01)
    await one.stop()
    assert one.codes == [-signal.SIGKILL]


async def test_a_program_is_in_a_session_of_its_own_so_that_an_interrupt_does_not_reach_it(program):
    one = program("import time; time.sleep(1000)")
    one.start()
    assert os.getsid(one.pid) == one.pid != os.getsid(0)


async def test_a_folder_that_is_not_there_is_a_clear_error(tmp_path):
    one = Program("sat-99", ("-c", "pass"), tmp_path / "absent", lambda _: None)
    with pytest.raises(ConfigError, match=r"sat-99: cannot be started in .*absent"):
        one.start()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_program_outlives_a_killed_parent(tmp_path, number):
    text = f"""
import asyncio, pathlib
from hil.bench.processes import Program

async def main():
    one = Program("sat-99", ("-c", "import time; time.sleep(1000)"), pathlib.Path({str(tmp_path)!r}), print)
    one.start()
    print(one.pid, flush=True)
    await asyncio.sleep(1000)

asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, cwd=ROOT) as parent:
        child_pid = int(parent.stdout.readline())
        assert not gone(child_pid)
        parent.send_signal(number)
        parent.wait(PATIENCE_S)
    wait_for(lambda: gone(child_pid), "the end of the child")


# -- a bench with programs


class BenchProcess:
    """`flatrack run` of the example with three programs and the ground, in a process group of its own."""

    def __init__(self, folder):
        self.out = folder
        command = [sys.executable, "-m", "hil.cli", "run", str(EXAMPLE), "--kind", "process", "--time-scale", "10"]
        self.process = subprocess.Popen(
            [*command, "--seed", "3", "--out", str(folder)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    @property
    def folder(self):
        return self.out / "three-3"

    def programs(self):
        """Process -> what it was started with, of the programs that run now."""
        found = {}
        for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            if "--bench" in command:
                found[int(pid)] = Path(f"/proc/{pid}/cwd").readlink().name
        return found

    def wait_running(self):
        """Wait until the run is past T+0: each program has kept its board since."""
        wait_for(lambda: self.process.poll() is not None or len(self.programs()) == 4, "four programs")
        wait_for(lambda: self.process.poll() is not None or len(self.booted()) == 3, "three boots")
        assert self.process.poll() is None, self.process.stdout.read()
        return self.programs()

    def booted(self):
        boards = [json.loads(file.read_bytes())["board"] for file in self.folder.glob("nodes/sat-*/board.json")]
        return [board for board in boards if board["at_ns"] > 0]

    def end(self):
        text, _ = self.process.communicate(timeout=PATIENCE_S)
        return text


@pytest.fixture
def running(tmp_path):
    bench = BenchProcess(tmp_path)
    try:
        yield bench
    finally:
        if bench.process.poll() is None:
            os.killpg(bench.process.pid, signal.SIGKILL)
        bench.process.wait()
        bench.process.stdout.close()


def test_an_interrupt_at_the_terminal_is_judged_before_the_programs_end(running):
    pids = running.wait_running()
    os.killpg(running.process.pid, signal.SIGINT)  # as Ctrl-C does, to the whole foreground group
    text = running.end()
    assert running.process.returncode == 130, text
    assert "interrupted: the partial run is kept" in text
    assert "node.crashed" not in (running.folder / "trace.jsonl").read_text()
    assert [pid for pid in pids if not gone(pid)] == []


@pytest.mark.slow
def test_a_bench_that_is_told_to_end_leaves_its_verdict_and_no_program(running):
    pids = running.wait_running()
    running.process.terminate()
    text = running.end()
    assert running.process.returncode == 130, text
    assert (running.folder / "summary.json").exists()
    assert [pid for pid in pids if not gone(pid)] == []


@pytest.mark.slow
def test_no_program_outlives_a_killed_bench(running):
    pids = running.wait_running()
    running.process.kill()
    running.process.wait()
    for pid in pids:
        wait_for(lambda pid=pid: gone(pid), f"the end of process {pid}")


@pytest.mark.slow
def test_a_program_that_dies_ends_the_run_with_a_verdict_that_names_it(running):
    pids = running.wait_running()
    victim = next(pid for pid, name in pids.items() if name == "sat-02")
    os.kill(victim, signal.SIGKILL)
    text = running.end()
    assert running.process.returncode == 1, text
    assert "FAIL" in text
    assert "sat-02 killed by SIGKILL" in (running.folder / "crash.txt").read_text()
    assert '"sat-02","node.crashed"' in (running.folder / "trace.jsonl").read_text()
    assert [pid for pid in pids if not gone(pid)] == []


@pytest.mark.slow
def test_keys_of_programs_are_for_their_owner_alone(running):
    running.wait_running()
    files = sorted(running.folder.glob("nodes/*/keys.toml"))
    assert [file.parent.name for file in files] == ["ground", "sat-01", "sat-02", "sat-03"]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
