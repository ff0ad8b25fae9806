"""Compiled sequences: commands with their times, each under a checksum of its own. Shared by flight and ground.

```text
image  = "FSQ1" header entry*
header = record 0: [name, kind, dictionary digest, stops on failure, runs in safe, auto start, late_max_s, entries]
entry  = record n: [time_ns, opcode, [argument, ...]]          n from 1
record = length of data (2 bytes) | CRC-32C (4 bytes) | data as CBOR         big-endian
```

The CRC covers the length, the number of the record, the CRC of the header (0 for the header itself) and the data. So an
entry that was changed, moved, or taken from another sequence does not hold. Layout: ours.

A relative entry's time is its delay after the entry before it (the first one's: after the start); an absolute entry's
is mission time [ns since 1970-01-01T00:00:00Z], never less than that of the entry before.
"""

import re
import struct
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import Annotated, Any, Final

import msgspec

from flightsw.dictionary.model import Dictionary
from flightsw.dictionary.values import check_arguments
from flightsw.errors import MessageError
from flightsw.wire import cbor
from flightsw.wire.crc import crc32c

MAGIC: Final = b"FSQ1"

IMAGE_BYTES_MAX: Final = 16_384
"""Longest compiled sequence [bytes]: what one argument of a command carries."""
ENTRIES_MAX: Final = 512
"""Most entries: their statuses, a byte each, fit one record of the on-board log, and 16 KiB hold about as many."""
NAME_BYTES_MAX: Final = 32
"""Longest name [bytes]: a file name on board, and a word in every event."""
DELAY_NS_MAX: Final = 30 * 86_400 * 1_000_000_000
"""Longest delay of a relative entry [ns]: 30 days; what is to happen later is a matter of mission time."""
UTC_NS_MAX: Final = (1 << 63) - 1
"""Latest mission time [ns since 1970]: what a signed number of 64 bits holds, in the year 2262."""
LATE_S_MAX: Final = 86_400
"""Latest that an absolute entry may be allowed to run [s]: a day later it is another plan's business."""
LATE_S: Final = 60
"""The same when the source says nothing [s]: six cycles of the slowest rate group."""

NAME: Final = re.compile(rf"[a-z0-9][a-z0-9-]{{0,{NAME_BYTES_MAX - 1}}}")
_HEAD: Final = struct.Struct(">HI")
_COVER: Final = struct.Struct(">HHI")


@unique
class Kind(StrEnum):
    """What the times of a sequence count."""

    ABSOLUTE = "absolute"
    """Mission time (cFS: ATS)."""
    RELATIVE = "relative"
    """Monotonic time since the entry before (cFS: RTS)."""


@unique
class AutoStart(StrEnum):
    """At which boots a sequence starts by itself (cFS: RTS_ID_AUTO_POWER_ON, RTS_ID_AUTO_PROCESSOR)."""

    NEVER = "never"
    AFTER_POWER_ON = "after_power_on"
    """After the power was off: POWER_ON, POWER_CYCLE, BROWN_OUT."""
    AFTER_RESET = "after_reset"
    """After a reset with power on: RESET_COMMAND, WATCHDOG, EXCEPTION."""
    ALWAYS = "always"


@unique
class EntryStatus(StrEnum):
    """What became of an entry; the first four are cFS's words."""

    LOADED = "LOADED"
    EXECUTED = "EXECUTED"
    FAILED_CHECKSUM = "FAILED_CHECKSUM"
    FAILED_DISTRIBUTION = "FAILED_DISTRIBUTION"
    """The command was refused, or failed."""
    SKIPPED = "SKIPPED"
    """Mission time was past it by more than the sequence allows."""
    INTERRUPTED = "INTERRUPTED"
    """A reset came while it ran; whether it took effect is not known."""


class Header(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a sequence is, but for its entries."""

    name: str
    kind: Kind
    dictionary_digest: Annotated[bytes, msgspec.Meta(min_length=8, max_length=8)]
    """Of the dictionary that it was checked against."""
    stops_on_failure: bool = True
    """Whether an entry that fails ends the sequence; otherwise the next one runs."""
    runs_in_safe: bool = False
    """Whether it starts, and goes on, in SAFE."""
    auto_start: AutoStart = AutoStart.NEVER
    late_max_s: Annotated[int, msgspec.Meta(ge=0, le=LATE_S_MAX)] = LATE_S
    """How late an absolute entry may run [s]; a later one is skipped."""
    entries_count: Annotated[int, msgspec.Meta(ge=1, le=ENTRIES_MAX)] = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One command of a sequence."""

    time_ns: int
    """Delay or mission time [ns]."""
    opcode: str
    """COMPONENT.NAME."""
    arguments: tuple[Any, ...]


class SequenceImage:
    """A compiled sequence: its bytes, and where the entries are in them.

    Entries are read from the bytes when they are asked for, so that what is executed is what was checked.

    Args:
        image: as `encode_sequence` made it.

    Raises:
        MessageError: it is none, or an entry does not hold; names the entry.
    """

    __slots__ = ("_header_crc", "_starts", "header", "image")

    def __init__(self, image: bytes) -> None:
        if len(image) > IMAGE_BYTES_MAX:
            raise MessageError(f"sequence of {len(image)} bytes, at most {IMAGE_BYTES_MAX}")
        if not image.startswith(MAGIC):
            raise MessageError(f"sequence begins with {image[:4].hex() or 'nothing'}, expected {MAGIC.decode()}")
        self.image = image
        self._header_crc = 0
        data, at = _record(image, len(MAGIC), 0, 0)
        self.header = _header(data)
        (_, self._header_crc) = _HEAD.unpack_from(image, len(MAGIC))
        self._starts: list[int] = []
        before_ns = 0
        for number in range(1, self.header.entries_count + 1):
            self._starts.append(at)
            entry = self.entry(number)
            if self.header.kind is Kind.ABSOLUTE and entry.time_ns < before_ns:
                raise MessageError(f"entry {number}: time_ns is {entry.time_ns}, expected at least {before_ns}")
            before_ns = entry.time_ns
            at += _HEAD.size + _HEAD.unpack_from(image, at)[0]
        if at != len(image):
            raise MessageError(f"{len(image) - at} bytes after entry {self.header.entries_count}, expected none")

    def entry(self, number: int) -> Entry:
        """An entry, from 1, checked by its CRC now.

        Raises:
            MessageError: it does not hold; names the entry.
        """
        data, _ = _record(self.image, self._starts[number - 1], number, self._header_crc)
        return _entry(data, number, self.header.kind)

    def entries(self) -> list[Entry]:
        """All entries. Raises: MessageError."""
        return [self.entry(number) for number in range(1, self.header.entries_count + 1)]

    @property
    def checksum(self) -> int:
        """CRC-32C of the whole image: what tells two images of one name apart."""
        return crc32c(self.image)


def encode_sequence(header: Header, entries: list[Entry]) -> bytes:
    """The compiled sequence; the header's count is set.

    Raises:
        MessageError: it would be too long, or is not one that `SequenceImage` takes.
    """
    if not 1 <= len(entries) <= ENTRIES_MAX:
        raise MessageError(f"sequence of {len(entries)} entries, expected 1 to {ENTRIES_MAX}")
    fields = msgspec.to_builtins(msgspec.structs.replace(header, entries_count=len(entries)), builtin_types=(bytes,))
    first = sealed_record(cbor.dumps(fields), 0, 0)
    (_, header_crc) = _HEAD.unpack_from(first)
    parts = [MAGIC, first]
    for number, entry in enumerate(entries, start=1):
        data = cbor.dumps([entry.time_ns, entry.opcode, list(entry.arguments)])
        parts.append(sealed_record(data, number, header_crc))
    image = b"".join(parts)
    SequenceImage(image)
    return image


def objection(sequence: SequenceImage, dictionary: Dictionary) -> str | None:
    """Why a node with this dictionary cannot run a sequence, with the number of the entry; None when it can."""
    if sequence.header.dictionary_digest != dictionary.digest:
        return f"compiled with dictionary {sequence.header.dictionary_digest.hex()}, expected {dictionary.digest.hex()}"
    for number, entry in enumerate(sequence.entries(), start=1):
        spec = dictionary.commands.get(entry.opcode)
        wrong = f"{entry.opcode} is not in the dictionary" if spec is None else check_arguments(spec, entry.arguments)
        if wrong is not None:
            return f"entry {number}: {wrong}"
    return None


def sealed_record(data: bytes, number: int, header_crc: int) -> bytes:
    """One record, the header (0) or an entry. Raises: MessageError when it is too long."""
    if len(data) > IMAGE_BYTES_MAX:
        raise MessageError(f"entry {number}: {len(data)} bytes, at most {IMAGE_BYTES_MAX}")
    return _HEAD.pack(len(data), _crc(data, number, header_crc)) + data


def _crc(data: bytes, number: int, header_crc: int) -> int:
    return crc32c(_COVER.pack(len(data), number, header_crc) + data)


def _record(image: bytes, at: int, number: int, header_crc: int) -> tuple[bytes, int]:
    """The data of a record whose CRC holds, and where the next one starts."""
    what = f"entry {number}" if number else "header"
    if at + _HEAD.size > len(image):
        raise MessageError(f"{what}: the sequence ends at byte {len(image)}, before it")
    length, crc = _HEAD.unpack_from(image, at)
    start = at + _HEAD.size
    data = image[start : start + length]
    if len(data) < length:
        raise MessageError(f"{what}: {length} bytes are announced, {len(data)} are there")
    if _crc(data, number, header_crc) != crc:
        raise MessageError(f"{what}: checksum does not hold")
    return data, start + length


def _header(data: bytes) -> Header:
    try:
        header = msgspec.convert(cbor.loads(data), Header, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise MessageError(f"header: {error}") from None
    if not NAME.fullmatch(header.name):
        raise MessageError(f"header: name is {header.name[:64]!r}, expected {NAME_RULE}")
    return header


NAME_RULE: Final = f"1 to {NAME_BYTES_MAX} small letters, digits and hyphens, no hyphen first"


def _entry(data: bytes, number: int, kind: Kind) -> Entry:
    value = cbor.loads(data)
    match value:
        case [int() as time_ns, str() as opcode, list() as arguments] if not isinstance(time_ns, bool):
            least_ns, most_ns = (0, DELAY_NS_MAX) if kind is Kind.RELATIVE else (1, UTC_NS_MAX)
            if not least_ns <= time_ns <= most_ns:
                raise MessageError(f"entry {number}: time_ns is {time_ns}, expected {least_ns} to {most_ns}")
            return Entry(time_ns, opcode, tuple(arguments))
    raise MessageError(f"entry {number}: expected [time_ns, opcode, [argument, ...]]")
