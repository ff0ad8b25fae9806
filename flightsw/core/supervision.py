"""HEALTH as one component: who is asked, what is done about those who hang, and the strokes of the watchdog.

`Health` judges, `Escalation` says what to do, `Boots` remembers; here they meet the watchdog and the reset of the
board. `cycle` is the last member of its rate group: so a member that never returns stops the strokes like one that
never replies.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Final

from flightsw.component import OK, Audit, Handler, Outcome, Report, Scalar
from flightsw.core.boots import POWERLESS, Boots
from flightsw.core.escalation import Escalation, Step
from flightsw.core.health import Health, Party
from flightsw.ports import NodePorts, ResetCause

STROKES_PER_TIMEOUT: Final = 3
"""Ticks of the rate group that the watchdog waits at least, whatever its parameter says: a late cycle is no hang."""

TASK_PERIOD_NS: Final = 60_000_000_000
"""A task is asked this often [ns]: asking one that sleeps wakes it."""

TASK_WARN_NS: Final = 30_000_000_000
TASK_FATAL_NS: Final = 60_000_000_000
"""A task that says how long its work takes may owe its reply for so long beyond that [ns]."""

NS_PER_S: Final = 1_000_000_000


class Supervision:
    """Implements `flightsw.component.Component`.

    Args:
        ports: watchdog, reset and log. Without a watchdog, a node that must be reset resets itself.
        boots: told when the boot is stable, and why it ends.
        report: takes events.
        tick_s: period of the rate group that calls `cycle` [s].
        parameter: values of parameters by key.
        audit: takes decisions.
    """

    name = "HEALTH"

    def __init__(
        self,
        ports: NodePorts,
        boots: Boots,
        report: Report,
        *,
        tick_s: float,
        parameter: Callable[[str], Any],
        audit: Audit,
    ) -> None:
        self.health = Health(report)
        self._escalation = Escalation(ports.disk, report)
        if boots.cause in POWERLESS:
            self._escalation.forgive()
        self._boots = boots
        self._watchdog = ports.watchdog
        self._reset = ports.reset
        self._log = ports.log
        self._audit = audit
        self._parameter = parameter
        self._tick_s = tick_s
        self._warn_ns = round(parameter("HEALTH.warn_ticks") * tick_s * NS_PER_S)
        self._fatal_ns = round(parameter("HEALTH.fatal_ticks") * tick_s * NS_PER_S)

    def attend(self, members: Sequence[tuple[str, Callable[[int], object]]]) -> Callable[[int], None]:
        """The members of a rate group by their names, supervised, in their order and with `cycle` as the last: they
        reply by returning, but not with False."""
        for name, _ in members:
            self.health.add(_member(name, self._warn_ns, self._fatal_ns))
        attended = self.health.supervised([cycle for _, cycle in members])

        def run(now_ns: int) -> None:
            attended(now_ns)
            self.cycle(now_ns)

        return run

    def attend_task(self, name: str, ping: Callable[[int], None], restart: Callable[[], None]) -> None:
        """Supervise a task that replies by `health.reply`, and can be started again without the node."""
        warn_ns, fatal_ns = max(TASK_WARN_NS, self._warn_ns), max(TASK_FATAL_NS, self._fatal_ns)
        self.health.add(Party(name, warn_ns, fatal_ns, TASK_PERIOD_NS, ping, restart))

    def cycle(self, now_ns: int) -> None:
        """Judge, act, and stroke the watchdog if all are in time."""
        is_sound = self.health.cycle(now_ns)
        if is_sound:
            if self._watchdog is not None:
                self._watchdog.stroke(self.timeout_s)
        else:
            for party in self.health.hung():
                self._escalate(party, now_ns)
        self._escalation.cycle(now_ns)
        if self._boots.cycle(now_ns, is_sound):
            self._log("node.stable", {"boot": self._boots.boot_count})

    @property
    def timeout_s(self) -> float:
        """Time between strokes after which the watchdog resets the node [s]."""
        return max(float(self._parameter("HEALTH.watchdog_s")), STROKES_PER_TIMEOUT * self._tick_s)

    def handlers(self) -> Mapping[str, Handler]:
        """ENABLE, DISABLE, RESTART, FORGIVE."""
        return {**self.health.handlers(), "FORGIVE": self._do_forgive}

    def channels(self) -> Mapping[str, Scalar]:
        """Those of health, and the steps of the ladder."""
        return {**self.health.channels(), "escalations": self._escalation.steps_count}

    def _escalate(self, party: str, now_ns: int) -> None:
        step = self._escalation.step(party, self.health.can_restart(party), now_ns)
        if step is Step.WAIT:
            return
        self._log("health.step", {"party": party, "step": step.value})
        self._audit("escalation", {"party": party, "step": step.value})
        if step is Step.RESTART:
            self.health.restart(party)
            return
        self._boots.ending(f"{party} hung", now_ns)
        if self._watchdog is None:
            self._reset(ResetCause.WATCHDOG)
        # else nothing: the watchdog is not stroked while the party hangs, and resets the node

    def _do_forgive(self, _: object) -> Outcome:
        self._escalation.forgive()
        return OK


@cache
def _member(name: str, warn_ns: int, fatal_ns: int) -> Party:
    """One value for all nodes of a process that have such a member."""
    return Party(name, warn_ns, fatal_ns)
