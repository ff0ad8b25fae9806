"""What a campaign of RAM flips strikes on an emulated board: who is asked for a job, and how the answer is judged.

| subject | is |
|---|---|
| `job` | the flight code of a job in a small program (`hil.emulation.target`): a trial takes 0.6 s |
| `manager` | the whole node as it flies (`hil.emulation.struck_node`) |

A subject is of one machine. `settle` leads it once to where it waits for jobs; `connect`, `ask` and `disconnect` are a
trial's.
"""

import asyncio
import json
from typing import Final, NamedTuple, Protocol

from flightsw.errors import BoardError
from flightsw.link.pacing import lab_s
from hil.emulation.flip_outcomes import CRASH_WORDS, Outcome, Verdict
from hil.emulation.machine import Machine
from hil.emulation.target import MAKES, READY
from hil.on_board.remote import AgentPeer

START_S_MAX: Final = 300.0
"""How long a subject may take until its first job has ended [s of the machine]: 15 s alone."""
REQUEST: Final = "target"
"""Settings file that starts the small program in the node's place (`recipe.toml`)."""
TARGET_ENDED: Final = "flatrack-target.service: Main process"


class Patience(NamedTuple):
    """When a board that has not answered hangs."""

    worked_s: float
    """It has computed for so long [s of QEMU's processor time]: other programs slow a board down as they like."""
    idle_s: float
    """Or it has done next to nothing for so long [s of the machine]."""
    idle_share: float
    """Which is to use less than this share of a core; one that waits for a core is not idle."""


class Subject(Protocol):
    """Who is asked. Needs a running loop."""

    @property
    def patience(self) -> Patience:
        """With its answers."""
        ...

    async def settle(self) -> bytes:
        """Lead a board that was restored from `ready` to where it waits for jobs; returns what a job must give.

        Raises:
            BoardError: it does not get there. LinkError: its agent has gone.
        """
        ...

    async def pages(self) -> dict[str, list[int]]:
        """Whose memory is known -> physical addresses of its pages. Raises: LinkError."""
        ...

    async def connect(self) -> None:
        """Begin anew with a board that was restored and stands still: what is under way from before is lost."""
        ...

    async def ask(self) -> None:
        """Return when a job has ended, or when no answer can come any more. Raises: BoardError: QEMU has ended."""
        ...

    def starts(self, words: str) -> int:
        """How often it has begun to start again, by what the console has said so far: each time patience begins anew.
        Asked again and again while it has not answered."""
        ...

    def judged(self, expected: bytes, words: str, *, has_ended: bool) -> Verdict:
        """What became of the job: by what was heard, what a job must give, and what the console has said."""
        ...

    async def disconnect(self) -> None:
        """Let go of the board. No effect when not connected."""
        ...


class JobSubject:
    """The small program. Implements `Subject`.

    Args:
        machine: it has power.
    """

    patience: Final = Patience(worked_s=8.0, idle_s=3.0, idle_share=0.05)
    """A job takes 0.1 s of QEMU's processor time, one after a reload of the model 2 s."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._jobs_count = 0
        self._answer: dict[str, object] | None = None
        self._said = Verdict(Outcome.HANG)
        """What became of it where there is no answer."""

    async def settle(self) -> bytes:
        """Start the program in the node's place, and let it do the job once. Raises: BoardError, LinkError."""
        await self.connect()
        agent = await AgentPeer.open(self._machine.agent_path)
        try:
            await agent.configure({REQUEST: b""})
        finally:
            await agent.close()
        assert self._reader is not None, "connected"
        try:
            async with asyncio.timeout(lab_s(START_S_MAX)):
                while READY.encode() not in await self._reader.readline():
                    pass
                await self.ask()
        except TimeoutError:
            raise BoardError(f"no {READY!r} within {START_S_MAX:g} s: {self._machine.last_words()}") from None
        await self.disconnect()
        if self._answer is None or "mask" not in self._answer:
            raise BoardError(f"the first job did not end: {self._said.said}: {self._machine.last_words()}")
        return _mask_of(self._answer)

    async def pages(self) -> dict[str, list[int]]:
        """None: the agent does not know this program."""
        return {}

    async def connect(self) -> None:
        """Connect to the UART. Raises: BoardError: QEMU has ended."""
        self._answer, self._said = None, Verdict(Outcome.HANG)
        try:
            self._reader, self._writer = await asyncio.open_unix_connection(str(self._machine.uart_path))
        except OSError as error:
            raise BoardError(f"{self._machine.name}: no UART: {error.strerror}") from None

    async def ask(self) -> None:
        """Run a job; answers of other jobs, asked before a restore, are left out.
        Raises: BoardError: QEMU has ended."""
        assert self._reader is not None, "connected"
        assert self._writer is not None, "connected"
        self._jobs_count += 1
        self._writer.write(b"\njob %d\n" % self._jobs_count)
        while self._answer is None:
            try:
                line = await self._reader.readline()
            except ValueError:  # the reader's limit
                self._said = Verdict(Outcome.GARBLED, "a line without end")
                return
            except OSError:
                line = b""
            if not line:
                raise BoardError(f"{self._machine.name}: the UART has gone: QEMU has ended")
            if MAKES.encode() in line:  # another program begins where the one that was asked has ended
                self._said = Verdict(Outcome.CRASH, "the program has ended")
                return
            try:
                answer = json.loads(line)
            except ValueError:
                answer = None
            if not isinstance(answer, dict):
                self._said = Verdict(Outcome.GARBLED, line[:80].decode(errors="replace").strip())
                return
            if answer.get("job") == self._jobs_count:
                self._answer = answer

    def starts(self, words: str) -> int:
        """None: a program that has ended is a crash."""
        return 0

    def judged(self, expected: bytes, words: str, *, has_ended: bool) -> Verdict:
        """By the line that it has answered."""
        if not has_ended:
            said = next((word for word in (*CRASH_WORDS, TARGET_ENDED) if word in words), "")
            return Verdict(Outcome.CRASH, f"console: {said}") if said else Verdict(Outcome.HANG, "no answer")
        if self._answer is None:
            return self._said
        if "error" in self._answer:
            return Verdict(Outcome.DETECTED, str(self._answer["error"]))
        if _mask_of(self._answer) != expected:
            return Verdict(Outcome.SILENT, "another mask")
        measures = [f"{self._answer[key]} {key}" for key in ("mended", "reloaded") if self._answer.get(key)]
        return Verdict(Outcome.CORRECTED, ", ".join(measures)) if measures else Verdict(Outcome.MASKED)

    async def disconnect(self) -> None:
        """Let go of the UART."""
        if self._writer is not None:
            self._writer.close()
            self._reader = self._writer = None


def _mask_of(answer: dict[str, object]) -> bytes:
    """The digest of the mask."""
    return str(answer.get("mask")).encode()
