"""Limit rules at work: every sample is judged in the cycle that took it; semantics as of LC in the cFS.

A watchpoint is TRUE, FALSE, STALE (no new sample for too long) or ERROR (a reading that is no number). A rule is an
actionpoint: its expression over watchpoints gives PASS, FAIL, STALE or ERROR. After `persistence` consecutive FAILs an
ACTIVE rule fires: it becomes PASSIVE, on the disk first, and its response is run, once. Anything but FAIL sets the
count to zero. A PASSIVE rule goes on being judged and fires no more until LIMITS.ARM; a DISABLED one is not judged.

A rule is judged in a cycle when each of its watchpoints has a new sample or is STALE: a reading that is missing is
neither a failure nor a success.

States outlive a reset. Above all PASSIVE does: a response may reset the node, and a rule that came back ACTIVE would
do so again and again.
"""

from collections.abc import Callable, Mapping
from enum import Enum, unique
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec

from flightsw.component import OK, Dump, Handler, Outcome, Report, Scalar
from flightsw.core.responses import Responses
from flightsw.core.watching import Bits, Watching
from flightsw.dictionary.limit_expressions import Result, evaluate, near
from flightsw.dictionary.limit_rules import Rule, RuleSet, State, rule_set
from flightsw.errors import ConfigError, MessageError, StorageError
from flightsw.ports import Clock, Disk
from flightsw.storage.copies import TwoCopies
from flightsw.wire import cbor
from flightsw.wire.messages import CommandCode

DEFAULT_FILE: Final = Path(__file__).parent / "rules.toml"
"""The rules that come with the software."""

RULES_NAME: Final = "limits-rules"
STATES_NAME: Final = "limits-states"
"""File names of what is kept, before the endings of their two copies."""

RESULT_EVENTS_MAX: Final = 4
"""Events that tell of one result of one rule, until it is armed again: a reading that swings around its threshold is
understood by then (LC: MaxPassFailEvents, MaxFailPassEvents)."""

ALL: Final = "*"
"""Instead of a rule's name: all that the command concerns."""

NS_PER_S: Final = 1_000_000_000


@unique
class Verdict(Enum):
    """Result of a rule, as in LC."""

    NONE = "NONE"
    """Not judged yet."""
    PASS = "PASS"
    FAIL = "FAIL"
    STALE = "STALE"
    ERROR = "ERROR"


_VERDICTS: Final = {
    Result.TRUE: Verdict.FAIL,
    Result.FALSE: Verdict.PASS,
    Result.STALE: Verdict.STALE,
    Result.ERROR: Verdict.ERROR,
}


@cache
def default_rules() -> RuleSet:
    """The rules that come with the software.

    Raises:
        ConfigError: the file is wrong.
    """
    return rule_set(DEFAULT_FILE.read_bytes(), DEFAULT_FILE.name)


class _Standing:
    """How one rule stands on one node."""

    __slots__ = ("fails_count", "fired_count", "is_inhibited", "state", "told", "verdict")

    def __init__(self, state: State) -> None:
        self.state: State = state
        self.verdict = Verdict.NONE
        self.fails_count = 0
        """Consecutive FAILs."""
        self.fired_count = 0
        self.is_inhibited = False
        """Whether it would have fired but for the mode, and said so."""
        self.told: dict[Verdict, int] | None = None
        """Events about each verdict since it was armed."""


class Limits:
    """The limit rules of one node; the component LIMITS.

    Args:
        disk: keeps loaded rules and the states of rules over a reset.
        clock: its monotonic time says since when nothing was heard of the ground.
        parameter: key -> value of a parameter.
        responses: runs what a rule does when it fires.
        refusal: why a response may not run now, or None; asked with whether the rule fires in MAINTENANCE too.
        report: takes events.
        dump: sends a data product.
    """

    name = "LIMITS"

    def __init__(
        self,
        disk: Disk,
        clock: Clock,
        *,
        parameter: Callable[[str], Any],
        responses: Responses,
        refusal: Callable[[bool], str | None],
        report: Report,
        dump: Dump,
    ) -> None:
        self._clock = clock
        self._parameter = parameter
        self._responses = responses
        self._refusal = refusal
        self._report = report
        self._dump = dump
        self._kept_rules = TwoCopies(disk, RULES_NAME)
        self._kept_states = TwoCopies(disk, STATES_NAME)
        self._lost: list[tuple[str, str]] = []
        self._command_ns = self._contact_ns = clock.monotonic_ns()
        self._checked_count = 0
        self._bits = Bits(0, 0, 0, -1)
        """Of the last cycle that looked at rules."""
        self._counting_count = 0
        """ACTIVE rules that fail: the next sample may fire them."""
        self.fired_count = 0
        self.rules = self._load_rules()
        self._begin()
        self._load_states()

    def boot(self) -> None:
        """Tell what the disk had lost."""
        for key, reason in self._lost:
            self._report(key, reason[:400])
        self._lost.clear()

    def note_command(self, now_ns: int) -> None:
        """A valid command of the ground came."""
        self._command_ns = now_ns

    def note_contact(self, now_ns: int) -> None:
        """A bundle of the ground came."""
        self._contact_ns = now_ns

    def cycle(self, samples: dict[str, Scalar], now_ns: int) -> None:
        """Judge the samples of this cycle.

        Args:
            samples: key of a channel -> its value, taken now; what could not be read is not there. The component's own
                are added.
            now_ns: the instant.
        """
        samples["LIMITS.command_idle_s"] = (now_ns - self._command_ns) / NS_PER_S
        samples["LIMITS.contact_idle_s"] = (now_ns - self._contact_ns) / NS_PER_S
        bits = self._watching.judge(samples, now_ns)
        if bits == self._bits and not self._counting_count and not bits.held:
            return  # as in the last cycle, and nothing was on its way to fire
        self._bits = bits
        due = []
        for rule, standing in zip(self.rules.rules, self._standings, strict=True):
            if standing.state != "DISABLED" and not rule.bits & bits.held and self._judge(rule, standing, bits):
                due.append((rule, standing))
        for rule, standing in due:
            self._fire(rule, standing, bits)
        self._count()

    def handlers(self) -> Mapping[str, Handler]:
        """LOAD, RESTORE, ARM, DISABLE, ENABLE, STATUS, DUMP."""
        return {
            "LOAD": self._do_load,
            "RESTORE": self._do_restore,
            "ARM": lambda arguments: self._do_state(arguments[0], "PASSIVE", "ACTIVE"),
            "DISABLE": lambda arguments: self._do_state(arguments[0], "", "DISABLED"),
            "ENABLE": lambda arguments: self._do_state(arguments[0], "DISABLED", "ACTIVE"),
            "STATUS": self._do_status,
            "DUMP": self._do_dump,
        }

    def channels(self) -> Mapping[str, Scalar]:
        """Counts of rules by result and state."""
        now_ns = self._clock.monotonic_ns()
        verdicts = [one.verdict for one in self._standings]
        states = [one.state for one in self._standings]
        return {
            "rules": len(states),
            "checked": self._checked_count + self._watching.judged_count,
            "fired": self.fired_count,
            "failing": verdicts.count(Verdict.FAIL),
            "stale": verdicts.count(Verdict.STALE),
            "error": verdicts.count(Verdict.ERROR),
            "passive": states.count("PASSIVE"),
            "disabled": states.count("DISABLED"),
            "rules_digest": self.rules.digest.hex(),
            "command_idle_s": round((now_ns - self._command_ns) / NS_PER_S, 1),
            "contact_idle_s": round((now_ns - self._contact_ns) / NS_PER_S, 1),
        }

    def state(self, name: str) -> State:
        """State of a rule that is there."""
        return next(one.state for rule, one in zip(self.rules.rules, self._standings, strict=True) if rule.name == name)

    # -- judging

    def _begin(self) -> None:
        """Start with the present set, its rules in the states that it says."""
        self._watching = Watching(self.rules, self._parameter, self._clock.monotonic_ns())
        self._standings = [_Standing(rule.state) for rule in self.rules.rules]
        self._bits = Bits(0, 0, 0, -1)
        self._counting_count = 0

    def _judge(self, rule: Rule, standing: _Standing, bits: Bits) -> bool:
        """Judge one rule; says whether it fires."""
        verdict = _VERDICTS[evaluate(rule.expression, bits.true, bits.stale, bits.error)]
        if verdict is not standing.verdict:
            self._tell_verdict(rule, standing, verdict)
            standing.verdict = verdict
        if verdict is not Verdict.FAIL:
            standing.fails_count = 0
            standing.is_inhibited = False
            return False
        standing.fails_count += 1
        return standing.state == "ACTIVE" and standing.fails_count >= rule.persistence

    def _tell_verdict(self, rule: Rule, standing: _Standing, verdict: Verdict) -> None:
        """An event for a rule that came to another result, a few times for each; that it is well at first is none."""
        before = standing.verdict
        if before is Verdict.NONE and verdict is Verdict.PASS:
            return
        told = standing.told = standing.told or {}
        told[verdict] = told.get(verdict, 0) + 1
        if told[verdict] <= RESULT_EVENTS_MAX:
            self._report("LIMITS.RESULT", rule.name, before.value, verdict.value)

    def _fire(self, rule: Rule, standing: _Standing, bits: Bits) -> None:
        reason = self._reason(rule, bits)
        refusal = self._refusal(rule.in_maintenance)
        if refusal is not None:
            if not standing.is_inhibited:
                standing.is_inhibited = True
                self._report("LIMITS.INHIBITED", rule.name, refusal)
            return
        standing.state = "PASSIVE"
        standing.fired_count += 1
        self.fired_count += 1
        self._save_states()  # before the response, which may be a reset
        self._report("LIMITS.FIRED" if rule.actions else "LIMITS.NOTICED", rule.name, reason)
        self._responses.run(rule, reason)

    def _reason(self, rule: Rule, bits: Bits) -> str:
        watchpoints = self.rules.watchpoints
        shown = [self._watching.text(one) for one in watchpoints if one.bit & rule.bits & bits.true]
        return ", ".join(shown)[:400]

    def _count(self) -> None:
        self._counting_count = sum(one.state == "ACTIVE" and one.verdict is Verdict.FAIL for one in self._standings)

    # -- what is kept

    def _load_rules(self) -> RuleSet:
        try:
            source = self._kept_rules.load()
            if source is not None:
                return rule_set(source)
        except (StorageError, ConfigError) as error:
            self._lost.append(("LIMITS.RULES_LOST", str(error)))
        return default_rules()

    def _load_states(self) -> None:
        try:
            data = self._kept_states.load()
            digest, states = (b"", {}) if data is None else _unpack_states(data)
        except StorageError as error:
            self._lost.append(("LIMITS.STATES_LOST", str(error)))
            return
        if digest != self.rules.digest:  # of another set, whose rules are others
            if data is not None:  # nor must they come back with that set, once it is loaded again
                self._save_states()
            return
        for rule, standing in zip(self.rules.rules, self._standings, strict=True):
            standing.state = states.get(rule.name, rule.state)

    def _save_states(self) -> None:
        states = {rule.name: one.state for rule, one in zip(self.rules.rules, self._standings, strict=True)}
        try:
            self._kept_states.store(cbor.dumps([self.rules.digest, states]))
        except StorageError as error:  # a full disk must not hold a response back
            self._report("LIMITS.UNSAVED", str(error))

    # -- commands

    def _do_load(self, arguments: Any) -> Outcome:
        source: bytes = arguments[0]
        try:
            rules = rule_set(source)
        except ConfigError as error:
            return Outcome(CommandCode.VALIDATION_ERROR, str(error)[:512])
        try:
            self._kept_rules.store(source)
        except StorageError as error:
            return Outcome(CommandCode.EXECUTION_ERROR, f"the present rules stand: {error}")
        return self._take(rules)

    def _do_restore(self, _: Any) -> Outcome:
        try:
            self._kept_rules.remove()
        except StorageError as error:
            return Outcome(CommandCode.EXECUTION_ERROR, f"the present rules stand: {error}")
        return self._take(default_rules())

    def _take(self, rules: RuleSet) -> Outcome:
        self._checked_count += self._watching.judged_count
        self.rules = rules
        self._begin()
        self._save_states()
        self._report("LIMITS.LOADED", rules.name, len(rules.rules), rules.digest)
        return OK

    def _do_state(self, name: str, before: str, after: State) -> Outcome:
        """Bring the named rule to a state, or all that are in the one before."""
        found = [
            (rule, one)
            for rule, one in zip(self.rules.rules, self._standings, strict=True)
            if rule.name == name or (name == ALL and before and one.state == before)
        ]
        if not found and name != ALL:
            return self._unknown(name)
        for rule, standing in found:
            if before and standing.state != before:
                return Outcome(CommandCode.EXECUTION_ERROR, f"{rule.name} is {standing.state}, expected {before}")
        for rule, standing in found:
            standing.state = after
            standing.fails_count = 0
            standing.told = None
            self._report("LIMITS.STATE", rule.name, after)
        self._save_states()
        self._bits = Bits(0, 0, 0, -1)  # the next cycle looks at all rules
        return Outcome(CommandCode.OK, ", ".join(rule.name for rule, _ in found)[:512])

    def _do_status(self, arguments: Any) -> Outcome:
        rule = self.rules.rule(arguments[0])
        if rule is None:
            return self._unknown(arguments[0])
        standing = self._standings[rule.number]
        watchpoints = ", ".join(
            f"{self._watching.text(one)} {evaluate(one.bit, self._bits.true, self._bits.stale, self._bits.error).name}"
            for one in self.rules.watchpoints
            if one.bit & rule.bits
        )
        head = f"{standing.state} {standing.verdict.value} {standing.fails_count} of {rule.persistence}"
        return Outcome(CommandCode.OK, f"{head}, fired {standing.fired_count}: {watchpoints}"[:512])

    def _do_dump(self, _: Any) -> Outcome:
        content = {
            "name": self.rules.name,
            "digest": self.rules.digest.hex(),
            "rules": {
                rule.name: {
                    "state": one.state,
                    "result": one.verdict.value,
                    "fails": one.fails_count,
                    "fired": one.fired_count,
                }
                for rule, one in zip(self.rules.rules, self._standings, strict=True)
            },
            "file": self.rules.source.decode(),
        }
        return Outcome(CommandCode.OK, f"data product {self._dump(self.name, msgspec.json.encode(content))}")

    def _unknown(self, name: str) -> Outcome:
        known = [rule.name for rule in self.rules.rules]
        return Outcome(CommandCode.VALIDATION_ERROR, f"{name} is no rule{near(name, known)}")


def _unpack_states(data: bytes) -> tuple[bytes, dict[str, State]]:
    try:
        content = msgspec.convert(cbor.loads(data), tuple[bytes, dict[str, State]], builtin_types=(bytes,))
    except (MessageError, msgspec.ValidationError) as error:
        raise StorageError(f"{STATES_NAME}: passed its CRC but does not decode: {error}") from None
    return content
