"""The recipe of the image, `recipe.toml`, as values; and digests that name what is made from it."""

import hashlib
import tomllib
from pathlib import Path
from typing import Final

import msgspec

RECIPE: Final = Path(__file__).with_name("recipe.toml")
DIGEST_CHARACTERS: Final = 16
"""Of a SHA-256 in the name of a cached file: 64 bit."""


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the image is made of; `recipe.toml` says why."""

    suite: str
    """Of Debian."""
    python: str
    """Version of the suite's interpreter, X.Y."""
    disk_bytes: int
    packages: tuple[str, ...]
    early_modules: tuple[str, ...]
    modules: tuple[str, ...]
    left_out: tuple[str, ...]
    """Globs below the root."""
    masked: tuple[str, ...]
    enabled: tuple[str, ...]
    enabled_on_bench: tuple[str, ...]
    files: dict[str, str]
    """Path below the root -> content."""
    files_on_bench: dict[str, str]


def load() -> Recipe:
    """The shipped recipe."""
    return msgspec.convert(tomllib.loads(RECIPE.read_text()), Recipe)


def digest(*parts: str | bytes) -> str:
    """A name for what is made from these parts."""
    state = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "big") + data)
    return state.hexdigest()[:DIGEST_CHARACTERS]
