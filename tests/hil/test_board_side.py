"""What runs on a board during a deployment: what a cut or a restart leaves, and what is refused."""

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from hil.inventory import board_side
from hil.inventory.board_side import Refused
from hil.inventory.releases import unit_text

UNIT = "flatrack.service"


@pytest.fixture
def board(tmp_path, monkeypatch):
    """A board whose systemctl says that the service runs, and notes what it is asked."""
    asked = []

    class Tried(board_side.Board):
        def _systemctl(self, *arguments, is_asked=False):
            asked.append(arguments[0])
            return {"is-active": "active", "show": made.status}.get(arguments[0], "")

        def _start_guard(self, token, confirm_s):
            self.token = token

    made = Tried(tmp_path, "source")
    made.asked = asked
    made.status = ""
    return made


def release(board, digest, *, environment="e1", text=b"node", mode=0o600):
    """Lay a release on the board."""
    (board.environments / environment).mkdir(parents=True, exist_ok=True)
    files = [("settings/keys.toml", mode, text), (UNIT, 0o644, f"unit of {digest}".encode())]
    request = {
        "release": digest,
        "environment": environment,
        "wheels": [f"wheel-{environment}"],
        "about": {"version": "1", "node": "n"},
    }
    board._make_release(request, files)
    board.wheels.mkdir(exist_ok=True)
    (board.wheels / f"wheel-{environment}.whl").write_bytes(b"")


def kept(board, digest):
    """Lay, try and confirm a release."""
    release(board, digest)
    board.activate({"release": digest, "confirm_s": 60})
    board.confirm({"release": digest, "listens": True})


def another_boot(board):
    trial = json.loads(board.trial.read_text())
    board.trial.write_text(json.dumps(trial | {"boot_id": "another"}))


def test_a_release_has_its_files_with_their_modes_and_settings_are_its_own(board):
    kept(board, "r1")
    key = board.settings / "keys.toml"
    assert key.read_bytes() == b"node"
    assert key.stat().st_mode & 0o777 == 0o600
    assert (board.releases / "r1/settings").stat().st_mode & 0o777 == 0o700
    assert board.unit.read_text() == "unit of r1"
    assert board._release_holds("r1")
    key.write_bytes(b"other")
    assert not board._release_holds("r1")
    key.write_bytes(b"node")
    key.chmod(0o644)
    assert not board._release_holds("r1")


def test_a_restart_of_the_board_in_a_trial_leaves_the_release_before_it_starts(board):
    kept(board, "r1")
    release(board, "r2")
    board.activate({"release": "r2", "confirm_s": 60})
    board.settle()
    assert board.current.readlink().name == "r2", "the service alone was restarted: the trial goes on"
    another_boot(board)
    board.settle()
    assert board.current.readlink().name == "r1"
    assert board.unit.read_text() == "unit of r1"
    assert not board.trial.exists()


def test_a_restart_after_the_confirmation_changes_nothing(board):
    kept(board, "r1")
    board.settle()
    assert board.current.readlink().name == "r1"


def test_the_guard_of_an_earlier_trial_does_not_end_a_later_one(board):
    kept(board, "r1")
    release(board, "r2")
    board.activate({"release": "r2", "confirm_s": 60})
    earlier = board.token
    board.revert({})
    board.activate({"release": "r2", "confirm_s": 60})
    board.guard(earlier, 0.0)
    assert board.current.readlink().name == "r2"
    board.guard(board.token, 0.0)
    assert board.current.readlink().name == "r1"


def test_what_is_left_again_cannot_be_confirmed(board):
    kept(board, "r1")
    release(board, "r2")
    board.activate({"release": "r2", "confirm_s": 60})
    board.revert({})
    with pytest.raises(Refused, match="left again before it was confirmed"):
        board.confirm({"release": "r2", "listens": True})


@pytest.mark.parametrize("status", ["", "slot F runs, ended 1 times", "slot F runs, ended 10 times"])
def test_where_nobody_listens_a_node_that_has_ended_is_not_confirmed(board, status):
    release(board, "r1")
    board.activate({"release": "r1", "confirm_s": 60})
    board.status = status
    with pytest.raises(Refused, match=r"expected \.\.\. ended 0 times"):
        board.confirm({"release": "r1", "listens": False})
    assert board.trial.exists()
    board.status = "slot F runs, ended 0 times"
    board.confirm({"release": "r1", "listens": False})
    assert not board.trial.exists()


class Cut(Exception):
    """The board's power goes."""


def cut_between_the_renames(folder, make, monkeypatch):
    """Have a folder made anew, with a cut when the old one is away and the new one is not there yet."""
    rename = Path.rename

    def renamed(path, target):
        if path.name == f"{folder.name}.new":
            assert not folder.exists()
            raise Cut
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", renamed)
        with pytest.raises(Cut):
            make()


def test_a_cut_while_the_release_that_runs_is_made_anew_leaves_it_whole(board, monkeypatch):
    kept(board, "r1")
    cut_between_the_renames(board.releases / "r1", lambda: release(board, "r1", text=b"anew"), monkeypatch)
    board.settle()
    assert (board.current / "settings/keys.toml").read_bytes() == b"node"
    assert board._release_holds("r1")
    release(board, "r1", text=b"anew")
    assert (board.current / "settings/keys.toml").read_bytes() == b"anew"
    assert [path.name for path in board.releases.iterdir()] == ["r1"]


def test_a_cut_while_the_environment_that_runs_is_made_anew_leaves_it_whole(board, monkeypatch):
    kept(board, "r1")
    with zipfile.ZipFile(board.wheels / "w1.whl", "w") as wheel:
        wheel.writestr("a.py", "")
    board._make_environment("e1", ["w1"])
    cut_between_the_renames(board.environments / "e1", lambda: board._make_environment("e1", ["w1"]), monkeypatch)
    board.settle()
    assert (board.current / "environment/bin/python").exists()
    assert board._environment_holds("e1")


def test_a_removal_leaves_nothing_that_an_image_a_card_or_a_deployment_brought(board, tmp_path):
    board.settings.mkdir(parents=True)
    (board.settings / "keys.toml").write_text("keys of the image")
    board.watchdog.parent.mkdir(parents=True)
    board.watchdog.write_text("of a card")
    kept(board, "r1")
    board.unit_of_first_boot.write_text("of a card")
    assert (board.settings_before / "keys.toml").exists()
    assert board.remove({"with_data": True}) == {"left": []}
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []
    assert "daemon-reexec" in board.asked


def test_a_removal_takes_settings_that_are_no_link(board, tmp_path):
    board.settings.mkdir(parents=True)
    (board.settings / "keys.toml").write_text("keys of the image")
    assert board.remove({"with_data": False}) == {"left": []}
    assert not board.settings.exists()


def test_a_removal_says_what_it_could_not_remove(board, monkeypatch):
    board.settings.mkdir(parents=True)
    monkeypatch.setattr(board_side.shutil, "rmtree", lambda *_, **__: None)
    assert board.remove({"with_data": False}) == {"left": [str(board.settings)]}


def test_what_an_image_brought_is_back_when_the_first_release_is_left(board):
    board.settings.mkdir(parents=True)
    (board.settings / "node.toml").write_text("of the image")
    board.unit.parent.mkdir(parents=True)
    board.unit.write_text("unit of the image")
    release(board, "r1")
    board.activate({"release": "r1", "confirm_s": 60})
    assert board.settings.is_symlink()
    board.revert({})
    assert (board.settings / "node.toml").read_text() == "of the image"
    assert board.unit.read_text() == "unit of the image"
    assert not board.current.is_symlink()


def test_two_releases_are_kept_and_what_no_release_needs_goes(board):
    for number in range(1, 4):
        release(board, f"r{number}", environment=f"e{number}")
        board.activate({"release": f"r{number}", "confirm_s": 60})
        board.confirm({"release": f"r{number}", "listens": True})
    assert sorted(path.name for path in board.releases.iterdir()) == ["r2", "r3"]
    assert sorted(path.name for path in board.environments.iterdir()) == ["e2", "e3"]
    assert sorted(path.name for path in (board.state / "slots").iterdir()) == ["e2", "e3"]
    assert sorted(path.stem for path in board.wheels.iterdir()) == ["wheel-e2", "wheel-e3"]


def test_a_wheel_that_comes_with_another_content_is_not_kept(board):
    with pytest.raises(Refused, match="another content"):
        board.push({"wheels": [["0" * 64, 3]]}, io.BytesIO(b"abc"))
    assert list(board.wheels.iterdir()) == []
    with pytest.raises(Refused, match="ended inside a wheel"):
        board.push({"wheels": [["0" * 64, 4]]}, io.BytesIO(b"abc"))
    assert list(board.wheels.glob("*.whl")) == []


def test_a_disk_without_room_is_refused_before_a_byte_is_taken(board, monkeypatch):
    monkeypatch.setattr(board_side.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 40 << 20}))
    with pytest.raises(Refused, match=r"disk full: 40 MiB free .* expected 41 MiB"):
        board.push({"wheels": [["0" * 64, (9 << 20) + 1]]}, io.BytesIO(b""))


@pytest.mark.parametrize("name", ["../outside.py", "/etc/outside.py", "a/../../outside.py"])
def test_a_wheel_cannot_write_outside_its_environment(tmp_path, name):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as wheel:
        wheel.writestr(name, "")
    with zipfile.ZipFile(data) as wheel, pytest.raises(Refused, match="no name of a file below"):
        board_side.unpack(wheel, tmp_path / "packages", tmp_path)


def test_a_wheel_is_laid_where_its_kinds_of_files_belong(tmp_path):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as wheel:
        for name in ("a.py", "a-1.data/platlib/b.so", "a-1.data/data/share/c", "a-1.data/scripts/d"):
            wheel.writestr(name, name)
    with zipfile.ZipFile(data) as wheel:
        board_side.unpack(wheel, tmp_path / "packages", tmp_path)
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert found == ["packages/a.py", "packages/b.so", "share/c"]


def test_an_environment_has_compiled_code_and_keeps_what_a_wheel_brings(board):
    name = f"b.{sys.implementation.cache_tag}.pyc"
    board.wheels.mkdir(parents=True)
    with zipfile.ZipFile(board.wheels / "w1.whl", "w") as wheel:
        for file in ("a/__init__.py", "a/b.py", "a/bad.py", f"a/__pycache__/{name}"):
            wheel.writestr(file, "not Python" if "bad" in file else "" if file.endswith(".py") else "compiled")
    board._make_environment("e1", ["w1"])
    assert board._environment_holds("e1")
    (cache,) = (board.environments / "e1").glob("lib/*/site-packages/a/__pycache__")
    assert (cache / name).read_text() == "compiled"
    assert (cache / name.replace("b.", "__init__.", 1)).exists()
    (cache / name).unlink()
    assert not board._environment_holds("e1"), "a file is missing"


def test_it_needs_the_standard_library_alone():
    code = (
        "import sys; before = set(sys.modules); exec(open(sys.argv[1]).read(), {'__name__': 'x'});"
        "print({name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names)"
    )
    command = [sys.executable, "-I", "-S", "-c", code, board_side.__file__]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "set()"


def test_systemd_takes_the_unit(tmp_path, need_tool):
    analyze = need_tool("systemd-analyze")
    for kind in ("raspberry-pi-5", "jetson-orin-nano"):
        unit = tmp_path / UNIT
        unit.write_text(unit_text("sat-03", kind, sys.executable, Path("/")).replace("/opt/flatrack/current/", "/usr/"))
        text = unit.read_text().replace("/usr/environment/bin/python", sys.executable)
        unit.write_text(text)
        done = subprocess.run([analyze, "verify", "--man=no", unit], capture_output=True, text=True, check=False)
        assert [line for line in done.stderr.splitlines() if UNIT in line] == []
        assert ("DevicePolicy=closed" in text) == (kind == "raspberry-pi-5")
