"""KEYS for the type checker.

Printed from `flightsw/dictionary/components/*.toml` by `make docs`; edit those.
"""

from collections.abc import Callable
from typing import NamedTuple


class Load(NamedTuple):
    """KEYS.LOAD: Take a new key, wrapped by the master key. It is PRE_ACTIVATION then."""

    key_id: int
    """Number of the key."""
    wrapped_key: bytes
    """The key under the master key (RFC 3394)."""


class Activate(NamedTuple):
    """KEYS.ACTIVATE: Sign with this key from now on."""

    key_id: int
    """Number of the key."""


class Deactivate(NamedTuple):
    """KEYS.DEACTIVATE: Sign with this key no more."""

    key_id: int
    """Number of the key."""


class Destroy(NamedTuple):
    """KEYS.DESTROY: Forget this key for ever. Refused for the active one."""

    key_id: int
    """Number of the key."""


class Verify(NamedTuple):
    """KEYS.VERIFY: Prove that the node holds this key; the answer's detail is the proof."""

    key_id: int
    """Number of the key."""
    challenge: bytes
    """What the proof is made over."""


def changed(report: Callable[..., None], /, key_id: int, state: str) -> None:
    """KEYS.CHANGED: A command brought a key to another state."""
    report("KEYS.CHANGED", key_id, state)


def record_lost(report: Callable[..., None], /, count: int) -> None:
    """KEYS.RECORD_LOST: A copy of the keys on disk did not hold at boot."""
    report("KEYS.RECORD_LOST", count)


def refused(report: Callable[..., None], /, reason: str, source: int, service: int) -> None:
    """KEYS.REFUSED: A bundle did not pass security; once a minute for each reason and source."""
    report("KEYS.REFUSED", reason, source, service)
