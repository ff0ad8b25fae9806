"""Key files: what one node shares with each of its peers, as TOML that nobody but its owner may read.

```toml
node = 3

[[peer]]
node = 1
master = "<64 hexadecimal digits>"
last_id = 1
keys = [{ id = 1, state = "ACTIVE", key = "<64 hexadecimal digits>" }]
```

No error says what stands in a key: errors end up in logs.
"""

import os
import stat
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from flightsw.config import convert
from flightsw.errors import ConfigError
from flightsw.net.keys import KEY_BYTES, KEY_ID_MAX, KEYS_MAX, KeyRing, KeyState, PeerKeys, TrafficKey

KEY_FILE_BYTES_MAX: Final = 1 << 24
"""Longest key file [bytes]: 2,800 peers with eight keys each take 3 MB."""
OWNER_ONLY: Final = 0o600
"""Mode of a key file: read and written by its owner, nothing for others."""

_STATES: Final = {state.name: state for state in KeyState if state is not KeyState.DESTROYED}
_KeyId = Annotated[int, msgspec.Meta(ge=1, le=KEY_ID_MAX)]


class _KeyEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    id: _KeyId
    state: Literal["PRE_ACTIVATION", "ACTIVE", "DEACTIVATED"]
    key: str


class _PeerEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    node: Annotated[int, msgspec.Meta(ge=1)]
    master: str
    last_id: _KeyId
    keys: Annotated[tuple[_KeyEntry, ...], msgspec.Meta(min_length=1, max_length=KEYS_MAX)]


class _KeyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    node: Annotated[int, msgspec.Meta(ge=1)]
    peer: tuple[_PeerEntry, ...] = ()


def load_keys(path: Path) -> KeyRing:
    """The ring in a key file.

    Raises:
        ConfigError: it cannot be read, others may read it, or it is no key file; names file, field and expectation.
    """
    try:
        content = tomllib.loads(read_private(path).decode())
    except (ValueError, RecursionError):  # without the parser's words, which quote the text
        raise ConfigError(f"{path}: not TOML, expected a key file as `flatrack keys create` writes it") from None
    file = convert(content, _KeyFile, str(path))
    peers: dict[int, PeerKeys] = {}
    for index, entry in enumerate(file.peer):
        where = f"{path}: peer[{index}]"
        if entry.node in peers:
            raise ConfigError(f"{where}: node: {entry.node} is there twice, expected one entry for each peer")
        keys = tuple(
            TrafficKey(one.id, _STATES[one.state], secret_of(one.key, f"{where}.keys[{number}].key"))
            for number, one in enumerate(entry.keys)
        )
        peers[entry.node] = PeerKeys(secret_of(entry.master, f"{where}.master"), keys, entry.last_id)
    try:
        return KeyRing(file.node, peers)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def save_keys(path: Path, ring: KeyRing, peers: Sequence[int]) -> None:
    """Write a new key file, durably, for its owner alone.

    Args:
        path: a name that is not there yet.
        ring: whose keys.
        peers: what is written of them.

    Raises:
        ConfigError: the file is there already, or cannot be written.
    """
    lines = [f"# Keys of node {ring.node}. Who reads this file can speak as this node.", f"node = {ring.node}"]
    for peer in peers:
        shared = ring.of(peer)
        if shared is None:
            raise ConfigError(f"{path}: node {ring.node} shares no keys with node {peer}")
        lines += ["", "[[peer]]", f"node = {peer}", f'master = "{shared.master.hex()}"', f"last_id = {shared.last_id}"]
        lines.append("keys = [")
        for key in shared.keys:
            lines.append(f'    {{ id = {key.key_id}, state = "{key.state.name}", key = "{key.secret.hex()}" }},')
        lines.append("]")
    write_private(path, "\n".join(lines) + "\n")


def write_private(path: Path, text: str) -> None:
    """A new file that only its owner may read.

    Raises:
        ConfigError: it is there already, or cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, OWNER_ONLY)
    except FileExistsError:
        raise ConfigError(f"{path}: is there already, expected a new file: keys are never overwritten") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def read_private(path: Path) -> bytes:
    """The content of a key file.

    Raises:
        ConfigError: it cannot be read, is too long, or lets others at the keys.
    """
    try:
        # Non-blocking, so that a pipe is refused below instead of waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise ConfigError(f"{path}: no regular file, expected a key file")
    with os.fdopen(descriptor, "rb") as file:
        mode = stat.S_IMODE(status.st_mode)
        if mode & 0o077:
            raise ConfigError(
                f"{path}: mode {mode:04o} lets others at the keys, expected {OWNER_ONLY:04o} (chmod 600 {path})"
            )
        if status.st_size > KEY_FILE_BYTES_MAX:
            raise ConfigError(f"{path}: {status.st_size} bytes, expected at most {KEY_FILE_BYTES_MAX}")
        return file.read()


def secret_of(text: str, where: str) -> bytes:
    """A key from its hexadecimal digits.

    Raises:
        ConfigError: not as many digits as a key has.
    """
    try:
        secret = bytes.fromhex(text)
    except ValueError:
        secret = b""
    if len(secret) != KEY_BYTES or len(text) != 2 * KEY_BYTES:
        raise ConfigError(f"{where}: {len(text)} characters, expected {2 * KEY_BYTES} hexadecimal digits")
    return secret
