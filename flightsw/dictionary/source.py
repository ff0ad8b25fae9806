"""Reads the dictionary from its files, one for each component, and refuses what does not fit together.

A file names its component and number, and has a table for each command, event, channel, packet and parameter.
`docs/dictionary.md` is printed from them.
"""

import re
import string
import tomllib
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import msgspec

from flightsw.config import convert
from flightsw.dictionary.model import (
    CMDEC,
    CMDEC_CODE,
    CMDPC,
    CMDPC_CODE,
    CODE_MAX,
    HOUSEKEEPING,
    HOUSEKEEPING_CODE,
    NOOP_CODE,
    RANGES,
    RESET_COUNTERS_CODE,
    ChannelSpec,
    CheckSpec,
    CommandSpec,
    ComponentSpec,
    Dictionary,
    EventSpec,
    PacketSpec,
    ParameterSpec,
    ValueSpec,
)
from flightsw.dictionary.values import check_value
from flightsw.errors import ConfigError
from flightsw.wire.messages import Severity

FOLDER: Final = Path(__file__).parent / "components"
SUFFIX: Final = ".toml"

PRIORITY_MAX: Final = 7
"""Least urgent packet, as of bundles."""
CHANNELS_MAX: Final = 256
"""Channels of one packet: what its message holds."""

UPPER: Final = re.compile(r"[A-Z][A-Z0-9_]{0,30}\Z")
LOWER: Final = re.compile(r"[a-z][a-z0-9_]{0,40}\Z")

SAMPLES: Final[dict[str, object]] = {"bool": True, "f64": 0.5, "text": "text", "bytes": "00", "list": [], "enum": "A"}
"""A value of each type, as an event's text shows it; integers are 1."""

Keyed = CommandSpec | EventSpec | ChannelSpec | PacketSpec | ParameterSpec
K = TypeVar("K", CommandSpec, EventSpec, ChannelSpec, PacketSpec, ParameterSpec)
T = TypeVar("T")
Code = Annotated[int, msgspec.Meta(ge=0, le=CODE_MAX)]
Table = dict[str, Any]


class _File(msgspec.Struct, forbid_unknown_fields=True):
    """A file as TOML has it; its tables are looked at one by one."""

    component: str
    number: Annotated[int, msgspec.Meta(ge=1, le=255)]
    doc: str
    commands: dict[str, Table] = {}
    events: dict[str, Table] = {}
    channels: dict[str, Table] = {}
    packets: dict[str, Table] = {}
    parameters: dict[str, Table] = {}
    checks: list[Table] = []


@cache
def flight_dictionary() -> Dictionary:
    """The dictionary of this software.

    Raises:
        ConfigError: its files are wrong.
    """
    return load(sorted(FOLDER.glob(f"*{SUFFIX}")))


def load(paths: Iterable[Path]) -> Dictionary:
    """The dictionary in these files.

    Raises:
        ConfigError: a file is wrong; names file, table, field, value and expectation.
    """
    parts: dict[str, ComponentSpec] = {}
    numbers: dict[int, str] = {}
    for path in paths:
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"{path.name}: {error}") from None
        part = _component(content, path.name)
        if part.name in parts:
            raise ConfigError(f"{path.name}: component is {part.name}, which another file has already")
        if part.number in numbers:
            raise ConfigError(f"{path.name}: number is {part.number}, which {numbers[part.number]} has already")
        parts[part.name] = part
        numbers[part.number] = part.name
    found = Dictionary({part.name: part for part in sorted(parts.values(), key=lambda one: one.number)})
    _check_references(found)
    return found


def _component(content: Table, where: str) -> ComponentSpec:
    file = convert(content, _File, where)
    name = file.component
    if not UPPER.match(name):
        raise ConfigError(f"{where}: component is {name!r}, expected capitals, digits and underscores")
    reset_doc = "Set the component's counters CMDPC and CMDEC to zero."
    commands = [
        CommandSpec(doc="Answer, and do nothing else.", **_identity(file, "NOOP", NOOP_CODE)),
        CommandSpec(doc=reset_doc, **_identity(file, "RESET_COUNTERS", RESET_COUNTERS_CODE)),
    ]
    channels = [
        _counter(file, CMDPC, CMDPC_CODE, "Commands processed since boot or RESET_COUNTERS."),
        _counter(file, CMDEC, CMDEC_CODE, "Commands rejected since boot or RESET_COUNTERS."),
    ]
    commands += [_keyed(file, CommandSpec, "commands", one, UPPER, where) for one in file.commands.items()]
    events = [_keyed(file, EventSpec, "events", one, UPPER, where) for one in file.events.items()]
    channels += [_keyed(file, ChannelSpec, "channels", one, LOWER, where) for one in file.channels.items()]
    packets = [_keyed(file, PacketSpec, "packets", one, UPPER, where) for one in file.packets.items()]
    parameters = [_keyed(file, ParameterSpec, "parameters", one, LOWER, where) for one in file.parameters.items()]
    checks = [convert(one, CheckSpec, f"{where}: checks[{index}]") for index, one in enumerate(file.checks)]
    for table, specs in (("commands", commands), ("events", events), ("channels", channels), ("packets", packets)):
        _check_codes(specs, f"{where}: {table}")
    _check_codes(parameters, f"{where}: parameters")
    for command in commands:
        _check_values(command.arguments, f"{where}: [commands.{command.name}]")
    for event in events:
        _check_event(event, f"{where}: [events.{event.name}]")
    for channel in channels:
        _check_channel(channel, f"{where}: [channels.{channel.name}]")
    for parameter in parameters:
        _check_parameter(parameter, f"{where}: [parameters.{parameter.name}]")
    return ComponentSpec(
        name=name,
        number=file.number,
        doc=file.doc,
        commands=_by_name(commands),
        events=_by_name(events),
        channels=_by_name(channels),
        packets=_by_name(_whole_packets(file, packets, channels, where)),
        parameters=_by_name(parameters),
        checks=tuple(checks),
    )


def _keyed(file: _File, kind: type[K], table: str, entry: tuple[str, Table], names: re.Pattern[str], where: str) -> K:
    name, content = entry
    where = f"{where}: [{table}.{name}]"
    if not names.match(name):
        case = "capitals" if names is UPPER else "small letters"
        raise ConfigError(f"{where}: name is {name!r}, expected {case}, digits and underscores")
    for own in ("component", "name", "number", "key"):
        if own in content:
            raise ConfigError(
                f"{where}: {own} is {content[own]!r}, expected none: the table's name and the file say it"
            )
    code = convert(content.get("code"), Code, f"{where}: code")
    if isinstance(severity := content.get("severity"), str):
        if severity not in Severity.__members__:
            raise ConfigError(f"{where}: severity is {severity!r}, expected one of {', '.join(Severity.__members__)}")
        content = content | {"severity": Severity[severity]}
    if kind is ParameterSpec:
        content = {"group": file.component} | content
    if not content.get("doc"):
        raise ConfigError(f"{where}: doc is missing, expected a sentence for the documents")
    whole = content | _identity(file, name, code)
    return convert(whole, kind, where)


def _whole_packets(file: _File, packets: list[PacketSpec], channels: list[ChannelSpec], where: str) -> list[PacketSpec]:
    """The packets with whole keys of channels, and the housekeeping packet that every component has."""
    counters = (f"{file.component}.{CMDPC}", f"{file.component}.{CMDEC}")
    if not any(packet.name == HOUSEKEEPING for packet in packets):
        housekeeping = PacketSpec(
            doc="All channels of the component.",
            channels=tuple(channel.name for channel in channels),
            **_identity(file, HOUSEKEEPING, HOUSEKEEPING_CODE),
        )
        packets = [housekeeping, *packets]
    whole = []
    for packet in packets:
        keys = tuple(name if "." in name else f"{file.component}.{name}" for name in packet.channels)
        if packet.name == HOUSEKEEPING:
            keys = counters + tuple(key for key in keys if key not in counters)
        table = f"{where}: [packets.{packet.name}]"
        if not keys or len(set(keys)) < len(keys) or len(keys) > CHANNELS_MAX:
            raise ConfigError(f"{table}: channels are {list(keys)}, expected 1 to {CHANNELS_MAX} different ones")
        if not 0 <= packet.priority <= PRIORITY_MAX:
            raise ConfigError(f"{table}: priority is {packet.priority}, expected 0 to {PRIORITY_MAX}")
        whole.append(msgspec.structs.replace(packet, channels=keys))
    return whole


def _counter(file: _File, name: str, code: int, doc: str) -> ChannelSpec:
    return ChannelSpec(type="u64", doc=doc, **_identity(file, name, code))


def _identity(file: _File, name: str, code: int) -> dict[str, Any]:
    number = file.number << 8 | code
    return {
        "component": file.component,
        "name": name,
        "code": code,
        "number": number,
        "key": f"{file.component}.{name}",
    }


def _check_codes(
    specs: Iterable[CommandSpec | EventSpec | ChannelSpec | PacketSpec | ParameterSpec], where: str
) -> None:
    names: dict[str, int] = {}
    codes: dict[int, str] = {}
    for spec in specs:
        if spec.name in names:
            raise ConfigError(f"{where}: {spec.name} is there already; every component has it")
        if spec.code in codes:
            raise ConfigError(f"{where}.{spec.name}: code is {spec.code}, which {codes[spec.code]} has already")
        names[spec.name] = spec.code
        codes[spec.code] = spec.name


def _check_values(specs: tuple[ValueSpec, ...], where: str) -> None:
    seen = set()
    for spec in specs:
        place = f"{where}: argument {spec.name!r}"
        if not LOWER.match(spec.name):
            raise ConfigError(f"{place}: name expected in small letters, digits and underscores")
        if spec.name in seen:
            raise ConfigError(f"{place}: name is there already")
        seen.add(spec.name)
        _check_spec(spec, place)


def _check_spec(spec: ValueSpec, where: str) -> None:
    """Whether a value's own description holds together."""
    is_number = spec.type in RANGES or spec.type == "f64"
    for field in ("min", "max"):
        bound = getattr(spec, field)
        if bound is None:
            continue
        if not is_number:
            raise ConfigError(f"{where}: {field} is {bound}, expected none for {spec.type}")
        if spec.type in RANGES:
            low, high = RANGES[spec.type]
            if not (isinstance(bound, int) and low <= bound <= high):
                raise ConfigError(f"{where}: {field} is {bound}, expected an integer of {spec.type}, {low} to {high}")
    if spec.min is not None and spec.max is not None and spec.min > spec.max:
        raise ConfigError(f"{where}: min is {spec.min}, expected at most max, {spec.max}")
    if spec.max_bytes is not None and (spec.type not in ("text", "bytes") or spec.max_bytes < 1):
        raise ConfigError(f"{where}: max_bytes is {spec.max_bytes}, expected at least 1, for text and bytes only")
    if spec.max_items is not None and (spec.type != "list" or spec.max_items < 1):
        raise ConfigError(f"{where}: max_items is {spec.max_items}, expected at least 1, for lists only")
    if (spec.type == "enum") != bool(spec.values):
        raise ConfigError(f"{where}: values are {list(spec.values)}, expected names for enum and none for others")
    if len(set(spec.values)) < len(spec.values):
        raise ConfigError(f"{where}: values are {list(spec.values)}, expected each once")


def _check_event(spec: EventSpec, where: str) -> None:
    _check_values(spec.arguments, where)
    if spec.throttle_count < 1 or not spec.throttle_window_s > 0:
        raise ConfigError(
            f"{where}: throttle is {spec.throttle_count} in {spec.throttle_window_s} s, expected at least 1 and above 0"
        )
    samples = {one.name: SAMPLES.get(one.type, 1) for one in spec.arguments}
    try:
        fields = [name for _, name, _, _ in string.Formatter().parse(spec.format) if name is not None]
        unknown = [name for name in fields if name not in samples]
        if not unknown:
            spec.format.format(**samples)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{where}: format is {spec.format!r}: {error}") from None
    if unknown:
        expected = ", ".join(samples) or "none"
        raise ConfigError(f"{where}: format names {unknown[0]!r}, expected names of arguments: {expected}")


def _check_channel(spec: ChannelSpec, where: str) -> None:
    _check_spec(spec, where)
    if spec.type in ("bytes", "list"):
        raise ConfigError(f"{where}: type is {spec.type}, expected a number, truth, text or enum")
    order = ("red_low", "yellow_low", "yellow_high", "red_high")
    limits = [(field, getattr(spec, field)) for field in order if getattr(spec, field) is not None]
    if (limits or spec.deadband is not None) and spec.type not in (*RANGES, "f64"):
        raise ConfigError(f"{where}: {spec.type} has limits or a deadband, expected them for numbers only")
    for (before, low), (after, high) in pairwise(limits):
        if low > high:
            raise ConfigError(f"{where}: {before} is {low}, expected at most {after}, {high}")


def _check_parameter(spec: ParameterSpec, where: str) -> None:
    _check_spec(spec, where)
    if spec.type == "list":
        raise ConfigError(f"{where}: type is list, expected another: a parameter is one value")
    wrong = check_value(spec, spec.default)
    if wrong is not None:
        raise ConfigError(f"{where}: default: {wrong}")


def _check_references(found: Dictionary) -> None:
    """What one component says of another must be there."""
    for packet in found.packets.values():
        for key in packet.channels:
            if key not in found.channels:
                raise ConfigError(f"[packets.{packet.name}] of {packet.component}: {key} is no channel")
    for part in found.components.values():
        for index, check in enumerate(part.checks):
            unknown = [key for key in check.order if key not in found.parameters]
            if unknown or len(check.order) < 2:
                raise ConfigError(
                    f"checks[{index}] of {part.name}: order is {list(check.order)}, expected two parameters or more"
                )


def _by_name(specs: Sequence[K]) -> dict[str, K]:
    return {spec.name: spec for spec in specs}
