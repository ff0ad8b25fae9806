"""A deployment to a board that a killed bench has left with the settings of a run."""

import asyncio
import io
from types import SimpleNamespace

import pytest

from hil.inventory import board_side, deployment
from hil.inventory.boards import load
from hil.inventory.deployment import Deployment, Options


@pytest.mark.parametrize("content", [b"of the run", b"own"])
def test_a_deployment_after_a_killed_bench_makes_the_settings_anew_and_ends_the_loan(content, tmp_path, monkeypatch):
    monkeypatch.setattr(board_side.Board, "_systemctl", lambda *_, **__: "active")
    monkeypatch.setattr(board_side.Board, "_environment_holds", lambda *_: True)
    board = board_side.Board(tmp_path, "")
    request = {"release": "r1", "environment": "e1", "wheels": [], "about": {}}
    files = [("settings/node.toml", 0o600, b"own"), ("flatrack.service", 0o644, b"unit")]
    board._make_release(request, files)
    board._flip("r1")
    (board.settings / "before-run").mkdir()
    (board.settings / "before-run/loan.json").write_text("{}")
    (board.settings / "node.toml").write_bytes(content)
    found = board.look({"release": "r1", "environment": "e1"})
    assert (found["is_lent"], found["has_release"]) == (True, False)
    sent = [[name, mode, len(data)] for name, mode, data in files]
    assert board.install(request | {"files": sent}, io.BytesIO(b"".join(data for *_, data in files)))["is_new"]
    found = board.look({"release": "r1", "environment": "e1"})
    assert (found["is_lent"], found["has_release"]) == (False, True)
    assert [path.name for path in board.settings.iterdir()] == ["node.toml"]


@pytest.mark.parametrize("is_lent", [True, False])
def test_a_deployment_says_that_it_replaces_the_settings_of_a_run_and_does(is_lent, tmp_path, monkeypatch):
    class Remote:
        def __init__(self, *_):
            pass

        async def __aenter__(self):
            return self

        async def __aexit__(self, *_):
            pass

        async def ask(self, *_):
            there = dict.fromkeys(("has_release", "has_environment", "is_active"), True)
            return there | {"is_lent": is_lent, "trial": None, "current": "r1"}

    async def release(*_):
        return SimpleNamespace(digest="r1", environment="e1", version="1")

    async def noted(name):
        done.append(name)

    said, done = [], []
    (tmp_path / "boards.toml").write_text('[boards.sat-01]\nkind = "host"\nssh = "here"\n')
    monkeypatch.setattr(deployment, "Remote", Remote)
    monkeypatch.setattr(deployment, "packed_settings", lambda _: None)
    monkeypatch.setattr(Deployment, "_release", release)
    monkeypatch.setattr(Deployment, "_install", lambda *_: noted("install"))
    monkeypatch.setattr(Deployment, "_try", lambda *_: noted("try"))
    deploying = Deployment(load(tmp_path / "boards.toml"), "sat-01", Options(is_without_link=True), said.append)
    assert asyncio.run(deploying.run()) == is_lent
    if is_lent:
        assert (said, done) == (
            ["the settings of a run that never ended lie there, and are replaced"],
            ["install", "try"],
        )
    else:
        assert (said, done) == (["release r1 (flatrack 1) runs already: nothing is changed"], [])
