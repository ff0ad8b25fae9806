"""Programs of the machine that build and run emulated boards: found, or named with the package that has them."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from flightsw.errors import ConfigError

PACKAGES: Final = {
    "mmdebstrap": "mmdebstrap arch-test uidmap debian-archive-keyring",
    "mke2fs": "e2fsprogs",
    "debugfs": "e2fsprogs",
    "depmod": "kmod",
    "systemd-sysusers": "systemd",
    "ssh-keygen": "openssh-client",
    "fdtput": "device-tree-compiler",
    "qemu-system-aarch64": "qemu-system-arm",
    "qemu-img": "qemu-utils",
    "qemu-io": "qemu-utils",
}
"""Program -> packages of Debian and Ubuntu that it needs."""
ADMIN_PATH: Final = "/usr/sbin:/sbin"
"""Where distributions keep some of them, out of a user's PATH."""
OUTPUT_CHARACTERS_MAX: Final = 2_000
"""How much of a failed program's output an error shows: its end."""
SCRATCH: Final = Path("/dev/shm")
SCRATCH_FREE_BYTES_MIN: Final = 4 << 30
"""A build unpacks 1.5 GB; in memory that takes half the time."""


def find(name: str) -> str:
    """Path of a program. Raises: ConfigError: it is missing; says what to install."""
    path = shutil.which(name) or shutil.which(name, path=ADMIN_PATH)
    if path is None:
        packages = PACKAGES.get(name, name)
        raise ConfigError(f"missing tool: {name}; on Debian or Ubuntu: apt-get install {packages}")
    return path


def call(name: str, *arguments: str | Path, env: Mapping[str, str] | None = None, said: Sequence[str] = ()) -> str:
    """Run a program to its end; returns its standard output.

    Args:
        name: of the program.
        arguments: of it.
        env: its environment; None is ours.
        said: what its standard error may hold without being an error, for programs whose exit code says nothing.

    Raises:
        ConfigError: it is missing, or fails; with the end of what it said.
    """
    command = [find(name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=env, check=False)
    if done.returncode != 0:
        words = (done.stderr.strip() or done.stdout.strip())[-OUTPUT_CHARACTERS_MAX:]
        raise ConfigError(f"{name} failed with exit code {done.returncode}: {words}")
    if said:
        strange = [line for line in done.stderr.splitlines() if line and not line.startswith(tuple(said))]
        if strange:
            raise ConfigError(f"{name}: {strange[0]}")
    return done.stdout


def scratch_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder for the steps of a build, in memory where there is room; `TMPDIR` says otherwise."""
    in_memory = "TMPDIR" not in os.environ and SCRATCH.is_dir() and os.access(SCRATCH, os.W_OK)
    in_memory = in_memory and shutil.disk_usage(SCRATCH).free >= SCRATCH_FREE_BYTES_MIN
    return tempfile.TemporaryDirectory(prefix="flatrack-", dir=SCRATCH if in_memory else None)
