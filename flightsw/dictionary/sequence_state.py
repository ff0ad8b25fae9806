"""How far a sequence is: what the node keeps of it on the disk, and sends to the ground when it is asked to dump it."""

from typing import Annotated, Final

import msgspec

from flightsw.dictionary.sequence_file import ENTRIES_MAX, NAME_BYTES_MAX, EntryStatus, SequenceImage
from flightsw.errors import MessageError
from flightsw.wire import cbor

STATUSES: Final = tuple(EntryStatus)
"""A status is one byte: its place here."""
STATUS_CODES: Final = {status: code for code, status in enumerate(STATUSES)}

Number = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class SequenceState(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """The state of one sequence. The newest record of a name counts."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_BYTES_MAX)]
    checksum: Number
    """Of the image that it is about."""
    statuses: Annotated[bytes, msgspec.Meta(max_length=ENTRIES_MAX)]
    """One byte for each entry."""
    is_enabled: bool = True
    is_running: bool = False
    next_entry: Number = 1
    """Number of the entry that runs next, from 1."""
    rest_ns: Number = 0
    """What was left of the delay before it when this was written [ns]; relative sequences only."""
    depth: Number = 0
    """How many sequences started each other to start this one."""
    runs_count: Number = 0
    is_loaded: bool = True

    def status(self, number: int) -> EntryStatus:
        """Of an entry, from 1."""
        return STATUSES[self.statuses[number - 1]]

    def set_status(self, first: int, last: int, status: EntryStatus) -> None:
        """Of the entries first to last, from 1."""
        code = bytes((STATUS_CODES[status],))
        self.statuses = self.statuses[: first - 1] + code * (last - first + 1) + self.statuses[last:]

    def count(self, *statuses: EntryStatus) -> int:
        """Entries with one of these statuses."""
        return sum(self.statuses.count(STATUS_CODES[status]) for status in statuses)

    @property
    def word(self) -> str:
        """The state in one word."""
        if self.is_running:
            return "RUNNING"
        return "LOADED" if self.is_enabled else "DISABLED"


def fresh_state(image: SequenceImage) -> SequenceState:
    """Of a sequence that was loaded just now."""
    return SequenceState(image.header.name, image.checksum, bytes(image.header.entries_count))


def encode_state(state: SequenceState) -> bytes:
    """The state as CBOR."""
    return cbor.dumps(msgspec.to_builtins(state, builtin_types=(bytes,)))


def decode_state(data: bytes) -> SequenceState:
    """The state in a record.

    Raises:
        MessageError: it is none.
    """
    return _state(cbor.loads(data))


def encode_dump(state: SequenceState, image: bytes) -> bytes:
    """A sequence and its state, as `SEQUENCES.DUMP` sends them."""
    return cbor.dumps([msgspec.to_builtins(state, builtin_types=(bytes,)), image])


def decode_dump(data: bytes) -> tuple[SequenceState, SequenceImage]:
    """What `SEQUENCES.DUMP` sent.

    Raises:
        MessageError: it is none, or state and sequence do not belong together.
    """
    match cbor.loads(data):
        case [list() as fields, bytes() as image_bytes]:
            state, image = _state(fields), SequenceImage(image_bytes)
        case _:
            raise MessageError("dump of a sequence: expected [state, image]")
    if (state.name, state.checksum) != (image.header.name, image.checksum):
        raise MessageError(f"dump of a sequence: state of {state.name!r}, image of {image.header.name!r}")
    if len(state.statuses) != image.header.entries_count:
        raise MessageError(f"dump of a sequence: {len(state.statuses)} statuses, expected {image.header.entries_count}")
    return state, image


def _state(fields: object) -> SequenceState:
    try:
        state = msgspec.convert(fields, SequenceState, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise MessageError(f"state of a sequence: {error}") from None
    if state.statuses and max(state.statuses) >= len(STATUSES):
        raise MessageError(f"state of a sequence: status {max(state.statuses)}, expected 0 to {len(STATUSES) - 1}")
    if not 1 <= state.next_entry <= len(state.statuses) + 1:
        raise MessageError(f"state of a sequence: next_entry is {state.next_entry} of {len(state.statuses)}")
    return state
