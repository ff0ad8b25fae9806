"""A beacon goes in every cycle that it is due in, also where cycles are late, each by another time."""

import asyncio
import random  # noqa: TID251 - seeded

from boards import profiles
from boards.simulated.board import SimulatedBoard
from boards.simulated.clock import LoopClock
from boards.simulated.runner import SimulatedRunner
from flightsw.compute.inference import InferenceCache
from flightsw.config import InterfaceConfig, NodeConfig
from flightsw.link.memory import MemoryLink
from flightsw.net.contacts import Contact, ContactPlan
from flightsw.node import Node
from flightsw.ports import NodePorts
from flightsw.wire.messages import Beacon
from hil.inventory.listening import Ear
from hil.sim.disk import SimulatedDisk
from hil.sim.loop import VirtualLoop

S = 1_000_000_000
NODE = 13  # whose cycles come 0.3 s after those of the clock's tens
RADIO = (InterfaceConfig(index=0, name="radio"),)
PLAN = ContactPlan([Contact(0, 10_000 * S, a, 0, b, 0, 1e6, 10**6) for a, b in ((1, NODE), (NODE, 1))])
LATE_S = (0.009, 0.001, 0.4, 0.002, 0.0)


class LateLoop(VirtualLoop):
    """A machine on which nothing that waits for a while comes in time."""

    def call_later(self, delay, callback, *args, context=None):
        late_s = LATE_S[int(self.time()) // 10 % len(LATE_S)] if delay > 1.0 else 0.0
        return super().call_later(delay + late_s, callback, *args, context=context)


def beacon_times_s(loop, until_s):
    """When a node that nobody answers sends its beacons [s]."""
    clock, ear, times_s = LoopClock(lambda: loop.now_ns, 0), Ear(NODE, RADIO), []

    def hear(interface, frame):
        times_s.extend(loop.time() for one in ear.take(interface, frame) if isinstance(one, Beacon))

    async def fly():
        profile = profiles.load("raspberry-pi-5")
        ports = NodePorts(
            clock=clock,
            link=MemoryLink(hear),
            disk=SimulatedDisk(1 << 24, random.Random(1)),
            board=SimulatedBoard(profile, clock, lambda now_ns: 1.0),
            runner=SimulatedRunner(profile, InferenceCache()),
            reset=lambda cause: None,
            log=lambda kind, fields: None,
        )
        node = Node(NodeConfig(node=NODE, name="sat-03", interfaces=RADIO), profile, ports, PLAN, ())
        running = asyncio.create_task(node.run())
        await asyncio.sleep(until_s)
        running.cancel()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(fly())
    return times_s


def test_no_cycle_is_left_out_when_cycles_are_late_each_by_another_time():
    times_s = beacon_times_s(LateLoop(), 200.0)
    assert [round(time_s) // 10 for time_s in times_s] == list(range(20))
