"""The same disk boots on QEMU's Raspberry Pi 3, with the drivers of its own chip, up to a frame on its UART."""

import asyncio
import json

import pytest

from flightsw.link.record_stream import RecordReader
from flightsw.net.contacts import Contact, ContactPlan
from flightsw.net.plans import encode_plan
from hil.emulation.disk import copy_with_files
from hil.emulation.image import build
from hil.emulation.machine import Machine
from hil.emulation.tools import call

pytestmark = pytest.mark.emulated

BOOT_S_MAX = 400.0
"""It boots in a minute alone; four cores are translated, and it has no snapshots worth keeping."""
GROUND, NODE = 1, 11
STATE = "/var/lib/flatrack"
BORN_UTC_S = 1_600_000_000
"""T+0 of the node: before any time that a clock without a battery can show after systemd has set it."""


def settings():
    """Of a node that beacons over its UART."""
    plan = ContactPlan(Contact(0, 1 << 60, a, 0, b, 0, 1e6, 0) for a, b in ((GROUND, NODE), (NODE, GROUND)))
    world = {"sun": [[0, 1 << 60]], "sunlight": [1.0], "step_s": 1.0}
    node = f"""
plan = "plan.json"
node = {{ node = {NODE}, name = "pi", interfaces = [{{ index = 0, name = "radio" }}], beacon_period_s = 2.0 }}
board = {{ kind = "simulated", profile = "raspberry-pi-5", world = "world.json", state = "{STATE}/board.json" }}
clock = {{ zero_utc_ns = {BORN_UTC_S * 10**9}, epoch_utc_ns = {BORN_UTC_S * 10**9} }}
link = {{ url = "serial:///dev/ttyAMA0?baud=115200" }}
storage = {{ folder = "{STATE}/disk", capacity_bytes = 16_777_216 }}
"""
    files = {"plan.json": encode_plan(plan), "world.json": json.dumps(world).encode(), "node.toml": node.encode()}
    return {f"/etc/flatrack/{name}": data for name, data in files.items()}


async def test_a_raspberry_pi_3_boots_to_its_first_frame(image, board_folder):
    files = build("qemu-raspi3b", image.folder)
    machine = Machine(files, board_folder, "pi", watchdog=False)  # its 15 s are too few for a busy host
    card = board_folder / "card.img"
    copy_with_files(files.disk, settings(), card)
    call("qemu-img", "create", "-q", "-f", "qcow2", "-b", card, "-F", "raw", machine.disk_path)
    await machine.start()
    reader, writer = await asyncio.open_unix_connection(str(machine.uart_path))
    records, frames = RecordReader(), []
    try:
        async with asyncio.timeout(BOOT_S_MAX):
            while not frames:
                data = await reader.read(4096)
                assert data, machine.last_words()
                frames += records.feed(data)
    except TimeoutError:
        pytest.fail(machine.last_words())
    finally:
        writer.close()
        await machine.kill()
        machine.close()
    interface, frame = frames[0]
    assert interface == 0
    assert frame
