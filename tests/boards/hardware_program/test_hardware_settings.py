"""The settings of a real board: its wire, its profile, what it does until they come, and what does not go together."""

import json
import os
import signal
import socket
import subprocess
import sys
import time  # noqa: TID251 - programs share the machine's clock

import pytest

from boards import profiles
from boards.composition import open_profile, open_sensors
from boards.program import BoardSettings, main
from boards.simulated.clock import LoopClock

S = 1_000_000_000
NODE = 11
PATIENCE_S = 20.0
"""Longest wait for what a healthy program does within seconds [s of the machine]."""


# The UART of the pin header


def test_the_wire_may_be_the_board_s_header_whatever_its_device_is_called(finish, run, lab):
    async def scenario(ears):
        device, mark, options = lab.settings.link.url.removeprefix("serial://").partition("?")
        (lab.root / "dev").mkdir(exist_ok=True)
        (lab.root / "dev/ttyAMA0").unlink(missing_ok=True)
        (lab.root / "dev/ttyAMA0").symlink_to(device)
        lab.change("link", url=f"serial://header{mark}{options}")
        lab.write()
        process = lab.start()
        assert (await ears.beacon()).node == NODE
        assert finish(process, signal.SIGTERM)[0] == 0

    run(lab, scenario)


def test_a_header_without_a_uart_is_one_line_that_says_why(lab, capsys):
    lab.change("link", url="serial://header?baud=115200")
    (lab.root / "sys/class/tty/ttyAMA0").unlink()
    lab.write()
    assert main(["--config", str(lab.config)]) == 2
    assert capsys.readouterr().err == (
        "boards: link.url = 'serial://header?baud=115200': no tty on rp1/serial@30000: it is off, or another driver "
        "has it\n"
    )


def test_a_simulated_board_has_no_header(lab, capsys):
    lab.change("link", url="serial://header")
    lab.change(worker=None, board=BoardSettings(kind="simulated", profile="raspberry-pi-5", world="world.json"))
    lab.write()
    assert main(["--config", str(lab.config)]) == 2
    assert capsys.readouterr().err.startswith("boards: link.url = 'serial://header': expected another device with ")


# Waiting for the settings


def test_a_program_that_awaits_its_settings_is_a_node_as_soon_as_they_are_there(finish, run, lab):
    async def scenario(ears):
        lab.config.unlink()
        process = lab.start("--await-config")
        assert process.stderr.readline() == f"boards: waits for {lab.config}\n".encode()
        temporary = lab.folder / "node.toml.new"
        lab.write(temporary)
        temporary.rename(lab.config)
        assert (await ears.beacon()).node == NODE
        assert finish(process, signal.SIGTERM) == (0, "")

    run(lab, scenario)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_program_that_waits_for_its_settings_can_be_ended(finish, lab, number):
    process = lab.start("--await-config")
    process.stderr.readline()
    assert finish(process, number) == (0, "")


def watched(lab, *options):
    """(a socket on which a service manager hears, the process that it watches)."""
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    path = str(lab.folder / "notify")
    manager.bind(path)
    manager.settimeout(PATIENCE_S)
    environment = {**os.environ, "NOTIFY_SOCKET": path, "WATCHDOG_USEC": "60000000"}
    command = [sys.executable, "-m", "boards", "--config", str(lab.config), *options]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    lab.processes.append(process)
    return manager, process


def test_a_program_that_waits_for_its_settings_strokes_the_service_manager(finish, lab):
    manager, process = watched(lab, "--await-config")
    with manager:
        assert [manager.recv(64) for _ in range(2)] == [b"WATCHDOG=1"] * 2
        assert finish(process, signal.SIGTERM)[0] == 0


def test_a_program_that_waits_for_t_zero_strokes_the_service_manager(finish, lab):
    lab.change("clock", zero_utc_ns=time.time_ns() + 3600 * S)
    lab.write()
    manager, process = watched(lab)
    with manager:
        assert json.loads(process.stdout.readline())["kind"] == "board.evidence"
        assert json.loads(process.stdout.readline())["kind"] == "program.waits"
        assert [manager.recv(64) for _ in range(4)] == [b"WATCHDOG=1"] * 4
        assert finish(process, signal.SIGTERM)[0] == 0


# Settings


WRONG = [
    ({"kind": "jetson"}, "board.kind = 'jetson': this board is 'Raspberry Pi 5 Model B Rev 1.0' of family"),
    ({"tree": "host"}, "board.tree = 'host': expected none with board.kind = 'auto'"),
    ({"root": "root"}, "board.root = 'root': expected an absolute path"),
    ({"kind": "simulated", "root": "/"}, "board.profile: missing, expected a profile's name"),
    ({"kind": "simulated", "profile": "raspberry-pi-5", "root": "/x"}, "board.root = '/x': expected none with board"),
    ({"kind": "simulated", "profile": "raspberry-pi-5", "root": "/"}, "worker: expected no such table with board.kind"),
]


@pytest.mark.parametrize(("values", "why"), WRONG, ids=range(len(WRONG)))
def test_settings_that_do_not_go_together_are_one_line_that_says_what(lab, capsys, values, why):
    lab.change("board", **values)
    lab.write()
    assert main(["--config", str(lab.config)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"boards: {why}")


def test_a_tree_that_is_not_there_is_one_line(lab, capsys):
    lab.change(
        worker=None, board=BoardSettings(kind="simulated", profile="raspberry-pi-5", world="world.json", tree="x")
    )
    lab.write()
    assert main(["--config", str(lab.config)]) == 2
    assert capsys.readouterr().err.startswith("boards: board tree 'x': expected one of ")


def test_a_board_that_no_profile_fits_must_be_given_one(make_lab, tmp_path, capsys):
    lab = make_lab(tmp_path, tree="host")
    lab.write()
    assert main(["--config", str(lab.config)]) == 2
    assert capsys.readouterr().err.startswith("boards: board.profile: missing, and no shipped profile fits ")


def test_the_shipped_profile_that_fits_the_board_is_taken(lab):
    sensors = open_sensors(lab.settings.board, lab.folder, LoopClock(lambda: 0, 0))
    assert open_profile(lab.settings.board, lab.folder, sensors) == profiles.load("raspberry-pi-5")
