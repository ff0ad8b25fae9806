"""Decoders of sequences: the compiled image, its dump, its source, and a boot that finds one on the disk."""

from functools import cache
from typing import Any, Final

from flightsw.component import OK, Outcome
from flightsw.core.sequences import Sequences
from flightsw.dictionary import flight_dictionary
from flightsw.dictionary.sequence_file import (
    MAGIC,
    AutoStart,
    Entry,
    Header,
    Kind,
    SequenceImage,
    encode_sequence,
    objection,
    sealed_record,
)
from flightsw.dictionary.sequence_state import decode_dump, decode_state, encode_dump, encode_state, fresh_state
from flightsw.errors import ConfigError, MessageError
from flightsw.ports import Random, ResetCause
from flightsw.storage.copies import TwoCopies
from flightsw.storage.state_log import StateLog
from flightsw.wire.messages import Mode
from ground.sequence_text import decompile
from ground.sequences import compile_source
from hil.fuzz.cbor_samples import written, wrong
from hil.fuzz.decoders import Decoder
from hil.fuzz.mutation import EDGES, mutated
from hil.sim.disk import SimulatedDisk
from hil.sim.streams import Streams

S: Final = 1_000_000_000
CYCLES: Final = 8
COMMANDS: Final = (
    ("NODE.NOOP", ()),
    ("MODE.SAFE", ()),
    ("SEQUENCES.START", ("s",)),
    ("SEQUENCES.STOP", ("s",)),
    ("TIME.STEP", (1000, 0)),
)
SOURCE: Final = """\"\"\"A note.\"\"\"
sequence("s", kind="relative", safe=True)
JOB = 17 * 2 - 1
for n in range(3):
    SEQUENCES.START(sequence="other")
    wait(seconds=30.5)
TIME.STEP(offset_ns=-JOB, correlation=0)
if_fails("continue")
"""


def _image_sample(random: Random) -> bytes:
    """An image whose checksums hold, often around a field that cannot be."""
    kind = random.choice(list(Kind))
    entries: list[list[Any]] = []
    time_ns = 1
    for _ in range(random.choice((1, 1, 2, 3, 40))):
        time_ns += random.choice((0, 1, S, 60 * S))
        opcode, arguments = random.choice(COMMANDS)
        entries.append([time_ns if kind is Kind.ABSOLUTE else random.choice((0, S)), opcode, list(arguments)])
    header: list[Any] = [
        "s",
        str(kind),
        flight_dictionary().digest,
        random.random() < 0.5,
        random.random() < 0.5,
        str(random.choice(list(AutoStart))),
        random.choice((0, 60, 86_400)),
        len(entries),
    ]
    if random.random() < 0.3:
        header = wrong(random, header)
    elif random.random() < 0.4:
        at = random.randrange(len(entries))
        entries[at] = wrong(random, entries[at])
    faults = random.choice((0.0, 0.0, 0.02))
    first = sealed_record(written(random, header, faults)[:16_000], 0, 0)
    header_crc = int.from_bytes(first[2:6], "big")
    rest = [sealed_record(written(random, one, faults)[:16_000], at, header_crc) for at, one in enumerate(entries, 1)]
    return MAGIC + first + b"".join(rest)


def _image(data: bytes) -> None:
    image = SequenceImage(data)
    entries = image.entries()
    anew = encode_sequence(image.header, entries)
    again = SequenceImage(anew)
    assert again.header == image.header
    assert encode_sequence(again.header, again.entries()) == anew  # as bytes: NaN is not equal to itself
    if objection(image, flight_dictionary()) is None:
        compiled = SequenceImage(compile_source(decompile(image), "again", flight_dictionary()))
        assert compiled.entries() == entries, "the text says the same"


def _dump_sample(random: Random) -> bytes:
    image = _sound_image()
    state = fresh_state(image)
    state.next_entry = random.choice((1, 2, 3, 4, 5, random.choice(EDGES)))
    state.statuses = random.choice((bytes(3), bytes((1, 2, 3)), bytes((5, 5, 6)), b""))
    if random.random() < 0.2:
        return encode_state(state)
    return encode_dump(state, image.image)


def _dump(data: bytes) -> None:
    state, image = decode_dump(data)
    assert decode_state(encode_state(state)) == state
    assert decode_dump(encode_dump(state, image.image))[0] == state


def _source_sample(random: Random) -> bytes:
    text = SOURCE.encode()
    return text if random.random() < 0.3 else mutated(random, text, text)


def _source(data: bytes) -> None:
    image = SequenceImage(compile_source(data.decode("latin-1"), "fuzz", flight_dictionary()))
    assert objection(image, flight_dictionary()) is None


def _boot(data: bytes) -> None:
    """What a disk holds as an image and as a state must not keep a node from booting and cycling."""
    disk = SimulatedDisk(1 << 22, Streams(1).random("disk"))
    TwoCopies(disk, "sequences/s").store(data)
    log = StateLog(disk, "sequences")
    log.append(data)
    try:
        state = fresh_state(SequenceImage(data))
        state.is_running = True
        log.append(encode_state(state))
    except MessageError:
        log.append(b"")
    log.sync()
    now_ns = 0
    sequences: Sequences

    def execute(opcode: str, arguments: tuple[Any, ...], _: str) -> Outcome:
        match opcode, arguments:
            case "SEQUENCES.START", [str() as name]:
                return sequences.start(name)
            case "SEQUENCES.STOP", [str() as name]:
                return sequences.stop(name)
        return OK

    sequences = Sequences(
        disk,
        flight_dictionary(),
        execute=execute,
        report=lambda key, *arguments: None,
        audit=lambda kind, fields: None,
        mode=lambda: Mode.NOMINAL,
        now_ns=lambda: now_ns,
        mission_ns=lambda: now_ns + 1,
    )
    sequences.boot(now_ns, ResetCause.POWER_ON)
    for _ in range(CYCLES):
        now_ns += 10 * S
        sequences.cycle(now_ns)
    assert all(one.state.next_entry <= len(one.state.statuses) + 1 for one in sequences.loaded.values())


@cache
def _sound_image() -> SequenceImage:
    header = Header("s", Kind.RELATIVE, flight_dictionary().digest)
    return SequenceImage(encode_sequence(header, [Entry(S, opcode, arguments) for opcode, arguments in COMMANDS[:3]]))


def sequences() -> list[Decoder]:
    """Decoders of what a sequence travels and lies in."""
    return [
        Decoder("sequence-image", (MessageError,), _image_sample, _image, 5.0),
        Decoder("sequence-dump", (MessageError,), _dump_sample, _dump, 3.0),
        Decoder("sequence-source", (ConfigError,), _source_sample, _source, 15.0),
        Decoder("sequence-boot", (), _image_sample, _boot, 30.0),
    ]
