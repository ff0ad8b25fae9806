"""`flatrack update`: keys, manifests and campaigns, up to a real wheel on a node that a launcher runs."""

import importlib.util
import json
import re
import subprocess
import sys
import time  # noqa: TID251 - programs share the machine's clock
import zipfile
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from boards import profiles
from boards.program import BoardSettings, NodeSettings
from flightsw.config import InterfaceConfig, NodeConfig
from flightsw.dictionary import flight_dictionary
from flightsw.host.keyfile import save_keys
from flightsw.host.settings import ClockSettings, KeySettings, LinkSettings, StorageSettings
from flightsw.net.contacts import Contact, ContactPlan
from flightsw.net.keys import derived_rings
from flightsw.net.plans import encode_plan
from flightsw.storage.manifest import decode_manifest
from ground.program import FleetSettings, GroundSettings, ResultSettings, SegmentSettings
from hil.bench.settings_files import write_settings
from hil.cli import main

ROOT = Path(__file__).parents[2]
S = 1_000_000_000
GROUND, NODE = 1, 11
SCALE = 20.0
PATIENCE_S = 120.0
"""Longest wait for what healthy programs do within seconds [s of the machine]."""


def flatrack(*arguments):
    """(exit code, output, errors) of a command line."""
    done = CliRunner().invoke(main, ["update", *map(str, arguments)])
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture
def key(tmp_path):
    path = tmp_path / "update.key"
    code, said, _ = flatrack("keygen", path)
    assert code == 0
    return path, re.search(r'update_keys = \["([0-9a-f]{64})"\]', said)[1]


@pytest.fixture(scope="session")
def build():
    """Builds this tree as a wheel of another version."""
    spec = importlib.util.spec_from_file_location("build_version", ROOT / "scripts" / "build_version.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script.build


def test_a_key_is_made_for_its_owner_alone_and_never_overwritten(key):
    path, public = key
    assert path.stat().st_mode & 0o777 == 0o600
    assert public not in path.read_text()
    code, _, said = flatrack("keygen", path)
    assert code == 2
    assert "never overwritten" in said


def test_a_simulated_image_is_signed_and_shown(key, tmp_path):
    path, public = key
    image, out = tmp_path / "image.json", tmp_path / "manifest"
    image.write_text('{"version": "0.2.0"}')
    assert flatrack("sign", image, "--key", path, "--serial", 7, "--out", out)[0] == 0
    manifest = decode_manifest(out.read_bytes())[1]
    assert (manifest.target, manifest.version, manifest.serial) == ("simulated", "0.2.0", 7)
    code, said, _ = flatrack("show", out, "--public-key", public)
    assert code == 0
    assert "signature        holds" in said
    code, _, said = flatrack("show", out, "--public-key", "00" * 32)
    assert code == 2
    assert "signed with the unknown key" in said


def test_a_wheel_is_signed_with_its_own_version_and_dictionary(key, tmp_path, build):
    wheel = build("3.2.1", tmp_path)
    out = tmp_path / "manifest"
    code, _, said = flatrack("sign", wheel, "--key", key[0], "--serial", 1, "--out", out)
    assert code == 0, said
    manifest = decode_manifest(out.read_bytes())[1]
    assert (manifest.target, manifest.version) == ("wheel", "3.2.1")
    assert manifest.dictionary == flight_dictionary().digest
    assert manifest.size_bytes == wheel.stat().st_size


def test_what_is_wrong_is_said_in_one_line(key, tmp_path):
    path, _ = key
    good = tmp_path / "image.json"
    good.write_text('{"version": "0.2.0"}')
    bad = tmp_path / "bad.json"
    bad.write_text('{"version": "latest"}')
    wheel = tmp_path / "bad.whl"
    with zipfile.ZipFile(wheel, "w") as opened:
        opened.writestr("nothing.py", "")
    no_wheel = tmp_path / "no.whl"
    no_wheel.write_bytes(b"no zip")
    short = tmp_path / "short.key"
    short.write_text("1234\n")
    short.chmod(0o600)
    loose = tmp_path / "loose.key"
    loose.write_text(path.read_text())
    loose.chmod(0o644)
    out = ("--out", tmp_path / "manifest")
    cases = [
        (("sign", bad, "--key", path, "--serial", 1, *out), "simulated image"),
        (("sign", wheel, "--key", path, "--serial", 1, *out), "0 METADATA files"),
        (("sign", no_wheel, "--key", path, "--serial", 1, *out), "no wheel"),
        (("sign", good, "--key", short, "--serial", 1, *out), "4 characters, expected 64 hexadecimal digits"),
        (("sign", good, "--key", loose, "--serial", 1, *out), "mode 0644 lets others at the key"),
        (("sign", good, "--key", tmp_path / "none", "--serial", 1, *out), "cannot be read"),
        (("sign", good, "--key", path, "--serial", 1, "--minimum-version", "x", *out), "manifest"),
        (("show", good), "no signed manifest"),
        (("status",), "--control: missing"),
        (("start", good, good, "--control", tmp_path / "none"), "is the program running?"),
    ]
    for arguments, expected in cases:
        code, _, said = flatrack(*arguments)
        assert code == 2, (arguments, said)
        assert expected in said.replace("\n", " ")
        assert said.startswith("flatrack: ")
        assert said.count("\n") == 1


class Lab:
    """A ground and a node under its launcher, joined by a null modem."""

    def __init__(self, folder, public_key):
        self.folder = folder
        self.processes = []
        self.control = folder / "control"
        profile = profiles.load("raspberry-pi-5")
        radio = (InterfaceConfig(index=0, name="radio"),)
        both = ((GROUND, NODE), (NODE, GROUND))
        plan = ContactPlan(Contact(0, 10**15, a, 0, b, 0, 1e6, 10**6) for a, b in both)
        (folder / "plan.json").write_bytes(encode_plan(plan))
        world = {"sun": [[0, 10**15]], "sunlight": [1.0], "step_s": 1.0}
        (folder / "world.json").write_bytes(msgspec.json.encode(world))
        for number, ring in derived_rings(b"r" * 32, (NODE,), GROUND).items():
            save_keys(folder / f"{number}.keys", ring, [NODE if number == GROUND else GROUND])
        clock = ClockSettings(zero_utc_ns=time.time_ns(), epoch_utc_ns=1_790_000_000 * S, time_scale=SCALE)
        node = NodeConfig(
            node=NODE,
            name="sat-01",
            interfaces=radio,
            beacon_period_s=2.0,
            tick_period_s=1.0,
            update_keys=(public_key,),
        )
        self.node = NodeSettings(
            node=node,
            board=BoardSettings(kind="simulated", profile=profile.name, world="world.json"),
            clock=clock,
            link=LinkSettings(url=f"serial://{folder}/node.tty"),
            storage=StorageSettings(folder="node", capacity_bytes=1 << 24),
            plan="plan.json",
            keys=KeySettings(file=f"{NODE}.keys"),
        )
        known = FleetSettings(
            node=NODE,
            name="sat-01",
            mpix_per_s=profile.mpix_per_s.value,
            compute_w=profile.compute_w.value,
            idle_w=profile.idle_w.value,
            array_w=profile.array_w.value,
            battery_j=profile.battery_wh.value * 3600,
            reserve=0.35,
        )
        self.ground = GroundSettings(
            ground=SegmentSettings(interfaces=radio, beacon_period_s=2.0, fleet=(known,), store_bytes=1 << 24),
            clock=clock,
            link=LinkSettings(url=f"serial://{folder}/ground.tty"),
            storage=StorageSettings(folder="ground", capacity_bytes=1 << 25),
            plan="plan.json",
            result=ResultSettings(tile_px=48),
            keys=KeySettings(file=f"{GROUND}.keys"),
        )

    def start(self):
        write_settings(self.folder / "node.toml", self.node)
        write_settings(self.folder / "ground.toml", self.ground)
        ends = (self.folder / "node.tty", self.folder / "ground.tty")
        modem = self.process("modem", "-m", "hil.cli", "null-modem", *ends)
        self.until(lambda: "are joined" in self.told("modem"), modem)
        options = ("--config", self.folder / "node.toml", "--slots", self.folder / "slots")
        self.launcher = self.process("launcher", "-m", "boards.launcher", *options)
        options = ("--config", self.folder / "ground.toml", "--control", self.control)
        ground = self.process("ground", "-m", "ground", *options)
        self.until(self.control.exists, ground)

    def process(self, name, *command):
        with (self.folder / f"{name}.log").open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, *map(str, command)], stdout=out, stderr=subprocess.STDOUT, cwd=ROOT
            )
        self.processes.append(process)
        return process

    def told(self, name):
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def until(self, is_so, process):
        until_s = time.monotonic() + PATIENCE_S
        while not is_so():
            everything = "\n".join(self.told(name)[-1500:] for name in ("launcher", "ground"))
            assert process.poll() is None, everything
            assert time.monotonic() < until_s, everything
            time.sleep(0.1)

    def status(self):
        code, said, errors = flatrack("status", "--json", "--control", self.control)
        assert code in (0, 1), errors
        return json.loads(said)

    def campaign(self, image, key, serial):
        """Sign, start, and wait for the end; returns how it ended."""
        manifest = self.folder / f"{serial}.manifest"
        assert flatrack("sign", image, "--key", key, "--serial", serial, "--out", manifest)[0] == 0
        code, _, errors = flatrack("start", manifest, image, "--soak", "20", "--control", self.control)
        assert code == 0, errors
        self.until(lambda: self.status()["state"] != "RUNNING", self.launcher)
        return self.status()

    def boots(self):
        return re.findall(r"launcher: slot (\w) boots", self.told("launcher"))

    def close(self):
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.mark.slow
def test_real_wheels_reach_a_real_node_and_the_bad_one_is_left(key, tmp_path, build):
    path, public = key
    lab = Lab(tmp_path, public)
    try:
        lab.start()
        bad = lab.campaign(build("0.2.0", tmp_path / "bad", "crash-later"), path, 1)
        assert bad["state"] == "STOPPED"
        assert bad["nodes"][0]["detail"] == "2 boots of slot A without a commit"
        assert lab.boots() == ["F", "A", "A", "F"]
        good = lab.campaign(build("0.2.1", tmp_path / "good"), path, 2)
        assert good["state"] == "SUCCEEDED"
        assert good["nodes"][0]["version"] == "0.2.1"
        assert lab.boots()[4:] == ["A"]
        code, said, _ = flatrack("status", "--control", lab.control)
        assert code == 0
        assert said.splitlines()[0].endswith("to version 0.2.1: SUCCEEDED")
        code, _, said = flatrack("stop", "--control", lab.control)
        assert code == 2
        assert "no campaign runs" in said
    finally:
        lab.close()
