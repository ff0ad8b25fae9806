"""Sessions: inputs for whatever keeps state between one message and the next, as steps of a kind and some content."""

import struct
from collections.abc import Iterator
from typing import Final

STEPS_MAX: Final = 64
"""Steps of a session that are taken: enough to open, misuse and close a session of each kind."""
STEP: Final = struct.Struct(">BH")
"""Kind and length of a step; the content follows."""


def session(steps: list[tuple[int, bytes]]) -> bytes:
    """The bytes of a session."""
    return b"".join([STEP.pack(kind, len(content)) + content for kind, content in steps])


def steps_of(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The steps of a session; a last one that is cut short is taken as it is."""
    at = 0
    for _ in range(STEPS_MAX):
        if at + STEP.size > len(data):
            return
        kind, length = STEP.unpack_from(data, at)
        at += STEP.size
        yield kind, data[at : at + length]
        at += length
