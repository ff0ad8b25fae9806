"""A ground and a node as programs, joined by a null modem, and the users of their control socket."""

import asyncio
import signal
import subprocess
import sys
import time  # noqa: TID251 - programs share the machine's clock
from contextlib import asynccontextmanager

import msgspec
import pytest
from click.testing import CliRunner

from boards import profiles
from boards.program import BoardSettings, NodeSettings
from flightsw.compute import cloud_mask
from flightsw.config import InterfaceConfig, NodeConfig
from flightsw.host.control import connect
from flightsw.host.keyfile import save_keys
from flightsw.host.settings import ClockSettings, KeySettings, LinkSettings, StorageSettings
from flightsw.net.contacts import Contact, ContactPlan
from flightsw.net.keys import derived_rings
from flightsw.net.plans import encode_plan
from ground.program import FleetSettings, GroundSettings, ResultSettings, SegmentSettings
from hil.bench.settings_files import write_settings
from hil.bench.workload import asset
from hil.cli import main as cli
from hil.imagery.scene import load_scene
from hil.imagery.tiles import cut

S = 1_000_000_000
GROUND, NODE = 1, 11
SCALE = 20.0
PATIENCE_S = 60.0
"""Longest wait for what healthy programs do within seconds [s of the machine]."""
TILE_PX = 48
PROFILE = profiles.load("raspberry-pi-5")
RADIO = (InterfaceConfig(index=0, name="radio"),)
PLAN = ContactPlan(Contact(0, 10**15, a, 0, b, 0, 1e6, 10**6) for a, b in ((GROUND, NODE), (NODE, GROUND)))
"""One contact that never ends."""


class Lab:
    """A ground and a node as programs, joined by a null modem."""

    def __init__(self, folder):
        self.folder = folder
        self.zero_utc_ns = time.time_ns()
        self.processes = []
        (folder / "plan.json").write_bytes(encode_plan(PLAN))
        (folder / "world.json").write_bytes(
            msgspec.json.encode({"sun": [[0, 10**15]], "sunlight": [1.0], "step_s": 1.0})
        )
        clock = ClockSettings(zero_utc_ns=self.zero_utc_ns, epoch_utc_ns=1_790_000_000 * S, time_scale=SCALE)
        self.node = NodeSettings(
            node=NodeConfig(node=NODE, name="sat-01", interfaces=RADIO, beacon_period_s=2.0, tick_period_s=1.0),
            board=BoardSettings(kind="simulated", profile=PROFILE.name, world="world.json"),
            clock=clock,
            link=LinkSettings(url=f"serial://{folder}/node.tty"),
            storage=StorageSettings(folder="node", capacity_bytes=1 << 24),
            plan="plan.json",
        )
        self.ground = GroundSettings(
            ground=SegmentSettings(
                interfaces=RADIO,
                beacon_period_s=2.0,
                fleet=(
                    FleetSettings(
                        node=NODE,
                        name="sat-01",
                        mpix_per_s=PROFILE.mpix_per_s.value,
                        compute_w=PROFILE.compute_w.value,
                        idle_w=PROFILE.idle_w.value + PROFILE.bus_w.value,
                        array_w=PROFILE.array_w.value,
                        battery_j=PROFILE.battery_wh.value * 3600,
                        reserve=0.35,
                        sun=((0, 10**15),),
                    ),
                ),
                store_bytes=1 << 24,
            ),
            clock=clock,
            link=LinkSettings(url=f"serial://{folder}/ground.tty"),
            storage=StorageSettings(folder="ground", capacity_bytes=1 << 25),
            plan="plan.json",
            result=ResultSettings(tile_px=TILE_PX),
        )

    @property
    def control(self):
        return self.folder / "control"

    def share_keys(self):
        """Both ends are provisioned with the same keys."""
        for number, ring in derived_rings(b"r" * 32, (NODE,), GROUND).items():
            save_keys(self.folder / f"{number}.keys", ring, [NODE if number == GROUND else GROUND])
        self.node = msgspec.structs.replace(self.node, keys=KeySettings(file=f"{NODE}.keys"))
        self.ground = msgspec.structs.replace(self.ground, keys=KeySettings(file=f"{GROUND}.keys"))

    def start(self, *command, stdout=subprocess.DEVNULL):
        with (self.folder / "errors").open("ab") as errors:
            process = subprocess.Popen([sys.executable, *map(str, command)], stdout=stdout, stderr=errors)
        self.processes.append(process)
        return process

    def errors(self):
        path = self.folder / "errors"
        return path.read_text() if path.exists() else ""

    def join(self):
        process = self.start(
            "-m", "hil.cli", "null-modem", self.folder / "node.tty", self.folder / "ground.tty", stdout=subprocess.PIPE
        )
        assert b"are joined" in process.stdout.readline()
        return process

    def start_node(self, *options):
        write_settings(self.folder / "node.toml", self.node)
        return self.start("-m", "boards", "--config", self.folder / "node.toml", *options)

    def start_ground(self, *options, stdout=subprocess.DEVNULL):
        write_settings(self.folder / "ground.toml", self.ground)
        return self.start(
            "-m", "ground", "--config", self.folder / "ground.toml", "--control", self.control, *options, stdout=stdout
        )

    def flatrack(self, *arguments):
        """Run a command of the command line; returns its exit code and what it printed."""
        done = CliRunner().invoke(cli, [str(one) for one in arguments])
        return done.exit_code, done.stdout, done.stderr

    def close(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.communicate()
        print(self.errors())  # shown with a test that fails


@pytest.fixture
def lab(tmp_path):
    made = Lab(tmp_path)
    made.share_keys()
    yield made
    made.close()


def end(process, number=signal.SIGTERM):
    process.send_signal(number)
    return process.wait(PATIENCE_S)


@asynccontextmanager
async def users(lab):
    """A control connection to the ground, as soon as it listens."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                peer = await connect(lab.control, {})
                break
            except Exception as error:
                if "is the program running?" not in str(error):
                    raise
                await asyncio.sleep(0.01)
    try:
        yield peer
    finally:
        peer.close()
        await peer.closed


async def until(peer, condition, method, *params):
    """Ask again until the answer is as wanted."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition(answer := await peer.call(method, *params)):
            await asyncio.sleep(0.02)
    return answer


def is_alive(rows):
    return rows[0]["presence"] == "ALIVE"


def tiles(count):
    scene = load_scene(asset("sentinel2-scene.npz", "scene"))
    return [cloud_mask.encode_tile(tile.dn) for tile in cut(scene.dn, TILE_PX)][:count]


async def submit(peer, tile, **changes):
    model = asset("cloud-mask.onnx", "model").read_bytes()
    job = {
        "kind": "cloud_mask",
        "model": await peer.call("put_object", model),
        "model_bytes": len(model),
        "data": await peer.call("put_object", tile),
        "data_bytes": len(tile),
        "steps_count": cloud_mask.STEPS,
        "step_mpix": 2.0 * PROFILE.mpix_per_s.value,
        "deadline_s": 20_000,
    }
    return await peer.call("submit", job | changes)


@pytest.fixture(scope="session", name="users")
def _users():
    return users


@pytest.fixture(scope="session", name="until")
def _until():
    return until


@pytest.fixture(scope="session", name="is_alive")
def _is_alive():
    return is_alive


@pytest.fixture(scope="session", name="end")
def _end():
    return end


@pytest.fixture(scope="session", name="tiles")
def _tiles():
    return tiles


@pytest.fixture(scope="session", name="submit")
def _submit():
    return submit
