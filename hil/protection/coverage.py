"""All scenarios, and the table of what each of them set off."""

from collections.abc import Mapping
from typing import Final

from flightsw.dictionary import flight_dictionary
from hil.protection import attacks, board, software, storage, updates
from hil.protection.scenario import Scenario, Shown

SCENARIOS: Final[dict[str, Scenario]] = {
    scenario.name: scenario for part in (board, software, storage, attacks, updates) for scenario in part.SCENARIOS
}
"""By name, in the order of the documents."""


def table(shown: Mapping[str, Shown]) -> str:
    """Markdown: a row for each fault, a column for each component that any of them set off, and the rules that fired.

    Args:
        shown: what came of each scenario, by name.
    """
    fired = frozenset().union(*(one.components for one in shown.values()))
    columns = [name for name in flight_dictionary().components if name in fired]
    head = ("fault", *columns, "rules that fired")
    lines = [head, ("---",) * len(head)]
    for name, one in shown.items():
        marks = ["x" if column in one.components else "" for column in columns]
        lines.append((name, *marks, ", ".join(sorted(one.rules))))
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
