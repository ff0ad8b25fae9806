"""Waiting for the settings: a board is loaded before anybody has told it who it is.

A snapshot of an emulated board holds a program that has imported all it needs and waits here; what is restored from it
is a node as soon as its settings lie there. While it waits it strokes the service manager as a running node does, and a
signal ends it as one.
"""

import select
import signal
import sys
from pathlib import Path
from typing import Final

from boards.watchdog import ServiceManager

POLL_S: Final = 0.02
"""Time between two looks at the file [s of the machine]: short beside the boot that follows."""
STROKE_S: Final = 1.0
"""Time between two strokes [s of the machine]: far shorter than any watchdog's time."""
ENDING_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def wait_for_settings(path: Path, name: str) -> bool:
    """Return when the file is there; False when a signal has asked for the end first.

    Args:
        path: of the file. Whoever writes it puts it there whole.
        name: of the program, for what it says on standard error.
    """
    if path.exists():
        return True
    told: list[int] = []
    before = {number: signal.signal(number, lambda got, _: told.append(got)) for number in ENDING_SIGNALS}
    manager = ServiceManager()
    try:
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
