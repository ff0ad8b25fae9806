"""The whole node as what is struck: launcher, manager, worker, stores and frames, as they fly.

Its settings are those of a flight but for the lab's: sun for ever and steps that cost next to nothing, so that no
budget decides, and patience of the links for an emulated board. Keys are on: what the ground takes, it has verified.
"""

import asyncio
import tempfile
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from boards.settings import BoardSettings, NodeSettings
from flightsw.compute import cloud_mask
from flightsw.config import NodeConfig
from flightsw.errors import BoardError
from flightsw.host.keyfile import save_keys
from flightsw.host.settings import ClockSettings, KeySettings, LinkSettings, StorageSettings
from flightsw.link.pacing import lab_s
from flightsw.net.keys import KEY_BYTES, derived_rings
from flightsw.net.plans import encode_plan
from hil.bench.settings_files import write_settings
from hil.channel.uart import SocketWire, socket_line
from hil.emulation.flip_outcomes import CRASH_WORDS, ENDED_WORDS, Verdict, judged
from hil.emulation.flip_places import OWNERS
from hil.emulation.flip_subjects import START_S_MAX, Patience
from hil.emulation.machine import Machine
from hil.emulation.target import MODEL, TILE_SIDE_PX
from hil.emulation.trial_ground import BOOT, FOREVER_NS, GROUND, MARGIN_S, NODE, PLAN, RADIO, TrialGround
from hil.on_board.remote import AgentPeer

UART: Final = "/dev/ttyAMA0"
BAUD: Final = 230_400
ZERO_UTC_NS: Final = 1_767_225_600_000_000_000
"""T+0, 2026-01-01T00:00:00Z: long past for the board's clock, whose restores then lead to no time before it."""
DATA: Final = "/var/lib/flatrack"
DISK_BYTES: Final = 1 << 25
RINGS: Final = derived_rings(bytes(KEY_BYTES), (NODE,), GROUND)
"""Keys of a bench, which are no secret."""
BOOT_WORDS: Final = ("launcher: slot F boots", "Booting Linux on physical CPU")
"""What the console says when the manager, or the board, starts."""
SETTLE_S: Final = 1.0
"""From a beacon to the snapshot [s of the machine]: the cycle that it is of has ended, and the next is seconds away."""


class NodeSubject:
    """A node on its UART. Implements `hil.emulation.flip_subjects.Subject`.

    Args:
        machine: it has power.
    """

    patience: Final = Patience(worked_s=150.0, idle_s=150.0, idle_share=0.25)
    """A job takes 1 s of QEMU's processor time. Whatever hangs on board is noticed by launcher or watchdog within 60 s;
    a task of the manager is asked once a minute, and has a minute to reply (`flightsw.core.supervision`)."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._model = MODEL.read_bytes()
        ramp = np.arange(TILE_SIDE_PX * TILE_SIDE_PX * cloud_mask.BANDS) * 37 % 9000
        self._tile = cloud_mask.encode_tile(
            ramp.reshape(TILE_SIDE_PX, TILE_SIDE_PX, cloud_mask.BANDS).astype(np.uint16)
        )
        self._ground: TrialGround | None = None
        self._ends_count = 0

    async def settle(self) -> bytes:
        """Configure the node, upload the model, run a job, and wait until nothing is under way.
        Raises: BoardError, LinkError."""
        agent = await AgentPeer.open(self._machine.agent_path)
        try:
            await agent.configure(self.settings())
        finally:
            await agent.close()
        ground = TrialGround(self._wire(), RINGS[GROUND], starts_count=1)
        try:
            async with asyncio.timeout(lab_s(START_S_MAX)):
                await ground.upload(self._model)
                await ground.run(1, self._model, self._tile)
                await ground.beacon()
                await asyncio.sleep(lab_s(SETTLE_S))
        except TimeoutError:
            words = self._machine.last_words()
            raise BoardError(f"no job of the node has ended within {START_S_MAX:g} s: {words}") from None
        finally:
            await ground.close()
        if not ground.heard.result or ground.heard.boot != BOOT:
            raise BoardError(f"the first job of the node did not end well: {ground.heard.report}")
        return ground.heard.result

    async def pages(self) -> dict[str, list[int]]:
        """Of manager, worker, and the models that they share."""
        agent = await AgentPeer.open(self._machine.agent_path)
        try:
            return {owner: await agent.call("physical_pages", owner) for owner in OWNERS}
        finally:
            await agent.close()

    async def connect(self) -> None:
        """Start a ground that knows nothing."""
        self._ground = TrialGround(self._wire(), RINGS[GROUND], starts_count=2)
        self._ends_count = 0

    async def ask(self) -> None:
        """Submit a job, and wait for its end."""
        assert self._ground is not None, "connected"
        await self._ground.run(2, self._model, self._tile)

    def starts(self, words: str) -> int:
        """Starts of the manager or of the board. While one has ended, the ground is silent."""
        ends_count = sum(map(words.count, (*CRASH_WORDS, *ENDED_WORDS)))
        if ends_count > self._ends_count and self._ground is not None:
            self._ground.fall_silent()
        self._ends_count = ends_count
        return sum(map(words.count, BOOT_WORDS))

    def judged(self, expected: bytes, words: str, *, has_ended: bool) -> Verdict:
        """By what the ground has heard."""
        assert self._ground is not None, "connected"
        return judged(self._ground.heard, expected, words, boot=BOOT, has_ended=has_ended)

    async def disconnect(self) -> None:
        """End the ground."""
        ground, self._ground = self._ground, None
        if ground is not None:
            await ground.close()

    def _wire(self) -> SocketWire:
        return SocketWire(self._machine.name, lambda: socket_line(self._machine.uart_path), device=UART, baud=BAUD)

    def settings(self) -> dict[str, bytes]:
        """Files of the node under /etc/flatrack."""
        node = NodeSettings(
            node=NodeConfig(node=NODE, name="sat-01", ground=GROUND, interfaces=RADIO, ltp_margin_s=MARGIN_S),
            board=BoardSettings(kind="auto", profile="qemu-virt", world="world.json", state=f"{DATA}/board.json"),
            clock=ClockSettings(zero_utc_ns=ZERO_UTC_NS, epoch_utc_ns=ZERO_UTC_NS),
            link=LinkSettings(url=self._wire().url),
            storage=StorageSettings(folder=f"{DATA}/node", capacity_bytes=DISK_BYTES),
            plan="plan.json",
            keys=KeySettings(file="keys.toml"),
        )
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_settings(folder / "node.toml", node)
            save_keys(folder / "keys.toml", RINGS[NODE], [GROUND])
            (folder / "plan.json").write_bytes(encode_plan(PLAN))
            world = {"sun": [[0, FOREVER_NS]], "sunlight": [1.0], "step_s": 1.0}
            (folder / "world.json").write_bytes(msgspec.json.encode(world))
            return {path.name: path.read_bytes() for path in folder.iterdir()}
