"""`flatrack board prepare` and `flatrack board flash-command`: from a stock image to a node. docs/boards/cards.md."""

import re
import secrets
import tempfile
from pathlib import Path
from typing import Final

import click

from flightsw.errors import ConfigError
from hil.cards.boot_files import UART_LINES
from hil.cards.cloud_config import Login
from hil.cards.devices import check_target, disk_of, look_at, size
from hil.cards.flashing import flash, opened
from hil.cards.images import sha256_of
from hil.cards.jetson import NAMES, flash_text
from hil.cards.preparation import Node, Prepared, WheelSource, prepare
from hil.emulation.wheels import cache_folder
from hil.inventory.boards import NAME
from hil.inventory.releases import packed_settings
from hil.inventory.wheelhouse import Target, Wheel, wheels_for, wheels_in

PATH: Final = click.Path(path_type=Path)
NETWORK_BYTES_MAX: Final = 65_536
USER: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")
KEY: Final = re.compile(r"(ssh-|ecdsa-|sk-)\S+ [A-Za-z0-9+/=]+( .*)?")
"""A line of a public key. Source: sshd(8), AUTHORIZED_KEYS FILE FORMAT."""
STEPS: Final = 10
"""How many lines a long step takes to say how far it is."""


class Steps:
    """Says how far a step is, a line for each tenth."""

    def __init__(self) -> None:
        self._said = ("", 0)

    def __call__(self, step: str, done_bytes: int, whole_bytes: int) -> None:
        """Told by the step."""
        tenth = done_bytes * STEPS // max(1, whole_bytes)
        if (step, tenth) != self._said and tenth:
            self._said = (step, tenth)
            click.echo(f"{step}: {tenth * 100 // STEPS:3} % of {size(whole_bytes)}")


@click.command(name="prepare")
@click.option("--board", type=click.Choice(sorted(UART_LINES)), required=True, help="Kind of the board.")
@click.option("--node", "name", required=True, help="Name of the node and of its host.")
@click.option("--image", type=PATH, required=True, help="Stock image of Raspberry Pi OS: .img, .img.xz, .gz or .zst.")
@click.option("--settings", type=PATH, required=True, help="Folder of node.toml, keys, plan and world.")
@click.option("--out", type=PATH, help="New file for the card's image.")
@click.option("--device", type=PATH, help="Card or disk that is written on, such as /dev/sdX: all on it is lost.")
@click.option("--ssh-key", type=PATH, help="Public key of who may log in; without, nobody can.")
@click.option("--user", default="flatrack", show_default=True, help="User to log in as.")
@click.option("--network", type=PATH, help="Own network-config, for Wi-Fi; without, a cable with DHCP.")
@click.option(
    "--from", "--wheelhouse", "wheelhouse", type=PATH, help="Folder of wheels for the board; without, pip is asked."
)
@click.option("--python", help="Python of the image, such as 3.13; without, the image is asked.")
@click.option("--sha256", help="Checksum of the image as it was published.")
@click.option("--yes", is_flag=True, help="Write on the device without a question.")
@click.option("--force-fixed", is_flag=True, help="Also write on a disk that is built in.")
def prepare_command(
    board: str,
    name: str,
    image: Path,
    settings: Path,
    out: Path | None,
    device: Path | None,
    ssh_key: Path | None,
    user: str,
    network: Path | None,
    wheelhouse: Path | None,
    python: str | None,
    sha256: str | None,
    yes: bool,
    force_fixed: bool,
) -> None:
    """Make a stock image the card of a node: into a new file, or onto a card."""
    if (out is None) == (device is None):
        raise ConfigError("--out, --device: expected one of them: a new file, or a card to write on")
    if not NAME.fullmatch(name):
        raise ConfigError(f"--node {name}: expected lower-case letters, digits and -, at most 63")
    node = Node(
        name=name,
        board=board,
        settings=settings,
        instance=f"flatrack-{name}-{secrets.token_hex(8)}",
        login=None if ssh_key is None else _login(user, ssh_key),
        network=None if network is None else _read(network, NETWORK_BYTES_MAX),
        python=None if python is None else _version(python),
    )
    packed_settings(settings)  # what is wrong with them is said before gigabytes are unpacked
    if sha256 is not None and (found := sha256_of(image)) != sha256.strip().lower():
        raise ConfigError(f"--sha256 {sha256}: {image} has {found}: it is not what was published; load it again")
    wheels = _wheels(wheelhouse)
    if out is not None:
        _say(prepare(image, out, node, wheels), out)
        return
    assert device is not None, "checked above"
    check_target(look_at(device), 0, may_be_fixed=force_fixed)
    folder = cache_folder("cards")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        card = Path(temporary) / f"{name}.img"
        prepared = prepare(image, card, node, wheels)
        _say(prepared, card)
        _flash(card, device, prepared.size_bytes, is_agreed=yes, may_be_fixed=force_fixed)


@click.command(name="flash-command")
@click.argument("board", type=click.Choice(NAMES))
@click.option("--node", default="sat-01", show_default=True, help="Name of the node.")
def flash_command(board: str, node: str) -> None:
    """Print NVIDIA's command that flashes a Jetson, and what comes after it."""
    click.echo(flash_text(board, node), nl=False)


def _flash(card: Path, device: Path, size_bytes: int, *, is_agreed: bool, may_be_fixed: bool) -> None:
    disk = look_at(device)
    check_target(disk, size_bytes, may_be_fixed=may_be_fixed)
    click.echo(disk.line())
    click.echo(f"writes {size(size_bytes)} from its first byte on, then reads them back; all that is on it is lost")
    if not is_agreed:
        try:
            is_agreed = click.confirm(f"write on {device}?")
        except click.Abort:
            click.echo()
    if not is_agreed:
        raise ConfigError(f"{device}: nothing was written, expected a yes, or --yes")
    with opened(device) as target:
        found = disk_of(device, *target.number())  # while a person reads, a card may be changed for another
        if found != disk:
            raise ConfigError(f"{device}: is another disk than the one that was shown; nothing was written")
        check_target(found, size_bytes, may_be_fixed=may_be_fixed)
        digest = flash(card, target, str(device), Steps())
    click.echo(f"{device}: written and read back, SHA-256 {digest}; take it out and boot the board")


def _say(prepared: Prepared, card: Path) -> None:
    release = prepared.release
    wheels_bytes = sum(wheel.size_bytes for wheel in release.wheels)
    click.echo(
        f"release {release.digest} of {release.node}: flatrack {release.version}, {len(release.wheels)} wheels "
        f"({size(wheels_bytes)}) for Python {release.python[0]}.{release.python[1]}"
    )
    click.echo(f"{card}: {len(prepared.files)} files on the boot partition, {size(prepared.free_bytes)} left there")


def _wheels(wheelhouse: Path | None) -> WheelSource:
    if wheelhouse is None:
        return wheels_for

    def given(target: Target) -> list[Wheel]:
        return wheels_in(wheelhouse, target)

    return given


def _login(user: str, path: Path) -> Login:
    if not USER.fullmatch(user):
        raise ConfigError(f"--user {user}: expected lower-case letters, digits and -, at most 32")
    text = _read(path, NETWORK_BYTES_MAX).decode("latin-1").strip()
    if not KEY.fullmatch(text):
        raise ConfigError(f"--ssh-key {path}: no public key in one line, expected a file such as ~/.ssh/id_ed25519.pub")
    return Login(user, text)


def _version(text: str) -> tuple[int, int]:
    if not re.fullmatch(r"3\.\d{1,2}", text):
        raise ConfigError(f"--python {text}: expected a version such as 3.13")
    return 3, int(text.partition(".")[2])


def _read(path: Path, bytes_max: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(bytes_max + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > bytes_max:
        raise ConfigError(f"{path}: more than {bytes_max} bytes, expected at most that")
    return data
