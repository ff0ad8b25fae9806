"""Deployment over a real ssh server on this machine: the node speaks and is kept, or what was there runs again."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time  # noqa: TID251 - a board is of the real world
import zipfile
from pathlib import Path

import msgspec
import pytest

from boards.settings import BoardSettings, NodeSettings
from flightsw.config import InterfaceConfig, NodeConfig
from flightsw.errors import BoardError, BoardNotFound, ConfigError, FlatrackError
from flightsw.host.settings import ClockSettings, LinkSettings, StorageSettings
from flightsw.net.contacts import Contact, ContactPlan
from flightsw.net.plans import encode_plan
from hil.bench.settings_files import write_settings
from hil.inventory.boards import Board, Inventory, Uart
from hil.inventory.deployment import Deployment, Options
from hil.inventory.remote import Remote

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0
"""Longest wait for what a healthy board does within seconds [s of the machine]."""
NODE = 11
NAME = "sat-01"

SYSTEMCTL = """\
#!{python}
# stands in for systemd: it really starts and stops what the unit says
import os, shlex, signal, socket, subprocess, sys, time
from pathlib import Path
prefix = Path(os.environ["FLATRACK_PREFIX"])
unit, pid_file, journal = prefix / "etc/systemd/system/flatrack.service", prefix / "service.pid", prefix / "journal"
with (prefix / "calls").open("a") as calls:
    calls.write(" ".join(sys.argv[1:]) + "\\n")
verb = sys.argv[1]
def alive():
    try:
        pid = int(pid_file.read_text())
        return pid if Path(f"/proc/{{pid}}/stat").read_text().split()[2] != "Z" else 0
    except (OSError, ValueError):
        return 0
def stop():
    if pid := alive():
        os.killpg(pid, signal.SIGTERM)
        while alive():
            time.sleep(0.01)
def value(name):
    text = unit.read_text().replace("\\\\\\n", " ")
    return [line.partition("=")[2] for line in text.splitlines() if line.startswith(name + "=")]
if verb == "is-active":
    print("active" if alive() else "inactive")
    sys.exit(0 if alive() else 3)
if verb == "show":
    print((prefix / "status").read_text())
if verb == "stop" or (verb == "disable" and "--now" in sys.argv):
    stop()
if verb == "restart":
    stop()
    if not unit.exists():
        sys.exit("no such unit")
    with journal.open("ab") as out:
        for command in value("ExecStartPre"):
            subprocess.run(shlex.split(command.lstrip("-+")), stdout=out, stderr=out)
        (folder := Path(value("WorkingDirectory")[0])).mkdir(parents=True, exist_ok=True)
        words = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        words.bind(path := "\\0" + str(prefix) + "/" + str(os.getpid()))
        (prefix / "status").write_text("")
        program = subprocess.Popen(shlex.split(value("ExecStart")[0]), stdin=subprocess.DEVNULL, stdout=out,
                                   stderr=out, cwd=folder, start_new_session=True,
                                   env=os.environ | {{"NOTIFY_SOCKET": "@" + path[1:]}})
        subprocess.Popen([sys.executable, "-S", "-c", {manager!r}, str(words.fileno()), str(prefix / "status")],
                         stdin=subprocess.DEVNULL, stdout=out, stderr=out, pass_fds=[words.fileno()],
                         start_new_session=True)
    pid_file.write_text(str(program.pid))
"""
MANAGER = """\
import os, socket, sys
words = socket.socket(fileno=int(sys.argv[1]))
while True:
    name, _, value = words.recv(4096).decode().partition("=")
    if name == "STATUS":
        with open(sys.argv[2] + "~", "w") as file:
            file.write(value)
        os.replace(sys.argv[2] + "~", sys.argv[2])
"""
"""What the service says of itself goes into a file. Ends with the laboratory."""
JOURNALCTL = '#!/bin/sh\ntail -n 15 "$FLATRACK_PREFIX/journal"\n'


CABLE = """\
import os, select, sys, tty
ends = {}
for path in sys.argv[1:]:
    master, slave = os.openpty()
    tty.setraw(slave)
    os.symlink(os.ttyname(slave), path)
    ends[master] = slave
one, other = ends
while True:
    for end in select.select([one, other], [], [])[0]:
        os.write(other if end == one else one, os.read(end, 4096))
"""
"""Joins two serial devices; a line that nobody reads loses nothing here, as it is read all the time."""

BROKEN = "raise RuntimeError('a broken version')\n"


@pytest.fixture(scope="session")
def wheelhouses(tmp_path_factory):
    """Gives a folder with a wheel of what a board runs, of a version that works or not, and a wheel that leads to what
    it depends on."""
    made = {}

    def give(version="0.1.0", defect=""):
        if version not in made:
            folder = made[version] = tmp_path_factory.mktemp("wheelhouse")
            with zipfile.ZipFile(folder / f"flatrack-{version}-py3-none-any.whl", "w") as wheel:
                for path in sorted(path for name in ("flightsw", "boards") for path in (ROOT / name).rglob("*")):
                    if path.is_file() and "__pycache__" not in path.parts:
                        text = path.read_bytes()
                        is_main = path == ROOT / "boards/__main__.py"
                        wheel.writestr(str(path.relative_to(ROOT)), defect.encode() + text if is_main else text)
                wheel.writestr(f"flatrack-{version}.dist-info/METADATA", f"Name: flatrack\nVersion: {version}\n")
                wheel.writestr(f"flatrack-{version}.dist-info/WHEEL", "Wheel-Version: 1.0\n")
            with zipfile.ZipFile(folder / "lab_dependencies-1.0-py3-none-any.whl", "w") as wheel:
                wheel.writestr("lab_dependencies.pth", sysconfig.get_path("purelib") + "\n")
                wheel.writestr("lab_dependencies-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\n")
        return made[version]

    return give


class Lab:
    """This machine as a board: an ssh server, a service manager, and a cable to its UART."""

    def __init__(self, folder, sshd):
        self.folder = folder
        self.sshd = sshd
        self.prefix = folder / "board"
        self.said = []
        self.server = None
        self.cable = None
        for name in ("bin", "board", NAME):
            (folder / name).mkdir()
        (folder / "bin/systemctl").write_text(SYSTEMCTL.format(python=sys.executable, manager=MANAGER))
        (folder / "bin/journalctl").write_text(JOURNALCTL)
        for tool in (folder / "bin").iterdir():
            tool.chmod(0o755)
        for key in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
        (folder / "authorized").write_text((folder / "user.pub").read_text())
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        path = f"{folder}/bin:{os.environ['PATH']}"
        config = {
            "Port": self.port,
            "ListenAddress": "127.0.0.1",
            "HostKey": folder / "host",
            "AuthorizedKeysFile": folder / "authorized",
            "StrictModes": "no",
            "PidFile": "none",
            "PermitRootLogin": "yes",
            "SetEnv": f'FLATRACK_PREFIX={self.prefix} PATH="{path}"',
        }
        (folder / "sshd_config").write_text("".join(f"{name} {value}\n" for name, value in config.items()))
        self.near, self.far = folder / "node-uart", folder / "our-uart"
        self.settings()

    def settings(self, **changed):
        """Write the node's settings."""
        folder = self.folder / NAME
        both = ((1, NODE), (NODE, 1))
        plan = ContactPlan(Contact(0, 10**18, a, 0, b, 0, 1e6, 10**6) for a, b in both)
        (folder / "plan.json").write_bytes(encode_plan(plan))
        world = {"sun": [[0, 10**18]], "sunlight": [1.0], "step_s": 1000.0}
        (folder / "world.json").write_bytes(msgspec.json.encode(world))
        settings = NodeSettings(
            node=NodeConfig(
                node=NODE,
                name=NAME,
                interfaces=(InterfaceConfig(index=0, name="radio"),),
                beacon_period_s=1.0,
                tick_period_s=1.0,
            ),
            board=BoardSettings(kind="simulated", profile="raspberry-pi-5", world="world.json"),
            clock=ClockSettings(zero_utc_ns=1_767_225_600 * 10**9, epoch_utc_ns=1_767_225_600 * 10**9),
            link=LinkSettings(url=f"serial://{self.near}"),
            storage=StorageSettings(folder="disk", capacity_bytes=1 << 24),
            plan="plan.json",
        )
        write_settings(folder / "node.toml", msgspec.structs.replace(settings, **changed))

    def start(self):
        """Switch the ssh server and the cable on."""
        Path("/run/sshd").mkdir(exist_ok=True)
        command = [self.sshd, "-D", "-e", "-f", str(self.folder / "sshd_config")]
        with (self.folder / "sshd.log").open("ab") as log:
            self.server = subprocess.Popen(command, stderr=log)
        if self.cable is None:
            self.cable = subprocess.Popen([sys.executable, "-S", "-c", CABLE, str(self.near), str(self.far)])
        until(lambda: self.far.exists() and self.near.exists() and self.listens())

    def listens(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def cut(self, *, with_programs=False):
        """The network goes; `with_programs`: so do the programs that were started by it, as in a loss of power."""
        children = descendants(self.server.pid)
        if not with_programs:
            children = [pid for pid in children if "sshd" in command_of(pid)]
        for pid in (self.server.pid, *children):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.server.wait()
        self.server = None

    def stop(self):
        if self.server is not None:
            self.cut(with_programs=True)
        if self.cable is not None:
            self.cable.terminate()
            self.cable.wait()
        for process in Path("/proc").glob("[0-9]*"):  # service and guards: they outlive what started them
            with contextlib.suppress(OSError):
                if str(self.prefix).encode() in (process / "cmdline").read_bytes():
                    os.kill(int(process.name), signal.SIGKILL)

    def inventory(self, **changed):
        options = (
            f"Port={self.port}",
            f"IdentityFile={self.folder}/user",
            "IdentitiesOnly=yes",
            f"UserKnownHostsFile={self.folder}/known",
            "StrictHostKeyChecking=accept-new",
            "BatchMode=yes",
        )
        fields = {"uart": Uart(path=str(self.far)), "python": "/usr/bin/python3", "ssh_options": options} | changed
        fields["ssh"] = fields.get("ssh", "127.0.0.1")
        return Inventory(self.folder / "boards.toml", {NAME: Board(kind="host", **fields)})

    async def deploy(self, wheelhouse, *, wait_s=30.0, confirm_s=30.0, say=None, board=None, **options):
        """Deploy; whether anything was changed."""

        def note(line):
            self.said.append(line)
            if say is not None:
                say(line)

        asked = Options(wheelhouse=wheelhouse, wait_s=wait_s, confirm_s=confirm_s, **options)
        return await Deployment(self.inventory(**(board or {})), NAME, asked, note).run()

    def has_said(self, words):
        """Waits, when a release is on trial, until its launcher has said this."""

        def wait(line):
            if line.startswith("on trial"):
                until(lambda: (self.prefix / "status").read_text().endswith(words))

        return wait

    # -- what is on the board

    def home(self, *names):
        return self.prefix.joinpath("opt/flatrack", *names)

    def current(self):
        return self.home("current").readlink().name

    def version(self):
        return json.loads(self.home("current", "release.json").read_text())["version"]

    def calls(self):
        return (self.prefix / "calls").read_text().split("\n")

    def is_running(self):
        try:
            pid = int((self.prefix / "service.pid").read_text())
            return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
        except (OSError, ValueError):
            return False

    def runs_from(self):
        """The interpreter that the service runs on."""
        pid = int((self.prefix / "service.pid").read_text())
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()

    def files(self):
        """Every file of the deployment, with when it was written."""
        paths = [path for path in self.home().rglob("*") if path.is_file() or path.is_symlink()]
        return {path: path.lstat().st_mtime_ns for path in paths}


def until(is_so):
    until_s = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < until_s
        time.sleep(0.02)


def command_of(pid):
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""


def descendants(pid):
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [one for child in children for one in (int(child), *descendants(child))]


@pytest.fixture
def lab(tmp_path, need_tool, monkeypatch):
    sshd = need_tool("sshd")
    need_tool("ssh")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = Lab(tmp_path, sshd)
    try:
        made.start()
        yield made
    finally:
        made.stop()


async def test_a_node_that_speaks_is_kept_and_a_second_run_changes_nothing(lab, wheelhouses):
    assert await lab.deploy(wheelhouses())
    assert any("heard: boot 1" in line for line in lab.said)
    assert lab.version() == "0.1.0"
    assert lab.runs_from() == str(lab.home("current/environment/bin/python"))
    assert not lab.home("trial.json").exists()
    before, calls = lab.files(), len(lab.calls())

    lab.said.clear()
    assert not await lab.deploy(wheelhouses())
    assert lab.said[-1].endswith("runs already: nothing is changed")
    assert lab.files() == before
    assert set(lab.calls()[calls - 1 : -1]) == {"is-active flatrack.service"}

    # a file that was lost on the board is made anew
    lost = next(lab.home("environments").glob("*/lib/*/site-packages/boards/slots.py"))
    lost.unlink()
    assert await lab.deploy(wheelhouses())
    assert lost.exists()

    # other settings: another release, the same environment, and no wheel is sent
    lab.said.clear()
    first = lab.current()
    lab.settings(storage=StorageSettings(folder="disk", capacity_bytes=1 << 25))
    assert await lab.deploy(wheelhouses(), is_bench=True)
    assert lab.current() != first
    assert not any("to send" in line for line in lab.said)
    assert "allows_faults = true" in (lab.prefix / "etc/flatrack/bench.toml").read_text()
    assert sorted(path.name for path in lab.home("releases").iterdir()) == sorted([first, lab.current()])
    assert len(list(lab.home("environments").iterdir())) == 1

    async with Remote(NAME, lab.inventory().board(NAME)) as remote:
        assert (await remote.ask("remove", {"with_data": True}))["left"] == []
    assert not lab.is_running()
    left = [path for path in lab.prefix.rglob("*") if path.is_file() or path.is_symlink()]
    assert {path.name for path in left} == {"status", "calls", "journal", "service.pid", "flatrack-deploy.lock"}


@pytest.mark.slow
async def test_a_version_that_does_not_speak_is_left_and_the_one_before_runs_again(lab, wheelhouses):
    await lab.deploy(wheelhouses())
    good = lab.current()
    said = r"no beacon within 6 s.*the line is silent; release .* runs again"
    with pytest.raises(BoardError, match=said) as raised:
        await lab.deploy(wheelhouses("0.2.1", BROKEN), wait_s=6.0)
    assert "RuntimeError: a broken version" in str(raised.value), "the board's last lines say why"
    assert lab.current() == good
    assert not lab.home("trial.json").exists()
    until(lab.is_running)
    assert not await lab.deploy(wheelhouses()), "and so there is nothing to do"


@pytest.mark.slow
async def test_settings_that_silence_a_node_are_left_with_their_release(lab, wheelhouses):
    await lab.deploy(wheelhouses())
    good, unit = lab.current(), lab.prefix / "etc/systemd/system/flatrack.service"
    kept = (lab.prefix / "etc/flatrack/node.toml").read_text()
    lab.settings(link=LinkSettings(url="serial:///dev/null"))
    with pytest.raises(BoardError, match="runs again"):
        await lab.deploy(wheelhouses(), wait_s=3.0)
    assert lab.current() == good
    assert (lab.prefix / "etc/flatrack/node.toml").read_text() == kept
    assert unit.exists()


@pytest.mark.slow
async def test_a_first_release_that_does_not_speak_leaves_no_service(lab, wheelhouses):
    lab.settings(link=LinkSettings(url="serial:///dev/null"))
    with pytest.raises(BoardError, match="no release runs: there was none before"):
        await lab.deploy(wheelhouses(), wait_s=3.0)
    assert not lab.is_running()
    assert not lab.home("current").is_symlink()
    assert not (lab.prefix / "etc/systemd/system/flatrack.service").exists()


@pytest.mark.slow
async def test_a_cut_while_wheels_are_sent_leaves_the_old_release_and_the_next_run_completes(
    lab, wheelhouses, tmp_path
):
    await lab.deploy(wheelhouses())
    good = lab.current()
    larger = tmp_path / "larger"
    larger.mkdir()
    for wheel in wheelhouses().glob("*.whl"):
        (larger / wheel.name).write_bytes(wheel.read_bytes())
    with zipfile.ZipFile(larger / "ballast-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("ballast.txt", bytes(100 << 20))
        wheel.writestr("ballast-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\n")

    async def cut_in_the_middle():
        while not any(path.stat().st_size for path in lab.home("wheels").glob("*.part")):
            await asyncio.sleep(0.001)
        lab.cut(with_programs=True)

    cutting = asyncio.create_task(cut_in_the_middle())
    with pytest.raises(FlatrackError, match=r"connection|reset|closed|ended"):
        await lab.deploy(larger)
    await cutting
    assert (lab.current(), lab.is_running()) == (good, True)
    lab.start()
    assert await lab.deploy(larger)
    assert lab.current() != good


@pytest.mark.slow
async def test_a_cut_while_the_release_is_made_leaves_the_old_one_and_the_next_run_completes(lab, wheelhouses):
    await lab.deploy(wheelhouses())
    good = lab.current()

    async def cut_in_the_middle():
        while not list(lab.home("environments").glob("*.new")):
            await asyncio.sleep(0.001)
        lab.cut(with_programs=True)

    cutting = asyncio.create_task(cut_in_the_middle())
    with pytest.raises(FlatrackError, match=r"connection|reset|closed"):
        await lab.deploy(wheelhouses("0.2.0"))
    await cutting
    assert (lab.current(), lab.is_running()) == (good, True)
    assert list(lab.home("environments").glob("*.new")), "it was cut in the middle"
    lab.start()
    assert await lab.deploy(wheelhouses("0.2.0"))
    assert lab.version() == "0.2.0"


@pytest.mark.slow
async def test_a_release_that_nobody_confirms_is_left_by_the_board_itself(lab, wheelhouses):
    await lab.deploy(wheelhouses())
    good = lab.current()
    lab.settings(storage=StorageSettings(folder="disk", capacity_bytes=1 << 25))

    def cut_on_trial(line):
        if line.startswith("on trial"):
            lab.cut()

    with pytest.raises((BoardError, FlatrackError), match=r"ssh|connection"):
        await lab.deploy(wheelhouses(), wait_s=8.0, confirm_s=1.0, say=cut_on_trial)
    until(lambda: not lab.home("trial.json").exists())
    assert lab.current() == good
    until(lab.is_running)
    lab.start()
    assert await lab.deploy(wheelhouses())
    assert lab.current() != good


@pytest.mark.slow
async def test_a_release_on_trial_that_is_found_is_left_first(lab, wheelhouses):
    await lab.deploy(wheelhouses())
    good = lab.current()
    lab.settings(storage=StorageSettings(folder="disk", capacity_bytes=1 << 25))

    def cut_on_trial(line):
        if line.startswith("on trial"):
            lab.cut()

    with pytest.raises(FlatrackError):
        await lab.deploy(wheelhouses(), wait_s=5.0, confirm_s=300.0, say=cut_on_trial)
    assert lab.current() != good
    lab.start()
    lab.said.clear()
    assert await lab.deploy(wheelhouses())
    assert "back to the one before" in lab.said[1]
    assert not lab.home("trial.json").exists()


async def test_without_a_cable_a_service_that_runs_is_enough_when_it_is_said(lab, wheelhouses, monkeypatch):
    monkeypatch.setattr("hil.inventory.deployment.SERVICE_S", 0.0)
    with pytest.raises(ConfigError, match="has no uart to listen on"):
        await lab.deploy(wheelhouses(), board={"uart": None})
    assert not lab.home("current").exists(), "and nothing was changed"
    assert await lab.deploy(
        wheelhouses(), board={"uart": None}, is_without_link=True, say=lab.has_said("ended 0 times")
    )
    assert any("nobody has listened" in line for line in lab.said)


@pytest.mark.slow
async def test_without_a_cable_a_node_that_ends_again_and_again_is_left(lab, wheelhouses, monkeypatch):
    monkeypatch.setattr("hil.inventory.deployment.SERVICE_S", 0.0)
    broken = wheelhouses("0.2.1", BROKEN)
    with pytest.raises(BoardError, match=r"ended \d+ times', expected \.\.\. ended 0 times; no release runs"):
        await lab.deploy(broken, board={"uart": None}, is_without_link=True, say=lab.has_said("ended 2 times"))
    assert not lab.home("current").exists()


async def test_a_key_that_the_board_does_not_know_is_said(lab, wheelhouses):
    (lab.folder / "authorized").write_text("")
    with pytest.raises(BoardNotFound, match="Permission denied"):
        await lab.deploy(wheelhouses())


async def test_a_board_without_a_python_that_fits_is_told_how_to_get_one(lab, wheelhouses):
    with pytest.raises(ConfigError, match=r"Python none, expected 3\.11 or newer with venv; .*uv python install"):
        await lab.deploy(wheelhouses(), board={"python": "/nowhere/python3"})


async def test_a_full_disk_is_said_before_anything_is_changed(lab, wheelhouses):
    home = lab.home()
    home.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", home], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("a file system can only be mounted by root")
    try:
        with pytest.raises(BoardError, match=r"disk full: \d+ MiB free"):
            await lab.deploy(wheelhouses())
        assert list(home.rglob("*.whl")) == []
    finally:
        subprocess.run(["umount", home], check=True)


async def test_a_place_that_cannot_be_written_is_said(lab, wheelhouses):
    lab.home().parent.mkdir(parents=True)
    lab.home().write_text("a file where a folder has to be")
    with pytest.raises(BoardError, match=r"opt/flatrack.*(Not a directory|File exists)"):
        await lab.deploy(wheelhouses())


async def test_a_wheel_for_another_machine_is_refused(lab, wheelhouses, tmp_path):
    for wheel in wheelhouses().glob("*.whl"):
        (tmp_path / wheel.name).write_bytes(wheel.read_bytes())
    (tmp_path / "numpy-2.4.0-cp311-cp311-manylinux_2_28_s390x.whl").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"is for cp311 on manylinux_2_28_s390x, expected one for"):
        await lab.deploy(tmp_path)
