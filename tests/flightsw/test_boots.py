"""Boots: a boot loop ends in SAFE, resets that help nothing become power cycles, and the log says why."""

import pytest

from boards.simulated.clock import LoopClock
from flightsw.core.boots import (
    FORGIVEN_S,
    LOOP_BOOTS,
    NAME,
    POWER_CYCLES_MAX,
    PROCESSOR_RESETS_MAX,
    RESETS_KEPT_MAX,
    STABLE_S,
    WORDS_CHARACTERS_MAX,
    Boots,
)
from flightsw.core.node_commands import NodeControl
from flightsw.dictionary import flight_dictionary
from flightsw.ports import ResetCause
from flightsw.wire import cbor
from flightsw.wire.messages import CommandCode
from hil.sim.disk import SimulatedDisk
from hil.sim.streams import Streams

S = 1_000_000_000
STABLE_NS = round(STABLE_S * S)


class Satellite:
    """A disk, and boots on it."""

    def __init__(self, seed=1):
        self.disk = SimulatedDisk(1 << 20, Streams(seed).random("disk"))
        self.count = 0

    def boot(self, cause=ResetCause.POWER_ON, words=""):
        self.count += 1
        return Boots(self.disk, self.count, cause, last_words=words, now_ns=1000 * S, utc_ns=1_790_000_000 * S)

    def lasting(self, cause=ResetCause.POWER_ON):
        boots = self.boot(cause)
        assert boots.cycle(1000 * S + STABLE_NS, is_sound=True)
        return boots


def test_a_boot_is_stable_after_its_time_and_not_before():
    boots = Satellite().boot()
    assert not boots.cycle(1000 * S + STABLE_NS - 1, is_sound=True)
    assert not boots.is_stable
    assert boots.cycle(1000 * S + STABLE_NS, is_sound=True)
    assert boots.is_stable
    assert not boots.cycle(1000 * S + STABLE_NS + 1, is_sound=True), "said once"


def test_no_boot_is_stable_while_somebody_hangs():
    boots = Satellite().boot()
    assert not boots.cycle(1000 * S + STABLE_NS, is_sound=False)
    assert boots.cycle(1000 * S + STABLE_NS + 1, is_sound=True)


@pytest.mark.parametrize("cause", [cause for cause in ResetCause if cause is not ResetCause.RESET_COMMAND])
def test_after_so_many_boots_that_did_not_last_the_next_one_is_a_boot_loop(cause):
    satellite = Satellite()
    satellite.boot()
    for _ in range(LOOP_BOOTS - 1):
        assert not satellite.boot(cause).is_loop
    assert satellite.boot(cause).is_loop
    assert satellite.boot(cause).is_loop, "and stays one"


def test_boots_that_last_are_no_loop():
    satellite = Satellite()
    for _ in range(3 * LOOP_BOOTS):
        assert not satellite.lasting(ResetCause.EXCEPTION).is_loop


def test_a_boot_that_lasts_begins_the_count_anew():
    satellite = Satellite()
    for _ in range(LOOP_BOOTS - 1):
        satellite.boot(ResetCause.EXCEPTION)
    satellite.lasting(ResetCause.EXCEPTION)
    for _ in range(LOOP_BOOTS):
        assert not satellite.boot(ResetCause.EXCEPTION).is_loop
    assert satellite.boot(ResetCause.EXCEPTION).is_loop


def test_resets_that_the_ground_asked_for_are_no_failure():
    satellite = Satellite()
    satellite.boot()
    for _ in range(3 * LOOP_BOOTS):
        assert not satellite.boot(ResetCause.RESET_COMMAND).is_loop
    boots = satellite.boot(ResetCause.RESET_COMMAND)
    for _ in range(3 * LOOP_BOOTS):
        boots.ending("POWER_CYCLE by command", 1001 * S, is_asked=True)
        boots = satellite.boot(ResetCause.POWER_CYCLE)
        assert not boots.is_loop


def looping():
    satellite = Satellite()
    for _ in range(LOOP_BOOTS + 1):
        boots = satellite.boot(ResetCause.EXCEPTION)
    assert boots.is_loop
    return satellite, boots


def test_lasting_in_safe_proves_nothing():
    satellite, boots = looping()
    assert not boots.cycle(1000 * S + 100 * STABLE_NS, is_sound=True)
    assert satellite.boot(ResetCause.EXCEPTION).is_loop


def test_lasting_after_the_ground_commanded_it_out_of_safe_ends_the_loop():
    satellite, boots = looping()
    out_ns = 1000 * S + 2 * STABLE_NS
    boots.released(out_ns)
    assert not boots.cycle(out_ns + STABLE_NS - 1, is_sound=True)
    assert boots.cycle(out_ns + STABLE_NS, is_sound=True)
    assert not boots.is_loop
    assert not satellite.boot(ResetCause.EXCEPTION).is_loop


def test_the_command_ends_the_loop_durably_and_keeps_the_log():
    satellite, boots = looping()
    boots.clear(1001 * S)
    assert not boots.is_loop
    again = satellite.boot(ResetCause.EXCEPTION)
    assert not again.is_loop
    assert len(again.log) == LOOP_BOOTS + 2


def test_a_power_cut_at_any_time_forgets_no_boot():
    for seed in range(50):
        satellite = Satellite(seed)
        for _ in range(LOOP_BOOTS + 1):
            boots = satellite.boot(ResetCause.POWER_CYCLE)
            satellite.disk.power_cut()
        assert boots.is_loop


@pytest.mark.parametrize(
    "cause", [ResetCause.WATCHDOG, ResetCause.EXCEPTION, ResetCause.KERNEL_PANIC, ResetCause.KILLED]
)
def test_processor_resets_that_help_nothing_become_a_power_cycle(cause):
    satellite = Satellite()
    satellite.lasting()
    for _ in range(PROCESSOR_RESETS_MAX):
        assert not satellite.lasting(cause).must_power_cycle
    boots = satellite.boot(cause)
    assert boots.must_power_cycle
    boots.power_cycling(1001 * S)
    after = satellite.boot(ResetCause.POWER_CYCLE)
    assert not after.must_power_cycle
    assert after.log[-1].words == f"power cycle after {PROCESSOR_RESETS_MAX + 1} processor resets"
    assert after.channels(1001 * S)["processor_resets"] == 0


def test_power_cycles_that_help_nothing_are_given_up():
    satellite = Satellite()
    satellite.boot()
    asked = 0
    for _ in range(5 * (POWER_CYCLES_MAX + 1)):
        boots = satellite.boot(ResetCause.WATCHDOG)
        if boots.must_power_cycle:
            asked += 1
            boots.power_cycling(1001 * S)
            boots = satellite.boot(ResetCause.POWER_CYCLE)
    assert asked == POWER_CYCLES_MAX
    assert boots.is_loop, "SAFE is what is left"


def test_a_commanded_reset_neither_counts_nor_clears():
    satellite = Satellite()
    satellite.lasting()
    for _ in range(PROCESSOR_RESETS_MAX + 1):
        boots = satellite.lasting(ResetCause.WATCHDOG)
        satellite.lasting(ResetCause.RESET_COMMAND)
    assert boots.must_power_cycle


def test_a_day_without_a_reset_forgives_those_before():
    satellite = Satellite()
    satellite.lasting()
    boots = satellite.lasting(ResetCause.WATCHDOG)
    boots.cycle(1000 * S + round(FORGIVEN_S * S) - 1, is_sound=True)
    assert boots.channels(0)["processor_resets"] == 1
    boots.cycle(1000 * S + round(FORGIVEN_S * S), is_sound=True)
    assert boots.channels(0)["processor_resets"] == 0


def test_the_log_says_how_long_the_boot_before_ran_and_how_it_ended():
    satellite = Satellite()
    boots = satellite.lasting()
    boots.ending("RESET_COMMAND by command", 1777 * S, is_asked=True)
    satellite.boot(ResetCause.RESET_COMMAND)
    log = satellite.boot(ResetCause.EXCEPTION, words="Traceback ...\nValueError: planted").log
    first, second, third = log
    assert (first.boot, first.cause, first.words) == (1, ResetCause.POWER_ON, "")
    assert (second.ran_s, second.was_stable, second.words) == (777, True, "RESET_COMMAND by command")
    assert (third.ran_s, third.was_stable) == (0, False)
    assert third.words.endswith("ValueError: planted")
    assert third.utc_s == 1_790_000_000


def test_the_log_is_bounded_and_so_are_its_words():
    satellite = Satellite()
    for _ in range(RESETS_KEPT_MAX + 5):
        boots = satellite.boot(ResetCause.EXCEPTION, words="x" * 10_000 + "the end")
    assert len(boots.log) == RESETS_KEPT_MAX
    assert boots.log[-1].boot == RESETS_KEPT_MAX + 5
    assert len(boots.log[-1].words) == WORDS_CHARACTERS_MAX
    assert boots.log[-1].words.endswith("the end")
    sent = []
    boots.dump(lambda kind, data: sent.append((kind, data)))
    assert [entry[0] for entry in cbor.loads(sent[0][1], 65_536)] == [reset.boot for reset in boots.log]


def test_a_rotten_copy_loses_nothing_and_two_are_told():
    satellite, _ = looping()
    name = satellite.disk.names(NAME)[0]
    satellite.disk.flip_bit(name, 100)
    assert satellite.boot(ResetCause.EXCEPTION).is_loop
    for name in satellite.disk.names(NAME):
        satellite.disk.flip_bit(name, 100)
    boots = satellite.boot(ResetCause.EXCEPTION)
    assert boots.is_lost
    told = []
    boots.announce(lambda key, *arguments: told.append(key))
    assert told == ["NODE.BOOTS_LOST"]


def test_a_full_disk_stops_no_boot_and_is_counted():
    satellite = Satellite()
    satellite.disk.capacity_bytes = 0
    boots = satellite.boot()
    boots.ending("gone", 1001 * S)
    assert boots.unsaved_count == 2


def test_what_the_ground_must_know_is_told_once_at_boot():
    satellite, _ = looping()
    told = []
    satellite.boot(ResetCause.EXCEPTION, words="Traceback").announce(lambda *event: told.append(event))
    assert told == [("NODE.BOOT_LOOP", LOOP_BOOTS + 1), ("NODE.LAST_WORDS", "Traceback")]


def test_node_commands_are_those_of_the_dictionary_and_a_commanded_end_is_asked_for():
    satellite, resets, dumps = Satellite(), [], []
    boots = satellite.boot()
    clock = LoopClock(lambda: 1400 * S, 0)
    control = NodeControl(None, None, boots, clock, resets.append, lambda kind, data: dumps.append(kind))
    specified = {spec.name for spec in flight_dictionary().components["NODE"].commands.values()}
    do = control.handlers()
    assert set(do) == specified - {"NOOP", "RESET_COUNTERS"}
    assert do["RESET_LOG"](()).code is CommandCode.OK
    assert dumps == ["NODE"]
    assert do["CLEAR_BOOTS"](()).code is CommandCode.OK
    for command, cause in (("RESET", ResetCause.RESET_COMMAND), ("POWER_CYCLE", ResetCause.POWER_CYCLE)):
        assert do[command](()).code is CommandCode.OK
        after = satellite.boot(cause)
        assert (after.log[-1].words, after.log[-1].ran_s) == (f"{cause.name} by command", 400)
        control = NodeControl(None, None, after, clock, resets.append, dumps.append)
        do = control.handlers()
    assert resets == [ResetCause.RESET_COMMAND, ResetCause.POWER_CYCLE]
    assert after.channels(0)["short_boots"] == 0


def test_channels_are_in_the_dictionary():
    specified = {spec.name for spec in flight_dictionary().components["NODE"].channels.values()}
    assert set(Satellite().boot().channels(1000 * S)) <= specified
