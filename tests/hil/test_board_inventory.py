"""The inventory of a laboratory: boards, ports that keep their names, locks, and what switches power."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from flightsw.errors import BoardError, ConfigError
from hil.inventory import boards, locks, ports, power
from hil.inventory.boards import Command, Emulator, Manual, NetworkRelay, Uart, UsbHub

GOOD = """\
[boards.sat-03]
kind = "raspberry-pi-5"
ssh = "flatrack@sat-03.local"
uart = { id_serial_short = "FTB6SPL3", baud = 921600 }
power = { kind = "usb_hub", location = "1-1", port = 2 }
tags = ["lab"]

[boards.sat-04]
kind = "jetson-orin-nano"
uart = { id_path = "p4" }
power = { kind = "network_relay", url = "http://plug4.local" }
settings = "elsewhere/sat-04"
"""


def written(folder, text):
    path = folder / "boards.toml"
    path.write_text(text)
    return path


def test_an_inventory_says_where_each_board_is(tmp_path):
    inventory = boards.load(written(tmp_path, GOOD))
    first, second = inventory.board("sat-03"), inventory.board("sat-04")
    assert first.uart == Uart(id_serial_short="FTB6SPL3", baud=921_600)
    assert first.power == UsbHub(location="1-1", port=2)
    assert second.power == NetworkRelay(url="http://plug4.local")
    assert inventory.settings_folder("sat-03") == tmp_path / "sat-03"
    assert inventory.settings_folder("sat-04") == tmp_path / "elsewhere/sat-04"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"raspberry-pi-5"', '"pi5"', r"kind = 'pi5'|Invalid enum value 'pi5'"),
        ("baud = 921600", "baud = 12", "baud"),
        ('id_serial_short = "FTB6SPL3", ', "", "uart has no name, expected one of id_serial_short, id_path, path"),
        ("baud = 921600", 'id_path = "x"', "uart has id_serial_short and id_path, expected one of"),
        ('"usb_hub"', '"magic"', "magic"),
        ("port = 2", "port = 0", "port"),
        ('ssh = "flatrack@sat-03.local"', 'ssh = "-oProxyCommand=x"', "ssh is '-oProxyCommand=x', expected user@host"),
        ("[boards.sat-03]", "[boards.Sat_03]", r"boards\.Sat_03: expected lower-case letters"),
        ("[boards.sat-03]", "[boards.sat-03]\ncolour = 1", "colour"),
        (
            'uart = { id_path = "p4" }',
            'uart = { id_serial_short = "FTB6SPL3" }',
            r"boards\.sat-04\.uart: id_serial_short 'FTB6SPL3' is that of sat-03",
        ),
    ],
)
def test_what_is_wrong_is_said_with_the_file(tmp_path, old, new, said):
    assert old in GOOD
    with pytest.raises(ConfigError, match=said) as raised:
        boards.load(written(tmp_path, GOOD.replace(old, new)))
    assert "boards.toml" in str(raised.value)


def test_a_board_that_is_not_there_is_named_with_those_that_are(tmp_path):
    with pytest.raises(ConfigError, match=r"board 'sat-9', expected one of: sat-03, sat-04"):
        boards.load(written(tmp_path, GOOD)).board("sat-9")


# -- ports


@pytest.fixture
def machine(tmp_path):
    """Lays the files of a machine with serial ports; `add(device, ...)` plugs one in."""

    def add(device, number, usb=None, serial="", **properties):
        place = f"sys/devices/{usb}/{usb}:1.0/{device}" if usb else f"sys/devices/platform/{device}"
        node = tmp_path / place / "tty" / device
        node.mkdir(parents=True)
        (node / "dev").write_text(f"{number}\n")
        (node / "device").symlink_to(tmp_path / place)
        if usb:
            (tmp_path / f"sys/devices/{usb}/idVendor").write_text("0403\n")
            (tmp_path / f"sys/devices/{usb}/product").write_text("FT232R USB UART\n")
            if serial:
                (tmp_path / f"sys/devices/{usb}/serial").write_text(f"{serial}\n")
        (tmp_path / "sys/class/tty").mkdir(parents=True, exist_ok=True)
        (tmp_path / "sys/class/tty" / device).symlink_to(node)
        if properties:
            (tmp_path / "run/udev/data").mkdir(parents=True, exist_ok=True)
            lines = ["S:serial/by-path/pci-" + device, "I:4711", "L:0"]
            lines += [f"E:{name}={value}" for name, value in properties.items()]
            (tmp_path / f"run/udev/data/c{number}").write_text("\n".join(lines) + "\n")
        return node

    add.root = tmp_path
    return add


def test_a_port_is_found_by_the_number_of_its_adapter_whatever_device_it_is(machine):
    machine("ttyUSB0", "188:0", "1-1", ID_SERIAL_SHORT="AAA", ID_PATH="p0")
    machine("ttyUSB1", "188:1", "1-2", ID_SERIAL_SHORT="FTB6SPL3", ID_PATH="p1")
    assert ports.find_uart(Uart(id_serial_short="FTB6SPL3"), machine.root) == Path("/dev/ttyUSB1")
    assert ports.find_uart(Uart(id_path="p0"), machine.root) == Path("/dev/ttyUSB0")
    assert ports.find_uart(Uart(path="/dev/serial/by-path/pci-ttyUSB0"), machine.root) == Path("/dev/ttyUSB0")


def test_without_udev_the_number_of_an_adapter_is_read_from_sysfs(machine):
    machine("ttyUSB0", "188:0", "1-1", serial="FTB6SPL3")
    assert ports.find_uart(Uart(id_serial_short="FTB6SPL3"), machine.root) == Path("/dev/ttyUSB0")
    assert ports.scan(machine.root)[0].model == "FT232R USB UART"


def test_a_port_that_is_not_there_is_said_with_those_that_are(machine):
    machine("ttyUSB0", "188:0", "1-1", ID_SERIAL_SHORT="AAA")
    with pytest.raises(ConfigError, match=r"id_serial_short 'BBB': no such port; .*: /dev/ttyUSB0 \(AAA\)"):
        ports.find_uart(Uart(id_serial_short="BBB"), machine.root)


def test_an_adapter_with_several_ports_needs_the_interface(machine):
    machine("ttyUSB0", "188:0", "1-1", ID_SERIAL_SHORT="AAA", ID_USB_INTERFACE_NUM="00")
    machine("ttyUSB1", "188:1", "1-2", ID_SERIAL_SHORT="AAA", ID_USB_INTERFACE_NUM="01")
    with pytest.raises(
        ConfigError, match=r"ttyUSB0 \(interface 0\), /dev/ttyUSB1 \(interface 1\) have it, expected one"
    ):
        ports.find_uart(Uart(id_serial_short="AAA"), machine.root)
    assert ports.find_uart(Uart(id_serial_short="AAA", interface=1), machine.root) == Path("/dev/ttyUSB1")


def test_a_scan_names_ports_by_what_lasts_and_leaves_out_those_without_a_chip(machine):
    machine("ttyUSB0", "188:0", "1-1", ID_SERIAL_SHORT="0001", ID_PATH="p0")
    machine("ttyUSB1", "188:1", "1-2", ID_SERIAL_SHORT="0001", ID_PATH="p1")
    machine("ttyACM0", "166:0", "1-3", ID_SERIAL_SHORT="CCC", ID_PATH="p2", ID_USB_INTERFACE_NUM="00")
    (machine("ttyS0", "4:64") / "type").write_text("0\n")
    (machine("ttyAMA0", "204:64") / "type").write_text("32\n")
    found = ports.scan(machine.root)
    assert [port.device for port in found] == ["/dev/ttyACM0", "/dev/ttyAMA0", "/dev/ttyUSB0", "/dev/ttyUSB1"]
    names = [ports.lasting(port, found) for port in found]
    assert names == [
        Uart(id_serial_short="CCC", interface=0),
        Uart(path="/dev/ttyAMA0"),
        Uart(id_path="p0"),  # two adapters say that they are number 0001
        Uart(id_path="p1"),
    ]


# -- locks


def test_a_board_has_one_user_at_a_time_and_says_who(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with locks.held("sat-03", "a bench"):
        code = "from hil.inventory.locks import held\nwith held('sat-03', 'other'): pass"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "board sat-03: in use by a bench (process" in other.stderr
        with locks.held("sat-04", "a bench"):
            pass
    with locks.held("sat-03", "again"):
        pass


def test_the_lock_of_a_program_that_died_is_free(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    code = "import os\nfrom hil.inventory.locks import held\nwith held('sat-03', 'x'): os._exit(9)"
    subprocess.run([sys.executable, "-c", code], check=False)
    with locks.held("sat-03", "again"):
        pass


# -- power


async def test_a_hub_is_switched_by_uhubctl(tmp_path, monkeypatch):
    tool = tmp_path / "uhubctl"
    tool.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    await power.open_power(UsbHub(location="1-1.4", port=2, off_s=0.0)).cycle()
    assert (tmp_path / "calls").read_text() == "-l 1-1.4 -p 2 -a off\n-l 1-1.4 -p 2 -a on\n"


async def test_a_program_that_fails_or_is_missing_is_said():
    off = ("sh", "-c", "echo no such hub >&2; exit 3")
    switch = power.open_power(Command(on=("/nowhere/switch",), off=off))
    with pytest.raises(BoardError, match="ended with 3: no such hub"):
        await switch.off()
    with pytest.raises(ConfigError, match="/nowhere/switch: No such file"):
        await switch.on()


@pytest.mark.parametrize(
    ("answer", "refused"),
    [
        ('200 OK\r\n\r\n{"POWER2":"ON"}', None),
        ('200 OK\r\n\r\n{"POWER2":"OFF"}', "expected power ON"),
        ("401 Unauthorized\r\n\r\n", "answered 401"),
        ("200 OK\r\n\r\nnot JSON", "not JSON"),
    ],
)
async def test_a_plug_has_to_say_that_it_did_it(answer, refused):
    asked = []

    async def plug(reader, writer):
        asked.append((await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0])
        writer.write(f"HTTP/1.0 {answer}".encode())
        writer.close()

    server = await asyncio.start_server(plug, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        switch = power.open_power(NetworkRelay(url=f"http://127.0.0.1:{port}", relay=2))
        if refused is None:
            await switch.on()
        else:
            with pytest.raises(BoardError, match=refused):
                await switch.on()
    finally:
        server.close()
        await server.wait_closed()
    assert asked == [b"GET /cm?cmnd=Power2%20On HTTP/1.0"]


async def test_a_plug_that_is_not_there_is_said():
    with pytest.raises(BoardError, match=r"network_relay 127\.0\.0\.1:1"):
        await power.open_power(NetworkRelay(url="http://127.0.0.1:1")).off()
    with pytest.raises(ConfigError, match="expected http://host"):
        power.open_power(NetworkRelay(url="plug4.local"))


async def test_a_machine_under_qemu_is_reset_over_its_socket(tmp_path):
    asked, closed = [], asyncio.Event()

    async def qemu(reader, writer):
        writer.write(b'{"QMP": {}}\n')
        while line := await reader.readline():
            asked.append(json.loads(line)["execute"])
            writer.write(b'{"event": "RESET"}\n{"return": {}}\n')
        writer.close()
        closed.set()

    server = await asyncio.start_unix_server(qemu, tmp_path / "q")
    try:
        await power.open_power(Emulator(qmp=str(tmp_path / "q"))).cycle()
        await closed.wait()
    finally:
        server.close()
        await server.wait_closed()
    assert [one for one in asked if one != "qmp_capabilities"] == ["system_reset", "cont"]


async def test_a_person_is_asked_to_pull_the_plug():
    asked = []
    await power.open_power(Manual(), "sat-03", asked.append).cycle()
    assert asked == ["Take the board's power away", "Give the board power"]


def test_a_board_without_a_switch_is_said():
    with pytest.raises(ConfigError, match="board sat-03: has no power, expected one in the inventory"):
        power.open_power(None, "sat-03")
