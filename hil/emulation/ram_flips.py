"""A campaign of bit flips in the RAM of an emulated board: restore, strike, ask for a job, judge.

Each trial begins from the same snapshot, standing still, with flips that follow from seed and number; the bench flips
the bits in the memory that it shares with QEMU, and nobody in the guest knows. The snapshot of a subject is made once
for an image, from `ready`, and kept beside it with what is known of it: where weights and the subject's own pages lie,
and what a job must give. So a trial strikes the same bytes again, today and tomorrow, as long as that snapshot is kept.
All trials of one machine begin at one instruction; another machine has run some milliseconds less or more.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec

from flightsw.compute.onnx_file import weight_tensors
from flightsw.errors import BoardError
from flightsw.link.pacing import lab_s
from hil.emulation import recipe
from hil.emulation.cache import made_once
from hil.emulation.command_line import RAM_MIB
from hil.emulation.copies import find_copies
from hil.emulation.flip_outcomes import Outcome, Verdict
from hil.emulation.flip_places import Flip, Places
from hil.emulation.flip_subjects import JobSubject, Subject
from hil.emulation.image import ImageFiles
from hil.emulation.machine import Machine
from hil.emulation.ready import ready_snapshot
from hil.emulation.snapshot import Snapshot
from hil.emulation.struck_node import NodeSubject
from hil.emulation.target import MODEL
from hil.emulation.tools import scratch_folder

SubjectName = Literal["job", "manager"]
SUBJECTS: Final[dict[SubjectName, Callable[[Machine], Subject]]] = {"job": JobSubject, "manager": NodeSubject}
TAG: Final = "struck"
NOTES: Final = "notes.json"
LOOK_S: Final = 0.1
"""Time between two looks at a board that has not answered [s of the machine]."""
END_S_MAX: Final = 5.0
"""How long QEMU may take from its last answer to its end [s of the machine]."""
RESTARTS_MAX: Final = 4
"""Starts of one trial for which a board is given its time anew; one that starts more often never comes back."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial."""

    flips: tuple[Flip, ...]
    outcome: Outcome
    said: str
    """By what it was judged."""


class Notes(msgspec.Struct, frozen=True):
    """What is known of a subject's snapshot, and kept with it."""

    places: Places
    expected: bytes
    """What a job must give."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A subject that waits for jobs, saved."""

    name: SubjectName
    snapshot: Snapshot
    notes: Notes
    digest: str
    """Of the notes: no two snapshots have the same places, since each is of a boot of its own in real time."""


class RamFlips:
    """A campaign on one machine.

    Args:
        machine: made with the stage's snapshot as its origin; it has power.
        stage: what is struck.
    """

    def __init__(self, machine: Machine, stage: Stage) -> None:
        self._machine = machine
        self._subject = SUBJECTS[stage.name](machine)
        self._notes = stage.notes

    async def prepare(self) -> None:
        """Save the machine where all trials begin, and see that a board that nobody strikes does its job.

        Raises:
            BoardError: it does not; or QEMU itself has failed.
        """
        await self._machine.freeze()
        await self._machine.save(TAG)
        untouched = await self.trial(())
        if untouched.outcome is not Outcome.MASKED:
            raise BoardError(f"nothing was struck, and the board is {untouched.outcome.value}: {untouched.said}")

    @property
    def places(self) -> Places:
        """Where can be struck."""
        return self._notes.places

    async def trial(self, flips: Sequence[Flip]) -> Trial:
        """Restore, strike, ask and judge. Raises: BoardError: QEMU itself has failed."""
        machine, subject = self._machine, self._subject
        await self._restore()
        await subject.connect()
        try:
            for address, bit in flips:
                machine.memory.flip(address, bit)
            verdict = await self._verdict()
        finally:
            await subject.disconnect()
        return Trial(tuple(flips), *verdict)

    async def _restore(self) -> None:
        """Back to where all trials begin, with power where a struck guest has switched the board off."""
        machine = self._machine
        try:
            await self._load()
        except BoardError:
            if not await self._has_switched_off():
                raise
            await machine.kill()  # which ends what is left of the connection
            await machine.start()
            await self._load()
        machine.forget_words()  # or each look at the console would read those of all trials

    async def _load(self) -> None:
        await self._machine.freeze()  # so that it stands still when it is restored: all trials begin at one instruction
        await self._machine.load(TAG)

    async def _verdict(self) -> Verdict:
        machine, subject, expected = self._machine, self._subject, self._notes.expected
        try:
            has_ended = await self._has_ended()
        except BoardError:
            if not await self._has_switched_off():
                raise
            verdict = subject.judged(expected, machine.console(), has_ended=False)
            is_silent = verdict.outcome is Outcome.SILENT
            return verdict if is_silent else Verdict(Outcome.CRASH, "the board has switched itself off")
        return subject.judged(expected, machine.console(), has_ended=has_ended)

    async def _has_switched_off(self) -> bool:
        """Whether QEMU has failed to answer because its guest has switched the board off."""
        try:
            async with asyncio.timeout(lab_s(END_S_MAX)):
                await self._machine.ended()
        except TimeoutError:
            return False
        return self._machine.exit_code == 0

    async def _has_ended(self) -> bool:
        """Let the board go on, and ask it for a job; whether that ended before the board must be said to hang.
        Raises: BoardError: QEMU has ended."""
        machine, patience = self._machine, self._subject.patience
        before_s, worked_s, idle_s, starts_count = machine.cpu_s(), 0.0, 0.0, 0
        await machine.resume()
        asked = asyncio.create_task(self._subject.ask())
        try:
            while not (await asyncio.wait([asked], timeout=lab_s(LOOK_S)))[0]:
                if machine.pid is None:
                    raise BoardError(f"{machine.name}: QEMU has ended: {machine.last_words()}")
                used_s = machine.cpu_s() - before_s
                before_s += used_s
                worked_s += used_s
                idle_s += LOOK_S if used_s < LOOK_S * patience.idle_share else 0.0
                starts = min(RESTARTS_MAX, self._subject.starts(machine.console()))
                if starts > starts_count:
                    worked_s, idle_s, starts_count = 0.0, 0.0, starts
                if worked_s > patience.worked_s or idle_s >= patience.idle_s:
                    return False
            asked.result()
            return True
        finally:
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)


async def stage_of(name: SubjectName, files: ImageFiles, *, ram_mib: int = RAM_MIB) -> Stage:
    """The snapshot of a subject and what is known of it, from the cache beside the image, or made.

    Another process that makes it is waited for.

    Raises:
        ConfigError: QEMU is missing.
        BoardError: the board does not come up, or its first job does not end.
        LinkError: its agent has gone.
    """
    path = files.disk.with_name(f"{TAG}-{name}-{ram_mib}")

    async def make(new: Path) -> None:
        notes = await _settle_and_save(name, files, await ready_snapshot(files, ram_mib=ram_mib), new)
        (new / NOTES).write_bytes(msgspec.json.encode(notes))

    await made_once(path, make)
    data = (path / NOTES).read_bytes()
    return Stage(name, Snapshot(path, ram_mib), msgspec.json.decode(data, type=Notes), recipe.digest(data))


async def _settle_and_save(name: SubjectName, files: ImageFiles, ready: Snapshot, to: Path) -> Notes:
    with scratch_folder() as folder:
        machine = Machine(files, Path(folder), name, origin=ready, ram_mib=ready.ram_mib)
        subject = SUBJECTS[name](machine)
        try:
            await machine.start()
            expected = await subject.settle()
            pages = await subject.pages()
            await machine.freeze()
            model = MODEL.read_bytes()
            parts = [(one.start, one.start + one.length) for one in weight_tensors(model, MODEL.name)]
            weights = find_copies(machine.memory, model, parts)
            await machine.capture(to)
        finally:
            await machine.kill()
            machine.close()
    return Notes(Places(machine.memory.size_bytes, weights, pages), expected)
