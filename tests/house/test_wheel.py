"""The wheel holds the four packages with their data, all of them and nothing else."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("flightsw", "boards", "ground", "hil")


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """Names of the files in a freshly built wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("flatrack-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return sorted(archive.namelist())


def test_it_holds_all_files_of_the_four_packages_and_no_others(names):
    inside = [name for name in names if ".dist-info/" not in name]
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file()]
    here = [path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts]
    assert inside == sorted(here)


@pytest.mark.parametrize(
    "name",
    [
        "hil/scenarios/three-body-12.toml",
        "hil/assets/cloud-mask.onnx",
        "hil/assets/sentinel2-scene.npz",
        "boards/profiles/jetson-orin-nano.toml",
        *(f"{package}/py.typed" for package in PACKAGES),
    ],
)
def test_it_holds_what_a_run_needs_besides_code(names, name):
    assert name in names


def test_it_holds_licence_notice_and_the_command(names):
    notices = {name.split("/", 1)[1] for name in names if ".dist-info/" in name}
    assert {"licenses/LICENSE", "licenses/NOTICE", "entry_points.txt"} <= notices


def test_what_is_no_code_has_a_known_kind(names):
    known = {".py", ".typed", ".toml", ".onnx", ".npz", ".md"}
    strange = [
        name
        for name in names
        if ".dist-info/" not in name and Path(name).suffix not in known and not name.startswith("hil/world/data/")
    ]
    assert strange == []
