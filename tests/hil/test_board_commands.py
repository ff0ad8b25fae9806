"""`flatrack board` on the command line: what it prints, asks and refuses."""

import json
import os

import pytest
from click.testing import CliRunner

from hil.cli import main
from hil.commands import board_restore
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


SSH = """#!/bin/sh
# stands in for ssh: notes what it is asked; the last argument is the command of the board, which is this machine
for command; do :; done
case "$*" in *"-O exit"*) exit 0;; esac
echo "$*" >> "$CALLS"
case "$*" in *" -t here") exit 7;; esac
exec sh -c "$command"
"""


@pytest.fixture
def calls(flatrack, tmp_path, monkeypatch):
    """An inventory with board a behind a stand-in for ssh; gives the file of what is asked of ssh, sudo, journalctl."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "ssh").write_text(SSH)
    (tools / "sudo").write_text('#!/bin/sh\necho "sudo $*" >> "$CALLS"\nshift 2\nexec "$@"\n')
    (tools / "journalctl").write_text('#!/bin/sh\necho "journalctl $*" >> "$CALLS"\nexit 3\n')
    (tools / "id").write_text('#!/bin/sh\necho "${UID_THERE:-0}"\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    flatrack.file.write_text('[boards.a]\nkind = "host"\nssh = "here"\n')
    return tmp_path / "calls"


def test_a_shell_is_that_of_ssh_with_its_exit_code(flatrack, calls):
    assert flatrack("shell", "a") == (7, "")
    (call,) = calls.read_text().splitlines()
    assert "-o ControlPath=none " in call
    assert call.endswith(" -t here")


@pytest.mark.parametrize(("user", "by_sudo"), [("0", False), ("1000", True)])
def test_logs_that_are_followed_are_read_as_root(flatrack, calls, monkeypatch, user, by_sudo):
    monkeypatch.setenv("UID_THERE", user)
    code, _ = flatrack("logs", "a", "-f", "-n", "9")
    journal = "journalctl --unit flatrack.service --lines 9 --follow --output cat"
    assert code == 3, "that of journalctl"
    assert calls.read_text().splitlines()[-1] == journal
    assert (f"sudo -n -- {journal}" in calls.read_text().splitlines()) == by_sudo


@pytest.mark.parametrize("more", [("--wait", "30"), ("--control", "ground.sock")])
def test_without_a_link_there_is_nothing_to_wait_for(flatrack, more):
    code, out = flatrack("deploy", "a", "--without-link", *more, inventory='[boards.a]\nkind = "host"\n')
    assert (code, out.count("\n")) == (2, 1)
    assert "--without-link: nobody listens, expected neither --control nor --wait beside it" in out


def test_a_removal_is_asked_for(flatrack):
    inventory = '[boards.a]\nkind = "host"\nssh = "127.0.0.1"\nssh_options = ["Port=1", "BatchMode=yes"]\n'
    code, out = flatrack("remove", "a", inventory=inventory, stdin="n\n")
    assert "a: remove service, releases, settings and keys, and what the node has kept? [y/N]: n" in out
    assert code == 1
    code, out = flatrack("remove", "a", "--yes")
    assert "BoardNotFound: board a: ssh 127.0.0.1" in out
    assert code == 1


@pytest.mark.parametrize(
    ("restored", "code", "said"),
    [
        ({"files": ["a", "b"], "runs": True}, 0, "pi: has its settings of before the run: a, b; its node runs again"),
        ({"files": ["a"], "runs": False}, 0, "pi: has its settings of before the run: a; its node did not run then"),
        ({"files": [], "runs": True}, 0, "pi: had its settings of before the run already; its node runs again"),
        ({"files": [], "runs": False}, 0, "pi: no settings of a run lie there: nothing is changed"),
        ({"files": ["a"], "runs": False, "trouble": "full"}, 1, "its node does not start: full"),
        ({"files": [], "runs": False, "trouble": "full"}, 1, "has its settings of before the run, but its node does"),
    ],
)
def test_a_restore_says_what_was_put_back_and_whether_the_node_runs(flatrack, monkeypatch, restored, code, said):
    async def restore(*_):
        return restored

    monkeypatch.setattr(board_restore, "_restore", restore)
    done = flatrack("restore", "pi")
    assert (done[0], said in done[1], done[1].count("\n")) == (code, True, 1), done
