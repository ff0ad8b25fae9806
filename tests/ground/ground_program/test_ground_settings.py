"""Settings and files that a ground cannot use: each is one line that says what was expected."""

import asyncio

import msgspec
import numpy as np
import pytest

from flightsw.compute import cloud_mask
from flightsw.host.settings import KeySettings, StorageSettings
from flightsw.wire.messages import JobReport, JobState
from ground.program import ResultSettings, main
from hil.bench.settings_files import write_settings

GROUND, NODE = 1, 11


def wrong(lab, capsys, *options):
    """Run in this process with settings that cannot be used; returns the one line."""
    write_settings(lab.folder / "ground.toml", lab.ground)
    assert main(["--config", str(lab.folder / "ground.toml"), *map(str, options)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("ground: ")
    return printed.err.removeprefix("ground: ").rstrip("\n")


def test_a_wrong_setting_is_one_line_that_says_what(lab, capsys):
    write_settings(lab.folder / "ground.toml", lab.ground)
    text = (lab.folder / "ground.toml").read_text()
    for old, new, why in [
        ("store_bytes = 16777216", "store_bytes = 1", "ground.store_bytes = 1: Expected `int` >= 4096"),
        ("tile_px = 48", 'tile_px = "x"', "result.tile_px = 'x': Expected `int`, got `str`"),
        ("node = 11", "node = 0", "ground.fleet[0].node = 0: Expected `int` >= 1"),
        ("reserve = 0.35", "reserve = 1.5", "ground.fleet[0].reserve = 1.5: Expected `float` <= 1"),
    ]:
        assert old in text
        (lab.folder / "ground.toml").write_text(text.replace(old, new))
        assert main(["--config", str(lab.folder / "ground.toml")]) == 2
        printed = capsys.readouterr().err
        assert printed.startswith(f"ground: {lab.folder}/ground.toml: {why}")
        assert printed.count("\n") == 1


def test_a_fleet_that_names_a_node_twice_is_refused(lab, capsys):
    fleet = lab.ground.ground.fleet
    lab.ground = msgspec.structs.replace(lab.ground, ground=msgspec.structs.replace(lab.ground.ground, fleet=fleet * 2))
    assert wrong(lab, capsys) == "ground.fleet: node = 11: comes twice, expected each once"


@pytest.mark.parametrize("name", ["ledger.db", "archive.db", "control"])
def test_a_file_that_is_something_else_is_refused_and_stays(lab, capsys, name):
    (lab.folder / name).write_text("not a database " * 100)
    assert f"{lab.folder}/{name}: " in wrong(lab, capsys, "--control", lab.control)
    assert (lab.folder / name).read_text() == "not a database " * 100


def test_keys_of_another_node_are_refused(lab, capsys):
    lab.ground = msgspec.structs.replace(lab.ground, keys=KeySettings(file=f"{NODE}.keys"))
    text = wrong(lab, capsys)
    assert text == f"{lab.folder}/11.keys: node = 11: these are the keys of another node, expected 1"


def test_a_key_file_that_others_may_read_is_refused(lab, capsys):
    (lab.folder / f"{GROUND}.keys").chmod(0o644)
    assert "1.keys: mode 0644 lets others at the keys" in wrong(lab, capsys)


def test_two_grounds_cannot_have_one_ledger(users, lab, capsys):
    ground = lab.start_ground()

    async def is_there():
        async with users(lab):
            pass

    asyncio.run(is_there())
    lab.ground = msgspec.structs.replace(lab.ground, storage=StorageSettings(folder="other", capacity_bytes=1 << 20))
    assert wrong(lab, capsys) == f"ledger {lab.folder}/ledger.db: database is locked"
    assert ground.poll() is None


def test_a_result_must_be_a_mask_of_the_tiles_size():
    settings = ResultSettings(tile_px=2)
    masks = {side: cloud_mask.encode_mask(np.zeros((side, side), np.bool_)) for side in (2, 3)}
    report = JobReport(11, 1, 1, JobState.COMPLETED, "", b"", b"", b"", 0, b"", 0, 0.0, 0, 0, 0, 0.0, "1")
    assert settings.verify(report, masks[2], None) is None
    assert settings.verify(report, masks[3], None) == "mask is (3, 3), expected (2, 2)"
    assert "mask" in (settings.verify(report, b"no mask", None) or "")
