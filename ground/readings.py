"""Channels as an operator reads them: the newest value of each, its age, and its colour by the dictionary's limits.

Colours are those of COSMOS: RED_LOW, YELLOW_LOW, GREEN, YELLOW_HIGH, RED_HIGH, and STALE for a value that should have
come again. A value on a limit is inside it. A channel without limits has no colour until it is STALE.
"""

from collections.abc import Callable, Iterable
from typing import Annotated, Any, Final, NamedTuple

import msgspec

from flightsw.dictionary import ChannelSpec, PacketSpec, flight_dictionary
from flightsw.dictionary.text import near
from flightsw.errors import ConfigError
from flightsw.ports import Clock
from ground.archive import PacketsRow
from ground.segment import GroundSegment

STALE_PERIODS: Final = 3
"""Periods after which a value is stale: two packets in a row may be lost on a poor link."""

PERIODS_S: Final = {"fast": 0.1, "normal": 1.0, "slow": 60.0}
"""Period of a packet until two have come [s]; from then on it is what lies between them."""

ROWS_MAX: Final = 1000
"""Messages of packets that one question reads back: half a day of housekeeping every minute."""

NS_PER_S: Final = 1_000_000_000

Value = int | float | bool | str


class Sample(NamedTuple):
    """A packet of a node, decoded by the dictionary."""

    spec: PacketSpec
    boot_count: int
    uptime_s: float
    """When it was sampled [s since boot]."""
    recorded: bool
    """Whether it came from the recorder."""
    values: dict[str, Value]
    """Channel -> value."""


def samples(rows: Iterable[PacketsRow], keys: frozenset[str]) -> list[Sample]:
    """The packets of these names in messages, in their order; what another dictionary has packed is left out."""
    found = []
    specs = flight_dictionary().packets
    for row in rows:
        for packet in row.message.packets:
            if packet.name not in keys or packet.name not in specs:
                continue
            spec = specs[packet.name]
            if len(spec.channels) == len(packet.values):
                values = dict(zip(spec.channels, packet.values, strict=True))
                message = row.message
                found.append(Sample(spec, message.boot_count, message.uptime_ms / 1000, row.recorded, values))
    return found


def colour(spec: ChannelSpec, value: Value) -> str:
    """The colour of a value by the limits of its channel; empty when it has none."""
    limits = (spec.red_low, spec.yellow_low, spec.yellow_high, spec.red_high)
    if isinstance(value, str) or all(limit is None for limit in limits):
        return ""
    red_low, yellow_low, yellow_high, red_high = limits
    if red_low is not None and value < red_low:
        return "RED_LOW"
    if red_high is not None and value > red_high:
        return "RED_HIGH"
    if yellow_low is not None and value < yellow_low:
        return "YELLOW_LOW"
    if yellow_high is not None and value > yellow_high:
        return "YELLOW_HIGH"
    return "GREEN"


class TelemetryPort:
    """Answers about telemetry and data products of one ground segment.

    Args:
        ground: the segment.
        clock: its clock.
        number: (method, node) -> the number of a node that is given by number or name. Raises: ConfigError.
    """

    def __init__(self, ground: GroundSegment, clock: Clock, number: Callable[[str, int | str], int]) -> None:
        self._ground = ground
        self._clock = clock
        self._number = number

    def handlers(self) -> dict[str, Callable[..., Any]]:
        """Method -> what answers it."""
        return {"telemetry": self.telemetry, "history": self.history, "dumps": self.dumps, "dump": self.dump}

    def telemetry(self, node: int | str, what: str = "") -> list[dict[str, Any]]:
        """The newest value of each channel of a node: of all, of a packet, of a component, or of one channel.

        Raises:
            ConfigError: no such node, or nothing of that name in the dictionary.
        """
        number = self._number("telemetry", node)
        keys, channels = _asked("telemetry", what)
        newest: dict[str, Sample] = {}
        before: dict[str, Sample] = {}
        for sample in samples(self._ground.archive.packets(number, ROWS_MAX), keys):
            if sample.spec.key in newest:
                before[sample.spec.key] = newest[sample.spec.key]
            newest[sample.spec.key] = sample
        found: dict[str, dict[str, Any]] = {}
        for key in flight_dictionary().packets:  # a channel of two packets is told by the one that came last
            if key in newest:
                for reading in self._readings(number, newest[key], before.get(key), channels):
                    known = found.get(reading["channel"])
                    if known is None or (known["boot_count"], known["uptime_s"]) < (
                        reading["boot_count"],
                        reading["uptime_s"],
                    ):
                        found[reading["channel"]] = reading
        return list(found.values())

    def history(
        self, node: int | str, channel: str, most: Annotated[int, msgspec.Meta(ge=1, le=ROWS_MAX)] = 50
    ) -> list[dict[str, Any]]:
        """The newest values of a channel, oldest first. Raises: ConfigError."""
        number = self._number("history", node)
        channels = flight_dictionary().channels
        if channel not in channels:
            raise ConfigError(f"history: channel is {channel!r}, expected {near(channel, channels)}")
        keys, _ = _asked("history", channel)
        spec = channels[channel]
        found = samples(self._ground.archive.packets(number, ROWS_MAX), keys)
        return [
            {
                "boot_count": sample.boot_count,
                "uptime_s": sample.uptime_s,
                "value": sample.values[channel],
                "unit": spec.unit,
                "colour": colour(spec, sample.values[channel]),
                "recorded": sample.recorded,
            }
            for sample in found[-most:]
        ]

    def dumps(
        self, node: int | str, kind: str = "", most: Annotated[int, msgspec.Meta(ge=1, le=ROWS_MAX)] = 50
    ) -> list[dict[str, Any]]:
        """The newest data products of a node, oldest first; of all kinds when `kind` is empty. Raises: ConfigError."""
        rows = self._ground.archive.dumps(self._number("dumps", node), kind, most)
        return [row._asdict() | {"is_whole": row.is_whole} for row in rows]

    def dump(self, node: int | str, boot_count: int, dump: int) -> bytes:
        """The bytes of a data product. Raises: ConfigError when it is not here, or not whole."""
        number = self._number("dump", node)
        data = self._ground.archive.dump(number, boot_count, dump)
        if data is None:
            raise ConfigError(f"dump: dump is {dump} of boot {boot_count}, expected one that is whole")
        return data

    def _readings(
        self, node: int, sample: Sample, before: Sample | None, channels: frozenset[str]
    ) -> list[dict[str, Any]]:
        age_s = self._age_s(node, sample)
        is_stale = _is_stale(sample, before, age_s)
        specs = flight_dictionary().channels
        return [
            {
                "packet": sample.spec.key,
                "channel": channel,
                "value": value,
                "unit": specs[channel].unit,
                "colour": "STALE" if is_stale else colour(specs[channel], value),
                "age_s": age_s,
                "boot_count": sample.boot_count,
                "uptime_s": sample.uptime_s,
                "recorded": sample.recorded,
            }
            for channel, value in sample.values.items()
            if channel in channels
        ]

    def _age_s(self, node: int, sample: Sample) -> float | None:
        """How old a sample is by the node's last beacon [s]; None when it is of an earlier boot, or no beacon came."""
        member = self._ground.membership.members[node]
        if member.beacon is None or member.beacon.boot_count != sample.boot_count:
            return None
        uptime_s = member.beacon.uptime_s + (self._clock.monotonic_ns() - member.heard_ns) / NS_PER_S
        return max(0.0, round(uptime_s - sample.uptime_s, 1))


def _is_stale(sample: Sample, before: Sample | None, age_s: float | None) -> bool:
    """Whether a newer value should have come. One that is sent on change or on request holds until the next boot."""
    if age_s is None:
        return True
    period_s = PERIODS_S.get(sample.spec.rate)
    if period_s is None:
        return False
    if before is not None and before.boot_count == sample.boot_count:
        period_s = max(period_s, sample.uptime_s - before.uptime_s)
    return age_s > STALE_PERIODS * period_s


def _asked(method: str, what: str) -> tuple[frozenset[str], frozenset[str]]:
    """(packets to look at, channels to tell) of a packet, component or channel; of all when it is empty."""
    dictionary = flight_dictionary()
    packets, channels = dictionary.packets, dictionary.channels
    if not what:
        return frozenset(packets), frozenset(channels)
    if what in packets:
        return frozenset((what,)), frozenset(packets[what].channels)
    if what in dictionary.components:
        told = frozenset(spec.key for spec in dictionary.components[what].channels.values())
    elif what in channels:
        told = frozenset((what,))
    else:
        raise ConfigError(f"{method}: {what!r}, expected {near(what, (*packets, *channels))}")
    return frozenset(key for key, spec in packets.items() if told.intersection(spec.channels)), told
