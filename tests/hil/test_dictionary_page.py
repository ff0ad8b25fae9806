"""What docs/dictionary.md shows is what happens: its Python, its file, and a node that has all that it lists."""

import asyncio
import contextlib
import functools
import io
import re
from pathlib import Path

import pytest

from boards.support import trees
from boards.support.hardware import open_hardware
from flightsw.dictionary import check_value, flight_dictionary, load
from flightsw.dictionary.model import CMDEC, CMDPC
from flightsw.ports import NodePorts
from hil.bench import satellite
from hil.bench.execute import execute, prepare
from hil.bench.scenario import load as scenario

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "dictionary.md").read_text(encoding="utf-8")
EXAMPLE = str(ROOT / "examples" / "flight.toml")
DICTIONARY = flight_dictionary()


def block(language):
    """The first code of a language on the page."""
    return re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)[1]


def test_the_python_of_the_page_prints_what_the_page_says(monkeypatch):
    monkeypatch.chdir(ROOT)
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        exec(compile(block("python"), "docs/dictionary.md", "exec"), {})
    assert [line.rstrip() for line in shown.getvalue().splitlines()] == block("text").splitlines()


def test_the_file_of_the_page_is_a_good_one(tmp_path):
    path = tmp_path / "limits.toml"
    other = '\n[parameters.other]\ncode = 2\ntype = "u16"\ndefault = 9\ndoc = "Another."\n'
    path.write_text(block("toml") + other)
    found = load([path])
    assert list(found.commands) == ["LIMITS.NOOP", "LIMITS.RESET_COUNTERS", "LIMITS.ARM"]


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """The machines of a node of a run after a minute, on a board that has all that a board can have."""
    found = []

    async def operator(bench):
        await asyncio.sleep(60)
        found.append(bench.members["sat-01"].node._parts)

    laid = trees.lay("raspberry-pi-5", tmp_path_factory.mktemp("board"))
    hardware = open_hardware("auto", root=laid.root, monotonic_ns=lambda: 0, run=laid.run, read=laid.read)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(satellite, "NodePorts", functools.partial(NodePorts, hardware=hardware))
        execute(prepare(scenario(EXAMPLE), 7, "none"), 7, operator=operator)
    return found[0]


def test_a_node_has_every_component_of_the_dictionary_in_its_order(parts):
    assert [part.name for part in parts.components] == list(DICTIONARY.components)


def test_a_node_handles_every_command_of_the_dictionary(parts):
    handled = {f"{part.name}.{name}" for part in parts.components for name in part.handlers()}
    expected = {key for key, spec in DICTIONARY.commands.items() if spec.code > 1}
    assert sorted(handled ^ expected) == []


def test_a_node_gives_a_value_of_the_right_type_for_every_channel_of_the_dictionary(parts):
    counters = (CMDPC, CMDEC)  # they are those of the commands
    given = {f"{part.name}.{name}" for part in parts.components for name in part.channels() if name not in counters}
    expected = {key for key, spec in DICTIONARY.channels.items() if spec.name not in counters}
    assert sorted(given ^ expected) == []
    wrong = [
        refusal
        for part in parts.components
        for name, value in part.channels().items()
        if (refusal := check_value(DICTIONARY.channels[f"{part.name}.{name}"], value)) is not None
    ]
    assert wrong == []
