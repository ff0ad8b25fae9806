"""`python -m ground`: a real process with real files and sockets, a real node at the other end of a real wire, and
kills at any instant."""

import asyncio
import json
import random  # noqa: TID251 - the seed is in the test
import re
import shutil
import signal
import subprocess
import sys
import time  # noqa: TID251 - programs share the machine's clock
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from boards import profiles
from boards.program import BoardSettings, NodeSettings
from flightsw.compute import cloud_mask
from flightsw.compute.matrix_file import decode_matrix, encode_matrix
from flightsw.compute.matrix_product import steps_count
from flightsw.config import InterfaceConfig, NodeConfig
from flightsw.host.control import connect
from flightsw.host.files import FileDisk
from flightsw.host.keyfile import save_keys
from flightsw.host.settings import ClockSettings, KeySettings, LinkSettings, StorageSettings
from flightsw.net.contacts import Contact, ContactPlan
from flightsw.net.keys import derived_rings
from flightsw.net.plans import encode_plan
from flightsw.storage.counters import raise_counter
from flightsw.wire.messages import JobReport, JobState
from ground.program import FleetSettings, GroundSettings, ResultSettings, SegmentSettings, main
from hil.bench.settings_files import write_settings
from hil.bench.workload import asset
from hil.cli import main as cli
from hil.imagery.scene import load_scene
from hil.imagery.tiles import cut

S = 1_000_000_000
GROUND, NODE = 1, 11
SCALE = 20.0
PATIENCE_S = 60.0
"""Longest wait for what healthy programs do within seconds [s of the machine]."""
TILE_PX = 48
PROFILE = profiles.load("raspberry-pi-5")
RADIO = (InterfaceConfig(index=0, name="radio"),)
PLAN = ContactPlan(Contact(0, 10**15, a, 0, b, 0, 1e6, 10**6) for a, b in ((GROUND, NODE), (NODE, GROUND)))
"""One contact that never ends."""


class Lab:
    """A ground and a node as programs, joined by a null modem."""

    def __init__(self, folder):
        self.folder = folder
        self.zero_utc_ns = time.time_ns()
        self.processes = []
        (folder / "plan.json").write_bytes(encode_plan(PLAN))
        (folder / "world.json").write_bytes(
            msgspec.json.encode({"sun": [[0, 10**15]], "sunlight": [1.0], "step_s": 1.0})
        )
        clock = ClockSettings(zero_utc_ns=self.zero_utc_ns, epoch_utc_ns=1_790_000_000 * S, time_scale=SCALE)
        self.node = NodeSettings(
            node=NodeConfig(node=NODE, name="sat-01", interfaces=RADIO, beacon_period_s=2.0, tick_period_s=1.0),
            board=BoardSettings(kind="simulated", profile=PROFILE.name, world="world.json"),
            clock=clock,
            link=LinkSettings(url=f"serial://{folder}/node.tty"),
            storage=StorageSettings(folder="node", capacity_bytes=1 << 24),
            plan="plan.json",
        )
        self.ground = GroundSettings(
            ground=SegmentSettings(
                interfaces=RADIO,
                beacon_period_s=2.0,
                fleet=(
                    FleetSettings(
                        node=NODE,
                        name="sat-01",
                        mpix_per_s=PROFILE.mpix_per_s.value,
                        compute_w=PROFILE.compute_w.value,
                        idle_w=PROFILE.idle_w.value + PROFILE.bus_w.value,
                        array_w=PROFILE.array_w.value,
                        battery_j=PROFILE.battery_wh.value * 3600,
                        reserve=0.35,
                        sun=((0, 10**15),),
                    ),
                ),
                store_bytes=1 << 24,
            ),
            clock=clock,
            link=LinkSettings(url=f"serial://{folder}/ground.tty"),
            storage=StorageSettings(folder="ground", capacity_bytes=1 << 25),
            plan="plan.json",
            result=ResultSettings(tile_px=TILE_PX),
        )

    @property
    def control(self):
        return self.folder / "control"

    def share_keys(self):
        """Both ends are provisioned with the same keys."""
        for number, ring in derived_rings(b"r" * 32, (NODE,), GROUND).items():
            save_keys(self.folder / f"{number}.keys", ring, [NODE if number == GROUND else GROUND])
        self.node = msgspec.structs.replace(self.node, keys=KeySettings(file=f"{NODE}.keys"))
        self.ground = msgspec.structs.replace(self.ground, keys=KeySettings(file=f"{GROUND}.keys"))

    def start(self, *command, stdout=subprocess.DEVNULL):
        with (self.folder / "errors").open("ab") as errors:
            process = subprocess.Popen([sys.executable, *map(str, command)], stdout=stdout, stderr=errors)
        self.processes.append(process)
        return process

    def errors(self):
        path = self.folder / "errors"
        return path.read_text() if path.exists() else ""

    def join(self):
        process = self.start(
            "-m", "hil.cli", "null-modem", self.folder / "node.tty", self.folder / "ground.tty", stdout=subprocess.PIPE
        )
        assert b"are joined" in process.stdout.readline()
        return process

    def start_node(self, *options):
        write_settings(self.folder / "node.toml", self.node)
        return self.start("-m", "boards", "--config", self.folder / "node.toml", *options)

    def start_ground(self, *options, stdout=subprocess.DEVNULL):
        write_settings(self.folder / "ground.toml", self.ground)
        return self.start(
            "-m", "ground", "--config", self.folder / "ground.toml", "--control", self.control, *options, stdout=stdout
        )

    def flatrack(self, *arguments):
        """Run a command of the command line; returns its exit code and what it printed."""
        done = CliRunner().invoke(cli, [str(one) for one in arguments])
        return done.exit_code, done.stdout, done.stderr

    def close(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.communicate()
        print(self.errors())  # shown with a test that fails


SAFE_MINUTE = Path(__file__).resolve().parents[2] / "examples" / "sequences" / "safe-minute.seq"


@pytest.fixture
def lab(tmp_path):
    made = Lab(tmp_path)
    made.share_keys()
    yield made
    made.close()


def end(process, number=signal.SIGTERM):
    process.send_signal(number)
    return process.wait(PATIENCE_S)


@asynccontextmanager
async def users(lab):
    """A control connection to the ground, as soon as it listens."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                peer = await connect(lab.control, {})
                break
            except Exception as error:
                if "is the program running?" not in str(error):
                    raise
                await asyncio.sleep(0.01)
    try:
        yield peer
    finally:
        peer.close()
        await peer.closed


async def until(peer, condition, method, *params):
    """Ask again until the answer is as wanted."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition(answer := await peer.call(method, *params)):
            await asyncio.sleep(0.02)
    return answer


def is_alive(rows):
    return rows[0]["presence"] == "ALIVE"


def tiles(count):
    scene = load_scene(asset("sentinel2-scene.npz", "scene"))
    return [cloud_mask.encode_tile(tile.dn) for tile in cut(scene.dn, TILE_PX)][:count]


async def submit(peer, tile, **changes):
    model = asset("cloud-mask.onnx", "model").read_bytes()
    job = {
        "kind": "cloud_mask",
        "model": await peer.call("put_object", model),
        "model_bytes": len(model),
        "data": await peer.call("put_object", tile),
        "data_bytes": len(tile),
        "steps_count": cloud_mask.STEPS,
        "step_mpix": 2.0 * PROFILE.mpix_per_s.value,
        "deadline_s": 20_000,
    }
    return await peer.call("submit", job | changes)


# One node, one ground, by hand


def test_a_matrix_product_is_computed_on_board_and_comes_down(lab):
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


def test_the_command_line_commands_a_node_and_shows_the_fleet(lab):
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


def test_what_the_console_flies_a_running_ground_answers_too(lab):
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
def test_the_example_of_the_documents_works_as_it_stands(lab, tmp_path):
    """`examples/one-node`, with other names for the two ends of the wire."""
    root = Path(__file__).resolve().parents[2]
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


def test_a_commanded_reset_ends_the_node_with_its_code_and_the_next_boot_says_why(lab):
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


def test_a_ground_that_is_ended_keeps_its_telemetry(lab):
    lab.join()
    lab.start_node()
    ground = lab.start_ground(stdout=subprocess.PIPE)

    async def scenario():
        async with users(lab) as peer:
            await until(peer, is_alive, "nodes")
            await peer.call("command", "sat-01", "NODE.NOOP")
            await until(peer, lambda state: state["stage"] == "COMPLETED", "command_state", 1)

    asyncio.run(scenario())
    ground.send_signal(signal.SIGINT)
    output, _ = ground.communicate(timeout=PATIENCE_S)
    assert ground.returncode == 0
    records = [json.loads(line) for line in output.splitlines()]
    assert {record["source"] for record in records} == {"ground"}
    assert [record["kind"] for record in records][:2] == ["command.sent", "command.ended"]
    from ground.archive import Archive

    archive = Archive(lab.folder / "archive.db")
    assert archive.beacons_count() >= 1
    archive.close()
    assert not lab.control.exists()
    assert lab.errors() == ""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_a_ground_that_is_killed_at_any_instant_loses_no_accepted_job(lab, seed):
    """SIGKILL at instants drawn from the seed, while jobs are accepted, go up, run and come down."""
    pytest.importorskip("onnxruntime")
    draw = random.Random(seed)
    lab.join()
    lab.start_node()
    accepted = []

    async def scenario():
        for tile in tiles(8):
            ground = lab.start_ground()
            async with users(lab) as peer:
                accepted.append(await submit(peer, tile))
                await asyncio.sleep(draw.uniform(0.0, 0.4))
            assert end(ground, signal.SIGKILL) == -signal.SIGKILL
        lab.start_ground()
        async with users(lab) as peer:
            rows = await until(peer, lambda rows: all(row["state"] == "COMPLETED" for row in rows), "jobs")
            assert sorted(row["job"] for row in rows) == accepted == list(range(1, 9))
            for row in rows:
                assert cloud_mask.decode_mask(await peer.call("get_object", row["result"])).shape == (TILE_PX, TILE_PX)

    asyncio.run(scenario())
    assert lab.errors() == ""
    for process in lab.processes:
        process.kill()
        process.wait()
    disk = FileDisk(lab.folder / "ground", 1 << 25)
    assert raise_counter(disk, "starts") == 10, "nine starts are on the disk, and session numbers above each"
    disk.close()


def test_a_ground_that_is_killed_after_its_answer_has_the_job_on_record(lab):
    """Once the user has the number, no death of the ground takes the job back; deadlines go on counting."""
    lab.join()
    ground = lab.start_ground()
    numbers = []

    async def first():
        async with users(lab) as peer:
            for tile in tiles(3):
                numbers.append(await submit(peer, tile))
            return await peer.call("job", numbers[0])

    before = asyncio.run(first())
    assert end(ground, signal.SIGKILL) == -signal.SIGKILL
    lab.start_ground()

    async def second():
        async with users(lab) as peer:
            assert [row["job"] for row in await peer.call("jobs")] == sorted(numbers, reverse=True)
            status = await peer.call("status")
            return await peer.call("job", numbers[0]), status["t_ns"]

    after, now_ns = asyncio.run(second())
    assert after["deadline_ns"] == before["deadline_ns"] == before["submitted_ns"] + 20_000 * S
    assert before["submitted_ns"] < now_ns < before["deadline_ns"], "time goes on over the restart"
    assert lab.errors() == ""


# The bench port


def test_the_bench_hands_over_work_and_is_told_of_results(lab):
    pytest.importorskip("onnxruntime")
    lab.join()
    lab.start_node()
    said = asyncio.Queue()

    async def scenario():
        from flightsw.host.control import serve

        greeted = asyncio.get_running_loop().create_future()

        def on_peer(peer):
            def hello(name: str, pid: int) -> None:
                greeted.set_result((peer, name, pid))

            def completed(job: int, report: list, result: bytes) -> None:
                said.put_nowait((job, msgspec.convert(report, JobReport, builtin_types=(bytes,)), result))

            peer.set_handlers({"hello": hello, "log": lambda *params: None, "completed": completed})

        server = await serve(lab.folder / "bench", {}, on_peer)
        ground = lab.start_ground("--bench", lab.folder / "bench")
        peer, name, pid = await asyncio.wait_for(greeted, PATIENCE_S)
        assert (name, pid) == ("ground", ground.pid)
        number = await submit(peer, tiles(1)[0])
        job, report, result = await asyncio.wait_for(said.get(), PATIENCE_S)
        assert (job, report.state, report.node) == (number, JobState.COMPLETED, NODE)
        assert cloud_mask.decode_mask(result).shape == (TILE_PX, TILE_PX)
        books = await peer.call("accounts")
        assert books["uplinked_bytes"] > 0
        assert all(pushed == taken + displaced + held for pushed, taken, displaced, held, _, _ in books["queues"])
        await peer.call("stop")
        await asyncio.wait_for(peer.closed, PATIENCE_S)
        assert ground.wait(PATIENCE_S) == 0
        await server.close()

    asyncio.run(scenario())
    assert lab.errors() == ""


# Settings


def wrong(lab, capsys, *options):
    """Run in this process with settings that cannot be used; returns the one line."""
    write_settings(lab.folder / "ground.toml", lab.ground)
    assert main(["--config", str(lab.folder / "ground.toml"), *map(str, options)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("ground: ")
    return printed.err.removeprefix("ground: ").rstrip("\n")


def test_a_wrong_setting_is_one_line_that_says_what(lab, capsys):
    write_settings(lab.folder / "ground.toml", lab.ground)
    text = (lab.folder / "ground.toml").read_text()
    for old, new, why in [
        ("store_bytes = 16777216", "store_bytes = 1", "ground.store_bytes = 1: Expected `int` >= 4096"),
        ("tile_px = 48", 'tile_px = "x"', "result.tile_px = 'x': Expected `int`, got `str`"),
        ("node = 11", "node = 0", "ground.fleet[0].node = 0: Expected `int` >= 1"),
        ("reserve = 0.35", "reserve = 1.5", "ground.fleet[0].reserve = 1.5: Expected `float` <= 1"),
    ]:
        assert old in text
        (lab.folder / "ground.toml").write_text(text.replace(old, new))
        assert main(["--config", str(lab.folder / "ground.toml")]) == 2
        printed = capsys.readouterr().err
        assert printed.startswith(f"ground: {lab.folder}/ground.toml: {why}")
        assert printed.count("\n") == 1


def test_a_fleet_that_names_a_node_twice_is_refused(lab, capsys):
    fleet = lab.ground.ground.fleet
    lab.ground = msgspec.structs.replace(lab.ground, ground=msgspec.structs.replace(lab.ground.ground, fleet=fleet * 2))
    assert wrong(lab, capsys) == "ground.fleet: node = 11: comes twice, expected each once"


@pytest.mark.parametrize("name", ["ledger.db", "archive.db", "control"])
def test_a_file_that_is_something_else_is_refused_and_stays(lab, capsys, name):
    (lab.folder / name).write_text("not a database " * 100)
    assert f"{lab.folder}/{name}: " in wrong(lab, capsys, "--control", lab.control)
    assert (lab.folder / name).read_text() == "not a database " * 100


def test_keys_of_another_node_are_refused(lab, capsys):
    lab.ground = msgspec.structs.replace(lab.ground, keys=KeySettings(file=f"{NODE}.keys"))
    text = wrong(lab, capsys)
    assert text == f"{lab.folder}/11.keys: node = 11: these are the keys of another node, expected 1"


def test_a_key_file_that_others_may_read_is_refused(lab, capsys):
    (lab.folder / f"{GROUND}.keys").chmod(0o644)
    assert "1.keys: mode 0644 lets others at the keys" in wrong(lab, capsys)


def test_two_grounds_cannot_have_one_ledger(lab, capsys):
    ground = lab.start_ground()

    async def is_there():
        async with users(lab):
            pass

    asyncio.run(is_there())
    lab.ground = msgspec.structs.replace(lab.ground, storage=StorageSettings(folder="other", capacity_bytes=1 << 20))
    assert wrong(lab, capsys) == f"ledger {lab.folder}/ledger.db: database is locked"
    assert ground.poll() is None


def test_a_result_must_be_a_mask_of_the_tiles_size():
    settings = ResultSettings(tile_px=2)
    masks = {side: cloud_mask.encode_mask(np.zeros((side, side), np.bool_)) for side in (2, 3)}
    report = JobReport(11, 1, 1, JobState.COMPLETED, "", b"", b"", b"", 0, b"", 0, 0.0, 0, 0, 0, 0.0, "1")
    assert settings.verify(report, masks[2], None) is None
    assert settings.verify(report, masks[3], None) == "mask is (3, 3), expected (2, 2)"
    assert "mask" in (settings.verify(report, b"no mask", None) or "")
