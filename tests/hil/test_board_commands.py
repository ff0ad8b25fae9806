"""`flatrack board` on the command line: what it prints, asks and refuses."""

import json
import os

import pytest
from click.testing import CliRunner

from hil.cli import main
from hil.inventory import ports
from hil.inventory.locks import held
from hil.inventory.ports import SerialPort

ADAPTERS = [
    SerialPort("/dev/ttyUSB0", id_serial_short="FTB6SPL3", id_path="p0", model="FT232R_USB_UART"),
    SerialPort("/dev/ttyUSB1", id_serial_short="0001", id_path="p1", interface=0),
    SerialPort("/dev/ttyUSB2", id_serial_short="0001", id_path="p2", interface=0),
]


@pytest.fixture
def flatrack(tmp_path, monkeypatch):
    """Runs `flatrack board ...` with an inventory; gives (exit code, output)."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(ports, "scan", lambda root=None: ADAPTERS)
    monkeypatch.setattr("hil.commands.boards.scan", lambda: ADAPTERS)
    file = tmp_path / "boards.toml"

    def run(*words, inventory="", stdin=""):
        if inventory:
            file.write_text(inventory)
        done = CliRunner().invoke(main, ["board", "--boards", str(file), *words], input=stdin)
        return done.exit_code, done.output

    run.file = file
    return run


def test_a_scan_prints_an_inventory_that_can_be_loaded(flatrack):
    code, out = flatrack("scan")
    assert code == 0
    assert "# /dev/ttyUSB0 FT232R_USB_UART\n[boards.board-01]" in out
    assert 'uart = { id_serial_short = "FTB6SPL3", baud = 115200 }' in out
    assert 'uart = { id_path = "p1", interface = 0, baud = 115200 }' in out
    code, out = flatrack("list", "--json", inventory=out.replace("ssh =", "# ssh ="))
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["port"] for row in rows] == ["/dev/ttyUSB0", "/dev/ttyUSB1", "/dev/ttyUSB2"]
    assert {row["ssh"] for row in rows} == {"none"}
    code, out = flatrack("scan")
    assert f"# /dev/ttyUSB0 FT232R_USB_UART: is that of board-01 in {flatrack.file}" in out


def test_a_list_says_what_is_absent_and_goes_on(flatrack):
    inventory = '[boards.a]\nkind = "host"\nuart = { id_path = "gone" }\n'
    inventory += '[boards.b]\nkind = "host"\nssh = "127.0.0.1"\nssh_options = ["Port=1", "BatchMode=yes"]\n'
    code, out = flatrack("list", inventory=inventory)
    assert code == 0
    assert "port: absent: id_path 'gone'" in out
    assert "board b: ssh 127.0.0.1: " in out
    assert "refused" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("power", "a", "cycle"), "board a: has no power, expected one in the inventory"),
        (("deploy", "a"), "node.toml: cannot be read"),
        (("logs", "a"), "board a: has no ssh, expected one in the inventory"),
        (("reset", "x"), "board 'x', expected one of: a"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_code_2(flatrack, words, said):
    code, out = flatrack(*words, inventory='[boards.a]\nkind = "host"\n')
    assert code == 2
    assert said in out
    assert out.count("\n") == 1


def test_power_is_switched_by_the_inventory(flatrack, tmp_path):
    on, off = (json.dumps(["sh", "-c", f"echo {word} >> {tmp_path}/calls"]) for word in ("on", "off"))
    inventory = f'[boards.a]\nkind = "host"\npower = {{ kind = "command", on = {on}, off = {off}, off_s = 0.0 }}\n'
    assert flatrack("power", "a", "off", inventory=inventory) == (0, "a: power off\n")
    assert flatrack("reset", "a", "--power") == (0, "a: power cycled\n")
    assert (tmp_path / "calls").read_text().split() == ["off", "off", "on"]


def test_a_board_in_use_is_refused(flatrack):
    with held("a", "a run"):
        code, out = flatrack("reset", "a", inventory='[boards.a]\nkind = "host"\nssh = "b"\n')
    assert (code, out) == (2, f"flatrack: board a: in use by a run (process {os.getpid()}), expected a free one\n")


def test_a_removal_is_asked_for(flatrack):
    inventory = '[boards.a]\nkind = "host"\nssh = "127.0.0.1"\nssh_options = ["Port=1", "BatchMode=yes"]\n'
    code, out = flatrack("remove", "a", inventory=inventory, stdin="n\n")
    assert "a: remove service, releases, settings and keys, and what the node has kept? [y/N]: n" in out
    assert code == 1
    code, out = flatrack("remove", "a", "--yes")
    assert "BoardNotFound: board a: ssh 127.0.0.1" in out
    assert code == 1
