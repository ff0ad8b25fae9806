"""What a run in real time has on the table besides coroutines: programs and boards with their lab wires, the bench port
that they report to, and a broker where a wire is MQTT."""

import asyncio
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from flightsw.errors import ConfigError, ControlError
from flightsw.host.control import SCHEME, ControlPeer, parse_address, serve, serve_url, token_holds
from flightsw.host.loop import PacedLoop
from flightsw.link.pacing import lab_s
from flightsw.link.records import pack_record
from flightsw.net.contacts import ContactPlan
from flightsw.net.keys import KeyRing
from flightsw.net.plans import encode_plan
from flightsw.ports import Frame, ResetCause
from hil.bench.board_addresses import lab_settings
from hil.bench.board_node import BoardNode
from hil.bench.inventory_board import LabBoards
from hil.bench.kinds import LAB_KINDS
from hil.bench.lab_boards import Door, Machines, emulated_node, inventory_node
from hil.bench.lab_broker import EMULATED_HOST, start_broker, url_on_board
from hil.bench.lab_programs import process_ground, process_node
from hil.bench.lab_wires import LabWire, MqttLabWire, SerialLabWire
from hil.bench.member import Member
from hil.bench.pace import Pace
from hil.bench.process_ground import NAME as GROUND_NAME
from hil.bench.process_ground import ProcessGround
from hil.bench.process_node import ProcessNode
from hil.bench.processes import Program
from hil.bench.scenario import Scenario
from hil.bench.sky import GROUND_NODE, Sky
from hil.bench.table import PLAN_FILE, Table, Watchers
from hil.channel.relay import Relay
from hil.channel.wires import MqttWires
from hil.emulation.tools import scratch_folder

NODES_FOLDER: Final = "nodes"
PROBE: Final = "probe"
"""Name of a client that the bench plays itself, to see how long its frames take through the broker."""
PROBE_BYTES: Final = 8
START_S_MAX: Final = 120.0
"""How much longer than expected the programs may take to start [s of the machine]: on a laptop that does other things
too."""
SETTLE_S_MAX: Final = 3.0
"""How long frames on their way through wires are waited for at the end [s of the machine]."""
SETTLE_POLL_S: Final = 0.05
"""Between two looks at them [s of the machine]."""
TOKEN_BYTES: Final = 16
"""Of a board at the bench port: nobody guesses 128 bits during a run."""
LOOPBACK: Final = f"{SCHEME}127.0.0.1:0"
"""Where emulated boards are served: their machines are programs of this one."""


class Lab:
    """Programs and boards of one run, and what joins them to the bench. Needs a running loop.

    Args:
        scenario, sky, plan: what runs, under which sky, with which predicted contacts.
        pace: of the run.
        loop: of the bench.
        relay: joins all lab wires.
        keys: of every node, by its number.
        folder: of the run; None for a temporary one, which is removed.
        watchers: told what happens.
        machines: makes the machines of emulated nodes; None when there are none.
        boards: the inventory's boards; None when there are none.
    """

    def __init__(
        self,
        scenario: Scenario,
        sky: Sky,
        plan: ContactPlan,
        *,
        pace: Pace,
        loop: PacedLoop,
        relay: Relay,
        keys: Mapping[int, KeyRing],
        folder: Path | None,
        watchers: Watchers,
        machines: Machines | None = None,
        boards: LabBoards | None = None,
    ) -> None:
        self.nodes: dict[str, ProcessNode] = {}
        self.boards: dict[str, BoardNode] = {}
        self.absent: dict[str, str] = {}
        """Boards that are missing, and why."""
        self.ground: ProcessGround | None = None
        self._scenario = scenario
        self._plan = plan
        self._pace = pace
        self._loop = loop
        self._run_folder = folder
        self._machines = machines
        self._lab_boards = boards
        self._table = Table(
            scenario, sky, plan, pace, loop, relay, keys, Path(), replace(watchers, on_crash=self._crashed)
        )
        self._watchers = watchers
        self._wires: list[LabWire] = []
        self._tokens: dict[str, str] = {}
        self._mqtt: MqttWires | None = None
        self._broker_url = ""
        self._probe_topic = ""
        self._stack = AsyncExitStack()
        self._trouble: asyncio.Future[None] = loop.create_future()
        """Fails when a program ends while all others are starting."""

    async def open(self) -> None:
        """Make folders and sockets, start the broker if one is needed, and compose the programs; none runs yet.

        Raises:
            ConfigError: something cannot be made or reached, or a board is missing and the run may not go on without.
        """
        stack, scenario = self._stack, self._scenario
        short = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flatrack-")))  # paths of sockets are short
        self._socket = short / "bench"
        folder = (self._run_folder or short) / NODES_FOLDER
        folder.mkdir()
        self._table = replace(self._table, folder=folder)
        (folder / PLAN_FILE).write_bytes(encode_plan(self._plan))
        server = await serve(self._socket, {}, self._meet_program)
        stack.push_async_callback(server.close)
        specs = [node for node in scenario.nodes if node.kind in LAB_KINDS]
        if any(node.link == "mqtt" for node in specs):
            broker = await stack.enter_async_context(start_broker(scenario, self._pace.broker, self._report_broker))
            self._broker_url = broker.url
            settings = lab_settings(broker.url, PROBE)
            self._probe_topic = settings.topic("up", PROBE)
            self._mqtt = MqttWires(broker.url, settings.prefix)
            stack.push_async_callback(self._mqtt.close)
            await self._mqtt.open()
            async with asyncio.timeout(lab_s(START_S_MAX)):
                await self._mqtt.wait_connected()
            self._mqtt.wire(PROBE).on_frame = self._take_probe
        for index, node in enumerate(scenario.nodes):
            if node.kind == "process":
                wire = self._wire(node.name, node.link, self._table.config(index).node)
                self.nodes[node.name] = process_node(self._table, index, wire, self._socket)
        await self._open_emulated()
        await self._open_boards()
        link = "mqtt" if all(node.link == "mqtt" for node in specs) else "serial"
        self.ground = process_ground(
            self._table, self._wire(GROUND_NAME, link, GROUND_NODE), self._socket, self._run_folder
        )

    async def _open_emulated(self) -> None:
        """Compose the emulated boards, which see this machine on a network of their own."""
        indices = [index for index, node in enumerate(self._scenario.nodes) if node.kind == "emulated"]
        if not indices:
            return
        assert self._machines is not None, "the caller has made the image before T+0 was set"
        folder = Path(self._stack.enter_context(scratch_folder()))
        server = await serve_url(LOOPBACK, {}, self._meet_board)
        self._stack.push_async_callback(server.close)
        for index in indices:
            name = self._scenario.nodes[index].name
            door = Door(f"{SCHEME}{EMULATED_HOST}:{server.port}", self._token(name))
            mqtt = self._mqtt_wire(index)
            self._add(name, emulated_node(self._table, index, self._machines, door, folder, self._pace.utc_ns, mqtt))

    async def _open_boards(self) -> None:
        """Compose the boards of the inventory that are there."""
        indices = [index for index, node in enumerate(self._scenario.nodes) if node.kind == "board"]
        if not indices:
            return
        assert self._lab_boards is not None, "the caller has read the inventory"
        url = self._scenario.boards.bench
        if url:
            server = await serve_url(url, {}, self._meet_board)
            self._stack.push_async_callback(server.close)
            url = f"{SCHEME}{parse_address(url)[0]}:{server.port}"
        for index in indices:
            spec = self._scenario.nodes[index]
            board = self._lab_boards.of(spec, partial(self._report_board, spec.name))
            if why := await board.missing():
                self.absent[spec.name] = why
                continue
            door = Door(url, self._token(spec.name)) if url else None
            mqtt = self._mqtt_wire(index)
            self._add(spec.name, inventory_node(self._table, index, board, door, self._pace.utc_ns, mqtt))
        if self.absent and self._scenario.boards.missing == "refuse":
            lines = "; ".join(f"{name}: {why}" for name, why in self.absent.items())
            raise ConfigError(f"boards are missing: {lines} (boards.missing = 'continue' runs without them)")
        for name, why in self.absent.items():
            self._watchers.log(self._loop.now_ns, name, "board.absent", {"why": why})

    def _add(self, name: str, node: BoardNode) -> None:
        self.boards[name] = node
        self._wires.append(node.wire)

    def _mqtt_wire(self, index: int) -> MqttLabWire | None:
        """The lab wire of a board over the broker; None when it is its UART."""
        spec = self._scenario.nodes[index]
        if spec.link != "mqtt":
            return None
        assert self._mqtt is not None, "opened because a node has this link"
        return MqttLabWire(self._mqtt.wire(spec.name), url_on_board(self._scenario, spec, self._broker_url))

    def member(self, name: str) -> Member | None:
        """A satellite of the lab; None when its board is missing."""
        return self.nodes.get(name) or self.boards.get(name)

    async def start(self) -> None:
        """Start all programs and boards; returns when all are ready.

        Raises:
            FlatrackError: they take too long, or one ended instead.
        """
        assert self.ground is not None, "open composes it"
        for node in self._members():
            node.boot(ResetCause.POWER_ON)
        self.ground.start()
        patience_s = self._pace.start_s(self._scenario) + START_S_MAX
        ready: asyncio.Future[None] = self._loop.create_task(self._all_say_hello(self.ground), name="lab/start")
        try:
            async with asyncio.timeout(lab_s(patience_s)):
                await asyncio.wait((ready, self._trouble), return_when=asyncio.FIRST_COMPLETED)
            if self._trouble.done():
                self._trouble.result()
        except TimeoutError:
            late = [node.config.name for node in self._members() if not node.said_hello.is_set()]
            raise ConfigError(
                f"programs: {', '.join(late) or GROUND_NAME} did not start within {patience_s:g} s; their folders in "
                f"{self._table.folder} may say why"
            ) from None
        finally:
            if not ready.done():
                ready.cancel()
                await asyncio.wait((ready,))
            self._trouble.cancel()

    async def _all_say_hello(self, ground: ProcessGround) -> None:
        for node in self._members():
            await node.said_hello.wait()
        await ground.said_hello.wait()

    async def refresh(self) -> None:
        """Ask all programs for their books, and the broker how long it takes."""
        if self._mqtt is not None:
            stamp = (self._loop.now_ns % (1 << 64)).to_bytes(PROBE_BYTES, "big")
            self._mqtt.publish(self._probe_topic, pack_record(0, stamp))
        assert self.ground is not None, "open composes it"
        await asyncio.gather(self.ground.refresh(), *(node.refresh() for node in self._members()))

    async def settle(self) -> None:
        """After the relay delivers no more: wait until the programs have taken what is on their wires, and hear their
        last books."""
        assert self.ground is not None, "open composes it"
        until_s = self._loop.time() + lab_s(SETTLE_S_MAX)
        while True:
            await self.refresh()
            if self._is_settled() or self._loop.time() >= until_s:
                return
            await asyncio.sleep(lab_s(SETTLE_POLL_S))

    async def close(self) -> None:
        """End all programs, boards, wires and the broker. Nothing is left behind, whatever fails on the way."""
        self._mqtt = None  # who still watches sends no probe: the wires close while boards take their time
        for node in self._members():
            node.stop()
        try:
            ends = [node.program.stop() for node in self.nodes.values()]
            ends += [board.close() for board in self.boards.values()]
            ends += [] if self.ground is None else [self.ground.close()]
            for result in await asyncio.gather(*ends, return_exceptions=True):
                if isinstance(result, BaseException):
                    raise result
        finally:
            for program in self._programs():
                program.abandon()
            for node in self.boards.values():
                node.board.abandon()
            for wire in self._wires:
                wire.close()
            await self._stack.aclose()

    # -- composition

    def _wire(self, name: str, link: str, node: int) -> LabWire:
        wire: LabWire
        if link == "mqtt":
            assert self._mqtt is not None, "opened because a node has this link"
            wire = MqttLabWire(self._mqtt.wire(name))
        else:
            wire = SerialLabWire()
        wire.on_frame(lambda interface, frame: self._watchers.on_frame(name, node, interface, frame))
        self._wires.append(wire)
        return wire

    # -- while it runs

    def _token(self, name: str) -> str:
        """What a board is known by at the bench port."""
        secret = os.urandom(TOKEN_BYTES)  # noqa: TID251 - a secret must not follow from the run's seed
        return self._tokens.setdefault(name, secret.hex())

    def _meet_board(self, peer: ControlPeer) -> None:
        """Somebody has connected over TCP: who has no board's token is told no more and sent away."""

        def hello(name: str, pid: int, token: str = "") -> None:
            node = self.boards.get(name)
            if node is None or not token_holds(self._tokens.get(name, ""), token):
                self._loop.call_soon(peer.close)  # behind the answer
                raise ControlError(f"hello: {name!r} with this token is none of this bench's boards")
            peer.set_handlers(node.handlers())
            node.hello(peer)

        peer.set_handlers({"hello": hello})

    def _meet_program(self, peer: ControlPeer) -> None:
        """A program has connected: it must say who it is before anything else."""

        def hello(name: str, pid: int) -> None:
            member = self.ground if name == GROUND_NAME else self.nodes.get(name)
            if member is None or member.program.pid != pid:
                raise ControlError(f"hello: {name!r} with process {pid} is none of this bench's programs")
            peer.set_handlers(member.handlers())
            member.hello(peer)

        peer.set_handlers({"hello": hello})

    def _take_probe(self, _interface: int, stamp: Frame) -> None:
        sent_ns = int.from_bytes(bytes(stamp), "big")
        self._watchers.on_probe((self._loop.now_ns - sent_ns) % (1 << 64))

    def _crashed(self, name: str, error: BaseException) -> None:
        if not self._trouble.done():
            self._trouble.set_exception(error)
        self._watchers.on_crash(name, error)

    def _report_broker(self, line: str) -> None:
        self._watchers.log(self._loop.now_ns, "broker", "broker.event", {"text": line})

    def _report_board(self, name: str, line: str) -> None:
        sys.stderr.write(f"{line}\n")  # who has to do something about it does not read traces
        self._watchers.log(self._loop.now_ns, name, "board.event", {"text": line})

    def _members(self) -> list[ProcessNode | BoardNode]:
        return [*self.nodes.values(), *self.boards.values()]

    def _programs(self) -> Sequence[Program]:
        ground = [] if self.ground is None else [self.ground.program]
        return [node.program for node in self.nodes.values()] + ground

    def _is_settled(self) -> bool:
        """Whether every program has counted every frame that was delivered to it, where that can be known."""
        assert self.ground is not None, "open composes it"
        taken = {node.config.node: node.totals() for node in self._members() if node.is_exact}
        if self.ground.is_exact:
            taken[GROUND_NODE] = self.ground.accounts().counts
        arrived = dict.fromkeys(taken, 0)
        relay = self._table.relay
        for delivered in (relay.delivered_clean, relay.delivered_flipped):
            for (node, _), count in delivered.items():
                if node in arrived:
                    arrived[node] += count
        return all(
            counts.frames_accepted + counts.frames_rejected + counts.segments_rejected >= arrived[node]
            for node, counts in taken.items()
        )
