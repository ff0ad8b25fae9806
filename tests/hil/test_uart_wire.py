"""The bench's end of a board's UART: paced both ways by us, bounded, and found again after a power cut."""

import asyncio
import socket
import time  # noqa: TID251 - a rate is one of the machine's time here

import pytest

from flightsw.errors import LinkClosed
from flightsw.host.loop import PacedLoop
from flightsw.link.record_stream import RecordReader, stuff_record
from hil.channel.uart import SocketWire, port_line, socket_line
from hil.channel.wires import PtyWire
from hil.sim.loop import VirtualLoop

PATIENCE_S = 20.0
"""Longest wait for what comes at once."""
BAUD = 115_200


class Uart:
    """The emulated board's end: a Unix socket that the machine serves, as QEMU does."""

    def __init__(self, folder):
        self.path = folder / "uart"
        self.listener = None
        self.line = None

    def power_on(self):
        self.path.unlink(missing_ok=True)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(self.path))
        self.listener.listen(1)
        self.listener.setblocking(False)

    async def accept(self):
        self.line, _ = await asyncio.wait_for(asyncio.get_running_loop().sock_accept(self.listener), PATIENCE_S)
        self.line.setblocking(False)

    def power_off(self):
        for one in (self.line, self.listener):
            if one is not None:
                one.close()

    async def receive(self, reader, count):
        got = []
        while len(got) < count:
            data = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.line, 1 << 16), PATIENCE_S)
            assert data, "the wire was let go"
            got += reader.feed(data)
        return got


@pytest.fixture
def uart(tmp_path):
    made = Uart(tmp_path)
    yield made
    made.power_off()


def wire_to(uart, taken, baud=BAUD):
    return SocketWire(
        "sat-01",
        lambda: socket_line(uart.path),
        device="/dev/ttyAMA0",
        baud=baud,
        on_frame=lambda interface, frame: taken.append((interface, bytes(frame))),
    )


async def until(holds):
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(0.005)


async def test_frames_pass_both_ways_and_the_url_says_how_the_node_opens_its_end(uart):
    taken = []
    wire = wire_to(uart, taken)
    assert wire.url == "serial:///dev/ttyAMA0?baud=115200"
    uart.power_on()
    wire.plug()
    await uart.accept()
    wire.deliver(3, b"to the board")
    assert [(i, bytes(f)) for i, f in await uart.receive(RecordReader(), 1)] == [(3, b"to the board")]
    uart.line.send(stuff_record(2, b"from the board"))
    await until(lambda: taken)
    assert taken == [(2, b"from the board")]
    assert wire.status().is_connected
    wire.close()
    with pytest.raises(LinkClosed):
        wire.deliver(3, b"after the end")


async def test_a_board_that_is_switched_off_and_on_is_found_again_and_what_waited_for_it_is_lost_and_counted(uart):
    taken = []
    wire = wire_to(uart, taken)
    wire.plug()
    assert not wire.status().is_connected
    wire.deliver(0, b"to nobody")
    assert wire.status().dropped_out_count == 1
    assert "sat-01" in wire.status().error
    uart.power_on()
    await uart.accept()
    for _ in range(50):
        wire.deliver(0, bytes(1000))
    uart.power_off()
    await until(lambda: not wire.status().is_connected)
    status = wire.status()
    assert status.sent_count + status.dropped_out_count == 51
    assert status.dropped_out_count > 40
    uart.power_on()
    await uart.accept()
    await until(lambda: wire.status().is_connected)
    wire.deliver(1, b"after the boot")
    assert [(i, bytes(f)) for i, f in await uart.receive(RecordReader(), 1)] == [(1, b"after the boot")]
    assert wire.status().connects_count == 2
    wire.close()


def test_a_board_is_looked_for_until_the_wire_is_unplugged():
    looks = []

    def nothing():
        looks.append(asyncio.get_running_loop().time())
        raise FileNotFoundError(2, "no such socket")

    async def main():
        wire = SocketWire("sat-01", nothing, device="/dev/ttyAMA0", baud=BAUD)
        wire.plug()
        await asyncio.sleep(60)
        looked = len(looks)
        wire.unplug()
        await asyncio.sleep(60)
        assert 10 < looked == len(looks)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())


def mission_seconds(main, scale):
    """How long a coroutine takes on a loop of this time scale [mission s]."""
    loop = PacedLoop(time.time_ns(), scale)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:

        async def measured():
            began_s = loop.time()
            await main()
            return loop.time() - began_s

        return runner.run(measured())


def test_bytes_to_a_board_leave_at_the_rate_of_the_line_in_mission_time(uart):
    taken = []

    async def main():
        uart.power_on()
        wire = wire_to(uart, taken, baud=9600)
        wire.plug()
        await uart.accept()
        for _ in range(10):
            wire.deliver(0, bytes(range(96)) * 10)
        await uart.receive(RecordReader(), 10)
        wire.close()

    assert mission_seconds(main, 50.0) > 9.5  # 9,700 bytes at 960 a second, however fast the socket is


def test_bytes_of_a_board_are_taken_at_the_rate_of_the_line_in_mission_time(uart):
    taken = []

    async def main():
        uart.power_on()
        wire = wire_to(uart, taken, baud=9600)
        wire.plug()
        await uart.accept()
        uart.line.send(b"".join(stuff_record(0, bytes(range(96)) * 10) for _ in range(10)))  # all at once
        async with asyncio.timeout(PATIENCE_S * 50):
            while len(taken) < 10:
                await asyncio.sleep(0.05)
        wire.close()

    assert mission_seconds(main, 50.0) > 9.5


async def test_the_port_of_a_real_board_is_a_wire_too():
    board, taken = PtyWire(), []
    wire = SocketWire(
        "sat-09",
        lambda: port_line(board.path, BAUD),
        device="/dev/ttyAMA0",
        baud=BAUD,
        paces_intake=False,
        on_frame=lambda interface, frame: taken.append((interface, bytes(frame))),
    )
    wire.plug()
    board.deliver(4, b"from the board")
    await until(lambda: taken)
    assert taken == [(4, b"from the board")]
    wire.close()
    board.close()
