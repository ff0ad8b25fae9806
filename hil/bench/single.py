"""One satellite and its ground on one link, in virtual time: the rig on which a single node's manager is shown.

Both are the real ones; a run is cheap enough that a test can let days pass. What strikes the node are the faults of a
scenario (`hil.faults.plan`) and whatever a caller does to its disk, board or link.

    async def scenario(rig: Single) -> None:
        rig.strike(LatchUp(node=rig.name, at_s=0, extra_w=5.0))
        await rig.until(lambda: rig.boots_count == 2, within_s=120)
        assert await rig.command("MODE.NOMINAL") ...

    run_single(scenario, seed=7)
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

import numpy as np

from boards import profiles
from boards.simulated.board import SimulatedBoard
from boards.simulated.clock import LoopClock
from flightsw.compute import cloud_mask
from flightsw.compute.inference import InferenceCache
from flightsw.config import InterfaceConfig, NodeConfig, SunInterval
from flightsw.dictionary import flight_dictionary
from flightsw.errors import SimulationError
from flightsw.link.memory import MemoryLink
from flightsw.net.contacts import Contact, ContactPlan
from flightsw.net.keys import KEY_BYTES, KeyRing, derived_rings
from flightsw.node import Node
from flightsw.objects.store import digest_of
from flightsw.ports import Frame, ResetCause
from flightsw.wire.messages import JobReport, Mode
from ground.fleet import FleetNode
from ground.ledger import JobRequest, StageRow
from ground.segment import GroundSegment
from hil.bench.satellite import Satellite
from hil.bench.strikes import Strikes
from hil.bench.workload import KIND, asset
from hil.channel.impairments import Impairments
from hil.channel.link import Link
from hil.channel.relay import Relay
from hil.faults.injector import Injector
from hil.faults.plan import Fault
from hil.sim.faulty_disk import FaultyDisk
from hil.sim.fence import fence
from hil.sim.loop import VirtualLoop
from hil.sim.streams import Streams

NAME: Final = "sat-01"
GROUND, NODE = 1, 2
RADIO: Final = 0
LINK: Final = "radio"
INTERFACES: Final = (InterfaceConfig(index=RADIO, name="radio"),)
RATE_BPS: Final = 1e6
RANGE_KM: Final = 600.0
LIGHT_KM_S: Final = 299_792.458
EPOCH_UTC_NS: Final = 1_780_000_000 * 1_000_000_000
"""Mission time at the start [ns since 1970-01-01T00:00:00Z]: some day of 2026."""
DISK_BYTES: Final = 32 * 1024 * 1024
GROUND_DISK_BYTES: Final = 64 * 1024 * 1024
FOREVER_S: Final = 1e7
"""End of a contact that does not end [s]: longer than any run."""
TILE_PX: Final = 64
UPLINKED_MAX: Final = 256
"""Frames of the ground that are kept: some commands."""
NS_PER_S: Final = 1_000_000_000

R = TypeVar("R")
Window = tuple[float, float]


class Single:
    """The rig. Use it by `run_single`.

    Args:
        loop: on which everything runs.
        seed: of all chance.
        profile: of the board.
        charge: of the battery at the start, as a share of its capacity.
        lit: intervals in sunlight [s]; elsewhere it is dark. The node's prediction says the same.
        contacts: intervals in which ground and node see each other [s]. The plan says the same.
        tick_s: period of the node's rate group [s].
        update_keys: public keys whose signature on an update counts, in hexadecimal.
    """

    def __init__(
        self,
        loop: VirtualLoop,
        seed: int,
        *,
        profile: str = "jetson-orin-nano",
        charge: float = 0.9,
        lit: Sequence[Window] = ((0.0, FOREVER_S),),
        contacts: Sequence[Window] = ((0.0, FOREVER_S),),
        tick_s: float = 10.0,
        update_keys: tuple[str, ...] = (),
    ) -> None:
        self.name = NAME
        self.loop = loop
        self.streams = Streams(seed)
        self.crash: BaseException | None = None
        self.log: list[tuple[float, str, dict[str, object]]] = []
        """(time [s], kind, fields) of the node's own log and of what struck it."""
        self.completed: dict[int, JobReport] = {}
        self.uplinked: deque[Frame] = deque(maxlen=UPLINKED_MAX)
        """The last frames of the ground: what an eavesdropper has."""
        keys = derived_rings(self.streams.bytes("keys", KEY_BYTES), [NODE], GROUND)
        self.profile = profiles.load(profile)
        self._sun = tuple(SunInterval(round(start * NS_PER_S), round(end * NS_PER_S)) for start, end in lit)
        self._relay = Relay(loop.call_at_ns, lambda: loop.now_ns)
        self.link = Link(LINK, Impairments(rate_bps=RATE_BPS), self.streams.random, range_km=RANGE_KM)
        self._relay.connect((GROUND, RADIO), (NODE, RADIO), self.link)
        self.plan = self._see(contacts)
        """Predicted contacts."""
        self.clock = LoopClock(lambda: loop.now_ns, EPOCH_UTC_NS)
        self.disk = FaultyDisk(DISK_BYTES, self.streams.random("disk"))
        self.board = SimulatedBoard(
            self.profile,
            self.clock,
            lambda now_ns: float(any(one.start_ns <= now_ns < one.end_ns for one in self._sun)),
            initial_charge_share=charge,
            on_brown_out=lambda: self._strikes.brown_out(NAME, False),
        )
        config = NodeConfig(
            node=NODE, name=NAME, ground=GROUND, interfaces=INTERFACES, tick_period_s=tick_s, update_keys=update_keys
        )
        self.satellite = self._make_satellite(config, keys[NODE])
        self._strikes = Strikes(
            {NAME: self.satellite},
            {LINK: [self.link]},
            lambda _: Impairments(rate_bps=RATE_BPS),
            lambda: loop.now_ns,
            self._note,
        )
        self._injectors: list[Injector] = []
        self.ground = self._make_ground(config, keys[GROUND])

    def _see(self, contacts: Sequence[Window]) -> ContactPlan:
        """Open the link in these intervals; returns the plan that says so."""
        windows = [(round(start * NS_PER_S), round(end * NS_PER_S)) for start, end in contacts]
        for start_ns, end_ns in windows:
            self.link.add_window(start_ns, end_ns)
        light_ns = round(RANGE_KM / LIGHT_KM_S * NS_PER_S)
        return ContactPlan(
            Contact(start_ns, end_ns, a, RADIO, b, RADIO, RATE_BPS, light_ns)
            for start_ns, end_ns in windows
            for a, b in ((GROUND, NODE), (NODE, GROUND))
        )

    def _make_satellite(self, config: NodeConfig, keys: KeyRing) -> Satellite:
        return Satellite(
            config=config,
            profile=self.profile,
            plan=self.plan,
            sun=self._sun,
            relay=self._relay,
            send=self._send,
            clock=self.clock,
            board=self.board,
            disk=self.disk,
            cache=InferenceCache(),
            log=self._note,
            on_crash=self._crashed,
            keys=keys,
        )

    def _make_ground(self, config: NodeConfig, keys: KeyRing) -> GroundSegment:
        profile = self.profile
        node = FleetNode(
            node=NODE,
            name=NAME,
            mpix_per_s=profile.mpix_per_s.value,
            compute_w=profile.compute_w.value,
            idle_w=profile.idle_w.value + profile.bus_w.value,
            array_w=profile.array_w.value,
            battery_j=profile.battery_wh.value * 3600.0,
            reserve=config.reserve,
            sun=self._sun,
        )
        link = MemoryLink(lambda interface, frame: self._send(GROUND, interface, frame))
        ground = GroundSegment(
            clock=LoopClock(lambda: self.loop.now_ns, EPOCH_UTC_NS),
            link=link,
            disk=FaultyDisk(GROUND_DISK_BYTES, self.streams.random("ground/disk")),
            plan=self.plan,
            interfaces=INTERFACES,
            fleet=(node,),
            dictionary_digest=flight_dictionary().digest,
            beacon_period_s=config.beacon_period_s,
            store_bytes=GROUND_DISK_BYTES // 2,
            verify=lambda request, report, result, product: None,
            on_complete=self._completed,
            record=lambda kind, fields: self.log.append((self.now_s, f"ground.{kind}", fields)),
            on_crash=lambda error: self._crashed("ground", error),
            keys=keys,
        )
        self._relay.attach(GROUND, link.deliver)
        return ground

    @property
    def now_s(self) -> float:
        """Virtual time [s]."""
        return self.loop.now_ns / NS_PER_S

    @property
    def node(self) -> Node:
        """The manager of this boot.

        Raises:
            SimulationError: the node is off.
        """
        if self.satellite.node is None:
            raise SimulationError(f"{NAME} is off at {self.now_s:.1f} s")
        return self.satellite.node

    @property
    def mode(self) -> Mode:
        """The node's mode, by the last beacon that the ground has; BOOT before the first."""
        beacon = self.ground.membership.members[NODE].beacon
        return Mode.BOOT if beacon is None else beacon.mode

    @property
    def boots_count(self) -> int:
        """Boots so far."""
        return self.satellite.boots_count

    def events(self, since_s: float = 0.0) -> list[tuple[str, str]]:
        """(component and name, text) of the node's events that the ground has received."""
        rows = self.ground.archive.events(NODE)
        return [(f"{row[3]}.{row[4]}", row[5]) for row in rows if row[0] >= since_s * NS_PER_S]

    def strike(self, fault: Fault) -> None:
        """Let a fault strike at its time, counted from now."""
        chance = self.streams.child(f"strike/{len(self._injectors)}").random
        injector = Injector(self._strikes, self.loop.call_at_ns, self._note, chance)
        self._injectors.append(injector)
        injector.arm([type(fault)(**{**_fields(fault), "at_s": self.now_s + fault.at_s})])

    async def run(self, seconds: float) -> None:
        """Let time pass.

        Raises:
            BaseException: what ended the manager or the ground, if anything did.
        """
        await asyncio.sleep(seconds)
        if self.crash is not None:
            raise self.crash

    async def until(self, condition: Callable[[], bool], within_s: float, step_s: float = 5.0) -> float:
        """Let time pass until a condition holds; returns how long it took [s].

        Raises:
            SimulationError: it did not within the time.
        """
        start_s = self.now_s
        while not condition():
            if self.now_s - start_s >= within_s:
                raise SimulationError(f"not within {within_s} s, at {self.now_s:.0f} s; mode {self.mode.name}")
            await self.run(step_s)
        return self.now_s - start_s

    async def command(self, opcode: str, *arguments: Any, is_armed: bool = False, within_s: float = 300.0) -> StageRow:
        """Command the node, and wait for the end of the chain.

        Args:
            opcode: what to do.
            arguments: with what.
            is_armed: send COMMANDS.ARM before.
            within_s: how long to wait [s].

        Raises:
            SimulationError: no end within the time.
        """
        if is_armed:
            await self.command("COMMANDS.ARM", opcode, within_s=within_s)
        number = self.ground.command(NODE, opcode, *arguments)

        def is_ended() -> bool:
            chain = self.ground.cluster.chain(number)
            return bool(chain) and chain[-1].stage.name in ("COMPLETED", "FAILED")

        await self.until(is_ended, within_s, step_s=1.0)
        return self.ground.cluster.chain(number)[-1]

    def submit(
        self, *, step_s: float = 20.0, seed: int = 0, model: bytes | None = None, deadline_s: int = 6 * 3600
    ) -> int:
        """Give the ground a cloud-mask job over a tile of noise; returns its number.

        Args:
            step_s: how long one of its steps takes on this board [s].
            seed: of the tile.
            model: another model than the shipped one.
            deadline_s: after which it is not worth running [s].
        """
        noise = self.streams.generator(f"tile/{seed}").integers(0, 4000, (TILE_PX, TILE_PX, 4))
        tile = cloud_mask.encode_tile(noise.astype(np.uint16))
        if model is None:
            model = asset("cloud-mask.onnx", "model").read_bytes()
        for data in (tile, model):
            self.ground.store.put(data)
        mpix_per_s = self.profile.mpix_per_s.value
        return self.ground.submit(
            JobRequest(
                kind=KIND,
                model=digest_of(model),
                model_bytes=len(model),
                data=digest_of(tile),
                data_bytes=len(tile),
                steps_count=cloud_mask.STEPS,
                step_mpix=step_s * mpix_per_s,
                priority=3,
                deadline_s=deadline_s,
                checkpoint_steps=1,
                product_measure_max=1.0,
            )
        )

    def start(self) -> None:
        """Power on, and begin the ground's rounds."""
        self.satellite.boot(ResetCause.POWER_ON)
        self.ground.start()

    async def close(self) -> None:
        """End all that runs."""
        self.satellite.stop()
        await self.ground.close()

    def radiate(self, interface: int, frame: Frame) -> None:
        """Send a frame towards the node from the place of the ground's antenna: whoever stands there can."""
        self._relay.send(GROUND, interface, frame)

    def _send(self, node: int, interface: int, frame: Frame) -> None:
        if node == GROUND:
            self.uplinked.append(frame)
        self._relay.send(node, interface, frame)

    def _note(self, kind: str, fields: dict[str, object]) -> None:
        self.log.append((self.now_s, kind, fields))
        if kind == "job.checkpoint":
            for injector in self._injectors:
                injector.observe((self.loop.now_ns, NAME, kind, fields))

    def _completed(self, job: int, report: JobReport, result: bytes) -> None:
        self.completed[job] = report

    def _crashed(self, name: str, error: BaseException) -> None:
        if self.crash is None:
            self.crash = error


def run_single(scenario: Callable[[Single], Awaitable[R]], seed: int = 1, **options: Any) -> R:
    """Run a scenario on a rig of its own, from power-on until it returns.

    Args:
        scenario: what happens.
        seed: of all chance.
        options: as of `Single`.
    """
    loop = VirtualLoop()

    async def main() -> R:
        rig = Single(loop, seed, **options)
        rig.start()
        try:
            return await scenario(rig)
        finally:
            await rig.close()

    with asyncio.Runner(loop_factory=lambda: loop) as runner, fence(loop):
        return runner.run(main())


def _fields(fault: Fault) -> dict[str, Any]:
    return {name: getattr(fault, name) for name in fault.__struct_fields__}
