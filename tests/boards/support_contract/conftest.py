"""Every board tree, laid out as files, and what is done to them on the way to a reader."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

from boards.support import trees
from boards.support.hardware import BoardHardware, open_hardware
from boards.support.readings import BoardReading
from boards.support.sysfs import read_file

NAMES = trees.names()
FREE_BYTES = 12_345_678


class Bench:
    """A laid tree, its hardware, and what is done to files on the way."""

    def __init__(self, name: str, folder: Path, kind: str = "auto") -> None:
        self.laid = trees.lay(name, folder / "board")
        self.now_ns = 0
        self.damaged: dict[Path, bytes | OSError] = {}
        self.hardware: BoardHardware = open_hardware(
            kind,
            root=self.laid.root,
            monotonic_ns=lambda: self.now_ns,
            run=self.laid.run,
            read=self.laid.reader(self.read),
            free_bytes=lambda _: FREE_BYTES,
        )

    def read(self, path: Path, limit_bytes: int) -> bytes:
        damage = self.damaged.get(path)
        if isinstance(damage, OSError):
            raise damage
        return read_file(path, limit_bytes) if damage is None else damage[:limit_bytes]

    def path(self, name: str) -> Path:
        return self.laid.root / name[1:]

    def files(self) -> list[str]:
        return [path for facts in self.laid.tree.facts for path in facts.files]


@pytest.fixture(params=NAMES)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    return Bench(request.param, tmp_path)


def values(reading: BoardReading) -> dict[str, object]:
    """Everything that a reading says, flat; what is None or empty is not said."""
    flat: dict[str, object] = {}
    for field in fields(reading):
        value = getattr(reading, field.name)
        if field.name in ("sampled_ns", "troubles"):
            continue
        if field.name == "storage":
            flat |= {f"storage.{part.name}": getattr(value, part.name) for part in fields(value)}
        elif isinstance(value, dict):
            flat |= {f"{field.name}.{name}": one for name, one in value.items()}
        else:
            flat[field.name] = value
    return {name: value for name, value in flat.items() if value not in (None, "", {})}


@pytest.fixture(scope="session")
def make_bench() -> type[Bench]:
    return Bench


@pytest.fixture(scope="session", name="values")
def _values() -> Callable[[BoardReading], dict[str, object]]:
    return values
