"""A folder of the image cache is there whole or not at all, and is made by one process while others wait."""

import asyncio
import fcntl

import pytest

from flightsw.errors import BoardError, ConfigError
from hil.emulation import cache
from hil.emulation.cache import made_once


async def fill(new):
    (new / "file").write_text("whole")


async def test_what_is_there_is_not_made_again(tmp_path):
    for _ in range(2):
        await made_once(tmp_path / "made", fill)
        (tmp_path / "made/file").write_text("kept")
    assert (tmp_path / "made/file").read_text() == "kept"


async def test_what_fails_leaves_nothing_and_can_be_made_later(tmp_path):
    async def fail(new):
        await fill(new)
        raise BoardError("no power")

    with pytest.raises(BoardError):
        await made_once(tmp_path / "made", fail)
    assert [path.name for path in tmp_path.iterdir()] == ["made.lock"]
    await made_once(tmp_path / "made", fill)
    assert (tmp_path / "made/file").read_text() == "whole"


async def test_who_comes_second_waits_while_the_loop_goes_on_and_makes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "POLL_S", 0.001)
    with (tmp_path / "made.lock").open("w") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        second = asyncio.create_task(made_once(tmp_path / "made", lambda new: pytest.fail("it is made by the first")))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not second.done()
        (tmp_path / "made").mkdir()
    await second


async def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "made.new").write_text("a file where a folder is made")
    with pytest.raises(ConfigError, match=r"made: File exists"):
        await made_once(tmp_path / "made", fill)
