"""`flatrack keys`: makes the key files of a fleet, shows them without a key, and has a running ground change a key."""

import secrets
from pathlib import Path
from typing import Final

import click

from flightsw.errors import ConfigError
from flightsw.host.keyfile import load_keys, save_keys
from flightsw.net.keys import KEY_BYTES, KeyRing, KeyState, PeerKeys, TrafficKey, fingerprint
from hil.bench.scenario import load
from hil.bench.sky import FIRST_NODE, GROUND_NODE
from hil.commands.asking import GroundPeer, asks_ground, node_key

SUFFIX: Final = ".keys.toml"
NODES_PAIRED_MAX: Final = 256
"""Most files for which keys are made pair by pair: 256 files with 255 peers each take 16 MB, growing as the square."""
OWNER_FOLDER: Final = 0o700


@click.group(name="keys")
def keys_group() -> None:
    """Make and show the keys that nodes and ground sign with."""


@keys_group.command(name="create")
@click.argument("fleet")
@click.option("--folder", type=click.Path(path_type=Path), required=True, help="Where the files go; made when missing.")
@click.option(
    "--pairs",
    type=click.Choice(["all", "ground"]),
    default="all",
    show_default=True,
    help="Keys for each pair of nodes, or only for each node and the ground.",
)
def create(fleet: str, folder: Path, pairs: str) -> None:
    """Make new keys for the nodes of FLEET (a scenario's name or file) and for the ground, one file each."""
    names = {GROUND_NODE: "ground"}
    names.update({FIRST_NODE + index: node.name for index, node in enumerate(load(fleet).nodes)})
    if pairs == "all" and len(names) > NODES_PAIRED_MAX:
        raise ConfigError(
            f"--pairs all: {len(names)} nodes and ground, expected at most {NODES_PAIRED_MAX}; use --pairs ground"
        )
    paths = {number: folder / f"{name}{SUFFIX}" for number, name in names.items()}
    for path in paths.values():
        if path.exists():
            raise ConfigError(f"{path}: is there already, expected a new file: keys are never overwritten")
    try:
        folder.mkdir(mode=OWNER_FOLDER, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be made: {error.strerror}") from None
    shared = {
        (low, high): _fresh()
        for low in names
        for high in names
        if low < high and (pairs == "all" or low == GROUND_NODE)
    }
    for number, path in paths.items():
        ring = KeyRing(number, {_other(pair, number): keys for pair, keys in shared.items() if number in pair})
        save_keys(path, ring, sorted(ring.peers))
        click.echo(path)


@keys_group.command(name="list")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
def list_keys(files: tuple[Path, ...]) -> None:
    """Show whose keys are in each FILE: numbers, states and fingerprints, never a key."""
    for path in files:
        ring = load_keys(path)
        click.echo(f"{path}: node {ring.node}, {len(ring.peers)} peers")
        for peer, shared in sorted(ring.peers.items()):
            click.echo(f"  peer {peer:<6} master {fingerprint(shared.master)}")
            for key in shared.keys:
                click.echo(f"    key {key.key_id:<5} {key.state.name:<14} {fingerprint(key.secret)}")


@keys_group.command(name="rotate")
@click.argument("node")
@asks_ground
async def rotate(ground: GroundPeer, node: str) -> None:
    """Have a running ground give NODE (its name or number) a new key over the air; the ground notes how it ends."""
    number = node_key(node)
    key_id = await ground.ask("rotate_key", number, secrets.token_bytes(KEY_BYTES))
    click.echo(f"{node}: key {key_id} is on its way")


def _fresh() -> PeerKeys:
    key = TrafficKey(1, KeyState.ACTIVE, secrets.token_bytes(KEY_BYTES))
    return PeerKeys(secrets.token_bytes(KEY_BYTES), (key,), 1)


def _other(pair: tuple[int, int], number: int) -> int:
    return pair[1] if number == pair[0] else pair[0]
