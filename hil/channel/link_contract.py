"""What every bearer must keep, as checks that run against any of them.

    python -m hil.channel.link_contract nats
    python -m hil.channel.link_contract 'mqtts://user:password@broker:8883?cafile=ca.pem'
    python -m hil.channel.link_contract serial:///dev/ttyUSB0?baud=921600 serial:///dev/ttyUSB1?baud=921600

The first starts a broker (`nats` or `mosquitto`), the second uses one that runs, the third takes two ports that are
joined by a cable, of which nothing else may be connected. Exit code 1: a check failed.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from flightsw.errors import ConfigError, FlatrackError, LinkClosed, LinkError
from flightsw.link.mqtt import MqttLink
from flightsw.link.outbox import OUTBOX_FRAMES_MAX
from flightsw.link.records import INTERFACE_MAX, RECORD_FRAME_BYTES_MAX
from flightsw.link.serial import SerialLink
from flightsw.link.urls import open_link
from flightsw.ports import Frame, FrameReceiver, Link
from flightsw.wire.frames import CodedFrame, padding_of
from hil.broker import Broker
from hil.channel.wires import MqttWires

WAIT_S_MAX: Final = 60.0
"""Longest wait for what must come [s]: a loaded machine takes seconds; only a bearer that failed takes a minute."""

AROUND: Final = (254, 1024, 4096, 16_384, 65_536)
"""Sizes about which something changes [bytes]: a COBS block, buffers of terminals and sockets, the longest frame."""

_PATTERN: Final = bytes(range(256))
_POLL_S: Final = 0.01


class ContractBroken(LinkError):
    """A bearer does not keep the contract; says where."""


class Rig(Protocol):
    """A lab wire with both ends in our hands. `near` is the node's."""

    can_break: bool
    """Whether `interrupt` and `restore` work."""
    keeps: bool
    """Whether frames sent during an interruption are kept and, at times, delivered twice (QoS 1)."""

    @property
    def near(self) -> Link:
        """The node's end."""
        ...

    def deliver(self, interface: int, frame: Frame) -> None:
        """Send from the far end."""
        ...

    def set_far_receiver(self, receiver: FrameReceiver) -> None:
        """Say who takes frames at the far end."""
        ...

    async def settle(self) -> None:
        """Return when frames can move both ways."""
        ...

    async def interrupt(self) -> None:
        """Break the line; return when the near end has noticed."""
        ...

    async def restore(self) -> None:
        """Mend the line."""
        ...

    def near_drops(self) -> int:
        """Frames that the near end has dropped and counted on their way out."""
        ...

    async def close(self) -> None:
        """Close both ends."""
        ...


class Mailbox:
    """Takes what arrives, and waits for it."""

    def __init__(self) -> None:
        self.frames: list[tuple[int, Frame]] = []
        self._arrived = asyncio.Event()

    def take(self, interface: int, frame: Frame) -> None:
        """One frame arrived."""
        self.frames.append((interface, frame))
        self._arrived.set()

    async def until(self, is_done: Callable[[], bool], what: str) -> None:
        """Return when the condition holds, which is asked again at each arrival and now and then.

        Raises:
            ContractBroken: not within `WAIT_S_MAX`.
        """
        try:
            async with asyncio.timeout(WAIT_S_MAX):
                while not is_done():
                    self._arrived.clear()
                    try:
                        async with asyncio.timeout(_POLL_S):
                            await self._arrived.wait()
                    except TimeoutError:
                        continue
        except TimeoutError:
            raise ContractBroken(f"{what}: only {len(self.frames)} frames arrived in {WAIT_S_MAX:g} s") from None

    async def expect(self, wanted: Sequence[tuple[int, bytes]], what: str) -> None:
        """Return when just these frames have arrived in this order; forget them.

        Raises:
            ContractBroken: others did, or too few.
        """
        await self.until(lambda: len(self.frames) >= len(wanted), what)
        got = [(interface, bytes(frame)) for interface, frame in self.frames]
        self.frames.clear()
        for index, (one, other) in enumerate(zip(got, wanted, strict=False)):
            _require(one == other, f"{what}: frame {index} is {_brief(one)}, expected {_brief(other)}")
        _require(len(got) == len(wanted), f"{what}: {len(got)} frames arrived, expected {len(wanted)}")


Check = Callable[[Rig, Mailbox, Mailbox], Awaitable[None]]
"""Called with a rig that is settled, and mailboxes of its near and its far end."""


async def carries_in_order(rig: Rig, near: Mailbox, far: Mailbox) -> None:
    """Both ways at once, nothing lost, nothing twice, nothing overtaken."""
    wanted = [(index % 5, _pattern(index, 1 + index % 700)) for index in range(500)]
    for interface, frame in wanted:
        rig.near.send(interface, frame)
        rig.deliver(interface, frame)
    await far.expect(wanted, "to the far end")
    await near.expect(wanted, "to the near end")


async def carries_all_sizes(rig: Rig, near: Mailbox, far: Mailbox) -> None:
    """From one byte to the longest frame; with all byte values, with zeros alone and without any."""
    around = {size + step for size in AROUND for step in (-2, -1, 0, 1, 2)}
    sizes = sorted(size for size in {*range(1, 301), *around} if size <= RECORD_FRAME_BYTES_MAX)
    wanted = [(0, _pattern(size, size)) for size in sizes]
    wanted += [(0, bytes([value]) * 600) for value in (0, 1, 0x0D, 0x11, 0x13, 0xC0, 0xFF)]
    await _both_ways(rig, near, far, wanted, "sizes")


async def carries_all_interfaces(rig: Rig, near: Mailbox, far: Mailbox) -> None:
    """Interfaces from 0 to 65535."""
    interfaces = sorted({0, 1, 127, 128, 255, 256, 16_383, 16_384, INTERFACE_MAX, *range(0, INTERFACE_MAX, 1009)})
    await _both_ways(rig, near, far, [(interface, b"frame") for interface in interfaces], "interfaces")


async def carries_padding(rig: Rig, near: Mailbox, far: Mailbox) -> None:
    """Link time of synthetic data travels with its frame; a frame without it arrives as plain bytes."""
    rig.near.send(1, CodedFrame.received(b"head", 100_000))
    rig.deliver(1, CodedFrame.received(b"head", 100_000))
    rig.near.send(2, b"plain")
    rig.deliver(2, b"plain")
    for mailbox in (far, near):
        await mailbox.until(lambda mailbox=mailbox: len(mailbox.frames) == 2, "padding")  # type: ignore[misc]
        (_, padded), (_, plain) = mailbox.frames
        _require(bytes(padded) == b"head", f"padding: the frame is {bytes(padded)!r}")
        _require(padding_of(padded) == 100_000, f"padding: {padding_of(padded)} bytes, expected 100000")
        _require(plain == b"plain", f"padding: the plain frame is {plain!r}")


async def bounds_a_burst(rig: Rig, _near: Mailbox, far: Mailbox) -> None:
    """What is sent faster than it leaves waits in a bounded queue; what gives way is counted, and it is the oldest."""
    count = 3 * OUTBOX_FRAMES_MAX
    wanted = [(1, index.to_bytes(4, "big") * 8) for index in range(count)]
    before = rig.near_drops()
    for interface, frame in wanted:
        rig.near.send(interface, frame)
    await far.until(lambda: len(far.frames) + rig.near_drops() - before >= count, "burst")
    numbers = [int.from_bytes(bytes(frame)[:4], "big") for _, frame in far.frames]
    _require(numbers == sorted(set(numbers)), "burst: frames out of order or twice")
    _require(numbers[-1] == count - 1, "burst: the newest frame gave way")
    _require(len(numbers) + rig.near_drops() - before == count, "burst: frames are missing that no count has")


async def recovers(rig: Rig, near: Mailbox, far: Mailbox) -> None:
    """A line that breaks comes back by itself; what was sent meanwhile was kept, or dropped and counted."""
    if not rig.can_break:
        return
    before = rig.near_drops()
    await rig.interrupt()
    lost = [(7, _pattern(index, 100)) for index in range(10)]
    for interface, frame in lost:
        rig.near.send(interface, frame)
    await rig.restore()
    await rig.settle()
    if rig.keeps:
        await far.until(lambda: len(far.frames) >= len(lost), "kept frames")
        arrived = [(interface, bytes(frame)) for interface, frame in far.frames]
        _require(list(dict.fromkeys(arrived)) == lost, "recovery: kept frames are missing or out of order")
    else:
        _require(rig.near_drops() - before == len(lost), f"recovery: {rig.near_drops() - before} drops, expected 10")
    far.frames.clear()
    near.frames.clear()
    await carries_in_order(rig, near, far)


async def closes(rig: Rig, near: Mailbox, _far: Mailbox) -> None:
    """A closed link refuses to send, delivers nothing, and may be closed again."""
    await rig.near.close()
    await rig.near.close()
    try:
        rig.near.send(0, b"late")
    except LinkClosed:
        pass  # as it must
    else:
        raise ContractBroken("close: send after close was not refused")
    near.frames.clear()
    rig.deliver(0, b"to nobody")
    await asyncio.sleep(0)
    _require(not near.frames, "close: a frame was delivered after close")


CHECKS: Final[tuple[Check, ...]] = (
    carries_in_order,
    carries_all_sizes,
    carries_all_interfaces,
    carries_padding,
    bounds_a_burst,
    recovers,
    closes,
)


async def check_link(rig: Rig, checks: Sequence[Check] = CHECKS) -> None:
    """Run checks against one rig, and close it. `closes` ends the near end, so it comes last.

    Raises:
        ContractBroken: the bearer fails one; says which and where.
    """
    try:
        for check in checks:
            near, far = Mailbox(), Mailbox()
            rig.near.set_receiver(near.take)
            rig.set_far_receiver(far.take)
            async with asyncio.timeout(WAIT_S_MAX):
                await rig.settle()
            await check(rig, near, far)
    finally:
        await rig.close()


class MqttRig:
    """A rig over a broker.

    Made by `open`. `can_break` and the two that it speaks of are for those who hold the broker in their hands.
    """

    def __init__(self, near: MqttLink, wires: MqttWires, name: str, broker: Broker | None, keeps: bool) -> None:
        self.near = near
        self.can_break = broker is not None
        self.keeps = keeps
        self._link = near
        self._wires = wires
        self._wire = wires.wire(name)
        self._broker = broker

    @classmethod
    async def open(cls, url: str, *, qos: int = 0, prefix: str = "contract", broker: Broker | None = None) -> "MqttRig":
        """Both ends, on the broker of a URL without prefix; `broker` if it may be killed.

        Raises:
            ConfigError: the URL, or a file that it names, is wrong.
        """
        wires = MqttWires(f"{url}{'&' if '?' in url else '?'}qos={qos}", prefix)
        name = "near"
        await wires.open()
        near = await open_link(wires.wire(name).url)
        assert isinstance(near, MqttLink), "the URL of an MQTT wire opens an MQTT link"
        return cls(near, wires, name, broker, qos > 0)

    def deliver(self, interface: int, frame: Frame) -> None:
        """Send from the bench's end."""
        self._wire.deliver(interface, frame)

    def set_far_receiver(self, receiver: FrameReceiver) -> None:
        """Say who takes frames at the bench's end."""
        self._wire.on_frame = receiver

    async def settle(self) -> None:
        """Return when both ends are at the broker, and know of each other."""
        await self._wires.wait_connected()
        await self._link.wait_connected()
        await self._wire.wait_present()

    async def interrupt(self) -> None:
        """Kill the broker; return when both ends have noticed.

        Frames are kept for sessions in its store, and those of a rig are younger than what mosquitto has last written.
        """
        assert self._broker is not None, "a rig that can break"
        if self.keeps:
            await self._broker.save()
        await self._broker.kill()
        async with asyncio.timeout(WAIT_S_MAX):
            while self._link.status().is_connected or self._wires.status().is_connected:
                await asyncio.sleep(_POLL_S)

    async def restore(self) -> None:
        """Start the broker again."""
        assert self._broker is not None, "a rig that can break"
        await self._broker.revive()

    def near_drops(self) -> int:
        """Frames that the near end has dropped and counted on their way out."""
        return self._link.status().dropped_out_count

    async def close(self) -> None:
        """Close both ends."""
        await self._link.close()
        await self._wires.close()


class CableRig:
    """A rig over two ports that are joined by a cable."""

    can_break = False
    keeps = False

    def __init__(self, near: SerialLink, far: SerialLink) -> None:
        self.near = near
        self._ends = (near, far)

    def deliver(self, interface: int, frame: Frame) -> None:
        """Send from the far end."""
        self._ends[1].send(interface, frame)

    def set_far_receiver(self, receiver: FrameReceiver) -> None:
        """Say who takes frames at the far end."""
        self._ends[1].set_receiver(receiver)

    async def settle(self) -> None:
        """Return when both ports are open."""
        for end in self._ends:
            await end.wait_connected()

    async def interrupt(self) -> None:
        """Nobody pulls the cable."""
        raise AssertionError("a cable does not break by itself")

    async def restore(self) -> None:
        """Nor does anybody mend it."""
        raise AssertionError("a cable does not break by itself")

    def near_drops(self) -> int:
        """Frames that the near end has dropped and counted on their way out."""
        return self._ends[0].status().dropped_out_count

    async def close(self) -> None:
        """Close both ports."""
        for end in self._ends:
            await end.close()


async def _both_ways(rig: Rig, near: Mailbox, far: Mailbox, wanted: Sequence[tuple[int, bytes]], what: str) -> None:
    """One frame each way at a time, so that even long ones find room in every queue."""
    for interface, frame in wanted:
        rig.near.send(interface, frame)
        rig.deliver(interface, frame)
        await far.expect([(interface, frame)], f"{what}, to the far end")
        await near.expect([(interface, frame)], f"{what}, to the near end")


def _pattern(start: int, size_bytes: int) -> bytes:
    """Bytes that count up, zeros among them."""
    start %= 256
    return (_PATTERN[start:] + _PATTERN * (size_bytes // 256 + 1))[:size_bytes]


def _brief(record: tuple[int, bytes]) -> str:
    interface, frame = record
    return f"interface {interface}, {len(frame)} bytes {frame[:8].hex()}..."


def _require(holds: bool, text: str) -> None:
    if not holds:
        raise ContractBroken(text)


async def _check_broker(kind: str) -> None:
    scheme, separator, _ = kind.partition("://")
    if separator and scheme.lower() not in ("mqtt", "mqtts"):
        raise ConfigError("one URL: expected a broker's, mqtt:// or mqtts://; serial lines come in pairs")
    async with Broker.start(kind) as broker:
        for qos in (0, 1):
            for check in CHECKS:
                rig = await MqttRig.open(
                    broker.url,
                    qos=qos,
                    prefix=f"contract-{qos}-{check.__name__}",
                    broker=broker if broker.pids else None,
                )
                await check_link(rig, [check])
                print(f"qos {qos}: {check.__name__}: kept", flush=True)


async def _check_cable(urls: Sequence[str]) -> None:
    near, far = [await open_link(url) for url in urls]
    if not isinstance(near, SerialLink) or not isinstance(far, SerialLink):
        raise ConfigError("two URLs: expected serial lines; one URL of a broker is enough")
    await check_link(CableRig(near, far))
    print("kept")


def main(arguments: Sequence[str]) -> int:
    """Run the checks that the command line asks for; the exit code."""
    if len(arguments) not in (1, 2):
        print("usage: link_contract nats | mosquitto | URL of a broker | URL URL of two serial ports", file=sys.stderr)
        return 2
    try:
        asyncio.run(_check_broker(arguments[0]) if len(arguments) == 1 else _check_cable(arguments))
    except ConfigError as error:
        print(f"link_contract: {error}", file=sys.stderr)
        return 2
    except FlatrackError as error:
        print(f"link_contract: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
