"""Strikes: takes planned faults and the upsets of the radiation environment to the bench at their instants.

What struck, and whether it hit anything, is recorded: a fault that never fired is a result about the campaign, not
about the system.
"""

import asyncio
from collections.abc import Callable, Container, Sequence
from typing import Any, Final, Protocol

import msgspec

from flightsw.ports import Random
from hil.faults.plan import (
    BootLoop,
    Fault,
    LinkDegraded,
    LinkOutage,
    NodeReset,
    NodeTrouble,
    ObjectRot,
    WeightUpset,
)

NS_PER_S: Final = 1_000_000_000
STRIKE_AFTER_CHECKPOINT_NS: Final = 1_000_000_000
"""A strike that waits for a running job comes this long after a checkpoint [ns]: in the middle of the next step."""


Struck = bool | asyncio.Future[bool]
"""Whether a strike hit anything; a node in a process of its own answers later."""


class Strikable(Protocol):
    """What the bench offers to be struck. Names are those of the scenario; each call says whether it hit anything."""

    def reset_node(self, node: str, cause: str, off_s: float) -> bool:
        """Cut the power of a node, or reset it, for a while."""
        ...

    def break_link(self, link: str, duration_s: float) -> bool:
        """Stop a link for a while."""
        ...

    def degrade_link(self, link: str, fault: LinkDegraded) -> bool:
        """Make a link worse for a while."""
        ...

    def strike_weights(self, node: str, random: Random, bits: int) -> Struck:
        """Flip bits of a model in memory."""
        ...

    def rot_object(self, node: str, random: Random) -> Struck:
        """Flip a bit of a stored object."""
        ...

    def loop_boots(self, node: str, cause: str, crashes: int, after_s: float) -> bool:
        """Crash a node, and again this long after each of its next boots."""
        ...

    def trouble(self, node: str, fault: NodeTrouble) -> Struck:
        """Let something around a node fail."""
        ...


class Injector:
    """Carries out a plan.

    Args:
        target: the bench.
        call_at_ns: timer of the run.
        record: takes (kind, fields) of each strike for the trace.
        stream: named streams of the run's seed.
    """

    def __init__(
        self,
        target: Strikable,
        call_at_ns: Callable[..., object],
        record: Callable[[str, dict[str, object]], None],
        stream: Callable[[str], Random],
    ) -> None:
        self._target = target
        self._call_at_ns = call_at_ns
        self._record = record
        self._stream = stream
        self._waiting: list[tuple[int, Fault, Random]] = []

    def arm(self, faults: Sequence[Fault], absent: Container[str] = ()) -> None:
        """Set a timer for each fault, but those of absent nodes: they take no chance from the others."""
        for index, fault in enumerate(faults):
            if getattr(fault, "node", None) in absent:
                continue
            random = self._stream(f"faults/{index}")
            self._call_at_ns(round(fault.at_s * NS_PER_S), self._due, fault, random)

    def strike(self, fault: Fault, random: Random) -> None:
        """Carry out one fault now, or when the condition comes for which it waits."""
        self._due(fault, random)

    def arm_upsets(
        self, node: str, flux_steps: Sequence[tuple[float, float]], step_s: float, rate_per_flux: float
    ) -> None:
        """Draw the upsets of one node's memory along its orbit and set their timers.

        Args:
            node: who is struck.
            flux_steps: (start of step [s], flux [protons/cm2/s]).
            step_s: length of a step.
            rate_per_flux: upsets a second for a flux of 1 proton/cm2/s, over all bits that can be struck.
        """
        arrivals = self._stream(f"{node}/upsets/arrivals")
        bits = self._stream(f"{node}/upsets/bits")
        for start_s, flux in flux_steps:
            rate_hz = flux * rate_per_flux
            at_s = arrivals.expovariate(rate_hz) if rate_hz > 0 else step_s
            while at_s < step_s:
                self._call_at_ns(round((start_s + at_s) * NS_PER_S), self._upset, node, bits)
                at_s += arrivals.expovariate(rate_hz)

    def observe(self, event: tuple[int, str, str, dict[str, Any]]) -> None:
        """Watch the trace for the running job that some faults wait for."""
        t_ns, source, kind, _ = event
        if kind != "job.checkpoint" or not self._waiting:
            return
        hit = [entry for entry in self._waiting if getattr(entry[1], "node", None) == source]
        self._waiting = [entry for entry in self._waiting if entry not in hit]
        for _, fault, random in hit:
            self._call_at_ns(t_ns + STRIKE_AFTER_CHECKPOINT_NS, self._strike, fault, random)

    @property
    def unfired_count(self) -> int:
        """Faults that still wait for their condition."""
        return len(self._waiting)

    def _due(self, fault: Fault, random: Random) -> None:
        if getattr(fault, "when", "now") == "job_running":
            self._waiting.append((round(fault.at_s * NS_PER_S), fault, random))
        else:
            self._strike(fault, random)

    def _strike(self, fault: Fault, random: Random) -> None:
        target = self._target
        fired: Struck
        match fault:
            case NodeReset():
                fired = target.reset_node(fault.node, fault.cause, fault.off_s)
                fields = {"node": fault.node, "cause": fault.cause, "off_s": fault.off_s}
            case LinkOutage():
                fired = target.break_link(fault.link, fault.duration_s)
                fields = {"link": fault.link, "duration_s": fault.duration_s}
            case LinkDegraded():
                fired = target.degrade_link(fault.link, fault)
                fields = {"link": fault.link, "duration_s": fault.duration_s}
            case WeightUpset():
                fired = target.strike_weights(fault.node, random, fault.bits)
                fields = {"node": fault.node, "bits": fault.bits}
            case ObjectRot():
                fired = target.rot_object(fault.node, random)
                fields = {"node": fault.node}
            case BootLoop():
                fired = target.loop_boots(fault.node, fault.cause, fault.crashes, fault.after_s)
                fields = details(fault)
            case _:
                fired = target.trouble(fault.node, fault)
                fields = details(fault)
        kind = str(type(fault).__struct_config__.tag)
        self._tell(f"fault.{kind}", fired, {"fault": kind, **fields})

    def _upset(self, node: str, random: Random) -> None:
        fired = self._target.strike_weights(node, random, 1)
        self._tell("fault.upset", fired, {"fault": "upset", "node": node})

    def _tell(self, kind: str, fired: Struck, fields: dict[str, object]) -> None:
        """Record a strike, once it is known whether it hit."""
        if isinstance(fired, bool):
            self._record(kind if fired else "fault.not_activated", fields)
        else:
            fired.add_done_callback(lambda answer: self._tell(kind, answer.result(), fields))


def details(fault: Fault) -> dict[str, object]:
    """What a fault is, without its kind and without when it strikes."""
    fields: dict[str, object] = msgspec.structs.asdict(fault)
    return {name: value for name, value in fields.items() if name not in ("at_s", "when") and value is not None}
