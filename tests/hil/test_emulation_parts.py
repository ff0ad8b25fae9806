"""Parts of emulated boards that need no emulator: the recipe, the initramfs, wheels, QMP, the debugger, RAM."""

import asyncio
import gzip
import json
import random  # noqa: TID251 - the seed is in the test
import zipfile
from types import SimpleNamespace

import pytest

from flightsw.errors import BoardError, ConfigError
from hil.emulation import gdb, image, kernel_modules, qmp, recipe, rootfs, tools, torn_writes, wheels
from hil.emulation.machine import Machine
from hil.emulation.memory import PAGE_BYTES, RAM_BASE, GuestMemory


def test_the_recipe_is_whole_and_a_power_of_two():
    made_of = recipe.load()
    assert made_of.disk_bytes & (made_of.disk_bytes - 1) == 0, "the Raspberry Pi machine takes no other card"
    own = {f"etc/systemd/system/{unit}" for unit in made_of.enabled if unit.startswith("flatrack")}
    assert own <= made_of.files.keys()
    assert all(f"etc/systemd/system/{unit}" in made_of.files_on_bench for unit in made_of.enabled_on_bench)
    assert not set(made_of.enabled) & set(made_of.masked)


def test_digests_tell_parts_apart():
    assert recipe.digest("ab", "c") != recipe.digest("a", "bc")
    assert recipe.digest("ab") == recipe.digest(b"ab")


def test_a_missing_tool_is_named_with_its_package(monkeypatch):
    monkeypatch.setattr(tools.shutil, "which", lambda *_, **__: None)
    with pytest.raises(ConfigError, match=r"missing tool: mmdebstrap.*apt-get install mmdebstrap"):
        tools.find("mmdebstrap")


def test_a_tool_that_fails_says_why():
    with pytest.raises(ConfigError, match=r"ls failed with exit code 2: .*nowhere"):
        tools.call("ls", "/nowhere")


def test_a_tool_whose_exit_code_says_nothing_is_read():
    script = "echo 'tool 1.0' >&2; echo 'write: no space' >&2"
    with pytest.raises(ConfigError, match="write: no space"):
        tools.call("sh", "-c", script, said=("tool",))
    tools.call("sh", "-c", script, said=("tool", "write"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.sources", "Types: deb\nURIs: http://mirror.test/debian\nSuites: bookworm\n"),
        (
            "a.list",
            "# deb http://other.test/x y\ndeb [arch=amd64 signed-by=/k] http://mirror.test/debian bookworm main\n",
        ),
    ],
)
def test_the_mirror_is_that_of_the_apt_sources(tmp_path, monkeypatch, name, text):
    monkeypatch.delenv(rootfs.MIRROR_VARIABLE, raising=False)
    (tmp_path / name).write_text(text)
    assert rootfs.mirror(tmp_path) == "http://mirror.test/debian"
    monkeypatch.setenv(rootfs.MIRROR_VARIABLE, "http://mine.test/debian")
    assert rootfs.mirror(tmp_path) == "http://mine.test/debian"


def test_a_machine_without_a_debian_mirror_is_told_what_to_set(tmp_path, monkeypatch):
    monkeypatch.delenv(rootfs.MIRROR_VARIABLE, raising=False)
    (tmp_path / "other.list").write_text("deb http://packages.test/ubuntu jammy main\n")
    with pytest.raises(ConfigError, match=rootfs.MIRROR_VARIABLE):
        rootfs.mirror(tmp_path)


def test_the_image_asks_for_root(tmp_path, monkeypatch):
    monkeypatch.setattr(rootfs.os, "geteuid", lambda: 1000)
    with pytest.raises(ConfigError, match="fakeroot"):
        rootfs.make(recipe.load(), tmp_path, tmp_path)


def test_modules_come_behind_those_that_they_need():
    needs = {"disk": ["k/disk.ko", "k/bus.ko", "k/core.ko"], "bus": ["k/bus.ko", "k/core.ko"], "core": ["k/core.ko"]}
    assert kernel_modules._in_order(["disk", "bus"], needs, set()) == ["k/core.ko", "k/bus.ko", "k/disk.ko"]
    assert kernel_modules._in_order(["disk"], needs, {"disk"}) == []
    with pytest.raises(ConfigError, match="module radio"):
        kernel_modules._in_order(["radio"], needs, set())


def test_the_initramfs_is_an_archive_that_the_kernel_reads(tmp_path):
    module = tmp_path / "virtio-net.ko"
    module.write_bytes(b"\x7fELF module")
    data = gzip.decompress(kernel_modules._initramfs(b"\x7fELF busybox", [module]))
    found = {}
    while (name := entry_name(data)) != "TRAILER!!!":
        mode, size, length = (int(data[start : start + 8], 16) for start in (14, 54, 94))
        begin = (110 + length + 3) // 4 * 4
        found[name] = (mode, data[begin : begin + size])
        data = data[begin + (size + 3) // 4 * 4 :]
    assert found["bin/busybox"] == (0o100755, b"\x7fELF busybox")
    assert found["modlist"][1] == b"virtio_net\n"
    assert found["lib/modules/virtio_net.ko"][1] == b"\x7fELF module"
    assert found["tree"][0] == 0o040755


def entry_name(data):
    """Name of the first entry of a cpio archive."""
    assert data[:6] == b"070701"
    return data[110 : 110 + int(data[94:102], 16) - 1].decode()


def test_our_wheel_is_the_same_for_the_same_code(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    assert wheels.write_wheel(one).read_bytes() == wheels.write_wheel(other).read_bytes()
    with zipfile.ZipFile(next(one.iterdir())) as archive:
        names = archive.namelist()
    assert {"boards/__main__.py", "hil/emulation/recipe.toml", "flightsw/py.typed"} <= set(names)
    assert any(name.endswith(".dist-info/METADATA") for name in names)
    assert not any("__pycache__" in name for name in names)


def test_what_has_no_arm64_wheel_is_packed_without_its_extension(tmp_path):
    (path,) = wheels.write_repacked(tmp_path)
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    assert "cobs/cobs/_cobs_py.py" in names
    assert not any(name.endswith((".so", ".pyc")) for name in names)
    assert wheels.downloadable(["cobs>=1", "numpy>=2"]) == ["numpy>=2"]


def test_a_board_needs_the_runtime_and_not_the_tools_of_development():
    needed = " ".join(wheels.requirements())
    assert "onnxruntime" in needed
    assert "numpy" in needed
    assert "pytest" not in needed


def test_a_flip_is_seen_at_its_physical_address():
    memory = GuestMemory(4 * PAGE_BYTES)
    memory.flip(RAM_BASE + PAGE_BYTES + 7, 5)
    assert memory.read(RAM_BASE + PAGE_BYTES + 6, 3) == b"\x00\x20\x00"
    assert list(memory.find(b"\x20")) == [RAM_BASE + PAGE_BYTES + 7]
    with pytest.raises(AssertionError, match="not in RAM"):
        memory.flip(RAM_BASE - 1, 0)
    memory.clear()
    assert memory.read(RAM_BASE + PAGE_BYTES + 7, 1) == b"\0"
    memory.close()


@pytest.fixture
async def serve(tmp_path):
    """Serves a conversation on a Unix socket; gives its path."""
    servers = []

    async def begin(handler):
        path = tmp_path / "door"
        servers.append(await asyncio.start_unix_server(handler, str(path)))
        return path

    yield begin
    for server in servers:
        server.close()
        await server.wait_closed()


async def test_qmp_answers_events_and_refusals_are_told_apart(serve):
    async def emulator(reader, writer):
        writer.write(b'{"QMP": {}}\n')
        while line := await reader.readline():
            asked = json.loads(line)
            match asked["execute"]:
                case "stop":
                    writer.write(b'{"event": "STOP", "data": {"why": 1}}\n{"return": {}}\n')
                case "quit":
                    break
                case "human-monitor-command":
                    text = asked["arguments"]["command-line"] + "\r\nfailed\r\n"
                    writer.write(json.dumps({"return": text}).encode() + b"\n")
                case "qmp_capabilities":
                    writer.write(b'{"return": {}}\n')
                case _:
                    writer.write(b'{"error": {"class": "CommandNotFound", "desc": "no such command"}}\n')
        writer.close()

    events = []
    connection = await qmp.connect(await serve(emulator), lambda name, data: events.append((name, data)))
    assert await connection.run("stop") == {}
    assert events == [("STOP", {"why": 1})]
    assert await connection.monitor("savevm a") == "savevm a\nfailed"
    with pytest.raises(BoardError, match="jump: no such command"):
        await connection.run("jump")
    with pytest.raises(BoardError, match="QEMU has ended"):
        await connection.run("quit")
    with pytest.raises(BoardError, match="QEMU has ended"):
        await connection.run("stop")
    await connection.close()


async def test_the_debugger_flips_a_bit_through_its_packets(serve):
    asked = []

    async def stub(reader, writer):
        memory = {0x4000_0000: 0b101}
        while True:
            try:
                packet = (await reader.readuntil(b"#"))[:-1].partition(b"$")[2]
                await reader.readexactly(2)
            except asyncio.IncompleteReadError:
                break
            asked.append(packet)
            answer = b"OK"
            if packet == b"?":
                answer = b"T05thread:01;"
            elif packet.startswith(b"m"):
                address = int(packet[1:].split(b",")[0], 16)
                answer = b"%02x" % memory[address] if address in memory else b"E14"
            writer.write(b"+$" + answer + b"#%02x" % (sum(answer) & 0xFF))
        writer.close()

    door = await gdb.connect(await serve(stub))
    await door.flip(0x4000_0000, 2)
    with pytest.raises(BoardError, match="no memory at 0x0"):
        await door.read(0, 1)
    await door.close()
    assert asked == [b"?", b"Qqemu.PhyMemMode:1", b"m40000000,1", b"M40000000,1:01", b"m0,1", b"D"]


async def test_a_machine_without_the_debuggers_door_says_how_to_get_one(tmp_path):
    with pytest.raises(BoardError, match="gdb=True"):
        await gdb.connect(tmp_path / "nothing")


def log_of(*writes):
    """A log of writes: (sector, flags, data)."""
    data = torn_writes._SUPER.pack(torn_writes.MAGIC, 1, len(writes), 512).ljust(512, b"\0")
    for sector, flags, content in writes:
        data += torn_writes._ENTRY.pack(sector, len(content) // 512, flags, len(content)).ljust(512, b"\0") + content
    return data


def sectors(letter, count):
    """So many sectors of one letter."""
    return letter.encode() * 512 * count


def test_a_torn_power_cut_keeps_all_that_was_flushed_and_any_part_of_the_rest():
    log = log_of(
        (10, 0, sectors("a", 4)),
        (0, torn_writes.FLUSH, b""),
        (10, 0, sectors("b", 64)),
        (200, torn_writes.FUA, sectors("c", 1)),
    )
    found, torn = torn_writes.surviving(log, random.Random(3))
    assert (torn.flushed_count, torn.kept_count + torn.lost_count) == (5, 64)
    assert torn.kept_count > 0
    assert torn.lost_count > 0
    assert all(found[sector] in (sectors("a", 1), sectors("b", 1)) for sector in range(10, 14))
    assert found[200] == sectors("c", 1)
    assert torn_writes.surviving(log, random.Random(3))[0] == found, "the seed decides"
    assert torn_writes.surviving(log, random.Random(4))[0] != found


def test_a_recording_without_a_flush_promises_nothing():
    _, torn = torn_writes.surviving(log_of((0, 0, sectors("a", 32))), random.Random(1))
    assert torn.flushed_count == 0
    assert torn.lost_count > 0
    assert torn_writes.surviving(b"", random.Random(1)) == ({}, torn_writes.Torn(0, 0, 0))


def test_a_file_that_is_no_log_is_refused():
    with pytest.raises(BoardError, match="log of writes"):
        torn_writes.surviving(bytes(1024), random.Random(1))


# -- machines that do not run, and what trials leave behind


async def test_a_machine_without_qemu_leaves_no_sockets(tmp_path, monkeypatch):
    monkeypatch.setattr(tools.shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr("hil.emulation.machine.make_overlay", lambda *_: None)
    made = Machine(SimpleNamespace(target="qemu-virt", disk=tmp_path), tmp_path, "one")
    with pytest.raises(ConfigError, match="missing tool: qemu-system-aarch64"):
        await made.start()
    assert not list(tmp_path.iterdir())
    made.close()


async def test_a_machine_whose_sockets_cannot_all_be_made_gives_back_those_that_were(tmp_path, monkeypatch):
    monkeypatch.setattr("hil.emulation.machine.find", lambda name: name)
    monkeypatch.setattr("hil.emulation.machine.make_overlay", lambda *_: None)
    listened = []

    def listen(path):
        if listened:
            raise ConfigError(f"{path}: no room")
        listened.append(SimpleNamespace(close=lambda: listened.append("closed")))
        return listened[0]

    monkeypatch.setattr("hil.emulation.machine._listen", listen)
    made = Machine(SimpleNamespace(target="qemu-virt", disk=tmp_path), tmp_path, "one")
    with pytest.raises(ConfigError, match="no room"):
        await made.start()
    assert listened[1:] == ["closed"]
    made.close()


async def test_a_machine_runs_before_anybody_can_save_it_anew(tmp_path, monkeypatch):
    asked = []

    class Door:
        async def run(self, command, **arguments):
            asked.append(command)
            return {"status": "paused"}

        async def close(self):
            pass

    async def connect(path, on_event):
        return Door()

    monkeypatch.setattr(qmp, "connect", connect)
    monkeypatch.setattr(Machine, "_launch", lambda *_: None)
    origin = SimpleNamespace(ram_mib=1, lay=lambda memory, disk: None, state=tmp_path / "state")
    made = Machine(SimpleNamespace(target="qemu-virt"), tmp_path, "one", origin=origin, ram_mib=1)
    await made.start()
    assert asked.index("cont") > asked.index("migrate-incoming")
    await made.kill()
    made.close()


def test_a_console_that_was_forgotten_goes_on_at_its_beginning(tmp_path):
    made = Machine(SimpleNamespace(target="qemu-virt"), tmp_path, "one", ram_mib=1)
    with made.console_path.open("ab", buffering=0) as emulator:  # QEMU appends, too
        emulator.write(b"of the first trial")
        made.forget_words()
        assert made.console() == ""
        emulator.write(b"of the second")
    assert made.console() == "of the second"
    made.close()


async def test_the_exit_code_of_qemu_is_kept(tmp_path, monkeypatch):
    codes = []
    made = Machine(SimpleNamespace(target="qemu-virt"), tmp_path, "one", ram_mib=1, on_end=codes.append)
    assert made.exit_code is None
    with (tmp_path / "words").open("wb") as words:
        made._qemu.start(["sh", "-c", "exit 3"], out=words, err=words)
    await made.ended()
    assert (made.exit_code, codes) == (3, [3])
    made.close()


def test_the_cached_wheels_follow_the_code_that_packs_them():
    assert "wheels" in image.SITE_SOURCES
    assert not {"assembly", "wheels"} & set(image.BASE_SOURCES), "which would bootstrap Debian again for nothing"
