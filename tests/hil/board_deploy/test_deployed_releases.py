"""Deployment over a real ssh server: a node that speaks is kept, or what was there runs again."""

import asyncio
import zipfile

import pytest

from flightsw.errors import BoardError, ConfigError, FlatrackError
from flightsw.host.settings import LinkSettings, StorageSettings
from hil.inventory.remote import Remote

NAME = "sat-01"


BROKEN = "raise RuntimeError('a broken version')\n"


async def test_a_node_that_speaks_is_kept_and_a_second_run_changes_nothing(lab, wheelhouses):
    assert await lab.deploy(wheelhouses())
    assert any("heard: boot 1" in line for line in lab.said)
    assert lab.version() == "0.1.0"
    assert lab.runs_from() == str(lab.home("current/environment/bin/python"))
    assert not lab.home("trial.json").exists()
    before, calls = lab.files(), len(lab.calls())

    lab.said.clear()
    assert not await lab.deploy(wheelhouses())
    assert lab.said[-1].endswith("runs already: nothing is changed")
    assert lab.files() == before
    assert set(lab.calls()[calls - 1 : -1]) == {"is-active flatrack.service"}

    # a file that was lost on the board is made anew
    lost = next(lab.home("environments").glob("*/lib/*/site-packages/boards/slots.py"))
    lost.unlink()
    assert await lab.deploy(wheelhouses())
    assert lost.exists()

    # other settings: another release, the same environment, and no wheel is sent
    lab.said.clear()
    first = lab.current()
    lab.settings(storage=StorageSettings(folder="disk", capacity_bytes=1 << 25))
    assert await lab.deploy(wheelhouses(), is_bench=True)
    assert lab.current() != first
    assert not any("to send" in line for line in lab.said)
    assert "allows_faults = true" in (lab.prefix / "etc/flatrack/bench.toml").read_text()
    assert sorted(path.name for path in lab.home("releases").iterdir()) == sorted([first, lab.current()])
    assert len(list(lab.home("environments").iterdir())) == 1

    async with Remote(NAME, lab.inventory().board(NAME)) as remote:
        assert (await remote.ask("remove", {"with_data": True}))["left"] == []
    assert not lab.is_running()
    left = [path for path in lab.prefix.rglob("*") if path.is_file() or path.is_symlink()]
    assert {path.name for path in left} == {"status", "calls", "journal", "service.pid", "flatrack-deploy.lock"}


@pytest.mark.slow
async def test_a_version_that_does_not_speak_is_left_and_the_one_before_runs_again(until, lab, wheelhouses):
    await lab.deploy(wheelhouses())
    good = lab.current()
    said = r"no beacon within 6 s.*the line is silent; release .* runs again"
    with pytest.raises(BoardError, match=said) as raised:
        await lab.deploy(wheelhouses("0.2.1", BROKEN), wait_s=6.0)
    assert "RuntimeError: a broken version" in str(raised.value), "the board's last lines say why"
    assert lab.current() == good
    assert not lab.home("trial.json").exists()
    until(lab.is_running)
    assert not await lab.deploy(wheelhouses()), "and so there is nothing to do"


@pytest.mark.slow
async def test_settings_that_silence_a_node_are_left_with_their_release(lab, wheelhouses):
    await lab.deploy(wheelhouses())
    good, unit = lab.current(), lab.prefix / "etc/systemd/system/flatrack.service"
    kept = (lab.prefix / "etc/flatrack/node.toml").read_text()
    lab.settings(link=LinkSettings(url="serial:///dev/null"))
    with pytest.raises(BoardError, match="runs again"):
        await lab.deploy(wheelhouses(), wait_s=3.0)
    assert lab.current() == good
    assert (lab.prefix / "etc/flatrack/node.toml").read_text() == kept
    assert unit.exists()


@pytest.mark.slow
async def test_a_first_release_that_does_not_speak_leaves_no_service(lab, wheelhouses):
    lab.settings(link=LinkSettings(url="serial:///dev/null"))
    with pytest.raises(BoardError, match="no release runs: there was none before"):
        await lab.deploy(wheelhouses(), wait_s=3.0)
    assert not lab.is_running()
    assert not lab.home("current").is_symlink()
    assert not (lab.prefix / "etc/systemd/system/flatrack.service").exists()


@pytest.mark.slow
async def test_a_cut_while_wheels_are_sent_leaves_the_old_release_and_the_next_run_completes(
    lab, wheelhouses, tmp_path
):
    await lab.deploy(wheelhouses())
    good = lab.current()
    larger = tmp_path / "larger"
    larger.mkdir()
    for wheel in wheelhouses().glob("*.whl"):
        (larger / wheel.name).write_bytes(wheel.read_bytes())
    with zipfile.ZipFile(larger / "ballast-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("ballast.txt", bytes(100 << 20))
        wheel.writestr("ballast-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\n")

    async def cut_in_the_middle():
        while not any(path.stat().st_size for path in lab.home("wheels").glob("*.part")):
            await asyncio.sleep(0.001)
        lab.cut(with_programs=True)

    cutting = asyncio.create_task(cut_in_the_middle())
    with pytest.raises(FlatrackError, match=r"connection|reset|closed|ended"):
        await lab.deploy(larger)
    await cutting
    assert (lab.current(), lab.is_running()) == (good, True)
    lab.start()
    assert await lab.deploy(larger)
    assert lab.current() != good


@pytest.mark.slow
async def test_a_cut_while_the_release_is_made_leaves_the_old_one_and_the_next_run_completes(lab, wheelhouses):
    await lab.deploy(wheelhouses())
    good = lab.current()

    async def cut_in_the_middle():
        while not list(lab.home("environments").glob("*.new")):
            await asyncio.sleep(0.001)
        lab.cut(with_programs=True)

    cutting = asyncio.create_task(cut_in_the_middle())
    with pytest.raises(FlatrackError, match=r"connection|reset|closed"):
        await lab.deploy(wheelhouses("0.2.0"))
    await cutting
    assert (lab.current(), lab.is_running()) == (good, True)
    assert list(lab.home("environments").glob("*.new")), "it was cut in the middle"
    lab.start()
    assert await lab.deploy(wheelhouses("0.2.0"))
    assert lab.version() == "0.2.0"


@pytest.mark.slow
async def test_a_release_that_nobody_confirms_is_left_by_the_board_itself(until, lab, wheelhouses):
    await lab.deploy(wheelhouses())
    good = lab.current()
    lab.settings(storage=StorageSettings(folder="disk", capacity_bytes=1 << 25))

    def cut_on_trial(line):
        if line.startswith("on trial"):
            lab.cut()

    with pytest.raises((BoardError, FlatrackError), match=r"ssh|connection"):
        await lab.deploy(wheelhouses(), wait_s=8.0, confirm_s=1.0, say=cut_on_trial)
    until(lambda: not lab.home("trial.json").exists())
    assert lab.current() == good
    until(lab.is_running)
    lab.start()
    assert await lab.deploy(wheelhouses())
    assert lab.current() != good


@pytest.mark.slow
async def test_a_release_on_trial_that_is_found_is_left_first(lab, wheelhouses):
    await lab.deploy(wheelhouses())
    good = lab.current()
    lab.settings(storage=StorageSettings(folder="disk", capacity_bytes=1 << 25))

    def cut_on_trial(line):
        if line.startswith("on trial"):
            lab.cut()

    with pytest.raises(FlatrackError):
        await lab.deploy(wheelhouses(), wait_s=5.0, confirm_s=300.0, say=cut_on_trial)
    assert lab.current() != good
    lab.start()
    lab.said.clear()
    assert await lab.deploy(wheelhouses())
    assert "back to the one before" in lab.said[1]
    assert not lab.home("trial.json").exists()


async def test_without_a_cable_a_service_that_runs_is_enough_when_it_is_said(lab, wheelhouses, monkeypatch):
    monkeypatch.setattr("hil.inventory.deployment.SERVICE_S", 0.0)
    with pytest.raises(ConfigError, match="has no uart to listen on"):
        await lab.deploy(wheelhouses(), board={"uart": None})
    assert not lab.home("current").exists(), "and nothing was changed"
    assert await lab.deploy(
        wheelhouses(), board={"uart": None}, is_without_link=True, say=lab.has_said("ended 0 times")
    )
    assert any("nobody has listened" in line for line in lab.said)


@pytest.mark.slow
async def test_without_a_cable_a_node_that_ends_again_and_again_is_left(lab, wheelhouses, monkeypatch):
    monkeypatch.setattr("hil.inventory.deployment.SERVICE_S", 0.0)
    broken = wheelhouses("0.2.1", BROKEN)
    with pytest.raises(BoardError, match=r"ended \d+ times', expected \.\.\. ended 0 times; no release runs"):
        await lab.deploy(broken, board={"uart": None}, is_without_link=True, say=lab.has_said("ended 2 times"))
    assert not lab.home("current").exists()
