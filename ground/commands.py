"""The command desk: numbers commands, puts them on record, sends them, repeats them until they are answered or expire.

| stage | said when |
|---|---|
| QUEUED | the command is in the ledger |
| RELEASED | the plan has a way to the node within its lifetime, and the bundle layer has taken it |
| SENT | it begins to leave an antenna for the first time |
| ACCEPTED and the rest | the node says so |
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from flightsw.dictionary import check_arguments, flight_dictionary
from flightsw.dictionary.text import near, usage
from flightsw.errors import ConfigError
from flightsw.wire.messages import (
    SERVICE_COMMAND,
    Command,
    CommandCode,
    Stage,
    Verification,
    encode_message,
)
from ground.fleet import Outgoing
from ground.ledger import Ledger, StageRow

NS_PER_S = 1_000_000_000
COMMAND_PRIORITY = 2
"""Of 0 to 7: after beacons, before results."""
CONFIDENTIAL = frozenset(("KEYS.LOAD",))
"""Commands that are encrypted."""


@dataclass(slots=True)
class Sent:
    """A command whose chain has not ended."""

    command_id: int
    node: int
    opcode: str
    payload: bytes
    expires_ns: int
    released_ns: int | None
    """When it was last given to the bundle layer; None while there is no way to the node."""
    job_id: int | None
    is_sent: bool = False


class _News(NamedTuple):
    """A stage that is not on record yet."""

    command_id: int
    row: StageRow


def checked_arguments(opcode: str, arguments: tuple[object, ...], named: Mapping[str, object]) -> tuple[object, ...]:
    """The arguments of a command, all in order.

    Args:
        opcode: COMPONENT.COMMAND.
        arguments: the first ones, in the dictionary's order.
        named: the others, by name.

    Raises:
        ConfigError: the dictionary has no such command, or an argument is wrong; names it.
    """
    known = flight_dictionary().commands
    spec = known.get(opcode)
    if spec is None:
        raise ConfigError(f"command: opcode is {opcode!r}, expected {near(opcode, known)}")
    rest = [one.name for one in spec.arguments[len(arguments) :]]
    for name in named:
        if name not in rest:
            raise ConfigError(f"command: {spec.key}: {name} is one argument too many, expected {usage(spec)}")
    missing = [name for name in rest if name not in named]
    if named and missing:
        raise ConfigError(f"command: {spec.key}: {missing[0]} is missing, expected {usage(spec)}")
    whole = (*arguments, *(named[name] for name in rest if name in named))
    wrong = check_arguments(spec, whole)
    if wrong is not None:
        raise ConfigError(f"command: {wrong}")
    return whole


class CommandDesk:
    """All commands of the ground whose chain has not ended.

    Every method that changes the ledger is called inside a transaction of it.

    Args:
        ledger: what makes a number unique and a chain durable.
        repeat_s: a command without an answer is sent again after this.
        has_way: whether the plan leads to a node: (node, monotonic time [ns], within [ns]).
        dictionary_digest: of the dictionary that the ground speaks; it travels with each command.
        send: takes each message.
        note: takes (kind, fields) of what happens.
        name: node number to name.
    """

    def __init__(
        self,
        ledger: Ledger,
        repeat_s: float,
        has_way: Callable[[int, int, int], bool],
        dictionary_digest: bytes,
        send: Callable[[Outgoing], None],
        note: Callable[[str, dict[str, Any]], None],
        name: Callable[[int], str],
    ) -> None:
        self._ledger = ledger
        self._repeat_ns = round(repeat_s * NS_PER_S)
        self._has_way = has_way
        self._dictionary_digest = dictionary_digest
        self._send_message = send
        self._note = note
        self._name = name
        self._next_id = ledger.next_command_id()
        self._open: dict[int, Sent] = {}
        self._unrecorded: list[_News] = []
        self.repeated_count = 0

    def resume(self, jobs: dict[int, int]) -> None:
        """After a restart: take up the commands that the ledger knows; they are repeated with the next round.

        Args:
            jobs: command -> job that it submits.
        """
        for row in self._ledger.open_commands():
            self._open[row.command_id] = Sent(
                row.command_id,
                row.node,
                row.opcode,
                row.payload,
                row.expires_ns,
                None,
                jobs.get(row.command_id),
                row.stage >= Stage.SENT,
            )

    def command(
        self,
        node: int,
        opcode: str,
        arguments: tuple[object, ...],
        now_ns: int,
        *,
        lifetime_s: int,
        job_id: int | None = None,
    ) -> int:
        """Send a command; returns its number."""
        command_id, self._next_id = self._next_id, self._next_id + 1
        command = Command(command_id, opcode, lifetime_s * 1000, arguments, self._dictionary_digest)
        payload = encode_message(command)
        expires_ns = now_ns + lifetime_s * NS_PER_S
        self._ledger.add_command(command_id, node, opcode, payload, expires_ns, now_ns)
        sent = self._open[command_id] = Sent(command_id, node, opcode, payload, expires_ns, None, job_id)
        self._release(sent, now_ns)
        self._note("command.sent", {"node": self._name(node), "command": command_id, "opcode": opcode})
        return command_id

    def on_departure(self, command_id: int, now_ns: int) -> None:
        """A command begins to leave."""
        sent = self._open.get(command_id)
        if sent is not None and not sent.is_sent:
            sent.is_sent = True
            self._unrecorded.append(_News(command_id, StageRow(now_ns, Stage.SENT, CommandCode.OK, "")))

    def on_verification(self, verification: Verification, now_ns: int) -> Sent | None:
        """Take one stage of a chain, on record with the next `record`; returns the command when its chain has ended."""
        sent = self._open.get(verification.command_id)
        if sent is None or sent.node != verification.node:
            return None
        row = StageRow(now_ns, verification.stage, verification.code, verification.detail)
        self._unrecorded.append(_News(verification.command_id, row))
        if verification.stage not in (Stage.COMPLETED, Stage.FAILED):
            return None
        del self._open[verification.command_id]
        self._note(
            "command.ended",
            {
                "node": self._name(sent.node),
                "command": sent.command_id,
                "stage": verification.stage.name,
                "code": verification.code.name,
            },
        )
        return sent

    def withdraw(self, command_id: int, now_ns: int) -> None:
        """Send a command no more; no effect when its chain has ended. What is on its way may still arrive."""
        if self._open.pop(command_id, None) is not None:
            self._ledger.stage_command(command_id, Stage.FAILED, CommandCode.EXPIRED, "withdrawn", now_ns)

    def chain(self, command_id: int) -> list[StageRow]:
        """All stages of a command so far, in order, with those that are not on record yet."""
        chain = self._ledger.chain(command_id)
        for news in self._unrecorded:
            if news.command_id == command_id and (not chain or _follows(chain[-1], news.row)):
                chain.append(news.row)
        return chain

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to repeat or to record."""
        return not (self._open or self._unrecorded)

    def record(self) -> None:
        """Put the stages that came in on record."""
        for command_id, row in self._unrecorded:
            self._ledger.stage_command(command_id, row.stage, row.code, row.detail, row.at_ns)
        self._unrecorded.clear()

    def repeat(self, now_ns: int) -> list[Sent]:
        """Send again what has no answer; returns the commands that expired without one."""
        expired = []
        for sent in list(self._open.values()):
            if now_ns >= sent.expires_ns:
                del self._open[sent.command_id]
                self._ledger.stage_command(sent.command_id, Stage.FAILED, CommandCode.EXPIRED, "no answer", now_ns)
                expired.append(sent)
            elif sent.released_ns is None or now_ns - sent.released_ns >= self._repeat_ns:
                self.repeated_count += sent.released_ns is not None
                self._release(sent, now_ns)
        return expired

    def _release(self, sent: Sent, now_ns: int) -> None:
        """Give a command to the bundle layer; it stays QUEUED while the plan has no way to its node."""
        if not self._has_way(sent.node, now_ns, sent.expires_ns - now_ns):
            return
        sent.released_ns = now_ns
        self._ledger.stage_command(sent.command_id, Stage.RELEASED, CommandCode.OK, "", now_ns)
        left_ms = (sent.expires_ns - now_ns) // 1_000_000
        is_confidential = sent.opcode in CONFIDENTIAL
        self._send_message(
            Outgoing(
                sent.node,
                SERVICE_COMMAND,
                sent.payload,
                left_ms,
                COMMAND_PRIORITY,
                is_confidential,
                None if sent.is_sent else sent.command_id,
            )
        )


def _follows(last: StageRow, row: StageRow) -> bool:
    """Whether a stage is a step forward, as the ledger judges it."""
    if last.stage >= Stage.COMPLETED:
        return False
    return row.stage > last.stage or (row.stage is last.stage is Stage.PROGRESS and row.detail != last.detail)
