"""Coroutines run under virtual time, and the loop that they find there."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from hil.sim.loop import VirtualLoop


def run(main: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def virtual_loop() -> VirtualLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop


@pytest.fixture(scope="session", name="run")
def _run() -> Callable[..., Any]:
    return run


@pytest.fixture(scope="session", name="virtual_loop")
def _virtual_loop() -> Callable[[], VirtualLoop]:
    return virtual_loop
