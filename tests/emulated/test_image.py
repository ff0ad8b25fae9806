"""An arm64 image that boots, and a machine that does to it what a laboratory does to boards."""

import asyncio
import random  # noqa: TID251 - the seed is in the test
import shutil
import subprocess

import pytest

from flightsw.errors import BoardError, ConfigError, LinkError, LinkTimeout
from hil.emulation.image import build
from hil.emulation.memory import PAGE_BYTES
from hil.emulation.ready import wait_for_agent
from hil.emulation.snapshot import Snapshot
from hil.on_board.remote import AgentPeer

pytestmark = pytest.mark.emulated

NOTE = "/etc/flatrack/note"
BOOT_S_MAX = 240.0


def listed(image, path):
    """Names in a folder of an image's disk."""
    done = subprocess.run(["debugfs", "-R", f"ls -p {path}", image.disk], capture_output=True, text=True, check=True)
    return {line.split("/")[5] for line in done.stdout.splitlines() if line}


@pytest.fixture
async def board(machine, ready):
    """A restored board and its agent."""
    made = machine(origin=ready)
    await made.start()
    agent = await AgentPeer.open(made.agent_path)
    yield made, agent
    await agent.close()


def test_the_same_code_is_the_same_image(image):
    first = build("qemu-virt", image.folder)
    before = first.disk.stat().st_mtime_ns
    again = build("qemu-virt", image.folder)
    assert again == first
    assert again.disk.stat().st_mtime_ns == before


def test_both_machines_boot_one_disk(image):
    virtual, other = build("qemu-virt", image.folder), build("qemu-raspi3b", image.folder)
    assert (other.disk, other.kernel) == (virtual.disk, virtual.kernel)
    assert other.dtb is not None
    assert other.dtb.exists()


def test_only_an_image_of_a_bench_may_be_struck_from_inside(image):
    flight = build("qemu-virt", image.folder, is_bench=False)
    assert listed(flight, "/etc/flatrack") == {".", ".."}
    assert "flatrack-agent.service" not in listed(flight, "/etc/systemd/system/multi-user.target.wants")
    assert "bench.toml" in listed(image, "/etc/flatrack")
    assert "flatrack.service" in listed(flight, "/etc/systemd/system/multi-user.target.wants")


async def test_a_restored_board_runs_its_program_and_waits(board):
    _, agent = board
    hello = await agent.hello()
    assert hello["pid_of_node"] > 1
    assert hello["uptime_s"] > 1.0


async def test_boards_of_one_snapshot_have_disks_of_their_own(machine, ready):
    boards = [machine(name, origin=ready) for name in ("one", "two")]
    agents = []
    for made in boards:
        await made.start()
        agents.append(await AgentPeer.open(made.agent_path))
    await agents[0].configure({"note": b"first"})
    await agents[1].configure({"note": b"second"})
    assert [await agent.file(NOTE) for agent in agents] == [b"first", b"second"]
    for agent in agents:
        await agent.close()


async def test_a_snapshot_brings_back_memory_and_disk_together(board):
    made, agent = board
    await agent.configure({"note": b"before"})
    await made.save("mine")
    await agent.configure({"note": b"after"})
    await made.load("mine")
    await agent.close()
    agent = await AgentPeer.open(made.agent_path)
    assert await agent.file(NOTE) == b"before"
    await agent.close()


async def test_a_frozen_board_says_nothing_and_goes_on_where_it_was(board):
    made, agent = board
    await made.freeze()
    with pytest.raises(LinkTimeout):
        await agent.call("hello", within_s=0.5)
    await made.resume()
    assert (await agent.hello())["pid_of_node"] > 1


@pytest.mark.parametrize("through", ["memory", "debugger"])
async def test_a_flipped_bit_of_ram_is_what_the_board_reads(machine, ready, through):
    made = machine(origin=ready, gdb=through == "debugger")
    await made.start()
    agent = await AgentPeer.open(made.agent_path)
    pattern = bytes(range(1, 252)) * (PAGE_BYTES // 251)
    await agent.configure({"note": pattern})
    places = list(made.memory.find(pattern[:64]))
    assert places, "a file that was just written lies in the page cache"
    for address in places:
        if through == "memory":
            made.memory.flip(address, 3)
        else:
            await made.flip_code(address, 3)
    assert (await agent.file(NOTE))[:2] == bytes([pattern[0] ^ 8, pattern[1]])
    await agent.close()


async def test_a_write_that_the_disk_refuses_is_not_acknowledged(machine, ready):
    reported = []
    made = machine(origin=ready, on_event=lambda name, data: reported.append((name, data.get("operation"))))
    await made.start()
    agent = await AgentPeer.open(made.agent_path)
    await made.set_block_error("write")
    with pytest.raises(BoardError):
        await made.set_block_error("read")
    with pytest.raises(LinkError):
        await agent.call("configure", {"note": b"lost"}, None, within_s=5.0)
    assert ("BLOCK_IO_ERROR", "write") in reported
    await made.clear_block_error()
    await agent.close()


async def test_a_power_cut_keeps_what_was_flushed_and_a_cold_boot_finds_it(machine, ready):
    ends = []
    made = machine(origin=ready, on_end=ends.append)
    await made.start()
    agent = await AgentPeer.open(made.agent_path)
    boot_before = (await agent.hello())["boot_id"]
    await agent.configure({"note": b"acknowledged"})
    await made.kill()
    assert ends == [-9]
    await agent.close()
    with pytest.raises(BoardError, match="no power"):
        await made.reset()
    assert not any(made.memory.read(address, 1) != b"\0" for address in range(0x4000_0000, 0x4100_0000, PAGE_BYTES))
    await made.start()
    agent = await AgentPeer.open(made.agent_path, timeout_s=BOOT_S_MAX)
    assert await agent.file(NOTE) == b"acknowledged"
    assert (await agent.hello())["boot_id"] != boot_before
    await agent.close()


async def test_a_reset_starts_the_kernel_anew_and_keeps_ram(machine, ready):
    reset = asyncio.Event()
    made = machine(origin=ready, on_event=lambda name, _: reset.set() if name == "RESET" else None)
    await made.start()
    top = 0x4000_0000 + (made.ram_mib << 20) - 8  # of the kernel's record, which no kernel takes for itself
    made.memory.flip(top, 0)
    before = made.memory.read(top, 1)
    await made.reset()
    async with asyncio.timeout(10):
        await reset.wait()
    assert made.memory.read(top, 1) == before
    assert made.pid is not None


async def test_a_snapshot_of_another_size_is_refused(machine, ready):
    with pytest.raises(ConfigError, match="ram_mib = 256: expected 512"):
        machine(origin=ready, ram_mib=256)


async def test_a_board_that_does_not_start_says_why(machine, ready, tmp_path):
    damaged = Snapshot(tmp_path / "damaged", ready.ram_mib)
    shutil.copytree(ready.folder, damaged.folder)
    with damaged.state.open("r+b") as file:
        file.truncate(1000)
    made = machine(origin=damaged)
    with pytest.raises(BoardError, match="load of migration failed"):
        await made.start()
    assert made.pid is None


async def test_a_snapshot_without_its_files_is_refused(machine, ready, tmp_path):
    made = machine(origin=Snapshot(tmp_path, ready.ram_mib))
    with pytest.raises(ConfigError, match="No such file"):
        await made.start()
    assert made.pid is None


async def test_an_agent_that_does_not_answer_is_reported_with_the_console(machine, ready):
    made = machine(origin=ready)
    await made.start()
    await made.freeze()
    with pytest.raises(BoardError, match="no agent"):
        await wait_for_agent(made, timeout_s=0.5)


async def test_a_torn_power_cut_loses_unflushed_sectors_and_nothing_flushed(board, board_folder):
    made, agent = board
    await made.record_writes()
    with pytest.raises(BoardError, match="no snapshots"):
        await made.save("torn")
    await agent.configure({"note": b"acknowledged"})
    await agent.call("fill_disk", 600 << 20)  # writes tables that nobody flushes
    torn = await made.cut_torn(random.Random(1))
    assert torn.flushed_count > 0
    disk = board_folder / "disk.img"
    subprocess.run(["qemu-img", "convert", "-O", "raw", made.disk_path, disk], check=True)
    checked = subprocess.run(["e2fsck", "-p", disk], capture_output=True, text=True, check=False)
    assert checked.returncode in (0, 1), checked.stdout  # 1: the journal was replayed
    read = subprocess.run(["debugfs", "-R", f"cat {NOTE}", disk], capture_output=True, check=True)
    assert read.stdout == b"acknowledged"


async def test_a_torn_power_cut_wants_a_recording(board):
    made, _ = board
    with pytest.raises(BoardError, match="record_writes"):
        await made.cut_torn(random.Random(1))
