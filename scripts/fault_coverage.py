"""Runs every fault-protection scenario and writes what each set off into docs/fault-protection.md.

python scripts/fault_coverage.py            # run, print, write
python scripts/fault_coverage.py --check    # exit 1 when the document says something else
"""

import argparse
import re
import sys
from pathlib import Path
from typing import Final

from hil.protection.coverage import SCENARIOS, table
from hil.protection.scenario import show

DOCUMENT: Final = Path(__file__).parent.parent / "docs" / "fault-protection.md"
PLACE: Final = re.compile(r"(<!-- measured: fault coverage -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def main() -> int:
    """Run, and write or check; returns the exit code."""
    parser = argparse.ArgumentParser(description="Run the fault-protection scenarios; write their coverage.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the document is stale")
    options = parser.parse_args()
    found = table({name: show(scenario) for name, scenario in SCENARIOS.items()})
    print(found, end="")
    text = DOCUMENT.read_text(encoding="utf-8")
    fresh = PLACE.sub(lambda match: match[1] + found + match[3], text)
    if options.check:
        return int(fresh != text)
    DOCUMENT.write_text(fresh, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
