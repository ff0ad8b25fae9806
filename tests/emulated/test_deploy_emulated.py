"""Deployment to an emulated board: its own sshd and systemd, its own UART; then a slot in flight that crashes."""

import asyncio
import json
import marshal
import socket
import subprocess
import sys
import time  # noqa: TID251 - a board is of the real world
import zipfile
from importlib.util import MAGIC_NUMBER, cache_from_source, source_hash
from pathlib import Path

import msgspec
import pytest

from boards.settings import BoardSettings, NodeSettings
from flightsw.config import InterfaceConfig, NodeConfig
from flightsw.errors import BoardError
from flightsw.host.settings import ClockSettings, LinkSettings, StorageSettings
from flightsw.link.urls import open_link
from flightsw.net.contacts import Contact, ContactPlan
from flightsw.net.plans import encode_plan
from flightsw.ports import ResetCause
from flightsw.wire.messages import Beacon, Event
from hil.bench.settings_files import write_settings
from hil.inventory.boards import Board, Inventory, Uart
from hil.inventory.deployment import Deployment, Options
from hil.inventory.listening import Ear
from hil.inventory.remote import Remote
from hil.on_board.remote import AgentPeer

pytestmark = pytest.mark.emulated

ROOT = Path(__file__).parents[2]
NAME, NODE = "sat-01", 11
PYTHON = (3, 11)
"""Of the image."""
WAIT_S = 180.0
"""Longest wait for what an emulated board does within twenty seconds [s of the machine]: others may use it too."""
FACTORY = "/opt/flatrack/factory/lib/python3.11/site-packages"
"""Where the image has what our wheel depends on: sent once more it would cost a minute of emulation."""
RADIO = (InterfaceConfig(index=0, name="radio"),)

BRIDGE = """\
import os, select, socket, sys, tty
line = socket.socket(socket.AF_UNIX)
line.connect(sys.argv[1])
master, slave = os.openpty()
tty.setraw(slave)
os.symlink(os.ttyname(slave), sys.argv[2])
while True:
    for end in select.select([line, master], [], [])[0]:
        if end is line:
            data = line.recv(4096)
            if not data:
                sys.exit()
            os.write(master, data)
        else:
            line.sendall(os.read(master, 4096))
"""
"""Makes a serial device of the emulator's socket, as an adapter would."""

STAGE = """\
import hashlib, pathlib, sys
from boards.slots import open_slots
slots, disk = open_slots(pathlib.Path(sys.argv[1]), "F")
wheel = pathlib.Path(sys.argv[2]).read_bytes()
digest = hashlib.sha256(wheel).digest()
slots.install(wheel, "0.2.0", digest)
slots.request_trial(digest, 1)
disk.close()
"""


def compiled(text, path):
    """What the board would make of a file, which takes it a second or two. Source: PEP 552, unchecked hashes."""
    code = marshal.dumps(compile(text, str(path.relative_to(ROOT)), "exec"))
    return MAGIC_NUMBER + (1).to_bytes(4, "little") + source_hash(text) + code


def wheelhouse(folder, version, broken=""):
    """A wheel of what a board runs, and one that leads to what it depends on."""
    folder.mkdir()
    with zipfile.ZipFile(folder / f"flatrack-{version}-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
        for path in sorted(path for name in ("flightsw", "boards") for path in (ROOT / name).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                is_main = path == ROOT / "boards/__main__.py"
                text = (broken.encode() if is_main else b"") + path.read_bytes()
                wheel.writestr(str(path.relative_to(ROOT)), text)
                if path.suffix == ".py" and sys.version_info[:2] == PYTHON:
                    wheel.writestr(str(Path(cache_from_source(path)).relative_to(ROOT)), compiled(text, path))
        wheel.writestr(f"flatrack-{version}.dist-info/METADATA", f"Name: flatrack\nVersion: {version}\n")
        wheel.writestr(f"flatrack-{version}.dist-info/WHEEL", "Wheel-Version: 1.0\n")
    with zipfile.ZipFile(folder / "factory_packages-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("factory_packages.pth", FACTORY + "\n")
        wheel.writestr("factory_packages-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\n")
    return folder


def settings(folder, url="serial:///dev/ttyAMA0?baud=115200"):
    """Settings of a node on the board's UART."""
    folder.mkdir(exist_ok=True)
    plan = ContactPlan(Contact(0, 10**18, a, 0, b, 0, 1e6, 10**6) for a, b in ((1, NODE), (NODE, 1)))
    (folder / "plan.json").write_bytes(encode_plan(plan))
    world = {"sun": [[0, 10**18]], "sunlight": [1.0], "step_s": 1000.0}
    (folder / "world.json").write_bytes(msgspec.json.encode(world))
    write_settings(
        folder / "node.toml",
        NodeSettings(
            node=NodeConfig(node=NODE, name=NAME, interfaces=RADIO, beacon_period_s=2.0, tick_period_s=2.0),
            board=BoardSettings(kind="simulated", profile="raspberry-pi-4", world="world.json"),
            clock=ClockSettings(zero_utc_ns=1_767_225_600 * 10**9, epoch_utc_ns=1_767_225_600 * 10**9),
            link=LinkSettings(url=url),
            storage=StorageSettings(folder="disk", capacity_bytes=1 << 24),
            plan="plan.json",
        ),
    )


class Ears:
    """Hears the node from now on; what was said is kept."""

    def __init__(self, url):
        self._url = url
        self._ear = Ear(NODE, RADIO)
        self.heard = []

    async def __aenter__(self):
        self._link = await open_link(self._url, node=0)
        self._link.set_receiver(lambda interface, frame: self.heard.extend(self._ear.take(interface, frame)))
        return self

    async def __aexit__(self, *_):
        await self._link.close()

    async def until(self, is_it, wait_s=WAIT_S):
        async with asyncio.timeout(wait_s):
            while not (found := [one for one in self.heard if is_it(one)]):
                await asyncio.sleep(0.05)
        return found[0]


async def test_a_board_gets_a_release_leaves_a_bad_one_and_rolls_a_bad_update_back(
    machine, ready, board_folder, tmp_path, need_tool
):
    need_tool("ssh")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    emulated = machine(NAME, origin=ready, ssh_port=port, watchdog=False)  # a busy machine is no hung guest
    await emulated.start()
    agent = await AgentPeer.open(emulated.agent_path)
    await agent.configure({"authorized_keys": (tmp_path / "key.pub").read_bytes()}, time.time_ns())
    await agent.close()
    uart = board_folder / "uart"
    bridge = subprocess.Popen([sys.executable, "-S", "-c", BRIDGE, str(emulated.uart_path), str(uart)])
    try:
        settings(tmp_path / NAME)
        options = (f"Port={port}", f"IdentityFile={tmp_path}/key", "IdentitiesOnly=yes", "BatchMode=yes")
        options += ("StrictHostKeyChecking=no", f"UserKnownHostsFile={tmp_path}/known")
        board = Board(kind="emulated", ssh="root@127.0.0.1", ssh_options=options, uart=Uart(path=str(uart)))
        inventory = Inventory(tmp_path / "boards.toml", {NAME: board})
        said = []

        async def deploy(folder, wait_s=WAIT_S):
            asked = Options(wheelhouse=folder, wait_s=wait_s, confirm_s=2 * WAIT_S, is_bench=True)
            return await Deployment(inventory, NAME, asked, said.append).run()

        async with Remote(NAME, board) as remote:
            # the settings folder of the image gives way to the release's, and the key lies in it
            keys = "mkdir -p -m 700 /root/.ssh && cp /etc/flatrack/authorized_keys /root/.ssh/"
            await remote.run(keys)
        good = wheelhouse(tmp_path / "good", "0.1.0")
        assert await deploy(good)
        assert any(line.startswith("heard: boot 1 ") for line in said)
        assert not await deploy(good)

        settings(tmp_path / NAME, "serial:///dev/null")
        with pytest.raises(BoardError, match=r"no beacon within 10 s .*: the line is silent; release .* runs again"):
            await deploy(good, 10.0)

        async with Remote(NAME, board) as remote:
            await remote.run("until systemctl -q is-active flatrack; do sleep 0.2; done")
            show = "systemctl show flatrack -p ActiveState,Type,WatchdogUSec,DevicePolicy,ProtectSystem"
            state = dict(line.split("=", 1) for line in (await remote.run(show)).splitlines())
            assert state == {
                "ActiveState": "active",
                "Type": "notify",
                "WatchdogUSec": "1min",
                "DevicePolicy": "closed",
                "ProtectSystem": "strict",
            }
            current = json.loads(await remote.run("cat /opt/flatrack/current/release.json"))
            assert current["version"] == "0.1.0"

            bad = wheelhouse(tmp_path / "update", "0.2.0", "raise RuntimeError('a bad update')\n")
            await remote.run("systemctl stop flatrack")
            await remote.run("cat > /tmp/stage.py", [STAGE.encode()])
            await remote.run("cat > /tmp/update.whl", [bad / "flatrack-0.2.0-py3-none-any.whl"])
            python = "/opt/flatrack/current/environment/bin/python"
            await remote.run(f"{python} -I /tmp/stage.py /opt/flatrack/current/slots/disk /tmp/update.whl")
            async with Ears(f"serial://{uart}") as ears:
                await remote.run("systemctl start flatrack")
                beacon = await ears.until(lambda one: isinstance(one, Beacon))
                told = await ears.until(lambda one: isinstance(one, Event) and one.name == "RESET")
            log = await remote.run("journalctl -u flatrack -o cat -n 200 --no-pager")
        assert "launcher: slot A boots" in log
        assert "RuntimeError: a bad update" in log
        assert log.rindex("launcher: slot F boots") > log.rindex("launcher: slot A ended with 1")
        assert beacon.boot_count > 1
        assert told.text.startswith(f"boot {beacon.boot_count} after {ResetCause(beacon.reset_cause).name}")
    finally:
        bridge.terminate()
        bridge.wait()
