"""`python -m boards.worker.check`: how jobs can be confined on this machine, and what they can be computed with.

Tries all ways of isolation with a hog, starts one worker behind the best, and prints what was found as JSON. Exit code
0 when a memory limit is proven and a worker computes rightly, 1 when not, 2 for a mistake in the arguments.
docs/isolation.md shows a report.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from typing import Any, Final, get_args

import msgspec

from boards import profiles
from boards.worker.runner import open_runner
from boards.worker.settings import Isolation, Provider, WorkerSettings
from flightsw.errors import BoardError, ConfigError, FlatrackError
from flightsw.ports import Support

NAME: Final = "check"
PROFILE: Final = "raspberry-pi-4"
"""Gives what a check does not use: speed and power."""
LIMIT_BYTES: Final = 1024 * 1024 * 1024
CPU_CORES: Final = 1.0
REQUIRED: Final = ("memory_limit", "inference")


async def look(settings: WorkerSettings) -> dict[str, Any]:
    """What this machine can do.

    Raises:
        ConfigError: the interpreter does not run.
        BoardError: the isolation that is asked for cannot be had.
    """
    runner = await open_runner(settings, profiles.load(PROFILE), name=NAME, log=lambda *_: None, tries_all=True)
    try:
        trouble = ""
        try:
            await runner.ready()
        except (BoardError, ConfigError) as error:
            trouble = str(error)
        return {
            "ways": {name: msgspec.to_builtins(proof) for name, proof in runner.choice.tried.items()},
            "capabilities": {
                line.name: {"support": line.support.name, "detail": line.detail} for line in runner.capabilities()
            },
            "confinement": msgspec.to_builtins(runner.confinement),
            "trouble": trouble,
        }
    finally:
        await runner.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m boards.worker.check", description="Isolation. docs/isolation.md")
    ways = [way for way in get_args(Isolation) if way != "inline"]
    parser.add_argument("--isolation", choices=ways, default="auto", help="how the worker is confined")
    parser.add_argument("--provider", choices=get_args(Provider), default="auto", help="what computes")
    parser.add_argument("--python", default="", metavar="PATH", help="the worker's own interpreter")
    given = parser.parse_args(arguments)
    settings = WorkerSettings(
        isolation=given.isolation,
        provider=given.provider,
        python=given.python,
        memory_bytes=LIMIT_BYTES,
        cpu_cores=CPU_CORES,
    )
    try:
        report = asyncio.run(look(settings))
    except FlatrackError as error:
        sys.stderr.write(f"{parser.prog}: {error}\n")
        return 2 if isinstance(error, ConfigError) else 1
    sys.stdout.write(json.dumps(report, indent=2) + "\n")
    found = report["capabilities"]
    return 0 if all(found[name]["support"] == Support.PROVEN.name for name in REQUIRED) else 1


if __name__ == "__main__":
    sys.exit(main())
