"""How fast fleets of 12 to 2,800 nodes run in virtual time, all layers, and where the time goes.

Run: python benchmarks/sim_speed.py [--nodes 12,120] [--seconds 600] [--no-profile] [--json FILE]

Every size runs in a process of its own (`heartbeat.py`), so that its peak memory is its own. Each is simulated for
about as many messages, in whole minutes, after a warm-up. This process imports next to nothing: the peak of memory of a
child is counted from what its parent had when it was started.
"""

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from report import Report

NODES: Final = (12, 120, 1000, 2800)
BEACON_PERIOD_S: Final = 10.0
MESSAGES_COUNT: Final = 40_000
"""About 5 s of CPU."""
PROFILED_MESSAGES_COUNT: Final = 10_000
MINUTE_S: Final = 60.0
"""The longest period of what nodes and ground do at regular times [s]."""

SPEED_GOALS: Final = {12: "at least 3000", 2800: "at least 20"}
MEMORY_GOALS: Final = {2800: "at most 500"}
FLAT_FROM: Final = 120
FLAT_TO: Final = 2800
FLOOR_US: Final = 14.5
FLOOR_CALLBACKS: Final = 4
"""A heartbeat of 64 bytes that is only packed, checked and traced, on the same loop: all that is no layer of ours."""
MODULES_SHOWN: Final = 14


def measure(nodes: int, seconds: float, *options: str) -> dict[str, Any]:
    """Costs of one fleet, from a fresh process."""
    command = [sys.executable, str(Path(__file__).with_name("heartbeat.py"))]
    command += ["--nodes", str(nodes), "--seconds", str(seconds), *options]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    costs: dict[str, Any] = json.loads(done.stdout)
    return costs


def minutes_for(nodes: int, messages_count: int) -> float:
    """Whole minutes in which a fleet sends at least so many beacons [s]."""
    return MINUTE_S * math.ceil(messages_count * BEACON_PERIOD_S / nodes / MINUTE_S)


def add_costs(report: Report, costs: dict[str, Any]) -> None:
    """The lines of one fleet."""
    nodes, messages = costs["nodes"], costs["messages"]
    speed = costs["simulated_s"] / costs["cpu_s"]
    report.add(f"{nodes} nodes: CPU for one simulated second", 1000 * costs["cpu_s"] / costs["simulated_s"], "ms")
    report.add(f"{nodes} nodes: speed", speed, "x real time", SPEED_GOALS.get(nodes, ""))
    report.add(f"{nodes} nodes: callbacks", costs["callbacks"] / messages, "for each message")
    report.add(f"{nodes} nodes: CPU for one message", message_us(costs), "us")
    report.add(f"{nodes} nodes: delivered", 100 * costs["delivered"] / messages, "% of messages")
    report.add(f"{nodes} nodes: peak memory", costs["peak_bytes"] / 1e6, "MB", MEMORY_GOALS.get(nodes, ""))


def message_us(costs: dict[str, Any]) -> float:
    """CPU time of one message [us]."""
    return float(1e6 * costs["cpu_s"] / costs["messages"])


def main() -> None:
    """Measure each size, then profile one of them."""
    parser = argparse.ArgumentParser(description="speed of fleets in virtual time")
    parser.add_argument("--nodes", default=",".join(map(str, NODES)), help="sizes, separated by commas")
    parser.add_argument(
        "--seconds", type=float, help="simulated seconds after the warm-up; about 5 s of CPU if not given"
    )
    parser.add_argument("--no-profile", action="store_true", help="do not say where the time goes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to a file")
    options = parser.parse_args()
    sizes = [int(size) for size in options.nodes.split(",")]
    report = Report("sim_speed")
    by_size = {}
    for nodes in sizes:
        by_size[nodes] = measure(nodes, options.seconds or minutes_for(nodes, MESSAGES_COUNT))
        add_costs(report, by_size[nodes])
    if FLAT_FROM in by_size and FLAT_TO in by_size:
        growth = message_us(by_size[FLAT_TO]) / message_us(by_size[FLAT_FROM])
        report.add(f"cost of a message, {FLAT_TO} to {FLAT_FROM} nodes", growth, "times", "at most 1.5")
    nodes = max(sizes)
    costs = measure(nodes, options.seconds or minutes_for(nodes, MESSAGES_COUNT), "--housekeeping", str(MINUTE_S))
    speed = costs["simulated_s"] / costs["cpu_s"]
    report.add(f"{nodes} nodes with housekeeping every minute: speed", speed, "x real time")
    report.add(f"{nodes} nodes with housekeeping every minute: CPU for one message", message_us(costs), "us")
    first = message_us(by_size[sizes[0]])
    report.add("a minimal framed heartbeat, as measured before", FLOOR_US, f"us in {FLOOR_CALLBACKS} callbacks")
    report.add(f"full stack over that, {sizes[0]} nodes", first / FLOOR_US, "times")
    if not options.no_profile:
        nodes = min(FLAT_FROM, max(sizes))
        costs = measure(nodes, options.seconds or minutes_for(nodes, PROFILED_MESSAGES_COUNT), "--profile")
        shares = list(costs["shares"].items())
        for module, share in shares[:MODULES_SHOWN]:
            report.add(f"profile share, {nodes} nodes: {module}", 100 * share, "%")
        rest = sum(share for _, share in shares[MODULES_SHOWN:])
        report.add(f"profile share, {nodes} nodes: {max(0, len(shares) - MODULES_SHOWN)} others", 100 * rest, "%")
    if options.json:
        report.write_json(options.json)


if __name__ == "__main__":
    main()
