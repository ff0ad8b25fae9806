"""Sessions: inputs for whatever keeps state between one message and the next, as steps of a kind and some content."""

import struct
from collections.abc import Iterator
from typing import Final

STEPS_MAX: Final = 64
"""Steps of a session that are taken: enough to open, misuse and close a session of each kind."""
STEP: Final = struct.Struct(">BH")
"""Kind and length of a step; the content follows."""
CONTENT_BYTES_MAX: Final = 65_535
"""Content of a step [bytes]: what its length field can say. Longer messages are cut, which is hostile too."""


def session(steps: list[tuple[int, bytes]]) -> bytes:
    """The bytes of a session."""
    cut = [(kind, content[:CONTENT_BYTES_MAX]) for kind, content in steps]
    return b"".join([STEP.pack(kind, len(content)) + content for kind, content in cut])


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
