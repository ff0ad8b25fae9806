from flightsw.core.modes import JOB_MODES, TRANSITIONS, Cause, ModeManager, job_refusal
from flightsw.wire.messages import Mode


def manager(mode: Mode) -> ModeManager:
    modes = ModeManager(low_power_enter=0.3, low_power_leave=0.4, safe_enter=0.15)
    modes.mode = mode
    return modes


def test_a_boot_ends_in_nominal():
    modes = manager(Mode.BOOT)
    assert modes.apply(Cause.BOOT_DONE)
    assert modes.mode is Mode.NOMINAL


def test_sun_and_charge_move_between_the_powered_modes():
    modes = manager(Mode.NOMINAL)
    assert modes.observe(0.8, sunlight=0.0) is Cause.SUN_LOST
    assert modes.mode is Mode.ECLIPSE
    assert modes.observe(0.29, sunlight=0.0) is Cause.CHARGE_LOW
    assert modes.mode is Mode.LOW_POWER


def test_low_power_is_left_only_above_its_upper_threshold():
    modes = manager(Mode.LOW_POWER)
    assert modes.observe(0.4, sunlight=1.0) is None
    assert modes.observe(0.41, sunlight=1.0) is Cause.CHARGE_RECOVERED
    assert modes.mode is Mode.NOMINAL


def test_safe_is_left_by_command_only():
    modes = manager(Mode.NOMINAL)
    assert modes.observe(0.1, sunlight=1.0) is Cause.CHARGE_CRITICAL
    assert modes.observe(1.0, sunlight=1.0) is None
    assert modes.mode is Mode.SAFE
    assert modes.apply(Cause.NOMINAL_COMMANDED)
    assert modes.mode is Mode.NOMINAL


def test_an_unlisted_pair_changes_nothing():
    for mode in Mode:
        for cause in Cause:
            modes = manager(mode)
            changed = modes.apply(cause)
            assert changed == ((mode, cause) in TRANSITIONS)
            assert changed or modes.mode is mode


def test_jobs_are_refused_in_every_other_mode():
    assert [mode for mode in Mode if job_refusal(mode) is None] == list(JOB_MODES)
