"""The fixture `board` on an emulated board: a test of the example as a user runs it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.emulated

ROOT = Path(__file__).parents[2]
OPTIONS = ("-p", "hil.pytest_plugin", "-p", "no:cacheprovider", "-c", os.devnull, f"--rootdir={ROOT}")


def test_a_test_of_the_example_passes_on_an_emulated_board(ready):
    kind = ("--flatrack-kind", "emulated", "--flatrack-image", str(ready.folder.parents[1]))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *OPTIONS, "examples/tests", "-k", "command", *kind],
        cwd=ROOT,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
