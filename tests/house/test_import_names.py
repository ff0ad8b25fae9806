"""Our import names are ours, and a part of the house loads no more of it than it says."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("package", ["flightsw", "boards", "ground", "hil"])
def test_no_other_distribution_owns_our_import_names(package):
    # the public index has other packages named ground and boards, and an installer overwrites silently;
    # an editable install lists no files, so a missing entry is ours
    assert set(metadata.packages_distributions().get(package, ["flatrack"])) == {"flatrack"}


def loaded_by(module):
    """Modules of the house that are loaded after one import in a fresh interpreter."""
    code = f"import sys, {module}; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in done.stdout.split() if name.split(".")[0] in ("flightsw", "boards", "ground", "hil")]


def test_the_wire_package_alone_loads_nothing_else():
    assert loaded_by("flightsw.wire") == ["flightsw", "flightsw.wire"]


def test_the_messages_load_no_flight_code():
    loaded = loaded_by("flightsw.wire.messages")
    assert "flightsw.wire.messages" in loaded
    assert [name for name in loaded if not name.startswith("flightsw.wire")] == ["flightsw", "flightsw.errors"]


def test_flight_code_loads_nothing_of_the_bench_the_boards_or_the_ground():
    assert [name for name in loaded_by("flightsw.node") if name.split(".")[0] != "flightsw"] == []
