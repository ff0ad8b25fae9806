"""A run in real time: how fast, from which instant on, and how patient links must be with a busy machine."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from flightsw.host.loop import PacedLoop
from hil.bench.judge import Outcome
from hil.bench.lateness import SHARE_HALF, SHARE_TAIL, Lateness
from hil.bench.scenario import Scenario

NS_PER_S: Final = 1_000_000_000
START_S: Final = 2.0
"""From the making of the loop to T+0, without processes [s of the machine]: wires, files, a broker."""
START_CPU_S: Final = {"process": 1.0, "emulated": 8.0, "board": 0.0}
"""CPU that the start of one program takes, generously [s]: T+0 waits until all of them have started. An emulated board
takes one to two until its program reports, and its worker goes on to take four."""
START_BOARD_S: Final = 30.0
"""How long real boards are waited for [s of the machine]: a connection over ssh, and a start of the node."""
LTP_MARGIN_S: Final = 0.5
"""What LTP adds to twice the light time in virtual time [s]: the default of `flightsw.net.ltp_values.LtpConfig`."""
LATENCY_SERIAL_S: Final = 0.25
"""Real time that a segment and its answer may take through two programs, two pseudo-terminals and the relay on a busy
machine [s]. It is mission time times the scale, so links must wait for it."""
LATENCY_UART_S: Final = 4.0
"""The same over the UART of a board [s]: queues of the board and of the bench, a frame or two at 115,200 Bd, and an
emulated processor that computes a step of a job meanwhile."""
LATENCY_MQTT_S: Final = 1.0
"""The same through a broker [s]: one client of the bench carries the frames of all nodes, and a burst of a
fleet's objects at a scaled line rate fills its queue."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How a run in real time goes.

    Attributes:
        utc_ns: reads the machine's UTC [ns since 1970-01-01T00:00:00Z].
        time_scale: mission seconds in a second of the machine.
        broker: `nats`, `mosquitto`, or the URL of a broker that runs already: for nodes on MQTT.
        cores_count: processors that the start of the programs is spread over.
        latency_s: what links allow for the machine, beyond the mission's own delays [s of the machine].
    """

    utc_ns: Callable[[], int]
    time_scale: float = 1.0
    broker: str = "nats"
    cores_count: int = 1
    latency_s: float = LATENCY_SERIAL_S

    def loop(self, scenario: Scenario) -> PacedLoop:
        """The loop of the bench; T+0 lies ahead by what it takes to start the programs of a scenario.

        Raises:
            ConfigError: the time scale is out of range.
        """
        return PacedLoop(self.utc_ns() + round(self.start_s(scenario) * NS_PER_S), self.time_scale)

    def start_s(self, scenario: Scenario) -> float:
        """What it takes to start the programs and boards of a scenario [s of the machine]."""
        kinds = [node.kind for node in scenario.nodes]
        start_s = START_S + sum(START_CPU_S.get(kind, 0.0) for kind in kinds) / self.cores_count
        return start_s + START_BOARD_S if "board" in kinds else start_s

    @property
    def ltp_margin_s(self) -> float:
        """What links wait for beyond twice the light time [mission s]."""
        return LTP_MARGIN_S + self.patience_s

    @property
    def patience_s(self) -> float:
        """The allowed latency in mission time [s]."""
        return self.latency_s * self.time_scale


def describe(outcome: Outcome, pace: Pace, lateness: Lateness, wire_delays: Lateness, late_ns: int) -> None:
    """Put into a verdict how a run in real time went.

    Args:
        outcome: takes the numbers, and what to say when the machine did not keep up.
        pace: of the run.
        lateness: of the relay.
        wire_delays: of probes through the broker; empty without one.
        late_ns: how long after T+0 the run could begin [mission ns]; 0 when it began in time.
    """
    tail_ms, tail_s = lateness.real_ms(SHARE_TAIL), lateness.mission_s(SHARE_TAIL)
    outcome.time_scale = pace.time_scale
    outcome.counters |= {
        "mission_s": outcome.counters.pop("virtual_s"),
        "time_scale": pace.time_scale,
        "relay_late_p50_ms": round(lateness.real_ms(SHARE_HALF), 2),
        "relay_late_p99_ms": round(tail_ms, 2),
    }
    lags = []
    if late_ns > 0:
        lags.append(f"the programs were ready {late_ns / NS_PER_S:.1f} mission s after T+0")
    if tail_s > pace.patience_s:
        lags.append(
            f"1 % of the relay's frames were more than {tail_ms:.1f} ms late, {tail_s:.1f} mission s, where links "
            f"expect at most {pace.patience_s:.1f}"
        )
    wire_ms, wire_s = wire_delays.real_ms(SHARE_TAIL), wire_delays.mission_s(SHARE_TAIL)
    if wire_ms:
        outcome.counters["broker_p50_ms"] = round(wire_delays.real_ms(SHARE_HALF), 2)
        outcome.counters["broker_p99_ms"] = round(wire_ms, 2)
    if wire_ms > pace.latency_s * 1e3:
        lags.append(
            f"frames took up to {wire_ms:.0f} ms through the broker, {wire_s:.0f} mission s, where links expect at "
            f"most {pace.patience_s:.0f}"
        )
    outcome.lag = "; ".join(lags)
