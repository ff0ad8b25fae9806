"""The proof of a memory limit: a hog is started behind it and wants half as much again. It must be stopped.

The limit of the proof is small, and so is what the hog takes where nobody stops it: a board whose kernel ignores limits
is not brought down by finding that out.
"""

import asyncio
import json
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from boards.worker import program
from boards.worker.interpreter import Interpreter
from boards.worker.isolation.bubblewrap import Bubblewrap
from boards.worker.isolation.cgroup2 import Cgroup2
from boards.worker.isolation.isolator import Isolator, Limits
from boards.worker.isolation.rlimits import Rlimits
from boards.worker.isolation.systemd import Systemd
from flightsw.errors import BoardError

PROGRAM: Final = Path(program.__file__)
HOG_LIMIT_BYTES: Final = 64 * 1024 * 1024
"""Limit of the proof [bytes]: an interpreter starts within it."""
HOG_BYTES: Final = HOG_LIMIT_BYTES * 3 // 2
PROOF_S: Final = 60.0
"""How long a hog may take [s of the machine]: a unit of systemd on a small, busy board starts within a few."""
LAST_CHARACTERS: Final = 200


@dataclass(frozen=True, slots=True)
class Proof:
    """What became of a hog."""

    is_usable: bool
    """A program runs behind the isolator at all."""
    is_proven: bool
    """The memory limit has stopped the hog."""
    detail: str


@dataclass(frozen=True, slots=True)
class Choice:
    """The isolator that is used, and why it and no other."""

    isolator: Isolator
    proof: Proof
    tried: dict[str, Proof]
    """Isolator -> what became of its hog, of all that were tried."""

    @property
    def refusals(self) -> dict[str, str]:
        """Isolator -> why a better one is not used."""
        names = list(self.tried)
        better = names[: names.index(self.isolator.name)] if self.proof.is_proven else names
        return {
            name: self.tried[name].detail
            for name in better
            if not self.tried[name].is_proven and name != self.isolator.name
        }


def isolators(name: str, root: Path = Path("/")) -> tuple[Isolator, ...]:
    """All ways, the best first.

    Args:
        name: of the worker, unique on this machine.
        root: where the system's files lie.
    """
    bubblewrap, rlimits = Bubblewrap(), Rlimits()
    inner: Isolator = rlimits if bubblewrap.obstacle() else bubblewrap
    return (Systemd(name, root), Cgroup2(name, inner, root), bubblewrap, rlimits)


class Proofs:
    """What was proven in the life of one program, each limit once: a kernel does not change its mind while it runs.
    What was not proven is tried again: a busy machine may have been the reason."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, Limits, Interpreter], Proof] = {}

    async def of(self, isolator: Isolator, limits: Limits, interpreter: Interpreter, time_scale: float) -> Proof:
        """The proof that was made, or that is made now. Arguments as of `choose`."""
        key = (isolator.name, replace(limits, memory_bytes=HOG_LIMIT_BYTES), interpreter)
        if (made := self._made.get(key)) is None:
            made = await prove(isolator, limits, interpreter, time_scale)
            if made.is_proven:
                self._made[key] = made
        return made


async def choose(
    wanted: str,
    ways: Sequence[Isolator],
    limits: Limits,
    interpreter: Interpreter,
    time_scale: float,
    *,
    proofs: Proofs | None = None,
    tries_all: bool = False,
) -> Choice:
    """Take an isolator.

    Args:
        wanted: its name, or `auto`: the best whose memory limit is proven, else the best that runs at all.
        ways: all, the best first.
        limits: of the worker.
        interpreter: of the worker.
        time_scale: seconds of the loop in a second of the machine.
        proofs: made before.
        tries_all: also those that are not needed for the choice.

    Raises:
        BoardError: the one that is wanted cannot be used; says why.
    """
    proofs = proofs or Proofs()
    tried: dict[str, Proof] = {}
    taken: Isolator | None = None
    for isolator in ways:
        is_wanted = wanted in ("auto", isolator.name)
        is_settled = taken is not None and tried[taken.name].is_proven
        if not tries_all and (is_settled or not is_wanted):
            continue
        why = isolator.obstacle()
        proof = Proof(False, False, why) if why else await proofs.of(isolator, limits, interpreter, time_scale)
        tried[isolator.name] = proof
        if is_wanted and not is_settled and (proof.is_proven or (proof.is_usable and taken is None)):
            taken = isolator
    if taken is None:
        reasons = "; ".join(f"{name}: {proof.detail}" for name, proof in tried.items() if wanted in ("auto", name))
        raise BoardError(f"worker.isolation = {wanted!r}: {reasons}")
    return Choice(taken, tried[taken.name], tried)


async def prove(isolator: Isolator, limits: Limits, interpreter: Interpreter, time_scale: float) -> Proof:
    """Start a hog behind a limit, and see what becomes of it. Arguments as of `choose`."""
    small = replace(limits, memory_bytes=HOG_LIMIT_BYTES)
    setup = {**isolator.setup(small), "hog_bytes": HOG_BYTES}
    hog = (*interpreter.command, str(PROGRAM), json.dumps(setup))
    try:
        isolator.prepare(small)
        child = await asyncio.create_subprocess_exec(
            *isolator.command(hog, small, interpreter.readable),
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=PIPE,
            env={},
            start_new_session=True,
        )
    except (OSError, BoardError) as error:
        return Proof(False, False, f"does not start: {error}")
    said = asyncio.create_task(child.communicate())
    done: set[asyncio.Task[tuple[bytes, bytes]]] = set()
    try:
        done, _ = await asyncio.wait([said], timeout=PROOF_S * time_scale)
    finally:  # also when nobody wants to know any more
        if not done:
            with suppress(ProcessLookupError):  # it has just ended
                os.killpg(child.pid, signal.SIGKILL)
        words = (await said)[1].decode(errors="replace")
        isolator.clear()
    if not done:
        return Proof(False, False, f"a program did not end within {PROOF_S:.0f} s")
    return judge(child.returncode or 0, words, isolator, small)


def judge(code: int, words: str, isolator: Isolator, limits: Limits) -> Proof:
    """What the end of a hog proves.

    Args:
        code: exit code of the command; negative for a signal.
        words: what it said on standard error.
        isolator: that it ran behind.
        limits: that it ran behind.
    """
    by = isolator.enforces(limits).get("memory_limit", "")
    size = f"{HOG_LIMIT_BYTES // 2**20} MiB"
    reason = isolator.reason(words)
    if code == 0:
        why = f"{by} is ignored: a hog took {HOG_BYTES // 2**20} MiB" if by else "it does not limit memory here"
        return Proof(True, False, why)
    if code == program.HOG_EXIT:
        return Proof(True, bool(by), f"{by}: a hog was refused memory at {size}")
    if reason or code in (-signal.SIGKILL, 128 + signal.SIGKILL):
        return Proof(True, bool(by), f"{by}: a hog was killed at {size}" + (f", {reason}" if reason else ""))
    last = (words.strip().splitlines() or [f"exit code {code}"])[-1]
    return Proof(False, False, f"a program does not run behind it: {last[-LAST_CHARACTERS:]}")
