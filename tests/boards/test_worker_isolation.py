"""Memory limits are proven by a hog and never believed, and each way of isolation asks for what it says."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from boards.worker import program
from boards.worker.channel import Confinement, Hello
from boards.worker.interpreter import Interpreter, find_interpreter
from boards.worker.isolation import proof as proving
from boards.worker.isolation.bubblewrap import Bubblewrap
from boards.worker.isolation.cgroup2 import Cgroup2
from boards.worker.isolation.isolator import Isolator, Limits, Setup
from boards.worker.isolation.proof import Choice, Proof, Proofs, choose, isolators, judge, prove
from boards.worker.isolation.rlimits import Rlimits
from boards.worker.isolation.systemd import Systemd
from boards.worker.report import capabilities_of
from flightsw.errors import BoardError
from flightsw.ports import Capability, Support

LIMITS = Limits(memory_bytes=1 << 30, cpu_cores=0.5, tasks_max=64)
FOR_GPU = Limits(memory_bytes=1 << 30, cpu_cores=None, tasks_max=64, needs_gpu=True)


class Sleeping(Rlimits):
    """A way in which nothing ever ends, and that says which process it is."""

    def __init__(self, pid_file: Path) -> None:
        super().__init__()
        self._pid_file = pid_file

    def command(self, argv: Sequence[str], limits: Limits, readable: Sequence[Path]) -> tuple[str, ...]:
        return ("/bin/sh", "-c", f"echo $$ > {self._pid_file}; exec sleep 1000")


class Ignored(Rlimits):
    """A way whose memory limit nobody enforces, as with a kernel that was told to do without the controller."""

    name = "ignored"

    def setup(self, limits: Limits) -> Setup:
        return {}

    def enforces(self, limits: Limits) -> dict[str, str]:
        return {"memory_limit": "MemoryMax of the unit"}


class Broken(Rlimits):
    """A way in which nothing starts."""

    name = "broken"

    def command(self, argv: Sequence[str], limits: Limits, readable: Sequence[Path]) -> tuple[str, ...]:
        return ("/bin/sh", "-c", "echo no permission >&2; exit 1")


class Absent(Rlimits):
    name = "absent"

    def obstacle(self) -> str:
        return "it is not installed"


@pytest.fixture
async def here() -> Interpreter:
    return await find_interpreter("", 1.0)


# -- proofs with real processes


@pytest.mark.parametrize("isolator", [Bubblewrap(), Rlimits()], ids=["bubblewrap", "rlimits"])
async def test_a_hog_is_stopped(isolator: Isolator, here: Interpreter, need_tool: Callable[[str], str]) -> None:
    if isolator.name == "bubblewrap":
        need_tool("bwrap")
    proof = await prove(isolator, LIMITS, here, 1.0)
    assert (proof.is_usable, proof.is_proven) == (True, True)


async def test_a_limit_that_is_ignored_is_found_out(here: Interpreter) -> None:
    proof = await prove(Ignored(), LIMITS, here, 1.0)
    assert (proof.is_usable, proof.is_proven) == (True, False)
    assert proof.detail == "MemoryMax of the unit is ignored: a hog took 96 MiB"


async def test_a_way_in_which_nothing_starts_says_why(here: Interpreter) -> None:
    proof = await prove(Broken(), LIMITS, here, 1.0)
    assert (proof.is_usable, proof.is_proven) == (False, False)
    assert "no permission" in proof.detail


async def test_a_limit_is_proven_once_in_the_life_of_a_program(
    here: Interpreter, monkeypatch: pytest.MonkeyPatch
) -> None:
    hogs: list[tuple[str, float | None]] = []

    async def counted(isolator: Isolator, limits: Limits, *others: object) -> Proof:
        hogs.append((isolator.name, limits.cpu_cores))
        return Proof(True, True, "proven")

    monkeypatch.setattr(proving, "prove", counted)
    proofs, slower = Proofs(), replace(LIMITS, cpu_cores=0.25)
    for limits in (LIMITS, replace(LIMITS, memory_bytes=2 * LIMITS.memory_bytes), slower, slower):
        choice = await choose("auto", (Rlimits(),), limits, here, 1.0, proofs=proofs)
        assert choice.proof.detail == "proven"
    # the hog's own limit is the same for each, but another limit on the processor is another proof
    assert [cores for _, cores in hogs] == [LIMITS.cpu_cores, slower.cpu_cores]


async def test_what_was_not_proven_is_tried_again(here: Interpreter, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [Proof(False, False, "did not end within 60 s"), Proof(True, True, "proven")]

    async def slow_at_first(*_: object) -> Proof:
        return found.pop(0)

    monkeypatch.setattr(proving, "prove", slow_at_first)
    proofs = Proofs()
    assert not (await proofs.of(Rlimits(), LIMITS, here, 1.0)).is_proven
    assert (await proofs.of(Rlimits(), LIMITS, here, 1.0)).is_proven


async def test_a_hog_that_nobody_waits_for_any_more_is_killed(here: Interpreter, tmp_path: Path) -> None:
    started = tmp_path / "pid"
    os.mkfifo(started)
    proof = asyncio.create_task(prove(Sleeping(started), LIMITS, here, 1.0))
    reading = os.open(started, os.O_RDONLY | os.O_NONBLOCK)
    is_there = asyncio.Event()
    asyncio.get_running_loop().add_reader(reading, is_there.set)
    await is_there.wait()
    asyncio.get_running_loop().remove_reader(reading)
    pid = int(os.read(reading, 16))
    while not any("communicate" in repr(task) for task in asyncio.all_tasks()):  # it is waited for
        await asyncio.sleep(0)
    os.close(reading)
    proof.cancel()
    with pytest.raises(asyncio.CancelledError):
        await proof
    assert not Path(f"/proc/{pid}").exists()


async def test_auto_takes_the_best_way_that_is_proven_and_says_why_no_better(here: Interpreter) -> None:
    choice = await choose("auto", (Absent(), Broken(), Ignored(), Rlimits()), LIMITS, here, 1.0)
    assert choice.isolator.name == "rlimits"
    assert choice.refusals["absent"] == "it is not installed"
    assert "no permission" in choice.refusals["broken"]
    assert "is ignored" in choice.refusals["ignored"]
    lines = {line.name: line for line in capabilities_of(choice, LIMITS, None, "")}
    assert lines["memory_limit"].support is Support.PROVEN
    assert lines["inference"].support is Support.ABSENT


async def test_where_nothing_is_proven_the_best_that_runs_is_taken_and_the_limit_reported_absent(
    here: Interpreter,
) -> None:
    choice = await choose("auto", (Broken(), Ignored(), Absent()), LIMITS, here, 1.0)
    assert choice.isolator.name == "ignored"
    memory = next(line for line in capabilities_of(choice, LIMITS, None, "") if line.name == "memory_limit")
    assert memory.support is Support.ABSENT
    assert "a hog took 96 MiB" in memory.detail


def test_what_a_worker_could_do_is_reported_absent() -> None:
    choice = Choice(Rlimits(), Proof(True, True, "stopped"), {"rlimits": Proof(True, True, "stopped")})
    free = Confinement(interfaces=["eth0"], writing="", no_new_privileges=False, environment=[], uid=0)
    hello = Hello(python="3.11", confinement=free, trouble="no network of its own: denied", provider="cpu", runtime="1")
    lines = {line.name: line for line in capabilities_of(choice, LIMITS, hello, "")}
    for name in ("network_isolation", "read_only_files", "no_new_privileges"):
        assert lines[name].support is Support.ABSENT
    assert "eth0" in lines["network_isolation"].detail
    assert "denied" in lines["network_isolation"].detail


def test_an_accelerator_is_one_that_has_computed() -> None:
    choice = Choice(Rlimits(), Proof(True, True, "stopped"), {"rlimits": Proof(True, True, "stopped")})
    held = Confinement(interfaces=[], writing="EROFS", no_new_privileges=True, environment=[], uid=1)

    def accelerator(provider: str, refusals: dict[str, str]) -> Capability:
        hello = Hello(python="3.10", confinement=held, provider=provider, runtime="1", refusals=refusals)
        return capabilities_of(choice, LIMITS, hello, "")[-1]

    assert accelerator("cuda", {"tensorrt": "absent"}).support is Support.PROVEN
    found = accelerator("cpu", {"cuda": "its answer is wrong"})
    assert (found.name, found.support) == ("accelerator", Support.ABSENT)
    assert "its answer is wrong" in found.detail


async def test_all_ways_can_be_tried_without_changing_the_choice(here: Interpreter) -> None:
    ways = (Absent(), Rlimits(), Ignored())
    choice = await choose("auto", ways, LIMITS, here, 1.0, tries_all=True)
    assert choice.isolator.name == "rlimits"
    assert list(choice.tried) == ["absent", "rlimits", "ignored"]
    assert list(choice.refusals) == ["absent"]
    assert list((await choose("auto", ways, LIMITS, here, 1.0)).tried) == ["absent", "rlimits"]


async def test_a_way_that_is_asked_for_is_not_replaced(here: Interpreter) -> None:
    with pytest.raises(BoardError, match=r"worker.isolation = 'broken': broken: .*no permission"):
        await choose("broken", (Broken(), Rlimits()), LIMITS, here, 1.0)


async def test_for_a_gpu_addresses_are_not_limited_and_that_is_said(here: Interpreter) -> None:
    choice = await choose("rlimits", (Rlimits(),), FOR_GPU, here, 1.0)
    memory = next(line for line in capabilities_of(choice, FOR_GPU, None, "") if line.name == "memory_limit")
    assert (memory.support, memory.detail) == (Support.ABSENT, "it does not limit memory here")
    assert not {"AS", "FSIZE"} & set(Rlimits().setup(FOR_GPU)["rlimits"])


@pytest.mark.parametrize(
    ("code", "words", "usable", "proven"),
    [
        (0, "", True, False),
        (program.HOG_EXIT, "", True, True),
        (-signal.SIGKILL, "", True, True),
        (128 + signal.SIGKILL, "", True, True),
        (1, "Finished with result: oom-kill\nMain processes terminated with: code=killed/status=KILL\n", True, True),
        (1, "Finished with result: exit-code\n", False, False),
        (1, "Failed to start transient service unit: Access denied\n", False, False),
    ],
)
def test_the_end_of_a_hog_is_judged(code: int, words: str, usable: bool, proven: bool) -> None:
    proof = judge(code, words, Systemd("sat-01"), LIMITS)
    assert (proof.is_usable, proof.is_proven) == (usable, proven)
    if not usable:
        assert words.strip() in proof.detail


# -- systemd, by its command


def which(name: str) -> str:
    return f"/usr/bin/{name}"


def booted(folder: Path) -> Path:
    (folder / "run/systemd/system").mkdir(parents=True)
    return folder


def test_systemd_is_taken_only_where_it_runs_the_system_and_by_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Systemd("a", tmp_path, which).obstacle() == "systemd does not run this system"
    root = booted(tmp_path)
    assert Systemd("a", root, lambda _: None).obstacle() == "systemd-run is not installed"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert Systemd("a", root, which).obstacle() == ""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "only root" in Systemd("a", root, which).obstacle()


def properties(limits: Limits) -> dict[str, str]:
    command = Systemd("sat 01;x", Path("/"), which).command(["python", "program"], limits, [])
    assert command[-3:] == ("--", "python", "program")
    assert "--unit=flatrack-worker-sat-01-x.service" in command
    assert {"--pipe", "--wait", "--collect"} <= set(command)
    given = [command[index + 1] for index, word in enumerate(command) if word == "-p"]
    return dict(word.split("=", 1) for word in given)


def test_a_unit_is_limited_and_sees_neither_network_nor_devices() -> None:
    found = properties(LIMITS)
    assert (found["MemoryMax"], found["MemorySwapMax"], found["TasksMax"]) == (str(1 << 30), "0", "64")
    assert found["CPUQuota"] == "50%"
    for name in ("NoNewPrivileges", "DynamicUser", "PrivateNetwork", "PrivateDevices", "PrivateTmp"):
        assert found[name] == "yes"
    assert found["ProtectSystem"] == "strict"


def test_a_unit_for_a_gpu_sees_its_devices() -> None:
    found = properties(FOR_GPU)
    assert "PrivateDevices" not in found
    assert "CPUQuota" not in found
    assert "video" in found["SupplementaryGroups"]


def test_systemd_says_why_a_unit_was_ended() -> None:
    words = "Running as unit: flatrack-worker-a.service\nFinished with result: oom-kill\n"
    assert Systemd("a").reason(words) == "oom-kill"
    assert Systemd("a").reason("Finished with result: signal\n") == ""
    assert Systemd("a").reason("") == ""


# -- cgroup v2, on a root of files


GROUP = "system.slice/flatrack.service"


def laid(root: Path, controllers: str = "cpuset cpu io memory pids", own: str = f"0::/{GROUP}") -> Path:
    mount = root / "sys/fs/cgroup"
    base = mount / GROUP
    worker = base / "worker-sat-01"
    (base / "manager").mkdir(parents=True)
    worker.mkdir()
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(f"{own}\n")
    for folder in (mount, base):
        (folder / "cgroup.controllers").write_text(f"{controllers}\n")
    (base / "cgroup.procs").write_text("17\n18\n")
    (worker / "cgroup.procs").write_text("")
    (worker / "memory.events").write_text("low 0\nhigh 0\nmax 4\noom 0\noom_kill 3\n")
    return base


@pytest.fixture
def delegated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getxattr", lambda path, name: b"1")


@pytest.mark.usefixtures("delegated")
def test_a_group_that_was_given_away_is_used(tmp_path: Path) -> None:
    base = laid(tmp_path)
    cgroup = Cgroup2("sat-01", Rlimits(), tmp_path)
    assert cgroup.obstacle() == ""
    cgroup.prepare(LIMITS)
    assert (base / "manager" / "cgroup.procs").read_text() == "18"  # one write for each process, as the kernel wants
    assert (base / "cgroup.subtree_control").read_text() == "+memory +cpu +pids"
    limits = {name: (cgroup.group / name).read_text() for name in ("memory.max", "memory.swap.max", "pids.max")}
    assert limits == {"memory.max": str(1 << 30), "memory.swap.max": "0", "pids.max": "64"}
    assert (cgroup.group / "cpu.max").read_text() == "50000 100000"
    assert (cgroup.group / "memory.oom.group").read_text() == "1"


@pytest.mark.usefixtures("delegated")
def test_an_oom_kill_is_read_from_the_groups_events(tmp_path: Path) -> None:
    laid(tmp_path)
    cgroup = Cgroup2("sat-01", Rlimits(), tmp_path)
    cgroup.prepare(LIMITS)
    assert cgroup.reason("") == ""
    (cgroup.group / "memory.events").write_text("oom 1\noom_kill 4\n")
    assert cgroup.reason("") == "oom-kill"


@pytest.mark.usefixtures("delegated")
def test_a_manager_in_its_own_subgroup_has_the_group_above(tmp_path: Path) -> None:
    base = laid(tmp_path, own=f"0::/{GROUP}/manager")
    assert Cgroup2("sat-01", Rlimits(), tmp_path).group == base / "worker-sat-01"


def test_the_command_enters_the_group_before_anything_else(tmp_path: Path) -> None:
    laid(tmp_path)
    cgroup = Cgroup2("sat-01", Rlimits(), tmp_path)
    command = cgroup.command(["python", "program"], LIMITS, [])
    assert command[:2] == ("/bin/sh", "-c")
    assert command[3:] == (str(cgroup.group / "cgroup.procs"), "python", "program")
    assert "AS" not in cgroup.setup(LIMITS)["rlimits"]
    procs = cgroup.group / "cgroup.procs"
    looks = cgroup.command(["/bin/sh", "-c", 'echo $$; cat "$0"', str(procs)], LIMITS, [])
    assert procs.read_text() == ""
    pid, entered = subprocess.run(looks, capture_output=True, check=True, text=True).stdout.split()
    assert entered == pid


@pytest.mark.parametrize(
    ("controllers", "own", "why"),
    [
        ("cpuset cpu io pids", f"0::/{GROUP}", "expected cgroup_enable=memory"),
        ("cpuset cpu io memory pids", f"0::/{GROUP}", "expected Delegate=yes"),
        ("cpuset cpu io memory pids", "1:name=systemd:/", "no line 0::"),
    ],
)
def test_what_is_missing_for_a_group_is_named(
    controllers: str, own: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getxattr", lambda path, name: b"0")
    laid(tmp_path, controllers, own)
    assert why in Cgroup2("sat-01", Rlimits(), tmp_path).obstacle()


def test_without_cgroup_v2_there_is_no_group(tmp_path: Path) -> None:
    assert Cgroup2("sat-01", Rlimits(), tmp_path).obstacle() == "there is no cgroup v2"


@pytest.mark.usefixtures("delegated")
def test_a_group_that_cannot_be_made_is_a_fault_of_the_board(tmp_path: Path) -> None:
    base = laid(tmp_path)
    shutil.rmtree(base / "worker-sat-01")
    (base / "worker-sat-01").write_text("a file")
    with pytest.raises(BoardError, match="control group"):
        Cgroup2("sat-01", Rlimits(), tmp_path).prepare(LIMITS)


# -- bubblewrap and rlimits, by what they ask for


def test_bubblewrap_sees_what_it_needs_and_no_more() -> None:
    command = " ".join(Bubblewrap().command(["python", "program"], LIMITS, [Path("/opt/lib")]))
    assert command.startswith("bwrap --unshare-all --die-with-parent --new-session --clearenv --cap-drop ALL")
    assert "--ro-bind /opt/lib /opt/lib" in command
    assert "--dev /dev " in command
    assert command.endswith("--remount-ro / --chdir / -- python program")
    assert "--dev-bind /dev /dev" in " ".join(Bubblewrap().command(["python"], FOR_GPU, []))


def test_bubblewrap_that_is_missing_is_named_and_groups_do_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Bubblewrap(lambda _: None).obstacle() == "bwrap is not installed"
    laid(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))

    def in_group() -> tuple[str, ...]:
        group = next(way for way in isolators("sat-01", tmp_path) if way.name == "cgroup2")
        return group.command(["python", "program"], LIMITS, [])

    assert in_group()[4:] == ("python", "program")
    (tmp_path / "bwrap").touch(mode=0o755)
    assert in_group()[4] == "bwrap"


def test_the_limit_of_tasks_is_claimed_only_where_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "tasks_limit" not in Rlimits().enforces(LIMITS)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "tasks_limit" in Rlimits().enforces(LIMITS)
    assert Rlimits().setup(LIMITS)["rlimits"]["NPROC"] == 64


def test_the_ways_are_in_the_order_of_what_they_are_worth() -> None:
    assert [way.name for way in isolators("a")] == ["systemd", "cgroup2", "bubblewrap", "rlimits"]


async def test_the_managers_own_interpreter_brings_its_packages(here: Interpreter) -> None:
    assert here.path == sys.executable
    assert here.command[1:] == ("-I", "-B")
    assert Path(program.__file__).parent in here.readable
    assert not here.is_for_gpu or (Path(here.search[0]) / "onnxruntime").exists()
