"""Board trees are data with sources, and lie in a folder as they say."""

import errno
import importlib.util
import os
import re
from pathlib import Path

import pytest

from boards.support import trees
from boards.support.tools import ToolResult
from flightsw.errors import ConfigError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", trees.names())
def test_a_tree_is_called_like_its_file_and_every_fact_has_a_source_and_a_flag(name: str) -> None:
    tree = trees.load(name)
    assert tree.name == name
    assert all(facts.flag in "VDU" and len(facts.source) >= 20 for facts in tree.facts)
    assert all(facts.files or facts.links or facts.folders or facts.errors or facts.tools for facts in tree.facts)


@pytest.mark.parametrize("name", trees.names())
def test_only_what_was_seen_on_a_machine_is_flagged_as_seen(name: str) -> None:
    flags = {facts.flag for facts in trees.load(name).facts}
    assert ("V" in flags) == name.startswith("qemu-")


@pytest.mark.parametrize("name", trees.names())
def test_a_tree_lies_in_a_folder_as_it_says(name: str, tmp_path: Path) -> None:
    laid = trees.lay(name, tmp_path / "new" / "board")
    for facts in laid.tree.facts:
        for path, text in facts.files.items():
            end = "" if text.endswith("\0") else "\n"
            assert laid.read(laid.root / path[1:], 10_000) == (text + end).encode(), path
        for path, target in facts.links.items():
            place = laid.root / path[1:]
            assert os.path.realpath(place) == os.path.realpath(laid.root / target[1:])
            assert place.exists(), f"{path} leads nowhere"
            assert laid.root in place.resolve().parents, f"{path} leads out of the folder"
        for path, error in facts.errors.items():
            with pytest.raises(OSError) as caught:
                laid.read(laid.root / path[1:], 10)
            assert caught.value.errno == getattr(errno, error)
            with pytest.raises(OSError):
                (laid.root / path[1:]).read_bytes()


def test_a_tool_prints_what_the_tree_says_and_what_was_set_is_printed_from_then_on(tmp_path: Path) -> None:
    laid = trees.lay("jetson-orin-nano", tmp_path / "board")
    assert laid.run(["nvpmodel", "-q"]) == ToolResult(0, "NV Power Mode: 15W\n0\n")
    laid.run(["nvpmodel", "-m", "1"])
    assert laid.run(["nvpmodel", "-q"]) == ToolResult(0, "NV Power Mode: 7W\n1\n")
    assert laid.run(["nvpmodel", "--moon"]).exit_code == 1
    with pytest.raises(FileNotFoundError):
        laid.run(["vcgencmd", "get_throttled"])


def test_an_unknown_tree_and_a_folder_in_use_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'raspberry-pi-6': expected one of host, .*raspberry-pi-5"):
        trees.lay("raspberry-pi-6", tmp_path)
    trees.lay("host", tmp_path / "board")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be laid here"):
        trees.lay("qemu-virt", tmp_path / "file")


def test_a_path_out_of_the_tree_is_refused(tmp_path: Path) -> None:
    facts = trees.Facts(source="a source of twenty letters", flag="U", files={"/sys/../../etc/passwd": "x"})
    laid = trees.LaidTree(tmp_path / "a" / "b", trees.BoardTree(name="a", title="a", facts=(facts,)))
    with pytest.raises(ConfigError, match="may not lead out"):
        trees._lay(facts, laid)


def test_the_tables_in_the_document_are_printed_from_the_trees() -> None:
    spec = importlib.util.spec_from_file_location("print_board_support", ROOT / "scripts" / "print_board_support.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = (ROOT / "docs" / "boards" / "support.md").read_text(encoding="utf-8")
    printed = re.findall(r"<!-- printed -->\n\n(.*?)\n\n<!-- end -->", text, re.DOTALL)
    assert "\n\n".join(printed) == module.tables()
