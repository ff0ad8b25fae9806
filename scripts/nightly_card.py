"""From a stock image to a beacon: a card is prepared by `flatrack board prepare` and booted for the first time.

    python scripts/nightly_card.py [--folder build/card] [--from WHEELHOUSE] [--limit-s 1200]

The image has the layout and the first-boot setting of Raspberry Pi OS (trixie), made of Debian's arm64 packages with
their maintainer scripts run by qemu-user: up to an hour once, cached. QEMU's `virt` machine boots it with its
own kernel and initrd and the command line that `prepare` has written; cloud-init does what the card says, the release
is installed, and the node speaks on the UART. What an emulator has not is the firmware of a Raspberry Pi: config.txt
is written and never read.

Needs root, and mmdebstrap, qemu-user-static, binfmt-support, qemu-system-arm, mtools, dosfstools, e2fsprogs.
"""

import argparse
import asyncio
import hashlib
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from boards.program import NodeSettings
from flightsw.errors import FlatrackError
from flightsw.host.settings import load_settings
from hil.emulation.rootfs import mirror
from hil.inventory.listening import Listener

ROOT = Path(__file__).resolve().parent.parent
SUITE = "trixie"
PACKAGES = (
    "systemd-sysv", "dbus", "udev", "kmod", "linux-image-cloud-arm64", "initramfs-tools", "e2fsprogs", "dosfstools",
    "python3", "cloud-init", "netplan.io", "iproute2", "openssh-server", "sudo", "libstdc++6", "ca-certificates",
)  # fmt: skip
START_BYTES = 4 << 20
"""Where pi-gen puts the boot partition (export-image/prerun.sh)."""
BOOT_BYTES = 512 << 20
ROOT_BYTES = 3 << 30
DISK_ID = 0x4D8FD085
CLOUD_SETTING = """\
# as pi-gen writes it (stage2/04-cloud-init/files/99_raspberry-pi.cfg)
datasource_list: [ NoCloud, None ]
datasource:
  NoCloud:
    seedfrom: file:///boot/firmware
"""
BOOT_FILES = {
    "config.txt": "# For more options and information see\n# http://rptl.io/configtxt\narm_64bit=1\n\n[all]\n",
    "cmdline.txt": f"console=serial0,115200 console=tty1 root=PARTUUID={DISK_ID:08x}-02 rootfstype=ext4 "
    "fsck.repair=yes rootwait resize\n",
    "user-data": "#cloud-config\n",
    "meta-data": "dsmode: local\ninstance_id: rpios-image\n",
    "network-config": "# nothing\n",
}
FSTAB = f"""\
proc /proc proc defaults 0 0
PARTUUID={DISK_ID:08x}-01 /boot/firmware vfat defaults 0 2
PARTUUID={DISK_ID:08x}-02 / ext4 defaults,noatime 0 1
"""
UART = "/dev/ttyAMA0"
NODE = "sat-01"
BINFMT = Path("/proc/sys/fs/binfmt_misc")


def call(*command: str | Path, **options: object) -> str:
    """Run a program; its standard output. Ends the script with the program's words when it fails."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    if done.returncode != 0:
        sys.exit(f"{command[0]} failed with {done.returncode}: {(done.stderr or done.stdout).strip()[-2000:]}")
    return str(done.stdout)


@contextmanager
def foreign_programs() -> Iterator[None]:
    """Let this machine run arm64 programs by qemu-user, for a while."""
    is_mounted = (BINFMT / "register").exists()
    if not is_mounted:
        call("mount", "-t", "binfmt_misc", "binfmt_misc", BINFMT)
    was_enabled = (BINFMT / "qemu-aarch64").exists()
    if not was_enabled:
        call("update-binfmts", "--enable", "qemu-aarch64")
    try:
        yield
    finally:
        if not was_enabled:
            call("update-binfmts", "--disable", "qemu-aarch64")
        if not is_mounted:
            call("umount", BINFMT)


def root_tar(folder: Path) -> Path:
    """The root file system of Debian's packages, configured, as a tar file in the cache."""
    digest = hashlib.sha256("\n".join((SUITE, *PACKAGES)).encode()).hexdigest()[:16]
    tar = folder / f"root-{digest}.tar"
    if tar.exists():
        return tar
    started_s = time.monotonic()
    new = tar.with_suffix(".new.tar")
    with foreign_programs(), tempfile.TemporaryDirectory(dir=_scratch()) as scratch:
        options = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale")]
        call(
            "mmdebstrap", "--mode=root", "--variant=minbase", "--architectures=arm64", *options,
            '--aptopt=Acquire::Languages "none"', f"--include={','.join(PACKAGES)}", SUITE, new, mirror(),
            env=os.environ | {"TMPDIR": scratch},
        )  # fmt: skip
    new.rename(tar)
    print(f"root file system: {time.monotonic() - started_s:.0f} s, cached as {tar}", flush=True)
    return tar


def stock_image(tar: Path, folder: Path, work: Path) -> tuple[Path, Path, Path]:
    """(image, kernel, initrd): MBR, FAT32 boot partition and ext4 root, as a stock image has them."""
    tree = work / "tree"
    tree.mkdir()
    call("tar", "-C", tree, "--numeric-owner", "-xf", tar)
    (tree / "etc/fstab").write_text(FSTAB)
    (tree / "etc/hostname").write_text("raspberrypi\n")
    (tree / "etc/machine-id").write_text("uninitialized\n")
    (tree / "etc/cloud/cloud.cfg.d/99_raspberry-pi.cfg").write_text(CLOUD_SETTING)
    (tree / "boot/firmware").mkdir(exist_ok=True)
    for link in ("etc/systemd/system/serial-getty@ttyAMA0.service", "etc/systemd/system/apt-daily.timer"):
        (tree / link).symlink_to("/dev/null")
    kernel, initrd = folder / "vmlinuz", folder / "initrd.img"
    shutil.copy(sorted((tree / "boot").glob("vmlinuz-*"))[-1], kernel)
    shutil.copy(sorted((tree / "boot").glob("initrd.img-*"))[-1], initrd)
    image, boot, root = folder / "stock.img", work / "boot.fat", work / "root.ext4"
    for path, size_bytes in ((boot, BOOT_BYTES), (root, ROOT_BYTES)):
        path.touch()
        os.truncate(path, size_bytes)
    call("mkfs.vfat", "-F", "32", "-s", "4", "-n", "bootfs", boot)
    for name, text in BOOT_FILES.items():
        (work / name).write_text(text)
        call("mcopy", "-i", boot, work / name, f"::{name}")
    call("mke2fs", "-q", "-F", "-t", "ext4", "-L", "rootfs", "-d", tree, root)
    shutil.rmtree(tree)
    entry = "<B3sB3sII"
    rows = struct.pack(entry, 0, bytes(3), 0x0C, bytes(3), START_BYTES // 512, BOOT_BYTES // 512)
    rows += struct.pack(entry, 0, bytes(3), 0x83, bytes(3), (START_BYTES + BOOT_BYTES) // 512, ROOT_BYTES // 512)
    with image.open("wb") as file:
        file.write(bytes(440) + struct.pack("<IH", DISK_ID, 0) + rows + bytes(32) + b"\x55\xaa")
        file.truncate(START_BYTES + BOOT_BYTES + ROOT_BYTES)
    for path, at in ((boot, START_BYTES), (root, START_BYTES + BOOT_BYTES)):
        call("dd", f"if={path}", f"of={image}", "bs=1M", f"seek={at >> 20}", "conv=notrunc,sparse")
    return image, kernel, initrd


def settings(folder: Path) -> Path:
    """Settings of a node on the UART, with keys."""
    shutil.copytree(ROOT / "examples" / "one-node", folder)
    path = folder / "node.toml"
    path.write_text(re.sub(r'^url = ".*"$', f'url = "serial://{UART}?baud=115200"', path.read_text(), flags=re.M))
    flatrack = [sys.executable, "-m", "hil.cli", "keys", "create", str(ROOT / "examples/three.toml")]
    call(*flatrack, "--folder", folder / "keys", "--pairs", "ground", cwd=ROOT)
    return folder


def prepared(image: Path, settings_folder: Path, card: Path, wheelhouse: Path | None) -> None:
    """The card, made by the command."""
    command = [sys.executable, "-m", "hil.cli", "board", "prepare", "--board", "raspberry-pi-5", "--node", NODE]
    command += ["--image", str(image), "--out", str(card), "--settings", str(settings_folder)]
    if wheelhouse is not None:
        command += ["--from", str(wheelhouse)]
    started_s = time.monotonic()
    print(call(*command, cwd=ROOT), end="")
    print(f"prepared in {time.monotonic() - started_s:.1f} s", flush=True)


async def boot(card: Path, kernel: Path, initrd: Path, settings_folder: Path, work: Path, limit_s: float) -> float:
    """Boot a card until its node speaks; how long it took [s]."""
    line = call("mtype", "-i", f"{card}@@{START_BYTES}", "::cmdline.txt").strip()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    console = work / "console.log"
    command = [
        "qemu-system-aarch64", "-M", "virt", "-cpu", "max,pauth-impdef=on", "-smp", "2", "-m", "1024", "-accel", "tcg",
        "-nodefaults", "-display", "none", "-no-reboot", "-rtc", "base=utc", "-nic", "none",
        "-kernel", str(kernel), "-initrd", str(initrd), "-append", f"{line} console=hvc0",
        "-drive", f"file={card},format=raw,if=none,id=d0", "-device", "virtio-blk-pci,drive=d0",
        "-chardev", f"socket,id=uart,host=127.0.0.1,port={port},server=on,wait=off", "-serial", "chardev:uart",
        "-device", "virtio-serial-pci", "-chardev", f"file,id=con,path={console}", "-device", "virtconsole,chardev=con",
    ]  # fmt: skip
    node = load_settings(settings_folder / "node.toml", NodeSettings).node
    started_s = time.monotonic()
    machine = await asyncio.create_subprocess_exec(*command)
    try:
        await asyncio.sleep(1.0)  # QEMU listens
        async with Listener(f"socket://127.0.0.1:{port}", node.node, node.interfaces) as listener:
            await listener.restarts()
            await listener.stopped()
            beacon = await listener.wait(limit_s)
            took_s = time.monotonic() - started_s
            print(f"beacon of node {beacon.node}: boot {beacon.boot_count}, mode {beacon.mode.name}", flush=True)
    except FlatrackError as error:
        tail = console.read_text(errors="replace").splitlines()[-60:]
        sys.exit("\n".join([*tail, f"{type(error).__name__}: {error}"]))
    finally:
        machine.kill()
        await machine.wait()
    return took_s


def cleared(card: Path) -> list[str]:
    """Which files are left in our folder on the boot partition after the first boot."""
    listing = call("mdir", "-/", "-b", "-i", f"{card}@@{START_BYTES}", "::/flatrack")
    return sorted(line.removeprefix("::/flatrack/") for line in listing.splitlines() if line and not line.endswith("/"))


def main() -> None:
    """Do it all."""
    parser = argparse.ArgumentParser(description="A prepared card, from a stock image to its beacon.")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "card", help="cache, and where the card goes")
    parser.add_argument("--from", dest="wheelhouse", type=Path, help="wheels for the board; without, pip is asked")
    parser.add_argument("--limit-s", type=float, default=1200.0, help="longest first boot [s]")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    tar = root_tar(given.folder)
    with tempfile.TemporaryDirectory(dir=_scratch()) as folder:
        work = Path(folder)
        image, kernel, initrd = stock_image(tar, given.folder, work)
        card = given.folder / "card.img"
        card.unlink(missing_ok=True)
        settings_folder = settings(work / "settings")
        prepared(image, settings_folder, card, given.wheelhouse)
        took_s = asyncio.run(boot(card, kernel, initrd, settings_folder, work, given.limit_s))
    print(f"first boot of a prepared card to its beacon: {took_s:.1f} s")
    left = cleared(card)
    print("left on the card:", *left)
    if any(name.startswith(("files/", "wheels/", "request")) for name in left):
        sys.exit("settings or wheels are still on the card")


def _scratch() -> str | None:
    """Memory where there is room: a build of many small files takes half the time there."""
    memory = Path("/dev/shm")
    return str(memory) if memory.is_dir() and shutil.disk_usage(memory).free > 6 << 30 else None


if __name__ == "__main__":
    main()
