"""The fence: flight and ground code cannot reach the wall clock, threads, sockets or unseeded chance; others can."""

import os
import random  # noqa: TID251 - fenced
import secrets  # noqa: TID251 - fenced
import socket
import sqlite3
import subprocess
import threading  # noqa: TID251 - fenced
import time  # noqa: TID251 - fenced
import uuid  # noqa: TID251 - fenced
from concurrent.futures import ThreadPoolExecutor  # noqa: TID251 - fenced
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from flightsw.errors import Escape
from hil.sim.fence import fence

CLOCK = SimpleNamespace(now_ns=12_500_000_000)

REACHES = [
    "time.time()",
    "time.time_ns()",
    "time.monotonic()",
    "time.monotonic_ns()",
    "time.perf_counter()",
    "time.sleep(0)",
    "os.urandom(8)",
    "uuid.uuid1()",
    "uuid.uuid4()",
    "random.random()",
    "random.randint(1, 6)",
    "random.choice([1, 2])",
    "random.shuffle([1, 2])",
    "random.seed(1)",
    "random.Random()",
    "random.SystemRandom()",
    "np.random.default_rng()",
    "secrets.token_bytes(8)",
    "secrets.token_hex()",
    "threading.Thread(target=print).start()",
    "pool.submit(print)",
    "subprocess.run(['true'])",
    "subprocess.Popen(['true'])",
    "socket.socket()",
    "socket.getaddrinfo('localhost', 80)",
]


def evaluate(module: str, expression: str) -> Any:
    """Evaluate an expression as if it stood in a module."""
    scope = {"np": np, "os": os, "random": random, "secrets": secrets, "socket": socket, "subprocess": subprocess}
    scope |= {"threading": threading, "time": time, "uuid": uuid, "pool": ThreadPoolExecutor(1), "__name__": module}
    return eval(expression, scope)


@pytest.mark.parametrize("package", ["flightsw", "ground"])
@pytest.mark.parametrize("expression", REACHES)
def test_flight_and_ground_code_cannot_reach_outside(package: str, expression: str) -> None:
    with fence(CLOCK), pytest.raises(Escape, match=rf"^{package}\.core\.modes, line 1, called .* at 12\.500000000 s"):
        evaluate(f"{package}.core.modes", expression)


def test_the_message_says_what_to_use_instead() -> None:
    with fence(CLOCK), pytest.raises(Escape, match=r"called time\.monotonic .*: time is passed in as now_ns"):
        evaluate("flightsw.core.modes", "time.monotonic()")


@pytest.mark.parametrize(
    "expression",
    [
        "time.time()",
        "time.monotonic_ns()",
        "os.urandom(8)",
        "uuid.uuid4()",
        "random.random()",
        "random.Random().random()",
        "random.SystemRandom().random()",
        "np.random.default_rng().random()",
        "secrets.token_bytes(8)",
        "socket.socket()",
    ],
)
@pytest.mark.parametrize("module", ["hil.cli", "flightsware", "groundwork.flightsw", "sqlite3"])
def test_other_code_works_inside_the_fence(module: str, expression: str) -> None:
    with fence(CLOCK):
        made = evaluate(module, expression)
    if isinstance(made, socket.socket):
        made.close()


def test_libraries_that_flight_code_calls_may_start_threads_and_read_clocks() -> None:
    ran: list[float] = []
    with fence(CLOCK):
        thread = threading.Thread(target=lambda: ran.append(time.time()))
        thread.start()
        thread.join()
        with sqlite3.connect(":memory:") as database:
            assert database.execute("select random() is not null").fetchone() == (1,)
        database.close()
    assert len(ran) == 1


def test_seeded_chance_passes() -> None:
    with fence(CLOCK):
        assert evaluate("flightsw.x", "random.Random(3).random()") == random.Random(3).random()
        assert evaluate("flightsw.x", "random.Random(x=3).random()") == random.Random(3).random()
        assert evaluate("flightsw.x", "np.random.default_rng(3).random()") == np.random.default_rng(3).random()  # noqa: TID251


def outside_names() -> list[object]:
    functions = (
        "time.time time.monotonic time.sleep os.urandom uuid.uuid4 random.random random.choice secrets.token_hex"
    )
    methods = "random.Random.__init__ random.SystemRandom.__init__ threading.Thread.start socket.socket.__init__"
    others = "np.random.default_rng subprocess.run subprocess.Popen.__init__"
    return [evaluate("hil.cli", name) for name in f"{functions} {methods} {others}".split()]


def test_everything_is_as_before_when_the_fence_is_down() -> None:
    before = outside_names()
    with fence(CLOCK):
        assert all(now is not then for now, then in zip(outside_names(), before, strict=True))
    assert outside_names() == before
    assert "__init__" not in vars(random.SystemRandom)
    assert evaluate("flightsw.core.modes", "time.time()") > 0


def test_everything_is_as_before_when_the_block_fails() -> None:
    before = outside_names()
    with pytest.raises(ZeroDivisionError), fence(CLOCK):
        raise ZeroDivisionError
    assert outside_names() == before


def test_fences_nest() -> None:
    before = outside_names()
    with fence(CLOCK):
        with fence(CLOCK):
            assert evaluate("hil.cli", "time.time()") > 0
        with pytest.raises(Escape):
            evaluate("ground.api", "time.time()")
    assert outside_names() == before
