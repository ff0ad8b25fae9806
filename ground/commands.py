"""The command desk: numbers commands, puts them on record, sends them, repeats them until they are answered or
expire."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flightsw.wire.messages import (
    SERVICE_COMMAND,
    Command,
    CommandCode,
    Stage,
    Verification,
    encode_message,
)
from ground.fleet import Outgoing
from ground.ledger import Ledger

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
    sent_ns: int
    job_id: int | None


class CommandDesk:
    """All commands of the ground whose chain has not ended.

    Every method that changes the ledger is called inside a transaction of it.

    Args:
        ledger: what makes a number unique and a chain durable.
        repeat_s: a command without an answer is sent again after this.
        send: takes each message.
        note: takes (kind, fields) of what happens.
        name: node number to name.
    """

    def __init__(
        self,
        ledger: Ledger,
        repeat_s: float,
        send: Callable[[Outgoing], None],
        note: Callable[[str, dict[str, Any]], None],
        name: Callable[[int], str],
    ) -> None:
        self._ledger = ledger
        self._repeat_ns = round(repeat_s * NS_PER_S)
        self._send_message = send
        self._note = note
        self._name = name
        self._next_id = ledger.next_command_id()
        self._open: dict[int, Sent] = {}
        self._unrecorded: list[Verification] = []
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
                row.changed_ns - self._repeat_ns,
                jobs.get(row.command_id),
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
        payload = encode_message(Command(command_id, opcode, lifetime_s * 1000, arguments))
        expires_ns = now_ns + lifetime_s * NS_PER_S
        self._ledger.add_command(command_id, node, opcode, payload, expires_ns, now_ns)
        sent = self._open[command_id] = Sent(command_id, node, opcode, payload, expires_ns, now_ns, job_id)
        self._send(sent, now_ns)
        self._note("command.sent", {"node": self._name(node), "command": command_id, "opcode": opcode})
        return command_id

    def on_verification(self, verification: Verification) -> Sent | None:
        """Take one stage of a chain, on record with the next `record`; returns the command when its chain has ended."""
        sent = self._open.get(verification.command_id)
        if sent is None or sent.node != verification.node:
            return None
        self._unrecorded.append(verification)
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

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to repeat or to record."""
        return not (self._open or self._unrecorded)

    def record(self, now_ns: int) -> None:
        """Put the stages that came in on record."""
        for v in self._unrecorded:
            self._ledger.stage_command(v.command_id, v.stage, v.code, v.detail, now_ns)
        self._unrecorded.clear()

    def repeat(self, now_ns: int) -> list[Sent]:
        """Send again what has no answer; returns the commands that expired without one."""
        expired = []
        for sent in list(self._open.values()):
            if now_ns >= sent.expires_ns:
                del self._open[sent.command_id]
                self._ledger.stage_command(sent.command_id, Stage.FAILED, CommandCode.EXPIRED, "no answer", now_ns)
                expired.append(sent)
            elif now_ns - sent.sent_ns >= self._repeat_ns:
                self.repeated_count += 1
                self._send(sent, now_ns)
        return expired

    def _send(self, sent: Sent, now_ns: int) -> None:
        sent.sent_ns = now_ns
        self._ledger.stage_command(sent.command_id, Stage.SENT, CommandCode.OK, "", now_ns)
        left_ms = (sent.expires_ns - now_ns) // 1_000_000
        is_confidential = sent.opcode in CONFIDENTIAL
        self._send_message(
            Outgoing(sent.node, SERVICE_COMMAND, sent.payload, left_ms, COMMAND_PRIORITY, is_confidential)
        )
