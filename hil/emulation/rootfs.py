"""The root file system of Debian packages: unpacked for arm64 without running one foreign instruction.

`mmdebstrap --variant=extract` unpacks the packages and runs none of their maintainer scripts. What of those a board
needs is done here by hand: accounts, links, byte code. The result is one tar file in the cache, from which a change of
our own code costs only the last step (`hil.emulation.assembly`).
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from flightsw.errors import ConfigError
from hil.emulation.kernel_modules import prune
from hil.emulation.recipe import Recipe
from hil.emulation.tools import call

ARCHITECTURE: Final = "arm64"
KERNEL: Final = "vmlinuz"
DTB: Final = "bcm2837-rpi-3-b.dtb"
BLUETOOTH: Final = "/soc/serial@7e201000/bluetooth"
"""In the device tree of the Raspberry Pi 3: with it, the Bluetooth driver takes the PL011 that is our link."""
APT_SOURCES: Final = Path("/etc/apt")
MIRROR_VARIABLE: Final = "FLATRACK_DEBIAN_MIRROR"
SHADOW_DAYS: Final = 19_000
"""Date of the last change of passwords [days since 1970]: any in the past."""


def mirror(sources: Path = APT_SOURCES) -> str:
    """URI of the Debian mirror: of the environment, or the first that the machine's apt sources name.

    Raises:
        ConfigError: none is named.
    """
    if given := os.environ.get(MIRROR_VARIABLE):
        return given
    files = sorted(path for path in sources.rglob("*") if path.suffix in (".list", ".sources"))
    for path in files:
        for line in path.read_text(errors="replace").splitlines():
            if match := re.match(r"(?:URIs:|deb\s+(?:\[[^]]*\]\s*)?)\s*(\w+://\S*debian\S*)", line.strip()):
                return match[1]
    raise ConfigError(
        f"{sources}: no apt source names a Debian mirror; set {MIRROR_VARIABLE}, for example http://deb.debian.org/debian"
    )


def make(recipe: Recipe, out: Path, work: Path) -> None:
    """Make the cached files of a recipe: `base.tar`, `vmlinuz`, `modules/` for the initramfs, the device tree.

    Args:
        recipe: of the image.
        out: empty folder for them.
        work: scratch.

    Raises:
        ConfigError: a tool is missing, we are not root, or the mirror does not give the packages.
    """
    if os.geteuid() != 0:
        raise ConfigError(
            "an image is built as root, whose files it holds; without root: fakeroot flatrack board image"
        )
    tar, tree = work / "packages.tar", work / "tree"
    options = [f"--aptopt={option}" for option in ('Acquire::Languages "none"', 'Acquire::Retries "3"')]
    options += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale")]
    call(
        "mmdebstrap", "--mode=root", "--variant=extract", f"--architectures={ARCHITECTURE}", *options,
        f"--include={','.join(recipe.packages)}", recipe.suite, tar, mirror(),
        env=os.environ | {"TMPDIR": str(work)},
    )  # fmt: skip
    tree.mkdir()
    call("tar", "-C", tree, "--numeric-owner", "-xf", tar)
    tar.unlink()
    _take(tree, "boot/vmlinuz-*", out / KERNEL)
    _take(tree, f"usr/lib/linux-image-*/broadcom/{DTB}", out / DTB)
    call("fdtput", "-r", out / DTB, BLUETOOTH)
    prune(tree, recipe, out)
    _configure(tree, recipe)
    call("tar", "-C", tree, "--numeric-owner", "--sort=name", "-cf", out / "base.tar", ".")


def write(root: Path, files: dict[str, str]) -> None:
    """Write files below a root; a leading line break is left out."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.removeprefix("\n"))


def enable(root: Path, units: tuple[str, ...]) -> None:
    """Enable units of `etc/systemd/system`: what their `WantedBy=` names wants them from now on."""
    folder = root / "etc/systemd/system"
    for unit in units:
        for line in (folder / unit).read_text().splitlines():
            if line.startswith("WantedBy="):
                wants = folder / f"{line.removeprefix('WantedBy=')}.wants"
                wants.mkdir(exist_ok=True)
                (wants / unit).symlink_to(f"../{unit}")


def compile_python(root: Path, folder: str, version: str) -> None:
    """Byte code for a folder below the root, which saves 8 to 10 s of a boot; without an interpreter of that version
    on this machine the board compiles for itself, each time. Hashes, since a file system may change time stamps."""
    is_ours = version == f"{sys.version_info.major}.{sys.version_info.minor}"
    python = sys.executable if is_ours else shutil.which(f"python{version}")
    if python is None:
        return
    command = [python, "-m", "compileall", "-q", "-j2", "--invalidation-mode", "unchecked-hash", "-s", str(root)]
    subprocess.run([*command, str(root / folder)], capture_output=True, check=False)  # some files are of Python 2


def _configure(root: Path, recipe: Recipe) -> None:
    """What the maintainer scripts would have done."""
    for name in ("passwd", "group"):
        shutil.copyfile(root / f"usr/share/base-passwd/{name}.master", root / "etc" / name)
    for link, target in {
        "bin/sh": "dash",
        "etc/os-release": "../usr/lib/os-release",
        "usr/bin/python3": f"python{recipe.python}",
        "etc/systemd/system/default.target": "/lib/systemd/system/multi-user.target",
        "etc/resolv.conf": "/run/resolv.conf",
    }.items():
        path = root / link
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_symlink() and (not path.exists() or link == "etc/resolv.conf"):
            path.unlink(missing_ok=True)
            path.symlink_to(target)
    (root / "etc/hostname").unlink(missing_ok=True)
    write(root, recipe.files)
    call("systemd-sysusers", f"--root={root}")
    _shadow(root)
    for unit in recipe.masked:
        path = root / "etc/systemd/system" / unit
        path.unlink(missing_ok=True)
        path.symlink_to("/dev/null")
    enable(root, recipe.enabled)
    for pattern in recipe.left_out:
        for path in sorted(root.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    compile_python(root, f"usr/lib/python{recipe.python}", recipe.python)


def _shadow(root: Path) -> None:
    """Nobody has a password; keys open sshd to root."""

    def names(file: str) -> Iterator[str]:
        return (line.split(":", 1)[0] for line in (root / "etc" / file).read_text().splitlines())

    for name, of, rest in (("shadow", "passwd", f":*:{SHADOW_DAYS}:0:99999:7:::"), ("gshadow", "group", ":*::")):
        path = root / "etc" / name
        path.write_text("".join(f"{entry}{rest}\n" for entry in names(of)))
        path.chmod(0o640)


def _take(tree: Path, pattern: str, to: Path) -> None:
    found = sorted(tree.glob(pattern))
    if not found:
        raise ConfigError(f"the packages have no {pattern}; expected one file")
    shutil.copyfile(found[-1], to)
