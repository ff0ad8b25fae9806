"""As much of a node as sequences need, on a disk whose power fails when a test says so."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from flightsw.component import Outcome
from flightsw.core.sequence_commands import SequenceControl
from flightsw.core.sequences import Sequences
from flightsw.dictionary import check_arguments, flight_dictionary
from flightsw.dictionary.model import Dictionary
from flightsw.dictionary.sequence_file import Entry, Header, Kind, encode_sequence
from flightsw.dictionary.sequence_state import decode_dump
from flightsw.errors import StorageError
from flightsw.ports import ResetCause
from flightsw.wire.messages import CommandCode, Mode
from hil.sim.disk import SimulatedDisk
from hil.sim.streams import Streams

S = 1_000_000_000
UTC = 1_795_262_400 * S
DICTIONARY = flight_dictionary()


class PowerLost(BaseException):
    """Ends whatever runs, as a power cut does; no handler for errors catches it."""


class CutDisk(SimulatedDisk):
    """A disk whose power fails before or after the nth operation that changes it; or that takes nothing."""

    def __init__(self, seed: int = 1) -> None:
        super().__init__(1 << 22, Streams(seed).random("disk"))
        self.operations_count = 0
        self.cut_at: int | None = None
        self.is_after = False
        self.is_refusing = False

    def _do(self, operation: Callable[[], None]) -> None:
        if self.is_refusing:
            raise StorageError("the disk takes nothing")
        self.operations_count += 1
        if self.operations_count != self.cut_at:
            operation()
            return
        if self.is_after:
            operation()
        raise PowerLost

    def append(self, name: str, data: bytes) -> None:
        self._do(lambda: super(CutDisk, self).append(name, data))

    def write(self, name: str, data: bytes) -> None:
        self._do(lambda: super(CutDisk, self).write(name, data))

    def sync(self, name: str) -> None:
        self._do(lambda: super(CutDisk, self).sync(name))

    def replace(self, name: str, data: bytes) -> None:
        self._do(lambda: super(CutDisk, self).replace(name, data))

    def remove(self, name: str) -> None:
        self._do(lambda: super(CutDisk, self).remove(name))


@dataclass
class Node:
    """As much of a node as sequences need: a disk, two clocks, a mode, and commands that are noted."""

    disk: CutDisk = field(default_factory=CutDisk)
    now_ns: int = 5 * S
    mission_offset_ns: int = UTC
    is_time_known: bool = True
    mode: Mode = Mode.NOMINAL
    dictionary: Dictionary = DICTIONARY
    ran: list[tuple[int, str, tuple[Any, ...], str]] = field(default_factory=list)
    """(monotonic ns, opcode, arguments, origin)."""
    events: list[tuple[Any, ...]] = field(default_factory=list)
    decisions: list[dict[str, Any]] = field(default_factory=list)
    dumps: list[bytes] = field(default_factory=list)
    failing: set[str] = field(default_factory=set)
    """Opcodes that fail."""

    def boot(self, cause: ResetCause = ResetCause.POWER_ON) -> "Node":
        self.sequences = Sequences(
            self.disk,
            self.dictionary,
            execute=self.execute,
            report=self.report,
            audit=lambda kind, fields: self.decisions.append({"kind": kind, **fields}),
            mode=lambda: self.mode,
            now_ns=lambda: self.now_ns,
            mission_ns=lambda: self.now_ns + self.mission_offset_ns if self.is_time_known else None,
        )
        self.control = SequenceControl(self.sequences, self.dump)
        self.sequences.boot(self.now_ns, cause)
        return self

    def execute(self, opcode: str, arguments: tuple[Any, ...], origin: str) -> Outcome:
        self.ran.append((self.now_ns, opcode, arguments, origin))
        if opcode in self.failing:
            return Outcome(CommandCode.EXECUTION_ERROR, "no")
        if opcode == "MODE.SAFE":
            self.mode = Mode.SAFE
        if opcode.startswith("SEQUENCES."):
            return self.do(opcode.removeprefix("SEQUENCES."), *arguments)
        return Outcome(CommandCode.OK)

    def report(self, key: str, *arguments: Any) -> None:
        spec = DICTIONARY.events[key]
        assert len(arguments) == len(spec.arguments), key
        spec.format.format(**dict(zip((one.name for one in spec.arguments), arguments, strict=True)))
        self.events.append((key.removeprefix("SEQUENCES."), *arguments))

    def dump(self, kind: str, data: bytes) -> int:
        assert kind == "SEQUENCES"
        self.dumps.append(data)
        return len(self.dumps)

    def do(self, name: str, *arguments: Any) -> Outcome:
        assert check_arguments(DICTIONARY.commands[f"SEQUENCES.{name}"], arguments) is None
        return self.control.handlers()[name](arguments)

    def load(self, *entries: tuple[int, tuple[str, tuple[Any, ...]]], **options: Any) -> Outcome:
        return self.do("LOAD", image(*entries, **options))

    def load_and_start(self, *entries: tuple[int, tuple[str, tuple[Any, ...]]], **options: Any) -> None:
        assert self.load(*entries, **options).code is CommandCode.OK
        assert self.do("START", options.get("name", "s")).code is CommandCode.OK

    def run_until(self, end_s: float, tick_s: float = 1.0) -> None:
        while self.now_ns < end_s * S:
            self.now_ns += round(tick_s * S)
            self.sequences.cycle(self.now_ns)

    def ran_at_s(self) -> list[float]:
        return [now_ns / S for now_ns, *_ in self.ran]

    def status(self, name: str = "s") -> list[str]:
        assert self.do("DUMP", name).code is CommandCode.OK
        state, loaded = decode_dump(self.dumps[-1])
        assert loaded.header.name == name
        return [state.status(number).value for number in range(1, loaded.header.entries_count + 1)]

    def names(self) -> list[str]:
        return [event[0] for event in self.events]


def image(*entries: tuple[int, tuple[str, tuple[Any, ...]]], name: str = "s", **options: Any) -> bytes:
    header = {"kind": Kind.RELATIVE, "dictionary_digest": DICTIONARY.digest} | options
    return encode_sequence(Header(name=name, **header), [Entry(time_ns, *command) for time_ns, command in entries])


@pytest.fixture(scope="session")
def make_node() -> Callable[..., Any]:
    return Node


@pytest.fixture(scope="session")
def make_disk() -> Callable[..., Any]:
    return CutDisk


@pytest.fixture(scope="session")
def power_lost() -> type[BaseException]:
    return PowerLost


@pytest.fixture(scope="session", name="image")
def _image() -> Callable[..., bytes]:
    return image
