"""This machine as a board: an ssh server, a stand-in for systemd, a cable to its UART, and wheels for it."""

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
from flightsw.host.settings import ClockSettings, LinkSettings, StorageSettings
from flightsw.net.contacts import Contact, ContactPlan
from flightsw.net.plans import encode_plan
from hil.bench.settings_files import write_settings
from hil.inventory.boards import Board, Inventory, Uart
from hil.inventory.deployment import Deployment, Options

ROOT = Path(__file__).parents[3]
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


@pytest.fixture(scope="session", name="until")
def _until():
    return until
