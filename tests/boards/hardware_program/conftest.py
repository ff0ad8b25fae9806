"""A recorded board, the settings of a node on it, the processes that were started, and the ears of a ground."""

import asyncio
import subprocess
import sys
import time  # noqa: TID251 - programs share the machine's clock

import msgspec
import pytest

from boards.program import BoardSettings, NodeSettings
from boards.support import trees
from boards.support.boot_note import load_note
from boards.worker.settings import WorkerSettings
from flightsw.config import InterfaceConfig, NodeConfig
from flightsw.dictionary import flight_dictionary
from flightsw.dictionary.model import HOUSEKEEPING
from flightsw.host.clock import HostClock
from flightsw.host.loop import PacedLoop
from flightsw.host.settings import ClockSettings, LinkSettings, StorageSettings
from flightsw.net.agent import BundleAgent
from flightsw.net.contacts import Contact, ContactPlan
from flightsw.net.endpoint import Endpoint
from flightsw.net.plans import encode_plan
from flightsw.wire.messages import Beacon, Event, Packets, decode_message
from hil.bench.settings_files import write_settings
from hil.channel.wires import PtyWire

S = 1_000_000_000
GROUND, NODE = 1, 11
SCALE = 20.0
PATIENCE_S = 20.0
"""Longest wait for what a healthy program does within seconds [s of the machine]."""
RADIO = (InterfaceConfig(index=0, name="radio"),)
PLAN = ContactPlan(Contact(0, 10**15, a, 0, b, 0, 1e6, 10**6) for a, b in ((GROUND, NODE), (NODE, GROUND)))
ZONE = "sys/class/thermal/thermal_zone0/temp"
BOOT_ID = "proc/sys/kernel/random/boot_id"
HARDWARE_PACKET = f"HARDWARE.{HOUSEKEEPING}"
INLINE = WorkerSettings(isolation="inline")


class Lab:
    """A recorded board, the settings of a node on it, and the processes that were started."""

    def __init__(self, folder, tree="raspberry-pi-5"):
        self.folder, self.root = folder, folder / "root"
        self.laid = trees.lay(tree, self.root)
        self.boot_id("first")
        (folder / "plan.json").write_bytes(encode_plan(PLAN))
        world = {"sun": [[0, 10**15]], "sunlight": [1.0], "step_s": 1000.0}
        (folder / "world.json").write_bytes(msgspec.json.encode(world))
        self.zero_utc_ns = time.time_ns()
        self.processes = []
        self.settings = NodeSettings(
            node=NodeConfig(
                node=NODE,
                name="sat-01",
                interfaces=RADIO,
                beacon_period_s=2.0,
                housekeeping_period_s=5.0,
                tick_period_s=1.0,
            ),
            board=BoardSettings(kind="auto", world="world.json", root=str(self.root)),
            clock=ClockSettings(zero_utc_ns=self.zero_utc_ns, epoch_utc_ns=1_790_000_000 * S, time_scale=SCALE),
            link=LinkSettings(url="serial:///dev/null"),
            storage=StorageSettings(folder="disk", capacity_bytes=1 << 24),
            plan="plan.json",
            worker=INLINE,
        )

    @property
    def config(self):
        return self.folder / "node.toml"

    def boot_id(self, text):
        """Let the machine be one that has been started anew."""
        path = self.root / BOOT_ID
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")

    def change(self, section=None, **values):
        if section is not None:
            values = {section: msgspec.structs.replace(getattr(self.settings, section), **values)}
        self.settings = msgspec.structs.replace(self.settings, **values)

    def write(self, path=None):
        write_settings(path or self.config, self.settings)

    def start(self, *options):
        command = [sys.executable, "-m", "boards", "--config", str(self.config), *map(str, options)]
        self.processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        return self.processes[-1]

    def note(self):
        return load_note(self.folder / "board.json.note")

    def close(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.communicate()


@pytest.fixture
def lab(tmp_path):
    made = Lab(tmp_path)
    yield made
    made.close()


def finish(process, number):
    """(exit code, standard error) of a process that is ended by a signal."""
    process.send_signal(number)
    _, errors = process.communicate(timeout=PATIENCE_S)
    return process.returncode, errors.decode()


class Ears:
    """The ground's end of the wire: takes what the node tells of itself."""

    def __init__(self, lab, loop):
        self.wire = PtyWire()
        lab.change("link", url=self.wire.url)
        self.told = asyncio.Queue()
        agent = BundleAgent(GROUND, PLAN, RADIO, session_base=1 << 32)
        self.endpoint = Endpoint(HostClock(loop, 1_790_000_000 * S), self, agent, self._on_delivery)
        self.endpoint.flush()

    def send(self, interface, frame):
        self.wire.deliver(interface, frame)

    def set_receiver(self, receiver):
        self.wire.on_frame = receiver

    async def close(self):
        self.wire.close()

    def _on_delivery(self, delivery):
        self.told.put_nowait(decode_message(delivery.payload))

    async def wait(self, wanted):
        """The first answer of `wanted` to a message that is not None."""
        async with asyncio.timeout(PATIENCE_S * SCALE):
            while True:
                found = wanted(await self.told.get())
                if found is not None:
                    return found

    async def beacon(self):
        return await self.wait(lambda message: message if isinstance(message, Beacon) else None)

    async def event(self, name):
        """The text of the next event of this name."""
        wanted = tuple(name.split("."))
        return await self.wait(
            lambda one: one.text if isinstance(one, Event) and (one.component, one.name) == wanted else None
        )

    async def channels(self, holds):
        """The channels of HARDWARE, once they are so."""
        keys = flight_dictionary().packets[HARDWARE_PACKET].channels

        def found(message):
            for packet in message.packets if isinstance(message, Packets) else ():
                if packet.name == HARDWARE_PACKET:
                    values = dict(zip((key.partition(".")[2] for key in keys), packet.values, strict=True))
                    return values if holds(values) else None
            return None

        return await self.wait(found)


def run(lab, scenario):
    """Run a scenario on the lab's time, with ears; returns what it returns."""

    async def heard(loop):
        ears = Ears(lab, loop)
        lab.write()
        try:
            return await scenario(ears)
        finally:
            await ears.endpoint.close()

    loop = PacedLoop(lab.zero_utc_ns, SCALE)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(heard(loop))


@pytest.fixture(scope="session")
def make_lab():
    return Lab


@pytest.fixture(scope="session", name="finish")
def _finish():
    return finish


@pytest.fixture(scope="session", name="run")
def _run():
    return run
