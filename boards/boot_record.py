"""The boot record: which slot boots next. What the launcher and the slots of a running node have in common.

It imports the standard library alone, because the launcher, which can not be updated, does too.

| slot | holds |
|---|---|
| F | the factory image: what the launcher itself was installed with; never overwritten |
| A, B | images that were installed in flight |

The record lies in two files, each a line of CRC-32 and one of JSON, replaced one after the other: at any power cut one
of them is whole, and the one with the higher revision counts. When neither holds, F boots. A boot on trial is paid for
before it begins: its count is down, durably, before anything of the slot runs. So a slot that crashes, hangs or loses
power falls back by itself when its boots are used up.
"""

import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Final

FACTORY: Final = "F"
SLOTS: Final = ("A", "B")
NAMES: Final = ("record", "record.copy")
"""The two files of the record."""
RECORD_BYTES_MAX: Final = 8192
"""Longest file [bytes]: ten times the longest that is written; more is damage."""
REASON_CHARACTERS_MAX: Final = 256
"""Longest reason that is kept: a sentence."""


@dataclass(frozen=True)
class Content:
    """What a slot holds."""

    version: str
    image: str
    """Name of the image among the objects, in hexadecimal digits."""
    sha256: str
    """Of the image file, in hexadecimal digits: the launcher knows no other digest."""
    size_bytes: int


@dataclass(frozen=True)
class BootRecord:
    """Which slot boots, and why."""

    revision: int = 0
    committed: str = FACTORY
    """Boots when nothing is on trial."""
    previous: str = FACTORY
    """Was committed before; what a rollback of a committed slot goes back to."""
    running: str = FACTORY
    """Slot of the present boot."""
    trial: str = ""
    """Slot on trial; empty when none is."""
    boots_left: int = 0
    """Boots that the trial still has."""
    boots_count: int = 0
    """Boots that it was given."""
    fallback: str = ""
    """Why the last trial, or the last committed slot, was left; empty after a commit."""
    contents: Mapping[str, Content] = field(default_factory=dict)
    """Slot -> what it holds; a slot that is not here is empty."""

    @property
    def is_trial(self) -> bool:
        """Whether the present boot is a trial."""
        return bool(self.trial) and self.running == self.trial

    @property
    def spare(self) -> str:
        """The slot that may be overwritten: neither committed nor running; empty when both are in use."""
        return next((slot for slot in SLOTS if slot not in (self.committed, self.running)), "")


def chosen(record: BootRecord, holds: Callable[[str], bool]) -> BootRecord:
    """The record as it must be on the disk before the slot in `running` boots.

    Args:
        record: as it is.
        holds: whether the image of a slot is whole; never asked about F.
    """
    if record.trial:
        if record.boots_left > 0 and _holds(record, record.trial, holds):
            return replace(record, running=record.trial, boots_left=record.boots_left - 1)
        why = (
            f"the image in slot {record.trial} does not hold"
            if record.boots_left > 0
            else f"{record.boots_count} boots of slot {record.trial} without a commit"
        )
        record = fallen_back(record, why)
    if not _holds(record, record.committed, holds):
        lost = record.committed
        kept = record.previous if _holds(record, record.previous, holds) else FACTORY
        record = replace(record, committed=kept, previous=FACTORY, fallback=f"the image in slot {lost} does not hold")
    return replace(record, running=record.committed)


def unpaid(record: BootRecord) -> BootRecord:
    """What boots when the record cannot be written: never a trial, which would not be counted down."""
    return replace(record, trial="", boots_left=0, boots_count=0, running=record.committed)


def installed(record: BootRecord, slot: str, content: Content | None) -> BootRecord:
    """With another content of the spare slot; None empties it."""
    assert slot in SLOTS, "the factory image is never overwritten"
    assert slot == record.spare, "only the spare slot is written"
    contents = {name: one for name, one in record.contents.items() if name != slot}
    if content is not None:
        contents[slot] = content
    # what a rollback would have gone back to is gone
    previous = FACTORY if record.previous == slot else record.previous
    return replace(record, contents=contents, previous=previous)


def on_trial(record: BootRecord, slot: str, boots_count: int) -> BootRecord:
    """The next boots, this many at most, are of this slot."""
    assert slot in record.contents, "a slot on trial is not empty"
    assert slot != record.committed, "the committed slot needs no trial"
    return replace(record, trial=slot, boots_left=boots_count, boots_count=boots_count, fallback="")


def committed(record: BootRecord) -> BootRecord:
    """The slot that is on trial is kept."""
    assert record.is_trial, "only a running trial can be kept"
    return replace(
        record, committed=record.trial, previous=record.committed, trial="", boots_left=0, boots_count=0, fallback=""
    )


def fallen_back(record: BootRecord, why: str) -> BootRecord:
    """The trial is over; without one, the slot before the committed one is committed again."""
    why = why[:REASON_CHARACTERS_MAX]
    if record.trial:
        return replace(record, trial="", boots_left=0, boots_count=0, fallback=why)
    return replace(record, committed=record.previous, previous=FACTORY, fallback=why)


def encode(record: BootRecord) -> bytes:
    """The content of one file."""
    body = json.dumps(asdict(record), sort_keys=True, separators=(",", ":")).encode()
    return b"%08x\n%s\n" % (zlib.crc32(body), body)


def decode(data: bytes) -> BootRecord | None:
    """The record in a file, or None when it does not hold."""
    crc, _, body = data[:RECORD_BYTES_MAX].partition(b"\n")
    body = body.removesuffix(b"\n")
    try:
        if len(data) > RECORD_BYTES_MAX or int(crc, 16) != zlib.crc32(body):
            return None
        fields = json.loads(body)
        contents = {slot: Content(**content) for slot, content in fields.pop("contents").items()}
        record = BootRecord(**fields, contents=contents)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):  # damage that passed the CRC
        return None
    return record if _is_sound(record) else None


def load(read: Callable[[str], bytes | None]) -> tuple[BootRecord, bool]:
    """The record that counts, and whether the two files should be written again.

    Args:
        read: the content of a file; None when it is not there or cannot be read.
    """
    found = [read(name) for name in NAMES]
    records = [None if data is None else decode(data) for data in found]
    whole = [record for record in records if record is not None]
    if not whole:
        is_damaged = any(data is not None for data in found)
        return BootRecord(fallback="both boot records were damaged" if is_damaged else ""), is_damaged
    best = max(whole, key=lambda record: record.revision)
    return best, found[0] != found[1]


def store(record: BootRecord, write: Callable[[str, bytes], None]) -> BootRecord:
    """Write both files, each durable before the next; returns the record as it stands.

    Args:
        record: what to write.
        write: replaces a file, atomically and durably.
    """
    record = replace(record, revision=record.revision + 1)
    data = encode(record)
    for name in NAMES:
        write(name, data)
    return record


def _holds(record: BootRecord, slot: str, holds: Callable[[str], bool]) -> bool:
    return slot == FACTORY or (slot in record.contents and holds(slot))


def _is_sound(record: BootRecord) -> bool:
    """Whether every field has a value that is written by this module."""
    known = (FACTORY, *SLOTS)
    numbers = (record.revision, record.boots_left, record.boots_count)
    contents = record.contents.values()
    return (
        all(slot in known for slot in (record.committed, record.previous, record.running))
        and record.trial in ("", *SLOTS)
        and all(type(number) is int and 0 <= number < 1 << 63 for number in numbers)
        and type(record.fallback) is str
        and all(slot in SLOTS for slot in record.contents)
        and all(type(text) is str for one in contents for text in (one.version, one.image, one.sha256))
        and all(type(one.size_bytes) is int and one.size_bytes >= 0 for one in contents)
    )
