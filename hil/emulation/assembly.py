"""The last step of an image: root file system, dependencies and our code become one disk with an ext4 file system.

No mount, no loop device: `mke2fs -d` makes the file system straight from a folder. It takes seconds, and is all that a
change of our code costs.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from hil.emulation import rootfs
from hil.emulation.recipe import Recipe
from hil.emulation.tools import call

FACTORY: Final = "opt/flatrack/factory"
"""The environment that the image comes with, below the root; updates go into slots beside it (docs/update.md)."""
STATE: Final = "var/lib/flatrack"
HOST_KEY: Final = "etc/ssh/ssh_host_ed25519_key"


def site_packages(recipe: Recipe) -> str:
    """Where the packages of the environment lie, below the root."""
    return f"{FACTORY}/lib/python{recipe.python}/site-packages"


def make_site(recipe: Recipe, tar: Path, work: Path, install: Callable[[Path], None]) -> None:
    """Pack the dependencies of our code, with their byte code, as a tar file below the root.

    Args:
        recipe: of the image.
        tar: to be written.
        work: scratch.
        install: puts the packages into a folder.
    """
    packages = work / site_packages(recipe)
    packages.mkdir(parents=True)
    install(packages)
    rootfs.compile_python(work, site_packages(recipe), recipe.python)
    call("tar", "-C", work, "--numeric-owner", "--owner=0", "--group=0", "--sort=name", "-cf", tar, ".")


def make_disk(
    recipe: Recipe, tars: tuple[Path, ...], own: dict[str, bytes], disk: Path, work: Path, *, is_bench: bool, key: str
) -> None:
    """Write the disk of an image.

    Args:
        recipe: of the image.
        tars: to unpack at the root.
        own: files of our wheel.
        disk: file to be written, sparse.
        work: scratch.
        is_bench: whether the on-board fault agent runs, and may.
        key: OpenSSH public key of who may log in as root; empty for nobody.
    """
    root = work / "root"
    root.mkdir()
    for tar in tars:
        call("tar", "-C", root, "--numeric-owner", "-xf", tar)
    packages = root / site_packages(recipe)
    for name, data in own.items():
        path = packages / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    for package in ("flightsw", "boards", "ground", "hil"):
        rootfs.compile_python(root, f"{site_packages(recipe)}/{package}", recipe.python)
    _make_environment(root / FACTORY, recipe.python)
    (root / STATE).mkdir(parents=True)
    (root / "etc/flatrack").mkdir(exist_ok=True)
    if is_bench:
        rootfs.write(root, recipe.files_on_bench)
        rootfs.enable(root, recipe.enabled_on_bench)
    call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "flatrack", "-f", root / HOST_KEY)
    if key:
        rootfs.write(root, {"root/.ssh/authorized_keys": key.strip() + "\n"})
        (root / "root/.ssh").chmod(0o700)
    with disk.open("wb") as file:
        file.truncate(recipe.disk_bytes)
    options = ("-q", "-F", "-t", "ext4", "-L", "flatrack", "-E", "lazy_itable_init=0,lazy_journal_init=0")
    call("mke2fs", *options, "-d", root, disk)
    shutil.rmtree(root)


def _make_environment(folder: Path, python: str) -> None:
    """What `python -m venv --without-pip --symlinks` makes: a launcher makes the slots' environments from it."""
    (folder / "bin").mkdir(parents=True, exist_ok=True)
    for name, target in (("python", "/usr/bin/python3"), ("python3", "python"), (f"python{python}", "python")):
        (folder / "bin" / name).symlink_to(target)
    (folder / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
