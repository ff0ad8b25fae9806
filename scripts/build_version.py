"""Build this tree as a wheel of another version, good or with a defect: images to try software updates with.

    python scripts/build_version.py 0.2.0 --out /tmp/images
    python scripts/build_version.py 0.2.1 --defect crash-later --out /tmp/images

The wheel has no pictures and scenarios of the bench: a satellite needs none.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("flightsw", "boards", "ground", "hil")
LEFT_OUT = ("__pycache__", "assets", "scenarios", "data")
DEFECTS = {
    "good": "",
    "crash-at-import": "raise RuntimeError('a broken version')\n",
    "crash-later": "import os, threading\nthreading.Timer(2.0, os._exit, [1]).start()\n",
    "hang": "import signal\nsignal.pause()\n",
    "ends": "raise SystemExit(0)\n",
    "bad-settings": "raise SystemExit(2)\n",
}
"""What `boards/__main__.py` of the version begins with."""


def build(version: str, out: Path, defect: str = "good") -> Path:
    """Build the wheel; returns its path."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder)
        for package in PACKAGES:
            shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns(*LEFT_OUT))
        for name in ("README.md", "LICENSE", "NOTICE"):
            shutil.copy(ROOT / name, source / name)
        project = (ROOT / "pyproject.toml").read_text()
        changed = re.sub(r'^version = ".*"$', f'version = "{version}"', project, count=1, flags=re.MULTILINE)
        (source / "pyproject.toml").write_text(changed)
        main = source / "boards" / "__main__.py"
        text = main.read_text()
        begin = text.index('"""', 3) + 4  # behind the docstring
        main.write_text(text[:begin] + DEFECTS[defect] + text[begin:])
        out.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out.resolve())]
        subprocess.run(command, cwd=source, check=True, capture_output=True)
    return out / f"flatrack-{version}-py3-none-any.whl"


def main() -> None:
    """Build one."""
    parser = argparse.ArgumentParser(description="Build this tree as a wheel of another version.")
    parser.add_argument("version", help="three numbers, such as 0.2.0")
    parser.add_argument("--defect", choices=sorted(DEFECTS), default="good")
    parser.add_argument("--out", type=Path, required=True, help="folder for the wheel")
    given = parser.parse_args()
    print(build(given.version, given.out, given.defect))


if __name__ == "__main__":
    main()
