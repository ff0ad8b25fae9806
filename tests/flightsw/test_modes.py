import pytest

from flightsw.core.modes import (
    ACTIVITIES,
    HISTORY_MAX,
    STATE_NAME,
    TRANSITIONS,
    Activity,
    Allowance,
    Cause,
    ModeManager,
    PowerLimits,
)
from flightsw.errors import StorageError
from flightsw.wire.messages import Mode
from hil.sim.disk import SimulatedDisk
from hil.sim.streams import Streams

POWER = PowerLimits(low_power_enter=0.3, low_power_leave=0.4, safe_enter=0.15)
SECOND_NS = 1_000_000_000
AT = {"now_ns": 7 * SECOND_NS, "utc_ns": 1_700_000_000 * SECOND_NS}


@pytest.fixture
def disk():
    return SimulatedDisk(1 << 20, Streams(1).random("disk"))


def manager(disk, mode=Mode.BOOT, boot_count=1):
    modes = ModeManager(disk, boot_count, POWER, started_ns=0)
    modes.voted.value = mode
    return modes


def rebooted(disk, is_looping=False):
    modes = ModeManager(disk, 2, POWER, started_ns=0)
    modes.boot(is_looping, **AT)
    return modes


def test_the_first_boot_ends_in_nominal(disk):
    modes = manager(disk)
    modes.boot(is_looping=False, **AT)
    assert modes.mode is Mode.NOMINAL


def test_sun_and_charge_move_between_the_powered_modes(disk):
    modes = manager(disk, Mode.NOMINAL)
    assert modes.observe(0.8, sunlight=0.0, **AT)
    assert (modes.mode, modes.last.cause) == (Mode.ECLIPSE, Cause.SUN_LOST)
    assert modes.observe(0.29, sunlight=0.0, **AT)
    assert (modes.mode, modes.last.cause) == (Mode.LOW_POWER, Cause.CHARGE_LOW)


def test_low_power_is_left_only_above_its_upper_threshold(disk):
    modes = manager(disk, Mode.LOW_POWER)
    assert not modes.observe(0.4, sunlight=1.0, **AT)
    assert modes.observe(0.41, sunlight=1.0, **AT)
    assert (modes.mode, modes.last.cause) == (Mode.NOMINAL, Cause.CHARGE_RECOVERED)


def test_safe_is_left_by_command_only(disk):
    modes = manager(disk, Mode.NOMINAL)
    assert modes.observe(0.1, sunlight=1.0, **AT)
    left_by = {cause for cause in Cause if TRANSITIONS.get((Mode.SAFE, cause), Mode.SAFE) is not Mode.SAFE}
    assert left_by == {Cause.NOMINAL_COMMANDED, Cause.MAINTENANCE_COMMANDED}
    assert not modes.observe(1.0, sunlight=1.0, **AT)
    assert modes.mode is Mode.SAFE
    assert modes.apply(Cause.NOMINAL_COMMANDED, **AT)
    assert modes.mode is Mode.NOMINAL


def test_every_mode_but_safe_can_be_put_to_safe_by_the_ground_and_by_a_rule():
    for mode in set(Mode) - {Mode.BOOT, Mode.SAFE}:
        assert TRANSITIONS[mode, Cause.SAFE_COMMANDED] is Mode.SAFE
        assert TRANSITIONS[mode, Cause.RULE_FIRED] is Mode.SAFE
        assert TRANSITIONS[mode, Cause.CHARGE_CRITICAL] is Mode.SAFE


def test_an_unlisted_pair_changes_nothing(disk):
    for mode in Mode:
        for cause in Cause:
            modes = manager(disk, mode)
            changed = modes.apply(cause, **AT)
            assert changed == ((mode, cause) in TRANSITIONS)
            assert changed or modes.mode is mode


def test_jobs_run_in_nominal_and_eclipse_and_are_refused_in_every_other_mode(disk):
    refused = {mode for mode in Mode if manager(disk, mode).job_refusal() is not None}
    assert refused == set(Mode) - {Mode.NOMINAL, Mode.ECLIPSE}


def test_safe_sheds_all_that_nobody_commanded_but_its_own_protection():
    allowed = {activity for activity, how in ACTIVITIES[Mode.SAFE].items() if how is Allowance.YES}
    assert allowed == {Activity.RESPONSES}
    assert ACTIVITIES[Mode.SAFE][Activity.JOBS] is Allowance.NO
    assert set(ACTIVITIES) == set(Mode)


@pytest.mark.parametrize("cause", [Cause.SAFE_COMMANDED, Cause.RULE_FIRED, Cause.CHARGE_CRITICAL])
def test_safe_is_kept_over_a_power_cut_whatever_led_there(disk, cause):
    modes = manager(disk, Mode.NOMINAL)
    modes.apply(cause, rule="hot" if cause is Cause.RULE_FIRED else "", **AT)
    disk.power_cut()
    after = rebooted(disk)
    assert (after.mode, after.last.cause) == (Mode.SAFE, Cause.SAFE_KEPT)
    assert after.history[-2].cause is cause


def test_safe_that_the_ground_has_left_is_not_entered_again_by_a_reset(disk):
    modes = manager(disk, Mode.NOMINAL)
    modes.apply(Cause.SAFE_COMMANDED, **AT)
    modes.apply(Cause.NOMINAL_COMMANDED, **AT)
    assert rebooted(disk).mode is Mode.NOMINAL


@pytest.mark.parametrize(("before", "expected"), [(Mode.SAFE, Mode.SAFE), (Mode.ECLIPSE, Mode.NOMINAL)])
def test_a_reset_in_maintenance_leads_back_to_safe_if_the_node_came_from_there(disk, before, expected):
    modes = manager(disk, Mode.NOMINAL)
    modes.apply(Cause.SAFE_COMMANDED if before is Mode.SAFE else Cause.SUN_LOST, **AT)
    modes.apply(Cause.MAINTENANCE_COMMANDED, **AT)
    assert modes.mode is Mode.MAINTENANCE
    assert rebooted(disk).mode is expected


def test_boots_that_do_not_last_end_in_safe_and_stay_there(disk):
    assert rebooted(disk, is_looping=True).last.cause is Cause.BOOT_LOOP
    assert rebooted(disk).mode is Mode.SAFE


def test_a_node_that_cannot_know_whether_it_was_safe_starts_in_safe(disk):
    manager(disk, Mode.NOMINAL).apply(Cause.SUN_LOST, **AT)
    for name in disk.names(STATE_NAME):
        disk.flip_bit(name, 100)
    after = rebooted(disk)
    assert (after.mode, after.last.cause) == (Mode.SAFE, Cause.RECORD_LOST)
    assert "neither copy holds" in after.lost_reason


def test_one_damaged_copy_of_the_record_loses_nothing(disk):
    manager(disk, Mode.NOMINAL).apply(Cause.SAFE_COMMANDED, **AT)
    disk.flip_bit(disk.names(STATE_NAME)[0], 100)
    assert rebooted(disk).last.cause is Cause.SAFE_KEPT


def test_a_full_disk_does_not_hold_a_node_back_from_safe():
    full = SimulatedDisk(8, Streams(1).random("disk"))
    modes = manager(full, Mode.NOMINAL)
    assert modes.apply(Cause.RULE_FIRED, rule="hot", **AT)
    assert modes.mode is Mode.SAFE
    assert "disk full" in modes.unsaved_reason


def test_the_last_changes_are_kept_with_reason_boot_and_time(disk):
    modes = manager(disk, Mode.NOMINAL)
    for index in range(HISTORY_MAX + 3):
        modes.apply(Cause.SUN_BACK if index % 2 else Cause.SUN_LOST, now_ns=index * SECOND_NS, utc_ns=index)
    modes.apply(Cause.RULE_FIRED, rule="temperature_high", **AT)
    kept = list(ModeManager(disk, 2, POWER, started_ns=0).history)
    assert len(kept) == HISTORY_MAX
    assert kept[-1] == (Mode.SAFE, Cause.RULE_FIRED, "temperature_high", 1, 7, AT["utc_ns"])
    assert kept[-1].reason == "limit rule temperature_high"


def test_a_quiet_reading_writes_nothing(disk):
    modes = manager(disk, Mode.NOMINAL)

    def refuse(*_):
        raise StorageError("a quiet cycle wrote")

    disk.replace = refuse
    assert not modes.observe(0.8, sunlight=1.0, **AT)
    assert modes.unsaved_reason == ""
