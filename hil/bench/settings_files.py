"""Writes the settings of programs as the TOML files that they read, so that a person can read and start them too."""

import json
import os
from pathlib import Path
from typing import Any, Final

import msgspec

OWNER_ONLY: Final = 0o600


def write_settings(path: Path, settings: msgspec.Struct) -> None:
    """Write typed settings as TOML: plain fields first, then a table for each structure. The file is readable by its
    owner alone from its first instant: a link's URL may hold a password, and a bench port has a token."""
    content = msgspec.to_builtins(settings)
    lines = [f"{key} = {_value(value)}" for key, value in content.items() if not _is_left_out(value)]
    for name, table in content.items():
        if isinstance(table, dict):
            lines += ["", f"[{name}]"] + [
                f"{key} = {_value(value)}" for key, value in table.items() if value is not None
            ]
    with open(path, "w", encoding="utf-8", opener=_private) as file:
        file.write("\n".join(lines) + "\n")


def _private(path: str, flags: int) -> int:
    descriptor = os.open(path, flags, OWNER_ONLY)
    os.fchmod(descriptor, OWNER_ONLY)  # one that was there keeps its mode else
    return descriptor


def _is_left_out(value: Any) -> bool:
    """Whether it is absent, or a table, which follows."""
    return value is None or isinstance(value, dict)


def _value(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            return json.dumps(value)  # every escape of JSON is one of TOML
        case list() | tuple():
            return f"[{', '.join(_value(one) for one in value)}]"
        case dict():
            return "{ " + ", ".join(f"{key} = {_value(one)}" for key, one in value.items() if one is not None) + " }"
    raise AssertionError(f"settings hold plain values, not {type(value).__name__}")
