"""Commands of KEYS: over-the-air rekeying after the SDLS extended procedures (CCSDS 355.1-B-1 §3).

They concern the keys that the node shares with the ground. Each can be repeated without harm, and its answer says what
was done: an answer without detail (a repeat after a reset) proves nothing, and the ground asks again.
"""

from collections.abc import Callable

from flightsw.core.commanding import Handler, Outcome
from flightsw.errors import BundleError, StorageError
from flightsw.net.keys import KeyState, KeyStore
from flightsw.wire.messages import CommandCode

Change = Callable[[int], str | None]


def key_handlers(keys: KeyStore, ground: int, note: Callable[[int, KeyState], None]) -> dict[str, Handler]:
    """Opcode -> function.

    Args:
        keys: of the node.
        ground: whose keys the commands change.
        note: told of each key and the state that a command has brought it to.
    """

    def load(arguments: tuple[object, ...]) -> Outcome:
        key_id, wrapped = arguments
        assert isinstance(key_id, int), "the dictionary checked the arguments"
        assert isinstance(wrapped, bytes), "the dictionary checked the arguments"
        shared = keys.of(ground)
        if shared is None:
            return Outcome(CommandCode.EXECUTION_ERROR, f"no keys are shared with node {ground}")
        # Loaded when first needed: it would take a twentieth of a second of every boot.
        from flightsw.wire.confidentiality import unwrap_key

        try:
            secret = unwrap_key(shared.master, wrapped)
        except BundleError as error:
            return Outcome(CommandCode.VALIDATION_ERROR, str(error))
        return done(key_id, KeyState.PRE_ACTIVATION, lambda number: keys.load(ground, number, secret))

    def done(key_id: int, state: KeyState, change: Change) -> Outcome:
        before = keys.inventory(ground)
        try:
            refusal = change(key_id)
        except StorageError as error:
            return Outcome(CommandCode.EXECUTION_ERROR, str(error))
        if refusal is not None:
            return Outcome(CommandCode.EXECUTION_ERROR, refusal)
        if keys.inventory(ground) != before:
            note(key_id, state)
        after = dict(keys.inventory(ground)).get(key_id, KeyState.DESTROYED)
        return Outcome(CommandCode.OK, f"key {key_id} {after.name}")

    def changing(state: KeyState, change: Callable[[int, int], str | None]) -> Handler:
        def handle(arguments: tuple[object, ...]) -> Outcome:
            key_id = arguments[0]
            assert isinstance(key_id, int), "the dictionary checked the arguments"
            return done(key_id, state, lambda number: change(ground, number))

        return handle

    def verify(arguments: tuple[object, ...]) -> Outcome:
        key_id, challenge = arguments
        assert isinstance(key_id, int), "the dictionary checked the arguments"
        assert isinstance(challenge, bytes), "the dictionary checked the arguments"
        proof = keys.proof(ground, key_id, challenge)
        if proof is None:
            return Outcome(CommandCode.EXECUTION_ERROR, f"key {key_id} is not here")
        return Outcome(CommandCode.OK, proof.hex())

    return {
        "KEYS.LOAD": load,
        "KEYS.ACTIVATE": changing(KeyState.ACTIVE, keys.activate),
        "KEYS.DEACTIVATE": changing(KeyState.DEACTIVATED, keys.deactivate),
        "KEYS.DESTROY": changing(KeyState.DESTROYED, keys.destroy),
        "KEYS.VERIFY": verify,
    }
