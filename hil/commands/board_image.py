"""`flatrack board image`: the bootable arm64 image of an emulated board. docs/boards/emulated.md."""

import shutil
from pathlib import Path

import click

from flightsw.errors import ConfigError
from hil.emulation.command_line import CPU, RAM_MIB
from hil.emulation.image import TARGETS, ImageFiles, Target, build, cache_folder
from hil.emulation.machine import QEMU


@click.command(name="image")
@click.option("--target", type=click.Choice(TARGETS), default=TARGETS[0], show_default=True, help="Machine of QEMU.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Also put the files into this folder.")
@click.option("--key", type=click.Path(path_type=Path), help="OpenSSH public key of who may log in as root.")
@click.option("--flight", is_flag=True, help="Leave out the on-board fault agent and the permission that it needs.")
def image_command(target: Target, out: Path | None, key: Path | None, flight: bool) -> None:
    """Build the arm64 image of a board from Debian's packages and this flatrack, or find it in the cache.

    Needs root, whose files the image holds, or fakeroot; runs no foreign code.
    """
    try:
        text = "" if key is None else key.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--key {key}: {error}, expected a public key such as ~/.ssh/id_ed25519.pub") from None
    if text and not text.startswith(("ssh-", "ecdsa-", "sk-")):
        raise ConfigError(f"--key {key}: expected a public key such as ~/.ssh/id_ed25519.pub")
    files = build(target, cache_folder(), is_bench=not flight, key=text)
    shown = files if out is None else _copied(files, out)
    for path in (shown.kernel, shown.initrd, shown.dtb, shown.disk):
        if path is not None:
            click.echo(path)
    click.echo("\nBoot it by hand; its console is this terminal, its UART a pseudo-terminal that QEMU names:\n")
    click.echo(_by_hand(shown))


def _copied(files: ImageFiles, out: Path) -> ImageFiles:
    try:
        out.mkdir(parents=True, exist_ok=True)
        for path in (files.kernel, files.initrd, files.dtb, files.disk):
            if path is not None:
                shutil.copyfile(path, out / path.name)
    except OSError as error:
        raise ConfigError(f"--out {out}: {error.strerror or error}") from None
    dtb = None if files.dtb is None else out / files.dtb.name
    return ImageFiles(
        files.target, out, out / files.kernel.name, out / files.initrd.name, out / files.disk.name, dtb, files.digest
    )


def _by_hand(files: ImageFiles) -> str:
    """A command line for a shell; nothing is written to the disk."""
    if files.dtb is not None:
        lines = [
            f"{QEMU} -M raspi3b -display none -kernel {files.kernel} -initrd {files.initrd} -dtb {files.dtb}",
            "-append 'root=/dev/mmcblk0 rootwait console=ttyS1,115200'",
            f"-drive file={files.disk},format=raw,if=sd,snapshot=on -serial pty -serial mon:stdio",
        ]
    else:
        lines = [
            f"{QEMU} -M virt -cpu {CPU} -m {RAM_MIB} -nodefaults -display none -kernel {files.kernel}",
            f"-initrd {files.initrd} -append 'console=hvc0 root=/dev/vda net.ifnames=0' -serial pty",
            f"-drive file={files.disk},format=raw,if=none,id=disk,snapshot=on -device virtio-blk-pci,drive=disk",
            "-device virtio-serial-pci -chardev stdio,id=console,mux=on -device virtconsole,chardev=console",
            "-netdev user,id=net,hostfwd=tcp:127.0.0.1:2222-:22 -device virtio-net-pci,netdev=net,romfile=",
        ]
    return " \\\n  ".join(lines)
