"""`flatrack update`: keys, signed manifests, and campaigns of a running ground. docs/update.md explains them."""

import json
import tempfile
import zipfile
from email.parser import HeaderParser
from pathlib import Path
from typing import Any, Final

import click

from boards.launcher import WHEEL_ERRORS
from boards.simulated.images import TARGET, decode_image
from boards.slots import LAUNCHER_VERSION, WHEEL
from flightsw.dictionary import flight_dictionary, load
from flightsw.errors import ConfigError, MessageError
from flightsw.host.keyfile import read_private, secret_of, write_private
from flightsw.objects.digest import digest_of
from flightsw.storage.manifest import (
    IMAGE_BYTES_MAX,
    SERIAL_MAX,
    SIGNED_BYTES_MAX,
    Manifest,
    decode_manifest,
    key_id,
    public_key_of,
    sign_manifest,
    signature_fault,
    version_key,
)
from hil.commands.asking import GroundPeer, asks_ground, node_key

PATH: Final = click.Path(path_type=Path)
DICTIONARY_FOLDER: Final = "flightsw/dictionary/components/"
"""Where a wheel has its dictionary."""


@click.group(name="update")
def update_group() -> None:
    """Sign new software for the fleet, and bring it there in waves."""


@update_group.command(name="keygen")
@click.argument("file", type=PATH)
def keygen(file: Path) -> None:
    """Make a new signing key in FILE, for its owner alone, and print the public key for the nodes' settings."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private_key = Ed25519PrivateKey.generate().private_bytes_raw()
    write_private(file, private_key.hex() + "\n")
    public_key = public_key_of(private_key)
    click.echo(f"# key {key_id(public_key).hex()}: for [node] in the settings of each node")
    click.echo(f'update_keys = ["{public_key.hex()}"]')


@update_group.command(name="sign")
@click.argument("image", type=PATH)
@click.option("--key", "key_file", type=PATH, required=True, help="The signing key.")
@click.option("--serial", type=click.IntRange(1, SERIAL_MAX), required=True, help="Above that of all manifests before.")
@click.option("--out", type=PATH, required=True, help="Where the manifest goes.")
@click.option("--minimum-version", default="0.0.0", show_default=True, help="Nodes that run an older version refuse.")
@click.option("--allow-downgrade", is_flag=True, help="Also for nodes that run this version or a newer one.")
def sign(image: Path, key_file: Path, serial: int, out: Path, minimum_version: str, allow_downgrade: bool) -> None:
    """Sign IMAGE: a wheel, or the JSON of a simulated one. Version and dictionary are read from it."""
    private_key = _load_key(key_file)
    data = _read(image, IMAGE_BYTES_MAX)
    target, version, dictionary = _wheel(image) if image.suffix == ".whl" else _simulated(image, data)
    manifest = Manifest(
        target=target,
        version=version,
        image=digest_of(data),
        size_bytes=len(data),
        serial=serial,
        minimum_version=minimum_version,
        minimum_launcher=LAUNCHER_VERSION,
        allow_downgrade=allow_downgrade,
        dictionary=dictionary,
    )
    signed = sign_manifest(manifest, private_key).encode()
    try:
        out.write_bytes(signed)
    except OSError as error:
        raise ConfigError(f"{out}: cannot be written: {error.strerror}") from None
    click.echo(f"{out}: {target} {version}, serial {serial}, image {manifest.image.hex()[:16]}, {len(data)} bytes")


@update_group.command(name="show")
@click.argument("manifest", type=PATH)
@click.option("--public-key", help="Check the signature with this key: 64 hexadecimal digits.")
def show(manifest: Path, public_key: str | None) -> None:
    """Show what a MANIFEST says."""
    signed, said = _load_manifest(manifest)
    for name in Manifest.__struct_fields__:
        value = getattr(said, name)
        click.echo(f"{name:16} {value.hex() if isinstance(value, bytes) else value}")
    click.echo(f"{'key':16} {signed.key_id.hex()}")
    if public_key is not None:
        fault = signature_fault(signed, [secret_of(public_key, "--public-key")])
        if fault is not None:
            raise ConfigError(f"{manifest}: {fault}")
        click.echo(f"{'signature':16} holds")


@update_group.command(name="start")
@click.argument("manifest", type=PATH)
@click.argument("image", type=PATH)
@click.argument("nodes", nargs=-1)
@click.option("--waves", default="1", show_default=True, help="Sizes of the first waves, as 1,4; the rest is one more.")
@click.option("--soak", "soak_s", type=click.IntRange(min=1), help="How long a node is watched after its commit [s].")
@click.option("--limit", "limit_s", type=click.IntRange(min=1), help="How long a node may take [s].")
@asks_ground
async def start(
    ground: GroundPeer,
    manifest: Path,
    image: Path,
    nodes: tuple[str, ...],
    waves: str,
    soak_s: int | None,
    limit_s: int | None,
) -> None:
    """Have a ground bring IMAGE with its MANIFEST to NODES (names or numbers; all when none are given), in waves."""
    signed = _load_manifest(manifest)[0].encode()
    data = _read(image, IMAGE_BYTES_MAX)
    try:
        sizes = [int(size) for size in waves.split(",")]
    except ValueError:
        raise ConfigError(f"--waves: {waves!r}, expected sizes such as 1,4") from None
    await ground.ask("put_object", data)
    keys = [node_key(node) for node in nodes]
    options: list[Any] = [signed, keys, sizes]
    if soak_s is not None or limit_s is not None:
        from ground.updates import LIMIT_S, SOAK_S

        options += [soak_s or SOAK_S, limit_s or LIMIT_S]
    number = await ground.ask("update_start", *options)
    click.echo(f"campaign {number} is on record")


@update_group.command(name="status")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@asks_ground
async def status(ground: GroundPeer, as_json: bool) -> bool:
    """Print how the campaign that runs, or the last one, stands. Ends with 1 when it was stopped."""
    found = await ground.ask("update_status")
    if as_json:
        click.echo(json.dumps(found))
    else:
        for line in _lines(found):
            click.echo(line)
    return found is None or found["state"] != "STOPPED"


@update_group.command(name="stop")
@asks_ground
async def stop(ground: GroundPeer) -> None:
    """Stop the campaign: no node is touched any more; one that is on trial goes on by itself."""
    for line in _lines(await ground.ask("update_stop")):
        click.echo(line)


def _lines(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return ["no campaign was ever begun"]
    more = f": {found['detail']}" if found["detail"] else ""
    lines = [f"campaign {found['campaign']} to version {found['version']}: {found['state']}{more}"]
    for row in found["nodes"]:
        version = row["version"] or "-"
        line = f"{row['node']:12} wave {row['wave']:<3} {row['state']:<10} {version:<10} {row['detail']}"
        lines.append(line.rstrip())
    return lines


def _load_key(path: Path) -> bytes:
    """A signing key, which nobody but its owner may read."""
    return secret_of(read_private(path).decode("latin-1").strip(), str(path))


def _load_manifest(path: Path) -> tuple[Any, Manifest]:
    try:
        return decode_manifest(_read(path, SIGNED_BYTES_MAX))
    except MessageError as error:
        raise ConfigError(f"{path}: no signed manifest: {error}") from None


def _read(path: Path, bytes_max: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(bytes_max + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > bytes_max:
        raise ConfigError(f"{path}: more than {bytes_max} bytes, expected at most that")
    return data


def _wheel(path: Path) -> tuple[str, str, bytes]:
    """(target, version, dictionary digest) of a wheel."""
    try:
        with zipfile.ZipFile(path) as wheel, tempfile.TemporaryDirectory() as folder:
            names = wheel.namelist()
            metadata = [name for name in names if name.endswith(".dist-info/METADATA")]
            if len(metadata) != 1:
                raise ConfigError(f"{path}: {len(metadata)} METADATA files, expected a wheel, which has one")
            version = HeaderParser().parsestr(wheel.read(metadata[0]).decode())["Version"] or ""
            parts = [name for name in names if name.startswith(DICTIONARY_FOLDER) and name.endswith(".toml")]
            if not parts:
                raise ConfigError(f"{path}: no {DICTIONARY_FOLDER}, expected a wheel of flatrack")
            for name in parts:
                (Path(folder) / Path(name).name).write_bytes(wheel.read(name))
            digest = load(sorted(Path(folder).glob("*.toml"))).digest
    except WHEEL_ERRORS as error:
        raise ConfigError(f"{path}: no wheel: {error}") from None
    if not version_key(version):
        raise ConfigError(f"{path}: Version is {version!r}, expected three numbers such as 0.2.0")
    return WHEEL, version, digest


def _simulated(path: Path, data: bytes) -> tuple[str, str, bytes]:
    """(target, version, dictionary digest) of a simulated image."""
    try:
        return TARGET, decode_image(data).version, flight_dictionary().digest
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
