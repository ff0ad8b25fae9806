"""The documents say what the code says."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from flightsw import config, node
from flightsw.compute import budget, cloud_mask, executor, jobs, matrix_file, matrix_product
from flightsw.core import audit, boots, commanding, escalation, events, health, packets, recorder, supervision
from flightsw.dictionary import flight_dictionary
from flightsw.objects import digest, exchange
from flightsw.storage import audit_chain, records, reserve, ring_log
from flightsw.wire import cbor, messages
from ground import archive, readings

ROOT = Path(__file__).parents[2]
SCALES = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
MODULES = (
    archive, audit, audit_chain, boots, budget, cbor, cloud_mask, commanding, digest, escalation, events, executor,
    health, jobs, matrix_file, matrix_product, messages, node, packets, readings, recorder, records, reserve, ring_log,
    supervision,
)  # fmt: skip
OWNERS = {module.__name__.rpartition(".")[2]: module for module in MODULES}
DEFAULTS = {
    "NodeConfig": {field.name: field.default for field in msgspec.structs.fields(config.NodeConfig)},
    "InterfaceConfig": {field.name: field.default for field in msgspec.structs.fields(config.InterfaceConfig)},
    "TransferConfig": {name: getattr(exchange.TransferConfig(), name) for name in exchange.TransferConfig.__slots__},
}
LIMIT = re.compile(r"^\| `(\w+)\.(\w+)` \| ([\d.,]+) ?(\w*)", re.MULTILINE)
PAGES = ("flight", "telemetry", "health", "audit", "storage")
LIMITS = [
    found
    for page in PAGES
    if (ROOT / "docs" / f"{page}.md").exists()
    for found in LIMIT.findall((ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8"))
]


def print_docs(*arguments):
    command = [sys.executable, str(ROOT / "scripts" / "print_docs.py"), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_tables_in_the_documents_are_those_of_the_code():
    done = print_docs("--check")
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_a_stale_table_is_named_and_printing_mends_it(tmp_path):
    shutil.copytree(ROOT / "docs", tmp_path, dirs_exist_ok=True)
    page = tmp_path / "flight.md"
    page.write_text(page.read_text().replace("| BOOT | boot done | NOMINAL |", "| BOOT | boot done | SAFE |"))
    done = print_docs("--check", "--docs", str(tmp_path))
    assert done.returncode == 1
    assert done.stdout == f"{page}: stale; run make docs\n"
    assert print_docs("--docs", str(tmp_path)).returncode == 0
    assert page.read_text() == (ROOT / "docs" / "flight.md").read_text()


def print_tour(*arguments):
    command = [sys.executable, str(ROOT / "scripts" / "print_tour.py"), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_tour_is_what_the_console_says():
    done = print_tour("--check")
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_a_tour_that_says_something_else_is_found_and_printing_mends_it(tmp_path):
    page = tmp_path / "flight.md"
    sound = (ROOT / "docs" / "flight.md").read_text()
    page.write_text(sound.replace("boot 2 after POWER_CYCLE", "boot 3 after POWER_CYCLE"))
    assert print_tour("--check", "--page", str(page)).returncode == 1
    assert print_tour("--page", str(page)).returncode == 0
    assert page.read_text() == sound


@pytest.mark.parametrize("text", ["<!-- printed: no such table -->\n<!-- end -->\n", "<!-- printed: commands -->\n"])
def test_a_wrong_marker_is_refused(tmp_path, text):
    (tmp_path / "page.md").write_text(text)
    done = print_docs("--check", "--docs", str(tmp_path))
    assert done.returncode == 1
    assert "page.md: " in done.stderr
    assert "expected" in done.stderr


def test_the_table_of_limits_is_found():
    assert len(LIMITS) > 20


@pytest.mark.parametrize(("owner", "name", "number", "unit"), LIMITS, ids=lambda part: part)
def test_a_limit_in_the_documents_has_the_value_of_the_code(owner, name, number, unit):
    if owner.isupper():
        value = flight_dictionary().parameters[f"{owner}.{name}"].default
    else:
        value = DEFAULTS[owner][name] if owner in DEFAULTS else getattr(OWNERS[owner], name)
    scale = 10**9 if "_NS" in name else 1000 if name.endswith("_MS") else SCALES.get(unit, 1)
    assert float(number.replace(",", "")) * scale == value
