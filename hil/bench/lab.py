"""What a run in real time has on the table besides coroutines: programs, their folders and lab wires, the bench port,
and a broker where a wire is MQTT.

```text
<run folder>/nodes/plan.json            predicted contacts, for all
                  sat-01/node.toml      settings          world.json   its sun
                         board.json     battery and heat  disk/        what it stored
                         stdout.log     stderr.log        keys.toml    (0600)
                  ground/ground.toml    ledger.db and archive.db lie in the run folder
```
"""

import asyncio
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from boards import profiles
from boards.program import BoardSettings, NodeSettings
from boards.simulated.board import SimulatedBoard
from boards.simulated.clock import LoopClock
from boards.simulated.states import SavedBoard, save_board
from flightsw.errors import ConfigError, ControlError
from flightsw.host.control import ControlPeer, Handler, serve
from flightsw.host.keyfile import save_keys
from flightsw.host.loop import PacedLoop
from flightsw.host.settings import ClockSettings, KeySettings, LinkSettings, StorageSettings
from flightsw.link.pacing import lab_s
from flightsw.link.records import pack_record
from flightsw.net.contacts import ContactPlan
from flightsw.net.keys import KeyRing
from flightsw.net.plans import encode_plan
from flightsw.ports import Frame, ResetCause
from flightsw.wire.messages import JobReport
from ground.program import FleetSettings, GroundSettings, ResultSettings, SegmentSettings
from hil.bench import composition
from hil.bench.composition import DISK_BYTES, GROUND_DISK_BYTES
from hil.bench.lab_wires import LabWire, MqttLabWire, SerialLabWire
from hil.bench.pace import Pace
from hil.bench.process_ground import NAME as GROUND_NAME
from hil.bench.process_ground import ProcessGround
from hil.bench.process_node import BOARD_FILE, ProcessNode
from hil.bench.processes import Program
from hil.bench.scenario import Scenario
from hil.bench.settings_files import write_settings
from hil.bench.sky import GROUND_NODE, Sky
from hil.broker import Broker
from hil.channel.relay import Relay
from hil.channel.wires import MqttWires

NODES_FOLDER: Final = "nodes"
PLAN_FILE: Final = "plan.json"
WORLD_FILE: Final = "world.json"
KEYS_FILE: Final = "keys.toml"
MQTT_PREFIX: Final = "flatrack"
"""First level of the topics of a bench's own broker."""
PROBE: Final = "probe"
"""Name of a client that the bench plays itself, to see how long its frames take through the broker."""
PROBE_BYTES: Final = 8
START_S_MAX: Final = 120.0
"""How long the programs may take to start [s of the machine]: a fleet on a laptop that does other things too."""
SETTLE_S_MAX: Final = 3.0
"""How long frames on their way through wires are waited for at the end [s of the machine]."""
SETTLE_POLL_S: Final = 0.05
"""Between two looks at them [s of the machine]."""


@dataclass(frozen=True, slots=True)
class Watchers:
    """Whom the lab tells what happens in its programs."""

    log: Callable[[int, str, str, dict[str, object]], None]
    """(t_ns, source, kind, fields)."""
    on_frame: Callable[[str, int, int, Frame], None]
    """(name, node, interface, frame) from a lab wire."""
    on_complete: Callable[[int, JobReport, bytes], None]
    on_cut: Callable[[str], None]
    on_brown_out: Callable[[str, bool], None]
    on_crash: Callable[[str, BaseException], None]
    on_probe: Callable[[int], None]
    """Time that a probe took from the bench through the broker to the bench [mission ns]."""


class Lab:
    """Programs of one run, and what joins them to the bench. Needs a running loop.

    Args:
        scenario, sky, plan: what runs, under which sky, with which predicted contacts.
        pace: of the run.
        loop: of the bench.
        relay: joins all lab wires.
        keys: of every node, by its number.
        folder: of the run; None for a temporary one, which is removed.
        watchers: told what happens.
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
    ) -> None:
        self.nodes: dict[str, ProcessNode] = {}
        self.ground: ProcessGround | None = None
        self._scenario = scenario
        self._sky = sky
        self._plan = plan
        self._pace = pace
        self._loop = loop
        self._relay = relay
        self._keys = keys
        self._run_folder = folder
        self._watchers = watchers
        self._wires: list[LabWire] = []
        self._mqtt: MqttWires | None = None
        self._stack = AsyncExitStack()
        self._trouble: asyncio.Future[None] = loop.create_future()
        """Fails when a program ends while all others are starting."""
        self._clock = ClockSettings(
            zero_utc_ns=loop.zero_utc_ns, epoch_utc_ns=scenario.epoch_utc_ns, time_scale=pace.time_scale
        )

    async def open(self) -> None:
        """Make folders and sockets, start the broker if one is needed, and compose the programs; none runs yet.

        Raises:
            ConfigError: something cannot be made or reached.
        """
        stack = self._stack
        short = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flatrack-")))  # paths of sockets are short
        self._socket = short / "bench"
        self._folder = (self._run_folder or short) / NODES_FOLDER
        self._folder.mkdir()
        (self._folder / PLAN_FILE).write_bytes(encode_plan(self._plan))
        server = await serve(self._socket, {}, self._meet)
        stack.push_async_callback(server.close)
        specs = [node for node in self._scenario.nodes if node.kind == "process"]
        if any(node.link == "mqtt" for node in specs):
            broker = await stack.enter_async_context(Broker.start(self._pace.broker, report=self._report))
            self._mqtt = MqttWires(broker.url, MQTT_PREFIX)
            stack.push_async_callback(self._mqtt.close)
            await self._mqtt.open()
            async with asyncio.timeout(lab_s(START_S_MAX)):
                await self._mqtt.wait_connected()
            self._mqtt.wire(PROBE).on_frame = self._take_probe
        for index, node in enumerate(self._scenario.nodes):
            if node.kind == "process":
                self.nodes[node.name] = self._node(index)
        self.ground = self._ground("mqtt" if all(node.link == "mqtt" for node in specs) else "serial")

    async def start(self) -> None:
        """Start all programs; returns when all are ready.

        Raises:
            ConfigError: they take too long.
            ProgramDied: one ended instead.
        """
        assert self.ground is not None, "open composes it"
        for node in self.nodes.values():
            node.boot(ResetCause.POWER_ON)
        self.ground.start()
        ready: asyncio.Future[None] = self._loop.create_task(self._all_say_hello(self.ground), name="lab/start")
        try:
            async with asyncio.timeout(lab_s(START_S_MAX)):
                await asyncio.wait((ready, self._trouble), return_when=asyncio.FIRST_COMPLETED)
            if self._trouble.done():
                self._trouble.result()
        except TimeoutError:
            late = [name for name, node in self.nodes.items() if not node.said_hello.is_set()]
            raise ConfigError(
                f"programs: {', '.join(late) or GROUND_NAME} did not start within {START_S_MAX:g} s; their folders in "
                f"{self._folder} may say why"
            ) from None
        finally:
            if not ready.done():
                ready.cancel()
                await asyncio.wait((ready,))
            self._trouble.cancel()

    async def _all_say_hello(self, ground: ProcessGround) -> None:
        for node in self.nodes.values():
            await node.said_hello.wait()
        await ground.said_hello.wait()

    async def refresh(self) -> None:
        """Ask all programs for their books, and the broker how long it takes."""
        if self._mqtt is not None:
            stamp = (self._loop.now_ns % (1 << 64)).to_bytes(PROBE_BYTES, "big")
            self._mqtt.publish(f"{MQTT_PREFIX}/{PROBE}/up", pack_record(0, stamp))
        assert self.ground is not None, "open composes it"
        await asyncio.gather(self.ground.refresh(), *(node.refresh() for node in self.nodes.values()))

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
        """End all programs, wires and the broker. Nothing is left behind, whatever fails on the way."""
        for node in self.nodes.values():
            node.stop()
        try:
            programs = [node.program.stop() for node in self.nodes.values()]
            await asyncio.gather(*programs, *([] if self.ground is None else [self.ground.close()]))
        finally:
            for program in self._programs():
                program.abandon()
            for wire in self._wires:
                wire.close()
            await self._stack.aclose()

    # -- composition

    def _node(self, index: int) -> ProcessNode:
        scenario, sky = self._scenario, self._sky
        spec = scenario.nodes[index]
        folder = self._folder / spec.name
        folder.mkdir()
        config = composition.node_config(scenario, index, self._pace.ltp_margin_s)
        profile = profiles.load(spec.profile)
        world = sky.world(index)
        (folder / WORLD_FILE).write_bytes(msgspec.json.encode(world))
        clock = LoopClock(lambda: max(0, self._loop.now_ns), scenario.epoch_utc_ns)  # the world begins at T+0
        board = SimulatedBoard(profile, clock, world.sunlight_at, spec.initial_charge)
        save_board(folder / BOARD_FILE, SavedBoard(board=board.state(), next_cause=ResetCause.POWER_ON.name))
        wire = self._wire(spec.name, spec.link, config.node)
        settings = NodeSettings(
            node=config,
            board=BoardSettings(
                kind="simulated",
                profile=str(Path(spec.profile).resolve()) if spec.profile.endswith(profiles.SUFFIX) else spec.profile,
                world=WORLD_FILE,
                initial_charge=spec.initial_charge,
                state=BOARD_FILE,
            ),
            clock=self._clock,
            link=LinkSettings(url=wire.url),
            storage=StorageSettings(folder="disk", capacity_bytes=DISK_BYTES),
            plan=f"../{PLAN_FILE}",
            keys=self._key_file(folder, config.node),
        )
        write_settings(folder / "node.toml", settings)
        program = Program(
            spec.name,
            ("-m", "boards", "--config", "node.toml", "--bench", str(self._socket)),
            folder,
            lambda code: self.nodes[spec.name].ended(code),
        )
        return ProcessNode(
            config=config,
            profile=profile,
            program=program,
            wire=wire,
            relay=self._relay,
            board=board,
            log=lambda t_ns, kind, fields: self._watchers.log(t_ns, spec.name, kind, fields),
            on_cut=self._watchers.on_cut,
            on_brown_out=self._watchers.on_brown_out,
            on_crash=self._crashed,
        )

    def _ground(self, link: str) -> ProcessGround:
        scenario = self._scenario
        folder = self._folder / GROUND_NAME
        folder.mkdir()
        databases = (self._run_folder or folder).resolve()
        wire = self._wire(GROUND_NAME, link, GROUND_NODE)
        fleet = [
            FleetSettings(
                **{
                    name: getattr(node, name)
                    for name in ("node", "name", "mpix_per_s", "compute_w", "idle_w", "array_w", "battery_j", "reserve")
                },
                sun=tuple((one.start_ns, one.end_ns) for one in node.sun),
            )
            for node in composition.fleet(scenario, self._sky)
        ]
        settings = GroundSettings(
            ground=SegmentSettings(
                node=GROUND_NODE,
                interfaces=composition.ground_interfaces(scenario, self._sky),
                beacon_period_s=scenario.manager.beacon_period_s,
                fleet=tuple(fleet),
                store_bytes=GROUND_DISK_BYTES // 2,
                ltp_margin_s=self._pace.ltp_margin_s,
            ),
            clock=self._clock,
            link=LinkSettings(url=wire.url),
            storage=StorageSettings(folder="disk", capacity_bytes=GROUND_DISK_BYTES),
            plan=f"../{PLAN_FILE}",
            keys=self._key_file(folder, GROUND_NODE),
            ledger=str(databases / "ledger.db"),
            archive=str(databases / "archive.db"),
            result=ResultSettings(tile_px=48 if scenario.workload is None else scenario.workload.tile_px),
        )
        write_settings(folder / "ground.toml", settings)
        program = Program(
            GROUND_NAME,
            ("-m", "ground", "--config", "ground.toml", "--bench", str(self._socket)),
            folder,
            lambda code: self._ground_ended(code),
        )
        return ProcessGround(
            program=program,
            wire=wire,
            relay=self._relay,
            log=lambda t_ns, kind, fields: self._watchers.log(t_ns, GROUND_NAME, kind, fields),
            on_complete=self._watchers.on_complete,
            on_crash=self._crashed,
        )

    def _key_file(self, folder: Path, node: int) -> KeySettings:
        """Write the keys that a node shares with all others, derived from the seed as in virtual time."""
        save_keys(folder / KEYS_FILE, self._keys[node], [other for other in sorted(self._keys) if other != node])
        return KeySettings(file=KEYS_FILE)

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

    def _meet(self, peer: ControlPeer) -> None:
        """A program has connected: it must say who it is before anything else."""

        def hello(name: str, pid: int) -> None:
            member = self.ground if name == GROUND_NAME else self.nodes.get(name)
            if member is None or member.program.pid != pid:
                raise ControlError(f"hello: {name!r} with process {pid} is none of this bench's programs")
            handlers: dict[str, Handler] = member.handlers()
            peer.set_handlers(handlers)
            member.hello(peer)

        peer.set_handlers({"hello": hello})

    def _take_probe(self, _interface: int, stamp: Frame) -> None:
        sent_ns = int.from_bytes(bytes(stamp), "big")
        self._watchers.on_probe((self._loop.now_ns - sent_ns) % (1 << 64))

    def _ground_ended(self, code: int) -> None:
        assert self.ground is not None, "a program that ended had been composed"
        self.ground.ended(code)

    def _crashed(self, name: str, error: BaseException) -> None:
        if not self._trouble.done():
            self._trouble.set_exception(error)
        self._watchers.on_crash(name, error)

    def _report(self, line: str) -> None:
        self._watchers.log(self._loop.now_ns, "broker", "broker.event", {"text": line})

    def _programs(self) -> Sequence[Program]:
        ground = [] if self.ground is None else [self.ground.program]
        return [node.program for node in self.nodes.values()] + ground

    def _is_settled(self) -> bool:
        """Whether every program has counted every frame that was delivered to it, where that can be known."""
        assert self.ground is not None, "open composes it"
        taken = {node.config.node: node.totals() for node in self.nodes.values() if node.is_exact}
        if self.ground.is_exact:
            taken[GROUND_NODE] = self.ground.accounts().counts
        arrived = dict.fromkeys(taken, 0)
        for delivered in (self._relay.delivered_clean, self._relay.delivered_flipped):
            for (node, _), count in delivered.items():
                if node in arrived:
                    arrived[node] += count
        return all(
            counts.frames_accepted + counts.frames_rejected + counts.segments_rejected >= arrived[node]
            for node, counts in taken.items()
        )
