"""`python -m ground`: a real process with real files and sockets, and a real node at the other end of a real wire."""

import asyncio
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from flightsw.compute.matrix_file import decode_matrix, encode_matrix
from flightsw.compute.matrix_product import steps_count

PATIENCE_S = 60.0
"""Longest wait for what healthy programs do within seconds [s of the machine]."""


SAFE_MINUTE = Path(__file__).resolve().parents[3] / "examples" / "sequences" / "safe-minute.seq"


def test_a_matrix_product_is_computed_on_board_and_comes_down(users, until, lab):
    random = np.random.Generator(np.random.PCG64(1))
    left, right = (random.standard_normal(size).astype("<f4") for size in ((600, 30), (30, 20)))
    lab.join()
    lab.start_node()
    lab.start_ground()

    async def scenario():
        async with users(lab) as peer:
            objects = {"model": encode_matrix(left), "data": encode_matrix(right)}
            job = {
                "kind": "matrix_product",
                "steps_count": steps_count(len(left)),
                "step_mpix": 10.0,
                "deadline_s": 20_000,
            }
            for name, data in objects.items():
                job |= {name: await peer.call("put_object", data), f"{name}_bytes": len(data)}
            number = await peer.call("submit", job)
            row = await until(peer, lambda row: row["state"] == "COMPLETED", "job", number)
            return decode_matrix(await peer.call("get_object", row["result"]))

    assert np.allclose(asyncio.run(scenario()), left @ right, rtol=1e-5, atol=1e-5)
    assert lab.errors() == ""


def test_the_command_line_commands_a_node_and_shows_the_fleet(users, until, is_alive, lab):
    lab.join()
    lab.start_node()
    lab.start_ground()

    async def is_there():
        async with users(lab) as peer:
            await until(peer, is_alive, "nodes")

    asyncio.run(is_there())
    code, printed, errors = lab.flatrack("command", "sat-01", "NODE.NOOP", "--control", lab.control)
    assert (code, errors) == (0, "")
    assert printed.splitlines()[-1] == "command 1 to sat-01: NODE.NOOP COMPLETED"

    code, printed, errors = lab.flatrack("command", "11", "JOBS.CANCEL", "7", "1", "--control", lab.control)
    assert (code, errors) == (1, "")
    assert printed.splitlines()[-1].startswith("command 2 to sat-01: JOBS.CANCEL FAILED EXECUTION_ERROR job 7")

    code, printed, errors = lab.flatrack("status", "--control", lab.control)
    assert (code, errors) == (0, "")
    assert printed.startswith("T+0:0")
    assert "\nsat-01       ALIVE    NOMINAL " in printed
    code, printed, _ = lab.flatrack("status", "--json", "--control", lab.control)
    assert json.loads(printed)["nodes"][0]["name"] == "sat-01"

    code, printed, errors = lab.flatrack("ping", "sat-01", "-c", "2", "-i", "0.1", "--control", lab.control)
    assert (code, errors) == (0, "")
    assert "seq=2 time=" in printed

    for arguments, why in [
        (("sat-09", "NODE.NOOP"), "command: node is 'sat-09', expected one of sat-01"),
        (("sat-01", "NODE.EXPLODE"), "opcode is 'NODE.EXPLODE', expected one of "),
        (("sat-01", "JOBS.CANCEL", "x", "1"), "JOBS.CANCEL: job is 'x', expected u64"),
        (("sat-01", "OBJECTS.REMOVE", "xyz"), "OBJECTS.REMOVE: digest is 'xyz', expected hexadecimal digits or @FILE"),
    ]:
        code, printed, errors = lab.flatrack("command", *arguments, "--control", lab.control)
        assert (code, printed) == (2, "")
        assert errors.startswith(f"flatrack: {why}")
        assert errors.count("\n") == 1
    code, _, errors = lab.flatrack("status", "--control", lab.folder / "nobody")
    assert (code, errors.count("\n")) == (2, 1)
    assert lab.errors() == ""


def test_what_the_console_flies_a_running_ground_answers_too(users, until, is_alive, lab):
    """Each command that asks a ground, over a control socket, of a node that is a program of its own."""
    lab.join()
    lab.start_node()
    lab.start_ground()

    async def is_there():
        async with users(lab) as peer:
            await until(peer, is_alive, "nodes")

    def asked(*arguments, code=0):
        got, printed, errors = lab.flatrack(*arguments, "--control", lab.control)
        assert (got, errors) == (code, ""), printed
        return printed

    asyncio.run(is_there())
    refused = asked("command", "sat-01", "NODE.POWER_CYCLE", code=1)
    assert "FAILED NOT_ARMED NODE.POWER_CYCLE is hazardous" in refused
    assert "COMPLETED" in asked("command", "sat-01", "PARAMETERS.SET", "parameter=MODE.safe_enter", "value=0.2")
    assert "COMPLETED" in asked("command", "sat-01", "TELEMETRY.SEND", "packet=PARAMETERS.HK")

    async def is_told():
        async with users(lab) as peer:
            await until(peer, bool, "telemetry", "sat-01", "PARAMETERS.version")

    asyncio.run(is_told())
    assert asked("telemetry", "sat-01", "PARAMETERS.version").split()[1] == "1"
    assert "PARAMETERS.ACTIVATED: version 1: MODE.safe_enter=0.2" in asked("events", "sat-01")
    loaded = asked("sequence", "load", "sat-01", SAFE_MINUTE, "--start")
    assert "SEQUENCES.START COMPLETED" in loaded
    assert "safe-minute" in asked("sequence", "status", "sat-01", "safe-minute")
    assert "round trip" in asked("time", "sat-01")
    audited = asked("audit", "sat-01")
    assert "opcode=PARAMETERS.SET origin=ground" in audited
    assert "the chain holds up to record" in audited
    assert lab.errors() == ""


@pytest.mark.slow
def test_the_example_of_the_documents_works_as_it_stands(users, until, is_alive, lab, tmp_path):
    """`examples/one-node`, with other names for the two ends of the wire."""
    root = Path(__file__).resolve().parents[3]
    folder = lab.folder = tmp_path / "one-node"
    shutil.copytree(root / "examples" / "one-node", folder)
    for name in ("node", "ground"):
        text = (folder / f"{name}.toml").read_text()
        assert f"serial:///tmp/flatrack-{name}" in text
        (folder / f"{name}.toml").write_text(text.replace(f"/tmp/flatrack-{name}", f"{folder}/{name}.tty"))
    made = lab.flatrack("keys", "create", root / "examples" / "three.toml", "--folder", folder / "keys")
    assert (made[0], made[2]) == (0, "")
    lab.join()
    lab.start("-m", "boards", "--config", folder / "node.toml")
    lab.start("-m", "ground", "--config", folder / "ground.toml", "--control", lab.control)

    async def scenario():
        async with users(lab) as peer:
            await until(peer, is_alive, "nodes")
            number = await peer.call("command", "sat-01", "NODE.NOOP")
            await until(peer, lambda state: state["stage"] == "COMPLETED", "command_state", number)

    asyncio.run(scenario())
    (code,) = re.findall(r"```python\n(.*?)```", (root / "docs" / "programs.md").read_text(), re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", code.replace("/tmp/one-node/control", str(lab.control))], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "'nodes': {'ALIVE': 1}" in done.stdout
    assert lab.errors() == ""


def test_a_commanded_reset_ends_the_node_with_its_code_and_the_next_boot_says_why(users, until, is_alive, lab):
    lab.join()
    node = lab.start_node()
    lab.start_ground()

    async def scenario():
        async with users(lab) as peer:
            await until(peer, is_alive, "nodes")
            await peer.call("command", "sat-01", "NODE.RESET")
            async with asyncio.timeout(PATIENCE_S):
                while node.poll() is None:
                    await asyncio.sleep(0.02)
            assert node.returncode == 3
            lab.start_node()
            rows = await until(peer, lambda rows: rows[0].get("boot_count") == 2, "nodes")
            assert is_alive(rows)
            events = await until(peer, lambda rows: any(row["name"] == "RESET" for row in rows), "events")
            assert "boot 2 after RESET_COMMAND" in [row["text"] for row in events]

    asyncio.run(scenario())
    assert lab.errors() == ""
