"""`python -m boards` on a real kind of board: what the ground hears of its sensors, its jobs and its bench."""

import asyncio
import json
import signal

import pytest

from boards.composition import WorkerHang
from boards.program import BoardSettings
from boards.worker.settings import WorkerSettings
from flightsw.errors import ControlError
from flightsw.host import control
from flightsw.host.settings import BenchSettings

SCALE = 20.0
PATIENCE_S = 20.0
"""Longest wait for what a healthy program does within seconds [s of the machine]."""
ZONE = "sys/class/thermal/thermal_zone0/temp"


def test_a_node_on_a_real_board_beacons_its_temperature_and_tells_what_it_lacks(finish, run, lab):
    async def scenario(ears):
        process = lab.start()
        told = await ears.event("HARDWARE.CAPABILITY_ABSENT")
        assert told == "memory_limit: jobs run inside the manager, which nothing confines"
        beacon = await ears.beacon()
        assert (beacon.electronics_ddegc, beacon.reset_cause) == (483, 1)
        values = await ears.channels(lambda _: True)
        assert values["hottest_degc"] == 48.3
        assert (values["troubles"], values["under_voltage"]) == (0, "NO")
        assert "input_w" in values["unknown"]
        assert finish(process, signal.SIGTERM)[0] == 0

    run(lab, scenario)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"hot\n", "not a whole number"),
        (b"999999999\n", "out of range"),
        (b"\x00\xff\xfe", "not text"),
        (None, "ENOENT"),
    ],
    ids=["empty", "words", "huge", "bytes", "missing"],
)
def test_a_sensor_that_breaks_and_heals_is_degraded_meanwhile_and_told_twice(finish, run, lab, content, reason):
    zone = lab.root / ZONE

    async def scenario(ears):
        process = lab.start()
        await ears.channels(lambda values: values["troubles"] == 0)
        if content is None:
            zone.unlink()
        else:
            zone.write_bytes(content)
        told = await ears.event("HARDWARE.SENSOR_DEGRADED")
        assert told.startswith("cpu-thermal: ")
        assert reason in told
        values = await ears.channels(lambda values: values["troubles"] > 0)
        assert values["troubled"] == "cpu-thermal"
        assert (values["hottest_degc"], values["under_voltage"]) == (45.31, "NO"), "what the other sensors say"
        await ears.beacon()
        zone.write_bytes(b"51000\n")
        assert await ears.event("HARDWARE.SENSOR_BACK") == "cpu-thermal"
        values = await ears.channels(lambda values: values["troubles"] == 0)
        assert values["hottest_degc"] == 51.0
        assert finish(process, signal.SIGTERM) == (0, "")

    run(lab, scenario)


def test_without_a_temperature_for_long_the_node_says_that_it_has_no_reading_and_beacons_on(finish, run, lab):
    async def scenario(ears):
        process = lab.start()
        await ears.beacon()
        (lab.root / ZONE).write_bytes(b"")
        told = await ears.event("NODE.SENSOR_LOST")
        assert told.startswith("no temperature of the processor for ")
        assert "cpu-thermal: empty" in told
        await ears.beacon()
        assert finish(process, signal.SIGTERM)[0] == 0

    run(lab, scenario)


def test_a_simulated_board_shows_the_report_of_a_recorded_one(finish, run, make_lab, tmp_path):
    lab = make_lab(tmp_path)
    lab.change(
        worker=None,
        board=BoardSettings(kind="simulated", profile="raspberry-pi-5", world="world.json", tree="raspberry-pi-5"),
    )

    async def scenario(ears):
        process = lab.start()
        values = await ears.channels(lambda _: True)
        assert values["hottest_degc"] == 48.3
        assert values["present"] > 0
        beacon = await ears.beacon()
        assert beacon.electronics_ddegc < 400, "the model's, not the recorded board's"
        assert finish(process, signal.SIGTERM)[0] == 0

    try:
        run(lab, scenario)
    finally:
        lab.close()


# Jobs


def test_jobs_of_a_real_board_run_in_a_worker(run, lab):
    lab.change(worker=WorkerSettings(isolation="rlimits"))

    async def scenario(ears):
        process = lab.start()
        await ears.beacon()
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, errors) == (0, b"")
        [record] = [one for one in map(json.loads, output.splitlines()) if one["kind"] == "worker.isolation"]
        assert record["way"] == "rlimits"

    run(lab, scenario)


def test_a_bench_stops_a_worker_where_it_would_hang_a_simulated_one():
    class Runner:
        worker_pid = 77

    runner, stopped = Runner(), []
    hang = WorkerHang(runner, stopped.append)
    hang.hang()
    assert stopped == [77]
    with pytest.raises(ControlError, match="ends with its restart"):
        hang.hang(outlives_restart=True)
    runner.worker_pid = 0
    with pytest.raises(ControlError, match="no worker runs"):
        hang.hang()


# A bench over TCP


def test_a_bench_on_another_machine_meets_the_node_by_its_token_and_the_node_outlives_it(run, lab):
    async def scenario(ears):
        hellos, kinds = asyncio.Queue(), set()
        handlers = {
            "hello": lambda name, pid, token: hellos.put_nowait((name, token)),
            "log": lambda t_ns, kind, fields: kinds.add(kind),
        }
        server = await control.serve_url("tcp://127.0.0.1:0", handlers)
        lab.change(bench=BenchSettings(url=f"tcp://127.0.0.1:{server.port}", token="0123456789abcdef"))
        lab.write()
        process = lab.start()
        assert await asyncio.wait_for(hellos.get(), PATIENCE_S * SCALE) == ("sat-01", "0123456789abcdef")
        await ears.beacon()
        assert "node.boot" in kinds
        [peer] = server.peers
        assert (await peer.call("accounts"))["mode"] == "NOMINAL"
        await server.close()
        (lab.root / ZONE).write_bytes(b"")
        await ears.event("HARDWARE.SENSOR_DEGRADED")
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0
        names = [record.get("name") for record in map(json.loads, output.splitlines())]
        assert names[0] == "HARDWARE.SENSOR_DEGRADED", "its log goes to standard output from then on"

    run(lab, scenario)


def test_a_bench_that_is_not_there_keeps_no_board_from_starting(finish, run, lab):
    async def scenario(ears):
        lab.change(bench=BenchSettings(url="tcp://127.0.0.1:1", token="0123456789abcdef"))
        lab.write()
        process = lab.start()
        await ears.beacon()
        code, errors = finish(process, signal.SIGTERM)
        assert code == 0
        assert errors.startswith("boards: sat-01: no bench: control socket tcp://127.0.0.1:1: ")

    run(lab, scenario)
