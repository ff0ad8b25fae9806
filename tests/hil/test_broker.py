import asyncio
import os
import re
import signal
import sys
from pathlib import Path

import pytest

from flightsw.errors import ConfigError
from flightsw.link.urls import open_link
from hil import broker as module
from hil import broker_programs
from hil.broker import Broker
from hil.channel.wires import MqttWires

ROOT = Path(__file__).parents[2]
WAIT_S = 400
KINDS = ["nats", "mosquitto"]
BENCH = """
import asyncio, sys
from hil.broker import Broker
async def main():
    async with Broker.start(sys.argv[1]) as broker:
        print(*broker.pids, broker._folder.name, flush=True)
        await asyncio.get_running_loop().create_future()
asyncio.run(main())
"""


def is_alive(pid):
    """Whether a process runs; one that waits for its parent to take note does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


async def until(holds):
    async with asyncio.timeout(WAIT_S):
        while not holds():
            await asyncio.sleep(0.01)


@pytest.fixture
def kind(request, need_tool):
    if request.param == "mosquitto":
        need_tool("mosquitto")
    return request.param


each_kind = pytest.mark.parametrize("kind", KINDS, indirect=True)


@each_kind
async def test_a_broker_takes_clients_and_leaves_nothing_behind(kind):
    async with Broker.start(kind) as broker:
        assert re.fullmatch(r"mqtt://127\.0\.0\.1:\d+", broker.url)
        link = await open_link(f"{broker.url}/lab?client=x")
        assert link.status().is_connected
        await link.close()
        pids, folder = broker.pids, Path(broker._folder.name)
        assert len(pids) == 1
        assert folder.stat().st_mode & 0o077 == 0, "its files are nobody else's"
    assert not any(is_alive(pid) for pid in pids)
    assert not folder.exists()


@each_kind
async def test_a_broker_that_dies_is_started_again_and_reported(kind):
    reports = []
    async with Broker.start(kind, report=reports.append) as broker, asyncio.timeout(WAIT_S):
        link = await open_link(f"{broker.url}/lab?client=x")
        (first,) = broker.pids
        os.kill(first, signal.SIGKILL)
        while link.status().connects_count < 2 or not link.status().is_connected:
            await asyncio.sleep(0.01)
        assert broker.restarts_count == 1
        (second,) = broker.pids
        assert second != first
        (report,) = reports
        assert f"broker {kind}" in report
        assert "code -9" in report
        await link.close()


async def test_a_broker_that_dies_too_often_is_given_up_and_reported(monkeypatch):
    monkeypatch.setattr(module, "RESTARTS_MAX", 1)
    reports = []
    async with Broker.start("nats", report=reports.append) as broker:
        for count in (1, 2):
            await until(lambda: broker.pids)
            os.kill(broker.pids[0], signal.SIGKILL)
            await until(lambda count=count: len(reports) == count)
        assert "not started again" in reports[1]
        assert broker.pids == []


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT], ids=lambda end: end.name)
@each_kind
async def test_no_broker_outlives_its_bench(kind, end, tmp_path):
    bench = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", BENCH, kind),
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    async with asyncio.timeout(WAIT_S):
        pid, folder = (await bench.stdout.readline()).split()
    assert is_alive(int(pid))
    bench.send_signal(end)
    await bench.wait()
    await until(lambda: not is_alive(int(pid)))
    assert Path(folder.decode()).parent == tmp_path
    if end is signal.SIGINT:
        assert list(tmp_path.iterdir()) == [], "a bench that ends in order leaves no files"


async def test_a_broker_that_does_not_start_says_why_in_one_line(monkeypatch):
    monkeypatch.setattr(broker_programs, "HOST", "192.0.2.1")  # an address that no machine has (RFC 5737)
    with pytest.raises(ConfigError, match=r"ended at once with code 1: .*192\.0\.2\.1"):
        async with Broker.start("nats"):
            pass


@pytest.mark.parametrize(("kind", "advice"), [("nats", "flatrack[broker]"), ("mosquitto", "apt-get install mosquitto")])
async def test_a_missing_program_is_named_with_the_way_to_it(kind, advice, monkeypatch):
    monkeypatch.setattr(broker_programs.shutil, "which", lambda name, path=None: None)
    with pytest.raises(ConfigError, match=re.escape(advice)):
        async with Broker.start(kind):
            pass


async def test_a_broker_that_runs_already_is_used_as_it_is():
    async with Broker.start("nats") as running, Broker.start(running.url) as broker:
        assert broker.url == running.url
        assert broker.pids == []


@pytest.mark.parametrize(
    ("start", "word"),
    [
        (lambda: Broker.start("emqx"), "nats, mosquitto"),
        (lambda: Broker.start("nats", user=("a:b", "secret")), "user 'a:b'"),
        (lambda: Broker.start("nats", user=("a", "sec\nret")), "printable"),
        (lambda: Broker.start("mqtt://one", user=("a", "b")), "URL"),
        (lambda: Broker.start_cluster(2), "2 servers"),
        (lambda: Broker.start_cluster(99), "99 servers"),
    ],
)
def test_a_wrong_request_is_refused(start, word):
    with pytest.raises(ConfigError, match=word) as refused:
        start()
    assert "sec" not in str(refused.value)


@each_kind
async def test_passwords_are_in_private_files_only(kind):
    async with Broker.start(kind, user=("node", "hunter2")) as broker:
        assert "hunter2" not in broker.url
        command = Path(f"/proc/{broker.pids[0]}/cmdline").read_bytes()
        assert b"hunter2" not in command
        files = [path for path in Path(broker._folder.name).rglob("*") if path.is_file()]
        holders = [path for path in files if b"hunter2" in path.read_bytes()]
        assert holders, "the link needs one of them"
        assert [path for path in holders if path.stat().st_mode & 0o077] == []


@each_kind
async def test_a_session_of_which_a_broker_was_saved_gets_what_comes_after_a_kill_and_before_its_client(kind):
    wanted = [bytes([index]) * 50 for index in range(1, 11)]
    got = []
    async with Broker.start(kind) as broker, asyncio.timeout(WAIT_S):
        wires = MqttWires(f"{broker.url}?qos=1", "lab")
        await wires.open()
        await wires.wait_connected()
        link = await open_link(wires.wire("sat").url)
        await wires.close()
        await broker.save()
        await broker.kill()
        await until(lambda: not link.status().is_connected)
        for frame in wanted:
            link.send(1, frame)
        await broker.revive()
        await until(lambda: link.status().sent_count == len(wanted))
        wires = MqttWires(f"{broker.url}?qos=1", "lab")
        wires.wire("sat").on_frame = lambda interface, frame: got.append(bytes(frame))
        await wires.open()
        await until(lambda: len(got) >= len(wanted))
        await link.close()
        await wires.close()
    assert list(dict.fromkeys(got)) == wanted


@pytest.mark.slow
async def test_a_cluster_loses_nothing_of_qos_1_when_a_server_is_killed_in_mid_stream():
    nodes, frames = 12, 120
    wanted = {(node, number): bytes([node]) * (1 + number) for node in range(nodes) for number in range(frames)}
    got = {"up": [], "down": []}

    def taker(way, node):
        return lambda interface, frame: got[way].append((node, interface, bytes(frame)))

    async with Broker.start_cluster(3) as broker, asyncio.timeout(WAIT_S):
        wires = MqttWires(f"{broker.url_from(0)}?qos=1", "lab")
        await wires.open()
        links = []
        for node in range(nodes):
            wire = wires.wire(f"sat-{node:02}")
            wire.on_frame = taker("up", node)
            links.append(await open_link(f"{broker.url_from(node)}/lab?client=sat-{node:02}&qos=1"))
            links[-1].set_receiver(taker("down", node))
        for node in range(nodes):
            await links[node].wait_connected()
            await wires.wire(f"sat-{node:02}").wait_present()
        assert len(broker.pids) == 3
        for number in range(frames):
            for node in range(nodes):
                links[node].send(number, wanted[node, number])
                wires.wire(f"sat-{node:02}").deliver(number, wanted[node, number])
            if number == frames // 2:
                while min(len(got["up"]), len(got["down"])) < 100:
                    await asyncio.sleep(0.01)
                await broker.kill(0)  # the bench is at this one, and a third of the nodes
            await asyncio.sleep(0)
        expected = {(node, number, content) for (node, number), content in wanted.items()}
        while not expected <= set(got["up"]) or not expected <= set(got["down"]):
            await asyncio.sleep(0.05)
        assert len(broker.pids) == 2
        ends = [links[0].status(), wires.status()]
        for link in links:
            await link.close()
        await wires.close()
    for way in ("up", "down"):
        assert set(got[way]) == expected, "nothing but what was sent"
        print(f"{way}: {len(expected)} frames sent, {len(got[way]) - len(expected)} arrived twice")
    assert all(status.connects_count == 2 and status.dropped_out_count == 0 for status in ends)
