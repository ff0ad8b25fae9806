"""The cluster: turns promises into placements, and what comes back into results.

Sans-IO; `ground.segment` is its shell. Every accepted job ends exactly once. The ledger is written before anything
leaves; an attempt's number fences out older ones; a report is acknowledged only when its result is here, verified and
on record. What is lost on the way is asked for again: objects by their transfers, a command by repetition under the
same number, a report by the node, an attempt that is overdue by another one elsewhere.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec

from flightsw.errors import StorageError
from flightsw.net.contacts import ContactPlan
from flightsw.objects.store import ObjectStore
from flightsw.objects.transfers import ObjectArrived, ObjectDelivered, TransferFailed, Transfers
from flightsw.wire.messages import (
    SERVICE_JOB,
    Argument,
    Beacon,
    Event,
    JobReport,
    JobReportAck,
    JobSpec,
    JobState,
    Stage,
    Verification,
    encode_message,
)
from ground.archive import Archive
from ground.commands import COMMAND_PRIORITY, CommandDesk
from ground.fleet import ClusterConfig, ClusterCounts, FleetNode, OnComplete, Outgoing, Verify
from ground.ledger import Claim, JobRequest, JobRow, Ledger, StageRow, State
from ground.membership import DictionaryMismatch, KeyMismatch, Membership, NodeReset
from ground.reach import Reach
from ground.scheduler import NodeView, OpenJob, schedule

NS_PER_S: Final = 1_000_000_000


@dataclass(slots=True)
class _Open:
    """An open job and what is under way for it."""

    row: JobRow
    avoid: set[int] = field(default_factory=set)
    report: JobReport | None = None
    """A completed report whose objects are not all here."""
    fetch_ns: int = 0
    """When what is not here is asked for."""
    give_up_ns: int = 0
    """When it is not waited for any longer."""


class Cluster:
    """The orchestrator.

    Args:
        config: patience and limits.
        ledger, archive, membership, store, transfers: the ground's.
        plan: predicted contacts.
        fleet: the nodes.
        verify: judges a result beyond its digest.
        on_complete: told of each completed job.
        has_way, dictionary_digest: as of `ground.commands.CommandDesk`.
    """

    def __init__(
        self,
        config: ClusterConfig,
        *,
        ledger: Ledger,
        archive: Archive,
        membership: Membership,
        store: ObjectStore,
        transfers: Transfers,
        plan: ContactPlan,
        fleet: Sequence[FleetNode],
        verify: Verify,
        on_complete: OnComplete,
        has_way: Callable[[int, int, int], bool] = lambda node, now_ns, within_ns: True,
        dictionary_digest: bytes = b"",
    ) -> None:
        self.counts = ClusterCounts()
        self._config = config
        self._ledger = ledger
        self._archive = archive
        self._membership = membership
        self._store = store
        self._transfers = transfers
        self._plan = plan
        self._fleet = {node.node: node for node in fleet}
        self._verify = verify
        self._on_complete = on_complete
        self._out: list[Outgoing] = []
        self._notes: list[tuple[str, dict[str, Any]]] = []
        self._held: dict[int, set[bytes]] = {node.node: set() for node in fleet}
        self.reach = Reach(plan, config.node)
        self._open = {row.job_id: _Open(row) for row in ledger.open_jobs()}
        self._desk = CommandDesk(
            ledger, config.command_repeat_s, has_way, dictionary_digest, self._send, self._note_fields, self._name
        )

    def resume(self, now_ns: int) -> None:
        """After a restart on the same ledger: take up what it knows, and send again what may not have left."""
        self._desk.resume({job.row.command_id: job.row.job_id for job in self._open.values() if job.row.command_id})
        for job in self._open.values():
            for digest in (job.row.request.model, job.row.request.data):
                self._store.pin(digest)
            if job.row.state is State.PLACED and job.row.node is not None:
                self._push_objects(job.row, job.row.node, now_ns)

    # -- users

    def submit(self, request: JobRequest, now_ns: int) -> int:
        """Accept a job: it is on record when this returns. Its objects must be in the store.

        Raises:
            StorageError: an object is not in the store.
        """
        for digest in (request.model, request.data):
            if not self._store.has(digest):
                raise StorageError(f"object {digest.hex()[:16]} of the job is not in the store; put it there first")
        with self._ledger.transaction():
            job_id = self._ledger.accept(request, now_ns)
        deadline_ns = now_ns + request.deadline_s * NS_PER_S
        for digest in (request.model, request.data):
            self._store.pin(digest)
        self._open[job_id] = _Open(JobRow(job_id, request, now_ns, deadline_ns, State.ACCEPTED, 0, None, 0, 0))
        self._note("job.accepted", job=job_id)
        return job_id

    def command(self, node: int, opcode: str, arguments: tuple[object, ...], now_ns: int) -> int:
        """Send a command; returns its number."""
        with self._ledger.transaction():
            return self._desk.command(node, opcode, arguments, now_ns, lifetime_s=self._config.command_lifetime_s)

    def chain(self, command_id: int) -> list[StageRow]:
        """The stages of a command so far, in order."""
        return self._desk.chain(command_id)

    def on_departure(self, command_id: int, now_ns: int) -> None:
        """A command begins to leave."""
        self._desk.on_departure(command_id, now_ns)

    # -- the fleet

    def on_beacon(self, beacon: Beacon, payload: bytes, now_ns: int) -> None:
        """Take a beacon."""
        self._archive.add_beacon(beacon.node, now_ns, payload)
        for event in self._membership.on_beacon(beacon, now_ns):
            name = self._name(beacon.node)
            if isinstance(event, NodeReset):
                self._note("node.reset", node=name, boot=event.boot_count)
                self._resubmit(beacon.node, now_ns)
            elif isinstance(event, DictionaryMismatch):
                self._note("node.refused", node=name, dictionary=event.digest)
            elif isinstance(event, KeyMismatch):
                self._note("node.unkeyed", node=name, key=event.key_id)

    def on_event(self, event: Event, now_ns: int) -> None:
        """Take an event of a node."""
        self._archive.add_event(event, now_ns)

    def on_verification(self, verification: Verification, now_ns: int) -> None:
        """Take one stage of a command's chain; put on record with the next round."""
        self._archive.add_verification(verification, now_ns)
        sent = self._desk.on_verification(verification, now_ns)
        job = self._open.get(sent.job_id) if sent is not None and sent.job_id is not None else None
        if job is None or job.row.command_id != verification.command_id or verification.stage is not Stage.FAILED:
            return
        if job.report is not None:
            return  # it ran: an answer that the report overtook
        with self._ledger.transaction():
            self._retry(job, now_ns, f"refused by the node: {verification.code.name} {verification.detail}")

    def on_report(self, report: JobReport, now_ns: int) -> None:
        """Take the end of an attempt."""
        job = self._open.get(report.job_id)
        claim = self._ledger.claim(report.job_id, report.attempt, report.node)
        if claim is not Claim.NEWEST or job is None:
            self.counts.late_reports += 1
            self._note("job.late_report", job=report.job_id, attempt=report.attempt, claim=claim.value)
            self._acknowledge(report)
            return
        if report.state is not JobState.COMPLETED:
            with self._ledger.transaction():
                self._retry(job, now_ns, f"{report.state.name} on board: {report.detail}")
            self._acknowledge(report)
            return
        if job.report is None:
            job.fetch_ns = now_ns + round(self._config.fetch_after_s * NS_PER_S)
            job.give_up_ns = now_ns + round(self._config.result_wait_s * NS_PER_S)
        job.report = report
        self._finish_if_here(job, now_ns)

    def on_transfers(self, now_ns: int) -> None:
        """Take what the transfers have to say."""
        for event in self._transfers.take_events():
            match event:
                case ObjectArrived():
                    for job in [job for job in self._open.values() if job.report is not None]:
                        if job.report is not None and event.digest in (job.report.result, job.report.product):
                            self._finish_if_here(job, now_ns)
                case ObjectDelivered():
                    size_bytes = self._store.size_bytes(event.digest) if self._store.has(event.digest) else 0
                    self.counts.objects_delivered += 1
                    self.counts.uplinked_bytes += size_bytes
                    self._note(
                        "object.delivered",
                        object=event.digest,
                        node=self._name(event.destination),
                        size_bytes=size_bytes,
                    )
                case TransferFailed():
                    self._on_failed_transfer(event, now_ns)

    # -- rounds

    def round(self, now_ns: int) -> None:
        """One scheduling round: deadlines, overdue attempts, repeated commands, placements; then the ledger commits."""
        self._membership.judge(now_ns, self.reach.has)
        if not self._open and self._desk.is_idle:
            return
        with self._ledger.transaction():
            self._desk.record()
            for job in list(self._open.values()):
                self._judge(job, now_ns)
            for sent in self._desk.repeat(now_ns):
                unheard = None if sent.job_id is None else self._open.get(sent.job_id)
                if unheard is not None and unheard.row.command_id == sent.command_id and unheard.report is None:
                    self._retry(unheard, now_ns, "the command was never answered")
            self.counts.commands_repeated = self._desk.repeated_count
            self._place_waiting(now_ns)

    def take_outgoing(self) -> list[Outgoing]:
        """Messages to send now; everything they promise is on record."""
        out, self._out = self._out, []
        return out

    def take_notes(self) -> list[tuple[str, dict[str, Any]]]:
        """What happened, as (kind, fields), in order."""
        notes, self._notes = self._notes, []
        return notes

    @property
    def has_news(self) -> bool:
        """Whether something waits to be sent or told."""
        return bool(self._out or self._notes)

    @property
    def open_count(self) -> int:
        """Jobs that have not ended."""
        return len(self._open)

    # -- inside; the caller holds a transaction where the ledger changes

    def _judge(self, job: _Open, now_ns: int) -> None:
        row = job.row
        if now_ns >= row.deadline_ns:
            self._fail(job, now_ns, "deadline passed")
        elif row.state is State.PLACED and job.report is None and now_ns >= row.due_ns:
            self._retry(job, now_ns, "overdue")
        elif job.report is not None and now_ns >= job.give_up_ns:
            report = job.report
            for digest, _ in _announced(report):
                self._transfers.cancel(digest, report.node)  # another job that waits for it asks again
            self._retry(job, now_ns, "the result never came")
            self._acknowledge(report)
        elif job.report is not None and now_ns >= job.fetch_ns:
            job.fetch_ns = now_ns + round(self._config.fetch_after_s * NS_PER_S)
            for digest, size_bytes in _announced(job.report):
                if not self._store.has(digest) and not self._transfers.is_fetching(digest):
                    self.counts.results_fetched += 1
                    self._transfers.fetch(digest, size_bytes, job.report.node, now_ns)

    def _retry(self, job: _Open, now_ns: int, reason: str) -> None:
        """End the newest attempt; the next round places another, or the job fails."""
        row = job.row
        if row.node is not None:
            job.avoid.add(row.node)
            self._call_off(job, now_ns)
        if row.attempt >= self._config.attempts_max:
            job.row = replace(row, state=State.ACCEPTED, node=None, due_ns=0, command_id=0)
            self._fail(job, now_ns, f"{row.attempt} attempts, the last: {reason}")
            return
        self._ledger.end_attempt(row.job_id, now_ns, reason)
        job.report = None
        job.row = replace(row, state=State.ACCEPTED, node=None, due_ns=0, command_id=0)
        self.counts.retries += 1
        self._note("job.retried", job=row.job_id, attempt=row.attempt, reason=reason)

    def _fail(self, job: _Open, now_ns: int, reason: str) -> None:
        row = job.row
        if self._ledger.fail(row.job_id, now_ns, reason):
            self._note("job.failed", job=row.job_id, reason=reason)
        if row.state is State.PLACED:
            self._call_off(job, now_ns)
        self._forget(job)

    def _call_off(self, job: _Open, now_ns: int) -> None:
        """Tell the node of the newest attempt to stop, and stop sending it what only this job needs."""
        row = job.row
        if row.node is None:
            return
        # or a node that is out of reach would take it up when the cancellation has expired
        self._desk.withdraw(row.command_id, now_ns)
        arguments = (row.job_id, row.attempt)
        self._desk.command(row.node, "JOBS.CANCEL", arguments, now_ns, lifetime_s=self._config.command_lifetime_s)
        others = (other.row for other in self._open.values() if other is not job and other.row.node == row.node)
        if all(other.request.data != row.request.data for other in others):
            self._transfers.cancel(row.request.data, row.node)
            self._held[row.node].discard(row.request.data)

    def _finish_if_here(self, job: _Open, now_ns: int) -> None:
        """Complete a job whose report and objects are all here."""
        report = job.report
        assert report is not None, "only a reported job can finish"
        if report.result and not all(self._store.has(digest) for digest, _ in _announced(report)):
            return
        objection, result = self._objection(job.row.request, report)
        if objection is not None:
            self.counts.results_refused += 1
            with self._ledger.transaction():
                self._retry(job, now_ns, f"result refused: {objection}")
            self._acknowledge(report)
            return
        with self._ledger.transaction():
            claim = self._ledger.complete(report, now_ns)
        self._acknowledge(report)
        if claim is Claim.NEWEST:
            self._note("job.completed", job=report.job_id, attempt=report.attempt, node=self._name(report.node))
            self._forget(job)
            self._on_complete(report.job_id, report, result)

    def _objection(self, request: JobRequest, report: JobReport) -> tuple[str | None, bytes]:
        """Why a result that is all here cannot be taken, or None; and the result."""
        if not report.result:
            return "completed without a result", b""
        if report.model != request.model or report.data != request.data:
            return "computed with another model or input", b""
        try:
            result = self._store.get(report.result)
            product = self._store.get(report.product) if report.product else None
        except StorageError as error:
            return f"it rotted here: {error}", b""
        return self._verify(request, report, result, product), result

    def _resubmit(self, node: int, now_ns: int) -> None:
        """A node was reset: submit again what it may have lost. It takes the same attempt twice without harm."""
        mine = [job for job in self._open.values() if job.row.node == node and job.report is None]
        if not mine:
            return
        with self._ledger.transaction():
            for job in mine:
                self.counts.jobs_resubmitted += 1
                command_id = self._submit_command(job.row, node, job.row.attempt, now_ns)
                self._ledger.change_command(job.row.job_id, job.row.attempt, command_id)
                job.row = replace(job.row, command_id=command_id)

    def _forget(self, job: _Open) -> None:
        """The job has ended: nothing of it needs to stay at hand."""
        del self._open[job.row.job_id]
        for digest in (job.row.request.model, job.row.request.data):
            self._store.unpin(digest)
        held = self._held.get(job.row.node) if job.row.node is not None else None
        if held is not None:
            held.discard(job.row.request.data)

    def _place_waiting(self, now_ns: int) -> None:
        waiting = [job for job in self._open.values() if job.row.state is State.ACCEPTED]
        if not waiting:
            return
        views = [self._view(node, now_ns) for node in self._fleet.values() if self._membership.is_usable(node.node)]
        jobs = [_to_plan(job) for job in waiting]
        for placement in schedule(views, jobs, self._plan, self._config.node, now_ns):
            self._place(self._open[placement.job_id], placement.node, placement.end_ns, now_ns)

    def _place(self, job: _Open, node: int, end_ns: int, now_ns: int) -> None:
        row, config = job.row, self._config
        patience_ns = round(config.overdue_s * NS_PER_S + config.overdue_factor * (end_ns - now_ns))
        due_ns = min(end_ns + patience_ns, row.deadline_ns)
        attempt = row.attempt + 1
        command_id = self._submit_command(row, node, attempt, now_ns)
        recorded = self._ledger.place(row.job_id, node, now_ns, due_ns, command_id)
        assert recorded == attempt, "the ledger and the cluster count attempts alike"
        job.row = replace(row, state=State.PLACED, attempt=attempt, node=node, due_ns=due_ns, command_id=command_id)
        self.counts.placements += 1
        self._push_objects(job.row, node, now_ns)
        self._note("job.placed", job=row.job_id, attempt=attempt, node=self._name(node), end_ns=end_ns)

    def _submit_command(self, row: JobRow, node: int, attempt: int, now_ns: int) -> int:
        request = row.request
        left_s = max(1, (row.deadline_ns - now_ns) // NS_PER_S)
        spec = JobSpec(
            job_id=row.job_id,
            attempt=attempt,
            kind=request.kind,
            model=request.model,
            model_bytes=request.model_bytes,
            data=request.data,
            data_bytes=request.data_bytes,
            steps_count=request.steps_count,
            step_mpix=request.step_mpix,
            priority=request.priority,
            deadline_s=left_s,
            checkpoint_steps=request.checkpoint_steps,
            product_measure_max=request.product_measure_max,
        )
        arguments = (msgspec.to_builtins(spec, builtin_types=(bytes,)),)
        return self._desk.command(node, "JOBS.SUBMIT", arguments, now_ns, lifetime_s=left_s, job_id=row.job_id)

    def _push_objects(self, row: JobRow, node: int, now_ns: int) -> None:
        for digest in (row.request.model, row.request.data):
            if digest not in self._held[node]:
                self._held[node].add(digest)
                self._transfers.push(digest, node, now_ns, priority=row.request.priority)

    def _on_failed_transfer(self, event: TransferFailed, now_ns: int) -> None:
        self._held.get(event.peer, set()).discard(event.digest)
        for job in list(self._open.values()):
            row, report = job.row, job.report
            if row.node != event.peer:
                continue
            if report is not None and event.digest in (report.result, report.product):
                with self._ledger.transaction():
                    self._retry(job, now_ns, f"the result is lost on board: {event.reason}")
                self._acknowledge(report)
            elif report is None and event.digest in (row.request.model, row.request.data):
                with self._ledger.transaction():
                    self._retry(job, now_ns, f"object refused: {event.reason}")

    def _acknowledge(self, report: JobReport) -> None:
        payload = encode_message(JobReportAck(report.job_id, report.attempt))
        lifetime_ms = self._config.command_lifetime_s * 1000
        self._send(Outgoing(report.node, SERVICE_JOB, payload, lifetime_ms, COMMAND_PRIORITY))

    def _view(self, node: FleetNode, now_ns: int) -> NodeView:
        beacon = self._membership.members[node.node].beacon
        share = self._config.expected_charge if beacon is None else beacon.charge_permille / 1000
        mine = [job.row for job in self._open.values() if job.row.node == node.node and job.report is None]
        work_s = sum(row.request.steps_count * row.request.step_mpix for row in mine) / node.mpix_per_s
        return NodeView(
            node=node.node,
            mpix_per_s=node.mpix_per_s,
            compute_w=node.compute_w,
            idle_w=node.idle_w,
            array_w=node.array_w,
            battery_j=node.battery_j,
            charge_j=share * node.battery_j,
            reserve=node.reserve,
            sun=node.sun,
            held=set(self._held[node.node]),
            free_ns=now_ns + round(work_s * NS_PER_S),
            outstanding_count=len(mine),
        )

    def _name(self, node: int) -> str:
        known = self._fleet.get(node)
        return str(node) if known is None else known.name

    def _send(self, message: Outgoing) -> None:
        self._out.append(message)

    def _note_fields(self, kind: str, fields: dict[str, Any]) -> None:
        self._notes.append((kind, fields))

    def _note(self, kind: str, **fields: Argument) -> None:
        self._notes.append((kind, fields))


def _announced(report: JobReport) -> list[tuple[bytes, int]]:
    """Objects that a completed report says will come down."""
    objects = [(report.result, report.result_bytes)]
    if report.product:
        objects.append((report.product, report.product_bytes))
    return objects


def _to_plan(job: _Open) -> OpenJob:
    request = job.row.request
    return OpenJob(
        job_id=job.row.job_id,
        priority=request.priority,
        deadline_ns=job.row.deadline_ns,
        model=request.model,
        model_bytes=request.model_bytes,
        data=request.data,
        data_bytes=request.data_bytes,
        work_mpix=request.steps_count * request.step_mpix,
        result_bytes=request.data_bytes,
        avoid=frozenset(job.avoid),
    )
