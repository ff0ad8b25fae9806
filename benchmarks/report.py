"""Results of a benchmark: one printed line each, and the same as JSON."""

import argparse
import json
import platform
from pathlib import Path


class Report:
    """Collects and prints named results.

    Args:
        title: name of the benchmark.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._results: list[dict[str, float | str]] = []

    def add(self, name: str, value: float, unit: str, goal: str = "") -> None:
        """Print and keep one result; `goal` says in words what would be good."""
        self._results.append({"name": name, "value": value, "unit": unit, "goal": goal})
        print(f"{name}: {value:.4g} {unit}" + (f" (goal {goal})" if goal else ""), flush=True)

    def write_json(self, path: Path) -> None:
        """Write all results, with the machine and the interpreter that gave them."""
        document = {
            "benchmark": self._title,
            "machine": platform.machine(),
            "python": platform.python_version(),
            "results": self._results,
        }
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def json_path(description: str) -> Path | None:
    """The file named by `--json` on the command line, if any."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to a file")
    path: Path | None = parser.parse_args().json
    return path
