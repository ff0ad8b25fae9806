"""What users and benches may ask a running ground segment, over a control socket (`flightsw.host.control`).

| method | gives |
|---|---|
| `put_object(bytes)` | its digest |
| `get_object(digest)` | its bytes |
| `submit(job)` | the job's number; a job is a map of the fields of `ground.ledger.JobRequest`, or a list of them |
| `command(node, opcode, arguments)` | the command's number; a node is its number or its name |
| `command_state(number)` | `{command, node, opcode, stage, code, detail, chain}`: the last stage, and all of them |
| `audit(node)` | the number of the command that asks a node for its audit trail |
| `audit_verdict(number)` | `{node, holds, records, faults, head}` when the trail has come, else null |
| `rotate_key(node, secret)` | the number of the new key, whose 32 secret bytes the user drew |
| `job(number)` | `{job, state, attempt, node, submitted_ns, deadline_ns, ended_ns, result, product, detail}` |
| `jobs(most)` | the newest jobs, newest first |
| `nodes()` | what each node's last beacon said, and how present it is |
| `events(node, most)` | the newest events, oldest first; of all nodes when `node` is 0 |
| `telemetry(node, what)` | the newest value of each channel of a packet, a component or all; or of one channel |
| `history(node, channel, most)` | the newest values of a channel, oldest first |
| `dumps(node, kind, most)` | the newest data products of a node; of all kinds when `kind` is empty |
| `dump(node, boot_count, dump)` | its bytes |
| `measure_time(node)` | the number of a query to the node |
| `time(node)` | how far its mission time is off, as of the newest answer (`ground.time_port`) |
| `update_start(...)`, `update_status()`, `update_stop(why)` | software updates (`ground.update_port`) |
| `status()` | counts, for people |
| `ping(node, service, bytes, wait_s)` | `{bytes, rtt_ns}` of the echo, or null when none came in time |

Every argument is checked: what is wrong with it is the answer.
"""

from collections.abc import Callable
from typing import Annotated, Any, Final

import msgspec

from flightsw.errors import ConfigError
from flightsw.ports import Clock
from flightsw.wire.messages import Digest
from ground.fleet import FleetNode
from ground.ledger import JobRequest
from ground.readings import TelemetryPort
from ground.segment import GroundSegment
from ground.time_port import TimePort
from ground.update_port import UpdatePort

ROWS_MAX: Final = 1000
"""Rows that one answer may have: a screen is fifty, an answer of some hundred kilobytes is no burden."""
DEADLINE_S_MAX: Final = 365 * 86_400
"""Longest deadline of a job [s]: a year."""
PING_WAIT_S_MAX: Final = 86_400
"""Longest wait for an echo [s]: a day, whatever the contacts are."""

Most = Annotated[int, msgspec.Meta(ge=1, le=ROWS_MAX)]
Number = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
NodeKey = Number | str
PingWait = Annotated[float, msgspec.Meta(gt=0, le=PING_WAIT_S_MAX)]
Size = Annotated[int, msgspec.Meta(ge=0, le=1 << 50)]


class Submission(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A job as users write it: `JobRequest` with its ranges, which are those of the node's own check."""

    kind: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    model: Digest
    model_bytes: Size
    data: Digest
    data_bytes: Size
    steps_count: Annotated[int, msgspec.Meta(ge=1, le=10_000)]
    step_mpix: Annotated[float, msgspec.Meta(ge=0, le=1e9)]
    priority: Annotated[int, msgspec.Meta(ge=0, le=7)] = 4
    deadline_s: Annotated[int, msgspec.Meta(ge=1, le=DEADLINE_S_MAX)]
    checkpoint_steps: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1
    product_measure_max: Annotated[float, msgspec.Meta(ge=0, le=1e9)] = 1.0


class UserPort:
    """Answers for one ground segment.

    Args:
        ground: the segment.
        clock: its clock.
        fleet: its nodes.
        kinds: of jobs whose results it can judge.
    """

    def __init__(
        self, ground: GroundSegment, clock: Clock, fleet: tuple[FleetNode, ...], kinds: tuple[str, ...]
    ) -> None:
        self._ground = ground
        self._clock = clock
        self._fleet = {node.node: node for node in fleet}
        self._numbers = {node.name: node.node for node in fleet}
        self._kinds = kinds

    def handlers(self) -> dict[str, Callable[..., Any]]:
        """Method -> what answers it."""
        return {
            "put_object": self.put_object,
            "get_object": self.get_object,
            "submit": self.submit,
            "command": self.command,
            "command_state": self.command_state,
            "audit": self.audit,
            "audit_verdict": self.audit_verdict,
            "rotate_key": self.rotate_key,
            "job": self.job,
            "jobs": self.jobs,
            "nodes": self.nodes,
            "events": self.events,
            "status": self.status,
            "ping": self.ping,
            **TelemetryPort(self._ground, self._clock, self._number).handlers(),
            **TimePort(self._ground, self._number).handlers(),
            **UpdatePort(self._ground, self._clock, self._names(), self._number).handlers(),
        }

    def put_object(self, data: bytes) -> bytes:
        """Keep an object; returns its digest. Raises: StorageError."""
        return self._ground.store.put(data)

    def get_object(self, digest: Digest) -> bytes:
        """The bytes of an object. Raises: StorageError."""
        return self._ground.store.get(digest)

    def submit(self, job: dict[str, Any] | list[Any]) -> int:
        """Accept a job; it is on record when this returns.

        Raises:
            ConfigError: a field is wrong.
            StorageError: an object is not in the store.
        """
        if isinstance(job, list):
            names = JobRequest.__struct_fields__
            if len(job) != len(names):
                raise ConfigError(f"submit: job has {len(job)} fields, expected {len(names)}: {', '.join(names)}")
            job = dict(zip(names, job, strict=True))
        try:
            asked = msgspec.convert(job, Submission, builtin_types=(bytes,))
        except msgspec.ValidationError as error:
            raise ConfigError(f"submit: job: {error}") from None
        if asked.kind not in self._kinds:
            raise ConfigError(f"submit: job: kind is {asked.kind!r}, expected one of {', '.join(self._kinds)}")
        for name, digest, size_bytes in (
            ("model", asked.model, asked.model_bytes),
            ("data", asked.data, asked.data_bytes),
        ):
            held_bytes = self._ground.store.size_bytes(digest)
            if size_bytes != held_bytes:
                raise ConfigError(f"submit: job: {name}_bytes is {size_bytes}, expected {held_bytes}, its size here")
        return self._ground.submit(JobRequest(**msgspec.structs.asdict(asked)))

    def command(self, node: NodeKey, opcode: str, arguments: list[Any] = []) -> int:  # noqa: B006 - never changed
        """Send a command; returns its number. Jobs are submitted by `submit`, which keeps them on record.

        Raises:
            ConfigError: no such node or opcode, or an argument is wrong.
        """
        number = self._number("command", node)
        if opcode == "JOBS.SUBMIT":
            raise ConfigError(f"command: opcode is {opcode!r}, expected another; jobs are submitted by `submit`")
        return self._ground.command(number, opcode, *arguments)

    def command_state(self, number: Number) -> dict[str, Any]:
        """How far a command is. Raises: ConfigError."""
        row = self._ground.ledger.command(number)
        if row is None:
            raise ConfigError(f"command_state: number is {number}, expected a command that was sent")
        chain = [
            {"t_ns": one.at_ns, "stage": one.stage.name, "code": one.code.name, "detail": one.detail}
            for one in self._ground.cluster.chain(number)
        ]
        last = {name: chain[-1][name] for name in ("stage", "code", "detail")}
        return {"command": number, "node": self._name(row[0]), "opcode": row[1], **last, "chain": chain}

    def audit(self, node: NodeKey) -> int:
        """Ask a node for its audit trail; returns the command's number. Raises: ConfigError: no such node."""
        return self._ground.audits.begin(self._number("audit", node), self._ground.command)

    def audit_verdict(self, number: Number) -> dict[str, Any] | None:
        """Whether the trail that a command asked for holds; null while it has not come.

        Raises:
            ConfigError: no audit with this number is under way, or what came is no trail.
            StorageError: how far it holds cannot be noted.
        """
        row = self._ground.ledger.command(number)
        found = self._ground.audits.verdict(number)
        if found is None or row is None:
            return None
        head = None if found.head is None else [found.head.number, found.head.hash.hex()]
        return {
            "node": self._name(row[0]),
            "holds": not found.faults,
            "records": [list(record) for record in found.records],
            "faults": [[fault.number, fault.kind.value, fault.detail] for fault in found.faults],
            "head": head,
        }

    def rotate_key(self, node: NodeKey, secret: Digest) -> int:
        """Begin to give a node a new key; returns its number.

        Raises:
            ConfigError: no such node, it has no keys, or another change of its key is under way.
            StorageError: the ground's keys cannot be put on record.
        """
        return self._ground.rotate_key(self._number("rotate_key", node), secret)

    def job(self, number: Number) -> dict[str, Any]:
        """How far a job is. Raises: ConfigError."""
        rows = self._ground.ledger.jobs(count=1, number=number)
        if not rows:
            raise ConfigError(f"job: number is {number}, expected a job that was accepted")
        return self._job(rows[0])

    def jobs(self, most: Most = 50) -> list[dict[str, Any]]:
        """The newest jobs, newest first."""
        return [self._job(row) for row in self._ground.ledger.jobs(count=most)]

    def nodes(self) -> list[dict[str, Any]]:
        """What is known of each node, by number."""
        membership = self._ground.membership
        rows = []
        for number, node in sorted(self._fleet.items()):
            member = membership.members[number]
            row: dict[str, Any] = {"node": number, "name": node.name, "presence": membership.presence(number).value}
            if (beacon := member.beacon) is not None:
                row["heard_ns"] = member.heard_ns
                row |= {
                    "boot_count": beacon.boot_count,
                    "uptime_s": beacon.uptime_s,
                    "mode": beacon.mode.name,
                    "charge_permille": beacon.charge_permille,
                    "electronics_degc": beacon.electronics_ddegc / 10,
                }
            rows.append(row)
        return rows

    def events(self, node: NodeKey = 0, most: Most = 50) -> list[dict[str, Any]]:
        """The newest events, oldest first. Raises: ConfigError."""
        number = None if node == 0 else self._number("events", node)
        names = ("received_ns", "node", "severity", "component", "name", "text")
        rows = self._ground.archive.events(number)[-most:]
        return [dict(zip(names, row, strict=True)) | {"node": self._name(row[1])} for row in rows]

    def status(self) -> dict[str, Any]:
        """Counts, for people."""
        ground = self._ground
        presence: dict[str, int] = {}
        for number in self._fleet:
            name = ground.membership.presence(number).value
            presence[name] = presence.get(name, 0) + 1
        counts = ground.cluster.counts
        return {
            "t_ns": self._clock.monotonic_ns(),
            "utc_ns": self._clock.utc_ns(),
            "node": ground.node,
            "nodes": dict(sorted(presence.items())),
            "jobs": ground.ledger.counts(),
            "placements": counts.placements,
            "retries": counts.retries,
            "uplinked_bytes": counts.uplinked_bytes,
            "messages_refused": ground.bad_messages_count,
        }

    async def ping(self, node: NodeKey, service: Number, size_bytes: Number, wait_s: PingWait) -> dict[str, int] | None:
        """Ask a node for an echo, also one that is not of the fleet. Raises: ConfigError."""
        number = self._number("ping", node) if isinstance(node, str) else node
        reply = await self._ground.pinger.ping(number, service=service, size_bytes=size_bytes, wait_s=wait_s)
        return None if reply is None else {"bytes": reply.size_bytes, "rtt_ns": reply.rtt_ns}

    def _number(self, method: str, node: NodeKey) -> int:
        """The number of a node that is given by number or name."""
        number = self._numbers.get(node) if isinstance(node, str) else node
        if number not in self._fleet:
            raise ConfigError(f"{method}: node is {node!r}, expected one of {_some(sorted(self._numbers))}")
        return number

    def _names(self) -> dict[int, str]:
        return {number: node.name for number, node in self._fleet.items()}

    def _name(self, node: int) -> str:
        known = self._fleet.get(node)
        return str(node) if known is None else known.name

    def _job(self, row: dict[str, Any]) -> dict[str, Any]:
        node = row["node"]
        return row | {"node": None if node is None else self._name(node)}


def _some(names: list[str]) -> str:
    """Names for a message: all of a small fleet, the ends of a large one."""
    return ", ".join(names) if len(names) <= 12 else f"{names[0]}, {names[1]}, ... {names[-1]}"
