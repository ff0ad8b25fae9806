"""Rules at work on one node: fed with samples, asked for what they did."""

import json

import pytest

from flightsw.component import OK, Outcome
from flightsw.core.limits import RESULT_EVENTS_MAX, STATES_NAME, Limits, default_rules
from flightsw.core.responses import Responses
from flightsw.dictionary import flight_dictionary
from flightsw.errors import StorageError
from flightsw.wire.messages import CommandCode
from hil.sim.disk import SimulatedDisk
from hil.sim.streams import Streams

SECOND_NS = 1_000_000_000

RULES = b"""
name = "test"

[watchpoints.hot]
when = "MODE.electronics_degc > 80"
stale_after_s = 30
doc = "hot"

[watchpoints.lit]
when = "MODE.sunlight > 0"
stale_after_s = 30
doc = "sun"

[rules.heat]
when = "hot and lit"
persistence = 3
response = [{ mode = "SAFE" }, { command = "NODE.RESET" }, { sequence = "cool" }]
doc = "heat"
"""


def one_rule(watch, rule="x", more=""):
    return f"""
name = "one"
[watchpoints.x]
when = "{watch}"
stale_after_s = 30
doc = "x"
[rules.r]
when = "{rule}"
doc = "r"
{more}
""".encode()


class Rig:
    """A node's rules, with everything around them written down."""

    def __init__(self, disk=None, rules=RULES):
        self.disk = disk or SimulatedDisk(1 << 20, Streams(1).random("disk"))
        self.now_ns = 0
        self.events = []
        self.done = []
        self.audit = []
        self.dumps = []
        self.refusal = None
        self.outcome = OK
        self.boot()
        if rules is not None and self.limits.rules.source != rules:
            assert self.command("LOAD", rules) == OK
            self.events.clear()

    def boot(self):
        """A boot on the same disk."""
        responses = Responses(self.safe, self.execute, self.report, lambda kind, fields: self.audit.append(fields))
        self.limits = Limits(
            self.disk,
            self,
            parameter=lambda key: flight_dictionary().parameters[key].default,
            responses=responses,
            refusal=lambda is_vital: None if is_vital else self.refusal,
            report=self.report,
            dump=self.dump,
        )
        self.limits.boot()
        self.handlers = self.limits.handlers()

    def monotonic_ns(self):
        return self.now_ns

    def report(self, key, *arguments):
        spec = flight_dictionary().events[key]
        assert len(arguments) == len(spec.arguments), f"{key} has other arguments"
        self.events.append((key.partition(".")[2], *arguments))

    def dump(self, kind, data):
        self.dumps.append(json.loads(data))
        return len(self.dumps)

    def safe(self, rule):
        self.done.append(f"SAFE for {rule}")
        return True

    def execute(self, opcode, arguments, origin):
        self.done.append(f"{opcode} {arguments} by {origin}")
        return self.outcome

    def command(self, name, *arguments):
        return self.handlers[name](arguments)

    def feed(self, samples, count=1, step_s=10):
        """The same samples in some cycles; a value of None is missing."""
        for _ in range(count):
            self.now_ns += step_s * SECOND_NS
            self.limits.cycle({key: value for key, value in samples.items() if value is not None}, self.now_ns)

    def names(self):
        return [event[0] for event in self.events]


def climate(degc, sunlight=1.0):
    return {"MODE.electronics_degc": degc, "MODE.sunlight": sunlight}


def temperatures(rig, *values):
    for one in values:
        rig.feed({"MODE.electronics_degc": one})


@pytest.fixture
def rig():
    return Rig()


def test_a_rule_fires_only_after_its_persistence_of_consecutive_failures(rig):
    rig.feed(climate(90.0), count=2)
    rig.feed(climate(70.0))
    rig.feed(climate(90.0), count=2)
    assert rig.done == []
    rig.feed(climate(90.0))
    assert rig.done == [
        "SAFE for heat",
        "NODE.RESET () by rule heat",
        "SEQUENCES.START ('cool',) by rule heat",
    ]


def test_a_rule_fires_once_and_is_passive_until_it_is_armed(rig):
    rig.feed(climate(90.0), count=20)
    rig.feed(climate(70.0), count=5)
    rig.feed(climate(90.0), count=20)
    assert len(rig.done) == 3
    assert rig.limits.state("heat") == "PASSIVE"
    assert rig.command("ARM", "heat").code is CommandCode.OK
    rig.feed(climate(90.0), count=3)
    assert len(rig.done) == 6


def test_an_armed_rule_needs_its_whole_persistence_again(rig):
    rig.feed(climate(90.0), count=10)
    rig.command("ARM", "*")
    rig.feed(climate(90.0), count=2)
    assert len(rig.done) == 3


def test_a_disabled_rule_is_not_judged_and_comes_back_by_enable(rig):
    rig.command("DISABLE", "heat")
    rig.feed(climate(90.0), count=10)
    assert (rig.done, rig.limits.channels()["failing"]) == ([], 0)
    assert rig.command("ARM", "heat").code is CommandCode.EXECUTION_ERROR
    assert rig.command("ENABLE", "heat").code is CommandCode.OK
    rig.feed(climate(90.0), count=3)
    assert len(rig.done) == 3


def test_stale_zeroes_the_count_and_is_neither_failure_nor_success(rig):
    rig.feed(climate(90.0), count=2)
    rig.feed(climate(None), count=4)  # 40 s without a reading
    assert rig.limits.channels()["stale"] == 1
    rig.feed(climate(90.0), count=2)
    assert rig.done == []
    rig.feed(climate(90.0))
    assert len(rig.done) == 3


def test_a_reading_that_is_missing_for_a_moment_counts_as_nothing(rig):
    rig.feed(climate(90.0), count=2)
    rig.feed(climate(None), count=2)  # 20 s: not stale yet
    assert rig.done == []
    rig.feed(climate(90.0))
    assert len(rig.done) == 3, "the two failures before stand"


def test_false_makes_a_rule_pass_though_its_other_side_is_stale(rig):
    rig.feed(climate(None, sunlight=0.0), count=10)
    assert rig.limits.channels()["stale"] == 0
    assert rig.command("STATUS", "heat").detail.startswith("ACTIVE PASS")


@pytest.mark.parametrize("nonsense", [float("nan"), float("inf"), float("-inf")])
def test_a_reading_that_is_no_number_is_an_error_and_fires_nothing(rig, nonsense):
    rig.feed(climate(nonsense), count=10)
    assert rig.limits.channels()["error"] == 1
    assert rig.done == []


def test_an_error_zeroes_the_count(rig):
    rig.feed(climate(90.0), count=2)
    rig.feed(climate(float("nan")))
    rig.feed(climate(90.0), count=2)
    assert rig.done == []


def test_the_event_names_rule_watchpoint_and_reading(rig):
    rig.feed(climate(91.25), count=3)
    fired = next(event for event in rig.events if event[0] == "FIRED")
    assert fired[1] == "heat"
    assert "hot (MODE.electronics_degc > 80; reads 91.25)" in fired[2]


def test_a_rule_without_a_response_is_noticed_with_less_severity():
    rig = Rig(rules=one_rule("MODE.sunlight > 0"))
    rig.feed({"MODE.sunlight": 1.0})
    assert "NOTICED" in rig.names()
    assert "FIRED" not in rig.names()


def test_events_of_results_are_limited_until_the_rule_is_armed(rig):
    for _ in range(20):
        rig.feed(climate(90.0))
        rig.feed(climate(70.0))
    assert rig.names().count("RESULT") == 2 * RESULT_EVENTS_MAX
    rig.feed(climate(90.0), count=3)
    rig.command("ARM", "heat")
    rig.events.clear()
    rig.feed(climate(70.0))
    assert rig.names() == ["RESULT"]


def test_an_action_that_is_refused_is_told_and_the_next_ones_are_run(rig):
    rig.outcome = Outcome(CommandCode.DISABLED, "not now")
    rig.feed(climate(90.0), count=3)
    assert len(rig.done) == 3
    failed = [event for event in rig.events if event[0] == "RESPONSE_FAILED"]
    assert failed == [
        ("RESPONSE_FAILED", "heat", "NODE.RESET", "DISABLED: not now"),
        ("RESPONSE_FAILED", "heat", "sequence cool", "DISABLED: not now"),
    ]


def test_each_response_is_an_audit_record(rig):
    rig.feed(climate(90.0), count=3)
    (record,) = rig.audit
    assert record["rule"] == "heat"
    assert record["actions"] == ["mode SAFE", "NODE.RESET", "sequence cool"]


# -- functions


def test_a_rate_is_the_change_per_second_between_two_samples():
    rig = Rig(rules=one_rule("rate(MODE.electronics_degc) > 0.5"))
    temperatures(rig, 20.0, 24.9, 29.8)
    assert rig.limits.fired_count == 0
    temperatures(rig, 34.9)
    assert rig.limits.fired_count == 1


def test_a_rate_is_not_taken_over_a_gap():
    rig = Rig(rules=one_rule("rate(MODE.electronics_degc) > 0.5"))
    temperatures(rig, 20.0, None, None, None, None, 80.0)
    assert rig.limits.fired_count == 0


def test_a_sensor_that_is_stuck_shows_as_steady():
    rig = Rig(rules=one_rule("steady(MODE.electronics_degc) > 60"))
    temperatures(rig, 20.0, 20.1, *[20.2] * 7)
    assert rig.limits.fired_count == 0
    temperatures(rig, 20.2)
    assert rig.limits.fired_count == 1


def test_age_counts_from_the_last_sample_and_is_never_stale():
    rig = Rig(rules=one_rule("age(MODE.electronics_degc) > 60"))
    temperatures(rig, 20.0, *[None] * 6)
    assert (rig.limits.fired_count, rig.limits.channels()["stale"]) == (0, 0)
    temperatures(rig, None)
    assert rig.limits.fired_count == 1


def test_age_counts_from_the_boot_when_there_was_never_a_sample():
    rig = Rig(rules=one_rule("age(MODE.electronics_degc) > 60"))
    temperatures(rig, *[None] * 7)
    assert rig.limits.fired_count == 1


def test_a_rise_is_seen_within_its_window_and_forgotten_after_it():
    rig = Rig(rules=one_rule("rise(JOBS.failures, 600) >= 5"))
    for count in (0, 1, 2, 3, 4):
        rig.feed({"JOBS.failures": count}, count=40)  # one in 400 s
    assert rig.limits.fired_count == 0
    rig.feed({"JOBS.failures": 9})
    assert rig.limits.fired_count == 1


def test_a_threshold_may_be_a_parameter():
    rig = Rig(rules=one_rule("LIMITS.command_idle_s > LIMITS.command_loss_s"))
    loss_s = flight_dictionary().parameters["LIMITS.command_loss_s"].default
    rig.feed({}, step_s=loss_s)
    assert rig.limits.fired_count == 0
    rig.feed({})
    assert rig.limits.fired_count == 1


def test_a_valid_command_starts_the_command_loss_timer_anew():
    rig = Rig(rules=one_rule("LIMITS.command_idle_s > LIMITS.command_loss_s"))
    loss_s = flight_dictionary().parameters["LIMITS.command_loss_s"].default
    for _ in range(3):
        rig.feed({}, step_s=loss_s - 10)
        rig.limits.note_command(rig.now_ns)
    assert rig.limits.fired_count == 0


# -- modes


def test_a_response_that_the_mode_holds_back_is_told_once_and_run_when_it_may(rig):
    rig.refusal = "mode MAINTENANCE"
    rig.feed(climate(90.0), count=10)
    assert rig.done == []
    assert rig.names().count("INHIBITED") == 1
    assert rig.limits.state("heat") == "ACTIVE"
    rig.refusal = None
    rig.feed(climate(90.0))
    assert len(rig.done) == 3


def test_a_vital_rule_fires_in_maintenance_too():
    rig = Rig(rules=one_rule("MODE.sunlight > 0", more='response = [{ mode = "SAFE" }]\nin_maintenance = true'))
    rig.refusal = "mode MAINTENANCE"
    rig.feed({"MODE.sunlight": 1.0})
    assert rig.done == ["SAFE for r"]


# -- what is kept


def test_a_passive_rule_stays_passive_over_a_power_cut(rig):
    rig.feed(climate(90.0), count=3)
    rig.disk.power_cut()
    rig.boot()
    rig.feed(climate(90.0), count=10)
    assert len(rig.done) == 3, "a response that resets the node would come back with every boot"


def test_a_rule_is_passive_on_the_disk_before_its_response_runs(rig):
    seen = []

    def execute(*_):
        rig.disk.power_cut()
        rig.boot()
        seen.append(rig.limits.state("heat"))
        return OK

    rig.execute = execute
    rig.boot()
    rig.feed(climate(90.0), count=3)
    assert seen[0] == "PASSIVE"


def test_a_loaded_file_stands_over_a_power_cut_with_the_states_of_its_rules(rig):
    rig.command("DISABLE", "heat")
    rig.disk.power_cut()
    rig.boot()
    assert rig.limits.rules.name == "test"
    assert rig.limits.state("heat") == "DISABLED"


def test_a_new_file_starts_its_rules_in_the_states_that_it_says(rig):
    rig.feed(climate(90.0), count=3)
    changed = RULES.replace(b"persistence = 3", b'persistence = 3\nstate = "DISABLED"')
    assert rig.command("LOAD", changed) == OK
    assert rig.limits.state("heat") == "DISABLED"
    assert ("LOADED", "test", 1, rig.limits.rules.digest) in rig.events


def test_a_bad_file_is_refused_and_the_present_one_stands(rig):
    outcome = rig.command("LOAD", RULES.replace(b"hot and lit", b"hot and lid"))
    assert outcome.code is CommandCode.VALIDATION_ERROR
    assert "[rules.heat]: when, column 9: 'lid' is there, expected a watchpoint" in outcome.detail
    rig.boot()
    assert rig.limits.rules.source == RULES


def test_a_file_that_the_disk_does_not_take_is_not_in_force(rig):
    rig.disk.capacity_bytes = 0
    changed = RULES.replace(b"> 80", b"> 70")
    assert rig.command("LOAD", changed).code is CommandCode.EXECUTION_ERROR
    assert rig.limits.rules.source == RULES


def test_restore_goes_back_to_the_default_rules_for_good(rig):
    assert rig.command("RESTORE") == OK
    rig.boot()
    assert rig.limits.rules is default_rules()


def test_a_full_disk_does_not_hold_a_response_back(rig):
    def refuse(*_):
        raise StorageError("disk full")

    rig.disk.replace = refuse
    rig.feed(climate(90.0), count=3)
    assert len(rig.done) == 3
    assert "UNSAVED" in rig.names()


def test_one_damaged_copy_loses_no_state(rig):
    rig.feed(climate(90.0), count=3)
    rig.disk.flip_bit(rig.disk.names(STATES_NAME)[0], 90)
    rig.boot()
    assert rig.limits.state("heat") == "PASSIVE"


def test_lost_states_are_told_and_rules_start_as_their_file_says(rig):
    rig.feed(climate(90.0), count=3)
    for name in rig.disk.names(STATES_NAME):
        rig.disk.flip_bit(name, 90)
    rig.boot()
    assert "STATES_LOST" in rig.names()
    assert rig.limits.state("heat") == "ACTIVE"


def test_a_lost_rule_file_is_told_and_the_default_rules_are_in_force(rig):
    for name in rig.disk.names("limits-rules"):
        rig.disk.flip_bit(name, 90)
    rig.boot()
    assert "RULES_LOST" in rig.names()
    assert rig.limits.rules is default_rules()


# -- inspection


def test_status_and_dump_show_states_results_and_the_file(rig):
    rig.feed(climate(90.0), count=3)
    detail = rig.command("STATUS", "heat").detail
    assert detail.startswith("PASSIVE FAIL 3 of 3, fired 1: hot (MODE.electronics_degc > 80; reads 90) TRUE")
    rig.command("DUMP")
    (dump,) = rig.dumps
    assert dump["rules"] == {"heat": {"state": "PASSIVE", "result": "FAIL", "fails": 3, "fired": 1}}
    assert dump["file"].encode() == RULES


def test_an_unknown_rule_is_refused_with_the_nearest_name(rig):
    for command in ("ARM", "DISABLE", "ENABLE", "STATUS"):
        outcome = rig.command(command, "heet")
        assert outcome == Outcome(CommandCode.VALIDATION_ERROR, "heet is no rule (did you mean heat?)")


def test_channels_are_those_of_the_dictionary(rig):
    rig.feed(climate(90.0), count=3)
    channels = flight_dictionary().components["LIMITS"].channels
    assert sorted(rig.limits.channels()) == sorted(set(channels) - {"cmdpc", "cmdec"})
    assert rig.limits.channels()["checked"] == 6


def test_a_quiet_cycle_judges_every_sample_and_writes_nothing(rig):
    rig.feed(climate(20.0))

    def refuse(*_):
        raise AssertionError("a quiet cycle wrote")

    rig.disk.replace = refuse
    before = rig.limits.channels()["checked"]
    rig.feed(climate(20.0), count=100)
    assert rig.limits.channels()["checked"] == before + 200
    assert rig.events == []
