"""The rules of the house (DESIGN §9), judged from the trace and from facts that the judged code cannot touch.

The monitor mirrors what each node has committed and what each command and job has been through; the relay's counts, the
boards' energy accounts and the fault-free reference come from the bench. A rule that breaks is a violation with its
time.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

RULES: Final[dict[int, str]] = {
    1: "every accepted job ends exactly once",
    2: "nothing is accepted whose digest, tag or vote does not hold",
    3: "no command executes twice, unasked or after its expiry",
    4: "recovered state is state that was committed",
    5: "a node never spends energy that it does not have, and SAFE keeps receiver and beacon",
    6: "queues are bounded, and what is dropped is counted",
}

JOB_ENDS: Final = ("job.completed", "job.failed", "job.cancelled")


class Violation(NamedTuple):
    """A broken rule."""

    rule: int
    t_ns: int
    text: str


@dataclass(slots=True)
class _Committed:
    """What a node has said is durable about one job."""

    attempt: int
    step: int = 0
    ended: bool = False


@dataclass(slots=True)
class Monitor:
    """Watches a run's events. Subscribe `observe` to the trace and ask at the end."""

    violations: list[Violation] = field(default_factory=list)
    accepted: dict[int, int] = field(default_factory=dict)
    """Job -> times accepted by the ground."""
    ended: dict[int, list[str]] = field(default_factory=dict)
    """Job -> ways in which it ended."""
    pauses: dict[str, int] = field(default_factory=dict)
    """Why jobs paused (energy, temperature, mode) -> how often."""
    commands_issued: set[tuple[str, int]] = field(default_factory=set)
    _executed: set[tuple[str, int]] = field(default_factory=set)
    _committed: dict[str, dict[int, _Committed]] = field(default_factory=dict)

    def observe(self, event: tuple[int, str, str, dict[str, Any]]) -> None:
        """Take one event of the trace."""
        t_ns, source, kind, fields = event
        judge = _JUDGES.get(kind)
        if judge is not None:
            judge(self, t_ns, source, kind, fields)

    def require(self, rule: int, t_ns: int, holds: bool, text: str) -> None:
        """Note a violation unless the rule holds."""
        if not holds:
            self.violations.append(Violation(rule, t_ns, text))

    def finish(self, t_ns: int) -> None:
        """Judge what can only be judged at the end."""
        for job in sorted(self.accepted):
            ends = self.ended.get(job, [])
            self.require(1, t_ns, len(ends) == 1, f"job {job} ended {len(ends)} times: {', '.join(ends) or 'never'}")

    # -- one judge for each kind of event

    def _job_accepted(self, t_ns: int, source: str, kind: str, fields: dict[str, Any]) -> None:
        if source != "ground":
            self._node_accepted(source, fields)
            return
        job = fields["job"]
        self.accepted[job] = self.accepted.get(job, 0) + 1
        self.require(1, t_ns, self.accepted[job] == 1, f"job {job} accepted twice")

    def _job_ended_on_ground(self, t_ns: int, source: str, kind: str, fields: dict[str, Any]) -> None:
        job = fields["job"]
        self.ended.setdefault(job, []).append(kind)
        self.require(1, t_ns, job in self.accepted, f"job {job} ended but was never accepted")
        self.require(1, t_ns, len(self.ended[job]) == 1, f"job {job} ended again: {', '.join(self.ended[job])}")

    def _command_sent(self, t_ns: int, source: str, kind: str, fields: dict[str, Any]) -> None:
        self.commands_issued.add((fields["node"], fields["command"]))

    def _command_executed(self, t_ns: int, source: str, kind: str, fields: dict[str, Any]) -> None:
        key = (source, fields["command"])
        self.require(3, t_ns, key not in self._executed, f"{source}: command {key[1]} executed twice")
        self._executed.add(key)
        self.require(3, t_ns, key in self.commands_issued, f"{source}: command {key[1]} was never sent to it")
        self.require(
            3,
            t_ns,
            fields["age_ms"] < fields["lifetime_ms"],
            f"{source}: command {key[1]} executed at age {fields['age_ms']} ms of {fields['lifetime_ms']} ms",
        )

    def _node_accepted(self, source: str, fields: dict[str, Any]) -> None:
        held = self._committed.setdefault(source, {})
        job, attempt = fields["job"], fields["attempt"]
        if job not in held or held[job].attempt < attempt:
            held[job] = _Committed(attempt)

    def _checkpoint(self, t_ns: int, source: str, kind: str, fields: dict[str, Any]) -> None:
        held = self._committed.setdefault(source, {}).get(fields["job"])
        if held is not None and held.attempt == fields["attempt"]:
            held.step = fields["step"]

    def _paused(self, t_ns: int, source: str, kind: str, fields: dict[str, Any]) -> None:
        why = fields["reason"].split()[0]
        self.pauses[why] = self.pauses.get(why, 0) + 1

    def _job_ended_on_board(self, t_ns: int, source: str, kind: str, fields: dict[str, Any]) -> None:
        held = self._committed.setdefault(source, {}).get(fields["job"])
        if held is not None and held.attempt == fields["attempt"]:
            held.ended = True

    def _forgotten(self, t_ns: int, source: str, kind: str, fields: dict[str, Any]) -> None:
        self._committed.setdefault(source, {}).pop(fields["job"], None)

    def _boot(self, t_ns: int, source: str, kind: str, fields: dict[str, Any]) -> None:
        recovered = {job: (attempt, step, ended) for job, attempt, step, ended in fields["jobs"]}
        committed = {job: (c.attempt, c.step, c.ended) for job, c in self._committed.get(source, {}).items()}
        for job in sorted({*recovered, *committed}):
            self.require(
                4,
                t_ns,
                recovered.get(job) == committed.get(job),
                f"{source}: job {job} recovered as {recovered.get(job)}, committed was {committed.get(job)} "
                "(attempt, step, ended)",
            )


_JUDGES: Final[dict[str, Callable[[Monitor, int, str, str, dict[str, Any]], None]]] = {
    "job.accepted": Monitor._job_accepted,
    **dict.fromkeys(JOB_ENDS, Monitor._job_ended_on_ground),
    "command.sent": Monitor._command_sent,
    "command.executed": Monitor._command_executed,
    "job.checkpoint": Monitor._checkpoint,
    "job.ended": Monitor._job_ended_on_board,
    "job.forgotten": Monitor._forgotten,
    "job.paused": Monitor._paused,
    "node.boot": Monitor._boot,
}
