"""States and steps of a software update, its settings, and what it keeps on disk."""

from enum import StrEnum, unique
from typing import Final, NamedTuple

import msgspec

from flightsw.errors import MessageError, StorageError
from flightsw.wire import cbor

RECORD_BYTES_MAX: Final = 4096
"""Longest record on disk [bytes]: a signed manifest and a sentence, twice over."""
REASON_CHARACTERS_MAX: Final = 256
"""Longest reason that is kept [characters]: it fits an event and an answer."""


@unique
class UpdateState(StrEnum):
    """Where an update stands."""

    IDLE = "IDLE"
    RECEIVING = "RECEIVING"
    VERIFIED = "VERIFIED"
    STAGED = "STAGED"
    TRIAL = "TRIAL"
    COMMITTED = "COMMITTED"
    ROLLED_BACK = "ROLLED_BACK"


@unique
class Step(StrEnum):
    """What moves an update on."""

    ACCEPT = "manifest accepted"
    VERIFY = "image verified"
    LOSE = "image lost"
    INSTALL = "image installed"
    TRY = "trial"
    COMMIT = "commit"
    ROLL_BACK = "roll back"
    GIVE_UP = "give up"


_S, _T = UpdateState, Step
TRANSITIONS: Final[dict[tuple[UpdateState, Step], UpdateState]] = {
    (_S.IDLE, _T.ACCEPT): _S.RECEIVING,
    (_S.COMMITTED, _T.ACCEPT): _S.RECEIVING,
    (_S.ROLLED_BACK, _T.ACCEPT): _S.RECEIVING,
    (_S.RECEIVING, _T.VERIFY): _S.VERIFIED,
    (_S.VERIFIED, _T.LOSE): _S.RECEIVING,
    (_S.VERIFIED, _T.INSTALL): _S.STAGED,
    (_S.RECEIVING, _T.GIVE_UP): _S.IDLE,
    (_S.VERIFIED, _T.GIVE_UP): _S.IDLE,
    (_S.STAGED, _T.GIVE_UP): _S.IDLE,
    (_S.STAGED, _T.TRY): _S.TRIAL,
    (_S.TRIAL, _T.COMMIT): _S.COMMITTED,
    (_S.TRIAL, _T.ROLL_BACK): _S.ROLLED_BACK,
    (_S.COMMITTED, _T.ROLL_BACK): _S.ROLLED_BACK,
}
"""All steps there are."""

UNDER_WAY: Final = (_S.RECEIVING, _S.VERIFIED, _S.STAGED)
"""States before a trial."""


class UpdateSettings(NamedTuple):
    """Parameters of UPDATE."""

    auto_commit: bool = True
    stable_s: int = 120
    window_s: int = 7200
    trial_boots: int = 2


class UpdateRecord(msgspec.Struct, frozen=True, array_like=True):
    """On disk."""

    state: UpdateState = UpdateState.IDLE
    manifest: bytes = b""
    """The last that was accepted, signed; empty before the first."""
    reason: str = ""

    def encode(self) -> bytes:
        """As it lies on the disk."""
        return cbor.dumps(msgspec.to_builtins(self, builtin_types=(bytes,)), RECORD_BYTES_MAX)


def decode_record(data: bytes) -> UpdateRecord:
    """What lies on the disk.

    Raises:
        StorageError: it passed its CRC, but is no record.
    """
    try:
        return msgspec.convert(cbor.loads(data, RECORD_BYTES_MAX), UpdateRecord, builtin_types=(bytes,))
    except (MessageError, msgspec.ValidationError) as error:
        raise StorageError(f"record of the update: {error}") from None
