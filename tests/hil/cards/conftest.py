"""A card image with the layout of Raspberry Pi OS's, made by other programs than those under test."""

import os
import shutil
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from hil.commands.keys import keys_group

ROOT = Path(__file__).parents[3]
START_BYTES = 4 << 20
"""Where pi-gen puts the boot partition (export-image/prerun.sh)."""
BOOT_BYTES = 40 << 20
ROOT_BYTES = 8 << 20
CONFIG = """\
# For more options and information see
# http://rptl.io/configtxt

# Enable audio (loads snd_bcm2835)
dtparam=audio=on

camera_auto_detect=1
dtoverlay=vc4-kms-v3d
arm_64bit=1

[cm4]
otg_mode=1

[cm5]
dtoverlay=dwc2,dr_mode=host

[all]
"""
COMMAND_LINE = (
    "console=serial0,115200 console=tty1 root=PARTUUID=4d8fd085-02 rootfstype=ext4 fsck.repair=yes rootwait resize\n"
)
USER_DATA = "#cloud-config\n#hostname: raspberrypi\n"
META_DATA = "dsmode: local\ninstance_id: rpios-image\n"


@dataclass(frozen=True)
class Card:
    """An image, looked at by mtools and fsck."""

    path: Path
    start_bytes: int = START_BYTES

    @property
    def drive(self) -> str:
        return f"{self.path}@@{self.start_bytes}"

    def read(self, name: str) -> bytes:
        done = subprocess.run(["mtype", "-i", self.drive, f"::{name}"], capture_output=True, check=False)
        assert done.returncode == 0, f"{name}: {done.stderr.decode()}"
        return done.stdout

    def names(self, folder: str = "") -> list[str]:
        command = ["mdir", "-b", "-i", self.drive, f"::{folder}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return sorted(line.removeprefix(f"::/{folder}").strip("/") for line in done.stdout.splitlines() if line)

    def put(self, name: str, data: bytes, scratch: Path) -> None:
        scratch.write_bytes(data)
        subprocess.run(["mcopy", "-o", "-i", self.drive, scratch, f"::{name}"], check=True, capture_output=True)

    def check(self, scratch: Path) -> str:
        """What fsck.vfat finds wrong with the boot partition; nothing when it is clean."""
        with self.path.open("rb") as file:
            file.seek(self.start_bytes)
            scratch.write_bytes(file.read(BOOT_BYTES))
        done = subprocess.run(["fsck.vfat", "-n", scratch], capture_output=True, text=True, check=False)
        return "" if done.returncode == 0 and len(done.stdout.splitlines()) == 2 else done.stdout + done.stderr


@pytest.fixture
def make_card(tmp_path: Path, need_tool: Callable[[str], str]) -> Callable[..., Card]:
    """Makes an image: an MBR, a FAT32 boot partition with stock files, and an ext4 root with a Python when asked."""
    for tool in ("mkfs.vfat", "mcopy", "mdir", "mtype", "fsck.vfat"):
        need_tool(tool)

    def make(
        name: str = "stock.img",
        *,
        has_cloud_init: bool = True,
        python: str | None = None,
        command_line: str = COMMAND_LINE,
    ) -> Card:
        path = tmp_path / name
        boot = tmp_path / "boot.fat"
        boot.unlink(missing_ok=True)
        boot.touch()
        with boot.open("r+b") as file:
            file.truncate(BOOT_BYTES)
        subprocess.run(["mkfs.vfat", "-F", "32", "-s", "1", "-n", "bootfs", boot], check=True, capture_output=True)
        root = tmp_path / "root.ext4"
        with root.open("wb") as file:
            file.truncate(ROOT_BYTES)
        if python is not None:
            need_tool("mkfs.ext4")
            tree = tmp_path / "tree" / "usr" / "bin"
            tree.mkdir(parents=True, exist_ok=True)
            (tree / "python3").unlink(missing_ok=True)
            (tree / "python3").symlink_to(f"python{python}")
            command = ["mkfs.ext4", "-q", "-F", "-d", tree.parents[1], root]
            subprocess.run(command, check=True, capture_output=True)
        with path.open("wb") as file:
            file.write(_mbr())
            file.seek(START_BYTES)
            file.write(boot.read_bytes())
            file.write(root.read_bytes())
        card = Card(path)
        files = {"config.txt": CONFIG, "cmdline.txt": command_line, "kernel8.img": "a kernel", "overlays": None}
        if has_cloud_init:
            files |= {"user-data": USER_DATA, "meta-data": META_DATA, "network-config": "# nothing\n"}
        for file_name, text in files.items():
            if text is None:
                subprocess.run(["mmd", "-i", card.drive, f"::{file_name}"], check=True, capture_output=True)
            else:
                card.put(file_name, text.encode(), tmp_path / "scratch")
        return card

    return make


@pytest.fixture
def settings(tmp_path):
    """Settings of a node of the examples, with keys."""
    folder = tmp_path / "settings"
    shutil.copytree(ROOT / "examples" / "one-node", folder)
    runner = CliRunner()
    words = ["create", str(ROOT / "examples" / "three.toml"), "--folder", str(folder / "keys"), "--pairs", "ground"]
    assert runner.invoke(keys_group, words).exit_code == 0
    return folder


@pytest.fixture
def wheelhouse(tmp_path):
    """Files that are called as wheels are: nothing of them runs here."""
    folder = tmp_path / "wheelhouse"
    folder.mkdir()
    for name in (
        "flatrack-0.1.0-py3-none-any.whl",
        "numpy-2.5.1-cp313-cp313-manylinux_2_27_aarch64.manylinux_2_28_aarch64.whl",
        "cryptography-46.0.1-cp311-abi3-manylinux_2_28_aarch64.whl",
    ):
        (folder / name).write_bytes(name.encode() * 100)
    return folder


@pytest.fixture
def make_loop(tmp_path, need_tool):
    """Makes loop devices; skips where this machine gives none."""
    losetup = need_tool("losetup")
    devices = []

    def make(size_bytes, *options, table=""):
        backing = tmp_path / f"disk{len(devices)}"
        backing.touch()
        os.truncate(backing, size_bytes)
        if table:
            command = [need_tool("sfdisk"), "-q", backing]
            subprocess.run(command, input=table, text=True, check=True, capture_output=True)
        command = [losetup, "--show", "--find", *options, backing]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"no loop devices here: {done.stderr.strip()}")
        devices.append(done.stdout.strip())
        return Path(devices[-1])

    yield make
    for device in devices:
        subprocess.run(["partx", "--delete", device], capture_output=True, check=False)
        subprocess.run([losetup, "--detach", device], check=True)


def _mbr() -> bytes:
    """A partition table as parted makes it for pi-gen: FAT32 with LBA, then Linux."""
    entry = "<B3sB3sII"
    boot = struct.pack(entry, 0, bytes(3), 0x0C, bytes(3), START_BYTES // 512, BOOT_BYTES // 512)
    root = struct.pack(entry, 0, bytes(3), 0x83, bytes(3), (START_BYTES + BOOT_BYTES) // 512, ROOT_BYTES // 512)
    return bytes(440) + bytes.fromhex("85d08f4d") + bytes(2) + boot + root + bytes(32) + b"\x55\xaa"
