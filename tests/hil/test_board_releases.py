"""What a board is given: wheels that fit it, settings with what they name, and one digest of all."""

import shutil
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from boards.settings import NodeSettings
from flightsw.errors import ConfigError
from flightsw.host.settings import load_settings
from hil.cli import main
from hil.inventory import wheelhouse
from hil.inventory.releases import packed_settings, release_of, unit_text
from hil.inventory.wheelhouse import Target, Wheel, wheels_for, wheels_in

ROOT = Path(__file__).parents[2]
PI = Target("aarch64", (3, 11), 36)


@pytest.fixture
def node(tmp_path):
    """A folder of settings with keys."""
    folder = tmp_path / "sat-01"
    shutil.copytree(ROOT / "examples/one-node", folder)
    create = [
        "keys",
        "create",
        str(ROOT / "examples/three.toml"),
        "--folder",
        str(folder / "keys"),
        "--pairs",
        "ground",
    ]
    main(create, standalone_mode=False)
    return folder


def test_settings_go_with_what_they_name_and_what_is_written_goes_to_the_state(node, tmp_path):
    settings, files = packed_settings(node)
    assert sorted(files) == ["node.toml", "plan.json", "sat-01.keys.toml", "world.json"]
    assert {name: mode for name, (mode, _) in files.items() if mode != 0o644} == {"sat-01.keys.toml": 0o600}
    for name, (_, data) in files.items():
        (tmp_path / name).write_bytes(data)
    assert load_settings(tmp_path / "node.toml", NodeSettings) == settings
    assert settings.storage.folder == "/var/lib/flatrack/node-disk"
    assert settings.board.state == "/var/lib/flatrack/board.json"
    assert (settings.plan, settings.board.world, settings.keys.file) == ("plan.json", "world.json", "sat-01.keys.toml")


def test_a_whole_path_of_what_is_written_stays(node):
    text = (node / "node.toml").read_text().replace('folder = "node-disk"', 'folder = "/mnt/nvme/disk"')
    (node / "node.toml").write_text(text)
    assert packed_settings(node)[0].storage.folder == "/mnt/nvme/disk"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "plan.json").unlink(), r"node\.toml: plan = 'plan\.json': .*No such file"),
        (lambda folder: (folder / "node.toml").unlink(), r"node\.toml: cannot be read"),
        (lambda folder: (folder / "keys/sat-01.keys.toml").chmod(stat.S_IRUSR | stat.S_IROTH), r"sat-01\.keys\.toml"),
        (
            lambda folder: shutil.copy(folder / "keys/sat-02.keys.toml", folder / "keys/sat-01.keys.toml"),
            "keys of another node",
        ),
        (
            lambda folder: (folder / "node.toml").write_text(
                (folder / "node.toml").read_text().replace('"world.json"', '"../sat-01/plan.json"')
            ),
            "two files of this name",
        ),
    ],
)
def test_what_is_wrong_with_settings_is_said(node, change, said):
    change(node)
    with pytest.raises(ConfigError, match=said):
        packed_settings(node)


def test_the_same_input_is_the_same_release_and_any_change_another(node, tmp_path):
    (tmp_path / "flatrack-0.1.0-py3-none-any.whl").write_bytes(b"one")

    def made(python=(3, 11), kind="raspberry-pi-5", sha256="a" * 64, is_bench=False):
        wheels = [Wheel(tmp_path / "flatrack-0.1.0-py3-none-any.whl", sha256)]
        where = {"folder": node, "wheels": wheels, "python": "/usr/bin/python3", "prefix": Path("/")}
        return release_of("sat-01", kind, version=python, is_bench=is_bench, **where)

    one = made()
    assert (one.digest, one.version, one.node) == (made().digest, "0.1.0", "sat-01")
    assert made(python=(3, 13)).environment != one.environment
    assert made(sha256="b" * 64).environment != one.environment
    for other in (made(kind="jetson-orin-nano"), made(is_bench=True)):
        assert other.environment == one.environment
        assert other.digest != one.digest
    assert made(is_bench=True).files["settings/bench.toml"][1].endswith(b"allows_faults = true\n")


@pytest.mark.parametrize("kind", ["jetson-orin-nano", "jetson-orin-nx", "jetson-agx-orin", "raspberry-pi-5", "host"])
def test_a_jetson_may_keep_its_power_mode_and_others_have_no_such_place(kind):
    lines = unit_text("sat-01", kind, "/usr/bin/python3").splitlines()
    assert ("ReadWritePaths=-/var/lib/nvpmodel" in lines) == kind.startswith("jetson")


# -- wheels


class Pip:
    """Stands in for pip: notes what it is asked, and gives one wheel."""

    def __init__(self):
        self.asked = []
        self.error = ""

    def __call__(self, command, **_):
        self.asked.append(command)
        (to,) = (Path(word.partition("=")[2]) for word in command if word.startswith("--dest="))
        (to / "numpy-2.4.0-cp311-cp311-manylinux_2_28_aarch64.whl").write_bytes(b"numpy")
        return SimpleNamespace(returncode=1 if self.error else 0, stderr=self.error)


@pytest.fixture
def pip(monkeypatch, tmp_path):
    asked = Pip()
    monkeypatch.setattr(wheelhouse.subprocess, "run", asked)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return asked


def test_pip_is_asked_once_for_the_boards_machine_and_the_answer_serves_without_a_network(pip):
    wheels = wheels_for(PI)
    # the second has no wheels for arm64, and is packed here without its compiled part
    assert sorted(wheel.name for wheel in wheels) == ["cobs", "flatrack", "numpy"]
    (command,) = pip.asked
    assert "--platform=manylinux_2_36_aarch64" in command
    assert "--platform=manylinux_2_37_aarch64" not in command, "newer than the board's glibc"
    assert "--python-version=3.11" in command
    assert any(word.startswith("onnxruntime") for word in command)
    assert not any(word.startswith("pytest") for word in command)
    again = wheels_for(PI)
    assert [wheel.sha256 for wheel in again] == [wheel.sha256 for wheel in wheels]
    assert len(pip.asked) == 1
    wheels_for(Target("aarch64", (3, 13), 36))
    assert len(pip.asked) == 2


def test_a_kept_wheel_that_has_changed_is_fetched_again(pip):
    def numpy():
        (path,) = [wheel.path for wheel in wheels_for(PI) if wheel.name == "numpy"]
        return path

    numpy().write_bytes(b"rot")
    assert numpy().read_bytes() == b"numpy"


def test_what_pip_says_is_said_with_the_way_out(pip):
    pip.error = "ERROR: no network"
    with pytest.raises(ConfigError, match=r"pip finds no wheels for aarch64.*no network(?s:.*)--from FOLDER"):
        wheels_for(PI)
    pip.error = ""
    assert wheels_for(PI), "and what it had begun is not kept"


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("a-1-py3-none-any.whl", True),
        ("a-1-py2.py3-none-any.whl", True),
        ("a-1-cp311-cp311-manylinux_2_17_aarch64.manylinux2014_aarch64.whl", True),
        ("a-1-cp39-abi3-manylinux_2_28_aarch64.whl", True),
        ("a-1-cp312-cp312-manylinux_2_28_aarch64.whl", False),
        ("a-1-cp311-cp311-manylinux_2_28_x86_64.whl", False),
        ("a-1-py2-none-any.whl", False),
        ("a-1-cp39-cp39-manylinux_2_17_aarch64.whl", False),
        ("a-1-cp311-cp311-linux_aarch64.whl", True),
        ("a-1-cp311-cp311-manylinux2014_aarch64.whl", True),
        ("a-1-cp311-cp311-manylinux_2_36_aarch64.whl", True),
        ("a-1-cp311-cp311-manylinux_2_37_aarch64.whl", False),
        ("a-1-cp311-cp311-manylinux_2_17_aarch64.manylinux_2_39_aarch64.whl", True),
        ("a-1-cp311-cp311-musllinux_1_2_aarch64.whl", False),
        ("a-1-cp311-cp311-macosx_11_0_aarch64.whl", False),
    ],
)
def test_a_wheel_of_ones_own_must_fit_the_board(pip, tmp_path, name, fits):
    folder = tmp_path / "wheels"
    folder.mkdir()
    (folder / name).write_bytes(b"")
    if fits:
        assert [wheel.name for wheel in wheels_in(folder, PI)] == ["a", "flatrack"], "ours comes along"
    else:
        with pytest.raises(ConfigError, match=r"expected one for aarch64, Python 3\.11"):
            wheels_in(folder, PI)


def test_a_wheelhouse_without_wheels_or_with_two_of_a_kind_is_refused(pip, tmp_path):
    with pytest.raises(ConfigError, match="has no wheels"):
        wheels_in(tmp_path, PI)
    for version in ("1", "2"):
        (tmp_path / f"a_b-{version}-py3-none-any.whl").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"a_b-1-.* is there too"):
        wheels_in(tmp_path, PI)


def test_a_32_bit_system_is_refused():
    with pytest.raises(ConfigError, match="the board's machine is armv7l, expected aarch64 or x86_64"):
        Target("armv7l", (3, 11), 36)
