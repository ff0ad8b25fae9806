"""Limit rules as a file: watchpoints, actionpoints and responses, checked against the dictionary and compiled.

Ground and node use the same code: what `flatrack rules check` takes, LIMITS.LOAD takes. A compiled set is a value that
all nodes of a process share.

    name = "default"

    [watchpoints.too_hot]
    when = "MODE.heat_margin_k < -5"
    doc = "..."

    [rules.temperature_high]
    when = "too_hot"
    persistence = 3
    response = [{ mode = "SAFE" }]
    in_maintenance = true
    doc = "..."
"""

import hashlib
import operator
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Final, Literal

import msgspec

from flightsw.dictionary.limit_expressions import (
    Comparison,
    Expression,
    bits_of,
    near,
    parse_comparison,
    parse_expression,
)
from flightsw.dictionary.model import RANGES, Dictionary
from flightsw.dictionary.source import flight_dictionary
from flightsw.dictionary.values import check_arguments
from flightsw.errors import ConfigError

FILE_BYTES_MAX: Final = 16_384
"""Longest rule file [bytes]: what the argument of a command holds."""

WATCHPOINTS_MAX: Final = 64
"""Watchpoints of a set: each costs part of a microsecond in every cycle."""

RULES_MAX: Final = 64
"""Rules of a set: more than one per watchpoint is a sign that the wrong thing is watched."""

ACTIONS_MAX: Final = 8
"""Actions of a response; a longer one is a sequence."""

PERSISTENCE_MAX: Final = 10_000
"""Highest persistence [samples]: more than a day at the usual period."""

STALE_AFTER_S: Final = 60.0
"""When a watchpoint without a new sample is STALE [s], unless the file says otherwise: six cycles."""

SETS_MAX: Final = 16
"""Compiled sets that a process keeps: nodes of a fleet run a handful of files."""

NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}\Z")
RESERVED: Final = ("and", "or", "not")
REFUSED_COMMANDS: Final = ("LIMITS.LOAD", "LIMITS.RESTORE")
"""Commands that no response may run: they would take the rules away that the cycle is at."""

NUMERIC: Final = (*RANGES, "f64", "bool")
NS_PER_S: Final = 1_000_000_000

Compare = Callable[[Any, Any], bool]
_COMPARE: Final[dict[str, Compare]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}

State = Literal["ACTIVE", "PASSIVE", "DISABLED"]
"""Of a rule, as in LC."""


class _Watch(msgspec.Struct, forbid_unknown_fields=True):
    when: str
    doc: Annotated[str, msgspec.Meta(min_length=1)]
    stale_after_s: Annotated[float, msgspec.Meta(gt=0, le=1e6)] = STALE_AFTER_S


class _Action(msgspec.Struct, forbid_unknown_fields=True):
    mode: Literal["SAFE"] | None = None
    command: str | None = None
    arguments: list[int | float | str | bool] = []
    sequence: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] | None = None


class _Rule(msgspec.Struct, forbid_unknown_fields=True):
    when: str
    doc: Annotated[str, msgspec.Meta(min_length=1)]
    persistence: Annotated[int, msgspec.Meta(ge=1, le=PERSISTENCE_MAX)] = 1
    response: Annotated[list[_Action], msgspec.Meta(max_length=ACTIONS_MAX)] = []
    in_maintenance: bool = False
    state: State = "ACTIVE"


class _File(msgspec.Struct, forbid_unknown_fields=True):
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    watchpoints: Annotated[dict[str, _Watch], msgspec.Meta(max_length=WATCHPOINTS_MAX)] = {}
    rules: Annotated[dict[str, _Rule], msgspec.Meta(max_length=RULES_MAX)] = {}


@dataclass(frozen=True, slots=True)
class Watchpoint:
    """One thing that is watched."""

    name: str
    bit: int
    when: str
    comparison: Comparison
    compare: Compare
    stale_after_ns: int
    doc: str


@dataclass(frozen=True, slots=True)
class Action:
    """One step of a response: exactly one of mode, command and sequence."""

    mode: str = ""
    command: str = ""
    arguments: tuple[Any, ...] = ()
    sequence: str = ""

    @property
    def text(self) -> str:
        """For events and documents."""
        if self.mode:
            return f"mode {self.mode}"
        if self.sequence:
            return f"sequence {self.sequence}"
        return " ".join((self.command, *map(str, self.arguments)))


@dataclass(frozen=True, slots=True)
class Rule:
    """An actionpoint and its response."""

    number: int
    """Its place in the set."""
    name: str
    when: str
    expression: Expression
    bits: int
    """Of the watchpoints in the expression."""
    persistence: int
    """Consecutive failures that are needed."""
    actions: tuple[Action, ...]
    in_maintenance: bool
    """Whether it fires in MAINTENANCE too."""
    state: State
    """In which it starts."""
    doc: str


@dataclass(frozen=True, slots=True)
class RuleSet:
    """A checked and compiled rule file."""

    name: str
    source: bytes
    digest: bytes
    """BLAKE2b-64 of the file."""
    watchpoints: tuple[Watchpoint, ...]
    rules: tuple[Rule, ...]
    wanted: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    """What is watched: (component, ((channel, key), ...))."""

    def rule(self, name: str) -> Rule | None:
        """A rule by its name."""
        return next((rule for rule in self.rules if rule.name == name), None)


@lru_cache(maxsize=SETS_MAX)
def rule_set(source: bytes, where: str = "rules") -> RuleSet:
    """A rule file, checked against the dictionary of this software and compiled.

    Args:
        source: TOML.
        where: names the file in errors.

    Raises:
        ConfigError: it does not hold; names table, field, column, what is there and what was expected.
    """
    if len(source) > FILE_BYTES_MAX:
        raise ConfigError(f"{where}: {len(source)} bytes, expected at most {FILE_BYTES_MAX}")
    try:
        content = tomllib.loads(source.decode())
    except (ValueError, RecursionError) as error:  # also text that is not UTF-8, integers of 5,000 digits
        raise ConfigError(f"{where}: not TOML: {error}") from None
    try:
        file = msgspec.convert(content, _File)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {error}") from None
    dictionary = flight_dictionary()
    watchpoints = tuple(
        _watchpoint(name, number, watch, dictionary, f"{where}: [watchpoints.{name}]")
        for number, (name, watch) in enumerate(file.watchpoints.items())
    )
    bits = {watch.name: watch.bit for watch in watchpoints}
    rules = tuple(
        _rule(name, number, rule, bits, dictionary, f"{where}: [rules.{name}]")
        for number, (name, rule) in enumerate(file.rules.items())
    )
    used = 0
    for rule in rules:
        used |= rule.bits
    for watch in watchpoints:
        if not used & watch.bit:
            raise ConfigError(f"{where}: [watchpoints.{watch.name}]: no rule uses it, expected one")
    digest = hashlib.blake2b(source, digest_size=8).digest()
    return RuleSet(file.name, source, digest, watchpoints, rules, _wanted(watchpoints))


def _watchpoint(name: str, number: int, watch: _Watch, dictionary: Dictionary, where: str) -> Watchpoint:
    _check_name(name, where)
    found = parse_comparison(watch.when, f"{where}: when")
    channel = dictionary.channels.get(found.key)
    if channel is None:
        raise ConfigError(f"{where}: when: {found.key} is no channel{near(found.key, dictionary.channels)}")
    is_number = channel.type in NUMERIC
    if found.parameter:
        parameter = dictionary.parameters.get(found.parameter)
        if parameter is None:
            hint = near(found.parameter, dictionary.parameters)
            raise ConfigError(f"{where}: when: {found.parameter} is no parameter{hint}")
        is_text = parameter.type not in NUMERIC
    else:
        is_text = isinstance(found.threshold, str)
    compares_number = bool(found.function in ("age", "steady")) or is_number
    if found.function in ("rate", "rise") and not is_number:
        raise ConfigError(f"{where}: when: {found.key} is {channel.type}, expected a number for {found.function}")
    if is_text == compares_number:
        expected = "a number" if compares_number else "a text in quotes"
        raise ConfigError(f"{where}: when: {found.key} is {channel.type}, expected {expected} on the right")
    if is_text and found.sign not in ("==", "!="):
        raise ConfigError(f"{where}: when: {found.sign} between texts, expected == or !=")
    if channel.type == "enum" and not found.parameter and found.threshold not in channel.values and is_text:
        expected = ", ".join(channel.values)
        raise ConfigError(f"{where}: when: {found.key} is never {found.threshold!r}, expected one of {expected}")
    return Watchpoint(
        name=name,
        bit=1 << number,
        when=watch.when,
        comparison=found,
        compare=_COMPARE[found.sign],
        stale_after_ns=round(watch.stale_after_s * NS_PER_S),
        doc=watch.doc,
    )


def _rule(name: str, number: int, rule: _Rule, bits: dict[str, int], dictionary: Dictionary, where: str) -> Rule:
    _check_name(name, where)
    expression = parse_expression(rule.when, bits, f"{where}: when")
    return Rule(
        number=number,
        name=name,
        when=rule.when,
        expression=expression,
        bits=bits_of(expression),
        persistence=rule.persistence,
        actions=tuple(
            _action(action, dictionary, f"{where}: response[{index}]") for index, action in enumerate(rule.response)
        ),
        in_maintenance=rule.in_maintenance,
        state=rule.state,
        doc=rule.doc,
    )


def _action(action: _Action, dictionary: Dictionary, where: str) -> Action:
    given = [field for field in ("mode", "command", "sequence") if getattr(action, field) is not None]
    if len(given) != 1:
        raise ConfigError(f"{where}: {', '.join(given) or 'nothing'} is given, expected one of mode, command, sequence")
    if action.arguments and action.command is None:
        raise ConfigError(f"{where}: arguments are given, expected them for a command only")
    if action.command is not None:
        command = dictionary.commands.get(action.command)
        if command is None:
            raise ConfigError(f"{where}: {action.command} is no command{near(action.command, dictionary.commands)}")
        if action.command in REFUSED_COMMANDS:
            raise ConfigError(f"{where}: {action.command} is given, expected a command that leaves the rules alone")
        wrong = check_arguments(command, action.arguments)
        if wrong is not None:
            raise ConfigError(f"{where}: {wrong}")
    return Action(
        mode=action.mode or "",
        command=action.command or "",
        arguments=tuple(action.arguments),
        sequence=action.sequence or "",
    )


def _wanted(watchpoints: tuple[Watchpoint, ...]) -> tuple[tuple[str, tuple[tuple[str, str], ...]], ...]:
    found: dict[str, dict[str, str]] = {}
    for watch in watchpoints:
        component, _, channel = watch.comparison.key.partition(".")
        found.setdefault(component, {})[channel] = watch.comparison.key
    return tuple((component, tuple(channels.items())) for component, channels in sorted(found.items()))


def _check_name(name: str, where: str) -> None:
    if not NAME.match(name) or name in RESERVED:
        raise ConfigError(f"{where}: the name is {name!r}, expected small letters, digits and underscores")
