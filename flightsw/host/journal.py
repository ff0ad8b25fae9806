"""The journal of a program: what happens goes to standard output, one JSON object a line.

Each has `t_ns` (since T+0), `source`, `kind`, and the fields of the kind; bytes are hexadecimal digits. A reader that
goes away, as a pager does, ends the journal and nothing else.
"""

from collections.abc import Callable
from typing import Any, Final, TextIO

import msgspec

RESERVED: Final = ("t_ns", "source", "kind")
"""Fields that every line has; one of a kind by such a name is written with a final underscore."""


class Journal:
    """Writes lines for one source.

    Args:
        source: the name of the node, or `ground`.
        now_ns: the present instant [ns since T+0].
        stream: where lines go.
    """

    def __init__(self, source: str, now_ns: Callable[[], int], stream: TextIO) -> None:
        self.lost_count = 0
        """Lines that nobody reads."""
        self._source = source
        self._now_ns = now_ns
        self._stream = stream
        self._is_read = True
        self._encoder = msgspec.json.Encoder(enc_hook=str)

    def __call__(self, kind: str, fields: dict[str, object]) -> None:
        """Write what happened now; a `flightsw.ports.Log`."""
        if not self._is_read:
            self.lost_count += 1
            return
        line = {"t_ns": self._now_ns(), "source": self._source, "kind": kind}
        line.update((f"{name}_" if name in RESERVED else name, _plain(value)) for name, value in fields.items())
        try:
            self._stream.write(self._encoder.encode(line).decode() + "\n")
            self._stream.flush()
        except OSError:
            self._is_read = False
            self.lost_count += 1


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    return value
