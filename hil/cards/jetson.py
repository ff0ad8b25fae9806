"""NVIDIA's own commands that bring JetPack onto a Jetson: printed, never run.

A Jetson has no card that could be prepared: its boot software lies in flash memory that only NVIDIA's tools write, from
an x86-64 machine with Ubuntu over USB. After that it is a board like others, for `flatrack board deploy`.

| what | source | tried |
|---|---|---|
| L4T 36 (JetPack 6): command for NVMe and QSPI | Jetson Linux 36.3, Developer Guide, Quick Start | documented only |
| AGX Orin: `flash.sh ... internal` | the same | documented only |
| preset user | README of the tool in Linux_for_Tegra/tools | not verified: from memory |
| L4T 38, 39 (JetPack 7) | the guide of 38.4 sends owners of an Orin to 36.4; that of 39.2 has it again | not verified |
"""

from typing import Final

NAMES: Final = ("jetson-orin-nano", "jetson-orin-nx", "jetson-agx-orin")

_NVME: Final = """\
sudo ./tools/kernel_flash/l4t_initrd_flash.sh --external-device nvme0n1p1 \\
  -c tools/kernel_flash/flash_l4t_t234_nvme.xml \\
  -p "-c bootloader/generic/cfg/flash_t234_qspi.xml" \\
  --showlogs --network usb0 jetson-orin-nano-devkit internal"""
_INTERNAL: Final = "sudo ./flash.sh jetson-agx-orin-devkit internal"
_FLASHERS: Final = {
    "jetson-orin-nano": (_NVME, "an NVMe disk in the developer kit"),
    "jetson-orin-nx": (_NVME, "an NVMe disk, the module on the carrier board of the Orin Nano developer kit"),
    "jetson-agx-orin": (_INTERNAL, "the eMMC of the developer kit"),
}


def flash_text(kind: str, name: str) -> str:
    """What to do to flash a Jetson, and what after, as it is printed.

    Args:
        kind: of the board, one of `NAMES`.
        name: of the node.
    """
    command, place = _FLASHERS[kind]
    return f"""\
# {kind}, L4T 36 (JetPack 6), onto {place}.
# Documented by NVIDIA (Jetson Linux 36.3, Quick Start); never run by us.
# On an x86-64 machine with Ubuntu 20.04 or 22.04, in Linux_for_Tegra. So that the board does not wait for somebody at
# its first boot (from memory, not verified):
sudo ./tools/l4t_create_default_user.sh -u flatrack -p PASSWORD -n {name} --accept-license
# then, the board in recovery mode and joined by USB:
{command}

# After its first boot, on the board: take the console off the UART on pins 8 and 10
sudo systemctl disable --now nvgetty
# and from here:
ssh-copy-id flatrack@{name}.local
flatrack board deploy {name}
"""
