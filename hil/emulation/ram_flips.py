"""A campaign of bit flips in the RAM of an emulated board: restore, strike, ask for a job, judge.

Each trial begins from the same snapshot, so that a trial is repeated by its number and the seed. The bench flips the
bits in the memory that it shares with QEMU while the guest stands still; nobody in the guest knows.

| outcome | the board |
|---|---|
| MASKED | answers as if nothing had happened |
| CORRECTED | answers rightly, and a measure of flight software has mended or loaded again what was struck |
| DETECTED | says that it cannot do the job |
| SILENT | answers wrongly, and nobody on board has noticed |
| GARBLED | answers with a line that is none |
| CRASH | has lost the program, or its kernel, and says so |
| HANG | does not answer |
"""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, unique
from typing import Final

from flightsw.errors import BoardError
from flightsw.link.pacing import lab_s
from flightsw.ports import Random
from hil.emulation.machine import Machine
from hil.emulation.memory import RAM_BASE
from hil.emulation.target import MAKES, MODEL, READY
from hil.on_board.remote import AgentPeer

TAG: Final = "target"
START_S_MAX: Final = 180.0
"""How long the program may take until it is ready [s of the machine]: it imports the AI runtime, 10 s alone."""
ANSWER_CPU_S_MAX: Final = 8.0
"""A board that has computed so long without an answer hangs [s of QEMU's processor time]: a job takes 0.1 s, one after
a reload of the model 2 s. Processor time, since other programs slow a board down as they like."""
IDLE_S: Final = 3.0
"""A board hangs, too, that does nothing for so long [s of the machine]..."""
IDLE_SHARE: Final = 0.05
"""... which is to use less than this share of a core; one that waits for a core is not idle."""
LOOK_S: Final = 0.25
PATTERN_BYTES: Final = 32
"""Of the model's weights, to find them in RAM: no other bytes are like them."""
CRASH_WORDS: Final = (
    "Kernel panic",
    "Internal error",
    "Unable to handle kernel",
    "flatrack-target.service: Main process",
)


@unique
class Outcome(Enum):
    """What became of a trial."""

    MASKED = "masked"
    CORRECTED = "corrected"
    DETECTED = "detected"
    SILENT = "silent corruption"
    GARBLED = "garbled"
    CRASH = "crash"
    HANG = "hang"


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial."""

    flips: tuple[tuple[int, int], ...]
    """(physical address, bit)."""
    outcome: Outcome


class RamFlips:
    """A campaign on one machine, which has been restored from `ready` and waits for its settings.

    Args:
        machine: it has power.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reference: dict[str, object] = {}
        self._jobs_count = 0
        self._weights: list[int] = []

    async def prepare(self) -> None:
        """Start the program, let it do the job once, and save the machine. Raises: BoardError, LinkError."""
        reader = await self._connect()
        agent = await AgentPeer.open(self._machine.agent_path)
        try:
            await agent.configure({TAG: b""})
        finally:
            await agent.close()
        try:
            async with asyncio.timeout(lab_s(START_S_MAX)):
                while READY.encode() not in await reader.readline():
                    pass
                self._reference = await self._ask()
        except TimeoutError:
            raise BoardError(f"no {READY!r} within {START_S_MAX:g} s: {self._machine.last_words()}") from None
        await self._machine.save(TAG)
        model = MODEL.read_bytes()
        found: set[int] = set()
        for start in range(len(model) // 8, len(model) - PATTERN_BYTES, PATTERN_BYTES * 8):
            found.update(self._machine.memory.find(model[start : start + PATTERN_BYTES]))
        self._weights = sorted(found)

    @property
    def weights_count(self) -> int:
        """Places in RAM where the campaign has found weights: each copy counts."""
        return len(self._weights)

    def anywhere(self, rng: Random, count: int) -> tuple[tuple[int, int], ...]:
        """Draw flips from all of RAM."""
        size_bytes = self._machine.memory.size_bytes
        return tuple((RAM_BASE + rng.randrange(size_bytes), rng.randrange(8)) for _ in range(count))

    def in_weights(self, rng: Random) -> tuple[tuple[int, int], ...]:
        """Draw one flip from the copies of the model's weights in RAM."""
        return ((rng.choice(self._weights) + rng.randrange(PATTERN_BYTES), rng.randrange(8)),)

    async def trial(self, flips: Sequence[tuple[int, int]]) -> Trial:
        """Restore, strike, ask and judge. Raises: BoardError: QEMU itself has failed."""
        machine = self._machine
        await machine.freeze()  # so that it stands still when it is restored, and all trials begin at one instruction
        await machine.load(TAG)
        await self._connect()  # what the trial before left on the line is its own
        for address, bit in flips:
            machine.memory.flip(address, bit)
        said = len(machine.console())
        await machine.resume()
        asked = asyncio.create_task(self._ask())
        try:
            if not await self._waited(asked):
                words = machine.console()[said:]
                crashed = any(word in words for word in CRASH_WORDS)
                return Trial(tuple(flips), Outcome.CRASH if crashed else Outcome.HANG)
            return Trial(tuple(flips), self._judged(asked.result()))
        except _Crashed:
            return Trial(tuple(flips), Outcome.CRASH)
        except ValueError:
            return Trial(tuple(flips), Outcome.GARBLED)
        finally:
            asked.cancel()
            await asyncio.wait([asked])

    def close(self) -> None:
        """Let go of the UART."""
        if self._writer is not None:
            self._writer.close()

    async def _connect(self) -> asyncio.StreamReader:
        self.close()
        self._reader, self._writer = await asyncio.open_unix_connection(str(self._machine.uart_path))
        return self._reader

    async def _waited(self, asked: asyncio.Task[dict[str, object]]) -> bool:
        """Whether an answer came before the board must be said to hang."""
        begun_s = before_s = self._machine.cpu_s()
        idle_s = 0.0
        while not (await asyncio.wait([asked], timeout=lab_s(LOOK_S)))[0]:
            now_s = self._machine.cpu_s()
            idle_s = idle_s + LOOK_S if now_s - before_s < LOOK_S * IDLE_SHARE else 0.0
            before_s = now_s
            if now_s - begun_s > ANSWER_CPU_S_MAX or idle_s >= IDLE_S:
                return False
        return True

    def _judged(self, answer: dict[str, object]) -> Outcome:
        if "error" in answer:
            return Outcome.DETECTED
        if answer.get("mask") != self._reference["mask"]:
            return Outcome.SILENT
        return Outcome.CORRECTED if answer.get("mended") or answer.get("reloaded") else Outcome.MASKED

    async def _ask(self) -> dict[str, object]:
        """Run a job; answers of other jobs, asked before a restore, are left out. Raises: ValueError, _Crashed."""
        assert self._reader is not None, "prepared"
        assert self._writer is not None, "prepared"
        self._jobs_count += 1
        self._writer.write(b"\njob %d\n" % self._jobs_count)
        while True:
            line = await self._reader.readline()
            if not line or MAKES.encode() in line:
                raise _Crashed  # another program begins where the one that was asked has ended
            answer = json.loads(line)
            if not isinstance(answer, dict):
                raise ValueError("no answer of the program")
            if answer.get("job") == self._jobs_count:
                return answer


def outcomes(trials: Sequence[Trial]) -> Counter[Outcome]:
    """How often each outcome was."""
    return Counter(trial.outcome for trial in trials)


class _Crashed(Exception):
    """The program that was asked has ended."""
