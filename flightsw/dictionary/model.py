"""What the dictionary is made of: components with commands, events, channels, packets and parameters.

Each of them has a key, `COMPONENT.NAME`, and a number: the component's number in the upper byte and its own code in the
lower one. Values have one of ten types; text, bytes and lists are bounded, numbers may be.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Generic, Literal, TypeVar

import msgspec

from flightsw.wire.messages import Severity

T_co = TypeVar("T_co", covariant=True)

Type = Literal["bool", "u8", "u16", "u32", "u64", "i64", "f64", "text", "bytes", "list", "enum"]

RANGES: Final[dict[str, tuple[int, int]]] = {
    "u8": (0, (1 << 8) - 1),
    "u16": (0, (1 << 16) - 1),
    "u32": (0, (1 << 32) - 1),
    "u64": (0, (1 << 64) - 1),
    "i64": (-(1 << 63), (1 << 63) - 1),
}
"""Least and most value of the integer types."""

TEXT_BYTES: Final = 512
"""Longest text when the dictionary says nothing else [bytes of UTF-8]: what an event or a detail holds."""
UPLOAD_BYTES: Final = 16_384
"""Longest byte string when the dictionary says nothing else: one chunk of an object."""
LIST_ITEMS: Final = 256
"""Most items of a list when the dictionary says nothing else."""

CODE_MAX: Final = 239
"""Highest code of a command, event, channel, packet or parameter in a file: one byte, less what is kept for the
manager's own."""
NOOP_CODE: Final = 0
RESET_COUNTERS_CODE: Final = 1
"""Codes of the two commands that every component answers (cFE)."""
CMDPC: Final = "cmdpc"
CMDEC: Final = "cmdec"
"""Channels of every component: commands processed, commands rejected (cFE CommandCounter, CommandErrorCounter)."""
CMDPC_CODE: Final = 254
CMDEC_CODE: Final = 255
HOUSEKEEPING: Final = "HK"
"""Packet of every component; it starts with the two counters."""
HOUSEKEEPING_CODE: Final = 254
"""Of one that no file declares."""

Rate = Literal["fast", "normal", "slow", "on_change", "on_request"]


class Spec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of what the dictionary describes."""

    doc: str = ""


class ValueSpec(Spec, frozen=True, kw_only=True):
    """A value: its type, unit and range."""

    name: str = ""
    type: Type
    unit: str = ""
    min: float | int | None = None
    """Least value; for integers within the type's own range."""
    max: float | int | None = None
    max_bytes: int | None = None
    """Longest text (in UTF-8) or byte string [bytes]."""
    max_items: int | None = None
    """Most items of a list."""
    values: tuple[str, ...] = ()
    """Names that an enumeration may have; it travels as text."""

    @property
    def bytes_limit(self) -> int:
        """Longest text or byte string [bytes]."""
        if self.max_bytes is not None:
            return self.max_bytes
        return UPLOAD_BYTES if self.type == "bytes" else TEXT_BYTES

    @property
    def items_limit(self) -> int:
        """Most items of a list."""
        return LIST_ITEMS if self.max_items is None else self.max_items


class KeyedSpec(Spec, frozen=True, kw_only=True):
    """Something of a component that has a key and a number."""

    component: str
    name: str
    code: int
    number: int
    """Component number << 8 | code."""
    key: str = ""
    """COMPONENT.NAME."""


class CommandSpec(KeyedSpec, frozen=True, kw_only=True):
    """A command; its number is the opcode."""

    hazardous: bool = False
    """Whether the ground must arm it before it takes effect."""
    takes_time: bool = False
    """Whether it is STARTED first and ends later."""
    arguments: tuple[ValueSpec, ...] = ()

    @property
    def is_common(self) -> bool:
        """Whether it is the same in every dictionary, and so is taken from a sender that speaks another one.

        NOOPs, so that the link can be tested; UPDATE and arming, or no ground could see an update through that brings
        another dictionary. Their form must never change.
        """
        return self.code == NOOP_CODE or self.component == "UPDATE" or self.key == "COMMANDS.ARM"


class EventSpec(KeyedSpec, frozen=True, kw_only=True):
    """An event; its text is the format with the arguments filled in."""

    severity: Severity
    format: str
    arguments: tuple[ValueSpec, ...] = ()
    throttle_count: int = 20
    """Events that pass in one window; FATAL always passes."""
    throttle_window_s: float = 60.0


class KeyedValueSpec(ValueSpec, frozen=True, kw_only=True):
    """A value of a component that has a key and a number."""

    component: str
    code: int
    number: int
    """Component number << 8 | code."""
    key: str = ""
    """COMPONENT.name."""


class ChannelSpec(KeyedValueSpec, frozen=True, kw_only=True):
    """A telemetry channel, with the limits by which the ground colours it."""

    yellow_low: float | int | None = None
    yellow_high: float | int | None = None
    red_low: float | int | None = None
    red_high: float | int | None = None
    deadband: float | int | None = None
    """Least difference that counts as a change, for packets that are sent on change."""


class PacketSpec(KeyedSpec, frozen=True, kw_only=True):
    """A telemetry packet: which channels, how often, how urgent."""

    rate: Rate = "slow"
    priority: int = 5
    """0 is the most urgent: what the recorder keeps longest."""
    channels: tuple[str, ...]
    """Keys of the channels, in the order in which their values travel."""


class ParameterSpec(KeyedValueSpec, frozen=True, kw_only=True):
    """A parameter: a value that the ground may change."""

    default: Any
    group: str = ""
    """Parameters of one group are loaded and dumped together; the component's name when the file says nothing."""


class CheckSpec(Spec, frozen=True, kw_only=True):
    """A rule between parameters: each at most (or below) the next."""

    order: tuple[str, ...]
    """Keys of parameters, rising."""
    strict: bool = False
    """Whether equal values are refused too."""


class ComponentSpec(Spec, frozen=True, kw_only=True):
    """A component of the manager and all that it is known by."""

    name: str
    number: int
    commands: dict[str, CommandSpec]
    events: dict[str, EventSpec]
    channels: dict[str, ChannelSpec]
    packets: dict[str, PacketSpec]
    parameters: dict[str, ParameterSpec]
    checks: tuple[CheckSpec, ...] = ()


class ParameterKey(str, Generic[T_co]):
    """The key of a parameter, for the type checker with the type of its value."""

    __slots__ = ()


@dataclass(frozen=True)
class Dictionary:
    """Everything that a node can be told and can tell. One value for all nodes of a process."""

    components: dict[str, ComponentSpec]
    """By name, in the order of their numbers."""

    @cached_property
    def commands(self) -> dict[str, CommandSpec]:
        """COMPONENT.NAME -> command."""
        return {spec.key: spec for part in self.components.values() for spec in part.commands.values()}

    @cached_property
    def events(self) -> dict[str, EventSpec]:
        """COMPONENT.NAME -> event."""
        return {spec.key: spec for part in self.components.values() for spec in part.events.values()}

    @cached_property
    def channels(self) -> dict[str, ChannelSpec]:
        """COMPONENT.name -> channel."""
        return {spec.key: spec for part in self.components.values() for spec in part.channels.values()}

    @cached_property
    def packets(self) -> dict[str, PacketSpec]:
        """COMPONENT.NAME -> packet."""
        return {spec.key: spec for part in self.components.values() for spec in part.packets.values()}

    @cached_property
    def parameters(self) -> dict[str, ParameterSpec]:
        """COMPONENT.name -> parameter."""
        return {spec.key: spec for part in self.components.values() for spec in part.parameters.values()}

    @cached_property
    def digest(self) -> bytes:
        """BLAKE2b-64 of the canonical JSON without the documentation: a better sentence is no other dictionary."""
        plain = _without_docs(self.as_builtins())
        return hashlib.blake2b(msgspec.json.encode(plain, order="deterministic"), digest_size=8).digest()

    def as_builtins(self) -> dict[str, Any]:
        """The dictionary as plain maps and lists. Components, and all in them, stand by name."""
        plain: dict[str, Any] = msgspec.to_builtins(self.components)
        for part in plain.values():
            for event in part["events"].values():
                event["severity"] = Severity(event["severity"]).name
        return plain

    def as_json(self) -> str:
        """The dictionary as JSON, with its digest."""
        document = {"digest": self.digest.hex(), "components": self.as_builtins()}
        return msgspec.json.format(msgspec.json.encode(document), indent=2).decode()


def _without_docs(value: Any) -> Any:
    """A copy without what only people read."""
    if isinstance(value, dict):
        return {key: _without_docs(one) for key, one in value.items() if key != "doc"}
    if isinstance(value, list):
        return [_without_docs(one) for one in value]
    return value
