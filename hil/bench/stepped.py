"""A run that goes on only while somebody asks it to: what a test, or a notebook, drives from line to line.

In virtual time nothing happens between two questions. In real time the programs and boards go on, and what they send
waits until the next.
"""

import asyncio
import traceback
from collections.abc import Coroutine
from typing import Any, Self, TypeVar

from flightsw.errors import SimulationError
from hil.bench.judge import Outcome
from hil.bench.run import Bench

T = TypeVar("T")


class SteppedRun:
    """A bench in steps. Call `start`, then `do` as often as wanted, then `end`; as a context manager it starts, and
    ends whatever happens: no program and no machine outlives a test that fails.

    Args:
        bench: made with `operator=` of nobody; it belongs to this run from now on.
    """

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self._runner = asyncio.Runner(loop_factory=lambda: bench.loop)
        self._ready = asyncio.Event()
        self._over = asyncio.Event()
        self._main: asyncio.Task[None] | None = None
        self._is_ended = False
        bench.operator = self._stay

    def __enter__(self) -> Self:
        """Start it. Raises: what made that impossible."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End it, if nobody has."""
        if not self._is_ended:
            self.end()

    def start(self) -> None:
        """Compose the fleet and let the mission begin. Raises: what made that impossible."""
        self._main = self._runner.get_loop().create_task(self.bench.main(), name="bench")
        try:
            self.do(self._ready.wait())
        except BaseException:
            self._runner.close()
            self.bench.trace.close()
            raise

    def do(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Let the run go on until this is done.

        Raises:
            SimulationError: the run came to its end before.
            BaseException: what ended it, or what the coroutine raised.
        """
        with self.bench.fence():
            return self._runner.run(self._watched(coroutine))

    def end(self) -> Outcome:
        """End it, however far it has come, and judge it."""
        assert self._main is not None, "start makes it"
        self._is_ended = True
        try:
            if not self._main.done():
                self._over.set()
                with self.bench.fence():
                    self._runner.run(self._ended(self._main))
        finally:
            self._runner.close()
        if self._main.cancelled():  # by SIGTERM
            return self.bench.conclude(interrupted=True)
        error = self._main.exception()
        return self.bench.conclude(crash="" if error is None else "".join(traceback.format_exception(error)))

    async def _watched(self, coroutine: Coroutine[Any, Any, T]) -> T:
        assert self._main is not None, "start makes it"
        task = asyncio.get_running_loop().create_task(coroutine, name="step")
        try:
            await asyncio.wait((task, self._main), return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait((task,))
        if not task.cancelled():
            return task.result()
        self._main.result()
        raise SimulationError(f"the run has ended at {self.bench.loop.now_ns / 1e9:.1f} s, before the step was done")

    @staticmethod
    async def _ended(main: asyncio.Task[None]) -> None:
        await asyncio.wait((main,))

    async def _stay(self, _bench: Bench) -> None:
        self._ready.set()
        await self._over.wait()
