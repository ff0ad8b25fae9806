"""The end of a ground, by a signal, a kill or its bench, and what it keeps and hands over until then."""

import asyncio
import json
import random  # noqa: TID251 - the seed is in the test
import signal
import subprocess

import msgspec
import pytest

from flightsw.compute import cloud_mask
from flightsw.host.files import FileDisk
from flightsw.storage.counters import raise_counter
from flightsw.wire.messages import JobReport, JobState

S = 1_000_000_000
NODE = 11
PATIENCE_S = 60.0
"""Longest wait for what healthy programs do within seconds [s of the machine]."""
TILE_PX = 48


def test_a_ground_that_is_ended_keeps_its_telemetry(users, until, is_alive, lab):
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
def test_a_ground_that_is_killed_at_any_instant_loses_no_accepted_job(users, until, end, tiles, submit, lab, seed):
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


def test_a_ground_that_is_killed_after_its_answer_has_the_job_on_record(users, end, tiles, submit, lab):
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


def test_the_bench_hands_over_work_and_is_told_of_results(tiles, submit, lab):
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
