"""The first boot of a prepared card: its program is run as the board would run it, below a folder of its own."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from hil.cards.preparation import Node, prepare
from hil.inventory.wheelhouse import wheels_in

ROOT = Path(__file__).parents[3]
PYTHON = Path(sys.base_prefix) / "bin" / "python3"
"""An interpreter without our packages: a board has none of them before."""
SYSTEMCTL = """\
#!/bin/sh
echo "$@" >> "$CALLS"
"""


@pytest.fixture
def wheelhouse(tmp_path):
    """Two small wheels: a package, and one with a folder of data."""
    folder = tmp_path / "wheelhouse"
    folder.mkdir()
    contents = {
        "flatrack-0.1.0-py3-none-any.whl": {"boards/__init__.py": "", "flatrack-0.1.0.dist-info/METADATA": "x"},
        "other-1.0-cp311-abi3-manylinux_2_28_aarch64.whl": {"other.py": "VALUE = 1\n", "other-1.0.data/data/x": "y"},
    }
    for name, files in contents.items():
        with zipfile.ZipFile(folder / name, "w") as wheel:
            for path, text in files.items():
                wheel.writestr(path, text)
    return folder


@pytest.fixture
def card(make_card, tmp_path, wheelhouse):
    """The folder of a card as the board has it mounted, and the release on it."""
    image = tmp_path / "card.img"
    node = Node("sat-01", "raspberry-pi-5", _settings(tmp_path), "i-1", python=(3, sys.version_info.minor))
    done = prepare(make_card().path, image, node, lambda target: wheels_in(wheelhouse, target))
    folder = tmp_path / "firmware"
    folder.mkdir()
    command = ["mcopy", "-s", "-n", "-i", f"{image}@@{4 << 20}", "::flatrack", folder]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "flatrack", done.release.digest


@pytest.fixture
def boot(card, tmp_path):
    """Runs the first boot; gives its exit code and what it printed."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "systemctl").write_text(SYSTEMCTL)
    (tools / "systemctl").chmod(0o755)
    folder, _ = card

    def run(prefix=tmp_path / "board"):
        prefix.mkdir(exist_ok=True)
        environment = {"PATH": f"{tools}:{os.environ['PATH']}", "CALLS": str(tmp_path / "calls")}
        command = [PYTHON, "-B", "-m", "hil.cards.first_boot", folder, prefix]
        done = subprocess.run(
            command, cwd=folder / "program", env=environment, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout + done.stderr

    return run


def _settings(tmp_path):
    """The example's settings, without keys, and a key file in their place."""
    folder = tmp_path / "settings"
    folder.mkdir()
    for path in (ROOT / "examples" / "one-node").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    keys = f'node = 11\n[[peer]]\nnode = 1\nmaster = "{"a" * 64}"\nlast_id = 1\n'
    keys += f'keys = [{{ id = 1, state = "ACTIVE", key = "{"b" * 64}" }}]\n'
    (folder / "keys").mkdir()
    (folder / "keys" / "sat-01.keys.toml").write_text(keys)
    (folder / "keys" / "sat-01.keys.toml").chmod(0o600)
    return folder


def test_the_release_is_installed_as_a_deployment_would(card, boot, tmp_path):
    _, digest = card
    code, said = boot()
    assert (code, said) == (0, f"release {digest} is installed\n")
    home = tmp_path / "board/opt/flatrack"
    assert (home / "current").readlink() == Path("releases") / digest
    assert (home / "current/environment/bin/python").exists()
    command = [home / "current/environment/bin/python", "-I", "-c", "import boards, other; print(other.VALUE)"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "1\n"
    unit = tmp_path / "board/etc/systemd/system/flatrack.service"
    assert "-m boards.launcher --config /etc/flatrack/node.toml" in unit.read_text()
    assert (tmp_path / "board/etc/flatrack/node.toml").exists()
    watchdog = tmp_path / "board/etc/systemd/system.conf.d/flatrack.conf"
    assert watchdog.read_text().splitlines()[1:] == ["[Manager]", "RuntimeWatchdogSec=10"]
    assert (tmp_path / "calls").read_text().splitlines() == [
        "daemon-reexec",
        "daemon-reload",
        "enable flatrack.service",
        "start --no-block flatrack.service",
    ]


def test_keys_are_for_root_alone_on_the_board_and_gone_from_the_card(card, boot, tmp_path):
    folder, _ = card
    boot()
    keys = tmp_path / "board/etc/flatrack/sat-01.keys.toml"
    assert keys.stat().st_mode & 0o777 == 0o600
    assert "a" * 64 in keys.read_text()
    left = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert left == [
        "first-boot.txt",
        "flatrack-first-boot.service",
        "program/hil/cards/first_boot.py",
        "program/hil/inventory/board_side.py",
    ]


def test_keys_are_overwritten_before_their_file_goes(card, boot):
    folder, _ = card
    keys = folder / "files/settings/sat-01.keys.toml"
    other_name = folder.parent / "the-same-blocks"
    other_name.hardlink_to(keys)
    size_bytes = keys.stat().st_size
    boot()
    assert other_name.read_bytes() == bytes(size_bytes)


@pytest.mark.parametrize("left", ["all", "half", "request"])
def test_a_first_boot_that_was_cut_while_it_cleared_the_card_is_taken_up_again(card, boot, tmp_path, left):
    folder, _ = card
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    keys = files[folder / "files/settings/sat-01.keys.toml"]
    boot()
    for path, data in files.items():
        if path.name == "request.json" or left == "all" or (left == "half" and path.name == "node.toml"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    code, said = boot()
    assert code == 0, said
    assert (tmp_path / "board/etc/flatrack/sat-01.keys.toml").read_bytes() == keys
    assert not (folder / "request.json").exists()
    assert not list(folder.rglob("*.toml"))


def test_a_wheel_that_does_not_read_back_is_refused_and_said_on_the_card(card, boot, tmp_path):
    folder, _ = card
    wheel = folder / "wheels/other-1.0-cp311-abi3-manylinux_2_28_aarch64.whl"
    data = bytearray(wheel.read_bytes())
    data[40] ^= 1
    wheel.write_bytes(data)
    code, said = boot()
    assert code == 1
    assert "came with another content" in said
    assert (folder / "first-boot.txt").read_text() == said
    assert (folder / "request.json").exists()
    assert not (tmp_path / "board/opt/flatrack/current").exists()


@pytest.mark.parametrize("missing", ["wheels/flatrack-0.1.0-py3-none-any.whl", "files/flatrack.service"])
def test_a_file_that_is_missing_is_named(card, boot, missing):
    folder, _ = card
    (folder / missing).unlink()
    code, said = boot()
    assert code == 1
    assert f"{Path(missing).name}: No such file" in said


def test_what_the_card_asks_for_is_what_a_deployment_would_look_for(card, boot, tmp_path):
    """A later deployment of the same settings finds the release, whole, and has nothing to do."""
    folder, digest = card
    asked = json.loads((folder / "request.json").read_text())
    boot()
    code = (
        "import json, pathlib, sys\n"
        "from hil.inventory.board_side import Board\n"
        f"asked = json.loads({json.dumps(asked)!r})\n"
        f"board = Board(pathlib.Path({str(tmp_path / 'board')!r}), '')\n"
        "print(board._release_holds(asked['release']), board._environment_holds(asked['environment']))\n"
        "print(board._current())\n"
    )
    done = subprocess.run([PYTHON, "-c", code], cwd=folder / "program", capture_output=True, text=True, check=True)
    assert done.stdout == f"True True\n{digest}\n"
