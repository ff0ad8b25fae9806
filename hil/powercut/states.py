"""Small states of the manager under power cuts: parameters, mode, boots, escalation, mission time, limit rules."""

from importlib import resources
from typing import Any, Final

from flightsw.component import OK
from flightsw.core.boots import RESETS_KEPT_MAX, Boots
from flightsw.core.escalation import CALM_S, COOLDOWN_S, RESTARTS_MAX, Escalation
from flightsw.core.limits import Limits
from flightsw.core.mission_time import MissionTime
from flightsw.core.modes import HISTORY_MAX, TRANSITIONS, Cause, ModeManager, PowerLimits
from flightsw.core.parameters import Parameters
from flightsw.core.responses import Responses
from flightsw.dictionary import flight_dictionary
from flightsw.ports import Disk, Random, ResetCause
from flightsw.wire.messages import Mode
from hil.powercut.manager import NS_PER_S, StillClock, default_of, uncounted, undumped, unheard, whole
from hil.powercut.subject import Notes, Subject, Value, record_faults, state_faults

PARTIES: Final = ("executor", "JOBS", "downlink")
RULES_CHANGED: Final = 3
"""Limit rules that are disabled and enabled."""


class ParameterImage:
    """The active image: all of it, or all of the one before."""

    name = "parameters"

    def live(self, disk: Disk, random: Random, notes: Notes) -> None:
        """Load and activate, set, restore."""
        parameters = _parameters(disk, [])
        for _ in range(8):
            notes.begin("number", number := 1 + notes.next_number("number"))
            if random.random() < 0.15:
                notes.begin("image", None)
                parameters.restore("")
                notes.ack("image", None)
                continue
            notes.begin("image", number)
            parameters.load(_values(number))
            parameters.validate()
            parameters.activate()
            notes.ack("image", number)

    def check(self, disk: Disk, notes: Notes) -> list[str]:
        """The values in force are those of one activation."""
        heard: list[str] = []
        parameters = _parameters(disk, heard)
        parameters.boot()
        if heard:
            return heard
        found = {key: parameters.value(key) for key in _values(0)}
        for number in (None, *notes.begun("number")):
            if found == _values(0 if number is None else whole(number)):
                return state_faults(notes, "image", number)
        return [f"values of no activation: {found}"]


def _parameters(disk: Disk, heard: list[str]) -> Parameters:
    def report(key: str, *arguments: Any) -> None:
        heard.append(f"{key} {arguments}")

    return Parameters(disk, flight_dictionary(), {}, report=report, dump=undumped, audit=uncounted)


def _values(number: int) -> dict[str, Any]:
    """Values of three components that tell one activation from all others; the defaults for 0."""
    keys = ("COMMANDS.arm_window_s", "LIMITS.command_loss_s", "RECORDER.quota_bytes")
    if number == 0:
        return {key: default_of(key) for key in keys}
    return dict(zip(keys, (1 + number % 3600, 600 + number, 65_536 + number), strict=True))


class Modes:
    """Changes of mode with their reasons, and that SAFE is kept."""

    name = "modes"

    def live(self, disk: Disk, random: Random, notes: Notes) -> None:
        """A boot and some changes."""
        modes = _modes(disk)
        number = _next_change(notes)
        modes.boot(False, now_ns=0, utc_ns=number)
        notes.ack("change", number)
        for _ in range(8):
            cause = random.choice([cause for mode, cause in TRANSITIONS if mode is modes.mode])
            number = _next_change(notes)
            modes.apply(cause, now_ns=0, utc_ns=number)
            notes.ack("change", number)

    def check(self, disk: Disk, notes: Notes) -> list[str]:
        """All changes are there, as many as are kept; a boot leads to SAFE when they say so."""
        modes = _modes(disk)
        if modes.lost_reason:
            return [modes.lost_reason]
        is_safe = False
        for entry in modes.history:
            is_safe = entry.mode is Mode.SAFE or (is_safe and entry.cause is not Cause.NOMINAL_COMMANDED)
        numbers: list[int | None] = [entry.utc_ns for entry in modes.history]
        first = whole(numbers[0]) if len(numbers) == HISTORY_MAX else 0
        faults = record_faults(notes, "change", numbers, first=first)
        number = _next_change(notes)
        modes.boot(False, now_ns=0, utc_ns=number)
        notes.ack("change", number)
        if (modes.mode is Mode.SAFE) != is_safe:
            faults.append(f"boots into {modes.mode.name}, after {numbers}")
        return faults


def _modes(disk: Disk) -> ModeManager:
    return ModeManager(disk, 1, PowerLimits(0.3, 0.4, 0.15), 0)


def _next_change(notes: Notes) -> int:
    number = notes.next_number("change")
    notes.begin("change", number)
    return number


class BootRecord:
    """The reset log: every boot that got so far, and the last words before it."""

    name = "boots"

    def live(self, disk: Disk, random: Random, notes: Notes) -> None:
        """Some boots, with or without an end that they know of."""
        for _ in range(1 + random.randrange(4)):
            boot = _next_boot(notes)
            boots = _boots(disk, boot, random.choice(list(ResetCause)))
            notes.ack("boot", boot)
            if random.random() < 0.5:
                boots.cycle(400 * NS_PER_S, True)
            if random.random() < 0.5:
                notes.begin(f"words of {boot}", f"end of {boot}")
                boots.ending(f"end of {boot}", 500 * NS_PER_S)
                notes.ack(f"words of {boot}", f"end of {boot}")

    def check(self, disk: Disk, notes: Notes) -> list[str]:
        """Boot once more and read the log."""
        boot = _next_boot(notes)
        boots = _boots(disk, boot, ResetCause.BROWN_OUT)
        if boots.is_lost:
            return ["the record of boots is lost"]
        log = boots.log
        first = log[0].boot if len(log) == RESETS_KEPT_MAX else 0
        faults = record_faults(notes, "boot", [entry.boot for entry in log], first=first)
        if len(log) > 1 and not faults:
            faults += state_faults(notes, f"words of {log[-2].boot}", log[-1].words or None)
        return faults


def _boots(disk: Disk, boot: int, cause: ResetCause) -> Boots:
    return Boots(disk, boot, cause, now_ns=0, utc_ns=0)


def _next_boot(notes: Notes) -> int:
    boot = notes.next_number("boot")
    notes.begin("boot", boot)
    return boot


class Ladder:
    """How far each party has come on the ladder of escalation."""

    name = "escalation"

    def live(self, disk: Disk, random: Random, notes: Notes) -> None:
        """Parties hang, and are calm again."""
        escalation = Escalation(disk, unheard)
        now_ns = 0
        for _ in range(10):
            now_ns += round(COOLDOWN_S * NS_PER_S)
            if random.random() < 0.2:
                for party in PARTIES:
                    notes.begin(party, None)
                now_ns += round(CALM_S * NS_PER_S)
                escalation.cycle(now_ns)  # begins the calm of what an earlier boot counted
                now_ns += round(CALM_S * NS_PER_S)
                escalation.cycle(now_ns)
                for party in PARTIES:
                    notes.ack(party, None)
                continue
            party = random.choice(PARTIES)
            count = escalation.taken.get(party, 0) + 1
            if count <= RESTARTS_MAX:
                notes.begin(party, count)
            escalation.step(party, True, now_ns)
            if count <= RESTARTS_MAX:
                notes.ack(party, count)

    def check(self, disk: Disk, notes: Notes) -> list[str]:
        """The count of each party is as it was, or as it was to be."""
        escalation = Escalation(disk, unheard)
        return [fault for party in PARTIES for fault in state_faults(notes, party, escalation.taken.get(party))]


class Correlation:
    """The correction of mission time."""

    name = "mission-time"

    def live(self, disk: Disk, random: Random, notes: Notes) -> None:
        """Slew and set."""
        time = MissionTime(StillClock(), disk, unheard)
        for _ in range(8):
            number = time.correlation + 1
            notes.begin("correlation", number)
            if random.random() < 0.5:
                outcome = time.handlers()["ADJUST"]((0, number, number - 1))
            else:
                outcome = time.handlers()["SET"]((number, number - 1))
            assert outcome == OK, outcome.detail
            notes.ack("correlation", number)

    def check(self, disk: Disk, notes: Notes) -> list[str]:
        """The correction that was durable, or the one that was under way."""
        heard: list[Value] = []
        time = MissionTime(StillClock(), disk, lambda key, *arguments: heard.append(f"{key} {arguments}"))
        time.boot()
        return [str(one) for one in heard] + state_faults(notes, "correlation", time.correlation or None)


class LimitRules:
    """Limit rules that were loaded, and which of them are disabled."""

    name = "limits"

    def live(self, disk: Disk, random: Random, notes: Notes) -> None:
        """Load and restore rules; disable and enable some."""
        limits = _limits(disk, [])
        handlers = limits.handlers()
        for _ in range(6):
            choice = random.random()
            if choice < 0.4:
                rules = random.choice((None, 1, 2))
                notes.begin("rules", rules)
                for rule in limits.rules.rules[:RULES_CHANGED]:
                    notes.begin(rule.name, rule.state)
                outcome = handlers["LOAD"]((_rules(rules),)) if rules else handlers["RESTORE"](())
                assert outcome == OK, outcome.detail
                notes.ack("rules", rules)
                for rule in limits.rules.rules[:RULES_CHANGED]:
                    notes.ack(rule.name, rule.state)
            else:
                rule = random.choice(limits.rules.rules[:RULES_CHANGED])
                verb, state = random.choice((("DISABLE", "DISABLED"), ("ENABLE", "ACTIVE")))
                notes.begin(rule.name, state)
                if handlers[verb]((rule.name,)).code is OK.code:
                    notes.ack(rule.name, state)

    def check(self, disk: Disk, notes: Notes) -> list[str]:
        """The rules that were loaded, each in its state."""
        heard: list[str] = []
        limits = _limits(disk, heard)
        limits.boot()
        found = next(number for number in (None, 1, 2) if limits.rules.source == _rules(number))
        faults = heard + state_faults(notes, "rules", found)
        for rule in limits.rules.rules[:RULES_CHANGED]:
            state = limits.handlers()["STATUS"]((rule.name,)).detail.split()[0]
            is_first = state == rule.state and notes.possible(rule.name)[0] is None
            faults += state_faults(notes, rule.name, None if is_first else state)
        return faults


def _rules(number: int | None) -> bytes:
    """The default rules, or the same with a remark."""
    source = resources.files("flightsw.core").joinpath("rules.toml").read_bytes()
    return source if number is None else source + b"\n# variant %d\n" % number


def _limits(disk: Disk, heard: list[str]) -> Limits:
    responses = Responses(lambda rule: True, lambda opcode, arguments, origin: OK, unheard, uncounted)

    def report(key: str, *arguments: Any) -> None:
        if key not in ("LIMITS.STATE", "LIMITS.LOADED"):
            heard.append(f"{key} {arguments}")

    return Limits(
        disk,
        StillClock(),
        parameter=default_of,
        responses=responses,
        refusal=lambda in_maintenance: None,
        report=report,
        dump=undumped,
    )


def subjects() -> list[Subject]:
    """All of them."""
    return [ParameterImage(), Modes(), BootRecord(), Ladder(), Correlation(), LimitRules()]
