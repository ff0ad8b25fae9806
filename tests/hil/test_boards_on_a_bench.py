"""Boards of an inventory on a bench, with this machine as the board behind a stand-in for ssh: they join over a broker,
survive what strikes them, and are afterwards what they were before."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from flightsw.errors import BoardError, ControlError, LinkBroken
from hil.bench import inventory_board, lab_broker
from hil.bench.execute import real_time
from hil.bench.handles import Cluster
from hil.bench.inventory_board import InventoryBoard, open_boards
from hil.bench.pace import START_CPU_S
from hil.bench.run import Bench
from hil.bench.scenario import Boards, load
from hil.bench.stepped import SteppedRun
from hil.bench.surroundings import Surroundings
from hil.cli import main
from hil.commands import board_restore
from hil.inventory.boards import load as load_inventory
from hil.sim.trace import read_trace

ROOT = Path(__file__).parents[2]
NAME = "sat-01"
PATIENCE_S = 2000.0
"""Longest wait [mission s]: 100 s of the machine."""
TIME_SCALE = 20.0
OWN = {"node.toml": b"its own settings", "keys.toml": b"its own keys", "bench.toml": b"allows_faults = true\n"}
RUN = {"node.toml": b"settings of the run", "world.json": b"world of the run"}

SSH = """#!/bin/sh
# stands in for ssh: the last argument is the command of the board, which is this machine
for command; do :; done
case "$*" in *"-O exit"*) exit 0;; esac
[ -e "$BOARD/power" ] || { echo "ssh: no route to host" >&2; exit 255; }
exec sh -c "$command"
"""
AGENT = """\
import asyncio, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from hil.on_board.agent import FaultAgent
from hil.on_board.program import serve_stdio
from hil.on_board.tools import run_tool
async def main():
    await serve_stdio(FaultAgent(Path(sys.argv[1]), run_tool, lambda utc_ns: None, time.time_ns))
asyncio.run(main())
"""
"""The agent as it is, but that it has a board of its own and leaves this machine's clock alone."""
SYSTEMCTL = """\
#!{python}
# stands in for systemd: runs the node of the settings, with this machine's names for the board's
import os, shutil, signal, subprocess, sys, time
from pathlib import Path
board = Path(os.environ["BOARD"])
etc, here, pid_file = board / "etc/flatrack", board / "here", board / "service.pid"
with (board / "calls").open("a") as calls:
    calls.write(" ".join(sys.argv[1:]) + "\\n")
def alive():
    try:
        pid = int(pid_file.read_text())
        return pid if Path(f"/proc/{{pid}}/stat").read_text().rpartition(") ")[2][0] != "Z" else 0
    except (OSError, ValueError):
        return 0
verb = sys.argv[1]
if verb in ("show", "is-active"):
    print("active" if alive() else "inactive")
if verb == "stop" and (pid := alive()):
    os.killpg(pid, signal.SIGKILL)
    while alive():
        time.sleep(0.01)
if verb == "start" and not alive():
    shutil.rmtree(here, ignore_errors=True)
    shutil.copytree(etc, here)
    text = (here / "node.toml").read_text()
    is_own = "[node]" not in text
    for ours, this in (("/var/lib/flatrack", str(board / "var/lib/flatrack")), ('"auto"', '"simulated"')):
        assert is_own or ours in text
        text = text.replace(ours, this)
    (here / "node.toml").write_text(text)
    words = ["-c", "import time; time.sleep(3600)"] if is_own else ["-m", "boards", "--config", "node.toml"]
    with (board / "journal").open("ab") as out:
        program = subprocess.Popen([sys.executable, *words], cwd=here, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                   start_new_session=True, env=os.environ | {{"PYTHONPATH": {root!r}}})
    pid_file.write_text(str(program.pid))
"""
BENCH = """\
import asyncio, os, signal, sys
from pathlib import Path
from hil.bench import inventory_board
from hil.inventory.boards import load
async def main(name, inventory, files, *remote):
    inventory_board.REMOTE = remote
    found = load(Path(inventory)).board(name)
    board = inventory_board.InventoryBoard(name, found, report=print, needs_uart=False)
    assert await board.missing() == ""
    board.prepare(eval(files), lambda: 0)
    await board.start()
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main(*sys.argv[1:]))
"""
PLUG = """#!/bin/sh
# the plug of the board: without power there is no program; with it the service starts
if [ "$1" = off ]; then rm -f "$BOARD/power"; systemctl stop
elif ! [ -e "$BOARD/power" ]; then touch "$BOARD/power"; systemctl start; fi
"""


class Lab:
    """This machine as a board: its files, its service and its plug; and the inventory that has it."""

    def __init__(self, folder):
        self.folder = folder
        self.board = folder / "board"
        self.etc = self.board / "etc/flatrack"
        self.data = self.board / "var/lib/flatrack"
        for path in (folder / "bin", self.etc, self.data, self.board / "dev", self.board / "proc"):
            path.mkdir(parents=True)
        for name, text in {
            "ssh": SSH,
            "systemctl": SYSTEMCTL.format(python=sys.executable, root=str(ROOT)),
            "plug": PLUG,
        }.items():
            (folder / "bin" / name).write_text(text)
            (folder / "bin" / name).chmod(0o755)
        (folder / "agent.py").write_text(AGENT)
        for name, content in OWN.items():
            (self.etc / name).write_bytes(content)
        (self.board / "dev/urandom").touch()
        (self.board / "power").touch()
        plug = str(folder / "bin/plug")
        (folder / "boards.toml").write_text(
            f'[boards.{NAME}]\nkind = "host"\nssh = "here"\n'
            f'power = {{ kind = "command", on = ["{plug}", "on"], off = ["{plug}", "off"] }}\n'
        )
        self.said = []

    @property
    def remote(self):
        return (sys.executable, str(self.folder / "agent.py"), str(self.board), str(ROOT))

    def systemctl(self, *words):
        return subprocess.run(
            [self.folder / "bin/systemctl", *words], capture_output=True, text=True, check=True
        ).stdout

    def runs(self):
        return self.systemctl("is-active") == "active\n"

    def settings(self):
        return {path.name: path.read_bytes() for path in self.etc.iterdir() if path.is_file()}

    def is_lent(self):
        return (self.etc / "before-run").exists()

    def of_bench(self):
        """The board, as a bench that has just begun has it."""
        board = load_inventory(self.folder / "boards.toml").board(NAME)
        return InventoryBoard(NAME, board, needs_uart=False, report=self.said.append)


@pytest.fixture
def lab(tmp_path, monkeypatch):
    made = Lab(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("BOARD", str(made.board))
    monkeypatch.setattr(inventory_board, "REMOTE", made.remote)
    monkeypatch.setattr(board_restore, "REMOTE", made.remote)
    monkeypatch.setattr(inventory_board, "RETRY_S", 0.01)
    yield made
    made.systemctl("stop")


async def taken(lab):
    """A board that takes part, with what it is to be."""
    board = lab.of_bench()
    assert await board.missing() == ""
    board.prepare(RUN, lambda: 0)
    return board


def killed_run(lab):
    """A bench that is killed when the board has its settings: it has no chance to do anything."""
    command = [sys.executable, "-c", BENCH, NAME, lab.folder / "boards.toml", repr(RUN), *lab.remote]
    folders = os.environ | {"TMPDIR": str(lab.folder)}  # nobody is left to remove those of ssh
    assert subprocess.run(command, cwd=ROOT, env=folders, check=False).returncode == -signal.SIGKILL
    assert list(lab.folder.glob("flatrack-ssh-*"))
    assert lab.settings() == OWN | RUN


# -- on a broker


def bench_of(lab, folder, broker, monkeypatch):
    """A bench with one satellite, on the table, which is the board, whose node runs."""
    monkeypatch.setattr("hil.bench.pace.START_BOARD_S", 0.0)
    monkeypatch.setitem(START_CPU_S, "board", 3.0)
    lab.systemctl("start")
    table = load("table")
    node = msgspec.structs.replace(table.nodes[0], kind="board", link="mqtt")
    boards = Boards(inventory=str(lab.folder / "boards.toml"), bench="tcp://127.0.0.2:0")
    scenario = msgspec.structs.replace(table, nodes=(node,), boards=boards, expect={})
    folder.mkdir()
    surroundings = Surroundings(None, open_boards(scenario))
    return Bench(scenario, 7, folder=folder, pace=real_time(scenario, TIME_SCALE, broker), surroundings=surroundings)


@pytest.mark.parametrize("broker", ["mosquitto", "nats"])
def test_a_board_joins_over_a_broker_and_comes_back_from_a_power_cut_and_the_brokers_end(
    lab, broker, need_tool, tmp_path, monkeypatch
):
    if broker == "mosquitto":
        need_tool("mosquitto")
    monkeypatch.setattr(lab_broker, "is_loopback", lambda host: host == "127.0.0.1")  # and 127.0.0.2 is a network
    bench = bench_of(lab, tmp_path / "run", broker, monkeypatch)
    with SteppedRun(bench) as run:
        satellite = Cluster(run)[NAME]
        satellite.wait_for_beacon(within_s=PATIENCE_S)
        assert satellite.command("NODE.NOOP", within_s=PATIENCE_S).is_completed
        assert list(lab.data.glob("bench-*/disk")), "what it keeps in a run is apart from its own"

        satellite.cut_power(off_s=2.0)
        satellite.wait_for_beacon(boot_count=2, within_s=PATIENCE_S)
        assert satellite.command("NODE.NOOP", within_s=PATIENCE_S).is_completed

        (pid,) = brokers_of(os.getpid())
        os.kill(pid, signal.SIGKILL)
        assert satellite.command("NODE.NOOP", within_s=PATIENCE_S).is_completed
        outcome = run.end()
    assert outcome.passed, (outcome.violations, outcome.crash)
    trace = list(read_trace(tmp_path / "run/trace.jsonl")[1])
    boots = [fields["cause"] for _, source, kind, fields in trace if (source, kind) == (NAME, "node.boot")]
    assert boots == ["POWER_ON", "POWER_CYCLE"]
    assert any(kind == "broker.event" and "started again" in fields["text"] for _, _, kind, fields in trace)
    text = (tmp_path / "run/nodes" / NAME / "node.toml").read_text()
    assert re.search(rf'url = "mqtt://flatrack:[0-9a-f]{{32}}@127\.0\.0\.2:\d+/flatrack\?client={NAME}&', text)
    assert "userfile" not in text, "a file of this machine"
    # and it is what it was
    assert lab.settings() == OWN
    assert lab.runs()
    assert not lab.is_lent()
    assert list(lab.data.iterdir()) == []


@pytest.mark.parametrize("how", ["interrupted", "failed"])
def test_a_run_that_does_not_come_to_its_end_puts_back_what_was_there_before(lab, how, tmp_path, monkeypatch):
    async def operate(bench):
        assert lab.settings() != OWN
        if how == "failed":
            raise BoardError("the operator gives up")
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.get_running_loop().create_future()

    bench = bench_of(lab, tmp_path / "run", "nats", monkeypatch)
    bench.operator = operate
    outcome = bench.run()
    assert outcome.interrupted == (how == "interrupted")
    assert ("the operator gives up" in outcome.crash) == (how == "failed")
    assert (lab.settings(), lab.runs(), lab.is_lent()) == (OWN, True, False)
    assert list(lab.data.iterdir()) == []


def brokers_of(pid):
    """Processes of brokers that this process has started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    names = {int(child): Path(f"/proc/{child}/comm").read_text().strip() for child in children}
    return [child for child, name in names.items() if name in ("mosquitto", "nats-server")]


def test_a_board_on_a_broker_needs_no_uart_and_one_without_either_says_so(lab):
    async def scene():
        board = load_inventory(lab.folder / "boards.toml").board(NAME)
        found = InventoryBoard(NAME, board, report=print, needs_uart=False)
        assert await found.missing() == ""
        await found.close()
        why = await InventoryBoard(NAME, board, report=print).missing()
        assert "has no uart, expected one in the inventory" in why
        assert "or link = 'mqtt' of its node" in why

    asyncio.run(scene())


# -- what it was before


@pytest.mark.parametrize("ran", [True, False])
def test_after_a_run_a_board_has_its_own_settings_and_its_node_runs_if_it_ran(lab, ran):
    async def scene():
        board = await taken(lab)
        await board.start()
        assert lab.settings() == OWN | RUN
        await board.close()

    if ran:
        lab.systemctl("start")
    asyncio.run(scene())
    assert (lab.settings(), lab.runs(), lab.is_lent(), lab.said) == (OWN, ran, False, [])


def test_a_run_that_fails_while_it_tells_a_board_who_it_is_puts_back_what_it_had_written(lab):
    async def scene():
        board = await taken(lab)
        board.prepare(RUN | {"keys.toml": b"of the run", "x": b"a file", "x/y": b"cannot be under it"}, lambda: 0)
        with pytest.raises(ControlError, match="x/y: cannot be written"):
            await board.start()
        assert lab.settings()["keys.toml"] == b"of the run"
        assert lab.is_lent()
        await board.close()

    lab.systemctl("start")
    asyncio.run(scene())
    assert (lab.settings(), lab.runs(), lab.is_lent()) == (OWN, True, False)


def test_a_board_that_was_never_told_anything_is_left_alone(lab):
    async def scene():
        await (await taken(lab)).close()

    lab.systemctl("start")
    (lab.board / "calls").unlink()
    asyncio.run(scene())
    assert lab.settings() == OWN
    assert not (lab.board / "calls").exists(), "its service was not touched"


def test_the_run_after_a_killed_bench_puts_back_what_was_there_before_both(lab):
    async def scene():
        board = await taken(lab)
        board.prepare({"node.toml": b"the second run", "keys.toml": b"its keys"}, lambda: 0)
        await board.start()
        await board.close()

    killed_run(lab)
    asyncio.run(scene())
    assert (lab.settings(), lab.runs(), lab.is_lent()) == (OWN, False, False)


def test_a_board_whose_power_is_off_at_the_end_is_given_it_and_waited_for(lab):
    async def scene():
        board = await taken(lab)
        await board.start()
        board.cut()
        await board.close()

    lab.systemctl("start")
    asyncio.run(scene())
    assert (lab.settings(), lab.runs(), lab.is_lent(), lab.said) == (OWN, True, False, [])


def test_a_board_that_has_gone_is_told_with_what_to_do_and_is_free_for_others(lab, capfd):
    async def scene():
        board = await taken(lab)
        await board.start()
        (lab.board / "power").unlink()
        await board.close()
        (line,) = lab.said
        assert line.startswith(f"board {NAME}: has the settings of the run still: no fault agent on this board")
        assert f"flatrack board restore {NAME} puts back" in line
        (lab.board / "power").touch()
        assert await (await taken(lab)).close() is None

    asyncio.run(scene())
    assert lab.settings() == OWN | RUN


@pytest.mark.parametrize("which", ["off", "on", "both"])
def test_a_plug_that_fails_is_told_and_keeps_no_board_from_its_own_settings(lab, which):
    async def scene():
        board = await taken(lab)
        await board.start()
        (lab.folder / "bin/plug").write_text(f'#!/bin/sh\n[ "$1" = {which} ] || [ {which} = both ] && exit 3\nexit 0\n')
        board.cut()
        await board.close()

    lab.systemctl("start")
    asyncio.run(scene())
    assert (lab.settings(), lab.runs(), lab.is_lent()) == (OWN, True, False)
    assert len(lab.said) == (2 if which == "both" else 1)
    assert all(line.startswith(f"board {NAME}: ") and "settings" not in line for line in lab.said)


def test_a_wait_for_a_board_that_rises_is_told_and_one_that_is_broken_off_says_what_to_do(lab):
    async def scene():
        board = await taken(lab)
        await board.start()
        (lab.folder / "bin/plug").write_text('#!/bin/sh\n[ "$1" = on ] || rm -f "$BOARD/power"\n')
        board.cut()
        closing = asyncio.create_task(board.close())
        while not lab.said:
            await asyncio.sleep(0.01)
        assert lab.said == [
            f"board {NAME}: its power was cut in the run: waits for it, 120 s at most, to put its settings back"
        ]
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        (lab.board / "power").touch()
        assert await (await taken(lab)).close() is None, "nobody holds it"

    asyncio.run(scene())
    assert lab.said[1].startswith(f"board {NAME}: has the settings of the run still: it was given up before")
    assert f"flatrack board restore {NAME} puts back" in lab.said[1]
    assert len(lab.said) == 2


def test_a_board_whose_own_node_does_not_start_again_has_its_settings_and_is_told(lab):
    async def scene():
        board = await taken(lab)
        await board.start()
        (lab.folder / "bin/systemctl").write_text(
            SYSTEMCTL.format(python=sys.executable, root=str(ROOT)).replace('if verb == "start"', 'if verb == "none"')
            + 'if verb == "start":\n    sys.exit("its disk is full")\n'
        )
        await board.close()

    lab.systemctl("start")
    asyncio.run(scene())
    (line,) = lab.said
    assert line.startswith(f"board {NAME}: has its own settings, but its node, which ran, does not start: ")
    assert "its disk is full" in line
    assert (lab.settings(), lab.is_lent()) == (OWN, False)


def test_a_board_of_before_is_missing_and_says_what_to_do(lab):
    agent = (lab.folder / "agent.py").read_text().replace("FaultAgent(", "Before(")
    before = "class Before(FaultAgent):\n    def hello(self): return {'name': 'sat-01'}\n"
    (lab.folder / "agent.py").write_text(agent.replace("async def main", before + "async def main"))

    async def scene():
        assert "its flatrack is older than this bench, expected that of flatrack board deploy sat-01 --bench" in (
            await lab.of_bench().missing()
        )

    asyncio.run(scene())


# -- by hand


def flatrack(lab, *words):
    done = CliRunner().invoke(main, ["board", "--boards", str(lab.folder / "boards.toml"), *words])
    return done.exit_code, done.output


def test_who_killed_a_bench_puts_back_by_hand_and_twice_is_no_mistake(lab):
    lab.systemctl("start")
    killed_run(lab)
    again = f"{NAME}: has its settings of before the run: node.toml, world.json; its node runs again\n"
    assert flatrack(lab, "restore", NAME) == (0, again)
    assert (lab.settings(), lab.runs(), lab.is_lent()) == (OWN, True, False)
    nothing = f"{NAME}: no settings of a run lie there: nothing is changed\n"
    assert flatrack(lab, "restore", NAME) == (0, nothing)


def test_a_node_that_did_not_run_is_not_started_by_a_restore(lab):
    killed_run(lab)
    code, said = flatrack(lab, "restore", NAME)
    assert code == 0
    assert "its node did not run then, and does not now" in said
    assert not lab.runs()


def test_a_restore_of_a_board_that_is_not_there_or_in_use_is_one_line(lab):
    assert flatrack(lab, "restore", "sat-09")[0] == 2

    async def in_use():
        board = await taken(lab)
        loop = asyncio.get_running_loop()
        code, said = await loop.run_in_executor(None, flatrack, lab, "restore", NAME)
        assert (code, said.count("\n")) == (2, 1)
        assert f"board {NAME}: in use by flatrack run" in said
        await board.close()

    asyncio.run(in_use())
    (lab.board / "power").unlink()
    with pytest.raises(LinkBroken, match="no fault agent on this board"):
        asyncio.run(board_restore._restore(lab.folder / "boards.toml", NAME))


def test_a_list_of_boards_says_which_has_the_settings_of_a_run_and_how_they_go(lab, monkeypatch):
    monkeypatch.setenv("FLATRACK_PREFIX", str(lab.board))
    (lab.board / "opt/flatrack/releases/r1").mkdir(parents=True)
    (lab.board / "opt/flatrack/current").symlink_to("releases/r1")
    (lab.board / "opt/flatrack/current/release.json").write_text(json.dumps({"version": "1", "node": "n"}))
    assert "settings of a run" not in flatrack(lab, "list")[1]
    killed_run(lab)
    assert f"release r1 runs, with the settings of a run: flatrack board restore {NAME}" in flatrack(lab, "list")[1]
    (lab.board / "opt/flatrack/current").unlink()
    assert f"reached, no release, with the settings of a run: flatrack board restore {NAME}" in flatrack(lab, "list")[1]
