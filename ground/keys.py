"""Changing the key of a node over the air: procedures that survive a restart of either side at any step. Sans-IO.

| step | where | the answer that ends it |
|---|---|---|
| the new key is put on record, PRE_ACTIVATION | ground | |
| KEYS.LOAD, wrapped under the master key and encrypted | node | `key 2 PRE_ACTIVATION` or `key 2 ACTIVE` |
| KEYS.VERIFY with a challenge | node | the proof |
| KEYS.ACTIVATE | node | `key 2 ACTIVE` |
| the new key becomes ACTIVE | ground | |
| KEYS.DEACTIVATE the old key | node | `key 1 DEACTIVATED` or `key 1 DESTROYED` |
| KEYS.DESTROY the old key | node | `key 1 DESTROYED` |
| the old key is deactivated and destroyed | ground | |

Where a procedure stands is read from the ground's own keys, so that nothing else needs to be on record; every command
may come twice. An answer without the words above proves nothing (a node that was reset answers a repeat without
detail), and the step is done again. At every instant both sides have a key in common that both accept.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import Any, Final

from flightsw.errors import ConfigError
from flightsw.net.keys import KeyFault, KeyState, KeyStore, expand
from flightsw.wire.messages import CommandCode, Stage, Verification

CHALLENGE_BYTES: Final = 16
"""Of KEYS.VERIFY [bytes]: never the same twice, and not to be guessed without the master key."""
REFUSALS_MAX: Final = 5
"""Refused steps after which a change is given up: a node that was reset refuses once, one that lost its keys always."""

Command = Callable[[int, str, tuple[object, ...], int], int]
"""(node, opcode, arguments, now [ns]) -> number of the command."""


@unique
class Step(StrEnum):
    """What is asked of the node now."""

    LOAD = "KEYS.LOAD"
    VERIFY = "KEYS.VERIFY"
    ACTIVATE = "KEYS.ACTIVATE"
    DEACTIVATE = "KEYS.DEACTIVATE"
    DESTROY = "KEYS.DESTROY"


_ENDS: Final[dict[Step, tuple[KeyState, ...]]] = {
    Step.LOAD: (KeyState.PRE_ACTIVATION, KeyState.ACTIVE),
    Step.ACTIVATE: (KeyState.ACTIVE,),
    Step.DEACTIVATE: (KeyState.DEACTIVATED, KeyState.DESTROYED),
    Step.DESTROY: (KeyState.DESTROYED,),
}
"""States in which the node's key ends a step."""


@dataclass(slots=True)
class _Procedure:
    """The change of one node's key."""

    node: int
    step: Step
    key_id: int
    """That the command concerns."""
    command_id: int = 0
    expires_ns: int = 0
    expected: str = ""
    """The proof that is waited for."""
    refusals_count: int = 0


class KeyRotations:
    """All key changes under way.

    Args:
        keys: of the ground.
        command: sends a command to a node.
        note: takes (kind, fields) of what happens.
        patience_ns: a step without an answer is begun again after this, with a new command [ns]; the lifetime of one.
    """

    def __init__(
        self, keys: KeyStore, command: Command, note: Callable[[str, dict[str, Any]], None], patience_ns: int
    ) -> None:
        self._keys = keys
        self._command = command
        self._note = note
        self._patience_ns = patience_ns
        self._open: dict[int, _Procedure] = {}

    @property
    def nodes(self) -> list[int]:
        """Nodes whose key is being changed."""
        return sorted(self._open)

    def begin(self, node: int, secret: bytes, now_ns: int) -> int:
        """Give a node a new key; returns its number.

        Args:
            node: whose key.
            secret: the key, fresh from a source of entropy.
            now_ns: monotonic time [ns].

        Raises:
            ConfigError: a change is under way, no keys are shared with the node, or the key cannot be taken.
            StorageError: the ground's keys cannot be put on record.
        """
        shared = self._keys.of(node)
        if node in self._open:
            raise ConfigError(f"key of node {node}: it is being changed already")
        if shared is None:
            raise ConfigError(f"key of node {node}: no keys are shared with it")
        key_id = shared.last_id + 1
        refusal = self._keys.load(node, key_id, secret)
        if refusal is not None:
            raise ConfigError(f"key of node {node}: {refusal}")
        self._note("key.rotating", {"node": node, "key": key_id})
        self._take_up(node, now_ns)
        return key_id

    def resume(self, now_ns: int) -> None:
        """After a start: go on with all changes that the ground's keys show to be unfinished."""
        for node in self._keys.unsettled():
            if node not in self._open:
                self._take_up(node, now_ns)

    def round(self, now_ns: int) -> None:
        """Begin steps again that were never answered."""
        for procedure in list(self._open.values()):
            if now_ns >= procedure.expires_ns:
                self._ask(procedure, procedure.step, procedure.key_id, now_ns)

    def on_verification(self, verification: Verification, now_ns: int) -> None:
        """Take the answer to a step."""
        procedure = self._open.get(verification.node)
        if procedure is None or procedure.command_id != verification.command_id:
            return
        if verification.stage is Stage.FAILED:
            self._refused(procedure, verification, now_ns)
        elif verification.stage is Stage.COMPLETED:
            self._answered(procedure, verification.detail, now_ns)

    def _take_up(self, node: int, now_ns: int) -> None:
        """Begin where the ground's own keys say that the change stands; the change is over when they are in order."""
        keys = self._keys.inventory(node)
        key_id, state = keys[-1]
        procedure = self._open.setdefault(node, _Procedure(node, Step.LOAD, key_id))
        if state is KeyState.PRE_ACTIVATION:
            self._ask(procedure, Step.LOAD, key_id, now_ns)
        elif len(keys) > 1:
            self._ask(procedure, Step.DEACTIVATE, keys[0][0], now_ns)
        else:
            del self._open[node]
            self._note("key.rotated", {"node": node, "key": key_id})

    def _answered(self, procedure: _Procedure, detail: str, now_ns: int) -> None:
        node, step, key_id = procedure.node, procedure.step, procedure.key_id
        if step is Step.VERIFY:
            if detail and detail != procedure.expected:
                self._give_up(procedure, "the node has another key under this number")
                return
            is_done = bool(detail)
        else:
            is_done = any(detail == f"key {key_id} {state.name}" for state in _ENDS[step])
        if not is_done:
            self._ask(procedure, step, key_id, now_ns)
        elif step is Step.LOAD:
            self._ask(procedure, Step.VERIFY, key_id, now_ns)
        elif step is Step.VERIFY:
            self._ask(procedure, Step.ACTIVATE, key_id, now_ns)
        elif step is Step.ACTIVATE:
            self._keys.activate(node, key_id)
            self._take_up(node, now_ns)
        elif step is Step.DEACTIVATE:
            self._ask(procedure, Step.DESTROY, key_id, now_ns)
        else:
            self._keys.deactivate(node, key_id)
            self._keys.destroy(node, key_id)
            self._take_up(node, now_ns)

    def _refused(self, procedure: _Procedure, verification: Verification, now_ns: int) -> None:
        procedure.refusals_count += 1
        why = f"{procedure.step}: {verification.code.name} {verification.detail}"
        if procedure.refusals_count >= REFUSALS_MAX:
            self._give_up(procedure, why)
        elif verification.code is CommandCode.EXPIRED:
            self._ask(procedure, procedure.step, procedure.key_id, now_ns)
        elif procedure.step in (Step.VERIFY, Step.ACTIVATE):
            self._ask(procedure, Step.LOAD, procedure.key_id, now_ns)  # a reset lost the key that it had answered for
        elif procedure.step is Step.DEACTIVATE:
            newest = self._keys.inventory(procedure.node)[-1][0]
            self._ask(procedure, Step.ACTIVATE, newest, now_ns)  # a reset lost the activation that it had answered for
        else:
            self._give_up(procedure, why)

    def _give_up(self, procedure: _Procedure, why: str) -> None:
        """End a change; the key in use stays, and a new key that the node may not have is destroyed."""
        del self._open[procedure.node]
        if dict(self._keys.inventory(procedure.node)).get(procedure.key_id) is KeyState.PRE_ACTIVATION:
            self._keys.destroy(procedure.node, procedure.key_id)
        self._note("key.rotation_failed", {"node": procedure.node, "key": procedure.key_id, "why": why})

    def _ask(self, procedure: _Procedure, step: Step, key_id: int, now_ns: int) -> None:
        node = procedure.node
        shared, live = self._keys.of(node), self._keys.verifying(node, key_id)
        assert shared is not None, "a change begins with keys, and a peer always keeps one"
        assert not isinstance(live, KeyFault), "the ground destroys a key after the node"
        arguments: tuple[object, ...] = (key_id,)
        if step is Step.LOAD:
            arguments = (key_id, self._keys.wrapped(node, key_id))
        elif step is Step.VERIFY:
            challenge = expand(shared.master, b"flatrack challenge %d %d" % (key_id, now_ns))[:CHALLENGE_BYTES]
            procedure.expected = live.proof(node, challenge).hex()
            arguments = (key_id, challenge)
        procedure.step, procedure.key_id = step, key_id
        procedure.command_id = self._command(node, step, arguments, now_ns)
        procedure.expires_ns = now_ns + self._patience_ns
