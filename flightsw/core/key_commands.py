"""KEYS: over-the-air rekeying after the SDLS extended procedures (CCSDS 355.1-B-1 §3).

The commands concern the keys that the node shares with the ground. Each can be repeated without harm, and its answer
says what was done: an answer without detail (a repeat after a reset) proves nothing, and the ground asks again.
"""

from collections.abc import Callable, Mapping

from flightsw.component import Handler, Outcome, Scalar
from flightsw.dictionary.accessors.keys_names import Activate, Deactivate, Destroy, Load, Verify
from flightsw.errors import BundleError, StorageError
from flightsw.net.agent import BundleAgent
from flightsw.net.keys import KeyState, KeyStore
from flightsw.wire.messages import CommandCode


class KeyControl:
    """Implements `flightsw.component.Component`.

    Args:
        keys: of the node.
        ground: whose keys the commands change.
        agent: whose refusals are told.
        note: told of each key and the state that a command has brought it to.
    """

    name = "KEYS"

    def __init__(self, keys: KeyStore, ground: int, agent: BundleAgent, note: Callable[[int, KeyState], None]) -> None:
        self._keys = keys
        self._ground = ground
        self._agent = agent
        self._note = note

    def handlers(self) -> Mapping[str, Handler]:
        """LOAD, ACTIVATE, DEACTIVATE, DESTROY, VERIFY."""
        return {
            "LOAD": self._do_load,
            "ACTIVATE": self._changing(KeyState.ACTIVE, self._keys.activate),
            "DEACTIVATE": self._changing(KeyState.DEACTIVATED, self._keys.deactivate),
            "DESTROY": self._changing(KeyState.DESTROYED, self._keys.destroy),
            "VERIFY": self._do_verify,
        }

    def channels(self) -> Mapping[str, Scalar]:
        """Keys held, the active one, and what security refused since boot."""
        return {
            "active": self._keys.active_id(self._ground),
            "held": len(self._keys.inventory(self._ground)),
            "refused": sum(self._agent.counters.security_refused.values()),
        }

    def _do_load(self, arguments: Load) -> Outcome:
        key_id, wrapped = arguments
        shared = self._keys.of(self._ground)
        if shared is None:
            return Outcome(CommandCode.EXECUTION_ERROR, f"no keys are shared with node {self._ground}")
        # Loaded when first needed: it would take a twentieth of a second of every boot.
        from flightsw.wire.confidentiality import unwrap_key

        try:
            secret = unwrap_key(shared.master, wrapped)
        except BundleError as error:
            return Outcome(CommandCode.VALIDATION_ERROR, str(error))
        return self._change(
            key_id, KeyState.PRE_ACTIVATION, lambda ground, number: self._keys.load(ground, number, secret)
        )

    def _do_verify(self, arguments: Verify) -> Outcome:
        key_id, challenge = arguments
        proof = self._keys.proof(self._ground, key_id, challenge)
        if proof is None:
            return Outcome(CommandCode.EXECUTION_ERROR, f"key {key_id} is not here")
        return Outcome(CommandCode.OK, proof.hex())

    def _changing(self, state: KeyState, change: Callable[[int, int], str | None]) -> Handler:
        def handle(arguments: Activate | Deactivate | Destroy) -> Outcome:
            return self._change(arguments.key_id, state, change)

        return handle

    def _change(self, key_id: int, state: KeyState, change: Callable[[int, int], str | None]) -> Outcome:
        before = self._keys.inventory(self._ground)
        try:
            refusal = change(self._ground, key_id)
        except StorageError as error:
            return Outcome(CommandCode.EXECUTION_ERROR, str(error))
        if refusal is not None:
            return Outcome(CommandCode.EXECUTION_ERROR, refusal)
        if self._keys.inventory(self._ground) != before:
            self._note(key_id, state)
        after = dict(self._keys.inventory(self._ground)).get(key_id, KeyState.DESTROYED)
        return Outcome(CommandCode.OK, f"key {key_id} {after.name}")
