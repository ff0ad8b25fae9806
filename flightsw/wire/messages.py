"""The messages of flight and ground: CBOR arrays [type, field, ...] in bundle payloads.

A message is a frozen struct; the first array element is its type number. `encode_message` and `decode_message` are
exact inverses; a wrong shape, type or range is a `MessageError` that names the field. New fields are added at the end
with a default, so that an older peer's shorter arrays still decode.

| service (ipn service number) | carries |
|---|---|
| 1 COMMAND | Command to a node; Verification back |
| 2 TELEMETRY | Beacon, Packets, TimeReply; TimeQuery to a node |
| 3 EVENT | Event |
| 4 OBJECT | Chunk, ObjectQuery, ObjectStatus, ObjectWant |
| 5 JOB | JobReport to the ground, JobReportAck back |
| 6 DATA | Dump, Playback; PlaybackAck back |
"""

from enum import IntEnum, unique
from typing import Annotated, Any, Final, get_args

import msgspec

from flightsw.errors import MessageError
from flightsw.wire import cbor

COUNT_MAX: Final = 2**63 - 1
"""Largest count: what SQLite keeps in an integer."""
Count = Annotated[int, msgspec.Meta(ge=0, le=COUNT_MAX)]
Node = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
Digest = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Text = Annotated[str, msgspec.Meta(max_length=512)]
Argument = int | float | str | bytes | bool

SERVICE_COMMAND: Final = 1
SERVICE_TELEMETRY: Final = 2
SERVICE_EVENT: Final = 3
SERVICE_OBJECT: Final = 4
SERVICE_JOB: Final = 5
SERVICE_DATA: Final = 6

CHUNK_BYTES: Final = 16_384
"""Data in one chunk [bytes]: one LTP block of 17 radio segments of 1 kB, so that a lost pass costs little."""

DUMP_PARTS_MAX: Final = 256
"""Parts of one dump: 4 MiB in a sixteenth of a neighbour's queue; what is longer travels as an object."""

RECORDS_MAX: Final = 1024
"""Records in one segment of the recorder: 16 bytes each would fill a chunk, and none is as short."""

PROOF_BYTES_MAX: Final = 512
"""Longest proof of a chunk [bytes]: 16 digests of 32 bytes, for one of the 65,536 chunks of the largest object."""

STEP_MPIX_MAX: Final = 1e9
"""Most work in one step [Mpixel]: 16 years on the slowest board. Infinity would end the budget's arithmetic."""


@unique
class Mode(IntEnum):
    """Modes of a node (DESIGN §5)."""

    BOOT = 0
    NOMINAL = 1
    ECLIPSE = 2
    LOW_POWER = 3
    SAFE = 4
    MAINTENANCE = 5


@unique
class Severity(IntEnum):
    """F Prime's seven event severities (`Fw/Log/Log.fpp`)."""

    FATAL = 1
    WARNING_HI = 2
    WARNING_LO = 3
    COMMAND = 4
    ACTIVITY_HI = 5
    ACTIVITY_LO = 6
    DIAGNOSTIC = 7


@unique
class Stage(IntEnum):
    """Stages of the command verification chain. The first three are said by the ground, the others by the node."""

    QUEUED = 0
    RELEASED = 1
    SENT = 2
    ACCEPTED = 3
    STARTED = 4
    PROGRESS = 5
    COMPLETED = 6
    FAILED = 7


@unique
class CommandCode(IntEnum):
    """Response codes: to BUSY those of F Prime, `Fw/Cmd/Cmd.fpp` CmdResponse; the others are ours."""

    OK = 0
    INVALID_OPCODE = 1
    VALIDATION_ERROR = 2
    FORMAT_ERROR = 3
    EXECUTION_ERROR = 4
    BUSY = 5
    EXPIRED = 6
    REPEATED = 7
    NOT_ARMED = 8
    DISABLED = 9


@unique
class JobState(IntEnum):
    """States of a job attempt on board. The last three are final and reported."""

    WAITING_OBJECTS = 0
    READY = 1
    RUNNING = 2
    PAUSED = 3
    COMPLETED = 4
    FAILED = 5
    CANCELLED = 6


class Message(msgspec.Struct, frozen=True, array_like=True):
    """Base of all messages."""


class Beacon(Message, frozen=True, array_like=True, tag=1):
    """The state of a node at a glance; green (best effort)."""

    node: Node
    boot_count: Count
    uptime_s: Count
    utc_ns: Count
    mode: Mode
    reset_cause: Annotated[int, msgspec.Meta(ge=1, le=8)]
    charge_permille: Annotated[int, msgspec.Meta(ge=0, le=1000)]
    """Battery charge [1/1000 of capacity]."""
    electronics_ddegc: Annotated[int, msgspec.Meta(ge=-2731, le=10000)]
    """Electronics temperature [0.1 degree Celsius]."""
    solar_dw: Count
    """Array power [0.1 W]."""
    load_dw: Count
    """Load [0.1 W]."""
    command_count: Count
    """CMDPC: commands processed since boot."""
    command_error_count: Count
    """CMDEC: commands rejected since boot."""
    jobs_waiting_count: Count
    jobs_completed_count: Count
    jobs_paused_count: Count
    models_repaired_count: Count
    frames_rejected_count: Count
    storage_free_bytes: Count
    dictionary_digest: Annotated[bytes, msgspec.Meta(min_length=8, max_length=8)]
    key_id: Count = 0
    """Number of the key that the node signs with towards the ground; 0: it has none, and takes no commands."""
    security_refused_count: Count = 0
    """Bundles that its security refused since boot."""


class Event(Message, frozen=True, array_like=True, tag=2):
    """An event record (EVR)."""

    node: Node
    boot_count: Count
    sequence: Count
    utc_ns: Count
    severity: Severity
    component: Name
    name: Name
    text: Text
    arguments: tuple[object, ...] = ()
    """Each an `Argument`."""


class Command(Message, frozen=True, array_like=True, tag=3):
    """A command; expires with its bundle's lifetime, by age, so that no clock jump can revive or kill it."""

    command_id: Count
    """Unique and rising per ground segment: what makes a repeated command known."""
    opcode: Name
    """Component and command name, for example JOBS.SUBMIT."""
    lifetime_ms: Count
    arguments: tuple[object, ...] = ()
    dictionary_digest: Annotated[bytes, msgspec.Meta(max_length=8)] = b""
    """Of the dictionary that the sender spoke; empty when it did not say."""


class Verification(Message, frozen=True, array_like=True, tag=4):
    """One stage of a command's verification chain."""

    node: Node
    command_id: Count
    stage: Stage
    code: CommandCode
    detail: Text = ""


class Chunk(Message, frozen=True, array_like=True, tag=5):
    """One piece of an object; carries all that a receiver needs to start."""

    digest: Digest
    size_bytes: Count
    index: Count
    data: Annotated[bytes, msgspec.Meta(max_length=CHUNK_BYTES)]
    """Empty for a chunk of a synthetic object: what it would be takes link time, but does not move."""
    proof: Annotated[bytes, msgspec.Meta(max_length=PROOF_BYTES_MAX)] = b""
    """Shows that the chunk belongs to the object of that name (`flightsw.objects.digest`)."""


class ObjectQuery(Message, frozen=True, array_like=True, tag=6):
    """The sender asks what the receiver holds."""

    digest: Digest
    size_bytes: Count
    question: Count = 0
    """Rises with each question of a sender; the answer repeats it."""


class ObjectStatus(Message, frozen=True, array_like=True, tag=7):
    """What a receiver holds: a bitmap of chunks, most significant bit first; all ones means whole and verified."""

    digest: Digest
    size_bytes: Count
    bitmap: bytes
    refused: Text = ""
    """Why the receiver will not take the object (for example: no space); empty when it will."""
    share: bool = False
    """The bits are 0 for what is wanted of this peer only; the rest comes from others, or is asked for later. All ones
    then says that nothing is wanted now, not that the object is whole."""
    question: Count = 0
    """The question that this answers; 0 when nobody asked."""


class ObjectWant(Message, frozen=True, array_like=True, tag=8):
    """Ask a holder for chunks of an object: those whose bit is 0 in the bitmap (empty bitmap: all)."""

    digest: Digest
    size_bytes: Count
    bitmap: bytes = b""
    priority: Annotated[int, msgspec.Meta(ge=0, le=7)] = 4
    """How urgent it is, 0 the most."""


class JobSpec(Message, frozen=True, array_like=True, tag=9):
    """What a job is; travels as the argument of JOBS.SUBMIT."""

    job_id: Count
    attempt: Count
    """Fencing token: a higher attempt replaces a lower one."""
    kind: Name
    """What it runs, for example cloud_mask."""
    model: Digest
    model_bytes: Count
    data: Digest
    data_bytes: Count
    steps_count: Annotated[int, msgspec.Meta(ge=1, le=10_000)]
    step_mpix: Annotated[float, msgspec.Meta(ge=0, le=STEP_MPIX_MAX)]
    """Work of one step [Mpixel]: what time and energy are charged for."""
    priority: Annotated[int, msgspec.Meta(ge=0, le=7)]
    """0 is the most urgent."""
    deadline_s: Count
    """Seconds from acceptance on board after which the job is not worth running."""
    checkpoint_steps: Annotated[int, msgspec.Meta(ge=1)]
    """Steps between checkpoints."""
    product_measure_max: float
    """The product comes down only when the result's measure (cloud share) is at most this."""


class JobReport(Message, frozen=True, array_like=True, tag=10):
    """The end of a job attempt with its provenance; repeated until acknowledged."""

    node: Node
    job_id: Count
    attempt: Count
    state: JobState
    detail: Text
    model: Digest
    data: Digest
    result: bytes
    """Digest of the result object; empty when there is none."""
    result_bytes: Count
    product: bytes
    """Digest of the product object; empty when it stays on board."""
    product_bytes: Count
    """Size of the product, whether it comes down or not."""
    measure: float
    steps_run_count: Count
    """Steps run, with those repeated after a reset."""
    resumed_count: Count
    paused_count: Count
    energy_j: float
    software: Text


class JobReportAck(Message, frozen=True, array_like=True, tag=11):
    """The ground has the report on record."""

    job_id: Count
    attempt: Count


class PacketValues(msgspec.Struct, frozen=True, array_like=True):
    """One telemetry packet."""

    name: Name
    """Component and packet, for example LIMITS.HK."""
    values: Annotated[tuple[int | float | bool | str, ...], msgspec.Meta(max_length=256)]
    """Of its channels, in the dictionary's order."""


class Packets(Message, frozen=True, array_like=True, tag=13):
    """Telemetry packets that were sampled in one cycle; green (best effort) unless it comes in a Playback."""

    node: Node
    boot_count: Count
    sequence: Count
    """Rises with each such message of a boot."""
    uptime_ms: Count
    """When the values were sampled [ms since boot]."""
    packets: Annotated[tuple[PacketValues, ...], msgspec.Meta(min_length=1, max_length=64)]


class Dump(Message, frozen=True, array_like=True, tag=14):
    """One part of a data product that a command asked for; the parts come reliably."""

    node: Node
    boot_count: Count
    number: Count
    """Of the product; rises in a boot."""
    kind: Name
    """What it is: the component that made it."""
    part: Count
    parts: Annotated[int, msgspec.Meta(ge=1, le=DUMP_PARTS_MAX)]
    data: Annotated[bytes, msgspec.Meta(max_length=CHUNK_BYTES)]


class TimeQuery(Message, frozen=True, array_like=True, tag=15):
    """The ground asks for a node's clocks; green, so that no repetition blurs the round trip."""

    number: Count


class TimeReply(Message, frozen=True, array_like=True, tag=16):
    """A node's clocks when the query came in."""

    node: Node
    boot_count: Count
    number: Count
    """Of the query."""
    met_ns: Count
    """MET: monotonic time since boot [ns]."""
    clock_ns: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
    """The board's clock without its jumps [ns since 1970]: what drift is measured of."""
    mission_ns: Count
    """Mission time [ns since 1970]."""
    rate_ppb: Annotated[int, msgspec.Meta(ge=-1_000_000, le=1_000_000)]
    """Rate correction in force."""
    correlation: Count
    """Number of the correction in force."""
    state: Name
    """UNKNOWN, KEPT or CORRELATED."""


class Playback(Message, frozen=True, array_like=True, tag=17):
    """One segment of the on-board recorder: what could not be sent when it was made. Repeated until acknowledged."""

    node: Node
    boot_count: Count
    """Of the boot that recorded it."""
    number: Count
    """Of the segment; (boot_count, number) names it."""
    records: Annotated[
        tuple[Annotated[bytes, msgspec.Meta(max_length=CHUNK_BYTES)], ...], msgspec.Meta(max_length=RECORDS_MAX)
    ]
    """Each a Packets or an Event message of the node, oldest first."""


class PlaybackAck(Message, frozen=True, array_like=True, tag=18):
    """The ground has a segment of the recorder on record; the node may erase it."""

    boot_count: Count
    number: Count


AnyMessage = (
    Beacon | Event | Command | Verification | Chunk | ObjectQuery | ObjectStatus | ObjectWant | JobSpec | JobReport
    | JobReportAck | Packets | Dump | TimeQuery | TimeReply | Playback | PlaybackAck
)  # fmt: skip

_KINDS: Final[dict[object, type[AnyMessage]]] = {kind.__struct_config__.tag: kind for kind in get_args(AnyMessage)}
"""Messages by type number. msgspec works out a union anew at each conversion, but remembers each struct."""


def encode_message(message: Message) -> bytes:
    """The message as CBOR.

    Raises:
        MessageError: a field holds what CBOR cannot carry.
    """
    return cbor.dumps(msgspec.to_builtins(message, builtin_types=(bytes,)))


def decode_message(data: bytes) -> AnyMessage:
    """The message in a payload.

    Raises:
        MessageError: not CBOR, an unknown type, or a field out of its range; the text names the field.
    """
    content = cbor.loads(data)
    kind: Any = AnyMessage  # tells what is wrong with what has no type number of ours
    if type(content) is list and content and type(content[0]) is int:
        kind = _KINDS.get(content[0], AnyMessage)
    try:
        message: AnyMessage = msgspec.convert(content, kind, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise MessageError(f"message: {error}") from None
    return message


def job_spec(argument: object) -> JobSpec:
    """The job in the argument of JOBS.SUBMIT.

    Raises:
        MessageError: the argument is no job specification.
    """
    try:
        return msgspec.convert(argument, JobSpec, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise MessageError(f"job: {error}") from None
