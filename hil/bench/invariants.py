"""The rules of the house (DESIGN §9), judged from the trace and from facts that the judged code cannot touch.

The monitor mirrors what each node has committed and what each command and job has been through; the relay's counts, the
boards' energy accounts and the fault-free reference come from the bench. A rule that breaks is a violation with its
time.
"""

from collections import defaultdict
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

NS_PER_MS: Final = 1_000_000
IDLE_MODES: Final = ("LOW_POWER", "SAFE")
"""Modes in which no job may start."""


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
    unsaved: bool = False
    """The disk did not take its end."""

    def recovered(self) -> tuple[int, int, bool]:
        """(attempt, step, ended) as a boot must find it."""
        return self.attempt, self.step, self.ended


@dataclass(slots=True)
class _Board:
    """What the monitor knows of one node."""

    jobs: dict[int, _Committed] = field(default_factory=dict)
    removed: dict[int, _Committed] = field(default_factory=dict)
    """Forgotten since the last record was written: a power cut may bring the records back, since a removal is not
    durable until the next replacement. They are reported again, and the ground acknowledges again."""
    mode: str = ""
    """As last announced since the boot."""


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
    commands_issued: dict[tuple[str, int], int] = field(default_factory=dict)
    """(Node, command) -> when it was first sent [ns]."""
    bounded_boots: dict[str, int] = field(default_factory=dict)
    """Node -> boots after a kill, whose recovered state was judged as a bound."""
    _killed: set[str] = field(default_factory=set)
    """Nodes whose program was killed and has not booted since."""
    _executed: set[tuple[str, int]] = field(default_factory=set)
    _settled: set[tuple[int, int]] = field(default_factory=set)
    """(Job, attempt) that the ground has on record as ended, one way or the other."""
    _boards: defaultdict[str, _Board] = field(default_factory=lambda: defaultdict(_Board))

    def observe(self, event: tuple[int, str, str, dict[str, Any]]) -> None:
        """Take one event of the trace."""
        t_ns, source, kind, fields = event
        for judge in _JUDGES.get(kind, ()):
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

    def power_cut(self, source: str) -> None:
        """A program was killed: it may have committed what it could not tell any more. Its next boot may find state
        that is ahead of what was told, never behind."""
        self._killed.add(source)

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

    def _attempt_settled(self, t_ns: int, source: str, kind: str, fields: dict[str, Any]) -> None:
        self._settled.add((fields["job"], fields["attempt"]))

    def _command_sent(self, t_ns: int, source: str, kind: str, fields: dict[str, Any]) -> None:
        self.commands_issued[fields["node"], fields["command"]] = t_ns

    def _command_executed(self, t_ns: int, source: str, kind: str, fields: dict[str, Any]) -> None:
        key, lifetime_ms = (source, fields["command"]), fields["lifetime_ms"]
        self.require(3, t_ns, key not in self._executed, f"{source}: command {key[1]} executed twice")
        self._executed.add(key)
        sent_ns = self.commands_issued.get(key)
        self.require(3, t_ns, sent_ns is not None, f"{source}: command {key[1]} was never sent to it")
        if sent_ns is None:
            return
        # by the bench's own clock: the age that the node goes by is itself under test
        age_ms = (t_ns - sent_ns) // NS_PER_MS
        self.require(
            3,
            t_ns,
            age_ms < lifetime_ms,
            f"{source}: command {key[1]} executed {age_ms} ms after it was sent, lifetime {lifetime_ms} ms",
        )

    def _node_accepted(self, source: str, fields: dict[str, Any]) -> None:
        board = self._boards[source]
        job, attempt = fields["job"], fields["attempt"]
        if job not in board.jobs or board.jobs[job].attempt < attempt:
            board.jobs[job] = _Committed(attempt)
            board.removed.clear()

    def _started(self, t_ns: int, source: str, kind: str, fields: dict[str, Any]) -> None:
        board = self._boards[source]
        self.require(
            5, t_ns, board.mode not in IDLE_MODES, f"{source}: job {fields['job']} started in mode {board.mode}"
        )
        held = self._held(source, fields)
        if held is not None:
            self.require(
                4,
                t_ns,
                fields["step"] >= held.step and not held.ended,
                f"{source}: job {fields['job']} started at step {fields['step']}, committed was {held.recovered()} "
                "(attempt, step, ended)",
            )

    def _checkpoint(self, t_ns: int, source: str, kind: str, fields: dict[str, Any]) -> None:
        held = self._held(source, fields)
        if held is not None:
            held.step = fields["step"]
            self._boards[source].removed.clear()

    def _paused(self, t_ns: int, source: str, kind: str, fields: dict[str, Any]) -> None:
        why = fields["reason"].split()[0]
        self.pauses[why] = self.pauses.get(why, 0) + 1

    def _unsaved(self, t_ns: int, source: str, kind: str, fields: dict[str, Any]) -> None:
        held = self._held(source, fields)
        if held is not None:
            held.unsaved = True

    def _job_ended_on_board(self, t_ns: int, source: str, kind: str, fields: dict[str, Any]) -> None:
        held = self._held(source, fields)
        if held is not None and not held.unsaved:
            held.ended = True
            self._boards[source].removed.clear()

    def _forgotten(self, t_ns: int, source: str, kind: str, fields: dict[str, Any]) -> None:
        job, attempt, board = fields["job"], fields["attempt"], self._boards[source]
        self.require(
            1,
            t_ns,
            (job, attempt) in self._settled or job in self.ended,
            f"{source}: job {job} attempt {attempt} forgotten before the ground had its end on record",
        )
        held = board.jobs.pop(job, None)
        if held is not None:
            board.removed[job] = held

    def _boot(self, t_ns: int, source: str, kind: str, fields: dict[str, Any]) -> None:
        board = self._boards[source]
        recovered = {job: (attempt, step, ended) for job, attempt, step, ended in fields["jobs"]}
        for job, removed in board.removed.items():
            if recovered.get(job) == removed.recovered():
                board.jobs.setdefault(job, removed)
        committed = {job: held.recovered() for job, held in board.jobs.items()}
        was_killed = source in self._killed
        if was_killed:
            self._killed.discard(source)
            self.bounded_boots[source] = self.bounded_boots.get(source, 0) + 1
        for job in sorted({*recovered, *committed}):
            found, told = recovered.get(job), committed.get(job)
            self.require(
                4,
                t_ns,
                found == told or (was_killed and self._is_ahead(job, found, told)),
                f"{source}: job {job} recovered as {recovered.get(job)}, committed was {committed.get(job)} "
                "(attempt, step, ended)",
            )
        if was_killed:
            board.jobs = {job: _Committed(attempt, step, ended) for job, (attempt, step, ended) in recovered.items()}
        board.removed.clear()  # the boot counter was written: what did not come back now never will
        board.mode = ""

    def _is_ahead(self, job: int, found: tuple[int, int, bool] | None, told: tuple[int, int, bool] | None) -> bool:
        """Whether recovered state is one that the node may have committed after it last told anything."""
        if told is None:
            return True
        attempt, step, ended = told
        if found is None:
            return ended and ((job, attempt) in self._settled or job in self.ended)
        if found[0] != attempt:
            return found[0] > attempt
        return found[1] >= step and found[2] >= ended

    def _mode(self, t_ns: int, source: str, kind: str, fields: dict[str, Any]) -> None:
        self._boards[source].mode = fields["mode"]

    def _brown_out(self, t_ns: int, source: str, kind: str, fields: dict[str, Any]) -> None:
        self.require(5, t_ns, not fields["computing"], f"{fields['node']}: browned out while a job ran")

    def _held(self, source: str, fields: dict[str, Any]) -> _Committed | None:
        """What is committed of the attempt that an event is about."""
        held = self._boards[source].jobs.get(fields["job"])
        return held if held is not None and held.attempt == fields["attempt"] else None


_JUDGES: Final[dict[str, tuple[Callable[[Monitor, int, str, str, dict[str, Any]], None], ...]]] = {
    "job.accepted": (Monitor._job_accepted,),
    "job.completed": (Monitor._job_ended_on_ground, Monitor._attempt_settled),
    "job.failed": (Monitor._job_ended_on_ground,),
    "job.cancelled": (Monitor._job_ended_on_ground,),
    "job.retried": (Monitor._attempt_settled,),
    "job.late_report": (Monitor._attempt_settled,),
    "command.sent": (Monitor._command_sent,),
    "command.executed": (Monitor._command_executed,),
    "job.started": (Monitor._started,),
    "job.checkpoint": (Monitor._checkpoint,),
    "job.unsaved": (Monitor._unsaved,),
    "job.ended": (Monitor._job_ended_on_board,),
    "job.forgotten": (Monitor._forgotten,),
    "job.paused": (Monitor._paused,),
    "node.boot": (Monitor._boot,),
    "node.mode": (Monitor._mode,),
    "fault.brown_out": (Monitor._brown_out,),
}
