"""What deployment refuses before anything on the board is changed."""

import subprocess

import pytest

from flightsw.errors import BoardError, BoardNotFound, ConfigError


async def test_a_key_that_the_board_does_not_know_is_said(lab, wheelhouses):
    (lab.folder / "authorized").write_text("")
    with pytest.raises(BoardNotFound, match="Permission denied"):
        await lab.deploy(wheelhouses())


async def test_a_board_without_a_python_that_fits_is_told_how_to_get_one(lab, wheelhouses):
    with pytest.raises(ConfigError, match=r"Python none, expected 3\.11 or newer with venv; .*uv python install"):
        await lab.deploy(wheelhouses(), board={"python": "/nowhere/python3"})


async def test_a_full_disk_is_said_before_anything_is_changed(lab, wheelhouses):
    home = lab.home()
    home.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", home], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("a file system can only be mounted by root")
    try:
        with pytest.raises(BoardError, match=r"disk full: \d+ MiB free"):
            await lab.deploy(wheelhouses())
        assert list(home.rglob("*.whl")) == []
    finally:
        subprocess.run(["umount", home], check=True)


async def test_a_place_that_cannot_be_written_is_said(lab, wheelhouses):
    lab.home().parent.mkdir(parents=True)
    lab.home().write_text("a file where a folder has to be")
    with pytest.raises(BoardError, match=r"opt/flatrack.*(Not a directory|File exists)"):
        await lab.deploy(wheelhouses())


async def test_a_wheel_for_another_machine_is_refused(lab, wheelhouses, tmp_path):
    for wheel in wheelhouses().glob("*.whl"):
        (tmp_path / wheel.name).write_bytes(wheel.read_bytes())
    (tmp_path / "numpy-2.4.0-cp311-cp311-manylinux_2_28_s390x.whl").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"is for cp311 on manylinux_2_28_s390x, expected one for"):
        await lab.deploy(tmp_path)
