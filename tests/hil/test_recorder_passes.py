"""A node and a ground that see each other in passes: what could not be sent is in the archive later, once."""

import asyncio

import pytest

from boards import profiles
from boards.simulated.board import SimulatedBoard
from boards.simulated.clock import LoopClock
from flightsw.compute.inference import InferenceCache
from flightsw.config import InterfaceConfig, NodeConfig, SunInterval
from flightsw.core.recorder import FOLDER, Recorder
from flightsw.dictionary import flight_dictionary
from flightsw.link.memory import MemoryLink
from flightsw.net.contacts import Contact, ContactPlan
from flightsw.net.keys import derived_rings
from flightsw.ports import ResetCause
from flightsw.wire.messages import Event, decode_message
from ground.fleet import FleetNode
from ground.segment import GroundSegment
from hil.bench.satellite import Satellite
from hil.channel.impairments import Impairments
from hil.channel.light_time import NS_PER_KM
from hil.channel.link import Link
from hil.channel.relay import Relay
from hil.sim.disk import SimulatedDisk
from hil.sim.loop import VirtualLoop
from hil.sim.streams import Streams

S = 1_000_000_000
GROUND, NODE = 1, 11
PASSES_S = [(0, 600), (3600, 4200), (7200, 7800), (10_800, 11_400), (14_400, 15_000)]
END_S = 15_000
RATE_BPS, RANGE_KM = 200_000.0, 1500.0
SUN = (SunInterval(0, END_S * S),)
POOR = Impairments(rate_bps=RATE_BPS, loss=0.02, bit_error_rate=1e-6, jitter_s=0.005)


class Bench:
    """One satellite, one antenna, and a link that is open in passes."""

    def __init__(self, folder, seed, link_ends_s=600):
        self.loop = asyncio.get_running_loop()
        self.crashes, self.logged = [], []
        streams = Streams(seed)
        clock = LoopClock(lambda: self.loop.now_ns, 1_700_000_000 * S)
        self.relay = Relay(self.loop.call_at_ns, lambda: self.loop.now_ns)
        link = Link("radio", POOR, streams.random, range_km=RANGE_KM)
        for start_s, _ in PASSES_S:
            link.add_window(start_s * S, (start_s + link_ends_s) * S)
        self.relay.connect((GROUND, 0), (NODE, 0), link)
        light_ns = round(RANGE_KM * NS_PER_KM)
        plan = ContactPlan(
            Contact(start_s * S, end_s * S, a, 0, b, 0, RATE_BPS, light_ns)
            for start_s, end_s in PASSES_S
            for a, b in ((NODE, GROUND), (GROUND, NODE))
        )
        radio = (InterfaceConfig(index=0, name="radio"),)
        rings = derived_rings(bytes(32), [NODE], GROUND)
        profile = profiles.load("raspberry-pi-5")
        self.disk = SimulatedDisk(1 << 24, streams.random("disk"))
        self.satellite = Satellite(
            config=NodeConfig(node=NODE, name="sat-11", ground=GROUND, interfaces=radio),
            profile=profile,
            plan=plan,
            sun=SUN,
            relay=self.relay,
            send=self.relay.send,
            clock=clock,
            board=SimulatedBoard(profile, clock, lambda _: 1.0),
            disk=self.disk,
            cache=InferenceCache(),
            log=lambda kind, fields: self.logged.append(kind),
            on_crash=lambda name, error: self.crashes.append(error),
            keys=rings[NODE],
        )
        ground_link = MemoryLink(lambda interface, frame: self.relay.send(GROUND, interface, frame))
        self.ground = GroundSegment(
            clock=clock,
            link=ground_link,
            disk=SimulatedDisk(1 << 24, streams.random("ground")),
            plan=plan,
            interfaces=radio,
            fleet=[FleetNode(NODE, "sat-11", 10.0, 5.0, 5.0, 50.0, 1e6, 0.35, SUN)],
            dictionary_digest=flight_dictionary().digest,
            beacon_period_s=10.0,
            store_bytes=1 << 22,
            verify=lambda *_: None,
            on_complete=lambda *_: None,
            record=lambda kind, fields: None,
            on_crash=self.crashes.append,
            archive_path=folder / "archive.db",
            keys=rings[GROUND],
        )
        self.relay.attach(GROUND, ground_link.deliver)
        self.ground.start()
        self.satellite.boot(ResetCause.POWER_ON)

    async def until(self, seconds):
        await asyncio.sleep(seconds - self.loop.now_ns / S)

    async def close(self):
        self.satellite.stop()
        await self.ground.close()
        assert self.crashes == []


@pytest.fixture
def recorded(monkeypatch):
    """Every payload that a recorder was given."""
    taken = []
    record = Recorder.record

    def spied(self, payload, priority, **options):
        taken.append(payload)
        record(self, payload, priority, **options)

    monkeypatch.setattr(Recorder, "record", spied)
    return taken


def fly(scenario, folder, seed):
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(scenario(folder, seed))


def archived(bench):
    """(events, packets that came from the recorder) in the archive, by (boot, sequence)."""
    events = bench.ground.archive._db.execute(
        "SELECT boot_count, sequence FROM events WHERE node = ? ORDER BY 1, 2", (NODE,)
    ).fetchall()
    rows = bench.ground.archive.packets(NODE)
    return events, [(row.message.boot_count, row.message.sequence) for row in rows if row.recorded]


def numbers(payloads):
    """(events, packets) among payloads, by (boot, sequence)."""
    messages = [decode_message(payload) for payload in payloads]
    events = [(one.boot_count, one.sequence) for one in messages if isinstance(one, Event)]
    packets = [(one.boot_count, one.sequence) for one in messages if not isinstance(one, Event)]
    return events, packets


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("end", ["none", "reset", "power cut"])
def test_nothing_that_was_recorded_is_lost_or_doubled_over_loss_of_signal_resets_and_power_cuts(
    tmp_path, recorded, end, seed
):
    async def scenario(folder, seed):
        bench = Bench(folder, seed)
        for start_s, end_s in PASSES_S[:-1]:
            for second in range(0, 3000, 600):
                await bench.until(end_s + second + 7)
                if bench.satellite.node is not None:
                    bench.satellite.node.events.report("NODE.BAD_MESSAGE", f"at {start_s + second}")
            await bench.until(end_s + 2500)
            assert bench.disk.names(FOLDER), "in the gap something is recorded"
            if end == "reset":
                bench.satellite.node.commands.execute_onboard("NODE.RESET", (), "test")
            elif end == "power cut":
                bench.satellite.cut()
                bench.satellite.boot_later(120, ResetCause.POWER_ON)
            # in the middle of the pass that follows, while the recorder is played back
            await bench.until(end_s + 3000 + 12)
            if end == "power cut":
                bench.satellite.cut()
                bench.satellite.boot_later(30, ResetCause.POWER_ON)
        await bench.until(END_S - 1)
        stored = bench.satellite.node._parts.recorder.stored_count
        bench.ground.archive.flush()
        events, packets = archived(bench)
        await bench.close()
        return stored, events, packets

    stored, events, packets = fly(scenario, tmp_path, seed)
    kept_events, kept_packets = numbers(recorded)
    assert stored == 0
    assert len(kept_packets) > 150
    assert len(kept_events) >= 20
    boots = {boot_count for boot_count, _ in kept_packets}
    assert len(boots) == {"none": 1, "reset": 5, "power cut": 8}[end]
    assert packets == sorted(kept_packets)
    assert set(kept_events) <= set(events)
    assert len(events) == len(set(events))


def test_in_an_outage_that_no_plan_knows_packets_are_recorded_once_the_neighbour_is_suspected(tmp_path, recorded):
    async def scenario(folder, seed):
        bench = Bench(folder, seed, link_ends_s=200)
        await bench.until(250)
        for _ in range(3):  # something reliable finds out that nobody answers
            bench.satellite.node.events.report("NODE.BAD_MESSAGE", "hello?")
        await bench.until(599)
        during = len(recorded)
        await bench.until(4000)
        bench.ground.archive.flush()
        _, packets = archived(bench)
        await bench.close()
        return during, packets

    during, packets = fly(scenario, tmp_path, 1)
    assert during > 0
    assert set(packets) == set(numbers(recorded)[1])
