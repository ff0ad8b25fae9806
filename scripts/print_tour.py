"""Flies the tour of docs/flight.md, and prints what the console said into it.

    python scripts/print_tour.py            # print
    python scripts/print_tour.py --check    # exit 1 when the page says something else

The blocks fenced as `console` behind `<!-- tour -->` are one session: their lines after the prompt are typed one after
the other, and every other line is what the console answers.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
PAGE: Final = ROOT / "docs" / "flight.md"
SCENARIO: Final = "examples/flight.toml"
BLOCK: Final = re.compile(r"(<!-- tour -->\n```console\n)(.*?)(```\n)", re.DOTALL)
TYPED: Final = re.compile(r"^T\+\d+:\d\d:\d\d> (.*)$")


def typed_lines(block: str) -> list[str]:
    """What is typed in a block."""
    return [match[1] for line in block.splitlines() if (match := TYPED.match(line))]


def fly(lines: list[str]) -> list[list[str]]:
    """The answers of the console: for each line typed, the prompt with it and what followed.

    Raises:
        SystemExit: the console refused a line.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as procedure:
        procedure.write("\n".join(lines) + "\n")
        procedure.flush()
        command = [sys.executable, "-m", "hil.cli", "console", SCENARIO, procedure.name]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{PAGE}: the tour ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    answers: list[list[str]] = []
    for line in done.stdout.splitlines():
        if TYPED.match(line):
            answers.append([])
        answers[-1].append(line)
    return answers


def flown(text: str) -> str:
    """The page with the answers of the console as they are now."""
    counts = [len(typed_lines(match[2])) for match in BLOCK.finditer(text)]
    answers = iter(fly([line for match in BLOCK.finditer(text) for line in typed_lines(match[2])]))
    blocks = iter(["".join(f"{line.rstrip()}\n" for _ in range(count) for line in next(answers)) for count in counts])
    return BLOCK.sub(lambda match: match[1] + next(blocks) + match[3], text)


def main() -> int:
    """Print, or check; returns the exit code."""
    parser = argparse.ArgumentParser(description="Fly the tour of docs/flight.md.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the page is stale")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page")
    options = parser.parse_args()
    text = options.page.read_text(encoding="utf-8")
    fresh = flown(text)
    if fresh == text:
        return 0
    if options.check:
        print(f"{options.page}: the tour is stale; run make docs")
        return 1
    options.page.write_text(fresh, encoding="utf-8")
    print(f"{options.page}: printed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
