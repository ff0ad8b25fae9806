"""Disks of emulated boards: overlays over the image, which nobody changes.

A power cut (SIGKILL) loses all that the guest still had in its page cache, and of what it had written without a flush
what QEMU had not yet entered into the file's tables. A real card is worse: it may lose any of its unflushed sectors,
and parts of a write. That is what `hil.emulation.torn_writes` is for.
"""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from hil.emulation.tools import call, scratch_folder

DEBUGFS_SAYS: Final = ("debugfs ",)
"""How the only line of debugfs begins that is no error; its exit code is always 0."""


def make_overlay(disk: Path, path: Path) -> None:
    """Make an empty overlay over a raw disk. Raises: ConfigError."""
    path.unlink(missing_ok=True)
    call("qemu-img", "create", "-q", "-f", "qcow2", "-b", disk.absolute(), "-F", "raw", path)


def make_layer(disk: Path, size_bytes: int, path: Path) -> None:
    """Make an empty layer over an overlay that a machine has open. Raises: ConfigError."""
    path.unlink(missing_ok=True)
    call("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", disk.absolute(), "-F", "qcow2", path, str(size_bytes))


def copy_with_files(disk: Path, files: Mapping[str, bytes], to: Path) -> None:
    """Copy a raw disk and put files into its file system, without mounting it.

    Args:
        disk: raw, with ext4.
        files: absolute path -> content; folders on the way must be there.
        to: the copy.

    Raises:
        ConfigError: debugfs is missing, or refuses.
    """
    call("cp", "--sparse=always", disk, to)
    with scratch_folder() as folder:
        commands = []
        for number, (name, data) in enumerate(sorted(files.items())):
            part = Path(folder) / str(number)
            part.write_bytes(data)
            path = PurePosixPath(name)
            commands += [f"cd {path.parent}", f"rm {path.name}", f"write {part} {path.name}"]
        script = Path(folder) / "script"
        script.write_text("\n".join(commands) + "\n")
        call("debugfs", "-w", "-f", script, to, said=(*DEBUGFS_SAYS, "rm: File not found"))
