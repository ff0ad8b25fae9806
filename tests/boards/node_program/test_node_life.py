"""`python -m boards`: a real process with real files, a real pseudo-terminal and real signals, from boot to end."""

import os
import signal
import subprocess
import sys
import time  # noqa: TID251 - programs share the machine's clock

import pytest

from boards import profiles
from flightsw.ports import ResetCause
from hil.bench.settings_files import write_settings

S = 1_000_000_000
NODE = 11
SCALE = 20.0
PROFILE = profiles.load("raspberry-pi-5")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_node_boots_beacons_and_ends_in_order(finish, listening, run, lab, number):
    async def scenario(loop):
        async with listening(lab, loop) as ears:
            process = lab.start()
            beacon = await ears.beacon()
            assert (beacon.node, beacon.boot_count, beacon.reset_cause) == (NODE, 1, ResetCause.POWER_ON)
            assert abs(beacon.utc_ns - 1_790_000_000 * S - loop.now_ns) < 60 * S * SCALE
            return finish(process, number)

    code, records, errors = run(lab, scenario)
    assert (code, errors) == (0, "")
    assert records[0]["source"] == "sat-01"
    assert records[0]["kind"] == "node.boot"
    assert records[0]["cause"] == "POWER_ON"
    assert lab.saved().cause() is ResetCause.POWER_CYCLE


def test_a_killed_node_comes_back_with_its_count_its_battery_and_a_power_cycle(finish, listening, run, lab):
    async def scenario(loop):
        async with listening(lab, loop) as ears:
            first = lab.start()
            await ears.beacon()
            await ears.beacon()
            assert finish(first, signal.SIGKILL)[0] == -signal.SIGKILL
            before = lab.saved().board
            while not ears.beacons.empty():
                ears.beacons.get_nowait()
            second = lab.start()
            beacon = await ears.beacon()
            assert (beacon.boot_count, beacon.reset_cause) == (2, ResetCause.POWER_CYCLE)
            assert finish(second, signal.SIGTERM)[0] == 0
            after = lab.saved().board
            assert after.at_ns > before.at_ns
            assert after.account.initial_j == before.account.initial_j
            assert after.account.drawn_j > before.account.drawn_j
            charged_j = PROFILE.charge_efficiency.value * (
                (after.account.harvested_j - after.account.drawn_j)
                - (before.account.harvested_j - before.account.drawn_j)
            )
            assert after.charge_j - before.charge_j == pytest.approx(charged_j)

    run(lab, scenario)


def test_the_launcher_may_say_the_cause(finish, listening, run, lab):
    async def scenario(loop):
        async with listening(lab, loop) as ears:
            process = lab.start("--cause", "WATCHDOG")
            assert (await ears.beacon()).reset_cause == ResetCause.WATCHDOG
            finish(process, signal.SIGTERM)

    run(lab, scenario)


def test_a_battery_that_is_empty_ends_the_program_and_it_boots_again_only_with_charge(finish, first_line, lab):
    """0.5 % of the battery lasts half a minute of mission time; the sun comes a quarter of an hour later."""
    lab.shine(0.0, 0.0, 1.0)
    lab.change("board", initial_charge=0.005)
    code, records, errors = finish(lab.start())
    assert (code, errors) == (4, "")
    assert records[0]["kind"] == "node.boot"
    saved = lab.saved()
    assert saved.board.is_dark
    assert saved.board.account.unserved_j == 0.0
    assert saved.cause() is ResetCause.BROWN_OUT

    code, records, errors = finish(lab.start())
    assert (code, records) == (4, [])
    assert errors.startswith("boards: sat-01: brown-out: the battery holds ")
    assert errors.endswith("%, boots at 20%\n")

    # as if an hour and a half had passed: T+0 moves into the past
    lab.change("clock", zero_utc_ns=lab.zero_utc_ns - round(5400 / SCALE * S))
    process = lab.start("--cause", "POWER_ON")
    assert first_line(process)["cause"] == "BROWN_OUT", "whatever the launcher thinks"
    assert finish(process, signal.SIGTERM)[0] == 0
    assert lab.saved().board.charge_j > 0.2 * 3600 * PROFILE.battery_wh.value


def test_a_program_that_starts_before_t_zero_waits_for_it(finish, first_line, lab):
    lab.change("clock", zero_utc_ns=time.time_ns() + 2 * S)
    process = lab.start()
    waits = first_line(process)
    assert (waits["kind"], waits["until_ns"]) == ("program.waits", 0)
    assert waits["t_ns"] < 0
    boot = first_line(process)
    assert boot["kind"] == "node.boot"
    assert boot["t_ns"] >= 0
    assert finish(process, signal.SIGTERM)[0] == 0


def test_it_can_be_ended_while_it_waits(finish, first_line, lab):
    lab.change("clock", zero_utc_ns=time.time_ns() + 3600 * S)
    process = lab.start()
    assert first_line(process)["kind"] == "program.waits"
    assert finish(process, signal.SIGTERM)[0] == 0


def test_a_reader_that_goes_away_does_not_end_the_node(finish, listening, run, lab):
    async def scenario(loop):
        async with listening(lab, loop) as ears:
            process = lab.start()
            await ears.beacon()
            process.stdout.close()
            process.stdout = None
            for _ in range(3):
                await ears.beacon()
            return finish(process, signal.SIGTERM)

    assert run(lab, scenario) == (0, [], "")


def test_two_programs_cannot_have_one_folder(finish, first_line, lab):
    first = lab.start()
    first_line(first)
    code, _, errors = finish(lab.start())
    assert code == 2
    assert errors == f"boards: {lab.folder / 'disk'}: another program has this folder\n"
    assert finish(first, signal.SIGTERM)[0] == 0


PLANTED = {
    "in a task": "flightsw.node.Node._send_beacon = stumble\n",
    "in a callback of the loop": (
        "import asyncio\nboot = flightsw.node.Node._boot\n"
        "def boot_and_stumble(self):\n    boot(self)\n    asyncio.get_running_loop().call_later(0.1, stumble)\n"
        "flightsw.node.Node._boot = boot_and_stumble\n"
    ),
}


@pytest.mark.parametrize("planted", PLANTED.values(), ids=PLANTED.keys())
def test_a_crash_ends_with_its_traceback_and_says_so_at_the_next_boot(finish, lab, tmp_path, planted):
    (tmp_path / "sitecustomize.py").write_text(
        f"import flightsw.node\ndef stumble(*_): raise AssertionError('planted')\n{planted}"
    )
    write_settings(lab.config, lab.settings)
    process = subprocess.Popen(
        [sys.executable, "-m", "boards", "--config", str(lab.config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    lab.processes.append(process)
    code, _, errors = finish(process)
    assert code == 1
    assert "AssertionError: planted" in errors
    assert lab.saved().cause() is ResetCause.EXCEPTION
