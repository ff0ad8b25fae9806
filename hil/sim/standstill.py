"""What a world looks like in which every task waits and nothing can wake one: the text of a deadlock."""

import asyncio
import linecache
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, Final

DEADLOCK_TASKS_MAX: Final = 100  # tasks written out in a deadlock's message; a screenful or two says enough

_ASYNCIO_FOLDER: Final = str(Path(asyncio.__file__).parent)


def describe_standstill(tasks: AbstractSet[asyncio.Task[Any]], now_ns: int) -> str:
    """Each task, its coroutine and the line that it waits at, in the order of the tasks' numbers.

    Args:
        tasks: The tasks that wait; they must hash by their number.
        now_ns: The instant [ns of virtual time].
    """
    ordered = sorted(tasks, key=hash)
    lines = [f"every task waits and no timer is armed at {now_ns / 1e9:.9f} s of virtual time"]
    lines += [f"  {task.get_name()} {_waiting_place(task)}" for task in ordered[:DEADLOCK_TASKS_MAX]]
    if len(ordered) > DEADLOCK_TASKS_MAX:
        lines.append(f"  and {len(ordered) - DEADLOCK_TASKS_MAX} more tasks")
    return "\n".join(lines)


def _waiting_place(task: asyncio.Task[Any]) -> str:
    """The task's coroutine and the innermost line outside asyncio that it stands at."""
    awaited: Any = task.get_coro()
    name = getattr(awaited, "__qualname__", repr(awaited))
    place = ""
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is None:
            break
        path = frame.f_code.co_filename
        if not place or not path.startswith(_ASYNCIO_FOLDER):
            source = linecache.getline(path, frame.f_lineno).strip()
            place = f" waits at {path}:{frame.f_lineno} in {frame.f_code.co_name}: {source}"
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
    return f"({name}){place}"
