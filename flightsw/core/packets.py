"""Telemetry packets: sampled by their rates, on change or on request, and handed to the downlink.

All packets that are due in a cycle travel in one message, as urgent as the most urgent of them; where they are to be
recorded, those of each priority. A packet of a rate is due a period after it was last sent; in LOW_POWER and SAFE
periods are longer, by parameters. A packet that is sent on change is looked at in each cycle, and sent when a channel
differs from what was sent last by more than its deadband.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from operator import itemgetter
from typing import Any, Final

from flightsw.component import OK, Component, Handler, Outcome, Scalar
from flightsw.core.rates import Rate, RateGroups, slack_ns
from flightsw.dictionary import PacketSpec, flight_dictionary
from flightsw.dictionary.model import CMDEC, CMDPC
from flightsw.ports import Clock
from flightsw.wire.messages import CommandCode, Mode, Packets, PacketValues

NS_PER_S: Final = 1_000_000_000
NS_PER_MS: Final = 1_000_000
NORMAL_S: Final = 1.0
FAST_S: Final = 0.1
"""Periods of the rates [s]; that of the slow one is the parameter TELEMETRY.housekeeping_period_s."""

NEVER_NS: Final = 1 << 62

MESSAGE_VALUES_MAX: Final = 256
"""Values in one message of several packets: about a kilobyte, so that little is lost with a frame."""
MESSAGE_PACKETS_MAX: Final = 64
"""Packets in one message: what its layout takes."""

PLACE: Final = 80
"""Where the packets stand in a cycle of the faster groups: behind all that they tell of."""

Counts = Callable[[str], tuple[int, int]]
"""Component -> its command counters, CMDPC and CMDEC."""
Send = Callable[[Packets, int, int], bool]
"""Takes (message, priority, monotonic time [ns]); says whether it was sent, rather than recorded."""


class _Plan:
    """How one packet is sampled; shared by all nodes of a process."""

    __slots__ = ("deadbands", "pick", "reads", "spec")

    def __init__(self, spec: PacketSpec) -> None:
        self.spec = spec
        reads: dict[str, list[str]] = {}
        for key in spec.channels:
            component, _, name = key.partition(".")
            reads.setdefault(component, []).append(name)
        self.reads = tuple((component, tuple(names)) for component, names in reads.items())
        """(component, names of its channels); the dictionary has each component's channels side by side."""
        self.pick: Callable[[Mapping[str, Scalar]], tuple[Scalar, ...]] | None = None
        """For the packets that there are most of, a component's counters and two channels or more: its values."""
        names = self.reads[0][1]
        if len(self.reads) == 1 and names[:2] == (CMDPC, CMDEC) and len(names) > 3:
            self.pick = itemgetter(*names[2:])
        channels = flight_dictionary().channels
        self.deadbands = tuple(channels[key].deadband or 0 for key in spec.channels)


@cache
def _plans(components: tuple[str, ...]) -> dict[str, _Plan]:
    """Packet -> how it is sampled, of those whose components are all there; in the dictionary's order."""
    found = {}
    for key, spec in flight_dictionary().packets.items():
        plan = _Plan(spec)
        if all(component in components for component, _ in plan.reads):
            found[key] = plan
    return found


class PacketSchedule:
    """Which packet is due when; the component TELEMETRY.

    Args:
        node, boot_count: who speaks, and in which boot; (boot_count, sequence) names a message.
        started_ns: when the boot began [ns, monotonic].
        clock: tells commands when they are executed.
        counts: command counters of components.
        parameter: key -> value of a parameter.
        mode: the mode now.
        has_route: whether there is a way to the ground at a monotonic time [ns].
        send: takes what is to be sent.
    """

    name = "TELEMETRY"

    def __init__(
        self,
        node: int,
        boot_count: int,
        started_ns: int,
        *,
        clock: Clock,
        counts: Counts,
        parameter: Callable[[str], Any],
        mode: Callable[[], Mode],
        has_route: Callable[[int], bool],
        send: Send,
    ) -> None:
        self._node = node
        self._boot_count = boot_count
        self._started_ns = started_ns
        self._clock = clock
        self._counts = counts
        self._parameter = parameter
        self._mode = mode
        self._has_route = has_route
        self._send = send
        self._rates: RateGroups | None = None
        self._components: dict[str, Component] = {}
        self._plans: dict[str, _Plan] = {}
        self._sequence = 0
        self._disabled: dict[str, None] = {}
        self._periods_s: dict[str, float] = {}
        """What RATE commanded [s]."""
        self._sent_ns: dict[str, int] = {}
        """When a packet was last sent by its rate; the start of the boot for those that are not here."""
        self._told: dict[str, tuple[Scalar, ...]] = {}
        """What was last sent of packets that go on change."""
        self._seen: dict[str, list[object]] = {}
        """What they were made of in the last cycle: the same makes the same packet, which need not be made again."""
        self._on_change: tuple[str, ...] = ()
        self._next_ns = 0
        """When the first packet is due by its rate."""
        self._factor = 0.0
        """By how much periods are longer, in the mode of the last cycle."""
        self._known_mode = Mode.BOOT
        self._housekeeping_s = 0.0
        """Mode and housekeeping period of the last cycle [s]."""
        self._joined: Rate | None = None
        self.sent_count = 0
        self.recorded_count = 0

    def attach(self, components: Sequence[Component], rates: RateGroups) -> None:
        """Begin, once all machines are made.

        Args:
            components: whose channels the packets read; a packet that needs another one is not sent.
            rates: the rate groups. The owner calls `cycle` in the slow one; faster ones are joined when a packet needs
                them.
        """
        self._components = {component.name: component for component in components}
        self._plans = _plans(tuple(self._components))
        self._rates = rates
        self._arrange(self._started_ns)

    def cycle(self, now_ns: int) -> None:
        """Send what is due."""
        if (
            self._mode() is not self._known_mode
            or self._parameter("TELEMETRY.housekeeping_period_s") != self._housekeeping_s
        ):
            self._arrange(now_ns)
        due = []
        if now_ns >= self._next_ns:
            for key in self._plans:
                period_ns = self._period_ns(key)
                if period_ns and now_ns >= self._due_ns(key, period_ns):
                    due.append(key)
                    self._sent_ns[key] = now_ns
            self._next_ns = self._first_ns()
        sampled = self._sample(due) if due else {}
        if self._on_change:
            sampled.update(self._changed())
        if sampled:
            self._send_all(sampled, now_ns)

    def handlers(self) -> Mapping[str, Handler]:
        """What SEND, ENABLE, DISABLE and RATE do."""
        return {
            "SEND": self._do_send,
            "ENABLE": self._do_enable,
            "DISABLE": self._do_disable,
            "RATE": self._do_rate,
        }

    def channels(self) -> Mapping[str, Scalar]:
        """Counts since boot."""
        return {
            "packets_sent": self.sent_count,
            "packets_recorded": self.recorded_count,
            "packets_disabled": len(self._disabled),
            "cycles_slipped": 0 if self._rates is None else self._rates.slipped_count,
        }

    def period_s(self, key: str) -> float:
        """The period of a packet in this mode [s]; 0 when it is sent on change, on request or not at all."""
        return self._period_ns(key) / NS_PER_S

    # -- when

    def _period_ns(self, key: str) -> int:
        if key in self._disabled:
            return 0
        period_s = self._periods_s.get(key)
        if period_s is None:
            rate = self._plans[key].spec.rate
            if rate == "slow":
                period_s = self._housekeeping_s
            elif rate == "normal":
                period_s = NORMAL_S
            elif rate == "fast":
                period_s = FAST_S
            else:
                return 0
        return round(period_s * self._factor * NS_PER_S)

    def _first_ns(self) -> int:
        """When the first packet is due by its rate."""
        first_ns = NEVER_NS
        for key in self._plans:
            if period_ns := self._period_ns(key):
                first_ns = min(first_ns, self._due_ns(key, period_ns))
        return first_ns

    def _due_ns(self, key: str, period_ns: int) -> int:
        """When a packet is due."""
        sent_ns = self._sent_ns.get(key)
        if sent_ns is None:
            return self._started_ns + period_ns
        assert self._rates is not None, "attach comes first"
        return sent_ns + period_ns - slack_ns(self._rates.period_ns(self._joined or Rate.SLOW))

    def _arrange(self, now_ns: int) -> None:
        """Mode, parameters or a command have changed when packets are due."""
        self._known_mode = mode = self._mode()
        self._housekeeping_s = self._parameter("TELEMETRY.housekeeping_period_s")
        self._factor = 1.0
        if mode is Mode.LOW_POWER:
            self._factor = float(self._parameter("TELEMETRY.low_power_factor"))
        elif mode is Mode.SAFE:
            self._factor = float(self._parameter("TELEMETRY.safe_factor"))
        self._on_change = tuple(
            key
            for key, plan in self._plans.items()
            if plan.spec.rate == "on_change" and key not in self._disabled and key not in self._periods_s
        )
        self._seen.clear()
        self._join(now_ns)
        self._next_ns = self._first_ns()

    def _join(self, now_ns: int) -> None:
        """Run in the slowest faster group that serves the shortest period; in none when the slow group does."""
        rates = self._rates
        assert rates is not None, "attach comes first"
        shortest_ns = min(filter(None, map(self._period_ns, self._plans)), default=NEVER_NS)
        wanted = None
        if shortest_ns < rates.period_ns(Rate.SLOW):
            wanted = Rate.NORMAL if shortest_ns >= rates.period_ns(Rate.NORMAL) else Rate.FAST
        if wanted is self._joined:
            return
        if self._joined is not None:
            rates.leave(self._joined, PLACE)
        if wanted is not None:
            rates.join(wanted, PLACE, self.cycle, now_ns)
        self._joined = wanted

    # -- what

    def _sample(self, keys: Iterable[str]) -> dict[str, tuple[Scalar, ...]]:
        """Packet -> values of its channels; a component is asked once."""
        asked: dict[str, Mapping[str, Scalar]] = {}
        sampled = {}
        for key in keys:
            plan = self._plans[key]
            values: list[Scalar] = []
            for component, names in plan.reads:
                channels = asked.get(component)
                if channels is None:
                    channels = asked[component] = self._components[component].channels()
                if plan.pick is not None:
                    values += self._counts(component)
                    values += plan.pick(channels)
                else:
                    counts = dict(zip((CMDPC, CMDEC), self._counts(component), strict=True))
                    values += [counts[name] if name in counts else channels[name] for name in names]
            sampled[key] = tuple(values)
        return sampled

    def _changed(self) -> dict[str, tuple[Scalar, ...]]:
        """Packets that go on change and have."""
        moved = []
        for key in self._on_change:
            seen: list[object] = []
            for component, _ in self._plans[key].reads:
                seen += (self._components[component].channels(), self._counts(component))
            if seen != self._seen.get(key):
                self._seen[key] = seen
                moved.append(key)
        changed = {}
        for key, values in self._sample(moved).items():
            told = self._told.get(key)
            if told is None or _differs(told, values, self._plans[key].deadbands):
                self._told[key] = changed[key] = values
        return changed

    def _send_all(self, sampled: dict[str, tuple[Scalar, ...]], now_ns: int) -> None:
        """Send packets in as few messages as they fit in; what is to be recorded, by its own priority."""
        by_priority: dict[int, list[PacketValues]] = {}
        priorities = {key: self._plans[key].spec.priority for key in sampled}
        if self._has_route(now_ns):
            priorities = dict.fromkeys(sampled, min(priorities.values()))
        for key, values in sampled.items():
            by_priority.setdefault(priorities[key], []).append(PacketValues(key, values))
        for priority in sorted(by_priority):
            message: list[PacketValues] = []
            count = 0
            for packet in by_priority[priority]:
                count += len(packet.values)
                if message and (count > MESSAGE_VALUES_MAX or len(message) == MESSAGE_PACKETS_MAX):
                    self._send_one(message, priority, now_ns)
                    message, count = [], len(packet.values)
                message.append(packet)
            self._send_one(message, priority, now_ns)

    def _send_one(self, packets: list[PacketValues], priority: int, now_ns: int) -> None:
        self._sequence += 1
        uptime_ms = (now_ns - self._started_ns) // NS_PER_MS
        message = Packets(self._node, self._boot_count, self._sequence, uptime_ms, tuple(packets))
        if self._send(message, priority, now_ns):
            self.sent_count += len(packets)
        else:
            self.recorded_count += len(packets)

    # -- commands

    def _do_send(self, arguments: Any) -> Outcome:
        key = arguments[0]
        if (refusal := self._refusal(key)) is not None:
            return refusal
        self._send_all(self._sample([key]), self._clock.monotonic_ns())
        return OK

    def _do_enable(self, arguments: Any) -> Outcome:
        key = arguments[0]
        if (refusal := self._refusal(key)) is not None:
            return refusal
        self._disabled.pop(key, None)
        self._arrange(self._clock.monotonic_ns())
        return OK

    def _do_disable(self, arguments: Any) -> Outcome:
        key = arguments[0]
        if (refusal := self._refusal(key)) is not None:
            return refusal
        self._disabled[key] = None
        self._told.pop(key, None)
        self._arrange(self._clock.monotonic_ns())
        return OK

    def _do_rate(self, arguments: Any) -> Outcome:
        key, period_s = arguments
        if (refusal := self._refusal(key)) is not None:
            return refusal
        if 0 < period_s < FAST_S:
            return Outcome(CommandCode.VALIDATION_ERROR, f"period_s is {period_s}, expected 0, or at least {FAST_S}")
        if period_s:
            self._periods_s[key] = period_s
        else:
            self._periods_s.pop(key, None)
        self._arrange(self._clock.monotonic_ns())
        return OK

    def _refusal(self, key: str) -> Outcome | None:
        if key in self._plans:
            return None
        return Outcome(CommandCode.VALIDATION_ERROR, f"packet is {key!r}, expected one of the dictionary")


def _differs(told: tuple[Scalar, ...], values: tuple[Scalar, ...], deadbands: tuple[float, ...]) -> bool:
    """Whether a value has left what was told by more than its deadband."""
    for before, after, deadband in zip(told, values, deadbands, strict=True):
        if before == after:
            continue
        if not deadband or isinstance(before, str) or isinstance(after, str) or abs(after - before) > deadband:
            return True
    return False
