"""Waiting for a node's sign of life: what counts as one, on a line and at a ground."""

import asyncio
import os
import tty

import msgspec
import pytest

from flightsw.config import InterfaceConfig
from flightsw.errors import ConfigError, LinkTimeout
from flightsw.host.control import serve
from flightsw.link.record_stream import stuff_record
from flightsw.net.agent import BundleAgent
from flightsw.net.contacts import Contact, ContactPlan
from flightsw.wire.messages import SERVICE_TELEMETRY, Beacon, Mode, encode_message
from hil.inventory.listening import Ear, GroundListener, Listener

NODE, GROUND = 11, 1
S = 1_000_000_000
RADIO = (InterfaceConfig(index=0, name="radio", coding="cobs-crc32c"),)
BEACON = Beacon(NODE, 3, 5, 0, Mode.NOMINAL, 1, 900, 200, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, bytes(8))


def frames_of(beacon, *, node=NODE):
    """What a node puts on its wire for a beacon."""
    plan = ContactPlan([Contact(0, 10**18, node, 0, GROUND, 0, 1e9, 0)])
    agent = BundleAgent(node, plan, RADIO, session_base=1)
    payload = encode_message(beacon)
    agent.send(GROUND, SERVICE_TELEMETRY, payload, now_ns=0, utc_ns=0, lifetime_ms=60_000, reliable=False)
    return agent.pump(0)


def test_the_beacons_of_the_node_are_found_and_nothing_else():
    ear = Ear(NODE, RADIO)
    ((interface, frame),) = frames_of(BEACON)
    assert ear.take(interface, frame) == [BEACON]
    assert ear.take(7, frame) == [], "no interface of the node"
    other = msgspec.structs.replace(BEACON, node=12)
    assert ear.take(*frames_of(other, node=12)[0]) == []
    assert ear.frames_count == 3


def test_noise_is_no_beacon():
    ear = Ear(NODE, RADIO)
    ((interface, made),) = frames_of(BEACON)
    frame = bytes(made)
    for at in range(len(frame)):
        damaged = frame[:at] + bytes([frame[at] ^ 1]) + frame[at + 1 :]
        assert ear.take(interface, damaged) == []


class Line:
    """A pseudo-terminal whose other end is the node's."""

    def __init__(self):
        self.node, self.port = os.openpty()
        tty.setraw(self.port)
        self.url = f"serial://{os.ttyname(self.port)}"

    def say(self, beacon):
        for interface, frame in frames_of(beacon):
            os.write(self.node, stuff_record(interface, frame))

    def close(self):
        os.close(self.node)
        os.close(self.port)


@pytest.fixture
def line():
    made = Line()
    yield made
    made.close()


async def seen(listener, count):
    """Return when so many frames have come."""
    while listener._ear.frames_count < count:
        await asyncio.sleep(0)


async def heard(line, beacon, *, before_stop=False, time_scale=1.0):
    """Whether a beacon counts."""
    async with Listener(line.url, NODE, RADIO, time_scale) as listener:
        await listener.restarts()
        if before_stop:
            line.say(beacon)
            await seen(listener, 1)
        await listener.stopped()
        if not before_stop:
            line.say(beacon)
            await seen(listener, 1)
        try:
            return await listener.wait(0.01) == beacon
        except LinkTimeout:
            return False


async def test_a_beacon_counts_when_its_boot_is_no_older_than_the_restart(line):
    assert await heard(line, msgspec.structs.replace(BEACON, uptime_s=1))
    assert not await heard(line, msgspec.structs.replace(BEACON, uptime_s=60))
    assert await heard(line, msgspec.structs.replace(BEACON, uptime_s=60), time_scale=60.0), "mission seconds"


async def test_a_beacon_from_before_the_stop_does_not_count(line):
    assert not await heard(line, msgspec.structs.replace(BEACON, uptime_s=0), before_stop=True)


async def test_a_silent_line_and_a_wrong_one_are_told_apart(line):
    async with Listener(line.url, NODE, RADIO) as listener:
        await listener.restarts()
        await listener.stopped()
        with pytest.raises(LinkTimeout, match=r"no beacon within 0\.05 s on serial:.*: the line is silent"):
            await listener.wait(0.05)
        line.say(msgspec.structs.replace(BEACON, node=12))
        await seen(listener, 1)
        with pytest.raises(LinkTimeout, match=": 1 frames came"):
            await listener.wait(0.01)


async def test_a_port_that_another_program_has_is_said(line):
    async with Listener(line.url, NODE, RADIO):
        with pytest.raises(ConfigError, match="is another program using the port"):
            async with Listener(line.url, NODE, RADIO):
                pass


class Ground:
    """What a running ground answers."""

    def __init__(self):
        self.t_ns = 100 * S
        self.rows = [{"node": NODE, "name": "sat-01"}]

    def handlers(self):
        return {"status": self.status, "nodes": self.nodes}

    def status(self):
        return {"t_ns": self.t_ns}

    def nodes(self):
        return self.rows

    def hears(self, at_s, uptime_s):
        self.rows[0] |= {"heard_ns": at_s * S, "uptime_s": uptime_s}


async def test_a_ground_has_heard_the_node_anew_when_its_boot_is_new(tmp_path):
    ground = Ground()
    ground.hears(99, 50)
    server = await serve(tmp_path / "control", ground.handlers())
    try:
        async with GroundListener(tmp_path / "control", "sat-01") as listener:
            await listener.restarts()
            ground.t_ns = 101 * S
            await listener.stopped()
            for at_s, uptime_s in ((99, 50), (110, 61), (100, 0)):  # nothing new, an old boot, before the stop
                ground.hears(at_s, uptime_s)
                with pytest.raises(LinkTimeout, match="has not heard sat-01 anew"):
                    await listener.wait(0.05)
            ground.hears(110, 8)
            await listener.wait(5.0)
        with pytest.raises(ConfigError, match="no node 'sat-02' in its fleet"):
            async with GroundListener(tmp_path / "control", "sat-02"):
                pass
    finally:
        await server.close()
