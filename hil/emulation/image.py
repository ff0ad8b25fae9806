"""The arm64 image of an emulated board, built once for what it is made of.

Three steps, each cached by the digest of what goes into it: Debian's packages (half a minute and a download), the
arm64 wheels that we depend on, and the disk with our own code (seconds). One image serves both machines; QEMU's
Raspberry Pi 3 takes its device tree besides.
"""

import os
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal

from hil.emulation import assembly, kernel_modules, recipe, rootfs, tools, wheels
from hil.emulation.cache import locked, new_folder

Target = Literal["qemu-virt", "qemu-raspi3b"]
TARGETS: Final[tuple[Target, ...]] = ("qemu-virt", "qemu-raspi3b")
DISK: Final = "disk.img"
KEPT: Final = {"image-*": 4, "base-*": 2, "site-*": 2}
"""How many of each the cache keeps: of the newest code, and of what runs meanwhile."""
BUILD_TOOLS: Final = ("mmdebstrap", "mke2fs", "depmod", "systemd-sysusers", "ssh-keygen", "fdtput", "tar")
BASE_SOURCES: Final = ("rootfs", "kernel_modules")
SITE_SOURCES: Final = ("rootfs", "assembly", "wheels")
"""Our modules whose text decides what the cached files are."""


def cache_folder() -> Path:
    """Where images are kept unless somebody says otherwise: `$XDG_CACHE_HOME/flatrack/emulation`."""
    return wheels.cache_folder("emulation")


@dataclass(frozen=True)
class ImageFiles:
    """An image that is there."""

    target: Target
    folder: Path
    """Of the cache; the image's own files lie below it."""
    kernel: Path
    initrd: Path
    disk: Path
    """Raw, read only by agreement: machines write to overlays."""
    dtb: Path | None
    """Device tree; None where the machine brings its own."""
    digest: str
    """Of all that it was made of."""


def build(target: Target, folder: Path, *, is_bench: bool = True, key: str = "") -> ImageFiles:
    """Build an image, or find it in the cache. Another process that builds in the same folder is waited for.

    Args:
        target: the machine that is to boot it.
        folder: of the cache; made when missing.
        is_bench: whether the on-board fault agent runs on it, and may.
        key: OpenSSH public key of who may log in as root; empty for nobody.

    Raises:
        ConfigError: a tool or the mirror is missing, or a step fails; says what to install.
    """
    made_of, own = recipe.load(), wheels.own_files()
    needed = wheels.requirements()
    base_digest = recipe.digest(recipe.RECIPE.read_text(), *_texts(BASE_SOURCES))
    site_digest = recipe.digest(made_of.python, *needed, *_texts(SITE_SOURCES))
    digest = recipe.digest(base_digest, site_digest, wheels.own_digest(own), str(is_bench), key)
    base, site = folder / f"base-{base_digest}", folder / f"site-{site_digest}"
    image = folder / f"image-{digest}"
    files = ImageFiles(
        target=target,
        folder=folder,
        kernel=base / rootfs.KERNEL,
        initrd=base / kernel_modules.INITRD,
        disk=image / DISK,
        dtb=base / rootfs.DTB if target == "qemu-raspi3b" else None,
        digest=digest,
    )
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock"):
        for path in (base, site, image):
            if path.is_dir():
                os.utime(path)
        if image.is_dir() and base.is_dir():
            return files
        for name in BUILD_TOOLS:
            tools.find(name)
        if not base.is_dir():
            with new_folder(base) as new, tools.scratch_folder() as work:
                rootfs.make(made_of, new, Path(work))
        if not site.is_dir():
            install = partial(wheels.install_dependencies, needed, python=made_of.python)
            with new_folder(site) as new, tools.scratch_folder() as work:
                assembly.make_site(made_of, new / "site.tar", Path(work), install)
        with new_folder(image) as new, tools.scratch_folder() as work:
            tars = (base / "base.tar", site / "site.tar")
            disk = new / DISK
            assembly.make_disk(made_of, tars, own, disk, Path(work), is_bench=is_bench, key=key)
        _forget_old(folder)
    return files


def _texts(names: tuple[str, ...]) -> list[str]:
    return [Path(__file__).with_name(f"{name}.py").read_text() for name in names]


def _forget_old(folder: Path) -> None:
    for pattern, count in KEPT.items():
        found = sorted((path for path in folder.glob(pattern) if path.is_dir()), key=lambda path: path.stat().st_mtime)
        for old in found[:-count]:
            shutil.rmtree(old)
