"""The ordered trace of a run, and the digest that identifies it.

A trace is a text file of JSON lines:

```text
{"scenario":"eclipse","scenario_digest":"5f0c...","seed":7,...}     header
[1500000000,"sat-03","mode",{"from":"NOMINAL","to":"ECLIPSE"}]      one event: [t_ns, source, kind, {fields}]
{"digest":"c2a4...","events_count":1}                               footer
```

The digest is BLAKE2b-128 over the identity (the header fields of `IDENTITY_FIELDS`, as one line) and the event lines as
they stand in the file. The header may say more, such as the host or the command line; that is not part of the identity.
Events go to the file as they happen: memory stays flat however long the run is.
"""

import hashlib
import math
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from flightsw.errors import ConfigError
from hil.sim.loop import LOOP_VERSION

Event = tuple[int, str, str, dict[str, Any]]
"""(t_ns, source, kind, fields)."""

IDENTITY_FIELDS: Final = ("flatrack", "loop_version", "scenario", "scenario_digest", "seed", "until_ns")
TAIL_EVENTS_MAX: Final = 200  # enough context for a failure report, about 20 kB
DIGEST_BYTES: Final = 16
_BUFFER_BYTES: Final = 1 << 20  # one write to disk for about 10,000 events
_FOOTER_BYTES_MAX: Final = 256


def _python_number(value: Any) -> object:
    """NumPy scalars as Python numbers."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"a trace holds numbers, text, bytes, lists and dicts, not {type(value).__name__}")


# "deterministic" sorts the keys of dicts and the members of sets.
_encode: Final = msgspec.json.Encoder(enc_hook=_python_number, order="deterministic").encode
_decode_event: Final = msgspec.json.Decoder(tuple[int, str, str, dict[str, Any]]).decode
_decode_object: Final = msgspec.json.Decoder(dict[str, Any]).decode


class Trace:
    """Records the events of one run.

    Args:
        path: The file, or None to keep the digest, the counts and the last events only.
        header: What the run is; `loop_version` is added. Fields outside `IDENTITY_FIELDS` do not change the digest.
    """

    def __init__(self, path: Path | None, header: dict[str, Any]) -> None:
        self.header = {"loop_version": LOOP_VERSION, **header}
        self.counts: defaultdict[str, int] = defaultdict(int)
        """Events so far by kind."""
        self.events_count = 0
        self._hash = hashlib.blake2b(_identity(self.header), digest_size=DIGEST_BYTES)
        self._tail: deque[bytes] = deque(maxlen=TAIL_EVENTS_MAX)
        self._observers: list[Callable[[Event], None]] = []
        self._file: BinaryIO | None = None
        if path is not None:
            self._file = path.open("wb", buffering=_BUFFER_BYTES)
            self._file.write(_encode(self.header) + b"\n")

    def record(self, now_ns: int, source: str, kind: str, fields: dict[str, Any]) -> None:
        """Add one event.

        Args:
            now_ns: When [ns since the start of the run].
            source: Who: a node, a link, the ground.
            kind: What, as one word of the trace's vocabulary.
            fields: The facts: numbers, text, bytes (written as hex), lists and dicts of them. Keys are written sorted.
        """
        plain = fields
        for key, value in fields.items():
            value_type = type(value)
            if value_type is not str and value_type is not int and value_type is not bool:
                made_plain = _plain(value)
                if made_plain is not value:
                    if plain is fields:
                        plain = dict(fields)
                    plain[key] = made_plain
        line = _encode((now_ns, source, kind, plain)) + b"\n"
        self._hash.update(line)
        self._tail.append(line)
        self.counts[kind] += 1
        self.events_count += 1
        if self._file is not None:
            self._file.write(line)
        if self._observers:
            event = (now_ns, source, kind, fields)
            for observer in self._observers:
                observer(event)

    def subscribe(self, observer: Callable[[Event], None]) -> Callable[[], None]:
        """Call the observer with each event once it is recorded. Returns what ends that."""
        self._observers = [*self._observers, observer]

        def unsubscribe() -> None:
            self._observers = [other for other in self._observers if other is not observer]

        return unsubscribe

    def tail(self) -> list[Event]:
        """The last events, at most `TAIL_EVENTS_MAX`, oldest first, as a reader of the file would see them."""
        return [_decode_event(line) for line in self._tail]

    @property
    def digest(self) -> str:
        """The identity of the run so far, in hex."""
        return self._hash.hexdigest()

    def close(self) -> str:
        """Write the footer and close the file. Returns the digest."""
        if self._file is not None:
            self._file.write(_encode({"digest": self.digest, "events_count": self.events_count}) + b"\n")
            self._file.close()
            self._file = None
        return self.digest


def read_trace(path: Path) -> tuple[dict[str, Any], Iterator[Event], dict[str, Any]]:
    """Open a trace.

    Args:
        path: A file that `Trace` wrote.

    Returns:
        The header, the events (read one by one, and checked against the footer at the end) and the footer. Bytes come
        back as the hex text that stands in the file.

    Raises:
        ConfigError: The file is missing, truncated or changed; the iterator raises it too, at the line that is wrong.
    """
    try:
        with path.open("rb") as file:
            header = _object(path, "line 1", file.readline(), "the header, a JSON object")
            file.seek(max(0, path.stat().st_size - _FOOTER_BYTES_MAX))
            footer_line = file.read().rpartition(b"\n")[0].rpartition(b"\n")[2] + b"\n"
            if not footer_line.startswith(b'{"digest":') or not file.seek(-1, 2) or file.read() != b"\n":
                raise ConfigError(f"{path}: last line: expected the footer with the digest; the trace is truncated")
    except OSError as error:
        raise ConfigError(f"{path}: expected a trace that can be read: {error.strerror}") from error
    footer = _object(path, "last line", footer_line, "the footer, a JSON object")
    if type(footer.get("digest")) is not str or type(footer.get("events_count")) is not int:
        raise ConfigError(f"{path}: last line: expected digest (text) and events_count (whole number), got {footer}")
    return header, _events(path, header, footer, footer_line), footer


def _events(path: Path, header: dict[str, Any], footer: dict[str, Any], footer_line: bytes) -> Iterator[Event]:
    """The events of a trace; checks their count and digest at the end."""
    rolling = hashlib.blake2b(_identity(header), digest_size=DIGEST_BYTES)
    count = footer["events_count"]
    with path.open("rb") as file:
        file.readline()
        for line_number, line in enumerate(file, start=2):
            if line_number == count + 2 and line == footer_line:
                break
            try:
                event = _decode_event(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise ConfigError(
                    f"{path}: line {line_number}: expected an event [t_ns, source, kind, {{fields}}], got {line[:80]!r}"
                ) from error
            if line_number > count + 1:
                raise ConfigError(f"{path}: line {line_number}: expected the footer after {count} events, got an event")
            rolling.update(line)
            yield event
    if rolling.hexdigest() != footer["digest"]:
        raise ConfigError(
            f"{path}: line {count + 2}: expected digest {rolling.hexdigest()} of the header and events above, "
            f"got {footer['digest']}: the trace was changed"
        )


def _object(path: Path, where: str, line: bytes, expected: str) -> dict[str, Any]:
    try:
        return _decode_object(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {where}: expected {expected}, got {line[:80]!r}") from error


def _identity(header: dict[str, Any]) -> bytes:
    """What two runs must share, besides their events, to be the same run; an absent field counts as null."""
    return _encode({name: header.get(name) for name in IDENTITY_FIELDS}) + b"\n"


def _plain(value: object) -> object:
    """What JSON cannot say, as text: bytes in hex, and the floats that are no numbers by their repr."""
    match value:
        case float():
            return value if math.isfinite(value) else repr(float(value))
        case bytes() | bytearray() | memoryview():
            return value.hex()
        case list() | tuple():
            return [_plain(member) for member in value]
        case dict():
            return {key: _plain(member) for key, member in value.items()}
        case _:
            return value
