"""Prints the tables of the documents from the code, so that they cannot say anything else.

    python scripts/print_docs.py            # print
    python scripts/print_docs.py --check    # exit 1 and name the stale files

A table stands in `docs/*.md` between `<!-- printed: NAME -->` and `<!-- end -->`; `docs/profiles.md` is printed whole.
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterable
from enum import IntEnum
from pathlib import Path
from typing import Final

from print_dictionary import page
from print_protection import fault_scenarios, limit_rules, limit_watchpoints, mode_activities

from boards import profiles
from flightsw.compute import jobs
from flightsw.core import modes, update_states
from flightsw.dictionary import flight_dictionary
from flightsw.wire import messages

DOCS: Final = Path(__file__).parent.parent / "docs"
PLACE: Final = re.compile(r"(<!-- printed: (.+?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def mode_transitions() -> str:
    """The modes and what leads from one to another."""
    rows = modes.TRANSITIONS.items()
    return table(("mode", "cause", "mode after"), ((mode.name, cause.value, to.name) for (mode, cause), to in rows))


def job_transitions() -> str:
    """The states of a job and those that may follow."""
    return table(
        ("state", "may become"),
        ((state.name, ", ".join(to.name for to in after) or "final") for state, after in jobs.TRANSITIONS.items()),
    )


def update_transitions() -> str:
    """The states of a software update and what leads from one to another."""
    rows = update_states.TRANSITIONS.items()
    return table(("state", "step", "state after"), ((state.name, step.value, to.name) for (state, step), to in rows))


def numbers(kind: type[IntEnum]) -> str:
    """The names of an enumeration by number."""
    return table(("number", "name"), ((str(int(member)), member.name) for member in kind))


PRINTED: Final[dict[str, Callable[[], str]]] = {
    "dictionary": lambda: page(flight_dictionary()),
    "mode transitions": mode_transitions,
    "mode activities": mode_activities,
    "limit watchpoints": limit_watchpoints,
    "limit rules": limit_rules,
    "fault scenarios": fault_scenarios,
    "job transitions": job_transitions,
    "update transitions": update_transitions,
    "command codes": lambda: numbers(messages.CommandCode),
    "command stages": lambda: numbers(messages.Stage),
    "event severities": lambda: numbers(messages.Severity),
}
"""Name in the marker -> what stands there."""


def printed(path: Path, text: str) -> str:
    """The text of a document with its tables as the code has them.

    Raises:
        SystemExit: A marker names no table, or has no end.
    """
    if path.name == "profiles.md":
        return profiles.page()

    def place(match: re.Match[str]) -> str:
        if match[2] not in PRINTED:
            raise SystemExit(f"{path}: printed: {match[2]}; expected one of {', '.join(PRINTED)}")
        return f"{match[1]}{PRINTED[match[2]]()}{match[4]}"

    if text.count("<!-- printed: ") != len(PLACE.findall(text)):
        raise SystemExit(f"{path}: a printed table has no end; expected <!-- end --> after it")
    return PLACE.sub(place, text)


def main() -> int:
    """Print, or check; returns the exit code."""
    parser = argparse.ArgumentParser(description="Print the tables of the documents from the code.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a document is stale")
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder of the documents")
    options = parser.parse_args()
    stale = []
    for path in sorted(options.docs.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        fresh = printed(path, text)
        if fresh == text:
            continue
        stale.append(path)
        if not options.check:
            path.write_text(fresh, encoding="utf-8")
    for path in stale:
        print(f"{path}: {'stale; run make docs' if options.check else 'printed'}")
    return 1 if stale and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
