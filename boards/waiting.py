"""Waiting for the settings: a board is loaded before anybody has told it who it is.

A snapshot of an emulated board holds a program that has loaded and tried what does not depend on its settings, and
waits here; what is restored from it is a node as soon as its settings lie there. While it waits it strokes the service
manager as a running node does, and a signal ends it as one.
"""

import asyncio
import select
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from boards.settings import NodeSettings
from boards.simulated.world import World
from boards.watchdog import ServiceManager
from boards.worker.isolation.proof import Proofs
from boards.worker.runner import prove_ahead
from boards.worker.settings import WorkerSettings
from flightsw.dictionary import flight_dictionary
from flightsw.errors import FlatrackError
from flightsw.net.plans import PlanRow

POLL_S: Final = 0.02
"""Time between two looks at the file [s of the machine]: short beside the boot that follows."""
STROKE_S: Final = 1.0
"""Time between two strokes [s of the machine]: far shorter than any watchdog's time."""
ENDING_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def load() -> None:
    """Do what every node does at its start, and what comes out the same whoever it will be: read the dictionary, and
    build the decoders of settings."""
    flight_dictionary()
    for kind in (NodeSettings, World, list[PlanRow]):
        with suppress(msgspec.ValidationError):  # nothing is a wrong setting; what is wanted is the decoder
            msgspec.convert(None, kind)


async def try_ahead(proofs: Proofs, live: Callable[[], bool]) -> None:
    """Try how jobs can be confined when the settings do not say otherwise.

    Args:
        proofs: takes what was proven.
        live: called now and then; False when nobody wants to know any more.
    """
    trying = asyncio.create_task(prove_ahead(WorkerSettings(), proofs))
    while live() and not trying.done():
        await asyncio.wait([trying], timeout=STROKE_S)
    trying.cancel()
    with suppress(asyncio.CancelledError, FlatrackError):  # whether it matters is known, and said, with the settings
        await trying


def wait_for_settings(path: Path, name: str, proofs: Proofs) -> bool:
    """Return when the file is there; False when a signal has asked for the end first.

    Args:
        path: of the file. Whoever writes it puts it there whole.
        name: of the program, for what it says on standard error.
        proofs: takes what is proven before the wait, if there is one.
    """
    if path.exists():
        return True
    told: list[int] = []
    before = {number: signal.signal(number, lambda got, _: told.append(got)) for number in ENDING_SIGNALS}
    manager = ServiceManager()

    def live() -> bool:
        manager.stroke()
        return not told

    try:
        load()
        asyncio.run(try_ahead(proofs, live))
        sys.stderr.write(f"{name}: waits for {path}\n")
        sys.stderr.flush()
        looks_count = 0
        while not told and not path.exists():
            if looks_count % round(STROKE_S / POLL_S) == 0:
                manager.stroke()
            looks_count += 1
            select.select((), (), (), POLL_S)
        return not told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        manager.close()
