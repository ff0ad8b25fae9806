"""The bench's ends of lab wires; what both ends do together is in tests/flightsw/test_link_contract.py."""

import asyncio
import os
import sys
import termios
from pathlib import Path

import pytest

from flightsw.errors import ConfigError, LinkClosed
from flightsw.link.urls import open_link
from hil.broker import Broker
from hil.channel import wires as module
from hil.channel.link_contract import Mailbox
from hil.channel.wires import MqttWires, PtyWire

WAIT_S = 60
NODE = """
import asyncio, sys
from flightsw.link.urls import open_link
async def main():
    link = await open_link(sys.argv[1])
    link.send(1, sys.argv[2].encode())
    await asyncio.get_running_loop().create_future()
asyncio.run(main())
"""


async def start_node(url, word):
    root = Path(__file__).parents[2]
    return await asyncio.create_subprocess_exec(sys.executable, "-c", NODE, url, word, cwd=root)


async def test_a_pty_survives_that_the_nodes_process_is_killed_and_started_again():
    mailbox = Mailbox()
    wire = PtyWire(on_frame=mailbox.take)
    for word in ("first", "second"):
        node = await start_node(wire.url, word)
        try:
            await mailbox.expect([(1, word.encode())], f"the {word} process")
        finally:
            node.kill()
            await node.wait()
    assert wire.status().is_connected
    wire.close()


async def test_a_pty_is_raw_and_does_not_echo_before_anybody_sets_it_up():
    wire = PtyWire()
    node = os.open(wire.path, os.O_RDWR | os.O_NOCTTY)
    input_flags, output_flags, _, local_flags, *_ = termios.tcgetattr(node)
    assert not local_flags & (termios.ECHO | termios.ICANON | termios.ISIG | termios.IEXTEN)
    assert not input_flags & (termios.IXON | termios.ICRNL | termios.ISTRIP)
    assert not output_flags & termios.OPOST
    os.close(node)
    wire.close()


async def test_what_waits_for_a_node_without_power_is_forgotten_and_counted():
    wire = PtyWire()
    for _ in range(100):
        wire.deliver(1, bytes(10_000))
    waiting = 100 - wire.status().sent_count
    assert waiting > 1, "one is under way, others wait"
    wire.forget()
    assert wire.status().dropped_out_count == waiting
    link = await open_link(wire.url)
    mailbox = Mailbox()
    link.set_receiver(mailbox.take)
    wire.deliver(2, b"after the reset")
    await mailbox.expect([(2, b"after the reset")], "the first frame of the new boot")
    assert link.status().bad_records_count == 0
    await link.close()
    wire.close()


async def test_a_closed_pty_is_gone_for_both_sides():
    wire = PtyWire()
    wire.close()
    wire.close()
    assert not wire.status().is_connected
    with pytest.raises(LinkClosed):
        wire.deliver(1, b"late")
    with pytest.raises(OSError, match=r"No such|Input/output"):
        os.open(wire.path, os.O_RDWR | os.O_NOCTTY)


async def test_frames_from_a_node_that_nobody_takes_are_counted():
    wire = PtyWire()
    link = await open_link(wire.url)
    link.send(1, b"frame")
    async with asyncio.timeout(WAIT_S):
        while wire.status().dropped_in_count == 0:
            await asyncio.sleep(0.01)
    await link.close()
    wire.close()


async def test_many_nodes_share_one_client_of_the_bench_and_are_kept_apart():
    async with Broker.start("nats") as broker, asyncio.timeout(WAIT_S):
        wires = MqttWires(broker.url, "lab/many")
        await wires.open()
        links, up, down = [], [], []
        for index in range(12):
            wire = wires.wire(f"sat-{index:02}")
            up.append(Mailbox())
            wire.on_frame = up[-1].take
            links.append(await open_link(wire.url))
            down.append(Mailbox())
            links[-1].set_receiver(down[-1].take)
            await wire.wait_present()
        wanted = [[(index, bytes([index, number])) for number in range(50)] for index in range(12)]
        for number in range(50):
            for index, link in enumerate(links):
                link.send(*wanted[index][number])
                wires.wire(f"sat-{index:02}").deliver(*wanted[index][number])
        for index in range(12):
            await up[index].expect(wanted[index], f"from node {index}")
            await down[index].expect(wanted[index], f"to node {index}")
            assert wires.wire(f"sat-{index:02}").status().received_count == 50
        for link in links:
            await link.close()
        await wires.close()
        with pytest.raises(LinkClosed):
            wires.wire("sat-00").deliver(1, b"late")


async def test_messages_of_strangers_and_noise_are_counted():
    wires = MqttWires("mqtt://127.0.0.1:1", "lab")
    wire = wires.wire("known")
    wires._on_message("lab/stranger/up", b"\1\0frame")
    wires._on_message("lab/known/up", b"\xff")
    wires._on_message("lab/known/up", b"\1\0frame")
    assert wires.unknown_count == 1
    assert wire.status().bad_records_count == 1
    assert wire.status().dropped_in_count == 1


async def test_presence_of_clients_without_a_wire_is_remembered_up_to_a_bound(monkeypatch):
    monkeypatch.setattr(module, "PRESENT_MAX", 2)
    wires = MqttWires("mqtt://127.0.0.1:1", "lab")
    for name in ("one", "two", "three"):
        wires._on_message(f"lab/{name}/presence", b"online")
    assert [wires.wire(name).is_present for name in ("one", "two", "three")] == [True, True, False]
    wires._on_message("lab/three/presence", b"online")
    wires._on_message("lab/three/presence", b"online")
    assert wires.wire("three").is_present
    assert wires.wire("three").status().connects_count == 1, "told twice, as of a retained message and a fresh one"
    wires._on_message("lab/one/presence", b"offline")
    assert not wires.wire("one").is_present


async def test_presence_is_unknown_when_the_broker_is_lost_and_told_again():
    reports = []
    async with Broker.start("nats", report=reports.append) as broker, asyncio.timeout(WAIT_S):
        wires = MqttWires(broker.url, "lab")
        await wires.open()
        link = await open_link(wires.wire("sat").url)
        await wires.wire("sat").wait_present()
        await broker.kill()
        await wires.wire("sat").wait_absent()
        await broker.revive()
        await wires.wire("sat").wait_present()
        assert wires.wire("sat").status().connects_count == 2
        await link.close()
        await wires.close()


@pytest.mark.parametrize(
    ("url", "prefix", "word"),
    [
        ("serial:///dev/ttyUSB0", "", "mqtt://"),
        ("serial:///dev/ttyUSB0", "lab", "mqtt://"),
        ("mqtt://127.0.0.1", "", "prefix"),
        ("mqtt://127.0.0.1", "a/+/b", "prefix"),
        ("telepathy", "lab", "scheme"),
    ],
)
async def test_a_url_that_is_no_brokers_is_refused(url, prefix, word):
    with pytest.raises(ConfigError, match=word):
        MqttWires(url, prefix)


async def test_the_url_of_a_wire_opens_the_same_brokers_prefix_and_quality():
    wires = MqttWires("mqtt://one:1,two:2/ignored?qos=1&keepalive=7", "run-7")
    assert wires.wire("sat-03").url == "mqtt://one:1,two:2/run-7?client=sat-03&qos=1&keepalive=7"
