"""Typed settings: board profiles, node and ground configuration.

Files are TOML. Every number of a profile is a table `{ value, source, flag }`, so that no number travels without its
origin; flags as in the scenario presets: V verified, S secondary text, D derived or chosen by us, U unverified.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

import msgspec

from flightsw.errors import ConfigError

T = TypeVar("T")
NUMBER_MAX: Final = 1e15
"""Largest setting: no rate, size or time that we know is above it, and TOML can say `inf`."""
NonNegative = Annotated[float, msgspec.Meta(ge=0, le=NUMBER_MAX)]
Positive = Annotated[float, msgspec.Meta(gt=0, le=NUMBER_MAX)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
UpdateKey = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class Sourced(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A number with its origin."""

    value: float
    source: Annotated[str, msgspec.Meta(min_length=3)]
    flag: Literal["V", "S", "D", "U"]


class BoardProfile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the manager and the scheduler must know of a board and of the satellite bus that carries it."""

    name: str
    title: str
    peak_tops: Sourced
    """Peak tera-operations a second, INT8 where it has it."""
    mpix_per_s: Sourced
    """Throughput of the shipped cloud-mask model [Mpixel/s]."""
    idle_w: Sourced
    """Board power when nothing runs [W]."""
    compute_w: Sourced
    """Power on top of idle while a job runs [W]."""
    bus_w: Sourced
    """Load of the satellite bus around the board: radio, attitude, heaters [W]."""
    array_w: Sourced
    """Solar array power in full sun [W]."""
    battery_wh: Sourced
    """Battery capacity [Wh]."""
    charge_efficiency: Sourced
    discharge_efficiency: Sourced
    electronics_heat_capacity_j_k: Sourced
    radiator_heat_capacity_j_k: Sourced
    conductance_w_k: Sourced
    radiator_area_m2: Sourced
    radiator_emissivity: Sourced
    absorbed_sun_w: Sourced
    absorbed_albedo_ir_w: Sourced
    electronics_max_degc: Sourced
    """Jobs are paused above this temperature [degree Celsius]."""
    memory_bytes: Sourced
    storage_bytes: Sourced
    model_cross_section_cm2_bit: Sourced
    """Proton upset cross section of the memory that holds weights [cm2/bit]."""


class InterfaceConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One radio or laser terminal of a node, or one antenna of the ground."""

    index: Annotated[int, msgspec.Meta(ge=0, le=65_535)]
    name: str
    coding: str = "cobs-crc32c"
    segment_bytes: Annotated[int, msgspec.Meta(ge=64, le=60_000)] = 1024
    """Data in one LTP segment [bytes]."""
    queue_bundles_max: Annotated[int, msgspec.Meta(ge=1)] = 4096


class NodeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings of one node's manager."""

    node: Annotated[int, msgspec.Meta(ge=1)]
    name: str
    ground: Annotated[int, msgspec.Meta(ge=1)] = 1
    interfaces: tuple[InterfaceConfig, ...]
    beacon_period_s: Positive = 10.0
    housekeeping_period_s: Positive = 60.0
    tick_period_s: Positive = 10.0
    """Period of the rate group: sensors, modes, admission, scrub [s]."""
    scrub_period_s: Positive = 60.0
    jobs_max: Annotated[int, msgspec.Meta(ge=1)] = 256
    low_power_enter: Share = 0.30
    """Charge share at which LOW_POWER is entered: no jobs run."""
    low_power_leave: Share = 0.40
    safe_enter: Share = 0.15
    """Charge share at which SAFE is entered: receiver and beacon only."""
    reserve: Share = 0.35
    """Charge share that a job must leave at the end of the next eclipse."""
    report_repeat_s: Positive = 180.0
    """A job report is repeated at this period until acknowledged [s]."""
    ltp_margin_s: Positive = 0.5
    """What links wait for beyond twice the light time before they repeat [s]; more where a loaded machine carries many
    nodes faster than real time."""
    sign_telemetry: bool = True
    """Whether beacons and housekeeping are signed as commands, events, objects and jobs always are."""
    software: str = "flatrack 0.1.0"
    update_keys: Annotated[tuple[UpdateKey, ...], msgspec.Meta(max_length=8)] = ()
    """Public keys, in hexadecimal digits, of those whose software the node takes; without any it takes none."""


class SunInterval(msgspec.Struct, frozen=True):
    """A predicted interval in sunlight, in monotonic time."""

    start_ns: int
    end_ns: int


def load_toml(path: Path, kind: type[T]) -> T:
    """A TOML file as a typed value.

    Raises:
        ConfigError: the file is missing, is not TOML, or a field is wrong; names file, field and expectation.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # also integers of 5,000 digits, and arrays nested as deep
        raise ConfigError(f"{path}: not TOML: {error}") from None
    return convert(content, kind, str(path))


def convert(content: object, kind: type[T], where: str) -> T:
    """Plain values as a typed value.

    Raises:
        ConfigError: a field is wrong; names where, field and expectation.
    """
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {error}") from None
