"""The fence around virtual time: flight and ground code that reaches for wall time or threads fails at once.

So does code that reaches for sockets, processes or unseeded chance. The linter bans these calls where it sees them; the
fence catches those that it cannot see, at the instant when they happen. It asks who calls: libraries keep working (a
progress bar reads the wall clock, a model runtime starts threads), and so does the bench itself. A silent fake
instead would let a fault of the code under test pass unseen.

What it cannot see: a name that was bound before the fence went up (`from time import monotonic`), methods of built-in
types (`datetime.datetime.now`), and entropy drawn inside a C library. The linter's ban covers the first two.
"""

import os
import random  # noqa: TID251 - fenced here
import secrets  # noqa: TID251 - fenced here
import socket
import subprocess
import sys
import threading  # noqa: TID251 - fenced here
import time  # noqa: TID251 - fenced here
import uuid  # noqa: TID251 - fenced here
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor  # noqa: TID251 - fenced here
from contextlib import contextmanager
from typing import Any, Final, Protocol

import numpy as np

from flightsw.errors import Escape

FENCED_PACKAGES: Final = ("flightsw", "ground")

_TIME: Final = "time is passed in as now_ns; a shell asks the running loop or its clock port"
_SLEEP: Final = "await asyncio.sleep"
_CHANCE: Final = "chance is a named stream that is passed in"
_ENTROPY: Final = "entropy is a port; in simulation it is a named stream"
_IDENTIFIER: Final = "identifiers come from counters"
_THREAD: Final = "there are no threads under virtual time; use a task of the running loop"
_PROCESS: Final = "there are no processes under virtual time; the runner port runs jobs"
_SOCKET: Final = "there are no sockets under virtual time; use a link that is passed in"


class VirtualClock(Protocol):
    """Who knows virtual time: a `VirtualLoop`."""

    now_ns: int


def _always(arguments: tuple[Any, ...]) -> bool:
    return True


def _unseeded(arguments: tuple[Any, ...]) -> bool:
    return all(argument is None for argument in arguments)


def _unseeded_method(arguments: tuple[Any, ...]) -> bool:
    return _unseeded(arguments[1:])


def _fenced() -> Iterator[tuple[object, str, str, str, Callable[[tuple[Any, ...]], bool]]]:
    """What the fence stops: (owner, attribute, its name in the message, what to use instead, when)."""
    for name in ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns"):
        yield time, name, f"time.{name}", _TIME, _always
    yield time, "sleep", "time.sleep", _SLEEP, _always
    yield os, "urandom", "os.urandom", _ENTROPY, _always
    for name in ("uuid1", "uuid4"):
        yield uuid, name, f"uuid.{name}", _IDENTIFIER, _always
    for name in sorted(random.__all__):
        if not isinstance(getattr(random, name), type):
            yield random, name, f"random.{name}", _CHANCE, _always
    yield random.Random, "__init__", "random.Random without a seed", _CHANCE, _unseeded_method
    yield random.SystemRandom, "__init__", "random.SystemRandom", _CHANCE, _always
    yield np.random, "default_rng", "numpy.random.default_rng without a seed", _CHANCE, _unseeded
    for name in ("choice", "randbelow", "randbits", "token_bytes", "token_hex", "token_urlsafe"):
        yield secrets, name, f"secrets.{name}", _ENTROPY, _always
    yield threading.Thread, "start", "threading.Thread.start", _THREAD, _always
    for pool in (ThreadPoolExecutor, ProcessPoolExecutor):
        yield pool, "submit", f"{pool.__name__}.submit", _THREAD, _always
    for name in ("run", "call", "check_call", "check_output"):
        yield subprocess, name, f"subprocess.{name}", _PROCESS, _always
    yield subprocess.Popen, "__init__", "subprocess.Popen", _PROCESS, _always
    yield socket.socket, "__init__", "socket.socket", _SOCKET, _always
    for name in ("create_connection", "create_server", "getaddrinfo", "socketpair"):
        yield socket, name, f"socket.{name}", _SOCKET, _always


@contextmanager
def fence(clock: VirtualClock) -> Iterator[None]:
    """Hold the fence up while virtual time runs.

    Args:
        clock: Tells the instant for the message.

    Raises:
        Escape: Inside the block, out of the fenced call, when code of `FENCED_PACKAGES` makes it.
    """
    saved: list[tuple[object, str, object, bool]] = []
    try:
        for owner, name, title, cure, when in _fenced():
            original = getattr(owner, name)
            saved.append((owner, name, original, name in vars(owner)))
            setattr(owner, name, _guard(original, title, cure, when, clock))
        yield
    finally:
        for owner, name, original, was_own in reversed(saved):
            if was_own:
                setattr(owner, name, original)
            else:
                delattr(owner, name)


def _guard(
    original: Callable[..., Any],
    title: str,
    cure: str,
    when: Callable[[tuple[Any, ...]], bool],
    clock: VirtualClock,
) -> Callable[..., Any]:
    """The function that stands in for the original while the fence is up."""

    def guarded(*arguments: Any, **options: Any) -> Any:
        caller = sys._getframe(1)
        module = caller.f_globals.get("__name__", "")
        if module.partition(".")[0] in FENCED_PACKAGES and when((*arguments, *options.values())):
            raise Escape(
                f"{module}, line {caller.f_lineno}, called {title} "
                f"at {clock.now_ns / 1e9:.9f} s of virtual time: {cure}"
            )
        return original(*arguments, **options)

    return guarded
