"""What MQTT links do beyond the contract of all bearers: presence, last will, login, persistent sessions."""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from flightsw.link.mqtt import MqttLink
from flightsw.link.mqtt_client import _ClientLoop
from flightsw.link.mqtt_session import INBOX_FRAMES_MAX, MqttSession
from flightsw.link.records import pack_record
from flightsw.link.urls import open_link, parse_url
from hil.broker import Broker
from hil.channel.link_contract import Mailbox
from hil.channel.wires import MqttWires

WAIT_S = 400
KINDS = ["nats", "mosquitto"]
NODE = """
import asyncio, sys
from flightsw.link.urls import open_link
async def main():
    link = await open_link(sys.argv[1])
    await asyncio.get_running_loop().create_future()
asyncio.run(main())
"""
RECEIVER = """
import asyncio, sys
from flightsw.link.urls import open_link
async def main():
    link = await open_link(sys.argv[1])
    link.set_receiver(lambda interface, frame: print(interface, bytes(frame).hex()))
    await link.wait_connected()
    await link.close()
asyncio.run(main())
"""


@contextlib.asynccontextmanager
async def bench(broker, query=""):
    mark = "&" if "?" in broker.url else "?"
    wires = MqttWires(f"{broker.url}{mark}{query}" if query else broker.url, "lab/test")
    await wires.open()
    try:
        yield wires
    finally:
        await wires.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_the_last_will_of_a_killed_process_is_seen_by_the_bench(kind, need_tool):
    if kind == "mosquitto":
        need_tool(kind)
    async with Broker.start(kind) as broker, bench(broker) as wires, asyncio.timeout(WAIT_S):
        wire = wires.wire("sat-03")
        assert not wire.is_present
        root = Path(__file__).parents[2]
        node = await asyncio.create_subprocess_exec(sys.executable, "-c", NODE, wire.url, cwd=root)
        try:
            await wire.wait_present()
        finally:
            node.send_signal(signal.SIGKILL)
            await node.wait()
        await wire.wait_absent()


async def test_presence_is_retained_for_a_bench_that_comes_later():
    async with Broker.start("nats") as broker, asyncio.timeout(WAIT_S):
        link = await open_link(f"{broker.url}/lab/test?client=early")
        async with bench(broker) as wires:
            await wires.wire("early").wait_present()
            await link.close()
            await wires.wire("early").wait_absent()
        async with bench(broker) as wires:
            link = await open_link(f"{broker.url}/lab/test?client=other")
            await wires.wire("other").wait_present()
            assert not wires.wire("early").is_present
            await link.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_wrong_password_is_told_and_not_shown(kind, need_tool):
    if kind == "mosquitto":
        need_tool(kind)
    async with Broker.start(kind, user=("node", "right")) as broker:
        server = broker.url.partition("?")[0].removeprefix("mqtt://")
        link = await open_link(f"mqtt://node:hunter2@{server}/lab?client=x")
        assert not link.status().is_connected
        assert "authori" in link.status().error.lower()
        assert "hunter2" not in link.status().error
        await link.close()
        right = await open_link(f"mqtt://node:right@{server}/lab?client=x")
        assert right.status().is_connected
        await right.close()


# paho-mqtt leaves the socket of a failed handshake to the garbage collector, which closes it and warns
@pytest.mark.filterwarnings("ignore:.*ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning")
async def test_a_broker_of_another_name_or_authority_is_not_trusted(certificates):
    async with Broker.start("nats", tls=certificates) as broker:
        port = broker.url.partition("?")[0].rpartition(":")[2]
        for url in (
            f"mqtts://localhost:{port}/lab?client=x&cafile={certificates.cafile}",
            f"mqtts://127.0.0.1:{port}/lab?client=x",
        ):
            link = await open_link(url)
            assert not link.status().is_connected
            assert "certificate verify failed" in link.status().error
            await link.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_broker_that_wants_certificates_of_clients_gets_ours_and_takes_no_other(kind, certificates, need_tool):
    if kind == "mosquitto":
        need_tool(kind)
    ours = replace(certificates, client_certfile=certificates.cafile.parent / "client-both.pem")
    async with Broker.start(kind, tls=ours) as broker:
        link = await open_link(f"{broker.url.replace('?', '/lab?')}&client=x")
        assert link.status().is_connected
        await link.close()
        server = broker.url.partition("?")[0]
        link = await open_link(f"{server}/lab?client=x&cafile={certificates.cafile}")
        assert not link.status().is_connected
        assert "before the broker has answered" in link.status().error
        await link.close()


async def test_a_broker_that_hangs_up_before_it_answers_is_left_at_once():
    hung_up = asyncio.Event()

    async def hang_up(reader, writer):
        await reader.read(1)
        writer.close()
        hung_up.set()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    link = MqttLink(parse_url(f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}/lab?client=x"))
    await link.open()
    assert hung_up.is_set()
    assert "before the broker has answered" in link.status().error, "and not after a wait that timed out"
    await link.close()
    server.close()


async def test_a_broker_that_hangs_up_right_behind_its_answer_leaves_no_error_that_nobody_takes():
    errors = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context))

    async def answer_and_hang_up(reader, writer):
        await reader.read(1)
        writer.write(b"\x20\x02\x00\x00")
        writer.close()

    server = await asyncio.start_server(answer_and_hang_up, "127.0.0.1", 0)
    link = MqttLink(parse_url(f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}/lab?client=x"))
    await link.open()
    assert link.status().error
    await link.close()
    server.close()
    gc.collect()
    assert errors == []


async def test_servers_are_tried_in_turn():
    async with Broker.start("nats") as broker, asyncio.timeout(WAIT_S):
        server = broker.url.removeprefix("mqtt://")
        link = await open_link(f"mqtt://127.0.0.1:1,{server}/lab?client=x")
        assert "127.0.0.1:1: " in link.status().error
        await link.wait_connected()
        await link.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_with_qos_1_the_broker_keeps_what_is_for_a_node_that_is_away(kind, need_tool):
    if kind == "mosquitto":
        need_tool(kind)
    wanted = [(1, bytes([index]) * 50) for index in range(1, 101)]
    async with Broker.start(kind) as broker, bench(broker, "qos=1") as wires, asyncio.timeout(WAIT_S):
        wire = wires.wire("sat")
        link = await open_link(wire.url)
        await wire.wait_present()
        await link.close()
        await wire.wait_absent()
        for record in wanted:
            wire.deliver(*record)
        while wires.status().sent_count < len(wanted):
            await asyncio.sleep(0.01)
        link = await open_link(wire.url)
        mailbox = Mailbox()
        link.set_receiver(mailbox.take)
        await mailbox.expect(wanted, "kept by the broker")
        await link.close()


@pytest.mark.parametrize("library", ["aiomqtt", pytest.param("asyncio-mqtt", marks=pytest.mark.slow)])
async def test_what_a_broker_sends_right_behind_its_answer_is_acknowledged_and_handed_on(library, peer_python):
    python = sys.executable if library == "aiomqtt" else str(peer_python(library))
    wanted = [(index % 3, bytes([index]) * 20) for index in range(1, 31)]
    acknowledged = []

    def packet(kind, body):
        return bytes([kind, len(body)]) + body

    async def answer(reader, writer):
        topic = b"\x00\x0alab/x/down"
        kept = [
            packet(0x32, topic + number.to_bytes(2, "big") + pack_record(*record))
            for number, record in enumerate(wanted, 1)
        ]
        while True:
            kind, size_bytes = await reader.readexactly(2)
            body = await reader.readexactly(size_bytes)
            match kind >> 4:
                case 1:  # connect: the session is there, and so is all that came meanwhile
                    writer.write(packet(0x20, b"\x01\x00") + b"".join(kept))
                case 3:  # publish, of presence
                    after_topic = 2 + int.from_bytes(body[:2], "big")
                    writer.write(packet(0x40, body[after_topic : after_topic + 2]))
                case 4:  # acknowledge
                    acknowledged.append(int.from_bytes(body, "big"))
                case 8:  # subscribe
                    writer.write(packet(0x90, body[:2] + b"\x01"))
                case 14:  # disconnect
                    writer.close()
                    return

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}/lab?client=x&qos=1"
    root = Path(__file__).parents[2]
    async with asyncio.timeout(WAIT_S):
        node = await asyncio.create_subprocess_exec(
            python, "-c", RECEIVER, url, cwd=root, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await node.communicate()
    server.close()
    assert acknowledged == list(range(1, len(wanted) + 1)), "the library acknowledges what it reads"
    assert said.decode().splitlines() == [f"{interface} {frame.hex()}" for interface, frame in wanted]


async def test_with_qos_0_what_is_sent_without_a_connection_is_dropped_and_counted():
    link = await open_link("mqtt://127.0.0.1:1/lab?client=x")
    for _ in range(3):
        link.send(1, b"frame")
    assert link.status().dropped_out_count == 3
    assert link.status().sent_count == 0
    await link.close()


async def test_with_qos_1_the_queue_keeps_its_bound_without_a_connection():
    session = MqttSession(
        parse_url("mqtt://127.0.0.1:1/lab?client=x&qos=1"), [], has_presence=False, on_message=print, frames_max=10
    )
    await session.open()
    for _ in range(25):
        session.publish("lab/x/up", b"frame")
    assert session.status().dropped_out_count == 15
    await session.close()
    assert session.status().dropped_out_count == 25


def test_frames_before_a_receiver_are_kept_up_to_a_bound_and_the_rest_counted():
    async def main():
        link = MqttLink(parse_url("mqtt://127.0.0.1:1/lab?client=x"))
        for index in range(INBOX_FRAMES_MAX + 5):
            link._on_message("lab/x/down", pack_record(index % 7, index.to_bytes(4, "big")))
        link._on_message("lab/x/down", b"\xff")
        got = []
        link.set_receiver(lambda interface, frame: got.append(int.from_bytes(frame, "big")))
        assert got == list(range(5, INBOX_FRAMES_MAX + 5))
        assert link.status().dropped_in_count == 5
        assert link.status().bad_records_count == 1
        assert link.status().received_count == INBOX_FRAMES_MAX

    asyncio.run(main())


async def test_an_error_of_the_receiver_is_the_loops_business_and_not_a_broken_line():
    errors = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context["exception"]))
    async with Broker.start("nats") as broker, bench(broker) as wires, asyncio.timeout(WAIT_S):
        wire = wires.wire("sat")
        link = await open_link(wire.url)
        await wire.wait_present()
        link.set_receiver(lambda interface, frame: 1 // 0)
        wire.deliver(1, b"frame")
        while not errors:
            await asyncio.sleep(0.01)
        mailbox = Mailbox()
        link.set_receiver(mailbox.take)
        wire.deliver(2, b"frame")
        await mailbox.expect([(2, b"frame")], "after the error")
        assert [type(error) for error in errors] == [ZeroDivisionError]
        assert link.status().connects_count == 1
        await link.close()


async def test_a_socket_that_closed_before_the_loop_watches_it_is_passed_over():
    loop = asyncio.get_running_loop()
    seen_by_client = _ClientLoop(loop)
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        writable = asyncio.Event()
        seen_by_client.call_soon_threadsafe(seen_by_client.add_writer, near.fileno(), writable.set)
        assert loop.remove_writer(near.fileno()), "a writer is added at once, before the socket may be closed"
    for descriptor in (near.fileno(), os.open(os.devnull, os.O_RDONLY)):
        if descriptor > 0:
            os.close(descriptor)
        seen_by_client.add_writer(descriptor, writable.set)
        seen_by_client.add_reader(descriptor, writable.set)
    assert seen_by_client.time() <= loop.time(), "all else is the loop's own"


@pytest.mark.slow
@pytest.mark.parametrize("qos", [0, 1])
async def test_brokers_killed_under_load_leave_no_error_that_nobody_takes(qos, need_tool):
    need_tool("mosquitto")
    loop, errors = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda loop, context: errors.append(context))
    async with Broker.start("mosquitto") as broker, bench(broker, f"qos={qos}") as wires:
        names = [f"sat-{index}" for index in range(6)]
        links = [await open_link(wires.wire(name).url) for name in names]
        for link in links:
            link.set_receiver(lambda interface, frame: None)

        async def load():
            while True:
                for name, link in zip(names, links, strict=True):
                    for _ in range(10):
                        link.send(1, bytes(60_000))
                        wires.wire(name).deliver(1, bytes(60_000))
                await asyncio.sleep(0.02)

        loading = loop.create_task(load())
        for _ in range(5):
            received_count = links[0].status().received_count
            async with asyncio.timeout(WAIT_S):
                while links[0].status().received_count == received_count:
                    await asyncio.sleep(0.01)
                await broker.kill()
                while any(link.status().is_connected for link in links):
                    await asyncio.sleep(0.01)
                await broker.revive()
                for link in links:
                    await link.wait_connected()
        loading.cancel()
        for link in links:
            assert link.status().connects_count == 6
            await link.close()
    gc.collect()
    assert errors == []


async def test_all_packets_that_wait_are_read_in_one_turn_of_the_loop():
    near, far = socket.socketpair()
    with near, far:
        watched, packets = [], []
        loop = asyncio.get_running_loop()
        near.setblocking(False)

        class Watching:
            def add_reader(self, descriptor, callback):
                watched.append((descriptor, callback))

        client_loop = _ClientLoop(loop)
        client_loop._loop = Watching()
        client_loop.add_reader(near.fileno(), lambda: packets.append(near.recv(1)))
        ((descriptor, read_all),) = watched
        far.sendall(b"packets")
        read_all()
        assert (descriptor, b"".join(packets)) == (near.fileno(), b"packets")
