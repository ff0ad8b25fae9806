"""Tasks that last as long as a bearer: they do not die in silence, and they end when they are told to."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Final

from flightsw.link.pacing import lab_s

_CANCEL_AGAIN_S: Final = 0.05


def watched(coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """A task of the running loop whose error, if it ends with one, goes to the loop's handler at once."""
    task = asyncio.get_running_loop().create_task(coroutine, name=name)
    task.add_done_callback(_report)
    return task


async def end_tasks(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel tasks until they have ended: a wait of a library may swallow a cancellation (`wait_for`, Python 3.11)."""
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=lab_s(_CANCEL_AGAIN_S))


def _report(task: asyncio.Task[None]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        context = {"message": f"{task.get_name()} failed", "exception": error, "task": task}
        task.get_loop().call_exception_handler(context)
