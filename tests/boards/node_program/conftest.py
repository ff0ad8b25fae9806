"""A folder with the settings of a node, the processes that run on it, and the ears of a ground."""

import asyncio
import json
import os
import select
import subprocess
import sys
import time  # noqa: TID251 - programs share the machine's clock
from contextlib import asynccontextmanager

import msgspec
import pytest

from boards import profiles
from boards.program import BoardSettings, NodeSettings
from boards.simulated.states import load_board
from flightsw.config import InterfaceConfig, NodeConfig
from flightsw.host.clock import HostClock
from flightsw.host.loop import PacedLoop
from flightsw.host.settings import ClockSettings, LinkSettings, StorageSettings
from flightsw.net.agent import BundleAgent
from flightsw.net.contacts import Contact, ContactPlan
from flightsw.net.endpoint import Endpoint
from flightsw.net.plans import encode_plan
from flightsw.wire.messages import SERVICE_TELEMETRY, Beacon, decode_message
from hil.bench.settings_files import write_settings
from hil.channel.wires import PtyWire

S = 1_000_000_000
GROUND, NODE = 1, 11
SCALE = 20.0
PATIENCE_S = 60.0
"""Longest wait for what a healthy program does within a second [s of the machine]."""
PROFILE = profiles.load("raspberry-pi-5")
RADIO = (InterfaceConfig(index=0, name="radio"),)
PLAN = ContactPlan(Contact(0, 10**15, a, 0, b, 0, 1e6, 10**6) for a, b in ((GROUND, NODE), (NODE, GROUND)))


class Lab:
    """A folder with the settings of a node, and what it takes to run it."""

    def __init__(self, folder, *, scale=SCALE, zero_utc_ns=None):
        self.folder = folder
        self.scale = scale
        self.zero_utc_ns = time.time_ns() if zero_utc_ns is None else zero_utc_ns
        self.processes = []
        (folder / "plan.json").write_bytes(encode_plan(PLAN))
        self.shine(1.0)
        self.settings = NodeSettings(
            node=NodeConfig(node=NODE, name="sat-01", interfaces=RADIO, beacon_period_s=2.0, tick_period_s=1.0),
            board=BoardSettings(kind="simulated", profile="raspberry-pi-5", world="world.json"),
            clock=ClockSettings(zero_utc_ns=self.zero_utc_ns, epoch_utc_ns=1_790_000_000 * S, time_scale=scale),
            link=LinkSettings(url="serial:///dev/null"),
            storage=StorageSettings(folder="disk", capacity_bytes=1 << 24),
            plan="plan.json",
        )

    def shine(self, *sunlight, step_s=1000.0):
        (self.folder / "world.json").write_bytes(
            msgspec.json.encode({"sun": [[0, 10**15]], "sunlight": sunlight, "step_s": step_s})
        )

    @property
    def config(self):
        return self.folder / "node.toml"

    def change(self, section, **values):
        changed = msgspec.structs.replace(getattr(self.settings, section), **values)
        self.settings = msgspec.structs.replace(self.settings, **{section: changed})

    def start(self, *options, stdout=subprocess.PIPE):
        write_settings(self.config, self.settings)
        command = [sys.executable, "-m", "boards", "--config", str(self.config), *map(str, options)]
        self.processes.append(subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE))
        return self.processes[-1]

    def saved(self):
        return load_board(self.folder / "board.json", PROFILE)

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


def finish(process, number=None):
    """(exit code, records on standard output, standard error) of a process that ends, or is ended by a signal."""
    if number is not None:
        process.send_signal(number)
    output, errors = process.communicate(timeout=PATIENCE_S)
    return process.returncode, [json.loads(line) for line in (output or b"").splitlines()], errors.decode()


async def ended(process):
    """As `finish`, for a process that still talks to this one."""
    loop = asyncio.get_running_loop()
    over = loop.create_future()
    descriptor = os.pidfd_open(process.pid)
    loop.add_reader(descriptor, lambda: over.done() or over.set_result(None))
    try:
        await asyncio.wait_for(over, PATIENCE_S * SCALE)
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return finish(process)


def first_line(process):
    """The first record that it writes."""
    readable, _, _ = select.select([process.stdout], [], [], PATIENCE_S)
    assert readable, "the program says nothing"
    return json.loads(process.stdout.readline())


class Ears:
    """The ground's end of the wire: takes beacons."""

    def __init__(self, lab, loop):
        self.wire = PtyWire()
        lab.change("link", url=self.wire.url)
        clock = HostClock(loop, 1_790_000_000 * S)
        self.beacons = asyncio.Queue()
        agent = BundleAgent(GROUND, PLAN, RADIO, session_base=1 << 32)
        self.endpoint = Endpoint(clock, self, agent, self._on_delivery)
        self.endpoint.flush()

    def send(self, interface, frame):
        self.wire.deliver(interface, frame)

    def set_receiver(self, receiver):
        self.wire.on_frame = receiver

    async def close(self):
        self.wire.close()

    async def beacon(self):
        return await asyncio.wait_for(self.beacons.get(), PATIENCE_S * SCALE)

    def _on_delivery(self, delivery):
        message = decode_message(delivery.payload)
        if delivery.service == SERVICE_TELEMETRY and isinstance(message, Beacon):
            self.beacons.put_nowait(message)


@asynccontextmanager
async def listening(lab, loop):
    ears = Ears(lab, loop)
    try:
        yield ears
    finally:
        await ears.endpoint.close()


def run(lab, scenario):
    """Run a coroutine function on the lab's time; it is given the loop."""
    loop = PacedLoop(lab.zero_utc_ns, lab.scale)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(scenario(loop))


@pytest.fixture(scope="session", name="finish")
def _finish():
    return finish


@pytest.fixture(scope="session", name="ended")
def _ended():
    return ended


@pytest.fixture(scope="session", name="first_line")
def _first_line():
    return first_line


@pytest.fixture(scope="session", name="listening")
def _listening():
    return listening


@pytest.fixture(scope="session", name="run")
def _run():
    return run
