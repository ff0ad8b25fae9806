"""What a board is given: wheels, settings and the unit of its service, under one digest.

The digest of an *environment* is of its wheels and the Python that they run on; that of a *release* is of its
environment, its settings and its unit. So the same input is the same release, and nothing has to be done twice.
"""

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from boards import profiles
from boards.settings import NodeSettings
from flightsw.config import load_toml
from flightsw.errors import ConfigError
from flightsw.host.keyfile import OWNER_ONLY
from flightsw.host.settings import convert_settings, load_ring
from hil.bench.settings_files import write_settings
from hil.inventory.wheelhouse import Wheel

HOME: Final = "/opt/flatrack"
SETTINGS: Final = "/etc/flatrack"
STATE: Final = "/var/lib/flatrack"
UNIT: Final = "flatrack.service"
NODE_FILE: Final = "node.toml"
BENCH_FILE: Final = "bench.toml"
BENCH_TEXT: Final = "# written by flatrack board deploy --bench\nallows_faults = true\n"
"""What lets the on-board fault agent run."""
DIGEST_CHARACTERS: Final = 16
PLAIN: Final = 0o644

_UNIT_TEXT: Final = """\
# written by flatrack board deploy
[Unit]
Description=flatrack node {name}
StartLimitIntervalSec=600
StartLimitBurst=20

[Service]
# the launcher says that it is there and that it lives; it watches the node itself
Type=notify
NotifyAccess=main
WatchdogSec=60
# a release whose trial was cut short by a restart of the board is left before anything of it runs
ExecStartPre=-+{python} -I {home}/board_side.py settle {prefix}
ExecStart={home}/current/environment/bin/python -I -m boards.launcher --config {settings}/node.toml \
--slots {home}/current/slots
WorkingDirectory={state}
Restart=on-failure
# the settings are wrong: they would be wrong again
RestartPreventExitStatus=2
RestartSec=5
TimeoutStartSec=60
TimeoutStopSec=40
KillMode=mixed

StateDirectory=flatrack
StateDirectoryMode=0700
UMask=0077
# control groups for the workers of jobs
Delegate=yes
NoNewPrivileges=yes
# /sys stays writable: power modes are set there
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
ProtectKernelModules=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
CapabilityBoundingSet=~CAP_SYS_MODULE CAP_SYS_RAWIO CAP_SYS_TIME CAP_NET_ADMIN CAP_MKNOD CAP_BPF
{devices}
[Install]
WantedBy=multi-user.target
"""
_DEVICES: Final = """\
# serial ports, the firmware of a Raspberry Pi (vcgencmd), watchdogs: no disks, no memory
DevicePolicy=closed
DeviceAllow=char-ttyAMA rw
DeviceAllow=char-ttyS rw
DeviceAllow=char-ttyUSB rw
DeviceAllow=char-ttyACM rw
DeviceAllow=char-pts rw
DeviceAllow=/dev/vcio rw
DeviceAllow=char-watchdog rw
"""
"""The lines of a board without an accelerator. On a Jetson all devices stay: a GPU has dozens."""
_NVPMODEL: Final = """\
# nvpmodel keeps the power mode there
ReadWritePaths=-/var/lib/nvpmodel
"""
"""The lines of a Jetson."""
_JETSON: Final = "jetson"

FileEntry = tuple[int, bytes]
"""(mode, content)"""


@dataclass(frozen=True, slots=True)
class Release:
    """What a board is given."""

    node: str
    """Name of the node."""
    node_number: int
    python: tuple[int, int]
    wheels: tuple[Wheel, ...]
    files: dict[str, FileEntry]
    """Name -> (mode, content): those of `settings/`, and the unit."""

    @property
    def version(self) -> str:
        """Of flatrack."""
        return next(wheel.version for wheel in self.wheels if wheel.name == "flatrack")

    @property
    def environment(self) -> str:
        """Digest of the wheels and their Python."""
        lines = [f"python {self.python[0]}.{self.python[1]}"]
        lines += [f"{wheel.path.name} {wheel.sha256}" for wheel in sorted(self.wheels, key=lambda one: one.path.name)]
        return _digest("\n".join(lines).encode())

    @property
    def digest(self) -> str:
        """Of everything."""
        lines = [self.environment]
        for name, (mode, data) in sorted(self.files.items()):
            lines.append(f"{name} {mode:o} {hashlib.sha256(data).hexdigest()}")
        return _digest("\n".join(lines).encode())


def unit_text(name: str, kind: str, python: str, prefix: Path = Path("/")) -> str:
    """The unit of a node's service.

    Args:
        name: of the node.
        kind: of the board, as in the inventory.
        python: interpreter on the board that environments are made with.
        prefix: folder below which all lies on the board.
    """
    return _UNIT_TEXT.format(
        name=name,
        python=python,
        prefix=prefix,
        home=below(prefix, HOME),
        settings=below(prefix, SETTINGS),
        state=below(prefix, STATE),
        devices=_NVPMODEL if kind.startswith(_JETSON) else _DEVICES,
    )


def packed_settings(folder: Path, prefix: Path = Path("/")) -> tuple[NodeSettings, dict[str, FileEntry]]:
    """The settings of a node for a board, and the files that they name, all side by side.

    What the node reads goes with it; what it writes, `storage.folder` and `board.state`, goes to `/var/lib/flatrack`
    unless the settings give a whole path.

    Raises:
        ConfigError: `node.toml` or a file that it names is missing or wrong; names file, field and expectation.
    """
    path = folder / NODE_FILE
    content = load_toml(path, dict[str, Any])
    checked = convert_settings(content, NodeSettings, str(path))
    checked.check()
    load_ring(checked.keys, folder, checked.node.node)
    files: dict[str, FileEntry] = {}
    board, state = content["board"], below(prefix, STATE)
    _take(files, folder, content, "plan", PLAIN)
    _take(files, folder, board, "world", PLAIN)
    if board.get("profile", "").endswith(profiles.SUFFIX):
        _take(files, folder, board, "profile", PLAIN)
    if "keys" in content:
        _take(files, folder, content["keys"], "file", OWNER_ONLY)
    board["state"] = str(state / checked.board.state)
    content["storage"]["folder"] = str(state / checked.storage.folder)
    settings = convert_settings(content, NodeSettings, str(path))
    with tempfile.TemporaryDirectory() as temporary:
        written = Path(temporary) / NODE_FILE
        write_settings(written, settings)
        files[NODE_FILE] = (PLAIN, written.read_bytes())
    return settings, files


def release_of(
    name: str,
    kind: str,
    *,
    folder: Path,
    wheels: list[Wheel],
    python: str,
    version: tuple[int, int],
    prefix: Path,
    is_bench: bool,
) -> Release:
    """What a board is given.

    Args:
        name: of the board.
        kind: of it.
        folder: where `node.toml` lies.
        wheels: for it.
        python: its interpreter.
        version: of that.
        prefix: folder below which all lies on the board.
        is_bench: whether the on-board fault agent may run.

    Raises:
        ConfigError: a setting is wrong.
    """
    settings, files = packed_settings(folder, prefix)
    if is_bench:
        files[BENCH_FILE] = (PLAIN, BENCH_TEXT.encode())
    placed = {f"settings/{file}": entry for file, entry in files.items()}
    placed[UNIT] = (PLAIN, unit_text(name, kind, python, prefix).encode())
    return Release(settings.node.name, settings.node.node, version, tuple(wheels), placed)


def below(prefix: Path, place: str) -> Path:
    """A place on the board, below the prefix."""
    return prefix / place.lstrip("/")


def _take(files: dict[str, FileEntry], folder: Path, table: dict[str, Any], name: str, mode: int) -> None:
    """Take the file that a field of the settings names, and have the field name it where it will lie."""
    if name not in table:
        return
    source = folder / table[name]
    if source.name in files or source.name in (NODE_FILE, BENCH_FILE):
        raise ConfigError(f"{folder / NODE_FILE}: {name} = {table[name]!r}: two files of this name, expected others")
    try:
        data = source.read_bytes()
    except OSError as error:
        raise ConfigError(f"{folder / NODE_FILE}: {name} = {table[name]!r}: {source}: {error.strerror}") from None
    files[source.name] = (mode, data)
    table[name] = source.name


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:DIGEST_CHARACTERS]
