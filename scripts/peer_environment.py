"""Environments for peers that cannot live in ours: they pin older libraries. Prints the interpreter of one.

    python scripts/peer_environment.py pyd3tn

Each lies in `.peers/<name>`; it is made on first use, and deleting the folder forgets it.
"""

import fcntl
import subprocess
import sys
import venv
from pathlib import Path
from typing import Final

PEERS: Final = Path(__file__).resolve().parent.parent / ".peers"

ENVIRONMENTS: Final[dict[str, tuple[str, ...]]] = {
    "pyd3tn": ("pyD3TN==0.15.2",),  # pins cbor2 5.8
    "cfdp-py": ("cfdp-py==0.7.0", "fastcrc==0.3.6"),  # its newest fastcrc does not resolve
    # asyncio-mqtt breaks with paho-mqtt 2; the others are what the bearers import
    "asyncio-mqtt": (
        "asyncio-mqtt==0.16.2",
        "paho-mqtt<2",
        "cbor2>=6.1.1,<7",
        "cobs>=1.2.1",
        "crc32c>=2.7",
        "msgspec>=0.19",
        "numpy>=2.2",
        "pyserial>=3.5",
    ),
    # not creedsolo: its pre-releases have no wheel, and no source that this index still has
    "coding": (
        "corncobs==1.0.3",
        "crc32c-rs==0.0.7",
        "crcmod-plus==2.3.6",
        "fastcrc==0.3.6",
        "galois==0.4.11",
        "google-crc32c==1.9.0",
        "reed-solomon-ccsds==1.0.3",
        "reedsolo==1.7.0",
        "sliplib==0.7.2",
        "spacepackets==0.32.0",
    ),
    "fuzz": (
        "atheris",
        "cbor2>=6.1.1,<7",
        "cobs>=1.2.1",
        "crc32c>=2.7",
        "cryptography>=43",
        "msgspec>=0.19",
        "numpy>=2.2",
    ),
}
"""Name -> requirements."""


class PeerUnavailable(Exception):
    """The environment cannot be made here; says why."""


def interpreter(name: str) -> Path:
    """The Python of an environment, made on first use; processes that ask at once wait for the one that makes it.

    Raises:
        PeerUnavailable: its packages cannot be installed here.
    """
    requirements = ENVIRONMENTS[name]
    folder = PEERS / name
    python, stamp = folder / "bin" / "python", folder / ".requirements"
    wanted = "\n".join(requirements)
    PEERS.mkdir(exist_ok=True)
    with (PEERS / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
            return python
        venv.create(folder, with_pip=True, clear=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
        done = subprocess.run(install, capture_output=True, text=True, check=False)
        if done.returncode:
            raise PeerUnavailable(f"{name}: {' '.join(requirements)} cannot be installed: {done.stderr.strip()[-400:]}")
        stamp.write_text(wanted, encoding="utf-8")
    return python


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in ENVIRONMENTS:
        sys.exit(f"usage: peer_environment.py {{{','.join(ENVIRONMENTS)}}}")
    try:
        print(interpreter(sys.argv[1]))
    except PeerUnavailable as error:
        sys.exit(str(error))
