"""Whatever a store raises after a power cut is a failure of the store, to be told with the line that repeats it."""

from collections.abc import Callable


def faults_of(act: Callable[[], list[str] | None]) -> list[str]:
    """What an action found wrong, or the error with which it failed; a power cut passes."""
    try:
        return act() or []
    except Exception as error:
        return [f"cannot be opened or used: {type(error).__name__}: {error}"]
