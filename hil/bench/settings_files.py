"""Writes the settings of programs as the TOML files that they read, so that a person can read and start them too."""

import json
from pathlib import Path
from typing import Any

import msgspec


def write_settings(path: Path, settings: msgspec.Struct) -> None:
    """Write typed settings as TOML: plain fields first, then a table for each structure."""
    content = msgspec.to_builtins(settings)
    lines = [f"{key} = {_value(value)}" for key, value in content.items() if not _is_left_out(value)]
    for name, table in content.items():
        if isinstance(table, dict):
            lines += ["", f"[{name}]"] + [
                f"{key} = {_value(value)}" for key, value in table.items() if value is not None
            ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


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
