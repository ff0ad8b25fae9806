"""A stock image becomes a node: what is written on its boot partition, and nothing else of it.

| file on the boot partition | is |
|---|---|
| `config.txt`, `cmdline.txt` | as they were, with the edits of `hil.cards.boot_files` |
| `user-data`, `meta-data`, `network-config` | for cloud-init: `hil.cards.cloud_config` |
| `flatrack/request.json` | which release is to be installed: digests, and where each file of it goes |
| `flatrack/wheels/` | what a deployment would send: our wheel and what it depends on |
| `flatrack/files/` | settings, keys and the unit of the service |
| `flatrack/program/` | what installs it on the board (`hil.cards.first_boot`), beside its unit |

The release is the one that `flatrack board deploy` would make of the same settings, so that a later deployment takes
over, or finds nothing to do. No mount, no root, and no program but debugfs(8), where it is there, to see which Python
the image has.
"""

import inspect
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from flightsw.errors import ConfigError
from hil.cards import cloud_config, first_boot
from hil.cards.boot_files import COMMAND_LINE, CONFIG, command_line_text, config_text
from hil.cards.cloud_config import FOLDER, META_DATA, NETWORK_CONFIG, SERVICE, SERVICE_TEXT, USER_DATA, Login
from hil.cards.fat import FatVolume
from hil.cards.images import unpack
from hil.cards.partitions import Partition, boot_partition, partitions
from hil.inventory import board_side
from hil.inventory.releases import Release, release_of
from hil.inventory.wheelhouse import PYTHON_MIN, Target, Wheel

ARCHITECTURE: Final = "aarch64"
GLIBC_MINORS: Final = {(3, 11): 36, (3, 12): 39, (3, 13): 41}
"""Python -> glibc 2.x of the distributions that have it: Debian 12, Ubuntu 24.04, Debian 13."""
PYTHON_LINK: Final = "/usr/bin/python3"
SPARE_BYTES: Final = 16 << 20
"""What stays free on the boot partition [bytes]: an update of the firmware and kernel of a board needs some."""
PART_SUFFIX: Final = ".part"
DEBUGFS_S: Final = 30.0

_LINK: Final = re.compile(r'link dest: "python(\d)\.(\d+)"')

WheelSource = Callable[[Target], list[Wheel]]
"""Finds the wheels for a machine."""


@dataclass(frozen=True, slots=True)
class Node:
    """What a card is prepared for."""

    name: str
    board: str
    """Its kind, one of `hil.cards.boot_files.UART_LINES`."""
    settings: Path
    """Folder of `node.toml` and what it names."""
    instance: str
    """Name of this preparation, unlike all before."""
    login: Login | None = None
    network: bytes | None = None
    """Content of network-config; None for a cable with DHCP."""
    python: tuple[int, int] | None = None
    """Python of the image; None to look."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What was written."""

    release: Release
    files: dict[str, int]
    """Name on the boot partition -> size [bytes]."""
    size_bytes: int
    """Of the image."""
    free_bytes: int
    """Left on the boot partition."""


def prepare(image: Path, out: Path, node: Node, wheels: WheelSource) -> Prepared:
    """Make a card's image for a node.

    Args:
        image: a stock image, packed or not; it is not changed.
        out: a name that is not there yet. The image comes to it when all is done.
        node: what for.
        wheels: finds the wheels for the image's machine.

    Raises:
        ConfigError: the image, the settings or the wheels cannot be used, or do not fit; nothing is left at `out`.
    """
    if out.exists():
        raise ConfigError(f"{out}: is there already, expected a new file")
    part = out.with_name(out.name + PART_SUFFIX)
    size_bytes = unpack(image, part)
    try:
        with part.open("r+b") as file:
            found = partitions(file, str(image), size_bytes)
            boot = boot_partition(found, str(image))
            version = node.python or python_of(part, found, boot)
            if version < PYTHON_MIN:
                wanted = ".".join(map(str, PYTHON_MIN))
                raise ConfigError(f"{image}: Python {version[0]}.{version[1]}, expected {wanted} or newer")
            target = Target(ARCHITECTURE, version, GLIBC_MINORS.get(version, min(GLIBC_MINORS.values())))
            release = _release(node, wheels(target), version)
            volume = FatVolume(file, f"{image}: boot partition", boot.start_bytes, boot.size_bytes)
            written = _write(volume, node, release, str(image))
        part.rename(out)
    except OSError as error:
        raise ConfigError(f"{out}: cannot be written: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)
    return Prepared(release, written, size_bytes, volume.free_bytes())


def python_of(image: Path, found: tuple[Partition, ...], boot: Partition) -> tuple[int, int]:
    """The Python of an image, by the link in the first partition that is not the boot partition.

    Raises:
        ConfigError: it cannot be read; says how to give it.
    """
    program = shutil.which("debugfs") or shutil.which("debugfs", path="/usr/sbin:/sbin")
    why = "the program debugfs is not installed" if program is None else f"its root has no {PYTHON_LINK}"
    for partition in found:
        if program is None or partition == boot:
            continue
        command = [program, "-R", f"stat {PYTHON_LINK}", f"{image}?offset={partition.start_bytes}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=DEBUGFS_S, check=False)
        except subprocess.TimeoutExpired:
            why = f"debugfs has not ended within {DEBUGFS_S:g} s"
            break
        if link := _LINK.search(done.stdout):
            return int(link[1]), int(link[2])
    raise ConfigError(f"which Python the image has is not known: {why}; expected --python 3.13 (Debian 13) or such")


def _release(node: Node, wheels: list[Wheel], version: tuple[int, int]) -> Release:
    python = f"{PYTHON_LINK.rstrip('3')}{version[0]}.{version[1]}"
    release = release_of(
        node.name,
        node.board,
        folder=node.settings,
        wheels=wheels,
        python=python,
        version=version,
        prefix=Path("/"),
        is_bench=False,
    )
    if release.node != node.name:
        raise ConfigError(f"{node.settings}: node.toml: node.name = {release.node!r}, expected {node.name!r}")
    return release


def _write(volume: FatVolume, node: Node, release: Release, where: str) -> dict[str, int]:
    """Write all files; returns their sizes."""
    for name in (CONFIG, COMMAND_LINE):
        if not volume.exists(name):
            raise ConfigError(f"{where}: no {name} on its boot partition, expected an image for Raspberry Pi")
    if not volume.exists(META_DATA):
        raise ConfigError(
            f"{where}: no {META_DATA} on its boot partition: it has no cloud-init, as Raspberry Pi OS before its "
            "release of October 2025; expected a newer image, or flatrack board deploy"
        )
    files = dict(_files(volume, node, release))
    volume.remove(FOLDER)
    replaced = sum(volume.needed_bytes(len(volume.read(name))) for name in files if volume.exists(name))
    needed_bytes = sum(volume.needed_bytes(len(data)) for data in files.values()) + SPARE_BYTES
    if needed_bytes > volume.free_bytes() + replaced:
        raise ConfigError(
            f"{where}: its boot partition has {volume.free_bytes() + replaced} bytes free, expected {needed_bytes}: "
            f"{len(files)} files and {SPARE_BYTES >> 20} MiB to spare"
        )
    for name, data in files.items():
        volume.write(name, data)
    volume.sync()
    return {name: len(data) for name, data in files.items()}


def _files(volume: FatVolume, node: Node, release: Release) -> Iterator[tuple[str, bytes]]:
    """Name and content of every file that is written; what asks for a first boot comes last."""
    config = _text(volume, CONFIG)
    yield CONFIG, config_text(config, node.board).encode("latin-1")
    yield COMMAND_LINE, command_line_text(_text(volume, COMMAND_LINE), node.instance, node.board).encode("latin-1")
    yield META_DATA, cloud_config.meta_data(node.name, node.instance).encode()
    yield NETWORK_CONFIG, node.network or cloud_config.network_config().encode()
    yield f"{FOLDER}/{SERVICE}", SERVICE_TEXT.encode()
    for module in (board_side, first_boot):
        path = Path(module.__name__.replace(".", "/") + ".py")
        yield f"{FOLDER}/program/{path}", Path(inspect.getfile(module)).read_bytes()
    for wheel in release.wheels:
        yield f"{FOLDER}/{first_boot.WHEELS}/{wheel.path.name}", wheel.path.read_bytes()
    for name, (_, data) in release.files.items():
        yield f"{FOLDER}/{first_boot.FILES}/{name}", data
    yield f"{FOLDER}/{first_boot.REQUEST}", msgspec.json.format(msgspec.json.encode(_request(release)), indent=1)
    yield USER_DATA, cloud_config.user_data(node.name, node.login).encode()


def _request(release: Release) -> dict[str, Any]:
    """What `hil.cards.first_boot` is asked for."""
    return {
        "release": release.digest,
        "environment": release.environment,
        "wheels": [wheel.sha256 for wheel in release.wheels],
        "wheel_files": [[wheel.path.name, wheel.sha256] for wheel in release.wheels],
        "files": [[name, mode] for name, (mode, _) in release.files.items()],
        "about": {"node": release.node, "version": release.version},
    }


def _text(volume: FatVolume, name: str) -> str:
    """The text of a boot file; its bytes all mean something in Latin-1, so that nothing of it is lost."""
    return volume.read(name).decode("latin-1")
