"""Settings that the programs share, and how their files are read.

A file that is wrong is the user's: the error names file, field, value and expectation. Paths in a file are relative to
its folder.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import msgspec

from flightsw.config import load_toml
from flightsw.errors import ConfigError
from flightsw.host.keyfile import load_keys
from flightsw.net.keys import KeyRing

T = TypeVar("T")
UTC_NS_MAX: Final = 1 << 62
"""Latest instant of a clock [ns since 1970]: the year 2116."""
CAPACITY_BYTES_MAX: Final = 1 << 50
"""Largest disk of a program [bytes]: a pebibyte."""
VALUE_CHARACTERS_MAX: Final = 60
"""How much of a wrong value an error shows: one line."""

_WHERE: Final = re.compile(r" - at `\$(.*)`$")
_STEP: Final = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]|\[\.\.\.\]")


class ClockSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[clock]`: which time it is."""

    zero_utc_ns: Annotated[int, msgspec.Meta(ge=0, le=UTC_NS_MAX)]
    """Real UTC of T+0 [ns since 1970-01-01T00:00:00Z]; the same for all programs of a run."""
    epoch_utc_ns: Annotated[int, msgspec.Meta(ge=0, le=UTC_NS_MAX)]
    """Mission UTC at T+0 [ns since 1970-01-01T00:00:00Z]."""
    time_scale: Annotated[float, msgspec.Meta(ge=0.001, le=1000)] = 1.0
    """Mission seconds in a second; the limits are those of `flightsw.host.loop`."""


class LinkSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[link]`: the lab wire."""

    url: str
    neighbours: tuple[str, ...] = ()
    """`udp://` URLs of interfaces that have a wire of their own, to nodes of other implementations."""


class StorageSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[storage]`: where durable state lies."""

    folder: str
    capacity_bytes: Annotated[int, msgspec.Meta(ge=4096, le=CAPACITY_BYTES_MAX)]


class KeySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[keys]`: what messages are signed with."""

    file: str
    """Key file (`flightsw.host.keyfile`)."""


class BenchSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[bench]`: a bench on another machine that watches and strikes this program. Without it there is no such door."""

    url: str
    """`tcp://host:port` (`flightsw.host.control.connect_url`)."""
    token: Annotated[str, msgspec.Meta(min_length=16, max_length=128)]
    """What the program is known by there: who guesses it may stop the node."""


def load_ring(settings: KeySettings | None, base: Path, node: int) -> KeyRing | None:
    """The keys of a node; None where the settings have none.

    Raises:
        ConfigError: the file cannot be used, or holds the keys of another node.
    """
    if settings is None:
        return None
    path = base / settings.file
    ring = load_keys(path)
    if ring.node != node:
        raise ConfigError(f"{path}: node = {ring.node}: these are the keys of another node, expected {node}")
    return ring


def load_settings(path: Path, kind: type[T]) -> T:
    """The settings in a TOML file.

    Raises:
        ConfigError: it cannot be read, is not TOML, or a field is wrong; names file, field, value and expectation.
    """
    return convert_settings(load_toml(path, dict[str, Any]), kind, str(path))


def load_json(path: Path, kind: type[T]) -> T:
    """The typed content of a JSON file.

    Raises:
        ConfigError: it cannot be read, is not JSON, or a field is wrong; names file, field, value and expectation.
    """
    try:
        content = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not JSON: {error}") from None
    return convert_settings(content, kind, str(path))


def convert_settings(content: object, kind: type[T], where: str) -> T:
    """Plain values as typed settings.

    Raises:
        ConfigError: a field is wrong; names where, field, value and expectation.
    """
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        text = str(error)
        found = _WHERE.search(text)
        if found is None:
            raise ConfigError(f"{where}: {text}") from None
        shown = _shown(content, found[1])
        raise ConfigError(f"{where}: {found[1].lstrip('.')}{shown}: {text[: found.start()]}") from None


def _shown(content: object, way: str) -> str:
    """` = value` of the field that the way leads to, or nothing where it leads nowhere."""
    for key, index in _STEP.findall(way):
        if isinstance(content, dict) and key in content:
            content = content[key]
        elif isinstance(content, list) and index and int(index) < len(content):
            content = content[int(index)]
        else:
            return ""
    if isinstance(content, dict):
        return ""
    text = repr(content)
    return f" = {text if len(text) <= VALUE_CHARACTERS_MAX else text[:VALUE_CHARACTERS_MAX] + '...'}"
