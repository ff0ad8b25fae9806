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
from collections.abc import Sequence
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
    wire = PtyWire()
    heard: asyncio.Future[float] = loop.create_future()

    def on_delivery(delivery: Delivery) -> None:
        if not heard.done() and isinstance(decode_message(delivery.payload), Beacon):
            heard.set_result(time.perf_counter())

    agent = BundleAgent(GROUND, PLAN, RADIO, session_base=1 << 32)
    endpoint = Endpoint(HostClock(loop, 0), _Ears(wire), agent, on_delivery)
    endpoint.flush()
    _write_settings(folder, wire.url, loop.zero_utc_ns)
    started_s = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "boards", "--config", str(folder / "node.toml")], stdout=subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            boot_s = await heard - started_s
    finally:
        process.terminate()
        _, _, usage = os.wait4(process.pid, 0)
        process.returncode = 0  # it is waited for
        await endpoint.close()
    return boot_s, usage.ru_maxrss * 1024


def _write_settings(folder: Path, url: str, zero_utc_ns: int) -> None:
    save_keys(folder / "node.keys", derived_rings(bytes(32), (NODE,), GROUND)[NODE], [GROUND])
    (folder / "plan.json").write_bytes(encode_plan(PLAN))
    (folder / "world.json").write_text(json.dumps({"sun": [[0, 1 << 60]], "sunlight": [1.0], "step_s": 1.0}))
    (folder / "node.toml").write_text(f"""
plan = "plan.json"
node = {{ node = {NODE}, name = "node", interfaces = [{{ index = 0, name = "radio" }}], tick_period_s = 0.01 }}
board = {{ kind = "simulated", profile = "raspberry-pi-5", world = "world.json" }}
clock = {{ zero_utc_ns = {zero_utc_ns}, epoch_utc_ns = 0 }}
link = {{ url = "{url}" }}
storage = {{ folder = "disk", capacity_bytes = 16_777_216 }}
keys = {{ file = "node.keys" }}
""")


if __name__ == "__main__":
    main()
