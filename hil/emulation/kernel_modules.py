"""Kernel modules of the image: which are kept, in which order they are loaded, and the initramfs that loads them.

The initramfs is busybox, the modules that reach the root file system, and twenty lines of shell. Its archive is written
here (cpio "newc"; layout: Linux, Documentation/driver-api/early-userspace/buffer-format.rst).
"""

import gzip
import shutil
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from flightsw.errors import ConfigError
from hil.emulation.recipe import Recipe
from hil.emulation.tools import call

INITRD: Final = "initrd"
INIT: Final = """\
#!/bin/busybox sh
# Loads the modules in order, with the kernel's words MODULE.PARAMETER=VALUE, mounts the disk and starts its init.
B=/bin/busybox
$B mount -t proc p /proc; $B mount -t sysfs s /sys; $B mount -t devtmpfs d /dev
words=$($B cat /proc/cmdline)
while read m; do
  p=
  for w in $words; do case $w in $m.*) p="$p ${w#*.}";; esac; done
  $B insmod /lib/modules/$m.ko $p 2>/dev/null
done < /modlist
root=; init=/sbin/init
for w in $words; do case $w in root=*) root=${w#root=};; init=*) init=${w#init=};; esac; done
n=0; while [ ! -b $root ] && [ $n -lt 600 ]; do $B sleep 0.05; n=$((n+1)); done
$B mount -t ext4 -o rw,noatime $root /tree || { echo "no root file system on $root"; $B sleep 5; $B reboot -f; }
for d in dev sys proc; do $B mount -o move /$d /tree/$d; done
exec $B switch_root /tree $init
"""
FIRST: Final = "crc32c_generic"
"""ext4 asks for it by another name, which modules.dep does not say."""
_END: Final = "TRAILER!!!"


@dataclass(frozen=True)
class _Entry:
    name: str
    mode: int
    data: bytes = b""


def prune(root: Path, recipe: Recipe, out: Path) -> None:
    """Leave only the recipe's modules in a tree, and write the initramfs that loads the early ones.

    Raises:
        ConfigError: the kernel has one of the modules neither built in nor as a file.
    """
    (folder,) = (root / "lib/modules").iterdir()
    call("depmod", "-b", root, folder.name)
    needs = {_name(line.split(":")[0]): line.replace(":", "").split() for line in _lines(folder / "modules.dep")}
    built_in = {_name(line) for line in _lines(folder / "modules.builtin")}
    early = _in_order((FIRST, *recipe.early_modules), needs, built_in)
    kept = set(early) | set(_in_order(recipe.modules, needs, built_in))
    busybox = next(path for path in (root / "bin/busybox", root / "usr/bin/busybox") if path.exists())
    (out / INITRD).write_bytes(_initramfs(busybox.read_bytes(), [folder / path for path in early]))
    for path in sorted((folder / "kernel").rglob("*.ko")):
        if path.relative_to(folder).as_posix() not in kept:
            path.unlink()
    shutil.rmtree(folder / "source", ignore_errors=True)
    call("depmod", "-b", root, folder.name)


def _in_order(wanted: Iterable[str], needs: dict[str, list[str]], built_in: set[str]) -> list[str]:
    """Files of modules, each behind those that it needs."""
    order: list[str] = []
    for name in wanted:
        if name in built_in:
            continue
        if name not in needs:
            raise ConfigError(f"recipe.toml: module {name}: the kernel has none of this name")
        path, *others = needs[name]
        order += [file for file in (*reversed(others), path) if file not in order]
    return order


def _initramfs(busybox: bytes, modules: list[Path]) -> bytes:
    folders = ("bin", "dev", "lib", "lib/modules", "proc", "sys", "tree")
    entries = [_Entry(name, stat.S_IFDIR | 0o755) for name in folders]
    entries.append(_Entry("bin/busybox", stat.S_IFREG | 0o755, busybox))
    entries.append(_Entry("init", stat.S_IFREG | 0o755, INIT.encode()))
    entries.append(_Entry("modlist", stat.S_IFREG | 0o644, "".join(_name(str(m)) + "\n" for m in modules).encode()))
    entries += [_Entry(f"lib/modules/{_name(str(m))}.ko", stat.S_IFREG | 0o644, m.read_bytes()) for m in modules]
    return gzip.compress(b"".join(_archived(entries)), compresslevel=6, mtime=0)


def _archived(entries: Iterable[_Entry]) -> Iterator[bytes]:
    for number, entry in enumerate((*entries, _Entry(_END, 0)), start=1):
        name = entry.name.encode() + b"\0"
        fields = (number, entry.mode, 0, 0, 1, 0, len(entry.data), 0, 0, 0, 0, len(name), 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
        yield head + bytes(-len(head) % 4)
        yield entry.data + bytes(-len(entry.data) % 4)


def _name(path: str) -> str:
    return PurePosixPath(path).name.split(".ko")[0].replace("-", "_")


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()
