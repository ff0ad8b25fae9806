"""`flatrack keys`: files for a fleet that agree pair by pair, are never overwritten, and are shown without keys."""

import asyncio
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from flightsw.errors import ConfigError
from flightsw.host.control import serve
from flightsw.host.keyfile import load_keys
from hil.bench.sky import FIRST_NODE, GROUND_NODE
from hil.cli import main

EXAMPLE = str(Path(__file__).parents[2] / "examples" / "three.toml")


def flatrack(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments])


def test_a_fleet_gets_one_private_file_for_each_node_and_the_ground_that_agree(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "keys"
    done = flatrack("keys", "create", EXAMPLE, "--folder", folder)
    assert done.exit_code == 0, done.output
    paths = [Path(line) for line in done.output.split()]
    assert sorted(paths) == sorted(folder.iterdir())
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths} == {0o600}
    rings = {ring.node: ring for ring in map(load_keys, paths)}
    assert sorted(rings) == [GROUND_NODE, FIRST_NODE, FIRST_NODE + 1, FIRST_NODE + 2]
    secrets = set()
    for node, ring in rings.items():
        assert sorted(ring.peers) == sorted(set(rings) - {node})
        for peer, shared in ring.peers.items():
            assert rings[peer].peers[node] == shared
            secrets |= {shared.master, shared.keys[0].secret}
    assert len(secrets) == 2 * 6, "no two pairs share a key"


def test_keys_for_the_ground_only_where_that_is_asked_for(tmp_path: Path) -> None:
    assert flatrack("keys", "create", EXAMPLE, "--folder", tmp_path, "--pairs", "ground").exit_code == 0
    rings = [load_keys(path) for path in sorted(tmp_path.iterdir())]
    assert sorted(len(ring.peers) for ring in rings) == [1, 1, 1, 3]


def test_keys_are_never_overwritten_not_even_some_of_them(tmp_path: Path) -> None:
    assert flatrack("keys", "create", EXAMPLE, "--folder", tmp_path).exit_code == 0
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    last = sorted(before)[-1]
    for path in sorted(before)[:-1]:
        path.unlink()
    done = flatrack("keys", "create", EXAMPLE, "--folder", tmp_path)
    assert done.exit_code == 2
    assert f"flatrack: {last}: is there already, expected a new file" in done.output
    assert [*tmp_path.iterdir()] == [last]
    assert last.read_bytes() == before[last]


def test_a_fleet_too_large_for_pairs_is_refused_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hil.commands.keys.NODES_PAIRED_MAX", 3)
    done = flatrack("keys", "create", EXAMPLE, "--folder", tmp_path / "k")
    assert done.exit_code == 2
    assert "--pairs all: 4 nodes and ground, expected at most 3; use --pairs ground" in done.output
    assert not (tmp_path / "k").exists()


def test_a_listing_shows_numbers_states_and_fingerprints_and_no_key(tmp_path: Path) -> None:
    flatrack("keys", "create", EXAMPLE, "--folder", tmp_path)
    paths = sorted(tmp_path.iterdir())
    done = flatrack("keys", "list", *paths)
    assert done.exit_code == 0, done.output
    assert f"{paths[0]}: node {GROUND_NODE}, 3 peers" in done.output
    prints = re.findall(r"key 1 +ACTIVE +([0-9a-f]{16})$", done.output, re.MULTILINE)
    assert len(prints) == 12
    assert len(set(prints)) == 6, "both ends show the same"
    for path in paths:
        for secret in re.findall(r'"([0-9a-f]{64})"', path.read_text()):
            assert secret not in done.output


def test_a_file_that_others_may_read_is_not_listed(tmp_path: Path) -> None:
    flatrack("keys", "create", EXAMPLE, "--folder", tmp_path)
    path = sorted(tmp_path.iterdir())[0]
    path.chmod(0o644)
    done = flatrack("keys", "list", path)
    assert done.exit_code == 2
    assert done.output == f"flatrack: {path}: mode 0644 lets others at the keys, expected 0600 (chmod 600 {path})\n"


async def test_a_running_ground_is_given_a_fresh_secret_and_its_refusal_is_one_line(tmp_path: Path) -> None:
    asked: list[tuple[object, bytes]] = []

    def rotate_key(node: object, secret: bytes) -> int:
        asked.append((node, secret))
        if node == "sat-99":
            raise ConfigError("rotate_key: no node sat-99")
        return 2

    server = await serve(tmp_path / "control", {"rotate_key": rotate_key})
    done = []
    for node in ("sat-01", "11", "sat-99"):
        command = [sys.executable, "-m", "hil.cli", "keys", "rotate", node, "--control", str(tmp_path / "control")]
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        output, _ = await process.communicate()
        done.append((process.returncode, output.decode()))
    await server.close()
    assert done[:2] == [(0, "sat-01: key 2 is on its way\n"), (0, "11: key 2 is on its way\n")]
    assert done[2][0] == 2
    assert done[2][1] == "flatrack: rotate_key: no node sat-99\n"
    assert [node for node, _ in asked] == ["sat-01", 11, "sat-99"]
    assert [len(secret) for _, secret in asked] == [32] * 3
    assert len({secret for _, secret in asked}) == 3


def test_a_fleet_or_folder_that_is_none_is_one_line(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    for arguments in (("keys", "create", "no-such-fleet", "--folder", tmp_path / "k"),
                      ("keys", "create", EXAMPLE, "--folder", blocked)):  # fmt: skip
        done = flatrack(*arguments)
        assert (done.exit_code, done.output.count("\n")) == (2, 1), done.output
        assert done.output.startswith("flatrack: ")
