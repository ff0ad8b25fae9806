"""Every bearer keeps one contract, `hil.channel.link_contract`, each over the real thing."""

import asyncio
import os
import re
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from flightsw.errors import ConfigError
from flightsw.link.memory import MemoryLink
from flightsw.link.outbox import Outbox
from flightsw.link.record_stream import RecordStream, stuff_record
from flightsw.link.serial import SerialLink, SerialSettings
from flightsw.link.urls import open_link
from flightsw.wire.frames import padding_of
from hil.broker import Broker
from hil.broker_programs import BrokerTls
from hil.channel import link_contract
from hil.channel.link_contract import CHECKS, CableRig, ContractBroken, MqttRig, check_link
from hil.channel.wires import PtyWire

ROOT = Path(__file__).parents[2]
POLL_S = 0.01
USER = ("node", "p@ss:word/ä")


class MemoryRig:
    can_break = False
    keeps = False

    def __init__(self):
        self.near = MemoryLink(lambda interface, frame: self._receiver(interface, frame))

    def deliver(self, interface, frame):
        self.near.deliver(interface, frame)

    def set_far_receiver(self, receiver):
        self._receiver = receiver

    async def settle(self):
        pass

    def near_drops(self):
        return 0

    async def close(self):
        await self.near.close()


class PtyRig:
    """The near end opens a name that leads to one pseudo-terminal after another, as a name of udev does."""

    can_break = True
    keeps = False

    def __init__(self, folder):
        self._name = folder / "device"
        self._receiver = None
        self._plug_in()
        self.near = SerialLink(SerialSettings(path=str(self._name)))

    def _plug_in(self):
        self._wire = PtyWire(on_frame=self._receiver)
        self._name.symlink_to(self._wire.path)

    def deliver(self, interface, frame):
        self._wire.deliver(interface, frame)

    def set_far_receiver(self, receiver):
        self._receiver = self._wire.on_frame = receiver

    async def settle(self):
        await self.near.wait_connected()

    async def interrupt(self):
        self._name.unlink()
        self._wire.close()
        while self.near.status().is_connected:
            await asyncio.sleep(POLL_S)

    async def restore(self):
        self._plug_in()

    def near_drops(self):
        return self.near.status().dropped_out_count

    async def close(self):
        await self.near.close()
        self._wire.close()


class SocketRig:
    """The near end connects to a serial server of ours: one TCP connection, raw bytes."""

    can_break = True
    keeps = False

    def __init__(self):
        self._receiver = None
        self._port = 0
        self._peer = None
        self._listen()
        self.near = SerialLink(SerialSettings(host="127.0.0.1", port=self._port))

    def _listen(self):
        self._outbox = Outbox()
        self._server = socket.create_server(("127.0.0.1", self._port))
        self._server.setblocking(False)
        self._port = self._server.getsockname()[1]
        self._accepting = asyncio.get_running_loop().create_task(self._accept())

    async def _accept(self):
        self._peer, _ = await asyncio.get_running_loop().sock_accept(self._server)
        self._peer.setblocking(False)
        self._stream = RecordStream(
            self._peer.fileno(),
            lambda interface, frame: self._receiver(interface, frame),
            lambda why: None,
            self._outbox,
        )

    def deliver(self, interface, frame):
        record = stuff_record(interface, frame)
        self._outbox.put((record, padding_of(frame)), len(record))
        self._stream.flush()

    def set_far_receiver(self, receiver):
        self._receiver = receiver

    async def settle(self):
        await self.near.wait_connected()
        await self._accepting

    def _hang_up(self):
        self._server.close()
        if self._peer is not None:
            self._stream.close()
            self._peer.close()
            self._peer = None

    async def interrupt(self):
        self._hang_up()
        while self.near.status().is_connected:
            await asyncio.sleep(POLL_S)

    async def restore(self):
        self._listen()

    def near_drops(self):
        return self.near.status().dropped_out_count

    async def close(self):
        await self.near.close()
        self._hang_up()


@asynccontextmanager
async def opened(bearer, folder):
    """A rig of a bearer that needs no broker."""
    if bearer == "memory":
        yield MemoryRig()
    elif bearer == "cable":
        wires = [PtyWire(), PtyWire()]
        wires[0].on_frame, wires[1].on_frame = wires[1].deliver, wires[0].deliver
        yield CableRig(*[await open_link(wire.url) for wire in wires])
        for wire in wires:
            wire.close()
    else:
        rig = PtyRig(folder) if bearer == "pty" else SocketRig()
        await rig.near.open()
        yield rig


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("bearer", ["memory", "pty", "socket", "cable"])
async def test_a_bearer_without_broker_keeps_the_contract(bearer, check, tmp_path):
    async with opened(bearer, tmp_path) as rig:
        await check_link(rig, [check])


async def check_broker(broker, qos):
    for check in CHECKS:
        rig = await MqttRig.open(broker.url, qos=qos, prefix=f"contract-{check.__name__}", broker=broker)
        await check_link(rig, [check])


@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("kind", ["nats", "mosquitto"])
async def test_mqtt_keeps_the_contract_on_each_broker(kind, qos, need_tool):
    if kind == "mosquitto":
        need_tool(kind)
    async with Broker.start(kind) as broker:
        await check_broker(broker, qos)


@pytest.mark.parametrize("kind", ["nats", "mosquitto"])
async def test_mqtt_with_tls_user_and_password_keeps_the_contract_on_each_broker(kind, certificates, need_tool):
    if kind == "mosquitto":
        need_tool(kind)
    async with Broker.start(kind, tls=certificates, user=USER) as broker:
        assert broker.url.startswith("mqtts://")
        await check_broker(broker, 1)


@pytest.mark.slow
def test_asyncio_mqtt_the_former_name_keeps_the_contract_too(peer_python):
    python = peer_python("asyncio-mqtt")
    done = subprocess.run(
        [str(python), "-m", "hil.channel.link_contract", "nats"],
        cwd=ROOT,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    kept = re.findall(r"^qos (\d): (\w+): kept$", done.stdout, re.MULTILINE)
    assert kept == [(qos, check.__name__) for qos in "01" for check in CHECKS]
    assert "asyncio-mqtt" in done.stderr, "the library says its name when it is loaded; another was"


class LosingLink(MemoryLink):
    _sent = 0

    def send(self, interface, frame):
        self._sent += 1
        if self._sent != 6:
            super().send(interface, frame)


class OvertakingLink(MemoryLink):
    _held = None

    def send(self, interface, frame):
        if self._held is None and len(frame) == 6:
            self._held = (interface, frame)
            return
        super().send(interface, frame)
        if self._held is not None:
            super().send(*self._held)
            self._held = None


class SpoilingLink(MemoryLink):
    def send(self, interface, frame):
        super().send(interface, bytes(frame).replace(b"\r\n", b"\n").replace(b"\x0d", b"\x0a"))


class SwappingLink(MemoryLink):
    def send(self, interface, frame):
        super().send(interface % 256, frame)


class UndyingLink(MemoryLink):
    async def close(self):
        pass


@pytest.mark.parametrize(
    ("link", "check"),
    [
        (LosingLink, link_contract.carries_in_order),
        (OvertakingLink, link_contract.carries_in_order),
        (SpoilingLink, link_contract.carries_all_sizes),
        (SwappingLink, link_contract.carries_all_interfaces),
        (LosingLink, link_contract.bounds_a_burst),
        (UndyingLink, link_contract.closes),
    ],
    ids=lambda part: part.__name__,
)
async def test_the_contract_finds_a_bearer_that_breaks_it(link, check, monkeypatch):
    monkeypatch.setattr(link_contract, "WAIT_S_MAX", 0.2)
    monkeypatch.setattr(MemoryRig, "near_drops", lambda self: 1)
    rig = MemoryRig()
    rig.near = link(lambda interface, frame: rig._receiver(interface, frame))
    with pytest.raises(ContractBroken):
        await check_link(rig, [check])


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        ([], 2, "usage"),
        (["telepathy"], 2, "telepathy"),
        (["serial:///dev/one"], 2, "pairs"),
        (["mqtt://127.0.0.1:port"], 2, "server"),
        (["serial:///dev/one", "mqtt://127.0.0.1/lab?client=two"], 2, "serial"),
    ],
    ids=str,
)
def test_the_command_line_refuses_in_one_line(arguments, code, word, capsys):
    assert link_contract.main(arguments) == code
    said = capsys.readouterr().err
    assert word in said
    assert said.count("\n") == 1


def test_tls_of_a_running_broker_belongs_into_its_url(certificates):
    assert isinstance(certificates, BrokerTls)
    with pytest.raises(ConfigError, match="URL"):
        Broker.start("mqtts://127.0.0.1:8883", tls=certificates)
