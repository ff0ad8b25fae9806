"""Somebody at the console of a run in virtual time: lines in, text out, time goes on only when a line lets it.

| line | does |
|---|---|
| `wait SECONDS` | lets so much mission time pass |
| `strike KIND field=value ...` | a fault of a scenario file, now: `strike node_reset node=sat-01` |
| `quit` | ends the run, which is then judged as far as it went |
| any other | a command of flatrack that asks a ground: `command sat-01 NODE.NOOP` |
"""

import asyncio
import shlex
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import msgspec

from flightsw.errors import ConfigError, FlatrackError
from hil.bench.mission_control import LocalGround
from hil.bench.run import Bench
from hil.faults.plan import Fault

WAIT_S_MAX: Final = 1e7
"""Longest wait of one line [s]: that of a scenario."""

Run = Callable[[list[str], "RunGround"], Awaitable[bool | None]]
"""Runs one command of flatrack against a ground: words in, verdict out."""


class RunGround:
    """The ground of a run in this loop, asked as over a control socket.

    Args:
        bench: whose ground answers.
    """

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    async def ask(self, method: str, *params: Any) -> Any:
        """The answer of the run's ground. Raises: ConfigError."""
        try:
            return await self._bench.ground.ask(method, *params)
        except FlatrackError as error:
            raise ConfigError(str(error)) from None


class Console:
    """The operator of a bench (`hil.bench.run.Operator`).

    Args:
        lines: what is typed.
        show: takes each line of output.
        run: runs what is no line of the console's own.
        echo: whether lines are shown with the time before they run, as when they come from a file.
    """

    def __init__(self, lines: Iterator[str], show: Callable[[str], None], run: Run, *, echo: bool) -> None:
        self._lines = lines
        self._show = show
        self._run = run
        self._echo = echo
        self._strikes_count = 0
        self.error: ConfigError | None = None
        """The first line that was wrong."""

    async def __call__(self, bench: Bench) -> None:
        """Work until the lines end."""
        assert isinstance(bench.ground, LocalGround), "in virtual time the ground is in this loop"
        ground = RunGround(bench)
        for line in self._lines:
            words = self._words(line)
            if not words:
                continue
            if self._echo:
                self._show(f"{clock_text(bench.loop.now_ns)}> {line.strip()}")
            if words[0] in ("quit", "exit"):
                return
            try:
                await self._one(words, bench, ground)
            except ConfigError as error:
                self._show(f"flatrack: {error}")
                self.error = self.error or error
            except FlatrackError as error:
                self._show(f"flatrack: {type(error).__name__}: {error}")

    async def _one(self, words: list[str], bench: Bench, ground: RunGround) -> None:
        match words:
            case ["wait", seconds]:
                await asyncio.sleep(_seconds(seconds))
            case ["wait", *_]:
                raise ConfigError(f"wait: {len(words) - 1} words follow, expected one: how many seconds")
            case ["strike", kind, *fields]:
                self._strike(_fault(kind, fields), bench)
            case ["strike"]:
                raise ConfigError("strike: expected a kind of fault and its fields")
            case _:
                await self._run(words, ground)

    def _strike(self, fault: Fault, bench: Bench) -> None:
        self._strikes_count += 1
        random = bench.streams.child("console").random(f"strikes/{self._strikes_count}")
        bench.injector.strike(fault, random)

    def _words(self, line: str) -> list[str]:
        try:
            return shlex.split(line, comments=True)
        except ValueError as error:
            self._show(f"flatrack: {line.strip()}: {error}")
            return []


def clock_text(now_ns: int) -> str:
    """Mission time as `T+h:mm:ss`."""
    seconds = now_ns // 1_000_000_000
    return f"T+{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= WAIT_S_MAX:
        raise ConfigError(f"wait: {text!r}, expected seconds, 0 to {WAIT_S_MAX:g}")
    return seconds


def _fault(kind: str, fields: list[str]) -> Fault:
    values: dict[str, Any] = {"kind": kind, "at_s": 0.0}
    for field in fields:
        name, equals, text = field.partition("=")
        if not equals:
            raise ConfigError(f"strike: {field!r}, expected field=value")
        try:
            values[name] = msgspec.json.decode(text)
        except msgspec.DecodeError:
            values[name] = text
    try:
        fault: Fault = msgspec.convert(values, Fault)
    except msgspec.ValidationError as error:
        raise ConfigError(f"strike: {error}") from None
    return fault
