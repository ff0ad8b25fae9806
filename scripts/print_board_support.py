"""Print the tables of docs/boards/support.md: what is found on each board tree, and where its facts come from."""

import tempfile
from pathlib import Path

from boards.support import trees
from boards.support.hardware import open_hardware
from flightsw.ports import Support

MARKS = {Support.PROVEN: "read", Support.PRESENT: "there", Support.DEGRADED: "degraded", Support.ABSENT: "–"}


def capability_table() -> str:
    """A line for each ability, a column for each tree."""
    columns = {}
    for name in trees.names():
        with tempfile.TemporaryDirectory() as folder:
            laid = trees.lay(name, Path(folder) / "board")
            hardware = open_hardware("auto", root=laid.root, run=laid.run, read=laid.read, monotonic_ns=lambda: 0)
            columns[name] = {line.name: MARKS[line.support] for line in hardware.capabilities()}
    lines = [f"| | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    for ability in next(iter(columns.values())):
        lines.append(f"| `{ability}` | {' | '.join(column[ability] for column in columns.values())} |")
    return "\n".join(lines)


def provenance_table() -> str:
    """How many files and answers of tools of each tree were seen (V), are documented (D) or unverified (U)."""
    lines = ["| tree | board | V | D | U |", "|---|---|---|---|---|"]
    for name in trees.names():
        tree = trees.load(name)
        counts = dict.fromkeys("VDU", 0)
        for facts in tree.facts:
            counts[facts.flag] += len(facts.files) + len(facts.links) + len(facts.errors) + len(facts.tools)
        lines.append(f"| `{name}` | {tree.title} | {' | '.join(str(count) for count in counts.values())} |")
    return "\n".join(lines)


def tables() -> str:
    """Both tables."""
    return f"{capability_table()}\n\n{provenance_table()}"


if __name__ == "__main__":
    print(tables())
