"""Tables of fault protection for the documents: what modes allow, the limit rules, the scenarios.

`print_docs.py` puts them into their places; `fault_coverage.py` adds what was measured.
"""

from collections.abc import Iterable

from flightsw.core.limits import default_rules
from flightsw.core.modes import ACTIVITIES, Activity
from flightsw.dictionary.limit_rules import Rule
from hil.protection.coverage import SCENARIOS
from hil.protection.scenario import Scenario


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def mode_activities() -> str:
    """What each mode allows."""
    return table(
        ("mode", *(activity.value for activity in Activity)),
        ((mode.name, *(how.value for how in row.values())) for mode, row in ACTIVITIES.items()),
    )


def limit_watchpoints() -> str:
    """The watchpoints of the default rules."""
    return table(
        ("watchpoint", "TRUE when", "why"),
        ((f"`{watch.name}`", f"`{watch.when}`", watch.doc) for watch in default_rules().watchpoints),
    )


def limit_rules() -> str:
    """The default rules."""
    return table(
        ("rule", "fails when", "times", "response", "why"),
        (
            (f"`{rule.name}`", f"`{rule.when}`", str(rule.persistence), _response(rule), rule.doc)
            for rule in default_rules().rules
        ),
    )


def fault_scenarios() -> str:
    """The scenarios that the tests run."""
    return table(
        ("scenario", "fault", "ends in", "told", "within", "recovered by"),
        (
            (
                scenario.name,
                scenario.fault,
                scenario.mode.name,
                "; ".join(scenario.events) or "nothing; the command is answered FAILED",
                f"{scenario.within_s:.0f} s",
                _recovery(scenario),
            )
            for scenario in SCENARIOS.values()
        ),
    )


def _response(rule: Rule) -> str:
    actions = ", ".join(action.text for action in rule.actions) or "event only"
    return f"{actions}; in MAINTENANCE too" if rule.in_maintenance else actions


def _recovery(scenario: Scenario) -> str:
    commands = ("`" + " ".join(map(str, (opcode.lstrip("!"), *rest))) + "`" for opcode, *rest in scenario.recovery)
    return ", ".join(commands) or "itself"
