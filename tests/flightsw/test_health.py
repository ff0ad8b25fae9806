"""Health: the watchdog is stroked only while all replies are in time, and every refusal of the stroke has its test."""

import pytest

from boards.simulated.clock import LoopClock
from flightsw.core.boots import Boots
from flightsw.core.escalation import COOLDOWN_S, RESTARTS_MAX
from flightsw.core.health import BUSY_NS_MAX, Health, Party
from flightsw.core.supervision import Supervision
from flightsw.dictionary import flight_dictionary
from flightsw.ports import NodePorts, ResetCause
from flightsw.wire.messages import CommandCode
from hil.sim.disk import SimulatedDisk
from hil.sim.streams import Streams

S = 1_000_000_000
TICK_S = 10


class Told:
    """Takes events, by name."""

    def __init__(self):
        self.events = []

    def __call__(self, key, *arguments):
        spec = flight_dictionary().events[key]
        assert len(arguments) == len(spec.arguments), key
        self.events.append((key, *arguments))

    def names(self):
        return [event[0] for event in self.events]


def health_of(*names, period_ns=0, **fields):
    told = Told()
    health = Health(told)
    for name in names:
        health.add(Party(name, 20 * S, 30 * S, period_ns, **fields))
    return health, told


def answer(health, party, now_ns):
    health.reply(party, health.asked(party), now_ns)


def test_the_watchdog_is_stroked_while_all_reply_in_time():
    health, told = health_of("jobs", "link")
    for now_s in range(0, 1000, TICK_S):
        assert health.cycle(now_s * S)
        answer(health, "jobs", now_s * S + 1)
        answer(health, "link", now_s * S + 2)
    assert told.events == []
    assert health.channels()["strokes"] == 100
    assert health.channels()["refused"] == 0


def test_one_silent_party_among_many_stops_the_strokes_at_its_fatal_level_and_not_before():
    health, told = health_of("jobs", "link")
    strokes = []
    for now_s in range(0, 60, TICK_S):
        strokes.append(health.cycle(now_s * S))
        if health.asked("jobs"):
            answer(health, "jobs", now_s * S)
    assert strokes == [True, True, True, False, False, False]  # asked at 0, fatal at 30
    assert told.events == [("HEALTH.SLOW", "link", 20.0), ("HEALTH.HUNG", "link", 30.0)]
    assert health.hung() == ["link"]
    assert (health.channels()["strokes"], health.channels()["refused"]) == (3, 3)
    assert health.channels()["hanging"] == "link"


def test_a_party_that_never_took_part_counts_as_one_that_hangs():
    health, _ = health_of("missing")
    assert health.cycle(0)
    assert not health.cycle(30 * S)


def test_a_late_reply_lets_the_strokes_go_on_and_is_told():
    health, told = health_of("jobs")
    health.cycle(0)
    assert not health.cycle(30 * S)
    answer(health, "jobs", 41 * S)
    assert health.cycle(50 * S)
    assert told.events[-1] == ("HEALTH.BACK", "jobs", 50.0)  # told with the next look
    assert health.hung() == []


@pytest.mark.parametrize("wrong", [0, 999_999, -1], ids=["no key", "another key", "the mark of a wrong one"])
def test_a_wrong_key_stops_the_strokes_at_once_and_a_right_one_later_does_not_mend_it(wrong):
    health, told = health_of("jobs")
    assert health.cycle(0)
    right = health.asked("jobs")
    health.reply("jobs", wrong, S)
    assert not health.cycle(10 * S)
    health.reply("jobs", right, 11 * S)
    assert not health.cycle(20 * S)
    assert told.names() == ["HEALTH.WRONG_KEY", "HEALTH.WRONG_KEY"]
    assert health.channels()["hung"] == 1


def test_a_key_is_good_for_one_reply():
    health, _ = health_of("jobs")
    health.cycle(0)
    key = health.asked("jobs")
    health.reply("jobs", key, S)
    health.reply("jobs", key, 2 * S)
    assert not health.cycle(10 * S)


def test_every_ping_has_a_key_of_its_own():
    keys = []
    health, _ = health_of("jobs", "link", ping=keys.append)
    for now_s in range(0, 200, TICK_S):
        health.cycle(now_s * S)
        for party in ("jobs", "link"):
            answer(health, party, now_s * S)
    assert len(set(keys)) == len(keys) == 40


def test_a_party_with_a_period_is_asked_no_sooner():
    keys = []
    health, _ = health_of("executor", period_ns=60 * S, ping=keys.append)
    for now_s in range(1, 181, TICK_S):
        health.cycle(now_s * S)
        if health.asked("executor"):
            answer(health, "executor", now_s * S)
    assert len(keys) == 3


def test_a_cycle_that_does_not_return_is_no_reply():
    health, _ = health_of("beacon")
    cycle = health.supervised([lambda now_ns: 1 / 0])
    health.cycle(0)
    with pytest.raises(ZeroDivisionError):
        cycle(0)
    assert not health.cycle(30 * S)


def test_a_cycle_that_returns_is_a_reply():
    health, _ = health_of("beacon")
    cycle = health.supervised([lambda now_ns: None])
    for now_s in range(0, 100, TICK_S):
        assert health.cycle(now_s * S)
        cycle(now_s * S)


def test_a_cycle_that_returns_false_is_no_reply_until_one_does_not():
    health, _ = health_of("endpoint")
    is_well = [False]
    cycle = health.supervised([lambda now_ns: is_well[0]])
    health.cycle(0)
    for now_s in (0, 10, 20):
        cycle(now_s * S)
    assert not health.cycle(30 * S)
    is_well[0] = True
    cycle(40 * S)
    assert health.cycle(40 * S)


def test_a_busy_party_may_owe_its_reply_until_it_said_and_its_fatal_level_beyond():
    health, told = health_of("executor", ping=lambda key: None)
    health.cycle(0)
    health.busy("executor", 500 * S)
    assert health.cycle(510 * S)
    assert not health.cycle(530 * S)
    assert told.events[-1] == ("HEALTH.HUNG", "executor", 530.0)


def test_nobody_is_busy_for_ever():
    health, _ = health_of("executor", ping=lambda key: None)
    health.cycle(0)
    health.busy("executor", 2**62)
    assert health.cycle(BUSY_NS_MAX)
    assert not health.cycle(BUSY_NS_MAX + 30 * S)


def test_a_restarted_party_owes_nothing_and_is_asked_anew():
    starts = []
    health, _ = health_of("executor", restart=lambda: starts.append(1))
    health.cycle(0)
    assert not health.cycle(30 * S)
    health.restart("executor")
    assert starts == [1]
    assert health.cycle(40 * S)
    answer(health, "executor", 40 * S)
    assert health.cycle(50 * S)


def test_a_disabled_party_does_not_stop_the_strokes_and_is_asked_anew_when_enabled():
    health, _ = health_of("jobs")
    health.cycle(0)
    assert not health.cycle(30 * S)
    do = health.handlers()
    assert do["DISABLE"](("jobs",)).code is CommandCode.OK
    assert health.cycle(40 * S)
    assert health.channels()["disabled"] == 1
    assert do["ENABLE"](("jobs",)).code is CommandCode.OK
    assert health.cycle(50 * S)
    assert not health.cycle(80 * S)


def test_commands_about_nobody_are_refused_with_the_names_there_are():
    health, _ = health_of("jobs", "link")
    for command in ("ENABLE", "DISABLE", "RESTART"):
        outcome = health.handlers()[command](("nobody",))
        assert outcome.code is CommandCode.EXECUTION_ERROR
        assert outcome.detail == "party 'nobody': expected one of jobs, link"
    outcome = health.handlers()["RESTART"](("jobs",))
    assert outcome.detail == "jobs restarts only with the node; by itself: none"


def test_channels_are_those_of_the_dictionary():
    health, _ = health_of()
    specified = {spec.name for spec in flight_dictionary().components["HEALTH"].channels.values()}
    assert set(health.channels()) == specified - {"cmdpc", "cmdec", "escalations"}


# -- with watchdog and ladder


class Dog:
    """A watchdog that notes its strokes."""

    def __init__(self):
        self.timeouts_s = []

    def stroke(self, timeout_s):
        self.timeouts_s.append(timeout_s)


class Rig:
    """Supervision of one party, with all that it takes."""

    def __init__(self, watchdog=None, restart=None):
        self.now_ns = 0
        self.told = Told()
        self.resets = []
        self.logged = []
        self.audited = []
        self.disk = SimulatedDisk(1 << 20, Streams(1).random("disk"))
        ports = NodePorts(
            clock=LoopClock(lambda: self.now_ns, 0),
            link=None,
            disk=self.disk,
            board=None,
            runner=None,
            reset=self.resets.append,
            log=lambda kind, fields: self.logged.append((kind, fields)),
            watchdog=watchdog,
        )
        self.boots = Boots(self.disk, 1, ResetCause.POWER_ON, now_ns=0, utc_ns=0)
        self.parts = Supervision(
            ports,
            self.boots,
            self.told,
            tick_s=TICK_S,
            parameter=lambda key: flight_dictionary().parameters[key].default,
            audit=lambda kind, fields: self.audited.append((kind, fields)),
        )
        if restart is None:
            self.is_well = False
            self.cycle = self.parts.attend([("jobs", lambda now_ns: self.is_well)])
        else:
            self.parts.attend_task("executor", lambda key: None, restart)
            self.cycle = self.parts.cycle

    def run(self, seconds):
        for _ in range(0, seconds, TICK_S):
            self.cycle(self.now_ns)
            self.now_ns += TICK_S * S


def test_a_sound_node_strokes_its_watchdog_in_each_cycle():
    rig = Rig(Dog())
    rig.is_well = True
    rig.run(10 * TICK_S)
    dog = rig.parts._watchdog
    assert dog.timeouts_s == [60.0] * 10
    assert rig.resets == []


def test_a_hung_party_stops_the_strokes_and_the_reason_is_kept_for_the_next_boot():
    rig = Rig(Dog())
    rig.run(200)
    assert len(rig.parts._watchdog.timeouts_s) == 3
    assert rig.resets == []
    assert ("health.step", {"party": "jobs", "step": "reset the node"}) in rig.logged
    assert rig.audited[0] == ("escalation", {"party": "jobs", "step": "reset the node"})
    after = Boots(rig.disk, 2, ResetCause.WATCHDOG, now_ns=0, utc_ns=0)
    assert after.log[-1].words == "jobs hung"


def test_a_board_without_a_watchdog_is_reset_by_the_node():
    rig = Rig()
    rig.run(60)
    assert rig.resets == [ResetCause.WATCHDOG]


def test_a_task_is_restarted_before_the_node_is():
    starts = []
    rig = Rig(Dog(), restart=lambda: starts.append(rig.now_ns))
    rig.run(60 + (RESTARTS_MAX + 1) * (int(COOLDOWN_S) + 200))
    assert len(starts) == RESTARTS_MAX
    steps = [fields["step"] for kind, fields in rig.logged if kind == "health.step"]
    assert steps[: RESTARTS_MAX + 1] == ["restart"] * RESTARTS_MAX + ["reset the node"]


def test_the_watchdog_waits_at_least_three_ticks():
    rig = Rig(Dog())
    rig.parts._tick_s = 100
    assert rig.parts.timeout_s == 300
