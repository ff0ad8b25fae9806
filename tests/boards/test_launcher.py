"""`python -m boards.launcher` with real wheels in environments of their own: what is started, and what is left."""

import ast
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time  # noqa: TID251 - programs share the machine's clock
import zipfile
from pathlib import Path

import msgspec
import pytest

from boards import boot_record, launcher
from boards.boot_record import FACTORY, BootRecord, Content
from boards.program import BoardSettings, NodeSettings
from boards.slots import DiskSlots, open_slots
from flightsw.config import InterfaceConfig, NodeConfig
from flightsw.errors import StorageError
from flightsw.host.files import FileDisk
from flightsw.host.settings import ClockSettings, LinkSettings, StorageSettings
from flightsw.net.contacts import Contact, ContactPlan
from flightsw.net.plans import encode_plan
from flightsw.objects.digest import digest_of
from flightsw.ports import Random
from hil.bench.settings_files import write_settings

ROOT = Path(__file__).parents[2]
S = 1_000_000_000
PATIENCE_S = 60.0
"""Longest wait for what a healthy launcher does within seconds [s of the machine]."""
NODE = 11


@pytest.fixture(scope="session")
def wheels(tmp_path_factory):
    """Gives the bytes of the wheel of version 0.2.0 with a defect, built when first asked for."""
    spec = importlib.util.spec_from_file_location("build_version", ROOT / "scripts" / "build_version.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    built = {}

    def give(defect):
        if defect not in built:
            built[defect] = script.build("0.2.0", tmp_path_factory.mktemp("wheel"), defect).read_bytes()
        return built[defect]

    return give


class Lab:
    """A node's settings, its slots, and launchers."""

    def __init__(self, folder):
        self.folder = folder
        self.slots = folder / "slots"
        self.processes = []
        both = ((1, NODE), (NODE, 1))
        plan = ContactPlan(Contact(0, 10**15, a, 0, b, 0, 1e6, 10**6) for a, b in both)
        (folder / "plan.json").write_bytes(encode_plan(plan))
        world = {"sun": [[0, 10**15]], "sunlight": [1.0], "step_s": 1000.0}
        (folder / "world.json").write_bytes(msgspec.json.encode(world))
        settings = NodeSettings(
            node=NodeConfig(
                node=NODE,
                name="sat-01",
                interfaces=(InterfaceConfig(index=0, name="radio"),),
                beacon_period_s=2.0,
                tick_period_s=1.0,
            ),
            board=BoardSettings(kind="simulated", profile="raspberry-pi-5", world="world.json"),
            clock=ClockSettings(zero_utc_ns=time.time_ns(), epoch_utc_ns=1_790_000_000 * S, time_scale=1.0),
            link=LinkSettings(url="serial:///dev/null"),
            storage=StorageSettings(folder="disk", capacity_bytes=1 << 24),
            plan="plan.json",
        )
        write_settings(folder / "node.toml", settings)

    def stage(self, wheel, boots_count=2):
        """What the manager does with an image that has come: installs it, and asks for a trial."""
        (self.slots / "disk").mkdir(parents=True, exist_ok=True)
        slots, disk = self.open(self.record().running)
        try:
            slots.install(wheel, "0.2.0", digest_of(wheel))
            slots.request_trial(digest_of(wheel), boots_count)
        finally:
            disk.close()

    def open(self, running):
        """The slots, once a program whose launcher was killed has given them back: the kernel ends it soon after."""
        until_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                return open_slots(self.slots / "disk", running)
            except StorageError:
                assert time.monotonic() < until_s
                time.sleep(0.02)

    def record(self):
        files = {name: self.slots / "disk" / name for name in boot_record.NAMES}
        return boot_record.load(lambda name: files[name].read_bytes() if files[name].exists() else None)[0]

    def start(self, *options):
        command = [sys.executable, "-m", "boards.launcher", "--config", str(self.folder / "node.toml")]
        command += ["--slots", str(self.slots), *options]
        with (self.folder / "out").open("ab") as out, (self.folder / "err").open("ab") as err:
            self.processes.append(subprocess.Popen(command, stdout=out, stderr=err, cwd=ROOT))
        return self.processes[-1]

    def said(self):
        return (self.folder / "err").read_text()

    def events(self):
        """What the node's programs have told of themselves."""
        lines = (self.folder / "out").read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def until(self, is_so):
        """Wait for something that a running launcher brings about."""
        until_s = time.monotonic() + PATIENCE_S
        while not is_so():
            assert time.monotonic() < until_s, self.said()[-3000:]
            assert self.processes[-1].poll() is None, self.said()[-3000:]
            time.sleep(0.02)

    def boots(self):
        return re.findall(r"launcher: slot (\w) boots", self.said())

    def nodes_booted(self):
        return sum(event["kind"] == "node.boot" for event in self.events())

    def stop(self):
        process = self.processes[-1]
        process.terminate()
        assert process.wait(PATIENCE_S) == 0, self.said()[-3000:]

    def close(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()


@pytest.fixture
def lab(tmp_path):
    made = Lab(tmp_path)
    yield made
    made.close()


def children(pid):
    """Command lines of the processes that a process has started."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found.append(Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0"))
    return found


def test_without_a_record_the_factory_image_boots(lab):
    process = lab.start()
    lab.until(lambda: lab.nodes_booted() == 1)
    assert lab.boots() == [FACTORY]
    assert children(process.pid)[0][0].decode() == sys.executable
    lab.stop()
    assert lab.record() == BootRecord()


def test_a_good_version_runs_from_its_own_environment_and_is_kept_when_it_commits(lab, wheels):
    lab.stage(wheels("good"))
    process = lab.start()
    lab.until(lambda: any(event.get("name") == "UPDATE.TRIAL" for event in lab.events()))
    command = children(process.pid)[0]
    python = lab.slots / "A" / "bin" / "python"
    assert command[:2] == [str(python).encode(), b"-I"]  # or the tree that this test runs in would come first
    asked = "import flightsw, importlib.metadata as m; print(flightsw.__file__, m.version('flatrack'))"
    told = subprocess.run([python, "-I", "-c", asked], check=True, capture_output=True, text=True).stdout.split()
    assert told == [str(launcher.site_packages(lab.slots / "A") / "flightsw" / "__init__.py"), "0.2.0"]
    assert lab.record().is_trial
    assert lab.record().boots_left == 1
    lab.stop()
    slots, disk = open_slots(lab.slots / "disk", "A")  # as the manager does when the trial has passed
    slots.commit()
    disk.close()
    lab.start()
    lab.until(lambda: lab.nodes_booted() == 2)
    assert lab.boots() == ["A", "A"]
    lab.stop()
    assert lab.said().count("making its environment") == 1


@pytest.mark.parametrize(
    ("defect", "options"),
    [
        ("crash-at-import", ()),
        ("crash-later", ()),
        ("ends", ()),
        ("bad-settings", ()),
        pytest.param("hang", ("--start", "3"), marks=pytest.mark.slow),
    ],
)
def test_a_bad_version_uses_up_its_boots_and_the_factory_image_is_back(lab, wheels, defect, options):
    lab.stage(wheels(defect))
    lab.start(*options)
    lab.until(lambda: lab.boots() == ["A", "A", FACTORY] and lab.nodes_booted() >= 1)
    record = lab.record()
    assert (record.committed, record.running, record.trial) == (FACTORY, FACTORY, "")
    assert record.fallback == "2 boots of slot A without a commit"
    if defect != "hang":  # whose limit is shorter than what the factory image may take here
        lab.stop()


def test_an_image_that_is_no_wheel_is_left_without_a_boot(lab):
    lab.stage(b"no wheel at all")
    lab.start()
    lab.until(lambda: lab.nodes_booted() == 1)
    assert lab.boots() == [FACTORY]
    assert "slot A cannot be started: BadZipFile" in lab.record().fallback
    lab.stop()


def test_an_environment_that_does_not_hold_is_made_anew(lab, wheels):
    wheel = wheels("crash-at-import")
    image = lab.folder / "image.whl"
    image.write_bytes(wheel)
    environment = lab.slots / "A"
    lab.slots.mkdir()
    with zipfile.ZipFile(image) as opened:
        launcher.make_environment(environment, opened, "digest")
        assert launcher.is_whole(environment, opened, "digest")
        assert not launcher.is_whole(environment, opened, "another")
        target = launcher.site_packages(environment) / "flightsw" / "node.py"
        for damage in (lambda: target.write_bytes(target.read_bytes()[:-1]), target.unlink, lambda: rot(target)):
            damage()
            assert not launcher.is_whole(environment, opened, "digest")
            launcher.make_environment(environment, opened, "digest")
            assert launcher.is_whole(environment, opened, "digest")


def rot(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["../outside.py", "/outside.py", "flatrack-0.2.0.data/scripts/x", "nothing.py"])
def test_a_wheel_that_is_more_than_python_is_refused(tmp_path, name):
    path = tmp_path / "image.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(name, "x")
    with zipfile.ZipFile(path) as wheel, pytest.raises(ValueError):
        launcher.files_of(wheel)


def test_a_damaged_wheel_gives_an_error_that_the_launcher_expects(tmp_path):
    path = tmp_path / "image.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr("flatrack-0.2.0.dist-info/WHEEL", "Wheel-Version: 1.0\n")
        wheel.writestr("flightsw/node.py", "x = 1\n" * 100)
    data, random = path.read_bytes(), Random(5)
    refused = 0
    for _ in range(2000):
        damaged = bytearray(data)
        for _ in range(random.choice((1, 1, 2, 8))):
            damaged[random.randrange(len(damaged))] = random.randrange(256)
        path.write_bytes(bytes(damaged[: random.choice((len(data), random.randrange(len(data))))]))
        try:
            with zipfile.ZipFile(path) as wheel:
                for name in launcher.files_of(wheel):
                    wheel.read(name)
        except launcher.WHEEL_ERRORS:
            refused += 1
    assert refused > 1500


def test_a_slot_whose_image_rots_is_left_for_the_one_before(lab, wheels):
    lab.stage(wheels("good"))
    lab.start()
    lab.until(lambda: lab.nodes_booted() == 1)
    lab.stop()
    slots, disk = open_slots(lab.slots / "disk", "A")
    slots.commit()
    disk.close()
    rot(lab.slots / "disk" / "A.image")
    lab.start()
    lab.until(lambda: lab.nodes_booted() == 2)
    assert lab.boots() == ["A", FACTORY]
    assert lab.record().fallback == "the image in slot A does not hold"
    lab.stop()


def test_two_launchers_do_not_share_a_folder(lab):
    lab.start()
    lab.until(lambda: lab.boots() == [FACTORY])
    second = lab.start()
    assert second.wait(PATIENCE_S) == 2
    assert "another launcher has this folder" in lab.said()


def test_the_program_does_not_outlive_its_launcher(lab):
    process = lab.start()
    lab.until(lambda: lab.nodes_booted() == 1)
    (program,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    descriptor = os.pidfd_open(int(program))
    process.kill()
    process.wait()
    signalled = signal.SIGCONT  # no harm to a process that is still there
    until_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            signal.pidfd_send_signal(descriptor, signalled)
        except ProcessLookupError:
            break
        assert time.monotonic() < until_s
        time.sleep(0.01)
    os.close(descriptor)


@pytest.mark.slow
def test_a_launcher_that_is_killed_at_any_instant_comes_to_the_same_end(lab, wheels):
    """A crashing version: however often the launcher dies, the boots of the trial run out, and something boots."""
    random = Random(3)
    wheel = wheels("crash-at-import")
    for _ in range(6):
        lab.stage(wheel)
        for _kill in range(40):
            process = lab.start()
            try:
                process.wait(0.05 + 1.2 * random.random())
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if not lab.record().trial:
                break
        assert lab.record().committed == FACTORY
        assert not lab.record().trial
    before = lab.nodes_booted()
    lab.start()
    lab.until(lambda: lab.nodes_booted() > before)
    assert lab.boots()[-1] == FACTORY
    lab.stop()


# -- the boot record


def test_the_launcher_imports_the_standard_library_alone():
    for module in (launcher, boot_record):
        tree = ast.parse(Path(module.__file__).read_text())
        names = {
            name.split(".")[0]
            for node in ast.walk(tree)
            for name in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        }
        assert names - {"boards"} <= sys.stdlib_module_names
    code = "import sys, boards.launcher; print(sorted(m for m in sys.modules if m.startswith('boards')))"
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT).stdout
    assert ast.literal_eval(told) == ["boards", "boards.boot_record", "boards.launcher"]


CONTENT = Content("0.2.0", "ab" * 32, "cd" * 32, 1000)
RECORD = BootRecord(committed="A", previous="F", running="B", trial="B", boots_left=1, boots_count=2,
                    fallback="a reason", contents={"A": CONTENT, "B": CONTENT}, revision=9)  # fmt: skip


def test_any_flipped_bit_of_a_boot_record_is_found():
    data = boot_record.encode(RECORD)
    assert boot_record.decode(data) == RECORD
    for index in range(8 * len(data)):
        struck = bytearray(data)
        struck[index >> 3] ^= 1 << (index & 7)
        assert boot_record.decode(bytes(struck)) in (None, RECORD)  # an upper case digit of the CRC is the same number


def test_a_boot_record_with_a_right_crc_and_wrong_fields_is_none():
    for body in (b"{}", b"[]", b"7", b'{"contents":{}}', b'{"contents":{"A":{"version":1}}}', b"{" * 5000):
        data = b"%08x\n%s\n" % (boot_record.zlib.crc32(body), body)
        assert boot_record.decode(data) in (None, BootRecord())
    for change in ({"committed": "C"}, {"boots_left": -1}, {"trial": "F"}, {"fallback": 3}, {"revision": "x"}):
        fields = json.loads(boot_record.encode(RECORD).split(b"\n")[1]) | change
        body = json.dumps(fields).encode()
        assert boot_record.decode(b"%08x\n%s\n" % (boot_record.zlib.crc32(body), body)) is None


def test_a_trial_that_cannot_be_paid_for_does_not_boot(tmp_path):
    disk = FileDisk(tmp_path, 1 << 20)
    slots = DiskSlots(disk, "wheel", "0.1.0")
    slots.install(b"image", "0.2.0", bytes(32))
    slots.request_trial(bytes(32), 2)
    disk.capacity_bytes = 0
    assert slots.choose() == FACTORY
    assert not slots.status().is_trial
    disk.capacity_bytes = 1 << 20
    assert slots.choose() == "A"
    disk.close()
