"""Tools of a board's maker (vcgencmd, nvpmodel): run by their argument list, with a time limit, and not too often.

A call of vcgencmd takes about 0.1 s, and flight software waits for it. So a reading refreshes what must be fresh, and
of the rest what is oldest: what is asked for stays known in between.
"""

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from boards.support.sysfs import reason, shown
from flightsw.errors import SensorError

TOOL_S_MAX: Final = 5.0
"""Longest time that a tool may take [s]: vcgencmd takes 0.1, setting a power mode of a Jetson a second or two."""
OUTPUT_BYTES_MAX: Final = 65_536
"""What is looked at of a tool's output [bytes]: `nvpmodel -p --verbose` prints some ten thousand."""
PERIOD_NS: Final = 200_000_000
"""Shortest time between two readings that call tools [ns]: five a second, which vcgencmd bears."""
RETRY_NS: Final = 30_000_000_000
"""How long a call that failed is not repeated [ns]: one that hangs costs the node its time limit."""


@dataclass(frozen=True, slots=True)
class ToolResult:
    """The end of a tool."""

    exit_code: int
    output: str
    """Standard output, and standard error behind it."""


Tool = Callable[[Sequence[str]], ToolResult]
"""Runs a program with arguments, never by a shell. Raises: OSError: it is not there, or it takes too long."""


def run_tool(arguments: Sequence[str]) -> ToolResult:
    """Run a tool of this machine; it gets no input. Raises: OSError."""
    try:
        done = subprocess.run(
            list(arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TOOL_S_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"{arguments[0]}: no answer within {TOOL_S_MAX:g} s") from None
    return ToolResult(done.returncode, done.stdout[:OUTPUT_BYTES_MAX].decode(errors="replace"))


def output_of(run: Tool, arguments: Sequence[str]) -> str:
    """What a tool says. Raises: SensorError: it is not there, fails, or says that it has failed."""
    try:
        result = run(arguments)
    except FileNotFoundError:
        raise SensorError(f"{arguments[0]} is not installed") from None
    except TimeoutError:
        raise SensorError(f"{arguments[0]} gave no answer within {TOOL_S_MAX:g} s") from None
    except OSError as error:
        raise SensorError(f"{arguments[0]}: {reason(error)}") from None
    if result.exit_code != 0 or result.output.startswith("error="):
        raise SensorError(f"{arguments[0]} exit {result.exit_code}: {shown(result.output.strip())}")
    return result.output


class PacedTool:
    """What a tool said last, refreshed at a bounded rate.

    Args:
        run: runs it.
        monotonic_ns: the time of the machine that runs it.
        urgent: what each reading asks anew, as command lines.
        others: of these, a reading asks only the one that was asked longest ago; one that failed waits its time.
    """

    def __init__(
        self,
        run: Tool,
        monotonic_ns: Callable[[], int],
        urgent: Sequence[Sequence[str]],
        others: Sequence[Sequence[str]] = (),
    ) -> None:
        self._run = run
        self._monotonic_ns = monotonic_ns
        self._urgent = [tuple(command) for command in urgent]
        self._others = [tuple(command) for command in others]
        self._answers: dict[tuple[str, ...], _Answer] = {}
        self._refreshed_ns: int | None = None

    def refresh(self) -> None:
        """Ask what is due: all of it the first time."""
        now_ns = self._monotonic_ns()
        if self._refreshed_ns is None:
            due = self._urgent + self._others
            self._answers.clear()
        elif now_ns - self._refreshed_ns < PERIOD_NS:
            return
        else:
            urgent = [command for command in self._urgent if self._is_due(command, now_ns)]
            others = [command for command in self._others if self._is_due(command, now_ns)]
            due = urgent + sorted(others, key=lambda command: self._answers[command].asked_ns)[:1]
        self._refreshed_ns = now_ns
        for command in due:
            self._answers[command] = self._ask(command)

    def forget(self) -> None:
        """Ask all anew with the next `refresh`: something was set."""
        self._refreshed_ns = None

    def answer(self, *command: str) -> str:
        """What the tool said last. Raises: SensorError: nothing of use."""
        answer = self._answers[command]
        if answer.trouble:
            raise SensorError(answer.trouble)
        return answer.output

    def _is_due(self, command: tuple[str, ...], now_ns: int) -> bool:
        known = self._answers[command]
        return not known.trouble or now_ns - known.asked_ns >= RETRY_NS

    def _ask(self, command: tuple[str, ...]) -> "_Answer":
        asked_ns = self._monotonic_ns()
        try:
            return _Answer(asked_ns, output_of(self._run, command), "")
        except SensorError as error:
            return _Answer(asked_ns, "", str(error))


@dataclass(frozen=True, slots=True)
class _Answer:
    """What came of a call."""

    asked_ns: int
    output: str
    trouble: str
