"""What it takes to start a node as a program: from the start of the process to its first beacon on a pseudo-terminal,
and the most memory that it has had by then. Each boot is a new node on an empty disk, with keys; medians of some boots.

Run: python benchmarks/boot.py [--boots N] [--json FILE]
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from report import Report

from flightsw.config import InterfaceConfig
from flightsw.host.clock import HostClock
from flightsw.host.keyfile import save_keys
from flightsw.host.loop import PacedLoop
from flightsw.net.agent import BundleAgent, Delivery
from flightsw.net.contacts import Contact, ContactPlan
from flightsw.net.endpoint import Endpoint
from flightsw.net.keys import derived_rings
from flightsw.net.plans import encode_plan
from flightsw.ports import Frame, FrameReceiver
from flightsw.wire.messages import Beacon, decode_message
from hil.channel.wires import PtyWire

GROUND: Final = 1
NODE: Final = 11
BOOTS_COUNT: Final = 5
PATIENCE_S: Final = 60.0
"""A node that has not beaconed after this never will [s]."""
PLAN: Final = ContactPlan(
    Contact(0, 1 << 60, one, 0, other, 0, 1e6, 0) for one, other in ((GROUND, NODE), (NODE, GROUND))
)
RADIO: Final = (InterfaceConfig(index=0, name="radio"),)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--boots", type=int, default=BOOTS_COUNT, help="boots to take the median of")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to a file")
    given = parser.parse_args(arguments)
    report = Report("boot")
    boots = [boot() for _ in range(given.boots)]
    bare_s = median(interpreter_s() for _ in range(given.boots))
    boot_s = median(one[0] for one in boots)
    report.add("boot to first beacon", boot_s, "s", "< 1.5")
    report.add("boot to first beacon, in starts of a bare interpreter", boot_s / bare_s, "times")
    report.add("most memory until then", median(one[1] for one in boots) / 1e6, "MB", "< 60")
    if given.json is not None:
        report.write_json(given.json)


def boot() -> tuple[float, int]:
    """(time to the first beacon [s], peak resident memory [bytes]) of one new node."""
    loop = PacedLoop(time.time_ns())
    with asyncio.Runner(loop_factory=lambda: loop) as runner, tempfile.TemporaryDirectory() as folder:
        return runner.run(_boot(Path(folder), loop))


def interpreter_s() -> float:
    """How long the interpreter alone takes to start and end [s]."""
    started_s = time.perf_counter()
    subprocess.run([sys.executable, "-c", ""], check=True)
    return time.perf_counter() - started_s


class _Ears:
    """The ground's end of the wire; a `flightsw.ports.Link`."""

    def __init__(self, wire: PtyWire) -> None:
        self._wire = wire

    def send(self, interface: int, frame: Frame) -> None:
        self._wire.deliver(interface, frame)

    def set_receiver(self, receiver: FrameReceiver) -> None:
        self._wire.on_frame = receiver

    async def close(self) -> None:
        self._wire.close()


async def _boot(folder: Path, loop: PacedLoop) -> tuple[float, int]:
    async with started(folder, loop) as node:
        boot_s = await node.beacon - node.started_s
        node.process.terminate()
        _, _, usage = os.wait4(node.process.pid, 0)
        node.process.returncode = 0  # it is waited for
    return boot_s, usage.ru_maxrss * 1024


@dataclass(frozen=True, slots=True)
class Started:
    """A node as a program.

    Attributes:
        process: it.
        started_s: when it was started, of `time.perf_counter` [s].
        beacon: when its first beacon came [s].
        heard: messages that came, by their types.
    """

    process: subprocess.Popen[bytes]
    started_s: float
    beacon: asyncio.Future[float]
    heard: Counter[str]


@asynccontextmanager
async def started(folder: Path, loop: PacedLoop, periods: str = "tick_period_s = 0.01") -> AsyncIterator[Started]:
    """A new node on an empty disk, on a pseudo-terminal; it is ended at the end.

    Args:
        folder: for its files.
        loop: the running one.
        periods: further settings of `node`, as TOML.
    """
    wire = PtyWire()
    beacon: asyncio.Future[float] = loop.create_future()
    messages: Counter[str] = Counter()

    def on_delivery(delivery: Delivery) -> None:
        message = decode_message(delivery.payload)
        messages[type(message).__name__] += 1
        if not beacon.done() and isinstance(message, Beacon):
            beacon.set_result(time.perf_counter())

    agent = BundleAgent(GROUND, PLAN, RADIO, session_base=1 << 32)
    endpoint = Endpoint(HostClock(loop, 0), _Ears(wire), agent, on_delivery)
    endpoint.flush()
    _write_settings(folder, wire.url, loop.zero_utc_ns, periods)
    started_s = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "boards", "--config", str(folder / "node.toml")], stdout=subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            await beacon
        yield Started(process, started_s, beacon, messages)
    finally:
        process.terminate()
        process.wait()
        await endpoint.close()


def _write_settings(folder: Path, url: str, zero_utc_ns: int, periods: str) -> None:
    save_keys(folder / "node.keys", derived_rings(bytes(32), (NODE,), GROUND)[NODE], [GROUND])
    (folder / "plan.json").write_bytes(encode_plan(PLAN))
    (folder / "world.json").write_text(json.dumps({"sun": [[0, 1 << 60]], "sunlight": [1.0], "step_s": 1.0}))
    (folder / "node.toml").write_text(f"""
plan = "plan.json"
node = {{ node = {NODE}, name = "node", interfaces = [{{ index = 0, name = "radio" }}], {periods} }}
board = {{ kind = "simulated", profile = "raspberry-pi-5", world = "world.json" }}
clock = {{ zero_utc_ns = {zero_utc_ns}, epoch_utc_ns = 0 }}
link = {{ url = "{url}" }}
storage = {{ folder = "disk", capacity_bytes = 16_777_216 }}
keys = {{ file = "node.keys" }}
""")


if __name__ == "__main__":
    main()
