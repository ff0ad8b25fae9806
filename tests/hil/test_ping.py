"""Pings: exact in virtual time, from a running ground over its control socket, and as a small LTP node over UDP."""

import asyncio
import random  # noqa: TID251 - the seed is in the test
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from boards.simulated.clock import LoopClock
from flightsw.config import InterfaceConfig
from flightsw.errors import ConfigError
from flightsw.host.control import serve
from flightsw.host.loop import PacedLoop
from flightsw.link.memory import MemoryLink
from flightsw.net.agent import BundleAgent, Delivery
from flightsw.net.contacts import Contact, ContactPlan
from flightsw.net.echo import ECHO_SERVICE, PING_SERVICE
from flightsw.net.endpoint import Endpoint
from flightsw.net.ping import PING_BYTES_MAX, PING_BYTES_MIN, PINGS_MAX, Pings, PingStatistics
from flightsw.ports import Random
from flightsw.wire.admin import Status, StatusReport, encode_status_report
from flightsw.wire.eids import Eid
from ground.control import UserPort
from ground.fleet import FleetNode
from ground.segment import GroundSegment
from hil.channel.impairments import Impairments
from hil.channel.link import Link
from hil.channel.relay import Relay
from hil.cli import main
from hil.sim.disk import SimulatedDisk
from hil.sim.loop import VirtualLoop

PEER = Path(__file__).resolve().parents[1] / "peers" / "ltp_peer.py"
S = 1_000_000_000
GROUND, NODE = 1, 11
LIGHT_NS = 250_000_000
RANGE_KM = 299_792.458 * LIGHT_NS / S
RADIO = (InterfaceConfig(index=0, name="radio"),)


class Bench:
    """A ground and a node that is nothing but its agent, a quarter of a light second apart.

    They are in contact from 0 s to 100 s and from 200 s on.
    """

    def __init__(self, rate_bps: float = 1e12) -> None:
        loop: Any = asyncio.get_running_loop()
        relay = Relay(loop.call_at_ns, lambda: loop.now_ns)
        link = Link("link", Impairments(rate_bps=rate_bps), lambda name: Random(name), range_km=RANGE_KM)
        windows = [(0, 100 * S), (200 * S, 1 << 62)]
        for start_ns, end_ns in windows:
            link.add_window(start_ns, end_ns, [start_ns, end_ns], [RANGE_KM, RANGE_KM])
        relay.connect((GROUND, 0), (NODE, 0), link)
        pairs = ((GROUND, NODE), (NODE, GROUND))
        plan = ContactPlan(
            Contact(start_ns, end_ns, a, 0, b, 0, rate_bps, LIGHT_NS) for start_ns, end_ns in windows for a, b in pairs
        )
        self.clock = LoopClock(lambda: loop.now_ns, 1_700_000_000 * S)
        self.notes: list[tuple[str, dict[str, object]]] = []
        wire = MemoryLink(lambda at, frame: relay.send(GROUND, at, frame))
        fleet = (FleetNode(NODE, "sat-01", 10.0, 5.0, 5.0, 50.0, 1e6, 0.35, ()),)
        self.ground = GroundSegment(
            clock=self.clock,
            link=wire,
            disk=SimulatedDisk(1 << 20, random.Random(1)),
            plan=plan,
            interfaces=RADIO,
            fleet=fleet,
            dictionary_digest=b"d" * 8,
            beacon_period_s=10.0,
            store_bytes=1 << 19,
            verify=lambda request, report, result, product: None,
            on_complete=lambda job, report, result: None,
            record=lambda kind, fields: self.notes.append((kind, fields)),
            on_crash=lambda error: pytest.fail(str(error)),
        )
        self.users = UserPort(self.ground, self.clock, fleet, ("cloud_mask",))
        relay.attach(GROUND, wire.deliver)
        far = MemoryLink(lambda at, frame: relay.send(NODE, at, frame))
        self.node = Endpoint(self.clock, far, BundleAgent(NODE, plan, RADIO, 1 << 32), lambda delivery: None)
        relay.attach(NODE, far.deliver)
        self.ground.start()
        self.node.flush()

    async def close(self) -> None:
        await self.ground.close()
        await self.node.close()


def in_virtual_time(scenario: Callable[[Bench], Any]) -> Any:
    async def story() -> Any:
        made = Bench()
        try:
            return await scenario(made)
        finally:
            await made.close()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(story())


def test_the_round_trip_is_that_of_the_light() -> None:
    async def scenario(made: Bench) -> list[int]:
        replies = [await made.ground.pinger.ping(NODE) for _ in range(3)]
        assert [reply.sequence for reply in replies if reply is not None] == [1, 2, 3]
        return [reply.rtt_ns for reply in replies if reply is not None]

    rtts_ns = in_virtual_time(scenario)
    assert all(2 * LIGHT_NS <= rtt_ns <= 2 * LIGHT_NS + 10_000 for rtt_ns in rtts_ns), rtts_ns
    assert in_virtual_time(scenario) == rtts_ns, "and the same again"


def test_a_ping_that_waits_for_contact_counts_the_wait() -> None:
    async def scenario(made: Bench) -> None:
        await asyncio.sleep(150)
        reply = await made.ground.pinger.ping(NODE, wait_s=100)
        assert reply is not None
        assert 50 * S + 2 * LIGHT_NS <= reply.rtt_ns <= 50 * S + 2 * LIGHT_NS + 10_000

    in_virtual_time(scenario)


def test_a_ping_that_is_not_answered_in_time_is_none_and_its_late_answer_nothing() -> None:
    async def scenario(made: Bench) -> None:
        assert await made.ground.pinger.ping(NODE, wait_s=0.4) is None, "the light takes half a second"
        assert await made.ground.pinger.ping(77, wait_s=5) is None, "nobody knows node 77"
        assert await made.ground.pinger.ping(NODE, wait_s=5) is not None
        assert made.ground.bad_messages_count == 0

    in_virtual_time(scenario)


def test_the_ground_echoes_pings_of_nodes_and_its_own() -> None:
    async def scenario(made: Bench) -> None:
        made.node.send(GROUND, ECHO_SERVICE, b"ground?", lifetime_ms=60_000, source_service=3)
        await asyncio.sleep(1)
        assert made.ground.agent.counters.echoes_answered_count == 1
        assert made.node.agent.counters.bundles_delivered_count == 1
        reply = await made.ground.pinger.ping(GROUND)
        assert reply is not None
        assert reply.rtt_ns == 0

    in_virtual_time(scenario)


def test_a_status_report_to_the_ground_is_put_on_record() -> None:
    async def scenario(made: Bench) -> None:
        report = StatusReport(Eid(GROUND, 4), (8, 1), ((Status.DELIVERED, None),))
        delivery = Delivery(0, NODE, encode_status_report(report), 0, 1000, record=report)
        made.ground._on_delivery(delivery)
        assert made.notes == [("bundle.reported", report.fields())]

    in_virtual_time(scenario)


# -- what counts as an answer


def answer(node: int, payload: bytes) -> Delivery:
    return Delivery(PING_SERVICE, node, payload, 0, 1000, source_service=ECHO_SERVICE)


def test_only_the_asked_node_with_the_same_bytes_answers_and_only_once() -> None:
    pings = Pings()
    sequence, payload = pings.make(5, 64, 1000)
    assert len(payload) == 64
    assert pings.receive(answer(6, payload), 2000) is None
    assert pings.receive(answer(5, payload[:-1]), 2000) is None
    assert pings.receive(answer(5, payload[:-1] + b"!"), 2000) is None
    assert pings.receive(answer(5, b""), 2000) is None
    reply = pings.receive(answer(5, payload), 3000)
    assert reply is not None
    assert (reply.sequence, reply.size_bytes, reply.rtt_ns) == (sequence, 64, 2000)
    assert pings.receive(answer(5, payload), 3000) is None


def test_pings_that_nobody_answers_are_bounded() -> None:
    pings = Pings()
    payloads = [pings.make(5, PING_BYTES_MIN, 0)[1] for _ in range(PINGS_MAX + 1)]
    assert pings.receive(answer(5, payloads[0]), 1) is None
    assert pings.receive(answer(5, payloads[1]), 1) is not None


@pytest.mark.parametrize("size", [PING_BYTES_MIN - 1, PING_BYTES_MAX + 1])
def test_a_size_out_of_range_is_refused(size: int) -> None:
    with pytest.raises(ConfigError, match=rf"ping: {size} bytes, expected {PING_BYTES_MIN} to {PING_BYTES_MAX}"):
        Pings().make(5, size, 0)


def test_statistics_are_those_of_ping() -> None:
    assert PingStatistics().lines() == ["0 bundles sent, 0 received, 0 % lost"]
    assert PingStatistics(4, [10_000_000, 20_000_000, 60_000_000]).lines() == [
        "4 bundles sent, 3 received, 25 % lost",
        "round trip min/avg/max = 10.0/30.0/60.0 ms",
    ]


# -- the command line


def flatrack(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["ping", *map(str, arguments)])


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def foreign_node(python: Path, node: int) -> Iterator[tuple[int, int]]:
    """(port where it listens, port that it sends to) of an LTP node of another implementation."""
    theirs, ours = free_port(), free_port()
    arguments = [str(python), str(PEER), str(node), str(theirs), str(ours)]
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline(), "it says when it is ready"
        yield theirs, ours
    finally:
        process.kill()
        process.communicate()


def test_pings_go_to_a_foreign_node_over_udp(peer_python: Callable[[str], Path]) -> None:
    with foreign_node(peer_python("pyd3tn"), 9) as (theirs, ours):
        local = ("--local", f"127.0.0.1:{ours}", "--udp", f"127.0.0.1:{theirs}")
        result = flatrack("ipn:9.7", *local, "--node", 3, "-c", 3, "-i", 0.05, "-s", 100, "-W", 30)
        lines = result.stdout.splitlines()
        assert result.exit_code == 0, result.output
        assert sorted(line.partition(" time=")[0] for line in lines[:3]) == [
            f"100 bytes from ipn:9.7: seq={sequence}" for sequence in (1, 2, 3)
        ]
        assert lines[3] == "3 bundles sent, 3 received, 0 % lost"
        assert lines[4].startswith("round trip min/avg/max = ")


def test_nobody_answers_and_the_exit_code_says_so() -> None:
    local = ("--local", "127.0.0.1:0", "--udp", f"127.0.0.1:{free_port()}")
    result = flatrack("9", *local, "-c", 1, "-W", 0.2)
    assert result.exit_code == 1
    assert result.stdout.splitlines() == ["seq=1: no answer within 0.2 s", "1 bundles sent, 0 received, 100 % lost"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("9",), "expected either --control SOCKET or --udp HOST:PORT"),
        (("9", "--udp", "127.0.0.1:9", "--control", "x"), "expected either"),
        (("sat-01", "--udp", "127.0.0.1:9"), "endpoint 'sat-01': expected ipn:"),
        (("dtn:none", "--udp", "127.0.0.1:9"), "expected a node of its own"),
        (("9", "--udp", "earth:9"), "--udp 'earth:9', expected a numeric host:port"),
        (("9", "--udp", "127.0.0.1:9", "--local", "x"), "local 'x', expected a numeric host:port"),
        (("9", "--udp", "127.0.0.1:9", "--node", "9"), "--node 9 is the node that is asked"),
        (("9", "--control", "/nowhere/socket"), "is the program running?"),
    ],
)
def test_a_wrong_argument_is_one_line_and_exit_code_2(arguments: tuple[str, ...], expected: str) -> None:
    result = flatrack(*arguments)
    assert result.exit_code == 2
    assert expected in result.stderr
    assert result.stdout == ""


async def ask_ground(path: Path, *arguments: str) -> tuple[int, str, str]:
    command = [sys.executable, "-c", "from hil.cli import main; main()", "ping", "--control", str(path), *arguments]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def test_a_running_ground_pings_for_its_user(tmp_path: Path) -> None:
    async def story() -> None:
        made = Bench(rate_bps=1e6)
        server = await serve(tmp_path / "control", made.users.handlers())
        try:
            code, out, _ = await ask_ground(tmp_path / "control", "sat-01", "-c", "2", "-i", "0.01", "-W", "60")
            assert code == 0
            assert "64 bytes from sat-01: seq=1 time=" in out
            assert "2 bundles sent, 2 received, 0 % lost" in out
            answer = await made.users.ping(NODE, 2047, 100, 60.0)
            assert answer is not None
            assert (answer["bytes"], answer["rtt_ns"] >= 2 * LIGHT_NS) == (100, True)
            assert await made.users.ping(77, 7, 64, 0.2) is None
            code, _, err = await ask_ground(tmp_path / "control", "sat-99", "-c", "1")
            assert code == 2
            assert "node is 'sat-99', expected one of sat-01" in err
        finally:
            await server.close()
            await made.close()

    with asyncio.Runner(loop_factory=lambda: PacedLoop(0)) as runner:
        # The contacts of the bench begin at 0, which is 1970 here; the second one is open.
        runner.run(story())
