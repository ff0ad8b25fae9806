"""Which board this is: by its device tree, NVIDIA's release file, or the DMI table of a PC.

Sources: `/proc/device-tree/{model,compatible}`; the `compatible` of Jetson modules is p3767 for Orin Nano and NX, p3701
for AGX Orin; `/etc/nv_tegra_release` begins `# R36 (release), REVISION: 4.0`.
"""

import platform
import re
from dataclasses import dataclass
from typing import Final

from boards import profiles
from boards.support.sysfs import BoardFiles
from flightsw.errors import SensorError

RASPBERRY_PI: Final = "raspberry-pi"
JETSON: Final = "jetson"
HOST: Final = "host"
FAMILIES: Final = (RASPBERRY_PI, JETSON, HOST)

PROFILES: Final = (
    ("raspberrypi,5-model-b", "raspberry-pi-5"),
    ("raspberrypi,5-compute-module", "raspberry-pi-5"),
    ("raspberrypi,500", "raspberry-pi-5"),
    ("raspberrypi,4-model-b", "raspberry-pi-4"),
    ("raspberrypi,4-compute-module", "raspberry-pi-4"),
    ("raspberrypi,400", "raspberry-pi-4"),
    ("raspberrypi,model-zero-2-w", "raspberry-pi-zero-2-w"),
    ("raspberrypi,3-model-b-plus", "raspberry-pi-3"),
    ("raspberrypi,3-model-b", "raspberry-pi-3"),
    ("raspberrypi,3-model-a-plus", "raspberry-pi-3"),
    ("nvidia,p3767-0000", "jetson-orin-nx"),
    ("nvidia,p3767-0001", "jetson-orin-nx"),
    ("nvidia,p3767-0003", "jetson-orin-nano"),
    ("nvidia,p3767-0004", "jetson-orin-nano"),
    ("nvidia,p3767-0005", "jetson-orin-nano"),
    ("nvidia,p3701-0000", "jetson-agx-orin"),
    ("nvidia,p3701-0004", "jetson-agx-orin"),
    ("nvidia,p3701-0005", "jetson-agx-orin"),
    ("linux,dummy-virt", "qemu-virt"),
)
"""What a `compatible` string says of the profile that fits."""

L4T: Final = re.compile(r"# R(\d{2,3}) \(release\), REVISION: ([0-9.]{1,10})")
JETPACKS: Final = {"35": "JetPack 5", "36": "JetPack 6", "38": "JetPack 7", "39": "JetPack 7"}
"""Release of L4T -> JetPack. R38 is JetPack 7 of Thor; which one JetPack 7 of Orin carries is unverified."""
DMI: Final = "/sys/class/dmi/id"


@dataclass(frozen=True, slots=True)
class Identity:
    """A board by name."""

    model: str
    """As the board says it; empty where it says nothing."""
    compatible: tuple[str, ...]
    """Strings of the device tree, the most exact first; empty on a PC."""
    family: str
    """`raspberry-pi`, `jetson` or `host`."""
    profile: str
    """Name of the shipped profile that fits; empty where none does."""
    architecture: str
    """As `uname -m` gives it: aarch64, x86_64; empty where it is not known."""
    release: str = ""
    """Software of the maker, for example `JetPack 6 (R36.4.0)`; empty where there is none."""


def identify(files: BoardFiles) -> Identity:
    """Which board the files are of. What cannot be read is empty."""
    compatible = _strings(files, "/proc/device-tree/compatible")
    model = next(iter(_strings(files, "/proc/device-tree/model")), "")
    family = _family(compatible, model)
    profile = next((name for key, name in PROFILES if _fits(key, compatible)), "")
    if not model:
        model = " ".join(part for file in ("sys_vendor", "product_name") if (part := files.text_or(f"{DMI}/{file}")))
    architecture = files.text_or("/proc/sys/kernel/arch")  # since Linux 6.1
    if not architecture:
        if files.root.resolve().parent == files.root.resolve():
            architecture = platform.machine()
        elif family != HOST:
            architecture = "aarch64"  # every board that these families know runs a 64-bit system
    return Identity(
        model=model,
        compatible=compatible,
        family=family,
        profile=profile if profile in profiles.names() else "",
        architecture=architecture,
        release=_release(files),
    )


def _family(compatible: tuple[str, ...], model: str) -> str:
    if any(text.startswith(("raspberrypi,", "brcm,bcm2")) for text in compatible) or model.startswith("Raspberry Pi"):
        return RASPBERRY_PI
    if any(text.startswith(("nvidia,p3767", "nvidia,p3701", "nvidia,tegra")) for text in compatible):
        return JETSON
    return HOST


def _fits(key: str, compatible: tuple[str, ...]) -> bool:
    """Module numbers of NVIDIA stand alone or behind their carrier's: `nvidia,p3768-0000+p3767-0005`."""
    module = key.rpartition(",")[2]
    return any(text == key or text.endswith(f"+{module}") for text in compatible)


def _release(files: BoardFiles) -> str:
    found = L4T.match(files.text_or("/etc/nv_tegra_release"))
    if found is None:
        return ""
    return f"{JETPACKS.get(found[1], 'L4T')} (R{found[1]}.{found[2]})"


def _strings(files: BoardFiles, name: str) -> tuple[str, ...]:
    try:
        return files.strings(name)
    except SensorError:
        return ()
