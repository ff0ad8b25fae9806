"""One simulated satellite on the bench: what survives a reset (disk, board) and what does not (memory, node, wire)."""

import asyncio
from collections.abc import Callable

import msgspec

from boards.simulated.board import SimulatedBoard
from boards.simulated.clock import LoopClock
from boards.simulated.images import SimulatedSlots
from boards.simulated.runner import SimulatedRunner
from boards.simulated.strikes import BoardStrikes
from boards.simulated.watchdog import SimulatedWatchdog
from flightsw.compute.inference import InferenceCache
from flightsw.config import BoardProfile, NodeConfig, SunInterval
from flightsw.link.memory import MemoryLink
from flightsw.net.agent import BundleAgent
from flightsw.net.contacts import ContactPlan
from flightsw.net.keys import KeyRing
from flightsw.node import Node
from flightsw.ports import Frame, Log, NodePorts, Random, ResetCause
from hil.bench.accounts import Accounts, EnergyState, NodeCounts
from hil.channel.relay import Relay
from hil.sim.disk import SimulatedDisk

BOOT_S = 5.0
"""From a commanded reset to the start of the manager [s]: a warm start of a small Linux board; power cuts name their
own."""

WATCHDOG_BOOT_S = 120.0
"""How long the board's watchdog gives a boot until the first stroke [s], or three ticks of a slow rate group."""


class Satellite:
    """A node with its board, disk and lab wire, that can lose power and boot again.

    Args:
        config, profile, plan, sun: as for `Node`.
        relay: the other end of the lab wire.
        send: takes (node, interface, frame) from the wire, towards the relay.
        clock, board, disk: those of this satellite.
        cache: inference results, shared by the whole process.
        log: takes (kind, fields) of the on-board log.
        call_later_s: starts the boot after a time; the bench's timer.
        on_crash: told of an exception that ended the manager.
    """

    def __init__(
        self,
        *,
        config: NodeConfig,
        profile: BoardProfile,
        plan: ContactPlan,
        sun: tuple[SunInterval, ...],
        relay: Relay,
        send: Callable[[int, int, Frame], None],
        clock: LoopClock,
        board: SimulatedBoard,
        disk: SimulatedDisk,
        cache: InferenceCache,
        log: Log,
        on_crash: Callable[[str, BaseException], None],
        keys: KeyRing | None = None,
    ) -> None:
        self.config = config
        self.profile = profile
        self.board = board
        self.disk = disk
        self.node: Node | None = None
        self.runner: SimulatedRunner | None = None
        self.boots_count = 0
        self.counts = NodeCounts()
        """Of all boots that ended."""
        self._plan = plan
        self._sun = sun
        self._relay = relay
        self._send = send
        self._clock = clock
        self._cache = cache
        self._log = log
        self._on_crash = on_crash
        self._keys = keys
        self.slots = SimulatedSlots(disk, config.name, config.software.rpartition(" ")[2])
        """Which version of the software boots."""
        self._task: asyncio.Task[None] | None = None
        self._link: MemoryLink | None = None
        self._watchdog = SimulatedWatchdog(clock.monotonic_ns, self._watchdog_expired)
        self._strikes = BoardStrikes(board, disk, clock.jump, self._freeze)

    @property
    def agent(self) -> BundleAgent | None:
        """The bundle agent of this boot, None while the node is off."""
        return None if self.node is None else self.node.agent

    @property
    def is_on(self) -> bool:
        """Whether the manager runs."""
        return self._task is not None

    def boot(self, cause: ResetCause) -> None:
        """Power on: a fresh manager over the same disk."""
        assert self._task is None, "a running satellite cannot boot"
        number = self.config.node
        self.boots_count += 1
        self.board.power_on(cause)
        self.runner = SimulatedRunner(self.profile, self._cache)
        software = self.slots.boot()
        config = self.config
        if software is not None:
            config = msgspec.structs.replace(config, software=f"flatrack {software.version}")
        self._link = MemoryLink(lambda interface, frame: self._sent(number, interface, frame))
        ports = NodePorts(
            clock=self._clock,
            link=self._link,
            disk=self.disk,
            board=self.board,
            runner=self.runner,
            reset=self._reset_later,
            log=self._log,
            watchdog=self._watchdog,
            slots=self.slots,
        )
        self.node = Node(config, self.profile, ports, self._plan, self._sun, self._keys)
        self._relay.attach(number, self._link.deliver)
        self._task = asyncio.get_running_loop().create_task(self.node.run(), name=self.config.name)
        self._task.add_done_callback(self._ended)
        self._watchdog.stroke(max(WATCHDOG_BOOT_S, 3 * self.config.tick_period_s))
        self._strikes.booted(cause, self.runner, self.node.health)
        for kind in ("crash", "hang"):
            if (defect := self.slots.defect(kind)) is not None:
                asyncio.get_running_loop().call_later(defect.after_s, self._misbehave, kind, self.boots_count)

    def cut(self) -> None:
        """Power off at this instant: memory, queues and unsynced bytes are at the mercy of physics."""
        if self._task is None or self.node is None:
            return
        task, self._task = self._task, None
        self._watchdog.stop()
        self._strikes.off()
        self._relay.detach(self.config.node)
        self.counts += NodeCounts.of(self.node)
        self.node = None
        self.runner = None
        self.board.power_off()
        task.cancel()
        self.disk.power_cut()

    def stop(self) -> None:
        """End the manager at the end of a run; nothing is lost or torn."""
        self._watchdog.stop()
        if self._task is not None:
            self._task.cancel()

    def boot_later(self, off_s: float, cause: ResetCause) -> None:
        """Boot after a time, if nothing booted it meanwhile."""
        asyncio.get_running_loop().call_later(off_s, self._boot_if_off, cause)

    def strike_weights(self, random: Random, bits: int) -> bool:
        """Flip random bits of one model in memory; False when none is loaded."""
        images = [] if self.runner is None else self.runner.weight_memory()
        if not images:
            return False
        image = images[random.randrange(len(images))]
        for _ in range(bits):
            image.flip_weight_bit(random.randrange(image.weight_bits_count))
        return True

    def rot_object(self, random: Random) -> bool:
        """Flip one random bit of one stored object; False when there is none."""
        names = [name for name in self.disk.names("objects/") if not name.endswith(".part")]
        if not names:
            return False
        name = names[random.randrange(len(names))]
        self.disk.flip_bit(name, random.randrange(8 * len(self.disk.read(name))))
        return True

    def trouble(self, kind: str, fields: dict[str, object]) -> bool:
        """Let something around the node fail; whether that hit anything."""
        return self._strikes.strike(kind, fields)

    def accounts(self) -> Accounts | None:
        """The books of the manager now; None while it is off."""
        return None if self.node is None else Accounts.of_node(self.node)

    def energy(self) -> EnergyState:
        """Battery and heat now."""
        return EnergyState.of(self.board)

    @property
    def is_exact(self) -> bool:
        """Always: nothing that was delivered is missing from the counts."""
        return True

    def totals(self) -> NodeCounts:
        """Counters of all boots, the present one included."""
        return self.counts if self.node is None else self.counts + NodeCounts.of(self.node)

    def _boot_if_off(self, cause: ResetCause) -> None:
        if self._task is None:
            self.boot(cause)

    def _reset_later(self, cause: ResetCause) -> None:
        asyncio.get_running_loop().call_soon(self._reset, cause)

    def _reset(self, cause: ResetCause) -> None:
        self.cut()
        self.boot_later(BOOT_S, cause)

    def _watchdog_expired(self) -> None:
        self._log("watchdog.expired", {})
        self._reset(ResetCause.WATCHDOG)

    def _sent(self, number: int, interface: int, frame: Frame) -> None:
        """Towards the relay, unless the software that runs lets nothing leave."""
        if self.slots.software is None or self.slots.defect("mute") is None:
            self._send(number, interface, frame)

    def _misbehave(self, kind: str, boot: int) -> None:
        """The software that booted then has a defect."""
        if self._task is None or self.boots_count != boot:
            return
        self._log("software.misbehaves", {"defect": kind})
        if kind == "hang":
            self._freeze()
        else:
            self._reset(ResetCause.EXCEPTION)

    def _freeze(self) -> None:
        """Let the manager stand still, as in a loop without end: it has power, and nothing that it does goes on."""
        assert self._task is not None, "only a running manager stands still"
        self._relay.detach(self.config.node)
        self._task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_crash(self.config.name, error)
