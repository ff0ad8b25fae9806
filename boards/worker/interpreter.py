"""The interpreter of a worker: the manager's own, or one that the settings name, with what it can import."""

import asyncio
import importlib.util
import sys
from asyncio.subprocess import DEVNULL, PIPE
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from flightsw.errors import ConfigError

PACKAGES: Final = ("numpy", "onnxruntime")
GPU_LIBRARY: Final = "capi/libonnxruntime_providers_cuda.so"
"""In the runtime's folder when it was built for a GPU."""
LOOK_S: Final = 60.0
"""How long an interpreter may take to look around [s of the machine]: a cold start from a slow card."""

_LOOK: Final = """
import importlib.util, json, os, sys
found = {name: importlib.util.find_spec(name) for name in ("numpy", "onnxruntime")}
folders = {name: os.path.dirname(spec.origin) for name, spec in found.items() if spec and spec.origin}
print(json.dumps({"version": sys.version.split()[0], "prefixes": [sys.prefix, sys.base_prefix], "folders": folders}))
"""


class _Found(msgspec.Struct):
    version: str
    prefixes: list[str]
    folders: dict[str, str]


@dataclass(frozen=True, slots=True)
class Interpreter:
    """What runs a worker's program."""

    path: str
    version: str
    readable: tuple[Path, ...]
    """Folders that it needs, beside the system's."""
    search: tuple[str, ...]
    """Folders to look for packages in, beside its own."""
    is_for_gpu: bool
    """Its runtime was built for a GPU."""

    @property
    def command(self) -> tuple[str, ...]:
        """Interpreter and options: deaf to its surroundings, and leaving no files behind."""
        return (self.path, "-I", "-B")


async def find_interpreter(python: str, time_scale: float) -> Interpreter:
    """Look at an interpreter.

    Args:
        python: its path; empty for the manager's own.
        time_scale: seconds of the loop in a second of the machine.

    Raises:
        ConfigError: there is none, or it does not run.
    """
    if not python:
        return _own()
    where = f"worker.python = {python!r}"
    try:
        child = await asyncio.create_subprocess_exec(
            python, "-I", "-B", "-c", _LOOK, stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL
        )
    except OSError as error:
        raise ConfigError(f"{where}: {error.strerror}; expected the path of a Python interpreter") from None
    try:
        output, _ = await asyncio.wait_for(child.communicate(), LOOK_S * time_scale)
        found = msgspec.json.decode(output, type=_Found)
    except (TimeoutError, msgspec.MsgspecError):
        if child.returncode is None:
            child.kill()
            await child.wait()
        raise ConfigError(
            f"{where}: it does not say what it is; expected a Python interpreter, 3.10 or newer"
        ) from None
    folders = {name: Path(folder) for name, folder in found.folders.items()}
    return _interpreter(python, found.version, [Path(prefix) for prefix in found.prefixes], folders, search=())


def _own() -> Interpreter:
    specs = {name: importlib.util.find_spec(name) for name in PACKAGES}
    folders = {name: Path(spec.origin).parent for name, spec in specs.items() if spec is not None and spec.origin}
    search = tuple(dict.fromkeys(str(folder.parent) for folder in folders.values()))
    prefixes = [Path(sys.prefix), Path(sys.base_prefix)]
    return _interpreter(sys.executable, sys.version.split()[0], prefixes, folders, search)


def _interpreter(
    path: str, version: str, prefixes: list[Path], folders: dict[str, Path], search: tuple[str, ...]
) -> Interpreter:
    program = Path(__file__).parent
    wanted = [*prefixes, *(folder.parent for folder in folders.values()), program]
    runtime = folders.get("onnxruntime")
    return Interpreter(
        path=path,
        version=version,
        readable=tuple(dict.fromkeys(wanted)),
        search=search,
        is_for_gpu=runtime is not None and (runtime / GPU_LIBRARY).exists(),
    )
