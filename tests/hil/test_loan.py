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
            systemctl = Systemctl()
            await lend(agent_of(root, systemctl))
            with pytest.MonkeyPatch.context() as patch:
                cut_after(patch, steps)
                is_whole = await undisturbed(agent_of(root, systemctl).restore())
            await agent_of(root, systemctl).restore()
            there = {name: kept for name, kept in settings(root).items() if not name.startswith("before-run/")}
            assert (there, systemctl.state) == (OWN, "active"), f"cut after {steps} steps"
            if is_whole:
                return steps
        raise AssertionError

    assert asyncio.run(scene()) >= len(RUN) + 1


def test_a_node_that_does_not_start_is_told_and_what_its_owner_edits_then_is_his(root):
    async def scene():
        systemctl = Systemctl()
        agent = agent_of(root, systemctl)
        await lend(agent)
        systemctl.refuses = "start"
        failed = {"files": sorted(RUN), "runs": False, "trouble": "systemctl start: failed"}
        assert await agent.restore() == failed
        assert settings(root) == OWN
        (root / "etc/flatrack/node.toml").write_bytes(b"mended by hand")
        systemctl.refuses = ""
        assert await agent.restore() == {"files": [], "runs": False}
        assert (root / "etc/flatrack/node.toml").read_bytes() == b"mended by hand"

    asyncio.run(scene())


def test_a_cut_before_the_node_starts_again_does_not_forget_that_it_ran_nor_overwrites_edits(root, monkeypatch):
    class PowerCut(Systemctl):
        async def __call__(self, words):
            if words[1] == "reset-failed":
                raise Cut
            return await super().__call__(words)

    async def scene():
        await lend(agent_of(root))
        with pytest.raises(Cut):
            await agent_of(root, PowerCut()).restore()
        (root / "etc/flatrack/node.toml").write_bytes(b"edited since")
        (root / "etc/flatrack/world.json").write_bytes(b"new since")
        systemctl = Systemctl("inactive")
        await lend(agent_of(root, systemctl))  # and another bench comes before anybody restores
        assert await agent_of(root, systemctl).restore() == {"files": sorted(RUN), "runs": True}
        assert systemctl.state == "active"
        assert settings(root)["node.toml"][0] == b"edited since"
        assert settings(root)["world.json"][0] == b"new since"

        await lend(agent_of(root))
        with pytest.raises(Cut):
            await agent_of(root, PowerCut()).restore()
        systemctl = Systemctl("inactive")
        assert await agent_of(root, systemctl).restore() == {"files": [], "runs": True}
        assert systemctl.ran == ["systemctl reset-failed flatrack.service", START], "nothing waits: nothing is stopped"
        assert await agent_of(root).restore() == {"files": [], "runs": False}

    asyncio.run(scene())


def test_folders_that_a_run_made_go_and_those_that_were_there_or_are_used_stay(root):
    names = {"deep/er/x.json": b"", "deep/y.json": b"", "empty/z.json": b"", "used/w.json": b""}
    (root / "etc/flatrack/empty").mkdir()

    async def scene():
        await lend(agent_of(root), names)
        await lend(agent_of(root), names)  # a second bench finds the folders of the first
        (root / "etc/flatrack/used/note").write_text("somebody's")
        await agent_of(root).restore()

    asyncio.run(scene())
    folders = [path.name for path in (root / "etc/flatrack").rglob("*") if path.is_dir()]
    assert sorted(folders) == ["empty", "used"]


def test_a_symbolic_link_is_not_lent_since_a_run_would_replace_it(root):
    (root / "etc/flatrack/world.json").symlink_to("plan.json")

    async def scene():
        with pytest.raises(BoardError, match=r"world\.json: a symbolic link, expected a file, or none"):
            await agent_of(root).lend(sorted(RUN))

    asyncio.run(scene())
    assert (root / "etc/flatrack/world.json").readlink() == Path("plan.json")
    assert not (root / "etc/flatrack/before-run/loan.json").exists()


def test_every_folder_that_is_made_for_a_setting_has_its_name_on_the_disk(root, monkeypatch):
    synced = []
    monkeypatch.setattr(files, "_sync", lambda folder: synced.append(str(folder.relative_to(root))))
    files.put(root / "etc/flatrack/a/b/c", b"")
    assert synced == ["etc/flatrack", "etc/flatrack/a", "etc/flatrack/a/b"]
    files.put(root / "etc/flatrack/a/b/d", b"")
    assert synced[3:] == ["etc/flatrack/a/b"]


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


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"files": {}, "runs": 3}',
        '{"files": {"../x": 420}, "runs": true}',
        '{"files": {}, "runs": true, "folders": ["/etc"]}',
    ],
)
def test_a_loan_that_is_damaged_says_what_to_do_and_stops_no_node(root, text):
    (root / "etc/flatrack/before-run").mkdir()
    (root / "etc/flatrack/before-run/loan.json").write_text(text)

    systemctl = Systemctl()

    async def scene():
        with pytest.raises(BoardError, match="deploy this board again"):
            await agent_of(root, systemctl).restore()

    asyncio.run(scene())
    assert systemctl.ran == []
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
