import asyncio
import errno
import os

import pytest

from flightsw.errors import LinkClosed
from flightsw.link.record_stream import stuff_record
from flightsw.link.urls import open_link
from flightsw.wire.frames import CodedFrame
from hil.channel.link_contract import Mailbox
from hil.channel.wires import PtyWire

POLL_S = 0.01
FAST = 1000
"""A loop on which a second passes in a millisecond."""


class FastLoop(asyncio.SelectorEventLoop):
    time_scale = FAST

    def time(self):
        return super().time() * FAST

    def _run_once(self):
        # timeouts of the selector are real seconds: an early wake does no harm
        select, self._selector.select = self._selector.select, lambda timeout=None: select(timeout and timeout / FAST)
        try:
            super()._run_once()
        finally:
            self._selector.select = select


async def until(holds):
    async with asyncio.timeout(60 * getattr(asyncio.get_running_loop(), "time_scale", 1)):
        while not holds():
            await asyncio.sleep(POLL_S)


async def test_a_link_to_a_device_that_is_not_there_waits_for_it(tmp_path):
    device = tmp_path / "device"
    link = await open_link(f"serial://{device}")
    assert not link.status().is_connected
    assert os.strerror(errno.ENOENT) in link.status().error
    link.send(1, b"too early")
    assert link.status().dropped_out_count == 1
    mailbox = Mailbox()
    wire = PtyWire(on_frame=mailbox.take)
    device.symlink_to(wire.path)
    await link.wait_connected()
    link.send(1, b"in time")
    await mailbox.expect([(1, b"in time")], "after the device came")
    await link.close()
    wire.close()


async def test_a_device_in_use_by_another_is_refused_and_taken_when_it_is_free():
    wire = PtyWire()
    first, second = await open_link(wire.url), await open_link(wire.url)
    assert (first.status().is_connected, second.status().is_connected) == (True, False)
    assert "lock" in second.status().error
    await first.close()
    await second.wait_connected()
    await second.close()
    wire.close()


async def test_frames_before_a_receiver_are_lost_and_counted():
    wire = PtyWire()
    link = await open_link(wire.url)
    wire.deliver(1, b"nobody listens")
    await until(lambda: link.status().dropped_in_count == 1)
    mailbox = Mailbox()
    link.set_receiver(mailbox.take)
    wire.deliver(2, b"somebody does")
    await mailbox.expect([(2, b"somebody does")], "with a receiver")
    assert link.status().received_count == 1
    await link.close()
    wire.close()


async def test_noise_on_the_line_is_counted_and_the_next_frame_arrives():
    master, slave = os.openpty()
    link = await open_link(f"serial://{os.ttyname(slave)}")
    mailbox = Mailbox()
    link.set_receiver(mailbox.take)
    damaged = bytearray(stuff_record(1, b"damaged"))
    damaged[3] ^= 0x40
    os.write(master, stuff_record(1, b"cut")[:3] + b"\0" + bytes(damaged) + stuff_record(2, b"whole"))
    await mailbox.expect([(2, b"whole")], "after noise")
    assert link.status().bad_records_count == 2
    await link.close()
    os.close(master)
    os.close(slave)


async def test_a_cut_in_the_middle_of_a_frame_counts_what_was_under_way_and_what_waited():
    wire = PtyWire()
    link = await open_link(wire.url)
    wire._stream.close()  # the other side stops reading, so that the kernel's buffer fills
    for _ in range(5):
        link.send(1, bytes(60_000))
    sent_count = link.status().sent_count
    assert sent_count < 5
    wire.close()
    await until(lambda: not link.status().is_connected)
    assert link.status().dropped_out_count == 5 - sent_count
    assert link.status().sent_count == sent_count
    await link.close()


async def test_a_receiver_may_close_the_link_between_two_frames():
    wire = PtyWire()
    link = await open_link(wire.url)
    got, closing = [], []

    def take(interface, frame):
        got.append(interface)
        link._stream.close()
        closing.append(asyncio.get_running_loop().create_task(link.close()))

    link.set_receiver(take)
    for interface in range(3):
        wire.deliver(interface, b"frame")
    await until(lambda: closing)
    await closing[0]
    assert got == [0]
    with pytest.raises(LinkClosed):
        link.send(0, b"late")
    wire.close()


def on_fast_loop(coroutine):
    with asyncio.Runner(loop_factory=FastLoop) as runner:
        return runner.run(coroutine)


def test_a_paced_line_takes_its_time_on_the_loops_clock():
    async def main():
        loop, mailbox = asyncio.get_running_loop(), Mailbox()
        wire = PtyWire(on_frame=mailbox.take)
        link = await open_link(f"{wire.url}?baud=9600")
        began_s = loop.time()
        for index in range(20):
            link.send(index, bytes(range(1, 201)))
        await until(lambda: len(mailbox.frames) == 20)
        took_s = loop.time() - began_s
        await link.close()
        wire.close()
        return took_s

    # 20 records of at least 200 bytes at 960 bytes a second, less a burst of 20 ms
    assert on_fast_loop(main()) >= 20 * 200 / 960 - 0.02


def test_padding_takes_line_time_and_does_not_move():
    async def main():
        loop, mailbox = asyncio.get_running_loop(), Mailbox()
        wire = PtyWire(on_frame=mailbox.take)
        link = await open_link(f"{wire.url}?baud=9600")
        began_s = loop.time()
        link.send(1, CodedFrame.received(b"head", 9600))
        await until(lambda: mailbox.frames)
        took_s = loop.time() - began_s
        await link.close()
        wire.close()
        return took_s, len(bytes(mailbox.frames[0][1]))

    took_s, moved_bytes = on_fast_loop(main())
    assert took_s >= 9600 / 960 - 0.02
    assert moved_bytes == 4


def test_a_paced_wire_of_the_bench_tells_the_node_its_rate():
    async def main():
        wire = PtyWire(baud=9600)
        assert wire.url.endswith("?baud=9600")
        mailbox = Mailbox()
        link = await open_link(wire.url)
        link.set_receiver(mailbox.take)
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        wire.deliver(1, bytes(range(1, 101)) * 10)
        await until(lambda: mailbox.frames)
        await link.close()
        wire.close()
        return loop.time() - began_s

    assert on_fast_loop(main()) >= 1000 / 960 - 0.02
