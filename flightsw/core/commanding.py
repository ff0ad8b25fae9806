"""Commands on board: checked against the dictionary, executed once, verified stage by stage.

A repeated command (the ground did not hear the answer) is answered with its last verification and not executed again.
The identifiers of executed commands survive a reset: the record is durable before the command takes effect.

A command that takes time is STARTED, tells PROGRESS and ends later. One that a reset interrupts answers FAILED when it
is repeated: what it did until then is not known here. A hazardous command of the ground takes effect only when
COMMANDS.ARM has named it within the window before; commands of an on-board origin need no arm.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from flightsw.component import OK, Component, Handler, Outcome, Report, Scalar
from flightsw.dictionary import CommandSpec, check_arguments, flight_dictionary
from flightsw.dictionary.accessors.arguments import ARGUMENTS
from flightsw.dictionary.accessors.commands_names import Arm, armed, log_lost
from flightsw.dictionary.model import NOOP_CODE, RESET_COUNTERS_CODE
from flightsw.errors import MessageError, StorageError
from flightsw.ports import Clock, Disk
from flightsw.storage.state_log import StateLog
from flightsw.wire import cbor
from flightsw.wire.messages import Command, CommandCode, Stage, Verification

REMEMBERED_MAX: Final = 4096
"""Executed commands remembered: at ten commands a second, more than any command's lifetime on a pass."""

RUNNING_MAX: Final = 16
"""Commands that may be under way at once; more are refused as BUSY. An operator watches a handful."""

LOG_NAME: Final = "commands"
GROUND: Final = "ground"
"""Origin of what comes over the link."""
DETAIL_CHARACTERS: Final = 512
"""Longest detail of a verification [characters]."""
COMMAND_TAG: Final = Command.__struct_config__.tag
NS_PER_S: Final = 1_000_000_000


class Counts(NamedTuple):
    """Command counters of one component."""

    executed: int = 0
    """CMDPC, processed."""
    rejected: int = 0
    """CMDEC, rejected."""


class Judged(NamedTuple):
    """What became of a command: executed or refused, from the ground or from on board."""

    origin: str
    """`ground`, or who on board."""
    opcode: str
    arguments: tuple[object, ...]
    outcome: Outcome
    command_id: int | None
    """None for an on-board origin."""


class CommandHooks(NamedTuple):
    """What `Commands` tells the rest of the node."""

    answer: Callable[[Verification], None]
    """Takes each stage of a chain, to be sent to the ground."""
    on_execute: Callable[[Command, int], None]
    """Told of each command of the ground and its age [ms] just before it takes effect."""
    on_judged: Callable[[Judged], None]
    """Told of every command that ended or was refused; repeated ones were told before."""
    report: Report


class Commands:
    """Executes commands through the handlers of the components. It is a component itself: COMMANDS.

    Args:
        node: the node's number.
        disk: keeps the executed identifiers across resets.
        clock: for the arm window.
        components: of the node; what they handle is in the dictionary.
        hooks: who is told.
        arm_window_s: gives how long a hazardous command stays armed [s]; without it, the dictionary's default.
    """

    name = "COMMANDS"

    def __init__(
        self,
        node: int,
        disk: Disk,
        clock: Clock,
        components: Sequence[Component],
        hooks: CommandHooks,
        arm_window_s: Callable[[], int] | None = None,
    ) -> None:
        self._node = node
        self._clock = clock
        self._dictionary = flight_dictionary()
        self._components: dict[str, Component] = {part.name: part for part in (*components, self)}
        for part in self._components.values():
            handled = {f"{part.name}.{name}" for name in part.handlers()}
            assert handled <= self._dictionary.commands.keys(), f"{sorted(handled)}: not all are in the dictionary"
        self._hooks = hooks
        default_s: int = self._dictionary.parameters["COMMANDS.arm_window_s"].default
        self._arm_window_s = arm_window_s or (lambda: default_s)
        self._armed = ""
        self._armed_until_ns = 0
        self._log = StateLog(disk, LOG_NAME)
        self._done: OrderedDict[int, Verification] = OrderedDict()
        self._running_count = 0
        names = [name for name in self._dictionary.components if name in self._components]
        self.counts: dict[str, Counts] = dict.fromkeys(names, Counts())
        self.executed_count = 0
        """Commands processed, all components; kept, because each beacon tells it."""
        self.rejected_count = 0
        """Commands rejected, all components; those of an unknown component count for COMMANDS."""
        self.unsaved_count = 0
        """Ends that the disk did not take."""
        self.undecoded_count = 0
        """Records that passed their CRC and say nothing: a bug, or another version's."""
        for record in self._log.records():
            self._recall(record)
        self._logged_count = self._log.records_count

    # -- the component COMMANDS

    def handlers(self) -> Mapping[str, Handler]:
        """ARM, DISARM."""
        return {"ARM": self._do_arm, "DISARM": self._do_disarm}

    def channels(self) -> Mapping[str, Scalar]:
        """What is armed, what runs, what the disk did not take."""
        is_armed = self._clock.monotonic_ns() < self._armed_until_ns
        return {
            "armed": self._armed if is_armed else "",
            "running": self._running_count,
            "unsaved": self.unsaved_count,
        }

    def boot(self) -> None:
        """Say what the disk has lost."""
        if self.lost_count:
            log_lost(self._hooks.report, self.lost_count)

    # -- commands of the ground

    def receive(self, command: Command, age_ms: int) -> None:
        """Judge and execute one command of the ground.

        Args:
            command: as decoded.
            age_ms: how long it travelled [ms]: it expires by age, never by a clock that can jump.
        """
        last = self._done.get(command.command_id)
        if last is not None:
            self._hooks.answer(last)
            return
        refusal = self._refusal(command, age_ms)
        if refusal is not None:
            self._refuse(Judged(GROUND, command.opcode, command.arguments, refusal, command.command_id))
            return
        spec = self._dictionary.commands[command.opcode]
        try:
            stage = Stage.STARTED if spec.takes_time else Stage.COMPLETED
            self._save(Verification(self._node, command.command_id, stage, CommandCode.OK))
        except StorageError as error:  # what cannot be remembered is not done: a repeat would do it twice
            outcome = Outcome(CommandCode.EXECUTION_ERROR, str(error))
            self._refuse(Judged(GROUND, command.opcode, command.arguments, outcome, command.command_id))
            return
        if spec.hazardous:
            self._armed_until_ns = 0  # one command for one arm
        self._hooks.on_execute(command, age_ms)
        self._answer(command.command_id, Stage.ACCEPTED, OK)
        self._run(_Execution(self, spec, command.arguments, GROUND, command.command_id))

    def receive_malformed(self, payload: bytes, reason: str) -> bool:
        """Answer FORMAT_ERROR to a command that does not decode; False when not even its number can be read."""
        try:
            content = cbor.loads(payload)
        except MessageError:
            return False
        if not isinstance(content, list) or len(content) < 2 or content[0] != COMMAND_TAG:
            return False
        command_id = content[1]
        if type(command_id) is not int or not 0 <= command_id < 1 << 63:
            return False
        opcode = content[2] if len(content) > 2 and isinstance(content[2], str) else ""
        if command_id not in self._done:
            self._refuse(Judged(GROUND, opcode[:64], (), Outcome(CommandCode.FORMAT_ERROR, reason), command_id))
        return True

    # -- commands from on board

    def execute_onboard(self, opcode: str, arguments: tuple[Any, ...], origin: str) -> Outcome:
        """Run a command of a sequence or a response now; no chain, no arm, all other checks.

        Args:
            opcode: COMPONENT.NAME.
            arguments: in the dictionary's order.
            origin: who wants it, for the audit.

        Returns:
            How it ended; OK with the detail `started` for a command that goes on.
        """
        refusal = self._wrong(opcode, arguments)
        if refusal is not None:
            self._refuse(Judged(origin, opcode, arguments, refusal, None))
            return refusal
        return self._run(_Execution(self, self._dictionary.commands[opcode], arguments, origin, None))

    # -- counters

    @property
    def lost_count(self) -> int:
        """Records of executed commands that did not hold at boot."""
        return self._log.lost_count + self.undecoded_count

    # -- judging

    def _refusal(self, command: Command, age_ms: int) -> Outcome | None:
        """Why a command of the ground is not executed, or None."""
        digest = command.dictionary_digest
        spec = self._dictionary.commands.get(command.opcode)
        is_common = spec is not None and spec.is_common
        if digest and digest != self._dictionary.digest and not is_common:
            detail = f"dictionary {digest.hex()} of the sender, {self._dictionary.digest.hex()} here"
            return Outcome(CommandCode.FORMAT_ERROR, detail)
        if spec is not None and age_ms >= command.lifetime_ms:
            return Outcome(CommandCode.EXPIRED, f"age {age_ms} ms, lifetime {command.lifetime_ms} ms")
        wrong = self._wrong(command.opcode, command.arguments)
        if wrong is not None:
            return wrong
        if spec is not None and spec.hazardous and not self._is_armed(spec.key):
            return Outcome(CommandCode.NOT_ARMED, f"{spec.key} is hazardous: COMMANDS.ARM must come before")
        return None

    def _wrong(self, opcode: str, arguments: Sequence[object]) -> Outcome | None:
        """What is wrong with a command of any origin, or None."""
        spec = self._dictionary.commands.get(opcode)
        if spec is None:
            return Outcome(CommandCode.INVALID_OPCODE, f"{opcode}: not in the dictionary")
        if self._handler(spec) is None:
            return Outcome(CommandCode.INVALID_OPCODE, f"{opcode}: nothing on this node handles it")
        wrong = check_arguments(spec, arguments)
        if wrong is not None:
            return Outcome(CommandCode.VALIDATION_ERROR, wrong)
        if spec.takes_time and self._running_count >= RUNNING_MAX:
            return Outcome(CommandCode.BUSY, f"{self._running_count} commands are under way")
        return None

    def _is_armed(self, opcode: str) -> bool:
        return self._armed == opcode and self._clock.monotonic_ns() < self._armed_until_ns

    def _refuse(self, judged: Judged) -> None:
        component = judged.opcode.partition(".")[0]
        self._count(component if component in self.counts else self.name, 0, 1)
        if judged.command_id is not None:
            self._answer(judged.command_id, Stage.FAILED, judged.outcome)
        self._hooks.on_judged(judged)

    # -- executing

    def _run(self, execution: "_Execution") -> Outcome:
        spec = execution.spec
        handler = self._handler(spec)
        assert handler is not None, "a command without a handler is refused"
        kind = ARGUMENTS.get(spec.key)
        arguments = execution.arguments if kind is None else kind(*execution.arguments)
        if spec.takes_time:
            self._running_count += 1
            execution.tell(Stage.STARTED, OK)
            outcome = handler(arguments, execution)
        else:
            outcome = handler(arguments)
        if outcome is None:
            assert spec.takes_time, f"{spec.key} has no outcome"
            return Outcome(CommandCode.OK, "started")
        execution.finish(outcome)
        return outcome

    def _handler(self, spec: CommandSpec) -> Callable[..., Outcome | None] | None:
        """What executes a command, or None. Looked up when asked: a table for each node would be much of its memory."""
        if spec.component not in self._components:
            return None
        if spec.code == NOOP_CODE:
            return lambda _: OK
        if spec.code == RESET_COUNTERS_CODE:
            return lambda _: self._do_reset_counters(spec.component)
        return self._components[spec.component].handlers().get(spec.name)

    def _do_reset_counters(self, component: str) -> Outcome:
        counts = self.counts[component]
        self._count(component, -counts.executed, -counts.rejected)
        return OK

    def _count(self, component: str, executed: int, rejected: int) -> None:
        """Add to the counters of a component and to the sums over all."""
        counts = self.counts[component]
        self.counts[component] = Counts(counts.executed + executed, counts.rejected + rejected)
        self.executed_count += executed
        self.rejected_count += rejected

    def ended(self, execution: "_Execution", outcome: Outcome) -> None:
        """A command has its outcome: count, remember, answer, tell."""
        spec = execution.spec
        is_done = outcome.code is CommandCode.OK
        self._count(spec.component, is_done, not is_done)
        self._running_count -= spec.takes_time
        command_id = execution.command_id
        if command_id is not None:
            stage = Stage.COMPLETED if is_done else Stage.FAILED
            final = self._verification(command_id, stage, outcome)
            if spec.takes_time or not is_done:
                self._save_end(final)
            self._remember(final)
            self._hooks.answer(final)
        self._hooks.on_judged(Judged(execution.origin, spec.key, execution.arguments, outcome, command_id))

    def told(self, command_id: int, stage: Stage, outcome: Outcome) -> None:
        """A command that takes time is so far."""
        verification = self._verification(command_id, stage, outcome)
        self._remember(verification)
        self._hooks.answer(verification)

    def _do_arm(self, arguments: Arm) -> Outcome:
        spec = self._dictionary.commands.get(arguments.opcode)
        if spec is None or not spec.hazardous:
            return Outcome(CommandCode.VALIDATION_ERROR, f"{arguments.opcode} is no hazardous command")
        window_s = self._arm_window_s()
        self._armed = spec.key
        self._armed_until_ns = self._clock.monotonic_ns() + window_s * NS_PER_S
        armed(self._hooks.report, spec.key, window_s)
        return Outcome(CommandCode.OK, f"{spec.key} within {window_s} s")

    def _do_disarm(self, _: tuple[()]) -> Outcome:
        self._armed_until_ns = 0
        return OK

    # -- answers and memory

    def _answer(self, command_id: int, stage: Stage, outcome: Outcome) -> None:
        self._hooks.answer(self._verification(command_id, stage, outcome))

    def _verification(self, command_id: int, stage: Stage, outcome: Outcome) -> Verification:
        return Verification(self._node, command_id, stage, outcome.code, outcome.detail[:DETAIL_CHARACTERS])

    def _save(self, state: Verification) -> None:
        self._log.append(_pack(state))
        self._log.sync()
        self._logged_count += 1

    def _save_end(self, final: Verification) -> None:
        """Keep how a command ended, for a repeat after a reset; on a full disk it will say something else then."""
        try:
            self._save(final)
        except StorageError:
            self.unsaved_count += 1

    def _remember(self, state: Verification) -> None:
        self._done[state.command_id] = state
        if len(self._done) > REMEMBERED_MAX:
            self._done.popitem(last=False)
        if self._logged_count > 2 * REMEMBERED_MAX:
            self._compact()

    def _compact(self) -> None:
        try:
            self._log.snapshot([_pack(one) for one in self._done.values()])
        except StorageError:
            self.unsaved_count += 1  # the old log stands, and the next command tries again
            return
        self._logged_count = len(self._done)

    def _recall(self, record: bytes) -> None:
        try:
            command_id, stage, code, detail = msgspec.convert(cbor.loads(record), tuple[int, Stage, CommandCode, str])
        except (MessageError, msgspec.ValidationError):
            self.undecoded_count += 1
            return
        if stage not in (Stage.COMPLETED, Stage.FAILED):
            stage, code, detail = Stage.FAILED, CommandCode.EXECUTION_ERROR, "started, and a reset came before its end"
        self._done[command_id] = Verification(self._node, command_id, stage, code, detail)
        if len(self._done) > REMEMBERED_MAX:
            self._done.popitem(last=False)


class _Execution:
    """One command that is being executed; implements `flightsw.component.Execution`."""

    __slots__ = ("_commands", "_is_ended", "arguments", "command_id", "origin", "spec")

    def __init__(
        self,
        commands: Commands,
        spec: CommandSpec,
        arguments: tuple[object, ...],
        origin: str,
        command_id: int | None,
    ) -> None:
        self._commands = commands
        self._is_ended = False
        self.spec = spec
        self.arguments = arguments
        self.origin = origin
        self.command_id = command_id

    def progress(self, step: int, detail: str = "") -> None:
        """Tell the ground how far it is."""
        assert not self._is_ended, f"{self.spec.key} has ended"
        self.tell(Stage.PROGRESS, Outcome(CommandCode.OK, f"step {step}: {detail}" if detail else f"step {step}"))

    def finish(self, outcome: Outcome) -> None:
        """Say how it ended, once."""
        assert not self._is_ended, f"{self.spec.key} has ended"
        self._is_ended = True
        self._commands.ended(self, outcome)

    def tell(self, stage: Stage, outcome: Outcome) -> None:
        """A stage before the last."""
        if self.command_id is not None:
            self._commands.told(self.command_id, stage, outcome)


def _pack(state: Verification) -> bytes:
    return cbor.dumps([state.command_id, int(state.stage), int(state.code), state.detail])
