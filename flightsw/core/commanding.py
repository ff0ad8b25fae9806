"""Commands on board: checked against the dictionary, executed once, verified stage by stage.

A repeated command (the ground did not hear the answer) is answered with its last verification and not executed again.
The identifiers of executed commands survive a reset: the record is durable before the command takes effect.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import msgspec

from flightsw.component import OK, Component, Handler, Outcome
from flightsw.core.dictionary import COMMANDS, COMPONENTS, check_arguments
from flightsw.errors import MessageError, StorageError
from flightsw.ports import Disk
from flightsw.storage.log import RecordLog
from flightsw.wire import cbor
from flightsw.wire.messages import Command, CommandCode, Stage, Verification

REMEMBERED_MAX: Final = 4096
"""Executed commands remembered: at ten commands a second, more than any command's lifetime on a pass."""

LOG_NAME: Final = "commands.log"


@dataclass(slots=True)
class Counts:
    """Command counters of one component."""

    executed: int = 0
    """CMDPC, processed."""
    rejected: int = 0
    """CMDEC, rejected."""


class Commands:
    """Executes commands through the handlers of the components.

    Args:
        node: the node's number.
        disk: keeps the executed identifiers across resets.
        components: of the node; every opcode of the dictionary has a handler, and no other.
        on_execute: told of each command and its age [ms] just before it takes effect.
    """

    def __init__(
        self, node: int, disk: Disk, components: Sequence[Component], on_execute: Callable[[Command, int], None]
    ) -> None:
        self._node = node
        self._handlers = self._handlers_of(components)
        assert sorted(self._handlers) == sorted(COMMANDS), "every opcode has a handler, and no handler lacks an opcode"
        self._on_execute = on_execute
        self._log = RecordLog(disk, LOG_NAME)
        self._done: OrderedDict[int, Verification] = OrderedDict()
        self.counts = {component: Counts() for component in COMPONENTS}
        self.unsaved_count = 0
        """Failures that the disk did not take."""
        self._logged_count = 0
        for record in self._log.records():
            self._logged_count += 1
            self._remember(*_unpack(node, record))

    def receive(self, command: Command, age_ms: int) -> list[Verification]:
        """Judge and execute one command; returns the verifications to send.

        Args:
            command: as decoded.
            age_ms: how long it travelled [ms]: it expires by age, never by a clock that can jump.
        """
        last = self._done.get(command.command_id)
        if last is not None:
            return [last]
        refusal = self._refusal(command, age_ms)
        counts = self.counts.get(command.opcode.partition(".")[0], self.counts[COMPONENTS[0]])
        if refusal is not None:
            counts.rejected += 1
            return [self._verification(command, Stage.FAILED, refusal)]
        try:
            self._save(command.command_id, Outcome(CommandCode.OK))
        except StorageError as error:  # what cannot be remembered is not done: a repeat would do it twice
            counts.rejected += 1
            return [self._verification(command, Stage.FAILED, Outcome(CommandCode.EXECUTION_ERROR, str(error)))]
        self._on_execute(command, age_ms)
        outcome = self._handlers[command.opcode](command.arguments)
        stage = Stage.COMPLETED if outcome.code is CommandCode.OK else Stage.FAILED
        if stage is Stage.FAILED:
            counts.rejected += 1
            self._save_failure(command.command_id, outcome)
        else:
            counts.executed += 1
        final = self._verification(command, stage, outcome)
        self._remember(command.command_id, final)
        return [self._verification(command, Stage.ACCEPTED, Outcome(CommandCode.OK)), final]

    @property
    def executed_count(self) -> int:
        """Commands processed, all components."""
        count = 0
        for counts in self.counts.values():  # a beacon asks, so it is quick
            count += counts.executed
        return count

    @property
    def rejected_count(self) -> int:
        """Commands rejected, all components; those of an unknown component count for the first one."""
        count = 0
        for counts in self.counts.values():
            count += counts.rejected
        return count

    def reset_counters(self, component: str) -> None:
        """CMDPC and CMDEC of a component back to zero."""
        self.counts[component] = Counts()

    def _handlers_of(self, components: Sequence[Component]) -> dict[str, Handler]:
        handlers: dict[str, Handler] = {}
        for component in components:
            name = component.name
            handlers[f"{name}.NOOP"] = lambda _: OK
            handlers[f"{name}.RESET_COUNTERS"] = partial(self._do_reset_counters, name)
            handlers.update({f"{name}.{command}": handler for command, handler in component.handlers().items()})
        return handlers

    def _do_reset_counters(self, component: str, _: tuple[object, ...]) -> Outcome:
        self.reset_counters(component)
        return OK

    def _refusal(self, command: Command, age_ms: int) -> Outcome | None:
        if command.opcode not in COMMANDS:
            return Outcome(CommandCode.INVALID_OPCODE, f"{command.opcode}: not in the dictionary")
        if age_ms >= command.lifetime_ms:
            return Outcome(CommandCode.EXPIRED, f"age {age_ms} ms, lifetime {command.lifetime_ms} ms")
        wrong = check_arguments(command.opcode, command.arguments)
        return None if wrong is None else Outcome(CommandCode.VALIDATION_ERROR, wrong[:512])

    def _verification(self, command: Command, stage: Stage, outcome: Outcome) -> Verification:
        return Verification(self._node, command.command_id, stage, outcome.code, outcome.detail[:512])

    def _save(self, command_id: int, outcome: Outcome) -> None:
        self._log.append(cbor.dumps([command_id, int(outcome.code), outcome.detail[:512]]))
        self._log.sync()
        self._logged_count += 1

    def _save_failure(self, command_id: int, outcome: Outcome) -> None:
        """Keep how a command failed, for a repeat after a reset; on a full disk it will say COMPLETED then."""
        try:
            self._save(command_id, outcome)
        except StorageError:
            self.unsaved_count += 1

    def _remember(self, command_id: int, verification: Verification) -> None:
        self._done[command_id] = verification
        if len(self._done) > REMEMBERED_MAX:
            self._done.popitem(last=False)
        if self._logged_count > 2 * REMEMBERED_MAX:
            self._log.compact([cbor.dumps([key, int(v.code), v.detail]) for key, v in self._done.items()])
            self._logged_count = len(self._done)


def _unpack(node: int, record: bytes) -> tuple[int, Verification]:
    try:
        command_id, code, detail = msgspec.convert(cbor.loads(record), tuple[int, CommandCode, str])
    except (MessageError, msgspec.ValidationError) as error:
        raise StorageError(f"{LOG_NAME}: a record passed its CRC but does not decode: {error}") from None
    stage = Stage.COMPLETED if code is CommandCode.OK else Stage.FAILED
    return command_id, Verification(node, command_id, stage, code, detail)
