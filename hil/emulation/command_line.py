"""QEMU's command line for one board: which devices it has, and which file or socket each leads to.

Source: QEMU 7.2, qemu-system-aarch64(1); Linux 6.1, Documentation/admin-guide/ramoops.rst.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hil.emulation.image import ImageFiles
from hil.emulation.memory import RAM_BASE

RAM_MIB: Final = 512
"""RAM of a board on QEMU's virt machine unless it says otherwise [MiB]: a Raspberry Pi Zero 2 W's."""
RASPI3B_RAM_MIB: Final = 1024
"""What that machine has [MiB]; QEMU 7.2 takes no other."""
RECORD_MIB: Final = 1
"""At the top of RAM, for the kernel's last words (ramoops) [MiB]: a reset leaves them, a power cut does not."""
CPU: Final = "cortex-a72"
"""A Raspberry Pi 4's. Within a tenth as fast as all others; without the pointer authentication, vectors and unknown
vendor of QEMU's `max`, which ONNX Runtime warns of."""
CODE_MIB: Final = 256
"""What QEMU keeps of translated code [MiB]: a boot and a job take a third; its own choice, 1 GiB, is too much for eight
boards."""
AGENT_PORT: Final = "flatrack.agent"
DISK: Final = "/machine/peripheral/disk"
"""Where QEMU's object tree has the drive."""
OVERLAY: Final = "overlay"
"""Node of the disk's file, below faults and recorders."""


@dataclass(frozen=True, slots=True)
class Wiring:
    """What leads where. Descriptors are those that QEMU inherits."""

    disk: Path
    console: Path
    memory_fd: int
    uart_fd: int
    control_fd: int
    agent_fd: int
    """Ignored by the Raspberry Pi 3 machine, which has no port for it."""
    gdb: Path | None
    ssh_port: int | None
    """TCP port of loopback that leads to the guest's sshd."""
    watchdog_resets: bool


def arguments(files: ImageFiles, wiring: Wiring, ram_mib: int) -> list[str]:
    """Arguments of `qemu-system-aarch64` for a board of this image."""
    common = [
        "-accel", f"tcg,tb-size={CODE_MIB}", "-nodefaults", "-display", "none", "-rtc", "base=utc",
        "-kernel", str(files.kernel), "-initrd", str(files.initrd),
        "-chardev", f"socket,id=uart,fd={wiring.uart_fd},server=on,wait=off", "-serial", "chardev:uart",
        "-chardev", f"socket,id=qmp,fd={wiring.control_fd},server=on,wait=off", "-mon", "chardev=qmp,mode=control",
        "-chardev", f"file,id=console,path={_escaped(wiring.console)},append=on",
    ]  # fmt: skip
    if wiring.gdb is not None:
        common += ["-gdb", f"unix:{_escaped(wiring.gdb)},server=on,wait=off"]
    return common + (_virt(wiring, ram_mib) if files.dtb is None else _raspi3b(files.dtb, wiring))


def _virt(wiring: Wiring, ram_mib: int) -> list[str]:
    memory = f"memory-backend-file,id=ram0,size={ram_mib}M,mem-path=/proc/self/fd/{wiring.memory_fd},share=on"
    network = "user,id=net"
    if wiring.ssh_port is not None:
        network += f",hostfwd=tcp:127.0.0.1:{wiring.ssh_port}-:22"
    record = {
        "mem_address": RAM_BASE + ((ram_mib - RECORD_MIB) << 20),
        "mem_size": RECORD_MIB << 20,
        "record_size": 0x2_0000,
        "ecc": 1,
    }
    words = ["console=hvc0", "root=/dev/vda", "quiet", "net.ifnames=0", "panic=2", f"mem={ram_mib - RECORD_MIB}M"]
    words += [f"ramoops.{name}={value:#x}" for name, value in record.items()]
    return [
        "-M", "virt,memory-backend=ram0", "-object", memory, "-m", str(ram_mib), "-cpu", CPU, "-smp", "1",
        "-append", " ".join(words),
        "-blockdev", f"driver=file,node-name=file,filename={_escaped(wiring.disk)}",
        "-blockdev", f"driver=qcow2,node-name={OVERLAY},file=file,discard=unmap",
        "-device", f"virtio-blk-pci,id=disk,drive={OVERLAY},werror=report,rerror=report",
        "-device", "virtio-serial-pci", "-device", "virtconsole,chardev=console",
        "-chardev", f"socket,id=agent,fd={wiring.agent_fd},server=on,wait=off",
        "-device", f"virtserialport,chardev=agent,name={AGENT_PORT}",
        "-device", "virtio-rng-pci", "-device", "i6300esb",
        "-action", f"watchdog={'reset' if wiring.watchdog_resets else 'none'}",
        "-netdev", network, "-device", "virtio-net-pci,netdev=net,romfile=",
    ]  # fmt: skip


def _raspi3b(dtb: Path, wiring: Wiring) -> list[str]:
    words = ["root=/dev/mmcblk0", "rootwait", "console=ttyS1,115200", "quiet", "panic=2"]
    if not wiring.watchdog_resets:
        words.append("systemd.watchdog_sec=off")
    return [
        "-M", "raspi3b", "-dtb", str(dtb), "-serial", "chardev:console", "-append", " ".join(words),
        "-drive", f"file={_escaped(wiring.disk)},format=qcow2,if=sd",
    ]  # fmt: skip


def _escaped(path: Path) -> str:
    """A path inside an option, where commas stand twice."""
    return str(path).replace(",", ",,")
