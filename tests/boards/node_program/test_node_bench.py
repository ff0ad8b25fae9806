"""The bench port of a node's program: log and books go out, commands come in, and neither outlives the other."""

import asyncio
import contextlib
import os
import select
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from flightsw.host import control
from hil.bench.settings_files import write_settings

SCALE = 20.0
PATIENCE_S = 60.0
"""Longest wait for what a healthy program does within a second [s of the machine]."""


class Bench:
    """The other end of the bench port."""

    def __init__(self):
        self.said = []
        self.peer = None
        self.greeted = asyncio.Event()
        self.news = asyncio.Event()

    def on_peer(self, peer):
        def hello(name: str, pid: int) -> None:
            self.peer = peer
            self.said.append(("hello", name, pid))
            self.greeted.set()

        def tell(method):
            def take(*params):
                self.said.append((method, *params))
                self.news.set()

            return take

        peer.set_handlers({"hello": hello, "log": tell("log"), "brown_out": tell("brown_out"), "reset": tell("reset")})

    async def until(self, method, kind=None):
        """The first notification of a method, or log record of a kind."""
        while True:
            for one in self.said:
                if one[0] == method and (kind is None or one[2] == kind):
                    return one
            self.news.clear()
            await asyncio.wait_for(self.news.wait(), PATIENCE_S * SCALE)


@asynccontextmanager
async def benched(lab):
    bench = Bench()
    server = await control.serve(lab.folder / "bench", {}, bench.on_peer)
    try:
        yield bench
    finally:
        await server.close()


def test_the_bench_sees_the_log_and_the_books_and_can_stop_the_node(ended, listening, run, lab):
    async def scenario(loop):
        async with benched(lab) as bench, listening(lab, loop) as ears:
            process = lab.start("--bench", lab.folder / "bench")
            await ears.beacon()
            _, t_ns, _, fields = await bench.until("log", "node.boot")
            assert bench.said[0] == ("hello", "sat-01", process.pid)
            assert 0 < t_ns < loop.now_ns
            assert (fields["boot"], fields["cause"]) == (1, "POWER_ON")
            books = await bench.peer.call("accounts")
            assert books["counts"]["frames_rejected"] == 0
            assert set(books["counts"]) >= {"frames_accepted", "retransmissions", "dropped", "models_repaired"}
            assert books["mode"] == "NOMINAL"
            assert books["computing"] is False
            assert all(pushed == taken + displaced + held for pushed, taken, displaced, held, _, _ in books["queues"])
            assert 0 < books["beaconed_ns"] < loop.now_ns
            energy = books["energy"]
            left_j = energy["initial_j"] + energy["harvested_j"] - energy["drawn_j"] - energy["lost_j"]
            assert left_j - energy["shunted_j"] == pytest.approx(energy["charge_j"])
            assert books["sensors"]["sunlight"] == 1.0
            assert await bench.peer.call("strike_weights", 7, 1) is False
            assert await bench.peer.call("rot_object", 7) is False
            await bench.peer.call("stop")
            assert await ended(process) == (0, [], "")

    run(lab, scenario)


def test_a_rotten_object_is_found_by_the_scrub(ended, listening, run, lab):
    """The bench rots one bit of an object that lies on the node's disk."""
    from flightsw.host.files import FileDisk
    from flightsw.objects.store import ObjectStore

    lab.change("node", scrub_period_s=1.0)
    disk = FileDisk(lab.folder / "disk", 1 << 20)
    digest = ObjectStore(disk, quota_bytes=1 << 20).put(b"object" * 1000)
    disk.close()

    async def scenario(loop):
        async with benched(lab) as bench, listening(lab, loop):
            process = lab.start("--bench", lab.folder / "bench")
            await asyncio.wait_for(bench.greeted.wait(), PATIENCE_S * SCALE)
            assert await bench.peer.call("rot_object", 7) is True
            _, _, _, fields = await bench.until("log", "object.rotten")
            assert fields == {"object": digest}
            process.terminate()
            await ended(process)

    run(lab, scenario)


def test_a_brown_out_is_told_to_the_bench_before_the_end(ended, listening, run, lab):
    lab.shine(0.0)
    lab.change("board", initial_charge=0.005)

    async def scenario(loop):
        async with benched(lab) as bench, listening(lab, loop):
            process = lab.start("--bench", lab.folder / "bench")
            method, t_ns, computing = await bench.until("brown_out")
            assert (method, computing) == ("brown_out", False)
            assert (await ended(process))[0] == 4
            assert t_ns <= lab.saved().board.at_ns

    run(lab, scenario)


def test_a_node_ends_when_its_bench_goes_away(ended, listening, run, lab):
    async def scenario(loop):
        async with listening(lab, loop):
            async with benched(lab) as bench:
                process = lab.start("--bench", lab.folder / "bench")
                await asyncio.wait_for(bench.greeted.wait(), PATIENCE_S * SCALE)
            assert (await ended(process))[0] == 0

    run(lab, scenario)


def test_a_bench_that_refuses_is_told_in_one_line(ended, run, lab):
    async def scenario(loop):
        server = await control.serve(lab.folder / "bench", {})  # knows no hello
        process = lab.start("--bench", lab.folder / "bench")
        code, records, errors = await ended(process)
        await server.close()
        assert (code, records) == (2, [])
        assert errors == "boards: hello: no such method, expected one of \n"

    run(lab, scenario)


def test_without_the_option_a_node_listens_nowhere(finish, first_line, lab):
    process = lab.start()
    first_line(process)
    links = []
    for link in Path(f"/proc/{process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            links.append(str(link.readlink()))
    sockets = [link.removeprefix("socket:[").removesuffix("]") for link in links if link.startswith("socket:")]
    rows = [line.split() for line in Path(f"/proc/{process.pid}/net/unix").read_text().splitlines()]
    # flags 00010000: a socket that accepts connections
    assert [row for row in rows if row[3] == "00010000" and row[6] in sockets] == []
    finish(process, signal.SIGTERM)


PARENT = """
import asyncio, subprocess, sys
from pathlib import Path
from flightsw.host import control

async def main():
    def hello(name: str, pid: int) -> None:
        print(pid, flush=True)
    await control.serve(Path(sys.argv[1]), {"hello": hello, "log": lambda *params: None})
    subprocess.Popen([sys.executable, "-m", "boards", "--config", sys.argv[2], "--bench", sys.argv[1]])
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_a_node_does_not_outlive_a_killed_bench(lab):
    write_settings(lab.config, lab.settings)
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(lab.folder / "bench"), str(lab.config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    lab.processes.append(parent)
    child = os.pidfd_open(int(parent.stdout.readline()))
    try:
        parent.kill()
        ended, _, _ = select.select([child], [], [], PATIENCE_S)
        assert ended, "the child lives on"
    finally:
        os.close(child)
