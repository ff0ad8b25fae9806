"""One fleet that only says how it is, measured in this process. Prints its costs as one line of JSON to `sim_speed.py`.

Real nodes and a real ground, all layers: beacon, bundle, green segment, frame, channel, and back up to membership and
an archive on disk; a trace is written, and the fence is up. Every node has its own always open link to its own antenna,
so that each message goes one hop. No jobs, no orbits: what a message costs.

Run: python benchmarks/heartbeat.py --nodes 120 --seconds 600 [--housekeeping 60] [--profile]
"""

import argparse
import asyncio
import cProfile
import json
import pstats
import resource
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Final

from boards import profiles
from boards.simulated.board import SimulatedBoard
from boards.simulated.clock import LoopClock
from flightsw.compute.inference import InferenceCache
from flightsw.config import InterfaceConfig, NodeConfig, SunInterval
from flightsw.dictionary import flight_dictionary
from flightsw.link.memory import MemoryLink
from flightsw.net.contacts import Contact, ContactPlan
from flightsw.net.keys import KEY_BYTES, derived_rings
from flightsw.net.security import SecurityPolicy
from flightsw.ports import Log, ResetCause
from ground.fleet import FleetNode
from ground.segment import GroundSegment
from hil.bench.satellite import Satellite
from hil.bench.sky import FIRST_NODE, GROUND_NODE, RADIO
from hil.channel.impairments import Impairments
from hil.channel.light_time import NS_PER_KM
from hil.channel.link import Link
from hil.channel.relay import Relay
from hil.sim.disk import SimulatedDisk
from hil.sim.fence import fence
from hil.sim.loop import VirtualLoop
from hil.sim.streams import Streams
from hil.sim.trace import Trace

NS_PER_S: Final = 1_000_000_000
EPOCH_UTC_NS: Final = 1_790_812_800_000_000_000  # 2026-10-01T00:00:00Z
WARM_UP_S: Final = 60.0
"""Six beacons of each node, one look at all routes, all caches warm [s]."""
RANGE_KM: Final = 1500.0
RATE_BPS: Final = 1_000_000.0
DISK_BYTES: Final = 64 * 1024 * 1024
IMPAIRMENTS: Final = Impairments(rate_bps=RATE_BPS, loss=0.01, bit_error_rate=1e-6, jitter_s=0.005)
"""A fair link: one frame in a hundred vanishes, one in six hundred has a flipped bit, none is punctual."""
NEVER_S: Final = 1e9
"""Later than the end of any run: when night begins, so that no mode changes and nothing is sent but telemetry [s]."""


class Fleet:
    """A ground and nodes that beacon to it over one hop.

    Args:
        nodes_count: how many nodes.
        housekeeping_s: period of the housekeeping record, which is no beacon [s].
        folder: where trace, ledger and archive go.
        is_signed: whether telemetry is signed.
    """

    def __init__(self, nodes_count: int, housekeeping_s: float, folder: Path, is_signed: bool = True) -> None:
        self.loop = VirtualLoop()
        self.streams = Streams(7)
        self.trace = Trace(folder / "trace.jsonl", {"scenario": "heartbeat", "seed": 7})
        self.relay = Relay(self.loop.call_at_ns, lambda: self.loop.now_ns)
        self.crashes: list[BaseException] = []
        self._housekeeping_s = housekeeping_s
        self._is_signed = is_signed
        numbers = range(FIRST_NODE, FIRST_NODE + nodes_count)
        self._keys = derived_rings(self.streams.bytes("keys", KEY_BYTES), numbers, GROUND_NODE)
        clock = LoopClock(lambda: self.loop.now_ns, EPOCH_UTC_NS)
        plan = _plan(nodes_count)
        for index in range(nodes_count):
            link = Link(f"antenna-{index}", IMPAIRMENTS, self.streams.child("links").random, range_km=RANGE_KM)
            self.relay.connect((GROUND_NODE, index), (FIRST_NODE + index, RADIO), link)
        cache = InferenceCache()
        self.satellites = [self._satellite(index, plan, clock, cache) for index in range(nodes_count)]
        self.ground = self._ground(plan, clock, folder)

    def _satellite(self, index: int, plan: ContactPlan, clock: LoopClock, cache: InferenceCache) -> Satellite:
        name = f"sat-{index:04d}"
        profile = profiles.load("raspberry-pi-5")
        config = NodeConfig(
            node=FIRST_NODE + index,
            name=name,
            ground=GROUND_NODE,
            interfaces=(InterfaceConfig(index=RADIO, name="radio"),),
            housekeeping_period_s=self._housekeeping_s,
            sign_telemetry=self._is_signed,
        )
        return Satellite(
            config=config,
            profile=profile,
            plan=plan,
            sun=(SunInterval(0, round(NEVER_S * NS_PER_S)),),
            relay=self.relay,
            send=self.relay.send,
            clock=clock,
            board=SimulatedBoard(profile, clock, lambda _: 1.0),
            disk=SimulatedDisk(DISK_BYTES, self.streams.random(f"{name}/disk")),
            cache=cache,
            log=self._log_for(name),
            on_crash=lambda _, error: self.crashes.append(error),
            keys=self._keys[config.node],
        )

    def _ground(self, plan: ContactPlan, clock: LoopClock, folder: Path) -> GroundSegment:
        link = MemoryLink(lambda interface, frame: self.relay.send(GROUND_NODE, interface, frame))
        ground = GroundSegment(
            clock=clock,
            link=link,
            disk=SimulatedDisk(DISK_BYTES, self.streams.random("ground/disk")),
            plan=plan,
            interfaces=tuple(
                InterfaceConfig(index=index, name=f"antenna-{index}") for index in range(len(self.satellites))
            ),
            fleet=[_fleet_node(satellite) for satellite in self.satellites],
            dictionary_digest=flight_dictionary().digest,
            beacon_period_s=self.satellites[0].config.beacon_period_s,
            store_bytes=DISK_BYTES // 2,
            verify=lambda *_: None,
            on_complete=lambda *_: None,
            record=self._log_for("ground"),
            on_crash=self.crashes.append,
            archive_path=folder / "archive.db",
            keys=self._keys[GROUND_NODE],
            policy=SecurityPolicy(self._is_signed),
        )
        self.relay.attach(GROUND_NODE, link.deliver)
        return ground

    def _log_for(self, source: str) -> Log:
        record, loop = self.trace.record, self.loop
        return lambda kind, fields: record(loop.now_ns, source, kind, fields)

    async def start(self) -> None:
        """Boot all nodes, start the ground, and let the fleet run until it is warm."""
        for satellite in self.satellites:
            satellite.boot(ResetCause.POWER_ON)
        self.ground.start()
        await asyncio.sleep(WARM_UP_S)

    async def stop(self) -> None:
        """End all; the archive is written."""
        for satellite in self.satellites:
            satellite.stop()
        await self.ground.close()
        self.trace.close()

    def sent_count(self) -> int:
        """Messages that all nodes have sent so far."""
        return sum(one.node.agent.counters.bundles_sourced_count for one in self.satellites if one.node is not None)

    def delivered_count(self) -> int:
        """Messages that the ground has taken so far; all of them go to the archive."""
        return self.ground.agent.counters.bundles_delivered_count - self.ground.bad_messages_count


def _plan(nodes_count: int) -> ContactPlan:
    end_ns, light_time_ns = round(NEVER_S * NS_PER_S), round(RANGE_KM * NS_PER_KM)
    contacts = []
    for index in range(nodes_count):
        node = FIRST_NODE + index
        contacts.append(Contact(0, end_ns, node, RADIO, GROUND_NODE, index, RATE_BPS, light_time_ns))
        contacts.append(Contact(0, end_ns, GROUND_NODE, index, node, RADIO, RATE_BPS, light_time_ns))
    return ContactPlan(contacts)


def _fleet_node(satellite: Satellite) -> FleetNode:
    profile = satellite.profile
    return FleetNode(
        node=satellite.config.node,
        name=satellite.config.name,
        mpix_per_s=profile.mpix_per_s.value,
        compute_w=profile.compute_w.value,
        idle_w=profile.idle_w.value + profile.bus_w.value,
        array_w=profile.array_w.value,
        battery_j=profile.battery_wh.value * 3600.0,
        reserve=satellite.config.reserve,
        sun=(SunInterval(0, round(NEVER_S * NS_PER_S)),),
    )


async def _measure(fleet: Fleet, run_s: float, profiler: cProfile.Profile | None) -> dict[str, object]:
    await fleet.start()
    sent_count, callbacks_count = fleet.sent_count(), fleet.loop.callbacks_count
    delivered_count = fleet.delivered_count()
    if profiler is not None:
        profiler.enable()
    start_s = time.process_time()
    await asyncio.sleep(run_s)
    cpu_s = time.process_time() - start_s
    if profiler is not None:
        profiler.disable()
    costs: dict[str, object] = {
        "nodes": len(fleet.satellites),
        "simulated_s": run_s,
        "cpu_s": cpu_s,
        "messages": fleet.sent_count() - sent_count,
        "callbacks": fleet.loop.callbacks_count - callbacks_count,
        "delivered": fleet.delivered_count() - delivered_count,
    }
    await fleet.stop()
    if fleet.crashes:
        raise fleet.crashes[0]
    # KiB on Linux. A fresh process: the peak is that of this fleet alone.
    costs["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if profiler is not None:
        costs["shares"] = _shares(profiler)
    return costs


def _shares(profiler: cProfile.Profile) -> dict[str, float]:
    """Share of the profiled time by module; what built-in functions take counts for the module that calls them."""
    root = str(Path(__file__).resolve().parent.parent)
    seconds: defaultdict[str, float] = defaultdict(float)
    for (file, _, _), (_, _, own_s, _, callers) in pstats.Stats(profiler).stats.items():  # type: ignore[attr-defined]
        if file == "~":
            for (caller_file, _, _), (_, _, share_s, _) in callers.items():
                seconds[_module(caller_file, root)] += share_s
        else:
            seconds[_module(file, root)] += own_s
    total_s = sum(seconds.values())
    return {name: value / total_s for name, value in sorted(seconds.items(), key=lambda item: (-item[1], item[0]))}


def _module(file: str, root: str) -> str:
    if file.startswith(root) and "site-packages" not in file:
        return file.removeprefix(root).strip("/").removesuffix(".py")
    return "python and libraries"


def main() -> None:
    """Measure one fleet."""
    parser = argparse.ArgumentParser(description="one fleet that only beacons, as one line of JSON")
    parser.add_argument("--nodes", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True, help="simulated seconds after the warm-up")
    parser.add_argument("--housekeeping", type=float, default=NEVER_S, metavar="S", help="period; never if not given")
    parser.add_argument("--unsigned", action="store_true", help="do not sign telemetry")
    parser.add_argument("--profile", action="store_true", help="also say where the time goes; slows the run down")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        fleet = Fleet(options.nodes, options.housekeeping, Path(folder), not options.unsigned)
        with asyncio.Runner(loop_factory=lambda: fleet.loop) as runner, fence(fleet.loop):
            profiler = cProfile.Profile(time.process_time) if options.profile else None
            print(json.dumps(runner.run(_measure(fleet, options.seconds, profiler))))


if __name__ == "__main__":
    main()
