"""A board that is lent to a bench: what it was comes back, whatever was cut, killed or asked twice."""

import asyncio
import json
from pathlib import Path

import pytest

from flightsw.errors import BoardError, ConfigError
from hil.on_board import files, loan
from hil.on_board.agent import FaultAgent
from hil.on_board.tools import run_tool

OWN = {"node.toml": (b"own node", 0o644), "keys.toml": (b"own keys", 0o600), "plan.json": (b"own plan", 0o640)}
RUN = {
    "node.toml": b"node of the run",
    "keys.toml": b"keys of the run",
    "world.json": b"world",
    "deep/er.json": b"deep",
}
SHOW = "systemctl show --property=ActiveState --value flatrack.service"
STOP, START = "systemctl stop flatrack.service", "systemctl start flatrack.service"


class Systemctl:
    """A service in this state; notes what is asked of it."""

    def __init__(self, state="active"):
        self.state = state
        self.ran = []
        self.refuses = ""

    async def __call__(self, words):
        self.ran.append(" ".join(words))
        if words[1] == self.refuses:
            raise BoardError(f"systemctl {words[1]}: failed")
        if words[1] in ("start", "stop"):
            self.state = "active" if words[1] == "start" else "inactive"
        return f"{self.state}\n" if words[1] == "show" else ""


@pytest.fixture
def root(tmp_path):
    """A board with settings of its own."""
    (tmp_path / "etc/flatrack").mkdir(parents=True)
    (tmp_path / "var/lib/flatrack/disk").mkdir(parents=True)
    for name, (content, mode) in OWN.items():
        (tmp_path / "etc/flatrack" / name).write_bytes(content)
        (tmp_path / "etc/flatrack" / name).chmod(mode)
    return tmp_path


def settings(root):
    """Every file of the settings, with its mode."""
    folder = root / "etc/flatrack"
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mode & 0o777)
        for path in folder.rglob("*")
        if path.is_file()
    }


def agent_of(root, systemctl=None):
    return FaultAgent(root, systemctl or Systemctl(), None, None)


async def lend(agent, content=RUN):
    """As a bench does."""
    await agent.lend(sorted(content))
    await agent.stop()
    agent.configure(dict(content))
    await agent.start()


def test_settings_come_back_with_their_modes_and_those_of_the_run_go(root):
    async def scene():
        systemctl = Systemctl()
        agent = agent_of(root, systemctl)
        (root / "proc/sys").mkdir(parents=True)
        assert not agent.hello()["is_lent"]
        await lend(agent)
        assert agent.hello()["is_lent"]
        there = settings(root)
        assert {name: there[name][0] for name in RUN} == RUN
        assert (root / "etc/flatrack/before-run/files/keys.toml").stat().st_mode & 0o077 == 0
        assert await agent_of(root, systemctl).restore() == {"files": sorted(RUN), "runs": True}
        assert settings(root) == OWN
        assert not (root / "etc/flatrack/before-run").exists()
        assert not agent.hello()["is_lent"]
        assert systemctl.ran[-3:] == [STOP, "systemctl reset-failed flatrack.service", START]

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("state", "runs"),
    [("active", True), ("activating", True), ("reloading", True), ("inactive", False), ("failed", False)],
)
def test_a_node_runs_again_if_it_ran_before(root, state, runs):
    async def scene():
        systemctl = Systemctl(state)
        await lend(agent_of(root, systemctl))
        assert (await agent_of(root, systemctl).restore())["runs"] == runs
        assert systemctl.state == ("active" if runs else "inactive")

    asyncio.run(scene())


def test_a_second_restore_and_one_without_a_run_change_nothing(root):
    async def scene():
        systemctl = Systemctl()
        agent = agent_of(root, systemctl)
        assert await agent.restore() == {"files": [], "runs": False}
        await lend(agent)
        await agent.restore()
        (root / "etc/flatrack/node.toml").write_bytes(b"newer")
        systemctl.ran.clear()
        assert await agent.restore() == {"files": [], "runs": False}
        assert systemctl.ran == []
        assert (root / "etc/flatrack/node.toml").read_bytes() == b"newer"

    asyncio.run(scene())


def test_the_next_bench_after_a_killed_one_keeps_what_was_there_before_both(root):
    async def scene():
        systemctl = Systemctl("inactive")
        await lend(agent_of(root, systemctl))  # and that bench is killed: the node runs, with its settings
        await lend(agent_of(root, systemctl), {"node.toml": b"the second run", "plan.json": b"its plan"})
        assert await agent_of(root, systemctl).restore() == {"files": sorted({*RUN, "plan.json"}), "runs": False}
        assert settings(root) == OWN

    asyncio.run(scene())


class Cut(Exception):
    """The power goes."""


def cut_after(patch, steps):
    """Let the power go when so many files were put, removed or folders of a run deleted."""
    left = [steps]

    def counted(original):
        def step(*arguments, **options):
            if not left[0]:
                raise Cut
            left[0] -= 1
            return original(*arguments, **options)

        return step

    for module, name in ((files, "put"), (loan, "put"), (loan, "remove"), (loan.shutil, "rmtree")):
        patch.setattr(module, name, counted(getattr(module, name)))


async def undisturbed(work):
    try:
        await work
    except Cut:
        return False
    return True


def test_a_cut_at_any_step_of_a_run_loses_no_setting(root):
    async def scene():
        for steps in range(100):
            with pytest.MonkeyPatch.context() as patch:
                cut_after(patch, steps)
                is_whole = await undisturbed(lend(agent_of(root)))
            await agent_of(root).restore()
            there = {name: kept for name, kept in settings(root).items() if not name.startswith("before-run/")}
            assert there == OWN, f"cut after {steps} steps"
            if is_whole:
                return steps
        raise AssertionError

    assert asyncio.run(scene()) >= 2 + 1 + len(RUN), "copies of two files, loan.json, and the settings of the run"


def test_a_cut_at_any_step_of_a_restore_is_made_good_by_the_next(root):
    async def scene():
        for steps in range(100):
            await lend(agent_of(root))
            with pytest.MonkeyPatch.context() as patch:
                cut_after(patch, steps)
                is_whole = await undisturbed(agent_of(root).restore())
            await agent_of(root).restore()
            there = {name: kept for name, kept in settings(root).items() if not name.startswith("before-run/")}
            assert there == OWN, f"cut after {steps} steps"
            if is_whole:
                return steps
        raise AssertionError

    assert asyncio.run(scene()) >= len(RUN) + 1


def test_a_node_that_does_not_start_leaves_the_board_lent(root):
    async def scene():
        systemctl = Systemctl()
        await lend(agent_of(root, systemctl))
        systemctl.refuses = "start"
        with pytest.raises(BoardError, match="systemctl start: failed"):
            await agent_of(root, systemctl).restore()
        systemctl.refuses = ""
        assert (await agent_of(root, systemctl).restore())["runs"]
        assert settings(root) == OWN

    asyncio.run(scene())


def test_what_nodes_have_kept_in_runs_goes_and_nothing_else(root):
    data = root / "var/lib/flatrack"
    for name in ("bench-17", "bench-1700000000000000000/disk", "bench-notes", "bench-1-mine", "other"):
        (data / name).mkdir(parents=True)
    (data / "bench-23").symlink_to(root / "etc")

    async def scene():
        await lend(agent_of(root))
        await agent_of(root).restore()

    asyncio.run(scene())
    assert sorted(path.name for path in data.iterdir()) == ["bench-1-mine", "bench-23", "bench-notes", "disk", "other"]
    assert settings(root) == OWN


@pytest.mark.parametrize("name", ["before-run/loan.json", "./before-run/files/x", "../passwd", "bench.toml"])
def test_what_a_bench_may_not_write_it_may_not_have_kept_either(root, name):
    async def scene():
        agent = agent_of(root)
        with pytest.raises(ConfigError, match="configure: "):
            await agent.lend([name])
        with pytest.raises(ConfigError, match="configure: "):
            agent.configure({name: b""})
        assert settings(root) == OWN

    asyncio.run(scene())


@pytest.mark.parametrize("text", ["", "{}", '{"files": {}, "runs": 3}', '{"files": {"../x": 420}, "runs": true}'])
def test_a_loan_that_is_damaged_says_what_to_do(root, text):
    (root / "etc/flatrack/before-run").mkdir()
    (root / "etc/flatrack/before-run/loan.json").write_text(text)

    async def scene():
        with pytest.raises((BoardError, ConfigError), match=r"deploy this board again|expected a path under"):
            await agent_of(root).restore()

    asyncio.run(scene())
    assert {name: settings(root)[name] for name in OWN} == OWN


@pytest.mark.parametrize(("name", "why"), [("world.json", "Is a directory"), ("keys.toml/x", "Not a directory")])
def test_a_setting_that_cannot_be_kept_stops_the_run_before_it_begins(root, name, why):
    (root / "etc/flatrack/world.json").mkdir()

    async def scene():
        with pytest.raises(BoardError, match=f"{name}: {why}"):
            await lend(agent_of(root), {name: b"", "node.toml": b"of the run"})
        assert not agent_of(root).hello()["is_lent"]

    (root / "proc").mkdir()
    asyncio.run(scene())
    assert {name: settings(root)[name] for name in OWN} == OWN


def test_the_state_of_the_service_is_asked_of_systemd(root, tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/systemctl").write_text('#!/bin/sh\n[ "$1" = show ] && echo activating\nexit 0\n')
    (tmp_path / "bin/systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")

    async def scene():
        await FaultAgent(root, run_tool, None, None).lend(["node.toml"])

    asyncio.run(scene())
    assert json.loads(Path(root / "etc/flatrack/before-run/loan.json").read_text()) == {
        "files": {"node.toml": 0o644},
        "runs": True,
    }
