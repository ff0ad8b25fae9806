"""Every fault ends in its documented mode with its documented events in time, and commands bring the node back."""

from functools import cache
from pathlib import Path

import pytest

from boards.simulated.troubles import SensorTrouble
from flightsw.core.limits import default_rules
from flightsw.errors import SimulationError
from flightsw.ports import ResetCause
from flightsw.wire.messages import Mode
from hil.bench.single import run_single
from hil.protection.coverage import SCENARIOS, table
from hil.protection.scenario import Scenario, show

DOCUMENT = Path(__file__).parents[2] / "docs" / "fault-protection.md"
SCENARIOS_MIN = 25


@cache
def shown(name):
    return show(SCENARIOS[name])


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_fault_ends_as_documented_and_is_recovered_by_command(name):
    assert shown(name).took_s <= SCENARIOS[name].within_s


def test_the_scenarios_are_as_many_as_promised_and_every_rule_fires_in_one():
    assert len(SCENARIOS) >= SCENARIOS_MIN
    fired = frozenset().union(*(shown(name).rules for name in SCENARIOS))
    quiet = {rule.name for rule in default_rules().rules} - fired
    assert quiet <= {"contact_loss", "radiation_storm", "storage_rots"}, "their events are shown in other ways"


def test_the_coverage_table_of_the_document_is_what_fired():
    found = table({name: shown(name) for name in SCENARIOS})
    print(found)
    assert found in DOCUMENT.read_text(encoding="utf-8"), "stale; run python scripts/fault_coverage.py"


def test_a_scenario_repeats_exactly():
    assert show(SCENARIOS["latch_up"]) == show(SCENARIOS["latch_up"])


# -- the rig refuses to find what is not there


async def _nothing(_):
    pass


def test_a_scenario_whose_event_does_not_come_fails_and_says_which():
    idle = Scenario("idle", "nothing", _nothing, Mode.NOMINAL, ("LIMITS.FIRED",), within_s=60.0)
    with pytest.raises(SimulationError, match=r"not told: \['LIMITS.FIRED'\]"):
        show(idle)


def test_a_scenario_whose_mode_does_not_come_fails_and_says_which():
    idle = Scenario("idle", "nothing", _nothing, Mode.SAFE, (), within_s=60.0)
    with pytest.raises(SimulationError, match="NOMINAL after 60 s, expected SAFE"):
        show(idle)


def test_a_scenario_that_its_commands_do_not_recover_fails():
    async def safe(rig):
        await rig.command("MODE.SAFE")

    stuck = Scenario("stuck", "safe", safe, Mode.SAFE, (), within_s=60.0)
    with pytest.raises(SimulationError, match="SAFE after the recovery commands"):
        show(stuck)


# -- what scenarios alone do not show


def test_a_node_in_safe_is_heard_and_obeys_and_runs_no_job():
    async def scenario(rig):
        await rig.run(30)
        await rig.command("MODE.SAFE")
        rig.submit(step_s=5.0)
        beacons = rig.ground.archive.beacons_count()
        await rig.run(1200)
        assert rig.ground.archive.beacons_count() - beacons >= 118, "a beacon every ten seconds"
        assert not rig.completed
        assert (await rig.command("NODE.NOOP")).stage.name == "COMPLETED"
        await rig.command("MODE.NOMINAL")
        await rig.until(lambda: bool(rig.completed), within_s=1200)

    run_single(scenario)


def test_safe_by_a_rule_is_kept_over_a_power_cut():
    async def scenario(rig):
        await rig.run(30)
        rig.board.break_sensor("charge_j", SensorTrouble.MISSING)
        await rig.until(lambda: rig.mode is Mode.SAFE, within_s=300)
        rig.board.mend_sensors("charge_j")
        rig.satellite.cut()
        rig.satellite.boot_later(5.0, ResetCause.POWER_CYCLE)
        await rig.run(120)
        assert rig.boots_count == 2
        assert rig.mode is Mode.SAFE

    run_single(scenario)


def test_maintenance_holds_responses_back_but_not_vital_ones_and_ends_in_safe():
    async def scenario(rig):
        await rig.run(30)
        await rig.command("PARAMETERS.SET", "MODE.maintenance_max_s", "1200")
        await rig.command("MODE.MAINTENANCE")
        rig.board.leak_memory(0.99)  # memory_short is not vital: it would restart the node
        await rig.run(300)
        assert rig.boots_count == 1
        assert any(key == "LIMITS.INHIBITED" and "memory_short" in text for key, text in rig.events())
        await rig.until(lambda: rig.mode is Mode.SAFE, within_s=1200)
        assert ("MODE.RESTRICTED", "SAFE: maintenance time over") in rig.events()
        await rig.until(lambda: rig.boots_count == 2, within_s=60)  # SAFE lets it fire

    run_single(scenario)


def test_a_vital_rule_ends_maintenance():
    async def scenario(rig):
        await rig.run(30)
        await rig.command("MODE.MAINTENANCE")
        rig.board.break_sensor("electronics_degc", SensorTrouble.MISSING)
        await rig.until(lambda: rig.mode is Mode.SAFE, within_s=300)

    run_single(scenario)


def test_safe_sheds_transfers_and_scrub_of_its_own_and_takes_them_up_again():
    async def scenario(rig):
        await rig.run(30)
        rig.submit(step_s=5.0)
        await rig.until(lambda: bool(rig.node.jobs.jobs), within_s=60)
        await rig.command("MODE.SAFE")
        polls, scrubs = [], []
        rig.node.transfers.poll = lambda now_ns: polls.append(now_ns) or []
        rig.node.store.scrub_next = lambda: scrubs.append(rig.now_s)
        await rig.run(600)
        assert (polls, scrubs) == ([], [])
        await rig.command("MODE.NOMINAL")
        await rig.run(120)
        assert polls
        assert scrubs

    run_single(scenario)
